"""The toy benchmark at a tiny size: data, quadrature, divergences, and that it can go on."""

import dataclasses
import math

import pytest
import torch
from torch.testing import assert_close

from benchmarks import toy_circle
from benchmarks.toy_circle import (
    QUICK,
    Generator,
    Guide,
    Model,
    Protocol,
    Run,
    Training,
    log_evidence,
)
from benchmarks.toy_circle_latents import INVALID, LATENTS, round_nodes
from pyro_manifolds.distributions.transforms import LearnedEmbedding
from pyro_manifolds.infer import evidence_bounds


def nearly_round(z):
    """A curve like those that are learned: not quite closed, of uneven radius and speed."""
    turn = 2 * math.pi * z
    angle = 0.97 * turn + 0.03 * turn.sin()
    return (1 + 0.03 * (3 * turn).cos()) * torch.cat([angle.cos(), angle.sin()], -1)


EMBEDDING = LearnedEmbedding(nearly_round, dim=1, embed_dim=2)


@pytest.fixture
def pair(request):
    """An auto-encoder after a few steps of training."""
    latent = LATENTS[request.param](lambda: EMBEDDING)
    model, guide = Model(latent, "fixed"), Guide(latent)
    Training(model, guide, 10).advance(Generator(0), 10, 32)
    return model, guide


every_latent = pytest.mark.parametrize("pair", LATENTS, indirect=True)


def test_the_data_are_a_closed_curve_of_the_size_that_the_initialisation_gives():
    generator = Generator(0)
    curve = generator.at(round_nodes(4000)[0])
    # A hidden unit has mean square (6/102)/3/2, a weight (6/200)/3, and there are 100 by 100.
    assert curve.square().sum(-1).mean().sqrt() == pytest.approx(1.0, abs=0.15)
    steps = (curve - curve.roll(1, 0)).norm(dim=-1)
    assert steps.sum() == pytest.approx(2 * math.pi, rel=0.15)
    assert steps.max() < 3 * steps.mean()
    assert not torch.equal(curve, Generator(1).at(round_nodes(4000)[0]))


@pytest.mark.parametrize("name", LATENTS)
def test_every_posterior_starts_about_as_wide_on_the_circle(name):
    latent = LATENTS[name](lambda: EMBEDDING)
    draws = latent.features(latent.posterior(torch.zeros(latent.outputs)).sample((4000,)))
    if "normal, d" in name:
        spread = draws.std(0)
    else:
        directions = draws / draws.norm(dim=-1, keepdim=True)
        spread = (-2 * directions.mean(0).norm().log()).sqrt()  # circular standard deviation
    assert_close(spread, torch.full_like(spread, 0.31), rtol=0, atol=0.03)


# There is no quadrature in the plane.
@pytest.mark.parametrize("pair", sorted(LATENTS.keys() - {"normal, d = 2"}), indirect=True)
def test_bounds_do_not_exceed_the_evidence_by_quadrature(pair):
    model, guide = pair
    x = Generator(0).sample(40)
    with torch.no_grad():
        exact = log_evidence(model, x, 4096)
        coarse = log_evidence(model, x, 2048)
        bounds = evidence_bounds(model, guide, x, num_particles=400, chunk_size=100)
    assert_close(coarse, exact, rtol=0, atol=1e-4)
    assert (bounds.elbo.mean() < exact.mean() + 0.02).item()
    assert_close(bounds.iwae.double().mean(), exact.mean(), rtol=0, atol=0.25)


def test_quadrature_with_one_constant_mean_is_the_normal_density():
    model = Model(LATENTS["wrapped normal"](lambda: None), "fixed")
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
    x = Generator(0).sample(7)
    expected = torch.distributions.Normal(0.0, 0.1).log_prob(x).sum(-1).double()
    assert_close(log_evidence(model, x, 64).detach(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("pair", ["Beta, learned embedding"], indirect=True)
def test_the_divergence_through_a_learned_embedding_is_that_before_it(pair):
    model, guide = pair
    x = Generator(0).sample(20)
    with torch.no_grad():
        q, p = guide.posterior(x), model.latent.prior
        z = q.base_dist.sample((50,))
        y = q.embedding(z)
        on_image = q.log_prob(y.clone()) - p.log_prob(y.clone())
        before = q.base_dist.log_prob(z)  # the density of the prior there is one
    assert_close(on_image, before, rtol=0, atol=5e-3)


@pytest.mark.parametrize("pair", [INVALID], indirect=True)
def test_the_nominal_divergence_differs_from_the_right_one_by_the_volume(pair):
    model, guide = pair
    x = Generator(0).sample(20)
    with torch.no_grad():
        q, nominal = guide.posterior(x), guide.nominal_prior(x)
        y = q.sample((50,)).clone()
        gain = nominal.log_prob(y) - model.latent.prior.log_prob(y)
        embedding, z = model.latent.embedding, q.base_dist.embedding.inv(q.action.inv(y))
        speed = torch.func.vmap(torch.func.vmap(torch.func.jacfwd(embedding._call)))(z)
    expected = math.log(2 * math.pi) - speed.squeeze(-1).norm(dim=-1).log()
    assert_close(gain, expected, rtol=0, atol=1e-4)


def test_finished_runs_are_kept_and_not_done_again(tmp_path, monkeypatch, capsys):
    few = (*toy_circle.CURVE, "Beta, learned embedding", INVALID)
    monkeypatch.setattr(toy_circle, "ROWS", few)
    monkeypatch.setattr(toy_circle, "_fit", lambda seed, steps: EMBEDDING)
    output = tmp_path / "runs.jsonl"
    toy_circle.main(["--quick", "--seeds", "1", "--output", str(output)])
    first = output.read_text()
    toy_circle.main(["--quick", "--seeds", "2", "--output", str(output)])
    assert output.read_text().startswith(first)
    runs = toy_circle.read(output)
    assert len(runs) == 2 * (5 + 3 * 2 + 4 + 4)
    assert all(math.isfinite(value) for scores in runs.values() for value in scores.values())
    capsys.readouterr()
    toy_circle.main(["--report", "--output", str(output)])
    printed = capsys.readouterr().out
    assert "## learned noise, one start, 3 steps" in printed
    assert "| latent | 0 | 1 | 3 |" in printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wrapped normal", "Beta, projection + rotation"])
def test_without_a_seam_training_comes_near_to_the_evidence(name):
    protocol = dataclasses.replace(Protocol(), test=200)
    scores = toy_circle.train_and_score(Run(name, "fixed", 400, 0), protocol)
    assert scores["exact"] - 0.5 < scores["elbo"] < scores["exact"] + 0.01
    assert scores["generator"] - 0.5 < scores["exact"] < scores["generator"] + 0.1


def test_the_protocol_that_only_runs_is_smaller():
    full, quick = dataclasses.astuple(Protocol()), dataclasses.astuple(QUICK)
    assert all(a <= b for a, b in zip(quick, full, strict=True))
