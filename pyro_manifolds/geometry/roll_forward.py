"""Rolled codes decode to later frames, or do not: the test of learned equivariance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_manifolds.geometry.capsule_shifts import check_lags, frame_pairs
from pyro_manifolds.geometry.capsules import check_codes, roll_capsules

__all__ = ["RollForward", "roll_forward"]


class RollForward(NamedTuple):
    """Negative log-likelihood per frame, in nats, of frames that lie some lags ahead.

    Attributes:
        lags: Numbers of frames, shape ``[lags]``, int64.
        rolled: Of the rolled codes, shape ``[lags]``.
        control: Of the same codes without the roll, shape ``[lags]``.
    """

    lags: Tensor
    rolled: Tensor
    control: Tensor


@torch.no_grad()
def roll_forward(
    codes: Tensor,
    images: Tensor,
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    lags: Sequence[int] | None = None,
    *,
    cyclic: bool = True,
    roll: int = 1,
) -> RollForward:
    r"""Predict the frame ``l + d`` from the code of frame ``l``, rolled by ``d`` slots.

    A code that has learned the transformation predicts later frames by its roll as well as it
    describes its own frame: ``rolled`` stays near ``rolled[0]`` at lags beyond the window of the
    prior, while ``control``, the codes as they are, is much worse there. Judge by several lags:
    images that come back within a cycle, as digits that look the same upside down, make the
    control pass at that lag too.

    The codes of a cycle of S frames are back after S rolls only if the number of slots divides S
    times ``roll``; otherwise trust small lags, or ``cyclic=False``.

    References:
        | Topographic VAEs learn Equivariant Capsules (Keller and Welling, 2021), for the roll
        | https://arxiv.org/abs/2109.01394

    Args:
        codes: Codes ``[..., S, C, D]``, such as ``model.code(*guide.moments(images))`` of a
            :class:`~pyro_manifolds.nn.TopographicModel`.
        images: Frames ``[..., S, *image]``, with as many sequences and frames as codes.
        log_likelihood: Function of codes ``[..., S', C, D]`` and images ``[..., S', *image]`` to
            log-likelihoods ``[..., S']``, one for each frame. In open sequences S' is S minus the
            lag.
        lags: Numbers of frames, at least 0 and below S; by default 0 to S/2.
        cyclic: Whether frame 0 follows the last one; otherwise no pair goes round the end.
        roll: Slots per frame.

    Returns:
        Means over frames and sequences. Nothing is differentiated.

    Raises:
        ValueError: If shapes do not fit or a lag is out of range.

    Example:
        >>> first = torch.randn(4, 1, 3, 6)
        >>> codes = torch.cat([first.roll(k, -1) for k in range(6)], 1)
        >>> def log_likelihood(codes, images):
        ...     return dist.Normal(codes[..., 0, :], 1.0).to_event(1).log_prob(images)
        >>> found = roll_forward(codes, codes[..., 0, :], log_likelihood, lags=(0, 2))
        >>> found.rolled
        tensor([5.5136, 5.5136])
        >>> bool(found.control[1] > found.rolled[1])
        True
    """
    check_codes("roll_forward", codes)
    frames, num_frames = codes.shape[:-2], codes.shape[-3]
    if images.shape[: len(frames)] != frames:
        raise ValueError(
            f"roll_forward: expected images of shape {tuple(frames)} + image, as the codes have, "
            f"got {tuple(images.shape)}"
        )
    chosen = range(num_frames // 2 + 1) if lags is None else lags
    check_lags("roll_forward", chosen, num_frames)

    def nll(code: Tensor, image: Tensor) -> Tensor:
        found = log_likelihood(code, image)
        if found.shape != code.shape[:-2]:
            raise ValueError(
                "roll_forward: expected log_likelihood to return one number for each frame, shape "
                f"{tuple(code.shape[:-2])}, got {tuple(found.shape)}"
            )
        return -found.mean()

    pairs = [frame_pairs(codes, images, lag, cyclic=cyclic, dim=len(frames) - 1) for lag in chosen]
    rolled = [
        nll(roll_capsules(code, roll * lag), image)
        for lag, (code, image) in zip(chosen, pairs, strict=True)
    ]
    control = [nll(code, image) for code, image in pairs]
    return RollForward(torch.tensor(list(chosen)), torch.stack(rolled), torch.stack(control))
