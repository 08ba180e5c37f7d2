"""Hyperbolic space: against geoopt, against mpmath near and far, and against its curvature."""

import math

import geoopt
import mpmath
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from pyro_manifolds.manifolds import Euclidean, Hyperboloid, PoincareBall, Sphere, as_manifold
from pyro_manifolds.ops.hyperbolic import log_sinhc

CURVATURES = (-1.0, -0.25, -4.0)
MODELS = (Hyperboloid, PoincareBall)
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def theirs(manifold):
    """The manifold of geoopt with the same points."""
    c = torch.tensor(-manifold.curvature, dtype=torch.float64)
    return geoopt.Lorentz(1 / c) if isinstance(manifold, Hyperboloid) else geoopt.PoincareBall(c)


def pair(manifold, size=50, spread=0.8):
    normal = spread * torch.randn(2, size, manifold.dim, dtype=torch.float64)
    return manifold.unembed(manifold.radius * normal)


def tangents(manifold, x):
    return manifold.from_frame(x, torch.randn(len(x), manifold.dim, dtype=x.dtype))


@pytest.mark.parametrize("curvature", CURVATURES)
@pytest.mark.parametrize("model", MODELS)
def test_agrees_with_geoopt(model, curvature):
    manifold = model(3, curvature)
    other = theirs(manifold)
    x, y = pair(manifold)
    u, v = tangents(manifold, x), tangents(manifold, x)
    assert other.check_point_on_manifold(x)
    assert manifold.check_vector_on_tangent(x, v)
    for name, arguments in {
        "dist": (x, y),
        "expmap": (x, u),
        "logmap": (x, y),
        "transp": (x, y, v),
        "transp_follow_expmap": (x, u, v),
        "proju": (x, torch.randn_like(x)),
        "egrad2rgrad": (x, torch.randn_like(x)),
    }.items():
        copies = [a.clone() for a in arguments]  # geoopt writes into gradients
        expected = getattr(other, name)(*copies)
        # Its curvature has been through a logarithm, and its roots are clamped.
        assert_close(getattr(manifold, name)(*arguments), expected, rtol=1e-7, atol=1e-7)
    inner = other.inner(x, u, v, keepdim=True)  # without, that of its ball has a wrong shape
    assert_close(manifold.inner(x, u, v, keepdim=True), inner, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("curvature", CURVATURES)
def test_models_are_isometric(curvature):
    hyperboloid, ball = Hyperboloid(3, curvature), PoincareBall(3, curvature)
    x, y = pair(hyperboloid)
    p, q = (ball.unembed(hyperboloid.embed(point)) for point in (x, y))
    assert_close(p, x[:, 1:] / (1 + x[:, :1] / hyperboloid.radius), rtol=1e-12, atol=1e-14)
    assert_close(ball.dist(p, q), hyperboloid.dist(x, y), rtol=1e-12, atol=0)
    assert_close(ball.log_frame(p, q), hyperboloid.log_frame(x, y), rtol=1e-11, atol=1e-12)
    v = torch.randn(50, 3, dtype=torch.float64)
    first = ball.to_frame(q, ball.transp(p, q, ball.from_frame(p, v)))
    second = hyperboloid.to_frame(y, hyperboloid.transp(x, y, hyperboloid.from_frame(x, v)))
    assert_close(first, second, rtol=1e-11, atol=1e-12)


def exact_log(x, y):
    """Distance and coordinates in the frame at ``x``, of the points with the given last entries.

    Translates ``y`` by the boost that takes ``x`` to the origin, with sixty digits.
    """
    with mpmath.workdps(60):
        a, b = ([mpmath.mpf(float(t)) for t in point[1:]] for point in (x, y))
        product = mpmath.fdot(a, b)
        p, q = (mpmath.sqrt(1 + mpmath.fdot(c, c)) for c in (a, b))
        moved = [t - s * q + s * product / (1 + p) for s, t in zip(a, b, strict=True)]
        length = mpmath.sqrt(mpmath.fdot(moved, moved))
        distance = mpmath.asinh(length)
        return float(distance), [float(distance * t / length) for t in moved]


PAIRS = [
    (1.0, 1.0, 1.0), (1.0, 1.0, 1e-5), (8.0, 8.0, 1e-3), (8.0, 8.0, 1e-6), (8.0, 8.0, 1.0),
    (8.0, 9.0, 0.0), (9.0, 8.0, 0.0), (8.0, 1.0, 1.0), (12.0, 0.5, 2.0), (0.1, 40.0, 0.3),
    (40.0, 0.1, 0.3), (40.0, 40.0, 1.0), (15.0, 15.0, 3.1), (0.0, 1e-4, 0.0), (3.0, 1e-6, 1.0),
]  # fmt: skip


@DTYPES
@pytest.mark.parametrize(("near", "far", "angle"), PAIRS)
def test_distances_of_the_hyperboloid_near_and_far(near, far, angle, dtype):
    """Distances are right to the last digit, unless directions from the origin differ by less."""
    space = Hyperboloid(3)
    frame = torch.linalg.qr(torch.randn(3, 3, dtype=torch.float64)).Q
    x = space.unembed((near * frame[0]).to(dtype))
    turned = math.cos(angle) * frame[0] + math.sin(angle) * frame[1]
    y = space.unembed((far * turned).to(dtype))
    distance, vector = exact_log(x, y)
    eps = torch.finfo(dtype).eps
    assert_close(space.dist(x, y).item(), distance, rtol=5 * eps, atol=0)
    # The direction of x itself is rounded, by as much as e^r times more across, see from there.
    error = (space.log_frame(x, y).double() - torch.tensor(vector, dtype=torch.float64)).norm()
    assert error / distance < eps * (8 + 0.5 * math.exp(min(near, far)))


@pytest.mark.parametrize("model", MODELS)
def test_geodesics_from_far_away_are_as_long_as_they_should(model):
    space = model(2)
    for r in (0.0, 3.0, 6.0, 8.0):
        x = space.unembed(r * torch.nn.functional.normalize(torch.randn(500, 2), dim=-1))
        for length in (0.1, 1.0, 3.0):
            v = length * torch.nn.functional.normalize(torch.randn(500, 2), dim=-1)
            y = space.exp_frame(x, v)
            # Rounding the coordinates of both ends moves them by that much.
            rounding = torch.finfo(x.dtype).eps * math.exp(r + length)
            assert (space.dist(x, y) - length).abs().max() < 2 * rounding
            assert (space.log_frame(x, y) - v).abs().max() < 2 * rounding


@DTYPES
@pytest.mark.parametrize("model", MODELS)
def test_beyond_reach_points_stay_at_the_end(model, dtype):
    space = model(3, -0.5)
    reach = space.reach(dtype)
    assert reach > (12 if dtype == torch.float32 else 30) * space.radius
    direction = torch.tensor([0.6, 0.0, -0.8], dtype=dtype)
    for v in (2 * reach * direction, 1e9 * direction):
        v = v.clone().requires_grad_()
        x = space.unembed(v)
        assert bool(space.contains(x))
        # Some ten roundings from the boundary, the distance on the ball has one digit.
        assert_close(
            space.dist(space.origin(*x.shape, dtype=dtype), x).item(), reach, rtol=1e-2, atol=0
        )
        (gradient,) = torch.autograd.grad(space.embed(x).sum(), v)
        assert bool(gradient.isfinite().all())
    onward = space.exp_frame(x.detach(), reach * direction)
    assert bool(space.contains(onward))


def test_projection_leaves_far_tangents_alone():
    space = Hyperboloid(2)
    x = space.unembed(torch.tensor([6.0, 5.0]))
    u = space.from_frame(x, torch.randn(100, 2))
    assert torch.equal(space.proju(x, u)[:, 1:], u[:, 1:])


@pytest.mark.parametrize("model", MODELS)
def test_a_vector_turns_by_the_area_of_a_triangle(model):
    """Gauss and Bonnet: curvature times area is the defect of the angles."""
    space = model(2, -0.5)
    corners = space.unembed(torch.randn(3, 2, dtype=torch.float64))
    angles = 0.0
    for i in range(3):
        to = [space.log_frame(corners[i], corners[j]) for j in range(3) if j != i]
        angles += math.acos(float(torch.cosine_similarity(*to, dim=0)))
    v = start = torch.tensor([1.0, 0.0], dtype=torch.float64)
    for i in range(3):
        x, y = corners[i], corners[(i + 1) % 3]
        v = space.to_frame(y, space.transp(x, y, space.from_frame(x, v)))
    turned = math.atan2(float(v[1]), float(v[0]))
    assert_close(abs(turned), math.pi - angles, rtol=0, atol=1e-12)
    assert_close(v.norm(), start.norm())


@pytest.mark.parametrize("curvature", CURVATURES)
def test_volume_element_is_that_of_the_metric(curvature):
    v = torch.randn(20, 3, dtype=torch.float64)
    for space in (Hyperboloid(3, curvature), PoincareBall(3, curvature)):
        jacobian = torch.vmap(torch.func.jacfwd(space.unembed))(v)
        if isinstance(space, Hyperboloid):
            metric = torch.diag(torch.tensor([-1.0, 1.0, 1.0, 1.0], dtype=torch.float64))
        else:
            factor = 2 / (1 + curvature * space.unembed(v).square().sum(-1))
            metric = factor.square()[:, None, None] * torch.eye(3, dtype=torch.float64)
        expected = 0.5 * torch.logdet(jacobian.mT @ metric @ jacobian)
        assert_close(space.log_volume_element(v), expected, rtol=1e-9, atol=1e-11)


@DTYPES
def test_log_sinhc(dtype):
    square = torch.logspace(-12, 5, 60, dtype=dtype).requires_grad_()
    found = log_sinhc(square)
    (slope,) = torch.autograd.grad(found.sum(), square)

    def exact(s):
        return mpmath.log(mpmath.sinh(mpmath.sqrt(s)) / mpmath.sqrt(s))

    with mpmath.workdps(40):
        at = [mpmath.mpf(s) for s in square.tolist()]
        values = [float(exact(s)) for s in at]
        slopes = [float(mpmath.diff(exact, s, h=s / 10**12)) for s in at]
    eps = torch.finfo(dtype).eps
    values, slopes = (torch.tensor(numbers, dtype=torch.float64) for numbers in (values, slopes))
    assert_close(found.double(), values, rtol=10 * eps, atol=eps)
    assert_close(slope.double(), slopes, rtol=50 * eps, atol=0)


@pytest.mark.parametrize("model", MODELS)
def test_optimiser_finds_a_far_point(model):
    """A step of length one at a time, in float32, from six units out on the other side."""
    space = model(2)
    target = space.unembed(torch.tensor([2.0, 1.0]))
    x = geoopt.ManifoldParameter(space.unembed(torch.tensor([-5.0, -4.0])), manifold=space)
    assert isinstance(space, geoopt.Manifold)
    optimiser = geoopt.optim.RiemannianSGD([x], lr=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        (0.5 * space.dist2(x, target)).backward()
        optimiser.step()
    assert space.dist(x, target) < 1e-4


@pytest.mark.parametrize("model", MODELS)
def test_random_and_origin(model):
    space = model(2, -2.0)
    x = space.random(1000, *space.event_shape, std=0.5, dtype=torch.float64)
    assert isinstance(x, geoopt.ManifoldTensor)
    squares = space.dist(space.origin(*space.event_shape, dtype=torch.float64), x).square()
    assert abs(squares.as_subclass(Tensor).mean() - 0.5) < 0.1
    with pytest.raises(ValueError, match="infinite"):
        space.random_uniform(*space.event_shape)


@pytest.mark.parametrize("model", MODELS)
def test_bad_arguments(model):
    with pytest.raises(ValueError, match="expected dim of at least 1, got 0"):
        model(0)
    for curvature in (0.0, 1.0, math.nan, -math.inf):
        with pytest.raises(ValueError, match="expected curvature < 0, got"):
            model(2, curvature)
    with pytest.raises(TypeError, match="requires_grad"):
        model(2, torch.tensor(-1.0, requires_grad=True))
    assert model(2) != model(2, -0.5)


def test_manifolds_of_geoopt():
    assert as_manifold(geoopt.Lorentz(k=4.0), torch.Size([3])) == Hyperboloid(2, -0.25)
    assert as_manifold(geoopt.Stereographic(k=-0.5), torch.Size([9, 3])) == PoincareBall(3, -0.5)
    ball = as_manifold(geoopt.PoincareBall(c=2.0), torch.Size([3]))
    assert_close(ball.curvature, -2.0, rtol=1e-6, atol=0)
    assert as_manifold(Sphere(2), torch.Size([3])) == Sphere(2)
    for learnable in (geoopt.Lorentz(learnable=True), geoopt.PoincareBall(learnable=True)):
        with pytest.raises(ValueError, match="fixed curvature"):
            as_manifold(learnable, torch.Size([3]))
    with pytest.raises(ValueError, match="curvature < 0"):
        as_manifold(geoopt.SphereProjection(), torch.Size([3]))
    for other in (geoopt.Sphere(), geoopt.Lorentz, Euclidean):
        with pytest.raises(TypeError, match="expected a manifold of pyro_manifolds"):
            as_manifold(other, torch.Size([3]))
