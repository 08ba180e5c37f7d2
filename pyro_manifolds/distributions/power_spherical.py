"""The power spherical law on spheres of any dimension."""

from __future__ import annotations

import torch
from pyro.distributions import TorchDistribution, constraints
from torch import Size, Tensor
from torch.nn.functional import normalize
from torch.types import _size

from pyro_manifolds.manifolds import Sphere
from pyro_manifolds.manifolds.spherical import log_sphere_volume
from pyro_manifolds.ops.power_spherical import kl_to_uniform, log_normalizer

__all__ = ["PowerSpherical"]


class PowerSpherical(TorchDistribution):
    r"""Power spherical law on the unit sphere of :math:`\mathbb{R}^d`.

    For a unit vector :math:`\mu` and :math:`\kappa \ge 0`, the density with respect to the
    surface measure is

    .. math::
        p(x) = \frac{e^{-h(\kappa)}}{|S^{d-1}|} \left( \frac{1 + \mu \cdot x}{2} \right)^\kappa

    in ambient coordinates: values are unit vectors. The law is uniform at :math:`\kappa = 0`.
    Sampling is exact and reparameterised, through two gamma variables and a normal direction.
    The density vanishes at :math:`-\mu`: there ``log_prob`` returns a floor, reached at a
    distance of twice the resolution of the dtype, where the gradient is zero.

    References:
        | The Power Spherical distribution (De Cao and Aziz, 2020)
        | https://arxiv.org/abs/2006.04437

    Args:
        loc: Location :math:`\mu`, a unit vector, shape ``batch_shape + (d,)`` with d at least 2.
        concentration: Concentration :math:`\kappa \ge 0`, of shape broadcastable to the batch.
        validate_args: Whether to check arguments and values.

    Raises:
        ValueError: If d is less than 2, if the shapes do not broadcast, if the concentration has
            a last dimension of size one that the batch has not, or if validation is on and
            ``loc`` is not of unit norm or the concentration is negative.

    Example:
        >>> d = PowerSpherical(torch.eye(3), torch.tensor(2.0))
        >>> d.batch_shape, d.event_shape
        (torch.Size([3]), torch.Size([3]))
        >>> d.log_prob(torch.tensor([1.0, 0.0, 0.0]))
        tensor([-1.4324, -2.8187, -2.8187])
        >>> d.entropy()
        tensor([2.0991, 2.0991, 2.0991])
    """

    arg_constraints = {"loc": constraints.sphere, "concentration": constraints.nonnegative}
    has_rsample = True

    def __init__(
        self, loc: Tensor, concentration: Tensor | float, *, validate_args: bool | None = None
    ) -> None:
        concentration = torch.as_tensor(concentration, dtype=loc.dtype, device=loc.device)
        batch_shape = _broadcast(loc.shape, concentration.shape)
        self.loc = loc.expand(batch_shape + loc.shape[-1:])
        self.concentration = concentration.expand(batch_shape)
        if self._validate_args if validate_args is None else validate_args:
            _check_norm(loc)
        super().__init__(batch_shape, loc.shape[-1:], validate_args=validate_args)

    @staticmethod
    def infer_shapes(loc: Size, concentration: Size = Size()) -> tuple[Size, Size]:  # type: ignore[override]
        batch_shape = torch.broadcast_shapes(loc[:-1], concentration)
        return batch_shape, Size(loc[-1:])

    @constraints.dependent_property(is_discrete=False, event_dim=1)
    def support(self) -> constraints.Constraint:
        """The sphere, with its way in from the ambient space."""
        return Sphere(self.event_shape[0] - 1).support

    def expand(
        self, batch_shape: _size, _instance: PowerSpherical | None = None
    ) -> PowerSpherical:
        new = self._get_checked_instance(PowerSpherical, _instance)
        batch_shape = Size(batch_shape)
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        new.concentration = self.concentration.expand(batch_shape)
        super(PowerSpherical, new).__init__(batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        """Direction of the mean, the location: a point of the sphere, not the mean vector."""
        return self.loc

    @property
    def mode(self) -> Tensor:
        """Point of the highest density, the location."""
        return self.loc

    def rsample(self, sample_shape: _size = Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        b = 0.5 * (shape[-1] - 1)
        kappa = self.concentration.expand(shape[:-1])
        # (1 - mu.x) / 2 is Beta(b, b + kappa), the share of one gamma variable in the sum of two.
        # Drawn apart, both shares keep their relative precision, and the gradient is unbiased:
        # that of torch's Beta is off by a third in float32 at a concentration of 1e6 on the
        # circle, and NaN at 1e8. The norm, their sum, is divided out at the end.
        # (torch._standard_gamma is what torch's Gamma calls; that class warns under vmap.)
        near = torch._standard_gamma(torch.full_like(kappa, b)).unsqueeze(-1)
        far = torch._standard_gamma(b + kappa).unsqueeze(-1)
        normal = torch.randn(shape, dtype=self.loc.dtype, device=self.loc.device)
        tangent = 2 * near.sqrt() * far.sqrt() * _unit_tangent(normal, self.loc)
        return normalize((far - near) * self.loc + tangent, dim=-1)

    def log_prob(self, value: Tensor) -> Tensor:
        if self._validate_args:
            self._validate_sample(value)
        near = (value - self.loc).square().sum(-1)
        far = (value + self.loc).square().sum(-1)
        # log((1 + t) / 2) = -log(1 + |x - mu|^2 / |x + mu|^2) is accurate at both poles.
        floor = 4 * torch.finfo(far.dtype).eps ** 2
        log_height = -(near / far.clamp(min=floor)).log1p()
        ambient_dim = self.event_shape[0]
        normaliser = log_sphere_volume(ambient_dim - 1) + log_normalizer(
            self.concentration, ambient_dim
        )
        return self.concentration * log_height - normaliser

    def entropy(self) -> Tensor:
        ambient_dim = self.event_shape[0]
        return log_sphere_volume(ambient_dim - 1) - kl_to_uniform(self.concentration, ambient_dim)


def _unit_tangent(x: Tensor, loc: Tensor) -> Tensor:
    # Twice: once leaves a normal component of up to 2e-3 in float32, in two dimensions.
    for _ in range(2):
        x = normalize(x - (x * loc).sum(-1, keepdim=True) * loc, dim=-1)
    return x


def _check_norm(loc: Tensor) -> None:
    if not constraints.sphere.check(loc).all():
        norm = loc.detach().norm(dim=-1)
        worst = norm.flatten()[(norm - 1).abs().argmax()].item()
        raise ValueError(
            f"PowerSpherical: expected loc of unit norm, got a norm of {worst:.7g}; "
            "divide it by its norm."
        )


def _broadcast(loc: Size, concentration: Size) -> Size:
    if not loc or loc[-1] < 2:
        raise ValueError(
            f"PowerSpherical: expected loc of shape batch_shape + (d,) with d of at least 2, "
            f"got {tuple(loc)}; an angle on the circle is a VonMises."
        )
    batch = tuple(loc[:-1])
    message = (
        "PowerSpherical: expected concentration of shape broadcastable to "
        f"loc.shape[:-1] = {batch}, got {tuple(concentration)}"
    )
    # (B, 1) against (B,) would broadcast to (B, B) without a word.
    if batch and tuple(concentration) == (*batch, 1):
        raise ValueError(f"{message}; drop its last dimension.")
    try:
        return torch.broadcast_shapes(batch, concentration)
    except RuntimeError:
        raise ValueError(f"{message}.") from None
