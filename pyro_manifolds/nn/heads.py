"""Heads of encoders that end on a manifold, and the first layer of decoders that start there."""

import math

import torch
from torch import Tensor, nn

from pyro_manifolds.distributions import WrappedNormal
from pyro_manifolds.manifolds import Manifold

__all__ = ["InvariantFeatures", "ManifoldHead", "ScaleHead", "WrappedNormalHead"]


class ManifoldHead(nn.Module):
    """Linear map to the ambient space of a manifold, and from there onto it through ``unembed``.

    No continuous map into the coordinates of a compact manifold is onto without a cut; one into
    its ambient space is, since ``unembed`` is continuous as a map into the manifold.

    References:
        | Topological Constraints on Homeomorphic Auto-Encoding (de Haan and Falorsi, 2018), arXiv
          1812.10783

    Args:
        in_features: Number of features that come in.
        manifold: The manifold.

    Example:
        >>> ManifoldHead(8, KleinBottle())(torch.zeros(5, 8)).shape
        torch.Size([5, 2])
    """

    def __init__(self, in_features: int, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold
        self.linear = nn.Linear(in_features, manifold.embed_dim)

    def forward(self, features: Tensor) -> Tensor:
        return self.manifold.unembed(self.linear(features))


class ScaleHead(nn.Module):
    """Scales of wrapped normals that start concentrated, as a fraction of the manifold's periods.

    A posterior that starts as wide as the manifold is uniform already: its divergence from the
    prior is zero, no gradient reaches the code and it stays collapsed. Scales lie between zero
    and one period, where a wrapped normal is uniform to all purposes.

    Args:
        in_features: Number of features that come in.
        manifold: The manifold.
        init: Fraction of the period at which all scales start, in (0, 1).

    Raises:
        ValueError: If ``init`` is out of range.

    Example:
        >>> ScaleHead(8, KleinBottle())(torch.zeros(8)).detach()
        tensor([0.1571, 0.3142])
    """

    periods: Tensor

    def __init__(self, in_features: int, manifold: Manifold, init: float = 0.05) -> None:
        super().__init__()
        if not 0 < init < 1:
            raise ValueError(f"ScaleHead: expected init in (0, 1), got {init}")
        self.scale_shape = manifold.scale_shape
        self.register_buffer("periods", torch.tensor(manifold.periods), persistent=False)
        self.linear = nn.Linear(in_features, len(manifold.periods))
        nn.init.normal_(self.linear.weight, std=0.1 / math.sqrt(in_features))
        nn.init.constant_(self.linear.bias, math.log(init / (1 - init)))

    def forward(self, features: Tensor) -> Tensor:
        scale = self.periods * self.linear(features).sigmoid()
        return scale.reshape(scale.shape[:-1] + self.scale_shape)


class WrappedNormalHead(nn.Module):
    """Wrapped normal whose location and scale depend on features: the end of an encoder.

    Args:
        in_features: Number of features that come in.
        manifold: The manifold.
        init_scale: Fraction of the period at which the scales start.

    Example:
        >>> posterior = WrappedNormalHead(8, KleinBottle())(torch.zeros(5, 8))
        >>> posterior.batch_shape, posterior.event_shape
        (torch.Size([5]), torch.Size([2]))
    """

    def __init__(self, in_features: int, manifold: Manifold, init_scale: float = 0.05) -> None:
        super().__init__()
        self.loc = ManifoldHead(in_features, manifold)
        self.scale = ScaleHead(in_features, manifold, init_scale)

    def forward(self, features: Tensor) -> WrappedNormal:
        return WrappedNormal(self.loc.manifold, self.loc(features), self.scale(features))


class InvariantFeatures(nn.Module):
    """First layer of a decoder: the embedding of points, which every representative shares.

    A network that reads raw coordinates is discontinuous across each seam.

    Args:
        manifold: The manifold; ``out_features`` is its ``embed_dim``.

    Example:
        >>> InvariantFeatures(KleinBottle())(torch.zeros(5, 2)).shape
        torch.Size([5, 5])
    """

    def __init__(self, manifold: Manifold) -> None:
        super().__init__()
        self.manifold = manifold
        self.out_features = manifold.embed_dim

    def forward(self, points: Tensor) -> Tensor:
        return self.manifold.embed(points)
