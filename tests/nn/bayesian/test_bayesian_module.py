"""The model: its sites, its log-density, mini-batches, and any torch module inside."""

import copy
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from pyro.poutine.util import prune_subsample_sites
from torch import nn
from torch.distributions import constraints
from torch.nn.functional import cross_entropy
from torch.testing import assert_close

from pyro_manifolds import KleinBottle, WrappedNormal
from pyro_manifolds.distributions import KleinFilter
from pyro_manifolds.nn.bayesian import BayesianModule, classification, init_to_weights, regression


def mlp(inputs=3, outputs=4):
    return nn.Sequential(nn.Linear(inputs, 5), nn.Tanh(), nn.Linear(5, outputs))


def log_joint(model, weights, x, y):
    trace = poutine.trace(poutine.condition(model, data=weights)).get_trace(x, y)
    return trace.log_prob_sum()


def latents(trace):
    return set(prune_subsample_sites(trace).stochastic_nodes)


def weights_of(net):
    return {name: value.detach().clone() for name, value in net.named_parameters()}


@pytest.fixture
def labelled():
    return torch.randn(7, 3).double(), torch.randint(4, (7,))


def test_sites_have_the_names_and_shapes_of_the_parameters(labelled):
    net = mlp().double()
    trace = poutine.trace(BayesianModule(net)).get_trace(*labelled)
    for name, parameter in net.named_parameters():
        site = trace.nodes[name]
        assert site["value"].shape == site["fn"].event_shape == parameter.shape
        assert not site["cond_indep_stack"]
        assert site["value"].dtype == torch.float64
    (frame,) = trace.nodes["y"]["cond_indep_stack"]
    assert (frame.name, frame.size, frame.dim) == ("data", 7, -1)
    assert trace.nodes["output"]["value"].shape == (7, 4)


def test_log_joint_is_prior_plus_cross_entropy(labelled):
    net = mlp().double()
    weights = weights_of(net)
    x, y = labelled
    expected = -cross_entropy(net(x), y, reduction="sum")
    for _name, w in weights.items():
        scale = (2 / w.shape[1]) ** 0.5 if w.dim() > 1 else 1.0
        expected = (
            expected + torch.distributions.Normal(0.0, w.new_tensor(scale)).log_prob(w).sum()
        )
    assert_close(log_joint(BayesianModule(net), weights, x, y), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_expected_log_joint_of_batches_is_the_full_one(labelled, size):
    net = mlp().double()
    weights = weights_of(net)
    x, y = labelled
    full = log_joint(BayesianModule(net), weights, x, y)
    model = BayesianModule(net, data_size=7)
    # Batches of a partition, each with the probability that a datum falls into it.
    parts = [
        len(a) / 7 * log_joint(model, weights, a, b)
        for a, b in zip(x.split(size), y.split(size), strict=True)
    ]
    assert_close(sum(parts), full, rtol=1e-12, atol=0)


def test_svi_takes_a_smaller_last_batch(labelled):
    net = mlp().double()
    x, y = labelled
    model = BayesianModule(net, data_size=7)
    guide = AutoDelta(model, init_loc_fn=init_to_weights(net))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.0}), Trace_ELBO())
    losses = [svi.step(a, b) for a, b in zip(x.split(3), y.split(3), strict=True)]
    weighted = sum(loss * n / 7 for loss, n in zip(losses, (3, 3, 1), strict=True))
    full = -log_joint(BayesianModule(net), weights_of(net), x, y)
    assert weighted == pytest.approx(float(full), rel=1e-12)


def test_without_targets_nothing_is_scaled_and_they_are_sampled(labelled):
    x, _ = labelled
    model = BayesianModule(mlp().double(), data_size=1000)
    trace = poutine.trace(model).get_trace(x)
    site = trace.nodes["y"]
    assert not site["is_observed"]
    assert site["scale"] == 1
    assert site["value"].shape == (7,)
    assert site["value"].dtype == torch.int64


def test_returns_the_output(labelled):
    net, (x, y) = mlp().double(), labelled
    model = poutine.condition(BayesianModule(net), data=weights_of(net))
    assert_close(model(x, y), net(x), rtol=0, atol=1e-14)


def test_several_inputs_are_a_tuple():
    net = nn.Bilinear(3, 2, 4)
    inputs = torch.randn(6, 3), torch.randn(6, 2)
    model = poutine.condition(BayesianModule(net), data=weights_of(net))
    assert_close(model(inputs, torch.zeros(6, dtype=torch.long)), net(*inputs))


@pytest.mark.parametrize("outputs", [1, 3])
def test_regression_is_the_normal_log_density(outputs):
    net, x, y = mlp(3, outputs), torch.randn(6, 3), torch.randn(6, outputs)
    model = BayesianModule(net, default=None, likelihood=regression(0.3), data_size=12)
    expected = 2 * torch.distributions.Normal(net(x), 0.3).log_prob(y).sum()
    assert_close(log_joint(model, {}, x, y), expected)
    assert poutine.trace(model).get_trace(x).nodes["y"]["value"].shape == (6, outputs)


def test_scalar_regression_by_flatten():
    net = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    x, y = torch.randn(6, 3), torch.randn(6)
    model = BayesianModule(net, default=None, likelihood=regression())
    expected = torch.distributions.Normal(net(x), 1.0).log_prob(y).sum()
    assert_close(log_joint(model, {}, x, y), expected)


def test_sequences_of_labels_are_one_datum_each():
    net, x, y = nn.Linear(3, 4), torch.randn(6, 5, 3), torch.randint(4, (6, 5))
    model = BayesianModule(net, default=None, data_size=12)
    expected = -2 * cross_entropy(net(x).flatten(0, 1), y.flatten(), reduction="sum")
    assert_close(log_joint(model, {}, x, y), expected)


def test_sampled_noise_is_outside_the_plate_and_not_scaled():
    net, x, y = nn.Linear(3, 2), torch.randn(6, 3), torch.randn(6, 2)
    prior = dist.LogNormal(0.0, 1.0)
    model = BayesianModule(net, default=None, likelihood=regression(prior), data_size=60)
    trace = poutine.trace(model).get_trace(x, y)
    site = trace.nodes["likelihood.scale"]
    assert not site["cond_indep_stack"]
    assert site["scale"] == 1
    scale = torch.tensor(0.7)
    normal = torch.distributions.Normal(net(x), scale)
    expected = prior.log_prob(scale) + 10 * normal.log_prob(y).sum()
    assert_close(log_joint(model, {"likelihood.scale": scale}, x, y), expected)


@pytest.mark.parametrize("local", [False, True])
def test_parameters_are_those_without_prior_and_of_the_likelihood(local):
    with pyro.settings.context(module_local_params=local):
        noise = PyroParam(torch.tensor(0.5), constraints.positive)
        net = mlp(3, 2)
        model = BayesianModule(
            net, {lambda name, _: "bias" in name: None}, likelihood=regression(noise)
        )
        x, y = torch.randn(6, 3), torch.randn(6, 2)
        names = {name for name, _ in model.named_parameters()}
        assert names == {"net.0.bias", "net.2.bias", "likelihood.scale_unconstrained"}
        guide = AutoNormal(model, init_loc_fn=init_to_weights(net))
        elbo = Trace_ELBO()(model, guide)
        elbo(x, y)
        before = {n: p.detach().clone() for n, p in elbo.named_parameters()}
        optimiser = torch.optim.Adam(elbo.parameters(), lr=0.1)
        for _ in range(3):
            optimiser.zero_grad()
            elbo(x, y).backward()
            optimiser.step()
        for name, parameter in elbo.named_parameters():
            assert not torch.equal(parameter, before[name]), name


def test_classic_svi_learns_parameters_without_prior():
    net = mlp(3, 2)
    model = BayesianModule(
        net, {"0.bias": None}, likelihood=regression(PyroParam(torch.tensor(2.0)))
    )
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(x, y)
    assert not torch.equal(model.net[0].bias, net[0].bias)
    assert model.likelihood.scale.item() != 2.0


def test_a_stale_parameter_store_is_told():
    x, y = torch.randn(6, 3), torch.randint(4, (6,))
    BayesianModule(mlp(), default=None)(x, y)
    with pytest.warns(UserWarning, match=r"clear_param_store\(\) first"):
        BayesianModule(mlp(), default=None)(x, y)


def test_the_given_net_is_left_as_it_was(labelled):
    net = mlp().double()
    before = copy.deepcopy(net.state_dict())
    model = BayesianModule(net, {"0.bias": None})
    guide = AutoNormal(model, init_loc_fn=init_to_weights(net))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(3):
        svi.step(*labelled)
    assert set(model.net.state_dict()) == set(before)
    for name, parameter in net.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad


def test_tied_parameters_are_sampled_once():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    net[2].weight = net[0].weight
    model = BayesianModule(net, {"2.weight": dist.Normal(0.0, 5.0)})
    x, y = torch.randn(6, 3), torch.randint(3, (6,))
    trace = poutine.trace(model).get_trace(x, y)
    weights = {name: trace.nodes[name]["value"] for name in latents(trace)}
    assert set(weights) == {"0.weight", "0.bias", "2.bias"}
    # A rule may go by any of the names.
    assert_close(trace.nodes["0.weight"]["fn"].variance, torch.full((3, 3), 25.0))
    hidden = (x @ weights["0.weight"].T + weights["0.bias"]).tanh()
    expected = hidden @ weights["0.weight"].T + weights["2.bias"]
    assert_close(trace.nodes["output"]["value"], expected)
    # Casting unties buffers of a module; the model remembers.
    double = poutine.trace(model.double()).get_trace(x.double(), y)
    assert latents(double) == set(weights)


def test_a_module_used_twice_is_left_with_its_own_weights():
    layer = nn.Linear(3, 3)
    model = BayesianModule(nn.Sequential(layer, nn.Tanh(), layer))
    model(torch.randn(6, 3), torch.randint(3, (6,)))
    assert_close(model.net[0].weight, layer.weight.detach(), rtol=0, atol=0)


def test_frozen_parameters_take_no_prior(labelled):
    net = mlp().double()
    net[0].requires_grad_(False)
    trace = poutine.trace(BayesianModule(net)).get_trace(*labelled)
    assert latents(trace) == {"2.weight", "2.bias"}
    hidden = net[0](labelled[0]).tanh()
    weights = (trace.nodes[name]["value"] for name in ("2.weight", "2.bias"))
    assert_close(trace.nodes["output"]["value"], nn.functional.linear(hidden, *weights))


def test_a_fixed_distribution_of_every_kind_of_layer_runs():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(10, 8)
            self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
            self.rnn = nn.GRU(8, 8, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.scale = nn.Parameter(torch.tensor(2.0))
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            h = self.embedding(x)
            h = h + self.attention(h, h, h, need_weights=False)[0]
            return self.head(self.norm(self.rnn(h)[0]).mean(1)) * self.scale

    net = Net()
    model = BayesianModule(net)
    x, y = torch.randint(10, (4, 6)), torch.randint(3, (4,))
    trace = poutine.trace(model).get_trace(x, y)
    assert latents(trace) == set(weights_of(net))
    fixed = poutine.condition(model, data=weights_of(net))
    assert_close(fixed(x, y), net(x))
    samples = Predictive(model, num_samples=3)(x)
    weights = {name: samples[name] for name, _ in net.named_parameters()}
    looped = Predictive(model, weights, return_sites=["output"])(x)["output"]
    parallel = Predictive(model, weights, return_sites=["output"], parallel=True)(x)["output"]
    assert_close(parallel, looped)


def test_running_statistics_are_those_of_the_net():
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4))
    model = BayesianModule(net)
    x, y = torch.randn(9, 3) + 5, torch.randint(4, (9,))
    for _ in range(4):
        poutine.condition(model, data=weights_of(net))(x, y)
        net(x)
    assert_close(model.net[0].running_mean, net[0].running_mean)
    model.eval()
    net.eval()
    assert_close(poutine.condition(model, data=weights_of(net))(x, y), net(x))
    assert_close(model.net[0].running_mean, net[0].running_mean)
    assert int(model.net[0].num_batches_tracked) == 4


def test_dropout_follows_the_mode():
    net = nn.Sequential(nn.Dropout(0.5), nn.Linear(30, 4))
    model = BayesianModule(net, default=None)
    x, y = torch.ones(5, 30), torch.zeros(5, dtype=torch.long)
    assert not torch.equal(model(x, y), model(x, y))
    model.eval()
    assert torch.equal(model(x, y), model(x, y))


def test_a_nested_model_has_its_own_names():
    class Pair(PyroModule):
        def __init__(self):
            super().__init__()
            self.a = BayesianModule(nn.Linear(2, 3))
            self.b = BayesianModule(nn.Linear(2, 3))

        def forward(self, x, y):
            return self.a(x, y), self.b(x, y)

    trace = poutine.trace(Pair()).get_trace(torch.randn(5, 2), torch.zeros(5, dtype=torch.long))
    assert latents(trace) == {"a.weight", "a.bias", "b.weight", "b.bias"}
    assert {"a.y", "b.y"} <= set(trace.observation_nodes)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_copies_are_equal_before_and_after_training(labelled, copied):
    net = mlp().double()
    model = BayesianModule(net, {"0": dist.Laplace(0.0, 1.0), "0.bias": None}, data_size=70)
    weights = weights_of(net)
    expected = log_joint(copy.deepcopy(model), weights, *labelled)
    pyro.clear_param_store()
    assert_close(log_joint(copied(model).eval(), weights, *labelled), expected)
    pyro.clear_param_store()
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(*labelled)
    twin = copied(model)
    with torch.no_grad():
        trained = log_joint(model, weights, *labelled)
        assert_close(log_joint(twin, weights, *labelled), trained)
    assert not torch.equal(trained, expected)


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"net": print}, TypeError, "expected net to be a module, got builtin"),
        ({"likelihood": "normal"}, TypeError, "expected likelihood to be a function"),
        ({"likelihood": dist.Normal(0, 1)}, TypeError, "expected likelihood to be a function"),
        ({"data_size": 0}, ValueError, "expected data_size >= 1, got 0"),
    ],
)
def test_wrong_arguments_are_told_at_once(arguments, error, match):
    with pytest.raises(error, match=match):
        BayesianModule(**{"net": nn.Linear(2, 2)} | arguments)


LABELS = torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize(
    ("arguments", "y", "error", "match"),
    [
        ({}, LABELS.float(), TypeError, "y of integer labels, got torch.float32"),
        ({}, LABELS[:5], ValueError, r"y of shape \(6,\).* got \(5,\)"),
        ({}, LABELS[:, None], ValueError, r"y of shape \(6,\).* got \(6, 1\)"),
        ({}, [0] * 6, TypeError, "expected y to be a tensor, got list"),
        ({"data_size": 5}, LABELS, ValueError, "at most data_size = 5, got 6"),
        ({"likelihood": regression()}, LABELS, ValueError, r"y of shape \(6, 4\).* got \(6,\)"),
        (
            {"likelihood": regression()},
            torch.zeros(6, 4, dtype=torch.long),
            TypeError,
            "y of floating dtype",
        ),
        ({"likelihood": lambda out: out}, LABELS, TypeError, "likelihood to return a dist"),
        (
            {"likelihood": lambda out: torch.distributions.Categorical(logits=out)},
            LABELS,
            TypeError,
            "pyro.distributions, got torch.distributions.categorical.Categorical",
        ),
        (
            {"likelihood": lambda out: dist.Normal(out.sum(), 1.0)},
            LABELS,
            ValueError,
            r"batch shape starts with \(6,\), got \(\)",
        ),
        (
            {"likelihood": lambda out: dist.Normal(out.T, 1.0)},
            LABELS,
            ValueError,
            r"batch shape starts with \(6,\), got \(4, 6\)",
        ),
    ],
)
def test_wrong_targets_and_likelihoods_are_told(arguments, y, error, match):
    with pytest.raises(error, match=match):
        BayesianModule(nn.Linear(3, 4), **arguments)(torch.zeros(6, 3), y)


@pytest.mark.parametrize(
    ("net", "error", "match"),
    [
        (nn.LSTM(3, 4), TypeError, "net to return a tensor, got tuple"),
        (nn.Sequential(nn.Linear(3, 1), nn.Flatten(0)), ValueError, "two or more classes"),
        (nn.Linear(3, 1), ValueError, "two or more classes"),
    ],
)
def test_wrong_outputs_are_told(net, error, match):
    with pytest.raises(error, match=match):
        BayesianModule(net)(torch.zeros(6, 3), LABELS)


def test_an_output_without_data_is_told():
    class Total(nn.Module):
        def forward(self, x):
            return x.sum()

    with pytest.raises(ValueError, match="first dimension is that of the data"):
        BayesianModule(Total())(torch.zeros(6, 3), LABELS)


def test_classification_is_the_default_likelihood():
    assert BayesianModule(nn.Linear(3, 4)).likelihood is classification


def test_a_scale_that_is_not_positive_is_told():
    with pytest.raises(ValueError, match="expected scale > 0, got 0"):
        regression(0)


def test_a_likelihood_may_be_a_module_with_samples():
    class StudentT(PyroModule):
        def __init__(self):
            super().__init__()
            self.df = PyroSample(dist.Gamma(2.0, 0.1))
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, output):
            return dist.StudentT(self.df, output, self.scale)

    model = BayesianModule(nn.Linear(3, 2), likelihood=StudentT())
    trace = poutine.trace(model).get_trace(torch.randn(6, 3), torch.randn(6, 2))
    assert "likelihood.df" in trace.stochastic_nodes
    assert [name for name, _ in model.named_parameters()] == ["likelihood.scale"]


@pytest.mark.parametrize(
    "prior",
    [
        dist.Laplace(0.0, 1.0),
        dist.Normal(torch.zeros(3), 1.0).to_event(1),
        dist.MultivariateNormal(torch.zeros(3), torch.eye(3)),
        dist.MixtureSameFamily(
            dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), torch.tensor([0.1, 2.0]))
        ),
        dist.TransformedDistribution(dist.Normal(0.0, 1.0), dist.transforms.AffineTransform(1, 2)),
        KleinFilter(3, 1.0, 0.5),
        KleinFilter(3, 1.0, 0.5, WrappedNormal(KleinBottle(), torch.zeros(2), torch.ones(2))),
        KleinFilter(3, 1.0, 0.5).matched_gaussian(),
    ],
    ids=lambda prior: type(prior).__name__,
)
def test_priors_follow_the_module_to_another_dtype(prior):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten())
    noise = regression(dist.LogNormal(0.0, 1.0))
    model = BayesianModule(net, {"0": prior}, likelihood=noise)
    x = torch.randn(4, 1, 3, 3)
    trace = poutine.trace(model).get_trace(x, torch.zeros(4, 2))
    expected = trace.log_prob_sum()
    weights = {name: trace.nodes[name]["value"].double() for name in latents(trace)}
    for _ in range(2):  # there and back
        found = log_joint(model.double(), weights, x.double(), torch.zeros(4, 2).double())
        assert found.dtype == torch.float64
        assert_close(found, expected.double(), rtol=1e-4, atol=1e-4)
        fresh = poutine.trace(model).get_trace(x.double(), torch.zeros(4, 2).double())
        assert all(fresh.nodes[name]["value"].dtype == torch.float64 for name in weights)
        single = poutine.trace(model.float()).get_trace(x, torch.zeros(4, 2))
        assert all(single.nodes[name]["value"].dtype == torch.float32 for name in weights)


def test_other_likelihoods():
    net, x = nn.Linear(3, 2), torch.randn(6, 3)
    y = torch.randint(2, (6, 2)).float()
    model = BayesianModule(net, default=None, likelihood=lambda out: dist.Bernoulli(logits=out))
    expected = -nn.functional.binary_cross_entropy_with_logits(net(x), y, reduction="sum")
    assert_close(log_joint(model, {}, x, y), expected)
    pyro.clear_param_store()
    counts = BayesianModule(net, default=None, likelihood=lambda out: dist.Poisson(out.exp()))
    log_mean = net(x)
    expected = (y * log_mean - log_mean.exp()).sum()  # y! is one
    assert_close(log_joint(counts, {}, x, y.long()), expected, rtol=1e-5, atol=1e-5)


def test_uninitialised_parameters_are_told():
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(ValueError, match=r"uninitialised 1\.weight, 1\.bias; run the net once on"):
        BayesianModule(net)
    net(torch.zeros(2, 5))
    assert BayesianModule(net)(torch.zeros(2, 5)).shape == (2, 3)


def test_a_list_of_inputs_is_told():
    model = BayesianModule(nn.Bilinear(2, 3, 4))
    a, b = torch.zeros(5, 2), torch.zeros(5, 3)
    assert model((a, b)).shape == (5, 4)
    with pytest.raises(TypeError, match="a tuple for several arguments of net, got a list"):
        model([a, b])
