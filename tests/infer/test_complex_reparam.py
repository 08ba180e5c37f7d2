"""Complex sites moved to their real and imaginary parts."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Predictive
from pyro.infer.autoguide import AutoLaplaceApproximation
from pyro.infer.autoguide.initialization import InitMessenger, init_to_value
from pyro.infer.reparam import LocScaleReparam
from torch.testing import assert_close

from pyro_manifolds import ManifoldUniform, Sphere
from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal
from pyro_manifolds.distributions.real_view import RealView, real_view
from pyro_manifolds.infer.reparam import AutoManifoldReparam, ComplexReparam

REPARAM = {"z": ComplexReparam()}
LOC = torch.tensor([0.3 - 0.4j, 1.0, -0.2j])
RHO = torch.tensor([0.5 - 0.3j, 0.0, -0.7j])
ROOT = torch.tensor([[1.2, 0, 0], [0.4 - 0.3j, 0.7, 0], [0.1j, 0.2, 0.9]])
DATUM = torch.ones(3) + 1j

LAWS = {
    "proper": ComplexNormal(LOC, 0.7).to_event(1),
    "improper": ComplexNormal(LOC, 0.7, RHO).to_event(1),
    "multivariate": ComplexMultivariateNormal(LOC, scale_tril=ROOT),
    "masked": ComplexNormal(LOC, 0.7).mask(torch.tensor([True, False, True])).to_event(1),
}
each = pytest.mark.parametrize("law", LAWS.values(), ids=LAWS)


def model_of(law):
    def model():
        z = pyro.sample("z", law)
        pyro.sample("x", ComplexNormal(z, 0.5).to_event(1), obs=DATUM)
        return z

    return model


@each
def test_the_joint_density_is_the_same(law):
    model = model_of(law)
    moved = poutine.trace(poutine.reparam(model, REPARAM)).get_trace()
    moved.compute_log_prob()
    assert list(moved.stochastic_nodes) == ["z_ri"]
    z = moved.nodes["z"]["value"]
    assert_close(torch.view_as_real(z), moved.nodes["z_ri"]["value"])
    plain = poutine.trace(poutine.condition(model, {"z": z})).get_trace()
    assert_close(moved.log_prob_sum(), plain.log_prob_sum())
    assert not moved.log_prob_sum().is_complex()


@each
def test_views_have_the_density_and_the_draws_of_the_law(law):
    view = real_view(law)
    x = view.sample((2, 5))
    assert x.shape == (2, 5, 3, 2)
    assert view.event_shape == (3, 2)
    assert view.support.check(x).all()
    assert_close(view.log_prob(x), law.log_prob(torch.view_as_complex(x)))
    wide = view.expand([4])
    assert wide.batch_shape == (4,)
    assert type(wide) is type(view)
    assert_close(wide.log_prob(x[0, 0]), view.log_prob(x[0, 0]).expand(4))
    draws = torch.view_as_complex(view.rsample((40_000,)))
    assert_close(draws.mean(0), LOC, atol=0.04, rtol=0)
    # E w^2 tells the improper from the proper.
    own = law.sample((40_000,))
    expected = (own - LOC).unsqueeze(-1) * (own - LOC).unsqueeze(-2)
    found = (draws - LOC).unsqueeze(-1) * (draws - LOC).unsqueeze(-2)
    assert_close(found.mean(0), expected.mean(0), atol=0.08, rtol=0)


@pytest.mark.parametrize("name", ["proper", "improper", "multivariate"])
def test_views_keep_means_and_entropies(name):
    view = real_view(LAWS[name])
    assert_close(view.mean, torch.view_as_real(LOC))
    assert_close(view.entropy(), LAWS[name].entropy())


def test_the_parts_of_a_proper_number_are_normal():
    view = real_view(LAWS["proper"])
    assert isinstance(view.base_dist, dist.Normal)
    assert view.batch_shape == ()
    assert isinstance(real_view(LAWS["improper"]), RealView)
    trace = poutine.trace(
        poutine.reparam(
            poutine.reparam(model_of(LAWS["proper"]), REPARAM), {"z_ri": LocScaleReparam(0.0)}
        )
    )
    # What Pyro does to normal sites it does to the parts.
    assert list(trace.get_trace().stochastic_nodes) == ["z_ri_decentered"]


def test_views_are_of_complex_distributions_only():
    with pytest.raises(TypeError, match="RealView: expected a distribution of complex numbers"):
        RealView(dist.Normal(0.0, 1.0))


def test_plates_scales_and_masks():
    mask = torch.tensor([True, False, True, True])

    def model():
        with pyro.plate("data", 8, subsample_size=4), poutine.mask(mask=mask):
            return pyro.sample("z", LAWS["improper"])

    trace = poutine.trace(poutine.reparam(model, REPARAM)).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["z_ri"]
    assert trace.nodes["_RETURN"]["value"].shape == (4, 3)
    assert site["fn"].batch_shape == (4,)
    expected = LAWS["improper"].log_prob(trace.nodes["z"]["value"])[mask].sum()
    assert_close(site["log_prob_sum"], 2 * expected)
    assert trace.nodes["z"]["log_prob_sum"] == 0


def test_draws_in_parallel_are_draws_one_by_one():
    moved = poutine.reparam(model_of(LAWS["proper"]), REPARAM)
    for parallel in (False, True):
        draws = Predictive(moved, num_samples=6, parallel=parallel)()
        assert draws["z_ri"].flatten(1).shape == (6, 6)
        assert_close(torch.view_as_real(draws["z"]), draws["z_ri"])


def test_observed_sites_are_left_as_they_are():
    def model():
        pyro.sample("z", LAWS["proper"], obs=DATUM)

    trace = poutine.trace(poutine.reparam(model, REPARAM)).get_trace()
    assert list(trace.observation_nodes) == ["z"]
    assert trace.nodes["z"]["value"] is DATUM
    assert_close(trace.log_prob_sum(), LAWS["proper"].log_prob(DATUM))


def test_initial_values_are_those_of_the_site():
    moved = poutine.reparam(model_of(LAWS["proper"]), REPARAM)
    with InitMessenger(init_to_value(values={"z": DATUM})):
        trace = poutine.trace(moved).get_trace()
    assert_close(trace.nodes["z"]["value"], DATUM)
    assert_close(trace.nodes["z_ri"]["value"], torch.ones(3, 2))


def test_replayed_parts_outrank_initial_values():
    """As in the Laplace approximation, whose guide holds a model with initial values."""
    guide = AutoLaplaceApproximation(
        poutine.reparam(model_of(LAWS["proper"]), REPARAM),
        init_loc_fn=init_to_value(values={"z": DATUM}),
    )
    guide()
    for _ in range(2):  # twice: the first value must not stay marked
        trace = poutine.trace(guide).get_trace()
        nodes = poutine.trace(poutine.replay(guide.model, trace=trace)).get_trace().nodes
        assert_close(torch.view_as_real(nodes["z"]["value"]), trace.nodes["z_ri"]["value"])
        with torch.no_grad():
            guide.loc += 1


def test_other_sites_are_refused_by_name():
    def model():
        pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(TypeError, match="ComplexReparam: expected site 'z' .* got Normal"):
        poutine.reparam(model, REPARAM)()


def test_one_line_serves_all_sites_of_a_model():
    @AutoManifoldReparam()
    def model():
        z = pyro.sample("z", LAWS["multivariate"])
        pyro.sample("direction", ManifoldUniform(Sphere(2)))
        pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        pyro.sample("x", ComplexNormal(z, 0.5).to_event(1), obs=DATUM)

    nodes = poutine.trace(model).get_trace().stochastic_nodes
    assert sorted(nodes) == ["direction_noise", "scale", "z_ri"]
