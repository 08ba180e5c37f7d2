"""Mean-field guides of wrapped normals on manifolds and normals elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from operator import attrgetter
from typing import Any

import geoopt
import pyro
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.initialization import InitMessenger, init_to_median
from pyro.infer.autoguide.utils import deep_setattr, helpful_support_errors
from pyro.nn import PyroModule, PyroParam
from pyro.ops.tensor_utils import periodic_repeat
from torch import Tensor

from pyro_manifolds.distributions.adoption import adopt, manifold_of
from pyro_manifolds.infer.autoguide.sites import (
    EmbeddedSite,
    ManifoldSite,
    MixtureSite,
    NormalSite,
    Parameter,
    image_of,
)

__all__ = ["AutoWrappedNormal"]


class AutoWrappedNormal(AutoGuide):
    r"""Mean-field guide of wrapped normals on manifolds and of normals elsewhere.

    A latent site whose support is a manifold (``.to_event()`` of it included), or one of Pyro's
    own distributions on circles, tori and spheres (``VonMises``, declared real, and others), is
    guided by a :class:`~pyro_manifolds.distributions.WrappedNormal` with its exact density on the
    manifold: there is no chart, no cut and no auxiliary variable. Its location is ``unembed`` of
    a free vector of the ambient space, its scale has one entry for each coordinate on flat
    manifolds and is isotropic on the others. On the image of a manifold under an embedding, that
    law is pushed through the same embedding, with one component. Any other site is guided by a
    normal in unconstrained space, as by Pyro's ``AutoNormal``, but without its auxiliary site.
    Every site is drawn from its density, so minus the bound is never less than minus the
    log-evidence, under each ELBO of Pyro, ``TraceMeanField_ELBO`` included.

    One wrapped normal has one mode. For a posterior with several, ``num_components`` makes every
    site on a manifold a mixture with weights of its own, and the bound that of the exact
    mixture. The first component starts where ``init_loc_fn`` says, the others at draws of
    the prior that are far apart. A component that starts out of reach of every mode can lose its
    weight for good: where modes are narrow, start the first at one of them, by ``init_to_value``.
    Locations and scales have pathwise gradients, weights have their score with a running
    baseline: unbiased under ``Trace_ELBO``, ``TraceGraph_ELBO``, ``TraceEnum_ELBO`` and, without
    the baseline, ``JitTrace_ELBO``. ``TraceMeanField_ELBO`` takes no scores and refuses.

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        model: Pyro model.
        init_loc_fn: Function that gives each site its first location, see Pyro's
            ``autoguide-initialization``.
        init_scale: First scale of the normals, as a fraction of the period on manifolds.
        num_components: Number of wrapped normals in the guide of a site on a manifold.
        location: ``"embedded"`` for free vectors, which any optimiser may move; ``"manifold"`` for
            points, as :class:`geoopt.ManifoldParameter`, for geoopt's optimisers.
        create_plates: Function of the arguments of the model that returns its plates, for
            subsampling.

    Raises:
        ValueError: If ``init_scale`` is not positive, or one or more on a manifold that is not
            flat, where scales are bounded, if ``num_components`` is not a positive number, or
            ``location`` neither of the two.

    Example:
        >>> def model():
        ...     z = pyro.sample("z", ManifoldUniform(KleinBottle()))
        ...     scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        ...     pyro.sample("x", dist.Normal(KleinBottle().embed(z), scale).to_event(1))
        >>> from pyro_manifolds.infer.autoguide import AutoWrappedNormal
        >>> guide = AutoWrappedNormal(poutine.condition(model, {"x": torch.ones(5)}))
        >>> {name: value.shape for name, value in guide().items()}
        {'z': torch.Size([2]), 'scale': torch.Size([])}
        >>> guide.get_posterior("z").scale.detach()
        tensor([0.3142, 0.6283])
    """

    scale_constraint = constraints.softplus_positive

    def __init__(
        self,
        model: Callable[..., Any],
        *,
        init_loc_fn: Callable[..., Any] = init_to_median,
        init_scale: float = 0.1,
        num_components: int = 1,
        location: str = "embedded",
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        if not 0 < init_scale < math.inf:
            raise ValueError(f"AutoWrappedNormal: expected init_scale > 0, got {init_scale}")
        if not (isinstance(num_components, int) and num_components >= 1):
            raise ValueError(
                f"AutoWrappedNormal: expected num_components of at least 1, got {num_components}"
            )
        if location not in ("embedded", "manifold"):
            raise ValueError(
                f"AutoWrappedNormal: expected location 'embedded' or 'manifold', got {location!r}"
            )
        self.init_loc_fn = init_loc_fn
        self._init_scale = float(init_scale)
        self._num_components = num_components
        self._embedded = location == "embedded"
        init = InitMessenger(partial(_first_value, init_loc_fn))
        super().__init__(init(model), create_plates=create_plates)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.locs, self.scales = PyroModule(), PyroModule()
        if self._num_components > 1:
            self.weights, self.baselines = PyroModule(), PyroModule()
        self._guides: dict[str, NormalSite | ManifoldSite] = {}
        # Modules that hold values of a site; with event dimensions for what is no PyroParam.
        self._held: dict[str, dict[str, int | None]] = {}
        for name, site in self._sites().items():
            with helpful_support_errors(site):
                guide = self._guide_of(site)
            start = guide.parameters(site, self._init_scale, self.scale_constraint)
            self._guides[name], self._held[name] = guide, {}
            if isinstance(guide, MixtureSite):
                deep_setattr(self.baselines, name, guide.baseline)  # for state_dict and devices
            for kind, parameter in start.items():
                self._hold(name, site, kind, parameter)

    def _guide_of(self, site: dict[str, Any]) -> NormalSite | ManifoldSite:
        image = image_of(site["fn"].support)
        if image is not None and self._num_components == 1:
            return EmbeddedSite(site, image, self._embedded)
        manifold = manifold_of(site["fn"])
        if manifold is None:
            return NormalSite(site)
        if self._num_components == 1:
            return ManifoldSite(site, manifold, self._embedded)
        return MixtureSite(site, manifold, self._embedded, self._num_components)

    def _hold(self, name: str, site: dict[str, Any], kind: str, start: Parameter) -> None:
        value = _to_full_size(start.value, site, start.event_dim)
        on_manifold = start.manifold is not None
        held: Any = PyroParam(value, start.constraint, start.event_dim)
        if on_manifold:
            held = geoopt.ManifoldParameter(value.detach().clone(), manifold=start.manifold)
        deep_setattr(getattr(self, kind), name, held)
        self._held[name][kind] = start.event_dim if on_manifold else None

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Sample every latent site; takes the arguments of the model."""
        if self.prototype_trace is None:
            self._setup_prototype(*args, **kwargs)
        plates, result = self._create_plates(*args, **kwargs), {}
        for name, site in self._sites().items():
            with ExitStack() as stack:
                for frame in site["cond_indep_stack"]:
                    if frame.vectorized:
                        stack.enter_context(plates[frame.name])
                result[name] = pyro.sample(name, self._posterior(name))
        return result

    def get_posterior(self, name: str) -> TorchDistribution:
        """Return the guide's distribution of one site, on the space of the site.

        Under subsampling it is that of all data, with the full size of the plate. A mixture has
        ``mixture_distribution`` and ``component_distribution``.

        Args:
            name: Name of a latent site.

        Raises:
            RuntimeError: If the guide has not been called yet.
            KeyError: If there is no such latent site.
        """
        if name not in self._sites():
            raise KeyError(
                f"AutoWrappedNormal: expected one of {sorted(self._sites())}, got {name!r}"
            )
        return self._posterior(name)

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the median of each site.

        On a manifold it is the location, a canonical point; of a mixture, that of the heaviest
        component.
        """
        medians = {name: self._guides[name].median(**self._values(name)) for name in self._sites()}
        return {name: value.clone() for name, value in medians.items()}

    @torch.no_grad()
    def quantiles(
        self, quantiles: Tensor | Sequence[float], *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        """Return quantiles of each site, stacked in front.

        On a flat manifold each coordinate of the cover has its own quantiles, those of the
        normal before wrapping; they are mapped to the manifold, so that quantiles more than
        a period apart have gone round.

        Args:
            quantiles: Probabilities.
            *args: Not used.
            **kwargs: Not used.

        Raises:
            NotImplementedError: If a site lies on a manifold that is not flat, or has several
                components.
        """
        levels = torch.as_tensor(quantiles)
        return {
            name: self._guides[name].quantiles(name, levels, **self._values(name))
            for name in self._sites()
        }

    def _sites(self) -> dict[str, dict[str, Any]]:
        if self.prototype_trace is None:
            raise RuntimeError(
                "AutoWrappedNormal: expected a guide that has seen its model; call the guide once"
            )
        return dict(self.prototype_trace.iter_stochastic_nodes())

    def _posterior(self, name: str) -> TorchDistribution:
        return self._guides[name].posterior(**self._values(name))

    def _values(self, name: str) -> dict[str, Tensor]:
        """Read the parameters, those of the current subsample inside of plates."""
        values = {}
        for kind, event_dim in self._held[name].items():
            value = attrgetter(name)(getattr(self, kind))
            values[kind] = (
                value if event_dim is None else pyro.subsample(value, event_dim=event_dim)
            )
        return values


def _first_value(init_loc_fn: Callable[..., Any], site: dict[str, Any]) -> Any:
    """Initialise a site, drawing from our version of it where Pyro's has no sampler."""
    try:
        return init_loc_fn(site)
    except NotImplementedError:
        fn = adopt(site["fn"])
        if fn is None:
            raise
        return init_loc_fn({**site, "fn": fn})


def _to_full_size(value: Tensor, site: dict[str, Any], event_dim: int) -> Tensor:
    """Repeat what was made for a subsample until there is one for each datum."""
    for frame in site["cond_indep_stack"]:
        full_size = frame.full_size or frame.size
        if full_size != frame.size:
            value = periodic_repeat(value, full_size, frame.dim - event_dim).contiguous()
    return value
