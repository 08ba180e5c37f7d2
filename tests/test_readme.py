"""README: its model runs and recovers the points, and its tables name what exists."""

import re
from pathlib import Path

import torch

import pyro_manifolds

README = (Path(__file__).parents[1] / "README.md").read_text()


def run(number):
    """Run one of the examples, and return what it defines."""
    names: dict = {}
    exec(re.findall(r"```python\n(.*?)```", README, flags=re.S)[number], names)
    return names


def test_the_model_runs_and_finds_the_latent_points():
    names = run(0)
    distance = names["klein"].dist(names["guide"].median()["z"], names["truth"])
    assert torch.isfinite(torch.tensor(names["losses"])).all()
    assert distance.median() < 0.1


def test_divergence_and_samples_on_a_torus_in_space():
    names = run(1)
    divergence = torch.distributions.kl_divergence(names["q"], names["p"])
    assert abs(divergence.item() - 0.8148) < 1e-4
    assert bool(names["ellipse"].codomain.check(names["ellipse"](torch.rand(9, 1))).all())


def test_the_bayesian_net_learns_and_predicts():
    names = run(2)
    losses, prediction = names["losses"], names["prediction"]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert torch.allclose(prediction.probs.sum(-1), torch.ones(40), atol=1e-5)
    assert (prediction.total >= prediction.aleatoric).all()


def test_the_tables_name_public_classes():
    rows = re.findall(r"^\| `(\w+)", README, flags=re.M)
    assert len(rows) >= 15
    assert set(rows) <= set(pyro_manifolds.__all__)
