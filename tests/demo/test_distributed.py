"""Training in two processes against the same training in one."""

import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pyro
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.demo import distributed, training
from pyro_manifolds.demo.__main__ import main as demonstrate
from pyro_manifolds.demo.__main__ import make_parser
from pyro_manifolds.demo.distributed import average, process_group, replicate, share
from tests.demo.train_in_processes import main, train_with_noise_in_rows

ROOT = Path(__file__).parents[2]


def torchrun(*arguments):
    """Run a program in two processes, and stop them where they do not come to an end."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    options = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120}
    finished = subprocess.run([*command, *map(str, arguments)], check=False, **options)
    assert finished.returncode == 0, finished.stderr
    return finished


@pytest.fixture(scope="module", autouse=True)
def _local():
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder of the results and checkpoints of one process."""
    folder = tmp_path_factory.mktemp("alone")
    main(folder)
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory, alone):
    """Folder of the results of two processes, one of which went on from a checkpoint of one."""
    folder = tmp_path_factory.mktemp("together")
    shutil.copy(alone / "uneven-5.pt", folder / "interrupted.pt")
    torchrun("-m", "tests.demo.train_in_processes", folder)
    return folder


def results(folder, rank=0):
    return torch.load(folder / f"results-{rank}.pt")


def assert_same_training(actual, expected):
    assert_close(actual["history"], expected["history"], rtol=0, atol=1e-12)
    for name, value in expected["modules"].items():
        assert_close(actual["modules"][name], value, rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("run", ["even", "uneven", "resumed"])
@pytest.mark.parametrize("rank", [0, 1])
def test_two_processes_train_as_one_does_on_the_same_batches_and_noise(alone, together, run, rank):
    assert_same_training(results(together, rank)[run], results(alone)[run])


@pytest.mark.slow
def test_one_process_goes_on_from_a_checkpoint_of_two(alone, together, tmp_path):
    shutil.copy(together / "uneven-5.pt", tmp_path)
    options = {"checkpoint": tmp_path / "uneven-5.pt", "resume": True}
    resumed = train_with_noise_in_rows(batch_size=7, **options)
    assert_same_training(resumed, results(alone)["uneven"])


@pytest.mark.slow
def test_processes_share_parameters_and_history_but_not_noise(together):
    first, second = (results(together, rank)["noisy"] for rank in (0, 1))
    assert first["history"] == second["history"]
    for name, value in first["modules"].items():
        assert torch.equal(second["modules"][name], value)
    assert first["drawn"].shape == second["drawn"].shape
    assert not torch.isclose(first["drawn"], second["drawn"]).all(-1).any()


@pytest.mark.slow
def test_training_with_noise_arrives_where_one_process_does(alone, together):
    ends = [
        torch.tensor(results(folder)["noisy"]["history"][-100:]) for folder in (alone, together)
    ]
    (mean, other), (var, other_var) = ([f(end) for end in ends] for f in (torch.mean, torch.var))
    assert (mean - other).abs() < 4 * ((var + other_var) / 100).sqrt()
    start = torch.tensor(results(together)["noisy"]["history"][:5]).mean()
    assert other > start + 1  # it has come a long way


@pytest.mark.slow
def test_demonstration_reports_once_and_like_one_process(tmp_path):
    pytest.importorskip("skimage")
    options = ["--smoke", "--manifolds", "plane", "--output"]
    finished = torchrun("-m", "pyro_manifolds.demo", *options, tmp_path / "two")
    assert finished.stdout.count("Nats per patch") == 1
    assert finished.stderr.count("plane, seed 0: 100%") == 1
    assert demonstrate([*options, str(tmp_path / "one")]) == 0
    two, one = (
        json.loads((tmp_path / name / "photographs.json").read_text())["rows"]
        for name in ("two", "one")
    )
    for theirs, ours in zip(two, one, strict=True):
        assert theirs["name"] == ours["name"]
        # The latent plane has noise of its own in each process; the rest has none.
        assert theirs["log_density"] == pytest.approx(ours["log_density"], abs=0.05)


def test_several_workers_are_refused_where_torchrun_starts_the_processes(monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setattr("pyro_manifolds.demo.__main__.process_group", nullcontext)
    assert make_parser().parse_args([]).workers == 1
    with pytest.raises(SystemExit):
        demonstrate(["--workers", "2"])
    assert "expected 1 under torchrun" in capsys.readouterr().err


def test_one_process_alone_needs_no_group():
    module, rows = torch.nn.Linear(1, 1), torch.arange(3.0)
    with process_group():
        assert not torch.distributed.is_initialized()
        assert replicate(module) is module
        assert torch.equal(share(rows), rows)
        assert torch.equal(average(rows), rows)


def test_every_process_needs_a_row(monkeypatch):
    monkeypatch.setattr(training, "world_size", lambda: 3)
    with pytest.raises(ValueError, match="one row for each of the 3 processes, got 2"):
        train_with_noise_in_rows(batch_size=2)


def test_shares_make_up_the_batch(monkeypatch):
    monkeypatch.setattr(distributed, "world_size", lambda: 3)
    shares = []
    for number in range(3):
        monkeypatch.setattr(distributed, "rank", lambda number=number: number)
        shares.append(share(torch.arange(8)))
    assert torch.equal(torch.cat(shares), torch.arange(8))
    assert [len(rows) for rows in shares] == [3, 3, 2]
