"""Figures of sequences and of rolled codes: each picture is where it should be."""

import pytest
import torch
from matplotlib.figure import Figure
from torch.testing import assert_close

from pyro_manifolds.plotting import draw_capsule_traversal, draw_sequences


@pytest.fixture
def ax():
    return Figure().subplots()


def cell(picture, row, column, size, gap):
    """Red, green and blue of one of the small pictures."""
    pixels = torch.from_numpy(picture.get_array().data.copy())
    top, left = row * (size + gap), column * (size + gap)
    return pixels[top : top + size, left : left + size, :3]


@pytest.mark.parametrize("gap", [0, 2])
def test_rows_are_sequences_and_columns_frames(ax, gap):
    images = torch.rand(3, 4, 5, 5)
    picture = draw_sequences(ax, images, gap=gap)
    assert picture.get_array().shape == (15 + 2 * gap, 20 + 3 * gap, 4)
    for row in range(3):
        for column in range(4):
            found = cell(picture, row, column, 5, gap)
            # Grey in 256 steps.
            expected = images[row, column].unsqueeze(-1).expand(5, 5, 3)
            assert_close(found, expected, atol=1 / 255, rtol=0)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["0", "1", "2", "3"]
    assert ax.get_xticks().tolist() == [2, 7 + gap, 12 + 2 * gap, 17 + 3 * gap]


def test_gaps_are_transparent_and_images_are_not(ax):
    opacity = draw_sequences(ax, torch.rand(2, 2, 3, 3), gap=1).get_array()[..., 3]
    assert (opacity[3] == 0).all()
    assert (opacity[:, 3] == 0).all()
    assert opacity.sum() == 36


def test_colours_are_kept(ax):
    images = torch.rand(2, 3, 3, 4, 4, requires_grad=True)
    picture = draw_sequences(ax, images)
    assert_close(cell(picture, 1, 2, 4, 1), images[1, 2].detach().permute(1, 2, 0))


@pytest.mark.parametrize("colours", [(), (3,)])
def test_a_traversal_shows_the_frame_then_the_decoded_rolls(ax, colours):
    images, codes = torch.rand(2, *colours, 4, 4), torch.rand(2, 5, 6)

    def decode(codes):
        level = codes[:, 0, 0].reshape(2, *(1 for _ in images.shape[1:]))
        return level.expand_as(images)

    picture = draw_capsule_traversal(ax, images, codes, decode, shifts=(0, 2))
    for row in range(2):
        frame = images[row].permute(1, 2, 0) if colours else images[row].unsqueeze(-1)
        assert_close(cell(picture, row, 0, 4, 1), frame.expand(4, 4, 3), atol=1 / 255, rtol=0)
        for column, slot in ((1, 0), (2, 4)):  # slot 4 has gone to slot 0
            level = codes[row, 0, slot].expand(4, 4, 3)
            assert_close(cell(picture, row, column, 4, 1), level, atol=1 / 255, rtol=0)
    assert [text.get_text() for text in ax.get_xticklabels()] == ["frame", "0", "2"]


def test_all_rolls_are_shown_by_default(ax):
    images = torch.rand(2, 4, 4)
    draw_capsule_traversal(ax, images, torch.rand(2, 5, 6), lambda codes: images)
    assert len(ax.get_xticks()) == 7


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda ax, x, t: draw_sequences(ax, x), r"\(n, S, H, W\) or .* got \(2, 4, 4\)"),
        (lambda ax, x, t: draw_sequences(ax, x[:, None, None]), r"got \(2, 1, 1, 4, 4\)"),
        (lambda ax, x, t: draw_sequences(ax, x[None, :0]), "not empty"),
        (lambda ax, x, t: draw_sequences(ax, x[None], gap=-1), "gap >= 0, got -1"),
        (
            lambda ax, x, t: draw_capsule_traversal(ax, x[None, None], t, None),
            r"\(n, H, W\) or \(n, 3, H, W\) .* got \(1, 1, 2, 4, 4\)",
        ),
        (
            lambda ax, x, t: draw_capsule_traversal(ax, x, t[:1], None),
            r"codes of shape \(2, C, D\), got \(1, 5, 6\)",
        ),
        (
            lambda ax, x, t: draw_capsule_traversal(ax, x, t, None, shifts=()),
            r"one or more shifts and gap >= 0, got \(\) and 1",
        ),
        (
            lambda ax, x, t: draw_capsule_traversal(ax, x, t, lambda codes: codes),
            r"decode to return images of shape \(2, 4, 4\), got \(2, 5, 6\)",
        ),
    ],
)
def test_bad_arguments_are_named(ax, call, message):
    with pytest.raises(ValueError, match=message):
        call(ax, torch.rand(2, 4, 4), torch.rand(2, 5, 6))
