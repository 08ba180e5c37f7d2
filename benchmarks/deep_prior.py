"""Deep weight priors on filters: likelihood of filters held out, and transfer to new classes.

Run as ``python -m benchmarks.deep_prior``. Auto-encoders whose latent points lie on the Klein
bottle, a torus, a plane or a sphere are trained on 5 x 5 patches of photographs, and on filters of
small convolutional nets that tell the digits 0 to 4 apart. First they are scored on other patches
and other nets; then they are the priors of nets that learn 5 to 9 from a few images, against
Gaussian distributions fitted to the same filters. What is done is kept in the output folder, so
that an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pyro
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.optim import ClippedAdam
from torch import Tensor, nn
from tqdm import tqdm

from pyro_manifolds import Euclidean, GaussianFilter, KleinBottle, Sphere, Torus
from pyro_manifolds.datasets import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    Digits,
    mnist_digits,
    normalized_patches,
)
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn import (
    DeepFilterPrior,
    DeepPriorGuide,
    KleinFilterPrior,
    fit_deep_filter_prior,
    fit_filter_prior,
)
from pyro_manifolds.nn.bayesian import (
    BayesianModule,
    expected_calibration_error,
    init_to_weights,
    predict,
)

__all__ = ["LATENTS", "QUICK", "TRANSFERS", "Protocol", "main"]

LATENTS: dict[str, Manifold] = {
    "Klein bottle": KleinBottle(),
    "torus": Torus(2),
    "plane": Euclidean(2),
    "sphere": Sphere(2),
}
DATA = ("photographs", "first layer", "second layer")
EXPLICIT = ("Gaussian, one variance", "Gaussian, full covariance", "Klein filter, learned")
TRANSFERS = (
    "iid, He",
    "iid, fitted",
    "Gaussian, full covariance",
    "deep, Klein bottle, ELBO",
    "deep, Klein bottle, marginal",
    "deep, plane, ELBO",
    "deep, plane, marginal",
)
FITS = ("MAP", "SVI")
VALIDATION_PHOTOGRAPHS = ("camera", "grass")
LAYERS = ("0", "3")  # names of the convolutions of the net


@dataclass(frozen=True)
class Protocol:
    """Sizes of the experiment; ``QUICK`` only shows that it runs."""

    patches: int = 20_000
    held_out: int = 3_000
    nets: int = 40
    net_epochs: int = 24
    channels: int = 16
    hidden: int = 64
    start_steps: int = 300
    prior_steps: int = 600
    nodes: int = 64
    train_images: int = 100
    net_steps: int = 400
    temperature: float = 0.1
    draws: int = 30


QUICK = Protocol(
    patches=300, held_out=60, nets=6, net_epochs=1, channels=4, hidden=8, start_steps=5,
    prior_steps=5, nodes=16, train_images=20, net_steps=4, draws=2,
)  # fmt: skip


def make_net(channels: int) -> nn.Sequential:
    """Two convolutions of 5 x 5 and a linear layer, for images of 28 x 28 and five classes."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, channels, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(16 * channels, 5),
    )  # fmt: skip


def source_filters(protocol: Protocol, path: Path) -> list[Tensor]:
    """Train nets on digits 0 to 4; return the filters of each layer, ``(nets, filters, 5, 5)``."""
    if path.exists():
        saved: list[Tensor] = torch.load(path)
        return saved
    images, labels = _classes(range(5))
    nets = []
    for seed in tqdm(range(protocol.nets), desc="source nets", mininterval=1.0):
        torch.manual_seed(seed)
        net = make_net(protocol.channels)
        subset = torch.randperm(len(images))[: int(0.6 * len(images))]
        # Strong decay: what the task does not ask for shall not stay as the start left it.
        optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1.0)
        for _ in range(protocol.net_epochs):
            for rows in subset[torch.randperm(len(subset))].split(64):
                optimiser.zero_grad()
                nn.functional.cross_entropy(net(images[rows]), labels[rows]).backward()
                optimiser.step()
        nets.append(net)
    layers = [
        torch.stack([n.get_submodule(name).weight.detach().flatten(0, 1) for n in nets])
        for name in LAYERS
    ]
    torch.save(layers, path)
    return layers


@dataclass(frozen=True)
class Filters:
    """Filters of one kind, of different photographs or nets."""

    train: Tensor
    validation: Tensor
    test: Tensor


def load_filters(kind: str, layers: list[Tensor], protocol: Protocol, seed: int) -> Filters:
    """Return filters of a kind; the seed draws the patches, or tells which nets are held out."""
    if kind == "photographs":
        train = [name for name in TRAIN_PHOTOGRAPHS if name not in VALIDATION_PHOTOGRAPHS]
        cut = partial(normalized_patches, seed=seed, kernel_size=5)
        return Filters(
            cut(train, protocol.patches),
            cut(VALIDATION_PHOTOGRAPHS, protocol.held_out),
            cut(TEST_PHOTOGRAPHS, protocol.held_out),
        )
    layer = layers[DATA.index(kind) - 1]
    order = torch.randperm(len(layer), generator=torch.Generator().manual_seed(seed))
    share = max(1, len(layer) // 5)
    parts = [
        layer[nets].flatten(0, 1) for nets in order.split([len(layer) - 2 * share, share, share])
    ]
    return Filters(parts[0], parts[1], parts[2][: protocol.held_out])


def fit_deep(latent: str, filters: Filters, protocol: Protocol, seed: int) -> DeepFilterPrior:
    """Train a deep prior on filters."""
    torch.manual_seed(seed)
    prior = DeepFilterPrior(5, LATENTS[latent], hidden=protocol.hidden)
    fit_deep_filter_prior(
        prior, filters.train, validation=filters.validation, start_steps=protocol.start_steps,
        steps=protocol.prior_steps, check_every=max(1, protocol.prior_steps // 10), seed=seed,
        progress=False,
    )  # fmt: skip
    return prior


def fit_gaussian(filters: Tensor, *, iid: bool = False) -> GaussianFilter:
    """Return the Gaussian distribution of zero mean that is most likely for filters."""
    rows = filters.flatten(1)
    variance = rows.square().mean() * torch.eye(rows.shape[1])
    # A little of the one to the other, so that few filters do.
    return GaussianFilter(variance if iid else rows.mT @ rows / len(rows) + 1e-4 * variance)


def score_filters(name: str, filters: Filters, protocol: Protocol, seed: int) -> dict[str, float]:
    """Fit a distribution to filters, and return its scores on others in nats per filter."""
    test = filters.test
    if name in LATENTS:
        prior = fit_deep(name, filters, protocol, seed)
        bounds = [
            evidence_bounds(prior.model, prior.guide, part, num_particles=64)
            for part in test.split(500)
        ]
        scores = {
            "elbo": torch.cat([b.elbo for b in bounds]).mean().item(),
            "iwae": torch.cat([b.iwae for b in bounds]).mean().item(),
        }
        for label, nodes in (("density", protocol.nodes), ("doubled", 2 * protocol.nodes)):
            law = prior.marginal(nodes)
            scores[label] = torch.cat([law.log_prob(x) for x in test.split(500)]).mean().item()
        return scores
    if name == "Klein filter, learned":
        torch.manual_seed(seed)
        learned = KleinFilterPrior(5, 8, noise_shape="full")
        steps = protocol.prior_steps
        fit_filter_prior(
            learned, filters.train, validation=filters.validation, steps=steps, seed=seed,
            progress=False,
        )  # fmt: skip
        with torch.no_grad():
            return {"density": learned().log_prob(test).mean().item()}
    law = fit_gaussian(filters.train, iid="one variance" in name)
    return {"density": law.log_prob(test).mean().item()}


def transfer(
    name: str, fit: str, priors: Sequence[Any], protocol: Protocol, seed: int
) -> dict[str, float]:
    """Learn the digits 5 to 9 from a few images with priors on both layers, and score the net.

    Args:
        name: One of ``TRANSFERS``.
        fit: ``"MAP"``, or ``"SVI"`` for independent normals.
        priors: What to sample the filters of each layer from, or none for the prior of He.
        protocol: Sizes.
        seed: Seed of images, starts and noise.
    """
    (x, y), (x_test, y_test) = _few_images(protocol.train_images, seed)
    torch.manual_seed(seed)
    net = make_net(protocol.channels)
    rules, deep = {}, {}
    for layer, prior in zip(LAYERS, priors, strict=False):
        is_deep = isinstance(prior, DeepFilterPrior)
        density = prior.marginal(protocol.nodes) if is_deep else prior
        weight = net.get_submodule(layer).weight
        weight.data = density.sample(weight.shape[:-2])
        rules[layer] = prior.hierarchical if name.endswith("ELBO") else density
        if name.endswith("ELBO"):
            deep[f"{layer}.weight"] = prior
    # At temperature one, a hundred images do not outweigh priors of 7000 weights: all go to zero.
    model = BayesianModule(net, rules, data_size=round(len(x) / protocol.temperature))
    start = {"init_loc_fn": init_to_weights(net)}
    make = {
        "MAP": partial(AutoDelta, **start),
        "SVI": partial(AutoNormal, **start, init_scale=0.03),
    }[fit]
    with pyro.get_param_store().scope():
        guide = DeepPriorGuide(model, make, deep)
        rate = {"MAP": 3e-3, "SVI": 2e-2}[fit]
        optimiser = ClippedAdam({"lr": rate, "lrd": 0.1 ** (1 / protocol.net_steps)})
        svi = SVI(model, guide, optimiser, Trace_ELBO())
        losses = [svi.step(x, y) for _ in range(protocol.net_steps)]
        draws = protocol.draws if fit == "SVI" else 1
        with torch.no_grad():
            probs = predict(model, guide, x_test, num_samples=draws).probs
    return {
        "accuracy": (probs.argmax(-1) == y_test).float().mean().item(),
        "nll": nn.functional.nll_loss(probs.log(), y_test).item(),
        "ece": float(expected_calibration_error(probs, y_test)),
        "elbo": -mean(losses[-max(1, len(losses) // 10) :]),
    }


def _transfer_priors(
    name: str, layers: list[Tensor], protocol: Protocol, fitted: Callable[[str, str], Any]
) -> list[Any]:
    if name == "iid, He":
        return []
    if name.startswith("deep"):
        latent = name.split(", ")[1]
        return [fitted(latent, kind) for kind in DATA[1:]]
    return [fit_gaussian(layer.flatten(0, 1), iid=name.startswith("iid")) for layer in layers]


@cache
def _digits() -> Digits:
    return mnist_digits()


def _classes(digits: range) -> tuple[Tensor, Tensor]:
    images, labels = _digits()
    kept = (labels >= digits.start) & (labels < digits.stop)
    return images[kept].unsqueeze(1), labels[kept] - digits.start


def _few_images(number: int, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return as many images of each class, and all others."""
    images, labels = _classes(range(5, 10))
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator)
    order = order[labels[order].argsort(stable=True)].reshape(5, -1)
    few, rest = order[:, : number // 5].flatten(), order[:, number // 5 :].flatten()
    return (images[few], labels[few]), (images[rest], labels[rest])


class Rows:
    """Rows of results, in a file that grows with them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []

    def add(self, key: dict[str, Any], compute: Callable[[], dict[str, float]]) -> None:
        """Compute a row, unless there is one of that key."""
        if any(key.items() <= row.items() for row in self.rows):
            return
        self.rows.append(key | compute())
        self.path.write_text(json.dumps(self.rows, indent=1))
        print(self.rows[-1], flush=True)

    def table(self, **key: Any) -> str:
        """Lay out means and standard deviations over seeds."""
        rows = [row for row in self.rows if key.items() <= row.items()]
        names = dict.fromkeys(row["name"] for row in rows)
        columns = [
            c for c in dict.fromkeys(c for r in rows for c in r) if c not in (*key, "name", "seed")
        ]
        lines = [f"{'':<32}" + "".join(f"{column:>18}" for column in columns)]
        for name in names:
            cells = []
            for column in columns:
                values = [r[column] for r in rows if r["name"] == name and column in r]
                spread = stdev(values) if len(values) > 1 else float("nan")
                cells.append(f"{mean(values):.3f} ± {spread:.3f}" if values else "")
            lines.append(f"{name:<32}" + "".join(f"{cell:>18}" for cell in cells))
        return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Score every distribution on filters and every prior on few images; print the tables."""
    with pyro.validation_enabled(False):
        return _run(arguments)


def _run(arguments: Sequence[str] | None) -> list[dict[str, Any]]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.deep_prior", description=__doc__)
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--transfer-seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--fits", nargs="*", choices=FITS, default=["SVI"])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--output", type=Path, default=Path("results/deep_prior"))
    options = parser.parse_args(arguments)
    protocol, suffix = (QUICK, "-quick") if options.quick else (Protocol(), "")
    options.output.mkdir(parents=True, exist_ok=True)
    rows = Rows(options.output / f"rows{suffix}.json")
    layers = source_filters(protocol, options.output / f"filters{suffix}.pt")
    for seed, kind in _progress(options.seeds, DATA, "filters"):
        filters = load_filters(kind, layers, protocol, seed)
        for name in (*EXPLICIT, *LATENTS):
            rows.add(
                {"part": "filters", "data": kind, "name": name, "seed": seed},
                partial(score_filters, name, filters, protocol, seed),
            )
    priors: dict[tuple[str, str], DeepFilterPrior] = {}

    def fitted(latent: str, kind: str) -> DeepFilterPrior:
        if (latent, kind) not in priors:
            filters = load_filters(kind, layers, protocol, 0)
            priors[latent, kind] = fit_deep(latent, filters, protocol, 0)
        return priors[latent, kind]

    for fit in options.fits:
        for seed, name in _progress(options.transfer_seeds, TRANSFERS, f"transfer, {fit}"):

            def compute(fit: str = fit, name: str = name, seed: int = seed) -> dict[str, float]:
                fitted_priors = _transfer_priors(name, layers, protocol, fitted)
                return transfer(name, fit, fitted_priors, protocol, seed)

            rows.add({"part": "transfer", "fit": fit, "name": name, "seed": seed}, compute)
    for kind in DATA:
        print(f"\n{kind}, nats per filter held out\n{rows.table(part='filters', data=kind)}")
    for fit in options.fits:
        table = rows.table(part="transfer", fit=fit)
        print(f"\n{protocol.train_images} images of 5 to 9, {fit}\n{table}")
    return rows.rows


def _progress(
    seeds: Sequence[int], names: Sequence[str], description: str
) -> Iterator[tuple[int, str]]:
    pairs = [(seed, name) for seed in seeds for name in names]
    yield from tqdm(pairs, desc=description, mininterval=1.0)


if __name__ == "__main__":
    main()
