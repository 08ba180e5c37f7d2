"""Spheres, their quotients and products: test vectors, and what tests/test_laws.py leaves out."""

import copy
import math
import pickle

import geoopt
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.manifolds.klein_bottle import KleinBottle
from pyro_manifolds.manifolds.lens_space import LensSpace
from pyro_manifolds.manifolds.product import Product
from pyro_manifolds.manifolds.projective_space import ProjectiveSpace
from pyro_manifolds.manifolds.so3 import SO3
from pyro_manifolds.manifolds.sphere import Sphere
from pyro_manifolds.manifolds.torus import Circle
from pyro_manifolds.ops.arcs import arc_exp, arc_log, arc_transport, cos_sinc, unit
from pyro_manifolds.ops.eigen import leading_eigenvector

QUOTIENTS = [
    Sphere(1),
    Sphere(2),
    Sphere(6),
    ProjectiveSpace(1),
    ProjectiveSpace(2),
    ProjectiveSpace(5),
    SO3(),
    LensSpace(1, 0),
    LensSpace(2, 1),
    LensSpace(3, 1),
    LensSpace(5, 2),
    LensSpace(8, 3),
]
PRODUCTS = [
    Product(Sphere(2)),
    Product(Circle(), ProjectiveSpace(2), SO3()),
    Product(KleinBottle(), Product(LensSpace(3, 1), Sphere(1))),
]
MANIFOLDS = QUOTIENTS + PRODUCTS

quotients = pytest.mark.parametrize("manifold", QUOTIENTS, ids=repr)
manifolds = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def tolerance(dtype):
    return {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]


def points(manifold, *batch, dtype=torch.float64):
    point = manifold.random_uniform(*batch, *manifold.event_shape, dtype=dtype)
    return point.as_subclass(torch.Tensor)


def tangents(manifold, x):
    return manifold.proju(x, torch.randn_like(x))


def injectivity_radius(manifold):
    parts = getattr(manifold, "manifolds", [manifold])
    if any(isinstance(part, Product) for part in parts):
        return min(map(injectivity_radius, parts))
    return min(period for part in parts for period in part.periods) / 2


def of_length(manifold, x, length):
    u = tangents(manifold, x)
    norm = manifold.norm(x, u).reshape(u.shape[: u.ndim - manifold.ndim] + (1,) * manifold.ndim)
    return u * (length / norm)


def gradient(function, *arguments):
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    return torch.autograd.grad(function(*leaves).sum(), leaves, materialize_grads=True)


# The test vectors.


def test_projective_plane_vectors():
    plane, x, y = ProjectiveSpace(2), vector(2, -3, 6) / 7, vector(1, 2, 2) / 3
    log = vector(0.2864944827026, 1.0591614209, 0.4340825495494)
    third = 0.3142696805274
    embedded = vector(0.1111111111111, third, third, 0.4444444444444, 0.6285393610547, 4 / 9)
    assert_close(plane.dist(x, y), vector(1.17997019621946)[0], atol=1e-14, rtol=0)
    assert_close(plane.logmap(x, y), log, atol=6e-13, rtol=0)
    assert_close(plane.embed(y), embedded, atol=1e-13, rtol=0)


def test_rotation_vectors():
    so3 = SO3()
    rotation = vector(
        *(-0.8947368421053, -0.3157894736842, -0.3157894736842),
        *(0.06315789473684, -0.7894736842105, 0.6105263157895),
        *(-0.4421052631579, 0.5263157894737, 0.7263157894737),
    )
    projected = so3.project(unit(vector(0.1, -0.2, 0.3, 0.9)))
    assert_close(so3.embed(projected), rotation, atol=1e-13, rtol=0)
    x, y = so3.project(unit(vector(1, 2, 3, 4))), so3.project(unit(vector(-2, 1, 0, 1)))
    assert_close(so3.dist(x, y), vector(1.26805037517189)[0], atol=1e-14, rtol=0)


def test_lens_space_vectors():
    d = LensSpace(5, 2).dist(vector(0.5, 0.5, 0.5, -0.5), vector(0.6, 0.0, 0.0, 0.8))
    assert_close(d, vector(1.0854499639226944)[0], atol=1e-15, rtol=0)


@pytest.mark.parametrize(
    ("manifold", "volume"),
    [
        (Sphere(1), 2 * math.pi),
        (Sphere(2), 4 * math.pi),
        (Sphere(3), 2 * math.pi**2),
        (ProjectiveSpace(3), math.pi**2),
        (SO3(), math.pi**2),
        (LensSpace(5, 2), 2 * math.pi**2 / 5),
        (Product(Circle(), Sphere(2)), 8 * math.pi**2),
    ],
    ids=repr,
)
def test_volume(manifold, volume):
    assert manifold.volume == pytest.approx(volume, rel=1e-14)


# Geodesics.


@quotients
def test_distance_is_the_least_arc_to_a_lift(manifold):
    x, y = points(manifold, 200), points(manifold, 200)
    cosines = (manifold.lift(x) * manifold.deck(manifold.lift(y))).sum(-1)
    arcs = cosines.clamp(-1, 1).acos().amin(0)
    assert manifold.deck(manifold.lift(y)).shape[0] == manifold.num_sheets
    assert_close(manifold.dist(x, y), arcs, atol=1e-7, rtol=0)
    assert_close(manifold.dist(x, y), manifold.dist(y, x), atol=1e-14, rtol=1e-14)
    assert manifold.dist(x, y, keepdim=True).shape == (200,) + (1,) * manifold.ndim
    assert manifold.dist(x[:, None], y[:3]).shape == (200, 3)


def test_product_distances_add_in_squares():
    product, parts = Product(Circle(), SO3()), [Circle(), SO3()]
    x, y = points(product, 50), points(product, 50)
    pairs = zip(parts, product.split(x), product.split(y), strict=True)
    squares = sum(part.dist(a, b).square() for part, a, b in pairs)
    assert_close(product.dist(x, y).square(), squares)


@quotients
def test_gradient_of_squared_distance_is_minus_twice_log(manifold):
    x, y = points(manifold, 50), points(manifold, 50)
    (grad,) = gradient(lambda x: manifold.dist2(x, y), x)
    assert_close(manifold.egrad2rgrad(x, grad), -2 * manifold.logmap(x, y), atol=1e-10, rtol=0)


def farthest(manifold, x):
    """Return points on the cut locus: opposite ones, or at a distance of half a period."""
    return manifold.expmap(x, of_length(manifold, x, manifold.periods[0] / 2))


@quotients
def test_derivatives_are_finite_on_the_cut_locus(manifold, dtype):
    x = points(manifold, 20, dtype=dtype)
    v = tangents(manifold, x)
    ends = [farthest(manifold, x)] + [-x] * isinstance(manifold, Sphere)
    for y in ends:
        for function in (manifold.dist, manifold.logmap, lambda x, y: manifold.transp(x, y, v)):
            assert torch.isfinite(function(x, y)).all()
            assert all(torch.isfinite(g).all() for g in gradient(function, x, y))
        assert manifold.dist(manifold.expmap(x, manifold.logmap(x, y)), y).max() < 1e-5
        assert_close(manifold.norm(y, manifold.transp(x, y, v)), manifold.norm(x, v))


def test_opposite_points_of_the_sphere_are_exactly_pi_apart(dtype):
    sphere, x = Sphere(3), points(Sphere(3), 30, dtype=dtype)
    assert_close(sphere.dist(x, -x), torch.full((30,), math.pi, dtype=dtype))
    u = sphere.logmap(x, -x)
    assert_close(sphere.norm(x, u), torch.full((30,), math.pi, dtype=dtype))
    assert sphere.check_vector_on_tangent(x, u)


def test_arcs_agree_with_finite_differences_across_the_change_to_series():
    x = unit(vector(1.0, 2.0, -0.5))
    across = unit(vector(0.5, 0.0, 1.0))
    for length in (0.0, 1e-4, 0.03162, 0.03163, 0.0632, 0.0633, 1.0, 3.0):
        u, v = (length * across).requires_grad_(), unit(vector(2.0, -1.0, 0.0)).requires_grad_()
        assert torch.autograd.gradcheck(lambda u: arc_exp(x, u), u)
        assert torch.autograd.gradcheck(lambda u, v: arc_transport(x, u, v), (u, v))
        assert torch.autograd.gradgradcheck(lambda u: arc_exp(x, u), u, atol=1e-4)
    for length in (1e-4, 0.0632, 0.0633, 1.0, 3.0):
        y = arc_exp(x, length * across).requires_grad_()
        assert torch.autograd.gradcheck(lambda y: arc_log(x, y), y, atol=1e-4)
    cos, sinc = cos_sinc(vector(0.000999, 0.001001, 9.0))
    assert_close(cos, vector(0.000999, 0.001001, 9.0).sqrt().cos(), atol=1e-16, rtol=1e-15)
    assert_close(
        sinc, torch.sinc(vector(0.000999, 0.001001, 9.0).sqrt() / math.pi), rtol=1e-15, atol=0
    )


# Transport.


@pytest.mark.parametrize(
    "manifold", [ProjectiveSpace(2), ProjectiveSpace(3), SO3(), Sphere(2)], ids=repr
)
def test_once_round_a_closed_geodesic_the_vector_comes_back_as_it_must(manifold):
    x = points(manifold, 20)
    u = of_length(manifold, x, manifold.periods[0])
    v, y = tangents(manifold, x), manifold.expmap(x, u)
    assert_close(y, x)
    # Minus one moves the frame with the point: vectors across the geodesic come back reversed.
    carried = manifold.transp_follow_expmap(x, u, v)
    along = manifold.inner(x, u, v) / manifold.inner(x, u)
    along = along.reshape([-1] + [1] * manifold.ndim) * u
    reverses = not isinstance(manifold, Sphere)
    assert_close(carried, along - (v - along) if reverses else v)


# Coordinates.


@quotients
def test_every_lift_gives_the_same_point(manifold, dtype):
    x = manifold.lift(points(manifold, 300, dtype=dtype))
    atol = 20 * tolerance(dtype)
    sheets = manifold.project(manifold.deck(x))
    assert_close(sheets, manifold.project(x).expand_as(sheets), atol=atol, rtol=0)
    assert_close(manifold.embed(sheets), manifold.embed(sheets[:1]).expand(*sheets.shape[:2], -1))
    assert manifold.contains(sheets).all()
    assert manifold.cover.contains(manifold.deck(x)).all()
    assert manifold.cover.event_shape == x.shape[1:]


@manifolds
def test_unembed_has_the_derivative_of_the_inverse(manifold):
    # d(unembed) d(embed) = identity on tangent vectors, by finite steps along geodesics.
    x = points(manifold, 20)
    u, w = tangents(manifold, x), torch.randn_like(x)
    step = 1e-6
    forward = manifold.embed(manifold.expmap(x, step * u))
    backward = manifold.embed(manifold.expmap(x, -step * u))
    (grad,) = gradient(lambda a: w * manifold.unembed(a), manifold.embed(x))
    slope = (grad * (forward - backward)).sum(-1) / (2 * step)
    expected = (w * u).flatten(1).sum(-1)
    if isinstance(manifold, SO3):
        expected = (manifold.proju(x, w) * u).flatten(1).sum(-1)
    assert_close(slope, expected, atol=1e-6, rtol=1e-6)


def test_chords_of_the_embeddings():
    for manifold, scale in [(ProjectiveSpace(4), math.sqrt(2)), (SO3(), math.sqrt(8))]:
        x, y = points(manifold, 100), points(manifold, 100)
        chord = (manifold.embed(x) - manifold.embed(y)).norm(dim=-1)
        assert_close(chord, scale * manifold.dist(x, y).sin())


def test_unembed_is_the_nearest_rotation():
    m = torch.randn(200, 3, 3, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(m)
    sign = torch.ones(200, 3, dtype=torch.float64)
    sign[:, 2] = torch.linalg.det(u @ vh)
    assert_close(SO3().unembed(m.flatten(1)), u @ (sign.unsqueeze(-1) * vh), atol=1e-10, rtol=0)


def test_unembed_is_the_leading_direction():
    plane = ProjectiveSpace(3)
    a = torch.randn(50, plane.embed_dim, dtype=torch.float64)
    candidates = points(plane, 2000)
    best = (plane.embed(plane.unembed(a)) * a).sum(-1)
    others = (plane.embed(candidates) @ a.mT).amax(0)
    assert (best > others).all()


def test_eigenvectors_have_exact_derivatives_where_smaller_eigenvalues_meet():
    basis = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64)).Q
    for spectrum in ([-1.0, -1.0, -1.0, 3.0], [-1.0, 0.3, 0.3, 1.0], [0.0, 1.0, 2.0, 3.0]):
        matrix = ((basis * vector(*spectrum)) @ basis.mT).requires_grad_()

        def projector(m):
            v = leading_eigenvector((m + m.mT) / 2)
            return v.unsqueeze(-1) * v.unsqueeze(-2)

        assert torch.autograd.gradcheck(projector, matrix)
        assert torch.autograd.gradgradcheck(projector, matrix)


@manifolds
def test_unembed_is_finite_and_so_is_its_gradient_at_singular_points(manifold, dtype):
    n = manifold.embed_dim
    singular = [torch.zeros(n), torch.ones(n), torch.eye(n)[0], -torch.eye(n)[-1]]
    a = torch.stack(singular).to(dtype)
    for scale in (1.0, 1e-30 if manifold in QUOTIENTS else 1e-15, 1e6):
        assert manifold.contains(manifold.unembed(scale * a)).all()
        assert torch.isfinite(gradient(manifold.unembed, scale * a)[0]).all()


def test_origin_of_the_rotations_is_the_identity():
    assert torch.equal(SO3().origin(3, 3).as_subclass(torch.Tensor), torch.eye(3))


@quotients
def test_contains_tells_points_from_others(manifold, dtype):
    x = points(manifold, 2000, dtype=dtype)
    assert manifold.contains(x).all()
    assert not manifold.contains(x * 1.001).any()
    assert manifold.check_point_on_manifold(x)
    assert not manifold.check_point_on_manifold(2 * x)


def test_reflections_are_no_rotations():
    assert not SO3().contains(torch.diag(vector(1, 1, -1)))
    assert not SO3().contains(-torch.eye(3))


@pytest.mark.parametrize("p", [1, 2, 3, 4, 5, 7, 8, 12])
def test_lens_representatives_are_canonical_on_the_seam_too(p, dtype):
    lens = LensSpace(p, 1 if p < 5 else p - 2 if p % 2 else p // 2 - 1)
    turns = torch.arange(2 * p, dtype=torch.float64) / p
    circle = torch.stack([(2 * math.pi * turns).cos(), (2 * math.pi * turns).sin()], -1)
    seam = torch.cat([0.6 * circle, 0.8 * circle.flip(0)], -1).to(dtype)
    core = torch.cat([0 * circle, circle], -1).to(dtype)
    for x in (seam, core, points(lens, 500, dtype=dtype)):
        y = lens.project(x)
        z = torch.view_as_complex(y.unflatten(-1, (2, 2)).contiguous())
        lead = torch.where(z[..., 0] == 0, z[..., 1], z[..., 0]).angle() % (2 * math.pi)
        assert (lead < 2 * math.pi / p).all()
        assert_close(lens.project(y), y)
        assert lens.dist(x, y).max() < tolerance(dtype)
    rotation = gradient(lambda x: lens.project(x) * torch.ones(4).to(dtype), seam)[0]
    assert_close(rotation.norm(dim=-1), torch.full((2 * p,), 2.0, dtype=dtype))


def test_lens_spaces_keep_their_deck_transformations_apart():
    x = points(LensSpace(5, 1), 20)
    moved = LensSpace(5, 2).deck(x)[1]
    assert (LensSpace(5, 1).dist(x, moved) > 1e-2).any()
    assert LensSpace(5, 2).dist(x, moved).max() < 1e-12


def test_projective_points_have_a_positive_first_coordinate():
    plane = ProjectiveSpace(2)
    x = vector(0, -0.6, 0.8)
    assert_close(plane.projx(x), -x)
    assert_close(plane.projx(-x), -x)
    assert (plane.projx(torch.randn(100, 3))[:, 0] > 0).all()


def test_canonical_quaternions_survive_half_turns(dtype):
    quaternions = unit(torch.randn(100, 4, dtype=dtype) * torch.tensor([0, 1, 1, 1], dtype=dtype))
    quaternions = torch.cat([quaternions, torch.eye(4, dtype=dtype)])
    so3 = SO3()
    lifted = so3.lift(so3.project(quaternions))
    assert_close((lifted * quaternions).sum(-1).abs(), torch.ones(104, dtype=dtype))
    (grad,) = gradient(lambda q: so3.lift(so3.project(q)) * 1.0, quaternions)
    assert torch.isfinite(grad).all()


def test_lift_of_rotations_inverts_the_projection_to_second_order():
    so3, q = SO3(), unit(vector(0.3, -0.1, 0.8, 0.4)).requires_grad_()
    assert torch.autograd.gradcheck(lambda q: so3.lift(so3.project(unit(q))), q)
    jacobian = torch.autograd.functional.jacobian(lambda q: so3.lift(so3.project(unit(q))), q)
    assert_close(jacobian, torch.eye(4).double() - torch.outer(q, q).detach())


# Uniform samples.


@quotients
def test_uniform_samples_have_the_moments_of_the_volume(manifold):
    n = 20_000
    x = manifold.random_uniform(n, *manifold.event_shape, dtype=torch.float64)
    assert isinstance(x, geoopt.ManifoldTensor)
    assert manifold.contains(x).all()
    embedded = manifold.embed(x.as_subclass(torch.Tensor))
    mean = torch.zeros(manifold.embed_dim, dtype=torch.float64)
    if isinstance(manifold, ProjectiveSpace):
        size = manifold.dim + 1
        rows, columns = torch.triu_indices(size, size)
        mean = (rows == columns).double() / size
    within(embedded, mean)
    # The squares of the coordinates of a uniform unit vector are on average one over their number.
    fibres = manifold.deck(manifold.lift(x.as_subclass(torch.Tensor)))
    size = fibres.shape[-1]
    ones = torch.ones(size, dtype=torch.float64)
    within(fibres.square().mean(0), ones / size)
    within((fibres**4).mean(0), 3 * ones / (size * (size + 2)))


def within(samples, mean):
    error = samples.std(0) / math.sqrt(samples.shape[0])
    assert ((samples.mean(0) - mean).abs() <= 5 * error + 1e-12).all()


def test_uniform_samples_of_a_product_are_independent():
    product = Product(Circle(), Sphere(2))
    t, x = product.split(points(product, 20_000))
    within(torch.stack([t.cos(), t.sin(), t.cos() * x[:, 0]], -1), torch.zeros(3).double())


# Optimisation.


@pytest.mark.parametrize(
    ("manifold", "start", "target"),
    [
        (ProjectiveSpace(2), (0.1, 0.0, 1.0), (-0.3, 0.0, 1.0)),
        (LensSpace(5, 2), (1.0, 0.1, 0.3, 0.5), (1.0, -0.3, 0.3, 0.5)),
    ],
    ids=["projective plane", "lens space"],
)
def test_momentum_follows_the_representative_across_the_seam(manifold, start, target):
    # The target lies just beyond the seam: on the way the representative moves to another sheet.
    x = geoopt.ManifoldParameter(manifold.projx(vector(*start)), manifold=manifold)
    target = manifold.projx(vector(*target))
    optimiser = geoopt.optim.RiemannianAdam([x], lr=0.02)
    path = [x.detach().clone().as_subclass(torch.Tensor)]
    for _ in range(10):
        optimiser.zero_grad()
        manifold.dist2(x, target).backward()
        optimiser.step()
        path.append(x.detach().clone().as_subclass(torch.Tensor))
    path = torch.stack(path)
    # Momentum that stayed behind would pull back: the steps after the seam would be shorter.
    assert ((path[1:] - path[:-1]).norm(dim=-1) > 0.1).sum() == 1
    assert (manifold.dist(path[:-1], path[1:]) > 0.015).all()


# Python.


@manifolds
def test_equality_hash_copy_and_pickle(manifold):
    for twin in (copy.deepcopy(manifold), pickle.loads(pickle.dumps(manifold))):
        assert twin == manifold
        assert hash(twin) == hash(manifold)
        x = points(manifold, 3)
        assert_close(twin.embed(x), manifold.embed(x))
    assert sum(manifold == other for other in MANIFOLDS) == 1
    assert eval(repr(manifold)) == manifold


def test_lens_spaces_depend_on_q_modulo_p():
    assert LensSpace(5, 7) == LensSpace(5, 2) == LensSpace(5, -3)
    x = points(LensSpace(5, 2), 5)
    assert_close(LensSpace(5, 7).embed(x), LensSpace(5, 2).embed(x))


def test_the_sphere_is_one_of_geoopt():
    assert isinstance(Sphere(2), geoopt.manifolds.Sphere)
    assert Sphere(2).cover == Sphere(2)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: Sphere(0), ValueError, "Sphere: expected dim of at least 1, got 0"),
        (lambda: ProjectiveSpace(-1), ValueError, "ProjectiveSpace: expected dim of at least 1"),
        (lambda: LensSpace(0, 1), ValueError, "expected p of at least 1, got 0"),
        (lambda: LensSpace(6, 3), ValueError, "coprime to p = 6, got 3"),
        (lambda: Product(), ValueError, "at least one manifold"),
        (lambda: Product(geoopt.Euclidean()), TypeError, "manifolds of pyro_manifolds"),
        (lambda: Sphere(2).random_uniform(5, 2), ValueError, r"ends in \(3,\)"),
    ],
)
def test_bad_arguments_are_named(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_product_splits_and_joins():
    product = Product(Circle(), SO3(), Sphere(2))
    x = points(product, 4, 2)
    parts = product.split(x)
    assert [part.shape for part in parts] == [(4, 2), (4, 2, 3, 3), (4, 2, 3)]
    assert torch.equal(product.join(parts), x)
    assert product.join([parts[0], parts[1][:, :1], parts[2][0, 0]]).shape == (4, 2, 13)
    assert product.scale_shape == (3,)
    assert product.periods == (2 * math.pi, math.pi, 2 * math.pi)
    assert product.embed_dim == 2 + 9 + 3
    assert product.dim == 6


def test_product_with_a_component_of_infinite_volume_has_no_uniform():
    from pyro_manifolds.manifolds.euclidean import Euclidean

    product = Product(Sphere(2), Euclidean(2))
    assert product.volume == math.inf
    with pytest.raises(ValueError, match="infinite"):
        product.random_uniform(5)


# Transformations of torch.


@quotients
def test_covers_go_through_the_compiler_in_one_graph(manifold):
    torch._dynamo.reset()  # or the compiler gives up after eight manifolds

    def walk(x, a):
        fibre = manifold.deck(manifold.lift(x))
        y = manifold.project(fibre)
        return manifold.dist(x, y), manifold.contains(y), manifold.embed(y), manifold.unembed(a)

    x, a = points(manifold, 4), torch.randn(4, manifold.embed_dim, dtype=torch.float64)
    compiled = torch.compile(walk, fullgraph=True, backend="eager")
    assert_close(compiled(x, a), walk(x, a))
