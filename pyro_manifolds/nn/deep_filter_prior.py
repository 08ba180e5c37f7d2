"""Deep weight priors: auto-encoders of filters, with latent points on a manifold."""

from __future__ import annotations

import copy

import pyro
import pyro.distributions as dist
import torch
from pyro.distributions import TorchDistribution, constraints
from pyro.nn import PyroModule
from torch import Size, Tensor, nn
from torch.distributions.transforms import ReshapeTransform, Transform

from pyro_manifolds.distributions import ManifoldUniform, MixtureFilter, WrappedNormal
from pyro_manifolds.manifolds import KleinBottle, Manifold
from pyro_manifolds.nn.heads import InvariantFeatures, WrappedNormalHead
from pyro_manifolds.nn.latent_nodes import latent_nodes

__all__ = ["DeepFilterPrior"]

_MIN_SCALE = 1e-2  # of the noise, in units of the filters: a density has no top otherwise


class DeepFilterPrior(PyroModule):
    r"""Prior on square filters that a network decodes from points of a manifold.

    .. math::
        z \sim p(z), \qquad w = B u, \qquad u \mid z \sim \mathcal{N}\left(\mu(z),\
        \operatorname{diag} \sigma^2(z) + V(z) V(z)^\top\right)

    with respect to Lebesgue measure on the :math:`k^2` weights. The point is uniform on a compact
    manifold and wrapped normal about the origin otherwise; the decoder reads its embedding, which
    all representatives share. :math:`B` is fixed: pixels in the units of the filters, as
    published, or their principal components, in which noise is far closer to independent. So a
    decoder that forgets its point is the Gaussian distribution of their covariance. An encoder
    :math:`r(z \mid w)` ends in a wrapped normal. The two are trained on filters (patches of
    photographs, filters of nets for other tasks) by :func:`fit_deep_filter_prior`, or by any
    other loop: ``prior.model(filters)`` and ``prior.guide(filters)`` are an ordinary Pyro model
    and guide.

    The prior is used in one of two ways, here for the parameter ``"conv1.weight"`` of a
    :class:`~pyro_manifolds.nn.bayesian.BayesianModule`.

    - Through its ELBO, ``{"conv1.weight": prior.hierarchical}``: each filter has its point as
      a site, ``"conv1.weight/point"``, which :class:`DeepPriorGuide` draws from the encoder. Since
      :math:`E_r[\log p(w, z) - \log r(z \mid w)] \le \log p(w)`, the ELBO of the net stays a lower
      bound of its evidence. This is what deep weight priors are.
    - Through its density, ``{"conv1.weight": prior.marginal()}``: the point has two coordinates
      only, so that :math:`p(w)` is a sum over the nodes of a quadrature. No auxiliary guide and no
      gap, and NUTS and ``AutoDelta`` work as with any density.

    It is saved and loaded by ``state_dict``, and becomes float64 by ``prior.double()``.

    References:
        | The Deep Weight Prior (Atanov, Ashukha, Struminsky, Vetrov and Welling, 2019), arXiv
          1810.06943
        | Reparameterization through Coverings and Topological Weight Priors (Beketov and Snopov,
          2026), arXiv 2604.23804

    Args:
        kernel_size: Side :math:`k` of the filters in pixels.
        manifold: Where the points lie; the Klein bottle by default.
        hidden: Width of the two hidden layers of encoder and decoder.
        rank: Number of columns of :math:`V`; 0 is the published form. With 1 the contrast of a
            filter is noise, and need not be a latent coordinate.

    Attributes:
        model: Pyro model of filters ``(n, k, k)``, with sites ``"point"`` and ``"filter"`` in the
            plate ``"data"``.
        guide: Its guide, the encoder.
        manifold: Where the points lie.

    Raises:
        ValueError: If ``kernel_size`` or ``hidden`` is below 1, or ``rank`` negative.

    Example:
        >>> from pyro_manifolds.nn import DeepFilterPrior
        >>> prior = DeepFilterPrior(5)
        >>> filters = torch.randn(16, 5, 5)
        >>> prior.encode(filters).batch_shape, prior.decode(torch.zeros(16, 2)).batch_shape
        (torch.Size([16]), torch.Size([16]))
        >>> svi = pyro.infer.SVI(
        ...     prior.model, prior.guide, pyro.optim.Adam({"lr": 0.01}), pyro.infer.Trace_ELBO()
        ... )
        >>> loss = svi.step(filters)
        >>> prior.marginal().log_prob(filters).shape
        torch.Size([16])
    """

    def __init__(
        self,
        kernel_size: int,
        manifold: Manifold | None = None,
        *,
        hidden: int = 64,
        rank: int = 0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or hidden < 1 or rank < 0:
            raise ValueError(
                "DeepFilterPrior: expected kernel_size >= 1, hidden >= 1 and rank >= 0, "
                f"got {kernel_size}, {hidden} and {rank}"
            )
        self.kernel_size, self.manifold = kernel_size, manifold or KleinBottle()
        self.model = _Decoder(kernel_size, self.manifold, hidden, rank)
        self.guide = _Encoder(kernel_size, self.manifold, hidden)

    def decode(self, points: Tensor) -> TorchDistribution:
        """Return the distribution of filters given points, ``batch + manifold.event_shape``."""
        return self.model.decode(points)

    def encode(self, filters: Tensor) -> WrappedNormal:
        """Return the encoder's distribution of the points of filters, ``batch + (k, k)``.

        Raises:
            ValueError: If the shape does not end in that of a filter.
        """
        self._check(filters.shape)
        return self.guide.encode(filters)

    def hierarchical(self, parameter: Tensor, *, site: str = "point") -> TorchDistribution:
        """Sample a point for each filter, and return the distribution that it is decoded to.

        A function of the parameter, to be given as a prior to a ``BayesianModule``.

        Args:
            parameter: Tensor of the shape of the weights, ``(..., k, k)``.
            site: Name of the site of the points, in front of which a ``BayesianModule`` puts the
                name of the parameter.

        Raises:
            ValueError: If the shape does not end in that of a filter.

        Example:
            >>> from pyro_manifolds.nn import DeepFilterPrior
            >>> DeepFilterPrior(5).hierarchical(torch.zeros(16, 1, 5, 5)).batch_shape
            torch.Size([16, 1])
        """
        self._check(parameter.shape)
        rows = parameter.shape[:-2]
        latent = self.model.latent.expand(rows).to_event(len(rows))
        return self.decode(pyro.sample(site, latent))

    def marginal(self, num_nodes: int = 64) -> MixtureFilter:
        """Return the distribution of filters, with the integral over points by quadrature.

        It carries the gradients of the decoder. Double ``num_nodes`` to check the error: narrow
        posteriors of the points need many.

        Args:
            num_nodes: Nodes along each turn or line, even.

        Raises:
            NotImplementedError: If there is no rule for the manifold, see :func:`latent_nodes`.
        """
        basis = self.model.basis
        points, log_weights = latent_nodes(
            self.manifold, num_nodes, dtype=basis.dtype, device=basis.device
        )
        loc, scale, factor = self.model.moments(points)
        return MixtureFilter(log_weights, loc, scale, factor, basis, validate_args=False)

    def rescale(self, factor: float) -> DeepFilterPrior:
        """Return a copy, the prior of ``factor`` times the filters.

        Raises:
            ValueError: If the factor is not positive.
        """
        if not factor > 0:
            raise ValueError(f"DeepFilterPrior: expected factor > 0, got {factor}")
        new = copy.deepcopy(self)
        new.model.basis.mul_(factor)
        new.guide.scale.mul_(factor)
        return new

    def set_units(self, filters: Tensor, *, whiten: bool = True) -> None:
        """Set the units in which the networks see filters, as training does.

        The encoder reads them over their root mean square. The decoder tells coordinates ``u`` of
        ``w = basis @ u``: principal components of unit variance, or else pixels in that unit.

        Args:
            filters: Shape ``(n, k, k)``.
            whiten: Whether to use principal components.
        """
        rows = filters.flatten(1).to(self.model.basis)
        scale = rows.square().mean().sqrt()
        if whiten:
            values, vectors = torch.linalg.eigh(rows.mT @ rows / len(rows))
            basis = vectors * values.clamp(min=1e-4 * scale**2).sqrt()
        else:
            basis = scale * torch.eye(rows.shape[1]).to(rows)
        self.model.basis.copy_(basis)
        self.guide.scale.copy_(scale)

    def _check(self, shape: Size) -> None:
        side = self.kernel_size
        if shape[-2:] != (side, side):
            raise ValueError(
                f"DeepFilterPrior: expected a shape that ends in {(side, side)}, "
                f"got {tuple(shape)}"
            )


class _LinearMap(Transform):
    """Coordinates ``u`` to filters ``basis @ u``."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, basis: Tensor) -> None:
        super().__init__()
        self.basis = basis

    def _call(self, x: Tensor) -> Tensor:
        return x @ self.basis.mT

    def _inverse(self, y: Tensor) -> Tensor:
        return y @ torch.linalg.inv(self.basis).mT

    def log_abs_det_jacobian(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.linalg.slogdet(self.basis).logabsdet.expand(x.shape[:-1])


class _Decoder(PyroModule):
    """The model: points from the manifold, filters from the points."""

    def __init__(self, size: int, manifold: Manifold, hidden: int, rank: int) -> None:
        super().__init__()
        self.size, self.manifold, self.rank = size, manifold, rank
        features = InvariantFeatures(manifold)
        out = nn.Linear(hidden, size**2 * (2 + rank))
        self.network = nn.Sequential(features, *_hidden(features.out_features, hidden), out)
        self.register_buffer("basis", torch.eye(size**2))

    @property
    def latent(self) -> TorchDistribution:
        options = {"dtype": self.basis.dtype, "device": self.basis.device}
        if self.manifold.is_compact:
            return ManifoldUniform(self.manifold, **options)
        loc = self.manifold.origin(self.manifold.event_shape, **options).as_subclass(Tensor)
        return WrappedNormal(self.manifold, loc, torch.ones(self.manifold.scale_shape, **options))

    def moments(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return means, scales and factors in the coordinates of the basis."""
        out = self.network(points).unflatten(-1, (self.size**2, 2 + self.rank))
        scale = _MIN_SCALE + nn.functional.softplus(out[..., 1])
        return out[..., 0], scale, out[..., 2:]

    def decode(self, points: Tensor) -> TorchDistribution:
        loc, scale, factor = self.moments(points)
        if self.rank:
            normal = dist.LowRankMultivariateNormal(loc, factor, scale.square())
        else:
            normal = dist.Normal(loc, scale).to_event(1)
        reshape = ReshapeTransform(Size([self.size**2]), Size([self.size] * 2))
        return dist.TransformedDistribution(normal, [_LinearMap(self.basis), reshape])

    def forward(self, filters: Tensor) -> Tensor:
        with pyro.plate("data", len(filters), dim=-1):
            points = pyro.sample("point", self.latent)
            pyro.sample("filter", self.decode(points), obs=filters)
        return points


class _Encoder(PyroModule):
    """The guide: a wrapped normal for the point of each filter."""

    def __init__(self, size: int, manifold: Manifold, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(*_hidden(size**2 + 1, hidden))
        self.head = WrappedNormalHead(hidden, manifold)
        self.register_buffer("scale", torch.tensor(1.0))

    def features(self, filters: Tensor) -> Tensor:
        """Return what the head reads: a function of direction and logarithm of the norm."""
        w = filters.flatten(-2) / self.scale
        norm = (w.square().sum(-1, keepdim=True) + 1e-4).sqrt()  # smooth at zero
        return self.network(torch.cat([w / norm, norm.log()], -1))

    def encode(self, filters: Tensor) -> WrappedNormal:
        return self.head(self.features(filters))

    def forward(self, filters: Tensor) -> Tensor:
        with pyro.plate("data", len(filters), dim=-1):
            return pyro.sample("point", self.encode(filters))


def _hidden(in_features: int, hidden: int) -> list[nn.Module]:
    return [nn.Linear(in_features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
