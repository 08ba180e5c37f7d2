"""The benchmark of deep priors at a tiny size: every row comes, and once."""

import json
import math

import pytest
import torch

from benchmarks import deep_prior
from benchmarks.deep_prior import DATA, EXPLICIT, FITS, LATENTS, QUICK, TRANSFERS, main
from pyro_manifolds.datasets import Digits


@pytest.fixture
def few_digits(monkeypatch):
    """Forty digits of each kind are enough, and need no file."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(10).repeat_interleave(40)
    digits = Digits(torch.rand(400, 28, 28, generator=generator), labels)
    monkeypatch.setattr(deep_prior, "_digits", lambda: digits)


@pytest.mark.slow
def test_every_row_comes_and_a_second_run_adds_none(few_digits, tmp_path, capsys):
    arguments = ["--quick", "--seeds", "0", "--transfer-seeds", "0", "--fits", *FITS]
    arguments += ["--output", str(tmp_path)]
    rows = main(arguments)
    assert len(rows) == len(DATA) * (len(EXPLICIT) + len(LATENTS)) + len(FITS) * len(TRANSFERS)
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    saved = (tmp_path / "rows-quick.json").read_text()
    assert json.loads(saved) == rows
    assert all(name in capsys.readouterr().out for name in ("deep, plane, ELBO",))
    main(arguments)
    assert (tmp_path / "rows-quick.json").read_text() == saved


def test_nets_are_split_and_no_filter_is_on_two_sides():
    layers = [torch.arange(60.0).reshape(10, 6, 1, 1).expand(10, 6, 5, 5)] * 2
    parts = deep_prior.load_filters("first layer", layers, QUICK, 0)
    seen = [set(part[:, 0, 0].tolist()) for part in (parts.train, parts.validation, parts.test)]
    assert [len(s) for s in seen] == [36, 12, 12]
    assert set.union(*seen) == set(range(60))


def test_few_images_are_as_many_of_each_class_and_not_tested_on(few_digits):
    (x, y), (x_test, y_test) = deep_prior._few_images(20, 0)
    assert y.bincount().tolist() == [4] * 5
    assert y_test.bincount().tolist() == [36] * 5
    assert (x.flatten(1)[:, None] != x_test.flatten(1)).any(-1).all()
