"""Training of a learned embedding: rounds of steps, checks, checkpoints and restarts."""

from __future__ import annotations

import copy
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_manifolds.distributions.transforms.learned_embedding import LearnedEmbedding
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn.checkpoints import load_checkpoint, save_checkpoint
from pyro_manifolds.nn.embedding_diagnostics import diagnose_embedding
from pyro_manifolds.nn.embedding_networks import EmbeddingDecoder, EmbeddingEncoder
from pyro_manifolds.nn.embedding_objectives import MatchedCodes, Objective, WassersteinAutoEncoder
from pyro_manifolds.nn.embedding_sheets import overlapping, resolution

__all__ = ["ACTIVATIONS", "EmbeddingTraining", "Settings", "Source"]

ACTIVATIONS = {"silu": nn.SiLU, "tanh": nn.Tanh, "gelu": nn.GELU, "softplus": nn.Softplus}

_COOLING = 0.25  # share of the steps in which the step size falls at the end
_FOLDED = 0.2  # share of overlaps that is no matter of the edges
_KEPT = (1.0, 0.9995, 0.999, 0.998, 0.997, 0.996, 0.994, 0.99, 0.98, 0.97)  # lengths of edges


@dataclass(frozen=True)
class Settings:
    """What tells one fit from another."""

    target: str
    dim: int
    base: Any
    method: str
    width: int
    depth: int
    activation: str
    steps: int
    batch_size: int
    learning_rate: float
    check_every: int
    patience: int
    restarts: int
    held_out: float
    neighbours: int
    mmd_weight: float
    kernel: str
    heads: int
    seed: int


class Source:
    """Samples to train on, drawn on demand, and samples held out."""

    def __init__(self, target: Manifold | Tensor, held_out: float) -> None:
        if isinstance(target, Manifold):
            self.manifold: Manifold | None = target
            self.held_out = self.draw(2000)
        else:
            self.manifold = None
            rows = torch.randperm(len(target), device=target.device)
            number = max(10, int(held_out * len(target)))
            self.held_out, self.train = target[rows[:number]], target[rows[number:]]

    def draw(self, count: int) -> Tensor:
        """Return so many samples of a manifold, or at most so many of those given."""
        if self.manifold is not None:
            points = self.manifold.random_uniform(count, *self.manifold.event_shape)
            return self.manifold.embed(points).as_subclass(Tensor)
        return self.train[torch.randperm(len(self.train), device=self.train.device)[:count]]


class EmbeddingTraining:
    """Attempts at an embedding, each a number of rounds, of which the best check is kept.

    Args:
        settings: What :func:`~pyro_manifolds.nn.fit_embedding` was asked for.
        source: Samples.
        path: Checkpoint to write, and to go on from if it is there.
        progress: Whether to show a progress bar.
    """

    def __init__(
        self, settings: Settings, source: Source, path: str | Path | None, progress: bool
    ) -> None:
        self.settings, self.source, self.progress = settings, source, progress
        self.path = None if path is None else Path(path)

    def run(self) -> LearnedEmbedding:
        """Return the trained embedding, frozen."""
        state = self._load()
        best = state.get("best")
        for attempt in range(state.get("attempt", 0), self.settings.restarts + 1):
            torch.manual_seed(self.settings.seed + 1000 * attempt)
            found = self._attempt(attempt, best, state.get("training"))
            state = {}
            best = found if best is None or found["penalty"] < best["penalty"] else best
            if best["sound"]:
                break
        assert best is not None
        embedding = self._build()
        embedding.load_state_dict(best["weights"])
        _cut_overlap(embedding, 2 * resolution(self.source.held_out))
        embedding.requires_grad_(False).eval()
        return embedding

    def _build(self) -> LearnedEmbedding:
        s, samples = self.settings, self.source.held_out
        shape: dict[str, Any] = {
            "width": s.width,
            "depth": s.depth,
            "activation": ACTIVATIONS[s.activation],
            "base": s.base,
        }
        n = samples.shape[-1]
        decoder, encoder = EmbeddingDecoder(s.dim, n, **shape), None
        decoder.set_units(samples.to(decoder.location))
        if s.method == "wae":
            encoder = EmbeddingEncoder(n, s.dim, heads=s.heads, **shape)
            encoder.set_units(samples.to(encoder.location))
        embedding = LearnedEmbedding(decoder, encoder, dim=s.dim, embed_dim=n, base=s.base)
        return embedding.to(samples)

    def _attempt(
        self, attempt: int, best_before: dict[str, Any] | None, state: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Train until the steps are over or the checks are good; return the best check."""
        s, embedding = self.settings, self._build()
        objective = self._objective(embedding)
        optimiser = torch.optim.Adam(embedding.parameters(), s.learning_rate)
        rounds = math.ceil(s.steps / s.check_every)
        progress: dict[str, Any] = {"round": 0, "good": 0, "cooling": 0}
        best: dict[str, Any] = {"penalty": math.inf}
        if state is not None:
            embedding.load_state_dict(state["weights"])
            optimiser.load_state_dict(state["optimiser"])
            torch.set_rng_state(state["random"])
            progress, best = state["progress"], state["best"]
        title = "embedding" if not attempt else f"embedding, attempt {attempt + 1}"
        bar = tqdm(
            total=rounds * s.check_every,
            initial=progress["round"] * s.check_every,
            desc=title,
            disable=not self.progress,
            mininterval=1.0,
        )
        cooling = max(1, round(_COOLING * rounds))
        while progress["round"] < rounds and progress["cooling"] < cooling:
            if progress["good"] >= s.patience or progress["round"] >= rounds - cooling:
                progress["cooling"] += 1
            left = 1 - progress["cooling"] / (cooling + 1)
            self._round(objective, optimiser, progress["round"], s.learning_rate * left**2, bar)
            found = diagnose_embedding(
                embedding, self.source.held_out, num_samples=1000, seed=s.seed, warn=False
            )
            progress["round"] += 1
            progress["good"] = progress["good"] + 1 if found.good else 0
            shown = {"coverage": f"{found.coverage:.3f}", "overlap": f"{found.collisions:.3f}"}
            bar.set_postfix(shown, refresh=False)
            if found.penalty <= best["penalty"]:
                weights = copy.deepcopy(embedding.state_dict())
                sound = not found.complaints()
                best = {"penalty": found.penalty, "weights": weights, "sound": sound}
            training = {
                "weights": embedding.state_dict(),
                "optimiser": optimiser.state_dict(),
                "random": torch.get_rng_state(),
                "progress": progress,
                "best": best,
            }
            self._save({"attempt": attempt, "best": best_before, "training": training})
        bar.close()
        return best

    def _objective(self, embedding: LearnedEmbedding) -> Objective:
        s, draw = self.settings, self.source.draw
        if s.method == "wae":
            return WassersteinAutoEncoder(embedding, draw, s.mmd_weight, s.kernel)
        return MatchedCodes(embedding, draw, 4096 if s.dim == 1 else 1024, s.neighbours)

    def _round(
        self,
        objective: Objective,
        optimiser: torch.optim.Optimizer,
        number: int,
        learning_rate: float,
        bar: Any,
    ) -> None:
        optimiser.param_groups[0]["lr"] = learning_rate
        objective.begin(number)
        for _ in range(self.settings.check_every):
            loss = objective.loss(self.settings.batch_size)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            bar.update()
        if not math.isfinite(loss.item()):
            raise FloatingPointError(
                f"fit_embedding: expected a finite loss, got {loss.item()}; "
                "lower the learning rate"
            )

    def _load(self) -> dict[str, Any]:
        if self.path is None or not self.path.exists():
            return {}
        return load_checkpoint(self.path, asdict(self.settings))

    def _save(self, state: dict[str, Any]) -> None:
        if self.path is not None:
            save_checkpoint(self.path, asdict(self.settings), state)


@torch.no_grad()
def _cut_overlap(embedding: LearnedEmbedding, within: float) -> None:
    """Cut off edges of the domain whose images overlap, if that is more than what is lost."""
    if embedding.base != "uniform":
        return
    shrink = cast(EmbeddingDecoder, embedding.decoder).shrink
    codes = embedding.prior().sample((2000,))
    losses = []
    for kept in _KEPT:
        shrink.fill_(kept)
        overlap = overlapping(embedding, codes, within).float().mean().item()
        losses.append(1 - kept**embedding.dim + overlap)
        if overlap == 0 or overlap > _FOLDED:
            break
    shrink.fill_(_KEPT[losses.index(min(losses))])
