"""Measure, print one table, and write it to ``results/benchmarks.json``.

``python -m benchmarks.klein_vae`` is an experiment of its own: what a latent Klein bottle learns.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import torch

from benchmarks import complex_latents, decoder_metrics, densities, steps, topographic, volumes
from benchmarks.timing import Entry, Row

__all__ = ["ENTRIES", "main"]

ENTRIES: dict[str, Entry] = {
    **densities.ENTRIES,
    **steps.ENTRIES,
    **topographic.ENTRIES,
    **volumes.ENTRIES,
    **decoder_metrics.ENTRIES,
    **complex_latents.ENTRIES,
}

_COLUMNS = (
    "entry",
    "what",
    "median ms",
    "x Normal",
    "x faster than Pyro's VonMises",
    "target",
    "",
)


def main(arguments: list[str] | None = None) -> list[Row]:
    """Run the entries named on the command line, all by default, and return the rows."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("entries", nargs="*", metavar="ENTRY", help=", ".join(ENTRIES))
    parser.add_argument("--quick", action="store_true", help="few repeats: a smoke test")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("results/benchmarks.json"))
    options = parser.parse_args(arguments)
    unknown = set(options.entries) - set(ENTRIES)
    if unknown:
        parser.error(f"expected entries among {', '.join(ENTRIES)}, got {', '.join(unknown)}")

    threads = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    try:
        rows = [
            row
            for name in options.entries or ENTRIES
            for row in ENTRIES[name](0.1 if options.quick else 8.0)
        ]
    finally:
        torch.set_num_threads(threads)
    print(table(rows))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    report = {"torch": torch.__version__, "threads": options.threads, "quick": options.quick}
    report["rows"] = [dataclasses.asdict(row) for row in rows]
    options.output.write_text(json.dumps(report, indent=2))
    return rows


def table(rows: list[Row]) -> str:
    """Lay the rows out in columns, in Markdown."""
    lines = [_COLUMNS, tuple("---" for _ in _COLUMNS), *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cells(row: Row) -> tuple[str, ...]:
    def number(x: float | None) -> str:
        return "" if x is None else f"{x:.2f}"

    verdict = {True: "pass", False: "FAIL", None: ""}[row.passed]
    return (
        *(row.entry, row.name, f"{row.milliseconds:.3f}"),
        *(number(row.to_normal), number(row.speedup), row.target, verdict),
    )


if __name__ == "__main__":
    main()
