"""Tables of the runs of ``benchmarks.toy_circle``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

__all__ = ["print_report"]

Scores = Mapping[str, float]
BASELINE = "normal, d = 1"


def print_report(runs: Mapping[Any, Scores]) -> None:
    """Print the tables for each size of the noise, and the ELBO after fewer steps.

    Args:
        runs: Scores by run, with the fields of :class:`~benchmarks.toy_circle.Run`.
    """
    longest = max(run.steps for run in runs)
    for noise, starts in dict.fromkeys((run.noise, run.starts) for run in runs):
        table: dict[str, dict[int, Scores]] = {}
        for run, scores in runs.items():
            if (run.noise, run.starts, run.steps) == (noise, starts, longest):
                table.setdefault(run.latent, {})[run.seed] = scores
        title = f"{noise} noise, {'one start' if starts == 1 else f'best of {starts} starts'}"
        _show(f"{title}, {longest} steps, nats per datum", _main_rows(table))
        if starts == 1:
            _show(f"{title}, divergences and what they give", _divergence_rows(table))
    single = {run: scores for run, scores in runs.items() if run.starts == 1}
    _show("fixed noise, one start, ELBO by number of steps", _curve_rows(single, longest))


def _main_rows(table: Mapping[str, Mapping[int, Scores]]) -> Iterator[Sequence[str]]:
    yield (
        *("latent", "seeds", "ELBO", "worst 1 %", "IWAE", "exact evidence"),
        *("largest exact - ELBO", "ELBO - that of d = 1", "least of these", "size of the noise"),
    )
    for name, by_seed in table.items():
        scores = list(by_seed.values())
        gaps = [s["exact"] - s["elbo"] for s in scores if "exact" in s]
        yield (
            *(name, str(len(scores))),
            *(_cell(scores, key) for key in ("elbo", "worst", "iwae", "exact")),
            f"{max(gaps):.3f}" if gaps else "",
            *_paired(by_seed, table.get(BASELINE, {})),
            _cell(scores, "noise", digits=4),
        )
    first = max(table.values(), key=len)
    yield "true network, the same noise", str(len(first)), _cell(list(first.values()), "generator")


def _divergence_rows(table: Mapping[str, Mapping[int, Scores]]) -> Iterator[Sequence[str]]:
    yield "latent", "KL by densities", "KL before the embedding", "ELBO", "nominal ELBO", "exact"
    for name, by_seed in table.items():
        scores = list(by_seed.values())
        if "base_kl" in scores[0]:
            keys = ("kl", "base_kl", "elbo", "nominal", "exact")
            yield name, *(_cell(scores, key, digits=3) for key in keys)


def _curve_rows(runs: Mapping[Any, Scores], longest: int) -> Iterator[Sequence[str]]:
    names = dict.fromkeys(run.latent for run in runs if run.steps < longest)
    budgets = sorted({run.steps for run in runs})
    yield "latent", *map(str, budgets)
    for name in names:
        chosen = {r: s for r, s in runs.items() if (r.latent, r.noise) == (name, "fixed")}
        by_budget = ([s for r, s in chosen.items() if r.steps == steps] for steps in budgets)
        yield name, *(_cell(scores, "elbo") for scores in by_budget)


def _paired(by_seed: Mapping[int, Scores], baseline: Mapping[int, Scores]) -> tuple[str, str]:
    seeds = by_seed.keys() & baseline.keys()
    differences = [by_seed[seed]["elbo"] - baseline[seed]["elbo"] for seed in seeds]
    if by_seed is baseline or not differences:
        return "", ""
    return _mean(differences, "+.2f"), f"{min(differences):+.2f}"


def _cell(scores: Sequence[Scores], key: str, digits: int = 2) -> str:
    values = [s[key] for s in scores if key in s]
    return _mean(values, f".{digits}f") if values else ""


def _mean(values: Sequence[float], form: str) -> str:
    """Write a mean and, of several values, their standard deviation."""
    spread = f" ± {stdev(values):{form.lstrip('+')}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def _show(title: str, rows: Iterator[Sequence[str]]) -> None:
    heads, *body = rows
    if body:
        print(f"\n## {title}\n")
        print(_line(heads), _line(["---"] * len(heads)), *map(_line, body), sep="\n")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
