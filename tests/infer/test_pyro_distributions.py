"""Sites of Pyro's own distributions on circles, tori and spheres, in every algorithm."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, JitTrace_ELBO, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoMultivariateNormal,
    AutoNormal,
    init_to_feasible,
    init_to_mean,
    init_to_sample,
    init_to_value,
)
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, Sphere, Torus, VonMises, WrappedNormal
from pyro_manifolds.distributions.adoption import adopt, manifold_of
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam, ManifoldReparam


def bivariate(*shape):
    angles = torch.tensor([0.5, 3.0]).expand(*shape, 2)
    return dist.SineBivariateVonMises(
        angles[..., 0], angles[..., 1], torch.tensor(2.0), torch.tensor(0.7), correlation=0.5
    )


def mixture(*shape):
    weights = dist.Categorical(torch.tensor([0.3, 0.7]).expand(*shape, 2))
    poles = torch.tensor([0.5, 3.0]).expand(*shape, 2)
    return dist.MixtureSameFamily(weights, dist.VonMises(poles, 2.0))


def skewed(*shape):
    base = dist.VonMises(torch.full((*shape, 1), 3.0), 2.0).to_event(1)
    return dist.SineSkewed(base, torch.tensor([0.6]))


LAWS = {
    "von-mises": lambda *shape: dist.VonMises(torch.full(shape, 3.0), 2.0),
    "mixture": mixture,
    "sine-bivariate": bivariate,
    "sine-skewed": skewed,
    "projected-normal": lambda *shape: dist.ProjectedNormal(
        torch.tensor([0.3, -1.0, 0.5]).expand(*shape, 3)
    ),
    "von-mises-3d": lambda *shape: dist.VonMises3D(
        torch.tensor([0.3, -1.0, 2.5]).expand(*shape, 3)
    ),
}
every = pytest.mark.parametrize("make", LAWS.values(), ids=list(LAWS))


def trace(model, *args):
    return poutine.trace(model).get_trace(*args)


def moved(model, repulsion=2.0):
    return poutine.reparam(model, config=AutoManifoldReparam(repulsion))


def loss_of(model, guide, size=4000, nesting=1, kind=Trace_ELBO):
    elbo = kind(num_particles=size, vectorize_particles=True, max_plate_nesting=nesting)
    with torch.no_grad():
        return elbo.loss(model, guide)


def train(model, guide, kind=Trace_ELBO, steps=60, nesting=1):
    guide()
    elbo = kind(num_particles=8, vectorize_particles=True, max_plate_nesting=nesting)
    optim = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.05 ** (1 / steps)})
    svi = SVI(model, guide, optim, elbo)
    losses = [svi.step() for _ in range(steps)]
    assert all(map(math.isfinite, losses))
    return loss_of(model, guide, nesting=nesting, kind=kind)


# Moved to the ambient space.


@every
def test_the_joint_density_is_that_of_pyro(make):
    law = make(4)
    nodes = trace(poutine.reparam(lambda: pyro.sample("z", law), {"z": ManifoldReparam()})).nodes
    y, noise = nodes["z"]["value"], nodes["z_noise"]["value"]
    manifold = manifold_of(law)
    assert_close(y, manifold.projx(y))
    assert noise.shape == (4, manifold.embed_dim)
    factor = manifold.log_repulsion(noise, 2.0) - manifold.log_prob_unembed(y)
    assert_close(nodes["z"]["fn"].log_prob(y), law.log_prob(y) + factor, atol=2e-4, rtol=1e-4)


@every
def test_plates_events_masks_and_scales_are_kept(make):
    mask = torch.tensor([True, False, True])

    def model(wrapped):
        with pyro.plate("data", 3, dim=-1), poutine.mask(mask=mask), poutine.scale(scale=2.0):
            law = make(3, 2).to_event(1) if wrapped else make()
            pyro.sample("z", law)

    for wrapped in (False, True):
        found = trace(moved(model), wrapped)
        found.compute_log_prob()
        assert found.stochastic_nodes == ["data", "z_noise"]
        for name in ("z", "z_noise"):
            site = found.nodes[name]
            assert ((site["log_prob"] != 0) == mask).all()
            assert_close(site["log_prob"], 2 * site["unscaled_log_prob"] * mask)


@every
def test_guides_of_pyro_run_and_their_bound_holds(make):
    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", make())

    for init in (init_to_feasible, init_to_sample, init_to_mean):
        pyro.clear_param_store()
        guide = AutoNormal(moved(model), init_loc_fn=init, init_scale=0.5)
        guide()
        assert loss_of(moved(model), guide) > -0.02
    assert train(moved(model), AutoMultivariateNormal(moved(model), init_scale=0.5)) > -0.02
    draws = Predictive(moved(model), guide=guide, num_samples=5)()["z"]
    assert manifold_of(make()).support.check(draws).all()


def test_no_draw_is_needed():
    class Silent(dist.VonMises):
        def sample(self, sample_shape=torch.Size()):
            raise AssertionError("drawn")

    for law in (Silent(torch.zeros(3), 1.0), dist.VonMises3D(torch.ones(3, 3))):
        model = poutine.reparam(lambda law=law: pyro.sample("z", law), {"z": ManifoldReparam()})
        assert trace(model).nodes["z"]["value"].shape == law.batch_shape + law.event_shape


def test_initial_values_land_exactly():
    value = torch.tensor([9.0, -0.5])

    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", dist.VonMises(0.0, 1.0))

    init = init_to_value(values={"z": value})
    for guide in (
        AutoNormal(moved(model), init_loc_fn=init),
        AutoWrappedNormal(model, init_loc_fn=init),
    ):
        pyro.clear_param_store()
        guide()
        found = guide.median()
        angle = Circle().unembed(found["z_noise"]) if "z_noise" in found else found["z"]
        assert_close(angle, Circle().projx(value), atol=1e-5, rtol=0)


def test_observed_ordinary_and_bijective_sites_are_left_alone():
    def model():
        kappa = pyro.sample("kappa", dist.LogNormal(0.0, 1.0))
        centre = pyro.sample("centre", dist.VonMises(0.0, 1.0))
        pyro.sample("masked", dist.Normal(0.0, 1.0).mask(False))
        pyro.sample("x", dist.VonMises(centre, kappa), obs=torch.tensor(1.0))

    found = trace(moved(model))
    assert set(found.stochastic_nodes) == {"kappa", "masked", "centre_noise"}
    assert isinstance(found.nodes["x"]["fn"], dist.VonMises)
    given = poutine.condition(model, {"centre": torch.tensor(0.0)})
    given = poutine.reparam(given, {"centre": ManifoldReparam()})
    with pytest.raises(NotImplementedError, match="'centre' is observed"):
        trace(given)


def test_masked_laws_are_refused_by_name():
    model = moved(lambda: pyro.sample("z", dist.VonMises(0.0, 1.0).mask(torch.tensor(True))))
    with pytest.raises(TypeError, match="'z' is MaskedDistribution.*poutine.mask"):
        trace(model)


def test_nuts_draws_angles_of_pyro():
    torch.set_default_dtype(torch.float64)

    def model():
        pyro.sample("z", dist.VonMises(torch.tensor(3.1), 5.0))

    model = moved(model)
    mcmc = MCMC(NUTS(model, max_tree_depth=4), 200, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    assert not mcmc.diagnostics()["divergences"]["chain 0"]
    draws = Predictive(model, mcmc.get_samples(), return_sites=["z"])()["z"]
    # The resultant is .8934 in the direction of 3.1.
    assert_close(draws.cos().mean().item(), 0.8934 * math.cos(3.1), atol=0.06, rtol=0)


# Guided on the manifold.


@every
@pytest.mark.parametrize("num_components", [1, 2])
def test_the_guide_on_the_manifold_fits(make, num_components):
    manifold = manifold_of(make())

    def model():
        with pyro.plate("data", 2):
            pyro.sample("z", make())

    guide = AutoWrappedNormal(model, init_scale=0.15, num_components=num_components)
    assert guide()["z"].shape == (2, *manifold.event_shape)
    assert -0.05 < train(model, guide) < 1.5
    assert guide.get_posterior("z").support == manifold.support
    if num_components == 1:
        assert loss_of(model, guide, kind=TraceMeanField_ELBO) > -0.05
        assert math.isfinite(JitTrace_ELBO(ignore_jit_warnings=True).loss(model, guide))


def test_events_of_several_points_are_seen_through():
    def model():
        pyro.sample("z", dist.VonMises(torch.zeros(3), 2.0).to_event(1))
        with pyro.plate("data", 2):
            pyro.sample("y", bivariate(2, 3).to_event(1))

    guide = AutoWrappedNormal(model)
    assert {name: value.shape for name, value in guide().items()} == {"z": (3,), "y": (2, 3, 2)}
    assert guide.get_posterior("z").base_dist.manifold == Circle()
    assert guide.get_posterior("y").base_dist.manifold == Torus(2)
    assert guide.scales.y.shape == (2, 3, 2)


def test_conditioned_and_replayed_sites_keep_their_values():
    def model():
        centre = pyro.sample("centre", dist.VonMises(0.0, 1.0))
        pyro.sample("x", dist.VonMises(centre, 4.0))

    conditioned = poutine.condition(model, {"x": torch.tensor(1.0)})
    guide = AutoWrappedNormal(conditioned)
    assert list(guide()) == ["centre"]
    drawn = trace(guide)
    replayed = trace(poutine.replay(conditioned, drawn))
    assert replayed.nodes["centre"]["value"] is drawn.nodes["centre"]["value"]
    assert replayed.nodes["x"]["value"] == 1.0
    assert isinstance(replayed.nodes["centre"]["fn"], dist.VonMises)


# The model of pyro-ppl/pyro#2740.


def test_diffuse_angles_give_a_bound_at_last():
    """Without data minus the bound is at least zero; a normal on the real line goes below."""

    def model():
        pyro.sample("theta", dist.VonMises(torch.tensor(0.0), 0.5))

    assert train(model, AutoNormal(model, init_scale=1.0), steps=400, nesting=0) < -0.3
    pyro.clear_param_store()
    guide = AutoNormal(moved(model, 0.0), init_scale=0.5)
    assert -0.01 < train(moved(model, 0.0), guide, steps=150, nesting=0) < 0.06
    pyro.clear_param_store()
    guide = AutoWrappedNormal(model)
    assert -0.01 < train(model, guide, steps=150, nesting=0) < 0.03


@pytest.mark.parametrize(
    "kind", [AutoManifoldReparam, AutoWrappedNormal], ids=lambda k: k.__name__
)
def test_ours_and_pyros_are_treated_alike(kind):
    ours, theirs = VonMises(torch.zeros(3), 2.0), dist.VonMises(torch.zeros(3), 2.0)
    found = []
    for law in (ours, theirs):
        pyro.clear_param_store()
        pyro.set_rng_seed(1)
        init = init_to_value(values={"z": torch.ones(3)})

        def model(law=law):
            with pyro.plate("data", 3):
                pyro.sample("z", law)

        if kind is AutoManifoldReparam:
            model = moved(model)
            guide = AutoNormal(model, init_loc_fn=init)
        else:
            guide = AutoWrappedNormal(model, init_loc_fn=init)
        guide()
        found.append(Trace_ELBO().loss(model, guide))
    assert found[0] == pytest.approx(found[1], abs=1e-4)
    assert adopt(theirs).log_prob(torch.zeros(3)).shape == (3,)


def test_mixtures_of_ours_are_seen_through():
    components = WrappedNormal(KleinBottle(), torch.tensor([[0.5, 1.0], [2.0, -2.0]]), 0.3)
    law = dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), components)

    def model():
        pyro.sample("z", law)

    found = trace(moved(model))
    assert found.stochastic_nodes == ["z_noise"]
    guide = AutoWrappedNormal(model)
    assert KleinBottle().support.check(guide()["z"])


def test_other_laws_of_directions_live_on_their_sphere():
    class Cap(dist.TorchDistribution):
        arg_constraints = {}
        support = dist.constraints.sphere

        def log_prob(self, value):
            return value.sum(-1)

        def sample(self, sample_shape=torch.Size()):
            return Sphere(2).random_uniform(*sample_shape, 3).as_subclass(torch.Tensor)

    law = Cap(torch.Size(), torch.Size([3]), validate_args=False)
    model = moved(lambda: pyro.sample("z", law))
    found = trace(model)
    assert found.stochastic_nodes == ["z_noise"]
    y, noise = found.nodes["z"]["value"], found.nodes["z_noise"]["value"]
    expected = y.sum() + math.log(4 * math.pi) + Sphere(2).log_repulsion(noise, 2.0)
    assert_close(found.nodes["z"]["fn"].log_prob(y), expected)
