"""Held-out likelihood of patches of photographs, under laws round the Klein bottle and without.

Run as ``python -m benchmarks.patches``. Two kinds of tables. Directions: high-contrast patches
divided by their contrast, points of a sphere, of other places in the same photographs or of other
photographs. Filters: patches relative to their surroundings, points of R^(k*k), of other
photographs. All laws are fitted by maximum likelihood with the same optimiser, keep the weights
that are best on validation data, and are scored in nats per patch. Finished rows are kept in the
output file, and a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from tqdm import tqdm

from benchmarks.patch_filters import (
    FilterLevels,
    FilterMixture,
    FullNormal,
    KleinLevels,
    SpectralMixture,
    SpectralNormal,
    WhiteNormal,
    start_noise_at,
)
from benchmarks.patch_laws import (
    AngularGaussian,
    CentralGaussian,
    FourierDensity,
    FreeSpikes,
    FullMixture,
    KleinDirections,
    Uniform,
)
from pyro_manifolds.datasets import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    normalized_patches,
    patch_sphere,
)
from pyro_manifolds.nn import KleinFilterPrior, KleinMixture, fit_filter_prior

__all__ = ["TABLES", "Protocol", "Score", "fit_and_score", "fit_photograph_prior", "main"]

VALIDATION_PHOTOGRAPHS = ("camera", "grass")
FEW = 300
FIT_PHOTOGRAPHS = tuple(name for name in TRAIN_PHOTOGRAPHS if name not in VALIDATION_PHOTOGRAPHS)


@dataclass(frozen=True)
class Protocol:
    """Sizes of the experiment; ``QUICK`` only shows that it runs."""

    train: int = 10_800
    validation: int = 1_200
    test: int = 8_000
    steps: int = 400
    batch_size: int = 256
    check_every: int = 50
    patience: int = 6
    learning_rate: float = 0.05
    fine_nodes: int = 40


QUICK = Protocol(120, 100, 110, steps=2, batch_size=64, check_every=1, fine_nodes=8)


class Split(NamedTuple):
    """Patches to fit to, to choose weights by, and to score."""

    train: Tensor
    validation: Tensor
    test: Tensor


class Score(NamedTuple):
    """Mean log-density of a fitted law, nats per patch."""

    parameters: int
    train: float
    validation: float
    test: float


class Law(NamedTuple):
    """How to make a law: from the kernel size, the patches to fit to and a source of starts.

    The best of several starts counts, by validation; ``effort`` multiplies the number of steps.
    """

    make: Callable[[int, Tensor, torch.Generator], nn.Module]
    restarts: int = 1
    effort: int = 1


class Table(NamedTuple):
    """One comparison."""

    kernel_size: int
    split: Callable[[int, Protocol, int], Split]
    laws: dict[str, Law]


def same_photographs(kernel_size: int, protocol: Protocol, seed: int) -> Split:
    """Draw directions from all photographs: patches of the sides may overlap."""
    sizes = [protocol.train, protocol.validation, protocol.test]
    points = patch_sphere(None, sum(sizes), seed=seed, kernel_size=kernel_size)
    return Split(*points.split(sizes))


def other_photographs(
    kernel_size: int, protocol: Protocol, seed: int, draw: Callable[..., Tensor] = patch_sphere
) -> Split:
    """Draw from five photographs to fit to, two to choose by and three to score."""
    sides = (
        (FIT_PHOTOGRAPHS, protocol.train),
        (VALIDATION_PHOTOGRAPHS, protocol.validation),
        (TEST_PHOTOGRAPHS, protocol.test),
    )
    return Split(*(draw(names, n, seed=seed, kernel_size=kernel_size) for names, n in sides))


def few_directions(kernel_size: int, protocol: Protocol, seed: int) -> Split:
    """Draw directions of other photographs, and fit to few of them."""
    split = other_photographs(kernel_size, protocol, seed)
    return split._replace(train=split.train[:FEW])


def other_filters(kernel_size: int, protocol: Protocol, seed: int) -> Split:
    """Draw filters, likewise."""
    return other_photographs(kernel_size, protocol, seed, normalized_patches)


def fit_photograph_prior(
    kernel_size: int,
    num_components: int = 8,
    seed: int = 0,
    *,
    noise_shape: str = "white",
    num_patches: int = 20_000,
    progress: bool = True,
    **options: Any,
) -> KleinFilterPrior:
    """Fit a prior to patches of five photographs, and stop it by two others.

    Args:
        kernel_size: Side of the filters.
        num_components: Wrapped normals in the density of points; 0 for the uniform one.
        seed: Seed of patches, start and batches.
        noise_shape: ``"white"``, ``"spectral"`` or ``"full"``.
        num_patches: Patches to fit to; a tenth as many validate.
        progress: Whether to show a progress bar.
        **options: Of ``fit_filter_prior``.
    """
    parts = ((FIT_PHOTOGRAPHS, num_patches), (VALIDATION_PHOTOGRAPHS, num_patches // 10))
    filters, validation = (
        normalized_patches(names, number, seed=seed, kernel_size=kernel_size)
        for names, number in parts
    )
    prior = KleinFilterPrior(
        kernel_size,
        num_components,
        noise_shape=noise_shape,
        generator=torch.Generator().manual_seed(seed),
    )
    fit_filter_prior(
        prior, filters, validation=validation, seed=seed, progress=progress, **options
    )
    return prior


def _klein(
    shape: str = "white",
    components: int = 0,
    fourier: tuple[int, int] | None = None,
    excess: tuple[int, int] | None = None,
    levels: int = 1,
) -> Law:
    def make(kernel_size: int, train: Tensor, generator: torch.Generator) -> nn.Module:
        density: nn.Module | None = None
        if components:
            density = KleinMixture(components, generator=generator)
        elif fourier:
            density = FourierDensity(*fourier)
        varying = FourierDensity(*excess) if excess else None
        law = KleinDirections(kernel_size, density, shape, varying, levels=levels)
        if shape == "full" and kernel_size > 3:
            law.shape.start_at(train)
        return law

    return Law(make)


def _rows(train: Tensor, number: int, generator: torch.Generator) -> Tensor:
    return train[torch.randperm(len(train), generator=generator)[:number]]


def _spikes(number: int, shape: str = "white", *, shared: bool = False) -> Law:
    return Law(
        lambda k, train, g: FreeSpikes(k, _rows(train, number, g), shape, shared=shared), 3, 3
    )


def _full_mixture(number: int) -> Law:
    return Law(lambda k, train, g: FullMixture(train, _rows(train, number, g)), 3, 3)


CONTROLS = {
    "uniform": Law(lambda k, train, g: Uniform(k)),
    "normal, spectral covariance": Law(lambda k, train, g: CentralGaussian(k, "spectral")),
    "normal, full covariance": Law(lambda k, train, g: AngularGaussian(train)),
    "circle": Law(lambda k, train, g: KleinDirections(k, circle=True)),
}
DIRECTIONS = {
    **CONTROLS,
    "Klein": _klein(),
    "Klein, full noise": _klein("full"),
    "Klein, 3 levels of noise": _klein(levels=3),
    **{f"Klein, density of {n}": _klein(components=n) for n in (2, 4, 8, 16)},
    "Klein, density of 2, 3 levels": _klein(components=2, levels=3),
    "Klein, density of 4, 3 levels": _klein(components=4, levels=3),
    "Klein, density of 8, 3 levels": _klein(components=8, levels=3),
    "Klein, 7 waves of density, 7 of noise": _klein(fourier=(2, 2), excess=(2, 2)),
    "Klein, 22 waves of density, 22 of noise": _klein(fourier=(4, 4), excess=(4, 4)),
    "Klein, density of 8, 3 levels, full noise": _klein("full", 8, levels=3),
    **{f"{n} spikes": _spikes(n) for n in (2, 4, 8, 16, 32, 64, 128)},
    **{f"{n} spikes of equal width": _spikes(n, shared=True) for n in (4, 8)},
    **{f"{n} spikes, full noise": _spikes(n, "full") for n in (4, 16)},
    **{f"mixture of {n} normals": _full_mixture(n) for n in (2, 3, 4, 8, 16)},
}
LARGER = {
    **CONTROLS,
    "Klein": _klein(),
    "Klein, spectral noise": _klein("spectral"),
    "Klein, spectral, 3 levels": _klein("spectral", levels=3),
    "Klein, spectral, density of 4, 3 levels": _klein("spectral", 4, levels=3),
    "Klein, full noise": _klein("full"),
    "Klein, full, 3 levels": _klein("full", levels=3),
    **{f"{n} spikes": _spikes(n) for n in (4, 16)},
    **{f"{n} spikes, spectral noise": _spikes(n, "spectral") for n in (4, 16)},
    "mixture of 2 normals": _full_mixture(2),
}


def _filter_law(components: int, shape: str, levels: int = 1) -> Law:
    def make(kernel_size: int, train: Tensor, generator: torch.Generator) -> nn.Module:
        prior = KleinFilterPrior(
            kernel_size, components, noise_shape=shape, num_nodes=48, generator=generator
        )
        if shape == "full":
            start_noise_at(prior, train)
        return FilterLevels(prior, levels)

    return Law(make)


def _klein_pairs(components: int, shape: str, levels: int = 3) -> Law:
    def make(kernel_size: int, train: Tensor, generator: torch.Generator) -> nn.Module:
        prior = KleinFilterPrior(
            kernel_size,
            components,
            noise=0.6,
            noise_shape=shape,
            num_nodes=48,
            generator=generator,
        )
        if shape == "full":
            start_noise_at(prior, train)
        return KleinLevels(prior, levels)

    return Law(make)


FILTERS = {
    "normal": Law(lambda k, train, g: FilterLevels(WhiteNormal(k), 1)),
    "normal, spectral covariance": Law(lambda k, train, g: FilterLevels(SpectralNormal(k), 1)),
    "normal, full covariance": Law(lambda k, train, g: FilterLevels(FullNormal(train), 1)),
    "mixture of 2 normals": Law(lambda k, train, g: FilterMixture(train, 2, g), 3, 2),
    "normal, spectral, 3 sizes": Law(lambda k, train, g: FilterLevels(SpectralNormal(k), 3)),
    "normal, full, 3 sizes": Law(
        lambda k, train, g: FilterLevels(FullNormal(train, learned=True), 3)
    ),
    "Klein": _filter_law(0, "white"),
    "Klein, density of 8": _filter_law(8, "white"),
    "Klein, spectral noise": _filter_law(0, "spectral"),
    "Klein, spectral, density of 8": _filter_law(8, "spectral"),
    "Klein, spectral, 3 sizes": _filter_law(0, "spectral", 3),
    "Klein, spectral, density of 8, 3 sizes": _filter_law(8, "spectral", 3),
    "Klein, full noise": _filter_law(0, "full"),
    "Klein, full, density of 8, 3 sizes": _filter_law(8, "full", 3),
    "mixture of 3 spectral normals": Law(lambda k, train, g: SpectralMixture(k, 3)),
    "mixture of 8 spectral normals": Law(lambda k, train, g: SpectralMixture(k, 8)),
    "Klein, spectral, 3 pairs": _klein_pairs(0, "spectral"),
    "Klein, spectral, density of 8, 3 pairs": _klein_pairs(8, "spectral"),
    "Klein, full, 3 pairs": _klein_pairs(0, "full"),
}
MORE_FILTERS = {
    "mixture of 4 normals": Law(lambda k, train, g: FilterMixture(train, 4, g), 3, 2),
}
TABLES = {
    "directions-3-same": Table(3, same_photographs, DIRECTIONS),
    "directions-3-other": Table(3, other_photographs, DIRECTIONS),
    "directions-3-few": Table(3, few_directions, DIRECTIONS),
    **{f"directions-{k}-other": Table(k, other_photographs, LARGER) for k in (5, 7)},
    "filters-3-other": Table(3, other_filters, {**FILTERS, **MORE_FILTERS}),
    **{f"filters-{k}-other": Table(k, other_filters, FILTERS) for k in (5, 7)},
}


def fit_and_score(
    law: Law, kernel_size: int, split: Split, protocol: Protocol, seed: int
) -> Score:
    """Fit a law from each of its starts, and score the fit that is best on validation data."""
    fits = []
    for restart in range(law.restarts):
        torch.manual_seed(1000 * seed + restart)
        generator = torch.Generator().manual_seed(1000 * seed + restart)
        model = law.make(kernel_size, split.train, generator)
        fits.append((_fit(model, split, protocol, law.effort * protocol.steps), model))
    model = max(fits, key=lambda pair: pair[0])[1]
    if isinstance(model, KleinDirections):
        model.use_nodes(protocol.fine_nodes)  # no law gains from what falls between its nodes
    # A part of what it was fitted to says enough.
    parts = (split.train[: len(split.validation)], split.validation, split.test)
    return Score(model.num_parameters, *(_mean_log_prob(model, part) for part in parts))


def _fit(model: nn.Module, split: Split, protocol: Protocol, steps: int) -> float:
    """Maximise the likelihood; leave the best weights, and return their score."""
    if not any(p.requires_grad and p.numel() for p in model.parameters()):
        return _mean_log_prob(model, split.validation)
    optimiser = torch.optim.Adam(model.parameters(), lr=protocol.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    best, best_score, since = copy.deepcopy(model.state_dict()), -math.inf, 0
    for step in range(1, steps + 1):
        batch = split.train[torch.randint(len(split.train), (protocol.batch_size,))]
        optimiser.zero_grad()
        (-model.log_prob(batch).mean()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        if step % protocol.check_every == 0:
            score = _mean_log_prob(model, split.validation)
            since += 1
            if score > best_score:
                best, best_score, since = copy.deepcopy(model.state_dict()), score, 0
            if since >= protocol.patience:
                break
    model.load_state_dict(best)
    return best_score


@torch.no_grad()
def _mean_log_prob(model: nn.Module, x: Tensor) -> float:
    return torch.cat([model.log_prob(part) for part in x.split(500)]).mean().item()


def format_table(results: dict[str, list[Score]]) -> str:
    """Lay out scores, mean and standard deviation over seeds, by number of parameters."""
    lines = [f"{'law':<44}{'parameters':>11}{'train':>18}{'validation':>18}{'test':>18}"]
    for name, scores in sorted(results.items(), key=lambda item: item[1][0].parameters):
        _, *columns = zip(*scores, strict=True)
        cells = "".join(f"{_cell(values):>18}" for values in columns)
        lines.append(f"{name:<44}{scores[0].parameters:>11}{cells}")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    spread = stdev(values) if len(values) > 1 else math.nan
    return f"{mean(values):.3f} ± {spread:.3f}"


def main(arguments: Sequence[str] | None = None) -> dict[str, dict[str, list[Score]]]:
    """Fit every law with every seed, print the tables and keep all scores in a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.patches", description=__doc__)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--threads", type=int, default=1, help="of torch; more are hardly faster")
    parser.add_argument("--output", type=Path, default=Path("results/patches.json"))
    options = parser.parse_args(arguments)
    protocol = QUICK if options.quick else Protocol()
    torch.set_num_threads(options.threads)
    done = _Done(options.output, protocol)
    results: dict[str, dict[str, list[Score]]] = {}
    total = sum(len(TABLES[name].laws) for name in options.tables) * len(options.seeds)
    with tqdm(total=total, desc="patches") as bar:
        for name in options.tables:
            results[name] = {law: [] for law in TABLES[name].laws}
            for seed in options.seeds:
                _fill(name, seed, protocol, done, results[name], bar)
    for name, scores in results.items():
        print(f"\n{name}\n{format_table(scores)}")
    return results


class _Done:
    """Scores of finished rows, in a file."""

    def __init__(self, path: Path, protocol: Protocol) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self.label = f"{zlib.crc32(repr(asdict(protocol)).encode()):08x}"
        self.scores: dict[str, list[float]] = json.loads(path.read_text()) if path.exists() else {}

    def key(self, *parts: object) -> str:
        return " | ".join(map(str, (*parts, self.label)))

    def add(self, key: str, score: Score) -> None:
        self.scores[key] = list(score)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps(self.scores, indent=1))
        partial.replace(self.path)


def _fill(
    name: str,
    seed: int,
    protocol: Protocol,
    done: _Done,
    results: dict[str, list[Score]],
    bar: tqdm[Any],
) -> None:
    table = TABLES[name]
    split: Split | None = None
    for law, made in table.laws.items():
        key = done.key(name, law, seed)
        if key not in done.scores:
            split = split or table.split(table.kernel_size, protocol, seed)
            done.add(key, fit_and_score(made, table.kernel_size, split, protocol, seed))
        parameters, *values = done.scores[key]
        results[law].append(Score(int(parameters), *values))
        bar.set_postfix_str(f"{name}, {law}, seed {seed}: {values[-1]:.3f}", refresh=False)
        bar.update()


if __name__ == "__main__":
    main()
