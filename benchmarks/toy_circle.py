"""Points of a circle behind a random network: what the seam of a latent costs, and what mends it.

Run as ``python -m benchmarks.toy_circle``. Auto-encoders with the same networks learn the same
data and differ in their latent alone: normal on the line and in the plane, Beta laws bent into a
circle by a fixed or a learned embedding, with and without a rotation by the encoder, and laws of
the circle. Finished runs are kept, one line each, in ``results/toy_circle.jsonl``: the same
command goes on where it was stopped, and ``--report`` prints the tables alone.

The experiment is that of Golikov and Kretov (2018), arXiv 1812.02769, with sizes of our own where
theirs are not known.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import mean
from typing import NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import TraceMeanField_ELBO
from pyro.infer.reparam import TransformReparam
from torch import Tensor, nn
from torch.distributions import Distribution, kl_divergence
from tqdm import tqdm

from benchmarks.toy_circle_latents import INVALID, LATENTS, Latent, round_nodes
from benchmarks.toy_circle_report import print_report
from pyro_manifolds import Circle
from pyro_manifolds.distributions import EmbeddingPushforward, Moved
from pyro_manifolds.distributions.transforms import LearnedEmbedding
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import fit_embedding

__all__ = ["Generator", "Guide", "Model", "Protocol", "Run", "Training", "main"]

SIZE = 100  # of a datum, and of every hidden layer
NOISE = 0.1  # standard deviation, that at the start where it is learned
LEAST_NOISE = 0.01
STARTS = 3


@dataclass(frozen=True)
class Protocol:
    """Sizes of the experiment; ``QUICK`` only shows that it runs."""

    steps: int = 4000
    batch_size: int = 128
    test: int = 1000
    draws: int = 100  # of the importance weighted bound
    repeats: int = 2  # of that
    nodes: int = 8192  # of the quadrature
    embedding_steps: int = 4000


QUICK = Protocol(3, 16, test=50, draws=5, repeats=2, nodes=256, embedding_steps=500)


class Run(NamedTuple):
    """One training.

    Attributes:
        latent: Name of the latent.
        noise: ``"fixed"`` or ``"learned"``: the standard deviation of the likelihood.
        steps: Number of steps.
        seed: Seed of generator, data, initial weights and noise.
        starts: Number of initial weights, each trained for a tenth of the steps; the one with the
            highest ELBO in training goes on.
    """

    latent: str
    noise: str
    steps: int
    seed: int
    starts: int = 1


ROWS = tuple(LATENTS)
CURVE = ("normal, d = 1", "Beta, projection", "wrapped normal")  # also with fewer steps
STARTED = ("normal, d = 1", "wrapped normal", "von Mises", "power spherical")  # from several, too


class Generator:
    """The data: uniform points of a circle, through a network of random weights, without noise."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.first, self.second = torch.empty(SIZE, 2), torch.empty(SIZE, SIZE)
        for weight in (self.first, self.second):
            nn.init.xavier_uniform_(weight, generator=generator)

    def at(self, points: Tensor) -> Tensor:
        """Return the data at points of the unit circle."""
        hidden = points @ self.first.mT.to(points)
        return hidden.relu() @ self.second.mT.to(points)

    def sample(self, number: int) -> Tensor:
        """Return that many data."""
        return self.at(Circle().embed(2 * math.pi * torch.rand(number)))


def _network(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size_in, size_out in itertools.pairwise(sizes):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class Model(nn.Module):
    """Prior on the latent, network, and normal noise of one size."""

    def __init__(self, latent: Latent, noise: str) -> None:
        super().__init__()
        self.latent = latent
        width = latent.features(latent.prior.sample((1,))).shape[-1]
        self.decoder = _network(width, SIZE, SIZE, SIZE)
        self.log_noise = nn.Parameter(torch.tensor(NOISE).log(), noise == "learned")

    @property
    def noise(self) -> Tensor:
        """Standard deviation of the noise."""
        return self.log_noise.exp().clamp(min=LEAST_NOISE)

    def forward(self, x: Tensor, prior: TorchDistribution | None = None) -> None:
        """Draw the latents and score the data; ``prior`` takes the place of that of the latent."""
        with pyro.plate("data", len(x), dim=-1):
            z = pyro.sample("z", self.latent.prior if prior is None else prior)
            loc = self.decoder(self.latent.features(z))
            pyro.sample("x", dist.Normal(loc, self.noise).to_event(1), obs=x)


class Guide(nn.Module):
    """Encoder to the posterior."""

    def __init__(self, latent: Latent) -> None:
        super().__init__()
        self.latent = latent
        self.encoder = _network(SIZE, SIZE, SIZE, latent.outputs)

    def posterior(self, x: Tensor) -> TorchDistribution:
        """Return the approximate posterior of the latents of data."""
        return self.latent.posterior(self.encoder(x))

    def nominal_prior(self, x: Tensor) -> TorchDistribution:
        """Return the uniform law through the embedding, rotated by the encoder for each datum.

        The divergence from it is that before the rotation. A prior that knows the datum belongs
        to no generative model, so what it gives is no bound.
        """
        embedding = self.latent.embedding
        uniform = EmbeddingPushforward(embedding.prior().expand([len(x)]), embedding)
        return Moved(uniform, self.posterior(x).action)

    def forward(self, x: Tensor, prior: TorchDistribution | None = None) -> None:
        """Draw the latents of data."""
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("z", self.posterior(x))


@lru_cache
def _fit(seed: int, steps: int) -> LearnedEmbedding:
    return fit_embedding(Circle(), steps=steps, seed=seed, progress=False, warn=False)


def train_and_score(run: Run, protocol: Protocol) -> dict[str, float]:
    """Train one auto-encoder, and score it on test data."""
    generator = Generator(run.seed)
    torch.manual_seed(run.seed)
    test = generator.sample(protocol.test)
    with pyro.validation_enabled(False):
        latent = LATENTS[run.latent](lambda: _fit(run.seed, protocol.embedding_steps))
        trainings = [
            Training(Model(latent, run.noise), Guide(latent), run.steps) for _ in range(run.starts)
        ]
        first = run.steps // 10 if run.starts > 1 else 0
        elbos = [t.advance(generator, first, protocol.batch_size) for t in trainings]
        best = trainings[elbos.index(max(elbos))]
        best.advance(generator, run.steps - first, protocol.batch_size)
        with torch.no_grad():
            return score(best.model, best.guide, generator, test, protocol)


class Training:
    """Training by Adam on fresh data, with a step size that falls along a half cosine.

    Args:
        model: Model, trained in place.
        guide: Its guide.
        steps: Number of steps in all.
    """

    def __init__(self, model: Model, guide: Guide, steps: int) -> None:
        self.model, self.guide = model, guide
        self.parameters = [*model.parameters(), *guide.parameters()]
        self.optimiser = torch.optim.Adam(self.parameters, lr=1e-3, fused=True)
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimiser, steps, eta_min=1e-5
        )

    def advance(self, generator: Generator, steps: int, batch_size: int) -> float:
        """Take some steps, and return the mean ELBO over the last hundred of them."""
        model, guide, recent = self.model, self.guide, deque([0.0], maxlen=100)
        elbo = TraceMeanField_ELBO()(*_on_base(model, guide, nominal=model.latent.nominal))
        for _ in range(steps):
            x = generator.sample(batch_size)
            self.optimiser.zero_grad()
            prior = guide.nominal_prior(x) if model.latent.nominal else None
            loss = elbo(x, prior) / batch_size
            recent.append(-loss.item())
            loss.backward()
            nn.utils.clip_grad_norm_(self.parameters, 100.0)
            self.optimiser.step()
            self.schedule.step()
        return mean(recent)


def _on_base(
    model: Model, guide: Guide, *, nominal: bool = False
) -> tuple[Callable[..., None], Callable[..., None]]:
    """Move the latent before what model and guide share, of which the volume cancels.

    That is the learned embedding and, with the nominal prior, also the rotation.
    """
    shared = isinstance(model.latent.prior, EmbeddingPushforward)
    names = ["z", "z_base"] if nominal else ["z"] if shared else []
    config = {name: TransformReparam() for name in names}
    moved = poutine.reparam(guide, config=config)
    return poutine.reparam(model, config=config), poutine.block(moved, hide=names)


def score(
    model: Model, guide: Guide, generator: Generator, test: Tensor, protocol: Protocol
) -> dict[str, float]:
    """Score a trained pair in nats per datum; see ``benchmarks/README.md`` for what is what."""
    bounds = [
        evidence_bounds(*_on_base(model, guide), test, num_particles=protocol.draws, chunk_size=20)
        for _ in range(protocol.repeats)
    ]
    elbo = torch.stack([b.elbo for b in bounds]).mean(0)
    found = {
        "elbo": elbo.mean(),
        "worst": elbo.sort().values[: math.ceil(0.01 * len(test))].mean(),
        "iwae": torch.stack([b.iwae for b in bounds]).mean(),
        "ess": torch.stack([b.ess for b in bounds]).median(),
        "noise": model.noise,
        "generator": _generator_evidence(generator, test, model.noise, protocol.nodes),
    }
    if model.latent.nodes:
        found["exact"] = log_evidence(model, test, protocol.nodes).mean()
    found |= _divergences(model, guide, test, math.ceil(protocol.draws / 20))
    if model.latent.embedding:
        pair, prior = _on_base(model, guide, nominal=True), guide.nominal_prior(test)
        found["nominal"] = evidence_bounds(*pair, test, prior, num_particles=20).elbo.mean()
    return {name: float(value) for name, value in found.items()}


def _divergences(model: Model, guide: Guide, x: Tensor, draws: int) -> dict[str, Tensor]:
    """Return the divergence by densities on the manifold, and that of the laws before them."""
    q, p = guide.posterior(x), model.latent.prior
    # A copy, so that densities are those of any point, and not of one whose origin is remembered.
    draw = [q.sample().clone() for _ in range(draws)]
    found = {"kl": torch.stack([(q.log_prob(z) - p.log_prob(z)).mean() for z in draw]).mean()}
    base: Distribution = q.base_dist if isinstance(q, Moved) else q
    if isinstance(base, EmbeddingPushforward):
        uniform = dist.Uniform(torch.zeros(len(x), 1), 1.0).to_event(1)
        found["base_kl"] = kl_divergence(base.base_dist, uniform).mean()
    return found


def log_evidence(model: Model, x: Tensor, number: int) -> Tensor:
    """Return the log-evidence of each datum, by quadrature over the latent."""
    z, log_weights = model.latent.nodes(number)
    means = copy.deepcopy(model.decoder).double()(model.latent.features(z))
    return _integrate(x, means, log_weights, model.noise)


def _generator_evidence(generator: Generator, x: Tensor, noise: Tensor, number: int) -> Tensor:
    """Return the mean log-evidence of the network that made the data, with noise."""
    z, log_weights = round_nodes(number)
    return _integrate(x, generator.at(z), log_weights, noise).mean()


def _integrate(x: Tensor, means: Tensor, log_weights: Tensor, noise: Tensor) -> Tensor:
    x, variance = x.double(), noise.double().square()
    squares = x.square().sum(-1, keepdim=True) + means.square().sum(-1) - 2 * x @ means.mT
    log_likelihood = -squares / (2 * variance) - SIZE / 2 * (2 * math.pi * variance).log()
    return (log_likelihood + log_weights).logsumexp(-1)


def _runs(seeds: int, steps: int) -> Iterator[Run]:
    for seed in range(seeds):
        yield from (Run(latent, "fixed", steps, seed) for latent in ROWS)
    for seed in range(seeds):
        yield from (Run(latent, "fixed", steps, seed, STARTS) for latent in STARTED)
    for seed, latent in itertools.product(range(seeds), CURVE):
        yield from (Run(latent, "fixed", budget, seed) for budget in (steps // 8, 3 * steps // 8))
    for seed in range(seeds):
        yield from (Run(latent, "learned", steps, seed) for latent in ROWS if latent != INVALID)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do all runs that are not in the file yet, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toy_circle", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    name = "toy_circle-quick" if options.quick else "toy_circle"
    output = options.output or Path("results", name).with_suffix(".jsonl")
    if not options.report:
        torch.set_num_threads(1)
        protocol = QUICK if options.quick else Protocol()
        _do(list(_runs(options.seeds, protocol.steps)), protocol, output)
    print_report(read(output))


def _do(runs: Sequence[Run], protocol: Protocol, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    done = set(read(output)) if output.exists() else set()
    with output.open("a") as file, tqdm([r for r in runs if r not in done]) as bar:
        for run in bar:
            bar.set_description(f"{run.latent}, {run.noise} noise, seed {run.seed}")
            scores = train_and_score(run, protocol)
            file.write(json.dumps({**run._asdict(), "scores": scores}) + "\n")
            file.flush()


def read(path: Path) -> dict[Run, dict[str, float]]:
    """Return the finished runs of a file and their scores."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {Run(*(row[name] for name in Run._fields)): row["scores"] for row in rows}


if __name__ == "__main__":
    main()
