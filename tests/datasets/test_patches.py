"""Patches: the published pipeline against its formulas, and the photographs themselves."""

import socket
import sys

import pytest
import torch

from pyro_manifolds.datasets import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    d_norm,
    dct_basis,
    extract_patches,
    normalized_patches,
    patch_sphere,
    patch_to_sphere,
    photographs,
    sphere_to_patch,
)

# Lee, Pedersen and Mumford (2003): x' D x = sum of (x_i - x_j)^2 over neighbours i ~ j.
D = torch.tensor(
    [
        [2, -1, 0, -1, 0, 0, 0, 0, 0],
        [-1, 3, -1, 0, -1, 0, 0, 0, 0],
        [0, -1, 2, 0, 0, -1, 0, 0, 0],
        [-1, 0, 0, 3, -1, 0, -1, 0, 0],
        [0, -1, 0, -1, 4, -1, 0, -1, 0],
        [0, 0, -1, 0, -1, 3, 0, 0, -1],
        [0, 0, 0, -1, 0, 0, 2, -1, 0],
        [0, 0, 0, 0, -1, 0, -1, 3, -1],
        [0, 0, 0, 0, 0, -1, 0, -1, 2],
    ],
    dtype=torch.float64,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_patches(*batch, size=3):
    return torch.randn(*batch, size, size, dtype=torch.float64, generator=generator())


def photograph():
    """A synthetic one, with a black bar so that flat patches occur."""
    image = 255 * torch.rand(20, 24, dtype=torch.float64, generator=generator(7))
    image[8:14] = 0.0
    return image


def test_d_norm_is_the_quadratic_form_of_the_laplacian():
    x = random_patches(50)
    expected = torch.einsum("ni,ij,nj->n", x.flatten(1), D, x.flatten(1)).sqrt()
    torch.testing.assert_close(d_norm(x), expected)


def test_d_norm_ignores_the_mean_and_vanishes_on_flat_patches():
    x = random_patches(50)
    torch.testing.assert_close(d_norm(x + 3.0), d_norm(x))
    assert (d_norm(torch.full((4, 3, 3), 0.1)) == 0).all()


def test_basis_diagonalises_the_laplacian():
    basis = dct_basis()
    eigenvalues = torch.tensor([1.0, 1, 3, 3, 2, 4, 4, 6], dtype=torch.float64)
    torch.testing.assert_close(basis.mT @ D @ basis, torch.eye(8, dtype=torch.float64))
    torch.testing.assert_close(D @ basis, basis * eigenvalues)
    torch.testing.assert_close(basis.sum(0), torch.zeros(8, dtype=torch.float64))


def test_basis_has_the_published_scales():
    published = torch.tensor([6.0, 6, 54, 54, 8, 48, 48, 216], dtype=torch.float64).rsqrt()
    torch.testing.assert_close(dct_basis()[0], published)


def laplacian(size):
    """Of the grid, as a sum of those of two paths."""
    path = 2 * torch.eye(size) - torch.eye(size).roll(1, 0) - torch.eye(size).roll(-1, 0)
    path[0, 0] = path[-1, -1] = 1
    path[0, -1] = path[-1, 0] = 0
    eye = torch.eye(size)
    return (torch.kron(path, eye) + torch.kron(eye, path)).double()


def test_the_general_laplacian_is_the_published_one():
    torch.testing.assert_close(laplacian(3), D)


@pytest.mark.parametrize("size", [5, 7, 9])
def test_larger_bases_are_eigenvectors_of_the_laplacian_in_order(size):
    basis = dct_basis(size)
    expected = torch.linalg.eigvalsh(laplacian(size))[1:]
    values = basis.square().sum(0).reciprocal()
    eye = torch.eye(size**2 - 1, dtype=torch.float64)
    torch.testing.assert_close(basis.mT @ laplacian(size) @ basis, eye)
    torch.testing.assert_close(laplacian(size) @ basis, basis * values)
    torch.testing.assert_close(values, expected)
    torch.testing.assert_close(basis.sum(0), torch.zeros(size**2 - 1, dtype=torch.float64))
    along_rows = basis.unflatten(0, (size, size))[..., 0]
    torch.testing.assert_close(along_rows, along_rows[:1].expand(size, size))
    assert (along_rows[:, 0] > 0).all()


@pytest.mark.parametrize("size", [5, 7])
def test_larger_patches_and_points_determine_each_other(size):
    patches = random_patches(5, 4, size=size)
    x = patch_to_sphere(patches)
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(5, 4, dtype=torch.float64))
    expected = patches - patches.mean((-1, -2), keepdim=True)
    torch.testing.assert_close(d_norm(patches)[..., None, None] * sphere_to_patch(x), expected)


def test_coordinates_are_the_published_ones():
    x = random_patches(50)
    unit = x.flatten(1) / d_norm(x).unsqueeze(-1)
    torch.testing.assert_close(patch_to_sphere(x), unit @ D @ dct_basis())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_patch_and_point_of_the_sphere_determine_each_other(dtype):
    x = patch_to_sphere(random_patches(5, 4).to(dtype))
    assert x.dtype == dtype
    torch.testing.assert_close(x.norm(dim=-1), torch.ones(5, 4, dtype=dtype))
    patch = sphere_to_patch(x)
    torch.testing.assert_close(d_norm(patch), torch.ones(5, 4, dtype=dtype))
    torch.testing.assert_close(patch_to_sphere(4 * patch + 3), x, atol=3e-6, rtol=0)


def windows_of(log, size):
    rows, columns = (n - size + 1 for n in log.shape)
    places = [(i, j) for i in range(rows) for j in range(columns)]
    return [(log[i : i + size, j : j + size].flatten(), i, j) for i, j in places]


@pytest.mark.parametrize("size", [3, 5])
def test_patches_are_the_ones_of_highest_contrast(size):
    image, d = photograph(), laplacian(size)
    windows = [x for x, _, _ in windows_of((image + 8).log(), size)]
    windows = sorted(windows, key=lambda x: -float(x @ d @ x))[: int(0.2 * len(windows))]
    expected = torch.stack([(x - x.mean()) / (x @ d @ x).sqrt() for x in windows])
    found = extract_patches(image, kernel_size=size)
    torch.testing.assert_close(found.flatten(1), expected)


def test_normalized_patches_are_relative_to_the_window_round_them(monkeypatch):
    image = photograph()
    monkeypatch.setattr(
        "pyro_manifolds.datasets.patches.photographs", lambda names: {"camera": image}
    )
    log, window = (image + 8).log(), 7
    inner = windows_of(log[2:-2, 2:-2], 3)  # where the window fits
    number = int(0.2 * len(inner))
    expected = []
    for x, i, j in sorted(inner, key=lambda row: -float(row[0] @ D @ row[0]))[:number]:
        around = log[i : i + window, j : j + window]
        expected.append((x - around.mean()) / around.std(correction=0))
    found = normalized_patches("camera", number, seed=0, window=window, dtype=torch.float64)
    assert found.shape == (number, 3, 3)
    distances = torch.cdist(found.flatten(1), torch.stack(expected))
    assert distances.amin(0).max() < 1e-6  # each of them, in a random order
    assert distances.amin(1).max() < 1e-6


@pytest.mark.parametrize("size", [3, 7])
def test_normalized_patches_of_photographs(size):
    filters = normalized_patches(None, 500, seed=0, kernel_size=size)
    assert torch.equal(filters, normalized_patches(None, 500, seed=0, kernel_size=size))
    assert filters.shape == (500, size, size)
    assert filters.dtype == torch.float32
    # Contrast within a patch is of the order of that round it; dark is as common as light.
    assert 0.5 < filters.square().mean() < 2
    assert filters.mean().abs() < 0.15


def test_patches_of_three_pixels_stay_those_of_the_first_version():
    first = [-0.3904105, -0.2745156, 0.1583046, 0.0289158, -0.1072925, -0.0346071]
    expected = torch.tensor([*first, -0.8309649, -0.2076349])
    found = patch_sphere("coins", 2, seed=0)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_flat_patches_never_count():
    patches = extract_patches(photograph(), top=1.0)
    assert len(patches) == 18 * 22 - 4 * 22  # the black bar holds four rows of flat windows
    torch.testing.assert_close(d_norm(patches), torch.ones(len(patches), dtype=torch.float64))
    assert len(extract_patches(torch.full((9, 9), 5.0))) == 0


def test_exposure_does_not_matter_without_an_offset():
    image = photograph() + 1
    torch.testing.assert_close(
        extract_patches(2.5 * image, offset=0.0), extract_patches(image, offset=0.0)
    )


def test_draw_is_without_replacement_from_the_kept_ones():
    kept = {tuple(x) for x in extract_patches(photograph()).flatten(1).tolist()}
    drawn = extract_patches(photograph(), 30, generator=generator()).flatten(1).tolist()
    assert len({tuple(x) for x in drawn} & kept) == 30


def test_photographs_load_with_the_network_off(monkeypatch):
    def refuse(*_, **__):
        raise OSError("the network is off")

    # With this variable set, scikit-image skips the running test instead of failing.
    monkeypatch.delenv("PYTEST_CURRENT_TEST", raising=False)
    monkeypatch.setattr(socket, "socket", refuse)
    images = photographs()
    assert sorted(images) == sorted(TRAIN_PHOTOGRAPHS + TEST_PHOTOGRAPHS)
    for image in images.values():
        assert image.dim() == 2
        assert image.dtype == torch.float64
        assert 0 <= image.min() < 100 < 190 < image.max() < 255 + 1e-9


def test_grey_is_the_luminance_of_scikit_image():
    color, data = pytest.importorskip("skimage.color"), pytest.importorskip("skimage.data")
    images = photographs(["coffee", "camera"])
    torch.testing.assert_close(images["coffee"], torch.tensor(color.rgb2gray(data.coffee()) * 255))
    assert torch.equal(images["camera"], torch.tensor(data.camera()).double())


def test_training_and_test_photographs_are_disjoint():
    assert not set(TRAIN_PHOTOGRAPHS) & set(TEST_PHOTOGRAPHS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_photographs_give_points_of_the_sphere_in_equal_shares(dtype):
    names = ("coins", "gravel", "camera")
    x = patch_sphere(names, 200, seed=0, dtype=dtype)
    assert x.shape == (200, 8)
    assert x.dtype == dtype
    assert (x.norm(dim=-1) - 1).abs().max() < 1e-6
    kept = [patch_to_sphere(extract_patches(image)) for image in photographs(names).values()]
    shares = [int((torch.cdist(x.double(), k).amin(1) < 1e-6).sum()) for k in kept]
    assert shares == [67, 67, 66]


def test_gradients_are_commoner_than_chance_in_photographs():
    x = patch_sphere(TEST_PHOTOGRAPHS, 3000, seed=0)
    assert x[:, :2].square().sum(-1).mean() > 1.5 * 2 / 8  # the uniform law gives 2/8


def test_seed_fixes_the_patches_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    first, again, other = (patch_sphere("coins", 50, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: photographs(["camera", "lena"]), "astronaut, brick, .*got unknown 'lena'"),
        (lambda: photographs([]), "got no name"),
        (lambda: patch_sphere(["lena"], 10, seed=0), "got unknown 'lena'"),
        (lambda: patch_sphere(TRAIN_PHOTOGRAPHS, 6, seed=0), "num_patches >= 7"),
        (lambda: patch_sphere("coins", 30_000, seed=0), "the 22996 kept, got 30000"),
        (lambda: extract_patches(photograph(), top=0.0), r"top in \(0, 1\], got 0"),
        (lambda: extract_patches(photograph(), top=1.5), r"top in \(0, 1\], got 1.5"),
        (lambda: extract_patches(photograph(), offset=0.0), "raise the offset"),
        (lambda: extract_patches(photograph()[:2]), r"got \(2, 24\)"),
        (lambda: extract_patches(photograph().long()), "torch.int64"),
        (lambda: extract_patches(photograph(), 5), "expected a generator"),
        (lambda: extract_patches(photograph(), 0, generator=generator()), "got 0"),
        (lambda: d_norm(torch.ones(3)), r"got \(3,\)"),
        (lambda: dct_basis(4), "odd and at least 3, got 4"),
        (lambda: extract_patches(photograph(), kernel_size=2), "odd and at least 3, got 2"),
        (lambda: extract_patches(photograph()[:4], kernel_size=5), r"least 5, got \(4, 24\)"),
        (lambda: normalized_patches(None, 10, seed=0, window=8), "odd window of at least 3, .* 8"),
        (lambda: normalized_patches(None, 10, seed=0, kernel_size=4), "got 4"),
        (lambda: normalized_patches(None, 9, seed=0), "num_patches >= 10"),
        (lambda: patch_to_sphere(torch.ones(9)), r"got \(9,\)"),
        (lambda: patch_to_sphere(torch.rand(4, 4)), r"an odd k of at least 3, got \(4, 4\)"),
        (lambda: sphere_to_patch(torch.ones(15)), r"an odd k of at least 3, got \(15,\)"),
        (lambda: patch_to_sphere(torch.ones(3, 3)), "flat"),
        (lambda: sphere_to_patch(torch.ones(9)), r"got \(9,\)"),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_missing_scikit_image_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.delitem(sys.modules, "skimage.data", raising=False)
    with pytest.raises(ImportError, match=r"pip install pyro-manifolds\[demo\]"):
        photographs(["camera"])
