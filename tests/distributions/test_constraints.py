"""Supports of manifolds and the ways that Pyro takes in and out of them."""

import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.nn import PyroModule, PyroParam
from torch.distributions import biject_to, transform_to
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Euclidean,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    MoebiusBand,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
)
from pyro_manifolds.distributions.constraints import OnManifold, on_manifold
from pyro_manifolds.distributions.transforms import Unembed

COMPACT = [
    *(Circle(), Torus(2), KleinBottle(), MoebiusBand(0.5), Sphere(2), ProjectiveSpace(2), SO3()),
    *(LensSpace(5, 2), Product(Circle(), Sphere(2))),
]
compact = pytest.mark.parametrize("manifold", COMPACT, ids=repr)


@compact
def test_accepts_points_and_refuses_nan_and_infinity(manifold):
    y = ManifoldUniform(manifold).sample((5,))
    constraint = manifold.support
    assert constraint.event_dim == manifold.ndim
    assert constraint.check(y).tolist() == [True] * 5
    for bad in (math.nan, math.inf):
        spoiled = y.clone()
        spoiled[0].fill_(bad) if y.dim() > 1 else spoiled[:1].fill_(bad)
        assert constraint.check(spoiled).tolist() == [False] + [True] * 4


def test_accepts_every_representative_of_a_flat_point_but_none_beyond_an_edge():
    assert KleinBottle().support.check(torch.tensor([50.0, -70.0]))
    assert Circle().support.check(torch.tensor(100.0))
    band = MoebiusBand(0.5).support
    assert band.check(torch.tensor([[9.0, 0.4], [9.0, 0.5], [0.0, -0.6]])).tolist() == [1, 0, 0]


def test_points_near_the_sphere_pass_within_the_resolution_and_others_fail():
    x = torch.nn.functional.normalize(torch.randn(100, 3), dim=-1)
    assert Sphere(2).support.check(x).all()
    assert not Sphere(2).support.check(1.001 * x).any()


@compact
def test_wrong_event_shapes_raise(manifold):
    with pytest.raises(ValueError, match="expected value of a shape that ends in"):
        Product(manifold, Circle()).support.check(torch.zeros(1))


@compact
def test_equality_hash_pickle_and_name_are_those_of_the_manifold(manifold):
    constraint = manifold.support
    twin = pickle.loads(pickle.dumps(constraint))
    assert twin == constraint == on_manifold(manifold) == OnManifold(manifold)
    assert hash(twin) == hash(constraint)
    # Pyro mistakes supports with "sphere" in their name for its own.
    assert repr(constraint) == f"on_manifold({manifold})".replace("Sphere", "Sph")
    assert sum(constraint == other.support for other in COMPACT) == 1


@compact
def test_transform_to_maps_any_ambient_vector_to_a_point(manifold):
    transform = transform_to(manifold.support)
    assert transform == Unembed(manifold)
    assert transform.with_cache() == transform
    a = torch.randn(7, manifold.embed_dim)
    y = transform(a)
    assert manifold.support.check(y).all()
    assert transform.forward_shape(a.shape) == y.shape
    assert transform.inverse_shape(y.shape) == a.shape
    gap = manifold.dist(transform(transform.inv(y)), y)
    assert_close(gap, torch.zeros(7), rtol=0, atol=1e-3)
    with pytest.raises(NotImplementedError, match="no density"):
        transform.log_abs_det_jacobian(a, y)


@compact
def test_biject_to_names_the_two_ways_round(manifold):
    with pytest.raises(NotImplementedError, match="ManifoldReparam.*AutoWrappedNormal"):
        biject_to(manifold.support)


def test_a_euclidean_space_is_its_own_chart():
    chart, y = biject_to(Euclidean(2).support), torch.tensor([1.0, -2.0])
    assert chart.codomain.event_dim == 1
    assert_close(chart(y), y)
    assert chart.log_abs_det_jacobian(y, y) == 0
    assert_close(transform_to(Euclidean(2).support)(y), y)


@compact
def test_pyro_parameters_live_on_the_manifold_while_they_are_optimised(manifold):
    start, target = ManifoldUniform(manifold).sample((2,))
    pyro.param("point", start.clone(), constraint=manifold.support)
    optimiser = torch.optim.SGD([pyro.param("point").unconstrained()], lr=0.05)
    before = manifold.dist(start, target)
    for _ in range(10):
        optimiser.zero_grad()
        manifold.dist(pyro.param("point"), target).square().backward()
        optimiser.step()
    point = pyro.param("point").detach()
    assert manifold.support.check(point)
    assert manifold.dist(point, target) < before

    module = PyroModule()
    module.point = PyroParam(start, constraint=manifold.support)
    assert manifold.dist(module.point.detach(), start) < 1e-3


def test_independent_and_stacked_constraints_compose():
    law = ManifoldUniform(KleinBottle()).expand((3,)).to_event(1)
    assert law.support.event_dim == 2
    value = torch.zeros(4, 3, 2)
    value[1, 2, 0] = math.nan
    assert law.support.check(value).tolist() == [True, False, True, True]
    stacked = dist.constraints.stack([Circle().support, dist.constraints.positive], dim=-1)
    assert stacked.check(torch.tensor([[-9.0, 1.0]])).tolist() == [[True, True]]
