"""Topographic maps of patches and of digits: are neighbours alike, and by how much by chance?

Run as ``python -m benchmarks.topographic_maps``. Each model is trained with several seeds, next to
controls without neighbours, without training, and without anything to find. What is done is kept
in the output file, so that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from functools import cache, lru_cache
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor
from torch.nn.functional import avg_pool2d
from tqdm import tqdm

from pyro_manifolds.datasets import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    digit_split,
    mnist_digits,
    normalized_patches,
)
from pyro_manifolds.distributions import Groups, Torus2d
from pyro_manifolds.distributions.neighborhoods import Neighborhood
from pyro_manifolds.geometry import (
    MapOrder,
    class_preference,
    filter_tuning,
    map_order,
    tuning_differences,
)
from pyro_manifolds.nn import (
    TopographicGuide,
    TopographicMap,
    TopographicModel,
    fit_topographic_map,
)
from pyro_manifolds.nn.checkpoints import replacing

__all__ = ["DIGITS", "PATCHES", "main"]


class _Patches(NamedTuple):
    """A map of patches: its window, 0 for none, and what it is trained on, if at all.

    Codes without a window are independent, of ``dof`` degrees of freedom.
    """

    window: int
    dof: int = 0
    data: str = "photographs"
    trained: bool = True


class _Digits(NamedTuple):
    """A map of digits: its window, 0 for none at 9 degrees of freedom, and their location."""

    window: int
    loc: float


class _Sizes(NamedTuple):
    """Sizes of an experiment."""

    map_side: int = 10
    kernel_size: int = 13
    photographs: int = 7  # at most, to train and to test with
    patches: int = 30_000
    held_out: int = 4_000
    estimated: int = 200  # of those held out, whose density is estimated
    samples: int = 1_000
    steps: int = 1_500
    digits: int = 4_000
    digits_held_out: int = 1_000
    digit_side: int = 12
    epochs: int = 25
    shuffles: int = 50


_FULL = _Sizes()
_QUICK = _Sizes(4, 5, 1, 300, 60, 5, 10, 10, 100, 50, 4, 1, 3)

PATCHES = {
    "2 x 2": _Patches(2),
    "3 x 3": _Patches(3),
    "5 x 5": _Patches(5),
    "independent, 4 dof": _Patches(0, dof=4),
    "independent, 9 dof": _Patches(0, dof=9),
    "3 x 3, normal data": _Patches(3, data="normal"),
    "3 x 3, untrained": _Patches(3, trained=False),
}
DIGITS = {
    "3 x 3, loc 10": _Digits(3, 10.0),
    "5 x 5, loc 10": _Digits(5, 10.0),
    "independent, loc 10": _Digits(0, 10.0),
    "3 x 3, loc 0": _Digits(3, 0.0),
}
_RESPECTS = ("orientation", "frequency", "position", "energy")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Run what the command line names and is not in the file yet; print and return all rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.topographic_maps", description=__doc__
    )
    parser.add_argument("--patches", nargs="*", choices=PATCHES, default=list(PATCHES))
    parser.add_argument("--digits", nargs="*", choices=DIGITS, default=list(DIGITS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="tiny sizes: a smoke test")
    parser.add_argument("--output", type=Path, default=Path("results/topographic_maps.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    sizes = _QUICK if options.quick else _FULL
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    done = {(row["data"], row["model"], row["seed"]) for row in rows}
    named = [("patches", name) for name in options.patches]
    named += [("digits", name) for name in options.digits]
    tasks = [(*task, seed) for seed in options.seeds for task in named]
    tasks = [task for task in tasks if task not in done]
    for data, name, seed in tqdm(tasks, desc="maps", disable=options.quick):
        start = time.perf_counter()
        found = _RUNS[data](name, seed, sizes)
        row = {"data": data, "model": name, "seed": seed, **found}
        rows.append(row | {"seconds": time.perf_counter() - start})
        with replacing(options.output) as temporary:
            temporary.write_text(json.dumps(rows, indent=1))
    _print(rows)
    return rows


def _patch_row(name: str, seed: int, sizes: _Sizes) -> dict[str, Any]:
    """Learn a map of filters, and score patches of photographs that it has not seen."""
    setting = PATCHES[name]
    train, test = (
        _cut(names[: sizes.photographs], number, 2 * seed + part, sizes.kernel_size)
        for part, (names, number) in enumerate(
            [(TRAIN_PHOTOGRAPHS, sizes.patches), (TEST_PHOTOGRAPHS, sizes.held_out)]
        )
    )
    if setting.data == "normal":
        train, test = _normal_twin(train, train, seed), _normal_twin(train, test, seed + 1)
    shape = (sizes.map_side, sizes.map_side)
    neighborhood = _neighborhood(setting.window, shape, setting.dof)
    if setting.trained:
        options = {"steps": sizes.steps, "seed": seed, "progress": False}
        sheet = fit_topographic_map(train, neighborhood, **options)
    else:
        torch.manual_seed(seed)
        sheet = TopographicMap(train, neighborhood).requires_grad_(False)
    codes = sheet.codes(test)
    pairwise = tuning_differences(filter_tuning(sheet.filters.reshape(-1, *train.shape[1:])))
    pairwise["energy"] = torch.corrcoef(codes.flatten(1).square().mT)
    found: dict[str, Any] = {
        key: _order(map_order(pairwise[key], shape, seed=seed)) for key in _RESPECTS
    }
    bound, normal = sheet.log_prob_lower_bound(test), sheet.log_prob_normal(test)
    found["bound"] = float((bound - normal).mean())
    found["order_nats"] = float(bound.mean() - _shuffled_bound(sheet, codes, sizes.shuffles))
    density = _density(sheet, codes[: sizes.estimated], sizes.samples)
    found["density"] = float((density - normal[: sizes.estimated]).mean())
    found["selectivity"] = float(filter_tuning(sheet.filters).selectivity.mean())
    return found


@lru_cache(maxsize=2)
def _cut(names: tuple[str, ...], number: int, seed: int, kernel_size: int) -> Tensor:
    return normalized_patches(names, number, seed=seed, kernel_size=kernel_size, top=0.5)


def _normal_twin(train: Tensor, like: Tensor, seed: int) -> Tensor:
    """Draw normal patches with the mean and the covariance of real ones."""
    generator = torch.Generator().manual_seed(seed)
    flat = train.flatten(1)
    values, axes = torch.linalg.eigh(flat.mT.cov())
    noise = torch.randn(len(like), flat.shape[1], generator=generator)
    drawn = flat.mean(0) + (noise * values.clamp(min=0).sqrt()) @ axes.mT
    return drawn.reshape(like.shape)


def _shuffled_bound(sheet: TopographicMap, codes: Tensor, shuffles: int) -> float:
    """Return the mean bound with the units of a map at random places."""
    generator = torch.Generator().manual_seed(0)
    flat, bounds = codes.flatten(1), []
    for _ in range(shuffles):
        order = torch.randperm(flat.shape[1], generator=generator)
        bounds.append(sheet.law.log_prob_lower_bound(flat[:, order].reshape(codes.shape)).mean())
    return float(torch.stack(bounds).mean())


def _density(sheet: TopographicMap, codes: Tensor, samples: int) -> Tensor:
    """Return log-densities: exact without neighbours, else an estimate that is low on average."""
    if isinstance(sheet.neighborhood, Groups):
        return sheet.law.log_prob(codes)
    torch.manual_seed(0)
    return torch.cat(
        [sheet.law.log_prob_estimate(part, samples).value for part in codes.split(10)]
    )


def _digit_row(name: str, seed: int, sizes: _Sizes) -> dict[str, Any]:
    """Train a map of digits, and ask which digit each place prefers."""
    setting = DIGITS[name]
    images, labels = _digits()
    split = digit_split(sizes.digits, sizes.digits_held_out, seed=seed)
    train, test, labels = images[split.train], images[split.test], labels[split.test]
    shape = (sizes.digit_side, sizes.digit_side)
    neighborhood = _neighborhood(setting.window, shape, 9)
    torch.manual_seed(seed)
    model = TopographicModel(neighborhood, (14, 14), loc=setting.loc)
    guide = TopographicGuide(neighborhood, (14, 14))
    found: dict[str, Any] = {}
    for stage in ("untrained", "trained"):
        if stage == "trained":
            _train_vae(model, guide, train, sizes.epochs)
        with torch.no_grad():
            codes = model.code(*guide.moments(test)).reshape(-1, *shape)
        found[stage] = _preferences(codes, labels, seed, sizes.shuffles)
    with torch.no_grad():
        found["elbo"] = -TraceMeanField_ELBO(num_particles=10)(model, guide)(test).item()
    found["elbo"] /= len(test)
    found["kl_z"], found["kl_u"] = _divergences(guide, test)
    return found


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Return binary digits of 14 by 14 pixels, and their labels."""
    images, labels = mnist_digits()
    return (avg_pool2d(images, 2) > 0.35).float(), labels


def _train_vae(
    model: TopographicModel, guide: TopographicGuide, train: Tensor, epochs: int
) -> None:
    elbo = TraceMeanField_ELBO()(model, guide)
    optimizer = torch.optim.Adam(elbo.parameters(), 1e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(train)).split(100):
            optimizer.zero_grad()
            with pyro.validation_enabled(False):
                loss = elbo(train[rows]) / len(rows)
            loss.backward()
            optimizer.step()


@torch.no_grad()
def _divergences(guide: TopographicGuide, x: Tensor) -> tuple[float, float]:
    """Return mean divergences of both sites from their priors."""
    half = guide.auxiliary == "halfnormal"
    ones = x.new_ones(())
    size = torch.distributions.HalfNormal(ones) if half else torch.distributions.Normal(0, ones)
    priors = (torch.distributions.Normal(0 * ones, ones), size)
    sites = [site.base_dist for site in guide.posterior(x)]
    found = [
        torch.distributions.kl_divergence(site, prior).sum() / len(x)
        for site, prior in zip(sites, priors, strict=True)
    ]
    return float(found[0]), float(found[1])


def _preferences(codes: Tensor, labels: Tensor, seed: int, shuffles: int) -> dict[str, Any]:
    """Return how often neighbours prefer one class, and how often with shuffled labels."""
    found = class_preference(codes, labels)
    energy = torch.corrcoef(codes.flatten(1).mT).nan_to_num()
    generator = torch.Generator().manual_seed(seed)
    chance = [
        class_preference(codes, labels[torch.randperm(len(labels), generator=generator)])
        for _ in range(shuffles)
    ]
    values = [_agreement(other.classes, seed, 1).value for other in chance]
    return {
        "agreement": _order(_agreement(found.classes, seed)),
        "shuffled_labels": {"mean": mean(values), "std": stdev(values)},
        "selectivity": float(found.selectivity.mean()),
        "shuffled_selectivity": mean(float(other.selectivity.mean()) for other in chance),
        "correlation": _order(map_order(energy, codes.shape[1:], seed=seed)),
        "num_classes": len(found.classes.unique()),
    }


def _agreement(classes: Tensor, seed: int, num_permutations: int = 1000) -> MapOrder:
    flat = classes.flatten()
    same, options = (flat[:, None] == flat).double(), {"seed": seed}
    return map_order(same, classes.shape, num_permutations=num_permutations, **options)


def _neighborhood(window: int, shape: tuple[int, int], dof: int) -> Neighborhood:
    if not window:
        return Groups(shape[0] * shape[1], 1, dof)
    return Torus2d(shape, (window, window))


def _order(order: MapOrder) -> dict[str, float]:
    return {**order._asdict(), "z": order.z}


_RUNS: dict[str, Callable[[str, int, _Sizes], dict[str, Any]]] = {
    "patches": _patch_row,
    "digits": _digit_row,
}


def _print(rows: list[dict[str, Any]]) -> None:
    print("Patches: mean over neighbours, mean of the null and z of each seed; nats per patch")
    _table(rows, "patches", PATCHES, {
        **{key: lambda row, key=key: row[key] for key in _RESPECTS},
        "bound": lambda row: row["bound"],
        "order": lambda row: row["order_nats"],
        "density": lambda row: row["density"],
    })  # fmt: skip
    for stage in ("trained", "untrained"):
        print(f"Digits, {stage}: agreement of neighbours, null and z; selectivity")
        _table(rows, "digits", DIGITS, {
            "agreement": lambda row, s=stage: row[s]["agreement"],
            "labels shuffled": lambda row, s=stage: row[s]["shuffled_labels"]["mean"],
            "code correlation": lambda row, s=stage: row[s]["correlation"],
            "selectivity": lambda row, s=stage: row[s]["selectivity"],
            "of shuffled labels": lambda row, s=stage: row[s]["shuffled_selectivity"],
        })  # fmt: skip
    print("Digits: nats per image held out")
    _table(
        rows,
        "digits",
        DIGITS,
        {key: lambda row, k=key: row[k] for key in ("elbo", "kl_z", "kl_u")},
    )


def _table(
    rows: list[dict[str, Any]],
    data: str,
    names: Iterable[str],
    columns: dict[str, Callable[[dict[str, Any]], Any]],
) -> None:
    print("".join([f"{'':<22}", *(f"{title:>32}" for title in columns)]))
    for name in names:
        chosen = [row for row in rows if (row["data"], row["model"]) == (data, name)]
        if chosen:
            cells = [_cell([read(row) for row in chosen]) for read in columns.values()]
            print(f"{name:<22}" + "".join(f"{cell:>32}" for cell in cells))
    print()


def _cell(values: list[Any]) -> str:
    if isinstance(values[0], dict):
        zs = ", ".join(f"{value['z']:.1f}" for value in values)
        middle, null = (mean(value[key] for value in values) for key in ("value", "null_mean"))
        return f"{middle:.3f} ({null:.3f}; {zs})"
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.3f} ± {spread:.3f}"


if __name__ == "__main__":
    main()
