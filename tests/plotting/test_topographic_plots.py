"""Figures of maps on a torus: what is at which place, and how the map goes on over its edges."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch.testing import assert_close

from pyro_manifolds.plotting import draw_preference_map, draw_topographic_map


@pytest.fixture
def ax():
    return Figure().subplots()


def at(ax, x, y):
    """Pixel of the only image at a point of the axes."""
    (image,) = ax.images
    left, right, bottom, top = image.get_extent()
    pixels = torch.from_numpy(image.get_array().filled(float("nan")))
    row, column = (y - top) / (bottom - top), (x - left) / (right - left)
    return float(pixels[int(row * len(pixels)), int(column * pixels.shape[1])])


def frames(ax):
    return [p for p in ax.patches if isinstance(p, Rectangle) and not p.get_fill()]


def test_each_filter_is_at_its_place_on_its_own_scale(ax):
    filters = torch.randn(3, 4, 5, 6) * torch.logspace(0, 3, 12).reshape(3, 4, 1, 1)
    filters[1, 2] = 0.0
    image = draw_topographic_map(ax, filters)
    assert image.get_array().shape == (3 * 6 - 1, 4 * 7 - 1)
    for i in range(3):
        for j in range(4):
            scale = float(filters[i, j].abs().max()) or 1.0
            for row, column in ((0, 0), (4, 5), (2, 3)):
                point = (j + (column + 0.5) / 7, i + (row + 0.5) / 6)
                assert at(ax, *point) == pytest.approx(float(filters[i, j, row, column]) / scale)
    assert math.isnan(at(ax, 1 - 0.5 / 7, 0.5))  # a gap
    assert image.get_clim() == (-1, 1)
    assert not frames(ax)


def test_pixels_are_square(ax):
    draw_topographic_map(ax, torch.randn(2, 2, 4, 8), gap=0)
    assert ax.get_aspect() == 0.5


def test_the_margin_shows_the_other_edge(ax):
    filters = torch.randn(3, 4, 5, 5)
    draw_topographic_map(ax, filters, margin=1)
    for x, y, i, j in ((-0.6, 0.4, 0, 3), (4.4, 2.4, 2, 0), (1.4, -0.6, 2, 1), (-0.6, 3.4, 0, 3)):
        expected = filters[i, j, 2, 2] / filters[i, j].abs().max()
        assert at(ax, x, y) == pytest.approx(float(expected)), (x, y)
    (frame,) = frames(ax)
    assert (frame.get_width(), frame.get_height()) == (4, 3)
    veiled = [p for p in ax.patches if p.get_fill()]
    inside = [p for p in veiled if p.get_bbox().contains(2.0, 1.5)]
    assert len(veiled) == 4
    assert not inside


def test_preferences_are_coloured_and_named(ax):
    classes = torch.tensor([[0, 3], [1, 1], [2, 0]])
    image = draw_preference_map(ax, classes, num_classes=5)
    assert_close(torch.from_numpy(image.get_array().data), classes)
    assert image.get_cmap().N == 5
    assert image.get_clim() == (-0.5, 4.5)
    written = {text.get_position(): text.get_text() for text in ax.texts}
    assert written[(1.5, 0.5)] == "3"
    assert len(written) == 6
    assert at(ax, 0.5, 2.5) == 2


def test_preferences_go_on_over_the_edges(ax):
    classes = torch.arange(6).reshape(2, 3)
    strength = torch.linspace(0, 1, 6).reshape(2, 3)
    image = draw_preference_map(ax, classes, strength=strength, margin=2, labels=False)
    assert not ax.texts
    assert at(ax, -0.5, 0.5) == 2
    assert at(ax, 3.5, -0.5) == 3
    alpha = torch.from_numpy(image.get_alpha())
    assert alpha.shape == (6, 7)
    assert_close(alpha[2:4, 2:5], strength)
    assert_close(alpha[0, 0], strength[0, 1])
    assert len(frames(ax)) == 1


def test_continuous_colour_maps_give_a_colour_a_class(ax):
    image = draw_preference_map(ax, torch.arange(12).reshape(3, 4), cmap="viridis")
    assert image.get_cmap().N == 12


def test_wrong_arguments_are_refused(ax):
    with pytest.raises(ValueError, match=r"expected filters of shape .*got \(3, 4, 5\)"):
        draw_topographic_map(ax, torch.randn(3, 4, 5))
    with pytest.raises(ValueError, match="expected gap >= 0, got -1"):
        draw_topographic_map(ax, torch.randn(2, 2, 3, 3), gap=-1)
    with pytest.raises(ValueError, match="draw_topographic_map: expected margin >= 0, got -1"):
        draw_topographic_map(ax, torch.randn(2, 2, 3, 3), margin=-1)
    with pytest.raises(ValueError, match="draw_preference_map: expected margin >= 0, got -2"):
        draw_preference_map(ax, torch.zeros(2, 2, dtype=torch.long), margin=-2)
    with pytest.raises(ValueError, match="expected integer classes"):
        draw_preference_map(ax, torch.zeros(2, 2))
    with pytest.raises(ValueError, match="expected classes from 0 to 1, got 0 to 3"):
        draw_preference_map(ax, torch.tensor([[0, 3]]), num_classes=2)
    with pytest.raises(ValueError, match="at least 11 colours, one for each class, got 'tab10'"):
        draw_preference_map(ax, torch.arange(11)[None])
    with pytest.raises(ValueError, match=r"expected strength of shape \(1, 2\), got \(2,\)"):
        draw_preference_map(ax, torch.tensor([[0, 1]]), strength=torch.ones(2))
    assert not ax.images
