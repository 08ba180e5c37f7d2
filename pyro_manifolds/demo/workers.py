"""Tasks in this process or in several, one thread each, behind one interface."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import RLock
from typing import Any

import torch
from tqdm import tqdm

__all__ = ["InlineExecutor", "bar_position", "running"]

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


@contextmanager
def running(workers: int) -> Iterator[Executor]:
    """Give an executor of ``workers`` processes; of none but this one, if that is one.

    On an error or an interrupt its processes are stopped at once.
    """
    others = set(multiprocessing.active_children())
    executor = _make_executor(workers)
    try:
        yield executor
    except BaseException:
        ours = set(multiprocessing.active_children()) - others
        executor.shutdown(wait=False, cancel_futures=True)
        for process in ours:
            process.terminate()  # files are written whole or not at all
        raise
    executor.shutdown()


def bar_position() -> int | None:
    """Return the line for the progress bar of this process: one each, on a terminal."""
    return _position if sys.stderr.isatty() else None


def _make_executor(workers: int) -> Executor:
    if workers == 1:
        _start(None, None)
        return InlineExecutor()
    context = multiprocessing.get_context("spawn")  # forked copies of torch can hang
    arguments = (context.Value("i", 0), context.RLock())
    return ProcessPoolExecutor(workers, context, _start, arguments)


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
