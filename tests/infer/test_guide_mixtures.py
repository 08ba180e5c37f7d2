"""Guides with several components: exact mixtures, unbiased gradients, two modes and one bound."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import init_to_value
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    Product,
    Sphere,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.testing import circle_rule, glide_rule, sphere_rule

KLEIN = KleinBottle()


def bound(model, guide, size=20_000, nesting=0):
    elbo = Trace_ELBO(num_particles=size, vectorize_particles=True, max_plate_nesting=nesting)
    with torch.no_grad():
        return elbo.loss(model, guide)


def train(model, guide, steps=300, lr=0.05):
    guide()
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=0)
    optim = pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.02 ** (1 / steps)})
    svi = SVI(model, guide, optim, elbo)
    for _ in range(steps):
        svi.step()
    return bound(model, guide)


# Two modes.


def across_the_seam(z):
    """Modes of equal weight at zero and at the cut."""
    return 8 * (2 * z).cos()


def two_points(z):
    first, second = KLEIN.embed(torch.tensor([[0.02, 0.5], [1.6, -2.0]]))
    squares = [(KLEIN.embed(z) - point).square().sum(-1) for point in (first, second)]
    return torch.logaddexp(-squares[0] / 0.18, -squares[1] / 0.18 + math.log(2))


def an_axis(z):
    return 10 * z[..., 0].square()


BIMODAL = {
    "circle": (Circle(), across_the_seam, circle_rule(256, torch.float32), 0.5),
    "klein": (KLEIN, two_points, glide_rule(circle_rule(128, torch.float32), 64), 2 / 3),
    "sphere": (Sphere(2), an_axis, sphere_rule(2, 60, torch.float32), 0.5),
}


@pytest.mark.parametrize(
    ("manifold", "log_likelihood", "rule", "weight"), BIMODAL.values(), ids=list(BIMODAL)
)
def test_two_components_meet_the_evidence_where_one_misses_a_mode(
    manifold, log_likelihood, rule, weight
):
    def model():
        z = pyro.sample("z", ManifoldUniform(manifold))
        pyro.factor("x", log_likelihood(z) - 1000.0)

    nodes, weights = rule
    log_joint = log_likelihood(nodes) + ManifoldUniform(manifold).log_prob(nodes)
    evidence = (log_joint + weights.log()).logsumexp(0).item() - 1000
    single = AutoWrappedNormal(model)
    # It finds either mode, at worst the lighter one.
    missed = train(model, single) + evidence
    assert -math.log(weight) - 0.02 < missed < -math.log(1 - weight) + 0.05
    pyro.clear_param_store()
    guide = AutoWrappedNormal(model, num_components=2)
    assert -0.005 < train(model, guide) + evidence < 0.03
    assert_close(guide.weights.z.max().item(), weight, atol=0.12, rtol=0)


# The gradient.


def model_of(plate, offset):
    def log_likelihood(z):
        return 3 * (2 * z).cos() + 0.7 * z.sin() + offset

    def model():
        if plate is None:
            z = pyro.sample("z", VonMises(torch.tensor(0.5), 0.5))
            pyro.factor("x", log_likelihood(z))
            return
        with pyro.plate("data", 3, subsample_size=plate):
            z = pyro.sample("z", VonMises(torch.full((plate,), 0.5), 0.5))
            pyro.factor("x", log_likelihood(z))

    return model, log_likelihood


def guide_of(model, shape=()):
    guide = AutoWrappedNormal(model, num_components=2)
    guide()
    with torch.no_grad():
        guide.locs.z = torch.tensor([[1.0, 0.3], [-0.8, 0.6]]).expand(*shape, 2, 2).clone()
        guide.scales.z = torch.tensor([0.5, 0.9]).expand(*shape, 2).clone()
        guide.weights.z = torch.tensor([0.3, 0.7]).expand(*shape, 2).clone()
    return guide


def gradient(guide, backward):
    for parameter in guide.parameters():
        parameter.grad = None
    backward()
    return torch.cat([parameter.grad.reshape(-1) for parameter in guide.parameters()])


@pytest.mark.parametrize("plate", [None, 3, 2], ids=["single", "plate", "subsample"])
@pytest.mark.parametrize(
    "kind", [Trace_ELBO, TraceGraph_ELBO, TraceEnum_ELBO, JitTrace_ELBO], ids=lambda k: k.__name__
)
def test_the_gradient_is_that_of_quadrature(kind, plate):
    torch.set_default_dtype(torch.float64)
    model, log_likelihood = model_of(plate, -3.0)
    guide = guide_of(model, () if plate is None else (3,))
    nodes, weights = circle_rule(128)
    log_joint = VonMises(torch.tensor(0.5), 0.5).log_prob(nodes) + log_likelihood(nodes)
    posterior = guide.get_posterior("z")
    log_q = posterior.log_prob(nodes.reshape((-1,) + (1,) * len(posterior.batch_shape)))
    terms = [(weights * q.exp() * (q - log_joint)).sum() for q in log_q.reshape(128, -1).T]
    expected = gradient(guide, sum(terms).backward)
    extra = {
        JitTrace_ELBO: {"ignore_jit_warnings": True},
        TraceEnum_ELBO: {"strict_enumeration_warning": False},
    }.get(kind, {})
    elbo = kind(num_particles=200, vectorize_particles=True, max_plate_nesting=1, **extra)
    backward = partial(elbo.loss_and_grads, model, guide)
    draws = [gradient(guide, backward) for _ in range(61)]
    found = torch.stack(draws[1:])  # the first step only sets the baseline
    error = found.std(0) / math.sqrt(len(found))
    assert ((found.mean(0) - expected).abs() < 5 * error + 1e-6).all()


def test_a_constant_of_the_likelihood_does_not_reach_the_weights():
    torch.set_default_dtype(torch.float64)
    found = []
    for offset in (0.0, -1e4):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        model, _ = model_of(None, offset)
        guide = guide_of(model)
        pyro.set_rng_seed(1)
        backward = partial(Trace_ELBO().loss_and_grads, model, guide)
        found.append(torch.stack([gradient(guide, backward) for _ in range(5)]))
    assert_close(found[0], found[1], atol=1e-8, rtol=0)
    assert not found[0][0, -2:].any()
    assert found[0][1:, -2:].any()


def test_an_infinite_loss_does_not_spoil_the_baseline():
    model, _ = model_of(None, 0.0)
    guide = guide_of(model)
    impossible, _ = model_of(None, -math.inf)
    for chosen in (impossible, model, impossible, model):
        gradients = gradient(guide, partial(Trace_ELBO().loss_and_grads, chosen, guide))
    assert gradients.isfinite().all()


def test_without_scores_there_is_no_training():
    model, _ = model_of(None, 0.0)
    with pytest.raises(NotImplementedError, match="must be fully reparameterized"):
        TraceMeanField_ELBO().loss(model, guide_of(model))


# What the guide is and tells.


def mixed_model():
    pyro.sample("angle", WrappedNormal(Circle(), torch.tensor(3.1), 0.6))
    pyro.sample("scale", dist.LogNormal(0.5, 0.3))
    with pyro.plate("data", 4):
        pyro.sample("turn", ManifoldUniform(SO3()))
        pyro.sample("pair", WrappedNormal(KLEIN, torch.ones(4, 2, 2), 0.5).to_event(1))
        pyro.sample("strip", WrappedNormal(STRIP, torch.ones(2), 1.0))


STRIP = Product(Circle(), Euclidean(1))


def test_one_component_is_what_it_was():
    guide = AutoWrappedNormal(mixed_model, num_components=1)
    guide()
    names = {name for name, _ in guide.named_parameters()}
    assert not any("weights" in name for name in names)
    assert guide.locs.angle.shape == (2,)


def test_parameters_and_draws_have_their_shapes():
    guide = AutoWrappedNormal(mixed_model, num_components=3)
    draws = guide()
    assert draws["angle"].shape == ()
    assert draws["pair"].shape == (4, 2, 2)
    assert guide.weights.angle.shape == (3,)
    assert guide.weights.pair.shape == guide.weights.turn.shape == (4, 3)
    assert guide.locs.pair.shape == (4, 3, 2, 5)
    assert guide.scales.turn.shape == (4, 3)
    assert not hasattr(guide.weights, "scale")
    for parallel in (False, True):
        many = Predictive(mixed_model, guide=guide, num_samples=7, parallel=parallel)()
        assert many["turn"].shape == (7, 4, 3, 3)
        assert SO3().support.check(many["turn"]).all()
    assert math.isfinite(bound(mixed_model, guide, 10, nesting=1))


def test_components_start_apart_and_the_first_at_the_initial_value():
    start = torch.tensor([[0.5, -1.0], [3.0, 2.0]])

    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", ManifoldUniform(KLEIN))

    guide = AutoWrappedNormal(
        model, num_components=3, init_loc_fn=init_to_value(values={"z": start})
    )
    guide()
    points = KLEIN.unembed(guide.locs.z.detach())
    assert_close(points[:, 0], start, atol=1e-5, rtol=0)
    pairs = KLEIN.dist(points.unsqueeze(1), points.unsqueeze(2))
    assert pairs[pairs > 1e-3].min() > 0.8
    assert (pairs > 1e-3).sum() == 2 * 6
    assert_close(guide.weights.z.detach(), torch.full((2, 3), 1 / 3))


def test_the_posterior_is_the_mixture():
    guide = AutoWrappedNormal(mixed_model, num_components=2)
    guide()
    with torch.no_grad():
        guide.weights.angle = torch.tensor([0.2, 0.8])
    posterior = guide.get_posterior("angle")
    nodes, weights = circle_rule(256, torch.float32)
    parts = posterior.component_distribution
    by_hand = sum(
        w * WrappedNormal(Circle(), parts.loc[k], parts.scale[k]).log_prob(nodes).exp()
        for k, w in enumerate((0.2, 0.8))
    )
    assert_close(posterior.log_prob(nodes).exp(), by_hand)
    assert (posterior.log_prob(nodes).exp() @ weights).item() == pytest.approx(1, abs=1e-4)
    assert posterior.sample((9,)).shape == (9,)
    assert not posterior.has_rsample
    found = poutine.trace(guide).get_trace()
    assert set(found.stochastic_nodes) == {"data", "angle", "scale", "turn", "pair", "strip"}
    found.compute_log_prob()
    value = found.nodes["angle"]["value"]
    assert_close(found.nodes["angle"]["log_prob"], posterior.log_prob(value))
    assert_close(guide.median()["angle"], Circle().unembed(guide.locs.angle[1].detach()))
    assert guide.median()["pair"].shape == (4, 2, 2)
    with pytest.raises(NotImplementedError, match="one component for quantiles of 'angle', got 2"):
        guide.quantiles([0.5])


def test_subsamples_and_states():
    def model():
        with pyro.plate("data", 8, subsample_size=4):
            z = pyro.sample("z", ManifoldUniform(Sphere(2)))
            pyro.factor("x", 4 * z[..., 0].square())

    first = AutoWrappedNormal(model, num_components=2)
    svi = SVI(model, first, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    before = svi.step()
    assert math.isfinite(before + sum(svi.step() for _ in range(20)))
    assert first.get_posterior("z").batch_shape == (8,)
    assert first.weights.z.shape == (8, 2)
    assert (first.weights.z != 0.5).all(-1).any()
    state = first.state_dict()
    pyro.clear_param_store()
    second = AutoWrappedNormal(model, num_components=2)
    second()
    second.load_state_dict(state)
    assert_close(second.median(), first.median())


def test_bad_numbers_of_components_are_refused():
    for number in (0, -1, 1.5):
        with pytest.raises(
            ValueError, match=f"expected num_components of at least 1, got {number}"
        ):
            AutoWrappedNormal(mixed_model, num_components=number)
