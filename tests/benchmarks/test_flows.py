"""The comparison of densities at a tiny size, and the data and controls that it rests on."""

import json
import math

import pytest
import torch
from torch.testing import assert_close

from benchmarks.flows import (
    MODELS,
    QUICK,
    SPLITS,
    by_region,
    klein_directions,
    main,
    nearest_klein_points,
)
from pyro_manifolds import KleinBottle, ManifoldUniform
from pyro_manifolds.datasets import patch_to_sphere
from pyro_manifolds.testing import circle_rule, gauss_rule, glide_rule, product_rule

KLEIN = KleinBottle()


def uniform(n):
    return ManifoldUniform(KLEIN, dtype=torch.float64).sample((n,))


def test_filters_are_those_of_the_formula_integrated_over_pixels():
    points = uniform(20)
    t1, t2 = (t.unsqueeze(-1) for t in points.unbind(-1))
    patches = torch.zeros(20, 3, 3, dtype=torch.float64)
    edges = (-1, -1 / 3, 1 / 3, 1)
    for row in range(3):
        for column in range(3):
            rules = [gauss_rule(edges[i], edges[i + 1], 4) for i in (column, 2 - row)]
            nodes, weights = product_rule(*rules)
            s = nodes[:, 0] * t1.cos() + nodes[:, 1] * t1.sin()
            values = t2.sin() * s + t2.cos() * (2 * s.square() - 1)
            patches[:, row, column] = (values * weights).sum(-1)
    # The formula leaves a mean, which a direction does not have.
    assert_close(klein_directions(points), patch_to_sphere(patches), rtol=0, atol=1e-12)


def test_representatives_of_one_point_have_one_filter():
    points = uniform(50)
    image = points * points.new_tensor([1, -1]) + points.new_tensor([math.pi, 0])
    assert_close(klein_directions(image), klein_directions(points), rtol=0, atol=1e-12)


def test_the_nearest_point_of_a_filter_is_its_own():
    points = uniform(200)
    found, cosines = nearest_klein_points(klein_directions(points))
    assert KLEIN.dist(found, points).max() < 1e-3
    assert_close(cosines, torch.ones_like(cosines), rtol=0, atol=1e-7)


def test_no_patch_lies_on_two_sides_of_a_split():
    for split in SPLITS.values():
        parts = split(QUICK, seed=0)
        rows = [{tuple(row) for row in part.tolist()} for part in parts]
        assert all(rows)
        assert not rows[0] & rows[1] | rows[1] & rows[2] | rows[0] & rows[2]


@pytest.mark.parametrize(
    "name", [name for name in MODELS if "mixture" not in name or name.startswith("mixture of 32 ")]
)
def test_every_density_has_mass_one_on_the_klein_bottle(name):
    torch.manual_seed(0)
    model = MODELS[name](uniform(500).float()).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        nodes, weights = glide_rule(circle_rule(200), 100)
        mass = (model.log_prob(nodes).exp() * weights).sum()
    # The rule is exact to the kinks of splines, but not to jumps, such as those of raw angles.
    assert_close(mass.item(), 1.0, rtol=0, atol=1e-3 if name.startswith("zuko") else 1e-4)


def test_the_control_jumps_at_the_seam_where_the_flow_does_not():
    split = by_region(QUICK, seed=0)
    jumps = {}
    for name in ("flow on the Klein bottle", "control: flow, sides glued straight"):
        torch.manual_seed(0)
        model = MODELS[name](split.train).double()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
            h = torch.linspace(-3, 3, 31, dtype=torch.float64)
            before = torch.stack([torch.full_like(h, math.pi - 1e-9), -h], -1)
            after = torch.stack([torch.full_like(h, 1e-9), h], -1)
            jumps[name] = (model.log_prob(before) - model.log_prob(after)).abs().max().item()
    assert jumps["flow on the Klein bottle"] < 1e-5
    assert jumps["control: flow, sides glued straight"] > 0.1


@pytest.mark.parametrize("split", SPLITS)
def test_every_model_is_fitted_and_scored(split, tmp_path, capsys):
    path = tmp_path / "flows.json"
    models = [name for name in MODELS if "596" not in name]
    results = main(
        ["--quick", "--split", split, "--seeds", "0", "1", "--output", str(path), "--models"]
        + models
    )
    written = json.loads(path.read_text())
    lines = capsys.readouterr().out.splitlines()
    assert list(results) == list(written) == models
    for name in models:
        assert len(results[name]) == 2
        assert all(math.isfinite(value) for score in results[name] for value in score)
        assert any(line.startswith(name) and "±" in line for line in lines)
    uniform_score = results["uniform"][0].test
    assert_close(uniform_score, -math.log(KLEIN.volume), rtol=1e-5, atol=0)


def test_flows_are_timed(capsys, monkeypatch):
    monkeypatch.setattr("benchmarks.flows.TIMING_SECONDS", 0.1)
    main(["--speed"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 8
    assert all(line.endswith("ms") for line in lines)
