"""Predictions of a Bayesian net, and how uncertain they are, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import torch
from pyro import poutine
from pyro.poutine.messenger import Messenger
from pyro.poutine.util import prune_subsample_sites
from torch import Tensor
from torch.distributions import Categorical

from pyro_manifolds.nn.bayesian.observations import TARGETS, base_distribution

__all__ = ["ClassPrediction", "RegressionPrediction", "predict"]

_GUIDE_DRAWS = 100
_Inputs: TypeAlias = Tensor | tuple[Tensor, ...]
_Draw: TypeAlias = dict[str, Tensor]


class ClassPrediction(NamedTuple):
    r"""Predicted classes, for each datum; entropies are in nats.

    Attributes:
        probs: Mean of the probabilities over the posterior, ``(n, classes)``.
        total: Entropy of ``probs``.
        aleatoric: Mean of the entropies: noise in the data, which more of them does not lessen.
        epistemic: ``total - aleatoric``, the mutual information of label and weights: what the
            weights disagree on.
    """

    probs: Tensor
    total: Tensor
    aleatoric: Tensor
    epistemic: Tensor


class RegressionPrediction(NamedTuple):
    r"""Predicted targets, for each datum; ``std ** 2 == aleatoric ** 2 + epistemic ** 2``.

    Attributes:
        mean: Mean of the targets.
        std: Standard deviation of the targets.
        aleatoric: Of the noise alone: root of the mean variance.
        epistemic: Of the weights alone: standard deviation of the means.
    """

    mean: Tensor
    std: Tensor
    aleatoric: Tensor
    epistemic: Tensor


def predict(
    model: Callable[..., Any],
    posterior: Callable[..., Any] | Mapping[str, Tensor],
    x: _Inputs,
    *,
    num_samples: int | None = None,
    batch_size: int | None = None,
) -> ClassPrediction | RegressionPrediction:
    """Return the posterior predictive of new inputs, without gradients.

    All inputs, in whatever batches, see the same draws of the weights. The module is run in the
    mode in which it is: call ``model.eval()`` before, or dropout drops and batch normalisation
    learns from the test set.

    Args:
        model: A :class:`BayesianModule`, or one that is wrapped in handlers.
        posterior: A guide that has been trained, or samples by site, such as
            ``MCMC.get_samples()`` gives, chains not apart. The guide that
            ``AutoLaplaceApproximation`` trains is a point; pass what its method
            ``laplace_approximation(x, y)`` returns.
        x: Inputs; a tuple stands for several arguments of the net.
        num_samples: Number of draws; 100 from a guide and all samples by default.
        batch_size: Number of inputs to run at a time; all by default.

    Returns:
        A :class:`ClassPrediction` if the likelihood is categorical, else a
        :class:`RegressionPrediction`, whose targets need a mean and a variance.

    Raises:
        ValueError: If a number is not positive, there are fewer samples than asked for, the guide
            has never been called, or the posterior leaves out a site, has one that the model has
            not, or values of another shape.

    Example:
        >>> from pyro_manifolds.nn.bayesian import BayesianModule, predict
        >>> model = BayesianModule(torch.nn.Linear(4, 3)).eval()
        >>> samples = {"weight": torch.zeros(5, 3, 4), "bias": torch.zeros(5, 3)}
        >>> predict(model, samples, torch.zeros(1, 4)).total
        tensor([1.0986])
    """
    for name, number in (("num_samples", num_samples), ("batch_size", batch_size)):
        if number is not None and number < 1:
            raise ValueError(f"predict: expected {name} >= 1, got {number}")
    with torch.no_grad():
        batches = list(_batches(x, batch_size))
        if isinstance(posterior, Mapping):
            draws = _given_draws(posterior, num_samples)
        else:
            draws = _guide_draws(posterior, batches[0], num_samples or _GUIDE_DRAWS)
        given = isinstance(posterior, Mapping)
        parts = [
            _summary([_targets(model, draw, batch, given) for draw in draws]) for batch in batches
        ]
    return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))


def _batches(x: _Inputs, batch_size: int | None) -> Iterator[_Inputs]:
    if batch_size is None:
        yield x
    elif isinstance(x, tuple):
        yield from zip(*(part.split(batch_size) for part in x), strict=True)
    else:
        yield from x.split(batch_size)


def _given_draws(samples: Mapping[str, Tensor], num_samples: int | None) -> list[_Draw]:
    available = {len(value) for value in samples.values()}
    if len(available) != 1:
        raise ValueError(
            "predict: expected as many samples of every site, "
            f"got { ({name: len(value) for name, value in samples.items()}) }"
        )
    count = available.pop()
    if num_samples is not None and num_samples > count:
        raise ValueError(f"predict: expected num_samples <= {count}, got {num_samples}")
    chosen = range(count) if num_samples is None else _evenly(count, num_samples)
    return [{name: value[i] for name, value in samples.items()} for i in chosen]


def _evenly(count: int, number: int) -> list[int]:
    """Spread over the whole chain, whose neighbours are alike."""
    return [i * count // number for i in range(number)]


def _guide_draws(guide: Callable[..., Any], x: _Inputs, number: int) -> list[_Draw]:
    if getattr(guide, "prototype_trace", guide) is None:
        raise ValueError(
            "predict: expected a guide that has been called with (x, y), got a new one"
        )
    draws: list[_Draw] = []
    for _ in range(number):
        trace = prune_subsample_sites(poutine.trace(guide).get_trace(x))
        nodes: Any = trace.nodes
        draws.append({name: nodes[name]["value"] for name in trace.stochastic_nodes})
    return draws


def _targets(model: Callable[..., Any], draw: _Draw, x: _Inputs, given: bool) -> Any:
    """Return the distribution of the targets, given one draw of the weights."""
    with _ShapeCheck(draw):
        conditioned = poutine.condition(model, data=draw)
        trace = prune_subsample_sites(poutine.trace(conditioned).get_trace(x))
    sites: Any = trace.nodes
    targets = [name for name in sites if TARGETS in sites[name].get("infer", ())]
    if len(targets) != 1:
        raise ValueError(f"predict: expected model to have one BayesianModule, got {len(targets)}")
    missing = [name for name in trace.stochastic_nodes if name != targets[0]]
    if missing:
        raise ValueError(f"predict: expected posterior to have all sites, got none for {missing}")
    unknown = [name for name in draw if name not in sites]
    if unknown and given:
        raise ValueError(
            f"predict: expected posterior to have sites of model only, got {', '.join(unknown)}"
        )
    return base_distribution(sites[targets[0]]["fn"])


class _ShapeCheck(Messenger):
    """Compare values from outside with the shapes of their sites."""

    def __init__(self, draw: _Draw) -> None:
        super().__init__()
        self.draw = draw

    def _pyro_post_sample(self, msg: Any) -> None:
        if msg["name"] not in self.draw or not {TARGETS, "_deterministic"}.isdisjoint(
            msg["infer"]
        ):
            return
        found, expected = msg["value"].shape, msg["fn"].shape()
        left = found[: max(len(found) - len(expected), 0)]
        # Guides with plates leave dimensions of size one on the left.
        if found[len(left) :] != expected or left.numel() != 1:
            raise ValueError(
                f"predict: expected samples of '{msg['name']}' of shape (number, *"
                f"{tuple(expected)}), got (number, *{tuple(found)}); those of several chains go "
                "one after the other, as in get_samples(group_by_chain=False)"
            )


def _summary(targets: list[Any]) -> ClassPrediction | RegressionPrediction:
    if isinstance(targets[0], Categorical):
        logits = torch.stack([target.logits for target in targets])
        probs = logits.softmax(-1)
        mean = probs.mean(0)
        total = -torch.xlogy(mean, mean).sum(-1)
        aleatoric = -torch.xlogy(probs, probs).sum(-1).mean(0)
        # Rounding apart, information is not negative.
        return ClassPrediction(mean, total, aleatoric, (total - aleatoric).clamp(min=0))
    means = torch.stack([target.mean for target in targets])
    noise = torch.stack([target.variance for target in targets]).mean(0)
    spread = means.var(0, correction=0)
    return RegressionPrediction(
        means.mean(0), (noise + spread).sqrt(), noise.sqrt(), spread.sqrt()
    )
