"""Lengths, energies and geodesics, on surfaces where they are known."""

import math

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.geometry import (
    curve_energy,
    curve_length,
    fisher_metric,
    geodesic,
    pullback,
)
from pyro_manifolds.geometry.decoder_volume import log_det_metric


def conformal(factor):
    """A metric of the plane: the square of a factor of |z|^2, in the real view."""

    def metric(z):
        square = z.real**2 + z.imag**2 if z.is_complex() else z.square()
        root = factor(square.sum(-1))
        return root.square()[..., None, None] * torch.eye(2, dtype=square.dtype)

    return metric


sphere = conformal(lambda square: 2 / (1 + square))
disk = conformal(lambda square: 2 / (1 - square))


def hermitian_sphere(z):
    """The metric of the sphere, as the Hermitian matrix of half of it."""
    return (0.5 * sphere(z)[..., :1, :1]).to(z.dtype)


def sphere_distance(z, w):
    return 2 * ((z - w) / (1 + z.conj() * w)).abs().squeeze(-1).atan()


def disk_distance(z, w):
    return 2 * ((z - w) / (1 - z.conj() * w)).abs().squeeze(-1).atanh()


def points(count, radius, dtype=torch.complex128):
    """Pairs of points in a disk."""
    z = torch.randn(2, count, 1, dtype=dtype)
    return radius * z / (1 + z.abs())


def flat(z):
    return torch.eye(z.shape[-1], dtype=z.real.dtype).expand(*z.shape, z.shape[-1])


@pytest.mark.parametrize(
    ("metric", "distance", "radius"),
    [
        (sphere, sphere_distance, 2.0),
        (hermitian_sphere, sphere_distance, 2.0),
        (disk, disk_distance, 0.8),
    ],
)
def test_lengths_are_the_distances_of_the_surface(metric, distance, radius):
    start, end = points(8, radius)
    found = geodesic(metric, start, end, num_points=65)
    assert bool(found.converged.all())
    # The broken line is off by the square of its step, a sixty-fourth of the curve.
    assert_close(found.length, distance(start, end), rtol=1e-3, atol=0)
    assert bool((found.length_ratio <= 1 + 1e-4).all())
    assert found.length_ratio.min() < 0.998


def test_the_error_of_a_length_is_the_square_of_the_step():
    start, end = points(4, 1.0)
    exact = sphere_distance(start, end)
    coarse, fine = (
        (geodesic(sphere, start, end, num_points=count, tol=1e-6).length - exact).abs()
        for count in (17, 33)
    )
    assert_close(fine / coarse, torch.full_like(coarse, 0.25), rtol=0.05, atol=0)


def test_geodesics_lie_on_great_circles_and_keep_their_speed():
    start, end = points(8, 1.0)
    curve = geodesic(sphere, start, end, num_points=65, tol=1e-5).points
    assert_close(curve[:, 0], start)
    assert_close(curve[:, -1], end)
    square = curve.real.square() + curve.imag.square()
    on_sphere = torch.cat([2 * curve.real, 2 * curve.imag, square - 1], -1) / (1 + square)
    normal = torch.linalg.cross(on_sphere[:, 0], on_sphere[:, -1])
    height = (on_sphere @ torch.nn.functional.normalize(normal, dim=-1).unsqueeze(-1)).abs()
    assert height.max() < 1e-3
    steps = on_sphere.diff(dim=-2).norm(dim=-1)
    assert ((steps.amax(-1) - steps.amin(-1)) / steps.mean(-1)).max() < 1e-2


def test_real_points_have_the_geodesics_of_complex_ones():
    start, end = points(3, 1.0)
    in_plane = geodesic(sphere, *(torch.cat([z.real, z.imag], -1) for z in (start, end)))
    found = geodesic(sphere, start, end)
    assert_close(in_plane.length, found.length)
    assert_close(torch.complex(*in_plane.points.unbind(-1)), found.points.squeeze(-1))


def test_flat_space_has_straight_lines_at_once():
    start, end = torch.randn(2, 3, 4).unbind()
    found = geodesic(flat, start, end)
    assert_close(found.length, (end - start).norm(dim=-1))
    assert_close(found.length_ratio, torch.ones(3))
    assert bool(found.converged.all())
    assert found.num_steps.max() <= 2


def test_a_broken_line_has_the_length_and_energy_of_its_pieces():
    line = torch.tensor([[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]])
    assert_close(curve_length(flat, line), torch.tensor(7.0))
    assert_close(curve_energy(flat, line), torch.tensor(2 * (9.0 + 16.0)))
    batch = torch.stack([line, 2 * line])
    assert_close(curve_length(flat, batch), torch.tensor([7.0, 14.0]))
    parts = torch.complex(line, -line)
    expected = torch.tensor(7 * math.sqrt(2))
    real = curve_length(lambda z: torch.eye(4).expand(*z.shape[:-1], 4, 4), parts)
    # A Hermitian matrix of a half is the unit metric.
    assert_close(real, expected)
    assert_close(curve_length(lambda z: (0.5 * flat(z)).to(z.dtype), parts), expected)


def test_energy_is_the_square_of_the_length_at_least():
    start, end = points(8, 1.0)
    t = torch.rand(9, dtype=torch.float64).sort().values.unsqueeze(-1)
    t = (t - t[0]) / (t[-1] - t[0])
    uneven = start.unsqueeze(-2) * (1 - t) + end.unsqueeze(-2) * t
    energy, square = curve_energy(sphere, uneven), curve_length(sphere, uneven).square()
    assert bool((energy > square).all())
    found = geodesic(sphere, start, end, tol=1e-5)
    assert_close(curve_energy(sphere, found.points), found.length.square(), rtol=1e-3, atol=0)


def test_half_a_pullback_gives_the_length_of_the_image():
    """Of the square of a segment from 1 to 1 + i, of which |2 z| is the speed."""
    line = torch.linspace(0, 1, 1001, dtype=torch.float64).unsqueeze(-1)
    found = curve_length(lambda z: pullback(torch.square, z) / 2, torch.complex(line**0, line))
    exact = math.sqrt(2) + math.asinh(1)  # the integral of 2 sqrt(1 + t^2)
    assert_close(found.item(), exact, rtol=1e-6, atol=0)


def test_geodesics_of_a_decoder_avoid_what_it_stretches():
    """The mean climbs a hill between the two codes; going round it is shorter."""

    def decoder(z):
        height = 3 * (-4 * z.square().sum(-1, keepdim=True)).exp()
        return torch.distributions.Normal(torch.cat([z, height], -1), 1.0)

    ends = torch.tensor([-1.0, 0.05]), torch.tensor([1.0, 0.05])
    found = geodesic(lambda z: fisher_metric(decoder, z), *ends)
    assert found.converged
    assert found.length_ratio < 0.75
    middle = found.points[16]
    assert middle[1] > 0.5  # it leaves on the side on which the line already was
    assert log_det_metric(decoder, middle) < log_det_metric(decoder, torch.tensor([0.3, 0.05]))


def test_nothing_is_left_in_the_gradients_of_a_decoder():
    net = nn.Sequential(nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 4))
    with torch.no_grad():
        found = geodesic(
            lambda z: fisher_metric(lambda z: torch.distributions.Normal(net(z), 1.0), z),
            torch.zeros(2),
            torch.ones(2),
        )
    assert found.converged
    assert not found.points.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


def test_failure_is_reported():
    start, end = points(3, 2.0)
    found = geodesic(sphere, start, end, max_steps=1, tol=1e-6)
    assert not found.converged.any()
    assert bool((found.residual > 1e-6).all())
    # As is success, by the same measure.
    again = geodesic(sphere, start, end, tol=1e-6)
    assert bool(again.converged.all())
    assert bool((again.residual <= 1e-6).all())


def test_few_modes_make_a_smooth_curve_of_nearly_the_same_length():
    start, end = points(3, 1.0)
    few = geodesic(sphere, start, end, num_modes=4)
    assert_close(few.length, geodesic(sphere, start, end).length, rtol=1e-3, atol=0)


@pytest.mark.parametrize("shape", [(), (2, 3)])
def test_ends_broadcast_and_may_coincide(shape):
    found = geodesic(sphere, torch.zeros(2), torch.zeros(*shape, 2), num_points=5)
    assert found.points.shape == (*shape, 5, 2)
    assert found.num_steps.shape == found.residual.shape == shape
    assert_close(found.length, torch.zeros(shape))
    assert bool(found.converged.all())


def test_bad_arguments_are_refused():
    zero = torch.zeros(2)
    with pytest.raises(ValueError, match=r"curve_length: expected points of shape \(..., T, n\)"):
        curve_length(flat, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"curve_energy: expected points of shape .* got \(2,\)"):
        curve_energy(flat, zero)
    with pytest.raises(
        ValueError, match=r"a metric of shape \(3, 4, 4\) at points of shape \(3, 2"
    ):
        curve_length(flat, torch.zeros(3, 2) + 0j)
    with pytest.raises(TypeError, match=r"two ends of one kind, got torch.float32 and torch.com"):
        geodesic(flat, zero, zero + 0j)
    with pytest.raises(ValueError, match=r"expected num_points >= 3 and .* got 2 and 0"):
        geodesic(flat, zero, zero, num_points=2)
    with pytest.raises(ValueError, match=r"expected num_points >= 3 and .* got 5 and 4"):
        geodesic(flat, zero, zero, num_points=5, num_modes=4)
