"""A variational auto-encoder with its latent on any manifold: model, guide and training."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from torch import Size, Tensor, nn

from pyro_manifolds.distributions import ManifoldUniform, WrappedNormal
from pyro_manifolds.manifolds import Euclidean, Manifold
from pyro_manifolds.nn.alignment import (
    AlignedHead,
    Alignment,
    align_to_manifold,
    principal_start,
)
from pyro_manifolds.nn.heads import InvariantFeatures, ManifoldHead, ScaleHead

__all__ = ["ManifoldGuide", "ManifoldModel", "count_steps", "fit_manifold_vae"]

_FREQUENCY = 3.0  # of the waves at the start, per unit of length of the ambient space
_MAX_NORM = 50.0  # of a gradient, per datum
_RECENT = 50  # steps over which the training ELBO is averaged
_NUM_ALIGNED = 2000  # rows that an alignment is computed from


class ManifoldModel(nn.Module):
    r"""Data of any shape, drawn from latent points of a manifold with noise of known size.

    .. math:: z \sim p(z), \quad x \mid z \sim N(f(z), \text{noise}^2)

    The prior is uniform, or standard normal on factors of infinite volume. The decoder reads the
    embedding of z, through waves that are random at the start: on an embedded manifold they make
    a field of one length scale, the same for all manifolds. A network without them learns sharp
    images far more slowly.

    A plain torch module, like the guide: parameters stay in it, out of Pyro's global store, and
    are trained by a torch optimiser of ``Trace_ELBO()(model, guide)``.

    Args:
        manifold: Where the latent points lie.
        data: Data to take shape, mean and spread from, ``[n, *event_shape]``.
        noise: Standard deviation of the noise, fixed.
        hidden: Widths of the hidden layers.

    Example:
        >>> from pyro_manifolds.nn import ManifoldGuide, ManifoldModel
        >>> x = torch.randn(100, 5, 5)
        >>> model, guide = ManifoldModel(Circle(), x, 0.3), ManifoldGuide(Circle(), x)
        >>> pyro.infer.Trace_ELBO()(model, guide)(x).backward()
        >>> model.decode(torch.zeros(4)).shape
        torch.Size([4, 5, 5])
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self, manifold: Manifold, data: Tensor, noise: float, hidden: Sequence[int] = (128, 256)
    ) -> None:
        super().__init__()
        self.manifold, self.noise, self.event_shape = manifold, noise, data.shape[1:]
        self.center = nn.Parameter(data.mean(0))
        signal = (data.var(0).mean() - noise**2).clamp(min=1e-2 * noise**2)
        self.register_buffer("spread", signal.sqrt())
        features = InvariantFeatures(manifold)
        self.decoder = nn.Sequential(
            features,
            _Waves(features.out_features, hidden[0]),
            *_layers(hidden),
            nn.Linear(hidden[-1], self.event_shape.numel()),
        ).to(data)

    @property
    def prior(self) -> dist.TorchDistribution:
        """Law of the latent points, uniform where the volume is finite."""
        return _prior(self.manifold, self.spread)

    def decode(self, z: Tensor) -> Tensor:
        """Return the data without noise at latent points."""
        out = self.decoder(z)
        return self.center + self.spread * out.reshape(out.shape[:-1] + self.event_shape)

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.prior)
            law = dist.Normal(self.decode(z), self.noise).to_event(len(self.event_shape))
            pyro.sample("x", law, obs=x)
        return z

    def log_evidence(self, x: Tensor, num_points: int = 100_000) -> Tensor:
        r"""Return the log-density of each datum, by averaging over draws from the prior.

        No guide is involved: this is what the decoder alone is worth. All data share the draws.
        The estimate is a little low where few draws hit the posterior: it needs many times
        :math:`e^{KL}` of them, which limits it to two dimensions or so.

        Args:
            x: Data ``[n, *event_shape]``.
            num_points: Number of draws.

        Example:
            >>> from pyro_manifolds.nn import ManifoldModel
            >>> x = torch.randn(100, 5)
            >>> ManifoldModel(Circle(), x, 0.3).log_evidence(x, 1000).shape
            torch.Size([100])
        """
        scaled = (x - self.center.detach()).flatten(1) / self.noise
        constant = scaled.shape[1] * (0.5 * math.log(2 * math.pi) + math.log(self.noise))
        total = scaled.new_full((len(x),), -math.inf)
        with torch.no_grad():
            for start in range(0, num_points, 4096):
                z = self.prior.sample(Size([min(4096, num_points - start)]))
                means = (self.decode(z) - self.center).flatten(1) / self.noise
                terms = scaled @ means.mT - means.square().sum(-1) / 2
                total = torch.logaddexp(total, terms.logsumexp(-1))
        return total - math.log(num_points) - scaled.square().sum(-1) / 2 - constant


class ManifoldGuide(nn.Module):
    """Encoder of data to a wrapped normal on a manifold, located through ``unembed``.

    Args:
        manifold: Where the latent points lie.
        data: Data to take shape, mean and spread from, ``[n, *event_shape]``.
        hidden: Widths of the hidden layers, in the order of those of the model.
        alignment: Affine map of the flattened data to start the location from; at random, if none.

    Example:
        >>> from pyro_manifolds.nn import ManifoldGuide
        >>> x = torch.randn(100, 5, 5)
        >>> ManifoldGuide(Torus(2), x).posterior(x[:3]).batch_shape
        torch.Size([3])
    """

    center: Tensor
    spread: Tensor

    def __init__(
        self,
        manifold: Manifold,
        data: Tensor,
        hidden: Sequence[int] = (128, 256),
        alignment: Alignment | None = None,
    ) -> None:
        super().__init__()
        self.manifold, sizes = manifold, tuple(reversed(hidden))
        self.register_buffer("center", data.mean(0))
        self.register_buffer("spread", data.var(0).mean().sqrt().clamp(min=1e-12))
        first = nn.Linear(data.shape[1:].numel(), sizes[0])
        self.encoder = nn.Sequential(first, nn.SiLU(), *_layers(sizes)).to(data)
        self.scale = ScaleHead(sizes[-1], manifold).to(data)
        self.aligned = alignment is not None
        head = AlignedHead(alignment, sizes[-1], manifold) if alignment else None
        self.loc = (head or ManifoldHead(sizes[-1], manifold)).to(data)

    def posterior(self, x: Tensor) -> WrappedNormal:
        """Return the approximate posterior of the latent points of data."""
        features = self.encoder(((x - self.center) / self.spread).flatten(1))
        loc = self.loc(x.flatten(1), features) if self.aligned else self.loc(features)
        return WrappedNormal(self.manifold, loc, self.scale(features))

    def forward(self, x: Tensor) -> Tensor:
        with pyro.plate("data", len(x), dim=-1):
            return pyro.sample("z", self.posterior(x))


def fit_manifold_vae(
    manifold: Manifold,
    data: Tensor,
    *,
    noise: float,
    steps: int = 1500,
    restarts: int = 4,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    hidden: Sequence[int] = (128, 256),
    seed: int = 0,
    on_step: Callable[[], object] = int,
) -> tuple[ManifoldModel, ManifoldGuide, float]:
    """Train a :class:`ManifoldModel` with its :class:`ManifoldGuide` from the best of some starts.

    An encoder that starts at random may tear the data on its way to the manifold, and stay torn.
    Hence several starts, each for a fifth of the steps; the one with the highest training ELBO is
    trained to the end. The last is random, and so is every one where the manifold is neither
    compact nor Euclidean. The others are laid along the manifold by ``align_to_manifold``: the
    first from the leading principal components, the next ones from other choices of them, in
    pairs. For a digit that turns, the leading pair may well turn at twice the speed, and be
    a circle that is run through twice; the pair that turns once comes later. Neither Pyro's
    parameter store nor the global random state is changed.

    Args:
        manifold: Where the latent points lie.
        data: Data to train on, ``[n, *event_shape]``.
        noise: Standard deviation of the noise.
        steps: Number of steps of Adam for the chosen start; the step size falls to zero.
        restarts: Number of starts.
        batch_size: Data in a batch.
        learning_rate: Step size at the start.
        hidden: Widths of the hidden layers of the decoder; the encoder has the reverse.
        seed: Seed of everything random.
        on_step: Called after each step.

    Returns:
        Model, guide, and the mean ELBO of the last batches in nats per datum.

    Raises:
        FloatingPointError: If the ELBO of every start stops being finite.
    """
    screen, runs = _screening(steps, restarts), []
    devices = [data.device] if data.is_cuda else []
    with torch.random.fork_rng(devices=devices), pyro.validation_enabled(False):
        for start in range(restarts):
            torch.manual_seed(1000 * seed + start)
            aligned = start < max(1, restarts - 1)
            alignment = _alignment(manifold, data, start, seed) if aligned else None
            model = ManifoldModel(manifold, data, noise, hidden)
            guide = ManifoldGuide(manifold, data, hidden, alignment)
            run = _Run(model, guide, learning_rate)
            run.advance(data, screen, steps, batch_size, on_step)
            runs.append(run)
        best = max(runs, key=lambda run: run.elbo)
        best.advance(data, steps - best.done, steps, batch_size, on_step)
    if not math.isfinite(best.elbo):
        raise FloatingPointError(
            f"fit_manifold_vae: expected a finite ELBO on {manifold}, got none from {restarts} "
            "starts; lower the learning rate"
        )
    return best.model, best.guide, best.elbo


def count_steps(steps: int, restarts: int) -> int:
    """Return the number of steps that :func:`fit_manifold_vae` takes for all starts together.

    Example:
        >>> from pyro_manifolds.nn.manifold_vae import count_steps
        >>> count_steps(1000, 3)
        1400
    """
    return steps + (restarts - 1) * _screening(steps, restarts)


def _screening(steps: int, restarts: int) -> int:
    return max(1, steps // 5) if restarts > 1 else steps


class _Run:
    """One start, and how far it has come."""

    def __init__(self, model: ManifoldModel, guide: ManifoldGuide, learning_rate: float) -> None:
        self.model, self.guide = model, guide
        self.loss = Trace_ELBO()(model, guide)
        self.optimiser = torch.optim.Adam([*model.parameters(), *guide.parameters()])
        self.learning_rate, self.done, self.history = learning_rate, 0, [math.nan]

    @property
    def elbo(self) -> float:
        """Mean ELBO of the last batches, minus infinity where it is not finite."""
        recent = self.history[-_RECENT:]
        mean = sum(recent) / len(recent)
        return mean if math.isfinite(mean) else -math.inf

    def advance(
        self, data: Tensor, count: int, steps: int, size: int, on_step: Callable[[], object]
    ) -> None:
        self.history = self.history if self.done else []
        for _ in range(count):
            rate = 0.5 * (1 + math.cos(math.pi * self.done / steps)) * self.learning_rate
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            batch = data[torch.randint(len(data), (size,), device=data.device)]
            self.optimiser.zero_grad()
            loss = self.loss(batch) / size
            self.history.append(-loss.item())
            if not math.isfinite(self.history[-1]):
                return
            loss.backward()
            nn.utils.clip_grad_norm_(self.loss.parameters(), _MAX_NORM)
            self.optimiser.step()
            self.done += 1
            on_step()


class _Waves(nn.Linear):
    """Sines of random directions and phases: the start of a decoder of sharp images."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        nn.init.normal_(self.weight, std=_FREQUENCY)
        nn.init.uniform_(self.bias, -math.pi, math.pi)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).sin()


def _layers(sizes: Sequence[int]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for size_in, size_out in zip(sizes[:-1], sizes[1:], strict=True):
        layers += [nn.Linear(size_in, size_out), nn.SiLU()]
    return layers


def _prior(manifold: Manifold, like: Tensor) -> dist.TorchDistribution:
    if manifold.is_compact:
        return ManifoldUniform(manifold, dtype=like.dtype, device=like.device)
    # As wide as a period, a wrapped normal is uniform; where there is no period, the width is one.
    loc = manifold.origin(manifold.event_shape, dtype=like.dtype, device=like.device)
    scale = like.new_tensor(manifold.periods).reshape(manifold.scale_shape)
    return WrappedNormal(manifold, loc.as_subclass(Tensor), scale)


def _alignment(manifold: Manifold, data: Tensor, start: int, seed: int) -> Alignment | None:
    """Lay a choice of principal components along the manifold, if that can be done."""
    flat, dim = data[:_NUM_ALIGNED].flatten(1), manifold.embed_dim
    components = _components(dim, start)
    if not (manifold.is_compact or isinstance(manifold, Euclidean)):
        return None
    if min(flat.shape) <= max(dim, *components):
        return None
    if start:
        centred = flat - flat.mean(0)
        directions = torch.linalg.svd(centred, full_matrices=False)[2]
        kept = directions[components]
        flat = centred @ kept.mT @ kept + flat.mean(0)
    if isinstance(manifold, Euclidean):
        return principal_start(flat, dim)
    return align_to_manifold(flat, manifold, seed=seed)


def _components(dim: int, start: int) -> list[int]:
    """Return which principal components a start takes: pairs of neighbours, leading ones first.

    A symmetry makes components come in pairs, one for each speed at which the data turn.
    """
    number = math.ceil(dim / 2)
    chosen = sorted(itertools.combinations(range(number + start), number), key=sum)[start]
    return [2 * pair + side for pair in chosen for side in (0, 1)]
