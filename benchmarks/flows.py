"""Held-out likelihood of densities on the Klein bottle: flows, mixtures and controls.

Run as ``python -m benchmarks.flows``. The data are patches of photographs, each moved to the
nearest patch of the Klein bottle of Carlsson et al. (2008): two angles. Every density is fitted by
maximum likelihood with the same optimiser, keeps the weights that are best on two photographs set
aside, and is scored on three others. ``--speed`` times flows against those of zuko, where
installed.
"""

from __future__ import annotations

import argparse
import copy
import importlib
import importlib.util
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import pyro.distributions as dist
import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from benchmarks.timing import measure
from pyro_manifolds import CoveringPushforward, KleinBottle, ManifoldUniform, WrappedNormal
from pyro_manifolds.datasets import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    extract_patches,
    patch_sphere,
    patch_to_sphere,
    photographs,
)
from pyro_manifolds.nn import TorusFlow

__all__ = ["MODELS", "Protocol", "Score", "Split", "klein_directions", "nearest_klein_points"]

KLEIN = KleinBottle()
VALIDATION_PHOTOGRAPHS = ("camera", "grass")
TIMING_SECONDS = 20.0


@dataclass(frozen=True)
class Protocol:
    """Sizes of the experiment; ``QUICK`` only shows that it runs."""

    train: int = 100_000
    validation: int = 20_000
    test: int = 20_000
    steps: int = 1_000
    batch_size: int = 256
    check_every: int = 50
    learning_rate: float = 5e-3


QUICK = Protocol(train=500, validation=100, test=150, steps=6, batch_size=64, check_every=3)


class Split(NamedTuple):
    """Points of the Klein bottle, of different photographs."""

    train: Tensor
    validation: Tensor
    test: Tensor


def klein_directions(points: Tensor) -> Tensor:
    r"""Return the directions of the filters :math:`\sin t_2\, s + \cos t_2 (2 s^2 - 1)`.

    Here :math:`s = x \cos t_1 + y \sin t_1`, and a pixel is the integral over its cell of the
    square :math:`[-1, 1]^2`.

    References:
        | On the Local Behavior of Spaces of Natural Images (Carlsson, Ishkhanov, de Silva and
          Zomorodian, 2008)

    Args:
        points: Points of the Klein bottle, ``batch + (2,)``.

    Returns:
        Unit vectors of the coordinates of ``pyro_manifolds.datasets``, ``batch + (8,)``.
    """
    t1, t2 = (t[..., None, None] for t in points.unbind(-1))
    steps = torch.arange(-1, 2, dtype=points.dtype)
    y, x = torch.meshgrid(-steps, steps, indexing="ij")  # rows go down
    s = x * t1.cos() + y * t1.sin()
    return patch_to_sphere(8 / 27 * t2.sin() * s + t2.cos() * (32 / 81 * s**2 - 100 / 243))


def nearest_klein_points(
    directions: Tensor, size: int = 96, levels: int = 10
) -> tuple[Tensor, Tensor]:
    """Return the points of the Klein bottle whose filters are nearest, and the cosines to them.

    Args:
        directions: Unit vectors, ``(n, 8)``.
        size: Nodes of the first grid along half a turn.
        levels: Number of grids of 5 by 5 nodes round the best one so far, each of half the width.
    """
    step = math.pi / size
    first = torch.arange(size, dtype=directions.dtype) * step
    second = torch.arange(-size, size, dtype=directions.dtype) * step
    grid = torch.cartesian_prod(first, second)
    cosines, best = (directions @ klein_directions(grid).mT).max(-1)
    points = grid[best]
    around = torch.cartesian_prod(*[torch.linspace(-1, 1, 5, dtype=directions.dtype)] * 2)
    for level in range(levels):
        candidates = points.unsqueeze(1) + step / 2**level * around
        cosines, best = (klein_directions(candidates) * directions.unsqueeze(1)).sum(-1).max(-1)
        points = candidates[torch.arange(len(points)), best]
    return KLEIN.projx(points), cosines


def _near_points(directions: Tensor) -> Tensor:
    """Return the points of the patches of which they say something: within 30 degrees."""
    found = [nearest_klein_points(part) for part in directions.split(1000)]
    points, cosines = map(torch.cat, zip(*found, strict=True))
    return points[cosines > math.cos(math.pi / 6)].float()


def by_photograph(protocol: Protocol, seed: int) -> Split:
    """Draw patches of five photographs to fit, two to validate and three to test."""
    fitting = tuple(name for name in TRAIN_PHOTOGRAPHS if name not in VALIDATION_PHOTOGRAPHS)
    sides = (
        (fitting, protocol.train),
        (VALIDATION_PHOTOGRAPHS, protocol.validation),
        (TEST_PHOTOGRAPHS, protocol.test),
    )
    patches = [patch_sphere(names, n, seed=seed, dtype=torch.float64) for names, n in sides]
    return Split(*map(_near_points, patches))


def by_region(protocol: Protocol, seed: int) -> Split:
    """Draw patches of all photographs: left to fit, a strip to validate, the right to test.

    Patches of the same photograph share its subject, but none lies on two sides.
    """
    generator = torch.Generator().manual_seed(seed)
    images = photographs().values()
    sides = ((0.0, 0.6, protocol.train), (0.6, 0.8, protocol.validation), (0.8, 1, protocol.test))
    points = []
    for begin, end, n in sides:
        crops = [x[:, int(begin * x.shape[1]) : int(end * x.shape[1])] for x in images]
        patches = [extract_patches(x, n // len(crops), generator=generator) for x in crops]
        points.append(_near_points(patch_to_sphere(torch.cat(patches))))
    return Split(*points)


SPLITS = {"regions": by_region, "photographs": by_photograph}


class Mixture(nn.Module):
    """Wrapped normals on the Klein bottle that start round points of the data."""

    def __init__(self, components: int, data: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(data[torch.randint(len(data), (components,))])
        # As wide as a component's share of the area, but no wider than a mixture of few.
        scale = min(0.5, math.sqrt(KLEIN.volume / components) / 2)
        self.log_scale = nn.Parameter(torch.full((components, 2), math.log(scale)))

    def log_prob(self, y: Tensor) -> Tensor:
        parts = WrappedNormal(KLEIN, self.loc, self.log_scale.exp(), validate_args=False)
        weights = dist.Categorical(logits=self.logits, validate_args=False)
        return dist.MixtureSameFamily(weights, parts, validate_args=False).log_prob(y)


class Pushed(nn.Module):
    """A flow on the torus, pushed forward: a flow on the Klein bottle."""

    def __init__(self, flow: Callable[[], Distribution]) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, y: Tensor) -> Tensor:
        pushed = CoveringPushforward(self.flow(), KLEIN.orientation_covering, validate_args=False)
        return pushed.log_prob(y)


class GluedAsTorus(nn.Module):
    """Control: the same flow on the rectangle of canonical points, with its sides glued straight.

    A density on the Klein bottle of mass one, but it jumps at the seam, where points that are
    neighbours are far apart on this torus.
    """

    def __init__(self, flow: TorusFlow) -> None:
        super().__init__()
        self.flow = flow

    def log_prob(self, y: Tensor) -> Tensor:
        y = KLEIN.projx(y)
        stretched = torch.stack([2 * y[..., 0] - math.pi, y[..., 1]], -1)
        return self.flow().log_prob(stretched) + math.log(2)


class Uniform(nn.Module):
    """The density to beat: one over the area."""

    def log_prob(self, y: Tensor) -> Tensor:
        return ManifoldUniform(KLEIN, validate_args=False).log_prob(y)


def _flow(layers: int = 4, width: int = 16) -> TorusFlow:
    return TorusFlow(2, layers=layers, bins=8, hidden_features=(width, width))


def _zuko_flow(width: int = 16) -> nn.Module:
    """Return zuko's circular spline flow, without the effects of its import on validation."""
    validate = Distribution._validate_args
    zuko = importlib.import_module("zuko")
    Distribution.set_default_validate_args(validate)
    return zuko.flows.NCSF(2, transforms=3, bins=8, hidden_features=(width, width))


# The mixture of 596 has the parameters of the flow, to the last one.
MODELS: dict[str, Callable[[Tensor], nn.Module]] = {
    "uniform": lambda data: Uniform(),
    "wrapped normal": partial(Mixture, 1),
    **{f"mixture of {n} wrapped normals": partial(Mixture, n) for n in (8, 32, 128, 596)},
    "flow on the Klein bottle": lambda data: Pushed(_flow()),
    "larger flow on the Klein bottle": lambda data: Pushed(_flow(6, 32)),
    "zuko's NCSF, pushed forward": lambda data: Pushed(_zuko_flow()),
    "control: flow, sides glued straight": lambda data: GluedAsTorus(_flow()),
}


class Score(NamedTuple):
    """Mean log-density of a fitted model, nats per point with respect to area."""

    parameters: int
    train: float
    validation: float
    test: float
    steps: int


def fit_and_score(name: str, split: Split, protocol: Protocol, seed: int) -> Score:
    """Fit one model, keep the weights that are best on the validation side, and score them."""
    torch.manual_seed(seed)
    model = MODELS[name](split.train)
    parameters = sum(p.numel() for p in model.parameters())
    best, steps = _fit(model, split, protocol) if parameters else (model.state_dict(), 0)
    model.load_state_dict(best)
    return Score(parameters, *(_mean_log_prob(model, part) for part in split), steps)


def _fit(model: nn.Module, split: Split, protocol: Protocol) -> tuple[dict[str, Tensor], int]:
    """Maximise the likelihood; return the best weights and the step at which they were found."""
    optimiser = torch.optim.Adam(model.parameters(), lr=protocol.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, protocol.steps)
    best, best_step, best_score = copy.deepcopy(model.state_dict()), 0, -math.inf
    for step in range(1, protocol.steps + 1):
        batch = split.train[torch.randint(len(split.train), (protocol.batch_size,))]
        optimiser.zero_grad()
        (-model.log_prob(batch).mean()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        schedule.step()
        if step % protocol.check_every == 0:
            score = _mean_log_prob(model, split.validation)
            if score > best_score:
                best, best_step, best_score = copy.deepcopy(model.state_dict()), step, score
    return best, best_step


@torch.no_grad()
def _mean_log_prob(model: nn.Module, y: Tensor) -> float:
    return torch.cat([model.log_prob(part) for part in y.split(1000)]).mean().item()


def speed(seconds: float, batch: int = 1000) -> dict[str, float]:
    """Time density and draws of flows of equal width, without gradients, in milliseconds."""
    value = ManifoldUniform(KLEIN).sample((batch,))
    flows: dict[str, nn.Module] = {"TorusFlow, 6 couplings": _flow(6, 64)}
    if importlib.util.find_spec("zuko"):
        flows["zuko's NCSF, 3 autoregressive maps"] = _zuko_flow(64)
    contenders: dict[str, Callable[[], object]] = {}
    for name, flow in flows.items():
        d = flow()
        pushed = CoveringPushforward(d, KLEIN.orientation_covering, validate_args=False)
        for place, law in (("torus", d), ("Klein bottle", pushed)):
            contenders[f"{name}, log_prob, {place}"] = partial(law.log_prob, value)
            contenders[f"{name}, draws, {place}"] = partial(law.rsample, (batch,))
    with torch.no_grad():
        return measure(contenders, seconds)


def format_table(results: dict[str, list[Score]]) -> str:
    """Lay out scores, mean and standard deviation over seeds, and the gain over the uniform."""
    lines = [f"{'density':<38}{'parameters':>11}{'train':>17}{'validation':>17}{'test':>17}"]
    for name, scores in results.items():
        _, *columns, _ = zip(*scores, strict=True)
        cells = "".join(f"{_cell(values):>17}" for values in columns)
        lines.append(f"{name:<38}{scores[0].parameters:>11}{cells}")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    spread = stdev(values) if len(values) > 1 else math.nan
    return f"{mean(values):.3f} ± {spread:.3f}"


def main(arguments: Sequence[str] | None = None) -> dict[str, list[Score]]:
    """Fit every model with every seed, print the table and write it to a file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.flows", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, metavar="MODEL",
                        default=_available(), help=", ".join(MODELS))  # fmt: skip
    parser.add_argument("--split", choices=SPLITS, default="regions", help="what is held out")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--speed", action="store_true", help="time flows, and fit nothing")
    parser.add_argument("--output", type=Path, default=Path("results/flows.json"))
    options = parser.parse_args(arguments)
    if options.speed:
        for name, time in speed(TIMING_SECONDS).items():
            print(f"{name:<56}{time:>9.2f} ms")
        return {}
    protocol = QUICK if options.quick else Protocol()
    results: dict[str, list[Score]] = {name: [] for name in options.models}
    for seed in options.seeds:
        split = SPLITS[options.split](protocol, seed)
        for name in options.models:
            results[name].append(fit_and_score(name, split, protocol, seed))
            print(f"{name}, seed {seed}: {results[name][-1]}", flush=True)
    print(format_table(results))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    scores = {name: [score._asdict() for score in scores] for name, scores in results.items()}
    options.output.write_text(json.dumps(scores, indent=1))
    return results


def _available() -> list[str]:
    peer = importlib.util.find_spec("zuko")
    return [name for name in MODELS if peer or not name.startswith("zuko")]


if __name__ == "__main__":
    main()
