"""Which prior goes to which parameter of a module."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from pyro.distributions.torch_distribution import TorchDistributionMixin
from torch import Tensor, nn

from pyro_manifolds.nn.bayesian.priors import fan_in_normal, owner_prior

__all__ = ["Assignment", "Prior", "PriorFunction", "Rule", "assign_priors"]

PriorFunction: TypeAlias = Callable[[Tensor], TorchDistributionMixin]
Prior: TypeAlias = TorchDistributionMixin | PriorFunction | None
Rule: TypeAlias = str | type[nn.Module] | Callable[[str, Tensor], bool]


class _Alias(NamedTuple):
    """One of the names under which a module holds a parameter."""

    name: str
    owner_name: str
    owner: nn.Module
    leaf: str


class Assignment(NamedTuple):
    """A parameter with its prior.

    Attributes:
        names: All names of the parameter; the first is that of its site.
        prior: Its prior, or ``None`` if it has none.
        frozen: Whether it was left out, since it does not require a gradient.
    """

    names: tuple[str, ...]
    prior: Prior
    frozen: bool


def assign_priors(
    net: nn.Module, priors: Mapping[Rule, Prior], default: Prior
) -> list[Assignment]:
    """Return every distinct parameter of ``net`` with the prior of the first rule that matches."""
    for rule in priors:
        _check_rule(rule)
    unmatched = dict.fromkeys(priors)
    assignments = []
    for parameter, aliases in _distinct_parameters(net):
        names = tuple(alias.name for alias in aliases)
        if not parameter.requires_grad:
            assignments.append(Assignment(names, None, frozen=True))
            continue
        matches = [r for r in priors if any(_matches(r, alias, parameter) for alias in aliases)]
        for rule in matches:
            unmatched.pop(rule, None)
        prior = priors[matches[0]] if matches else default
        if not matches and default is fan_in_normal:
            prior = owner_prior(aliases[0].owner, aliases[0].leaf)
        assignments.append(Assignment(names, prior, frozen=False))
    for rule in unmatched:
        raise ValueError(_no_match(rule, net, assignments))
    return assignments


def _distinct_parameters(net: nn.Module) -> Iterator[tuple[nn.Parameter, list[_Alias]]]:
    found: dict[int, tuple[nn.Parameter, list[_Alias]]] = {}
    for name, parameter in net.named_parameters(remove_duplicate=False):
        owner_name, _, leaf = name.rpartition(".")
        alias = _Alias(name, owner_name, net.get_submodule(owner_name), leaf)
        aliases = found.setdefault(id(parameter), (parameter, []))[1]
        # A module that is used twice holds its parameter once.
        if not any(other.owner is alias.owner and other.leaf == leaf for other in aliases):
            aliases.append(alias)
    yield from found.values()


def _check_rule(rule: object) -> None:
    is_module_type = isinstance(rule, type) and issubclass(rule, nn.Module)
    is_predicate = callable(rule) and not isinstance(rule, (type, nn.Module))
    if not (isinstance(rule, str) or is_module_type or is_predicate):
        raise TypeError(
            "BayesianModule: expected keys of priors to be names, types of modules or functions "
            f"of (name, parameter), got {rule!r}"
        )


def _matches(rule: Rule, alias: _Alias, parameter: Tensor) -> bool:
    if isinstance(rule, str):
        return rule == alias.name or (rule == alias.owner_name and alias.leaf == "weight")
    if isinstance(rule, type):
        return isinstance(alias.owner, rule) and alias.leaf == "weight"
    return bool(rule(alias.name, parameter))


def _no_match(rule: Rule, net: nn.Module, assignments: list[Assignment]) -> str:
    def told(name: str) -> str:
        return f"{name} ({type(net.get_submodule(name.rpartition('.')[0])).__name__})"

    free = [told(name) for a in assignments if not a.frozen for name in a.names]
    frozen = [told(name) for a in assignments if a.frozen for name in a.names]
    message = (
        f"BayesianModule: expected the key {rule!r} of priors to match a parameter, got none of "
        f"{', '.join(free) or 'no parameters'}; a module stands for its own parameter 'weight'"
    )
    if frozen:
        message += f". Frozen parameters take no prior: {', '.join(frozen)}"
    return message
