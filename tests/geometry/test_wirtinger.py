"""Wirtinger derivatives and mixed Hessians, against formulas and Taylor's."""

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.geometry import (
    mixed_hessian,
    mixed_to_real_hessian,
    real_to_mixed_hessian,
    wirtinger,
)

EXACT = {"rtol": 0, "atol": 1e-10}


def square(z):
    return z.real**2 + z.imag**2


def points(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


def potential(z):
    """A real function of three complex variables, of no symmetry."""
    a, b, c = z.unbind(-1)
    return (a * b.conj() + c**2).real.exp() + (square(c) * a).imag.sin() + square(b - 1j * a)


def constant(value):
    return torch.tensor(value, dtype=torch.complex128)


def test_reference_values_of_a_map_and_of_a_potential():
    z = constant(0.3 + 0.4j)
    d, dbar = wirtinger(lambda z: z.square() * z.conj(), z)
    assert_close(d, constant(0.5), **EXACT)
    assert_close(dbar, constant(-0.07 + 0.24j), **EXACT)
    g, h = mixed_hessian(lambda z: square(z) ** 2, z)
    assert_close(g, constant(1.0), **EXACT)
    assert_close(h, constant(-0.14 - 0.48j), **EXACT)


def test_a_holomorphic_map_has_no_second_derivative():
    z = points(4, 2)
    d, dbar = wirtinger(lambda z: torch.stack([z.prod(-1), z[..., 0].exp()], -1), z)
    assert d.shape == (4, 2, 2)
    assert_close(dbar, torch.zeros_like(dbar), **EXACT)
    first, second = z.unbind(-1)
    rows = [torch.stack([second, first], -1), torch.stack([first.exp(), 0 * first], -1)]
    assert_close(d, torch.stack(rows, -2), **EXACT)


def test_of_a_real_function_one_is_the_conjugate_of_the_other_and_half_of_what_torch_has():
    z = points(5, 3).requires_grad_()
    d, dbar = wirtinger(potential, z)
    assert_close(d, dbar.conj().resolve_conj(), **EXACT)
    (gradient,) = torch.autograd.grad(potential(z).sum(), z)
    assert_close(gradient, 2 * dbar, **EXACT)


def test_taylor_series_to_second_order():
    """The remainder is of third order: a tenth of the step leaves a thousandth."""
    z, w = points(3), points(3, seed=1)
    (d, _), (g, h) = wirtinger(potential, z), mixed_hessian(potential, z)

    def remainder(w):
        linear, mixed, pure = 2 * (d @ w).real, (w @ g @ w.conj()).real, (w @ h @ w).real
        return potential(z + w) - potential(z) - linear - mixed - pure

    assert abs(remainder(1e-3 * w) / remainder(1e-2 * w)) < 2e-3
    assert abs(remainder(1e-3 * w)) < 1e-7


def test_hermitian_and_symmetric_parts_undo_the_real_hessian():
    g, h = mixed_hessian(potential, points(2, 4, 3))
    assert g.shape == h.shape == (2, 4, 3, 3)
    assert_close(g, g.mH.resolve_conj(), **EXACT)
    assert_close(h, h.mT, **EXACT)
    again = real_to_mixed_hessian(mixed_to_real_hessian(g, h))
    assert_close(again, (g, h), **EXACT)


def test_the_real_hessian_is_that_of_the_parts():
    z = points(3)

    def of_parts(parts):
        return potential(torch.complex(*parts.chunk(2)))

    hessian = torch.func.hessian(of_parts)(torch.cat([z.real, z.imag]))
    assert_close(mixed_to_real_hessian(*mixed_hessian(potential, z)), hessian, **EXACT)


@pytest.mark.parametrize("derivative", [wirtinger, mixed_hessian])
def test_a_batch_is_its_points_and_maps(derivative):
    z = points(2, 4, 3)
    found = derivative(potential, z)
    mapped = torch.func.vmap(lambda z: derivative(potential, z))(z)
    assert_close(mapped, found)
    assert_close([part[1, 2] for part in found], list(derivative(potential, z[1, 2])))


def test_derivatives_can_be_differentiated():
    """The potential |z|^4 has the mixed Hessian 4 |z|^2, of derivative 4 conj(z)."""
    z = points(5, 1)

    def metric(z):
        return mixed_hessian(lambda z: square(z).sum(-1) ** 2, z)[0][..., 0, 0].real

    assert_close(wirtinger(metric, z)[0], 4 * z.conj().resolve_conj(), **EXACT)


def test_the_square_of_abs_has_no_curvature_at_zero_in_torch():
    """A trap of torch: Fisher metrics would vanish where two points coincide."""
    zero = torch.zeros(1, dtype=torch.complex128)
    assert_close(mixed_hessian(lambda z: square(z).sum(-1), zero)[0], constant([[1.0]]))
    assert mixed_hessian(lambda z: (z.abs() ** 2).sum(-1), zero)[0] == 0


@pytest.mark.parametrize("derivative", [wirtinger, mixed_hessian])
def test_real_points_are_refused(derivative):
    with pytest.raises(ValueError, match=r"expected complex z, got torch.float32"):
        derivative(lambda z: z.sum(-1), torch.zeros(2))
