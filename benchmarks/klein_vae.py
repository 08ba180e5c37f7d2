"""KleinVAE on Klein circles: the published recipe, mended one step at a time, and its controls.

Run as ``python -m benchmarks.klein_vae``; ``--full`` is the published protocol. Every rung is an
ordinary Pyro model and guide. The rungs differ in what the decoder reads, how the encoder ends and
starts, and which divergence the ELBO charges.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.nn import PyroModule
from torch import Tensor, nn

from pyro_manifolds import (
    CoveringReparam,
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    Torus,
    WrappedNormal,
)
from pyro_manifolds.datasets import KleinCircles, klein_circles
from pyro_manifolds.demo.training import fit
from pyro_manifolds.geometry import topology_score
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn import (
    AlignedHead,
    Alignment,
    InvariantFeatures,
    ManifoldHead,
    ScaleHead,
    align_to_manifold,
    principal_start,
)
from pyro_manifolds.nn.checkpoints import CheckpointError

__all__ = ["RUNGS", "Guide", "Model", "Protocol", "Rung", "Score", "train_and_score"]


@dataclass(frozen=True)
class Rung:
    """One way to build the auto-encoder.

    Attributes:
        manifold: Latent manifold.
        invariant: Whether the decoder reads the embedding of a point, or its raw coordinates.
        unembed: Whether the location comes through the ambient space, or from the plane.
        exact: Whether the ELBO charges the divergence on the manifold from the uniform prior, or
            the closed form on the universal cover from a normal one.
        aligned: Whether the encoder starts as principal components laid along the manifold, and
            the location is held there while the weight of the divergence rises.
    """

    manifold: Manifold
    invariant: bool = True
    unembed: bool = True
    exact: bool = True
    aligned: bool = False


RUNGS = {
    "as published": Rung(KleinBottle(), invariant=False, unembed=False, exact=False),
    "+ invariant decoder": Rung(KleinBottle(), unembed=False, exact=False),
    "+ head through unembed": Rung(KleinBottle(), exact=False),
    "+ uniform prior, exact density": Rung(KleinBottle()),
    "+ aligned start": Rung(KleinBottle(), aligned=True),
    "unembed, raw decoder": Rung(KleinBottle(), invariant=False, exact=False),
    "torus": Rung(Torus(2)),
    "torus, aligned start": Rung(Torus(2), aligned=True),
    "Euclidean": Rung(Euclidean(2)),
    "Euclidean, aligned start": Rung(Euclidean(2), aligned=True),
}


@dataclass(frozen=True)
class Protocol:
    """Sizes of an experiment; the defaults take minutes, ``FULL`` is the published one."""

    size: int = 15
    train: int = 20_000
    test: int = 4_000
    epochs: int = 30
    batch_size: int = 256
    hidden: tuple[int, ...] = (256, 128, 64, 32)
    warmup_epochs: int = 10
    mixed: bool = False


FULL = Protocol(30, 80_000, 10_000, 50, 1024, (1024, 512, 128, 32), mixed=True)


class Network(nn.Sequential):
    """Linear layers with ReLU between them.

    With ``mixed`` their products run in bfloat16 while training, several times faster on
    processors that have it; scores are always computed in float32.
    """

    def __init__(self, *sizes: int, mixed: bool = False) -> None:
        layers: list[nn.Module] = []
        for size_in, size_out in itertools.pairwise(sizes):
            layers += [nn.Linear(size_in, size_out), nn.ReLU()]
        super().__init__(*layers[:-1])
        self.mixed = mixed

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.mixed and self.training
        with torch.autocast(x.device.type, torch.bfloat16, enabled=mixed):
            return super().forward(x).float()


class RawCoordinates(nn.Module):
    """Coordinates of a point as fractions of the periods: what a decoder should not read."""

    periods: Tensor

    def __init__(self, manifold: Manifold) -> None:
        super().__init__()
        self.out_features = manifold.dim
        self.register_buffer("periods", torch.tensor(manifold.periods))

    def forward(self, z: Tensor) -> Tensor:
        return z / self.periods


class PlaneHead(nn.Linear):
    """Location in the plane, in units of the periods, that starts in the middle of the square."""

    def __init__(self, in_features: int, manifold: Manifold) -> None:
        super().__init__(in_features, manifold.dim)
        self.register_buffer("periods", torch.tensor(manifold.periods))
        nn.init.constant_(self.bias, 0.5)

    def forward(self, features: Tensor) -> Tensor:
        return self.periods * super().forward(features)


class _Latent(PyroModule):
    """What model and guide share: how the divergence of the site ``z`` enters the ELBO."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.rung = rung

    def sample_latent(self, fn: Any, kl_weight: float) -> Tensor:
        config = {} if self.rung.exact else CoveringReparam()
        with poutine.reparam(config=config), poutine.scale(scale=kl_weight):
            return pyro.sample("z", fn)


class Model(_Latent):
    """Prior on the manifold, decoder to the logits of the pixels."""

    def __init__(self, rung: Rung, pixels: int, protocol: Protocol) -> None:
        super().__init__(rung)
        first = (InvariantFeatures if rung.invariant else RawCoordinates)(rung.manifold)
        self.decoder = nn.Sequential(
            first,
            Network(first.out_features, *protocol.hidden[::-1], pixels, mixed=protocol.mixed),
        )

    @property
    def prior(self) -> Any:
        """Uniform, or normal on the cover: with the published variance, or standard."""
        manifold = self.rung.manifold
        periods = torch.tensor(manifold.periods)
        if not manifold.is_compact:
            return WrappedNormal(manifold, torch.zeros_like(periods), periods)
        if self.rung.exact:
            return ManifoldUniform(manifold)
        return WrappedNormal(manifold, 0.5 * periods, math.sqrt(0.1) * periods)

    def forward(self, x: Tensor, kl_weight: float = 1.0) -> None:
        with pyro.plate("data", len(x), dim=-1):
            z = self.sample_latent(self.prior, kl_weight)
            pixels = dist.Bernoulli(logits=self.decoder(z)).to_event(1)
            pyro.sample("x", pixels, obs=x.float())


class Guide(_Latent):
    """Encoder to a wrapped normal."""

    def __init__(
        self, rung: Rung, pixels: int, protocol: Protocol, alignment: Alignment | None = None
    ) -> None:
        super().__init__(rung)
        hidden = protocol.hidden
        self.encoder = nn.Sequential(Network(pixels, *hidden, mixed=protocol.mixed), nn.ReLU())
        self.scale = ScaleHead(hidden[-1], rung.manifold)
        if alignment:
            self.loc: nn.Module = AlignedHead(alignment, hidden[-1], rung.manifold)
        else:
            self.loc = (ManifoldHead if rung.unembed else PlaneHead)(hidden[-1], rung.manifold)

    def posterior(self, x: Tensor) -> WrappedNormal:
        """Return the approximate posterior of the latents of the images ``x``."""
        features = self.encoder(x.float())
        loc = self.loc(x.float(), features) if self.rung.aligned else self.loc(features)
        return WrappedNormal(self.rung.manifold, loc, self.scale(features))

    def forward(self, x: Tensor, kl_weight: float = 1.0) -> Tensor:
        posterior = self.posterior(x)
        if self.rung.aligned and kl_weight < 1:  # a decoder that knows nothing would tear the code
            posterior = WrappedNormal(self.rung.manifold, posterior.loc.detach(), posterior.scale)
        with pyro.plate("data", len(x), dim=-1):
            return self.sample_latent(posterior, kl_weight)


class Score(NamedTuple):
    """What a trained auto-encoder reaches on the test images.

    Attributes:
        negative_elbo: With the divergence that it was trained with, nats per image.
        negative_iwae: Importance weighted bound, nats per image.
        reconstruction: Negative log-likelihood of the pixels at the mode of the posterior.
        tears: Fraction of images whose reconstruction is five times worse than the median.
        topology: Mean bottleneck distance, see ``topology_score``.
    """

    negative_elbo: float
    negative_iwae: float
    reconstruction: float
    tears: float
    topology: float


def train_and_score(
    name: str, seed: int, protocol: Protocol, *, output: Path, resume: bool = False
) -> Score:
    """Train one rung with one seed, with a checkpoint in ``output``, and score it."""
    rung, images = RUNGS[name], klein_circles(protocol.train, protocol.size, seed=1).images
    train = images.flatten(1)
    torch.manual_seed(seed)
    alignment = _alignment(rung, train[:4000].float(), seed) if rung.aligned else None
    with pyro.settings.context(module_local_params=True):
        model = Model(rung, train.shape[1], protocol)
        guide = Guide(rung, train.shape[1], protocol, alignment)
    per_epoch = protocol.train // protocol.batch_size
    fit(
        (Trace_ELBO if rung.exact else TraceMeanField_ELBO)()(model, guide),
        train,
        steps=protocol.epochs * per_epoch,
        warmup=protocol.warmup_epochs * per_epoch,
        batch_size=protocol.batch_size,
        learning_rate=1e-3,
        seed=seed,
        checkpoint=output / f"{_slug(name)}-{protocol.size}-{seed}.pt",
        resume=resume,
        settings={"rung": name},
        description=f"{name}, seed {seed}",
    )
    return score(model, guide, klein_circles(protocol.test, protocol.size, seed=2))


def _alignment(rung: Rung, data: Tensor, seed: int) -> Alignment:
    if rung.manifold.is_compact:
        return align_to_manifold(data, rung.manifold, seed=seed)
    return principal_start(data, rung.manifold.embed_dim)


def score(model: Model, guide: Guide, test: KleinCircles, points: int = 250) -> Score:
    """Score a trained pair on test images, the topology on the first ``points`` of them."""
    model.eval(), guide.eval()
    batches = test.images.flatten(1).split(500)
    bounds = [evidence_bounds(model, guide, x, num_particles=64) for x in batches]
    with torch.no_grad():
        codes = [guide.posterior(x).mode for x in batches]
        losses = torch.cat(
            [
                -dist.Bernoulli(logits=model.decoder(z)).log_prob(x.float()).sum(-1)
                for x, z in zip(batches, codes, strict=True)
            ]
        )
    code = torch.cat(codes)[:points]
    truth = _square_distances(KleinBottle(), test.points[:points])
    return Score(
        -torch.cat([b.elbo for b in bounds]).mean().item(),
        -torch.cat([b.iwae for b in bounds]).mean().item(),
        losses.mean().item(),
        (losses > 5 * losses.median()).double().mean().item(),
        topology_score(_square_distances(guide.rung.manifold, code), truth).mean,
    )


def _square_distances(manifold: Manifold, points: Tensor) -> Tensor:
    """Return distances in the flat metric in which every period is one, as in the publication."""
    points = points.double()
    periods = points.new_tensor(manifold.periods)
    lattice = points.new_tensor([period or math.inf for period in manifold.lattice])
    steps = points.unsqueeze(1) - manifold.deck(points).unsqueeze(1)
    turns = torch.round(steps / lattice)
    steps = steps - torch.where(turns == 0, torch.zeros_like(turns), turns * lattice)
    return (steps / periods).norm(dim=-1).amin(0)


def calibration(points: int = 250) -> dict[str, float]:
    """Return scores of codes whose quality is known: the scale to read a topology score by."""
    klein = KleinBottle()
    first, second = (klein_circles(points, 2, seed=seed).points for seed in (3, 4))
    truth = _square_distances(klein, first)
    half = second * torch.tensor([0.5, 1.0])
    return {
        "another uniform sample": topology_score(_square_distances(klein, second), truth).mean,
        "half of the Klein bottle": topology_score(_square_distances(klein, half), truth).mean,
        "a contractible square": topology_score(torch.cdist(second, second), truth).mean,
    }


def format_table(results: dict[str, list[Score]]) -> str:
    """Lay out scores, mean and standard deviation over seeds."""
    heads = ["-ELBO", "-IWAE", "recon NLL", "tears %", "topology"]
    lines = [f"{'rung':<32}{'seeds':>6}" + "".join(f"{head:>18}" for head in heads)]
    for name, scores in results.items():
        cells = [
            _cell([factor * value for value in values], digits)
            for values, factor, digits in zip(
                zip(*scores, strict=True), (1, 1, 1, 100, 1), (2, 2, 2, 2, 3), strict=True
            )
        ]
        lines.append(f"{name:<32}{len(scores):>6}" + "".join(f"{cell:>18}" for cell in cells))
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int) -> str:
    spread = stdev(values) if len(values) > 1 else math.nan
    return f"{mean(values):.{digits}f} ± {spread:.{digits}f}"


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def main(arguments: Sequence[str] | None = None) -> None:
    """Train every rung with every seed, print the table and write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.klein_vae", description=__doc__)
    parser.add_argument(
        "--rungs",
        nargs="+",
        choices=RUNGS,
        default=list(RUNGS),
        metavar="RUNG",
        help=", ".join(RUNGS),
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--full", action="store_true", help="the published protocol, hours")
    parser.add_argument("--epochs", type=int, help="number of epochs, if not the protocol's")
    parser.add_argument("--output", type=Path, default=Path("results/klein_vae"))
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints")
    options = parser.parse_args(arguments)
    protocol = FULL if options.full else Protocol()
    if options.epochs is not None:
        if options.epochs <= protocol.warmup_epochs:
            parser.error(
                f"expected --epochs above the warm-up of {protocol.warmup_epochs}, "
                f"got {options.epochs}"
            )
        protocol = replace(protocol, epochs=options.epochs)
    options.output.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Score]] = {}
    for name in options.rungs:
        for seed in options.seeds:
            try:
                result = train_and_score(
                    name, seed, protocol, output=options.output, resume=options.resume
                )
            except CheckpointError as error:
                parser.error(str(error))
            results.setdefault(name, []).append(result)
            print(f"{name}, seed {seed}: {result}", flush=True)
    print(format_table(results))
    print("topology scores of known codes:", calibration())
    path = options.output / f"scores-{protocol.size}.json"
    path.write_text(
        json.dumps({k: [s._asdict() for s in v] for k, v in results.items()}, indent=1)
    )


if __name__ == "__main__":
    main()
