"""The model of the demonstration: a latent point on a manifold, decoded to a direction.

Ordinary Pyro. Nothing here but the choice of manifold is particular to patches; copy it.
"""

import pyro
import pyro.distributions as dist
from pyro import poutine
from pyro.nn import PyroModule
from torch import Tensor, nn
from torch.nn.functional import normalize

from pyro_manifolds.distributions import ManifoldUniform, PowerSpherical
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn import InvariantFeatures, WrappedNormalHead

__all__ = ["SphereGuide", "SphereModel"]


class SphereModel(PyroModule):
    r"""Directions that a network draws from latent points of a manifold.

    .. math:: z \sim p(z), \quad x \mid z \sim \text{PowerSpherical}(\mu(z), \kappa(z))

    The prior is uniform, or standard normal where the volume is infinite. The decoder reads the
    embedding of z, which all representatives of a point share.

    Build it with ``pyro.settings.set(module_local_params=True)`` in force: without, modules of one
    class share parameters through Pyro's global store, so a second model would train the first.

    Args:
        manifold: Where the latent points lie.
        ambient_dim: Dimension of the space of the directions.
        hidden: Width of the two hidden layers of the decoder.

    Example:
        >>> with pyro.settings.context(module_local_params=True):
        ...     model, guide = SphereModel(KleinBottle()), SphereGuide(KleinBottle())
        ...     elbo = pyro.infer.Trace_ELBO()(model, guide)
        ...     elbo(PowerSpherical(torch.eye(8)[0], 1.0).sample((100,))).backward()
        >>> model.decode(torch.zeros(4, 2)).batch_shape
        torch.Size([4])
    """

    def __init__(self, manifold: Manifold, *, ambient_dim: int = 8, hidden: int = 64) -> None:
        super().__init__()
        self.manifold = manifold
        features, out = InvariantFeatures(manifold), nn.Linear(hidden, ambient_dim + 1)
        nn.init.constant_(out.bias[-1:], 2.0)  # logarithm of the concentration
        self.decoder = nn.Sequential(features, *_hidden(features.out_features, hidden), out)

    @property
    def prior(self) -> dist.TorchDistribution:
        if self.manifold.is_compact:
            return ManifoldUniform(self.manifold)
        zeros = next(self.decoder.parameters()).new_zeros(self.manifold.event_shape)
        return dist.Normal(zeros, 1.0).to_event()

    def decode(self, z: Tensor) -> PowerSpherical:
        """Return the law of directions at latent points."""
        out = self.decoder(z)
        return PowerSpherical(normalize(out[..., :-1], dim=-1), out[..., -1].exp())

    def forward(self, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            with poutine.scale(scale=kl_weight):
                z = pyro.sample("z", self.prior)
            pyro.sample("x", self.decode(z), obs=x)
        return z


class SphereGuide(PyroModule):
    """Encoder of directions: a wrapped normal on the manifold, located through ``unembed``.

    ``kl_weight`` scales the latent site here and in the model, for a warm-up.

    Args:
        manifold: Where the latent points lie.
        ambient_dim: Dimension of the space of the directions.
        hidden: Width of the two hidden layers.
    """

    def __init__(self, manifold: Manifold, *, ambient_dim: int = 8, hidden: int = 64) -> None:
        super().__init__()
        head = WrappedNormalHead(hidden, manifold)
        self.encoder = nn.Sequential(*_hidden(ambient_dim, hidden), head)

    def forward(self, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=kl_weight):
            return pyro.sample("z", self.encoder(x))


def _hidden(in_features: int, hidden: int) -> list[nn.Module]:
    return [nn.Linear(in_features, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
