"""Importance weights of draws from a guide."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.infer.inspect import get_model_relations
from pyro.poutine.util import site_is_subsample
from torch import Tensor

__all__ = ["log_importance_weights"]

_PARTICLES = "evidence_particles"


def log_importance_weights(
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    num_particles: int,
    chunk_size: int | None = None,
    max_plate_nesting: int = 1,
    **kwargs: Any,
) -> Tensor:
    r"""Draw :math:`\log p(x, z) - \log q(z \mid x)` from a guide.

    Where one plate, or several, hold everything that is random in model and guide, the data in
    them are independent, and each has weights of its own. Otherwise (a latent of all data, or
    a guide that treats them as one, as ``AutoMultivariateNormal`` does) they have one together.

    Draws are vectorised in a plate to the left of those of the model, which must be written for
    that, as for ``vectorize_particles`` of Pyro's ELBOs. Masks count and scales do not: weights
    are those of the data at hand, also under subsampling.

    A latent site that the guide leaves out is drawn from the prior, and its densities cancel.
    Sites that only the guide has must be marked ``infer={"is_auxiliary": True}``. Those that it
    carries over to a ``Delta`` count, as in Pyro's own guides; it is a mixture over the others.

    Args:
        model: Pyro model.
        guide: Guide of that model; called before, if it creates its parameters then.
        *args: Arguments of both.
        num_particles: Number of draws.
        chunk_size: Number of draws at a time, to bound the memory; all of them by default.
        max_plate_nesting: Number of dimensions of the plates of the model.
        **kwargs: Keyword arguments of both.

    Returns:
        Log-weights of shape ``[num_particles, data]``, with as many dimensions of data as there
        are plates that hold everything, or none.

    Raises:
        ValueError: If ``num_particles`` or ``chunk_size`` is not positive, or a latent site of the
            guide is not one of the model and not auxiliary.

    Example:
        >>> def model(x):
        ...     with pyro.plate("data", len(x)):
        ...         z = pyro.sample("z", dist.Normal(0.0, 1.0))
        ...         pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        >>> def guide(x):
        ...     with pyro.plate("data", len(x)):
        ...         pyro.sample("z", dist.Normal(x / 2, 0.5**0.5))
        >>> from pyro_manifolds.infer import log_importance_weights
        >>> log_importance_weights(model, guide, torch.zeros(2), num_particles=3)
        tensor([[-1.2655, -1.2655],
                [-1.2655, -1.2655],
                [-1.2655, -1.2655]])
    """
    chunk_size = num_particles if chunk_size is None else chunk_size
    for name, number in (("num_particles", num_particles), ("chunk_size", chunk_size)):
        if number < 1:
            raise ValueError(
                f"log_importance_weights: expected {name} of at least 1, got {number}"
            )
    chunks: list[Tensor] = []
    with torch.no_grad():
        for drawn in range(0, num_particles, chunk_size):
            count, dim = min(chunk_size, num_particles - drawn), -1 - max_plate_nesting
            with pyro.plate(_PARTICLES, count, dim=dim):
                guide_trace = poutine.trace(guide).get_trace(*args, **kwargs)
                replayed = poutine.replay(model, guide_trace)
                model_trace = poutine.trace(replayed).get_trace(*args, **kwargs)
            if not chunks:
                skipped = _integrated_out(guide, guide_trace, model_trace, args, kwargs)
            chunks.append(_log_weights(model_trace, guide_trace, skipped, dim))
    return torch.cat(chunks)


def _integrated_out(
    guide: Callable[..., Any],
    guide_trace: poutine.Trace,
    model_trace: poutine.Trace,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
) -> set[str]:
    """Return the auxiliary sites of the guide whose density is not part of a weight."""
    lone = set()
    for name, site in _sites(guide_trace).items():
        theirs = model_trace.nodes.get(name)
        if site["is_observed"] or (theirs is not None and not theirs["is_observed"]):
            continue
        if theirs is not None or not site["infer"].get("is_auxiliary"):
            raise ValueError(
                "log_importance_weights: expected the latent sites of the guide in the model, got "
                f"'{name}', which it {'observes' if theirs else 'has not'}; reparameterise both "
                'or neither, and mark what only the guide has with infer={"is_auxiliary": True}'
            )
        lone.add(name)
    if not lone:
        return lone
    relations = get_model_relations(guide, args, dict(kwargs))
    carried_over = {
        parent
        for name, parents in relations["sample_sample"].items()
        if relations["sample_dist"][name] == "Delta"
        for parent in parents
    }
    return lone - carried_over


def _log_weights(
    model_trace: poutine.Trace, guide_trace: poutine.Trace, skipped: set[str], dim: int
) -> Tensor:
    """Add up what counts in two traces, over all plates but those that hold everything."""
    model_sites, guide_sites = _sites(model_trace), _sites(guide_trace)
    ours = [site for name, site in guide_sites.items() if name not in skipped]
    theirs = [
        site for name, site in model_sites.items() if site["is_observed"] or name in guide_trace
    ]
    kept = _common_dims([*model_sites.values(), *guide_sites.values()])
    guide_trace.compute_log_prob()
    model_trace.compute_log_prob()
    terms = [_reduced(site, kept, -dim) for site in theirs]
    terms += [-_reduced(site, kept, -dim) for site in ours]
    total = torch.stack(torch.broadcast_tensors(*terms)).sum(0)
    return total.reshape([total.shape[d] for d in kept])


def _common_dims(sites: Sequence[Mapping[str, Any]]) -> list[int]:
    """Return the dimensions of the plates that hold all sites, those that cancel included."""
    plates = [{(f.name, f.dim) for f in s["cond_indep_stack"] if f.vectorized} for s in sites]
    if not plates:
        raise ValueError("log_importance_weights: expected a model with sites, got none")
    return sorted(dim for _, dim in set.intersection(*plates))


def _sites(trace: poutine.Trace) -> dict[str, Any]:
    """Return the sites that may have a density."""
    nodes: dict[str, Any] = dict(trace.nodes)
    return {
        name: site
        for name, site in nodes.items()
        if site["type"] == "sample"
        and not site_is_subsample(site)
        and not site["infer"].get("_deterministic")
    }


def _reduced(site: Mapping[str, Any], kept: Iterable[int], ndim: int) -> Tensor:
    """Sum a log-density, masked but not scaled, over all of ``ndim`` dimensions but some."""
    term = scale_and_mask(site["unscaled_log_prob"], mask=site["mask"])
    if term.dim() > ndim:
        raise ValueError(
            f"log_importance_weights: expected at most {ndim - 1} batch dimensions at site "
            f"'{site['name']}', got {term.dim() - 1}; pass max_plate_nesting"
        )
    term = term.reshape((1,) * (ndim - term.dim()) + term.shape)
    summed = [d for d in range(-ndim, 0) if d not in kept]
    return term.sum(summed, keepdim=True) if summed else term  # no dimensions would mean all
