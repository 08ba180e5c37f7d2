"""Tables of the runs of ``benchmarks.convnets``: at the best scale of each prior, and at all."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

__all__ = ["LEARNED", "choose", "paired_difference", "print_report", "summarise"]

LEARNED = 0.0  # stands for a gain that is learned
REFERENCES = ("Klein", "photograph Klein")  # what the other priors are compared with
DIAGNOSTICS = ("acceptance", "r_hat", "effective_draws")

Scores = Mapping[str, float]
Cells = dict[tuple[str, float], Scores]  # by member of the family, and gain
Families = Mapping[str, Mapping[int, Cells]]  # by family, and seed


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
        tables[run.task, run.gain == LEARNED][family][run.seed][member, run.gain] = scores
    for (task, learned), families in tables.items():
        title = ", ".join(f"{name} {value}" for name, value in task._asdict().items())
        print(f"\n## {title}{', learned scale' if learned else ''}\n")
        _print_tables(families)


def _print_tables(families: Families) -> None:
    gains = {gain for _, gain in _cells(families)}
    done = [
        {seed for seed, cells in by_seed.items() if {gain for _, gain in cells} == gains}
        for by_seed in families.values()
    ]
    seeds = sorted(set.intersection(*done))
    number = len(list(_cells(families)))
    print(f"{len(seeds)} seeds, {number} runs; at the scale chosen on validation images\n")
    if not seeds:
        return
    rows = {name: [summarise(by_seed[s]) for s in seeds] for name, by_seed in families.items()}
    names = list(next(iter(rows.values()))[0])
    print(_line("prior", *names))
    print(_line(*["---"] * (len(names) + 1)))
    for name, summaries in rows.items():
        print(_line(name, *(_cell([s[column] for s in summaries]) for column in names)))
    for reference in [name for name in REFERENCES if name in rows]:
        _print_differences(rows, reference, [n for n in names if n not in DIAGNOSTICS])


def _cells(families: Families) -> Iterator[tuple[str, float]]:
    """Return the member and gain of every run."""
    return (cell for by_seed in families.values() for cells in by_seed.values() for cell in cells)


def _print_differences(
    rows: Mapping[str, Sequence[Scores]], reference: str, names: Sequence[str]
) -> None:
    print("\n" + _line(f"less {reference}", *names))
    print(_line(*["---"] * (len(names) + 1)))
    for name in [name for name in rows if name != reference]:
        pairs = [
            ([s[column] for s in rows[name]], [s[column] for s in rows[reference]])
            for column in names
        ]
        print(_line(name, *("{:+.3f} ± {:.3f}".format(*paired_difference(*p)) for p in pairs)))


def summarise(cells: Cells) -> dict[str, float]:
    """Return the scores at the best scale, and the negative log-likelihood at every scale.

    The member of the family is the one that is best on validation images, at each scale too.
    """
    scores = dict(choose(cells))
    del scores["validation_nll"]
    gains = sorted({gain for _, gain in cells})
    at = {
        f"nll at {gain:g}": choose({k: v for k, v in cells.items() if k[1] == gain})["nll"]
        for gain in gains
    }
    return scores if len(gains) == 1 else scores | at | {"nll, mean": mean(at.values())}


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


def _cell(values: Sequence[float]) -> str:
    spread = stdev(values) if len(values) > 1 else math.nan
    return f"{mean(values):.3f} ± {spread:.3f}"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
