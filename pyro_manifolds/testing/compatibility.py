"""Which algorithm of Pyro serves a distribution, and how: one law for each pair.

The algorithm runs on the site itself; or on the reparameterised model, and otherwise names the
reparameterisation; or it refuses and names one that serves. Which of these, the verdict, follows
from support, covering and flags of the case, never from its class.

Example:
    >>> from pyro_manifolds.testing import ALGORITHMS, Case
    >>> case = Case(VonMises, {"loc": 0.5, "concentration": 2.0}, Circle())
    >>> ALGORITHMS["AutoMultivariateNormal"].verdict(case)
    <Verdict.REPARAM: 'by `AutoManifoldReparam`'>
    >>> ALGORITHMS["AutoMultivariateNormal"].check(case, torch.float32)
"""

from __future__ import annotations

import enum
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import (
    HMC,
    NUTS,
    JitTrace_ELBO,
    RenyiELBO,
    Trace_ELBO,
    TraceGraph_ELBO,
)
from pyro.infer.autoguide import (
    AutoDiagonalNormal,
    AutoGaussian,
    AutoIAFNormal,
    AutoLowRankMultivariateNormal,
    AutoMultivariateNormal,
    AutoNormal,
    AutoStructured,
)

from pyro_manifolds.distributions.real_view import is_complex
from pyro_manifolds.testing.algorithms import (
    check_autoguide,
    check_elbo,
    check_hand_written_guide,
    check_importance_sampling,
    check_laplace,
    check_mcmc,
    check_mean_field_elbo,
    check_mixed_sites,
    check_point_estimate,
    check_wrapped_normal_guide,
)
from pyro_manifolds.testing.cases import Case
from pyro_manifolds.testing.gradients import check_compile, check_vmap
from pyro_manifolds.testing.inference import check_plates, check_predictive
from pyro_manifolds.testing.routes import refuses, route
from pyro_manifolds.testing.shapes import check_copies, check_dtype, check_expand, check_wrappers

__all__ = ["ALGORITHMS", "Algorithm", "Verdict", "check_compatibility"]

Check = Callable[[Case, torch.dtype], None]


class Verdict(enum.Enum):
    """How an algorithm serves a distribution."""

    DIRECT = "yes"
    REPARAM = "by `AutoManifoldReparam`"
    COVER = "by `CoveringReparam`, then `AutoManifoldReparam`"
    NONE = "no: the error names `AutoWrappedNormal`"
    GRAPHS = "in several graphs"
    BATCHES = "no: the error says to pass batches"
    UNOPTIMISED = "within `torch.jit.optimized_execution(False)`"


class Algorithm(NamedTuple):
    """One column of the table.

    Attributes:
        check: Law that the algorithm serves a case, in a dtype, as the verdict says.
        verdict: How it serves a case.
    """

    check: Check
    verdict: Callable[[Case], Verdict] = lambda case: Verdict.DIRECT


def check_compatibility(case: Case, dtype: torch.dtype = torch.float32) -> dict[str, Verdict]:
    """Check every algorithm on a case, and return how each serves it.

    Args:
        case: The case.
        dtype: Of its parameters. It must be the default one: of this some guides of Pyro are.

    Raises:
        AssertionError: If one of them does not do what its verdict says.
    """
    for algorithm in ALGORITHMS.values():
        pyro.clear_param_store()
        algorithm.check(case, dtype)
    return {name: algorithm.verdict(case) for name, algorithm in ALGORITHMS.items()}


def _by_route(check: Check, **options: bool) -> Algorithm:
    return Algorithm(check, lambda case: Verdict[route(case, **options).name])


def _guide(kind: Callable[..., Any], **options: Any) -> Algorithm:
    return _by_route(partial(check_autoguide, kind=partial(kind, **options)))


def _kernel(kind: Callable[..., Any], **options: Any) -> Algorithm:
    return _by_route(partial(check_mcmc, make_kernel=partial(kind, **options)), point_masses=False)


def _elbo(kind: Callable[..., Any]) -> Algorithm:
    return Algorithm(partial(check_elbo, kind=kind))


def _scripted(algorithm: Algorithm) -> Algorithm:
    """Switch off the optimiser of TorchScript, whose derivatives of complex products are wrong."""

    def check(case: Case, dtype: torch.dtype) -> None:
        with torch.jit.optimized_execution(not _has_complex_draws(case)):
            algorithm.check(case, dtype)

    def verdict(case: Case) -> Verdict:
        return Verdict.UNOPTIMISED if _has_complex_draws(case) else algorithm.verdict(case)

    return Algorithm(check, verdict)


def _has_complex_draws(case: Case) -> bool:
    return is_complex(case.make(torch.float32))


def _of_point_estimate(case: Case) -> Verdict:
    return Verdict.REPARAM if _has_complex_draws(case) else Verdict.DIRECT


def _check_mapped(case: Case, dtype: torch.dtype) -> None:
    if case.compiles:
        check_vmap(case, dtype)
    else:
        refuses(lambda: check_vmap(case, dtype), "batch")


def _check_compiled(case: Case, dtype: torch.dtype) -> None:
    validates = pyro.settings.get("validate_distributions_pyro")
    try:
        with warnings.catch_warnings():
            # The compiler looks at the gradients of what passes from one graph to the next.
            warnings.filterwarnings("ignore", "The .grad attribute", UserWarning)
            check_compile(case, dtype)
    finally:
        pyro.enable_validation(validates)  # torch.compile switches it off


ALGORITHMS: dict[str, Algorithm] = {
    "a guide written by hand": Algorithm(check_hand_written_guide),
    "AutoWrappedNormal": Algorithm(check_wrapped_normal_guide),
    "AutoDelta": Algorithm(check_point_estimate, _of_point_estimate),
    "AutoNormal": _guide(AutoNormal),
    "AutoDiagonalNormal": _guide(AutoDiagonalNormal),
    "AutoMultivariateNormal": _guide(AutoMultivariateNormal),
    "AutoLowRankMultivariateNormal": _guide(AutoLowRankMultivariateNormal, rank=1),
    "AutoIAFNormal": _guide(AutoIAFNormal),
    "AutoStructured": _guide(AutoStructured),
    "AutoGaussian": _guide(AutoGaussian),
    "AutoLaplaceApproximation": _by_route(check_laplace, isolated_mode=True),
    "HMC": _kernel(HMC, step_size=0.1, num_steps=3),
    "NUTS": _kernel(NUTS, max_tree_depth=3),
    "NUTS(jit_compile=True)": _scripted(
        _kernel(NUTS, max_tree_depth=3, jit_compile=True, ignore_jit_warnings=True)
    ),
    "AutoGuideList": Algorithm(check_mixed_sites),
    "importance sampling": Algorithm(check_importance_sampling),
    "Trace_ELBO": _elbo(Trace_ELBO),
    "TraceMeanField_ELBO": Algorithm(check_mean_field_elbo),
    "TraceGraph_ELBO": _elbo(TraceGraph_ELBO),
    "RenyiELBO": _elbo(RenyiELBO),
    "JitTrace_ELBO": _scripted(_elbo(JitTrace_ELBO)),
    "Predictive": Algorithm(check_predictive),
    "plate": Algorithm(check_plates),
    "mask": Algorithm(check_wrappers),
    "expand": Algorithm(check_expand),
    "pickle": Algorithm(check_copies),
    "float32": Algorithm(check_dtype),
    "torch.vmap": Algorithm(
        _check_mapped, lambda case: Verdict.DIRECT if case.compiles else Verdict.BATCHES
    ),
    "torch.compile": Algorithm(
        _check_compiled, lambda case: Verdict.DIRECT if case.compiles else Verdict.GRAPHS
    ),
}
