"""Tasks in this process or in several, one thread each, behind one interface."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import RLock
from typing import Any

import torch
from tqdm import tqdm

__all__ = ["InlineExecutor", "bar_position", "make_executor"]

_position: int | None = None


class InlineExecutor(Executor):
    """Executor that runs a task when it is submitted.

    Example:
        >>> InlineExecutor().submit(max, 1, 2).result()
        2
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


def make_executor(workers: int) -> Executor:
    """Return an executor of ``workers`` processes; of none but this one, if that is one."""
    if workers == 1:
        _start(None, None)
        return InlineExecutor()
    context = multiprocessing.get_context("spawn")  # forked copies of torch can hang
    arguments = (context.Value("i", 0), context.RLock())
    return ProcessPoolExecutor(workers, context, _start, arguments)


def bar_position() -> int | None:
    """Return the line for the progress bar of this process: one each, on a terminal."""
    return _position if sys.stderr.isatty() else None


def _start(counter: Synchronized[int] | None, lock: RLock | None) -> None:
    # One thread each: networks this small lose by more, and results depend on the number.
    torch.set_num_threads(1)
    if counter is None or lock is None:
        return
    tqdm.set_lock(lock)
    with counter.get_lock():
        global _position
        _position = counter.value
        counter.value += 1
