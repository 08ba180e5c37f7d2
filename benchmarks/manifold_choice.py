"""Which manifold do data live on? Candidates compared on data of known symmetry.

Run as ``python -m benchmarks.manifold_choice``. Each seed has another digit, noise and start.
Trained pairs are kept, and a run that was interrupted goes on from them.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from pyro_manifolds import Circle, Euclidean, KleinBottle, Sphere, Torus
from pyro_manifolds.datasets import klein_circles, rotating_digits, shifted_digits
from pyro_manifolds.nn import ManifoldChoice, compare_manifolds

__all__ = ["DATA", "MANIFOLDS", "Sizes", "compare"]

MANIFOLDS = {
    "line": Euclidean(1),
    "circle": Circle(),
    "plane": Euclidean(2),
    "sphere": Sphere(2),
    "torus": Torus(2),
    "Klein bottle": KleinBottle(),
}
# The manifold that is right, and the noise: below it, jumps cost a few nats and more.
DATA = {
    "rotating digit": ("circle", 0.2),
    "shifted digit": ("torus", 0.3),
    "Klein circles": ("Klein bottle", 0.3),
    "tilted digit": ("line", 0.2),
    "digit in a sector": ("line", 0.2),
}
_DIGITS = (1500, 2000, 3500)  # the first 3, the first 4 and the first 7
_SIZE = 14


@dataclass(frozen=True)
class Sizes:
    """Sizes of an experiment."""

    train: int = 20_000
    test: int = 1_000
    steps: int = 1_200
    num_particles: int = 128
    num_points: int = 100_000


QUICK = Sizes(train=500, test=50, steps=10, num_particles=16, num_points=1000)


def draw(name: str, num_images: int, seed: int, *, test: bool) -> Tensor:
    """Draw images of one data set; the seed chooses the digit, too."""
    noise, index = DATA[name][1], _DIGITS[seed % len(_DIGITS)]
    options = {"seed": 2 * seed + test, "index": index, "noise": noise}
    if name == "rotating digit":
        return rotating_digits(num_images, _SIZE, **options).images
    if name == "shifted digit":
        return shifted_digits(num_images, _SIZE, **options).images
    generator = torch.Generator().manual_seed(1000 + options["seed"])
    if name == "tilted digit":
        angles = math.radians(40.0) * torch.randn(num_images, generator=generator)
        return rotating_digits(num_images, _SIZE, angles=angles, **options).images
    if name == "digit in a sector":
        angles = 1.5 * math.pi * torch.rand(num_images, generator=generator)
        return rotating_digits(num_images, _SIZE, angles=angles, **options).images
    images = klein_circles(num_images, _SIZE, seed=options["seed"]).images.float()
    return images + noise * torch.randn(images.shape, generator=generator)


def compare(
    name: str, seed: int, sizes: Sizes, names: Sequence[str], output: Path
) -> ManifoldChoice:
    """Train and compare the named candidates on one data set with one seed."""
    return compare_manifolds(
        draw(name, sizes.train, seed, test=False),
        {key: MANIFOLDS[key] for key in names},
        held_out=draw(name, sizes.test, seed, test=True),
        noise=DATA[name][1],
        seeds=[seed],
        steps=sizes.steps,
        num_particles=sizes.num_particles,
        num_points=sizes.num_points,
        folder=output / name.replace(" ", "-"),
    )


def merge(choices: Sequence[ManifoldChoice]) -> ManifoldChoice:
    """Put seeds together."""
    first = choices[0]
    return replace(
        first,
        tables={seed: table for c in choices for seed, table in c.tables.items()},
        pairs={seed: pairs for c in choices for seed, pairs in c.pairs.items()},
        exact={seed: exact for c in choices for seed, exact in c.exact.items()},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare on every data set with every seed; print the tables and write them to a file."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.manifold_choice", description=__doc__
    )
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA), metavar="DATA")
    parser.add_argument(
        "--manifolds", nargs="+", choices=MANIFOLDS, default=list(MANIFOLDS), metavar="MANIFOLD"
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help=f"gradient steps, {Sizes().steps} by default")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--output", type=Path, default=Path("results/manifold_choice"))
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    sizes = replace(sizes, steps=options.steps or sizes.steps)
    report = {}
    for name in options.data:
        results = []
        for seed in options.seeds:
            results.append(compare(name, seed, sizes, options.manifolds, options.output))
            print(f"{name}, seed {seed}\n{results[-1]}\n", flush=True)
        whole = merge(results)
        by_iwae = replace(whole, criterion="iwae")
        print(f"{name}: {DATA[name][0]} is right\n{whole}")
        print(f"each seed by ELBO {whole.choices}, by IWAE {by_iwae.choices}\n", flush=True)
        report[name] = _numbers(whole)
    options.output.mkdir(parents=True, exist_ok=True)
    (options.output / "scores.json").write_text(json.dumps(report, indent=1))


def _numbers(choice: ManifoldChoice) -> dict[str, dict[str, list[float]]]:
    return {
        name: {
            "elbo": [table[name].elbo for table in choice.tables.values()],
            "iwae": [table[name].log_evidence.value for table in choice.tables.values()],
            "exact": [values[name] for values in choice.exact.values()],
            "bad k": [table[name].bad_k for table in choice.tables.values()],
        }
        for name in choice.dims
    }


if __name__ == "__main__":
    main()
