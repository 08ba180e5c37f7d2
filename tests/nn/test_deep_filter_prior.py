"""Deep priors: the ELBO as a prior is below the density by the divergence of the encoder."""

import copy
import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoDelta, AutoLowRankMultivariateNormal, AutoNormal
from pyro.ops.stats import effective_sample_size
from torch import nn
from torch.testing import assert_close

from pyro_manifolds import (
    Circle,
    Euclidean,
    KleinBottle,
    KleinFilter,
    MoebiusBand,
    Sphere,
    Torus,
)
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import (
    DeepFilterPrior,
    DeepPriorGuide,
    fit_deep_filter_prior,
    starting_points,
)
from pyro_manifolds.nn.bayesian import BayesianModule, init_to_weights, predict, regression
from pyro_manifolds.nn.held_out import split_filters
from pyro_manifolds.nn.latent_nodes import latent_nodes
from pyro_manifolds.ops.filters import klein_filters, unit_filters
from pyro_manifolds.testing.quadrature import (
    circle_rule,
    glide_rule,
    line_rule,
    product_rule,
    sphere_rule,
    torus_rule,
)

RULES = {
    KleinBottle(): lambda n: glide_rule(circle_rule(2 * n), n),
    Torus(2): lambda n: torus_rule(2, 2 * n),
    Sphere(2): lambda n: sphere_rule(2, n),
    Euclidean(2): lambda n: product_rule(*[line_rule(-9, 9, 2 * n)] * 2),
}
MANIFOLDS = [pytest.param(m, id=str(m)) for m in RULES]


def _prior(manifold=None, rank=0, dtype=torch.float64):
    """A decoder that bends, with a basis that is not the identity."""
    torch.manual_seed(3)
    prior = DeepFilterPrior(3, manifold, hidden=12, rank=rank).to(dtype)
    prior.set_units(KleinFilter(3, 1.0, 0.3).sample((50,)))
    for parameter in prior.parameters():
        parameter.data *= 1.5
    head = prior.guide.head.scale
    head.linear.bias.data = torch.logit(0.4 / head.periods)  # wide, for quadrature
    return prior.requires_grad_(False).eval()


def _joint(prior, filters, nodes):
    """Return log p(w, z) at the nodes, ``[n, filters]``, from the model itself."""
    likelihood = prior.decode(nodes.unsqueeze(1)).log_prob(filters)
    return likelihood + prior.model.latent.log_prob(nodes).unsqueeze(1)


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_marginal_is_the_integral_over_the_manifold(manifold, rank):
    prior = _prior(manifold, rank)
    filters = prior.marginal().sample((6,))
    nodes, weights = RULES[manifold](60)
    expected = (_joint(prior, filters, nodes) + weights.log().unsqueeze(1)).logsumexp(0)
    # On the plane the nodes of the marginal end at six standard deviations.
    assert_close(prior.marginal(64).log_prob(filters), expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_elbo_is_the_density_less_the_divergence_of_the_encoder(manifold):
    prior = _prior(manifold)
    filters = prior.marginal().sample((4,))
    nodes, weights = RULES[manifold](60)
    joint = _joint(prior, filters, nodes)
    log_r = prior.encode(filters).log_prob(nodes.unsqueeze(1))
    r = log_r.exp() * weights.unsqueeze(1)
    assert_close(r.sum(0), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-8)
    elbo = (r * (joint - log_r)).sum(0)
    log_prob = prior.marginal().log_prob(filters)
    divergence = (r * (log_r - (joint - log_prob))).sum(0)
    assert (divergence > 0).all()
    assert_close(elbo, log_prob - divergence, rtol=0, atol=1e-6)

    bounds = evidence_bounds(prior.model, prior.guide, filters, num_particles=4000)
    terms = (r * (joint - log_r - elbo).square()).sum(0)
    error = (terms / 4000).sqrt()
    assert ((bounds.elbo - elbo).abs() < 5 * error).all()


def _linear_net(prior, rules):
    """One filter on images of its size: y is normal about the product of both."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 1, 3, bias=False), nn.Flatten()).double()
    model = BayesianModule(net, {"0": rules}, likelihood=regression(1.0))
    x = torch.randn(6, 1, 3, 3, dtype=torch.float64)
    w = prior.marginal().sample()
    return model, x, (x * w).sum((1, 2, 3)).unsqueeze(-1) + 1.0


def _log_evidence(prior, x, y):
    """The integral over the point of the marginal of y, normal given it."""
    nodes, weights = RULES[prior.manifold](60)
    rows = x.flatten(1)
    loc, scale, factor = prior.model.moments(nodes)
    rows = rows @ prior.model.basis
    inner = torch.diag_embed(scale.square()) + factor @ factor.mT
    covariance = rows @ inner @ rows.mT + torch.eye(len(y), dtype=y.dtype)
    likelihood = dist.MultivariateNormal(loc @ rows.mT, covariance).log_prob(y.squeeze(-1))
    prior_density = prior.model.latent.log_prob(nodes)
    return (likelihood + prior_density + weights.log()).logsumexp(0)


@pytest.mark.parametrize("rank", [0, 1])
def test_weights_of_a_net_average_to_its_evidence(rank):
    prior = _prior(rank=rank)
    prior.guide.head.scale.linear.bias.data.fill_(3.0)  # nearly uniform: weights are bounded
    model, x, y = _linear_net(prior, prior.hierarchical)

    def make_guide(model):
        law = prior.marginal().expand([1, 1]).to_event(2)
        return lambda *args: {"0.weight": pyro.sample("0.weight", law)}

    guide = DeepPriorGuide(model, make_guide, {"0.weight": prior})
    bounds = evidence_bounds(model, guide, x, y, num_particles=20_000, chunk_size=10_000)
    evidence = _log_evidence(prior, x, y)
    assert bounds.elbo < evidence
    assert (bounds.iwae - evidence).abs() < 4 * bounds.iwae_error
    assert bounds.iwae_error < 0.1


def test_elbo_of_a_net_is_below_its_evidence():
    prior = _prior()
    model, x, y = _linear_net(prior, prior.hierarchical)
    guide = DeepPriorGuide(model, AutoNormal, {"0.weight": prior})
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    for _ in range(150):
        svi.step(x, y)
    evidence = _log_evidence(prior, x, y)
    elbo = evidence_bounds(model, guide, x, y, num_particles=5000).elbo
    assert evidence - 5 < elbo < evidence
    vectorised = Trace_ELBO(num_particles=5000, vectorize_particles=True)
    with torch.no_grad():
        assert abs(-vectorised.loss(model, guide, x, y) - elbo) < 0.2


def test_the_marginal_prior_closes_the_gap():
    prior = _prior()
    model, x, y = _linear_net(prior, prior.hierarchical)
    exact, _, _ = _linear_net(prior, prior.marginal())
    guide = DeepPriorGuide(model, AutoNormal, {"0.weight": prior})
    guide(x, y)
    bound = evidence_bounds(model, guide, x, y, num_particles=5000).elbo
    closed = evidence_bounds(exact, guide.weights, x, y, num_particles=5000).elbo
    w = guide.weights(x, y)["0.weight"].squeeze(0).squeeze(0)
    assert closed > bound
    # The gap is the mean divergence of the encoder; here at one draw, to see that it is its size.
    nodes, weights = RULES[prior.manifold](60)
    log_r = prior.encode(w).log_prob(nodes)
    posterior = _joint(prior, w[None], nodes).squeeze(1) - prior.marginal().log_prob(w)
    gap = (log_r.exp() * weights * (log_r - posterior)).sum()
    assert 0.2 * gap < closed - bound < 5 * gap


def _posterior_mean(prior, x, y):
    """The mean over the point, by quadrature, of normal posteriors of the weights given it."""
    nodes, weights = RULES[prior.manifold](60)
    loc, scale, _ = prior.model.moments(nodes)
    rows = x.flatten(1) @ prior.model.basis
    shared = torch.diag_embed(scale.square()) @ rows.mT
    covariance = rows @ shared + torch.eye(len(y), dtype=y.dtype)
    missed = y.squeeze(-1) - loc @ rows.mT
    given = loc + (shared @ torch.linalg.solve(covariance, missed.unsqueeze(-1))).squeeze(-1)
    log = dist.MultivariateNormal(torch.zeros_like(missed), covariance).log_prob(missed)
    log = log + prior.model.latent.log_prob(nodes) + weights.log()
    return (log.softmax(0) @ given) @ prior.model.basis.mT


@pytest.mark.slow
def test_nuts_draws_from_the_posterior_under_the_marginal():
    prior = _prior()
    model, x, y = _linear_net(prior, prior.marginal(16))
    torch.manual_seed(0)
    kernel = NUTS(model, max_tree_depth=4)
    chain = MCMC(kernel, num_samples=150, warmup_steps=60, disable_progbar=True)
    chain.run(x, y)
    draws = chain.get_samples()["0.weight"].flatten(1)
    size = effective_sample_size(draws.unsqueeze(0)).clamp(max=150)
    error = draws.std(0) / size.sqrt()
    assert size.min() > 30
    assert ((draws.mean(0) - _posterior_mean(prior, x, y)).abs() < 4 * error).all()


@pytest.mark.parametrize("manifold", MANIFOLDS)
def test_representatives_of_a_point_are_decoded_alike(manifold):
    prior = _prior(manifold, rank=1)
    nodes, _ = latent_nodes(manifold, 8, dtype=torch.float64)
    moved = nodes
    if manifold == KleinBottle():
        moved = nodes * nodes.new_tensor([1.0, -1.0]) + nodes.new_tensor([math.pi, 2 * math.pi])
    elif manifold == Torus(2):
        moved = nodes + 2 * math.pi
    w = torch.randn(3, 3, dtype=torch.float64)
    assert_close(
        prior.decode(moved).log_prob(w), prior.decode(nodes).log_prob(w), rtol=1e-10, atol=0
    )


def test_training_raises_the_bound_and_leaves_everything_else_alone():
    filters = KleinFilter(3, 2.0, 0.1).sample((800,))
    pyro.param("mine", torch.tensor(1.0))
    prior = DeepFilterPrior(3, hidden=16)
    before, other = torch.get_rng_state(), copy.deepcopy(prior)
    options = {"steps": 50, "start_steps": 50, "check_every": 25, "progress": False}
    scores = fit_deep_filter_prior(prior, filters, **options)
    assert max(scores) > scores[0] + 0.3
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store()) == ["mine"]
    assert not any(p.requires_grad for p in prior.parameters())
    assert fit_deep_filter_prior(other, filters, **options) == scores

    loaded = DeepFilterPrior(3, hidden=16)
    loaded.load_state_dict(prior.state_dict())
    assert_close(loaded.marginal().log_prob(filters), prior.marginal().log_prob(filters))


@pytest.mark.parametrize("manifold", [KleinBottle(), Torus(2)])
@pytest.mark.parametrize("given", [True, False])
def test_what_is_held_out_only_chooses_among_the_checks(manifold, given):
    torch.manual_seed(0)
    filters = KleinFilter(3, 2.0, 0.3).sample((60,))
    points = starting_points(manifold, filters) if given else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the default seed of the training
        rows, held_out = split_filters(filters, 0.5)
    assert held_out.shape == (30, 3, 3)
    fitted = []
    for size in (1.0, 10.0):
        kept = set(rows.tolist())
        others = [i for i in range(len(filters)) if i not in kept]
        changed = filters.clone()
        changed[others] *= size
        changed_points = points
        if points is not None:
            changed_points = points.clone()
            changed_points[others] += size
        torch.manual_seed(1)
        prior = DeepFilterPrior(3, manifold, hidden=8)
        fit_deep_filter_prior(
            prior, changed, validation=0.5, points=changed_points, start_steps=3, steps=1,
            learning_rate=1e-12, progress=False,
        )  # fmt: skip
        fitted.append(prior.state_dict())
    for name, value in fitted[0].items():
        assert_close(fitted[1][name], value, rtol=0, atol=1e-9, msg=name)


@pytest.mark.slow
def test_trained_density_is_close_to_the_one_behind_the_filters():
    law = KleinFilter(3, 2.0, 0.3)
    prior = DeepFilterPrior(3, hidden=32, rank=1)
    options = {"steps": 300, "batch_size": 128, "learning_rate": 5e-3, "progress": False}
    fit_deep_filter_prior(prior, law.sample((4000,)), **options)
    test = law.sample((2000,))
    best, ours = law.log_prob(test).mean(), prior.marginal().log_prob(test).mean()
    matched = law.matched_gaussian().log_prob(test).mean()
    assert matched < ours < best + 0.05


@pytest.mark.parametrize("whiten", [True, False])
def test_units_are_those_of_the_filters(whiten):
    filters = KleinFilter(3, 5.0, 1.0).sample((3000,))
    prior = DeepFilterPrior(3)
    prior.set_units(filters, whiten=whiten)
    assert_close(prior.guide.scale, filters.square().mean().sqrt())
    u = torch.linalg.solve(prior.model.basis, filters.flatten(1).mT).mT
    assert_close(u.square().mean(), torch.tensor(1.0), rtol=1e-3, atol=0)
    second = u.mT @ u / len(u)
    assert ((second - torch.eye(9)).abs().max() < 1e-3) == whiten


def test_rescaled_prior_is_that_of_scaled_filters():
    prior = _prior(rank=1)
    scaled = prior.rescale(0.2)
    w = torch.randn(5, 3, 3, dtype=torch.float64)
    expected = prior.marginal().log_prob(w) - 9 * math.log(0.2)
    assert_close(scaled.marginal().log_prob(0.2 * w), expected, rtol=0, atol=1e-9)
    assert_close(scaled.encode(0.2 * w).loc, prior.encode(w).loc)
    points = torch.zeros(2, dtype=torch.float64)
    assert_close(
        scaled.decode(points).log_prob(0.2 * w),
        prior.decode(points).log_prob(w) - 9 * math.log(0.2),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_results_have_the_dtype_of_the_prior(dtype):
    prior = _prior(dtype=dtype, rank=1)
    w = torch.zeros(2, 3, 3, dtype=dtype, requires_grad=True)
    posterior = prior.encode(w)
    assert prior.marginal().log_prob(w).dtype == posterior.log_prob(posterior.mode).dtype == dtype
    assert prior.hierarchical(w).log_prob(w).dtype == dtype
    (grad,) = torch.autograd.grad(posterior.rsample().sum(), w)
    assert grad.isfinite().all()  # also at the filter that has no direction


def _convolutional():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), nn.Flatten(), nn.Linear(8, 3)
    )
    prior = _prior(dtype=torch.float32)
    model = BayesianModule(net, {nn.Conv2d: prior.hierarchical})
    x, y = torch.randn(12, 1, 6, 6), torch.arange(12) % 3
    return net, prior, model, {"0.weight": prior, "2.weight": prior}, x, y


@pytest.mark.parametrize(
    ("base", "vectorized"),
    [
        (AutoNormal, False),
        (AutoNormal, True),
        (AutoDelta, False),
        (AutoLowRankMultivariateNormal, True),
    ],
)
def test_layers_of_a_net_train_with_any_guide_and_encoders_stay(base, vectorized):
    net, prior, model, priors, x, y = _convolutional()
    start = copy.deepcopy(prior.state_dict())
    make = partial(base, init_loc_fn=init_to_weights(net))
    guide = DeepPriorGuide(model, make, priors)
    elbo = Trace_ELBO(num_particles=2, vectorize_particles=vectorized)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.03}), elbo)
    losses = [svi.step(x, y) for _ in range(20)]
    assert sum(losses[-5:]) < sum(losses[:5])
    for name, value in prior.state_dict().items():
        assert torch.equal(value, start[name])
    assert not any("network" in name for name, _ in guide.named_parameters())
    assert predict(model, guide, x, num_samples=5).probs.shape == (12, 3)
    draws = Predictive(model, guide=guide, num_samples=4, parallel=True)(x)
    assert draws["y"].reshape(4, -1).shape == (4, 12)
    median = guide.median(x, y)
    assert median["2.weight/point"].shape == (2, 2, 2)
    assert KleinBottle().contains(median["0.weight/point"]).all()


def test_guide_is_saved_and_loaded_without_the_encoders():
    net, _, model, priors, x, y = _convolutional()
    guides = [DeepPriorGuide(model, AutoNormal, priors) for _ in range(2)]
    for guide in guides:
        guide(x, y)
    guides[0].weights.locs.__getattr__("0").weight.data.fill_(0.5)
    guides[1].load_state_dict(guides[0].state_dict())
    assert_close(guides[1].median()["0.weight"], guides[0].median()["0.weight"])


def test_a_site_for_each_filter_is_under_the_name_of_its_parameter():
    _, _, model, _, x, y = _convolutional()
    trace = poutine.trace(model).get_trace(x, y)
    assert trace.nodes["0.weight/point"]["value"].shape == (2, 1, 2)
    assert trace.nodes["2.weight/point"]["value"].shape == (2, 2, 2)


def test_starting_points_on_the_klein_bottle_are_those_of_the_filters():
    points = KleinBottle().random_uniform(50, 2).as_subclass(torch.Tensor)
    filters = unit_filters(klein_filters(points, 5))
    found = starting_points(KleinBottle(), filters)
    assert KleinBottle().dist(found, points).max() < 1e-2
    for manifold in (Circle(), Torus(2), Sphere(2), Euclidean(3)):
        laid = starting_points(manifold, filters)
        assert laid.shape == (50, *manifold.event_shape)


@pytest.mark.parametrize("manifold", [*MANIFOLDS, pytest.param(Circle(), id="Circle")])
def test_nodes_integrate_the_embedding(manifold):
    points, log_weights = latent_nodes(manifold, 32, dtype=torch.float64)
    assert_close(log_weights.exp().sum(), torch.tensor(1.0, dtype=torch.float64))
    second = (log_weights.exp()[:, None] * manifold.embed(points).square()).sum(0)
    expected = {
        KleinBottle(): [1 / 8, 1 / 8, 1 / 2, 1 / 4, 1 / 4],
        Torus(2): [1 / 2] * 4,
        Sphere(2): [1 / 3] * 3,
        Euclidean(2): [1.0] * 2,
        Circle(): [1 / 2] * 2,
    }[manifold]
    assert_close(second, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-7)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: DeepFilterPrior(3, rank=-1), ValueError, "rank >= 0, got 3, 64 and -1"),
        (
            lambda: _prior().encode(torch.zeros(5, 5)),
            ValueError,
            r"ends in \(3, 3\), got \(5, 5\)",
        ),
        (lambda: _prior().hierarchical(torch.zeros(4)), ValueError, r"ends in \(3, 3\)"),
        (lambda: _prior().rescale(0.0), ValueError, "factor > 0, got 0.0"),
        (lambda: _prior().marginal(7), ValueError, "even and >= 4, got 7"),
        (lambda: _prior(MoebiusBand()).marginal(), NotImplementedError, "by an ELBO"),
        (lambda: DeepPriorGuide(print, AutoNormal, {"w": 3}), TypeError, "for 'w', got int"),
    ],
)
def test_wrong_arguments_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 1.5}, r"in \(0, 1\), got 1.5"),
        ({"validation": torch.zeros(4, 5, 5)}, r"validation of shape \(n, 3, 3\)"),
        ({"points": torch.zeros(5, 2)}, r"points of shape \(8, 2\), got \(5, 2\)"),
        ({"steps": 0}, "steps >= 1, got 0"),
        ({"start_steps": -1}, "start_steps >= 0, got -1"),
    ],
)
def test_wrong_arguments_of_the_training_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        fit_deep_filter_prior(DeepFilterPrior(3), torch.randn(8, 3, 3), **options)


def test_filters_that_are_not_finite_are_refused():
    filters = torch.full((8, 3, 3), math.nan)
    with pytest.raises(ValueError, match="fit_deep_filter_prior: expected finite filters"):
        fit_deep_filter_prior(DeepFilterPrior(3), filters, start_steps=0, progress=False)


@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_an_elbo_that_is_not_finite_is_an_error():
    options = {"start_steps": 0, "learning_rate": 1e30, "progress": False}
    message = "fit_deep_filter_prior: expected a finite loss, got .* lower the learning rate"
    with pyro.validation_enabled(False), pytest.raises(FloatingPointError, match=message):
        fit_deep_filter_prior(DeepFilterPrior(3, hidden=8), torch.randn(8, 3, 3), **options)


def test_a_guide_of_other_weights_is_told_so():
    _, prior, model, _, x, y = _convolutional()
    guide = DeepPriorGuide(
        model, AutoNormal, dict.fromkeys(("0.weight", "2.weight", "conv"), prior)
    )
    with pytest.raises(ValueError, match="expected a site 'conv' of the guide"):
        guide(x, y)
