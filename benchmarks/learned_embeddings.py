"""Learned embeddings of closed manifolds: coverage, overlap and density, by recipe and seed.

Run as ``python -m benchmarks.learned_embeddings``. Each recipe sees uniform points of a manifold
in its ambient space and nothing else. What is done is kept in the output file, so that an
interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from tqdm import tqdm

from pyro_manifolds import Circle, KleinBottle, Sphere, Torus
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn import diagnose_embedding, fit_embedding

__all__ = ["MANIFOLDS", "RECIPES", "main"]

MANIFOLDS: dict[str, Manifold] = {
    "circle": Circle(),
    "sphere": Sphere(2),
    "torus": Torus(2),
    "Klein bottle": KleinBottle(),
}
_WAE: dict[str, Any] = {
    "method": "wae",
    "steps": 3000,
    "batch_size": 128,
    "learning_rate": 3e-3,
    "check_every": 1000,
    "patience": 9,
    "restarts": 0,
}
RECIPES: dict[str, dict[str, Any]] = {
    "WAE-MMD, tanh": {**_WAE, "activation": "tanh"},
    "WAE-MMD, SiLU": {**_WAE, "activation": "silu"},
    "WAE-MMD, SiLU, 4 codes": {**_WAE, "activation": "silu", "heads": 4},
    "matched codes": {"restarts": 0},
}
_QUICK = {"steps": 40, "check_every": 20, "width": 8, "batch_size": 32}
_COLUMNS = ("coverage", "swept", "strays", "overlap", "misfit", "energy", "seconds")


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Fit what the command line names and is not in the file yet; print and return all rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.learned_embeddings", description=__doc__
    )
    parser.add_argument("--manifolds", nargs="*", choices=MANIFOLDS, default=list(MANIFOLDS))
    parser.add_argument("--recipes", nargs="*", choices=RECIPES, default=list(RECIPES))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="few steps: a smoke test")
    parser.add_argument("--output", type=Path, default=Path("results/learned_embeddings.json"))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    rows = json.loads(options.output.read_text()) if options.output.exists() else []
    done = {(row["manifold"], row["recipe"], row["seed"]) for row in rows}
    tasks = [
        (manifold, recipe, seed)
        for seed in options.seeds
        for manifold in options.manifolds
        for recipe in options.recipes
        if (manifold, recipe, seed) not in done
    ]
    for task in tqdm(tasks, desc="fits", disable=options.quick):
        rows.append(_fit(*task, quick=options.quick))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(rows, indent=1))
    _print(rows)
    return rows


def _fit(name: str, recipe: str, seed: int, *, quick: bool) -> dict[str, Any]:
    manifold, start = MANIFOLDS[name], time.perf_counter()
    settings = RECIPES[recipe] | (_QUICK if quick else {})
    embedding = fit_embedding(manifold, seed=seed, progress=False, warn=False, **settings)
    seconds = time.perf_counter() - start
    size = 200 if quick else 4000
    # Fresh points of the manifold, the same for all recipes.
    found = diagnose_embedding(embedding, manifold, num_samples=size, seed=10_000, warn=False)
    return {
        "manifold": name,
        "recipe": recipe,
        "seed": seed,
        "coverage": found.coverage,
        "swept": found.swept,
        "monotone": found.monotone,
        "strays": found.strays,
        "overlap": found.collisions,
        "misfit": found.misfit,
        "tolerance": found.tolerance,
        "energy": found.energy_distance,
        "energy_null": found.energy_null,
        "least_singular_value": found.singular_values[0],
        "round_trip": found.round_trip,
        "volume": found.image_volume,
        "target_volume": found.target_volume,
        "seconds": seconds,
    }


def _print(rows: list[dict[str, Any]]) -> None:
    print("".join([f"{'manifold':<14}{'recipe':<24}", *(f"{name:>18}" for name in _COLUMNS)]))
    for manifold in MANIFOLDS:
        for recipe in RECIPES:
            chosen = [r for r in rows if (r["manifold"], r["recipe"]) == (manifold, recipe)]
            if chosen:
                cells = [_cell([row[name] for row in chosen]) for name in _COLUMNS]
                print(f"{manifold:<14}{recipe:<24}" + "".join(f"{cell:>18}" for cell in cells))


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    spread = stdev(known) if len(known) > 1 else 0.0
    return f"{mean(known):.4f} ± {spread:.4f}"


if __name__ == "__main__":
    main()
