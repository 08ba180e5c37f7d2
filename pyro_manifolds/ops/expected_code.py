"""The code of a topographic latent from the means and scales of its Gaussian parts."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

__all__ = ["expected_code"]


class _Neighborhood(Protocol):
    def forward(self, u2: Tensor) -> Tensor: ...


def expected_code(
    z_loc: Tensor,
    u_loc: Tensor,
    u_scale: Tensor,
    neighborhood: _Neighborhood,
    loc: Tensor | float = 0.0,
    scale: Tensor | float = 1.0,
) -> Tensor:
    r"""Code :math:`s \, (\mathbb{E} z + \mu) / \sqrt{W \, \mathbb{E} u^2}`, without sampling.

    For Gaussian :math:`q(u)`, :math:`\mathbb{E} u^2` is the squared mean plus the variance. The
    squared mean alone would let the denominator vanish where :math:`q(u)` is centred at zero. By
    Jensen's inequality the modulus of this code is at most that of the mean of
    :math:`s \, (z + \mu) / \sqrt{W u^2}`; average samples where the mean itself is wanted.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394

    Args:
        z_loc: Means of ``z``, shape ``batch_shape + neighborhood.event_shape``.
        u_loc: Means of ``u``, shape ``batch_shape + neighborhood.noise_shape``.
        u_scale: Standard deviations of ``u``; broadcasts with ``u_loc``.
        neighborhood: What sums the squares of neighbours, by its ``forward``.
        loc: Location :math:`\mu` of the topographic distribution.
        scale: Its scale :math:`s`.

    Returns:
        Codes of the shape of ``z_loc``.

    Example:
        >>> from pyro_manifolds.distributions import Groups
        >>> from pyro_manifolds.ops.expected_code import expected_code
        >>> z, u, s = torch.tensor([0.0, 1.0]), torch.tensor([0.0, 2.0]), torch.tensor([3.0, 6.0])
        >>> expected_code(z, u, s, Groups(1, group_size=2, dof=2), loc=7.0)
        tensor([1.0000, 1.1429])
    """
    energy = neighborhood.forward(u_loc.square() + u_scale**2)
    return scale * (z_loc + loc) * energy.rsqrt()
