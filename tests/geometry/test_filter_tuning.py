"""Tuning of filters, measured on Gabor functions of known direction, frequency and place."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.geometry import filter_tuning, tuning_differences


def gabor(orientation, frequency=0.2, place=(0.0, 0.0), phase=0.0, size=21, width=2.5):
    """Wave along ``orientation`` under a bell at ``place``, both counted rightwards and up."""
    steps = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    right, up = steps, -steps[:, None]
    along = right * math.cos(orientation) + up * math.sin(orientation)
    bell = (-((right - place[0]).square() + (up - place[1]).square()) / (2 * width**2)).exp()
    return bell * (2 * math.pi * frequency * along + phase).cos()


@pytest.mark.parametrize("degrees", [0, 20, 45, 90, 130, 179])
@pytest.mark.parametrize("phase", [0.0, 1.0])
def test_direction_of_a_gabor(degrees, phase):
    tuning = filter_tuning(gabor(math.radians(degrees), phase=phase))
    off = (math.degrees(float(tuning.orientation)) - degrees + 90) % 180 - 90
    assert abs(off) < 0.1
    assert 0 <= float(tuning.orientation) < math.pi
    assert float(tuning.selectivity) > 0.8


@pytest.mark.parametrize("frequency", [0.15, 0.25, 0.3])
def test_frequency_of_a_gabor(frequency):
    found = filter_tuning(gabor(0.7, frequency, width=4.0, size=31)).frequency
    assert float(found) == pytest.approx(frequency, rel=0.03)


def test_place_of_a_gabor():
    found = filter_tuning(gabor(0.7, place=(3.0, -2.0)))
    # The wave moves the centre of energy by a fraction of a pixel.
    assert_close(found.position, torch.tensor([3.0, -2.0], dtype=torch.float64), atol=0.15, rtol=0)


def test_a_quarter_turn_turns_direction_and_place():
    x = torch.randn(5, 9, 9, dtype=torch.float64)
    one, two = filter_tuning(x), filter_tuning(x.rot90(1, (-2, -1)))  # counterclockwise
    assert_close(two.orientation, (one.orientation + math.pi / 2) % math.pi)
    assert_close(two.position, torch.stack([-one.position[:, 1], one.position[:, 0]], -1))
    assert_close(two.frequency, one.frequency)
    assert_close(two.selectivity, one.selectivity)


def test_sign_size_and_mean_do_not_matter():
    x = torch.randn(5, 9, 7, dtype=torch.float64)
    for one, two in zip(filter_tuning(x), filter_tuning(3.0 - 2.0 * x), strict=True):
        assert_close(one, two)


def test_what_has_no_direction_is_not_selective():
    spot = gabor(0.0, 0.0)
    assert float(filter_tuning(spot - spot.mean()).selectivity) < 1e-6


def test_batches_and_dtypes_are_kept():
    x = torch.randn(2, 3, 5, 5)
    tuning = filter_tuning(x)
    assert tuning.position.shape == (2, 3, 2)
    assert {part.dtype for part in tuning} == {torch.float32}
    assert_close(tuning.orientation[1, 2], filter_tuning(x[1, 2]).orientation)


def test_differences_wrap_round_half_a_turn():
    filters = torch.stack([gabor(0.05), gabor(math.pi - 0.05, 0.1), gabor(math.pi / 2 + 0.05)])
    apart = tuning_differences(filter_tuning(filters))
    assert float(apart["orientation"][0, 1]) == pytest.approx(math.degrees(0.1), abs=0.5)
    assert float(apart["orientation"][0, 2]) == pytest.approx(90, abs=0.5)
    assert float(apart["orientation"].max()) <= 90
    assert float(apart["frequency"][0, 1]) == pytest.approx(1.0, abs=0.35)
    for part in apart.values():
        assert_close(part, part.mT)
        assert_close(part.diagonal(), torch.zeros(3, dtype=torch.float64))


def test_wrong_filters_are_refused():
    with pytest.raises(ValueError, match=r"at least 3 by 3, got \(2, 5\)"):
        filter_tuning(torch.randn(2, 5))
    with pytest.raises(ValueError, match="expected filters that vary, got a constant one"):
        filter_tuning(torch.stack([torch.randn(4, 4), torch.full((4, 4), 0.1)]))
    with pytest.raises(ValueError, match="expected finite filters"):
        filter_tuning(torch.full((4, 4), math.nan))
