"""Metrics of codes in capsules: vectors, laws of rolls, and what they are by chance."""

import math

import numpy as np
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.geometry import (
    capsule_shifts,
    equivariance_chance,
    equivariance_error,
    estimated_shifts,
    prior_null,
    roll_capsules,
    roll_forward,
    shift_agreement,
    shift_hit_rates,
)

TRUE = torch.tensor([0, 3, 5, 8, 11, 2])
ESTIMATED = torch.tensor([1, 3, 6, 7, 11, 0])


def rolling(num_frames, num_capsules=3, size=6, num_sequences=4, roll=1):
    """Codes that move by some slots a frame, exactly."""
    first = torch.randn(num_sequences, 1, num_capsules, size, dtype=torch.float64)
    return torch.cat([first.roll(roll * k, -1) for k in range(num_frames)], 1)


# The roll.


def test_a_roll_moves_every_slot_forward_and_rolls_add():
    t = torch.randn(2, 5, 3, 7)
    assert torch.equal(roll_capsules(t, 2)[..., 3], t[..., 1])
    assert torch.equal(roll_capsules(roll_capsules(t, 3), 5), roll_capsules(t, 1))
    assert torch.equal(roll_capsules(t, -4), roll_capsules(t, 3))


def test_shifts_of_a_tensor_are_those_of_each_capsule():
    t = torch.randn(2, 5, 3, 7)
    shifts = torch.arange(-4, 1).unsqueeze(-1)  # one for each frame
    expected = torch.stack([t[:, k].roll(k - 4, -1) for k in range(5)], 1)
    assert torch.equal(roll_capsules(t, shifts), expected)
    first = t[:, :1]
    assert roll_capsules(first, shifts).shape == t.shape


def test_a_roll_by_a_fraction_is_refused():
    with pytest.raises(TypeError, match="whole number as shift, got torch.float32"):
        roll_capsules(torch.zeros(2, 3), torch.tensor(0.5))


# The equivariance error.


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 2, 4), 30.983743019926),
        ((3, 2, 4), 15.542007932281),
        ((6, 1, 4), 33.144178113962),
        ((8, 2, 4), 129.805041895656),
    ],
)
def test_error_of_waves(shape, expected):
    frame, capsule, slot = (torch.arange(float(n), dtype=torch.float64) for n in shape)
    waves = torch.sin(1 + 3 * frame[:, None, None] + 5 * capsule[:, None] + 7 * slot.square())
    assert abs(equivariance_error(waves) - expected) < 1e-11
    scaled = waves * torch.rand(*shape[:2], 1, dtype=torch.float64)  # only directions count
    assert abs(equivariance_error(torch.stack([waves, scaled])) - expected) < 1e-11


@pytest.mark.parametrize("num_frames", [1, 4, 6, 9])
def test_error_is_zero_for_codes_that_roll_and_only_for_them(num_frames):
    for roll in (1, 2):
        codes = rolling(num_frames, roll=roll)
        assert equivariance_error(codes, roll=roll) < 1e-13 * num_frames**2 * 18
    if num_frames > 1:
        assert equivariance_error(codes, roll=1) > 1


def test_error_of_capsules_without_length_is_finite_with_its_gradient():
    codes = rolling(4).index_fill(2, torch.tensor([1]), 0.0).requires_grad_()
    error = equivariance_error(codes, roll=2)
    assert error > 0
    (gradient,) = torch.autograd.grad(error, codes)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("size", "expected"), [(18, 13270.7018028), (15, 6936.52981559), (12, 3125.25085902)]
)
def test_chance_level_of_cubes(size, expected):
    assert abs(equivariance_chance(size, size, size) / expected - 1) < 1e-11


@pytest.mark.parametrize("size", [1, 2, 3, 7, 40])
def test_chance_level_against_simulated_directions(size):
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((2, 200_000, size))
    gaps = x[:, 0] / np.linalg.norm(x, axis=1) - y[:, 0] / np.linalg.norm(y, axis=1)
    expected = 3 * 5 * size * np.abs(gaps).mean()  # pairs of three frames, five capsules
    error = 3 * 5 * size * np.abs(gaps).std() / math.sqrt(200_000)
    assert abs(equivariance_chance(3, 5, size) - expected) < 4 * error


# Shifts.


def test_shifts_are_found_in_each_capsule_at_any_mean_and_in_float32():
    shifts = torch.randint(18, (40, 5))
    source = 1000 + torch.randn(40, 5, 18)
    target = 3 * roll_capsules(source, shifts)
    assert torch.equal(capsule_shifts(source, target), shifts)
    assert torch.equal(capsule_shifts(target, source), (-shifts).remainder(18))


def test_shifts_are_those_of_the_least_squared_distance():
    source, target = torch.randn(2, 30, 4, 7, dtype=torch.float64)
    gaps = torch.stack([(source.roll(k, -1) - target).square().sum(-1) for k in range(7)])
    assert torch.equal(capsule_shifts(source, target), gaps.argmin(0))


def test_the_most_frequent_shift_wins_over_a_better_one():
    source = torch.randn(5, 8)
    shifts = torch.tensor([[6, 2, 6, 1, 0], [3, 3, 7, 7, 7]])
    assert estimated_shifts(source, roll_capsules(source, shifts)).tolist() == [6, 7]


def test_a_roll_of_the_target_adds_to_the_shift_also_where_shifts_are_equally_frequent():
    source, target = torch.randn(2, 200, 4, 6, dtype=torch.float64)
    shifts = estimated_shifts(source, target)
    for k in (1, 5):
        moved = estimated_shifts(source, target.roll(k, -1))
        assert torch.equal(moved, (shifts + k).remainder(6))


def test_shifts_since_frame_zero_of_codes_that_roll():
    codes = rolling(9, roll=2)
    assert estimated_shifts(codes[:, :1], codes).tolist() == [[0, 2, 4, 0, 2, 4, 0, 2, 4]] * 4


def test_agreement_of_a_known_example():
    found = shift_agreement(ESTIMATED, TRUE, 12)
    expected = (1 / 3, 0.849679368558886, 0.684731617488315)
    assert_close(found, type(found)(*expected), atol=1e-13, rtol=0)


def test_agreement_against_the_sums_over_pairs():
    a, b = torch.randint(7, (2, 3, 20))
    x, y = (2 * math.pi / 7 * v.flatten().double() for v in (a, b))
    sines = [(v - v.unsqueeze(-1)).sin() for v in (x, y)]
    norm = (sines[0].square().sum() * sines[1].square().sum()).sqrt()
    found = shift_agreement(a, b, 7)
    assert abs(found.correlation - (sines[0] * sines[1]).sum() / norm) < 1e-13
    assert abs(found.hit_rate - (a == b).double().mean()) < 1e-13
    assert shift_agreement(a + 7, b - 14, 7).hit_rate == found.hit_rate


def test_an_offset_leaves_the_correlation_alone_and_a_mirror_turns_its_sign():
    true = torch.arange(18)
    moved = shift_agreement((true + 1) % 18, true, 18)
    assert moved.hit_rate == 0
    assert abs(moved.correlation - 1) < 1e-12
    assert abs(shift_agreement(-true, true, 18).correlation + 1) < 1e-12


@pytest.mark.parametrize("constant", [[3, 3, 3, 3], [0, 6, 0, 6]])
def test_agreement_with_shifts_that_do_not_vary_is_no_nan(constant):
    found = shift_agreement(torch.tensor(constant), torch.tensor([1, 5, 2, 9]), 12)
    assert found.correlation == 0
    assert not math.isnan(found.mean_cosine)


@pytest.mark.parametrize(("cyclic", "num_frames"), [(True, 6), (False, 9)])
def test_hit_rates_are_one_for_codes_that_roll_and_zero_for_those_that_roll_back(
    cyclic, num_frames
):
    codes = rolling(num_frames)
    lags = (0, 1, 2, 5)
    assert shift_hit_rates(codes, lags, cyclic=cyclic).tolist() == [1, 1, 1, 1]
    back = shift_hit_rates(codes.flip(1), lags, cyclic=cyclic)
    assert back.tolist() == [1, 0, 0, 0]


def test_open_sequences_do_not_go_round_the_end():
    codes = rolling(9)  # nine frames of six slots: frame 0 does not follow frame 8
    assert_close(shift_hit_rates(codes, (1, 4)), torch.tensor([8, 5], dtype=torch.float64) / 9)


# The null.


def band(length, breadth):
    """Offsets in time and slots of the published window, with its corners cut."""
    offsets = [k - (length - 1) // 2 for k in range(length)]
    return [(d, e) for d in offsets for e in offsets if abs(d - e) <= breadth]


class Window(dist.TorchDistribution):
    """Brute force: (z + loc) / sqrt(v), where v sums the squares in a circular window."""

    def __init__(self, taps, loc):
        self.taps, self.loc = taps, loc
        super().__init__(torch.Size(), torch.Size([18, 18, 18]), validate_args=False)

    def sample(self, sample_shape=torch.Size()):
        z, u = torch.randn(2, *sample_shape, 18, 18, 18, dtype=torch.float64).numpy()
        v = sum(np.roll(u**2, (-d, -e), (-3, -1)) for d, e in self.taps)
        return torch.from_numpy((z + self.loc) / np.sqrt(v))


@pytest.mark.parametrize(
    ("taps", "loc", "error", "hits"),
    [
        (band(13, 1), 30, 917, (1.0, 1.0, 0.97)),
        (band(5, 1), 30, 2230, (0.98, 0.06, 0.02)),
        ([(0, e) for e in (-1, 0, 1)], 30, 5511, (1 / 18, 1 / 18, 1 / 18)),
        (band(13, 1), 0, 13_230, (1 / 18, 1 / 18, 1 / 18)),
    ],
    ids=["long", "short", "no time", "no location"],
)
def test_a_prior_passes_for_equivariant_without_any_data(taps, loc, error, hits):
    prior = Window(taps, loc)
    found = prior_null(equivariance_error, prior, num_sequences=64)
    assert abs(found / error - 1) < 0.02  # the spread over seeds is half a per cent
    # The expected rates, unless by chance, are of 64 pairs each: standard errors of up to 0.03.
    rates = prior_null(lambda t: shift_hit_rates(t, (1, 4, 9)), prior, num_sequences=64)
    assert_close(rates, torch.tensor(hits, dtype=torch.float64), atol=0.05, rtol=0)


def test_the_null_of_independent_codes_is_chance_and_a_seed_fixes_it():
    prior = dist.Normal(torch.zeros(5, 4, 6), 1.0).to_event(3)
    state = torch.get_rng_state()
    found, again = (prior_null(equivariance_error, prior, 2000, seed=3) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert found == again
    assert found != prior_null(equivariance_error, prior, 2000, seed=4)
    assert abs(found / equivariance_chance(5, 4, 6) - 1) < 0.005
    rates = prior_null(lambda t: shift_hit_rates(t, (1, 2)), prior, 2000)
    assert (rates - 1 / 6).abs().max() < 0.02  # 10,000 frames: standard errors below 0.005


# Rolling forward.


def normal(codes, images):
    return dist.Normal(codes[..., 0, :], 1.0).to_event(1).log_prob(images)


@pytest.mark.parametrize("cyclic", [True, False])
def test_rolled_codes_that_roll_decode_every_later_frame(cyclic):
    codes = rolling(6)
    images = codes[..., 0, :]
    found = roll_forward(codes, images, normal, cyclic=cyclic)
    assert found.lags.tolist() == [0, 1, 2, 3]
    assert_close(found.rolled, torch.full((4,), 3 * math.log(2 * math.pi), dtype=torch.float64))
    assert found.control[0] == found.rolled[0]
    assert (found.control[1:] > found.rolled[1:]).all()


@pytest.mark.parametrize("cyclic", [True, False])
def test_rolling_forward_against_a_loop_over_frames(cyclic):
    codes, images = torch.randn(2, 3, 5, 2, 4), torch.randn(2, 3, 4)
    codes = codes[:, :, 0]  # two sequences of three frames
    for lag in range(3):
        pairs = [(k, (k + lag) % 3) for k in range(3) if cyclic or k + lag < 3]
        for roll in (1, 3):
            found = roll_forward(codes, images, normal, [lag], cyclic=cyclic, roll=roll)
            for shift, value in ((roll * lag, found.rolled), (0, found.control)):
                expected = -torch.stack(
                    [normal(codes[:, a].roll(shift, -1), images[:, b]) for a, b in pairs]
                ).mean()
                assert_close(value, expected.unsqueeze(0))


def test_rolling_forward_takes_colours_and_needs_no_gradient():
    codes = torch.randn(2, 4, 3, 6, requires_grad=True)
    images = torch.rand(2, 4, 3, 5, 5)

    def log_likelihood(codes, images):
        colour = codes[..., :1, :1].sigmoid().unsqueeze(-1)
        return dist.Normal(colour, 1.0).expand(images.shape).to_event(3).log_prob(images)

    found = roll_forward(codes, images, log_likelihood, lags=(1,))
    assert not found.rolled.requires_grad


# Codes from means and scales.


# Bad arguments.


def codes_of(*shape):
    return torch.zeros(*shape)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equivariance_error(codes_of(3, 4)), r"\[..., S, C, D\].*got \(3, 4\)"),
        (lambda: equivariance_error(codes_of(3, 4, 0)), r"got \(3, 4, 0\)"),
        (lambda: equivariance_chance(0, 2, 2), r"at least 1, got \(0, 2, 2\)"),
        (lambda: capsule_shifts(codes_of(4), codes_of(4)), r"equal D, got \(4,\) and \(4,\)"),
        (lambda: estimated_shifts(codes_of(2, 4), codes_of(2, 5)), r"equal D.*\(2, 5\)"),
        (lambda: shift_agreement(TRUE, TRUE[:1], 12), r"one shape.*got \(6,\) and \(1,\)"),
        (lambda: shift_agreement(TRUE[:0], TRUE[:0], 12), "not empty"),
        (lambda: shift_agreement(TRUE, TRUE, 1), "size >= 2, got 1"),
        (lambda: shift_hit_rates(codes_of(3, 2, 4), (3,)), r"lags from 0 to 2, got \(3,\)"),
        (lambda: shift_hit_rates(codes_of(3, 2, 4), ()), r"one or more lags .* got \(\)"),
        (
            lambda: prior_null(equivariance_error, dist.Normal(codes_of(3, 4), 1.0).to_event(2)),
            r"event shape \(S, C, D\).*got \(3, 4\)",
        ),
        (
            lambda: prior_null(sum, dist.Normal(codes_of(3, 2, 4), 1.0).to_event(3), 0),
            "num_sequences >= 1, got 0",
        ),
        (
            lambda: roll_forward(codes_of(2, 3, 2, 4), codes_of(2, 4, 4), normal),
            r"images of shape \(2, 3\) \+ image.*got \(2, 4, 4\)",
        ),
        (
            lambda: roll_forward(codes_of(3, 2, 4), codes_of(3, 4), normal, (-1,)),
            r"lags from 0 to 2, got \(-1,\)",
        ),
        (
            lambda: roll_forward(codes_of(3, 2, 4), codes_of(3, 4), lambda c, x: x),
            r"one number for each frame, shape \(3,\), got \(3, 4\)",
        ),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
