"""Stochastic variational inference as a plain torch loop, with checkpoints to go on from."""

import math
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_manifolds.demo.distributed import (
    average,
    is_main,
    replicate,
    seed_noise,
    share,
    world_size,
)
from pyro_manifolds.nn.checkpoints import load_checkpoint, save_checkpoint

__all__ = ["describe_run", "fit"]


def fit(
    elbo: nn.Module,
    data: Tensor,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    warmup: int = 0,
    decay: bool = True,
    checkpoint: Path | None = None,
    checkpoint_every: int = 500,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    progress: bool = True,
    description: str = "",
    position: int | None = None,
) -> list[float]:
    r"""Train a model and its guide by Adam on minibatches.

    ``elbo`` is what ``Trace_ELBO()(model, guide)`` returns: a module that maps a batch to a loss,
    summed over the batch. Parameters that are made at the first call are taken care of. Batches
    run through the data in a new random order each epoch.

    A run that was interrupted and resumed ends bit for bit where an uninterrupted one does. The
    seed covers batches and noise; seed the initial parameters where the modules are made. The
    global random state is left as it was.

    Within :func:`~pyro_manifolds.demo.distributed.process_group` all processes call this alike and
    train one model: each works on its share of every batch, with noise of its own, and gradients
    are averaged. But for the noise, the result is that of a single process, to rounding; all
    processes return the same history, and the first alone shows progress and writes checkpoints,
    which any number of processes can go on from. The loss must be a sum over rows: a site
    outside of the plate of the data would count once for each process.

    Args:
        elbo: Loss module, moved to the device of ``data`` already.
        data: Shape ``[n, ...]``; where several processes train, the same in each.
        steps: Number of gradient steps in all, those of an earlier, interrupted run included.
        batch_size: Rows in a batch, at most ``n``.
        learning_rate: Step size of Adam at the start.
        seed: Seed of batches and noise.
        warmup: Number of steps over which the weight of the prior and the guide rises from zero
            to one. If positive, the model and the guide are called with a second argument
            ``kl_weight``, for ``poutine.scale`` around the latent sites.
        decay: Whether the step size falls to zero along a half cosine.
        checkpoint: File for the state of the run, written every ``checkpoint_every`` steps and at
            the end, through a temporary file. One of another run is refused, not overwritten.
        checkpoint_every: Number of steps between two checkpoints.
        resume: Whether to go on from ``checkpoint`` where it exists; otherwise the run starts
            afresh.
        settings: What else tells this run from others, such as the name of a model: plain values.
        progress: Whether to show a progress bar.
        description: Label of the progress bar.
        position: Line of the progress bar, where several run at once.

    Returns:
        The ELBO per row at each step, in nats, with the ``kl_weight`` of that step.

    Raises:
        ValueError: If a number is not positive, there are fewer rows than a batch holds, or fewer
            of these than processes.
        CheckpointError: If there is a file at ``checkpoint`` that does not belong to this run.
        FloatingPointError: If the ELBO stops being finite.

    Example:
        >>> class Model(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.loc = torch.nn.Parameter(torch.tensor(0.0))
        ...     def forward(self, x):
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("x", dist.Normal(self.loc, 1.0), obs=x)
        >>> class Guide(torch.nn.Module):
        ...     def forward(self, x):
        ...         pass
        >>> elbo = pyro.infer.Trace_ELBO()(Model(), Guide())
        >>> options = dict(batch_size=8, learning_rate=0.1, seed=0, progress=False)
        >>> history = fit(elbo, torch.full((64,), 3.0), steps=200, **options)
        >>> elbo.model.loc.detach().round()
        tensor(3.)
    """
    _check_sizes(data, steps, batch_size, learning_rate, checkpoint_every)
    options = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    options |= {"seed": seed, "warmup": warmup, "decay": decay}
    identity = describe_run(data, settings, **options)
    saved = load_checkpoint(checkpoint, identity) if checkpoint and checkpoint.exists() else None
    with torch.random.fork_rng(devices=_devices(data)):
        torch.manual_seed(seed)
        with torch.no_grad():
            elbo(data[:batch_size], *_kl_weight(0, warmup))  # creates lazy parameters
        optimiser = torch.optim.Adam(elbo.parameters(), lr=learning_rate)
        history = _restore(saved, elbo, optimiser, data) if saved and resume else []
        replica = replicate(elbo)
        bar = tqdm(
            _batches(data, len(history), steps, batch_size, seed),
            desc=description,
            total=steps,
            initial=len(history),
            position=position,
            leave=position is None,
            disable=not (progress and is_main()),
            mininterval=0.5 if sys.stderr.isatty() else 10.0,
            dynamic_ncols=True,
        )
        for step, batch in enumerate(bar, len(history)):
            if decay:
                _set_learning_rate(optimiser, learning_rate, step / steps)
            seed_noise(seed, step)
            history.append(_step(replica, optimiser, batch, *_kl_weight(step, warmup)))
            if not math.isfinite(history[-1]):
                raise FloatingPointError(
                    f"fit: expected a finite ELBO, got {history[-1]} at step {step}; "
                    "lower the learning rate"
                )
            if step % 50 == 0:
                bar.set_postfix(elbo=f"{_recent(history):.3f}", refresh=False)
            due = (step + 1) % checkpoint_every == 0 or step + 1 == steps
            if checkpoint and due and is_main():
                save_checkpoint(checkpoint, identity, _state(elbo, optimiser, history, data))
    return history


def describe_run(
    data: Tensor, settings: Mapping[str, Any] | None = None, **options: Any
) -> dict[str, Any]:
    """Collect what tells one run of :func:`fit` from others, as its checkpoint holds it.

    Args:
        data: The data of the run, of which the shape and a checksum count.
        settings: As in :func:`fit`.
        **options: The arguments ``steps``, ``batch_size``, ``learning_rate``, ``seed``, ``warmup``
            and ``decay`` of :func:`fit`.

    Example:
        >>> describe_run(torch.zeros(5, 2), {"manifold": "klein"}, steps=10)
        {'manifold': 'klein', 'steps': 10, 'data': '(5, 2) e9ec3db1'}
    """
    checksum = zlib.crc32(data.detach().cpu().contiguous().numpy().tobytes())
    return {**(settings or {}), **options, "data": f"{tuple(data.shape)} {checksum:08x}"}


def _step(
    elbo: nn.Module, optimiser: torch.optim.Optimizer, batch: Tensor, *kl_weight: float
) -> float:
    """Take one step and return the ELBO per row before it; none where that is not finite."""
    optimiser.zero_grad()
    # Averaged over the processes, this is the loss of the whole batch for any sizes of the shares.
    loss = elbo(share(batch), *kl_weight) / (len(batch) / world_size())
    value = -average(loss.detach()).item()
    if math.isfinite(value):
        loss.backward()
        optimiser.step()
    return value


def _check_sizes(
    data: Tensor, steps: int, batch_size: int, learning_rate: float, checkpoint_every: int
) -> None:
    numbers = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate}
    for name, number in {**numbers, "checkpoint_every": checkpoint_every}.items():
        if not number > 0:
            raise ValueError(f"fit: expected {name} > 0, got {number}")
    if batch_size > len(data):
        raise ValueError(
            f"fit: expected batch_size of at most the {len(data)} rows of data, got {batch_size}"
        )
    if batch_size < world_size():
        raise ValueError(
            f"fit: expected batch_size of at least one row for each of the {world_size()} "
            f"processes, got {batch_size}"
        )


def _devices(data: Tensor) -> list[torch.device]:
    return [data.device] if data.is_cuda else []


def _batches(data: Tensor, start: int, steps: int, size: int, seed: int) -> Iterator[Tensor]:
    """Yield the batches from ``start`` on; each depends on its number and the seed alone."""
    per_epoch = len(data) // size
    for step in range(start, steps):
        epoch, index = divmod(step, per_epoch)
        if step == start or index == 0:
            generator = torch.Generator().manual_seed(seed + 1_000_003 * (epoch + 1))
            order = torch.randperm(len(data), generator=generator).to(data.device)
        yield data[order[index * size : (index + 1) * size]]


def _kl_weight(step: int, warmup: int) -> tuple[float, ...]:
    return (min(1.0, (step + 1) / warmup),) if warmup > 0 else ()


def _set_learning_rate(optimiser: torch.optim.Optimizer, initial: float, done: float) -> None:
    for group in optimiser.param_groups:
        group["lr"] = initial * 0.5 * (1 + math.cos(math.pi * done))


def _recent(history: list[float]) -> float:
    last = history[-50:]
    return sum(last) / len(last)


def _state(
    elbo: nn.Module, optimiser: torch.optim.Optimizer, history: list[float], data: Tensor
) -> dict[str, Any]:
    random = [torch.get_rng_state()]
    random += [torch.cuda.get_rng_state(device) for device in _devices(data)]
    return {
        "modules": elbo.state_dict(),
        "optimiser": optimiser.state_dict(),
        "random": random,
        "history": history,
    }


def _restore(
    state: dict[str, Any], elbo: nn.Module, optimiser: torch.optim.Optimizer, data: Tensor
) -> list[float]:
    elbo.load_state_dict(state["modules"])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random"][0])
    for device, random in zip(_devices(data), state["random"][1:], strict=True):
        torch.cuda.set_rng_state(random, device)
    return list(state["history"])
