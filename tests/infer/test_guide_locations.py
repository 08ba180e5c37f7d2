"""Locations of guides as points of the manifold, for the optimisers of geoopt."""

import copy
import pickle

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import init_to_value
from torch.testing import assert_close

from pyro_manifolds import SO3, Circle, KleinBottle, ManifoldUniform, Sphere, WrappedNormal
from pyro_manifolds.infer.autoguide import AutoWrappedNormal

KLEIN = KleinBottle()


@pytest.mark.parametrize("num_components", [1, 2])
@pytest.mark.parametrize("manifold", [Circle(), Sphere(2), KLEIN, SO3()], ids=repr)
def test_locations_are_trained_by_riemannian_optimisers(manifold, num_components):
    centre = manifold.embed(manifold.unembed(torch.randn(manifold.embed_dim)))
    data = centre.expand(6, -1)

    def model():
        with pyro.plate("data", 6, subsample_size=3) as index:
            z = pyro.sample("z", ManifoldUniform(manifold))
            noisy = dist.Normal(manifold.embed(z), 0.2).to_event(1)
            pyro.sample("x", noisy, obs=data[index])

    guide = AutoWrappedNormal(model, num_components=num_components, location="manifold")
    guide()
    assert isinstance(guide.locs.z, geoopt.ManifoldParameter)
    optim = pyro.optim.PyroOptim(geoopt.optim.RiemannianAdam, {"lr": 0.05})
    svi = SVI(model, guide, optim, Trace_ELBO(4, vectorize_particles=True, max_plate_nesting=1))
    for _ in range(150):
        svi.step()
    assert isinstance(guide.locs.z, geoopt.ManifoldParameter)
    assert manifold.support.check(guide.locs.z.detach()).all()
    assert manifold.dist(guide.median()["z"], manifold.unembed(centre)).median() < 0.15
    assert guide.median()["z"].shape == (6, *manifold.event_shape)


def test_both_locations_are_one_guide():
    def model():
        pyro.sample("z", WrappedNormal(Sphere(2), torch.tensor([0.0, 0.6, 0.8]), 0.4))

    init = init_to_value(values={"z": torch.tensor([0.6, 0.0, 0.8])})
    losses = []
    for location in ("embedded", "manifold"):
        pyro.clear_param_store()
        guide = AutoWrappedNormal(model, init_loc_fn=init, location=location)
        guide()
        pyro.set_rng_seed(0)
        losses.append(Trace_ELBO().loss(model, guide))
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    with pytest.raises(ValueError, match="expected location 'embedded' or 'manifold', got 'flat'"):
        AutoWrappedNormal(model, location="flat")


@pytest.mark.parametrize("location", ["embedded", "manifold"])
def test_guides_are_copied_and_stored(location):
    def model():
        pyro.sample("z", WrappedNormal(Sphere(2), torch.tensor([0.0, 0.6, 0.8]), 0.4))
        pyro.sample("scale", dist.LogNormal(0.0, 1.0))

    guide = AutoWrappedNormal(model, location=location, num_components=2)
    guide()
    expected = guide.median()
    for twin in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        assert_close(twin.median(), expected)
        assert isinstance(twin.locs.z, geoopt.ManifoldParameter) == (location == "manifold")
