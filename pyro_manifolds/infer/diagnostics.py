"""Diagnosing Markov chains on manifolds: in embedded coordinates, which no seam cuts.

Complex numbers are diagnosed by their real and imaginary parts.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch import Tensor

from pyro_manifolds.distributions.transforms import RealToComplex
from pyro_manifolds.infer.chains import Model, manifolds_of
from pyro_manifolds.manifolds import Euclidean, Manifold

if TYPE_CHECKING:
    import arviz

__all__ = ["ManifoldSummary", "SiteSummary", "manifold_summary", "to_arviz"]

_HEADER = ("", "mean", "dispersion", "r_hat", "n_eff")
_KARCHER_STEPS = 20
_PLANE, _PAIRS = Euclidean(2), RealToComplex()
_COORDINATES_AT_A_TIME = 64  # the effective sample size takes memory by the square of the draws


class SiteSummary(NamedTuple):
    r"""What the chains say of one site, for each point of its batch shape.

    Attributes:
        mean: Intrinsic mean of all draws, a point that minimises the mean squared distance.
        dispersion: Root of that mean squared distance.
        r_hat: Split :math:`\hat R` of Gelman and Rubin, the worst over embedded coordinates.
        n_eff: Effective sample size, the smallest over embedded coordinates.
    """

    mean: Tensor
    dispersion: Tensor
    r_hat: Tensor
    n_eff: Tensor


class ManifoldSummary(Mapping[str, SiteSummary]):
    """A :class:`SiteSummary` for each site by name; prints as a table with a line for each point.

    Args:
        sites: Summaries by name.
    """

    def __init__(self, sites: Mapping[str, SiteSummary]) -> None:
        self._sites = dict(sites)

    def __getitem__(self, name: str) -> SiteSummary:
        return self._sites[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    def __str__(self) -> str:
        lines = [_HEADER, *(line for name, site in self.items() for line in _lines(name, site))]
        first, second, *others = (max(map(len, column)) for column in zip(*lines, strict=True))
        return "\n".join(
            f"{line[0]:<{first}}  {line[1]:<{second}}"
            + "".join(f"  {cell:>{w}}" for cell, w in zip(line[2:], others, strict=True))
            for line in lines
        )


def _lines(name: str, site: SiteSummary) -> Iterator[tuple[str, ...]]:
    for at in itertools.product(*map(range, site.r_hat.shape)):
        label = f"{name}[{', '.join(map(str, at))}]" if at else name
        point = " ".join(map(_printed, site.mean[at].flatten().tolist()))
        numbers = (f"{site.dispersion[at]:.2f}", f"{site.r_hat[at]:.2f}", f"{site.n_eff[at]:.0f}")
        yield label, point, *numbers


def _printed(x: float | complex) -> str:
    if isinstance(x, complex):
        return f"{complex(round(x.real, 2) + 0.0, round(x.imag, 2) + 0.0):.2f}"
    return f"{round(x, 2) + 0.0:.2f}"  # minus zero prints as zero


def manifold_summary(
    samples: Mapping[str, Tensor],
    manifolds: Mapping[str, Manifold] | Model,
    *args: Any,
    **kwargs: Any,
) -> ManifoldSummary:
    r"""Summarise chains of points: intrinsic mean and dispersion, :math:`\hat R`, sample size.

    An angle near :math:`\pm\pi` jumps from one end of its interval to the other. Jumps drown what
    a chain remembers, so that :math:`\hat R` and sample sizes of angles are too good there: chains
    on opposite sides of the circle may pass for converged. Embedded coordinates have no seam and
    tell all points of a manifold apart.

    Complex draws, which ``MCMC.summary`` refuses, are summarised too, each number for itself: by
    their mean, the root of :math:`E|z - Ez|^2`, and the worse of the real and imaginary part.

    References:
        | Bayesian Data Analysis (Gelman, Carlin, Stern, Dunson, Vehtari and Rubin, 2013), 11.4
        | Practical Markov Chain Monte Carlo (Geyer, 1992)

    Args:
        samples: Draws by site, of shape ``[chains, draws, *batch_shape, *event_shape]``, as from
            :func:`~pyro_manifolds.infer.chains.manifold_samples`.
        manifolds: Manifold of each site that is to be summarised, or the model, which tells them.
        *args: Arguments of the model, if it is given.
        **kwargs: Keyword arguments of the model.

    Raises:
        ValueError: If a site is missing, its draws have another shape or are less than four in a
            chain; or if the model has no latent site on a manifold and no draws are complex.

    Example:
        >>> from pyro_manifolds.infer import manifold_summary
        >>> swing = 0.4 * torch.arange(200.0).sin()
        >>> opposite = Circle().project(torch.stack([swing, swing + math.pi]))
        >>> pyro.ops.stats.split_gelman_rubin(opposite)  # two chains that never met
        tensor(0.9951)
        >>> print(manifold_summary({"z": opposite}, {"z": Circle()}))
           mean   dispersion  r_hat  n_eff
        z  -1.57        1.60  39.50      1
    """
    pairs = {name: _PAIRS.inv(draws) for name, draws in samples.items() if draws.is_complex()}
    if not isinstance(manifolds, Mapping):
        found = manifolds_of(manifolds, *args, **kwargs)
        if not found and not pairs:
            raise ValueError(
                "manifold_summary: expected a model with latent sites on manifolds, found none; "
                "if it reparameterises them itself, pass the manifold of each site by name"
            )
        manifolds = found
    draws = {name: _checked(name, samples, manifold) for name, manifold in manifolds.items()}
    sites = {name: _summarise(draws[name], m) for name, m in manifolds.items()}
    for name in pairs:
        site = _summarise(_checked(name, pairs, _PLANE), _PLANE)
        sites[name] = site._replace(mean=_PAIRS(site.mean))
    return ManifoldSummary(sites)


def _checked(name: str, samples: Mapping[str, Tensor], manifold: Manifold) -> Tensor:
    if name not in samples:
        raise ValueError(
            f"manifold_summary: expected draws of '{name}', got those of {sorted(samples)}; "
            "manifold_samples turns noise into points"
        )
    shape, event = samples[name].shape, tuple(manifold.event_shape)
    if len(shape) < 2 + len(event) or shape[len(shape) - len(event) :] != event or shape[1] < 4:
        raise ValueError(
            f"manifold_summary: expected draws of '{name}' of shape [chains, draws, ..., "
            f"*{event}] with at least 4 draws, got {tuple(shape)}; take "
            "get_samples(group_by_chain=True)"
        )
    return samples[name].detach()


def _summarise(draws: Tensor, manifold: Manifold) -> SiteSummary:
    # In double precision: near a pole of the embedding coordinates hardly change.
    draws, dtype = draws.double(), draws.dtype
    embedded, joined = manifold.embed(draws), draws.flatten(0, 1)
    mean = _intrinsic_mean(joined, embedded.flatten(0, 1), manifold)
    dispersion = manifold.dist(mean.expand_as(joined), joined).square().mean(0).sqrt()
    parts = embedded.flatten(2).split(_COORDINATES_AT_A_TIME, -1)
    r_hat = torch.cat([split_gelman_rubin(part) for part in parts], -1)
    n_eff = torch.cat([effective_sample_size(part) for part in parts], -1)
    shape = embedded.shape[2:]
    worst = _largest(r_hat.reshape(shape)), -_largest(-n_eff.reshape(shape))
    return SiteSummary(*(value.to(dtype) for value in (mean, dispersion, *worst)))


def _largest(values: Tensor) -> Tensor:
    """Return the largest over the coordinates, without those that never change."""
    infinity = torch.inf
    known = values.nan_to_num(nan=-infinity, posinf=infinity, neginf=-infinity).amax(-1)
    return torch.where(values.isnan().all(-1), torch.nan, known)


def _intrinsic_mean(draws: Tensor, embedded: Tensor, manifold: Manifold) -> Tensor:
    """Climb down from the projected mean of the embedded draws, along mean geodesics."""
    mean = manifold.unembed(embedded.mean(0))
    for _ in range(_KARCHER_STEPS):
        mean = manifold.expmap(mean, manifold.logmap(mean.expand_as(draws), draws).mean(0))
    return mean


def to_arviz(
    samples: Mapping[str, Tensor], manifolds: Mapping[str, Manifold] | Model, **kwargs: Any
) -> arviz.InferenceData:
    """Return draws as ArviZ's ``InferenceData``, those on manifolds in embedded coordinates.

    Rank-normalised R-hat, bulk and tail sample sizes, and all plots of ArviZ are then right at
    every seam. Needs ArviZ, of the extra ``diagnostics``.

    Args:
        samples: Draws by site, as from :func:`~pyro_manifolds.infer.chains.manifold_samples`.
            Complex ones become real and imaginary parts; those of other sites without a manifold
            are passed on as they are.
        manifolds: Manifold of each site that has one, or a model without arguments.
        **kwargs: Passed on to ``arviz.from_dict``.

    Raises:
        ImportError: If ArviZ is not installed.

    Example:
        >>> from pyro_manifolds.infer import to_arviz
        >>> draws = {"z": torch.zeros(2, 10, 3)}
        >>> to_arviz(draws, {"z": Circle()}).posterior["z"].dims  # doctest: +SKIP
        ('chain', 'draw', 'z_dim_0', 'z_coordinate')
    """
    try:
        import arviz
    except ImportError as error:
        raise ImportError(
            "to_arviz: expected ArviZ to be installed; pip install 'pyro-manifolds[diagnostics]'"
        ) from error
    known = manifolds if isinstance(manifolds, Mapping) else manifolds_of(manifolds)
    posterior, dims = {}, {}
    for name, draws in samples.items():
        posterior[name] = draws.detach().cpu().numpy()
        if name in known:
            embedded = known[name].embed(_checked(name, samples, known[name]))
            posterior[name] = embedded.cpu().numpy()
            dims[name] = _dims(name, embedded, "coordinate")
        elif draws.is_complex():
            parts = _PAIRS.inv(draws.detach())
            posterior[name] = parts.cpu().numpy()
            dims[name] = _dims(name, parts, "part")
    return arviz.from_dict(posterior=posterior, dims=dims, **kwargs)


def _dims(name: str, draws: Tensor, last: str) -> list[str]:
    return [*(f"{name}_dim_{i}" for i in range(draws.dim() - 3)), f"{name}_{last}"]
