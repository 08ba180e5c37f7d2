"""Fashion-MNIST: the published file format, and files that are missing or damaged."""

import gzip
import struct

import pytest
import torch

from pyro_manifolds.datasets import Digits, fashion_mnist

PIXELS = (torch.arange(3 * 28 * 28) % 256).to(torch.uint8).reshape(3, 28, 28)
LABELS = torch.tensor([9, 0, 3], dtype=torch.uint8)


def idx(array, *, kind=8):
    """The format as LeCun describes it: big-endian sizes after 0, 0, type, number of sizes."""
    sizes = struct.pack(f">{array.dim()}I", *array.shape)
    return bytes([0, 0, kind, array.dim()]) + sizes + bytes(array.flatten().tolist())


def write(folder, images, labels, *, part="train", pack=gzip.compress):
    suffix = ".gz" if pack is gzip.compress else ""
    (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(pack(images))
    (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(pack(labels))


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
@pytest.mark.parametrize(("train", "part"), [(True, "train"), (False, "t10k")])
def test_images_and_labels_are_what_the_files_say(tmp_path, train, part, pack):
    write(tmp_path, idx(PIXELS), idx(LABELS), part=part, pack=pack)
    data = fashion_mnist(train, str(tmp_path))
    assert isinstance(data, Digits)
    assert data.images.dtype == torch.float32
    assert torch.equal(data.images, PIXELS.float() / 255)
    assert data.labels.tolist() == [9, 0, 3]
    assert data.labels.dtype == torch.int64


def test_no_images_are_no_error(tmp_path):
    write(tmp_path, idx(PIXELS[:0]), idx(LABELS[:0]))
    assert fashion_mnist(root=tmp_path).images.shape == (0, 28, 28)


def test_missing_files_say_what_to_install_and_where_it_looked(tmp_path):
    with pytest.raises(FileNotFoundError, match="apt-get install dataset-fashion-mnist") as error:
        fashion_mnist(root=tmp_path)
    assert str(tmp_path) in str(error.value)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(PIXELS))
    with pytest.raises(FileNotFoundError, match="expected train-labels-idx1-ubyte"):
        fashion_mnist(root=tmp_path)


def test_the_default_folder_is_that_of_debian(monkeypatch, tmp_path):
    monkeypatch.setattr("pyro_manifolds.datasets.fashion._ROOT", tmp_path / "fashion-mnist")
    with pytest.raises(FileNotFoundError, match=r"fashion-mnist, got neither"):
        fashion_mnist()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (idx(PIXELS)[:-1], r"sizes \[3, 28, 28\] and 2367 bytes"),
        (idx(PIXELS) + b"\0", "and 2369 bytes"),
        (idx(PIXELS)[:9], "header 00000803"),
        (b"", "and 0 bytes"),
        (idx(LABELS), "header 00000801"),
        (idx(PIXELS, kind=9), "header 00000903"),
        (idx(PIXELS[:2]), "2 images and 3 labels"),
    ],
)
def test_damaged_content_is_refused(tmp_path, images, message):
    write(tmp_path, images, idx(LABELS))
    with pytest.raises(ValueError, match=message):
        fashion_mnist(root=tmp_path)


def damaged(content):
    middle = len(content) // 2
    return content[:middle] + bytes(64) + content[middle + 64 :]


@pytest.mark.parametrize("harm", [lambda x: x[:-20], damaged, lambda x: b"not gzip"])
def test_damaged_compression_is_refused(tmp_path, harm):
    write(tmp_path, idx(PIXELS), idx(LABELS))
    file = tmp_path / "train-images-idx3-ubyte.gz"
    file.write_bytes(harm(file.read_bytes()))
    with pytest.raises(ValueError, match=r"images-idx3-ubyte.gz to be a gzip file, got"):
        fashion_mnist(root=tmp_path)
