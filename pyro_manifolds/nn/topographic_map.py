"""Topographic maps of filters: independent component analysis with neighbours that depend."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor, nn

from pyro_manifolds.distributions import TopographicStudentT
from pyro_manifolds.distributions.neighborhoods import Neighborhood
from pyro_manifolds.nn.held_out import check_counts, split_filters, train_by_score

__all__ = ["TopographicMap", "fit_topographic_map"]

_NAME = "fit_topographic_map"  # in messages of errors
_LAST_RATE = 0.02  # step size at the end, as a share of that at the start


class TopographicMap(nn.Module):
    r"""Patches as an orthogonal mixture of topographic Student-t sources.

    Whitened patches x and codes :math:`t = A x`, with A orthogonal, have the density

    .. math:: p(x) = p_t(A x), \qquad t \sim \text{TopographicStudentT}(W, 0, s)

    with the rotation A and the scale s learned. The law couples the squares of neighbouring codes
    and leaves them uncorrelated: what is learned is topographic independent component analysis,
    and with ``Groups(n, 1, dof)`` ordinary independent component analysis. The density has no
    closed form for overlapping neighbourhoods, so that :meth:`log_prob_lower_bound` is
    maximised.

    An ordinary Pyro model: ``forward`` scores patches with that bound by ``pyro.factor``. There
    is no latent site, so the guide is empty, and the ELBO is a lower bound of the log-likelihood.
    A is a Cayley transform times a random rotation, so that it stays orthogonal under any
    optimiser.

    References:
        | Topographic Independent Component Analysis (Hyvärinen, Hoyer and Inki, 2001)
        | Topographic Product Models Applied to Natural Scene Statistics (Osindero, Welling and
          Hinton, 2006)

    Args:
        patches: Data to compute mean and principal components from, ``[N, *shape]``. The mean of
            each patch is subtracted; as many leading components are kept as there are codes.
        neighborhood: Neighbourhood of the codes.

    Attributes:
        center: Mean patch, flattened.
        whitening: Map from centred flattened patches to whitened ones.
        coloring: Map from whitened patches back.
        scores: Mean bound on the patches held out, before training and at each check.

    Example:
        >>> from pyro_manifolds.distributions import Torus2d
        >>> from pyro_manifolds.nn import TopographicMap
        >>> patches = torch.randn(500, 4, 4)
        >>> sheet = TopographicMap(patches, Torus2d((3, 4), (3, 3)))
        >>> sheet.codes(patches).shape, sheet.filters.shape
        (torch.Size([500, 3, 4]), torch.Size([3, 4, 4, 4]))
        >>> pyro.infer.Trace_ELBO()(sheet, lambda patches: None)(patches).backward()
    """

    center: Tensor
    whitening: Tensor
    coloring: Tensor
    base: Tensor

    def __init__(self, patches: Tensor, neighborhood: Neighborhood) -> None:
        super().__init__()
        size = neighborhood.event_shape.numel()
        _check_patches("TopographicMap", patches, size)
        self.neighborhood = neighborhood
        self.patch_shape = patches.shape[1:]
        self.scores: list[float] = []
        flat = _centred(patches)
        values, axes = torch.linalg.eigh(flat.mT.double().cov())
        values, axes = values.flip(0)[:size], axes.flip(1)[:, :size]
        if values[-1] <= 1e-10 * values[0]:
            raise ValueError(
                f"TopographicMap: expected patches that vary in at least {size} directions, one "
                f"for each code, got {int((values > 1e-10 * values[0]).sum())}"
            )
        self.register_buffer("center", flat.mean(0))
        self.register_buffer("whitening", (axes / values.sqrt()).mT.to(flat))
        self.register_buffer("coloring", (axes * values.sqrt()).to(flat))
        self.register_buffer("base", nn.init.orthogonal_(flat.new_empty(size, size)))
        self.skew = nn.Parameter(flat.new_zeros(size, size))
        # From 3 degrees of freedom on, codes then start with the variance of whitened patches.
        dof = float(neighborhood.dof.detach().mean())
        self.log_scale = nn.Parameter(flat.new_tensor(0.5 * math.log(max(dof - 2, 1.0))))

    @property
    def rotation(self) -> Tensor:
        """The matrix A, ``[n, n]``."""
        skew = self.skew.triu(1)
        skew = skew - skew.mT
        eye = torch.eye(len(skew), dtype=skew.dtype, device=skew.device)
        return torch.linalg.solve(eye + skew, eye - skew) @ self.base

    @property
    def law(self) -> TopographicStudentT:
        """Law of the codes."""
        # Without validation, which warns of what matters to draws alone.
        scale = self.log_scale.exp()
        return TopographicStudentT(self.neighborhood, scale=scale, validate_args=False)

    @property
    def filters(self) -> Tensor:
        """What each code is the scalar product of centred patches with, ``[*map, *shape]``."""
        return self._shaped(self.rotation @ self.whitening).detach()

    @property
    def features(self) -> Tensor:
        """What each code adds to a patch, ``[*map, *shape]``: smoother than the filters."""
        return self._shaped(self.rotation @ self.coloring.mT).detach()

    def whiten(self, patches: Tensor) -> Tensor:
        """Return whitened patches, ``[N, n]``."""
        if patches.dim() < 2 or patches.shape[1:] != self.patch_shape:
            raise ValueError(
                f"TopographicMap: expected patches of shape (N, "
                f"{', '.join(map(str, self.patch_shape))}), got {tuple(patches.shape)}"
            )
        return (_centred(patches.to(self.center)) - self.center) @ self.whitening.mT

    def codes(self, patches: Tensor) -> Tensor:
        """Return the codes of patches, ``[N, *map]``."""
        codes = self.whiten(patches) @ self.rotation.mT
        return codes.reshape(len(codes), *self.neighborhood.event_shape)

    def log_prob_lower_bound(self, patches: Tensor) -> Tensor:
        """Return a lower bound of the log-density of whitened patches, in nats, ``[N]``."""
        return self.law.log_prob_lower_bound(self.codes(patches))

    def log_prob_normal(self, patches: Tensor) -> Tensor:
        """Return the log-density of whitened patches under a standard normal law, ``[N]``."""
        white = self.whiten(patches)
        return -0.5 * (white.square() + math.log(2 * math.pi)).sum(-1)

    def forward(self, patches: Tensor) -> None:
        with pyro.plate("patches", len(patches), dim=-1):
            pyro.factor("log_density", self.log_prob_lower_bound(patches))

    def _shaped(self, rows: Tensor) -> Tensor:
        return rows.reshape(*self.neighborhood.event_shape, *self.patch_shape)


def fit_topographic_map(
    patches: Tensor,
    neighborhood: Neighborhood,
    *,
    validation: Tensor | float = 0.1,
    steps: int = 2000,
    batch_size: int = 256,
    learning_rate: float = 0.01,
    check_every: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> TopographicMap:
    """Learn a map of filters from patches, by the lower bound of their likelihood.

    Adam on minibatches, with a step size that falls to a fiftieth. The parameters end as the best
    ones on the patches held out. The global random state is left alone, and so is Pyro's
    parameter store.

    The order is a local optimum: a filter moves over the map by rotations in which filters mix.
    ``scores`` of several seeds can be compared.

    Args:
        patches: Shape ``[N, *shape]``, such as
            :func:`~pyro_manifolds.datasets.normalized_patches`.
        neighborhood: Neighbourhood of the codes, ``Torus2d((H, W), (Kh, Kw))`` for a map. It has
            at most one code less than a patch has pixels, as means of patches are subtracted.
        validation: Patches held out, or the fraction of ``patches`` to hold out at random.
            Overlapping patches of one photograph are not held out by leaving out some of them.
        steps: Number of gradient steps.
        batch_size: Patches in a batch.
        learning_rate: Step size at the start.
        check_every: Steps between two scores on the patches held out.
        seed: Seed of the start, of the batches and of what is held out.
        progress: Whether to show a progress bar.

    Returns:
        The map, in ``eval()`` mode and without gradients; its ``scores`` are the mean bounds on
        the patches held out.

    Raises:
        ValueError: If an argument is out of range or has a wrong shape.
        FloatingPointError: If the bound stops being finite.

    Example:
        >>> from pyro_manifolds.distributions import Torus2d
        >>> from pyro_manifolds.nn import fit_topographic_map
        >>> patches = torch.randn(2000, 4, 4) * torch.rand(2000, 4, 4)
        >>> options = {"steps": 50, "check_every": 25, "progress": False}
        >>> sheet = fit_topographic_map(patches, Torus2d((3, 4), (3, 3)), **options)
        >>> len(sheet.scores), sheet.scores[-1] > sheet.scores[0]
        (3, True)
    """
    check_counts(_NAME, steps=steps, batch_size=batch_size, check_every=check_every)
    if not learning_rate > 0:
        raise ValueError(f"{_NAME}: expected learning_rate > 0, got {learning_rate}")
    size = neighborhood.event_shape.numel()
    _check_patches(_NAME, patches, size)
    _check_validation(validation, patches)
    with torch.random.fork_rng([patches.device] if patches.is_cuda else []):
        torch.manual_seed(seed)
        rows, held_out = split_filters(patches, validation)
        train = patches[rows]
        sheet = TopographicMap(train, neighborhood)
        sheet.scores = train_by_score(
            *(_NAME, sheet, train, _stepper(sheet, learning_rate, steps)),
            partial(_score, sheet, held_out),
            steps=steps,
            batch_size=batch_size,
            check_every=check_every,
            progress=progress,
        )
    return sheet.requires_grad_(False).eval()


def _stepper(sheet: TopographicMap, learning_rate: float, steps: int) -> Callable[[Tensor], float]:
    elbo = Trace_ELBO()(sheet, _guide)  # type: ignore[arg-type]  # any callable is a guide
    optimizer = torch.optim.Adam(sheet.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, _LAST_RATE ** (1 / steps))

    def step(batch: Tensor) -> float:
        optimizer.zero_grad()
        with pyro.validation_enabled(False):  # what is not finite has an error of its own
            loss = elbo(batch) / len(batch)
        loss.backward()
        optimizer.step()
        schedule.step()
        return loss.item()

    return step


def _guide(patches: Tensor) -> None:
    """All that is learned is a parameter of the model."""


@torch.no_grad()
def _score(sheet: TopographicMap, patches: Tensor) -> float:
    return sheet.log_prob_lower_bound(patches).mean().item()


def _centred(patches: Tensor) -> Tensor:
    """Flatten patches, and subtract the mean of each."""
    flat = patches.flatten(1)
    return flat - flat.mean(1, keepdim=True)


def _check_patches(caller: str, patches: Tensor, size: int) -> None:
    if patches.dim() < 2 or not patches.is_floating_point():
        raise ValueError(
            f"{caller}: expected patches of shape (N, *shape) and of floating point numbers, got "
            f"{tuple(patches.shape)} of {patches.dtype}"
        )
    if len(patches) <= size or patches[0].numel() <= size:
        raise ValueError(
            f"{caller}: expected more patches, and more pixels in each, than the {size} codes, "
            f"got shape {tuple(patches.shape)}"
        )
    if not patches.isfinite().all():
        raise ValueError(f"{caller}: expected finite patches, got nan or infinity")


def _check_validation(validation: Tensor | float, patches: Tensor) -> None:
    if not isinstance(validation, Tensor):
        if not 0 < validation < 1:
            raise ValueError(
                f"{_NAME}: expected validation to be patches or in (0, 1), got {validation}"
            )
        return
    if validation.shape[1:] != patches.shape[1:] or not len(validation):
        raise ValueError(
            f"{_NAME}: expected validation of shape (N, "
            f"{', '.join(map(str, patches.shape[1:]))}), got {tuple(validation.shape)}"
        )
    if not validation.isfinite().all():
        raise ValueError(f"{_NAME}: expected a finite validation, got nan or infinity")
