"""Points of a sphere in polar coordinates around a location."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["polar_point"]


def polar_point(loc: Tensor, near: Tensor, far: Tensor, direction: Tensor) -> Tensor:
    r"""Return the unit vector at a given height above the equator of ``loc``, in a direction.

    Its height :math:`t = \mu \cdot x` comes as the two shares :math:`(1 - t) / 2` and
    :math:`(1 + t) / 2`, which keep their relative precision at both poles.

    Args:
        loc: Unit vectors :math:`\mu`, ``[..., d]``.
        near: Share :math:`(1 - t) / 2`, ``[...]``, zero at the location.
        far: Share :math:`(1 + t) / 2`, ``[...]``; a factor common to both is divided out.
        direction: Vectors ``[..., d]`` that are projected to the tangent space at ``loc``.

    Example:
        >>> loc, direction = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([5.0, 0.0, 2.0])
        >>> polar_point(loc, torch.tensor(0.5), torch.tensor(0.5), direction)
        tensor([0., 0., 1.])
    """
    tangent = 2 * (near.sqrt() * far.sqrt()).unsqueeze(-1) * _unit_tangent(direction, loc)
    return normalize((far - near).unsqueeze(-1) * loc + tangent, dim=-1)


def _unit_tangent(x: Tensor, loc: Tensor) -> Tensor:
    # Twice: once leaves a normal component of up to 2e-3 in float32, in two dimensions.
    for _ in range(2):
        x = normalize(x - (x * loc).sum(-1, keepdim=True) * loc, dim=-1)
    return x
