"""Every algorithm on a conjugate model of complex numbers, whose posterior is known."""

import copy
import math
import pickle
import warnings
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import (
    HMC,
    MCMC,
    NUTS,
    SVGD,
    SVI,
    JitTrace_ELBO,
    Predictive,
    RBFSteinKernel,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)
from pyro.infer.autoguide import (
    AutoDelta,
    AutoDiagonalNormal,
    AutoGaussian,
    AutoGuideList,
    AutoIAFNormal,
    AutoLaplaceApproximation,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoStructured,
)
from pyro.infer.importance import vectorized_importance_weights
from pyro.optim import Adam, ClippedAdam, DCTAdam
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexNormal, constraints
from pyro_manifolds.infer import (
    RealDeltas,
    manifold_samples,
    manifold_summary,
    real_deltas,
    to_arviz,
)
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam

A = torch.tensor([[1.0 + 0.5j, 0.3j], [-0.4 + 0.2j, 0.8]])
X = torch.tensor([1.0 - 2.0j, 0.5 + 1.0j])
LOC, SCALE, RHO = torch.tensor([0.2 + 0.1j, -0.3j]), 1.2, torch.tensor([0.3 - 0.2j, 0.0])
NOISE = 0.7


def model():
    z = pyro.sample("z", ComplexNormal(LOC, SCALE, RHO).to_event(1))
    pyro.sample("x", ComplexNormal((A @ z.unsqueeze(-1)).squeeze(-1), NOISE).to_event(1), obs=X)


moved = AutoManifoldReparam()(model)


def parts(z):
    """Real parts, then imaginary ones."""
    return torch.cat([z.real, z.imag], -1).double()


def exact():
    """Mean and covariance of the posterior, and the evidence, of the real twin."""
    variance, relation = SCALE**2 * torch.eye(2), torch.diag(SCALE**2 * RHO)
    prior = (
        0.5
        * torch.cat(
            [
                torch.cat([variance + relation.real, relation.imag], 1),
                torch.cat([relation.imag, variance - relation.real], 1),
            ]
        ).double()
    )
    design = torch.cat([torch.cat([A.real, -A.imag], 1), torch.cat([A.imag, A.real], 1)]).double()
    noise = NOISE**2 / 2 * torch.eye(4, dtype=torch.double)
    marginal = design @ prior @ design.mT + noise
    gain = prior @ design.mT @ marginal.inverse()
    mean = parts(LOC) + gain @ (parts(X) - design @ parts(LOC))
    evidence = dist.MultivariateNormal(design @ parts(LOC), marginal).log_prob(parts(X))
    return mean, prior - gain @ design @ prior, evidence


MEAN, COVARIANCE, LOG_EVIDENCE = exact()
SPREAD = COVARIANCE.diag().sqrt()
SPREAD_OF_MEAN_FIELD = COVARIANCE.inverse().diag().rsqrt()

MEAN_FIELD = {
    "AutoWrappedNormal": AutoWrappedNormal,
    "AutoNormal": AutoNormal,
    "AutoDiagonalNormal": AutoDiagonalNormal,
    "AutoIAFNormal": AutoIAFNormal,
    "AutoStructured": AutoStructured,
}
FULL = {
    "AutoMultivariateNormal": AutoMultivariateNormal,
    "AutoLowRankMultivariateNormal": partial(AutoLowRankMultivariateNormal, rank=2),
    "AutoGaussian": AutoGaussian,
    "AutoLaplaceApproximation": AutoLaplaceApproximation,
}
GUIDES = {"AutoDelta": AutoDelta} | MEAN_FIELD | FULL


def particles(kind, size=8, **options):
    return kind(size, vectorize_particles=True, max_plate_nesting=0, **options)


def trained(program, guide, elbo, steps=200, lr=0.1):
    optim = ClippedAdam({"lr": lr, "lrd": 0.01 ** (1 / steps)})
    svi = SVI(program, guide, optim, elbo)
    return [svi.step() for _ in range(steps)]


def draws_of(program, guide, size=10_000):
    predictive = Predictive(program, guide=guide, num_samples=size, parallel=True)
    return parts(predictive()["z"].detach().reshape(-1, 2))


@pytest.mark.parametrize("name", GUIDES)
def test_guides_of_pyro_find_the_posterior(name):
    guide = real_deltas(GUIDES[name](model))
    losses = trained(model, guide, particles(Trace_ELBO))
    assert all(map(math.isfinite, losses))
    if name == "AutoLaplaceApproximation":
        guide = real_deltas(guide.laplace_approximation())
    found = draws_of(model, guide)
    # The last steps are a hundredth of the first.
    assert_close(found.mean(0), MEAN, atol=0.08, rtol=0)
    if name in MEAN_FIELD:
        assert_close(found.std(0), SPREAD_OF_MEAN_FIELD, atol=0, rtol=0.12)
    if name in FULL:
        assert_close(found.std(0), SPREAD, atol=0, rtol=0.12)
        with torch.no_grad():
            loss = particles(Trace_ELBO, 2000).loss(model, guide)
        assert loss == pytest.approx(-LOG_EVIDENCE.item(), abs=0.03)


@pytest.mark.parametrize("name", GUIDES)
def test_moved_sites_are_guided_in_the_same_way(name):
    """The parts are those in which guides work, so all numbers agree."""
    results = []
    for program, wrap in ((model, real_deltas), (moved, lambda guide: guide)):
        pyro.clear_param_store()
        pyro.set_rng_seed(0)
        guide = wrap(GUIDES[name](program))
        results.append(trained(program, guide, particles(Trace_ELBO), steps=5))
    assert results[0] == pytest.approx(results[1], rel=1e-5)


@pytest.mark.parametrize("name", [name for name in GUIDES if name != "AutoWrappedNormal"])
def test_pyro_alone_refuses(name):
    """Should this fail, Pyro takes complex sites, and the context is no longer needed."""
    with pytest.raises(RuntimeError, match="real scalar outputs"):
        trained(model, GUIDES[name](model), particles(Trace_ELBO), steps=1)


# The context for guides.


def test_a_guide_keeps_its_class_parameters_and_methods():
    plain = AutoNormal(model)
    guide = real_deltas(plain)
    assert guide is plain
    trained(model, guide, particles(Trace_ELBO), steps=2)
    other = AutoNormal(model)
    other._setup_prototype()
    assert guide.state_dict().keys() == other.state_dict().keys()
    assert guide.median()["z"].is_complex()
    assert guide.quantiles([0.1, 0.9])["z"].shape == (2, 2)
    for twin in (copy.deepcopy(guide), pickle.loads(pickle.dumps(guide))):
        assert_close(twin.median()["z"], guide.median()["z"])
        trace = poutine.trace(twin).get_trace()
        assert not trace.log_prob_sum().is_complex()
        assert twin.forward.args[0].__self__ is twin


def test_an_interrupted_guide_leaves_nothing_behind():
    def guide():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        real_deltas(guide)()
    module = AutoNormal(model)
    module.forward = guide
    with pytest.raises(KeyboardInterrupt):
        real_deltas(module)()
    assert not poutine.runtime._PYRO_STACK


def test_functions_and_lists_of_guides_are_served():
    def point():
        z = pyro.param("point", LOC.clone(), constraint=constraints.complex)
        pyro.sample("z", dist.Delta(z, event_dim=1))

    losses = trained(model, real_deltas(point), Trace_ELBO(), steps=3)
    assert losses[-1] < losses[0]

    pyro.clear_param_store()
    guide = AutoGuideList(model)
    guide.append(AutoNormal(model))
    assert math.isfinite(sum(trained(model, real_deltas(guide), Trace_ELBO(), steps=3)))


def test_point_masses_are_right_off_their_point_and_in_plates():
    with RealDeltas(), pyro.plate("data", 3), poutine.trace() as tracer:
        pyro.sample("z", dist.Delta(LOC, torch.tensor(0.5), event_dim=1))
    fn = tracer.trace.nodes["z"]["fn"]
    assert fn.batch_shape == (3,)
    assert fn.log_prob(LOC).tolist() == [0.5] * 3
    assert fn.log_prob(X).tolist() == [-math.inf] * 3


# Estimators, optimisers, samplers.


def own_guide():
    loc = pyro.param("loc", torch.zeros(2, dtype=torch.cfloat), constraint=constraints.complex)
    scale = pyro.param("scale", torch.ones(2) / 2, constraint=dist.constraints.positive)
    pyro.sample("z", ComplexNormal(loc, scale).to_event(1))


@pytest.mark.parametrize("kind", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO, RenyiELBO])
def test_estimators_find_the_mean_by_a_guide_of_complex_parameters(kind):
    trained(model, own_guide, particles(kind, 16))
    assert_close(parts(pyro.param("loc").detach()), MEAN, atol=0.08, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiled_estimator_finds_the_mean_without_the_optimiser_of_torchscript():
    with torch.jit.optimized_execution(False):
        trained(model, own_guide, particles(JitTrace_ELBO, 16, ignore_jit_warnings=True))
    assert_close(parts(pyro.param("loc").detach()), MEAN, atol=0.08, rtol=0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_with_the_optimiser_of_torchscript_there_is_a_warning():
    elbo = JitTrace_ELBO(ignore_jit_warnings=True)
    with pytest.warns(UserWarning, match="optimized_execution"):
        trained(model, own_guide, elbo, steps=1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_still_leaves_out_conjugates():
    """pytorch/pytorch#154324; should this fail, the warning is no longer needed."""

    def loss(pairs):
        z = torch.complex(pairs[..., 0], pairs[..., 1]).unsqueeze(-1)
        image = torch.view_as_real((A @ z).squeeze(-1))
        return image.square().sum() + image.sum()

    x = torch.ones(2, 2, requires_grad=True)
    scripted = torch.jit.trace(loss, x.detach(), check_trace=False)
    (expected,) = torch.autograd.grad(loss(x), x)
    for _ in range(4):  # the first runs are not yet optimised
        (found,) = torch.autograd.grad(scripted(x), x)
    assert (found - expected).abs().max() > 0.1


@pytest.mark.parametrize("kind", [Adam, ClippedAdam, DCTAdam])
def test_optimisers_take_complex_parameters_with_their_constraint(kind):
    svi = SVI(model, own_guide, kind({"lr": 0.05}), particles(TraceMeanField_ELBO))
    before = svi.evaluate_loss()
    for _ in range(50):
        svi.step()
    assert svi.evaluate_loss() < before - 1
    assert pyro.param("loc").is_complex()


@pytest.mark.parametrize("kind", [ClippedAdam, DCTAdam])
def test_clipping_optimisers_refuse_complex_parameters_without_constraint(kind):
    def guide():
        loc = pyro.param("loc", torch.zeros(2, dtype=torch.cfloat))
        pyro.sample("z", ComplexNormal(loc, 0.5).to_event(1))

    with pytest.raises(NotImplementedError, match="clamp is not supported for complex"):
        trained(model, guide, Trace_ELBO(), steps=1)


KERNELS = {
    "HMC": partial(HMC, step_size=0.25, num_steps=5),
    "NUTS": NUTS,
    "NUTS-jit": partial(NUTS, jit_compile=True, ignore_jit_warnings=True),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "program"),
    [("HMC", model), ("NUTS", model), ("NUTS-jit", model), ("NUTS", moved)],
    ids=["HMC", "NUTS", "NUTS-jit", "NUTS-moved"],
)
def test_chains_find_the_posterior(name, program):
    with torch.jit.optimized_execution("jit" not in name):
        mcmc = MCMC(KERNELS[name](program), 200, 60, disable_progbar=True)
        mcmc.run()
    draws = manifold_samples(program, mcmc)
    assert draws.keys() == {"z"}
    assert draws["z"].shape == (1, 200, 2)
    size = manifold_summary(draws, program)["z"].n_eff.min()
    found = parts(draws["z"][0])
    assert size > 20
    assert ((found.mean(0) - MEAN).abs() < 5 * SPREAD / size.sqrt()).all()
    assert_close(found.std(0), SPREAD, atol=0, rtol=0.4)


def test_particles_of_stein_find_the_mean():
    """As it is, in the context; Pyro's SVGD takes no reparameterised site, real or complex."""
    svgd = SVGD(model, RBFSteinKernel(), Adam({"lr": 0.1}), 50, max_plate_nesting=0)
    with RealDeltas():
        for _ in range(200):
            svgd.step()
    found = parts(svgd.get_named_particles()["z"].detach().reshape(-1, 2))
    assert_close(found.mean(0), MEAN, atol=0.05, rtol=0)
    assert_close(found.std(0), SPREAD, atol=0, rtol=0.2)


@pytest.mark.parametrize("program", [model, moved], ids=["as it is", "moved"])
def test_importance_sampling_finds_the_evidence(program):
    prior = poutine.block(program, expose=["z" if program is model else "z_ri"])
    weights, _, _ = vectorized_importance_weights(
        program, prior, num_samples=50_000, max_plate_nesting=0
    )
    found = weights.double().logsumexp(0) - math.log(50_000)
    assert found.item() == pytest.approx(LOG_EVIDENCE.item(), abs=0.05)


# What chains say.


def two_chains():
    draws = torch.randn(2, 500, 3, dtype=torch.cfloat) * torch.tensor([1.0, 2.0, 0.5])
    return draws + torch.tensor([1 + 2j, 0.0, -0.001j])


def test_complex_draws_are_summarised_by_their_parts():
    draws = two_chains()
    with pytest.raises(NotImplementedError, match="median"):
        pyro.infer.mcmc.util.summary({"z": draws})
    for manifolds in ({}, model):
        summary = manifold_summary({"z": draws}, manifolds)["z"]
        assert_close(summary.mean, draws.flatten(0, 1).mean(0))
        expected = (draws.flatten(0, 1) - summary.mean).abs().square().mean(0).sqrt()
        assert_close(summary.dispersion, expected)
        assert summary.r_hat.shape == (3,)
        assert ((summary.r_hat - 1).abs() < 0.02).all()
        assert (summary.n_eff > 500).all()


def test_chains_that_never_met_in_the_imaginary_part_are_found():
    draws = two_chains()
    draws[1] += 5j
    assert (manifold_summary({"z": draws}, {})["z"].r_hat > 1.5).all()


def test_summaries_print_complex_means():
    draws = torch.full((2, 4, 1), -0.001 + 2j)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constants have no R-hat
        line = str(manifold_summary({"z": draws}, {})).splitlines()[1]
    assert line.split()[:2] == ["z[0]", "0.00+2.00j"]


def test_arviz_gets_real_and_imaginary_parts():
    pytest.importorskip("arviz")
    data = to_arviz({"z": two_chains()}, {}).posterior["z"]
    assert data.dims == ("chain", "draw", "z_dim_0", "z_part")
    assert data.shape == (2, 500, 3, 2)
