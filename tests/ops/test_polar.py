import math

import mpmath
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyro_manifolds.ops.polar import log_far_share, normal_polar_point, polar_point

DOUBLE = torch.float64
BOTH = pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
DIMS = pytest.mark.parametrize("dim", [2, 3, 16, 1024])


def double(x, **kwargs):
    return torch.tensor(x, dtype=DOUBLE, **kwargs)


def some(dim, dtype=DOUBLE, size=200):
    """Locations and directions, a quarter of which are nearly parallel or opposite to them."""
    torch.manual_seed(0)
    loc = normalize(torch.randn(size, dim, dtype=dtype), dim=-1)
    direction = torch.randn(size, dim, dtype=dtype)
    sign = torch.arange(size).remainder(2).mul(2).sub(1).unsqueeze(-1).to(dtype)
    direction[::4] = (3 * sign * loc + 1e-3 * direction)[::4]
    return loc, direction


def exact_point(loc, near, far, direction):
    """The definition, in float64."""
    loc, near, far, direction = (x.double() for x in (loc, near, far, direction))
    loc = normalize(loc, dim=-1)
    tangent = direction - (direction * loc).sum(-1, keepdim=True) * loc
    height = ((far - near) / (far + near)).unsqueeze(-1)
    width = (2 * (near * far).sqrt() / (far + near)).unsqueeze(-1)
    return height * loc + width * normalize(tangent, dim=-1)


@BOTH
@DIMS
def test_point_is_the_definition_and_a_unit_vector(dim, dtype):
    loc, direction = some(dim, dtype)
    near = torch.logspace(-20, 2, len(loc), dtype=dtype)
    far = near.flip(0)
    x = polar_point(loc, near, far, direction)
    eps = torch.finfo(dtype).eps
    assert x.dtype == dtype
    assert ((x.norm(dim=-1) - 1).abs() < 4 * eps).all()
    # The direction in a tangent space is as uncertain as that of what is left in it of a vector
    # three thousand times as long.
    assert_close(x.double(), exact_point(loc, near, far, direction), rtol=0, atol=3e4 * eps)
    usual = torch.arange(len(loc)) % 4 != 0
    exact = exact_point(loc, near, far, direction)[usual]
    assert_close(x.double()[usual], exact, rtol=0, atol=(2000 if dim == 2 else 100) * eps)


@BOTH
def test_poles_are_the_location_and_its_antipode(dtype):
    loc, direction = some(3, dtype)
    zero, one = loc.new_zeros(len(loc)), loc.new_ones(len(loc))
    assert_close(polar_point(loc, zero, one, direction), loc, rtol=0, atol=2e-7)
    assert_close(polar_point(loc, one, zero, direction), -loc, rtol=0, atol=2e-7)
    shares = [zero.requires_grad_(), one.requires_grad_()]
    for pair in (shares, shares[::-1]):
        found = grad(polar_point(loc, *pair, direction).sum(), shares)
        assert all(g.isfinite().all() for g in found)


def test_a_direction_along_the_location_is_no_reason_for_nan():
    loc = double([[1.0, 0.0, 0.0]], requires_grad=True)
    shares = [double([0.3], requires_grad=True), double([0.7], requires_grad=True)]
    for x in (polar_point(loc, *shares, loc.detach()), normal_polar_point(loc, shares[1], loc)):
        found = grad(x.sum(), [loc, shares[1]])
        assert x.isfinite().all()
        assert all(g.isfinite().all() for g in found)


def test_shapes_broadcast():
    loc, near = torch.eye(3).reshape(3, 1, 3), torch.rand(2)
    assert polar_point(loc, near, torch.tensor(1.0), torch.randn(4, 1, 1, 3)).shape == (4, 3, 2, 3)
    assert normal_polar_point(torch.eye(3), torch.tensor(1.0), torch.randn(5, 3, 3)).shape == (
        (5, 3, 3)
    )
    assert log_far_share(torch.eye(3), torch.eye(3)[0]).shape == (3,)


def points(dim):
    loc, direction = some(dim, size=3)
    near, far = double([0.02, 0.5, 3.0]), double([0.7, 0.4, 1e-3])
    return loc, near, far, direction.roll(1, 0)


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_derivatives_by_the_shares_agree_with_finite_differences(dim):
    loc, near, far, direction = points(dim)
    shares = [near.requires_grad_(), far.requires_grad_()]

    def point(near, far):
        return polar_point(loc, near, far, direction)

    assert gradcheck(point, shares)
    assert gradgradcheck(point, shares)
    assert gradcheck(lambda far: normal_polar_point(loc, far, direction), [far])
    assert gradgradcheck(lambda far: normal_polar_point(loc, far, direction), [far])


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_points_turn_with_the_location(dim):
    """Infinitesimally: under the rotation in the plane of the location and its change."""
    loc, near, far, direction = points(dim)
    change = torch.randn_like(loc)
    change = change - (change * loc).sum(-1, keepdim=True) * loc
    loc.requires_grad_()
    for x in (polar_point(loc, near, far, direction), normal_polar_point(loc, far, direction)):
        along, across = (((y * x).sum(-1, keepdim=True)) for y in (loc, change))
        turned = (along * change - across * loc).detach()
        for weight in torch.eye(dim, dtype=DOUBLE)[:3]:
            (by_loc,) = grad((x * weight).sum(), loc, retain_graph=True)
            assert_close((by_loc * change).sum(-1), (turned * weight).sum(-1))
            # Points do not depend on the length of the location.
            assert_close((by_loc * loc).sum(-1), torch.zeros(3, dtype=DOUBLE))


def test_second_derivatives_of_expectations_are_unbiased():
    """Hessian of E t^2 x.W x over heights t = mu.x uniform on [-1, 1], as on the sphere."""
    torch.manual_seed(1)
    n, weights = 400_000, torch.tensor([[2.0, 0.3, 0.0], [0.3, -1.0, 0.5], [0.0, 0.5, 0.4]])
    weights = weights.double()
    near = torch.rand(n, dtype=DOUBLE)
    free = double([0.5, -0.2, 1.0], requires_grad=True)

    def expectation(mu):
        # x x^T has the mean t^2 mu mu^T + (1 - t^2) / 2 (I - mu mu^T) over directions.
        fourth = 1 / 5  # E t^4
        across = (1 / 3 - fourth) / 2
        along = mu @ weights @ mu
        return fourth * along + across * (weights.trace() - along)

    mu = normalize(free, dim=-1)
    x = polar_point(mu.expand(n, 3), near, 1 - near, torch.randn(n, 3, dtype=DOUBLE))
    t = 1 - 2 * near
    values = t**2 * ((x @ weights) * x).sum(-1)
    first = grad(values.mean(), free, create_graph=True)[0]
    expected = grad(expectation(normalize(free, dim=-1)), free, create_graph=True)[0]
    assert_close(first, expected, rtol=0, atol=0.01)
    for i in range(3):
        found = grad(first[i], free, retain_graph=True)[0]
        exact = grad(expected[i], free, retain_graph=True)[0]
        assert_close(found, exact, rtol=0, atol=0.02)


@BOTH
def test_log_far_share_is_precise_at_both_poles(dtype):
    angle = double([0.0, 1e-4, 1e-3, 0.5, 2.0, 3.0, math.pi - 1e-3, math.pi - 1e-4])
    x = torch.stack([angle.cos(), angle.sin()], -1).to(dtype)
    loc = torch.tensor([1.0, 0.0], dtype=dtype)
    with mpmath.workdps(30):
        # The points that were given, whose length is rounded, and not the angles.
        exact = [
            float(2 * mpmath.log(mpmath.cos(mpmath.atan2(v[1].item(), v[0].item()) / 2)))
            for v in x
        ]
    found = log_far_share(loc, x)
    rtol = 5e-7 if dtype == torch.float32 else 1e-13
    assert_close(found[1:].double(), double(exact)[1:], rtol=rtol, atol=1e-15)
    assert found[0] == 0


@BOTH
@DIMS
def test_log_far_share_has_a_floor_at_the_antipode(dim, dtype):
    loc = some(dim, dtype)[0].requires_grad_()
    x = (-loc).detach().requires_grad_()
    share = log_far_share(loc, x)
    assert_close(share, torch.full_like(share, 2 * math.log(torch.finfo(dtype).eps)))
    for g in grad(share.sum(), [loc, x]):
        assert not g.any()


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_log_far_share_derivatives_agree_with_finite_differences(dim):
    loc, x = some(dim, size=3)
    free = [loc.requires_grad_(), x.requires_grad_()]

    def share(loc, x):
        return log_far_share(normalize(loc, dim=-1), normalize(x, dim=-1))

    assert gradcheck(share, free)
    assert gradgradcheck(share, free)
    assert gradcheck(lambda x: share(loc.detach()[0], x), free[1:])


def test_vmap_of_derivatives():
    loc, near, far, direction = points(4)
    other = normalize(direction, dim=-1)

    def total(loc, near, far):
        return (polar_point(loc, near, far, direction[0]) * other[0]).sum()

    def normal_total(loc, far):
        return (normal_polar_point(loc, far, direction[0]) * other[0]).sum()

    for function, free in [
        (total, [loc, near, far]),
        (normal_total, [loc, far]),
        (lambda loc, x: log_far_share(loc, x), [loc, other]),
    ]:
        leaves = [x.clone().requires_grad_() for x in free]
        values = torch.stack([function(*(x[i] for x in leaves)) for i in range(3)])
        numbers = tuple(range(len(free)))
        assert_close(torch.vmap(function)(*free), values.detach())
        mapped = torch.vmap(torch.func.grad(function, argnums=numbers))(*free)
        for found, expected in zip(mapped, grad(values.sum(), leaves), strict=True):
            assert_close(found, expected)
        # Only the first argument is mapped.
        fixed = [x[0] for x in free[1:]]
        alone = torch.vmap(torch.func.grad(function), in_dims=(0, *[None] * len(fixed)))
        for i, found in enumerate(alone(free[0], *fixed)):
            assert_close(found, torch.func.grad(function)(free[0][i], *fixed))
