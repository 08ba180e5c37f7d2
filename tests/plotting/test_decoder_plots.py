"""Plots of decoders: what is drawn where."""

import pytest
import torch
from matplotlib.figure import Figure
from torch.testing import assert_close

from pyro_manifolds.geometry import Geodesic, geodesic
from pyro_manifolds.plotting import draw_log_volume


@pytest.fixture
def ax():
    return Figure().subplots()


def slope(z):
    return z.real[..., 0] + 10 * (z.imag[..., 0] if z.is_complex() else z[..., 1])


def codes(kind):
    z = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]])
    return torch.complex(*z.unbind(-1)).unsqueeze(-1) if kind == "complex" else z


def flat(z):
    return torch.eye(2).expand(*z.shape[:-1], 2, 2)


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_cells_show_the_function_at_their_centres(ax, kind):
    image = draw_log_volume(ax, slope, codes(kind), columns=4)
    # Codes from 0 to 4 and from 0 to 2, with a margin of 0.4.
    assert_close(torch.tensor(image.get_extent()), torch.tensor([-0.4, 4.4, -0.4, 2.4]))
    x, y = -0.4 + 4.8 * (torch.arange(4) + 0.5) / 4, -0.4 + 2.8 * (torch.arange(4) + 0.5) / 4
    assert_close(torch.as_tensor(image.get_array().data), x + 10 * y.unsqueeze(-1))
    dots = torch.as_tensor(ax.collections[0].get_offsets().data).float()
    assert_close(dots, codes("real"))
    assert image.origin == "lower"


@pytest.mark.parametrize("kind", ["real", "complex"])
def test_geodesics_lie_next_to_straight_lines(ax, kind):
    start = codes(kind)[:2]
    found = geodesic(flat, start, start.flip(0), num_points=5)
    draw_log_volume(ax, slope, codes(kind), geodesic=found)
    curve, line, *others = ax.lines
    assert len(others) == 2
    expected = torch.linspace(0, 4, 5)
    assert_close(torch.as_tensor(curve.get_xdata()), expected)
    assert list(line.get_xdata()) == [0, 4]
    assert {curve.get_label(), line.get_label()} == {"geodesic", "straight line"}
    assert all(other.get_label().startswith("_") for other in others)
    assert curve.get_color() == "tab:orange"


def test_what_has_not_converged_is_red(ax):
    points, number = codes("real")[:2], torch.tensor(1.0)
    failed = Geodesic(points, number, number, torch.tensor(False), number, torch.tensor(3))
    draw_log_volume(ax, slope, codes("real"), geodesic=failed)
    assert {line.get_color() for line in ax.lines} == {"tab:red"}


def test_other_latents_are_refused(ax):
    with pytest.raises(ValueError, match=r"expected codes of shape \(N, 2\), or complex ones of"):
        draw_log_volume(ax, slope, torch.zeros(5, 3))
    with pytest.raises(ValueError, match=r"got torch.complex64 of shape \(5, 2\)"):
        draw_log_volume(ax, slope, torch.zeros(5, 2) + 0j)
    with pytest.raises(ValueError, match=r"expected columns of at least 2, got 1"):
        draw_log_volume(ax, slope, torch.zeros(5, 2), columns=1)
