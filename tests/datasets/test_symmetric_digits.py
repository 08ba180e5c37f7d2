"""Digits moved by a group: the group acts as it should, and the noise is what it says."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.datasets import mnist_digits, rotating_digits, shifted_digits

DRAWS = pytest.mark.parametrize("draw", [rotating_digits, shifted_digits])


@DRAWS
def test_a_seed_fixes_the_draw_and_leaves_the_global_generator_alone(draw):
    state = torch.get_rng_state()
    first, again, other = (draw(5, 7, seed=seed, noise=0.1) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(first, again)
    assert not torch.equal(first.images, other.images)
    assert first.images.shape == (5, 7, 7)


@DRAWS
def test_angles_are_uniform_and_the_noise_is_known(draw):
    clean, noisy = (draw(2_000, seed=0, noise=noise) for noise in (0.0, 0.3))
    assert_close(clean.angles, noisy.angles)
    apart = noisy.images - clean.images
    # 392,000 normal draws: standard errors of 0.0005 and 0.0003.
    assert abs(apart.mean()) < 0.002
    assert abs(apart.std() - 0.3) < 0.002
    assert clean.angles.min() >= -math.pi
    assert clean.angles.max() < math.pi
    for turn in torch.stack([clean.angles.cos(), clean.angles.sin(), (2 * clean.angles).cos()]):
        assert turn.mean(0).abs().max() < 5 / (2 * 2_000) ** 0.5


def test_given_angles_turn_counterclockwise_at_full_size_and_below():
    digit = mnist_digits().images[3500]
    angles = torch.tensor([0.0, math.pi / 2, math.pi])
    images = rotating_digits(3, 28, seed=0, index=3500, angles=angles).images
    turned = torch.stack([torch.rot90(digit, k) for k in range(3)])
    assert_close(images, turned, atol=1e-4, rtol=0)
    half = rotating_digits(3, 14, seed=0, index=3500, angles=angles).images
    blocks = turned.reshape(3, 14, 2, 14, 2).mean((2, 4))
    assert_close(half, blocks, atol=1e-4, rtol=0)


def test_shifts_compose_cyclically_and_whole_pixels_are_rolls():
    images, angles = shifted_digits(200, seed=0)
    pixels = angles * 14 / (2 * math.pi)
    digit = mnist_digits().images[2000].reshape(14, 2, 14, 2).mean((1, 3))
    # Moved back by the nearest whole number of pixels, what is left is less than one pixel off;
    # a shift of an even number of samples keeps the sum exactly.
    assert_close(images.sum((1, 2)), digit.sum().expand(200), atol=1e-4, rtol=0)
    spectrum = torch.fft.fft2(digit)
    rows = torch.exp(-1j * angles[:, 0])
    columns = torch.exp(-1j * angles[:, 1])
    moved = torch.fft.fft2(images)
    assert_close(moved[:, 1, 0], spectrum[1, 0] * rows, atol=1e-4, rtol=0)
    assert_close(moved[:, 2, 3], spectrum[2, 3] * rows**2 * columns**3, atol=1e-4, rtol=0)
    near = (pixels - pixels.round()).abs().amax(-1).argmin()
    rolled = torch.roll(digit, tuple(pixels[near].round().int().tolist()), (0, 1))
    off = (pixels[near] - pixels[near].round()).abs().sum()
    assert (images[near] - rolled).abs().max() < 2 * off  # an edge of height one, per pixel
    assert off < 0.2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 0}, "num_images >= 1, got 0"),
        ({"size": 10}, "size to be 2, 4, 7, 14 or 28, got 10"),
        ({"index": 5000}, "index from 0 to 4999, got 5000"),
        ({"noise": -1.0}, "noise >= 0, got -1.0"),
    ],
)
@DRAWS
def test_bad_arguments_are_named(draw, options, message):
    with pytest.raises(ValueError, match=f"{draw.__name__}: expected {message}"):
        draw(**({"num_images": 5, "seed": 0} | options))


def test_angles_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"angles of shape \(5,\), got \(4,\)"):
        rotating_digits(5, seed=0, angles=torch.zeros(4))
