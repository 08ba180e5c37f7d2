"""Laws of shapes, dtypes, copies and validation."""

from __future__ import annotations

import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import torch
from torch import Size, Tensor
from torch.testing import assert_close

from pyro_manifolds.testing.cases import Case

__all__ = [
    "check_cells_keep_their_law",
    "check_copies",
    "check_dtype",
    "check_expand",
    "check_samples_are_canonical",
    "check_shapes",
    "check_validation",
    "check_wrappers",
]

BATCHES = ((), (4,), (3, 2))
SAMPLES = ((), (2,), (2, 3))


def check_shapes(case: Case, dtype: torch.dtype) -> None:
    """Shapes are sample + batch + event, for draws, densities, means and entropies."""
    event = case.manifold.event_shape
    for batch in BATCHES:
        d = case.make(dtype, batch)
        assert d.batch_shape == batch, f"expected batch shape {batch}, got {d.batch_shape}"
        assert d.event_shape == event, f"expected event shape {event}, got {d.event_shape}"
        assert case.support.event_dim == len(event)
        assert not case.support.is_discrete
        for sample in SAMPLES:
            for draw in (d.sample, d.rsample) if d.has_rsample else (d.sample,):
                x = draw(Size(sample))
                assert x.shape == sample + batch + event, f"draws of shape {tuple(x.shape)}"
                assert d.log_prob(x).shape == sample + batch, f"density at {tuple(x.shape)}"
        point = case.make(dtype).sample()
        assert d.log_prob(point).shape == batch, "one point does not broadcast with the batch"
        if case.has_entropy:
            assert d.entropy().shape == batch
        if case.has_mean:
            assert d.mean.shape == batch + event


def check_expand(case: Case, dtype: torch.dtype) -> None:
    """``expand`` keeps class and density, repeats, and refuses what cannot be."""
    d = case.make(dtype, (3, 1))
    x = case.points(dtype, 1)[0]
    for shape in ([3, 4], (2, 3, 4), Size([3, 1])):
        expanded = d.expand(shape)
        assert type(expanded) is type(d), f"{type(d).__name__} became {type(expanded).__name__}"
        assert expanded.batch_shape == Size(shape)
        assert expanded.sample((2,)).shape == (2, *shape) + d.event_shape
        again = expanded.expand((5, *shape))
        assert again.batch_shape == (5, *shape)
        assert_close(again.log_prob(x), d.log_prob(x).expand(5, *shape))
        assert expanded.support.event_dim == d.support.event_dim
    assert d.expand_by([2]).batch_shape == (2, 3, 1)
    if case.params:
        _refuses(lambda: d.expand((2, 1)), RuntimeError, "an impossible expansion")


def check_cells_keep_their_law(case: Case, dtype: torch.dtype) -> None:
    """In a batch of two distributions each cell has its own draws and its own density."""
    one, two = case.parameters(dtype), case.parameters(dtype, **(case.other or {}))
    both = {name: torch.stack([one[name], two[name]]) for name in one}
    d = case.build(**both)
    cells = [case.build(**one), case.build(**two)]
    for batch in (d, d.expand((3, 2))):
        x = batch.sample((6000,))
        assert_close(batch.log_prob(x)[..., 0], cells[0].log_prob(x[(..., 0) + _event(case)]))
        assert_close(batch.log_prob(x)[..., 1], cells[1].log_prob(x[(..., 1) + _event(case)]))
        own = batch.log_prob(x).mean(0).reshape(-1, 2)
        alone = torch.stack([cell.log_prob(cell.sample((6000,))).mean() for cell in cells])
        spread = torch.stack([cell.log_prob(cell.sample((500,))).std() for cell in cells])
        assert bool(((own - alone).abs() <= 7 * spread / 6000**0.5 + 1e-4).all()), (
            "a cell of the batch does not draw from its own law"
        )


def _event(case: Case) -> tuple[slice, ...]:
    return (slice(None),) * case.manifold.ndim


def check_wrappers(case: Case, dtype: torch.dtype) -> None:
    """``to_event``, ``mask`` and ``expand_by`` add up, hide and repeat densities."""
    d = case.make(dtype, (3, 2))
    x = d.sample()
    assert_close(d.to_event(1).log_prob(x), d.log_prob(x).sum(-1))
    assert_close(d.to_event(2).log_prob(x), d.log_prob(x).sum())
    assert d.to_event(1).has_rsample == d.has_rsample
    mask = torch.tensor([True, False])
    masked = d.mask(mask)
    assert_close(masked.log_prob(x), torch.where(mask, d.log_prob(x), 0))
    assert not d.mask(False).log_prob(x).any()


def check_samples_are_canonical(case: Case, dtype: torch.dtype) -> None:
    """Draws lie in the support and are the canonical representatives of their points."""
    for d in (case.make(dtype), case.make(dtype, **(case.other or {}))):
        x = d.sample((1000,))
        assert bool(case.support.check(x).all()), "draws outside the support"
        assert x.dtype.to_real() == dtype
        # Projection may divide once more by a norm that is one up to rounding.
        again = case.manifold.projx(x)
        assert_close(again, x, atol=8 * torch.finfo(dtype).eps, rtol=0)


def check_dtype(case: Case, dtype: torch.dtype) -> None:
    """Parameters set the dtype of every result, whatever the default dtype is."""
    opposite = torch.float64 if dtype == torch.float32 else torch.float32
    default = torch.get_default_dtype()
    torch.set_default_dtype(opposite)
    try:
        d = case.make(dtype, (2,))
        x = d.sample()
        results = [x, d.log_prob(x), d.expand((3, 2)).sample()]
        results += [d.rsample()] if d.has_rsample else []
        results += [d.entropy()] if case.has_entropy else []
        results += [d.mean] if case.has_mean else []
    finally:
        torch.set_default_dtype(default)
    found = {result.dtype.to_real() for result in results}
    assert found == {dtype}, f"expected {dtype} throughout, got {found}"
    assert results[1].dtype == dtype, f"a density of {results[1].dtype}"


def check_copies(case: Case, dtype: torch.dtype) -> None:
    """Copies, pickled and saved ones too, are the same distribution, and ``repr`` is short."""
    d, x = case.make(dtype, (2,)), case.points(dtype, 2)
    saved = io.BytesIO()
    torch.save(d, saved)
    saved.seek(0)
    for twin in (
        copy.deepcopy(d),
        pickle.loads(pickle.dumps(d)),
        torch.load(saved, weights_only=False),
    ):
        assert type(twin) is type(d)
        assert torch.equal(twin.log_prob(x), d.log_prob(x))
    assert len(repr(d)) < 500, f"repr of {len(repr(d))} characters"


def check_validation(case: Case, dtype: torch.dtype) -> None:
    """Under validation bad parameters and values raise ``ValueError``, and else nothing does."""
    x = case.points(dtype, 3)
    bad: list[dict[str, Any]] = [dict(invalid) for invalid in case.invalid]
    bad += [{name: math.nan} for name in case.params]
    for overrides in bad:

        def make(validate: bool, overrides: dict[str, Any] = overrides) -> Tensor:
            return case.make(dtype, validate_args=validate, **overrides).log_prob(x)

        _refuses(lambda: make(True), ValueError, f"parameters {overrides}")
        if case.compiles:
            make(False)
    outside = torch.full_like(x, math.nan)
    _refuses(
        lambda: case.make(dtype, validate_args=True).log_prob(outside),
        ValueError,
        "a value of NaN",
    )
    case.make(dtype, validate_args=False).log_prob(outside)
    if case.manifold.ndim:
        long = torch.cat([x, x], -1)
        _refuses(
            lambda: case.make(dtype, validate_args=True).log_prob(long), ValueError, "a long value"
        )


def _refuses(action: Callable[[], object], error: type[Exception], what: str) -> None:
    try:
        action()
    except error:
        return
    raise AssertionError(f"{what} went through without {error.__name__}")
