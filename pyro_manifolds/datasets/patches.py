"""High-contrast patches of photographs: points of a sphere that crowd round a Klein bottle."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pyro_manifolds.datasets.patch_coordinates import d_norm, patch_to_sphere
from pyro_manifolds.ops.filters import check_kernel_size

__all__ = [
    "TEST_PHOTOGRAPHS",
    "TRAIN_PHOTOGRAPHS",
    "extract_patches",
    "normalized_patches",
    "patch_sphere",
    "photographs",
]

# Patches of one photograph overlap and share its light, lens and subject: a split by patch leaks.
# The split is by photograph; each side has scenes, things and textures. Left out of what
# scikit-image bundles: drawings and documents, microscopy, the fundus, the star field, the right
# view of the stereo pair, and the moon, whose contrast is a few grey levels.
TRAIN_PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coins", "grass", "rocket")
TEST_PHOTOGRAPHS = ("coffee", "gravel", "motorcycle")


def photographs(names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Load grey photographs that come inside scikit-image; nothing is downloaded.

    Args:
        names: Among :data:`TRAIN_PHOTOGRAPHS` and :data:`TEST_PHOTOGRAPHS`; all of them by
            default.

    Returns:
        For each name, in the order asked for, luminance from 0 to 255 in float64, shape
        ``(height, width)``.

    Raises:
        ValueError: If a name is not known.
        ImportError: If scikit-image is missing.

    Example:
        >>> {name: image.shape for name, image in photographs(["camera", "coffee"]).items()}
        {'camera': torch.Size([512, 512]), 'coffee': torch.Size([400, 600])}
    """
    names = _known("photographs", names)
    return {name: _grey(_bundled(name)) for name in names}


def extract_patches(
    image: Tensor,
    num_patches: int | None = None,
    *,
    kernel_size: int = 3,
    top: float = 0.2,
    offset: float = 8.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut the patches of highest contrast out of one grey photograph.

    The logarithm of ``image + offset`` is cut into all overlapping patches; the fraction
    ``top`` of largest :func:`d_norm` is kept; the mean is subtracted; the D-norm is divided out.
    Flat patches have no direction and never count.

    Args:
        image: Grey levels, shape ``(height, width)``.
        num_patches: How many to draw without replacement; all that are kept, by default.
        kernel_size: Pixels along each side of a patch, odd and at least 3.
        top: Fraction to keep, in (0, 1].
        offset: Added before the logarithm, in units of ``image``. With an offset of one level in
            256, 13 % of the patches kept from the photograph ``"astronaut"`` span under four
            levels: noise of quantisation in black cloth. With eight levels, 0.3 % do.
        generator: Source of the draw; needed with ``num_patches``.

    Returns:
        Patches of zero mean and unit D-norm, shape ``(n, kernel_size, kernel_size)``, in the dtype
        of ``image``; from the strongest contrast down unless drawn.

    Raises:
        ValueError: If an argument is out of range, or more patches are asked for than are kept.

    Example:
        >>> image = torch.arange(20.0).square().unflatten(0, (4, 5))
        >>> extract_patches(image, top=0.5).shape
        torch.Size([3, 3, 3])
    """
    check_kernel_size("extract_patches", kernel_size)
    _check_extract(image, kernel_size, top, offset)
    windows = _windows((image + offset).log(), kernel_size)
    norms, index = _strongest(windows, num_patches, top, generator)
    patches = _take(windows, index)
    return (patches - patches.mean((-1, -2), keepdim=True)) / norms[:, None, None]


def patch_sphere(
    names: Iterable[str] | None,
    num_patches: int,
    *,
    seed: int,
    kernel_size: int = 3,
    top: float = 0.2,
    offset: float = 8.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Sample high-contrast patches of photographs as points of a sphere.

    Patches of 3 by 3 pixels are points of the 7-sphere, those of k by k of the one of dimension
    :math:`k^2 - 2`. Every photograph gives the same number of patches, up to one. The order is
    random, so any prefix is a sample too.

    References:
        | The Nonlinear Statistics of High-Contrast Patches in Natural Images
          (Lee, Pedersen and Mumford, 2003)
        | https://doi.org/10.1023/A:1023705401078
        | On the Local Behavior of Spaces of Natural Images
          (Carlsson, Ishkhanov, de Silva and Zomorodian, 2008)
        | https://doi.org/10.1007/s11263-007-0056-x

    Args:
        names: As in :func:`photographs`. Train on :data:`TRAIN_PHOTOGRAPHS` and test on
            :data:`TEST_PHOTOGRAPHS`: patches of one photograph overlap.
        num_patches: In all, at least one a photograph.
        seed: Seed of the draw; the global generator is left alone.
        kernel_size: Pixels along each side of a patch, odd and at least 3.
        top: As in :func:`extract_patches`, within each photograph.
        offset: As in :func:`extract_patches`.
        dtype: Of the result; the default dtype of torch if left out.

    Returns:
        Coordinates in :func:`dct_basis`, of unit length, shape
        ``(num_patches, kernel_size**2 - 1)``.

    Raises:
        ValueError: If a name is not known, or the photographs do not hold enough patches.
        ImportError: If scikit-image is missing.

    Example:
        >>> x = patch_sphere(TRAIN_PHOTOGRAPHS, 1000, seed=0)
        >>> x.shape, torch.allclose(x.norm(dim=-1), torch.ones(1000))
        (torch.Size([1000, 8]), True)
    """
    cut = partial(extract_patches, kernel_size=kernel_size, top=top, offset=offset)
    points = patch_to_sphere(_from_each("patch_sphere", names, num_patches, seed, cut))
    return points.to(dtype or torch.get_default_dtype())


def normalized_patches(
    names: Iterable[str] | None,
    num_patches: int,
    *,
    seed: int,
    kernel_size: int = 3,
    window: int | None = None,
    top: float = 0.2,
    offset: float = 8.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Sample high-contrast patches of photographs as filters, relative to their surroundings.

    Of the logarithm of ``image + offset`` in a patch, the mean over a window round it is
    subtracted, and the standard deviation over the window is divided out. So the weights of a
    patch have a density: their mean and their length vary, but lighting and local contrast hardly
    count. This is what :func:`~pyro_manifolds.nn.fit_filter_prior` is fitted to. Patches
    are chosen as in :func:`patch_sphere`.

    References:
        | Natural image statistics and divisive normalization (Wainwright, Schwartz and Simoncelli,
          2002)

    Args:
        names: As in :func:`photographs`.
        num_patches: In all, at least one a photograph.
        seed: Seed of the draw; the global generator is left alone.
        kernel_size: Pixels along each side of a patch, odd and at least 3.
        window: Pixels along each side of the window, odd and at least ``kernel_size``;
            ``2 * kernel_size + 1`` by default.
        top: Fraction of highest contrast to draw from, in (0, 1].
        offset: Added before the logarithm, in grey levels of 256.
        dtype: Of the result; the default dtype of torch if left out.

    Returns:
        Shape ``(num_patches, kernel_size, kernel_size)``.

    Raises:
        ValueError: If an argument is out of range or a name is not known, or the photographs do
            not hold enough patches.
        ImportError: If scikit-image is missing.

    Example:
        >>> w = normalized_patches(TRAIN_PHOTOGRAPHS, 1000, seed=0, kernel_size=5)
        >>> w.shape, bool(w.mean().abs() < 0.1)
        (torch.Size([1000, 5, 5]), True)
    """
    check_kernel_size("normalized_patches", kernel_size)
    window = 2 * kernel_size + 1 if window is None else window
    if window % 2 == 0 or window < kernel_size:
        raise ValueError(
            f"normalized_patches: expected an odd window of at least {kernel_size}, got {window}"
        )
    cut = partial(
        _relative_patches, kernel_size=kernel_size, window=window, top=top, offset=offset
    )
    patches = _from_each("normalized_patches", names, num_patches, seed, cut)
    return patches.to(dtype or torch.get_default_dtype())


def _relative_patches(
    image: Tensor,
    num_patches: int,
    *,
    kernel_size: int,
    window: int,
    top: float,
    offset: float,
    generator: torch.Generator,
) -> Tensor:
    _check_extract(image, window, top, offset, "normalized_patches")
    log = (image + offset).log()
    margin = (window - kernel_size) // 2
    inner = log[margin : len(log) - margin, margin : log.shape[1] - margin]
    windows = _windows(inner, kernel_size)
    _, index = _strongest(windows, num_patches, top, generator)
    surroundings = _take(_windows(log, window), index).flatten(1)
    mean, deviation = surroundings.mean(1), surroundings.std(1, correction=0)
    return (_take(windows, index) - mean[:, None, None]) / deviation[:, None, None]


def _from_each(
    caller: str,
    names: Iterable[str] | None,
    num_patches: int,
    seed: int,
    cut: Callable[..., Tensor],
) -> Tensor:
    """Cut equal shares of patches, up to one, out of photographs, and shuffle them."""
    names = _known(caller, names)
    if num_patches < len(names):
        raise ValueError(
            f"{caller}: expected num_patches >= {len(names)}, one a photograph, got {num_patches}"
        )
    generator = torch.Generator().manual_seed(seed)
    share, rest = divmod(num_patches, len(names))
    parts = [
        cut(image, share + (i < rest), generator=generator)
        for i, image in enumerate(photographs(names).values())
    ]
    return torch.cat(parts)[torch.randperm(num_patches, generator=generator)]


def _windows(image: Tensor, size: int) -> Tensor:
    """Return a view of all patches of an image, by the row and column where they start."""
    return image.unfold(0, size, 1).unfold(1, size, 1)


def _take(windows: Tensor, index: Tensor) -> Tensor:
    return windows[index // windows.shape[1], index % windows.shape[1]]


def _strongest(
    windows: Tensor, num_patches: int | None, top: float, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """Return contrasts and places of the patches of highest contrast, or a draw from them."""
    norms = torch.cat([d_norm(rows) for rows in windows.split(16)]).flatten()  # to fit in caches
    norms, index = norms.topk(max(1, int(top * len(norms))))
    norms, index = norms[norms > 0], index[norms > 0]
    if num_patches is None:
        return norms, index
    chosen = _draw(len(index), num_patches, generator)
    return norms[chosen], index[chosen]


def _known(caller: str, names: Iterable[str] | None) -> tuple[str, ...]:
    known = sorted(TRAIN_PHOTOGRAPHS + TEST_PHOTOGRAPHS)
    names = known if names is None else [names] if isinstance(names, str) else names
    names = tuple(dict.fromkeys(names))  # once each
    unknown = sorted(set(names) - set(known))
    if unknown or not names:
        got = f"unknown {', '.join(map(repr, unknown))}" if unknown else "no name"
        raise ValueError(f"{caller}: expected names among {', '.join(known)}, got {got}")
    return names


def _bundled(name: str) -> Any:
    try:
        import skimage.data
    except ImportError as error:
        raise ImportError(
            "photographs: expected scikit-image, which holds the photographs; "
            "pip install pyro-manifolds[demo]"
        ) from error
    if name == "motorcycle":
        return skimage.data.stereo_motorcycle()[0]
    return getattr(skimage.data, name)()


def _grey(pixels: Any) -> Tensor:
    image = torch.tensor(pixels, dtype=torch.float64)
    if image.dim() == 2:
        return image
    return image @ image.new_tensor([0.2125, 0.7154, 0.0721])  # luminance as Rec. 709 weighs it


def _check_extract(
    image: Tensor, size: int, top: float, offset: float, caller: str = "extract_patches"
) -> None:
    if image.dim() != 2 or min(image.shape) < size or not image.is_floating_point():
        raise ValueError(
            f"{caller}: expected a floating-point image of shape (height, width), each "
            f"at least {size}, got {tuple(image.shape)} of {image.dtype}"
        )
    if not 0 < top <= 1:
        raise ValueError(f"{caller}: expected top in (0, 1], got {top}")
    if not (image + offset > 0).all():
        raise ValueError(
            f"{caller}: expected image + offset > 0, got a smallest value of "
            f"{float(image.min()) + offset}; raise the offset"
        )


def _draw(available: int, num_patches: int, generator: torch.Generator | None) -> Tensor:
    if generator is None:
        raise ValueError("extract_patches: expected a generator to draw num_patches, got None")
    if not 1 <= num_patches <= available:
        raise ValueError(
            f"extract_patches: expected num_patches between 1 and the {available} kept, "
            f"got {num_patches}; raise top or ask for fewer"
        )
    return torch.randperm(available, generator=generator)[:num_patches]
