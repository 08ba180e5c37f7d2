"""Sprites: shapes, places and turns are those of geometry, and cycles close."""

import math
from importlib import import_module

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.datasets import draw_sprites, transforming_sprites

SHAPES = pytest.mark.parametrize("shape", [0, 1, 2], ids=["square", "ellipse", "heart"])
FACTORS = pytest.mark.parametrize("factor", ["x", "y", "orientation", "scale"])
SMOOTH = pytest.mark.parametrize("smooth", [False, True])


def sprite(shape, x=0.5, y=0.5, angle=0.0, scale=1.0, size=64):
    numbers = (torch.tensor(v, dtype=torch.float64) for v in (x, y, angle, scale))
    return draw_sprites(torch.tensor(shape), *numbers, size)


def moments(image):
    """Ink, and its centre from the left and from the bottom, as parts of the side."""
    places = (torch.arange(image.shape[-1]) + 0.5).to(image) / image.shape[-1]
    mass = image.sum((-1, -2))
    x = (image.sum(-2) * places).sum(-1) / mass
    y = (image.sum(-1) * places.flip(0)).sum(-1) / mass
    return mass, x, y


def inside(shape, a, b):
    """Tell by elementary geometry whether points are inside a shape that fits in the unit disc."""
    if shape == 0:
        return (a.abs() < 0.5**0.5) & (b.abs() < 0.5**0.5)
    if shape == 1:
        return a.square() + 4 * b.square() < 1
    up = (2**0.5 - 1) / 2 / (2**0.5 - 1 + 0.5**0.5)
    side = 1 / (0.5**0.5 + up)
    a, b = a.abs() / side, b / side + up
    square = a + b.abs() < 0.5**0.5
    disc = (a - 0.125**0.5).square() + (b - 0.125**0.5).square() < 0.25
    return square | disc


# Pictures.


@SHAPES
def test_pixels_hold_the_part_that_is_inside(shape):
    size, fine, angle = 32, 16, 0.4
    image = sprite(shape, 0.45, 0.52, angle, 0.8, size)
    places = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / (size * fine)
    right, up = torch.meshgrid(places - 0.45, places.flip(0) - 0.52, indexing="xy")
    right, up = right / 0.2, up / 0.2
    a = math.cos(angle) * right + math.sin(angle) * up
    b = math.cos(angle) * up - math.sin(angle) * right
    part = inside(shape, a, b).double().reshape(size, fine, size, fine).mean((1, 3))
    # A pixel is taken for a strip along the edge: off at corners, and by slanted edges.
    assert (image - part).abs().max() < 0.25
    assert (image - part).abs().mean() < 0.002
    assert abs(image.sum() / part.sum() - 1) < 0.005


@SHAPES
def test_areas_grow_with_the_square_of_the_scale(shape):
    area = [0.125, math.pi / 32, (1 + math.pi / 4) * 1.25736 / 16][shape]
    for scale in (0.5, 1.0):
        found = moments(sprite(shape, scale=scale, size=128))[0] / 128**2
        assert abs(found / (area * scale**2) - 1) < 0.005


@SHAPES
def test_sprites_move_right_and_up_and_turn_counterclockwise_about_their_centre(shape):
    base = sprite(shape, angle=0.3)
    assert_close(sprite(shape, 0.625, angle=0.3), base.roll(8, 1), atol=1e-9, rtol=0)
    assert_close(sprite(shape, y=0.625, angle=0.3), base.roll(-8, 0), atol=1e-9, rtol=0)
    assert_close(sprite(shape, angle=0.3 + math.pi / 2), torch.rot90(base), atol=1e-9, rtol=0)
    assert_close(sprite(shape, angle=0.3 + 2 * math.pi), base, atol=1e-9, rtol=0)


@SHAPES
def test_sprites_of_full_scale_touch_the_disc_and_stay_inside(shape):
    image = sprite(shape, size=256)
    places = (torch.arange(256, dtype=torch.float64) + 0.5) / 256 - 0.5
    radius = torch.hypot(places, places.unsqueeze(-1))
    assert image[radius > 0.25 + 1 / 256].max() == 0
    assert 0.24 < radius[image > 0.5].max() < 0.252


def test_the_heart_stands_upright():
    image = sprite(2)
    assert_close(image, image.flip(1))
    rows = image.sum(1).nonzero()
    assert image[rows[2]].count_nonzero() > image[rows[-2]].count_nonzero()  # the tip is below
    assert image[rows[1], 32] < 0.5  # between the two discs


@SHAPES
@pytest.mark.parametrize("size", [15, 16])
def test_gradients_of_the_latents_are_finite_and_right(shape, size):
    latents = torch.tensor([0.47, 0.53, 0.2, 0.9], dtype=torch.float64, requires_grad=True)

    def ink(latents):
        weights = torch.linspace(0, 1, size**2, dtype=torch.float64).reshape(size, size)
        return (weights * draw_sprites(torch.tensor(shape), *latents, size)).sum()

    assert torch.autograd.gradcheck(ink, latents)
    centre = torch.tensor([0.5, 0.5, 0.0, 1.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.grad(ink(centre), centre)[0].isfinite().all()


def test_latents_broadcast():
    shape = torch.tensor([[0], [1], [2]])
    x = torch.tensor([0.3, 0.5, 0.6, 0.7])
    images = draw_sprites(shape, x, torch.tensor(0.5), x, torch.tensor(0.7), 16)
    assert images.shape == (3, 4, 16, 16)
    alone = draw_sprites(shape[2, 0], x[1], torch.tensor(0.5), x[1], torch.tensor(0.7), 16)
    assert_close(images[2, 1], alone)


# Sequences.


@FACTORS
@SMOOTH
def test_one_factor_runs_from_the_phase_and_the_others_stay(factor, smooth):
    sequences = transforming_sprites(30, 12, factors=(factor,), smooth=smooth, seed=0)
    images, labels, running, phase = sequences
    assert images.shape == (30, 12, 64, 64)
    assert (running == 0).all()
    pairs = zip(images, phase.tolist(), strict=True)
    cycles = torch.stack([frames.roll(start, 0) for frames, start in pairs])
    mass, x, y = moments(cycles)
    step = torch.arange(12.0)
    ramp = (1 - (step * math.pi / 6).cos()) / 2 if smooth else step / 11
    found = {"x": x, "y": y, "scale": (mass / mass[:, :1]).sqrt()}
    expected = {"x": 0.25 + 0.5 * ramp, "y": 0.25 + 0.5 * ramp, "scale": 1 + ramp}
    for name, values in found.items():
        # Places by the centre of the ink: that of the heart turns about the centre of its disc.
        values = values if name == "scale" else values[labels < 2]
        if name == factor:
            assert_close(values, expected[name].expand_as(values), atol=0.01, rtol=0.01)
        elif not (name != "scale" and factor == "scale"):
            assert (values - values.mean(1, keepdim=True)).abs().max() < 0.01
    still = cycles[:, :1].expand_as(cycles)
    assert (cycles - still).abs().sum((2, 3))[:, 1:].min() > (-1 if factor == "orientation" else 1)


def test_a_turn_shows_a_square_four_times_an_ellipse_twice_and_a_heart_once():
    options = {"factors": "orientation", "size": 32, "seed": 0}
    for shape, period in (("square", 3), ("ellipse", 6), ("heart", 12)):
        frames = transforming_sprites(1, 12, shapes=shape, **options).images[0]
        gaps = [(frames - frames.roll(k, 0)).abs().max() > 1e-3 for k in range(1, 12)]
        assert [k for k in range(1, 12) if not gaps[k - 1]] == list(range(period, 12, period))


def test_labels_are_indices_into_the_shapes_and_all_shapes_and_factors_come():
    sequences = transforming_sprites(300, 2, 8, seed=0)
    for drawn, kinds in ((sequences.labels, 3), (sequences.transformation, 4)):
        counts = drawn.bincount(minlength=kinds)
        assert (counts - 300 / kinds).abs().max() < 5 * (300 / kinds) ** 0.5
    squares, ellipses = (
        transforming_sprites(20, 2, 32, shapes=("heart", other), seed=0)
        for other in ("square", "ellipse")
    )
    apart = (squares.images - ellipses.images).abs().sum((1, 2, 3))
    assert torch.equal(apart > 1, squares.labels == 1)
    assert torch.equal(squares.labels, ellipses.labels)


def test_a_seed_fixes_the_draw_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (transforming_sprites(5, 4, 16, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert_close(first, again)
    assert not torch.equal(first.images, other.images)


def test_chunks_do_not_change_the_images_and_the_dtype_is_the_default(monkeypatch):
    torch.set_default_dtype(torch.float64)
    whole = transforming_sprites(7, 6, 8, seed=0)
    assert whole.images.dtype == torch.float64
    monkeypatch.setattr(import_module("pyro_manifolds.datasets.sprites"), "_CHUNK", 13)
    assert_close(transforming_sprites(7, 6, 8, seed=0), whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_sequences": 0}, "num_sequences >= 1, got 0"),
        ({"num_frames": 1}, "num_frames >= 2, got 1"),
        ({"size": 3}, "size >= 4, got 3"),
        ({"factors": ("x", "hue")}, r"factors to be one or more of x, y.*got \('x', 'hue'\)"),
        ({"shapes": ()}, r"shapes to be one or more of square.*got \(\)"),
        ({"shapes": ("heart", "heart")}, "each once"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=f"transforming_sprites: expected .*{message}"):
        transforming_sprites(**({"num_sequences": 2, "seed": 0} | options))


def test_a_shape_that_is_none_is_refused():
    with pytest.raises(ValueError, match="draw_sprites: expected shape to be 0, 1 or 2, got 3"):
        sprite(3)
