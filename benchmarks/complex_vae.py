"""Complex VAEs: against real ones on digits and on complex data, and how their decoders sample.

Run as ``python -m benchmarks.complex_vae``. Finished runs are kept in the folder of the output and
are not repeated. There are three experiments.

- ``parity``: binary digits with proper and improper complex latents, and with their real twin.
- ``signals`` and ``patches``: data complex by nature, with complex networks and with real ones of
  as many parameters.
- ``samples``: a decoder flattened by its log-volume, against larger divergences; samples weighted
  by volume, against the aggregate posterior.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pyro
import torch
from pyro import poutine
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.complex_vae_data import (
    Split,
    digits,
    fourier_patches,
    signals,
)
from benchmarks.complex_vae_networks import (
    complex_pair,
    gated_pair,
    num_parameters,
    real_pair,
    widest,
)
from benchmarks.complex_vae_samples import FlattenedModel, Yardstick, measure_samples
from pyro_manifolds.distributions import ComplexMultivariateNormal
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import (
    ComplexGuide,
    ComplexModel,
    GaussianNoise,
)
from pyro_manifolds.nn.checkpoints import replacing

__all__ = ["EXPERIMENTS", "Sizes", "main"]

Scores = dict[str, float]


@dataclass(frozen=True)
class Sizes:
    """Sizes of the experiments."""

    digits: int = 1400
    epochs: int = 100
    sample_epochs: int = 150
    complex_data: int = 8000
    held_out: int = 1000
    steps: int = 3000
    width: int = 64
    samples: int = 3000
    particles: int = 100


QUICK = Sizes(100, 1, 1, 100, 20, 5, 8, 30, 4)


def fit(
    model: Callable[[Tensor], object],
    guide: Callable[[Tensor], object],
    modules: Sequence[nn.Module],
    data: Tensor,
    batch: int,
    steps: int,
    name: str,
    learning_rate: float = 1e-3,
) -> None:
    """Train by Adam, in passes over shuffled data."""
    parameters = [p for module in modules for p in module.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    elbo, order = TraceMeanField_ELBO(), torch.empty(0, dtype=torch.long)
    for _ in tqdm(range(steps), desc=name, mininterval=1.0):
        order = order if len(order) else torch.randperm(len(data))
        chosen, order = order[:batch], order[batch:]
        optimiser.zero_grad()
        (elbo.differentiable_loss(model, guide, data[chosen]) / len(chosen)).backward()
        optimiser.step()


def bounds(model: ComplexModel, guide: ComplexGuide, data: Tensor, sizes: Sizes) -> Scores:
    """Bounds of the evidence, in nats per datum."""
    found = evidence_bounds(model, guide, data, num_particles=sizes.particles, chunk_size=10)
    return {"ELBO": found.elbo.mean().item(), "IWAE": found.iwae.mean().item()}


def parity(row: str, seed: int, sizes: Sizes) -> Scores:
    """Binary digits, with four latents that are complex, or eight that are real."""
    train, test, _ = digits(sizes.digits)
    train, test = (train > 0.5).float(), (test > 0.5).float()
    torch.manual_seed(seed)
    twin = row == "real twin"
    model = ComplexModel(4, (64,), real_twin=twin)
    guide = ComplexGuide(4, (64,), improper=row == "improper", real_twin=twin)
    steps = sizes.epochs * math.ceil(len(train) / 128)
    fit(model, guide, [model, guide], train, 128, steps, f"parity, {row}, {seed}")
    scores = bounds(model, guide, test, sizes)
    if row == "improper":
        with torch.no_grad():
            rho = guide.posterior(test).base_dist.circularity
        scores["mean modulus of rho"] = rho.abs().mean().item()
    return scores


def complex_data(row: str, seed: int, sizes: Sizes, data: Split) -> Scores:
    """Complex data, with eight complex latents or sixteen real ones."""
    if row == "one normal law":
        return one_law(data)
    torch.manual_seed(seed)
    size = data.train.shape[-1]
    model, guide = complex_pair(8, size, sizes.width, bias=row == "complex networks with biases")
    num = num_parameters(model, guide)
    if row == "real linear maps, gates of moduli":
        model, guide = widest(partial(gated_pair, 8, size), num)
    elif not row.startswith("complex networks"):
        twin = row != "real networks, complex latents"
        build = partial(real_pair, 8, size, twin=twin)
        model, guide = widest(build, 2 * num if row == "real, twice the parameters" else num)
    fit(model, guide, [model, guide], data.train, 100, sizes.steps, f"{row}, {seed}", 2e-3)
    likelihood = model.likelihood
    assert isinstance(likelihood, GaussianNoise)
    found = bounds(model, guide, data.test, sizes)
    with torch.no_grad():
        on_train = -TraceMeanField_ELBO().loss(model, guide, data.train) / len(data.train)
    return {
        "parameters": num_parameters(model, guide),
        **found,
        "training ELBO": on_train,
        "noise": likelihood.log_scale.exp().item(),
    }


def one_law(data: Split) -> Scores:
    """Log-density of a proper complex normal vector, fitted, and of its number of parameters."""
    train = data.train - data.train.mean(0)
    covariance = train.mT @ train.conj() / len(train)
    law = ComplexMultivariateNormal(data.train.mean(0), covariance_matrix=covariance)
    size = data.train.shape[-1]
    return {"parameters": size**2 + 2 * size, "IWAE": law.log_prob(data.test).mean().item()}


def samples(row: str, seed: int, sizes: Sizes) -> Scores:
    """Grey digits, with four complex latents and noise of deviation 0.15."""
    data = digits(sizes.digits)
    assert data.labels is not None
    torch.manual_seed(seed)
    noise = GaussianNoise(0.15, learn=False)
    model, guide = FlattenedModel(4, (64,), likelihood=noise), ComplexGuide(4, (64,))
    model.beta, model.weight = SAMPLE_ROWS[row]
    steps = sizes.sample_epochs * math.ceil(len(data.train) / 128)
    scaled = poutine.scale(guide, scale=model.beta)
    fit(model, scaled, [model, guide], data.train, 128, steps, f"samples, {row}, {seed}")
    return measure_samples(
        model, guide, Yardstick.of(data.train, data.labels, data.test), sizes.samples
    )


SAMPLE_ROWS = {
    "plain": (1.0, 0.0),
    **{f"lambda {weight}": (1.0, weight) for weight in (0.01, 0.03, 0.1, 0.3, 1.0)},
    **{f"beta {beta}": (float(beta), 0.0) for beta in (2, 3, 4, 6)},
}
COMPLEX_ROWS = (
    "complex networks",
    "complex networks with biases",
    "real linear maps, gates of moduli",
    "real networks, complex latents",
    "real",
    "real, twice the parameters",
    "one normal law",
)
EXPERIMENTS: dict[str, tuple[Callable[[str, int, Sizes], Scores], Sequence[str]]] = {
    "samples": (samples, tuple(SAMPLE_ROWS)),
    "parity": (parity, ("proper", "improper", "real twin")),
    "signals": (
        lambda row, seed, sizes: complex_data(
            row, seed, sizes, signals(sizes.complex_data, sizes.held_out)
        ),
        COMPLEX_ROWS,
    ),
    "patches": (
        lambda row, seed, sizes: complex_data(
            row, seed, sizes, fourier_patches(sizes.complex_data, sizes.held_out)
        ),
        COMPLEX_ROWS,
    ),
}


def run(experiment: str, row: str, seed: int, sizes: Sizes, output: Path) -> Scores:
    """Train one pair and score it, or read what was found before."""
    path = output / experiment / f"{row.replace(' ', '-').replace(',', '')}-{seed}.json"
    if path.exists():
        return json.loads(path.read_text())
    scores = EXPERIMENTS[experiment][0](row, seed, sizes)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(scores, indent=1))
    return scores


def tables(results: dict[str, list[Scores]]) -> str:
    """Markdown: means and standard deviations over seeds, a table for each way to sample."""
    columns = dict.fromkeys(key for runs in results.values() for r in runs for key in r)
    groups: dict[str, list[str]] = {}
    for column in columns:
        way = column.split(", ")[0] if ", " in column else ""
        groups.setdefault(way, []).append(column)
    return "\n".join(_table(way, keys, results) for way, keys in groups.items())


def _table(way: str, columns: Sequence[str], results: dict[str, list[Scores]]) -> str:
    names = [column.removeprefix(f"{way}, ") for column in columns]
    lines = [(way, *names), ("---",) * (1 + len(names))]
    for row, runs in results.items():
        lines.append((row, *(_cell([r[c] for r in runs if c in r]) for c in columns)))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    numbers = torch.tensor(values, dtype=torch.double)
    mean = numbers.mean().item()
    whole = all(value == round(value) for value in values)
    limits = ((1000, 0), (2.5, 2), (0.1, 3), (0, 4))
    digits = 0 if whole else next(count for least, count in limits if abs(mean) >= least)
    spread = f" ± {numbers.std().item():.{digits}f}" if len(set(values)) > 1 else ""
    return f"{mean:.{digits}f}{spread}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Make all runs that are asked for, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.complex_vae")
    parser.add_argument(
        "experiments", nargs="*", metavar="EXPERIMENT", help=", ".join(EXPERIMENTS)
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--output", type=Path, default=Path("results/complex_vae"))
    options = parser.parse_args(arguments)
    unknown = set(options.experiments) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"expected experiments among {', '.join(EXPERIMENTS)}, got {unknown}")
    sizes = QUICK if options.quick else Sizes()
    with pyro.validation_enabled(False):
        for name in options.experiments or EXPERIMENTS:
            results: dict[str, list[Scores]] = {row: [] for row in EXPERIMENTS[name][1]}
            for seed in options.seeds:
                for row, runs in results.items():
                    runs.append(run(name, row, seed, sizes, options.output))
                    print(f"{name}, {row}, {seed}: {runs[-1]}", flush=True)
            print(f"\n## {name}\n\n{tables(results)}", flush=True)


if __name__ == "__main__":
    main()
