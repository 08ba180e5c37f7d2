"""Files of trained pairs, each of which knows which run it belongs to."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn.alignment import Alignment
from pyro_manifolds.nn.checkpoints import load_checkpoint, save_checkpoint
from pyro_manifolds.nn.manifold_vae import ManifoldGuide, ManifoldModel

__all__ = ["describe_data", "load_pair", "save_pair"]


def describe_data(data: Tensor) -> str:
    """Return shape, dtype and checksum of data.

    Example:
        >>> from pyro_manifolds.nn.manifold_runs import describe_data
        >>> describe_data(torch.zeros(5, 2))
        '(5, 2) torch.float32 e9ec3db1'
    """
    checksum = zlib.crc32(data.detach().cpu().contiguous().numpy().tobytes())
    return f"{tuple(data.shape)} {data.dtype} {checksum:08x}"


def save_pair(
    path: Path | None, model: ManifoldModel, guide: ManifoldGuide, settings: Mapping[str, Any]
) -> None:
    """Write a trained pair, whole or not at all; nothing where there is no path."""
    if path is None:
        return
    states = {"model": model.state_dict(), "guide": guide.state_dict()}
    save_checkpoint(path, settings, {"aligned": guide.aligned, **states})


def load_pair(
    path: Path | None,
    manifold: Manifold,
    data: Tensor,
    noise: float,
    hidden: Sequence[int],
    settings: Mapping[str, Any],
) -> tuple[ManifoldModel, ManifoldGuide] | None:
    """Read a trained pair; none where there is no file.

    Raises:
        CheckpointError: If the file cannot be read, or is of a run with other settings.
    """
    if path is None or not path.exists():
        return None
    saved = load_checkpoint(path, settings)
    features, dim = data.shape[1:].numel(), manifold.embed_dim
    blank = Alignment(data.new_zeros(dim, features), data.new_zeros(dim), 0.0)
    with torch.random.fork_rng(devices=[]):
        model = ManifoldModel(manifold, data, noise, hidden)
        guide = ManifoldGuide(manifold, data, hidden, blank if saved["aligned"] else None)
    model.load_state_dict(saved["model"])
    guide.load_state_dict(saved["guide"])
    return model, guide
