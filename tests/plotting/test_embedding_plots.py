"""Plots of learned embeddings: what is drawn, where, and from what."""

import math

import pytest
import torch
from matplotlib.figure import Figure
from torch.testing import assert_close

from pyro_manifolds.distributions.transforms import LearnedEmbedding
from pyro_manifolds.nn import diagnose_embedding
from pyro_manifolds.plotting import draw_embedding


def curve(angle, embed_dim=2):
    def decode(z):
        rest = torch.zeros(z.shape[:-1] + (embed_dim - 2,))
        return torch.cat([(angle * z).cos(), (angle * z).sin(), rest], -1)

    return LearnedEmbedding(decode, dim=1, embed_dim=embed_dim)


@pytest.fixture
def ax():
    return Figure().subplots()


def circle(count=200):
    t = 2 * math.pi * torch.rand(count)
    return torch.stack([t.cos(), t.sin()], -1)


def labels(ax):
    return {text for text in ax.get_legend_handles_labels()[1] if not text.startswith("_")}


def test_image_lies_over_the_samples_with_codes_as_colours(ax):
    embedding, samples = curve(3.0), circle()
    dots = draw_embedding(ax, embedding, samples, num_points=50)
    codes = torch.as_tensor(dots.get_array()).unsqueeze(-1)
    assert_close(torch.as_tensor(dots.get_offsets().data).float(), embedding(codes).float())
    drawn = torch.as_tensor(ax.collections[0].get_offsets().data).float()
    assert_close(drawn, samples)
    assert labels(ax) == {"samples", "image"}
    assert ax.get_aspect() == 1


def test_what_is_missed_and_the_seam_are_marked(ax):
    draw_embedding(
        ax,
        curve(5.0),
        circle(),
        diagnostics=diagnose_embedding(curve(5.0), circle(500), warn=False),
    )
    assert labels(ax) == {"samples", "image", "missed"}
    whole, closed = Figure().subplots(), curve(2 * math.pi - 1e-3)
    closed.diagnostics = diagnose_embedding(closed, circle(500), warn=False)
    draw_embedding(whole, closed, circle())
    assert labels(whole) == {"samples", "image", "seam"}
    seam = torch.as_tensor(whole.collections[-1].get_offsets().data).float()
    assert_close(seam, torch.tensor([[1.0, 0.0]] * 2), rtol=0, atol=2e-3)


def test_many_dimensions_are_seen_along_principal_components(ax):
    samples = torch.cat([torch.zeros(200, 3), 3 * circle()], -1)
    draw_embedding(ax, curve(3.0, embed_dim=5), samples)
    drawn = torch.as_tensor(ax.collections[0].get_offsets().data)
    assert_close(drawn.norm(dim=-1).mean().item(), 3.0, rtol=0.05, atol=0)


def test_the_random_state_is_left_alone(ax):
    samples, before = circle(), torch.get_rng_state()
    draw_embedding(ax, curve(3.0), samples)
    assert torch.equal(torch.get_rng_state(), before)


def test_samples_of_wrong_shape_are_refused(ax):
    with pytest.raises(ValueError, match=r"expected samples of shape \(N, 2\), got \(9, 3\)"):
        draw_embedding(ax, curve(3.0), torch.zeros(9, 3))
