"""The hierarchical form of filters has the joint distribution of the marginal one."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_value
from torch.testing import assert_close

from pyro_manifolds import CircleFilter, KleinBottle, KleinFilter, VonMises, WrappedNormal
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam, FilterReparam
from tests.distributions.filter_oracle import klein_grid

REPARAM = {"w": FilterReparam()}
KLEIN = KleinBottle()


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def klein(density=None):
    return KleinFilter(3, number(2.0), 0.6, density)


def density():
    return WrappedNormal(KLEIN, number([0.7, 2.0]), number([0.5, 0.9]))


def sample(prior, obs=None):
    return lambda: pyro.sample("w", prior, obs=obs)


def log_joint(model, values):
    """Log-density of the sites of the reparameterised model, by datum of a plate of nodes."""
    trace = poutine.trace(poutine.condition(poutine.reparam(model, REPARAM), values)).get_trace()
    trace.compute_log_prob()
    assert set(trace.nodes) >= {"w_point", "w"}
    return trace.nodes["w_point"]["log_prob"] + trace.nodes["w"]["log_prob"]


@pytest.mark.parametrize("is_observed", [False, True])
@pytest.mark.parametrize("points", [None, density()], ids=["uniform", "normal"])
def test_over_the_point_the_joint_integrates_to_the_marginal_density(points, is_observed):
    nodes, w = torch.tensor(klein_grid(120, 120)), klein(points).sample()

    def model():
        with pyro.plate("nodes", len(nodes)):
            obs = w.expand(len(nodes), 3, 3) if is_observed else None
            pyro.sample("w", klein(points), obs=obs)

    values = {"w_point": nodes} | ({} if is_observed else {"w": w.expand(len(nodes), 3, 3)})
    total = log_joint(model, values).logsumexp(0) + math.log(2 * math.pi**2 / len(nodes))
    assert_close(total, klein(points).log_prob(w), atol=1e-8, rtol=0)


def test_of_a_circle_too():
    d = CircleFilter(3, number(2.0), 0.6, VonMises(number(1.0), 3.0))
    angles, w = 2 * math.pi * torch.arange(100, dtype=torch.float64) / 100, d.sample()

    def model():
        with pyro.plate("nodes", 100):
            pyro.sample("w", d, obs=w.expand(100, 3, 3))

    total = log_joint(model, {"w_point": angles}).logsumexp(0) + math.log(2 * math.pi / 100)
    assert_close(total, d.log_prob(w), atol=1e-8, rtol=0)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_events_and_plates_keep_their_shapes(depth):
    prior = klein(density()).expand([4, 5]).to_event(depth)

    def model():
        with pyro.plate_stack("layer", (4, 5)[: 2 - depth]):
            return pyro.sample("w", prior)

    trace = poutine.trace(poutine.reparam(model, REPARAM)).get_trace()
    trace.compute_log_prob()
    points, w = trace.nodes["w_point"], trace.nodes["w"]
    assert points["value"].shape == (4, 5, 2)
    assert w["value"].shape == (4, 5, 3, 3)
    batch = (4, 5)[: 2 - depth]
    assert points["log_prob"].shape == w["log_prob"].shape == batch
    given = klein().given(points["value"]).log_prob(w["value"])
    assert_close(w["log_prob"].sum(), given.sum())


def test_masks_hide_both_sites():
    mask = torch.tensor([True, False, True])

    def model():
        with pyro.plate("filters", 3), poutine.mask(mask=mask):
            pyro.sample("w", klein())

    trace = poutine.trace(poutine.reparam(model, REPARAM)).get_trace()
    trace.compute_log_prob()
    for name in ("w_point", "w"):
        assert (trace.nodes[name]["log_prob"] != 0).equal(mask)


def test_draws_of_both_forms_are_alike():
    d = klein(density())
    model = poutine.reparam(sample(d.expand([40_000]).to_event(1)), REPARAM)
    w = model().flatten(-2)
    products = (w.unsqueeze(-1) * w.unsqueeze(-2)).flatten(1)
    error = 5 * products.std(0) / 200
    assert bool(((products.mean(0) - d.covariance_matrix.flatten()).abs() < error).all())


@pytest.mark.parametrize("kind", [Trace_ELBO, TraceMeanField_ELBO])
def test_the_bound_is_below_the_marginal_density_and_near_it(kind):
    w = klein(density()).sample()
    model = poutine.reparam(sample(klein(density()), w), REPARAM)
    guide = AutoWrappedNormal(model)
    svi = SVI(
        model,
        guide,
        pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}),
        kind(8, 0, vectorize_particles=True),
    )
    for _ in range(150):
        svi.step()
    losses = torch.tensor(
        [kind(200, 0, vectorize_particles=True).loss(model, guide) for _ in range(10)]
    )
    gap = losses.mean() + klein(density()).log_prob(w)
    assert gap > -5 * losses.std() / 10**0.5
    assert gap < 1.5  # of a posterior that may have two modes, of which the guide has one


def test_both_sites_are_guided():
    datum = 0.5 * torch.randn(4, 3, 3)

    def model():
        w = pyro.sample("w", KleinFilter(3, 2.0, 0.6).expand([4]).to_event(1))
        pyro.sample("x", dist.Normal(w, 0.5).to_event(3), obs=datum)

    free = poutine.reparam(model, REPARAM)
    moved = AutoManifoldReparam()(free)
    for program, guide in [(free, AutoWrappedNormal(free)), (moved, AutoNormal(moved))]:
        pyro.clear_param_store()
        svi = SVI(program, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        losses = [svi.step() for _ in range(100)]
        assert sum(losses[-20:]) < sum(losses[:20])
        draws = Predictive(program, guide=guide, num_samples=3)()
        assert draws["w"].shape == (3, 4, 3, 3)
        assert draws["w_point"].shape == (3, 4, 2)


@pytest.mark.slow
def test_chains_have_the_posterior_of_the_point():
    """Up to the sign of the filter, between which the data do not decide."""
    torch.set_default_dtype(torch.float64)
    d = KleinFilter(3, 2.0, 0.6)
    w = 3 * d.family(torch.tensor([1.0, 1.2])) + 0.2 * torch.randn(3, 3)
    model = AutoManifoldReparam()(poutine.reparam(sample(d, w), REPARAM))
    kernel = NUTS(model, max_tree_depth=4)
    mcmc = MCMC(kernel, num_samples=150, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    points = Predictive(model, mcmc.get_samples(), return_sites=["w_point"])()["w_point"]
    nodes = torch.tensor(klein_grid(120, 120))
    found, exact = (d.family(z).flatten(-2) for z in (points.reshape(-1, 2), nodes))
    weights = d.log_posterior(w, nodes).softmax(0).unsqueeze(-1)
    second = exact.mT @ (weights * exact)
    assert second.abs().max() > 0.08
    assert_close(found.mT @ found / len(found), second, atol=0.03, rtol=0)


def test_values_can_be_given_and_started_from():
    point, w = torch.tensor([0.5, 1.0]), torch.ones(3, 3)
    model = poutine.reparam(sample(KleinFilter(3, 2.0, 0.6)), REPARAM)
    for values in ({"w_point": point}, {"w": w}, {"w_point": point, "w": w}):
        for program in (
            poutine.condition(model, values),
            poutine.reparam(poutine.condition(sample(KleinFilter(3, 2.0, 0.6)), values), REPARAM),
        ):
            nodes = poutine.trace(program).get_trace().nodes
            if "w" in values:
                assert torch.equal(nodes["w"]["value"], w)
                assert nodes["w"]["is_observed"]
    start = init_to_value(values={"w_point": point, "w": w})
    guide = AutoWrappedNormal(model, init_loc_fn=start)
    guide()
    assert_close(guide.median()["w"], w)
    assert_close(KLEIN.projx(guide.median()["w_point"]), KLEIN.projx(point))


def test_parameters_of_the_density_are_learned_through_the_points():
    """Edges in one direction are found again."""
    edges = KleinFilter(3, 4.0, 0.3).given(torch.tensor([1.0, math.pi / 2])).sample((60,))

    def model():
        loc = pyro.param("loc", torch.tensor([0.6, 1.2]))
        with pyro.plate("filters", 60):
            prior = KleinFilter(3, 4.0, 0.3, WrappedNormal(KLEIN, loc, torch.tensor(0.3)))
            pyro.sample("w", prior, obs=edges)

    free = poutine.reparam(model, REPARAM)
    guide = AutoWrappedNormal(free)
    svi = SVI(
        free, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(4, 1, vectorize_particles=True)
    )
    for _ in range(150):
        svi.step()
    assert abs(pyro.param("loc")[0] - 1.0) < 0.2


def test_other_distributions_are_refused():
    model = poutine.reparam(sample(dist.Normal(0.0, 1.0)), REPARAM)
    with pytest.raises(TypeError, match="KleinFilter or CircleFilter at site 'w', got Normal"):
        model()
    masked = poutine.reparam(sample(klein().mask(torch.tensor(True))), REPARAM)
    with pytest.raises(TypeError, match="got MaskedDistribution; mask the site by poutine.mask"):
        masked()
