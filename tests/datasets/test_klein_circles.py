"""Klein-Circles: the pictures against their definition, and their points against the bottle."""

import itertools
import math

import pytest
import torch

from pyro_manifolds.datasets import KleinCircles, klein_circle, klein_circles, split_klein_circles


def drawn_by_definition(u, v, size):
    """One image, by trying 25 lifts of the centre, in plain Python."""
    lifts = [(u + k, (-1) ** k * v + m) for k, m in itertools.product(range(-2, 3), repeat=2)]
    image = torch.zeros(size, size, dtype=torch.float64)
    for a, b in itertools.product(range(size), repeat=2):
        x, y = b / (size - 1), a / (size - 1)
        image[a, b] = min(math.hypot(x - s, y - t) for s, t in lifts) < 0.3
    return image


def centres(num, seed=0):
    return torch.rand(2, num, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [2, 9, 16])
def test_pixel_is_on_iff_one_of_25_lifts_is_near(size):
    u, v = centres(40)
    expected = [
        drawn_by_definition(*centre, size) for centre in zip(u.tolist(), v.tolist(), strict=True)
    ]
    torch.testing.assert_close(klein_circle(u, v, size), torch.stack(expected), atol=0, rtol=0)


@pytest.mark.parametrize("u", [0.0, 0.001, 0.999])
@pytest.mark.parametrize("v", [0.0, 0.5, 0.95])
def test_disc_is_whole_across_both_seams(u, v):
    # An irrational shift keeps every pixel off the rim, where rounding would decide.
    u, v = u + math.sqrt(2) * 1e-4, v + math.sqrt(3) * 1e-4
    expected = drawn_by_definition(u, v, 13)
    image = klein_circle(torch.tensor(u).double(), torch.tensor(v).double(), 13)
    torch.testing.assert_close(image, expected, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("u", "v", "size", "lit"), [(0.2, 0.7, 30, 249), (0.2, 0.7, 15, 58), (0.95, 0.1, 30, 271)]
)
def test_number_of_pixels_agrees_with_the_published_vectors(u, v, size, lit, dtype):
    image = klein_circle(torch.tensor(u, dtype=dtype), torch.tensor(v, dtype=dtype), size)
    assert image.dtype == dtype
    assert image.sum() == lit


def test_row_and_column_sums_agree_with_the_published_vectors():
    image = klein_circle(0.95, 0.1, 15)
    assert image.sum() == 71
    assert image.sum(1).tolist() == [9, 8, 7, 5, 4, 3, 0, 0, 0, 2, 3, 4, 8, 9, 9]
    assert image.sum(0).tolist() == [9, 9, 7, 5, 0, 0, 0, 0, 0, 0, 6, 8, 9, 9, 9]


def test_image_is_invariant_under_the_deck_group():
    u, v = centres(200)
    image = klein_circle(u, v, 30)
    for k, m in itertools.product(range(-3, 4), range(-2, 3)):
        assert torch.equal(klein_circle(u + k, (-1) ** k * v + m, 30), image)


def test_image_is_not_invariant_under_the_deck_group_of_the_torus():
    u, v = centres(200)
    assert not torch.equal(klein_circle(u + 1, v, 30), klein_circle(u, v, 30))


def test_centres_broadcast_and_integers_give_the_default_dtype():
    u, v = centres(6)
    grid = klein_circle(u[:2, None], v, 8)
    assert grid.shape == (2, 6, 8, 8)
    assert torch.equal(grid[1, 3], klein_circle(u[1], v[3], 8))
    assert klein_circle(0, 1, 8).dtype == torch.get_default_dtype()


def test_every_image_is_the_image_of_its_point():
    images, points = klein_circles(5000, 12, seed=3)
    t1, t2 = points.double().unbind(-1)
    assert torch.equal(images.double(), klein_circle(t1 / math.pi, t2 / (2 * math.pi), 12))
    assert images.dtype == torch.uint8


def test_points_are_canonical_and_uniform():
    points = klein_circles(20_000, 2, seed=5).points
    low, high = torch.tensor([0.0, -math.pi]), torch.tensor([math.pi, math.pi])
    assert ((points >= low) & (points < high)).all()
    unit = (points - low) / (high - low)
    bound = 4 / math.sqrt(12 * 20_000)  # four standard errors
    assert (unit.mean(0) - 0.5).abs().max() < bound
    assert (unit.mT.cov()[0, 1] * 12).abs() < 4 / math.sqrt(20_000)


def test_lit_fraction_is_the_area_of_the_disc():
    # Pixels on opposite edges show the same points, so the mean over uniform centres is exact.
    images = klein_circles(20_000, 15, seed=1).images
    assert abs(images.float().mean() - math.pi * 0.3**2) < 0.002


def test_seed_fixes_the_draw_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (klein_circles(20, 8, seed=seed) for seed in (1, 1, 2))
    split_klein_circles(first, seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.points, again.points)
    assert torch.equal(first.images, again.images)
    assert not torch.equal(first.points, other.points)


def test_split_is_a_partition_in_80_10_10():
    points = torch.arange(105.0).unsqueeze(-1)
    split = split_klein_circles(KleinCircles(points.clone(), points), seed=4)
    assert [len(part.points) for part in split] == [84, 10, 11]
    assert torch.equal(torch.cat([part.points for part in split]).sort(0).values, points)
    assert all(torch.equal(part.images, part.points) for part in split)
    other = split_klein_circles(KleinCircles(points, points), seed=5)
    assert not torch.equal(other.test.points, split.test.points[: len(other.test.points)])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: klein_circle(0.1, 0.2, 1), "size >= 2"),
        (lambda: klein_circle(math.nan, 0.2, 8), "finite"),
        (lambda: klein_circles(10, 1, seed=0), "size >= 2"),
        (lambda: klein_circles(0, 8, seed=0), "num_images >= 1"),
        (lambda: split_klein_circles(klein_circles(9, 4, seed=0), seed=0), "at least 10"),
        (lambda: split_klein_circles(KleinCircles(torch.ones(20), torch.ones(19)), seed=0), "19"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
