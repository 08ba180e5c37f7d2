"""Divergences: the registered ones are exact; bounds and estimates have names of their own."""

import math

import torch
from pyro.distributions import Delta, Independent, TorchDistribution, Uniform
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from pyro_manifolds.distributions.concatenated import Concatenated
from pyro_manifolds.distributions.covering_pushforward import CoveringPushforward
from pyro_manifolds.distributions.embedding_pushforward import EmbeddingPushforward
from pyro_manifolds.distributions.hyperbolic_normal import HyperbolicNormal
from pyro_manifolds.distributions.manifold_mixture import ManifoldMixture
from pyro_manifolds.distributions.manifold_uniform import ManifoldUniform
from pyro_manifolds.distributions.moved import Moved
from pyro_manifolds.distributions.normalizing_flow import NormalizingFlow
from pyro_manifolds.distributions.power_spherical import PowerSpherical
from pyro_manifolds.distributions.projected_normal import ProjectedNormal
from pyro_manifolds.distributions.rotational import RotationalDistribution
from pyro_manifolds.distributions.spherical_cauchy import SphericalCauchy
from pyro_manifolds.distributions.von_mises import VonMises
from pyro_manifolds.distributions.von_mises_fisher import VonMisesFisher
from pyro_manifolds.distributions.wrapped_normal import WrappedNormal
from pyro_manifolds.manifolds import Circle, FlatManifold, Torus
from pyro_manifolds.ops import von_mises
from pyro_manifolds.ops.spherical_cauchy import kl_spherical_cauchy
from pyro_manifolds.ops.von_mises_fisher_kl import (
    kl_power_spherical_von_mises_fisher,
    kl_von_mises_fisher,
)
from pyro_manifolds.ops.wrapped_normal import wrapped_normal_kl_to_uniform

__all__ = ["covering_kl_bound", "covering_kl_estimate"]


def covering_kl_bound(q: CoveringPushforward, p: CoveringPushforward | ManifoldUniform) -> Tensor:
    r"""Divergence on the cover, an upper bound of the divergence on the manifold.

    Data processing gives :math:`KL_M(\pi_* q \| \pi_* p) \le KL_{\tilde X}(q \| p)`. On the
    universal cover the gap is unbounded and depends on the lifts of the locations. Against the
    uniform distribution of a flat manifold the cover is the one with finitely many sheets (the
    torus over the Klein bottle), and the gap at most the logarithm of their number.

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        q: Distribution pushed forward through a covering.
        p: Distribution pushed forward through the same covering, or the uniform distribution.

    Returns:
        Upper bounds of shape ``batch_shape``.

    Raises:
        TypeError: If ``q`` is not a pushforward, ``p`` neither that nor uniform, or ``p`` uniform
            and ``q`` not a wrapped normal on a flat manifold.
        ValueError: If the coverings differ.

    Example:
        >>> loc = torch.tensor([1.0, 0.2])
        >>> q = WrappedNormal(KleinBottle(), loc, torch.tensor([1.0, 0.5]))
        >>> covering_kl_bound(q, ManifoldUniform(KleinBottle()))
        tensor(1.5358)
    """
    _check_pair("covering_kl_bound", q, p)
    if isinstance(p, CoveringPushforward):
        return kl_divergence(q.base_dist, p.base_dist)
    return _kl_to_uniform_on_lattice(q)


def covering_kl_estimate(
    q: CoveringPushforward, p: ManifoldUniform, num_samples: int = 1
) -> Tensor:
    r"""Unbiased estimate of the divergence to the uniform distribution, of little variance.

    With the finite deck group :math:`G` over a flat manifold and :math:`q` on its cover,

    .. math:: KL_M = KL_{\tilde X} - \log |G| + E_{x \sim q} \log \sum_{g \in G} q(gx) / q(x)

    Only the last term is sampled. It lies between zero and :math:`\log |G|`, and vanishes with its
    variance where ``q`` is narrow. Single estimates may be negative; they are not clamped, for
    that would bias them.

    References:
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        q: Wrapped normal on a flat manifold.
        p: Uniform distribution on the same manifold.
        num_samples: Number of draws.

    Returns:
        Estimates of shape ``batch_shape``, with pathwise gradients.

    Raises:
        TypeError: If ``q`` is not a wrapped normal or ``p`` not uniform.
        ValueError: If the manifolds differ or ``num_samples`` is not positive.

    Example:
        >>> q = WrappedNormal(KleinBottle(), torch.tensor([0.3, 0.2]), 0.1)
        >>> covering_kl_estimate(q, ManifoldUniform(KleinBottle()))
        tensor(4.7499)
    """
    if not isinstance(p, ManifoldUniform):
        raise TypeError(
            f"covering_kl_estimate: expected p to be ManifoldUniform, got {type(p).__name__}"
        )
    _check_pair("covering_kl_estimate", q, p)
    if num_samples < 1:
        raise ValueError(
            f"covering_kl_estimate: expected num_samples of at least 1, got {num_samples}"
        )
    # The density on the base and the one on the finite cover at the same point give the ratio.
    x = q.base_dist.rsample((num_samples,))
    density = q.covering.log_fibre_sum(q.base_dist, q.manifold.project(x))
    sheet = q.covering._log_density(x - q.loc, q.scale)  # type: ignore[attr-defined]
    sheets = q.manifold.deck(x).shape[0]
    return _kl_to_uniform_on_lattice(q) - math.log(sheets) + (density - sheet).mean(0)


def _check_pair(name: str, q: object, p: object) -> None:
    if not isinstance(q, CoveringPushforward):
        raise TypeError(f"{name}: expected q to be CoveringPushforward, got {type(q).__name__}")
    if isinstance(p, ManifoldUniform):
        if not isinstance(q, WrappedNormal) or not isinstance(q.manifold, FlatManifold):
            raise TypeError(f"{name}: expected a WrappedNormal on a flat manifold, got {q}")
        if p.manifold != q.manifold:
            raise ValueError(f"{name}: expected p on {q.manifold}, got one on {p.manifold}")
    elif not isinstance(p, CoveringPushforward):
        raise TypeError(
            f"{name}: expected p to be CoveringPushforward or ManifoldUniform, "
            f"got {type(p).__name__}"
        )
    elif p.covering != q.covering:
        raise ValueError(f"{name}: expected p through {q.covering}, got one through {p.covering}")


def _kl_to_uniform_on_lattice(q: WrappedNormal) -> Tensor:
    """Divergence to uniform on the torus or cylinder modulo the lattice."""
    lattice = q.manifold.lattice
    scales = q.scale.unbind(-1) if q.manifold.ndim else (q.scale,)
    terms = [wrapped_normal_kl_to_uniform(s, p) for s, p in zip(scales, lattice, strict=True)]
    return torch.stack(terms).sum(0)


@register_kl(WrappedNormal, ManifoldUniform)
def _kl_wrapped_normal_uniform(q: WrappedNormal, p: ManifoldUniform) -> Tensor:
    if not isinstance(q.manifold, Circle | Torus) or p.manifold != q.manifold:
        raise NotImplementedError(
            f"No closed form of KL(WrappedNormal on {q.manifold} || ManifoldUniform on "
            f"{p.manifold}); covering_kl_bound and covering_kl_estimate serve flat manifolds"
        )
    return _kl_to_uniform_on_lattice(q).expand(
        torch.broadcast_shapes(q.batch_shape, p.batch_shape)
    )


@register_kl(WrappedNormal, VonMises)
def _kl_wrapped_normal_von_mises(q: WrappedNormal, p: VonMises) -> Tensor:
    if not isinstance(q.manifold, Circle):
        raise NotImplementedError(
            f"KL(WrappedNormal || VonMises) needs a circle, got {q.manifold}"
        )
    negative_entropy = wrapped_normal_kl_to_uniform(q.scale) - math.log(2 * math.pi)
    # E cos(x - c) = e^{-s^2/2} cos(m - c); written without the difference of large terms.
    damping = torch.expm1(-0.5 * q.scale.square())
    half = (0.5 * (q.loc - p.loc)).sin().square()
    below_mode = 2 * half * (1 + damping) - damping
    normaliser = math.log(2 * math.pi) + von_mises.log_i0e(p.concentration)
    return negative_entropy + p.concentration * below_mode + normaliser


@register_kl(VonMises, VonMises)
def _kl_von_mises_von_mises(q: VonMises, p: VonMises) -> Tensor:
    return von_mises.kl_von_mises_von_mises(q.loc, q.concentration, p.loc, p.concentration)


@register_kl(VonMises, ManifoldUniform)
def _kl_von_mises_uniform(q: VonMises, p: ManifoldUniform) -> Tensor:
    if p.manifold != Circle():
        raise NotImplementedError(f"KL(VonMises || ManifoldUniform) needs a circle: {p.manifold}")
    kl = von_mises.kl_to_uniform(q.concentration)
    return kl.expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


@register_kl(Independent, ManifoldUniform)
def _kl_independent_uniform(q: Independent, p: ManifoldUniform) -> Tensor:
    angles = not q.base_dist.event_shape and q.event_shape == p.event_shape
    if not isinstance(p.manifold, Torus) or not angles:
        raise NotImplementedError(
            f"KL(Independent || ManifoldUniform) needs one angle for each of {p.manifold}, "
            f"got event shape {tuple(q.event_shape)}"
        )
    kl = kl_divergence(q.base_dist, ManifoldUniform(Circle())).sum(-1)
    return kl.expand(torch.broadcast_shapes(kl.shape, p.batch_shape))


@register_kl(ProjectedNormal, ManifoldUniform)
@register_kl(RotationalDistribution, ManifoldUniform)
def _kl_rotational_uniform(
    q: RotationalDistribution | ProjectedNormal, p: ManifoldUniform
) -> Tensor:
    if p.manifold != q.manifold:
        raise NotImplementedError(
            f"KL({type(q).__name__} || ManifoldUniform) needs {q.manifold}, got {p.manifold}"
        )
    return q.kl_to_uniform().expand(torch.broadcast_shapes(q.batch_shape, p.batch_shape))


@register_kl(VonMisesFisher, VonMisesFisher)
def _kl_von_mises_fisher_von_mises_fisher(q: VonMisesFisher, p: VonMisesFisher) -> Tensor:
    _check_ambient_dim(q, p)
    return kl_von_mises_fisher(q.loc, q.concentration, p.loc, p.concentration)


@register_kl(PowerSpherical, VonMisesFisher)
def _kl_power_spherical_von_mises_fisher(q: PowerSpherical, p: VonMisesFisher) -> Tensor:
    _check_ambient_dim(q, p)
    return kl_power_spherical_von_mises_fisher(q.loc, q.concentration, p.loc, p.concentration)


@register_kl(SphericalCauchy, SphericalCauchy)
def _kl_spherical_cauchy_spherical_cauchy(q: SphericalCauchy, p: SphericalCauchy) -> Tensor:
    _check_ambient_dim(q, p)
    return kl_spherical_cauchy(q.loc, q.concentration, p.loc, p.concentration)


def _check_ambient_dim(q: RotationalDistribution, p: RotationalDistribution) -> None:
    if q.manifold != p.manifold:
        names = type(q).__name__, type(p).__name__
        raise NotImplementedError(f"KL({names[0]} || {names[1]}) on {q.manifold} and {p.manifold}")


@register_kl(ManifoldUniform, ManifoldUniform)
def _kl_uniform_uniform(q: ManifoldUniform, p: ManifoldUniform) -> Tensor:
    if p.manifold != q.manifold:
        raise NotImplementedError(f"KL of uniform laws on {q.manifold} and {p.manifold}")
    return torch.zeros(
        torch.broadcast_shapes(q.batch_shape, p.batch_shape), dtype=q.dtype, device=q.device
    )


@register_kl(EmbeddingPushforward, ManifoldUniform)
def _kl_embedding_uniform(q: EmbeddingPushforward, p: ManifoldUniform) -> Tensor:
    if q.embedding.uniform_image != p.manifold:
        raise NotImplementedError(
            f"KL(EmbeddingPushforward || ManifoldUniform) needs an embedding under which the "
            f"uniform law becomes that on {p.manifold}, got {q.embedding}"
        )
    # Of the full shape, since the rule of torch for Beta and Uniform does not broadcast.
    shape = q.base_dist.batch_shape + q.base_dist.event_shape
    low = torch.zeros(shape, dtype=p.dtype, device=p.device)
    kl = kl_divergence(q.base_dist, Uniform(low, low + 1).to_event(1))
    return kl.expand(torch.broadcast_shapes(kl.shape, p.batch_shape))


@register_kl(Moved, ManifoldUniform)
def _kl_moved_uniform(q: Moved, p: ManifoldUniform) -> Tensor:
    if p.manifold != q.manifold:
        raise NotImplementedError(
            f"KL(Moved || ManifoldUniform) needs {q.manifold}, got {p.manifold}"
        )
    return kl_divergence(q.base_dist, p)


@register_kl(Concatenated, Concatenated)
def _kl_concatenated(q: Concatenated, p: Concatenated) -> Tensor:
    pairs = zip(q.parts, p.parts, strict=True)
    return torch.stack([kl_divergence(a, b) for a, b in pairs]).sum(0)


@register_kl(Delta, CoveringPushforward)
@register_kl(Delta, HyperbolicNormal)
@register_kl(Delta, Concatenated)
@register_kl(Delta, EmbeddingPushforward)
@register_kl(Delta, ManifoldMixture)
@register_kl(Delta, Moved)
@register_kl(Delta, NormalizingFlow)
def _kl_point_mass(q: Delta, p: TorchDistribution) -> Tensor:
    """Keep the log-density of the point mass, which carries a Jacobian in the guides of Pyro.

    Pyro's own rule leaves it out, so that ``TraceMeanField_ELBO`` would be no bound of the
    evidence where a support has a bijection from the reals.
    """
    return q.log_density - p.log_prob(q.v)
