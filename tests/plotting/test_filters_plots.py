"""Figures of filters: which filter lies where, what is left out, and posteriors at the seams."""

import math

import pytest
import torch
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure

from pyro_manifolds import KleinBottle, ManifoldUniform, Torus, WrappedNormal
from pyro_manifolds.distributions import CircleFilter, KleinFilter
from pyro_manifolds.ops.filters import klein_filters
from pyro_manifolds.plotting import (
    draw_filter_atlas,
    draw_filter_draws,
    draw_filter_posterior,
    draw_fundamental_square,
    draw_klein_density,
    draw_placed_filters,
)

PI = math.pi
CHECKS = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, -1.0], [1.0, -1.0, 1.0]])  # far from all
TILTED = torch.tensor([0.9, 1.1])
FILTER = klein_filters(TILTED, 5)


@pytest.fixture
def ax():
    return Figure().subplots()


def centre(image):
    left, right, bottom, top = image.get_extent()
    return (left + right) / 2, (bottom + top) / 2


def pixels(image):
    return torch.from_numpy(image.get_array().data.copy())


def at(ax, t1, t2):
    """Pixels of the image whose centre is nearest to a point."""
    nearest = min(ax.images, key=lambda image: math.dist(centre(image), (t1, t2)))
    return pixels(nearest)


def leaders(ax):
    return [line.get_xydata() for line in ax.lines if line.get_color() == "tab:orange"]


def test_atlas_has_edges_and_lines_of_all_directions_where_it_says(ax):
    draw_filter_atlas(ax, 3, columns=2, rows=4)  # at t1 = pi/4, 3 pi/4 and odd t2 / (pi/4)
    assert len(ax.images) == 8
    corner = at(ax, PI / 4, PI / 4)  # light grows to the top right
    assert corner[0, 2] == corner.max()
    assert at(ax, 3 * PI / 4, PI / 4)[0, 0] == at(ax, 3 * PI / 4, PI / 4).max()
    torch.testing.assert_close(at(ax, PI / 4, -3 * PI / 4), -corner)  # half a turn of t2


def test_atlas_fits_the_square_and_its_filters_have_no_mean(ax):
    draw_filter_atlas(ax, 5)
    extents = torch.tensor([image.get_extent() for image in ax.images])
    assert extents[:, 0].min() > 0
    assert extents[:, 1].max() < PI
    assert extents[:, 2:].abs().max() < PI
    assert all(pixels(image).mean().abs() < 1e-6 for image in ax.images)
    xs = sorted({round(centre(image)[0], 3) for image in ax.images})
    assert extents[0, 1] - extents[0, 0] < xs[1] - xs[0]  # gaps between neighbours


def test_columns_at_both_sides_of_the_seam_continue_each_other(ax):
    draw_filter_atlas(ax, 5, columns=40, rows=10)
    first, last = PI / 80, PI - PI / 80
    for t2 in (-2.5, -0.3, 0.9):
        assert (at(ax, first, t2) - at(ax, last, -t2)).abs().max() < 0.08
        assert (at(ax, first, t2) - at(ax, last, t2)).abs().max() > 0.2


def test_square_is_drawn_on_empty_axes_only(ax):
    draw_filter_atlas(ax, 3, columns=2)
    once = len(ax.lines)
    draw_placed_filters(ax, FILTER[None])
    assert len(ax.lines) == once
    other = Figure().subplots()
    draw_fundamental_square(other, KleinBottle())
    assert len(other.lines) == once


def test_filters_are_placed_at_their_points_whatever_mean_and_norm(ax):
    points = torch.tensor([[0.9, 1.1], [2.0, -2.0], [1.5, 0.0]], dtype=torch.float64)
    placed = draw_placed_filters(ax, 7 * klein_filters(points, 5) + 3)
    torch.testing.assert_close(placed.points, points, atol=1e-6, rtol=0)
    torch.testing.assert_close(placed.cosines, torch.ones(3).double(), atol=1e-9, rtol=0)
    found = torch.tensor([centre(image) for image in ax.images], dtype=torch.float64)
    torch.testing.assert_close(found, points, atol=1e-6, rtol=0)
    assert leaders(ax) == []


def test_unlike_filters_are_left_out_and_counted(ax):
    placed = draw_placed_filters(ax, torch.stack([CHECKS, klein_filters(TILTED, 3), CHECKS]))
    assert placed.shown.tolist() == [False, True, False]
    assert placed.centres.shape == (1, 2)
    assert len(ax.images) == 1
    assert "\n2 of 3 left out: cosine < 0.5" in ax.get_xlabel()
    assert ax.get_xlabel().startswith("$t_1$")


def test_nothing_is_counted_when_all_are_shown(ax):
    draw_placed_filters(ax, torch.stack([CHECKS, klein_filters(TILTED, 3)]), min_cosine=0.0)
    assert ax.get_xlabel() == "$t_1$"
    unlike, like = (image.get_alpha() for image in ax.images)
    assert unlike < 0.6
    assert like > 0.99


@pytest.mark.parametrize("number", [2, 12, 40])
def test_images_of_like_filters_are_pushed_apart_with_lines_to_their_point(ax, number):
    copies = FILTER.expand(number, 5, 5)
    placed = draw_placed_filters(ax, copies, size=0.4)
    gaps = (placed.centres[:, None] - placed.centres).abs().amax(-1)
    gaps.fill_diagonal_(1.0)
    assert gaps.min() > 0.4
    dots = [line[0] for line in leaders(ax) if len(line) == 1]
    assert len(dots) == number - 1  # the first is at its point
    assert all(dot == pytest.approx(TILTED.numpy(), abs=1e-3) for dot in dots)


def test_those_without_a_free_place_are_counted_and_the_likest_are_kept(ax):
    like, unlike = (
        klein_filters(TILTED, 3).expand(4, 3, 3),
        klein_filters(TILTED, 3) + 0.03 * CHECKS,
    )
    placed = draw_placed_filters(ax, torch.cat([unlike[None], like]), size=1.5)
    assert placed.shown.tolist() == [False, True, True, True, False]  # a column of three
    assert len(ax.images) == 3
    assert ax.get_xlabel().endswith("2 of 5 left out: no room")


def test_images_stay_inside_the_square(ax):
    corners = torch.tensor([[0.0, PI - 0.01], [PI - 0.01, -PI + 0.01], [0.01, 0.0]])
    placed = draw_placed_filters(ax, klein_filters(corners, 5), size=0.5)
    assert placed.centres[:, 0].min() >= 0.25
    assert placed.centres[:, 0].max() <= PI - 0.25
    assert placed.centres[:, 1].abs().max() <= PI - 0.25


def test_posterior_is_the_one_over_the_uniform_density_and_has_two_antipodal_modes(ax):
    prior = KleinFilter(5, 1.0, 0.05)
    image = draw_filter_posterior(ax, prior, FILTER, columns=40)
    inner = pixels(image)[1:-1, 1:-1]
    assert inner.mean().item() == pytest.approx(1.0, abs=1e-4)  # trapezoid over the square
    peaks = [
        torch.tensor([(i % 40 + 0.5) * PI / 40, (i // 40 + 0.5) * PI / 40 - PI])
        for i in inner.flatten().topk(8).indices.tolist()
    ]
    modes = [TILTED, TILTED - torch.tensor([0.0, PI])]
    distances = torch.tensor([[KleinBottle().dist(p, m) for m in modes] for p in peaks])
    assert distances.amin(-1).max() < 0.2
    assert (distances < 0.2).sum(0).tolist() == [4, 4]


def test_posterior_goes_on_across_both_seams(ax):
    prior = KleinFilter(5, 1.0, 0.1)
    value = klein_filters(torch.tensor([0.1, 3.0]), 5)
    picture = pixels(draw_filter_posterior(ax, prior, value, columns=16))
    torch.testing.assert_close(picture[:, 0], picture[:, -2].flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(picture[:, -1], picture[:, 1].flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(picture[0], picture[-2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(picture[-1], picture[1], rtol=1e-4, atol=1e-5)


def test_posterior_fills_the_square_and_no_more(ax):
    image = draw_filter_posterior(ax, KleinFilter(5, 1.0, 0.1), FILTER, columns=10)
    cell = PI / 10
    assert image.get_extent() == pytest.approx([-cell, PI + cell, -PI - cell, PI + cell])
    assert image.origin == "lower"
    assert (image.norm.vmin, image.norm.vmax) == (0, max(4, pixels(image).max()))
    corners = ax.transData.inverted().transform(image.get_clip_box().get_points())
    assert corners.flatten() == pytest.approx([0, -PI, PI, PI])
    alone = Figure().subplots()
    draw_fundamental_square(alone, KleinBottle())
    assert (ax.get_xlim(), ax.get_ylim()) == (alone.get_xlim(), alone.get_ylim())


def test_density_of_the_prior_prefers_one_of_the_modes(ax):
    density = WrappedNormal(KleinBottle(), TILTED, torch.tensor([0.5, 0.5]))
    prior = KleinFilter(5, 1.0, 0.05, density)
    inner = pixels(draw_filter_posterior(ax, prior, FILTER, columns=40))[1:-1, 1:-1]
    row, column = divmod(int(inner.argmax()), 40)
    assert (column + 0.5) * PI / 40 == pytest.approx(float(TILTED[0]), abs=0.1)
    assert (row + 0.5) * PI / 40 - PI == pytest.approx(float(TILTED[1]), abs=0.1)
    # The other mode, half a turn of t2 away, is 9 times exp(-pi^2 / 0.5) as high.
    assert inner[row - 40, column] < 1e-3 * inner.max()


def test_a_density_is_drawn_over_the_uniform_one_and_across_the_seams(ax):
    density = WrappedNormal(KleinBottle(), torch.tensor([0.1, 3.0]), torch.tensor([0.3, 0.5]))
    picture = pixels(draw_klein_density(ax, density, columns=24))
    assert picture[1:-1, 1:-1].mean().item() == pytest.approx(1.0, abs=1e-4)
    torch.testing.assert_close(picture[:, 0], picture[:, -2].flip(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(picture[0], picture[-2], rtol=1e-4, atol=1e-5)
    row, column = divmod(int(picture[1:-1, 1:-1].argmax()), 24)
    assert (row + 0.5) * PI / 24 - PI == pytest.approx(3.0, abs=PI / 24)
    assert (column + 0.5) * PI / 24 == pytest.approx(0.1, abs=PI / 24)


@pytest.mark.parametrize(
    "density",
    [ManifoldUniform(Torus(2)), ManifoldUniform(KleinBottle()).expand([2])],
    ids=["torus", "batch"],
)
def test_densities_elsewhere_or_in_batches_are_refused(ax, density):
    with pytest.raises(ValueError, match=r"on KleinBottle\(\) of batch shape \(\)"):
        draw_klein_density(ax, density)
    assert not ax.has_data()


def test_draws_are_put_at_canonical_points(ax):
    moved = torch.tensor([[[0.9 + PI, -1.1], [0.9, 1.1 - 2 * PI]]])
    dots = draw_filter_draws(ax, moved)
    assert isinstance(dots, PathCollection)
    assert dots.get_offsets().data.tolist() == pytest.approx(
        torch.stack([TILTED, TILTED]).numpy(), abs=1e-5
    )


def test_draws_of_filters_go_to_their_nearest_points(ax):
    dots = draw_filter_draws(ax, FILTER.expand(3, 2, 5, 5))
    assert dots.get_offsets().shape == (6, 2)
    assert dots.get_offsets()[5].data == pytest.approx(TILTED.numpy(), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_cosine": 1.0}, "got 1.0 and 0.42"),
        ({"size": 0.0}, r"size in \(0, pi\), got 0.5 and 0.0"),
        ({"size": 4.0}, "got 0.5 and 4.0"),
    ],
)
def test_bad_options_are_refused(ax, options, message):
    with pytest.raises(ValueError, match=message):
        draw_placed_filters(ax, FILTER.expand(40, 5, 5), **options)
    assert not ax.has_data()


def test_bad_priors_and_values_are_refused(ax):
    with pytest.raises(TypeError, match="to be a KleinFilter, got CircleFilter"):
        draw_filter_posterior(ax, CircleFilter(5, 1.0, 0.1), FILTER)
    prior = KleinFilter(5, 1.0, 0.1)
    for law, value in ((prior, FILTER[None]), (prior.expand([1]), FILTER), (prior, CHECKS)):
        with pytest.raises(ValueError, match=r"batch shape \(\) and a value of shape \(5, 5\)"):
            draw_filter_posterior(ax, law, value)
    with pytest.raises(ValueError, match="columns and rows of at least 1, got 0"):
        draw_filter_posterior(ax, prior, FILTER, columns=0)
    assert not ax.has_data()


def test_alpha_makes_a_background(ax):
    draw_filter_atlas(ax, 3, columns=2, alpha=0.2)
    assert [image.get_alpha() for image in ax.images] == pytest.approx([0.2] * 8)
