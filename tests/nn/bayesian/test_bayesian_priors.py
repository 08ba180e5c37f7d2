"""Which prior goes where, at which scale, and what functions may sample on the way."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions import constraints
from pyro.infer import SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam, PyroSample
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.distributions import GaussianFilter, KleinFilter
from pyro_manifolds.nn.bayesian import BayesianModule, fan_in_normal, scaled_to_fan_in

X, Y = torch.randn(6, 1, 8, 8), torch.randint(3, (6,))


def convnet():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 3)
    )


def scales(net, *args, **kwargs):
    """Standard deviation of every site, or its mean where they differ."""
    trace = poutine.trace(BayesianModule(net, *args, **kwargs)).get_trace(X, Y)
    names = (name for name, _ in net.named_parameters())
    return {
        name: float(trace.nodes[name]["fn"].variance.mean()) ** 0.5
        for name in names
        if name in trace
    }


HE = {"0.weight": math.sqrt(2 / 9), "2.weight": math.sqrt(2 / 36), "4.weight": math.sqrt(2 / 64)}
ONES = {"0.bias": 1.0, "2.bias": 1.0, "4.bias": 1.0}


@pytest.mark.parametrize(
    ("priors", "expected"),
    [
        ({}, {}),
        ({"0.weight": dist.Normal(0, 3.0)}, {"0.weight": 3.0}),
        ({"0": dist.Normal(0, 3.0)}, {"0.weight": 3.0}),
        ({"0.bias": dist.Normal(0, 3.0)}, {"0.bias": 3.0}),
        ({nn.Conv2d: dist.Normal(0, 3.0)}, {"0.weight": 3.0, "2.weight": 3.0}),
        ({nn.Module: dist.Normal(0, 3.0)}, dict.fromkeys(HE, 3.0)),
        ({lambda name, p: p.dim() == 1: dist.Normal(0, 3.0)}, dict.fromkeys(ONES, 3.0)),
        (
            {"2": dist.Normal(0, 3.0), nn.Conv2d: dist.Normal(0, 5.0)},
            {"0.weight": 5.0, "2.weight": 3.0},
        ),
        (
            {nn.Conv2d: dist.Normal(0, 5.0), "2": dist.Normal(0, 3.0)},
            {"0.weight": 5.0, "2.weight": 5.0},
        ),
    ],
)
def test_the_first_rule_that_matches_counts(priors, expected):
    assert scales(convnet(), priors) == pytest.approx(HE | ONES | expected)


def test_default_serves_what_no_rule_names():
    found = scales(convnet(), {"0": None}, default=dist.Normal(0.0, 2.0))
    assert found == dict.fromkeys([*ONES, "2.weight", "4.weight"], 2.0)
    assert scales(convnet(), {"0": dist.Normal(0, 3.0)}, default=None) == {"0.weight": 3.0}


def test_norms_and_embeddings_have_defaults_of_their_own():
    net = nn.Sequential(nn.Embedding(5, 8), nn.LayerNorm((4, 8)), nn.Flatten(), nn.Linear(32, 3))
    x, y = torch.randint(5, (6, 4)), Y
    trace = poutine.trace(BayesianModule(net)).get_trace(x, y)
    moments = {
        name: (float(fn.mean.mean()), float(fn.variance.mean()))
        for name, fn in ((n, trace.nodes[n]["fn"]) for n, _ in net.named_parameters())
    }
    assert moments == {
        "0.weight": (0, 1),
        "1.weight": (1, 1),
        "1.bias": (0, 1),
        "3.weight": (0, 2 / 32),
        "3.bias": (0, 1),
    }


def test_filters_are_expanded_over_channels():
    prior = KleinFilter(3, 1.0, 0.5)
    model = BayesianModule(convnet(), {nn.Conv2d: prior})
    trace = poutine.trace(model).get_trace(X, Y)
    site = trace.nodes["2.weight"]
    expected = prior.log_prob(site["value"]).sum()
    assert_close(site["fn"].log_prob(site["value"]), expected)


@pytest.mark.parametrize(
    "prior",
    [
        dist.Normal(0.3, 2.0),
        dist.Laplace(0.0, 2.0),
        dist.StudentT(5.0, 0.0, 2.0),
        dist.Uniform(-1.0, 3.0),
        dist.Normal(torch.zeros(3, 3), torch.rand(3, 3) + 0.5).to_event(2),
        dist.Normal(torch.zeros(4, 1), torch.arange(1.0, 5.0)[:, None]),
        dist.MultivariateNormal(torch.zeros(3), torch.diag(torch.tensor([1.0, 4.0, 9.0]))),
        KleinFilter(3, 1.0, 0.5),
        GaussianFilter(torch.eye(9) + 1),
    ],
    ids=lambda p: type(p).__name__,
)
@pytest.mark.parametrize(("gain", "mode", "fan"), [(2.0, "fan_in", 18), (1.0, "fan_avg", 27)])
@pytest.mark.parametrize("wrap", [lambda p: p, lambda p: lambda parameter: p])
def test_rescaled_priors_have_the_variance_that_is_asked_for(prior, gain, mode, fan, wrap):
    parameter = torch.zeros(4, 2, 3, 3)
    rescaled = scaled_to_fan_in(wrap(prior), gain, mode=mode)(parameter)
    # He: 2 / fan_in; Glorot: 2 / (fan_in + fan_out), here 18 and 36.
    pyro.set_rng_seed(1)
    draws = rescaled.sample((20_000,) if rescaled.batch_shape else (100_000,))
    pyro.set_rng_seed(1)
    plain = prior.sample((20_000,) if rescaled.batch_shape else (100_000,))
    assert draws.shape == plain.shape
    factor = (draws / plain).median()
    assert_close(draws, factor * plain, rtol=1e-4, atol=1e-5)
    variance = float(prior.variance.mean()) * float(factor) ** 2
    assert variance == pytest.approx(gain / fan, rel=1e-3)
    # The density is that of the scaled draw.
    dim = prior.event_shape.numel()
    expected = prior.log_prob(plain) - dim * factor.log()
    assert_close(rescaled.log_prob(draws), expected, rtol=1e-3, atol=1e-3)


def test_rescaling_works_in_a_model_of_another_dtype():
    net = convnet().double()
    prior = scaled_to_fan_in(KleinFilter(3, 1.0, 0.5))
    trace = poutine.trace(BayesianModule(net, {nn.Conv2d: prior})).get_trace(X.double(), Y)
    assert trace.nodes["0.weight"]["value"].dtype == torch.float64
    assert scales(convnet(), {nn.Conv2d: prior}) == pytest.approx(HE | ONES)


def test_an_amplitude_that_is_learned_stays_free():
    amplitude = torch.tensor(1.0, requires_grad=True)
    prior = scaled_to_fan_in(dist.Normal(0.0, amplitude))
    rescaled = prior(torch.zeros(4, 8))
    (gradient,) = torch.autograd.grad(rescaled.scale, amplitude)
    assert gradient.item() == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: scaled_to_fan_in(dist.Normal(0, 1), 0.0), "expected gain > 0, got 0.0"),
        (lambda: scaled_to_fan_in(dist.Normal(0, 1), mode="he"), "fan_avg, got 'he'"),
        (lambda: scaled_to_fan_in(dist.StudentT(1.5)), "finite, positive variance"),
        (lambda: scaled_to_fan_in(dist.Normal(0, 1))(torch.zeros(3)), r"got shape \(3,\)"),
    ],
)
def test_scales_that_make_no_sense_are_told(call, match):
    with pytest.raises(ValueError, match=match):
        call()


def test_default_prior_of_a_matrix():
    assert_close(fan_in_normal(torch.zeros(10, 8).double()).scale, torch.tensor(0.5).double())


@pytest.mark.parametrize(
    ("priors", "error", "match"),
    [
        (
            {"conv9": dist.Normal(0, 1)},
            ValueError,
            r"'conv9'.* got none of 0.weight \(Conv2d\), 0",
        ),
        ({nn.Conv1d: dist.Normal(0, 1)}, ValueError, "Conv1d.* of priors to match"),
        ({lambda n, p: False: None}, ValueError, "to match a parameter"),
        ({3: None}, TypeError, "keys of priors to be names"),
        ({int: None}, TypeError, "keys of priors to be names"),
        (
            {"0": "normal"},
            TypeError,
            "distribution, a function or None as the prior of '0.weight'",
        ),
        ({"0": torch.distributions.Normal(0, 1)}, TypeError, "prior of '0.weight', got Normal"),
        ({"0": lambda p: 3.0}, TypeError, "from the prior of '0.weight', got float"),
        ({"0": KleinFilter(5, 1.0, 0.5)}, ValueError, r"\(4, 1, 3, 3\), got \(5, 5\)"),
        ({"0.bias": KleinFilter(3, 1.0, 0.5)}, ValueError, r"\(4,\), got \(3, 3\)"),
        ({"0": lambda p: KleinFilter(5, 1.0, 0.5)}, ValueError, r"got \(5, 5\)"),
        ({"0": dist.Normal(torch.zeros(2), 1.0)}, ValueError, r"to \(4, 1, 3, 3\), got \(2,\)"),
    ],
)
def test_priors_that_fit_nothing_are_told_at_once(priors, error, match):
    with pytest.raises(error, match=match):
        BayesianModule(convnet(), priors)


def test_a_rule_for_frozen_parameters_is_told():
    net = convnet()
    net[0].requires_grad_(False)
    with pytest.raises(ValueError, match=r"Frozen parameters take no prior: 0.weight \(Conv2d\)"):
        BayesianModule(net, {"0": dist.Normal(0, 1)})


def scaled_by_sample(parameter):
    scale = pyro.sample("scale", dist.HalfNormal(parameter.new_ones(())))
    return dist.Normal(0.0, scale)


def filters_by_sample(parameter):
    scale = pyro.sample("scale", dist.HalfNormal(parameter.new_ones(())))
    return scaled_to_fan_in(KleinFilter(3, 1.0, 0.5))(parameter).rescale(scale)


def scaled_by_channel(parameter):
    scale = pyro.sample("scale", dist.HalfNormal(torch.ones(len(parameter))).to_event(1))
    return dist.Normal(0.0, scale[..., None, None, None])


@pytest.mark.parametrize("prior", [scaled_by_sample, filters_by_sample, scaled_by_channel])
def test_hyperparameters_of_layers_do_not_collide(prior):
    model = BayesianModule(convnet(), {nn.Conv2d: prior})
    trace = poutine.trace(model).get_trace(X, Y)
    for name in ("0.weight", "2.weight"):
        scale = trace.nodes[f"{name}/scale"]["value"]
        weight = trace.nodes[name]
        double = {f"{name}/scale": 2 * scale, name: 2 * weight["value"]}
        twice = poutine.trace(poutine.condition(model, double)).get_trace(X, Y)
        change = twice.nodes[name]["fn"].log_prob(2 * weight["value"])
        expected = weight["fn"].log_prob(weight["value"]) - weight["value"].numel() * math.log(2)
        assert_close(change, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", [scaled_by_sample, filters_by_sample, scaled_by_channel])
def test_particles_have_the_density_that_they_have_one_by_one(prior):
    model = BayesianModule(convnet(), {nn.Conv2d: prior})
    particles = pyro.plate("particles", 5, dim=-2)
    trace = poutine.trace(particles(model)).get_trace(X, Y)
    trace.compute_log_prob()
    names = [n for n in trace.stochastic_nodes if n not in ("data", "particles")]
    for i in range(5):
        one = {n: trace.nodes[n]["value"][i].squeeze(0) for n in names}
        single = poutine.trace(poutine.condition(model, one)).get_trace(X, Y)
        single.compute_log_prob()
        for name in [*names, "y"]:
            found = trace.nodes[name]["log_prob"][i].squeeze(0)
            assert_close(found, single.nodes[name]["log_prob"], rtol=1e-4, atol=1e-4)
        output = single.nodes["output"]["value"]
        assert_close(trace.nodes["output"]["value"][i], output, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prior", [scaled_by_sample, filters_by_sample, scaled_by_channel])
@pytest.mark.parametrize("count", [1, 4])
def test_predictive_with_hyperparameters_in_parallel_and_in_turn(prior, count):
    model = BayesianModule(convnet(), {nn.Conv2d: prior})
    samples = Predictive(model, num_samples=count)(X)
    samples = {name: value for name, value in samples.items() if name not in ("y", "output")}
    loop, parallel = (
        Predictive(model, samples, return_sites=["output"], parallel=p)(X)["output"]
        for p in (False, True)
    )
    assert parallel.shape == (count, 6, 3)
    assert_close(parallel, loop, rtol=1e-4, atol=1e-5)


def test_a_hyperparameter_of_the_wrong_rank_is_told():
    def wrong(parameter):
        scale = pyro.sample("scale", dist.HalfNormal(torch.ones(3)).to_event(1))
        return dist.Normal(0.0, scale)

    model = BayesianModule(nn.Linear(3, 5), {"weight": wrong})
    with pyro.plate("particles", 5, dim=-2), pytest.raises(ValueError, match=r"amplitude\[..., N"):
        model(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))


def test_functions_may_use_parameters_of_the_store():
    def learned(parameter):
        scale = pyro.param("scale", torch.tensor(1.0), constraint=constraints.positive)
        return dist.Normal(0.0, scale)

    model = BayesianModule(convnet(), {nn.Conv2d: learned})
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    svi.step(X, Y)
    for name in ("0.weight/scale", "2.weight/scale"):
        assert pyro.param(name).item() != 1.0


class Shared(PyroModule):
    """A learned location and a sampled scale for all layers of a rule."""

    def __init__(self):
        super().__init__()
        self.loc = PyroParam(torch.tensor(0.5))
        self.scale = PyroSample(dist.HalfNormal(1.0))

    def forward(self, parameter):
        return dist.Normal(self.loc, self.scale)


@pytest.mark.parametrize("local", [False, True])
def test_modules_share_hyperparameters_between_layers(local):
    with pyro.settings.context(module_local_params=local):
        model = BayesianModule(convnet(), {nn.Conv2d: Shared()})
        trace = poutine.trace(model).get_trace(X, Y)
        assert "prior_modules.0.scale" in trace.stochastic_nodes
        scale = trace.nodes["prior_modules.0.scale"]["value"]
        for name in ("0.weight", "2.weight"):
            assert_close(
                trace.nodes[name]["fn"].variance.sqrt(),
                scale.expand_as(trace.nodes[name]["value"]),
            )
        assert [name for name, _ in model.named_parameters()] == [
            "prior_modules.0.loc_unconstrained"
        ]
        elbo = Trace_ELBO()(model, AutoNormal(model))
        elbo(X, Y).backward()
        assert all(p.grad is not None for p in elbo.parameters())


@pytest.mark.parametrize("local", [False, True])
def test_plain_modules_learn_too(local):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.log_scale = nn.Parameter(torch.zeros(()))

        def forward(self, parameter):
            return dist.Normal(0.0, self.log_scale.exp())

    with pyro.settings.context(module_local_params=local):
        model = BayesianModule(convnet(), {nn.Conv2d: Scale()})
        guide = AutoNormal(model)
        elbo = Trace_ELBO()(model, guide)
        elbo(X, Y).backward()
        assert model.prior_modules.get_submodule("0").log_scale.grad is not None
    if not local:
        assert "prior_modules.0$$$log_scale" in pyro.get_param_store()


def test_building_a_model_leaves_no_trace():
    net, state = convnet(), torch.random.get_rng_state()
    with poutine.trace() as trace:
        BayesianModule(net, {nn.Conv2d: scaled_by_sample})
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not trace.trace.nodes


@pytest.mark.parametrize(
    "layer", [nn.Linear(3, 3), nn.Conv1d(3, 3, 3), nn.Conv3d(3, 2, 3)], ids=lambda m: str(m)[:6]
)
@pytest.mark.parametrize("wrap", [lambda p: p, scaled_to_fan_in, lambda p: lambda w: p])
def test_filters_are_for_convolutions_of_images_only(layer, wrap):
    prior = wrap(GaussianFilter(torch.eye(9)))
    with pytest.raises(ValueError, match=r"four dimensions for the prior of 'weight'.* filters"):
        BayesianModule(layer, {"weight": prior})
    for image_layer in (nn.Conv2d(2, 4, 3), nn.ConvTranspose2d(2, 4, 3)):
        BayesianModule(image_layer, {"weight": prior})


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    ("kind", "size", "ends"),
    [(nn.ConvTranspose1d, 7, 3), (nn.ConvTranspose2d, 7, 9), (nn.ConvTranspose3d, 7, 27)],
)
def test_transposed_convolutions_keep_the_variance(kind, size, ends, groups):
    layer = kind(4, 64, 3, groups=groups)
    model = BayesianModule(layer)
    scale = model._weight_priors["weight"](model.net.weight).variance.sqrt()
    # An output in the middle is a sum over as many weights.
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.zero_()
        dims = len(layer.kernel_size)
        seen = layer(torch.ones(1, 4, *[size] * dims))[(0, 0, *[size // 2] * dims)]
    assert float(seen) == 4 // groups * ends
    assert_close(scale, torch.full_like(scale, math.sqrt(2 / float(seen))))


@pytest.mark.parametrize("wrap", [lambda p: p, scaled_to_fan_in])
def test_distributions_are_fixed_even_if_made_of_parameters(wrap):
    scale = torch.tensor(0.5, requires_grad=True)
    for prior in (KleinFilter(3, scale.exp(), 0.5), GaussianFilter(scale.exp() * torch.eye(9))):
        pyro.clear_param_store()
        model = BayesianModule(convnet(), {nn.Conv2d: wrap(prior)})
        svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        for _ in range(3):
            svi.step(X, Y)
        assert scale.grad is None


class LearnedFilters(nn.Module):
    def __init__(self):
        super().__init__()
        self.log_ratio = nn.Parameter(torch.zeros(()))

    def forward(self, weight):
        return KleinFilter(3, self.log_ratio.exp(), 0.5)


def test_a_module_is_registered_and_learned_inside_a_scale_too():
    module = LearnedFilters()
    prior = scaled_to_fan_in(scaled_to_fan_in(module), gain=1.0)
    model = BayesianModule(convnet(), {nn.Conv2d: prior})
    assert [p for p in model.parameters() if p is module.log_ratio] == [module.log_ratio]
    svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
    for _ in range(2):
        svi.step(X, Y)
    assert module.log_ratio != 0
    variance = poutine.trace(model).get_trace(X).nodes["0.weight"]["fn"].variance
    assert_close(variance.mean(), torch.tensor(1 / 9))
