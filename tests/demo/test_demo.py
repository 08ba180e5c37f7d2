"""The demonstration from end to end, at tiny sizes, and what it refuses."""

import json
import math
import sys

import matplotlib.image
import pytest
import torch

from pyro_manifolds.demo import experiment, training
from pyro_manifolds.demo.__main__ import main, make_parser
from pyro_manifolds.demo.experiment import MANIFOLDS, Settings

SMALL = ["--smoke", "--quiet", "--manifolds", "plane"]
PAIR = [*SMALL, "torus"]


@pytest.fixture
def skimage():
    pytest.importorskip("skimage")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "demo"


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def scores(output):
    return json.loads((output / "photographs.json").read_text())["rows"]


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as error:
        main([*map(str, arguments)])
    assert error.value.code == 2
    return capsys.readouterr().err


def test_arguments_have_defaults():
    options = make_parser().parse_args([])
    assert options.manifolds == list(MANIFOLDS)
    assert (options.seeds, options.steps) == (3, Settings.steps)
    assert str(options.output).endswith("demo")


@pytest.mark.slow
@pytest.mark.usefixtures("skimage")
def test_all_manifolds_end_to_end(output, capsys):
    assert main(["--smoke", "--output", str(output)]) == 0
    printed = capsys.readouterr()
    for label, _ in MANIFOLDS.values():
        assert label in printed.out
        assert f"{label}, seed 0" in printed.err  # the progress bar
    assert "elbo=" in printed.err
    assert (output / "photographs.txt").read_text().strip() in printed.out
    assert matplotlib.image.imread(output / "photographs.png").shape[0] > 500
    rows = scores(output)
    assert len(rows) == len(MANIFOLDS) + 3
    for row in rows:
        assert all(map(math.isfinite, row["log_density"]))
        assert all(e <= d for e, d in zip(row["elbo"], row["log_density"], strict=False))
    uniform = next(row for row in rows if row["name"] == "uniform")
    assert uniform["log_density"] == [pytest.approx(-math.log(math.pi**4 / 3))]


@pytest.mark.usefixtures("skimage")
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, monkeypatch):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    main([*PAIR, "--output", str(whole)])
    step, calls = training._step, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 75:  # 2 mixtures of 10 steps, 40 on the plane, the 15th on the torus
            raise KeyboardInterrupt
        return step(*arguments)

    def often(*arguments, **options):
        return training.fit(*arguments, **options, checkpoint_every=4)

    monkeypatch.setattr(experiment, "fit", often)
    monkeypatch.setattr(training, "_step", interrupted)
    assert main([*PAIR, "--output", str(parts)]) == 130
    assert not (parts / "photographs.txt").exists()
    assert main([*PAIR, "--output", str(parts), "--resume"]) == 0
    assert len(calls) == 75 + 20 + (40 - 12) + 10  # the torus went on after 12, the plane was done
    assert scores(parts) == scores(whole)
    for name in ("plane-0.pt", "torus-0.pt"):
        ours, theirs = (torch.load(folder / "checkpoints" / name) for folder in (parts, whole))
        for key, value in theirs["state"]["modules"].items():
            assert torch.equal(ours["state"]["modules"][key], value)


@pytest.mark.slow
@pytest.mark.usefixtures("skimage")
def test_two_processes_give_the_scores_of_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, workers in ((one, "1"), (two, "2")):
        assert main([*PAIR, "--workers", workers, "--output", str(folder)]) == 0
    assert scores(one) == scores(two)


@pytest.mark.usefixtures("skimage")
def test_without_a_klein_bottle_the_figure_is_the_table(output):
    assert main([*SMALL, "--output", str(output)]) == 0
    assert (output / "photographs.png").exists()


def test_unknown_manifold_is_refused(capsys, output):
    message = refused(capsys, "--manifolds", "cube", "--output", output)
    assert "--manifolds" in message
    assert "'cube'" in message
    assert "klein" in message
    assert not output.exists()


@pytest.mark.parametrize(
    "flag",
    ["--seeds", "--steps", "--batch-size", "--hidden", "--train-patches", "--test-patches"]
    + ["--particles", "--mixture-steps", "--workers", "--learning-rate"],
)
@pytest.mark.parametrize("value", ["0", "-3", "many"])
def test_sizes_must_be_positive(capsys, output, flag, value):
    message = refused(capsys, "--smoke", flag, value, "--output", output)
    assert f"argument {flag}: expected a positive" in message
    assert f"got '{value}'" in message
    assert not output.exists()


@pytest.mark.usefixtures("skimage")
@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--batch-size", 701),
        ("--train-patches", 3),
        ("--train-patches", 20),
        ("--test-patches", 10**7),
    ],
)
def test_sizes_must_fit_each_other_and_the_photographs(capsys, output, flag, value):
    message = refused(capsys, *SMALL, flag, value, "--output", output)
    assert f"argument {flag}: " in message
    assert "got" in message
    assert not output.exists()


@pytest.mark.usefixtures("skimage")
def test_checkpoints_of_other_settings_are_refused_and_nothing_is_overwritten(capsys, output):
    main([*SMALL, "--output", str(output)])
    before = files(output)
    for extra in ([], ["--resume"]):
        message = refused(capsys, *SMALL, *extra, "--steps", 41, "--output", output)
        assert "argument --output" in message
        assert "steps 41" in message
        assert "steps 40" in message
    assert files(output) == before


@pytest.mark.usefixtures("skimage")
@pytest.mark.parametrize("extra", [[], ["--resume"]])
@pytest.mark.parametrize("kind", ["corrupt", "foreign", "pickle"])
def test_files_in_the_place_of_checkpoints_are_refused_and_kept(capsys, output, kind, extra):
    path = output / "checkpoints" / "plane-0.pt"
    path.parent.mkdir(parents=True)
    if kind == "corrupt":
        path.write_bytes(b"PK\x03\x04 not a checkpoint")
    else:
        torch.save({"weights": torch.ones(3)} if kind == "foreign" else Settings(), path)
    before = files(output)
    message = refused(capsys, *SMALL, *extra, "--output", output)
    assert "plane-0.pt" in message
    assert "expected" in message
    assert "got" in message
    assert files(output) == before


@pytest.mark.filterwarnings("ignore:Encountered NaN")
@pytest.mark.usefixtures("skimage")
def test_training_that_diverges_is_reported(capsys, output):
    with pytest.raises(SystemExit) as error:
        main([*SMALL, "--learning-rate", "1e30", "--output", str(output)])
    assert error.value.code == 1
    assert "lower the learning rate" in capsys.readouterr().err


@pytest.mark.usefixtures("skimage")
def test_resume_needs_a_checkpoint(capsys, output):
    message = refused(capsys, *SMALL, "--resume", "--output", output)
    assert "argument --resume: expected checkpoints in" in message
    assert not output.exists()


@pytest.mark.usefixtures("skimage")
def test_output_must_be_a_folder(capsys, tmp_path):
    path = tmp_path / "file"
    path.write_text("mine")
    assert "argument --output: expected a folder" in refused(capsys, *SMALL, "--output", path)
    assert path.read_text() == "mine"


def test_missing_photographs_are_named(capsys, output, monkeypatch):
    experiment.load_patches.cache_clear()
    monkeypatch.setitem(sys.modules, "skimage.data", None)
    message = refused(capsys, *SMALL, "--output", output)
    assert "expected scikit-image" in message
    assert "pip install" in message
    assert not output.exists()


@pytest.mark.usefixtures("skimage")
def test_failing_figure_leaves_no_half_of_one(output, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no fonts")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fail)
    with pytest.raises(RuntimeError, match="no fonts"):
        main([*SMALL, "--output", str(output)])
    assert not list(output.glob("*.png"))
    assert not list(output.glob(".*"))
    assert (output / "photographs.txt").exists()
