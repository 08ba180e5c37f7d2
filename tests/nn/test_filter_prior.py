"""Learned priors on filters: what they compute, what fitting finds, and what it leaves alone."""

import io
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.optim import Adam
from torch import nn
from torch.testing import assert_close

from pyro_manifolds import CoveringPushforward, KleinBottle, WrappedNormal
from pyro_manifolds.distributions import KleinFilter, ManifoldMixture
from pyro_manifolds.nn import KleinFilterPrior, KleinMixture, TorusFlow, fit_filter_prior
from pyro_manifolds.nn.bayesian import BayesianModule

SHAPES = ("white", "spectral", "full")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def laplacian(size):
    """Of the graph of neighbouring pixels, from its definition."""
    pixels = [(i, j) for i in range(size) for j in range(size)]
    near = [[float(abs(a - c) + abs(b - d) == 1) for c, d in pixels] for a, b in pixels]
    adjacency = torch.tensor(near, dtype=torch.float64)
    return adjacency.sum(1).diag() - adjacency


def shaken(kernel_size, num_components, **options):
    """A prior whose parameters are not those it starts with."""
    prior = KleinFilterPrior(kernel_size, num_components, generator=generator(), **options)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator(1))
    return prior


@pytest.mark.parametrize("unit", [True, False])
def test_without_components_it_is_the_uniform_filter(unit):
    filters = torch.randn(20, 5, 5, generator=generator())
    prior = KleinFilterPrior(5, 0, amplitude=2.0, noise=0.5, unit=unit)
    expected = KleinFilter(5, 2.0, 0.5, unit=unit).log_prob(filters)
    assert_close(prior().log_prob(filters), expected, rtol=0, atol=2e-4)


def test_the_default_nodes_suffice_for_the_narrowest_mixture():
    prior = shaken(3, 4)
    with torch.no_grad():
        prior.density.log_scale.fill_(-9.0)
        prior.log_amplitude.fill_(math.log(2.0))
        prior.log_noise.fill_(math.log(0.5))
    coarse = prior.double()()
    fine = KleinFilter(
        3, coarse.amplitude, coarse.noise, prior.density(), unit=True, num_nodes=160
    )
    filters = coarse.sample((50,))
    assert_close(coarse.log_prob(filters), fine.log_prob(filters), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [3, 5])
def test_spectral_noise_is_a_power_of_the_laplacian(size):
    prior = KleinFilterPrior(size, 0, amplitude=1e-3, noise=0.5, noise_shape="spectral").double()
    with torch.no_grad():
        prior.exponent.fill_(0.7)
        prior.log_mean_ratio.fill_(math.log(3.0))
    values, vectors = torch.linalg.eigh(laplacian(size))
    values = values[1:] / values[1:].log().mean().exp()
    variances = 0.25 * torch.cat([torch.tensor([9.0]), values.pow(-0.7)])
    expected = (vectors * variances) @ vectors.mT
    assert_close(prior().covariance_matrix, expected, rtol=0, atol=2e-6)  # amplitude: 1e-6


def test_full_noise_is_any_covariance():
    prior = shaken(3, 0, noise_shape="full")
    tril = prior.noise_tril
    assert_close(tril, tril.tril())
    assert (tril.diagonal() > 0).all()
    assert (tril.tril(-1) != 0).sum() == 36


@pytest.mark.parametrize(
    ("components", "shape", "number"),
    # Amplitude and noise; five for each component but for the sum of the weights; two; 45 - 1.
    [(0, "white", 2), (4, "white", 21), (1, "spectral", 8), (0, "full", 46), (4, "full", 65)],
)
def test_parameters_are_counted(components, shape, number):
    assert KleinFilterPrior(3, components, noise_shape=shape).num_parameters == number


def true_law():
    loc = torch.tensor([[0.5, 1.5], [2.0, 0.3]])
    parts = WrappedNormal(KleinBottle(), loc, torch.tensor([[0.3, 0.3], [0.5, 0.2]]))
    density = ManifoldMixture(dist.Categorical(torch.tensor([0.7, 0.3])), parts)
    return KleinFilter(3, 2.0, 0.3, density, unit=True)


@pytest.mark.slow
def test_fitting_finds_the_law_that_the_filters_come_from():
    torch.manual_seed(0)
    truth = true_law()
    filters, test = truth.sample((3000,)), truth.sample((1000,))
    prior = KleinFilterPrior(3, 2, num_nodes=48, generator=generator())
    fit_filter_prior(
        prior, filters, steps=200, check_every=100, learning_rate=0.05, progress=False
    )
    law = prior()
    assert_close(law.amplitude, torch.tensor(2.0), rtol=0.05, atol=0)
    assert_close(law.noise, torch.tensor(0.3), rtol=0.03, atol=0)
    loss = (truth.log_prob(test) - law.log_prob(test)).mean()
    uniform = KleinFilter(3, 2.0, 0.3, unit=True)
    assert loss < 0.03 < 0.5 < (truth.log_prob(test) - uniform.log_prob(test)).mean()


def small_fit(prior, seed=0, **options):
    torch.manual_seed(3)
    filters = true_law().sample((200,))
    return fit_filter_prior(prior, filters, steps=20, seed=seed, progress=False, **options)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_best_weights_are_kept(shape):
    held_out = true_law().sample((100,))
    prior = KleinFilterPrior(3, 2, noise_shape=shape, generator=generator())
    scores = small_fit(prior, validation=held_out, check_every=1, learning_rate=1.5, patience=3)
    assert max(scores) > scores[-1]  # steps are too large, and it goes on after the best one
    assert_close(prior().log_prob(held_out).mean().item(), max(scores), rtol=1e-5, atol=0)


def test_it_stops_where_no_score_is_better():
    prior = KleinFilterPrior(3, 0)
    scores = small_fit(prior, check_every=1, learning_rate=1.0, patience=2)
    assert len(scores) < 21
    assert max(scores[-2:]) < max(scores)


def test_a_seed_fixes_the_fit_and_nothing_else_is_touched():
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(1.0))
    fitted = []
    for seed in (0, 0, 1):
        prior = KleinFilterPrior(3, 2, generator=generator())
        torch.manual_seed(7)
        before = torch.get_rng_state()
        fit_filter_prior(
            prior,
            torch.randn(100, 3, 3, generator=generator()),
            steps=5,
            seed=seed,
            progress=False,
        )
        assert torch.equal(torch.get_rng_state(), before)
        fitted.append(prior().amplitude.item())
    assert fitted[0] == fitted[1] != fitted[2]
    assert set(pyro.get_param_store().keys()) == {"mine"}


def test_progress_is_shown(capsys):
    prior = KleinFilterPrior(3, 0)
    fit_filter_prior(prior, torch.randn(50, 3, 3), steps=2)
    assert "validation" in capsys.readouterr().err


@pytest.mark.parametrize("shape", SHAPES)
def test_a_state_is_saved_and_loaded(shape):
    prior = shaken(3, 2, noise_shape=shape)
    file = io.BytesIO()
    torch.save(prior.state_dict(), file)
    file.seek(0)
    again = KleinFilterPrior(3, 2, noise_shape=shape)
    again.load_state_dict(torch.load(file, weights_only=True))
    filters = torch.randn(10, 3, 3)
    assert torch.equal(again().log_prob(filters), prior().log_prob(filters))


@pytest.mark.parametrize("shape", SHAPES)
def test_all_parameters_are_learned(shape):
    prior = shaken(3, 2, noise_shape=shape)
    prior().log_prob(torch.randn(30, 3, 3, generator=generator())).sum().backward()
    for name, parameter in prior.named_parameters():
        assert parameter.grad.abs().sum() > 0, name
        assert parameter.grad.isfinite().all(), name


def test_the_density_may_be_a_flow():
    class Flow(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = TorusFlow(2, layers=2, bins=4, hidden_features=(8,))

        def forward(self):
            return CoveringPushforward(self.flow(), KleinBottle().orientation_covering)

    prior = KleinFilterPrior(3, density=Flow(), num_nodes=24)
    filters = torch.randn(10, 3, 3)
    uniform = KleinFilterPrior(3, 0, num_nodes=24)  # which an untrained flow is
    assert_close(prior().log_prob(filters), uniform().log_prob(filters), rtol=0, atol=1e-4)
    before = prior.density.flow.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    small_fit(prior)
    assert any(
        not torch.equal(value, before[name])
        for name, value in prior.density.flow.state_dict().items()
    )


def test_it_is_the_prior_of_a_layer_at_any_scale():
    law = shaken(5, 3)()
    layer = law.rescale(0.1).expand([16, 3]).to_event(2)
    weight = layer.sample()
    assert weight.shape == (16, 3, 5, 5)
    expected = law.log_prob(10 * weight).sum() + weight.numel() * math.log(10)
    assert_close(layer.log_prob(weight), expected, rtol=1e-5, atol=1e-3)


def test_amplitude_and_noise_may_be_sites():
    torch.manual_seed(0)
    filters = true_law().sample((300,))
    prior = KleinFilterPrior(
        3, 0, amplitude=dist.LogNormal(0.0, 1.0), noise=dist.LogNormal(-1.0, 1.0), num_nodes=24
    )
    assert not dict(prior.named_parameters())

    def model():
        law = prior()
        with pyro.plate("data", len(filters)):
            pyro.sample("filter", law, obs=filters)

    sites = poutine.trace(model).get_trace()
    assert [n for n in sites.nodes if not n.startswith("_")] == [
        *("amplitude", "noise", "data", "filter")
    ]
    pyro.clear_param_store()
    guide = AutoNormal(model, init_scale=0.05)
    svi = SVI(model, guide, Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(120):
        svi.step()
    median = guide.median()
    assert_close(median["amplitude"], torch.tensor(2.0), rtol=0.15, atol=0)
    assert_close(median["noise"], torch.tensor(0.3), rtol=0.05, atol=0)


def two_layers():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Conv2d(4, 2, 3), nn.Flatten())


def train(model, guide=None, **options):
    """Take a few steps; return the guide."""
    torch.manual_seed(0)
    x, y = torch.randn(6, 1, 5, 5), torch.randint(2, (6,))
    guide = guide or AutoNormal(model)
    with pyro.get_param_store().scope():
        svi = SVI(model, guide, Adam({"lr": 0.01}), Trace_ELBO(**options))
        for _ in range(3):
            assert math.isfinite(svi.step(x, y))
    return guide


def test_a_net_learns_the_prior_that_its_layers_share():
    prior = KleinFilterPrior(3, 2, num_nodes=16)
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    model = BayesianModule(two_layers(), {nn.Conv2d: prior})
    train(model)
    for name, value in prior.state_dict().items():
        assert not torch.equal(value, before[name]), name


@pytest.mark.parametrize("form", ["frozen", "frozen and called", "fitted", "fitted and called"])
def test_a_net_leaves_a_fixed_prior_alone(form):
    prior = KleinFilterPrior(3, 2, num_nodes=16)
    if form.startswith("fitted"):
        small_fit(prior)
        assert not prior.training
    else:
        prior.requires_grad_(False).eval()  # Pyro warns of frozen parameters in training mode
    before = {name: value.clone() for name, value in prior.state_dict().items()}
    model = BayesianModule(two_layers(), {"0": prior() if form.endswith("called") else prior})
    train(model)
    for name, value in prior.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_fitted_prior_is_fitted_again():
    prior = KleinFilterPrior(3, 0, num_nodes=16)
    small_fit(prior)
    first = prior().amplitude.item()
    small_fit(prior, seed=1)
    assert prior().amplitude.item() != first


@pytest.mark.parametrize("vectorized", [False, True])
@pytest.mark.parametrize(
    ("form", "names"),
    [
        (lambda prior: {"0": prior}, {"amplitude"}),
        (lambda prior: {nn.Conv2d: prior.forward}, {"0.weight/amplitude", "2.weight/amplitude"}),
    ],
)
def test_the_amplitude_of_the_prior_of_a_net_may_be_a_site(form, names, vectorized):
    prior = KleinFilterPrior(3, 0, amplitude=dist.LogNormal(0.0, 1.0), num_nodes=16)
    model = BayesianModule(two_layers(), form(prior))
    guide = train(model, num_particles=3, vectorize_particles=vectorized)
    assert {name for name in guide.median() if "amplitude" in name} == names


def test_layers_cannot_share_a_site():
    model = BayesianModule(two_layers(), {nn.Conv2d: sites_prior()})
    with pytest.raises(ValueError, match="amplitude is a site, got a second .* prior.forward"):
        train(model)


def test_a_tensor_may_be_the_start():
    prior = KleinFilterPrior(3, 0, amplitude=torch.tensor(2.0), noise=torch.tensor(1))
    assert_close(prior().amplitude, torch.tensor(2.0))
    assert_close(prior().noise, torch.tensor(1.0))
    with pytest.raises(TypeError, match="noise to be a positive number .* got 'low'"):
        KleinFilterPrior(3, 0, noise="low")


def test_only_the_random_state_of_its_own_device_is_forked(monkeypatch):
    devices = []
    fork = torch.random.fork_rng

    def spy(*arguments, **options):
        devices.append(arguments[0] if arguments else options.get("devices"))
        return fork(*arguments, **options)

    monkeypatch.setattr(torch.random, "fork_rng", spy)
    small_fit(KleinFilterPrior(3, 0, num_nodes=16))
    assert devices == [[]]


def sites_prior():
    return KleinFilterPrior(3, 0, amplitude=dist.LogNormal(0.0, 1.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: KleinFilterPrior(4), "kernel_size to be odd"),
        (lambda: KleinFilterPrior(3, -1), "num_components >= 0, got -1"),
        (lambda: KleinFilterPrior(3, noise_shape="pink"), "white, spectral, full, got 'pink'"),
        (lambda: KleinFilterPrior(3, 0, amplitude=-1.0), "amplitude to be a positive .* got -1.0"),
        (lambda: KleinFilterPrior(3, 0, noise=math.nan), "noise to be a positive .* got nan"),
        (lambda: KleinFilterPrior(3, 0, noise=torch.ones(2)), "noise to be a positive number"),
        (
            lambda: fit_filter_prior(KleinFilterPrior(3, 0), torch.full((9, 3, 3), 0.1)),
            "fit_filter_prior: expected filters that vary from pixel to pixel, got constant ones",
        ),
        (
            lambda: fit_filter_prior(KleinFilterPrior(3, 0), torch.zeros(9, 3, 3)),
            "expected filters that vary",
        ),
        (lambda: KleinMixture(0), "num_components >= 1 .* got 0"),
        (lambda: KleinMixture(2, min_scale=0.9), "got 2 and 0.9"),
        (lambda: small_fit(sites_prior()), "where they are sites"),
        (lambda: small_fit(KleinFilterPrior(3, 0), validation=1.5), r"in \(0, 1\), got 1.5"),
        (lambda: small_fit(KleinFilterPrior(5, 0)), r"filters of shape \(n, 5, 5\)"),
        (
            lambda: small_fit(KleinFilterPrior(3, 0), validation=torch.zeros(3, 3)),
            r"validation of shape \(n, 3, 3\) with n >= 2, got \(3, 3\)",
        ),
        (lambda: small_fit(KleinFilterPrior(3, 0), patience=0), "patience >= 1, got 0"),
        (
            lambda: fit_filter_prior(KleinFilterPrior(3, 0), torch.full((9, 3, 3), math.inf)),
            "expected finite filters, got nan or infinity",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_a_likelihood_that_is_not_finite_is_an_error():
    prior = KleinFilterPrior(3, 0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        small_fit(prior, learning_rate=1e30)
