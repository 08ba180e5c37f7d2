"""The benchmark of complex VAEs at a tiny size: every row comes, and once."""

import json
import math
from functools import partial

import pytest
import torch

from benchmarks.complex_vae import EXPERIMENTS, main, one_law
from benchmarks.complex_vae_data import Split, coefficients, fourier_patches, signals
from benchmarks.complex_vae_networks import (
    RealLinear,
    complex_pair,
    gated_pair,
    num_parameters,
    real_pair,
    widest,
)
from benchmarks.complex_vae_samples import Yardstick
from pyro_manifolds.ops.complex_linalg import real_matrix, split_parts

pytest.importorskip("sklearn")
pytest.importorskip("skimage")


def test_every_row_comes_and_a_second_run_adds_none(tmp_path, capsys):
    arguments = ["--quick", "--seeds", "0", "--output", str(tmp_path)]
    main(arguments)
    printed = capsys.readouterr().out
    for name, (_, rows) in EXPERIMENTS.items():
        saved = {path: path.stat().st_mtime_ns for path in (tmp_path / name).iterdir()}
        assert len(saved) == len(rows)
        scores = [value for path in saved for value in json.loads(path.read_text()).values()]
        assert all(math.isfinite(value) for value in scores)
        assert all(f"| {row} |" in printed for row in rows)
        main([name, *arguments])
        assert {path: path.stat().st_mtime_ns for path in saved} == saved


@pytest.mark.parametrize("build", [real_pair, gated_pair])
def test_networks_have_as_many_parameters(build):
    num = num_parameters(*complex_pair(8, 32, 64))
    real = num_parameters(*widest(partial(build, 8, 32), num))
    assert 0.95 * num < real <= num
    assert num_parameters(torch.nn.Linear(3, 2, dtype=torch.cfloat)) == 16


def test_real_linear_maps_contain_the_complex_ones():
    like = torch.nn.Linear(3, 2, dtype=torch.cfloat)
    real, z = RealLinear(like), torch.randn(4, 3, dtype=torch.cfloat)
    real.weight.data, real.bias.data = real_matrix(like.weight.data), split_parts(like.bias.data)
    torch.testing.assert_close(real(z), like(z))
    pair = gated_pair(2, 5, 4)
    assert not any(p.is_complex() for module in pair for p in module.parameters())


@pytest.mark.parametrize("make", [signals, fourier_patches])
def test_as_many_data_as_asked_for(make):
    train, test, _ = make(40, 10)
    assert (len(train), len(test)) == (40, 10)
    assert torch.isfinite(torch.view_as_real(train)).all()


def test_signals_are_circular_and_analytic():
    """Relations within four standard errors of zero, and hardly energy at negative frequencies."""
    train = signals(2000, 1).train
    relation = train.square().mean(0) / train.abs().square().mean(0)
    assert relation.abs().max() < 4 / math.sqrt(2000) * 1.5  # kurtosis of chirps that vary in size
    energy = torch.fft.fft(train).abs().square().mean(0)
    assert energy[17:].mean() < 0.05 * energy.mean()


def test_fourier_coefficients_are_half_of_the_spectrum():
    """All but the four real coefficients and the conjugates: no two are of one pair."""
    image = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    found = coefficients(image, 8)
    assert found.shape == (len(found), 30)
    assert found.abs().square().mean(1).allclose(torch.ones(len(found)))


def test_one_law_of_normal_data():
    """Of white noise of variance one, the density is that of its law."""
    z = torch.randn(40_000, 2, dtype=torch.cfloat)
    expected = -2 * (math.log(math.pi) + 1)
    assert one_law(Split(z, z))["IWAE"] == pytest.approx(expected, abs=0.03)


def test_scores_by_hand():
    train, labels = torch.tensor([[0.0], [1.0]]), torch.tensor([3, 5])
    yardstick = Yardstick(train, labels, torch.tensor([[0.1], [2.0]]), torch.tensor(0.5))
    scores = yardstick.scores(torch.tensor([[0.2], [0.3], [1.1], [3.0]]))
    assert scores["outliers"] == pytest.approx(0.25)
    assert scores["class entropy"] == pytest.approx(math.log(2))
    assert scores["coverage"] == pytest.approx(0.5)
