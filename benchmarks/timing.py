"""Interleaved timings, so that a busy moment of the machine hits all contenders alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

__all__ = ["Entry", "Row", "measure"]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        entry: Name of the entry that measured it.
        name: What was run.
        milliseconds: Median time of one run.
        to_normal: Time in units of ``Normal`` of the same shape.
        speedup: How many times faster than Pyro's ``VonMises`` of the same shape.
        target: The claim in words, empty if none was made.
        passed: Whether the claim holds.
    """

    entry: str
    name: str
    milliseconds: float
    to_normal: float | None = None
    speedup: float | None = None
    target: str = ""
    passed: bool | None = None


# Called with the seconds that it may spend measuring.
Entry = Callable[[float], list[Row]]


def measure(contenders: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Run the contenders in turn for about ``seconds``, and return their medians in milliseconds.

    On one thread the clock is that of the process, for which other programs on the same cores
    hardly count.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    for run in contenders.values():
        run()
        run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(next(iter(times.values()))) < 3:
        for name, run in contenders.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: 1e3 * statistics.median(values) for name, values in times.items()}
