"""One training run in several processes, which ``torchrun`` starts.

Every process runs the same program on the same data. Within :func:`process_group`, the loop
:func:`~pyro_manifolds.demo.training.fit` gives each its share of every batch and averages
gradients; elsewhere the functions here do nothing. Processes talk through gloo about tensors on
the CPU and through NCCL about those on GPUs, of which each takes one.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = [
    "average",
    "is_main",
    "launched",
    "local_device",
    "process_group",
    "rank",
    "replicate",
    "seed_noise",
    "share",
    "world_size",
]


def launched() -> bool:
    """Tell whether ``torchrun`` started this process."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


@contextmanager
def process_group() -> Iterator[None]:
    """Join the processes that ``torchrun`` started, and leave with them; alone, do nothing.

    Example:
        >>> with process_group():
        ...     world_size(), is_main(), local_device()
        (1, True, device(type='cpu'))
    """
    if not launched():
        yield
        return
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    distributed.init_process_group()
    yield
    # On an error nobody waits: torchrun stops the other processes as soon as this one is gone.
    distributed.barrier(device_ids=[device.index] if device.type == "cuda" else None)
    distributed.destroy_process_group()


def world_size() -> int:
    """Return the number of processes that train together."""
    joined = distributed.is_available() and distributed.is_initialized()
    return distributed.get_world_size() if joined else 1


def rank() -> int:
    """Return the number of this process among them."""
    return distributed.get_rank() if world_size() > 1 else 0


def is_main() -> bool:
    """Tell whether this is the one process that reports and writes files."""
    return rank() == 0


def local_device() -> torch.device:
    """Return the GPU of this process where ``torchrun`` started it and there are GPUs."""
    if launched() and torch.cuda.is_available():
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device("cpu")


def share(batch: Tensor) -> Tensor:
    """Return the rows of a batch that this process works on: as many as others, or one more."""
    return batch.tensor_split(world_size())[rank()]


def average(value: Tensor) -> Tensor:
    """Return the mean of a tensor over the processes, the same in each."""
    if world_size() == 1:
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / world_size()


def replicate(module: nn.Module) -> nn.Module:
    """Make all processes start from the parameters of the first and average their gradients.

    Args:
        module: Module with all of its parameters: those made later would go their own ways.

    Returns:
        What to call in place of ``module``, which keeps the parameters.
    """
    return module if world_size() == 1 else DistributedDataParallel(module)


def seed_noise(seed: int, step: int) -> None:
    """Seed the noise of one step differently in each process; alone, do nothing."""
    if world_size() > 1:
        torch.manual_seed(seed + 15_485_863 * (step * world_size() + rank() + 1))
