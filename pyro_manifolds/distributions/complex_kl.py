"""Divergences between complex normal distributions, all exact."""

import torch
from pyro.distributions import Delta
from torch import Tensor
from torch.distributions import Independent, register_kl

from pyro_manifolds.distributions.complex_multivariate_normal import ComplexMultivariateNormal
from pyro_manifolds.distributions.complex_normal import ComplexNormal
from pyro_manifolds.ops.complex_linalg import (
    real_matrix,
    solve_tril_vectors,
    split_parts,
    squared_norm,
)
from pyro_manifolds.ops.complex_normal import complex_normal_kl

__all__: list[str] = []


@register_kl(ComplexNormal, ComplexNormal)
def _kl_normal_normal(q: ComplexNormal, p: ComplexNormal) -> Tensor:
    return complex_normal_kl(q.loc - p.loc, q.scale, p.scale, q._rho, p._rho)


@register_kl(ComplexMultivariateNormal, ComplexMultivariateNormal)
def _kl_vectors(q: ComplexMultivariateNormal, p: ComplexMultivariateNormal) -> Tensor:
    if q.event_shape != p.event_shape:
        raise ValueError(
            f"KL of ComplexMultivariateNormal: expected vectors of one size, "
            f"got {q.event_shape[0]} and {p.event_shape[0]}"
        )
    # In coordinates in which the covariance of p is the identity.
    spread = torch.linalg.solve_triangular(p._tril, q._tril, upper=False)
    shift = solve_tril_vectors(p._tril, q.loc - p.loc)
    volume = p._log_volume - q._log_volume - q.event_shape[0]
    if p._root is None:
        return volume + _squared_norm(spread) + squared_norm(shift)
    real = real_matrix(spread)
    real = torch.linalg.solve_triangular(
        p._root, real if q._root is None else real @ q._root, upper=False
    )
    shift = solve_tril_vectors(p._root, split_parts(shift))
    return volume + 0.5 * real.square().sum((-1, -2)) + shift.square().sum(-1)


def _squared_norm(matrix: Tensor) -> Tensor:
    return squared_norm(matrix.flatten(-2))


@register_kl(Independent, ComplexMultivariateNormal)
def _kl_entries_vectors(q: Independent, p: ComplexMultivariateNormal) -> Tensor:
    return _kl_vectors(_as_vectors(q), p)


@register_kl(ComplexMultivariateNormal, Independent)
def _kl_vectors_entries(q: ComplexMultivariateNormal, p: Independent) -> Tensor:
    return _kl_vectors(q, _as_vectors(p))


def _as_vectors(d: Independent) -> ComplexMultivariateNormal:
    """Return a vector of independent complex numbers as what it is."""
    base = d.base_dist
    if not isinstance(base, ComplexNormal) or d.reinterpreted_batch_ndims != 1:
        raise NotImplementedError(
            f"KL with ComplexMultivariateNormal needs ComplexNormal(...).to_event(1), got {d}"
        )
    rho = base.circularity
    return ComplexMultivariateNormal(
        base.loc,
        scale_tril=torch.diag_embed(torch.complex(base.scale, torch.zeros_like(base.scale))),
        coherence=None if rho is None else torch.diag_embed(rho),
        validate_args=False,
    )


@register_kl(Delta, ComplexNormal)
@register_kl(Delta, ComplexMultivariateNormal)
def _kl_point_mass(q: Delta, p: ComplexNormal | ComplexMultivariateNormal) -> Tensor:
    """Keep the log-density of the point mass, as for manifolds; Pyro makes it complex."""
    return q.log_density.real - p.log_prob(q.v)
