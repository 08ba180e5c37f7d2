"""From what Markov chains keep, noise and real parts, to points and complex numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, Predictive
from pyro.poutine.messenger import Messenger
from pyro.poutine.reparam_messenger import ReparamHandler
from pyro.poutine.util import prune_subsample_sites, site_is_subsample
from torch import Size, Tensor

from pyro_manifolds.distributions.adoption import adopt, manifold_of
from pyro_manifolds.manifolds import Manifold

__all__ = ["manifold_samples", "manifolds_of"]

Model: TypeAlias = Callable[..., Any]

_MOVED_TO = ("noise", "cover", "ri")  # what our reparameterisations append to the name of a site


def manifolds_of(model: Model, *args: Any, **kwargs: Any) -> dict[str, Manifold]:
    """Return the manifold of each latent site that lives on one, those of Pyro's own included.

    Args:
        model: Pyro model, reparameterised by ``poutine.reparam`` or a strategy or not at all.
        *args: Arguments of the model.
        **kwargs: Keyword arguments of the model.

    Example:
        >>> from pyro_manifolds.infer import manifolds_of
        >>> def model():
        ...     pyro.sample("z", ManifoldUniform(Sphere(2)))
        ...     pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        >>> manifolds_of(AutoManifoldReparam()(model))
        {'z': Sphere(2)}
    """
    while isinstance(model, ReparamHandler):
        model = model.fn
    with torch.no_grad(), _Adopting():
        trace = poutine.trace(model).get_trace(*args, **kwargs)
    trace = prune_subsample_sites(trace)
    laws: dict[str, Any] = {name: node["fn"] for name, node in trace.iter_stochastic_nodes()}
    found = {name: manifold_of(law) for name, law in laws.items()}
    return {name: manifold for name, manifold in found.items() if manifold is not None}


class _Adopting(Messenger):
    """Draw from our version of Pyro's distributions, of which one has no sampler."""

    def _pyro_sample(self, msg: Any) -> None:
        if not site_is_subsample(msg):
            msg["fn"] = adopt(msg["fn"]) or msg["fn"]


def manifold_samples(
    model: Model,
    mcmc: MCMC | Mapping[str, Tensor],
    *args: Any,
    **kwargs: Any,
) -> dict[str, Tensor]:
    """Return the draws of all latent sites, on their manifolds and grouped by chain.

    Markov chains over a reparameterised model keep the noise ``z_noise`` only. Here the model is
    run on each draw, which turns the noise into the point ``z``; sites that were not
    reparameterised come along, and the noise is left out. The parts ``z_ri`` of a complex site
    become complex numbers ``z``.

    Args:
        model: The model that the kernel had, reparameterisation included.
        mcmc: What has run, or its ``get_samples(group_by_chain=True)``.
        *args: Arguments of the model.
        **kwargs: Keyword arguments of the model.

    Returns:
        Draws by site, each of shape ``[chains, draws, *batch_shape, *event_shape]``.

    Raises:
        ValueError: If there are no draws, or they have no dimension for the chains.

    Example:
        >>> from pyro_manifolds.infer import manifold_samples
        >>> @AutoManifoldReparam()
        ... def model():
        ...     pyro.sample("z", ManifoldUniform(KleinBottle()))
        >>> noise = torch.randn(2, 5, 5)  # of two chains of five draws; as if from MCMC
        >>> {k: v.shape for k, v in manifold_samples(model, {"z_noise": noise}).items()}
        {'z': torch.Size([2, 5, 2])}
    """
    noise = mcmc if isinstance(mcmc, Mapping) else mcmc.get_samples(group_by_chain=True)
    groups = {tuple(draws.shape[:2]) for draws in noise.values()}
    if len(groups) != 1 or min(map(len, groups)) < 2:
        shapes = {name: tuple(draws.shape) for name, draws in noise.items()}
        raise ValueError(
            "manifold_samples: expected draws with dimensions [chains, draws] in front, the same "
            f"for all sites, got {shapes}; take get_samples(group_by_chain=True)"
        )
    ((chains, size),) = groups
    flat = {name: draws.flatten(0, 1) for name, draws in noise.items()}
    points, left_out = _moved_sites(model, flat, *args, **kwargs)
    predictive = Predictive(model, flat, return_sites=list(points))
    drawn = predictive(*args, **kwargs) if points else {}
    found = {name: drawn[name].reshape(chains, size, *shape) for name, shape in points.items()}
    return found | {name: draws for name, draws in noise.items() if name not in left_out}


def _moved_sites(
    model: Model, flat: Mapping[str, Tensor], *args: Any, **kwargs: Any
) -> tuple[dict[str, Size], set[str]]:
    """Find the sites that were made of noise, with their shapes, and the noise."""
    first = {name: draws[0] for name, draws in flat.items()}
    with torch.no_grad():
        trace = poutine.trace(poutine.condition(model, first)).get_trace(*args, **kwargs)
    nodes: dict[str, Any] = dict(trace.nodes)
    nodes = {name: node for name, node in nodes.items() if node["type"] == "sample"}
    parts = {
        name: {f"{name}_{kind}" for kind in _MOVED_TO} & nodes.keys()
        for name, node in nodes.items()
        if _is_point(node["fn"]) and not node["infer"].get("_deterministic")
    }
    left_out = set().union(*parts.values())
    moved = [name for name, found in parts.items() if found and name not in left_out]
    return {name: nodes[name]["value"].shape for name in moved}, left_out


def _is_point(law: Any) -> bool:
    """Tell whether a site is what a reparameterisation leaves: a point mass, masked or not."""
    while isinstance(law, dist.MaskedDistribution | torch.distributions.Independent):
        law = law.base_dist
    return isinstance(law, dist.Delta)
