"""Fundamental squares: which edges carry arrows, which way, and where grids and images lie."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from pyro_manifolds import Circle, Euclidean, KleinBottle, MoebiusBand, Sphere, Torus
from pyro_manifolds.plotting import (
    draw_fundamental_square,
    draw_patches_on_square,
    square_grid,
)

SQUARES = [KleinBottle(), Torus(2), MoebiusBand(0.7)]
OTHERS = [Circle(), Torus(3), Sphere(2), Euclidean(2), MoebiusBand(math.inf)]


@pytest.fixture
def ax():
    return Figure().subplots()


def arrows(ax):
    """Position and direction of each arrowhead, by colour."""
    found = {}
    for line in ax.lines:
        if isinstance(line.get_marker(), tuple):
            point = (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
            found.setdefault(line.get_color(), []).append((point, line.get_marker()[2] % 360))
    return found


def test_klein_bottle_flips_its_sides_and_not_its_ends(ax):
    draw_fundamental_square(ax, KleinBottle())
    sides, ends = arrows(ax)["tab:red"], arrows(ax)["tab:blue"]
    assert sides == [((0.0, 0.0), 0), ((math.pi, 0.0), 180)]
    assert [direction for _, direction in ends] == [270] * 4  # two heads on each, to the right
    assert sorted({y for (_, y), _ in ends}) == [-math.pi, math.pi]


def test_torus_glues_straight_and_a_band_has_a_boundary(ax):
    draw_fundamental_square(ax, Torus(2))
    assert [d for _, d in arrows(ax)["tab:red"]] == [0, 0]
    band = Figure().subplots()
    draw_fundamental_square(band, MoebiusBand(0.7))
    assert list(arrows(band)) == ["tab:red"]
    assert [d for _, d in arrows(band)["tab:red"]] == [0, 180]


def test_what_the_arrows_say_is_what_the_klein_bottle_does():
    t2 = torch.linspace(-3.0, 3.0, 7)
    left, right = torch.stack([0 * t2, t2], -1), torch.stack([0 * t2 + math.pi, -t2], -1)
    assert KleinBottle().equivalent(left, right).all()


@pytest.mark.parametrize(
    ("manifold", "low", "high"),
    [
        (KleinBottle(), (0.0, -math.pi), (math.pi, math.pi)),
        (Torus(2), (-math.pi, -math.pi), (math.pi, math.pi)),
        (MoebiusBand(0.7), (0.0, -0.7), (math.pi, 0.7)),
    ],
    ids=str,
)
def test_edges_bound_the_canonical_range(ax, manifold, low, high):
    draw_fundamental_square(ax, manifold)
    edges = [line.get_xydata() for line in ax.lines if line.get_marker() == "None"]
    corners = torch.tensor([[min(e[:, i]) for e in edges] for i in (0, 1)]).double()
    assert corners.amin(-1).tolist() == pytest.approx(low)
    assert max(e[:, 0].max() for e in edges) == pytest.approx(high[0])
    assert max(e[:, 1].max() for e in edges) == pytest.approx(high[1])
    assert ax.get_aspect() == 1


def test_labels_can_be_left_out(ax):
    draw_fundamental_square(ax, KleinBottle(), labels=False)
    assert ax.get_xlabel() == ""
    assert len(ax.get_xticks()) == 0


@pytest.mark.parametrize("manifold", SQUARES, ids=str)
def test_grid_of_cell_centres_is_canonical_and_even(manifold):
    grid = square_grid(manifold, columns=4, rows=6, dtype=torch.float64)
    assert grid.shape == (6, 4, 2)
    torch.testing.assert_close(manifold.projx(grid).as_subclass(torch.Tensor), grid)
    steps = grid[0, :, 0].diff()
    torch.testing.assert_close(steps, steps[:1].expand(3))


def test_patches_are_centred_on_their_points_and_leave_the_limits(ax):
    draw_fundamental_square(ax, KleinBottle())
    limits = ax.get_xlim(), ax.get_ylim()
    draw_patches_on_square(ax, torch.tensor([[1.0, -2.0]]), torch.randn(1, 3, 3), size=0.5)
    assert ax.images[0].get_extent() == [0.75, 1.25, -2.25, -1.75]
    assert (ax.get_xlim(), ax.get_ylim()) == limits


def test_flat_patches_are_drawn(ax):
    draw_patches_on_square(ax, torch.zeros(1, 2), torch.zeros(1, 3, 3))
    assert len(ax.images) == 1


@pytest.mark.parametrize("manifold", OTHERS, ids=str)
@pytest.mark.parametrize("draw", [draw_fundamental_square, lambda _, m: square_grid(m, 2, 2)])
def test_manifolds_without_a_square_are_refused(ax, manifold, draw):
    with pytest.raises(ValueError, match=r"expected KleinBottle\(\), Torus\(2\)"):
        draw(ax, manifold)


def test_bad_shapes_and_numbers_are_refused(ax):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        square_grid(KleinBottle(), columns=0, rows=2)
    with pytest.raises(ValueError, match="got \\(2, 3\\)"):
        draw_patches_on_square(ax, torch.zeros(2, 3), torch.zeros(2, 3, 3))
