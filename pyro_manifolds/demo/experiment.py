"""The runs of the demonstration: what is trained on which photographs, and how it is scored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_manifolds.datasets import TEST_PHOTOGRAPHS, TRAIN_PHOTOGRAPHS, patch_sphere
from pyro_manifolds.demo.baselines import (
    angular_gaussian_log_prob,
    fit_angular_gaussian,
    fit_mixture,
    uniform_log_prob,
)
from pyro_manifolds.demo.distributed import local_device
from pyro_manifolds.demo.model import SphereGuide, SphereModel
from pyro_manifolds.demo.training import describe_run, fit
from pyro_manifolds.demo.workers import bar_position
from pyro_manifolds.infer.evidence import evidence_bounds
from pyro_manifolds.manifolds import (
    Euclidean,
    KleinBottle,
    Manifold,
    ProjectiveSpace,
    Sphere,
    Torus,
)
from pyro_manifolds.nn.checkpoints import load_checkpoint

__all__ = [
    "MANIFOLDS",
    "Score",
    "Settings",
    "check_checkpoint",
    "held_out_patches",
    "load_patches",
    "load_run",
    "score_angular_gaussian",
    "score_components",
    "score_latent",
    "score_mixture",
    "score_uniform",
    "train_patches",
]

MANIFOLDS: dict[str, tuple[str, Callable[[], Manifold]]] = {
    "klein": ("Klein bottle", KleinBottle),
    "torus": ("torus", lambda: Torus(2)),
    "sphere": ("sphere", lambda: Sphere(2)),
    "plane": ("plane", lambda: Euclidean(2)),
    "projective": ("projective plane", lambda: ProjectiveSpace(2)),
}

# A scene and a texture, to choose the size of the mixture by; the rest of the training side fits.
_VALIDATION = ("camera", "grass")
_FITTING = tuple(name for name in TRAIN_PHOTOGRAPHS if name not in _VALIDATION)


@dataclass(frozen=True)
class Settings:
    """Sizes of the demonstration, the same for every manifold.

    Attributes:
        steps: Number of gradient steps for each latent manifold.
        batch_size: Patches in a batch.
        learning_rate: Of Adam at the start; it falls to zero along a half cosine.
        hidden: Width of the two hidden layers of encoder and decoder.
        train_patches: Number of patches to train on.
        test_patches: Number of held-out patches.
        particles: Number of draws from the guide for the importance-weighted bound.
        mixture_steps: Number of gradient steps for the mixture.
        candidates: Numbers of components to choose from.
    """

    steps: int = 3000
    batch_size: int = 512
    learning_rate: float = 6e-3
    hidden: int = 64
    train_patches: int = 20_000
    test_patches: int = 5_000
    particles: int = 256
    mixture_steps: int = 500
    candidates: tuple[int, ...] = (8, 32, 128, 512)

    def training(self, seed: int) -> dict[str, Any]:
        """Return the options of :func:`~pyro_manifolds.demo.training.fit` for one run."""
        return {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "seed": seed,
            "warmup": self.steps // 4,
            "decay": True,
        }


@dataclass(frozen=True)
class Score:
    """Nats per patch of one run.

    Attributes:
        name: Label of the latent manifold or of the baseline.
        parameters: Number of parameters of the density; an encoder does not count.
        train: As ``log_density``, on the patches of the training set that are scored.
        log_density: Held-out log-density; with a latent, the importance-weighted lower bound.
        elbo: Held-out ELBO; none without a latent.
        seed: Seed of the run; none where there is nothing random.
    """

    name: str
    parameters: int
    train: float
    log_density: float
    elbo: float | None = None
    seed: int | None = None


@cache
def load_patches(names: tuple[str, ...], num_patches: int, seed: int = 0) -> Tensor:
    """Return patches of photographs as unit vectors in float32, ``(n, 8)``."""
    return patch_sphere(names, num_patches, seed=seed, dtype=torch.float32)


def train_patches(settings: Settings) -> Tensor:
    """Return the patches to train on."""
    return load_patches(TRAIN_PHOTOGRAPHS, settings.train_patches)


def held_out_patches(settings: Settings) -> Tensor:
    """Return the held-out patches, of other photographs."""
    return load_patches(TEST_PHOTOGRAPHS, settings.test_patches)


def checkpoint_path(output: Path, manifold: str, seed: int) -> Path:
    """Return where the checkpoint of a run lies."""
    return output / "checkpoints" / f"{manifold}-{seed}.pt"


def check_checkpoint(settings: Settings, output: Path, manifold: str, seed: int) -> bool:
    """Tell whether there is a checkpoint of a run, and refuse one of another run.

    Raises:
        CheckpointError: If the file there is not of this run.
    """
    path = checkpoint_path(output, manifold, seed)
    if not path.exists():
        return False
    load_checkpoint(path, _identity(settings, manifold, seed))
    return True


def score_latent(
    settings: Settings,
    output: Path,
    manifold: str,
    seed: int,
    *,
    resume: bool = False,
    progress: bool = True,
) -> Score:
    """Train the model with one latent manifold from one seed, and bound held-out densities."""
    label, _ = MANIFOLDS[manifold]
    device = local_device()
    train, test = train_patches(settings).to(device), held_out_patches(settings).to(device)
    with _local_parameters(), _seeded(seed):
        model, guide = _build(settings, manifold)
        fit(
            Trace_ELBO()(model, guide).to(device),
            train,
            checkpoint=checkpoint_path(output, manifold, seed),
            resume=resume,
            settings=_architecture(settings, manifold),
            progress=progress,
            description=f"{label}, seed {seed}",
            position=bar_position(),
            **settings.training(seed),
        )
        torch.manual_seed(seed)  # the same draws whether or not training was interrupted
        _, iwae_train = _bounds(model, guide, train[: len(test)], settings.particles)
        elbo_test, iwae = _bounds(model, guide, test, settings.particles)
    parameters = sum(p.numel() for p in model.parameters())
    return Score(label, parameters, iwae_train, iwae, elbo_test, seed)


def load_run(
    settings: Settings, output: Path, manifold: str, seed: int
) -> tuple[SphereModel, SphereGuide]:
    """Return the trained model and guide of a run, from its checkpoint."""
    identity = _identity(settings, manifold, seed)
    state = load_checkpoint(checkpoint_path(output, manifold, seed), identity)
    with _local_parameters(), _seeded(seed):
        model, guide = _build(settings, manifold)
        Trace_ELBO()(model, guide).load_state_dict(state["modules"])
    return model, guide


def score_components(settings: Settings, components: int) -> float:
    """Score a size of the mixture on photographs that are kept out of its fit, but not test ones.

    Returns:
        Mean log-density of the validation patches.
    """
    share = settings.train_patches // len(TRAIN_PHOTOGRAPHS)
    x = load_patches(_FITTING, share * len(_FITTING))
    mixture = fit_mixture(x, components, steps=settings.mixture_steps, seed=0)
    validation = load_patches(_VALIDATION, share * len(_VALIDATION))
    return _mean(mixture.law().log_prob, validation)


def score_mixture(settings: Settings, components: int, seed: int) -> Score:
    """Fit and score a mixture of power spherical laws."""
    train, test = train_patches(settings), held_out_patches(settings)
    mixture = fit_mixture(train, components, steps=settings.mixture_steps, seed=seed)
    log_prob = mixture.law().log_prob
    scores = _mean(log_prob, train[: len(test)]), _mean(log_prob, test)
    label = f"power spherical mixture, {components}"
    return Score(label, mixture.num_parameters, *scores, seed=seed)


def score_angular_gaussian(settings: Settings) -> Score:
    """Fit and score a Gaussian of zero mean, projected on the sphere."""
    train, test = train_patches(settings), held_out_patches(settings)
    shape = fit_angular_gaussian(train)

    def log_prob(x: Tensor) -> Tensor:
        return angular_gaussian_log_prob(x, shape)

    parameters = len(shape) * (len(shape) + 1) // 2 - 1
    scores = _mean(log_prob, train[: len(test)]), _mean(log_prob, test)
    return Score("projected Gaussian", parameters, *scores)


def score_uniform(settings: Settings) -> Score:
    """Score the uniform law, which fits nothing."""
    value = uniform_log_prob(held_out_patches(settings)[0]).item()
    return Score("uniform", 0, value, value)


def _architecture(settings: Settings, manifold: str) -> dict[str, Any]:
    return {"manifold": manifold, "hidden": settings.hidden}


def _identity(settings: Settings, manifold: str, seed: int) -> dict[str, Any]:
    architecture = _architecture(settings, manifold)
    return describe_run(train_patches(settings), architecture, **settings.training(seed))


def _build(settings: Settings, manifold: str) -> tuple[SphereModel, SphereGuide]:
    surface = MANIFOLDS[manifold][1]()
    hidden = settings.hidden
    return SphereModel(surface, hidden=hidden), SphereGuide(surface, hidden=hidden)


@contextmanager
def _local_parameters() -> Iterator[None]:
    """Keep parameters in their modules, out of Pyro's global store, and do without checks."""
    with pyro.settings.context(module_local_params=True), pyro.validation_enabled(False):
        yield


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _bounds(
    model: SphereModel, guide: SphereGuide, x: Tensor, particles: int
) -> tuple[float, float]:
    """Return the mean ELBO and the mean importance-weighted bound."""
    chunks = x.split(max(1, 64_000 // particles))
    bounds = [evidence_bounds(model, guide, chunk, num_particles=particles) for chunk in chunks]
    return (
        torch.cat([b.elbo for b in bounds]).mean().item(),
        torch.cat([b.iwae for b in bounds]).mean().item(),
    )


@torch.no_grad()
def _mean(log_prob: Callable[[Tensor], Tensor], x: Tensor) -> float:
    return torch.cat([log_prob(chunk) for chunk in x.split(500)]).mean().item()
