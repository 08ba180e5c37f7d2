"""One law through different coverings, full covariances on tori, and what is refused."""

import itertools
import math

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import (
    Circle,
    CoveringPushforward,
    Euclidean,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    MoebiusBand,
    PowerSpherical,
    Product,
    ProjectiveSpace,
    Torus,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.distributions import Concatenated
from pyro_manifolds.distributions.transforms import ComposedCovering

PI = math.pi


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


LOC, SCALE = vector(0.4, -0.8), vector(0.6, 0.9)


def normal(loc=LOC, scale=SCALE):
    return dist.Normal(loc, scale).to_event(1)


def universal_and_orientation():
    klein = KleinBottle()
    return Torus(2).covering.then(klein.orientation_covering)


ROUTES = {  # the same law on the Klein bottle
    "universal": lambda: CoveringPushforward(normal(), KleinBottle().covering),
    "two sheets": lambda: CoveringPushforward(
        WrappedNormal(Torus(2), LOC, SCALE), KleinBottle().orientation_covering
    ),
    "composed": lambda: CoveringPushforward(normal(), universal_and_orientation()),
    "step by step": lambda: CoveringPushforward(
        CoveringPushforward(normal(), Torus(2).covering), KleinBottle().orientation_covering
    ),
    "full covariance, diagonal": lambda: CoveringPushforward(
        dist.MultivariateNormal(LOC, SCALE.square().diag()), universal_and_orientation()
    ),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
def test_one_law_through_different_coverings_has_one_density(route):
    named = WrappedNormal(KleinBottle(), LOC, SCALE)
    value = WrappedNormal(KleinBottle(), LOC, 3.0).sample((200,))
    assert_close(route().log_prob(value), named.log_prob(value), rtol=0, atol=1e-12)


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES.keys())
def test_one_law_through_different_coverings_draws_the_same_points(route):
    torch.manual_seed(3)
    expected = WrappedNormal(KleinBottle(), LOC, SCALE).sample((100,))
    torch.manual_seed(3)
    gap = KleinBottle().dist(route().sample((100,)), expected)
    assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-14)


def test_the_fibre_sum_by_hand_is_the_density():
    q = CoveringPushforward(normal(), KleinBottle().covering)
    value = q.sample((50,))
    lifts = KleinBottle().covering.fibre(value, windings=6)
    expected = normal().log_prob(lifts).logsumexp(0)
    assert_close(q.log_prob(value), expected, rtol=0, atol=1e-12)


def test_a_product_of_circles_is_the_torus():
    pieces = Concatenated(dist.Normal(LOC[0], SCALE[0]), dist.Normal(LOC[1], SCALE[1]))
    product = CoveringPushforward(pieces, Product(Circle(), Circle()).covering)
    torus = WrappedNormal(Torus(2), LOC, SCALE)
    value = WrappedNormal(Torus(2), LOC, 3.0).sample((100,))
    assert_close(product.log_prob(value), torus.log_prob(value), rtol=0, atol=1e-13)


def test_on_a_product_with_a_quotient_the_density_factorises():
    manifold = Product(KleinBottle(), Circle())
    q = CoveringPushforward(
        Concatenated(normal(), dist.Normal(vector(0.2)[0], 0.5)), manifold.covering
    )
    value = q.sample((50,))
    klein = WrappedNormal(KleinBottle(), LOC, SCALE).log_prob(value[:, :2])
    circle = WrappedNormal(Circle(), vector(0.2)[0], 0.5).log_prob(value[:, 2])
    assert_close(q.log_prob(value), klein + circle, rtol=0, atol=1e-13)


def test_on_a_projective_space_both_signs_count():
    base = PowerSpherical(vector(0.0, 0.6, 0.8), 5.0)
    q = CoveringPushforward(base, ProjectiveSpace(2).covering)
    x = base.sample((50,))
    expected = torch.logaddexp(base.log_prob(x), base.log_prob(-x))
    assert_close(q.log_prob(x), expected, rtol=0, atol=1e-13)
    assert_close(q.log_prob(-x), expected, rtol=0, atol=1e-13)


def test_the_uniform_law_of_a_cover_is_pushed_to_the_uniform_law():
    for manifold in (KleinBottle(), ProjectiveSpace(3), LensSpace(5, 2)):
        covering = getattr(manifold, "orientation_covering", manifold.covering)
        q = CoveringPushforward(ManifoldUniform(covering.cover), covering)
        value = ManifoldUniform(manifold, dtype=torch.float64).sample((10,))
        expected = torch.full((10,), -math.log(manifold.volume), dtype=torch.float64)
        assert_close(q.log_prob(value), expected, rtol=0, atol=1e-14)


def test_any_law_on_the_torus_can_be_pushed_to_the_klein_bottle():
    base = VonMises(LOC, vector(3.0, 5.0)).to_event(1)
    q = CoveringPushforward(base, KleinBottle().orientation_covering)
    angles = 2 * PI * torch.arange(100, dtype=torch.float64) / 100
    nodes = torch.cartesian_prod(angles, angles)
    mass = q.log_prob(nodes).exp().mean() * KleinBottle().volume
    assert_close(mass, vector(1.0)[0], rtol=0, atol=1e-13)
    turned = nodes * vector(1, -1) + vector(PI, 0)
    assert_close(q.log_prob(turned), q.log_prob(nodes), rtol=0, atol=1e-12)


# Full covariances.


def brute_force(base, value, window=25):
    turns = list(itertools.product(range(-window, window + 1), repeat=2))
    shifts = 2 * PI * torch.tensor(turns, dtype=value.dtype)
    return base.log_prob(value.unsqueeze(-2) + shifts).logsumexp(-1)


@pytest.mark.parametrize("tril", [((0.3, 0), (0.2, 0.1)), ((1.5, 0), (-2.5, 0.4))])
def test_a_full_covariance_on_the_torus_equals_a_huge_sum(tril):
    base = dist.MultivariateNormal(vector(3.0, -9.0), scale_tril=torch.tensor(tril).double())
    q = CoveringPushforward(base, Torus(2).covering)
    value = WrappedNormal(Torus(2), vector(0.0, 0.0), 3.0).sample((60,))
    assert_close(q.log_prob(value), brute_force(base, value), rtol=1e-13, atol=1e-12)
    assert_close(q.log_prob(value + 2 * PI), q.log_prob(value), rtol=1e-12, atol=1e-12)


def test_batches_of_full_covariances_broadcast_against_values():
    trils = torch.tensor([[[0.3, 0], [0.2, 0.1]], [[1.0, 0], [0.5, 1.0]]]).double()
    base = dist.MultivariateNormal(torch.zeros(2, 2).double(), scale_tril=trils)
    q = CoveringPushforward(base, Torus(2).covering)
    value = WrappedNormal(Torus(2), vector(0.0, 0.0), 3.0).sample((5, 1))
    found = q.log_prob(value)
    assert found.shape == (5, 2)
    for i, tril in enumerate(trils):
        single = dist.MultivariateNormal(vector(0.0, 0.0), scale_tril=tril)
        expected = CoveringPushforward(single, Torus(2).covering).log_prob(value[:, 0])
        assert_close(found[:, i], expected, rtol=1e-13, atol=1e-12)
    assert q.log_prob(vector(0.0, 0.0)).shape == (2,)


def test_over_a_euclidean_space_nothing_is_summed():
    base = dist.MultivariateNormal(LOC, scale_tril=torch.tensor([[0.3, 0], [0.2, 0.1]]).double())
    q = CoveringPushforward(base, Euclidean(2).covering)
    assert q.covering.num_sheets == 1
    assert_close(q.log_prob(SCALE), base.log_prob(SCALE))


@pytest.mark.parametrize(
    "manifold", [KleinBottle(), MoebiusBand(), MoebiusBand(math.inf)], ids=repr
)
def test_a_full_covariance_is_refused_where_the_frame_flips(manifold):
    base = dist.MultivariateNormal(torch.zeros(2), torch.eye(2))
    message = r"another lift.*frame flips.*use dist\.Normal\(loc, scale\)\.to_event\(1\)"
    with pytest.raises(ValueError, match=message):
        CoveringPushforward(base, manifold.covering)


def test_the_refused_density_would_indeed_depend_on_the_lift():
    tril, value = torch.tensor([[0.6, 0.0], [0.5, 0.4]]).double(), vector(0.9, 0.2)
    densities = []
    for lift in (LOC, LOC * vector(1, -1) + vector(PI, 0)):
        base = dist.MultivariateNormal(lift, scale_tril=tril)
        densities.append(CoveringPushforward(base, universal_and_orientation()).log_prob(value))
    assert (densities[0] - densities[1]).abs() > 0.1


# Bases and coverings that do not fit.


def test_a_law_without_a_known_sum_can_be_sampled_but_its_density_is_refused():
    base = dist.StudentT(3.0, torch.zeros(2), 1.0).to_event(1)
    q = CoveringPushforward(base, KleinBottle().covering)
    sample = q.rsample((1000,))
    assert KleinBottle().contains(sample).all()
    assert (sample[:, 0] >= 0).all()
    assert (sample[:, 0] < PI).all()
    with pytest.raises(NotImplementedError, match="StudentT.*expected independent normals"):
        q.log_prob(sample)


def test_gradients_of_samples_and_rsample_follow_the_base():
    scale = SCALE.clone().requires_grad_()
    assert CoveringPushforward(normal(), KleinBottle().covering).has_rsample
    q = CoveringPushforward(normal(scale=scale), KleinBottle().covering)
    assert q.rsample().requires_grad
    assert not q.sample().requires_grad
    base = dist.VonMises(LOC, SCALE).to_event(1)  # torch's sampler has no gradient
    assert not CoveringPushforward(base, KleinBottle().orientation_covering).has_rsample


def test_wrong_event_shapes_are_refused_with_the_way_out():
    base = dist.Normal(torch.zeros(2), 1.0)
    with pytest.raises(ValueError, match=r"event_shape \(2,\), got \(\).*\.to_event\(\)"):
        CoveringPushforward(base, KleinBottle().covering)
    with pytest.raises(ValueError, match=r"event_shape \(\), got \(2,\)"):
        CoveringPushforward(base.to_event(1), Circle().covering)


def test_what_is_not_a_covering_is_refused():
    base = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    with pytest.raises(TypeError, match="expected covering to be a Covering, got KleinBottle"):
        CoveringPushforward(base, KleinBottle())


def test_coverings_compose_only_where_cover_and_base_fit():
    with pytest.raises(ValueError, match="expected a second covering by"):
        ComposedCovering(Torus(3).covering, KleinBottle().orientation_covering)


def test_composed_coverings_have_the_product_of_sheets_and_compare_equal():
    composed = universal_and_orientation()
    assert composed == universal_and_orientation()
    assert hash(composed) == hash(universal_and_orientation())
    assert composed != KleinBottle().covering
    assert composed.num_sheets == math.inf
    assert composed.with_cache() == composed
    identity = ProjectiveSpace(2).covering
    assert identity.num_sheets == 2
    fibre = composed.fibre(LOC)
    gap = KleinBottle().dist(composed(fibre), LOC)
    assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-14)


def test_a_base_that_does_not_live_on_the_compact_cover_is_refused():
    plane = dist.Normal(torch.zeros(2), 1.0).to_event(1)
    space = dist.MultivariateNormal(torch.zeros(3), torch.eye(3))
    for base, covering in (
        (plane, KleinBottle().orientation_covering),
        (space, ProjectiveSpace(2).covering),
    ):
        with pytest.raises(ValueError, match="expected a distribution on .*, the cover"):
            CoveringPushforward(base, covering)
