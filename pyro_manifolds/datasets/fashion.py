"""Photographs of clothes, in the format of the handwritten digits."""

import gzip
import math
import zlib
from pathlib import Path

import torch
from torch import Tensor

from pyro_manifolds.datasets.digits import Digits

__all__ = ["fashion_mnist"]

_ROOT = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package
_UNSIGNED_BYTES = 8  # code of the type of the entries in the header of an IDX file


def fashion_mnist(train: bool = True, root: str | Path | None = None) -> Digits:
    """Load Fashion-MNIST: 60,000 pictures of ten kinds of clothes to train on, 10,000 to test.

    Nothing is downloaded. The files are those of Debian's package ``dataset-fashion-mnist``, and
    of every other copy of the data set: ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``
    and the same with ``t10k``, each as it is or with ``.gz``.

    References:
        | Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms (Xiao,
          Rasul and Vollgraf, 2017), arXiv 1708.07747

    Args:
        train: Whether to load the pictures to train on, or those to test.
        root: Folder of the files; the one of Debian's package by default.

    Returns:
        Intensities from 0 to 1, shape ``(n, 28, 28)``, and the kinds: T-shirt, trouser, pullover,
        dress, coat, sandal, shirt, sneaker, bag and ankle boot, 0 to 9.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is damaged, or there is not one label for each image.

    Example:
        >>> fashion_mnist(root="nowhere")
        Traceback (most recent call last):
        ...
        FileNotFoundError: fashion_mnist: expected train-images-idx3-ubyte or ...
    """
    folder = _ROOT if root is None else Path(root)
    part = "train" if train else "t10k"
    images = _read_idx(folder, f"{part}-images-idx3-ubyte", 3)
    labels = _read_idx(folder, f"{part}-labels-idx1-ubyte", 1)
    if len(images) != len(labels):
        raise ValueError(
            "fashion_mnist: expected one label for each image, "
            f"got {len(images)} images and {len(labels)} labels in {folder}"
        )
    return Digits(images.float() / 255, labels.long())


def _read_idx(folder: Path, name: str, ndim: int) -> Tensor:
    """Read an array of bytes: two zeros, type, number of dimensions, sizes, and the entries."""
    path, content = _read(folder, name)
    start = 4 + 4 * ndim
    header = bytes([0, 0, _UNSIGNED_BYTES, ndim])
    sizes = [int.from_bytes(content[at : at + 4], "big") for at in range(4, start, 4)]
    if content[:4] != header or len(content) != start + math.prod(sizes):
        raise ValueError(
            f"fashion_mnist: expected {path} to be an IDX file of bytes in {ndim} dimensions, got "
            f"the header {content[:4].hex()}, sizes {sizes} and {len(content)} bytes in all"
        )
    if not math.prod(sizes):
        return torch.empty(sizes, dtype=torch.uint8)
    return torch.frombuffer(bytearray(content), dtype=torch.uint8, offset=start).reshape(sizes)


def _read(folder: Path, name: str) -> tuple[Path, bytes]:
    plain, packed = folder / name, folder / f"{name}.gz"
    if plain.is_file():
        return plain, plain.read_bytes()
    if not packed.is_file():
        raise FileNotFoundError(
            f"fashion_mnist: expected {name} or {name}.gz in {folder}, got neither; on Debian and "
            "Ubuntu apt-get install dataset-fashion-mnist, elsewhere give the folder as root"
        )
    try:
        return packed, gzip.decompress(packed.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise ValueError(
            f"fashion_mnist: expected {packed} to be a gzip file, got {error}"
        ) from error
