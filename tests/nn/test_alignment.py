"""Alignment of principal components: right topology from the start, no label needed."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import Circle, Euclidean, KleinBottle, Sphere, Torus
from pyro_manifolds.datasets import klein_circles
from pyro_manifolds.geometry import betti_numbers, farthest_point_indices
from pyro_manifolds.nn import AlignedHead, align_to_manifold, principal_start


@pytest.fixture(scope="module")
def circles():
    return klein_circles(2000, 15, seed=0).images.flatten(1).float()


def noisy_circle(num_points=400, features=12):
    angles = 2 * math.pi * torch.rand(num_points)
    frame = torch.linalg.qr(torch.randn(features, features)).Q[:, :2]
    return angles, 3 * Circle().embed(angles) @ frame.T + 0.05 * torch.randn(num_points, features)


def test_it_finds_the_angle_of_a_circle_in_noise_up_to_an_isometry():
    angles, data = noisy_circle()
    alignment = align_to_manifold(data, Circle())
    found = Circle().unembed(data @ alignment.weight.T + alignment.bias)
    # A rotation or a reflection of the circle remains: one of the differences is constant.
    resultants = [Circle().embed(found + sign * angles).mean(0).norm() for sign in (-1, 1)]
    assert max(resultants) > 0.99


def test_klein_circles_lie_nearer_to_the_klein_bottle_than_to_other_surfaces(circles):
    residuals = {m: align_to_manifold(circles, m).residual for m in (KleinBottle(), Torus(2))}
    assert residuals[KleinBottle()] < 0.01
    assert residuals[Torus(2)] > 5 * residuals[KleinBottle()]
    assert align_to_manifold(circles, Sphere(2)).residual > 2 * residuals[KleinBottle()]


def test_the_code_of_klein_circles_has_the_homology_of_the_klein_bottle(circles):
    klein = KleinBottle()
    alignment = align_to_manifold(circles, klein)
    code = klein.unembed(circles @ alignment.weight.T + alignment.bias).double()
    distances = klein.dist(code[:1500].unsqueeze(1), code[:1500])
    chosen = farthest_point_indices(distances, 250)
    distances = distances[chosen][:, chosen]
    # The noise of the alignment is about 0.1: bars are counted at the scale of the published test.
    assert betti_numbers(distances, coeff=2, scale=0.85) == (1, 2, 1)
    assert betti_numbers(distances, coeff=3, scale=0.85) == (1, 1, 0)


def test_a_head_starts_as_the_alignment_and_learns(circles):
    torus = Torus(2)
    alignment = align_to_manifold(circles, torus, restarts=2, steps=2)
    head = AlignedHead(alignment, 3, torus)
    loc = head(circles, torch.randn(len(circles), 3))
    assert_close(loc, torus.unembed(circles @ alignment.weight.T + alignment.bias))
    loc.square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in head.parameters())


def test_it_is_a_function_of_data_and_seed_and_leaves_the_generator_alone(circles):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first, second = (align_to_manifold(circles, Torus(2), steps=3, seed=1) for _ in range(2))
    assert_close(first.weight, second.weight, atol=0, rtol=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(
        align_to_manifold(circles, Torus(2), steps=3, seed=2).weight, first.weight
    )


def test_a_principal_start_is_white(circles):
    start = principal_start(circles, 2)
    scores = circles @ start.weight.T + start.bias
    assert_close(torch.cov(scores.T), torch.eye(2), atol=2e-3, rtol=0)
    assert_close(scores.mean(0), torch.zeros(2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("data", "manifold", "message"),
    [
        (torch.randn(50, 8), Euclidean(2), "compact"),
        (torch.randn(50, 4), KleinBottle(), r"features >= 5.*got \(50, 4\)"),
        (torch.randn(5, 8), KleinBottle(), r"n > 5.*got \(5, 8\)"),
        (torch.randn(8), KleinBottle(), r"got \(8,\)"),
    ],
)
def test_unfit_data_raise(data, manifold, message):
    with pytest.raises(ValueError, match=message):
        align_to_manifold(data, manifold)
