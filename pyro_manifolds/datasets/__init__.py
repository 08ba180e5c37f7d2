"""Data whose topology is known: generated images, digits, patches of bundled photographs."""

from pyro_manifolds.datasets.digits import Digits, mnist_digits, rotate_images
from pyro_manifolds.datasets.klein_circles import (
    KleinCircles,
    KleinCirclesSplit,
    klein_circle,
    klein_circles,
    split_klein_circles,
)
from pyro_manifolds.datasets.patches import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    d_norm,
    dct_basis,
    extract_patches,
    patch_sphere,
    patch_to_sphere,
    photographs,
    sphere_to_patch,
)

__all__ = [
    "TEST_PHOTOGRAPHS",
    "TRAIN_PHOTOGRAPHS",
    "Digits",
    "KleinCircles",
    "KleinCirclesSplit",
    "d_norm",
    "dct_basis",
    "extract_patches",
    "klein_circle",
    "klein_circles",
    "mnist_digits",
    "patch_sphere",
    "patch_to_sphere",
    "photographs",
    "rotate_images",
    "sphere_to_patch",
    "split_klein_circles",
]
