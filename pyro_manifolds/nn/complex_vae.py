"""A variational auto-encoder with complex latents, or for complex data: model and guide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from torch import Size, Tensor, nn

from pyro_manifolds.distributions import ComplexNormal
from pyro_manifolds.nn.networks import bernoulli, perceptron
from pyro_manifolds.ops.complex_linalg import join_parts, split_parts

__all__ = ["ComplexGuide", "ComplexModel", "GaussianNoise"]


class ComplexModel(nn.Module):
    r"""Data decoded from complex latents that are standard normal, of total variance one.

    .. math:: z \sim CN(0, 1)^n, \quad x \mid z \sim p(x \mid f(z))

    A plain torch module, like the guide, to be trained by a torch optimiser of
    ``TraceMeanField_ELBO()(model, guide)``: the divergence has a closed form. :meth:`decode` is a
    decoder in the sense of :func:`~pyro_manifolds.geometry.fisher_metric`.

    Where the decoder reads real and imaginary parts, as the default one does, a complex latent is
    a way to write a real one of twice the size. With a proper guide, variances are equal in
    pairs; an improper one has a free covariance for each pair. The real twin is that latent
    with a free variance for each part, and the control: on digits all three reach the same bound.

    References:
        | Complex-valued variational autoencoder (Nakashika, 2020)
        | Complex variational autoencoders admit Kähler structure (Gracyk, 2025)
        | https://arxiv.org/abs/2511.15172

    Args:
        dim: Number of complex latents.
        data_shape: Shape of a datum.
        complex_data: Whether data are complex; the default decoder then returns complex numbers.
        real_twin: Whether the latent is the vector of the 2 dim real and imaginary parts instead,
            of variance one half each, the real parts first.
        hidden: Widths of the hidden layers of the default decoder.
        decoder: Module from latents ``[..., dim]`` to parameters ``[..., *data_shape]``, in place
            of a perceptron of real and imaginary parts. It may be complex.
        likelihood: Law of a datum, elementwise, from the parameters; a module may have parameters
            of its own. Bernoulli with logits by default, :class:`GaussianNoise` for complex data.

    Example:
        >>> from pyro_manifolds.nn import ComplexGuide, ComplexModel
        >>> model, guide = ComplexModel(4, (8, 8)), ComplexGuide(4, (8, 8), improper=True)
        >>> x = torch.randint(2, (10, 8, 8)).float()
        >>> pyro.infer.TraceMeanField_ELBO()(model, guide)(x).backward()
        >>> z = guide.posterior(x).mean
        >>> z.dtype, model.decode(z).batch_shape, model.decode(z).event_shape
        (torch.complex64, torch.Size([10]), torch.Size([8, 8]))
    """

    unit: Tensor

    def __init__(
        self,
        dim: int,
        data_shape: Sequence[int],
        *,
        complex_data: bool = False,
        real_twin: bool = False,
        hidden: Sequence[int] = (128, 128),
        decoder: nn.Module | None = None,
        likelihood: Callable[[Tensor], dist.TorchDistribution] | None = None,
    ) -> None:
        super().__init__()
        self.data_shape, self.real_twin = Size(data_shape), real_twin
        self.register_buffer("unit", torch.ones(2 * dim if real_twin else dim))
        outputs = (2 if complex_data else 1) * self.data_shape.numel()
        self.decoder = decoder or _Perceptron(
            perceptron((2 * dim, *hidden, outputs), nn.Tanh), 1, self.data_shape, complex_data
        )
        self.likelihood = likelihood or (GaussianNoise() if complex_data else bernoulli)

    @property
    def prior(self) -> dist.TorchDistribution:
        """Law of the latents of a datum."""
        zero = torch.zeros_like(self.unit)
        if self.real_twin:
            return dist.Normal(zero, math.sqrt(0.5) * self.unit).to_event(1)
        return ComplexNormal(zero, self.unit).to_event(1)

    def decode(self, z: Tensor) -> dist.TorchDistribution:
        """Return the law of data for latents ``[..., n]``."""
        return self.likelihood(self.decoder(z)).to_event(len(self.data_shape))

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior)
            pyro.sample("x", self.decode(z), obs=x)
        return z


class ComplexGuide(nn.Module):
    r"""Encoder of data, real or complex, as a diagonal normal posterior of complex latents.

    Args:
        dim: That of the model.
        data_shape: Shape of a datum.
        improper: Whether real and imaginary part of a latent may have different variances and a
            correlation: the circularity is then
            :math:`v / \sqrt{1 + |v|^2}` with :math:`v` from the encoder.
        complex_data: That of the model.
        real_twin: That of the model.
        hidden: Widths of the hidden layers of the default encoder.
        encoder: Module from data ``[..., *data_shape]`` to real numbers ``[..., k * dim]``: means,
            twice the logarithms of scales, and with ``improper`` the numbers :math:`v`. Of complex
            numbers the real parts come first, then the imaginary ones: k is 3, or 5 with
            ``improper``, or 4 for the real twin.

    Raises:
        ValueError: If the real twin is to be improper.

    Example:
        >>> from pyro_manifolds.nn import ComplexGuide
        >>> guide = ComplexGuide(3, (16,), complex_data=True)
        >>> guide.posterior(torch.randn(10, 16, dtype=torch.cfloat)).rsample().shape
        torch.Size([10, 3])
    """

    def __init__(
        self,
        dim: int,
        data_shape: Sequence[int],
        *,
        improper: bool = False,
        complex_data: bool = False,
        real_twin: bool = False,
        hidden: Sequence[int] = (128, 128),
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if improper and real_twin:
            raise ValueError(
                "ComplexGuide: expected improper=False for a real twin, which has no circularity"
            )
        self.real_twin = real_twin
        self.sizes = [2 * dim, 2 * dim if real_twin else dim, 2 * dim if improper else 0]
        inputs = (2 if complex_data else 1) * Size(data_shape).numel()
        self.encoder = encoder or _Perceptron(
            perceptron((inputs, *hidden, sum(self.sizes)), nn.SiLU), len(data_shape)
        )

    def posterior(self, x: Tensor) -> dist.TorchDistribution:
        """Return the approximate posterior of the latents of data ``[..., *data_shape]``."""
        loc, log_variance, direction = self.encoder(x).split(self.sizes, -1)
        scale = (log_variance / 2).exp()
        if self.real_twin:
            return dist.Normal(loc, scale).to_event(1)
        if not self.sizes[2]:
            return ComplexNormal(join_parts(loc), scale).to_event(1)
        law = ComplexNormal.from_unconstrained(join_parts(loc), scale, join_parts(direction))
        return law.to_event(1)

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x))


class GaussianNoise(nn.Module):
    """Normal law about a mean, complex if that is, with one scale for all entries.

    Args:
        scale: Standard deviation of the noise: of complex numbers, that of the whole.
        learn: Whether the scale is a parameter.

    Raises:
        ValueError: If the scale is not positive.

    Example:
        >>> from pyro_manifolds.nn import GaussianNoise
        >>> GaussianNoise(0.5)(torch.zeros(3, dtype=torch.cfloat)).variance
        tensor([0.2500, 0.2500, 0.2500], grad_fn=<PowBackward0>)
    """

    log_scale: Tensor

    def __init__(self, scale: float = 1.0, *, learn: bool = True) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"GaussianNoise: expected scale > 0, got {scale}")
        value = torch.tensor(math.log(scale))
        if learn:
            self.log_scale = nn.Parameter(value)
        else:
            self.register_buffer("log_scale", value)

    def forward(self, mean: Tensor) -> dist.TorchDistribution:
        scale = self.log_scale.exp()
        return ComplexNormal(mean, scale) if mean.is_complex() else dist.Normal(mean, scale)


class _Perceptron(nn.Module):
    """Real layers between what may be complex on either side, real parts first."""

    def __init__(
        self,
        layers: list[nn.Module],
        event_dim: int,
        shape: Size | None = None,
        complex_values: bool = False,
    ) -> None:
        super().__init__()
        self.layers, self.event_dim = nn.Sequential(*layers), event_dim
        self.shape, self.complex_values = shape, complex_values

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(-self.event_dim)
        y = self.layers(split_parts(x) if x.is_complex() else x)
        y = join_parts(y) if self.complex_values else y
        return y if self.shape is None else y.unflatten(-1, self.shape)
