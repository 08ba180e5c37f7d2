"""Wrapped normals on flat manifolds: the vectors, seams, edges and limits."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.autograd import gradcheck
from torch.testing import assert_close

from pyro_manifolds import (
    Circle,
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    Product,
    Sphere,
    Torus,
    WrappedNormal,
    covering_kl_bound,
)

PI = math.pi
KLEIN = [  # value, location, scale, log-density
    ((3.1, -2.0), (0.05, 2.1), (0.2, 0.3), 0.8151129173998871),
    ((1.0, 3.0), (1.2, -3.1), (0.5, 0.5), -0.5986963839747937),
    ((2.0, 1.0), (0.5, -1.5), (1.5, 0.8), -2.789224533862715),
    ((0.5, -0.5), (2.5, 2.5), (4.0, 3.0), -2.998349226647716),
    ((1.5, 0.0), (0.2, 0.3), (0.05, 2.5), -337.6804666939113),
    ((0.0, -3.0), (7.0, 5.0), (0.6, 0.7), -4.691426606206991),
    ((2.9, 0.4), (0.7, -1.1), (0.6, 0.9), -2.75415370028374),
]
MOEBIUS = [
    ((3.1, -0.7), (0.05, 0.6), (0.2, 0.3), 0.8151129173998872),
    ((2.0, 1.0), (0.5, -1.5), (1.5, 0.8), -2.789242947192718),
    ((1.0, 0.0), (2.0, 0.5), (5.0, 0.5), -1.870521238494128),
]
KL = [  # location, scale, divergence to uniform on the torus and on the Klein bottle
    ((0.3, 0.2), (0.1, 0.1), 5.443047252397, 4.749900071837),
    ((0.3, 0.2), (0.5, 0.5), 2.224171429555, 1.535450115643),
    ((1.0, 0.2), (1.0, 0.5), 1.535846723458, 1.104361786764),
    ((0.3, 0.2), (1.0, 1.0), 0.8475220173613, 0.4358127080271),
    ((2.0, 1.0), (2.0, 1.5), 0.1290739260329, 0.0342196383229),
    ((0.7, 0.0), (3.0, 0.4), 1.335352682497, 1.335229265079),
]


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def torus_nodes(number):
    """Nodes on the torus: their mean times 2 pi^2 integrates functions on the Klein bottle."""
    angles = 2 * PI * torch.arange(number, dtype=torch.float64) / number
    return torch.cartesian_prod(angles, angles)


@pytest.mark.parametrize(("value", "loc", "scale", "log_prob"), KLEIN)
def test_klein_log_prob_matches_the_vectors(value, loc, scale, log_prob):
    q = WrappedNormal(KleinBottle(), vector(*loc), vector(*scale))
    assert_close(q.log_prob(vector(*value)), vector(log_prob)[0], rtol=3e-15, atol=3e-15)


@pytest.mark.parametrize(("value", "loc", "scale", "log_prob"), MOEBIUS)
def test_moebius_log_prob_matches_the_vectors(value, loc, scale, log_prob):
    q = WrappedNormal(MoebiusBand(math.inf), vector(*loc), vector(*scale))
    assert_close(q.log_prob(vector(*value)), vector(log_prob)[0], rtol=3e-15, atol=3e-15)


@pytest.mark.parametrize(("loc", "scale", "on_torus", "on_klein"), KL)
def test_divergence_to_uniform_matches_the_table_on_torus_and_klein_bottle(
    loc, scale, on_torus, on_klein
):
    klein, q = KleinBottle(), WrappedNormal(KleinBottle(), vector(*loc), vector(*scale))
    bound = covering_kl_bound(q, ManifoldUniform(klein))
    assert_close(bound, vector(on_torus)[0], rtol=0, atol=1e-12)
    log_prob = q.log_prob(torus_nodes(400))
    exact = (log_prob.exp() * (log_prob + math.log(klein.volume))).mean() * klein.volume
    # At a scale of 0.1, 400 nodes leave exp(-(400 * 0.1)^2 / 2): nothing.
    assert_close(exact, vector(on_klein)[0], rtol=0, atol=1e-12)
    assert 0 <= bound - exact <= math.log(2) + 1e-12


@pytest.mark.parametrize("scale", [(0.3, 0.2), (1.0, 2.0), (5.0, 0.4)])
@pytest.mark.parametrize("width", [0.3, 1.0])
def test_on_a_finite_moebius_band_reflected_mass_stays(width, scale):
    band = MoebiusBand(width)
    q = WrappedNormal(band, vector(0.4, 0.7 * width), vector(*scale))
    nodes, weights = _gauss_legendre(60, -width, width)
    angles = 2 * PI * torch.arange(100, dtype=torch.float64) / 100
    points = torch.cartesian_prod(angles, nodes)
    # The band is half of the cylinder that these nodes cover.
    mass = (q.log_prob(points).exp().reshape(100, 60) * weights).sum(-1).mean() * PI
    assert_close(mass, vector(1.0)[0], rtol=0, atol=1e-12)
    assert (q.sample((1000,))[:, 1].abs() < width).all()


def test_large_scales_give_the_uniform_density():
    for manifold in (Circle(), Torus(2), KleinBottle(), MoebiusBand(0.5)):
        loc = torch.full(manifold.event_shape, 0.3, dtype=torch.float64)
        found = WrappedNormal(manifold, loc, 20.0).log_prob(0.5 * loc)
        assert_close(found, vector(-math.log(manifold.volume))[0], rtol=1e-13, atol=0)


def test_small_scales_give_the_normal_density():
    for manifold in (Circle(), Torus(2), KleinBottle(), MoebiusBand(0.5), Sphere(2)):
        loc = manifold.origin(manifold.event_shape, dtype=torch.float64).as_subclass(torch.Tensor)
        found = WrappedNormal(manifold, loc, 1e-3).log_prob(loc)
        expected = -manifold.dim * math.log(1e-3 * math.sqrt(2 * PI))
        assert_close(found, vector(expected)[0], rtol=1e-13, atol=0)


def test_in_a_euclidean_space_it_is_the_normal_law():
    loc, scale, value = vector(0.3, -2.0), vector(0.5, 2.0), vector(1.0, 5.0)
    found = WrappedNormal(Euclidean(2), loc, scale).log_prob(value)
    assert_close(found, dist.Normal(loc, scale).log_prob(value).sum())


@pytest.mark.parametrize(
    "manifold", [KleinBottle(), MoebiusBand(), MoebiusBand(math.inf)], ids=repr
)
def test_the_lift_of_the_location_does_not_matter_for_a_diagonal_scale(manifold):
    loc, scale = vector(0.4, 0.7), vector(0.5, 0.3)
    value = WrappedNormal(manifold, loc, 2.0).sample((50,))
    expected = WrappedNormal(manifold, loc, scale).log_prob(value)
    for lift in manifold.covering.fibre(loc):
        found = WrappedNormal(manifold, lift, scale, validate_args=False).log_prob(value)
        assert_close(found, expected, rtol=1e-13, atol=1e-12)


def test_pathwise_derivatives_are_those_of_the_lift_reflected_across_the_seam():
    loc, scale = vector(3.1, 3.1).requires_grad_(), vector(0.5, 0.4).requires_grad_()
    q = WrappedNormal(KleinBottle(), loc, scale)
    for seed in range(20):
        torch.manual_seed(seed)
        lift = q.base_dist.sample()
        torch.manual_seed(seed)
        y = q.rsample()
        sign = (-1.0) ** math.floor(lift[0].item() / PI)
        noise = (lift - loc.detach()) / scale.detach()
        for i, factor in enumerate((1.0, sign)):
            by_loc, by_scale = torch.autograd.grad(y[i], [loc, scale], retain_graph=True)
            assert_close(by_loc[i], vector(factor)[0])
            assert_close(by_scale[i], factor * noise[i])


def test_klein_gradients_agree_with_finite_differences():
    value = vector(3.0, -0.4, 0.1, 2.0).reshape(2, 2).requires_grad_()
    loc = vector(0.3, 0.7).requires_grad_()
    scale = vector(0.6, 1.7).requires_grad_()

    def log_prob(value, loc, scale):
        return WrappedNormal(KleinBottle(), loc, scale, validate_args=False).log_prob(value)

    assert gradcheck(log_prob, (value, loc, scale))


def test_on_a_product_each_factor_takes_its_part_of_location_and_scale():
    manifold = Product(Circle(), KleinBottle(), Sphere(2))
    pole = vector(0.0, 0.0, 1.0)
    q = WrappedNormal(
        manifold, torch.cat([vector(1.0, 0.3, 0.7), pole]), vector(0.5, 0.2, 0.3, 0.4)
    )
    parts = [
        WrappedNormal(Circle(), vector(1.0)[0], 0.5),
        WrappedNormal(KleinBottle(), vector(0.3, 0.7), vector(0.2, 0.3)),
        WrappedNormal(Sphere(2), pole, 0.4),
    ]
    value = q.sample((20,))
    pieces = zip(parts, manifold.split(value), strict=True)
    assert_close(q.log_prob(value), sum(part.log_prob(piece) for part, piece in pieces))


def test_mean_is_the_canonical_location_except_where_the_frame_flips():
    assert_close(WrappedNormal(Circle(), torch.tensor(4.0), 0.5).mean, torch.tensor(4 - 2 * PI))
    klein = WrappedNormal(KleinBottle(), torch.tensor([PI + 0.5, 1.0]), 0.5)
    assert_close(klein.mode, torch.tensor([0.5, -1.0]))
    with pytest.raises(NotImplementedError, match="no closed form of the mean"):
        _ = klein.mean


def test_scale_broadcasts_from_a_number_a_vector_and_a_batch():
    loc = torch.zeros(4, 2)
    for scale in (0.5, torch.tensor(0.5), torch.full((2,), 0.5), torch.full((4, 2), 0.5)):
        q = WrappedNormal(KleinBottle(), loc, scale)
        assert q.batch_shape == (4,)
        assert_close(q.scale, torch.full((4, 2), 0.5))
    wide = WrappedNormal(KleinBottle(), loc, torch.full((3, 1, 2), 0.5))
    assert wide.batch_shape == (3, 4)
    column = WrappedNormal(KleinBottle(), loc, torch.full((4, 1), 0.5))  # one for both coordinates
    assert column.scale.shape == (4, 2)


def test_the_density_is_invariant_under_an_isometry_that_moves_value_and_location():
    # Translations along the core, and the reflection of the second coordinate, descend to K.
    q = WrappedNormal(KleinBottle(), vector(0.4, 0.7), vector(0.5, 0.3))
    moved = WrappedNormal(KleinBottle(), vector(0.4 + 1.1, -0.7), vector(0.5, 0.3))
    value = q.sample((100,))
    image = KleinBottle().projx(value * vector(1, -1) + vector(1.1, 0.0))
    assert_close(moved.log_prob(image), q.log_prob(value), rtol=0, atol=1e-12)


def _gauss_legendre(order, low, high):
    import numpy as np

    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(order))
    return low + (nodes + 1) * (high - low) / 2, weights * (high - low) / 2


def test_numbers_and_integers_are_taken_for_the_default_type():
    torch.set_default_dtype(torch.float32)
    for loc in (1, 1.0, torch.tensor(1)):
        d = WrappedNormal(Circle(), loc, 0.2)
        assert d.sample().dtype == d.scale.dtype == torch.float32
        assert_close(d.scale, torch.tensor(0.2))


def test_the_wider_of_two_types_is_kept():
    loc, scale = torch.tensor(1.0), torch.tensor(0.2).double()
    assert WrappedNormal(Circle(), loc.float(), scale).sample().dtype == torch.float64


def test_what_is_printed_names_the_manifold():
    d = WrappedNormal(KleinBottle(), torch.zeros(3, 2), 0.2)
    assert repr(d).startswith("WrappedNormal(KleinBottle(), loc: torch.Size([3, 2])")


@pytest.mark.parametrize("scale", [0.01, 0.3, 1.0])
def test_second_derivatives_on_a_sphere_are_finite_in_float32(scale):
    loc, value = torch.nn.functional.normalize(torch.randn(2, 3).float(), dim=-1)
    log_prob = WrappedNormal(Sphere(2), loc, scale, validate_args=False).log_prob
    assert torch.isfinite(torch.autograd.functional.hessian(log_prob, value)).all()
