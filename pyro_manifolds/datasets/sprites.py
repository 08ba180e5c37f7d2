"""Sequences of sprites, drawn from formulas, of which one latent factor runs through a cycle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_manifolds.datasets.sequences import (
    TransformingSequences,
    check_sequences,
    cycle_steps,
    cycle_values,
)

__all__ = ["draw_sprites", "transforming_sprites"]

_FACTORS = ("x", "y", "orientation", "scale")
_SHAPES = ("square", "ellipse", "heart")
_PLACES, _SCALES = (0.25, 0.75), (0.5, 1.0)
_REACH = 0.25  # radius of a sprite of scale 1, as a part of the side: it stays inside the image
_CHUNK = 1024  # images at a time: bounds the working memory near 200 MB at 64 x 64


def transforming_sprites(
    num_sequences: int,
    num_frames: int = 15,
    size: int = 64,
    *,
    factors: Sequence[str] = _FACTORS,
    shapes: Sequence[str] = _SHAPES,
    smooth: bool = False,
    seed: int,
) -> TransformingSequences:
    r"""Draw sequences of sprites, each through a full cycle of one latent factor.

    The factors are those of dSprites: place ``"x"`` from left to right and ``"y"`` from bottom to
    top, 0.25 to 0.75 of the side; ``"orientation"``, by :math:`2 \pi k / S` counterclockwise at
    step :math:`k` of :math:`S`; ``"scale"`` from 0.5 to 1. In each sequence one of ``factors``,
    drawn uniformly, runs from a uniform start, the ``phase``. All others stay at a uniform step,
    also those not asked for.

    Places and scales go in equal steps and jump back, so that every frame differs. With
    ``smooth`` they go there and back along a cosine: no jump, but all values except the two
    extremes come twice. A full turn shows a square four times and an ellipse twice.

    Images are made anew from formulas, not those of the published data set. A seed fixes the
    draw; for fresh batches without end, call with a new seed each time.

    References:
        | dSprites: Disentanglement testing Sprites dataset (Matthey, Higgins, Hassabis and
          Lerchner, 2017), https://github.com/google-deepmind/dsprites-dataset
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021)
        | https://arxiv.org/abs/2109.01394

    Args:
        num_sequences: How many sequences, at least 1.
        num_frames: Number of frames and of steps in a cycle, at least 2.
        size: Pixels along each side, at least 4.
        factors: Which factors may run.
        shapes: Which of ``"square"``, ``"ellipse"`` and ``"heart"`` to draw from, uniformly.
        smooth: Whether places and scales go there and back.
        seed: Seed of all draws; the global generator is left alone.

    Returns:
        Sequences in the default dtype of torch. Labels are indices into ``shapes``.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> sequences = transforming_sprites(10, size=32, seed=0)
        >>> sequences.images.shape, sequences.phase.shape
        (torch.Size([10, 15, 32, 32]), torch.Size([10]))
    """
    caller = "transforming_sprites"
    running = (factors,) if isinstance(factors, str) else tuple(factors)
    kinds = (shapes,) if isinstance(shapes, str) else tuple(shapes)
    check_sequences(caller, num_sequences, num_frames, running, _FACTORS, "factors")
    check_sequences(caller, num_sequences, num_frames, kinds, _SHAPES, "shapes")
    _check_size(caller, size)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(len(kinds), (num_sequences,), generator=generator)
    steps, which, phase = cycle_steps(num_sequences, num_frames, len(running), generator)
    resting = tuple(name for name in _FACTORS if name not in running)
    rest = torch.randint(num_frames, (num_sequences, 1, len(resting)), generator=generator)
    steps = torch.cat([steps, rest.expand(-1, num_frames, -1)], -1)
    at = dict(zip(running + resting, steps.unbind(-1), strict=True))

    x, y = (cycle_values(at[k], num_frames, *_PLACES, smooth=smooth) for k in ("x", "y"))
    scale = cycle_values(at["scale"], num_frames, *_SCALES, smooth=smooth)
    angle = 2 * math.pi / num_frames * at["orientation"]
    shape = torch.tensor([_SHAPES.index(kind) for kind in kinds])[labels]
    latents = (x, y, angle.to(x), scale)
    parts = (v.flatten().split(_CHUNK) for v in (shape.unsqueeze(-1).expand_as(x), *latents))
    images = torch.cat(
        [draw_sprites(k, a, b, c, d, size) for k, a, b, c, d in zip(*parts, strict=True)]
    )
    images = images.reshape(num_sequences, num_frames, size, size)
    return TransformingSequences(images, labels, which, phase)


def draw_sprites(
    shape: Tensor, x: Tensor, y: Tensor, orientation: Tensor, scale: Tensor, size: int
) -> Tensor:
    r"""Draw squares, ellipses and hearts; what a pixel holds falls from 1 to 0 across the edge.

    The edge is one pixel wide, so that images change smoothly with the latents and are
    differentiable in them almost everywhere. A sprite of scale 1 just fits in a disc whose radius
    is a quarter of the side.

    Args:
        shape: 0 for a square, 1 for an ellipse with axes 2 : 1, 2 for a heart; int64.
        x: Place of the centre from left to right, 0 to 1. All tensors broadcast.
        y: Place of the centre from bottom to top, 0 to 1.
        orientation: Angle counterclockwise.
        scale: Radius in quarters of the side, positive.
        size: Pixels along each side, at least 4.

    Returns:
        Intensities from 0 to 1, shape ``[..., size, size]``.

    Raises:
        ValueError: If ``shape`` or ``size`` is out of range.

    Example:
        >>> half, zero = torch.tensor(0.5), torch.tensor(0.0)
        >>> draw_sprites(torch.tensor(0), half, half, zero, torch.tensor(1.0), 8).round().int()
        tensor([[0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 1, 1, 0, 0, 0],
                [0, 0, 0, 1, 1, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0],
                [0, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.int32)
    """
    _check_size("draw_sprites", size)
    if shape.min() < 0 or shape.max() >= len(_SHAPES):
        raise ValueError(
            f"draw_sprites: expected shape to be 0, 1 or 2, "
            f"got {int(shape.min())} to {int(shape.max())}"
        )
    shape, *latents = torch.broadcast_tensors(shape, x, y, orientation, scale)
    batch, flat = shape.shape, torch.stack(latents, -1).reshape(-1, 4)
    images = flat.new_zeros(len(flat), size, size)
    for kind, distance in enumerate((_square, _ellipse, _heart)):
        chosen = (shape.flatten() == kind).nonzero().squeeze(-1)
        images = images.index_copy(0, chosen, _draw(distance, flat[chosen], size))
    return images.reshape(batch + (size, size))


def _draw(distance: Callable[[Tensor, Tensor], Tensor], latents: Tensor, size: int) -> Tensor:
    x, y, angle, scale = latents[..., None, None].unbind(1)
    centres = (torch.arange(size).to(latents) + 0.5) / size
    radius = _REACH * scale
    right, up = (centres - x) / radius, (centres.flip(0).unsqueeze(-1) - y) / radius
    cos, sin = angle.cos(), angle.sin()
    to_edge = distance(cos * right + sin * up, cos * up - sin * right)
    return (0.5 - to_edge * radius * size).clamp(0, 1)


# Distances to the edge, negative inside, of shapes that just fit in the disc of radius one.


def _square(a: Tensor, b: Tensor) -> Tensor:
    return _box(a, b, math.sqrt(0.5))


def _box(a: Tensor, b: Tensor, half: float) -> Tensor:
    over_a, over_b = a.abs() - half, b.abs() - half
    outside = _norm(over_a.clamp(min=0), over_b.clamp(min=0))
    return outside + torch.maximum(over_a, over_b).clamp(max=0)


def _ellipse(a: Tensor, b: Tensor) -> Tensor:
    """Distance to first order at the edge: that of the level, divided by its slope."""
    level = _norm(a, 2 * b)
    slope = _norm(a, 4 * b)
    # Level over slope lies between the half-axes, and has no limit at the centre.
    return (level - 1) * (level / slope).clamp(min=0.5)


def _heart(a: Tensor, b: Tensor) -> Tensor:
    """Square on its tip, with a half-disc on each of its upper sides."""
    # The disc around a square of side one is centred at height `up` above the centre of the
    # square: from there the tip, at 1 / sqrt(2) + up, is as far as the far ends of both discs.
    up = (math.sqrt(2) - 1) / 2 / (math.sqrt(2) - 1 + math.sqrt(0.5))
    side = 1 / (math.sqrt(0.5) + up)
    a, b = a.abs() / side, b / side + up
    turned = (a + b) * math.sqrt(0.5), (b - a) * math.sqrt(0.5)
    disc = _norm(a - math.sqrt(0.125), b - math.sqrt(0.125)) - 0.5
    return side * torch.minimum(_box(*turned, 0.5), disc)


def _norm(a: Tensor, b: Tensor) -> Tensor:
    """Return the length of a vector, with derivative zero at zero, where that of hypot is NaN."""
    return (a.square() + b.square()).clamp(min=torch.finfo(a.dtype).tiny).sqrt()


def _check_size(caller: str, size: int) -> None:
    if size < 4:
        raise ValueError(f"{caller}: expected size >= 4, got {size}")
