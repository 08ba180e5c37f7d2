"""Which manifold do patches of photographs fit? Train, compare, draw.

``python -m pyro_manifolds.demo`` trains one model per worker. All processes of ::

    torchrun --standalone --nproc_per_node=2 -m pyro_manifolds.demo

train one model after the other together, each on its share of every batch: on one GPU each where
there are any.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch

from pyro_manifolds.datasets import TEST_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS
from pyro_manifolds.demo.distributed import average, is_main, launched, process_group, world_size
from pyro_manifolds.demo.experiment import (
    MANIFOLDS,
    Score,
    Settings,
    check_checkpoint,
    held_out_patches,
    load_run,
    score_angular_gaussian,
    score_components,
    score_latent,
    score_mixture,
    score_uniform,
    train_patches,
)
from pyro_manifolds.demo.report import (
    Row,
    save_figure,
    save_json,
    save_text,
    summarise,
    table,
)
from pyro_manifolds.demo.workers import running
from pyro_manifolds.nn.checkpoints import CheckpointError

__all__ = ["main", "make_parser"]

_SMOKE: dict[str, Any] = {
    "steps": 40,
    "batch_size": 64,
    "hidden": 16,
    "train_patches": 700,
    "test_patches": 300,
    "particles": 16,
    "mixture_steps": 10,
    "candidates": (2, 4),
    "seeds": 1,
    "workers": 1,
}
_OPTIONS = {
    "steps": "gradient steps for each latent manifold",
    "batch_size": "patches in a batch",
    "hidden": "width of the hidden layers",
    "train_patches": "patches to train on",
    "test_patches": "held-out patches",
    "particles": "draws for the importance-weighted bound",
    "mixture_steps": "gradient steps for the mixture",
}


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line.

    Example:
        >>> arguments = make_parser().parse_args(["--manifolds", "klein", "--seeds", "2"])
        >>> arguments.manifolds, arguments.seeds, arguments.resume
        (['klein'], 2, False)
    """
    parser = argparse.ArgumentParser(
        prog="python -m pyro_manifolds.demo",
        description="Fit directions of 3x3 patches of photographs with latent points on several "
        "manifolds; compare held-out densities, on other photographs, with simple baselines.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    names = list(MANIFOLDS)
    parser.add_argument(
        "--manifolds", nargs="+", choices=names, default=names, help="latent manifolds"
    )
    parser.add_argument(
        "--output", type=Path, default=Path("results/demo"), help="folder for what is written"
    )
    parser.add_argument("--resume", action="store_true", help="go on from checkpoints in --output")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes and one seed, to try out")
    parser.add_argument("--seeds", type=_positive, default=3, help="number of seeds")
    parser.add_argument(
        "--learning-rate", type=_positive_number, default=Settings.learning_rate, help="of Adam"
    )
    for name, text in _OPTIONS.items():
        default = getattr(Settings, name)
        parser.add_argument(_flag(name), type=_positive, default=default, help=text)
    workers = 1 if launched() else min(2, os.cpu_count() or 1)
    parser.add_argument("--workers", type=_positive, default=workers, help="processes")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    parser.set_defaults(candidates=Settings.candidates)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration; return the exit status."""
    parser = make_parser()
    options = parser.parse_args(arguments)
    if options.smoke:
        parser.set_defaults(**_SMOKE)
        options = parser.parse_args(arguments)
    options.manifolds = list(dict.fromkeys(options.manifolds))  # once each
    settings = Settings(**{f.name: getattr(options, f.name) for f in fields(Settings)})
    try:
        with process_group():
            _check(settings, options)
            _run(settings, options)
    except (CheckpointError, ImportError, _ArgumentError, OSError) as error:
        parser.error(str(error))
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: error: {error}\n")
    except KeyboardInterrupt:
        print("\nInterrupted; the same command with --resume goes on.", file=sys.stderr)
        return 130
    return 0


class _ArgumentError(ValueError):
    """An argument cannot be used; the message names it."""


def _run(settings: Settings, options: argparse.Namespace) -> None:
    start, processor = time.perf_counter(), _processor_seconds()
    scores, chosen = _score_all(settings, options)
    rows = summarise(scores)
    processor = _processor_seconds() - processor
    processor = average(torch.tensor(processor)).item() * world_size()
    if not is_main():
        return
    seconds = time.perf_counter() - start, processor
    caption = _caption(settings, options, chosen, *seconds)
    print(f"\n{table(rows)}\n\n{caption}")
    _save(settings, options, scores, rows, caption)
    print(f"\nFigure, table and scores: {options.output}/photographs.png, .txt, .json")


def _score_all(
    settings: Settings, options: argparse.Namespace
) -> tuple[list[Score], dict[int, float]]:
    """Run everything; return all scores, and what the size of the mixture was chosen by."""
    seeds = range(options.seeds)
    shared = {"resume": options.resume, "progress": not options.quiet}
    with running(options.workers) as executor:
        sizes = {k: executor.submit(score_components, settings, k) for k in settings.candidates}
        latent: list[Future[Score]] = [
            executor.submit(score_latent, settings, options.output, manifold, seed, **shared)
            for manifold in options.manifolds
            for seed in seeds
        ]
        chosen = {k: future.result() for k, future in sizes.items()}
        best = max(chosen, key=lambda k: chosen[k])
        mixtures = [executor.submit(score_mixture, settings, best, seed) for seed in seeds]
        simple = [score_angular_gaussian(settings), score_uniform(settings)]
        return [future.result() for future in latent + mixtures] + simple, chosen


def _save(
    settings: Settings,
    options: argparse.Namespace,
    scores: list[Score],
    rows: list[Row],
    caption: str,
) -> None:
    output: Path = options.output
    about = {"settings": asdict(settings), "seeds": options.seeds, "caption": caption}
    save_text(output / "photographs.txt", f"{table(rows)}\n\n{caption}")
    save_json(output / "photographs.json", rows, about)
    trained = None
    runs = [score for score in scores if score.name == MANIFOLDS["klein"][0]]
    if runs:
        best = max(runs, key=lambda score: score.train)  # chosen on training patches
        trained = load_run(settings, output, "klein", best.seed or 0)
    save_figure(output / "photographs.png", rows, caption, trained, held_out_patches(settings))


def _caption(
    settings: Settings,
    options: argparse.Namespace,
    chosen: dict[int, float],
    seconds: float,
    processor_seconds: float,
) -> str:
    spread = f"mean ± standard deviation over {options.seeds} seeds" if options.seeds > 1 else ""
    lines = [
        "Nats per patch, with respect to the surface measure of the 7-sphere" + (spread and ";"),
        *([spread + "."] if spread else []),
        f"With a latent manifold, log-density is a bound from {settings.particles} draws.",
        f"Trained on {settings.train_patches:,} patches of {', '.join(TRAIN_PHOTOGRAPHS)};",
        f"held out: {settings.test_patches:,} of {', '.join(TEST_PHOTOGRAPHS)}.",
        f"Latent: {settings.steps:,} steps, encoder 8-{settings.hidden}-{settings.hidden} "
        "not among the parameters.",
        "Components of the mixture, by log-density of photographs kept out of training:",
        ", ".join(f"{k}: {score:.2f}" for k, score in chosen.items()) + ".",
        f"{seconds:.0f} seconds on {options.workers * world_size()} of {os.cpu_count()} cores, "
        f"{processor_seconds:.0f} of processor time.",
    ]
    return "\n".join(lines)


def _processor_seconds() -> float:
    """Return the time that this process and those it waited for have computed."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _check(settings: Settings, options: argparse.Namespace) -> None:
    """Refuse what cannot work before anything is computed or written."""
    if launched() and options.workers > 1:
        raise _ArgumentError(
            "argument --workers: expected 1 under torchrun, which starts the processes, got "
            f"{options.workers}"
        )
    for flag, load in (("--train-patches", train_patches), ("--test-patches", held_out_patches)):
        try:
            load(settings)
        except ValueError as error:
            raise _ArgumentError(f"argument {flag}: {error}") from error
    fewest = max(settings.candidates) * len(TRAIN_PHOTOGRAPHS)  # the mixture starts at patches
    if settings.train_patches < fewest:
        raise _ArgumentError(
            f"argument --train-patches: expected at least {fewest}, got {settings.train_patches}"
        )
    if settings.batch_size > settings.train_patches:
        raise _ArgumentError(
            f"argument --batch-size: expected at most the {settings.train_patches} patches of "
            f"--train-patches, got {settings.batch_size}"
        )
    if options.output.exists() and not options.output.is_dir():
        raise _ArgumentError(
            f"argument --output: expected a folder, got the file {options.output}"
        )
    runs = [(manifold, seed) for manifold in options.manifolds for seed in range(options.seeds)]
    try:
        found = [check_checkpoint(settings, options.output, *run) for run in runs]
    except CheckpointError as error:
        raise _ArgumentError(f"argument --output: {error}") from error
    if options.resume and not any(found):
        raise _ArgumentError(
            f"argument --resume: expected checkpoints in {options.output}, got none"
        )


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a positive integer, got {text!r}")
    return number


def _positive_number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a positive number, got {text!r}")
    return number


if __name__ == "__main__":
    sys.exit(main())
