"""Tables of the runs of ``benchmarks.convnets``: at the best scale of each prior, and at all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

__all__ = ["choose", "paired_difference", "print_report"]

Scores = Mapping[str, float]
Cells = dict[tuple[str, float], Scores]  # by member of the family, and gain


def print_report(runs: Iterable[tuple[Any, Scores]]) -> None:
    """Print, for each task, every family of priors at its best scale and at all scales.

    Args:
        runs: Runs, with the fields ``task``, ``prior``, ``gain`` and ``seed``, and their scores.
    """
    tables: dict[Any, dict[str, dict[int, Cells]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(dict))
    )
    for run, scores in runs:
        family, _, member = run.prior.partition("/")
        tables[run.task][family][run.seed][member, run.gain] = scores
    for task, families in tables.items():
        print(f"\n## {', '.join(f'{name} {value}' for name, value in task._asdict().items())}\n")
        print(_table(families))


def choose(cells: Cells) -> Scores:
    """Return the scores of the member and the gain that are best on validation images."""
    return min(cells.values(), key=lambda scores: scores["validation_nll"])


def paired_difference(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Return the mean difference over seeds, and half of its 95 % interval by Student's t.

    Example:
        >>> mean, half = paired_difference([1.0, 2.0, 3.0], [0.0, 2.0, 1.0])
        >>> round(mean, 3), round(half, 3)
        (1.0, 2.484)
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    number = len(differences)
    if number < 2:
        return mean(differences), math.nan
    half = student.ppf(0.975, number - 1) * stdev(differences) / math.sqrt(number)
    return mean(differences), float(half)


def _table(families: Mapping[str, Mapping[int, Cells]]) -> str:
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in families.values())))
    best = {f: [choose(by_seed[s]) for s in seeds] for f, by_seed in families.items()}
    names = [name for name in next(iter(best.values()))[0] if name != "validation_nll"]
    lines = [
        f"{len(seeds)} seeds; scores at the scale chosen on validation images",
        "",
        _line("prior", *names, "NLL minus Klein's", "NLL at each scale"),
        _line(*["---"] * (len(names) + 3)),
    ]
    for family, scores in best.items():
        columns = [_cell([s[name] for s in scores]) for name in names]
        to_klein = ""
        if "Klein" in best and family != "Klein":
            difference = paired_difference(
                [s["nll"] for s in scores], [s["nll"] for s in best["Klein"]]
            )
            to_klein = "{:+.3f} ± {:.3f}".format(*difference)
        lines.append(_line(family, *columns, to_klein, _by_scale(families[family], seeds)))
    return "\n".join(lines)


def _by_scale(by_seed: Mapping[int, Cells], seeds: Sequence[int]) -> str:
    """Return the mean at each gain, of the member that is best on validation images there."""
    gains = sorted({gain for _, gain in by_seed[seeds[0]]})
    at = {
        gain: mean(
            choose({k: v for k, v in by_seed[seed].items() if k[1] == gain})["nll"]
            for seed in seeds
        )
        for gain in gains
    }
    return ", ".join(f"{gain:g}: {value:.3f}" for gain, value in at.items())


def _cell(values: Sequence[float]) -> str:
    spread = stdev(values) if len(values) > 1 else math.nan
    return f"{mean(values):.3f} ± {spread:.3f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
