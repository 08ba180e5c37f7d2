"""How well stated probabilities agree with frequencies."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["expected_calibration_error"]


def expected_calibration_error(probs: Tensor, labels: Tensor, bins: int = 15) -> Tensor:
    r"""Return the expected calibration error of the most probable class.

    .. math::
        \sum_m \frac{|B_m|}{n} \left| \mathrm{accuracy}(B_m) - \mathrm{confidence}(B_m) \right|

    over data :math:`B_m` whose confidence lies in :math:`((m - 1)/M, m/M]`.

    References:
        | On Calibration of Modern Neural Networks (Guo, Pleiss, Sun and Weinberger, 2017), arXiv
          1706.04599

    Args:
        probs: Probabilities, ``(n, classes)``.
        labels: Integer labels, ``(n,)``.
        bins: Number :math:`M` of bins of equal width.

    Raises:
        TypeError: If labels are not integers.
        ValueError: If shapes are wrong or rows are no probabilities.

    Example:
        >>> probs = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
        >>> expected_calibration_error(probs, torch.tensor([0, 0]))
        tensor(0.4000)
    """
    _check(probs, labels, bins)
    confidence, guess = probs.max(-1)
    edges = torch.arange(1, bins, dtype=probs.dtype, device=probs.device) / bins
    index = torch.bucketize(confidence, edges)
    right = (guess == labels).to(confidence)
    excess = confidence.new_zeros(bins).index_add(0, index, right - confidence)
    return excess.abs().sum() / len(labels)


def _check(probs: Tensor, labels: Tensor, bins: int) -> None:
    name = "expected_calibration_error"
    if bins < 1:
        raise ValueError(f"{name}: expected bins >= 1, got {bins}")
    if probs.dim() != 2 or not len(probs) or labels.shape != probs.shape[:1]:
        raise ValueError(
            f"{name}: expected probs of shape (n, classes) and labels of shape (n,), "
            f"got {tuple(probs.shape)} and {tuple(labels.shape)}"
        )
    if labels.dtype.is_floating_point:
        raise TypeError(f"{name}: expected integer labels, got {labels.dtype}")
    if bool((probs < 0).any() | ((probs.sum(-1) - 1).abs() > 1e-3).any()):
        raise ValueError(f"{name}: expected rows of probs to be probabilities, got others")
