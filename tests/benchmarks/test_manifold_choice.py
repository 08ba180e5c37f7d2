"""The choice of manifolds at a tiny size: data are what they should be, and runs go on."""

import json

import pytest
import torch

from benchmarks.manifold_choice import DATA, MANIFOLDS, QUICK, compare, draw, main, merge


@pytest.mark.parametrize("name", DATA)
def test_data_differ_between_seeds_and_parts_and_are_the_same_again(name):
    right, _ = DATA[name]
    assert right in MANIFOLDS
    x = draw(name, 6, 0, test=False)
    assert x.shape == (6, 14, 14)
    assert torch.equal(x, draw(name, 6, 0, test=False))
    for seed, test in ((0, True), (1, False)):
        assert not torch.allclose(x, draw(name, 6, seed, test=test), atol=1.0)


def test_seeds_are_put_together(tmp_path):
    names = ["line", "circle"]
    parts = [compare("rotating digit", seed, QUICK, names, tmp_path) for seed in (0, 1)]
    whole = merge(parts)
    assert set(whole.tables) == set(whole.choices) == {0, 1}
    assert set(whole.dims) == set(names)
    line = [part.tables[seed]["line"].elbo for seed, part in enumerate(parts)]
    row = next(row for row in whole.rows if row.name == "line")
    assert row.elbo.value == pytest.approx(sum(line) / 2)


def test_the_report_holds_every_number_and_a_second_run_agrees(tmp_path, capsys):
    arguments = ["--quick", "--data", "Klein circles", "--manifolds", "torus", "Klein bottle"]
    arguments += ["--seeds", "0", "--output", str(tmp_path)]
    main(arguments)
    first = capsys.readouterr().out
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert {len(v) for row in scores["Klein circles"].values() for v in row.values()} == {1}
    kept = (tmp_path / "Klein-circles" / "torus-0.pt").stat().st_mtime_ns
    main(arguments)
    assert capsys.readouterr().out == first
    assert (tmp_path / "Klein-circles" / "torus-0.pt").stat().st_mtime_ns == kept
