"""Running a module with weights from outside, for one draw or for many."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Size, Tensor, nn
from torch.func import functional_call

__all__ = ["get_tensor", "run_with_weights"]


def run_with_weights(
    net: nn.Module, weights: Mapping[str, Tensor], particles: Size, inputs: tuple[Tensor, ...]
) -> Tensor:
    """Return the output of ``net`` with other weights in it, ``particles + output.shape``.

    Args:
        net: A module.
        weights: Parameters and buffers by name, each with ``particles`` on the left or not.
        particles: Shape of the draws.
        inputs: What the module is called with; the same for all draws.
    """

    def run(one: dict[str, Tensor]) -> Tensor:
        if torch.jit.is_tracing():  # which functional_call refuses
            with _swapped_in(net, one):
                output = net(*inputs)
        else:
            output = functional_call(net, one, inputs, tie_weights=False)
        if not isinstance(output, Tensor):
            raise TypeError(
                f"BayesianModule: expected net to return a tensor, got {type(output).__name__}"
            )
        return output

    if not particles:
        return run(dict(weights))
    own = {name: get_tensor(net, name).shape for name in weights}
    shared = {name: w for name, w in weights.items() if w.shape == own[name]}
    batched = {
        name: w.expand(particles + own[name]).flatten(0, len(particles) - 1)
        for name, w in weights.items()
        if name not in shared
    }
    if _needs_loop(net):
        count = particles.numel()
        rows = [shared | {name: w[i] for name, w in batched.items()} for i in range(count)]
        output = torch.stack([run(row) for row in rows])
    else:
        output = torch.vmap(lambda one: run(shared | one), randomness="different")(batched)
    return output.unflatten(0, particles)


@contextmanager
def _swapped_in(net: nn.Module, weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Have other tensors in the place of buffers, for a while."""
    own = {name: get_tensor(net, name) for name in weights}
    try:
        _set_buffers(net, weights)
        yield
    finally:
        _set_buffers(net, own)


def _set_buffers(net: nn.Module, values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        owner, _, leaf = name.rpartition(".")
        net.get_submodule(owner)._buffers[leaf] = value


def get_tensor(net: nn.Module, name: str) -> Tensor:
    """Return the parameter or buffer of that name."""
    owner, _, leaf = name.rpartition(".")
    tensor: Tensor = getattr(net.get_submodule(owner), leaf)
    return tensor


def _needs_loop(net: nn.Module) -> bool:
    """Recurrent kernels have no batching rule; running statistics are updated one by one."""
    return any(
        isinstance(module, nn.RNNBase)
        or (
            isinstance(module, nn.modules.batchnorm._NormBase)
            and module.training
            and module.track_running_stats
        )
        for module in net.modules()
    )
