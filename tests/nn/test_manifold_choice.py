"""Choice of a manifold: data whose manifold is known, ties by hand, what is kept and refused."""

import dataclasses
import math

import pyro
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import Circle, Euclidean, KleinBottle, Product, Torus
from pyro_manifolds.infer import EvidenceBounds, EvidenceTable, evidence_bounds
from pyro_manifolds.infer.comparison import EvidenceRow
from pyro_manifolds.infer.evidence import Estimate
from pyro_manifolds.nn import (
    ManifoldChoice,
    ManifoldGuide,
    ManifoldModel,
    compare_manifolds,
    fit_manifold_vae,
)
from pyro_manifolds.nn.manifold_vae import _alignment

OPTIONS = {"noise": 0.1, "hidden": (16, 24), "restarts": 2, "progress": False}


def on_a_circle(num, dtype=torch.float32):
    torch.manual_seed(0)
    angles = 2 * math.pi * torch.rand(num, dtype=dtype)
    return Circle().embed(angles) @ torch.eye(2, 6, dtype=dtype) + 0.1 * torch.randn(
        num, 6, dtype=dtype
    )


def made_up(scores):
    """Return a choice between candidates with given ELBOs, by seed and name, of 100 data."""
    noise = torch.linspace(-1.0, 1.0, 100)
    tables = {}
    for seed, row in scores.items():
        rows = []
        for number, (name, (mean, spread)) in enumerate(row.items()):
            elbo = mean + spread * noise.roll(10 * number)
            bounds = EvidenceBounds(elbo, elbo + 1, *(torch.ones(100),) * 3)
            estimate = Estimate(mean + 1.0, 0.0)
            rows.append(EvidenceRow(name, bounds, estimate, Estimate(0.0, 0.0), mean, 1.0, 0.0))
        tables[seed] = EvidenceTable(tuple(rows), 100, 64)
    return ManifoldChoice(tables, {}, {"line": 1, "circle": 1, "torus": 2})


def test_a_circle_is_told_from_a_line():
    x = on_a_circle(2_200)
    choice = compare_manifolds(
        x, {"line": Euclidean(1), "circle": Circle()}, seeds=[0, 1], steps=250, **OPTIONS
    )
    assert choice.choice == choice.best == "circle"
    assert choice.tied == ["circle"]
    assert choice.choices == {0: "circle", 1: "circle"}
    text = str(choice)
    assert "circle: ahead of all others beyond the noise; the choice of 2 of 2 seeds." in text
    header, rule, *rows = text.splitlines()[:4]
    assert {len(line) for line in (header, rule, *rows)} == {len(header)}
    # The pairs are ordinary Pyro, and agree with the table.
    model, guide = choice.pairs[0]["circle"]
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    again = evidence_bounds(model, guide, x[order[:220]], num_particles=64)
    assert again.elbo.mean().item() == pytest.approx(choice.tables[0]["circle"].elbo, abs=0.05)


def test_evidence_without_a_guide_agrees_with_quadrature():
    x = on_a_circle(400, torch.float64)
    torch.manual_seed(0)
    model = ManifoldModel(Circle(), x, 0.1, (16, 24))
    grid = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)[:-1]
    with torch.no_grad():
        law = torch.distributions.Normal(model.decode(grid), 0.1)
        parts = [law.log_prob(row).sum(-1).logsumexp(0) for row in x[:20]]
    truth = torch.stack(parts) - math.log(20_000)
    # A few hundred draws or more hit each posterior.
    assert_close(model.log_evidence(x[:20], 200_000), truth, atol=0.1, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "manifold", [KleinBottle(), Euclidean(2), Product(Circle(), Euclidean(1))], ids=str
)
def test_images_of_any_shape_and_dtype(manifold, dtype):
    x = torch.randn(300, 3, 4, dtype=dtype)
    state = torch.get_rng_state()
    model, guide, elbo = fit_manifold_vae(manifold, x, noise=0.5, steps=10, hidden=(8, 8))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(pyro.get_param_store()) == 0
    assert math.isfinite(elbo)
    z = guide.posterior(x[:5]).mode
    assert z.dtype == dtype
    assert model.decode(z).shape == (5, 3, 4)
    assert evidence_bounds(model, guide, x[:5], num_particles=4).iwae.dtype == dtype


def test_ties_go_to_the_smallest_dimension():
    seed = {"line": (-5.0, 1.0), "circle": (-1.01, 1.0), "torus": (-1.0, 1.0)}
    choice = made_up({0: seed})
    assert (choice.best, choice.tied, choice.choice) == ("torus", ["circle", "torus"], "circle")
    assert "circle: the simplest of those tied, with torus" in choice.verdict


def test_candidates_are_told_apart_only_if_every_seed_agrees():
    ahead = {"line": (-5.0, 0.1), "circle": (-3.0, 0.1), "torus": (-1.0, 0.1)}
    behind = ahead | {"circle": (-0.5, 0.1)}
    assert made_up({0: ahead, 1: ahead, 2: ahead}).choice == "torus"
    mixed = made_up({0: ahead, 1: ahead, 2: behind})
    assert mixed.best == "torus"
    assert mixed.choice == "circle"
    assert mixed.choices == {0: "torus", 1: "torus", 2: "circle"}
    assert [row.wins for row in mixed.rows] == [2, 1, 0]
    row = mixed.rows[1]
    assert row.difference.value == pytest.approx((-2 - 2 + 0.5) / 3, abs=1e-5)
    assert row.difference.error == pytest.approx(2.5 / 3**0.5, abs=1e-5)


def test_the_criterion_can_be_replaced():
    choice = made_up({0: {"line": (-5.0, 1.0), "circle": (-1.0, 1.0), "torus": (-2.0, 1.0)}})
    by_iwae = dataclasses.replace(choice, criterion="iwae")
    assert by_iwae.choice == "circle"
    assert "differences of the IWAE" in str(by_iwae)


def test_finished_pairs_are_kept_and_others_refused(tmp_path):
    x, options = on_a_circle(300), OPTIONS | {"seeds": [0], "steps": 10, "folder": tmp_path}
    first = compare_manifolds(x, [Circle()], **options)
    kept = (tmp_path / "Circle-0.pt").stat().st_mtime_ns
    both = compare_manifolds(x, [Circle(), Torus(2)], num_points=500, **options)
    assert (tmp_path / "Circle-0.pt").stat().st_mtime_ns == kept
    assert both.tables[0]["Circle()"].elbo == pytest.approx(first.tables[0]["Circle()"].elbo)
    assert set(both.exact[0]) == {"Circle()", "Torus(2)"}
    with pytest.raises(ValueError, match="Circle-0.pt: expected one .* steps 20, got .* steps 10"):
        compare_manifolds(x, [Circle()], **(options | {"steps": 20}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": 0.0}, "noise > 0, got 0.0"),
        ({"held_out": 1.5}, "held_out to be data or in .* got 1.5"),
        ({"held_out": torch.zeros(9, 5)}, r"held_out of shape .* \(6,\), got \(9, 5\)"),
        ({"data": torch.zeros(9)}, r"data of shape .* got \(9,\)"),
        ({"data": torch.full((9, 6), torch.nan)}, "finite floating-point data"),
        ({"data": torch.zeros(9, 6).int()}, "finite floating-point data, got torch.int32"),
        ({"seeds": []}, "different seeds, at least one"),
        ({"seeds": [1, 1]}, "different seeds, at least one"),
        ({"manifolds": []}, "at least one manifold, got none"),
        ({"manifolds": [Circle(), Circle()]}, "different manifolds"),
        ({"manifolds": {"a b": Circle(), "a-b": Torus(2)}}, "names that differ in letters"),
        ({"criterion": "aic"}, "criterion in .* got 'aic'"),
        ({"steps": 0}, "steps >= 1, got 0"),
    ],
)
def test_bad_arguments_are_named(change, message):
    arguments = {"data": torch.zeros(9, 6), "manifolds": [Circle()]} | OPTIONS | change
    data, manifolds = arguments.pop("data"), arguments.pop("manifolds")
    with pytest.raises(ValueError, match=f"compare_manifolds: expected {message}"):
        compare_manifolds(data, manifolds, **arguments)


def test_what_is_no_manifold_is_refused():
    with pytest.raises(TypeError, match="expected manifolds of pyro_manifolds, got str"):
        compare_manifolds(torch.zeros(9, 6), {"circle": "circle"}, **OPTIONS)


def test_a_guide_without_alignment_starts_at_random():
    x = on_a_circle(100)
    first, second = ManifoldGuide(Circle(), x), ManifoldGuide(Circle(), x)
    assert not torch.equal(first.posterior(x).loc, second.posterior(x).loc)


def test_a_later_start_finds_the_circle_behind_one_that_is_run_through_twice():
    # Twice the speed has the larger variance: the leading pair is a double cover of the circle.
    angles = Circle().random_uniform(2_000).as_subclass(torch.Tensor)
    fast, slow = 1.5 * Circle().embed(2 * angles), Circle().embed(angles)
    x = torch.cat([fast, slow], -1) @ torch.linalg.qr(torch.randn(9, 9))[0][:4]
    turns = []
    for start in (0, 1):
        alignment = _alignment(Circle(), x, start, 0)
        codes = Circle().unembed(x @ alignment.weight.mT + alignment.bias)
        order = angles.argsort()
        steps = Circle().logmap(codes[order], codes[order].roll(-1))
        turns.append(round(abs(steps.sum().item()) / (2 * math.pi)))
    assert turns == [2, 1]


def test_starts_that_the_data_have_no_components_for_are_random():
    x = torch.randn(50, 6)
    assert _alignment(KleinBottle(), x, 0, 0) is not None
    assert _alignment(KleinBottle(), x, 1, 0) is None
    assert _alignment(Product(Circle(), Euclidean(1)), x, 0, 0) is None
