"""Normal distributions of complex numbers."""

from __future__ import annotations

import math
from typing import Any

import torch
from pyro.distributions import MultivariateNormal, TorchDistribution
from pyro.distributions.constraints import Constraint, less_than, positive
from torch import Size, Tensor
from torch.types import _size

from pyro_manifolds.distributions import complex_constraints as constraints
from pyro_manifolds.distributions.complex_arguments import (
    as_complex,
    as_real,
    broadcast_shapes,
    check_argument,
    check_complex_value,
    common_kind,
    name_of_one,
)
from pyro_manifolds.ops.complex_normal import (
    Circularity,
    complex_normal_quadratic,
    parts,
    widely_linear,
)

__all__ = ["ComplexNormal"]

_LOG_PI = math.log(math.pi)


class ComplexNormal(TorchDistribution):
    r"""Normal distribution of a complex number, proper or improper.

    With :math:`w = z - \mu`, variance :math:`\sigma^2 = E|w|^2` and circularity
    :math:`\rho = E w^2 / \sigma^2`, the density with respect to Lebesgue measure
    :math:`dx\,dy` of :math:`z = x + iy` is

    .. math::
        p(z) = \frac{1}{\pi \sigma^2 \sqrt{1 - |\rho|^2}} \exp\left(
            -\frac{|w|^2 - \mathrm{Re}(\bar\rho w^2)}{\sigma^2 (1 - |\rho|^2)} \right)

    It is proper, or circular, at :math:`\rho = 0`, the default: each part then has the variance
    :math:`\sigma^2 / 2`. **The variance is that of the whole number**, as in
    ``torch.randn(dtype=torch.cfloat)``; where another library asks for the standard deviation of
    each part, that is ``per_part_scale`` here. ``log_prob`` is always real.
    (``torch.distributions.Normal`` accepts a complex location beside a real scale without a word,
    and returns complex densities that mean nothing.)

    References:
        | Second-Order Complex Random Vectors and Normal Distributions (Picinbono, 1996)
        | Statistical Signal Processing of Complex-Valued Data (Schreier and Scharf, 2010)

    Args:
        loc: Mean :math:`\mu`, complex; a real one stands for a complex one without imaginary part.
        scale: Square root :math:`\sigma` of the total variance, real and positive.
        circularity: Circularity :math:`\rho`, of modulus less than one; proper if left out.
        per_part_scale: Instead of ``scale``, the standard deviation :math:`\sigma / \sqrt 2` of
            each part (the root of their mean variance if improper).
        validate_args: Whether to check arguments and values.

    Raises:
        TypeError: If the scale is complex or a value is real.
        ValueError: If not one of ``scale`` and ``per_part_scale`` is given, if shapes do not
            broadcast, or if validation is on and an argument or value is out of range.

    Example:
        >>> d = ComplexNormal(torch.tensor([0, 1 + 1j]), 1.0, circularity=0.5j)
        >>> d.batch_shape, d.event_shape
        (torch.Size([2]), torch.Size([]))
        >>> d.log_prob(torch.tensor(0.2j))
        tensor([-1.0542, -2.1209])
        >>> ComplexNormal(0.0, per_part_scale=1.0).variance
        tensor(2.0000)
    """

    support = constraints.complex
    has_rsample = True

    def __init__(
        self,
        loc: Tensor | complex,
        scale: Tensor | float | None = None,
        circularity: Tensor | complex | None = None,
        *,
        per_part_scale: Tensor | float | None = None,
        validate_args: bool | None = None,
    ) -> None:
        name = name_of_one("ComplexNormal", scale=scale, per_part_scale=per_part_scale)
        given = per_part_scale if scale is None else scale
        kind = common_kind(loc, given, circularity)
        width = as_real("ComplexNormal", name, given, kind)
        self._fill(
            as_complex(loc, kind),
            width if per_part_scale is None else math.sqrt(2) * width,
            None if circularity is None else as_complex(circularity, kind),
        )
        super().__init__(self.scale.shape, validate_args=validate_args)

    def _fill(self, loc: Tensor, scale: Tensor, circularity: Tensor | None) -> None:
        """Hold the parameters in one shape."""
        shape = scale.shape
        if loc.shape != shape or (circularity is not None and circularity.shape != shape):
            shapes = {"loc": loc.shape, "scale": shape}
            if circularity is not None:
                shapes["circularity"] = circularity.shape
            shape = broadcast_shapes(type(self).__name__, **shapes)
        self.loc, self.scale = loc.expand(shape), scale.expand(shape)
        self.circularity = None if circularity is None else circularity.expand(shape)
        self._known_rho: Circularity | None = None

    @classmethod
    def _precise(
        cls, loc: Tensor, scale: Tensor, rho: Circularity, validate_args: bool | None
    ) -> ComplexNormal:
        """Return the distribution of a circularity that may round to modulus one."""
        new = cls(loc, scale, validate_args=validate_args)
        new._fill(new.loc, new.scale, torch.complex(rho.real, rho.imag))
        new._known_rho = rho.expand(new.scale.shape)
        TorchDistribution.__init__(new, new.scale.shape, validate_args=False)
        new._validate_args = cls._checks(validate_args)
        return new

    @classmethod
    def _checks(cls, validate_args: bool | None) -> bool:
        return cls._validate_args if validate_args is None else validate_args

    @classmethod
    def from_unconstrained(
        cls,
        loc: Tensor | complex,
        scale: Tensor | float,
        direction: Tensor | complex,
        *,
        validate_args: bool | None = None,
    ) -> ComplexNormal:
        r"""Return the distribution of circularity :math:`v / \sqrt{1 + |v|^2}`, for any :math:`v`.

        The way from the output of a network: :math:`1 - |\rho|^2` keeps its precision and its
        derivatives where the modulus of the circularity rounds to one.

        Args:
            loc: Mean.
            scale: Square root of the total variance.
            direction: The number :math:`v`, complex.
            validate_args: Whether to check arguments and values.

        Example:
            >>> d = ComplexNormal.from_unconstrained(0.0, 1.0, torch.tensor(1e6 + 0j))
            >>> d.circularity, d.entropy()
            (tensor(1.+0.j), tensor(-11.6708))
        """
        kind = common_kind(loc, scale, direction)
        v = as_complex(direction, kind)
        if cls._checks(validate_args):
            check_argument(cls.__name__, "direction", v, constraints.complex)
        x, y = parts(v)
        odds = x * x + y * y
        root = (1 + odds).rsqrt()
        rho = Circularity.with_odds(root * x, root * y, odds)
        sigma = as_real(cls.__name__, "scale", scale, kind)
        return cls._precise(as_complex(loc, kind), sigma, rho, validate_args)

    @classmethod
    def from_variance_and_relation(
        cls,
        loc: Tensor | complex,
        variance: Tensor | float,
        relation: Tensor | complex,
        *,
        validate_args: bool | None = None,
    ) -> ComplexNormal:
        r"""Return the distribution of variance :math:`E|w|^2` and relation :math:`E w^2`.

        Args:
            loc: Mean.
            variance: Total variance, real and positive.
            relation: Relation or pseudo-variance, complex, of modulus less than the variance.
            validate_args: Whether to check arguments and values.

        Example:
            >>> ComplexNormal.from_variance_and_relation(0.0, 4.0, 2j).circularity
            tensor(0.+0.5000j)
        """
        kind = common_kind(loc, variance, relation)
        total = as_real(cls.__name__, "variance", variance, kind)
        x, y = parts(as_complex(relation, kind))
        rho = torch.complex(x / total, y / total)
        return cls(as_complex(loc, kind), total.sqrt(), rho, validate_args=validate_args)

    @classmethod
    def from_parts(
        cls,
        loc: Tensor | complex,
        std_real: Tensor | float,
        std_imag: Tensor | float,
        correlation: Tensor | float = 0.0,
        *,
        validate_args: bool | None = None,
    ) -> ComplexNormal:
        """Return the distribution whose two parts have these deviations and this correlation.

        Args:
            loc: Mean.
            std_real: Standard deviation of the real part.
            std_imag: Standard deviation of the imaginary part.
            correlation: Correlation of the two, between -1 and 1.
            validate_args: Whether to check arguments and values.

        Example:
            >>> d = ComplexNormal.from_parts(0.0, 0.5, 0.8, 0.3)
            >>> d.variance, d.relation
            (tensor(0.8900), tensor(-0.3900+0.2400j))
        """
        kind = common_kind(loc, std_real, std_imag, correlation)
        named = {"std_real": std_real, "std_imag": std_imag, "correlation": correlation}
        a, b, r = (as_real(cls.__name__, name, value, kind) for name, value in named.items())
        if cls._checks(validate_args):
            check_argument(cls.__name__, "std_real", a, positive)
            check_argument(cls.__name__, "std_imag", b, positive)
            check_argument(cls.__name__, "correlation", r * r, less_than(1.0))
        total, product = a * a + b * b, 2 * a * b
        x, y = (a - b) * (a + b) / total, r * product / total
        odds = (x * x + y * y) * (total / product).square() / ((1 - r) * (1 + r))
        rho = Circularity.with_odds(*torch.broadcast_tensors(x, y, odds))
        return cls._precise(as_complex(loc, kind), total.sqrt(), rho, validate_args)

    @property
    def arg_constraints(self) -> dict[str, Constraint]:
        proper = {"loc": constraints.complex, "scale": positive}
        return (
            proper if self.circularity is None else proper | {"circularity": constraints.unit_disk}
        )

    @staticmethod
    def infer_shapes(  # type: ignore[override]
        loc: Size = Size(),
        scale: Size = Size(),
        circularity: Size = Size(),
        per_part_scale: Size = Size(),
    ) -> tuple[Size, Size]:
        return torch.broadcast_shapes(loc, scale, circularity, per_part_scale), Size()

    def expand(self, batch_shape: _size, _instance: Any = None) -> ComplexNormal:
        new = self._get_checked_instance(ComplexNormal, _instance)
        batch_shape = Size(batch_shape)
        for name in ("loc", "scale", "circularity", "_known_rho"):
            value = getattr(self, name)
            setattr(new, name, None if value is None else value.expand(batch_shape))
        super(ComplexNormal, new).__init__(batch_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Total variance, real: the sum of those of the two parts."""
        return self.scale.square()

    @property
    def per_part_scale(self) -> Tensor:
        """Root of the mean variance of the two parts."""
        return math.sqrt(0.5) * self.scale

    @property
    def relation(self) -> Tensor:
        """Relation or pseudo-variance, complex."""
        if self.circularity is None:
            return torch.zeros_like(self.loc)
        x, y = parts(self.circularity)
        return torch.complex(self.variance * x, self.variance * y)

    @property
    def _rho(self) -> Circularity | None:
        if self.circularity is None or self._known_rho is not None:
            return self._known_rho
        return Circularity.of(self.circularity)

    def rsample(self, sample_shape: _size = torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        x, y = torch.randn((2, *shape), dtype=self.scale.dtype, device=self.scale.device).unbind()
        scale, rho = self.per_part_scale, self._rho
        x, y = (scale * x, scale * y) if rho is None else widely_linear(x, y, rho, scale)
        return self.loc + torch.complex(x, y)

    def log_prob(self, value: Tensor) -> Tensor:
        check_complex_value(type(self).__name__, value)
        if self._validate_args:
            self._validate_sample(value)
        x, y = parts(value - self.loc)
        x, y, rho = x / self.scale, y / self.scale, self._rho
        square = x * x + y * y if rho is None else complex_normal_quadratic(x, y, rho)
        return 1 - self._entropy(rho) - square

    def entropy(self) -> Tensor:
        return self._entropy(self._rho)

    def _entropy(self, rho: Circularity | None) -> Tensor:
        entropy = 2 * self.scale.log() + (1 + _LOG_PI)
        return entropy if rho is None else torch.add(entropy, rho.log_gap, alpha=0.5)

    def to_real(self) -> MultivariateNormal:
        """Return the same distribution of the pairs (real part, imaginary part).

        Example:
            >>> z = torch.tensor(0.3 - 0.2j)
            >>> d = ComplexNormal(0.0, 1.0, 0.5j)
            >>> d.log_prob(z), d.to_real().log_prob(torch.view_as_real(z))
            (tensor(-1.2542), tensor(-1.2542))
        """
        loc = torch.view_as_real(self.loc.resolve_conj())
        scale = self.per_part_scale
        rho = self._rho
        if rho is None:
            tril = torch.diag_embed(torch.stack([scale, scale], -1))
            return MultivariateNormal(loc, scale_tril=tril, validate_args=self._validate_args)
        first = (1 + rho.real).sqrt()
        rows = [first, torch.zeros_like(first), rho.imag / first, rho.gap.sqrt() / first]
        tril = (scale.unsqueeze(-1) * torch.stack(rows, -1)).unflatten(-1, (2, 2))
        return MultivariateNormal(loc, scale_tril=tril, validate_args=self._validate_args)
