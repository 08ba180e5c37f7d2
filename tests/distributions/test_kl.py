"""Divergences: exact ones against quadrature, bounds above them, estimates around them."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds import (
    Circle,
    CoveringPushforward,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    PowerSpherical,
    Sphere,
    Torus,
    VonMises,
    WrappedNormal,
    covering_kl_bound,
    covering_kl_estimate,
)
from pyro_manifolds.distributions import Concatenated

PI = math.pi


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def klein_integral(integrand):
    """Integrate over the Klein bottle by the periodic trapezoid rule on the torus."""
    angles = 2 * PI * torch.arange(200, dtype=torch.float64) / 200
    nodes = torch.cartesian_prod(angles, angles)
    return integrand(nodes).mean() * KleinBottle().volume


def exact_kl(q, p):
    def integrand(x):
        log_q = q.log_prob(x)
        return log_q.exp() * (log_q - p.log_prob(x))

    return klein_integral(integrand)


# The universal cover, where the bound depends on the lift.


@pytest.mark.parametrize(
    ("mean", "tril", "on_plane", "on_klein", "to_uniform"),
    [
        ((0.5, 0.5), ((0.05, 0), (0, 0.05)), 2.714, 2.684, 3.154),
        ((1.3, -0.4), ((0.2, 0), (0.1, 0.3)), 7.461, 0.221, 0.254),
        ((3.6, 2.2), ((0.1, 0), (0, 0.1)), 63.90, 1.686, 1.767),
    ],
)
def test_bound_on_the_plane_matches_the_table(mean, tril, on_plane, on_klein, to_uniform):
    # The table is in shares of the periods, under which divergences do not change.
    unit = vector(PI, 2 * PI)
    covering = Torus(2).covering.then(KleinBottle().orientation_covering)
    q_tril = unit.unsqueeze(-1) * torch.tensor(tril, dtype=torch.float64)
    q = dist.MultivariateNormal(unit * vector(*mean), scale_tril=q_tril)
    p = dist.MultivariateNormal(unit / 2, scale_tril=(unit * math.sqrt(0.1)).diag())
    q, p = CoveringPushforward(q, covering), CoveringPushforward(p, covering)
    bound, exact = covering_kl_bound(q, p), exact_kl(q, p)
    digits = {"rtol": 0, "atol": 6e-4}  # of the table
    assert_close(exact, vector(on_klein)[0], **digits)
    assert_close(exact_kl(q, ManifoldUniform(KleinBottle())), vector(to_uniform)[0], **digits)
    assert_close(bound, vector(on_plane)[0], rtol=0, atol=6e-3 if on_plane > 10 else 6e-4)
    assert exact <= bound


def test_bound_on_the_universal_cover_of_the_klein_bottle_is_the_normal_divergence():
    loc, scale = vector(1.0, 0.2), vector(1.0, 0.5)
    q = WrappedNormal(KleinBottle(), loc, scale)
    p = WrappedNormal(KleinBottle(), vector(0.0, 0.0), 2.0)
    expected = kl_divergence(dist.Normal(loc, scale), dist.Normal(vector(0, 0), 2.0)).sum()
    assert_close(covering_kl_bound(q, p), expected)
    assert covering_kl_bound(q, p) > exact_kl(q, p)
    farther = WrappedNormal(KleinBottle(), loc + vector(2 * PI, 0), scale)
    assert covering_kl_bound(farther, p) > covering_kl_bound(q, p) + 5


# The finite cover, where the bound is at most log 2 loose.


@pytest.mark.parametrize("scale", [0.05, 0.3, 1.0, 2.0, 6.0])
def test_bound_to_uniform_is_within_log_two(scale):
    q = WrappedNormal(KleinBottle(), vector(0.3, 0.2), vector(scale, 0.5))
    p = ManifoldUniform(KleinBottle())
    gap = covering_kl_bound(q, p) - exact_kl(q, p)
    assert -1e-12 <= gap <= math.log(2) + 1e-12


@pytest.mark.parametrize("scale", [(0.1, 0.1), (1.0, 0.5), (2.0, 1.5), (0.7, 3.0)])
def test_estimate_is_unbiased_and_varies_less_than_plain_monte_carlo(scale):
    q = WrappedNormal(KleinBottle(), vector(1.0, 0.2), vector(*scale)).expand((4000,))
    p = ManifoldUniform(KleinBottle())
    draws = covering_kl_estimate(q, p)
    assert draws.shape == (4000,)
    exact = exact_kl(WrappedNormal(KleinBottle(), q.loc[0], q.scale[0]), p)
    error = draws.std() / math.sqrt(4000)
    assert (draws.mean() - exact).abs() <= 4.5 * error + 1e-9
    y = q.sample()
    plain = q.log_prob(y) - p.log_prob(y)
    assert draws.std() < 0.8 * plain.std()


def test_estimate_averages_over_its_draws_and_is_exact_where_nothing_wraps():
    q = WrappedNormal(KleinBottle(), vector(1.0, 0.2), 0.01)
    p = ManifoldUniform(KleinBottle())
    found = covering_kl_estimate(q, p, num_samples=3)
    assert_close(found, covering_kl_bound(q, p) - math.log(2), rtol=0, atol=1e-12)
    torus = WrappedNormal(Torus(2), vector(1.0, 0.2), 0.7)
    exact = kl_divergence(torus, ManifoldUniform(Torus(2)))
    assert_close(covering_kl_estimate(torus, ManifoldUniform(Torus(2))), exact, rtol=0, atol=1e-12)


def test_gradient_of_the_estimate_is_unbiased():
    loc, scale = vector(1.0, 0.2), vector(1.0, 0.5).requires_grad_()
    p = ManifoldUniform(KleinBottle())
    (expected,) = torch.autograd.grad(exact_kl(WrappedNormal(KleinBottle(), loc, scale), p), scale)
    copies = scale.detach().expand(20_000, 2).clone().requires_grad_()
    q = WrappedNormal(KleinBottle(), loc.expand(20_000, 2), copies)
    (draws,) = torch.autograd.grad(covering_kl_estimate(q, p).sum(), copies)
    error = draws.std(0) / math.sqrt(len(draws))
    assert ((draws.mean(0) - expected).abs() < 4.5 * error).all()


@pytest.mark.parametrize("width", [0.5, 1.0])
def test_bound_and_estimate_on_a_finite_moebius_band_bracket_the_divergence(width):
    band = MoebiusBand(width)
    q = WrappedNormal(band, vector(0.4, 0.3), vector(0.8, 0.3))
    p = ManifoldUniform(band)
    x, weights = _gauss_legendre(80, -width, width)
    angles = 2 * PI * torch.arange(80, dtype=torch.float64) / 80
    nodes = torch.cartesian_prod(angles, x)
    log_q = q.log_prob(nodes)
    integrand = (log_q.exp() * (log_q + math.log(band.volume))).reshape(80, 80)
    exact = (integrand * weights).sum(-1).mean() * PI
    bound = covering_kl_bound(q, p)
    assert exact <= bound <= exact + math.log(4)  # the half turn and the reflection: four sheets
    draws = covering_kl_estimate(q.expand((20_000,)), p)
    assert (draws.mean() - exact).abs() < 4.5 * draws.std() / math.sqrt(20_000)


# Exact divergences.


@pytest.mark.parametrize(
    ("s", "m", "kappa", "c", "expected"),
    [
        (0.5, 0.3, 2.0, -0.4, 0.586137533771469),
        (1.2, 2.9, 1.0, -3.0, 0.0457759782950455),
        (2.0, 0.0, 5.0, 1.0, 2.95755329771077),
    ],
)
def test_wrapped_normal_to_von_mises_matches_the_vectors(s, m, kappa, c, expected):
    q = WrappedNormal(Circle(), vector(m)[0], vector(s)[0])
    p = VonMises(vector(c)[0], vector(kappa)[0])
    assert_close(kl_divergence(q, p), vector(expected)[0], rtol=0, atol=2e-14)


def circle_kl(q, p):
    x = 2 * PI * torch.arange(2000, dtype=torch.float64) / 2000
    log_q = q.log_prob(x)
    return (log_q.exp() * (log_q - p.log_prob(x))).mean() * 2 * PI


def test_divergences_on_the_circle_agree_with_quadrature():
    wrapped = WrappedNormal(Circle(), vector(0.3)[0], 0.5)
    laws = [VonMises(vector(1.0)[0], 2.0), ManifoldUniform(Circle())]
    for q, p in [(wrapped, laws[0]), (wrapped, laws[1]), (laws[0], laws[1])]:
        assert_close(kl_divergence(q, p), circle_kl(q, p), rtol=0, atol=1e-13)


def test_independent_von_mises_to_the_uniform_torus_adds_up():
    q = VonMises(vector(0.3, 1.0, 2.0), vector(0.5, 2.0, 20.0))
    found = kl_divergence(q.to_event(1), ManifoldUniform(Torus(3)))
    expected = 0.05970008710491967 + 0.5715557744450597 + 1.903799729551868
    assert_close(found, vector(expected)[0], rtol=0, atol=1e-12)
    batch = q.expand((5, 3)).to_event(1)
    assert kl_divergence(batch, ManifoldUniform(Torus(3))).shape == (5,)


def test_torus_divergence_is_the_sum_over_its_circles_and_broadcasts():
    scale = vector(0.5, 2.0)
    q = WrappedNormal(Torus(2), torch.zeros(3, 2, dtype=torch.float64), scale)
    found = kl_divergence(q, ManifoldUniform(Torus(2)))
    expected = 1.112085714777689 + 0.01848134987853437
    assert_close(found, vector(expected)[0].expand(3), rtol=0, atol=3e-14)
    assert kl_divergence(q.expand((3,)), ManifoldUniform(Torus(2)).expand((4, 1))).shape == (4, 3)


def test_uniform_laws_of_one_manifold_do_not_diverge():
    p = ManifoldUniform(KleinBottle())
    assert_close(kl_divergence(p.expand((2,)), p), torch.zeros(2))
    with pytest.raises(NotImplementedError, match="KleinBottle.*Torus"):
        kl_divergence(p, ManifoldUniform(Torus(2)))


def test_concatenated_laws_diverge_by_the_sum_of_their_parts():
    q = Concatenated(dist.Normal(torch.zeros(2), 1.0).to_event(1), dist.Normal(0.0, 1.0))
    p = Concatenated(dist.Normal(torch.ones(2), 2.0).to_event(1), dist.Normal(0.0, 3.0))
    single = kl_divergence(dist.Normal(0.0, 1.0), dist.Normal(1.0, 2.0))
    expected = 2 * single + kl_divergence(dist.Normal(0.0, 1.0), dist.Normal(0.0, 3.0))
    assert_close(kl_divergence(q, p), expected)


def test_power_spherical_diverges_from_the_uniform_sphere_by_its_entropy():
    q = PowerSpherical(vector(0.0, 0.6, 0.8), vector(5.0)[0])
    found = kl_divergence(q, ManifoldUniform(Sphere(2)))
    assert_close(found, math.log(4 * PI) - q.entropy(), rtol=0, atol=1e-13)


# What has no closed form, or does not fit.


@pytest.mark.parametrize("manifold", [KleinBottle(), MoebiusBand()], ids=repr)
def test_nothing_inexact_is_registered(manifold):
    q = WrappedNormal(manifold, torch.tensor([0.3, 0.2]), 0.5)
    with pytest.raises(NotImplementedError, match="covering_kl_bound"):
        kl_divergence(q, ManifoldUniform(manifold))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, q)


def test_laws_on_different_spaces_are_refused():
    circle = WrappedNormal(Circle(), torch.tensor(0.3), 0.5)
    klein = WrappedNormal(KleinBottle(), torch.tensor([0.3, 0.2]), 0.5)
    torus = WrappedNormal(Torus(2), torch.tensor([0.3, 0.2]), 0.5)
    with pytest.raises(NotImplementedError, match="Torus"):
        kl_divergence(circle, ManifoldUniform(Torus(2)))
    with pytest.raises(NotImplementedError, match="needs a circle"):
        kl_divergence(torus, VonMises(torch.tensor(0.0), 1.0))
    with pytest.raises(NotImplementedError, match="needs a circle"):
        kl_divergence(VonMises(torch.tensor(0.0), 1.0), ManifoldUniform(Torus(2)))
    with pytest.raises(NotImplementedError, match="one angle for each"):
        kl_divergence(VonMises(torch.zeros(2), 1.0).to_event(1), ManifoldUniform(KleinBottle()))
    for function in (covering_kl_bound, covering_kl_estimate):
        with pytest.raises(ValueError, match="expected p on KleinBottle"):
            function(klein, ManifoldUniform(Torus(2)))
        with pytest.raises(TypeError, match="expected q to be CoveringPushforward"):
            function(VonMises(torch.tensor(0.0), 1.0), ManifoldUniform(Circle()))
    with pytest.raises(ValueError, match="expected p through"):
        covering_kl_bound(klein, torus)
    with pytest.raises(TypeError, match="expected p to be"):
        covering_kl_bound(klein, dist.Normal(0.0, 1.0))
    with pytest.raises(TypeError, match="expected p to be ManifoldUniform"):
        covering_kl_estimate(klein, klein)
    sphere = WrappedNormal(Sphere(2), torch.tensor([0.0, 0.0, 1.0]), 0.5)
    with pytest.raises(TypeError, match="WrappedNormal on a flat manifold"):
        covering_kl_bound(sphere, ManifoldUniform(Sphere(2)))


def _gauss_legendre(order, low, high):
    import numpy as np

    nodes, weights = map(torch.from_numpy, np.polynomial.legendre.leggauss(order))
    return low + (nodes + 1) * (high - low) / 2, weights * (high - low) / 2


@pytest.mark.parametrize(
    ("shape", "event_dim", "torus"),
    [((3,), 1, Torus(2)), ((2, 3), 2, Torus(3)), ((2, 3), 2, Torus(6))],
)
def test_angles_of_another_shape_than_the_torus_have_no_divergence(shape, event_dim, torus):
    q = VonMises(torch.zeros(shape), 1.0).to_event(event_dim)
    with pytest.raises(NotImplementedError, match="one angle for each"):
        kl_divergence(q, ManifoldUniform(torus))


def test_an_estimate_from_no_sample_is_refused():
    q = WrappedNormal(KleinBottle(), torch.zeros(2), 0.1)
    with pytest.raises(ValueError, match="num_samples of at least 1, got 0"):
        covering_kl_estimate(q, ManifoldUniform(KleinBottle()), num_samples=0)
