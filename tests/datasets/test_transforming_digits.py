"""Sequences of digits: every transformation is what it says, cycles close, and phases are true."""

import math
from importlib import import_module

import pytest
import torch
from torch.nn import functional
from torch.testing import assert_close

from pyro_manifolds.datasets import (
    digit_split,
    mnist_digits,
    rotate_images,
    transforming_digits,
)

ALL = ("rotation", "scale", "hue", "translation")
DIGITS = mnist_digits()
ONE = torch.tensor([2507])  # reaches no further than ten pixels from the centre
KINDS = pytest.mark.parametrize("kind", ALL)


def single(kind, num_sequences=6, num_frames=9, size=28, seed=0, **options):
    """Sequences of one digit that one transformation runs through, in order of the phase."""
    options = {"digits": ONE, "transformations": (kind,), "seed": seed} | options
    return transforming_digits(num_sequences, num_frames, size, **options)


def from_step_zero(sequences):
    """Roll each sequence so that its first frame shows step zero of the cycle."""
    pairs = zip(sequences.images, sequences.phase.tolist(), strict=True)
    return torch.stack([frames.roll(phase, 0) for frames, phase in pairs])


# What all of them have in common.


@KINDS
def test_phases_shift_the_frames_of_one_cycle(kind):
    sequences = single(kind)
    assert len(sequences.phase.unique()) > 2
    cycles = from_step_zero(sequences)
    assert_close(cycles, cycles[:1].expand_as(cycles))
    frames = cycles[0].flatten(1)
    apart = torch.cdist(frames, frames) + torch.eye(9)
    assert apart.min() > 0.5  # no two frames are alike


@KINDS
def test_intensities_have_the_default_dtype_and_stay_in_range(kind):
    torch.set_default_dtype(torch.float64)
    sequences = single(kind, size=14)
    assert sequences.images.dtype == torch.float64
    assert sequences.images.min() >= 0
    assert sequences.images.max() <= 1
    assert sequences.images.shape == (6, 9) + (3,) * (kind == "hue") + (14, 14)


def test_a_seed_fixes_the_draw_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (transforming_digits(5, 4, 7, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(first, again)
    assert not torch.equal(first.images, other.images)


def test_chunks_do_not_change_the_images(monkeypatch):
    whole = transforming_digits(7, 6, 14, seed=0)
    module = import_module("pyro_manifolds.datasets.transforming_digits")
    monkeypatch.setattr(module, "_CHUNK", 13)  # two sequences at a time, and one at the end
    assert_close(transforming_digits(7, 6, 14, seed=0), whole)


def test_one_transformation_runs_and_the_others_stay_where_they_are():
    images, _, running, _ = transforming_digits(400, 6, 14, seed=0)
    counts = running.bincount(minlength=4)
    assert (counts - 100).abs().max() < 5 * (400 * 3 / 16) ** 0.5
    bright = images.amax(2)
    ink = bright.sum((-1, -2))
    hue = images.sum((-1, -2)) / ink.unsqueeze(-1)
    moves = (bright - bright[:, :1]).abs().sum((1, 2, 3))
    for index, name in enumerate(ALL):
        chosen = running == index
        assert (hue[chosen].std(1).amax(-1) > 0.1).all() == (name == "hue")
        assert (moves[chosen] < 1e-4).all() == (name == "hue")
    # What stays is somewhere along its cycle: all six hues of the steps, all six sizes.
    still = hue[running != ALL.index("hue")][:, 0]
    assert len(still.round(decimals=3).unique(dim=0)) == 6


def test_digits_are_drawn_without_replacement_then_anew():
    pool = torch.tensor([4100, 30, 2507, 1900])
    images = single("hue", 10, 2, digits=pool).images.amax((1, 2))
    gaps = (images.unsqueeze(1) - DIGITS.images[pool]).abs().sum((2, 3))
    drawn = gaps.argmin(1)
    assert gaps.amin(1).max() < 1e-3
    for part in drawn[:4], drawn[4:8]:
        assert part.sort().values.tolist() == [0, 1, 2, 3]
    assert drawn[:4].tolist() != drawn[4:8].tolist()
    every = transforming_digits(5000, 2, 2, transformations="translation", seed=0)
    assert torch.equal(every.labels.bincount(), DIGITS.labels.bincount())
    assert not torch.equal(every.labels, DIGITS.labels)


# Each of them.


def test_rotations_are_those_of_rotate_images_and_close():
    cycle = from_step_zero(single("rotation", 1, 12))[0]
    turned = rotate_images(DIGITS.images[ONE], 2 * math.pi / 12 * torch.arange(12))
    assert_close(cycle, turned, atol=1e-4, rtol=0)
    for quarter in (1, 2, 3):
        expected = torch.rot90(DIGITS.images[ONE[0]], quarter)
        assert_close(cycle[3 * quarter], expected, atol=1e-4, rtol=0)


def spread(images):
    """Root mean square distance of the ink from its centre, in pixels."""
    mass = images / images.sum((-1, -2), keepdim=True)
    places = torch.arange(28.0)
    moments = []
    for dim in (-1, -2):
        profile = mass.sum(dim)
        centre = (profile * places).sum(-1, keepdim=True)
        moments.append((profile * (places - centre).square()).sum(-1))
    return sum(moments).sqrt()


def test_scales_grow_in_equal_steps_and_jump_back():
    cycle = from_step_zero(single("scale", 1, 18))[0]
    factors = 0.60 + 0.66 / 17 * torch.arange(18)
    sizes = spread(cycle) / spread(DIGITS.images[ONE])
    assert_close(sizes, factors, atol=0.02, rtol=0)  # interpolation adds to the width


def test_smooth_scales_go_there_and_back_without_a_jump():
    cycle = from_step_zero(single("scale", 1, 18, smooth=True))[0]
    assert_close(cycle, cycle[[0, *range(17, 0, -1)]], atol=1e-4, rtol=0)
    sizes = spread(cycle) / spread(DIGITS.images[ONE])
    assert (sizes.roll(-1) - sizes).abs().max() < 0.13
    assert_close(sizes[[0, 9]], torch.tensor([0.60, 1.26]), atol=0.02, rtol=0)


def test_translations_go_round_a_circle_and_lose_nothing():
    cycle = from_step_zero(single("translation", 1, 8))[0]
    digit = DIGITS.images[ONE[0]]
    assert_close(cycle.sum((-1, -2)), digit.sum().expand(8), atol=1e-3, rtol=0)
    assert_close(cycle[0], digit.roll(3, 1), atol=1e-4, rtol=0)  # to the right
    assert_close(cycle[2], digit.roll(-3, 0), atol=1e-4, rtol=0)  # up
    assert_close(cycle[4], digit.roll(-3, 1), atol=1e-4, rtol=0)
    assert_close(cycle[6], digit.roll(3, 0), atol=1e-4, rtol=0)


def test_hues_are_those_of_the_standard_library():
    from colorsys import hsv_to_rgb

    cycle = from_step_zero(single("hue", 1, 18))[0]
    colours = torch.tensor([hsv_to_rgb(k / 18, 1.0, 1.0) for k in range(18)])
    expected = colours[..., None, None] * DIGITS.images[ONE]
    assert_close(cycle, expected, atol=1e-5, rtol=0)


def test_smaller_images_are_averages_of_blocks_and_binary_ones_are_above_the_threshold():
    full, small, binary = (
        single("rotation", 3, 12, size, binarize=threshold)
        for size, threshold in ((28, None), (14, None), (14, 0.35))
    )
    assert_close(small.images, functional.avg_pool2d(full.images, 2))
    assert torch.equal(binary.images, (small.images > 0.35).float())
    assert torch.equal(binary.phase, full.phase)


# The split.


def test_split_is_disjoint_and_balanced_and_fixed_by_its_seed():
    train, test = digit_split(1500, 203, seed=0)
    assert len(torch.cat([train, test]).unique()) == 1703
    assert DIGITS.labels[train].bincount().tolist() == [150] * 10
    counts = DIGITS.labels[test].bincount()
    assert counts.sum() == 203
    assert counts.max() - counts.min() == 1
    assert_close(digit_split(1500, 203, seed=0), (train, test))
    assert not torch.equal(digit_split(1500, 203, seed=1).train, train)
    assert len(digit_split(4000, 1000, seed=0).test) == 1000


# Bad arguments.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sequences": 0}, "num_sequences >= 1, got 0"),
        ({"num_frames": 1}, "num_frames >= 2, got 1"),
        ({"size": 10}, "size to be 2, 4, 7, 14 or 28, got 10"),
        ({"transformations": ()}, r"transformations to be one or more of rotation.*got \(\)"),
        ({"transformations": ("hue", "shear")}, r"each once, got \('hue', 'shear'\)"),
        ({"transformations": ("hue", "hue")}, r"each once, got \('hue', 'hue'\)"),
        ({"digits": torch.tensor([5000])}, "digits from 0 to 4999, got 5000 to 5000"),
        ({"digits": torch.tensor([-1])}, "digits from 0 to 4999, got -1 to -1"),
        ({"digits": torch.zeros(3)}, r"int64 of shape \(n,\), got torch.float32"),
        ({"digits": torch.zeros(0, dtype=torch.int64)}, r"one or more indices.*\(0,\)"),
        ({"binarize": 1.0, "transformations": "rotation"}, r"binarize in \[0, 1\), got 1.0"),
        ({"binarize": 0.3}, "binarize=None with hues.*leave 'hue' out"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"transforming_digits: expected .*{message}"):
        transforming_digits(**({"num_sequences": 2, "seed": 0} | options))


@pytest.mark.parametrize("numbers", [(0, 5), (5, 0), (4500, 501)])
def test_impossible_splits_are_refused(numbers):
    with pytest.raises(ValueError, match=r"digit_split: expected .* 5000 at most together, got"):
        digit_split(*numbers, seed=0)
