"""Every algorithm of Pyro on a row of every distribution, and the table in README that says so."""

import dataclasses
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    HMC,
    SVI,
    JitTrace_ELBO,
    Predictive,
    Trace_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import (
    AutoHierarchicalNormalMessenger,
    AutoLaplaceApproximation,
    AutoNormal,
    AutoNormalMessenger,
    init_to_value,
)
from torch.distributions import Independent, biject_to, kl_divergence
from torch.testing import assert_close

import pyro_manifolds as pm
from pyro_manifolds import testing
from pyro_manifolds.distributions import Concatenated
from pyro_manifolds.distributions.constraints import OnManifold
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam, CoveringReparam
from pyro_manifolds.testing import ALGORITHMS, Verdict
from pyro_manifolds.testing.routes import model_of
from tests.cases import CASES
from tests.compatibility import README, ROWS, printed, table

# The compiler itself, and jit, do what torch has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def cells():
    """Every algorithm on every row; test_laws asks one graph of the compiler on all of them."""
    return [
        pytest.param(CASES[name], algorithm, id=f"{name}-{algorithm}")
        for name in ROWS
        for algorithm in ALGORITHMS
        if algorithm != "torch.compile" or not CASES[name].compiles
    ]


@pytest.mark.parametrize(("case", "algorithm"), cells())
def test_the_algorithm_serves_the_row_as_its_verdict_says(case, algorithm):
    ALGORITHMS[algorithm].check(case, torch.float32)


def test_readme_holds_the_table():
    assert printed(README.read_text()) == table(), "run python -m tests.compatibility --write"


def law_of(name):
    law = CASES[name].make(torch.float32)
    while isinstance(law, Independent):
        law = law.base_dist
    return type(law)


def kinds_of(manifold):
    return {type(m) for m in getattr(manifold, "manifolds", (manifold,))}


def test_every_distribution_and_every_manifold_has_a_row():
    missing = {law_of(name) for name in CASES} - {law_of(name) for name in ROWS}
    assert not missing, f"add a line to ROWS of tests/compatibility.py for {missing}"
    missing = set().union(*(kinds_of(case.manifold) for case in CASES.values()))
    missing -= set().union(*(kinds_of(CASES[name].manifold) for name in ROWS))
    assert not missing, f"add a line to ROWS of tests/compatibility.py for {missing}"


@pytest.mark.parametrize("name", ROWS)
def test_titles_name_the_distribution_and_its_manifold(name):
    assert f"`{law_of(name).__name__}`" in ROWS[name]
    assert f"`{CASES[name].manifold}`" in ROWS[name]


def test_a_case_of_your_own_is_certified_in_one_call():
    case = testing.Case(pm.VonMises, {"loc": 3.0, "concentration": 2.0}, pm.Circle())
    found = testing.check_compatibility(case)
    assert found["AutoDelta"] is Verdict.DIRECT
    assert found["NUTS"] is Verdict.REPARAM
    # The compiler switches validation off; the check has switched it on again.
    with pytest.raises(ValueError, match="concentration"):
        pm.VonMises(torch.tensor(0.0), torch.tensor(-1.0))


# The checks can fail.


@pytest.mark.parametrize(
    "algorithm", ["AutoWrappedNormal", "AutoIAFNormal", "JitTrace_ELBO", "importance sampling"]
)
def test_a_bound_above_the_evidence_is_found(algorithm):
    case = CASES["wrapped-circle"]
    nodes, weights = case.quadrature(torch.float64)
    halved = dataclasses.replace(case, quadrature=lambda dtype: (nodes, weights * 1e-6))
    with pytest.raises(AssertionError, match="by quadrature|relative evidence"):
        ALGORITHMS[algorithm].check(halved, torch.float32)


@pytest.mark.parametrize("algorithm", ["AutoNormal", "AutoLaplaceApproximation", "NUTS"])
def test_an_error_that_names_no_remedy_is_found(algorithm, monkeypatch):
    def refuse(constraint):
        raise NotImplementedError("no bijection")

    monkeypatch.setitem(biject_to._registry, OnManifold, refuse)
    with pytest.raises(AssertionError, match=r"names \['ManifoldReparam', 'AutoWrappedNormal'\]"):
        ALGORITHMS[algorithm].check(CASES["von-mises"], torch.float32)


def test_a_kernel_that_stands_still_is_found():
    with pytest.raises(AssertionError, match="never moved"):
        testing.check_mcmc(
            CASES["von-mises"],
            torch.float32,
            lambda model: HMC(model, step_size=1e9, num_steps=2, adapt_step_size=False),
        )


# What the checks have found.


def hyperbolic(*batch):
    origin = pm.Hyperboloid(2).origin(*batch, 3).as_subclass(torch.Tensor)
    return pm.WrappedNormal(pm.Hyperboloid(2), origin, 0.7 * torch.ones(2))


def test_point_masses_keep_their_density_in_divergences():
    law = hyperbolic(4)
    value, log_density = law.sample(), torch.randn(4)
    point = dist.Delta(value, log_density=log_density, event_dim=1)
    assert_close(kl_divergence(point, law), log_density - law.log_prob(value))


def test_guides_of_pyro_are_right_in_hyperbolic_space_under_the_mean_field_elbo():
    def model():
        with pyro.plate("data", 4):
            pyro.sample("z", hyperbolic(4))

    guide = AutoNormal(model, init_scale=0.7)
    guide()
    losses = []
    for kind in (Trace_ELBO, TraceMeanField_ELBO):
        pyro.set_rng_seed(1)
        losses.append(kind(50, 1, vectorize_particles=True).loss(model, guide))
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)


@pytest.mark.parametrize("law", [dist.LogNormal(0.0, 1.0), dist.Dirichlet(3 * torch.ones(3))])
def test_our_guide_is_right_on_ordinary_sites_under_the_mean_field_elbo(law):
    """Pyro's are not: minus their bound, of an evidence of one, is -0.5 and -3.7."""

    def model():
        pyro.sample("z", pm.VonMises(torch.tensor(3.0), 2.0))
        pyro.sample("ordinary", law)

    guide = AutoWrappedNormal(model)
    elbo = TraceMeanField_ELBO(8, 0, vectorize_particles=True)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.1, "lrd": 0.98}), elbo)
    for _ in range(150):
        svi.step()
    final = TraceMeanField_ELBO(20_000, 0, vectorize_particles=True).loss(model, guide)
    assert -0.02 < final < 0.2


@pytest.mark.parametrize("reparam", [AutoManifoldReparam(), {"z": CoveringReparam()}], ids=type)
def test_replayed_noise_outranks_initial_values_without_a_warning(reparam):
    start = torch.tensor([0.5, 1.0])

    def model():
        z = pyro.sample("z", pm.WrappedNormal(pm.KleinBottle(), start, 0.4))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=start + 0.5)

    moved = poutine.reparam(model, reparam)
    guide = AutoLaplaceApproximation(moved, init_loc_fn=init_to_value(values={"z": start + 1}))
    guide()
    for _ in range(2):  # twice: the first value must not stay marked
        trace = poutine.trace(poutine.replay(guide.model, poutine.trace(guide).get_trace()))
        nodes = trace.get_trace().nodes
        with torch.no_grad():
            guide.loc += 0.3
        moved_on = poutine.trace(poutine.replay(guide.model, poutine.trace(guide).get_trace()))
        assert not torch.equal(moved_on.get_trace().nodes["z"]["value"], nodes["z"]["value"])


def test_a_product_of_covers_is_the_support_on_the_cover():
    mixed = pm.Product(pm.KleinBottle(), pm.SO3())
    law = pm.WrappedNormal(mixed, torch.cat([torch.ones(2), torch.eye(3).flatten()]), 0.3)
    assert law.base_dist.support.manifold == pm.Product(pm.Euclidean(2), pm.Sphere(3))
    angles = pm.VonMises(torch.zeros(2), 1.0).to_event(1)
    joint = Concatenated(angles, dist.Normal(0.0, 1.0))
    assert joint.support.manifold == pm.Product(pm.Circle(), pm.Circle(), pm.Euclidean(1))


def test_jit_does_not_freeze_the_number_of_terms_of_a_covariance_that_is_learned():
    torus = pm.Torus(2)

    def model():
        pyro.sample("z", pm.ManifoldUniform(torus))

    def guide():
        root = pyro.param("root", 0.1 * torch.eye(2))
        base = dist.MultivariateNormal(torch.zeros(2), scale_tril=root)
        pyro.sample("z", pm.CoveringPushforward(base, torus.covering))

    assert math.isfinite(Trace_ELBO().loss_and_grads(model, guide))
    with pytest.raises(NotImplementedError, match="without jit"):
        JitTrace_ELBO(ignore_jit_warnings=True).loss_and_grads(model, guide)


# Algorithms without a column.


@pytest.mark.parametrize("kind", [AutoNormalMessenger, AutoHierarchicalNormalMessenger])
def test_messenger_guides_go_through_the_reparameterised_model(kind):
    case = CASES["wrapped-sphere"]
    model = AutoManifoldReparam()(model_of(case, torch.float32))
    guide = kind(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
    assert all(math.isfinite(svi.step()) for _ in range(10))
    z = Predictive(model, guide=guide, num_samples=5)()["z"]
    assert case.support.check(z).all()
