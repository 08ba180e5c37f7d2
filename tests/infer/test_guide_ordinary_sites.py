"""Sites that are on no manifold, in the guide of wrapped normals: bounds under every ELBO."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal, init_to_feasible, init_to_mean, init_to_value
from torch.distributions import biject_to, transform_to
from torch.testing import assert_close

from pyro_manifolds.infer.autoguide import AutoWrappedNormal


def test_ordinary_sites_are_guided_as_by_pyro_without_the_detour():
    def model():
        pyro.sample("scale", dist.LogNormal(0.5, 0.3))
        pyro.sample("simplex", dist.Dirichlet(torch.ones(3)))

    ours = AutoWrappedNormal(model, init_loc_fn=init_to_feasible)
    theirs = AutoNormal(model)
    for guide in (ours, theirs):
        guide()
    for guide in (ours, theirs):
        pyro.set_rng_seed(3)
        guide.draws = poutine.trace(guide).get_trace()
        guide.draws.compute_log_prob()
    assert ours.draws.stochastic_nodes == ["scale", "simplex"]
    for name in ours.draws.stochastic_nodes:
        auxiliary, point = theirs.draws.nodes[f"{name}_unconstrained"], theirs.draws.nodes[name]
        assert_close(ours.draws.nodes[name]["value"], point["value"])
        both = auxiliary["log_prob"] + point["log_prob"]
        assert_close(ours.draws.nodes[name]["log_prob"], both)
    assert_close(ours.median(), theirs.median())
    assert_close(ours.quantiles([0.1, 0.9]), theirs.quantiles([0.1, 0.9]))


ORDINARY = {
    "normal": dist.Normal(torch.ones(2), 2.0),
    "log-normal": dist.LogNormal(torch.ones(2), 0.5),
    "gamma": dist.Gamma(torch.tensor([2.0, 3.0]), 1.0),
    "beta": dist.Beta(torch.tensor([2.0, 3.0]), 2.0),
    "uniform": dist.Uniform(torch.zeros(2), 3.0),
    "events": dist.HalfNormal(torch.ones(2, 3)).to_event(1),
    "simplex": dist.Dirichlet(2 * torch.ones(2, 3)),
    "cholesky": dist.LKJCholesky(3, torch.tensor([2.0, 3.0])),
}


@pytest.mark.parametrize("law", ORDINARY.values(), ids=list(ORDINARY))
def test_the_bound_of_an_ordinary_site_is_one_under_every_elbo(law):
    """A point mass, as in AutoNormal, hides its Jacobian from TraceMeanField_ELBO."""

    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", law)

    guide = AutoWrappedNormal(model, init_scale=0.7)
    assert guide()["z"].shape == law.batch_shape + law.event_shape
    posterior = guide.get_posterior("z")
    assert (posterior.batch_shape, posterior.event_shape) == (law.batch_shape, law.event_shape)
    losses = []
    for kind in (Trace_ELBO, TraceMeanField_ELBO):
        elbo = kind(num_particles=2000, vectorize_particles=True, max_plate_nesting=1)
        with torch.no_grad():
            losses.append(torch.tensor([elbo.loss(model, guide) for _ in range(8)]))
    error = 5 * sum(x.std() for x in losses) / 8**0.5 + 1e-4
    assert abs(losses[0].mean() - losses[1].mean()) < error
    assert losses[1].mean() > -error


def test_divergences_in_closed_form_are_used():
    guide = AutoWrappedNormal(
        lambda: pyro.sample("y", dist.Normal(torch.ones(3), 0.3).to_event(1)),
        init_loc_fn=init_to_mean,
    )
    guide()
    # Three normals of standard deviations .1 and .3 around the same mean.
    expected = 3 * (math.log(3) + (1 / 9 - 1) / 2)
    assert TraceMeanField_ELBO().loss(guide.model, guide) == pytest.approx(expected, rel=1e-5)


def test_the_density_is_not_lost_where_the_inverse_is():
    guide = AutoWrappedNormal(
        lambda: pyro.sample("z", dist.Beta(torch.tensor(2.0), 2.0)),
        init_loc_fn=init_to_value(values={"z": torch.tensor(0.5)}),
        init_scale=1e-3,
    )
    guide()
    guide.locs.z = torch.tensor(15.0)  # the sigmoid is rounded, and its inverse is off by .01
    found = poutine.trace(guide).get_trace()
    found.compute_log_prob()
    noise = torch.distributions.Normal(15.0, 1e-3)
    # At most the density of the normal, over the slope of the sigmoid.
    assert found.nodes["z"]["log_prob"] < noise.log_prob(torch.tensor(15.0)) + 15.01
    assert found.nodes["z"]["log_prob"] > noise.log_prob(torch.tensor(15.005)) + 14.99


def test_a_transform_that_cannot_remember_is_taken_as_it_is():
    class Doubled(torch.distributions.Transform):
        domain = codomain = torch.distributions.constraints.real
        bijective = True

        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def _call(self, x):
            return self.factor * x

        def _inverse(self, y):
            return y / self.factor

        def log_abs_det_jacobian(self, x, y):
            return torch.full_like(x, math.log(self.factor))

    class Line(torch.distributions.constraints._Real):
        pass

    biject_to.register(Line, lambda _: Doubled(2.0))
    transform_to.register(Line, lambda _: Doubled(2.0))

    class Law(dist.Normal):
        support = Line()

    guide = AutoWrappedNormal(lambda: pyro.sample("z", Law(1.0, 2.0)))
    assert guide()["z"].isfinite()
    assert guide.get_posterior("z").base_dist.loc * 2 == guide.median()["z"]
