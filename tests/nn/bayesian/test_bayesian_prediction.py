"""Predictions and their uncertainty against loops, calibration, saving and loading."""

import copy
import math
import warnings

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoMultivariateNormal, AutoNormal
from pyro.infer.reparam import LocScaleReparam
from pyro.nn import PyroModule
from torch import nn
from torch.testing import assert_close

from pyro_manifolds import AutoWrappedNormal
from pyro_manifolds.nn import DeepFilterPrior, DeepPriorGuide
from pyro_manifolds.nn.bayesian import (
    BayesianModule,
    checkpoint,
    expected_calibration_error,
    init_to_weights,
    predict,
    regression,
    restore,
)

X = torch.randn(11, 3, generator=torch.Generator().manual_seed(0))


def draws_of(net, count):
    return {n: torch.randn(count, *p.shape) for n, p in net.named_parameters()}


def by_hand(net, samples, i, x):
    return torch.func.functional_call(net, {n: v[i] for n, v in samples.items()}, (x,))


@pytest.mark.parametrize("batch_size", [None, 1, 4, 100])
def test_classes_and_their_entropies_against_scipy(batch_size):
    net = nn.Linear(3, 4)
    samples = draws_of(net, 6)
    found = predict(BayesianModule(net), samples, X, batch_size=batch_size)
    probs = np.stack([by_hand(net, samples, i, X).softmax(-1).detach() for i in range(6)])
    total = scipy.stats.entropy(probs.mean(0), axis=-1)
    aleatoric = scipy.stats.entropy(probs, axis=-1).mean(0)
    kl = scipy.stats.entropy(probs, probs.mean(0)[None], axis=-1).mean(0)
    for value, expected in zip(found, (probs.mean(0), total, aleatoric, kl), strict=True):
        assert value.dtype == torch.float32
        assert not value.requires_grad
        assert_close(value, torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


def test_targets_and_their_deviations_against_numpy():
    net = nn.Linear(3, 2)
    samples = draws_of(net, 6) | {"likelihood.scale": torch.rand(6) + 0.5}
    model = BayesianModule(net, likelihood=regression(dist.LogNormal(0.0, 1.0)))
    found = predict(model, samples, X, batch_size=4)
    scales = samples.pop("likelihood.scale")
    means = np.stack([by_hand(net, samples, i, X).detach() for i in range(6)])
    noise = float((scales**2).mean())
    expected = (
        means.mean(0),
        np.sqrt(noise + means.var(0)),
        np.full((11, 2), noise**0.5, dtype=np.float32),
        means.std(0),
    )
    for value, want in zip(found, expected, strict=True):
        assert_close(value, torch.as_tensor(want), rtol=1e-4, atol=1e-5)


def test_certain_and_ignorant_classes():
    net = nn.Linear(3, 4)
    zeros = {n: torch.zeros(2, *p.shape) for n, p in net.named_parameters()}
    flat = predict(BayesianModule(net), zeros, X)
    assert_close(flat.total, torch.full((11,), math.log(4)))
    assert_close(flat.epistemic, torch.zeros(11), atol=1e-6, rtol=0)
    # Two draws that contradict each other with certainty, and no NaN from zero log zero.
    opposed = zeros | {"bias": torch.tensor([[1e4, 0, 0, 0], [0, 1e4, 0, 0]])}
    split = predict(BayesianModule(net), opposed, X)
    assert_close(split.epistemic, torch.full((11,), math.log(2)))
    assert_close(split.aleatoric, torch.zeros(11))


def test_all_batches_see_the_same_draws():
    net = nn.Linear(3, 4)
    model = BayesianModule(net)
    guide = AutoNormal(model, init_scale=1.0)
    guide(X, torch.zeros(11, dtype=torch.long))
    same = X[:1].expand(10, 3)
    found = predict(model, guide, same, num_samples=7, batch_size=3)
    assert_close(found.probs, found.probs[:1].expand(10, 4))
    pyro.set_rng_seed(3)
    whole = predict(model, guide, X, num_samples=7)
    pyro.set_rng_seed(3)
    assert_close(predict(model, guide, X, num_samples=7, batch_size=4).probs, whole.probs)


def test_fewer_samples_are_spread_over_the_chain():
    net = nn.Linear(3, 4)
    samples = draws_of(net, 6)
    thinned = {name: value[::3] for name, value in samples.items()}
    model = BayesianModule(net)
    found = predict(model, samples, X, num_samples=2)
    assert_close(found.probs, predict(model, thinned, X).probs)


def test_the_mode_is_left_as_it_is():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4))
    model = BayesianModule(net).eval()
    before = model.net[0].running_mean.clone()
    predict(model, draws_of(net, 2), X + 5)
    assert torch.equal(model.net[0].running_mean, before)
    assert not model.training


def test_several_inputs_in_batches():
    net = nn.Bilinear(3, 2, 4)
    model, other = BayesianModule(net), torch.randn(11, 2)
    samples = draws_of(net, 3)
    whole = predict(model, samples, (X, other)).probs
    assert_close(predict(model, samples, (X, other), batch_size=4).probs, whole)


@pytest.mark.parametrize(
    ("posterior", "arguments", "match"),
    [
        (lambda m: {"weight": torch.zeros(2, 4, 3)}, {}, r"all sites, got none for \['bias'\]"),
        (lambda m: {"weight": X, "bias": X[:3]}, {}, "as many samples of every site"),
        (lambda m: draws_of(nn.Linear(3, 4), 2), {"num_samples": 3}, "num_samples <= 2, got 3"),
        (lambda m: draws_of(nn.Linear(3, 4), 2), {"num_samples": 0}, "num_samples >= 1, got 0"),
        (lambda m: draws_of(nn.Linear(3, 4), 2), {"batch_size": 0}, "batch_size >= 1, got 0"),
        (AutoNormal, {}, r"guide that has been called with \(x, y\)"),
        (
            lambda m: {"weight": torch.zeros(2, 5, 4, 3), "bias": torch.zeros(2, 5, 4)},
            {},
            r"samples of 'weight' of shape \(number, \*\(4, 3\)\), got .*\(5, 4, 3\)",
        ),
        (
            lambda m: draws_of(nn.Linear(3, 4), 2) | {"typo": torch.zeros(2)},
            {},
            "sites of model only, got typo",
        ),
    ],
)
def test_wrong_posteriors_are_told(posterior, arguments, match):
    model = BayesianModule(nn.Linear(3, 4))
    with pytest.raises(ValueError, match=match):
        predict(model, posterior(model), X, **arguments)


def slow_calibration_error(probs, labels, bins):
    total = 0.0
    for m in range(1, bins + 1):
        inside = [
            (max(p), p.index(max(p)) == label)
            for p, label in zip(probs.tolist(), labels.tolist(), strict=True)
            if (m - 1) / bins < max(p) <= m / bins
        ]
        if inside:
            gap = sum(right for _, right in inside) - sum(c for c, _ in inside)
            total += abs(gap) / len(probs)
    return total


@pytest.mark.parametrize("bins", [1, 4, 15, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_calibration_error_against_a_loop(bins, dtype):
    probs = (3 * torch.randn(500, 5, dtype=dtype)).softmax(-1)
    labels = torch.randint(5, (500,))
    found = expected_calibration_error(probs, labels, bins)
    assert found.dtype == dtype
    expected = slow_calibration_error(probs, labels, bins)
    assert found.item() == pytest.approx(expected, rel=1e-4)


def test_calibration_error_at_the_edges_of_bins():
    probs = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.75, 0.25], [0.25, 0.75]]).double()
    labels = torch.tensor([1, 0, 0, 0])
    found = expected_calibration_error(probs, labels, 4).item()
    # (.25, .5]: 0 of 1 right; (.5, .75]: 1 of 2 right; (.75, 1]: 1 of 1 right.
    assert found == pytest.approx((0.5 + 0.5 + 0.0) / 4)


@pytest.mark.parametrize(
    ("probs", "labels", "bins", "error", "match"),
    [
        (torch.randn(3, 4), torch.zeros(3, dtype=torch.long), 15, ValueError, "rows of probs"),
        (torch.ones(3, 1), torch.zeros(3), 15, TypeError, "integer labels, got torch.float32"),
        (torch.ones(3, 1), torch.zeros(2, dtype=torch.long), 15, ValueError, r"and \(2,\)"),
        (torch.ones(3, 1), torch.zeros(3, dtype=torch.long), 0, ValueError, "bins >= 1, got 0"),
    ],
)
def test_wrong_calibration_arguments_are_told(probs, labels, bins, error, match):
    with pytest.raises(error, match=match):
        expected_calibration_error(probs, labels, bins)


def trained(kind):
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    model = BayesianModule(net, {"0.bias": None}, data_size=22)
    guide = kind(model, init_loc_fn=init_to_weights(net))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(5):
        svi.step(X, torch.arange(11) % 4)
    return model, guide


@pytest.mark.parametrize(
    "kind", [AutoNormal, AutoDelta, AutoMultivariateNormal, AutoWrappedNormal]
)
@pytest.mark.parametrize("local", [False, True])
def test_states_of_model_and_guide_come_back_bit_for_bit(kind, local, tmp_path):
    model, guide = trained(kind)
    torch.save(checkpoint(model, guide), tmp_path / "net.pt")
    pyro.set_rng_seed(5)
    expected = predict(model.eval(), guide, X, num_samples=4)
    # As in a new process: an empty store, other weights, another stream of numbers.
    pyro.clear_param_store()
    with pyro.settings.context(module_local_params=local):
        net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
        other = BayesianModule(net, {"0.bias": None}, data_size=22)
        other_guide = kind(other)
        restore(torch.load(tmp_path / "net.pt"), other, other_guide, X[:2])
        pyro.set_rng_seed(5)
        found = predict(other.eval(), other_guide, X, num_samples=4)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


def test_restoring_leaves_the_stream_of_random_numbers():
    model, guide = trained(AutoNormal)
    state = checkpoint(model, guide)
    before = torch.random.get_rng_state()
    restore(state, model, guide, X[:2])
    assert torch.equal(torch.random.get_rng_state(), before)


def test_restoring_forks_the_random_state_of_no_other_device(monkeypatch):
    model, guide = trained(AutoNormal)
    state, devices, fork = checkpoint(model, guide), [], torch.random.fork_rng

    def spy(forked):
        devices.append(set(forked))
        return fork(forked)

    monkeypatch.setattr(torch.random, "fork_rng", spy)
    restore(state, model, guide, (X[:2],))
    assert devices == [set()]


def test_a_guide_without_parameters_is_told():
    model = BayesianModule(nn.Linear(3, 4))
    with pytest.raises(ValueError, match="guide that has been called"):
        checkpoint(model, AutoNormal(model))


def test_wrapped_models_predict_too():
    net = nn.Linear(3, 4)
    model, samples = BayesianModule(net), draws_of(net, 3)
    wrapped = poutine.scale(model, scale=0.5)
    assert_close(predict(wrapped, samples, X).probs, predict(model, samples, X).probs)


def test_a_restored_state_reaches_guides_that_share_the_store():
    model, guide = trained(AutoNormal)
    state = {
        key: {n: v.clone() for n, v in part.items()}
        for key, part in checkpoint(model, guide).items()
    }
    expected = guide.median()
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(X, torch.zeros(11, dtype=torch.long))
    assert not torch.equal(guide.median()["2.weight"], expected["2.weight"])
    restore(state, model, guide, X)
    for name, value in guide.median().items():
        assert torch.equal(value, expected[name])


def test_samples_of_targets_are_not_looked_at():
    net = nn.Linear(3, 4)
    model, weights = BayesianModule(net), draws_of(net, 3)
    samples = Predictive(model, weights)(X[:2])
    assert sorted(samples) == ["output", "y"]
    found = predict(model, samples | weights, X)
    assert_close(found.probs, predict(model, weights, X).probs)


class Outer(PyroModule):
    def __init__(self, *nets):
        super().__init__()
        self.inner = PyroModule()
        for index, net in enumerate(nets):
            setattr(self.inner, f"net{index}", BayesianModule(net))

    def forward(self, x, y=None):
        for name, _ in list(self.inner.named_children()):
            getattr(self.inner, name)(x, y)


def test_a_model_inside_another_module_predicts_and_is_restored():
    net = nn.Linear(3, 4)
    model, samples = BayesianModule(net), draws_of(net, 3)
    nested = {f"inner.net0.{name}": value for name, value in samples.items()}
    outer = Outer(net)
    assert_close(predict(outer, nested, X).probs, predict(model, samples, X).probs)
    guide = AutoNormal(outer)
    guide(X, torch.arange(11) % 4)
    expected = guide.median()
    state = copy.deepcopy(checkpoint(outer, guide))
    pyro.clear_param_store()
    other = Outer(net)
    other_guide = AutoNormal(other)
    restore(state, other, other_guide, X)
    assert_close(other_guide.median(), expected)
    with pytest.raises(ValueError, match="have one BayesianModule, got 2"):
        predict(Outer(net, net), {"inner.net0.bias": torch.zeros(2, 4)}, X)


def test_reparametrised_models_are_saved_and_restored():
    def reparametrised(net):
        return poutine.reparam(BayesianModule(net), {"weight": LocScaleReparam(0.0)})

    model = reparametrised(nn.Linear(3, 4))
    guide = AutoNormal(model)
    guide(X, torch.arange(11) % 4)
    state, expected = copy.deepcopy(checkpoint(model, guide)), guide.median()
    pyro.clear_param_store()
    other = poutine.scale(reparametrised(nn.Linear(3, 4)), scale=0.5)
    other_guide = AutoNormal(other)
    restore(state, other, other_guide, X)
    assert_close(other_guide.median(), expected)
    for call in (lambda m: checkpoint(m, guide), lambda m: restore(state, m, guide, X)):
        with pytest.raises(TypeError, match="expected model to be a module.* got function"):
            call(lambda x, y=None: None)


@pytest.mark.parametrize("local", [False, True])
def test_overwriting_another_guide_through_the_store_is_told(local):
    model, guide = trained(AutoNormal)
    state, before = copy.deepcopy(checkpoint(model, guide)), guide.median()
    net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(X, torch.arange(11) % 4)
    moved = guide.median()
    with (
        pyro.settings.context(module_local_params=local),
        warnings.catch_warnings(record=True) as w,
    ):
        warnings.simplefilter("always")
        other = BayesianModule(net, {"0.bias": None}, data_size=22)
        restore(state, other, AutoNormal(other), X)
    told = any("restore: the parameter store holds" in str(warning.message) for warning in w)
    assert told is not local
    assert_close(guide.median(), moved if local else before)


def test_an_uncalled_guide_with_deep_priors_is_told():
    prior = DeepFilterPrior(3).requires_grad_(False)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 3))
    model = BayesianModule(net, {"0": prior.hierarchical})
    guide = DeepPriorGuide(model, AutoNormal, {"0.weight": prior})
    x = torch.randn(4, 1, 3, 3)
    with pytest.raises(ValueError, match="guide that has been called"):
        predict(model, guide, x)
    guide(x, torch.arange(4) % 3)
    assert predict(model, guide, x, num_samples=2).probs.shape == (4, 3)
