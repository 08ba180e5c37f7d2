"""The size of a normal variable."""

from __future__ import annotations

import math

from pyro.distributions import FoldedDistribution, HalfNormal, Normal, constraints
from torch import Tensor
from torch.distributions import kl_divergence, register_kl

from pyro_manifolds.distributions.arguments import as_tensors
from pyro_manifolds.ops.folded_normal import folding_loss

__all__ = ["FoldedNormal"]


class FoldedNormal(FoldedDistribution):
    r"""Law of :math:`|x|` for a normal x, with the divergence to ``HalfNormal``.

    .. math:: p(y) = N(y; \mu, \sigma) + N(-y; \mu, \sigma), \quad y > 0

    It guides an auxiliary variable of which a model uses the square alone. A normal guide to a
    normal prior pays up to :math:`\log 2` for each such variable to say which sign it has;
    a folded one to a half-normal prior describes the same law of the square, and does not.
    The divergence is exact to the resolution of the dtype, for ``TraceMeanField_ELBO``.

    References:
        | The Folded Normal Distribution (Leone, Nelson and Nottingham, 1961), Technometrics 3(4)

    Args:
        loc: Location :math:`\mu` before folding.
        scale: Standard deviation :math:`\sigma` before folding.
        validate_args: Whether to check arguments and values.

    Example:
        >>> from pyro_manifolds.distributions import FoldedNormal
        >>> q = FoldedNormal(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.3]))
        >>> q.rsample().min() >= 0
        tensor(True)
        >>> kl_divergence(q, dist.HalfNormal(1.0))  # Normal to Normal: 0 and 2.7490
        tensor([0.0000, 2.0558])
    """

    arg_constraints = Normal.arg_constraints
    support = constraints.nonnegative  # type: ignore[assignment]  # float32 draws may be 0

    def __init__(
        self, loc: Tensor | float, scale: Tensor | float, validate_args: bool | None = None
    ) -> None:
        loc, scale = as_tensors(loc, scale)
        super().__init__(Normal(loc, scale, validate_args=validate_args), validate_args)

    @property
    def loc(self) -> Tensor:
        """Location before folding."""
        return self.base_dist.loc

    @property
    def scale(self) -> Tensor:
        """Standard deviation before folding."""
        return self.base_dist.scale

    @property
    def mean(self) -> Tensor:
        return self.base_dist.mean * (1 - 2 * self.base_dist.cdf(self.loc.new_zeros(()))) + (
            2 * self.scale**2 * self.base_dist.log_prob(self.loc.new_zeros(())).exp()
        )

    @property
    def variance(self) -> Tensor:
        return self.loc**2 + self.scale**2 - self.mean**2


@register_kl(FoldedNormal, HalfNormal)
def _kl_folded_half(q: FoldedNormal, p: HalfNormal) -> Tensor:
    whole = Normal(p.scale.new_zeros(()), p.scale)
    return kl_divergence(q.base_dist, whole) + folding_loss(q.loc / q.scale) - math.log(2)
