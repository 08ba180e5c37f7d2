"""Laws of Pyro's algorithms: each runs on a latent site of a case, or says what to do instead."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoGuideList,
    AutoLaplaceApproximation,
    AutoNormal,
    init_to_value,
)
from pyro.optim import ClippedAdam
from torch import Tensor
from torch.distributions import biject_to
from torch.testing import assert_close

from pyro_manifolds.distributions.real_view import is_complex
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.testing.cases import Case
from pyro_manifolds.testing.inference import (
    Program,
    _datum,
    check_own_guide_is_exact,
    check_plates,
)
from pyro_manifolds.testing.routes import (
    Route,
    fails_on_complex_density,
    latent_sites,
    model_of,
    route,
    run_in_unconstrained_space,
)
from pyro_manifolds.testing.statistics import assert_mean

__all__ = [
    "check_autoguide",
    "check_elbo",
    "check_hand_written_guide",
    "check_importance_sampling",
    "check_laplace",
    "check_mcmc",
    "check_mean_field_elbo",
    "check_mixed_sites",
    "check_point_estimate",
    "check_wrapped_normal_guide",
]


def _fit(model: Program, guide: Any, elbo: Any, steps: int) -> None:
    """Train with a step size that falls to a tenth; parameters must move and stay finite."""
    pyro.clear_param_store()
    svi = SVI(model, guide, ClippedAdam({"lr": 0.1, "lrd": 0.1 ** (1 / steps)}), elbo)
    losses = [svi.step()]
    store = pyro.get_param_store()
    before = {name: value.clone() for name, value in store.named_parameters()}
    losses += [svi.step() for _ in range(steps - 1)]
    assert all(map(math.isfinite, losses)), f"losses {losses}"
    after = dict(store.named_parameters())
    assert all(bool(value.isfinite().all()) for value in after.values()), f"parameters {after}"
    moved = [not torch.equal(value, before[name]) for name, value in after.items()]
    assert any(moved), "training moved no parameter"


def _particles(kind: Callable[..., Any], size: int) -> Any:
    """Return an estimator of the ELBO with vectorised particles."""
    extra = {"ignore_jit_warnings": True} if "Jit" in kind.__name__ else {}
    return kind(num_particles=size, vectorize_particles=True, max_plate_nesting=0, **extra)


def _check_guide(
    case: Case, dtype: torch.dtype, model: Program, guide: Any, kind: Callable[..., Any]
) -> None:
    """Draws of a guide are points, and minus its ELBO is never below minus the log-evidence."""
    for parallel in (False, True):
        predictive = Predictive(model, guide=guide, num_samples=4, parallel=parallel)
        _check_points(case, dtype, predictive()["z"], 4)
    if case.quadrature is None:
        return
    (log_evidence, _), elbo = _quadrature(case), _particles(kind, 100)
    with torch.no_grad():
        losses = torch.tensor([elbo.loss(model, guide) for _ in range(8)])
    # The spread of eight means is itself known to a third only.
    error = 10 * losses.std() / math.sqrt(8) + 1e-3
    assert losses.mean() >= -log_evidence - error, (
        f"minus the ELBO is {losses.mean():.4f}, less than {-log_evidence:.4f} by quadrature"
    )


def _check_points(case: Case, dtype: torch.dtype, z: Tensor, size: int) -> None:
    assert z.shape == (size,) + case.manifold.event_shape, f"draws of shape {tuple(z.shape)}"
    expected = dtype.to_complex() if is_complex(case.make(dtype)) else dtype
    assert z.dtype == expected, f"draws of {z.dtype}, expected {expected}"
    assert bool(case.support.check(z).all()), "draws outside the support"


# By identity, for cases have no hash; with the case, so that its identity is not given away.
_KNOWN: dict[int, tuple[Case, Tensor, Tensor]] = {}


def _quadrature(case: Case) -> tuple[Tensor, Tensor]:
    """Return the log-evidence of the datum and the greatest log-joint, by quadrature, once."""
    assert case.quadrature is not None
    if id(case) not in _KNOWN:
        nodes, weights = case.quadrature(torch.float64)
        log_joint = _log_joint_at(case, nodes)
        _KNOWN[id(case)] = case, (log_joint + weights.log()).logsumexp(0), log_joint.max()
    return _KNOWN[id(case)][1:]


def _log_joint_at(case: Case, z: Tensor) -> Tensor:
    dtype = z.dtype.to_real()
    noisy = dist.Normal(case.manifold.embed(z), 1.0).to_event(1)
    return case.make(dtype).log_prob(z) + noisy.log_prob(_datum(case, dtype))


def check_hand_written_guide(case: Case, dtype: torch.dtype) -> None:
    """A guide that samples the family trains, and with the prior for a guide nothing is lost."""
    check_own_guide_is_exact(case, dtype)
    check_plates(case, dtype)


def check_wrapped_normal_guide(case: Case, dtype: torch.dtype, steps: int = 8) -> None:
    """``AutoWrappedNormal`` trains on the site itself, draws points and bounds the evidence."""
    model = model_of(case, dtype)
    guide = AutoWrappedNormal(model)
    _fit(model, guide, _particles(Trace_ELBO, 4), steps)
    _check_guide(case, dtype, model, guide, Trace_ELBO)
    _check_points(case, dtype, guide.median()["z"].unsqueeze(0), 1)


def check_autoguide(
    case: Case, dtype: torch.dtype, kind: Callable[[Program], Any] = AutoNormal, steps: int = 8
) -> None:
    """A guide of Pyro in unconstrained space trains, draws points and bounds the evidence.

    Where there is no bijection from the reals it says so and names the remedies, and the model so
    reparameterised is served.
    """

    def run(model: Program) -> None:
        guide = kind(model)
        _fit(model, guide, _particles(Trace_ELBO, 4), steps)
        _check_guide(case, dtype, model, guide, Trace_ELBO)

    run_in_unconstrained_space(case, dtype, run)


def check_laplace(case: Case, dtype: torch.dtype, steps: int = 120) -> None:
    """The Laplace approximation has the curvature at a mode, draws points, bounds the evidence."""

    def run(model: Program) -> None:
        guide = AutoLaplaceApproximation(model)
        _fit(model, guide, Trace_ELBO(), steps)
        gaussian = guide.laplace_approximation()
        _check_guide(case, dtype, model, gaussian, Trace_ELBO)
        ((name, site),) = latent_sites(model).items()
        shape = biject_to(site["fn"].support).inv(site["value"]).shape

        def energy(loc: Tensor) -> Tensor:
            return _energy(model, {name: loc.reshape(shape)})

        curvature = torch.autograd.functional.hessian(energy, gaussian.loc)
        root = gaussian.scale.unsqueeze(-1) * gaussian.scale_tril
        assert_close(
            root.mT @ curvature @ root, torch.eye(len(root), dtype=dtype), rtol=0, atol=2e-2
        )

    run_in_unconstrained_space(case, dtype, run, isolated_mode=True)


def _energy(model: Program, free: dict[str, Tensor]) -> Tensor:
    """Return minus the log-density of the latent sites, in unconstrained space, and the data."""
    sites, values, log_jacobian = latent_sites(model), {}, torch.zeros(())
    for name, u in free.items():
        transform = biject_to(sites[name]["fn"].support)
        values[name] = transform(u)
        log_jacobian = log_jacobian + transform.log_abs_det_jacobian(u, values[name]).sum()
    trace = poutine.trace(poutine.condition(model, values)).get_trace()
    return -trace.log_prob_sum() - log_jacobian


def check_point_estimate(case: Case, dtype: torch.dtype, steps: int = 80) -> None:
    """``AutoDelta`` climbs, on the manifold itself, to the mode of the density by volume.

    Of a complex site it takes the real and imaginary parts, from ``ComplexReparam``.
    """
    model, starts = model_of(case, dtype), case.points(dtype, 8)
    start = starts[_log_joint_at(case, starts).argmax()]

    def climb(model: Program) -> AutoDelta:
        guide = AutoDelta(model, init_loc_fn=init_to_value(values={"z": start.clone()}))
        _fit(model, guide, Trace_ELBO(), steps)
        return guide

    if is_complex(case.make(dtype)):
        plain, model = model, Route.REPARAM.apply(model)
        fails_on_complex_density(lambda: climb(plain))
    guide = climb(model)
    with torch.no_grad():
        replayed = poutine.replay(model, trace=poutine.trace(guide).get_trace())
        found: Any = poutine.trace(replayed).get_trace().nodes["z"]["value"]
    _check_points(case, dtype, found.unsqueeze(0), 1)
    assert_close(case.manifold.projx(found), found, atol=1e-5, rtol=1e-5)
    reached = _log_joint_at(case, found).item()
    assert abs(reached + Trace_ELBO().loss(model, guide)) < 1e-4 * (1 + abs(reached))
    if case.quadrature is not None:
        best = _quadrature(case)[1].item()
        # Nodes may miss the mode, which is then higher; in four dimensions they are far apart.
        above = 0.4 if case.intrinsic_dim == 4 else 0.2
        assert -0.2 < reached - best < above, f"the mode has {best:.3f}, found {reached:.3f}"


def check_mixed_sites(case: Case, dtype: torch.dtype) -> None:
    """In one ``AutoGuideList`` the site and an ordinary one have the guides that suit them."""
    plain = model_of(case, dtype)

    def model() -> None:
        like = torch.ones((), dtype=dtype)
        pyro.sample("scale", dist.Gamma(2 * like, like))
        plain()

    guide = AutoGuideList(model)
    guide.append(AutoWrappedNormal(poutine.block(model, expose=["z"])))
    guide.append(AutoNormal(poutine.block(model, hide=["z"])))
    _fit(model, guide, _particles(Trace_ELBO, 4), 4)
    _check_guide(case, dtype, model, guide, Trace_ELBO)


def check_importance_sampling(case: Case, dtype: torch.dtype, size: int = 10_000) -> None:
    """Weighted draws from the prior, moved or not, give the evidence."""
    if case.quadrature is None:
        return
    model, way = model_of(case, dtype), route(case)
    for program in (model, model if way is Route.NONE else way.apply(model)):
        with torch.no_grad(), pyro.plate("particles", size):
            trace = poutine.trace(program).get_trace()
        trace.compute_log_prob()
        terms = [trace.nodes[name]["log_prob"] for name in trace.observation_nodes]
        log_weights = torch.stack(torch.broadcast_tensors(*terms)).sum(0) - _quadrature(case)[0]
        assert_mean(log_weights.exp(), torch.ones(()), floor=1e-3, what="relative evidence")


def check_elbo(case: Case, dtype: torch.dtype, kind: Callable[..., Any]) -> None:
    """An estimator of the ELBO trains a guide on the manifold and one in unconstrained space."""
    model, way = model_of(case, dtype), route(case)
    pairs: list[tuple[Program, Any]] = [(model, AutoWrappedNormal(model))]
    if way is not Route.NONE:
        moved = way.apply(model)
        pairs.append((moved, AutoNormal(moved)))
    for program, guide in pairs:
        _fit(program, guide, _particles(kind, 4), 3)
        _check_guide(case, dtype, program, guide, kind)


def check_mean_field_elbo(case: Case, dtype: torch.dtype) -> None:
    """``TraceMeanField_ELBO`` bounds the evidence, and drops no Jacobian of a guide of Pyro.

    It takes the divergence from the point mass by which such a guide reaches the support; on the
    same draws the loss must be that of ``Trace_ELBO``.
    """
    check_elbo(case, dtype, TraceMeanField_ELBO)
    way = route(case)
    if way is Route.NONE:
        return
    model = way.apply(model_of(case, dtype))
    guide, losses = AutoNormal(model, init_scale=0.5), []
    guide()
    for kind in (Trace_ELBO, TraceMeanField_ELBO):
        pyro.set_rng_seed(0)
        losses.append(_particles(kind, 4).loss(model, guide))
    assert abs(losses[0] - losses[1]) < 1e-4 * (1 + abs(losses[0])), f"losses {losses}"


def check_mcmc(case: Case, dtype: torch.dtype, make_kernel: Callable[[Program], Any]) -> None:
    """A kernel moves, stays finite, follows the exact density and gives points back.

    Where there is no bijection from the reals it says so and names the remedies, and the model so
    reparameterised is served.
    """

    def run(model: Program) -> None:
        kernel = make_kernel(model)
        mcmc = MCMC(kernel, num_samples=6, warmup_steps=6, disable_progbar=True)
        mcmc.run()
        draws = mcmc.get_samples()
        for name, values in draws.items():
            assert bool(values.isfinite().all()), f"{name} is {values}"
            assert not torch.equal(values[0], values[-1]), f"{name} never moved"
        z = draws["z"] if "z" in draws else Predictive(model, draws, return_sites=["z"])()["z"]
        _check_points(case, dtype, z, 6)
        # The energy that the kernel follows, compiled or not, is that of the model.
        free = {name: kernel.transforms[name](values[-1]) for name, values in draws.items()}
        assert_close(kernel.potential_fn(free), _energy(model, free), rtol=1e-4, atol=1e-4)

    run_in_unconstrained_space(case, dtype, run, point_masses=False)
