"""Filters with priors round the Klein bottle, in a convolutional net."""

import math

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLaplaceApproximation, AutoNormal
from torch import nn
from torch.testing import assert_close

from pyro_manifolds import AutoWrappedNormal
from pyro_manifolds.distributions import CircleFilter, GaussianFilter, KleinFilter
from pyro_manifolds.infer.reparam import FilterReparam
from pyro_manifolds.nn.bayesian import BayesianModule, init_to_weights, predict, scaled_to_fan_in

KLEIN = KleinFilter(3, 1.0, 0.5)
PRIORS = {
    "klein": KLEIN,
    "circle": CircleFilter(3, 1.0, 0.5),
    "matched": KLEIN.matched_gaussian(),
    "white": GaussianFilter(torch.eye(9)),
}
priors = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS)


def convnet():
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 16, 2))


def stripes():
    """Images that are brighter below or to the right, which two filters tell apart."""
    y = torch.arange(24) % 2
    ramp = torch.linspace(-1, 1, 6)
    images = torch.where(y[:, None, None] == 0, ramp[:, None], ramp[None, :])
    noise = torch.randn(24, 6, 6, generator=torch.Generator().manual_seed(0))
    return (images + 0.3 * noise)[:, None], y


def model_of(prior, net):
    return BayesianModule(net, {nn.Conv2d: scaled_to_fan_in(prior)}, data_size=24)


def train(model, guide, steps, **kwargs):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO(**kwargs))
    return [svi.step(*stripes()) for _ in range(steps)]


@priors
@pytest.mark.parametrize("kind", [AutoDelta, AutoNormal])
def test_training_learns(prior, kind):
    net = convnet()
    model = model_of(prior, net)
    guide = kind(model, init_loc_fn=init_to_weights(net))
    losses = train(model, guide, 40)
    assert sum(losses[-5:]) < sum(losses[:5])
    x, y = stripes()
    found = predict(model, guide, x, num_samples=20)
    assert (found.probs.argmax(-1) == y).float().mean() > 0.9
    assert math.log(2) > found.total.mean() > found.epistemic.mean() >= 0


@priors
def test_mean_variance_of_the_filters_is_two_over_fan_in(prior):
    net = nn.Sequential(nn.Conv2d(4, 3, 3), nn.Flatten())
    model = BayesianModule(net, {nn.Conv2d: scaled_to_fan_in(prior)})
    with pyro.plate("draws", 4000, dim=-2):
        trace = poutine.trace(model).get_trace(torch.zeros(2, 4, 3, 3))
    draws = trace.nodes["0.weight"]["value"]
    # 36 inputs an output; the standard error of the mean square is below two per cent.
    assert draws.square().mean().item() == pytest.approx(2 / 36, rel=0.05)


def smooth_net():
    """A small net without kinks, where a maximum is stationary."""
    return nn.Sequential(nn.Conv2d(1, 1, 3), nn.Tanh(), nn.Flatten(), nn.Linear(16, 2)).double()


def at_the_mode(kind, net, model):
    x, y = stripes()
    guide = kind(model, init_loc_fn=init_to_weights(net))
    elbo = Trace_ELBO()(model, guide)
    elbo(x.double(), y)
    optimiser = torch.optim.LBFGS(
        elbo.parameters(), max_iter=500, tolerance_change=1e-14, line_search_fn="strong_wolfe"
    )

    def closure():
        optimiser.zero_grad()
        loss = elbo(x.double(), y)
        loss.backward()
        return loss

    optimiser.step(closure)
    return guide


def test_map_is_a_stationary_point_of_the_log_joint():
    net = smooth_net()
    x, y = stripes()
    guide = at_the_mode(AutoDelta, net, model_of(KLEIN, net))
    found = {name: value.requires_grad_() for name, value in guide.median().items()}

    def log_joint(weights):
        """Written out, with nothing of the model in it."""
        fan_in = math.sqrt(2 / 9 / KLEIN.variance.mean())
        prior = KleinFilter(3, torch.tensor(fan_in).double(), torch.tensor(fan_in / 2).double())
        total = prior.log_prob(weights["0.weight"]).sum()
        for name, scale in (("0.bias", 1.0), ("3.weight", math.sqrt(2 / 16)), ("3.bias", 1.0)):
            total = total - 0.5 * (weights[name] / scale).square().sum()
        logits = torch.func.functional_call(net, weights, (x.double(),))
        return total - nn.functional.cross_entropy(logits, y, reduction="sum")

    gradients = torch.autograd.grad(log_joint(found), list(found.values()))
    # The prior was made in float32, at a relative precision of 1e-7.
    assert max(g.abs().max() for g in gradients) < 1e-4


def test_laplace_of_a_small_net():
    net = smooth_net()
    x, y = stripes()
    model = model_of(KLEIN, net)
    guide = at_the_mode(AutoLaplaceApproximation, net, model)
    laplace = guide.laplace_approximation(x.double(), y)
    found = predict(model, laplace, x.double(), num_samples=20)
    assert (found.probs.argmax(-1) == y).double().mean() > 0.9


@pytest.mark.parametrize("vectorize", [False, True])
def test_points_on_the_klein_bottle_as_sites(vectorize):
    net = convnet()
    model = poutine.reparam(model_of(KLEIN, net), {"0.weight": FilterReparam()})
    guide = AutoWrappedNormal(model, init_loc_fn=init_to_weights(net))
    kwargs = {"num_particles": 2, "vectorize_particles": vectorize, "max_plate_nesting": 1}
    losses = train(model, guide, 40, **kwargs)
    assert sum(losses[-5:]) < sum(losses[:5])
    x, y = stripes()
    draws = guide(x, y)
    assert draws["0.weight_point"].shape == (3, 1, 2)
    assert draws["0.weight"].shape == (3, 1, 3, 3)
    constraint = KleinFilter(3, 1.0, 0.5).density.support
    assert bool(constraint.check(draws["0.weight_point"]).all())
    found = predict(model, guide, x, num_samples=20)
    assert (found.probs.argmax(-1) == y).float().mean() > 0.9


def test_hierarchical_and_marginal_joint_agree_on_average():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten())
    model = model_of(KLEIN, net)
    x, y = stripes()
    weights = {n: p.detach() for n, p in net.named_parameters()}
    marginal = poutine.trace(poutine.condition(model, weights)).get_trace(x, y).log_prob_sum()
    reparam = poutine.reparam(model, {"0.weight": FilterReparam()})
    # The fundamental domain [0, pi) x [0, 2 pi) has volume 2 pi^2.
    grid = (torch.arange(30) + 0.5) / 30 * 2 * math.pi
    nodes = torch.cartesian_prod(grid / 2, grid)
    data = weights | {"0.weight_point": nodes.reshape(900, 1, 1, 1, 2)}
    with pyro.plate("nodes", 900, dim=-2):
        trace = poutine.trace(poutine.condition(reparam, data)).get_trace(x, y)
    trace.compute_log_prob()
    names = [*weights, "0.weight_point", "y"]
    terms = sum(trace.nodes[name]["log_prob"].expand(900, -1).sum(-1) for name in names)
    mean = terms.logsumexp(0) - math.log(900) + math.log(2 * math.pi**2)
    assert_close(mean, marginal, rtol=1e-5, atol=1e-3)


def test_nuts_on_a_tiny_net():
    net = nn.Sequential(nn.Conv2d(1, 1, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
    x, y = stripes()
    model = model_of(KLEIN, net)
    kernel = NUTS(model, init_strategy=init_to_weights(net), max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=10, warmup_steps=10, disable_progbar=True)
    mcmc.run(x, y)
    samples = mcmc.get_samples()
    assert samples["0.weight"].shape == (10, 1, 1, 3, 3)
    found = predict(model, samples, x)
    assert (found.probs.argmax(-1) == y).float().mean() > 0.7
    outputs = Predictive(model, samples, parallel=True, return_sites=["output"])(x)["output"]
    assert_close(outputs.softmax(-1).mean(0), found.probs, rtol=1e-4, atol=1e-5)
