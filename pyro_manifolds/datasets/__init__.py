"""Data whose topology is known, and images to train on; nothing is downloaded."""

from pyro_manifolds.datasets.digits import Digits, mnist_digits, rotate_images
from pyro_manifolds.datasets.fashion import fashion_mnist
from pyro_manifolds.datasets.klein_circles import (
    KleinCircles,
    KleinCirclesSplit,
    klein_circle,
    klein_circles,
    split_klein_circles,
)
from pyro_manifolds.datasets.patch_coordinates import (
    d_norm,
    dct_basis,
    patch_to_sphere,
    sphere_to_patch,
)
from pyro_manifolds.datasets.patches import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    extract_patches,
    normalized_patches,
    patch_sphere,
    photographs,
)
from pyro_manifolds.datasets.sequences import TransformingSequences
from pyro_manifolds.datasets.sprites import draw_sprites, transforming_sprites
from pyro_manifolds.datasets.symmetric_digits import (
    SymmetricDigits,
    rotating_digits,
    shifted_digits,
)
from pyro_manifolds.datasets.transforming_digits import (
    DigitSplit,
    digit_split,
    transforming_digits,
)

__all__ = [
    "TEST_PHOTOGRAPHS",
    "TRAIN_PHOTOGRAPHS",
    "DigitSplit",
    "Digits",
    "KleinCircles",
    "KleinCirclesSplit",
    "SymmetricDigits",
    "TransformingSequences",
    "d_norm",
    "dct_basis",
    "digit_split",
    "draw_sprites",
    "extract_patches",
    "fashion_mnist",
    "klein_circle",
    "klein_circles",
    "mnist_digits",
    "normalized_patches",
    "patch_sphere",
    "patch_to_sphere",
    "photographs",
    "rotate_images",
    "rotating_digits",
    "shifted_digits",
    "sphere_to_patch",
    "split_klein_circles",
    "transforming_digits",
    "transforming_sprites",
]
