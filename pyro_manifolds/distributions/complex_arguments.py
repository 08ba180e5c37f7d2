"""Arguments of complex distributions, as users write them."""

from __future__ import annotations

from typing import Any, TypeAlias

import torch
from pyro.distributions.constraints import Constraint
from torch import Size, Tensor

__all__ = [
    "Kind",
    "as_complex",
    "as_real",
    "broadcast_shapes",
    "check_argument",
    "check_complex_value",
    "common_kind",
    "name_of_one",
]

Kind: TypeAlias = tuple[torch.dtype, torch.device | None]

_COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}


def common_kind(*arguments: Any) -> Kind:
    """Return the widest real type among the tensors and the device of the first of them.

    Raises:
        TypeError: If that type is neither float32 nor float64.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import common_kind
        >>> common_kind(1j, torch.zeros(2), torch.zeros(2, dtype=torch.complex128))
        (torch.float64, device(type='cpu'))
    """
    tensors = [argument for argument in arguments if isinstance(argument, Tensor)]
    dtype = None
    for tensor in tensors:
        if tensor.is_floating_point() or tensor.is_complex():
            own = tensor.real.dtype
            dtype = own if dtype is None else torch.promote_types(dtype, own)
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if dtype not in _COMPLEX:
        raise TypeError(
            f"expected arguments of type complex64 or complex128, float32 or float64, got {dtype}"
        )
    return dtype, tensors[0].device if tensors else None


def as_complex(argument: Tensor | complex, kind: Kind) -> Tensor:
    """Return a complex tensor; real numbers are complex numbers too.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import as_complex
        >>> as_complex(torch.ones(2), (torch.float32, None))
        tensor([1.+0.j, 1.+0.j])
    """
    dtype = _COMPLEX[kind[0]]
    if isinstance(argument, Tensor):
        return argument if argument.dtype == dtype else argument.to(dtype)
    return torch.as_tensor(argument, dtype=dtype, device=kind[1])


def as_real(owner: str, name: str, argument: Any, kind: Kind) -> Tensor:
    """Return a real tensor.

    Raises:
        TypeError: If the argument is complex, which names the owner and the argument.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import as_real
        >>> as_real("ComplexNormal", "scale", 2, (torch.float32, None))
        tensor(2.)
    """
    if isinstance(argument, Tensor):
        if argument.is_complex():
            raise TypeError(f"{owner}: expected a real {name}, got one of type {argument.dtype}")
        return argument if argument.dtype == kind[0] else argument.to(kind[0])
    if isinstance(argument, complex):
        raise TypeError(f"{owner}: expected a real {name}, got {argument}")
    return torch.as_tensor(argument, dtype=kind[0], device=kind[1])


def name_of_one(owner: str, **arguments: Any) -> str:
    """Return the name of the argument that is given.

    Raises:
        ValueError: If not exactly one of them is given.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import name_of_one
        >>> name_of_one("ComplexNormal", scale=None, per_part_scale=1.0)
        'per_part_scale'
    """
    given = [name for name, argument in arguments.items() if argument is not None]
    if len(given) != 1:
        raise ValueError(
            f"{owner}: expected exactly one of {', '.join(arguments)}, "
            f"got {' and '.join(given) or 'none'}"
        )
    return given[0]


def broadcast_shapes(owner: str, **shapes: Size) -> Size:
    """Return the shape that all broadcast to.

    Raises:
        ValueError: If they do not, which names them.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import broadcast_shapes
        >>> broadcast_shapes("ComplexNormal", loc=torch.Size([3, 1]), scale=torch.Size([4]))
        torch.Size([3, 4])
    """
    try:
        return torch.broadcast_shapes(*shapes.values())
    except RuntimeError:
        named = ", ".join(f"{name} {tuple(shape)}" for name, shape in shapes.items())
        raise ValueError(f"{owner}: expected shapes that broadcast, got {named}") from None


def check_complex_value(owner: str, value: Tensor) -> None:
    """Refuse real values, such as the parts of complex ones side by side.

    Raises:
        TypeError: If the value is not complex.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import check_complex_value
        >>> check_complex_value("ComplexNormal", torch.tensor(1j))
    """
    if not value.is_complex():
        raise TypeError(
            f"{owner}: expected a complex value, got one of type {value.dtype}; "
            "torch.complex(x, y) makes one of its parts, torch.view_as_complex of pairs"
        )


def check_argument(owner: str, name: str, value: Tensor, constraint: Constraint) -> None:
    """Refuse arguments that torch does not check, since they are not kept.

    Raises:
        ValueError: If a value does not satisfy the constraint.

    Example:
        >>> from pyro_manifolds.distributions.complex_arguments import check_argument
        >>> check_argument("from_parts", "std_real", torch.ones(2), dist.constraints.positive)
    """
    valid = constraint.check(value)
    if not torch._is_all_true(valid):
        raise ValueError(
            f"{owner}: expected {name} to satisfy {constraint}, got {value[~valid][0].item()}"
        )
