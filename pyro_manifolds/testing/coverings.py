"""Laws of coverings as transforms."""

from __future__ import annotations

import copy
import math
import pickle

import torch
from torch import Size
from torch.testing import assert_close

from pyro_manifolds.testing.cases import CoveringCase

__all__ = [
    "check_covering_equality",
    "check_covering_is_isometric",
    "check_covering_shapes",
    "check_fibre",
    "check_lift",
]


def _tolerance(dtype: torch.dtype) -> float:
    return 2e-5 if dtype == torch.float32 else 1e-12


def check_lift(case: CoveringCase, dtype: torch.dtype) -> None:
    """Projecting a lift gives the point back, and projections are canonical points."""
    t = case.covering
    y = t(case.cover_points(dtype, 200))
    assert bool(t.codomain.check(y).all())
    assert bool(t.domain.check(t.inv(y)).all())
    assert t.manifold.dist(t(t.inv(y)), y).max() < _tolerance(dtype)
    assert t.inv.inv is t


def check_fibre(case: CoveringCase, dtype: torch.dtype) -> None:
    """Points of a fibre are distinct, all project to the point, and are as many as the sheets."""
    t = case.covering
    y = t(case.cover_points(dtype, 50))
    fibre = t.fibre(y)
    assert fibre.shape[1:] == (50, *t.cover_shape)
    assert t.num_sheets in (math.inf, len(fibre)), f"{len(fibre)} points for {t.num_sheets} sheets"
    assert t.manifold.dist(t(fibre), y.expand(len(fibre), *y.shape)).max() < _tolerance(dtype)
    flat = fibre.reshape(len(fibre), 50, -1)
    apart = (flat.unsqueeze(0) - flat.unsqueeze(1)).abs().amax(-1)
    apart = apart + torch.eye(len(fibre), dtype=dtype).unsqueeze(-1)
    assert apart.min() > 1e-4, "two points of a fibre coincide"
    lift = t.inv(y).reshape(50, -1)
    assert (flat - lift).abs().amax(-1).amin(0).max() < 1e-4, "the lift is not in the fibre"


def check_covering_is_isometric(case: CoveringCase, dtype: torch.dtype) -> None:
    """The derivative keeps lengths, and the log-determinant is zero."""
    t = case.covering
    x = case.cover_points(dtype, 40)
    n = t.cover_shape.numel()
    basis = torch.eye(n, dtype=dtype).expand(40, n, n)
    if case.tangent_basis is not None:
        basis = torch.stack([case.tangent_basis(point) for point in x])
    y = t(x)
    vectors = basis.movedim(1, 0).reshape(basis.shape[1], 40, *t.cover_shape)
    images = torch.stack([torch.func.jvp(t._call, (x,), (v,))[1] for v in vectors])
    gram = torch.stack([torch.stack([t.manifold.inner(y, a, b) for b in images]) for a in images])
    expected = torch.eye(len(images), dtype=dtype).unsqueeze(-1).expand_as(gram)
    assert_close(gram, expected, atol=10 * _tolerance(dtype), rtol=0)
    log_det = t.log_abs_det_jacobian(x, y)
    assert log_det.shape == (40,)
    assert log_det.dtype == dtype
    assert not log_det.any()


def check_covering_shapes(case: CoveringCase, dtype: torch.dtype) -> None:
    """Shapes are forecast as they turn out, with any batch."""
    t = case.covering
    for batch in ((), (3,), (2, 3)):
        x = case.cover_points(dtype, max(1, math.prod(batch)))
        x = x.reshape(batch + tuple(t.cover_shape))
        y = t(x)
        assert t.forward_shape(x.shape) == y.shape
        assert t.inverse_shape(y.shape) == x.shape == t.inv(y).shape
        assert t.log_abs_det_jacobian(x, y).shape == Size(batch)
        assert t.domain.event_dim == len(t.cover_shape)
        assert t.codomain.event_dim == t.manifold.ndim
    assert not t.bijective


def check_covering_equality(case: CoveringCase, dtype: torch.dtype) -> None:
    """Copies and cached versions are equal and hash alike; the cache returns what came in."""
    t, x = case.covering, case.cover_points(dtype, 3)
    for twin in (copy.deepcopy(t), pickle.loads(pickle.dumps(t)), t.with_cache(1)):
        assert twin == t
        assert hash(twin) == hash(t)
        assert_close(twin(x), t(x))
    assert t != object()
    cached = t.with_cache(1)
    assert cached.inv(cached(x)) is x
