"""The training loop: what it minimises, resuming, and files that it must not touch."""

import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO

from pyro_manifolds import KleinBottle, PowerSpherical
from pyro_manifolds.demo.model import SphereGuide, SphereModel
from pyro_manifolds.demo.training import describe_run, fit
from pyro_manifolds.nn.checkpoints import CheckpointError, replacing, save_checkpoint

OPTIONS = {
    "steps": 24,
    "batch_size": 16,
    "learning_rate": 0.01,
    "seed": 3,
    "warmup": 10,
    "progress": False,
}


@pytest.fixture(autouse=True)
def _local():
    with pyro.settings.context(module_local_params=True):
        yield


@pytest.fixture
def data():
    return PowerSpherical(torch.eye(8)[0], 5.0).sample((50,))


def make_elbo():
    torch.manual_seed(1)
    surface = KleinBottle()
    return Trace_ELBO()(SphereModel(surface, hidden=8), SphereGuide(surface, hidden=8))


class Interrupting(torch.nn.Module):
    """A loss that is interrupted at one of its calls; the first creates lazy parameters."""

    def __init__(self, elbo, at):
        super().__init__()
        self.inner, self.left = elbo, at + 1

    def forward(self, *args):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return self.inner(*args)

    def state_dict(self, *args, **kwargs):
        return self.inner.state_dict(*args, **kwargs)


def test_training_raises_the_elbo_and_leaves_the_random_state(data):
    before = torch.get_rng_state()
    elbo = make_elbo()
    torch.set_rng_state(before)
    history = fit(elbo, data, **{**OPTIONS, "steps": 200, "warmup": 0})
    assert len(history) == 200
    assert sum(history[-20:]) > sum(history[:20])
    torch.testing.assert_close(torch.get_rng_state(), before)


@pytest.mark.parametrize("at", [7, 10, 13])
def test_resumed_run_is_the_uninterrupted_run(tmp_path, data, at):
    whole = make_elbo()
    expected = fit(whole, data, **OPTIONS)
    options = {**OPTIONS, "checkpoint": tmp_path / "run.pt", "checkpoint_every": 5}
    with pytest.raises(KeyboardInterrupt):
        fit(Interrupting(make_elbo(), at), data, **options)
    resumed = make_elbo()
    torch.manual_seed(99)
    assert fit(resumed, data, resume=True, **options) == expected
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def test_finished_run_is_loaded_and_not_trained_further(tmp_path, data):
    options = {**OPTIONS, "checkpoint": tmp_path / "run.pt"}
    first, again = make_elbo(), make_elbo()
    history = fit(first, data, **options)
    assert fit(again, data, resume=True, **options) == history
    for name, value in first.state_dict().items():
        assert torch.equal(again.state_dict()[name], value)


def test_epochs_visit_each_row_once():
    seen = []

    class Spy(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(()))

        def forward(self, x):
            seen.extend(x.tolist())
            return self.weight * x.sum()

    fit(
        Spy(), torch.arange(12.0), steps=6, batch_size=4, learning_rate=0.1, seed=0, progress=False
    )
    seen = seen[4:]  # the first call only creates parameters
    assert sorted(seen[:12]) == sorted(seen[12:]) == list(range(12))
    assert seen[:12] != seen[12:]


CHANGES = [
    {"steps": 25},
    {"seed": 4},
    {"learning_rate": 0.02},
    {"settings": {"manifold": "torus"}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
@pytest.mark.parametrize("resume", [False, True])
def test_checkpoint_of_another_run_is_refused_and_kept(tmp_path, data, change, resume):
    path = tmp_path / "run.pt"
    options = {**OPTIONS, "checkpoint": path}
    fit(make_elbo(), data, **options)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match=next(iter(change.get("settings", change)))):
        fit(make_elbo(), data, resume=resume, **{**options, **change})
    assert path.read_bytes() == before


def test_checkpoint_of_other_data_is_refused(tmp_path, data):
    options = {**OPTIONS, "checkpoint": tmp_path / "run.pt"}
    fit(make_elbo(), data, **options)
    with pytest.raises(CheckpointError, match="data"):
        fit(make_elbo(), data.flip(0), **options)


@pytest.mark.parametrize("content", ["", "text", "torch", "pickle"])
def test_files_that_are_no_checkpoints_are_refused_and_kept(tmp_path, data, content):
    path = tmp_path / "run.pt"
    if content in {"torch", "pickle"}:
        torch.save({"weights": torch.ones(2)} if content == "torch" else KleinBottle(), path)
    else:
        path.write_text(content)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="move it away"):
        fit(make_elbo(), data, checkpoint=path, **OPTIONS)
    assert path.read_bytes() == before


def test_truncated_checkpoint_is_refused(tmp_path, data):
    path = tmp_path / "run.pt"
    save_checkpoint(path, describe_run(data), {"history": []})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="expected a readable file"):
        fit(make_elbo(), data, checkpoint=path, **OPTIONS)


@pytest.mark.parametrize("name", ["steps", "batch_size", "learning_rate", "checkpoint_every"])
def test_numbers_must_be_positive(data, name):
    with pytest.raises(ValueError, match=f"expected {name} > 0, got 0"):
        fit(make_elbo(), data, **{**OPTIONS, name: 0})


def test_batch_must_fit_in_the_data(data):
    with pytest.raises(ValueError, match="at most the 50 rows of data, got 51"):
        fit(make_elbo(), data, **{**OPTIONS, "batch_size": 51})


def test_training_that_diverges_says_so_and_keeps_the_last_good_state(tmp_path, data):
    class Diverging(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))
            self.calls = 0

        def forward(self, x):
            self.calls += 1
            return self.weight * (math.nan if self.calls > 8 else 1.0)

    path = tmp_path / "run.pt"
    options = {**OPTIONS, "warmup": 0, "checkpoint": path, "checkpoint_every": 5}
    with pytest.raises(FloatingPointError, match="at step 7"):
        fit(Diverging(), data, **options)
    weight = torch.load(path)["state"]["modules"]["weight"]
    assert weight.isfinite()


def test_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "table.txt"
    path.write_text("old")

    def write():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert [file.read_text() for file in tmp_path.iterdir()] == ["old"]
