"""Topographic VAEs on sequences of real digits that turn, against a VAE and against their nulls.

Run as ``python -m benchmarks.topographic_vae``. Finished runs are kept in the folder of the output
and are not repeated; one that was interrupted goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import TraceMeanField_ELBO
from torch import Tensor, nn
from torch.distributions import kl_divergence
from tqdm import tqdm

from benchmarks.topographic_rows import ROWS, Row
from pyro_manifolds.datasets import digit_split, transforming_digits
from pyro_manifolds.distributions import TopographicStudentT
from pyro_manifolds.geometry import (
    equivariance_chance,
    equivariance_error,
    prior_null,
    roll_forward,
    shift_hit_rates,
)
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import TopographicGuide, TopographicModel
from pyro_manifolds.nn.checkpoints import load_checkpoint, replacing, save_checkpoint

__all__ = ["Sizes", "run"]


@dataclass(frozen=True)
class Sizes:
    """Sizes of an experiment; a capsule has as many slots as a sequence has frames."""

    train: int = 1500
    test: int = 200
    frames: int = 12
    capsules: int = 12
    size: int = 14
    epochs: int = 40
    batch: int = 25
    hidden: tuple[int, ...] = (256, 256)
    transformations: tuple[str, ...] = ("rotation",)
    particles: int = 64


QUICK = Sizes(20, 10, 6, 4, 7, 1, 10, (16,), particles=4)
FULL = Sizes(4500, 500, 18, 18, 28, 100, 10, (972, 648), ("rotation", "scale", "translation"))


def sequences(sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Binary images of sequences to train and to test with, of different digits."""
    parts = digit_split(sizes.train, sizes.test, seed=0)
    train, test = (
        transforming_digits(
            len(part),
            sizes.frames,
            sizes.size,
            transformations=sizes.transformations,
            digits=part,
            binarize=0.35,
            seed=seed,
        ).images
        for seed, part in enumerate(parts)
    )
    return train, test


def build(row: Row, sizes: Sizes, seed: int) -> tuple[TopographicModel, TopographicGuide]:
    """Model and guide of one row, at their start."""
    torch.manual_seed(seed)
    return row.build(sizes.frames, sizes.capsules, (sizes.size, sizes.size), sizes.hidden)


def train(
    row: Row,
    model: nn.Module,
    guide: nn.Module,
    images: Tensor,
    sizes: Sizes,
    path: Path,
    name: str,
) -> None:
    """Train by Adam; a checkpoint at ``path`` after every few epochs is gone on from."""
    elbo = TraceMeanField_ELBO()(model, guide)
    optimiser = torch.optim.Adam(elbo.parameters(), lr=1e-3)
    settings, first = settings_of(name, sizes), 0
    if path.exists():
        state = load_checkpoint(path, settings)
        elbo.load_state_dict(state["elbo"])
        optimiser.load_state_dict(state["optimiser"])
        torch.set_rng_state(state["random"])
        first = state["epoch"]
    bar = tqdm(range(first, sizes.epochs), desc=name, mininterval=1.0)
    for epoch in bar:
        row.schedule(model, epoch / sizes.epochs)
        for batch in torch.randperm(len(images)).split(sizes.batch):
            optimiser.zero_grad()
            loss = elbo(images[batch]) / (len(batch) * sizes.frames)
            loss.backward()
            nn.utils.clip_grad_norm_(elbo.parameters(), 100.0)
            optimiser.step()
        bar.set_postfix(elbo=f"{-loss.item():.2f}", refresh=False)
        if epoch % 5 == 4 or epoch + 1 == sizes.epochs:
            state = {
                "elbo": elbo.state_dict(),
                "optimiser": optimiser.state_dict(),
                "random": torch.get_rng_state(),
                "epoch": epoch + 1,
            }
            save_checkpoint(path, settings, state)


def settings_of(name: str, sizes: Sizes) -> dict[str, Any]:
    """What tells a run from others, as it comes back from a file."""
    return {"name": name, **json.loads(json.dumps(asdict(sizes)))}


@torch.no_grad()
def score(
    model: TopographicModel, guide: TopographicGuide, images: Tensor, sizes: Sizes
) -> dict[str, float]:
    """Bounds, divergences and negative log-likelihoods in nats per frame; metrics of the codes."""
    torch.manual_seed(0)
    frames = sizes.frames
    bounds = evidence_bounds(model, guide, images, num_particles=sizes.particles, chunk_size=4)
    codes = model.code(*guide.moments(images))
    lags = (0, frames // 4, frames // 2)
    forward = roll_forward(codes, images, model.log_likelihood, lags)
    pairs = zip("zu", guide.posterior(images), model.priors, strict=False)
    found = {"elbo": bounds.elbo.mean() / frames, "iwae": bounds.iwae.mean() / frames}
    found |= {f"kl_{site}": kl_divergence(q, p).mean() / frames for site, q, p in pairs}
    for kind in ("rolled", "control"):
        values = getattr(forward, kind)
        found |= {f"{kind} {i}": value for i, value in enumerate(values)}
    found |= {f"hits {i + 1}": rate for i, rate in enumerate(shift_hit_rates(codes, lags[1:]))}
    found["equivariance"] = equivariance_error(codes)
    if len(model.priors) == 1:
        found["frame iwae"] = frame_bound(model, guide, images, sizes.particles)
    return {key: value.item() for key, value in found.items()}


def frame_bound(
    model: TopographicModel, guide: TopographicGuide, images: Tensor, particles: int
) -> Tensor:
    """Return the importance-weighted bound of single frames.

    It is tighter than that of sequences, and a bound where frames are independent: for a VAE.
    """
    (prior,), (posterior,) = model.priors, guide.posterior(images)
    weights = []
    for _ in range(particles):
        z = posterior.sample()
        gap = prior.base_dist.log_prob(z) - posterior.base_dist.log_prob(z)
        weights.append(model.log_likelihood(z, images) + gap.sum((-2, -1)))
    return (torch.stack(weights).logsumexp(0) - math.log(particles)).mean()


def run(name: str, seed: int, sizes: Sizes, output: Path) -> dict[str, float]:
    """Train one model and score it, or read what was found before."""
    folder = output / f"{name.replace(' ', '-')}-{seed}"
    found, checkpoint, title = folder / "scores.json", folder / "checkpoint.pt", f"{name}, {seed}"
    if found.exists():
        if checkpoint.exists():
            load_checkpoint(checkpoint, settings_of(title, sizes))  # refuses one of other sizes
        return json.loads(found.read_text())
    pyro.clear_param_store()
    images, held_out = sequences(sizes)
    model, guide = build(ROWS[name], sizes, seed)
    before = equivariance_error(model.code(*guide.moments(held_out)).detach()).item()
    train(ROWS[name], model, guide, images, sizes, checkpoint, title)
    scores = {**score(model, guide, held_out, sizes), "untrained equivariance": before}
    with replacing(found) as path:
        path.write_text(json.dumps(scores))
    return scores


def table(results: dict[str, list[dict[str, float]]], sizes: Sizes) -> str:
    """Markdown: means and standard deviations over seeds."""
    columns = {
        "ELBO": "elbo",
        "sequence IWAE": "iwae",
        "of frames": "frame iwae",
        "KL z": "kl_z",
        "KL u": "kl_u",
        "NLL, lag 0": "rolled 0",
        f"lag {sizes.frames // 4}": "rolled 1",
        "control": "control 1",
        f"lag {sizes.frames // 2}": "rolled 2",
        "control ": "control 2",
        "hits": "hits 1",
        "E_eq": "equivariance",
        "E_eq untrained": "untrained equivariance",
    }
    lines = [("model", *columns), ("---",) * (1 + len(columns))]
    for name, runs in results.items():
        lines.append((name, *(_cell([r.get(key) for r in runs]) for key in columns.values())))
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(values: Sequence[float | None]) -> str:
    numbers = torch.tensor([v for v in values if v is not None])
    if not len(numbers):
        return ""
    digits = 0 if numbers.abs().max() >= 1000 else 1 if numbers.abs().max() >= 100 else 2
    spread = f" ± {numbers.std().item():.{digits}f}" if len(numbers) > 1 else ""
    return f"{numbers.mean().item():.{digits}f}{spread}"


def nulls(sizes: Sizes) -> str:
    """Equivariance error by chance, and of codes drawn from each prior."""
    window = ROWS["published"].window(sizes.frames, sizes.capsules)
    lines = [
        f"E_eq by chance {equivariance_chance(sizes.frames, sizes.capsules, sizes.frames):.0f}"
    ]
    for loc in (30.0, 0.0):
        error = prior_null(equivariance_error, TopographicStudentT(window, loc))
        lines.append(f"E_eq of codes from the prior of band 5, loc {loc:g}: {error:.0f}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every model with every seed, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.topographic_vae", description=__doc__
    )
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--full", action="store_true", help="28 x 28 pixels, 18 frames: hours")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run?")
    parser.add_argument("--epochs", type=int, help="passes over the data, 40 by default")
    parser.add_argument("--output", type=Path, default=Path("results/topographic_vae"))
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else FULL if options.full else Sizes()
    sizes = replace(sizes, epochs=options.epochs or sizes.epochs)
    output = options.output / ("quick" if options.quick else "full" if options.full else "small")
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.rows}
    with pyro.validation_enabled(False):
        for seed in options.seeds:
            for name in options.rows:
                results[name].append(run(name, seed, sizes, output))
                scores = {k: round(v, 2) for k, v in results[name][-1].items()}
                print(f"{name}, seed {seed}: {scores}", flush=True)
    print(f"{table(results, sizes)}\n{nulls(sizes)}")


if __name__ == "__main__":
    main()
