"""The comparison of laws of patches at a tiny size, and the laws against their definitions."""

import json
import math

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

import benchmarks.patches as patches
from benchmarks.patch_filters import (
    FilterLevels,
    FilterMixture,
    FullNormal,
    SpectralNormal,
    WhiteNormal,
)
from benchmarks.patch_laws import (
    CentralGaussian,
    FourierDensity,
    FreeSpikes,
    FullMixture,
    KleinDirections,
    Shape,
    klein_nodes,
    log_area,
)
from benchmarks.patches import QUICK, TABLES, fit_photograph_prior, main
from pyro_manifolds.distributions import KleinFilter
from pyro_manifolds.nn import KleinMixture
from pyro_manifolds.ops.filters import klein_filters


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def shaken(law):
    """The same with random parameters, in double precision."""
    with torch.no_grad():
        for parameter in law.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator())
    return law.double()


def directions(number, dim=8, seed=0):
    x = torch.randn(number, dim, dtype=torch.float64, generator=generator(seed))
    return torch.nn.functional.normalize(x, dim=-1)


def projected_normal(x, covariance):
    """Angular central Gaussian, from the formula (Tyler, 1987)."""
    square = (x * torch.linalg.solve(covariance, x.mT).mT).sum(-1)
    return -0.5 * covariance.logdet() - 0.5 * x.shape[-1] * square.log() - log_area(x.shape[-1])


def rank_one_mixture(law, x, log_excess):
    """The density as a plain sum over components, each of a matrix of its own."""
    white = law.shape.whiten(torch.eye(law.dim, dtype=torch.float64)).mT  # columns to rows
    base = torch.linalg.inv(white.mT @ white)
    filters, log_weights, _ = law.parts()
    terms = []
    for f, log_weight, excess in zip(filters, log_weights, log_excess.exp(), strict=True):
        stretch = excess * torch.outer(f, f) / (white @ f).square().sum()
        terms.append(log_weight + projected_normal(x, base + stretch))
    return torch.stack(terms).logsumexp(0)


@pytest.mark.parametrize("shape", ["white", "spectral", "full"])
def test_spikes_are_normals_projected_on_the_sphere(shape):
    law, x = shaken(FreeSpikes(3, directions(4, seed=1).float(), shape)), directions(20)
    assert_close(law.log_prob(x), rank_one_mixture(law, x, law.log_excess))


@pytest.mark.parametrize("shape", ["white", "full"])
def test_klein_directions_are_too_at_every_node(shape):
    law = KleinDirections(3, FourierDensity(2, 2), shape, FourierDensity(2, 2))
    law.use_nodes(6)
    law, x = shaken(law), directions(20)
    expected = rank_one_mixture(law, x, law.log_excess + law.excess(law.nodes))
    assert_close(law.log_prob(x), expected)


def test_levels_are_a_mixture_of_excesses():
    law = KleinDirections(3, levels=3)
    law.use_nodes(6)
    law, x = shaken(law), directions(20)
    steps = torch.cat([law.level_steps.new_zeros(1), law.level_steps])
    parts = [
        weight + rank_one_mixture(law, x, (law.log_excess + step).expand(36))
        for weight, step in zip(law.level_logits.log_softmax(0), steps, strict=True)
    ]
    assert_close(law.log_prob(x), torch.stack(parts).logsumexp(0))


def test_full_mixtures_are_normals_projected_on_the_sphere():
    train, x = directions(100, seed=2), directions(20)
    law = shaken(FullMixture(train.float(), train[:3].float()))
    covariances = torch.linalg.inv(law.whiten.mT @ law.whiten)
    log_weights = law.logits.log_softmax(0)
    parts = [projected_normal(x, c) + w for c, w in zip(covariances, log_weights, strict=True)]
    assert_close(law.log_prob(x), torch.stack(parts).logsumexp(0))


def test_a_shape_alone_is_one_normal():
    law, x = shaken(CentralGaussian(3, "spectral")), directions(20)
    covariance = law.shape.eigenvalues.pow(-law.shape.exponent).diag()
    assert_close(law.log_prob(x), projected_normal(x, covariance))


def test_full_shapes_start_at_that_of_the_data():
    scales = torch.linspace(0.5, 2, 8, dtype=torch.float64)
    x = torch.nn.functional.normalize(directions(5000) * scales, dim=-1).float()
    shape = Shape("full", 3)
    shape.start_at(x)
    assert_close(torch.cov(shape.whiten(x).mT) * 8, torch.eye(8), rtol=0, atol=0.5)
    assert torch.cov(x.mT)[0, 0] * 8 < 0.4


def test_waves_are_the_same_for_all_names_of_a_filter_and_for_minus_it():
    points = 6 * torch.rand(30, 2, dtype=torch.float64, generator=generator())
    density = shaken(FourierDensity(4, 4))
    assert len(density.waves) == 22
    values = density(points)
    same = [points * points.new_tensor([1, -1]) + points.new_tensor([math.pi, 0])]
    same += [points + points.new_tensor([0, math.pi])]
    assert_close(klein_filters(same[0], 3), klein_filters(points, 3))
    assert_close(klein_filters(same[1], 3), -klein_filters(points, 3))
    for others in same:
        assert_close(density(others), values)
    # No wave is a combination of others.
    nodes = klein_nodes(24).double()
    columns = []
    for index in range(22):
        with torch.no_grad():
            density.coefficients.copy_(torch.eye(22)[index])
        columns.append(density(nodes).detach())
    assert torch.linalg.matrix_rank(torch.stack(columns)) == 22


@pytest.mark.parametrize(
    ("law", "number"),
    [
        (KleinDirections(3), 1),
        (KleinDirections(3, circle=True), 1),
        (KleinDirections(3, shape="spectral"), 2),
        (KleinDirections(3, shape="full"), 36),
        (KleinDirections(3, levels=3), 5),
        (KleinDirections(3, KleinMixture(4)), 20),
        (KleinDirections(3, FourierDensity(2, 2), excess=FourierDensity(2, 2)), 15),
        (FreeSpikes(3, torch.rand(4, 8)), 4 * 9 - 1),
        (FreeSpikes(3, torch.rand(4, 8), shared=True), 4 * 8),
        (FullMixture(directions(90).float(), torch.rand(2, 8)), 2 * 36 - 1),
        (FilterLevels(WhiteNormal(3), 1), 1),
        (FilterLevels(SpectralNormal(3), 3), 3 + 4),
        (FilterLevels(FullNormal(torch.randn(50, 3, 3), learned=True), 3), 45 + 4),
        (FilterMixture(torch.randn(50, 3, 3), 2, generator()), 91),
    ],
)
def test_parameters_are_counted(law, number):
    assert law.num_parameters == number


def test_filters_of_several_sizes_are_a_mixture():
    filters = torch.randn(20, 3, 3, dtype=torch.float64, generator=generator())

    class Law(torch.nn.Module):
        def forward(self):
            return KleinFilter(3, torch.tensor(1.0, dtype=torch.float64), 0.5)

    law = shaken(FilterLevels(Law(), 2))
    weights = law.logits.softmax(0)
    factor = law.log_factors.exp().item()
    parts = [KleinFilter(3, f * torch.ones((), dtype=torch.float64), 0.5 * f) for f in (1, factor)]
    expected = sum(
        w * p.log_prob(filters).exp() for w, p in zip(weights, parts, strict=True)
    ).log()
    assert_close(law.log_prob(filters), expected, rtol=0, atol=1e-6)


def test_normal_laws_of_filters_start_at_the_covariance_of_the_data():
    train = torch.randn(400, 3, 3, generator=generator()) @ torch.rand(3, 3)
    rows = train.flatten(1)
    covariance = rows.mT @ rows / len(rows)
    assert_close(FullNormal(train)().covariance_matrix, covariance, rtol=1e-4, atol=1e-5)
    normal = dist.MultivariateNormal(torch.zeros(9), covariance)
    one = FilterMixture(train, 1, generator()).log_prob(train)
    assert (normal.log_prob(rows).mean() - one.mean()).abs() < 1.5


def test_spectral_normals_have_the_spectrum_of_a_power():
    law = SpectralNormal(3)
    with torch.no_grad():
        law.exponent.fill_(1.0)
        law.log_mean.fill_(1.0)
    values = torch.linalg.eigvalsh(law().covariance_matrix)
    expected = torch.cat([law.log_mean.exp().square(), 1 / law.eigenvalues])
    assert_close(values, expected.sort().values)


def test_a_split_by_photographs_shares_no_photograph():
    assert not set(patches.FIT_PHOTOGRAPHS) & set(patches.VALIDATION_PHOTOGRAPHS)
    assert not set(patches.TEST_PHOTOGRAPHS) & (
        set(patches.FIT_PHOTOGRAPHS) | set(patches.VALIDATION_PHOTOGRAPHS)
    )


@pytest.mark.slow
@pytest.mark.parametrize("table", ["directions-3-same", "directions-5-other", "filters-3-other"])
def test_every_law_is_fitted_and_scored_once(table, tmp_path, capsys, monkeypatch):
    path = tmp_path / "new" / "patches.json"
    options = ["--quick", "--tables", table, "--seeds", "0", "1", "--output", str(path)]
    monkeypatch.setattr(patches, "FEW", 50)
    results = main(options)[table]
    lines = capsys.readouterr().out.splitlines()
    assert list(results) == list(TABLES[table].laws)
    assert len(json.loads(path.read_text())) == 2 * len(results)
    for name, scores in results.items():
        assert len(scores) == 2
        assert all(math.isfinite(value) for score in scores for value in score)
        assert any(line.startswith(name) and "±" in line for line in lines)

    def refuse(*_):
        raise AssertionError("fitted again")

    monkeypatch.setattr(patches, "fit_and_score", refuse)
    assert main(options)[table] == results


def test_fitting_is_worth_it_and_a_seed_fixes_it():
    table = TABLES["directions-3-few"]
    split = table.split(3, QUICK, 0)
    assert len(split.train) <= patches.FEW
    protocol = patches.Protocol(120, 100, 110, steps=30, batch_size=64, check_every=10)
    first, again = (
        patches.fit_and_score(table.laws["8 spikes"], 3, split, protocol, 0) for _ in range(2)
    )
    assert first == again
    assert (
        first.train
        > table.laws["uniform"].make(3, split.train, generator()).log_prob(split.train).mean()
    )


def test_a_prior_of_photographs_is_fitted():
    prior = fit_photograph_prior(5, 2, num_patches=100, steps=2, progress=False)
    again = fit_photograph_prior(5, 2, num_patches=100, steps=2, progress=False)
    assert prior().event_shape == (5, 5)
    assert prior().amplitude == again().amplitude
