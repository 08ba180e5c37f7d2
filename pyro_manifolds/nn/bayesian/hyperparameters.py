"""What a function samples on its way to a distribution: its names, and its shapes."""

from __future__ import annotations

from typing import Any

import torch
from pyro.infer.predictive import _predictive_vectorize_plate_name as _PREDICTIVE
from pyro.poutine.indep_messenger import CondIndepStackFrame
from pyro.poutine.messenger import Messenger
from pyro.poutine.runtime import get_plates
from torch import Size, Tensor

__all__ = ["HyperparameterMessenger", "particle_shape"]


def particle_shape(
    value: Tensor, own: int, outer: tuple[CondIndepStackFrame, ...], batch: int = 0
) -> Size:
    """Return the shape of what is vectorised around a value, but for the dimension of the data.

    Plates of particles, and enumeration, put dimensions on the left of those that the value has
    by itself, so that they have the same place from the right in the batch of every site. The
    last of these places is that of the data, which has size one outside its plate.

    Args:
        value: Value of a sample site outside the plate of the data.
        own: Number of dimensions that the value has by itself, those of its event and its batch.
        outer: Plates around the model.
        batch: Number of dimensions of its own batch.
    """
    left = value.shape[: value.dim() - own]
    if left.numel() == 1:
        return Size()
    if any(plate.name == _PREDICTIVE for plate in outer):
        # Values that it hands on have lost the dimensions between its own and theirs.
        return Size((left.numel(),) + (1,) * (_room(outer, 1) - 1))
    if not batch:
        return left[:-1] if left[-1] == 1 else left
    return left + (1,) * (batch - 1)


def _room(outer: tuple[CondIndepStackFrame, ...], otherwise: int) -> int:
    """Return the number of batch dimensions on the right of those of the plates."""
    return min((-plate.dim - 1 for plate in outer if plate.dim is not None), default=otherwise)


class HyperparameterMessenger(Messenger):
    """Scope names by a prefix, and line up vectorised scalars with what they are to scale.

    A scalar that is sampled for several particles at a time has their shape, and one dimension
    for the data. Dimensions are put on its right, so that it broadcasts against ``dims`` more;
    the site itself, which guides and traces see, is left as it is. The batch of a hyperparameter,
    with that of plates in which the function samples it, is as good as an event.

    Args:
        prefix: Goes before the names of sites, their plates and parameters.
        dims: Number of dimensions to put on the right of scalars.

    Attributes:
        particles: Shape of the particles in what was sampled.
    """

    def __init__(self, prefix: str = "", dims: int = 0) -> None:
        super().__init__()
        self.prefix, self.dims = prefix, dims
        self.particles = Size()

    def __enter__(self) -> Any:
        self._batches: dict[str, int] = {}
        self._outer = get_plates()
        return super().__enter__()

    def _pyro_sample(self, msg: Any) -> None:
        # Plates on the stack are those inside of this so far, as are the fn's batch dimensions.
        inner: tuple[CondIndepStackFrame, ...] = msg["cond_indep_stack"]
        msg["name"] = f"{self.prefix}{msg['name']}"
        msg["cond_indep_stack"] = tuple(f._replace(name=f"{self.prefix}{f.name}") for f in inner)
        batch = getattr(msg["fn"], "batch_shape", Size())
        self._batches[msg["name"]] = len(batch)
        room = _room(self._outer, len(batch))
        if len(batch) > room:
            raise ValueError(
                f"BayesianModule: expected '{msg['name']}' to have at most {room} batch dimensions"
                f" on the right of vectorised particles, got {tuple(batch)}; make them dimensions "
                f"of the event by .to_event({len(batch)}), or sample in a pyro.plate"
            )

    def _pyro_param(self, msg: Any) -> None:
        msg["name"] = f"{self.prefix}{msg['name']}"
        msg["args"] = (msg["name"], *msg["args"][1:])

    def _pyro_post_sample(self, msg: Any) -> None:
        value, event_dim = msg["value"], getattr(msg["fn"], "event_dim", None)
        if event_dim is None or value.dim() == event_dim:
            return
        batch = self._batches.pop(msg["name"], 0)
        own = batch + event_dim
        particles = particle_shape(value, own, self._outer, batch)
        event = value.shape[value.dim() - own :]
        self.particles = torch.broadcast_shapes(self.particles, particles)
        if particles:
            event = (1,) + (event or (1,) * self.dims)
        msg["value"] = value.reshape(particles + event)
