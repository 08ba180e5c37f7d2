"""The experiment on convolutional nets runs, goes on where it stopped, and its statistics hold."""

import math

import pytest
import torch
from scipy import stats

from benchmarks import convnets
from benchmarks.convnet_report import (
    LEARNED,
    choose,
    paired_difference,
    print_report,
    summarise,
)
from benchmarks.convnets import PRIORS, QUICK, Plan, Run, Task
from pyro_manifolds.datasets import mnist_digits


@pytest.fixture(scope="module")
def clothes(tmp_path_factory):
    """A folder with pictures in the place of Fashion-MNIST."""
    folder = tmp_path_factory.mktemp("clothes")
    generator = torch.Generator().manual_seed(0)
    for part, number in (("train", 90), ("t10k", 60)):
        images = torch.randint(256, (number, 28, 28), generator=generator, dtype=torch.uint8)
        labels = (torch.arange(number) % 10).to(torch.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.dim()])
            sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
            (folder / f"{part}-{name}-ubyte").write_bytes(header + sizes + array.numpy().tobytes())
    return folder


@pytest.mark.parametrize(
    ("task", "prior", "gain"),
    [
        (Task("digits", 20), "Klein/4", 8.0),
        (Task("clothes", 20, layers=1, noise=1.0), "photograph Klein", 2.0),
        (Task("digits", 20), "photograph Gaussian", LEARNED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_net_is_trained_and_scored(clothes, task, prior, gain):
    scores = convnets.train_and_score(Run(task, prior, gain, 0), QUICK, clothes)
    assert all(math.isfinite(value) for value in scores.values())
    assert all(0 <= scores[name] <= 1 for name in scores if not name.endswith("nll"))
    assert scores["nll"] > 0


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_chain_is_run_and_says_how_it_mixes(clothes):
    task = Task("digits", 20, method="hmc", temperature=1.0)
    scores = convnets.train_and_score(Run(task, "Klein/4", 2.0, 0), QUICK, clothes)
    assert 0 <= scores["acceptance"] <= 1
    assert {"r_hat", "effective_draws", "accuracy"} <= scores.keys()
    assert math.isfinite(scores["nll"])


def test_the_parts_of_the_data_are_apart_and_those_to_test_on_the_same_for_all_sizes(clothes):
    small, large = (
        convnets.load(Task("digits", number), QUICK, seed=3, clothes=clothes)
        for number in (20, 4950)
    )
    assert torch.equal(small.test[0], large.test[0])
    images = mnist_digits().images
    parts = [part[0] * images.std() + images.mean() for part in large[:3]]
    keys = [tuple(image.flatten().round(decimals=4).tolist()) for part in parts for image in part]
    assert len(set(keys)) == len(keys) == 5000


@pytest.mark.parametrize("name", PRIORS)
def test_every_prior_has_the_variance_that_the_gain_says(name):
    model, net = convnets.make_model(Run(Task("digits", 100), name, 8.0, 0), QUICK)
    for layer in ("0", "2"):
        weight = net.get_parameter(f"{layer}.weight")
        variance = model._weight_priors[f"{layer}.weight"](weight).variance
        assert variance.mean().item() * weight[0].numel() == pytest.approx(8.0, rel=1e-4)


def test_finished_runs_are_kept_and_not_done_again(clothes, tmp_path, monkeypatch, capsys):
    plan = Plan((Task("digits", 20),), (2.0, 8.0), ("iid", "Klein/4"))
    monkeypatch.setattr(convnets, "PLANS", {"tiny": plan})
    output = tmp_path / "runs.jsonl"
    arguments = ["tiny", "--quick", "--clothes", str(clothes), "--output", str(output)]
    convnets.main([*arguments, "--seeds", "1"])
    first = output.read_text()
    convnets.main([*arguments, "--seeds", "2"])
    assert output.read_text().startswith(first)
    assert len(convnets.read(output)) == 8
    assert "2 seeds" in capsys.readouterr().out


def test_the_scale_is_chosen_by_validation_images_alone():
    cells = {
        ("", 2.0): {"validation_nll": 0.5, "nll": 0.9},
        ("", 8.0): {"validation_nll": 0.6, "nll": 0.1},
    }
    assert choose(cells)["nll"] == 0.9


def test_a_member_of_a_family_is_chosen_by_validation_images_at_every_scale():
    cells = {
        ("2", 2.0): {"validation_nll": 0.5, "nll": 0.9},
        ("4", 2.0): {"validation_nll": 0.6, "nll": 0.1},
        ("4", 8.0): {"validation_nll": 0.4, "nll": 0.7},
    }
    expected = {"nll": 0.7, "nll at 2": 0.9, "nll at 8": 0.7, "nll, mean": 0.8}
    assert summarise(cells) == pytest.approx(expected)


def test_paired_intervals_are_those_of_the_paired_t_test():
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 6, dtype=torch.float64, generator=generator).tolist()
    mean, half = paired_difference(first, second)
    expected = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert mean - half == pytest.approx(expected.low, abs=1e-12)
    assert mean + half == pytest.approx(expected.high, abs=1e-12)


def test_the_report_pairs_seeds_that_all_priors_have(capsys):
    task = Task("digits", 100)
    scores = {"validation_nll": 1.0, "nll": 1.0}
    runs = [(Run(task, prior, 2.0, seed), scores) for prior in ("iid", "Klein") for seed in (0, 1)]
    print_report([*runs, (Run(task, "iid", 2.0, 2), dict(scores, nll=9.0))])
    printed = capsys.readouterr().out
    assert "2 seeds" in printed
    assert "+0.000 ± 0.000" in printed
    assert "9.0" not in printed


def test_a_seed_counts_once_it_has_every_scale(capsys):
    scores = {"validation_nll": 1.0, "nll": 1.0}
    runs = [Run(Task("digits", 100), "Klein", *cell) for cell in ((2.0, 0), (8.0, 0), (2.0, 1))]
    print_report([(run, scores) for run in runs])
    assert "1 seeds, 3 runs" in capsys.readouterr().out


def test_learned_scales_are_no_part_of_the_sweep(capsys):
    scores = {"validation_nll": 1.0, "nll": 1.0}
    runs = [Run(Task("digits", 100), "Klein", gain, 0) for gain in (2.0, LEARNED)]
    print_report([(run, scores) for run in runs])
    assert capsys.readouterr().out.count("## data digits") == 2
