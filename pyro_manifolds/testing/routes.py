"""Ways by which what moves in unconstrained space, Gaussian guides and HMC, reaches a manifold."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions import TorchDistribution
from torch.distributions import biject_to

from pyro_manifolds.distributions import EmbeddingPushforward
from pyro_manifolds.distributions.real_view import is_complex
from pyro_manifolds.infer.reparam import AutoManifoldReparam, CoveringReparam
from pyro_manifolds.testing.cases import Case
from pyro_manifolds.testing.inference import Program, _datum, _programs

__all__ = [
    "Route",
    "fails_on_complex_density",
    "latent_sites",
    "model_of",
    "refuses",
    "route",
    "run_in_unconstrained_space",
]


class Route(enum.Enum):
    """What a model is put through for algorithms that move in unconstrained space."""

    DIRECT = "nothing"
    REPARAM = "AutoManifoldReparam"
    COVER = "CoveringReparam, then AutoManifoldReparam"
    NONE = "there is no way"

    def apply(self, model: Program) -> Program:
        """Return the model with its site ``z`` moved."""
        if self is Route.DIRECT:
            return model
        if self is Route.COVER:
            model = poutine.reparam(model, {"z": CoveringReparam()})
        return AutoManifoldReparam()(model)


def route(case: Case, *, isolated_mode: bool = False, point_masses: bool = True) -> Route:
    """Find the first route on which every latent site has a bijection from the reals.

    Args:
        case: The case.
        isolated_mode: Whether the algorithm stands on a mode. Where the noise of
            ``ManifoldReparam`` is a matrix, on quotients of finite order, some of its rotations
            change nothing, and modes are not isolated; on the cover they are.
        point_masses: Whether the algorithm reaches the support by point masses, as the guides of
            Pyro do. Those at complex values have a complex density.
    """
    model = model_of(case, torch.float32)
    ways = [Route.DIRECT, Route.REPARAM, Route.COVER]
    law = _base_of_image(case.make(torch.float32))
    if point_masses and is_complex(law):
        ways.remove(Route.DIRECT)
    manifold: Any = getattr(law, "manifold", case.manifold)
    factors = getattr(manifold, "manifolds", (manifold,))
    if isolated_mode and any(1 < m.covering.num_sheets < math.inf for m in factors):
        ways.remove(Route.REPARAM)
    return next((way for way in ways if _ends_in_the_reals(way.apply(model))), Route.NONE)


def _base_of_image(law: TorchDistribution) -> TorchDistribution:
    return law.base_dist if isinstance(law, EmbeddingPushforward) else law


def _ends_in_the_reals(model: Program) -> bool:
    try:
        for site in latent_sites(model).values():
            biject_to(site["fn"].support)
    except (NotImplementedError, TypeError):
        return False
    return True


def latent_sites(model: Program) -> dict[str, Any]:
    """Return the latent sites of a model without arguments, by name."""
    return dict(poutine.trace(model).get_trace().iter_stochastic_nodes())


def model_of(case: Case, dtype: torch.dtype) -> Program:
    """Return a model with the case as the latent site ``z``, its embedding seen through noise."""
    model, _ = _programs(case.make(dtype), case.make_other(dtype), case)
    datum = _datum(case, dtype)
    return lambda: model(datum)


def run_in_unconstrained_space(
    case: Case, dtype: torch.dtype, run: Callable[[Program], None], **options: bool
) -> None:
    """Run on the route of the case, and see that the ways that are closed name the open ones.

    Args:
        case: The case.
        dtype: Of its parameters.
        run: Runs the algorithm on a model without arguments.
        **options: Passed on to :func:`route`.
    """
    model, way = model_of(case, dtype), route(case, **options)
    if way is not Route.DIRECT and is_complex(case.make(dtype)):
        fails_on_complex_density(lambda: run(model))
    elif way is not Route.DIRECT:
        refuses(lambda: run(model), "ManifoldReparam", "AutoWrappedNormal")
    moved = Route.REPARAM.apply(model)
    if not _ends_in_the_reals(moved):
        refuses(lambda: run(moved), "CoveringReparam", "AutoWrappedNormal")
    if way is not Route.NONE:
        run(way.apply(model))


def refuses(action: Callable[[], object], *words: str) -> None:
    """Assert that an action raises ``NotImplementedError`` with these words in its message."""
    pyro.clear_param_store()
    message = "nothing, it went through"
    try:
        action()
    except NotImplementedError as error:
        message = str(error)
    missing = [word for word in words if word not in message]
    assert not missing, f"expected an error that names {missing}, got {message}"


def fails_on_complex_density(action: Callable[[], object]) -> None:
    """Assert that torch refuses to differentiate a complex loss, as Pyro alone makes it."""
    pyro.clear_param_store()
    message = "nothing, it went through"
    try:
        action()
    except RuntimeError as error:
        message = str(error)
    assert "real scalar outputs" in message, (
        f"expected a complex loss to be refused, got {message}"
    )
