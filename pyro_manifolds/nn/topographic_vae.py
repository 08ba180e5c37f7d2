"""A variational auto-encoder with a topographic latent: model and guide."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from scipy.stats import nct
from torch import Size, Tensor, nn

from pyro_manifolds.distributions import FoldedNormal
from pyro_manifolds.distributions.neighborhoods import Neighborhood
from pyro_manifolds.nn.networks import bernoulli, perceptron

__all__ = ["TopographicGuide", "TopographicModel"]

_AUXILIARY = ("halfnormal", "normal")
_QUARTILES = 1.349  # between those of a standard normal variable


class TopographicModel(nn.Module):
    r"""Images, or sequences of them, decoded from a topographic product of Student-t variables.

    .. math::
        z, u \sim N(0, 1), \quad t = \frac{z + \mu}{\sqrt{W u^2}}, \quad
        x \mid t \sim p\left(x \mid f\left(g \, \frac{t - m}{s}\right)\right)

    The decoder f reads t standardised by median m and spread s of the prior, and times a gain g:
    at a loc of 30 raw entries have mean 9 and deviation 2, and decoders learn from them slowly.
    The auxiliary variables enter by their squares alone. With ``auxiliary="halfnormal"`` the model
    has their size as a site: the same law of t, with a guide that pays nothing for the sign.
    With a :class:`~pyro_manifolds.distributions.Shifted` neighbourhood a datum is a sequence,
    all of it in the event, and the decoder sees one frame at a time: only sequences are
    subsampled. With any other a datum is one image.

    A plain torch module, like the guide, to be trained by a torch optimiser of
    ``TraceMeanField_ELBO()(model, guide)``: all divergences have closed forms.

    Where the loc :math:`\mu` is large, t is a positive smooth field, ``mu / sqrt(W u^2)`` but for
    a share of 1 / mu that comes from z: the divergence of z falls to zero in training, and that
    is no defect. At a loc of zero t is sparse, with little to bind neighbours.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394

    Args:
        neighborhood: Who shares auxiliary variables with whom.
        frame_shape: Shape of one image.
        loc: Location of z.
        auxiliary: ``"halfnormal"``, or ``"normal"`` as published.
        gain: Factor g of what the decoder reads. Like the standardisation it changes how fast the
            decoder learns, not what it can express.
        hidden: Widths of the hidden layers of the decoder.
        decoder: Module from the latents of a frame ``[..., n]`` to parameters
            ``[..., *frame_shape]``, in place of a perceptron.
        likelihood: Law of an image, elementwise, from the parameters: Bernoulli with logits.

    Raises:
        ValueError: If ``auxiliary`` is neither of the two; in use, if data have another shape.

    Example:
        >>> from pyro_manifolds.distributions import Shifted
        >>> from pyro_manifolds.nn import TopographicGuide, TopographicModel
        >>> window = Shifted.band(6, 6, 3, 1, num_capsules=4)
        >>> model, guide = TopographicModel(window, (8, 8)), TopographicGuide(window, (8, 8))
        >>> x = torch.randint(2, (10, 6, 8, 8)).float()
        >>> pyro.infer.TraceMeanField_ELBO()(model, guide)(x).backward()
        >>> codes = model.code(*guide.moments(x))
        >>> codes.shape, model.log_likelihood(codes.roll(1, -1), x).shape
        (torch.Size([10, 6, 4, 6]), torch.Size([10, 6]))
    """

    loc: Tensor
    center: Tensor
    spread: Tensor

    def __init__(
        self,
        neighborhood: Neighborhood,
        frame_shape: Sequence[int],
        *,
        loc: float = 30.0,
        auxiliary: str = "halfnormal",
        gain: float = 3.0,
        hidden: Sequence[int] = (256, 256),
        decoder: nn.Module | None = None,
        likelihood: Callable[[Tensor], dist.TorchDistribution] | None = None,
    ) -> None:
        super().__init__()
        self.neighborhood, self.frame_shape = neighborhood, Size(frame_shape)
        self.auxiliary, self.gain = check_auxiliary("TopographicModel", auxiliary), gain
        self.register_buffer("loc", torch.tensor(float(loc)))
        center, spread = median_and_spread(neighborhood, loc)
        self.register_buffer("center", torch.tensor(center))
        self.register_buffer("spread", torch.tensor(spread))
        self.code_shape = code_shape(neighborhood)
        sizes = (self.code_shape.numel(), *hidden, self.frame_shape.numel())
        self.decoder = decoder or nn.Sequential(
            *perceptron(sizes), nn.Unflatten(-1, tuple(self.frame_shape))
        )
        self.likelihood = likelihood or bernoulli

    def code(self, z: Tensor, u2: Tensor) -> Tensor:
        """Return t for z and the squares of u, or the plug-in code for their expected values."""
        return (z + self.loc) * self.neighborhood.forward(u2).rsqrt()

    def decode(self, t: Tensor) -> Tensor:
        """Return the parameters of images for latents ``[..., *code_shape]``."""
        standard = self.gain * (t - self.center) / self.spread
        return self.decoder(standard.flatten(-len(self.code_shape)))

    def log_likelihood(self, t: Tensor, x: Tensor) -> Tensor:
        """Return the log-density of each image given its latents."""
        law = self.likelihood(self.decode(t))
        return law.to_event(len(self.frame_shape)).log_prob(x)

    @property
    def priors(self) -> tuple[dist.TorchDistribution, dist.TorchDistribution]:
        """Laws of z and u."""
        one, zero = self.loc.new_ones(()), self.loc.new_zeros(())
        normal = dist.Normal(zero, one)
        size = dist.HalfNormal(one) if self.auxiliary == "halfnormal" else normal
        shapes = self.neighborhood.event_shape, self.neighborhood.noise_shape
        return (
            normal.expand(shapes[0]).to_event(len(shapes[0])),
            size.expand(shapes[1]).to_event(len(shapes[1])),
        )

    def forward(self, x: Tensor) -> Tensor:
        shape = self.neighborhood.event_shape[: -len(self.code_shape)] + self.frame_shape
        if x.shape[1:] != shape:
            raise ValueError(
                f"TopographicModel: expected data of shape (n, {', '.join(map(str, shape))}), got "
                f"{tuple(x.shape)}"
            )
        z_prior, u_prior = self.priors
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", z_prior)
            u = pyro.sample("u", u_prior)
            t = pyro.deterministic("t", self.code(z, u.square()), event_dim=z_prior.event_dim)
            law = self.likelihood(self.decode(t))
            pyro.sample("x", law.to_event(x.dim() - 1), obs=x)
        return t


class TopographicGuide(nn.Module):
    """Encoder with two heads, of z and of u, each image by itself.

    Args:
        neighborhood: That of the model.
        frame_shape: Shape of one image.
        auxiliary: That of the model.
        hidden: Widths of the hidden layers of each encoder.
        encoders: Two modules from images ``[..., *frame_shape]`` to ``[..., 2 * n]``: for z and
            for u, of n numbers a frame, the locations and then twice the logarithms of the scales.
            Perceptrons by default.

    Raises:
        ValueError: If ``auxiliary`` is neither ``"halfnormal"`` nor ``"normal"``.

    Example:
        >>> from pyro_manifolds.distributions import Torus2d
        >>> from pyro_manifolds.nn import TopographicGuide
        >>> guide = TopographicGuide(Torus2d((6, 6), (3, 3)), (8, 8))
        >>> z, u = guide.posterior(torch.rand(10, 8, 8))
        >>> z.event_shape, u.batch_shape
        (torch.Size([6, 6]), torch.Size([10]))
    """

    def __init__(
        self,
        neighborhood: Neighborhood,
        frame_shape: Sequence[int],
        *,
        auxiliary: str = "halfnormal",
        hidden: Sequence[int] = (256, 256),
        encoders: tuple[nn.Module, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.auxiliary = check_auxiliary("TopographicGuide", auxiliary)
        self.shapes = neighborhood.event_shape, neighborhood.noise_shape
        self.frames = len(self.shapes[0]) - len(code_shape(neighborhood))
        sizes = [2 * shape[self.frames :].numel() for shape in self.shapes]
        pixels, dims = Size(frame_shape).numel(), len(frame_shape)
        self.encoders = nn.ModuleList(
            encoders
            or [
                nn.Sequential(nn.Flatten(-dims), *perceptron((pixels, *hidden, size)))
                for size in sizes
            ]
        )

    def posterior(self, x: Tensor) -> tuple[dist.TorchDistribution, dist.TorchDistribution]:
        """Return the approximate posteriors of z and u."""
        z, u = self._head(0, x), self._head(1, x)
        size = FoldedNormal if self.auxiliary == "halfnormal" else dist.Normal
        dims = [len(shape) for shape in self.shapes]
        return dist.Normal(*z).to_event(dims[0]), size(*u).to_event(dims[1])

    def moments(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the expected values of z and of the squares of u, for codes without sampling.

        The squares of the means alone would vanish wherever the guide of u is centred at zero.
        """
        u_loc, u_scale = self._head(1, x)
        return self._head(0, x)[0], u_loc.square() + u_scale.square()

    def forward(self, x: Tensor) -> None:
        z, u = self.posterior(x)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", z)
            pyro.sample("u", u)

    def _head(self, site: int, x: Tensor) -> tuple[Tensor, Tensor]:
        shape = self.shapes[site][self.frames :]
        loc, log_variance = (
            self.encoders[site](x).unflatten(-1, (2, *shape)).unbind(-len(shape) - 1)
        )
        return loc, (log_variance / 2).exp()


def median_and_spread(neighborhood: Neighborhood, loc: float) -> tuple[float, float]:
    """Return median and scaled interquartile range of an entry, which exist at every dof.

    They are those of a typical entry: degrees of freedom are averaged where they differ.
    """
    dof = neighborhood.dof.detach().mean().item()
    low, median, high = nct.ppf([0.25, 0.5, 0.75], dof, loc) / math.sqrt(dof)
    return float(median), float(high - low) / _QUARTILES


def code_shape(neighborhood: Neighborhood) -> Size:
    """Return the shape of the latents of one image: that of a frame, where there are frames."""
    return neighborhood.event_shape[1 if hasattr(neighborhood, "num_frames") else 0 :]


def check_auxiliary(caller: str, auxiliary: str) -> str:
    """Refuse an auxiliary variable of another name."""
    if auxiliary not in _AUXILIARY:
        raise ValueError(f"{caller}: expected auxiliary among {_AUXILIARY}, got {auxiliary!r}")
    return auxiliary
