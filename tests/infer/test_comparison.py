"""Tables of candidates against evidences by quadrature and by hand."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, ManifoldUniform, Torus, WrappedNormal
from pyro_manifolds.infer import compare_evidence

KLEIN, NOISE = KleinBottle(), 0.4


def over_torus(z):
    return KLEIN.embed(z)


def on_a_circle(z):
    return KLEIN.embed(torch.stack([z, torch.full_like(z, 1.0)], -1))


# The torus covers the Klein bottle twice and evenly: another latent space, the same evidence.
DECODERS = {"circle": (Circle(), on_a_circle), "torus": (Torus(2), over_torus), "klein": None}
DECODERS["klein"] = (KLEIN, KLEIN.embed)


def candidate(manifold, decode, scale=math.inf):
    """Return a model and a guide, the prior or a wide wrapped normal."""

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", ManifoldUniform(manifold, dtype=x.dtype))
            pyro.sample("x", dist.Normal(decode(z), NOISE).to_event(1), obs=x)

    def guide(x):
        prior = ManifoldUniform(manifold, dtype=x.dtype)
        loc = torch.zeros(manifold.event_shape, dtype=x.dtype)
        wrapped = scale < math.inf and WrappedNormal(manifold, loc, scale)
        with pyro.plate("data", len(x)):
            pyro.sample("z", wrapped or prior)

    return model, guide


def exact(manifold, decode, x):
    """Log-evidence of each datum by the periodic trapezoid rule."""
    axes = [torch.arange(60, dtype=torch.float64) / 60 * period for period in manifold.periods]
    nodes = torch.cartesian_prod(*axes)
    likelihood = dist.Normal(decode(nodes), NOISE).log_prob(x.unsqueeze(1)).sum(-1)
    return likelihood.logsumexp(-1) - math.log(len(nodes))


@pytest.fixture
def x():
    points = KLEIN.random_uniform(40, 2, dtype=torch.float64)
    return KLEIN.embed(points) + NOISE * torch.randn(40, 5, dtype=torch.float64)


@pytest.fixture
def table(x):
    pairs = {name: candidate(*pair) for name, pair in DECODERS.items()}
    return compare_evidence(pairs, x, num_particles=4000)


def test_rows_agree_with_quadrature_best_first(table, x):
    truths = {name: exact(*pair, x) for name, pair in DECODERS.items()}
    assert_close(truths["torus"], truths["klein"])
    values = [row.log_evidence.value for row in table]
    assert values == sorted(values, reverse=True)
    assert table.rows[-1].name == "circle"
    assert len(table) == 3
    for row in table:
        off = row.bounds.iwae - truths[row.name]
        assert (off.abs() < 4.5 * row.bounds.iwae_error).all()
        assert abs(row.log_evidence.value - truths[row.name].mean()) < 0.01
        spread = truths[row.name].std() / 40**0.5
        assert row.log_evidence.error == pytest.approx(spread.item(), rel=0.05)
        assert row.elbo < row.log_evidence.value
        assert row.gap == row.log_evidence.value - row.elbo


def test_differences_are_paired_by_datum(table, x):
    best = table[table.best]
    assert best.difference == (0.0, 0.0)
    for row in table.rows[1:]:
        apart = row.bounds.iwae - best.bounds.iwae
        assert row.difference.value == pytest.approx(apart.mean().item())
        assert row.difference.error == pytest.approx(apart.std().item() / 40**0.5)
    apart = exact(*DECODERS["circle"], x) - exact(*DECODERS["klein"], x)
    circle = table["circle"]
    assert circle.difference.value == pytest.approx(apart.mean().item(), abs=0.02)
    assert circle.difference.value < -3 * circle.difference.error
    assert circle.difference.error < 0.9 * math.hypot(
        circle.log_evidence.error, best.log_evidence.error
    )
    twin = table["torus" if table.best == "klein" else "klein"]
    assert abs(twin.difference.value) < 4 * twin.difference.error < 0.1


def test_print_is_aligned_and_explains_itself(table):
    lines = str(table).splitlines()
    header, rule, *rows = lines[:5]
    assert {len(line) for line in (header, rule, *rows)} == {len(header)}
    assert [row.split()[0] for row in rows] == [row.name for row in table]
    for line, row in zip(rows, table, strict=True):
        assert line.split()[1:3] == [f"{number:.3f}" for number in row.log_evidence]
    assert lines[-1] == (
        "In nats per datum of 40, from 4000 draws; standard errors over the data."
    )


def test_weights_that_are_not_to_be_trusted_are_counted(x):
    pairs = {"narrow": candidate(*DECODERS["klein"], scale=0.2)}
    table = compare_evidence(pairs, x, num_particles=500)
    row = table["narrow"]
    assert row.bad_k == (row.bounds.pareto_k > 1 - 1 / math.log10(500)).double().mean().item()
    assert row.bad_k > 0.5
    assert row.min_ess == row.bounds.ess.min().item() < 10
    assert "too uneven to trust" in str(table)
    assert compare_evidence(pairs, x, num_particles=20)["narrow"].bad_k == 1.0  # not known


def test_one_evidence_of_all_data_has_errors_over_the_draws():
    def shared(loc):
        def model(x):
            z = pyro.sample("z", dist.Normal(torch.tensor(loc).double(), 1.0))
            with pyro.plate("data", len(x)):
                pyro.sample("x", dist.Normal(z, 1.0), obs=x)

        return model

    def guide(x):
        pyro.sample("z", dist.Normal(x.sum() / 11, 0.5))

    x = torch.linspace(-1.0, 1.0, 10, dtype=torch.float64)
    pairs = {"far": (shared(2.0), guide), "near": (shared(0.0), guide)}
    table = compare_evidence(pairs, x, num_particles=20_000)
    assert table.best == "near"
    covariance = torch.eye(10, dtype=torch.float64) + 1
    for name, loc in (("near", 0.0), ("far", 2.0)):
        law = dist.MultivariateNormal(torch.full_like(x, loc), covariance)
        value, error = table[name].log_evidence
        assert abs(value - law.log_prob(x)) < 4 * error < 0.1
    errors = [row.log_evidence.error for row in table]
    assert table["far"].difference.error == pytest.approx(math.hypot(*errors))
    assert "standard errors over the draws" in str(table)


def test_candidates_must_have_evidences_of_the_same_data(x):
    model, guide = candidate(*DECODERS["circle"])

    def whole(x):
        pyro.sample("z", ManifoldUniform(Circle(), dtype=x.dtype))
        pyro.sample("x", dist.Normal(torch.zeros(5), 1.0).expand([len(x), 5]).to_event(2), obs=x)

    def whole_guide(x):
        pyro.sample("z", ManifoldUniform(Circle(), dtype=x.dtype))

    with pytest.raises(ValueError, match="'plated': \\(40,\\), 'whole': \\(\\)"):
        compare_evidence({"plated": (model, guide), "whole": (whole, whole_guide)}, x)


def test_no_candidate_and_unknown_names_are_refused(table):
    with pytest.raises(ValueError, match="at least one candidate, got none"):
        compare_evidence({})
    with pytest.raises(KeyError, match="'circle'.*got 'sphere'"):
        table["sphere"]
