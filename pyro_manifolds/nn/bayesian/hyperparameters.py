"""What a function samples on its way to a distribution: its names, and its shapes."""

from __future__ import annotations

from typing import Any

from pyro.poutine.messenger import Messenger
from torch import Size, Tensor

__all__ = ["HyperparameterMessenger", "particle_shape"]


def particle_shape(value: Tensor, event_dim: int) -> Size:
    """Return the shape of vectorised particles in a value that is sampled outside all plates.

    Plates of particles leave a dimension of size one for the data; ``Predictive(parallel=True)``
    leaves it out except for scalars.
    """
    left = value.shape[: value.dim() - event_dim]
    return left[:-1] if left and left[-1] == 1 else left


class HyperparameterMessenger(Messenger):
    """Scope names by a prefix, and line up vectorised scalars with what they are to scale.

    A scalar that is sampled for several particles at a time has their shape, and one dimension
    for the data. Dimensions are put on its right, so that it broadcasts against ``dims`` more;
    the site itself, which guides and traces see, is left as it is.

    Args:
        prefix: Goes before the names of sites and parameters.
        dims: Number of dimensions to put on the right of scalars.

    Attributes:
        particles: Shape of the particles in what was sampled.
    """

    def __init__(self, prefix: str = "", dims: int = 0) -> None:
        super().__init__()
        self.prefix, self.dims = prefix, dims
        self.particles = Size()

    def _pyro_sample(self, msg: Any) -> None:
        msg["name"] = f"{self.prefix}{msg['name']}"

    def _pyro_param(self, msg: Any) -> None:
        msg["name"] = f"{self.prefix}{msg['name']}"
        msg["args"] = (msg["name"], *msg["args"][1:])

    def _pyro_post_sample(self, msg: Any) -> None:
        value, event_dim = msg["value"], getattr(msg["fn"], "event_dim", None)
        if event_dim is None or value.dim() == event_dim:
            return
        particles, event = particle_shape(value, event_dim), value.shape[value.dim() - event_dim :]
        self.particles = max(self.particles, particles, key=len)
        if particles:
            event = (1,) + (event or (1,) * self.dims)
        msg["value"] = value.reshape(particles + event)
