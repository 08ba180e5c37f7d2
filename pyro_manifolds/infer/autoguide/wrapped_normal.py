"""Mean-field guides of wrapped normals on manifolds and normals elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from operator import attrgetter
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.distributions.constraints import Constraint
from pyro.distributions.util import sum_rightmost
from pyro.infer.autoguide import AutoGuide
from pyro.infer.autoguide.initialization import InitMessenger, init_to_median
from pyro.infer.autoguide.utils import deep_setattr, helpful_support_errors
from pyro.nn import PyroModule, PyroParam
from pyro.ops.tensor_utils import periodic_repeat
from torch import Tensor
from torch.distributions import biject_to
from torch.distributions import constraints as torch_constraints

from pyro_manifolds.distributions import WrappedNormal
from pyro_manifolds.distributions.constraints import OnManifold
from pyro_manifolds.manifolds import FlatManifold, Manifold, Product
from pyro_manifolds.ops.tangent_normal import MAX_SCALE

__all__ = ["AutoWrappedNormal"]


class AutoWrappedNormal(AutoGuide):
    r"""Mean-field guide of wrapped normals on manifolds and of normals elsewhere.

    A latent site whose support is a manifold (``.to_event()`` of it included) is guided by a
    :class:`~pyro_manifolds.distributions.WrappedNormal` with its exact density on the manifold:
    there is no chart, no cut and no auxiliary variable. Its location is ``unembed`` of a free
    vector of the ambient space, its scale has one entry for each coordinate on flat manifolds and
    is isotropic on the others. Any other site is guided as by Pyro's ``AutoNormal``, by a normal
    in unconstrained space.

    Under ``Trace_ELBO``, minus the bound is never less than minus the log-evidence. Under
    ``TraceMeanField_ELBO`` this holds for the sites on manifolds and on the real line; for
    other constrained sites (a ``LogNormal``, say) Pyro drops the Jacobian there, as with
    ``AutoNormal``, and the number is no bound.

    Wrapped normals have one mode: a posterior with several is met at one of them.

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        model: Pyro model.
        init_loc_fn: Function that gives each site its first location, see Pyro's
            ``autoguide-initialization``.
        init_scale: First scale of the normals, as a fraction of the period on manifolds.
        create_plates: Function of the arguments of the model that returns its plates, for
            subsampling.

    Raises:
        ValueError: If ``init_scale`` is not positive, or one or more on a manifold that is not
            flat, where scales are bounded.

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
        create_plates: Callable[..., Any] | None = None,
    ) -> None:
        if not 0 < init_scale < math.inf:
            raise ValueError(f"AutoWrappedNormal: expected init_scale > 0, got {init_scale}")
        self.init_loc_fn = init_loc_fn
        self._init_scale = float(init_scale)
        super().__init__(InitMessenger(init_loc_fn)(model), create_plates=create_plates)

    def _setup_prototype(self, *args: Any, **kwargs: Any) -> None:
        super()._setup_prototype(*args, **kwargs)
        self.locs, self.scales = PyroModule(), PyroModule()
        self._event_dims: dict[str, int] = {}  # those in unconstrained space may differ
        for name, site in self._sites().items():
            with helpful_support_errors(site):
                loc, scale = self._initial_parameters(site)
            self._event_dims[name] = loc.event_dim
            for module, start in ((self.locs, loc), (self.scales, scale)):
                value = _to_full_size(start.value, site, start.event_dim)
                deep_setattr(module, name, PyroParam(value, start.constraint, start.event_dim))

    def _initial_parameters(self, site: dict[str, Any]) -> tuple[_Parameter, _Parameter]:
        value, event_dim = site["value"].detach(), site["fn"].event_dim
        manifold = _manifold_of(site)
        if manifold is None:
            loc = biject_to(site["fn"].support).inv(value).detach()
            scale = torch.full_like(loc, self._init_scale)
            event_dim += loc.dim() - value.dim()
            return (
                _Parameter(loc, constraints.real, event_dim),
                _Parameter(scale, self.scale_constraint, event_dim),
            )
        if self._init_scale >= 1 and not _is_flat(manifold):
            raise ValueError(
                f"AutoWrappedNormal: expected init_scale < 1 for site '{site['name']}' on "
                f"{manifold}, where scales are bounded, got {self._init_scale}"
            )
        outer = event_dim - manifold.ndim
        loc = manifold.embed(value)
        periods = loc.new_tensor(manifold.periods).reshape(manifold.scale_shape)
        scale = (self._init_scale * periods).expand(loc.shape[:-1] + manifold.scale_shape).clone()
        constraint = _scale_constraint(manifold, self.scale_constraint)
        return (
            _Parameter(loc, constraints.real, outer + 1),
            _Parameter(scale, constraint, outer + len(manifold.scale_shape)),
        )

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
                if _manifold_of(site) is None:
                    result[name] = self._sample_transformed(name, site)
                else:
                    result[name] = pyro.sample(name, self._posterior(name, site))
        return result

    def _sample_transformed(self, name: str, site: dict[str, Any]) -> Tensor:
        """Sample a site as AutoNormal does: a normal, and the image as a point mass."""
        unconstrained = pyro.sample(
            f"{name}_unconstrained", self._normal(name, site), infer={"is_auxiliary": True}
        )
        transform, event_dim = biject_to(site["fn"].support), site["fn"].event_dim
        value = transform(unconstrained)
        log_density: Any = 0.0
        if poutine.get_mask() is not False:
            log_density = transform.inv.log_abs_det_jacobian(value, unconstrained)
            log_density = sum_rightmost(log_density, log_density.dim() - value.dim() + event_dim)
        return pyro.sample(name, dist.Delta(value, log_density=log_density, event_dim=event_dim))

    def get_posterior(self, name: str) -> dist.TorchDistribution:
        """Return the guide's distribution of one site, on the space of the site.

        Under subsampling it is that of all data, with the full size of the plate.

        Args:
            name: Name of a latent site.

        Raises:
            RuntimeError: If the guide has not been called yet.
            KeyError: If there is no such latent site.
        """
        site = self._sites().get(name)
        if site is None:
            raise KeyError(
                f"AutoWrappedNormal: expected one of {sorted(self._sites())}, got {name!r}"
            )
        return self._posterior(name, site)

    @torch.no_grad()
    def median(self, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Return the median of each site; on a manifold, the location, a canonical point."""
        medians = {}
        for name, site in self._sites().items():
            loc, manifold = attrgetter(name)(self.locs), _manifold_of(site)
            point = (
                biject_to(site["fn"].support)(loc) if manifold is None else manifold.unembed(loc)
            )
            medians[name] = point.clone() if point is loc else point
        return medians

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
            NotImplementedError: If a site lies on a manifold that is not flat.
        """
        results = {}
        for name, site in self._sites().items():
            manifold = _manifold_of(site)
            if manifold is None:
                loc, scale = self._loc_and_scale(name)
                onto = biject_to(site["fn"].support)
            elif _is_flat(manifold):
                wrapped = self._wrapped_normal(name, manifold)
                loc, scale, onto = wrapped.loc, wrapped.scale, manifold.covering
            else:
                raise NotImplementedError(
                    f"AutoWrappedNormal: expected a flat manifold for quantiles of '{name}', got "
                    f"{manifold}; get_posterior('{name}') has the location and the scale, and "
                    "get_posterior of another site its quantiles, as icdf"
                )
            levels = torch.as_tensor(quantiles, dtype=loc.dtype, device=loc.device)
            levels = levels.reshape((-1,) + (1,) * loc.dim())
            results[name] = onto(dist.Normal(loc, scale).icdf(levels))
        return results

    def _sites(self) -> dict[str, dict[str, Any]]:
        if self.prototype_trace is None:
            raise RuntimeError(
                "AutoWrappedNormal: expected a guide that has seen its model; call the guide once"
            )
        return dict(self.prototype_trace.iter_stochastic_nodes())

    def _posterior(self, name: str, site: dict[str, Any]) -> Any:
        manifold = _manifold_of(site)
        if manifold is not None:
            outer = site["fn"].event_dim - manifold.ndim
            return self._wrapped_normal(name, manifold).to_event(outer)
        return dist.TransformedDistribution(
            self._normal(name, site), [biject_to(site["fn"].support)]
        )

    def _wrapped_normal(self, name: str, manifold: Manifold) -> WrappedNormal:
        loc, scale = self._loc_and_scale(name)
        return WrappedNormal(manifold, manifold.unembed(loc), scale)

    def _normal(self, name: str, site: dict[str, Any]) -> Any:
        """Return the normal in unconstrained space, whose event may have another shape."""
        loc, scale = self._loc_and_scale(name)
        return dist.Normal(loc, scale).to_event(self._event_dims[name])

    def _loc_and_scale(self, name: str) -> tuple[Tensor, Tensor]:
        """Read the parameters, those of the current subsample inside of plates."""
        return attrgetter(name)(self.locs), attrgetter(name)(self.scales)


class _Parameter(NamedTuple):
    value: Tensor
    constraint: Constraint
    event_dim: int


def _manifold_of(site: dict[str, Any]) -> Manifold | None:
    """Return the manifold on which a site lives, or None."""
    support = site["fn"].support
    while isinstance(support, torch_constraints.independent):
        support = support.base_constraint
    return support.manifold if isinstance(support, OnManifold) else None


def _is_flat(manifold: Manifold) -> bool:
    if isinstance(manifold, Product):
        return all(map(_is_flat, manifold.manifolds))
    return isinstance(manifold, FlatManifold)


def _scale_constraint(manifold: Manifold, positive: Constraint) -> Constraint:
    """Bound the scales of spheres and their quotients, where WrappedNormal does."""
    if isinstance(manifold, Product):
        parts = [_scale_constraint(factor, positive) for factor in manifold.manifolds]
        lengths = [factor.scale_shape.numel() for factor in manifold.manifolds]
        return positive if _is_flat(manifold) else constraints.cat(parts, -1, lengths)
    return positive if isinstance(manifold, FlatManifold) else constraints.interval(0.0, MAX_SCALE)


def _to_full_size(value: Tensor, site: dict[str, Any], event_dim: int) -> Tensor:
    """Repeat what was made for a subsample until there is one for each datum."""
    for frame in site["cond_indep_stack"]:
        full_size = frame.full_size or frame.size
        if full_size != frame.size:
            value = periodic_repeat(value, full_size, frame.dim - event_dim).contiguous()
    return value
