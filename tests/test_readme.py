"""README: its model runs and recovers the points, and its tables name what exists."""

import math
import re
from pathlib import Path

import pyro
import torch

import pyro_manifolds

README = (Path(__file__).parents[1] / "README.md").read_text()


def run(word):
    """Run the example in which a word occurs first, and return what it defines."""
    names: dict = {}
    examples = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    exec(next(example for example in examples if word in example), names)
    return names


def test_the_model_runs_and_finds_the_latent_points():
    names = run("AutoWrappedNormal")
    distance = names["klein"].dist(names["guide"].median()["z"], names["truth"])
    assert torch.isfinite(torch.tensor(names["losses"])).all()
    assert distance.median() < 0.1


def test_divergence_and_samples_on_a_torus_in_space():
    names = run("FlatTorusEmbedding")
    divergence = torch.distributions.kl_divergence(names["q"], names["p"])
    assert abs(divergence.item() - 0.8148) < 1e-4
    assert bool(names["ellipse"].codomain.check(names["ellipse"](torch.rand(9, 1))).all())


def test_the_topographic_vae_learns_and_its_codes_roll():
    names = run("TopographicModel")
    model, x, codes = names["model"], names["x"], names["codes"]
    with torch.no_grad():
        fair_coin = 14 * 14 * math.log(2)
        assert -model.log_likelihood(codes, x).mean() < 0.7 * fair_coin
    assert codes.shape == (200, 12, 12, 12)


def test_the_complex_latent_is_found():
    names = run("hermitian_fisher")
    data, losses, model = names["data"], names["losses"], names["model"]
    assert sum(losses[-20:]) < sum(losses[:20])
    draws = pyro.infer.Predictive(model, guide=names["guide"], num_samples=500)(data)["z"]
    # The posterior mean is the mean of the data but for a share of 1 / 550 that is the prior's.
    assert (draws.mean() - data.mean()).abs() < 0.05


def test_the_bayesian_net_learns_and_predicts():
    names = run("BayesianModule")
    losses, prediction = names["losses"], names["prediction"]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert torch.allclose(prediction.probs.sum(-1), torch.ones(40), atol=1e-5)
    assert (prediction.total >= prediction.aleatoric).all()


def test_the_tables_name_public_classes():
    rows = re.findall(r"^\| `(\w+)", README, flags=re.M)
    assert len(rows) >= 15
    assert set(rows) <= set(pyro_manifolds.__all__)
