"""Densities and samplers against ``Normal`` of the same shape and against their peers.

A step is construction, a reparameterised draw, the log-density of the draw, and backward through
both, in float32 with a gradient for every parameter. Pyro's ``VonMises`` has no reparameterised
draw, so its step differentiates the log-density only.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pyro.distributions as dist
import torch
from torch import Tensor
from torch.types import _size

from benchmarks.timing import Entry, Row, measure
from pyro_manifolds import (
    SO3,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    PowerSpherical,
    ProjectedNormal,
    ProjectiveSpace,
    Sphere,
    SphericalCauchy,
    Torus,
    VonMises,
    VonMisesFisher,
    WrappedNormal,
)
from pyro_manifolds.manifolds import Manifold

__all__ = ["ENTRIES"]

_NORMAL = "Normal"
_BATCH = 1000


class NaiveWrappedNormal(dist.TorchDistribution):
    """Wrapped normal as it is usually written: a logsumexp over seven windings."""

    arg_constraints: dict[str, Any] = {}

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.base = dist.Normal(loc, scale)
        super().__init__(loc.shape, validate_args=False)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        return torch.remainder(self.base.rsample(sample_shape) + math.pi, 2 * math.pi) - math.pi

    def log_prob(self, value: Tensor) -> Tensor:
        turns = 2 * math.pi * torch.arange(-3, 4, dtype=value.dtype)
        windings = turns.reshape((7,) + (1,) * value.dim())
        return self.base.log_prob(value + windings).logsumexp(0)


def torus(seconds: float) -> list[Row]:
    """Compare ways to put a distribution on a torus of 128 angles."""
    loc, scale = _parameters((_BATCH, 128))
    steps = {
        _NORMAL: _step(lambda: dist.Normal(loc, scale).to_event(1), loc, scale),
        "Normal, validate_args=False": _step(
            lambda: dist.Normal(loc, scale, validate_args=False).to_event(1), loc, scale
        ),
        "WrappedNormal": _step(lambda: WrappedNormal(Torus(128), loc, scale), loc, scale),
        "WrappedNormal, validate_args=False": _step(
            lambda: WrappedNormal(Torus(128), loc, scale, validate_args=False), loc, scale
        ),
        "naive wrapped normal, 7 terms": _step(
            lambda: NaiveWrappedNormal(loc, scale).to_event(1), loc, scale
        ),
        "VonMises": _step(lambda: VonMises(loc, 1 / scale.square()).to_event(1), loc, scale),
        "Pyro's VonMises, no rsample": _step(
            lambda: dist.VonMises(loc, 1 / scale.square()).to_event(1), loc, scale
        ),
    }
    times = measure(steps, seconds)
    von_mises = times["Pyro's VonMises, no rsample"]
    rows = _rows("torus", times, {name: 5.0 for name in times if name.startswith("Wrapped")})
    return [Row(**{**vars(row), "speedup": von_mises / row.milliseconds}) for row in rows]


def scale(seconds: float) -> list[Row]:
    """Compare small, middle and large scales on a torus of 128 angles."""
    loc, unit = _parameters((_BATCH, 128), 1.0)
    scales = {size: (size * unit).detach().requires_grad_() for size in (0.05, 0.3, 3.0)}
    steps = {_NORMAL: _step(lambda: dist.Normal(loc, unit).to_event(1), loc, unit)}
    for size, value in scales.items():
        make = partial(WrappedNormal, Torus(128), loc, value)
        steps[f"WrappedNormal, scale {size}"] = _step(make, loc, value)
    times = measure(steps, seconds)
    fastest = min(time for name, time in times.items() if name != _NORMAL)
    return [
        Row("scale", name, time, time / times[_NORMAL], None, target, passed)
        for name, time in times.items()
        for target, passed in [
            ("", None) if name == _NORMAL else ("<= 1.3 x fastest", time <= 1.3 * fastest)
        ]
    ]


def growth(entry: str, shapes: list[tuple[int, int]], seconds: float) -> list[Row]:
    """Compare sizes; each has its own ``Normal``."""
    rows = []
    for shape in shapes:
        loc, scale = _parameters(shape)
        steps = {
            _NORMAL: _step(partial(_normal, loc, scale), loc, scale),
            "WrappedNormal": _step(
                partial(WrappedNormal, Torus(shape[1]), loc, scale), loc, scale
            ),
        }
        times = measure(steps, seconds / len(shapes))
        rows += _rows(
            entry, {f"{name}, {shape[0]} x {shape[1]}": time for name, time in times.items()}
        )
    return rows


def manifolds(seconds: float) -> list[Row]:
    """Compare wrapped normals on surfaces and rotations with a normal on the plane."""
    loc, scale = _parameters((_BATCH, 2))
    steps = {_NORMAL: _step(lambda: dist.Normal(loc, scale).to_event(1), loc, scale)}
    kinds: list[Manifold] = [
        KleinBottle(), MoebiusBand(), Sphere(2), SO3(), ProjectiveSpace(2)
    ]  # fmt: skip
    for manifold in kinds:
        point = manifold.random_uniform(_BATCH, *manifold.event_shape).as_subclass(Tensor)
        point = point.detach().requires_grad_()
        spread = torch.full((_BATCH, *manifold.scale_shape), 0.3, requires_grad=True)
        make = partial(WrappedNormal, manifold, point, spread)
        steps[f"WrappedNormal on {manifold}"] = _step(make, point, spread)
    return _rows("manifolds", measure(steps, seconds))


def power_spherical(seconds: float) -> list[Row]:
    """Compare with the package of the authors of the power spherical law, where installed."""
    peer = importlib.util.find_spec("power_spherical")
    rows = []
    for dim in (3, 16, 128):
        plain, spread = _parameters((_BATCH, dim))
        loc = torch.nn.functional.normalize(plain.detach(), dim=-1).requires_grad_()
        concentration = (10 * torch.rand(_BATCH) + 1).requires_grad_()
        steps = {
            _NORMAL: _step(partial(_normal, plain, spread), plain, spread),
            "PowerSpherical": _step(
                partial(PowerSpherical, loc, concentration), loc, concentration
            ),
        }
        if peer:
            theirs = importlib.import_module("power_spherical").PowerSpherical
            steps["power_spherical"] = _step(
                partial(theirs, loc, concentration), loc, concentration
            )
        times = {f"{k}, dim {dim}": time for k, time in measure(steps, seconds / 3).items()}
        normal, ours, *theirs = times
        limits = {ours: times[theirs[0]] / times[normal] / 1.5} if peer else {}
        rows += _rows("power_spherical", times, limits, "power_spherical / 1.5")
    return rows


def von_mises_fisher(seconds: float) -> list[Row]:
    """Compare the law that needs Bessel functions with the one that was made to avoid them."""
    rows = []
    for dim in (3, 16, 128):
        plain, spread = _parameters((_BATCH, dim))
        loc = torch.nn.functional.normalize(plain.detach(), dim=-1).requires_grad_()
        concentration = (10 * torch.rand(_BATCH) + 1).requires_grad_()
        steps = {_NORMAL: _step(partial(_normal, plain, spread), plain, spread)}
        for law in (PowerSpherical, VonMisesFisher):
            steps[law.__name__] = _step(partial(law, loc, concentration), loc, concentration)
        times = {f"{k}, dim {dim}": time for k, time in measure(steps, seconds / 3).items()}
        normal, power, ours = times
        limit = 3 * times[power] / times[normal]
        rows += _rows("von_mises_fisher", times, {ours: limit}, "3 x PowerSpherical")
    return rows


def projected_normal(seconds: float) -> list[Row]:
    """Compare laws that need no rejection with Pyro's projected normal, for d up to 4."""
    rows = []
    for dim in (3, 16, 128):
        plain, spread = _parameters((_BATCH, dim))
        loc = torch.nn.functional.normalize(plain.detach(), dim=-1).requires_grad_()
        rho = torch.rand(_BATCH).requires_grad_()
        steps = {
            _NORMAL: _step(partial(_normal, plain, spread), plain, spread),
            "ProjectedNormal": _step(partial(ProjectedNormal, plain), plain),
            "SphericalCauchy": _step(partial(SphericalCauchy, loc, rho), loc, rho),
        }
        if dim <= 4:
            theirs = partial(dist.ProjectedNormal, plain)
            steps["Pyro's ProjectedNormal"] = _step(theirs, plain)
        times = {f"{k}, dim {dim}": time for k, time in measure(steps, seconds / 3).items()}
        rows += _rows("projected_normal", times)
    return rows


def sine_bivariate(seconds: float) -> list[Row]:
    """Compare two angles under a wrapped normal with Pyro's law of two dependent angles."""
    loc, scale = _parameters((_BATCH, 2))
    phi, psi, concentration = (torch.rand(_BATCH).add(0.5).requires_grad_() for _ in range(3))
    correlation = torch.full((_BATCH,), 0.1, requires_grad=True)
    theirs = (phi, psi, concentration, concentration, correlation)
    steps = {
        _NORMAL: _step(partial(_normal, loc, scale), loc, scale),
        "WrappedNormal": _step(partial(WrappedNormal, Torus(2), loc, scale), loc, scale),
        "Pyro's SineBivariateVonMises": _step(
            partial(dist.SineBivariateVonMises, *theirs), *theirs
        ),
    }
    times = measure(steps, seconds)
    limit = times["Pyro's SineBivariateVonMises"] / times[_NORMAL] / 100
    return _rows("sine_bivariate", times, {"WrappedNormal": limit}, "Pyro's / 100")


def uniform(seconds: float) -> list[Row]:
    """Time the uniform distribution, which has nothing to differentiate."""
    shape = (_BATCH, 128)
    loc, scale = torch.zeros(shape), torch.ones(shape)
    steps = {
        _NORMAL: _draw(lambda: dist.Normal(loc, scale).to_event(1)),
        "ManifoldUniform": _draw(lambda: ManifoldUniform(Torus(128)).expand((_BATCH,))),
    }
    return _rows("uniform", measure(steps, seconds))


def compiled(seconds: float) -> list[Row]:
    """Compare the compiled log-density, in one graph, with the eager one, forward and backward."""
    loc, scale = _parameters((_BATCH, 128))
    value = torch.randn(_BATCH, 128)

    def normal(loc: Tensor, scale: Tensor) -> Tensor:
        return dist.Normal(loc, scale, validate_args=False).to_event(1).log_prob(value)

    def wrapped(loc: Tensor, scale: Tensor) -> Tensor:
        return WrappedNormal(Torus(128), loc, scale, validate_args=False).log_prob(value)

    def run(log_prob: Callable[[Tensor, Tensor], Tensor]) -> None:
        log_prob(loc, scale).sum().backward()
        loc.grad = scale.grad = None

    steps = {
        _NORMAL: partial(run, normal),
        "WrappedNormal.log_prob": partial(run, wrapped),
        "WrappedNormal.log_prob, compiled": partial(run, torch.compile(wrapped, fullgraph=True)),
    }
    times = measure(steps, seconds)
    eager = times["WrappedNormal.log_prob"] / times[_NORMAL]
    return _rows("compiled", times, {"WrappedNormal.log_prob, compiled": eager}, "eager")


ENTRIES: dict[str, Entry] = {
    "torus": torus,
    "scale": scale,
    "batch": partial(growth, "batch", [(100, 128), (1000, 128), (10000, 128)]),
    "dim": partial(growth, "dim", [(1000, 2), (1000, 16), (1000, 128), (1000, 1024)]),
    "manifolds": manifolds,
    "power_spherical": power_spherical,
    "von_mises_fisher": von_mises_fisher,
    "projected_normal": projected_normal,
    "sine_bivariate": sine_bivariate,
    "uniform": uniform,
    "compiled": compiled,
}


def _normal(loc: Tensor, scale: Tensor) -> Any:
    return dist.Normal(loc, scale).to_event(1)


def _parameters(shape: tuple[int, ...], size: float = 0.3) -> tuple[Tensor, Tensor]:
    scale = size * (0.3 * torch.randn(shape)).exp()
    return torch.randn(shape).requires_grad_(), scale.requires_grad_()


def _step(make: Callable[[], Any], *parameters: Tensor) -> Callable[[], None]:
    def run() -> None:
        d = make()
        value = d.rsample() if d.has_rsample else d.sample()
        d.log_prob(value).sum().backward()
        for parameter in parameters:
            parameter.grad = None

    return run


def _draw(make: Callable[[], Any]) -> Callable[[], None]:
    def run() -> None:
        d = make()
        d.log_prob(d.rsample())

    return run


def _rows(
    entry: str,
    times: dict[str, float],
    limits: dict[str, float] | None = None,
    peer: str = _NORMAL,
) -> list[Row]:
    """Make rows from times, the first of which is that of ``Normal``, the unit of the limits.

    Limits other than multiples of ``Normal`` are the time of a ``peer``.
    """
    floor = next(iter(times.values()))
    rows = []
    for name, time in times.items():
        limit = (limits or {}).get(name)
        bound = f"{limit:g} x Normal" if peer == _NORMAL and limit else peer
        target = f"<= {bound}" if limit else ""
        passed = time / floor <= limit if limit else None
        rows.append(Row(entry, name, time, time / floor, None, target, passed))
    return rows
