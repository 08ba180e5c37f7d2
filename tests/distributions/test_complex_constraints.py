"""Constraints of complex numbers, and the bijections that lead to them."""

import copy
import math
import pickle

import pyro
import pytest
import scipy.linalg
import torch
from torch.distributions import biject_to, transform_to
from torch.testing import assert_close

from pyro_manifolds.distributions import constraints
from pyro_manifolds.distributions.transforms import (
    RealToCoherence,
    RealToComplex,
    RealToComplexCholesky,
    RealToHermitianPositiveDefinite,
    RealToUnitDisk,
)
from pyro_manifolds.ops.matrix_root import matrix_root

TRANSFORMS = {  # with the shape of what is free, and the constraint
    "complex": (RealToComplex, (2,), constraints.complex),
    "unit-disk": (RealToUnitDisk, (2,), constraints.unit_disk),
    "coherence-1": (RealToCoherence, (1, 2), constraints.coherence),
    "coherence-3": (RealToCoherence, (3, 4), constraints.coherence),
    "cholesky-1": (RealToComplexCholesky, (1, 1), constraints.complex_cholesky),
    "cholesky-3": (RealToComplexCholesky, (3, 3), constraints.complex_cholesky),
    "hermitian-1": (
        RealToHermitianPositiveDefinite, (1, 1), constraints.hermitian_positive_definite
    ),
    "hermitian-3": (
        RealToHermitianPositiveDefinite, (3, 3), constraints.hermitian_positive_definite
    ),
}  # fmt: skip
each = pytest.mark.parametrize(
    ("kind", "shape", "constraint"), TRANSFORMS.values(), ids=TRANSFORMS
)


def free_parts(y, kind):
    """Real and imaginary parts, each once."""
    y = y.resolve_conj()
    if kind in (RealToComplex, RealToUnitDisk):
        return torch.view_as_real(y)
    rows, columns = torch.tril_indices(*y.shape[-2:])
    real, imag = y.real[..., rows, columns], y.imag[..., rows, columns]
    if kind is not RealToCoherence:  # whose diagonal is complex
        imag = imag[..., rows != columns]
    return torch.cat([real, imag], -1)


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_image_is_checked_and_leads_back(kind, shape, constraint, dtype):
    x = torch.randn(5, *shape, dtype=dtype)
    t = kind()
    y = t(x)
    assert y.dtype == dtype.to_complex()
    assert constraint.check(y).shape == (5,)
    assert constraint.check(y).all()
    assert_close(t.inv(y), x, atol=2e-4 if dtype == torch.float32 else 1e-11, rtol=0)
    assert t.forward_shape(x.shape) == y.shape
    assert t.inverse_shape(y.shape) == x.shape
    assert_close(t.inv(y.conj().resolve_conj().conj()), t.inv(y))  # a lazy conjugate


@each
def test_the_log_determinant_is_real_and_that_of_the_jacobian(kind, shape, constraint):
    x = torch.randn(4, *shape, dtype=torch.float64)
    t = kind()
    jacobian = torch.vmap(torch.func.jacrev(lambda x: free_parts(t(x), kind)))(x)
    expected = torch.linalg.slogdet(jacobian.reshape(4, -1, math.prod(shape)))
    found = t.log_abs_det_jacobian(x, t(x))
    assert found.dtype == torch.float64
    assert_close(found, expected.logabsdet, atol=1e-10, rtol=0)


@each
def test_both_registries_know_the_constraint(kind, shape, constraint):
    for registry in (biject_to, transform_to):
        assert registry(constraint) == kind()
        y = registry(constraint)(torch.zeros(2, *shape))
        assert constraint.check(y).all(), "zero is no feasible point"


@each
def test_equality_hash_cache_and_bad_shapes(kind, shape, constraint):
    t = kind()
    assert t == kind()
    assert hash(t) == hash(kind())
    assert t != "something else"
    cached = t.with_cache()
    x = torch.randn(shape)
    assert cached == t
    assert cached.inv(cached(x)) is x
    assert cached.with_cache() is cached
    with pytest.raises(ValueError, match=f"{kind.__name__}: expected"):
        t.forward_shape(torch.Size([5, 3]))


def parts_of(kind):
    return lambda x: torch.view_as_real(kind()(x).resolve_conj())


@each
def test_derivatives_and_mapping(kind, shape, constraint):
    parts = parts_of(kind)
    x = torch.randn(3, *shape, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(parts, x)
    assert_close(torch.vmap(parts)(x), parts(x))


# The compiler itself does what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "name",
    ["complex", "unit-disk", "hermitian-3", pytest.param("coherence-3", marks=pytest.mark.slow)],
)
def test_compilation_to_one_graph(name):
    kind, shape, _ = TRANSFORMS[name]
    x = torch.randn(3, *shape, dtype=torch.float64)
    torch._dynamo.reset()
    found = torch.compile(parts_of(kind), fullgraph=True, backend="aot_eager")(x)
    pyro.enable_validation(True)  # torch.compile switches it off
    assert_close(found, parts_of(kind)(x))


def test_vectors_of_the_disk():
    """By mpmath."""
    x = torch.tensor([0.8, -1.5], dtype=torch.float64)
    expected = torch.tensor(0.405616101250715 - 0.760530189845091j, dtype=torch.complex128)
    assert_close(RealToUnitDisk()(x), expected, atol=1e-14, rtol=0)
    found = RealToUnitDisk().log_abs_det_jacobian(x, expected).item()
    assert found == pytest.approx(-2.716818315260710, abs=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("length", [1e-30, 1e3, 1e6, 1e15])
def test_the_disk_has_no_edge(dtype, length):
    """Moduli of all numbers stay below one, and derivatives finite."""
    turns = torch.linspace(-math.pi, math.pi, 100, dtype=dtype)
    x = (length * torch.stack([turns.cos(), turns.sin()], -1)).requires_grad_()
    t = RealToUnitDisk()
    assert constraints.unit_disk.check(t(x)).all()
    (torch.view_as_real(t(x)).sum() + t.log_abs_det_jacobian(x, t(x)).sum()).backward()
    assert x.grad.isfinite().all()


@pytest.mark.parametrize(("dtype", "size"), [(torch.float32, 100.0), (torch.float64, 1e6)])
def test_large_matrices_lead_to_coherences(dtype, size):
    x = size * torch.randn(100, 4, 5, dtype=dtype)
    assert constraints.coherence.check(RealToCoherence()(x)).all()


def test_matrices_of_any_strides_and_offsets():
    x = torch.randn(7)[1:5].reshape(2, 2)  # where view_as_complex refuses
    assert_close(RealToComplex()(x), torch.complex(*x.unbind(-1)))
    assert_close(RealToComplex()(x.mT), torch.complex(*x))


OUTSIDE = {
    "complex": [complex(math.inf, 0.0), complex(0.0, math.nan)],
    "unit_disk": [1 + 0j, 0.8 - 0.7j, complex(math.nan, 0.0)],
    "coherence": [
        [[0.1, 0.2j], [0.1, 0.1]],  # not symmetric
        [[0.9, 0.9j], [0.9j, 0.9]],  # of norm above one
        [[math.nan, 0.0], [0.0, 0.0]],
    ],
    "complex_cholesky": [
        [[1.0, 0.1j], [0.0, 1.0]],
        [[1j, 0.0], [0.0, 1.0]],
        [[-1.0, 0.0], [0.0, 1.0]],
        [[1.0, 0.0], [complex(math.nan), 1.0]],
    ],
    "hermitian_positive_definite": [
        [[1.0, 0.5j], [0.5j, 1.0]],  # symmetric
        [[1.0, 2j], [-2j, 1.0]],
        [[math.nan, 0.0], [0.0, 1.0]],
    ],
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_lies_outside_is_refused(name):
    values = torch.tensor(OUTSIDE[name], dtype=torch.cdouble)
    assert not getattr(constraints, name).check(values).any()


def test_hermitian_matrices_are_positive_definite_here_but_not_in_torch():
    matrix = torch.tensor([[2.0, 1j], [-1j, 2.0]])
    assert constraints.hermitian_positive_definite.check(matrix)
    assert not torch.distributions.constraints.positive_definite.check(matrix)


def test_vectors_are_one_event():
    t = biject_to(constraints.complex_vector)
    x = torch.randn(4, 3, 2)
    assert t(x).shape == (4, 3)
    assert t.log_abs_det_jacobian(x, t(x)).tolist() == [0.0] * 4
    assert t.forward_shape(x.shape) == (4, 3)
    finite = constraints.complex_vector.check(torch.tensor([[1j, 0.0], [math.inf, 0.0]]))
    assert finite.tolist() == [True, False]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda c: pickle.loads(pickle.dumps(c))])
def test_copies_of_constraints_lead_to_the_same_transforms(copied):
    for kind, _, constraint in TRANSFORMS.values():
        assert biject_to(copied(constraint)) == kind()


def test_parameters_are_stored_as_real_numbers_and_come_back():
    value = torch.tensor([1 + 2j, -3j])
    pyro.param("loc", value, constraint=constraints.complex)
    unconstrained = dict(pyro.get_param_store().named_parameters())["loc"]
    assert unconstrained.shape == (2, 2)
    assert not unconstrained.is_complex()
    state = pyro.get_param_store().get_state()
    pyro.clear_param_store()
    pyro.get_param_store().set_state(state)
    assert_close(pyro.param("loc").detach(), value)


# Roots of matrices.


def hermitian(size):
    a = torch.randn(3, size, size, dtype=torch.cdouble)
    return a @ a.mH + 0.1 * torch.eye(size)


def test_roots_are_those_of_scipy():
    matrices = hermitian(4)
    expected = [torch.from_numpy(scipy.linalg.sqrtm(m.numpy())) for m in matrices]
    assert_close(matrix_root(matrices), torch.stack(expected), atol=1e-12, rtol=0)


@pytest.mark.parametrize("at", [torch.zeros(2, 2), torch.tensor([[1.0, 0.3], [0.2, -0.4]])])
def test_roots_have_two_derivatives_where_eigenvalues_meet_too(at):
    eye = torch.eye(2, dtype=torch.cdouble)

    def root(x):
        a = torch.complex(x.tril(), x.triu())
        return torch.view_as_real(matrix_root(eye + a @ a.mH))

    x = at.double().requires_grad_()
    assert torch.autograd.gradcheck(root, x)
    assert torch.autograd.gradgradcheck(root, x)


def test_singular_matrices_have_finite_roots_and_derivatives():
    x = torch.ones(2, 2, dtype=torch.cfloat, requires_grad=True)
    root = matrix_root(x)
    assert_close(
        root.detach(), torch.ones(2, 2, dtype=torch.cfloat) / math.sqrt(2), atol=1e-3, rtol=0
    )
    torch.view_as_real(root).sum().backward()
    assert torch.view_as_real(x.grad).isfinite().all()
