"""High-contrast patches of 3 by 3 pixels: points of a 7-sphere that crowd round a Klein bottle."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "TEST_PHOTOGRAPHS",
    "TRAIN_PHOTOGRAPHS",
    "d_norm",
    "dct_basis",
    "extract_patches",
    "patch_sphere",
    "patch_to_sphere",
    "photographs",
    "sphere_to_patch",
]

# Patches of one photograph overlap and share its light, lens and subject: a split by patch leaks.
# The split is by photograph; each side has scenes, things and textures. Left out of what
# scikit-image bundles: drawings and documents, microscopy, the fundus, the star field, the right
# view of the stereo pair, and the moon, whose contrast is a few grey levels.
TRAIN_PHOTOGRAPHS = ("astronaut", "brick", "camera", "chelsea", "coins", "grass", "rocket")
TEST_PHOTOGRAPHS = ("coffee", "gravel", "motorcycle")

# Lee, Pedersen and Mumford's e1 ... e8 before scaling, row by row.
_COSINES = (
    (1, 0, -1, 1, 0, -1, 1, 0, -1),
    (1, 1, 1, 0, 0, 0, -1, -1, -1),
    (1, -2, 1, 1, -2, 1, 1, -2, 1),
    (1, 1, 1, -2, -2, -2, 1, 1, 1),
    (1, 0, -1, 0, 0, 0, -1, 0, 1),
    (1, 0, -1, -2, 0, 2, 1, 0, -1),
    (1, -2, 1, 0, 0, 0, -1, 2, -1),
    (1, -2, 1, -2, 4, -2, 1, -2, 1),
)


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


def dct_basis() -> Tensor:
    r"""Discrete cosines that are orthonormal for the D-norm.

    The columns :math:`e_1, \dots, e_8` are the non-constant eigenvectors of :math:`D`, in the
    order and with the signs of the papers named in :func:`patch_sphere`, scaled to
    :math:`e_i^\top D e_j = \delta_{ij}`.

    Returns:
        Shape ``(9, 8)``, float64; rows are pixels, row by row.

    Example:
        >>> dct_basis()[:3, 0]
        tensor([ 0.4082,  0.0000, -0.4082], dtype=torch.float64)
    """
    cosines = torch.tensor(_COSINES, dtype=torch.float64)
    return (cosines / d_norm(cosines.unflatten(-1, (3, 3))).unsqueeze(-1)).mT


def d_norm(patches: Tensor) -> Tensor:
    r"""Contrast of a patch: root of the summed squared differences of neighbouring pixels.

    This is :math:`\|x\|_D = \sqrt{x^\top D x}` with :math:`D` the Laplacian of the grid graph in
    which each pixel has up to four neighbours. It ignores the mean and is zero on flat patches
    only.

    Args:
        patches: Shape ``batch + (height, width)``.

    Returns:
        Shape ``batch``.

    Raises:
        ValueError: If there are fewer than two dimensions.

    Example:
        >>> d_norm(torch.tensor([[0.0, 1.0], [0.0, 1.0]]))
        tensor(1.4142)
    """
    if patches.dim() < 2:
        raise ValueError(f"d_norm: expected patches of shape (..., h, w), got {_shape(patches)}")
    across, down = patches.diff(dim=-1), patches.diff(dim=-2)
    return (across.square().sum((-1, -2)) + down.square().sum((-1, -2))).sqrt()


def extract_patches(
    image: Tensor,
    num_patches: int | None = None,
    *,
    top: float = 0.2,
    offset: float = 8.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Cut the patches of highest contrast out of one grey photograph.

    The logarithm of ``image + offset`` is cut into all overlapping 3 by 3 patches; the fraction
    ``top`` of largest :func:`d_norm` is kept; the mean is subtracted; the D-norm is divided out.
    Flat patches have no direction and never count.

    Args:
        image: Grey levels, shape ``(height, width)``.
        num_patches: How many to draw without replacement; all that are kept, by default.
        top: Fraction to keep, in (0, 1].
        offset: Added before the logarithm, in units of ``image``. With an offset of one level in
            256, 13 % of the patches kept from the photograph ``"astronaut"`` span under four
            levels: noise of quantisation in black cloth. With eight levels, 0.3 % do.
        generator: Source of the draw; needed with ``num_patches``.

    Returns:
        Patches of zero mean and unit D-norm, shape ``(n, 3, 3)``, in the dtype of ``image``; from
        the strongest contrast down unless drawn.

    Raises:
        ValueError: If an argument is out of range, or more patches are asked for than are kept.

    Example:
        >>> image = torch.arange(20.0).square().unflatten(0, (4, 5))
        >>> extract_patches(image, top=0.5).shape
        torch.Size([3, 3, 3])
    """
    _check_extract(image, top, offset)
    patches = (image + offset).log().unfold(0, 3, 1).unfold(1, 3, 1).flatten(0, 1)
    norms, index = d_norm(patches).topk(max(1, int(top * len(patches))))
    norms, index = norms[norms > 0], index[norms > 0]
    if num_patches is not None:
        chosen = _draw(len(index), num_patches, generator)
        norms, index = norms[chosen], index[chosen]
    patches = patches[index]
    return (patches - patches.mean((-1, -2), keepdim=True)) / norms[:, None, None]


def patch_sphere(
    names: Iterable[str] | None,
    num_patches: int,
    *,
    seed: int,
    top: float = 0.2,
    offset: float = 8.0,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Sample high-contrast patches of photographs as points of the 7-sphere.

    Every photograph gives the same number of patches, up to one. The order is random, so any
    prefix is a sample too.

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
        top: As in :func:`extract_patches`, within each photograph.
        offset: As in :func:`extract_patches`.
        dtype: Of the result; the default dtype of torch if left out.

    Returns:
        Coordinates in :func:`dct_basis`, of unit length, shape ``(num_patches, 8)``.

    Raises:
        ValueError: If a name is not known, or the photographs do not hold enough patches.
        ImportError: If scikit-image is missing.

    Example:
        >>> x = patch_sphere(TRAIN_PHOTOGRAPHS, 1000, seed=0)
        >>> x.shape, torch.allclose(x.norm(dim=-1), torch.ones(1000))
        (torch.Size([1000, 8]), True)
    """
    names = _known("patch_sphere", names)
    if num_patches < len(names):
        raise ValueError(
            f"patch_sphere: expected num_patches >= {len(names)}, one a photograph, "
            f"got {num_patches}"
        )
    generator = torch.Generator().manual_seed(seed)
    share, rest = divmod(num_patches, len(names))
    parts = [
        extract_patches(image, share + (i < rest), top=top, offset=offset, generator=generator)
        for i, image in enumerate(photographs(names).values())
    ]
    points = patch_to_sphere(torch.cat(parts))
    order = torch.randperm(num_patches, generator=generator)
    return points[order].to(dtype or torch.get_default_dtype())


def patch_to_sphere(patches: Tensor) -> Tensor:
    """Direction of a patch: its unit vector of coordinates in :func:`dct_basis`.

    Args:
        patches: Shape ``batch + (3, 3)``; mean and contrast do not matter.

    Returns:
        Shape ``batch + (8,)``.

    Raises:
        ValueError: If the shape is wrong, or a patch is flat and has no direction.

    Example:
        >>> patch_to_sphere(torch.tensor([[3.0, 2.0, 1.0]]).expand(3, 3)).round(decimals=3)[:2]
        tensor([1., 0.])
    """
    if patches.shape[-2:] != (3, 3):
        raise ValueError(
            f"patch_to_sphere: expected patches of shape (..., 3, 3), got {_shape(patches)}"
        )
    if not (d_norm(patches) > 0).all():
        raise ValueError("patch_to_sphere: expected patches with contrast, got a flat one or nan")
    basis = dct_basis()
    dual = (basis / basis.square().sum(0)).to(patches)  # columns are orthogonal, of any length
    return torch.nn.functional.normalize(patches.flatten(-2) @ dual, dim=-1, eps=0.0)


def sphere_to_patch(x: Tensor) -> Tensor:
    """Patch of zero mean with given coordinates in :func:`dct_basis`.

    Args:
        x: Shape ``batch + (8,)``. On the unit sphere this is the inverse of
            :func:`patch_to_sphere`, and the patch has unit D-norm.

    Returns:
        Shape ``batch + (3, 3)``.

    Raises:
        ValueError: If the last dimension is not 8.

    Example:
        >>> sphere_to_patch(torch.eye(8)[1])
        tensor([[ 0.4082,  0.4082,  0.4082],
                [ 0.0000,  0.0000,  0.0000],
                [-0.4082, -0.4082, -0.4082]])
    """
    if x.shape[-1:] != (8,):
        raise ValueError(f"sphere_to_patch: expected x of shape (..., 8), got {_shape(x)}")
    return (x @ dct_basis().to(x).mT).unflatten(-1, (3, 3))


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


def _check_extract(image: Tensor, top: float, offset: float) -> None:
    if image.dim() != 2 or min(image.shape) < 3 or not image.is_floating_point():
        raise ValueError(
            "extract_patches: expected a floating-point image of shape (height, width), each "
            f"at least 3, got {_shape(image)} of {image.dtype}"
        )
    if not 0 < top <= 1:
        raise ValueError(f"extract_patches: expected top in (0, 1], got {top}")
    if not (image + offset > 0).all():
        raise ValueError(
            "extract_patches: expected image + offset > 0, got a smallest value of "
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


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
