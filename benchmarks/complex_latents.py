"""Complex normal distributions against real ones of the same number of real parts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import kl_divergence

from benchmarks.timing import Entry, Row, measure
from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal

__all__ = ["ENTRIES"]

_BATCH = 64
_Law = Callable[[], TorchDistribution]


def complex_latent(seconds: float) -> list[Row]:
    """Draw 256 x 64 complex latents, their divergence to the prior, and backward through both.

    In float32; the real ones are 256 x 128 normal numbers.
    """
    loc, scale = _leaf(torch.randn(256, 128)), _leaf(torch.rand(256, 128) + 0.5)
    mean = _leaf(torch.randn(256, 64, dtype=torch.cfloat))
    width = _leaf(torch.rand(256, 64) + 0.5)
    v = _leaf(0.5 * torch.randn(256, 64, dtype=torch.cfloat))
    rho = _leaf(v.detach() / (1 + v.detach().abs().square()).sqrt())
    normal = dist.Normal(torch.zeros(256, 128), torch.ones(256, 128))
    prior = ComplexNormal(torch.zeros(256, 64), torch.ones(256, 64))
    contenders = {
        "Normal": _step(lambda: dist.Normal(loc, scale), normal, loc, scale),
        "ComplexNormal, proper": _step(lambda: ComplexNormal(mean, width), prior, mean, width),
        "ComplexNormal, improper": _step(
            lambda: ComplexNormal(mean, width, rho), prior, mean, width, rho
        ),
        "ComplexNormal.from_unconstrained": _step(
            lambda: ComplexNormal.from_unconstrained(mean, width, v), prior, mean, width, v
        ),
    }
    times = measure(contenders, seconds)
    targets = {"ComplexNormal, proper": 1.3}
    return [
        _row("complex_latent", name, time, times["Normal"], targets.get(name))
        for name, time in times.items()
    ]


def complex_vector(seconds: float) -> list[Row]:
    """Log-density of 64 vectors of n complex numbers, and of 2n real ones, in float32."""
    rows = []
    for size in (64, 256):
        contenders: dict[str, Callable[[], object]] = {}
        for name, (make, value) in _vectors(size).items():
            contenders[f"n = {size}, {name}"] = lambda make=make, value=value: make().log_prob(
                value
            )
        times = measure(contenders, seconds / 2)
        for name, time in times.items():
            base = times[
                name.replace("ComplexMultivariateNormal", "MultivariateNormal").replace(
                    ", improper", ""
                )
            ]
            # A solve takes as many operations as one of twice the size in real numbers; what
            # complex numbers save is in the factor of a covariance, and in its checks.
            ours = name.endswith("ComplexMultivariateNormal of covariance_matrix")
            rows.append(_row("complex_vector", name, time, base, 0.5 if ours else None))
    return rows


def _vectors(size: int) -> dict[str, tuple[_Law, Tensor]]:
    """Return ways to make the distributions, real and complex, and values for each."""
    root = torch.randn(size, 2 * size, dtype=torch.cfloat)
    symmetric = torch.randn(size, size, dtype=torch.cfloat)
    symmetric = symmetric + symmetric.mT
    coherence = 0.5 * symmetric / torch.linalg.matrix_norm(symmetric, ord=2)
    loc, z = torch.zeros(size, dtype=torch.cfloat), torch.randn(_BATCH, size, dtype=torch.cfloat)
    ours = ComplexMultivariateNormal(loc, covariance_matrix=root @ root.mH / size)
    improper = ComplexMultivariateNormal(loc, scale_tril=ours.scale_tril, coherence=coherence)
    real = ours.to_real()
    complex_law, real_law = "ComplexMultivariateNormal", "MultivariateNormal"
    laws: dict[str, tuple[_Law, Tensor]] = {}
    for name, law, kind, value in (
        (real_law, real, dist.MultivariateNormal, torch.cat([z.real, z.imag], -1)),
        (complex_law, ours, ComplexMultivariateNormal, z),
    ):
        laws[f"{name}"] = (lambda law=law: law), value
        for argument in ("scale_tril", "covariance_matrix"):
            matrix = {argument: getattr(law, argument)}
            laws[f"{name} of {argument}"] = partial(kind, law.loc, **matrix), value
    laws[f"{complex_law}, improper"] = (lambda: improper), z
    return laws


def _leaf(x: Tensor) -> Tensor:
    return x.requires_grad_()


def _step(make: _Law, prior: TorchDistribution, *leaves: Tensor) -> Callable[[], None]:
    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        d = make()
        z = d.rsample()
        parts = torch.view_as_real(z) if z.is_complex() else z
        (parts.sum() + kl_divergence(d, prior).sum()).backward()

    return step


def _row(entry: str, name: str, time: float, base: float, target: float | None) -> Row:
    if target is None:
        return Row(entry, name, time, time / base)
    words = f"<= {target} x real"
    return Row(entry, name, time, time / base, target=words, passed=time <= target * base)


ENTRIES: dict[str, Entry] = {
    "complex_latent": complex_latent,
    "complex_vector": complex_vector,
}
