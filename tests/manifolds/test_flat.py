"""Circle, torus, Klein bottle, Moebius band and Euclidean space: vectors, seams and optimisers."""

import copy
import itertools
import math
import pickle

import geoopt
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import Circle, Euclidean, KleinBottle, MoebiusBand, Torus, WrappedNormal

PI = math.pi
OPEN_BAND = MoebiusBand(math.inf)
MANIFOLDS = [Circle(), Torus(1), Torus(3), KleinBottle(), MoebiusBand(), OPEN_BAND, Euclidean(2)]
GLIDES = [KleinBottle(), MoebiusBand(), OPEN_BAND]

manifolds = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)
glides = pytest.mark.parametrize("manifold", GLIDES, ids=repr)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


def points(manifold, number, dtype=torch.float64):
    """Points of the manifold, canonical, by a wide wrapped normal (which needs no volume)."""
    loc = torch.zeros(manifold.event_shape, dtype=dtype)
    return WrappedNormal(manifold, loc, 4.0).sample((number,))


def brute_force_dist(manifold, x, y):
    """Smallest distance in the plane from ``x`` to any of 99 lifts of ``y``."""
    distances = []
    for k, turns in itertools.product(range(-5, 6), range(-4, 5)):
        if not isinstance(manifold, KleinBottle) and turns:
            continue
        across = (-1) ** k * y[..., 1] + 2 * PI * turns
        lift = torch.stack([y[..., 0] + k * PI, across], -1)
        distances.append((lift - x).norm(dim=-1))
    return torch.stack(distances).amin(0)


# The vectors of the Klein bottle.


@pytest.mark.parametrize(
    ("x", "y", "dist", "log", "sign"),
    [
        ((0.3, 1.0), (3.0, -1.2), 0.484772185365946, (-0.441592653589793, 0.2), -1),
        ((0.1, -3), (3.1, -3), 0.316610798541357, (-0.141592653589793, -0.283185307179586), -1),
        ((1.5, 2.5), (1.6, -2.9), 0.888828603735219, (0.1, 0.883185307179586), 1),
        ((0.2, 0.5), (2.9, 0.5), 1.09316241780646, (-0.441592653589793, -1.0), -1),
    ],
)
def test_klein_distance_logarithm_and_transport_match_the_vectors(x, y, dist, log, sign):
    klein, x, y = KleinBottle(), vector(*x), vector(*y)
    assert_close(klein.dist(x, y), vector(dist)[0], rtol=0, atol=6e-15)
    assert_close(klein.logmap(x, y), vector(*log), rtol=0, atol=1e-15)
    assert_close(klein.transp(x, y, vector(0.7, 0.5)), vector(0.7, 0.5 * sign))


def test_klein_diameter_is_reached():
    found = KleinBottle().dist(vector(0, 0), vector(PI / 2, -PI))
    assert_close(found, vector(3.51240736552036)[0], rtol=0, atol=4e-15)
    assert_close(found, vector(PI * math.sqrt(5) / 2)[0], rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("x", "v", "y", "sign"),
    [
        ((0.3, 1.0), (3.0, 0.5), (0.158407346410207, -1.5), -1),
        ((3.0, -2.0), (7.0, -2.0), (0.575222039230621, -2.28318530717959), -1),
        ((1.0, 3.0), (0.0, 1.0), (1.0, -2.28318530717959), 1),
    ],
)
def test_klein_exponential_and_frame_match_the_vectors(x, v, y, sign):
    klein, x, v = KleinBottle(), vector(*x), vector(*v)
    moved, w = klein.expmap_transp(x, v, vector(0.7, 0.5))
    assert_close(moved, vector(*y), rtol=0, atol=4e-15)
    assert_close(w, vector(0.7, 0.5 * sign))


@pytest.mark.parametrize(
    ("y", "ambient"),
    [
        (
            (0.3, 1.0),
            (0.4126678074548, 0.2823212366975, 0.5403023058681, 0.8038879363274, 0.24867167933),
        ),
        (
            (2.5, -2.0),
            (
                0.1418310927316,
                -0.4794621373316,
                -0.4161468365471,
                0.7284778281347,
                -0.5441891806606,
            ),
        ),
    ],
)
def test_klein_embedding_matches_the_vectors(y, ambient):
    assert_close(KleinBottle().embed(vector(*y)), vector(*ambient), rtol=0, atol=6e-14)


@pytest.mark.parametrize(
    ("ambient", "y"),
    [
        ((0.2, -0.4, 0.1, 0.5, -0.3), (2.588018294693, -1.400935622736)),
        ((-1.0, 0.01, -0.5, 0.2, 0.7), (1.565796493452, 2.190376701675)),
        ((0.3, 0.4, -0.2, -0.1, 0.9), (0.4636476090008, 2.139312122828)),
    ],
)
def test_klein_unembedding_matches_the_vectors(ambient, y):
    assert_close(KleinBottle().unembed(vector(*ambient)), vector(*y), rtol=0, atol=6e-13)


def test_klein_embedded_moments_match_the_vector_the_quadrature_and_the_samples():
    klein, loc, scale = KleinBottle(), vector(0.7, -1.1), vector(0.6, 0.9)
    expected = vector(
        *(0.0413659451229, 0.239834939604, 0.302538094486, -0.379741732436, -0.319852048808)
    )
    q = WrappedNormal(klein, loc, scale)
    angles = 2 * PI * torch.arange(64, dtype=torch.float64) / 64
    nodes = torch.cartesian_prod(angles, angles)  # the torus, twice the Klein bottle
    weights = q.log_prob(nodes).exp().unsqueeze(-1) * klein.volume
    assert_close((weights * klein.embed(nodes)).mean(0), expected, rtol=0, atol=6e-13)
    features = klein.embed(q.sample((40_000,)))
    error = features.std(0) / math.sqrt(len(features))
    assert ((features.mean(0) - expected).abs() < 4.5 * error).all()


# The Moebius band.


@pytest.mark.parametrize(
    ("x", "y", "dist"),
    [
        ((0.3, 0.5), (3.0, -0.7), 0.484772185365946),
        ((0.3, 0.5), (1.2, -0.7), 1.5),
        ((0.1, 2.0), (3.1, 2.0), 3.0),
    ],
)
def test_moebius_distance_matches_the_vectors(x, y, dist):
    assert_close(OPEN_BAND.dist(vector(*x), vector(*y)), vector(dist)[0], rtol=0, atol=1e-15)


def test_moebius_exponential_clamps_at_the_edge_and_the_covering_folds():
    band, x, v = MoebiusBand(0.5), vector(0.3, 0.2), vector(0.0, 0.6)
    stopped = band.expmap(x, v)
    assert_close(stopped, vector(0.3, 0.5))
    assert stopped[1] < 0.5
    assert_close(band.covering(x + v), vector(0.3, 0.2))  # 0.8 is reflected at 0.5
    assert_close(band.covering(x + vector(0.0, 2.0)), vector(0.3, 0.2))  # the whole period
    assert_close(band.covering(vector(0.3 + PI, -0.7)), vector(0.3, 0.3))


def test_moebius_unembedding_clamps_heights_to_the_band():
    band = MoebiusBand(0.5)
    y = band.unembed(vector(0.5, 0.0, -7.0, 0.0))
    assert band.contains(y)
    assert_close(y, vector(0.0, -0.5))


def test_moebius_points_on_the_edge_or_beyond_are_not_on_the_band():
    band = MoebiusBand(0.5)
    inside = band.contains(vector(0.0, 0.5, 0.0, -0.6, 9.0, 0.49).reshape(3, 2))
    assert inside.tolist() == [False, False, True]


# Laws of all of them.


@manifolds
@dtypes
def test_unembed_inverts_embed(manifold, dtype):
    y = points(manifold, 500, dtype)
    if manifold == OPEN_BAND:
        y[:, 1].clamp_(-3, 3)
    back = manifold.unembed(manifold.embed(y))
    assert_close(
        manifold.dist(y, back), torch.zeros(500, dtype=dtype), rtol=0, atol=_eps(dtype, 30)
    )


@manifolds
@dtypes
def test_log_inverts_exp(manifold, dtype):
    x, y = points(manifold, 500, dtype), points(manifold, 500, dtype)
    v = manifold.logmap(x, y)
    zero = torch.zeros(500, dtype=dtype)
    assert_close(manifold.dist(manifold.expmap(x, v), y), zero, rtol=0, atol=_eps(dtype, 60))
    assert_close(manifold.norm(x, v), manifold.dist(x, y), rtol=0, atol=0)


@glides
def test_distance_equals_the_smallest_over_many_lifts(manifold):
    x, y = points(manifold, 300), points(manifold, 300)
    expected = brute_force_dist(manifold, x, y)
    assert_close(manifold.dist(x, y), expected, rtol=0, atol=5e-15)


@manifolds
def test_distance_is_a_metric_on_classes_of_representatives(manifold):
    x, y, z = points(manifold, 300), points(manifold, 300), points(manifold, 300)
    assert_close(manifold.dist(x, y), manifold.dist(y, x), rtol=0, atol=1e-14)
    assert (manifold.dist(x, z) <= manifold.dist(x, y) + manifold.dist(y, z) + 1e-14).all()
    for lift in manifold.covering.fibre(x):
        assert_close(
            manifold.dist(manifold.covering(lift), y), manifold.dist(x, y), atol=2e-14, rtol=0
        )


@manifolds
def test_embedding_takes_one_value_on_a_whole_fibre(manifold):
    y = points(manifold, 100)
    # Further lifts to the cover of a finite band are reflections, beyond the band proper.
    lifts = manifold.deck(y)[:2] if manifold == MoebiusBand() else manifold.covering.fibre(y)
    embedded = manifold.embed(lifts)
    assert_close(embedded, embedded[:1].expand_as(embedded), rtol=0, atol=3e-14)


@glides
@pytest.mark.parametrize("step", [1e-9, 1e-6])
def test_unembedding_is_continuous_across_the_seam(manifold, step):
    h = torch.linspace(-0.9, 0.9, 31, dtype=torch.float64)
    ends = [torch.stack([torch.full_like(h, t), h], -1) for t in (step, -step)]
    across = [manifold.unembed(manifold.embed(end)) for end in ends]
    assert (manifold.dist(*across) < 3 * step).all()
    # The coordinates do jump: otherwise this test would not cross the seam.
    assert ((across[0] - across[1])[:, 0].abs() > 3).all()


@glides
def test_a_vector_carried_once_round_comes_back_reflected(manifold):
    x, w = vector(0.4, 0.1), vector(0.3, 0.7)
    around, carried = manifold.expmap_transp(x, vector(PI, -0.2), w)
    assert_close(
        manifold.dist(around, x), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-15
    )
    assert_close(carried, vector(0.3, -0.7))
    twice, carried = manifold.expmap_transp(x, vector(2 * PI, 0), w)
    assert_close(twice, x)
    assert_close(carried, w)


@glides
def test_transport_across_the_seam_flips_the_frame_and_within_does_not(manifold):
    w = vector(0.3, 0.7)
    left, right, middle = vector(3.1, 0.2), vector(0.1, -0.2), vector(2.0, 0.2)
    assert_close(manifold.transp(left, right, w), vector(0.3, -0.7))
    assert_close(manifold.transp(right, left, w), vector(0.3, -0.7))
    assert_close(manifold.transp(left, middle, w), w)


@glides
def test_transport_agrees_with_the_differential_of_the_embedding(manifold):
    x, y = points(manifold, 200) * vector(1, 0.5), points(manifold, 200) * vector(1, 0.5)
    v = manifold.logmap(x, y)
    w = torch.randn_like(v)
    end, carried = manifold.expmap_transp(x, v, w)

    def derivative(at, along):
        return torch.func.jvp(manifold.embed, (at,), (along,))[1]

    # In the lift the vector is constant, and the embedding does not see which lift it is.
    inside = end[:, 1].abs() < getattr(manifold, "half_width", 9) * 0.999
    expected = derivative(x + v, w)
    assert_close(derivative(end, carried)[inside], expected[inside], rtol=0, atol=1e-13)


@manifolds
def test_the_fibre_projects_to_the_point_and_lies_on_the_cover(manifold):
    y = points(manifold, 20)
    covering = manifold.covering
    fibre = covering.fibre(y)
    assert covering.domain.check(fibre).all()
    assert (manifold.dist(covering(fibre), y) < 1e-13).all()
    assert_close(covering(covering.inv(y)), y, rtol=0, atol=0)


def test_the_klein_orientation_cover_has_two_sheets_that_differ_by_the_deck_map():
    y = points(KleinBottle(), 20)
    covering = KleinBottle().orientation_covering
    first, second = covering.fibre(y)
    assert covering.num_sheets == 2
    assert_close(first, y)
    turned = Torus(2).projx(y * vector(1, -1) + vector(PI, 0))
    assert_close(second, turned)


# Canonical representatives at rounding edges.


def edges(dtype):
    """Multiples of pi and their neighbours, tiny numbers of both signs, and large angles."""
    turns = PI * torch.arange(-7, 8, dtype=dtype)
    tiny = torch.finfo(dtype).tiny
    small = torch.tensor([tiny, -tiny, -1e-30, -1e-12, 1e-12, -0.0, 1e3, -1e3], dtype=dtype)
    infinity = torch.full_like(turns, math.inf)
    return torch.cat([turns, turns.nextafter(infinity), turns.nextafter(-infinity), small])


@dtypes
def test_klein_canonical_points_lie_in_the_rectangle_at_rounding_edges(dtype):
    x = torch.cartesian_prod(edges(dtype), edges(dtype))
    y = KleinBottle().projx(x)
    pi = torch.tensor(PI, dtype=dtype)
    assert ((y[:, 0] >= 0) & (y[:, 0] < PI)).all()
    assert ((y[:, 1] >= -pi) & (y[:, 1] < pi)).all()
    # The point moves by no more than the rounding of the multiple of pi that was subtracted.
    gap = brute_force_dist(KleinBottle(), y.double(), Torus(2).projx(x.double()))
    assert (gap <= 4 * torch.finfo(dtype).eps * x.double().norm(dim=-1).clamp(min=1)).all()
    assert (KleinBottle().projx(y) == y).all()


@dtypes
@pytest.mark.parametrize("width", [1.0, math.inf])
def test_moebius_canonical_points_lie_in_the_strip_at_rounding_edges(dtype, width):
    x = torch.cartesian_prod(edges(dtype), torch.tensor([-0.7, 0.0, 0.3], dtype=dtype))
    y = MoebiusBand(width).projx(x)
    assert ((y[:, 0] >= 0) & (y[:, 0] < PI)).all()
    assert (y[:, 1].abs() == x[:, 1].abs()).all()
    gap = brute_force_dist(OPEN_BAND, y.double(), Torus(2).projx(x.double()))
    assert (gap <= 4 * torch.finfo(dtype).eps * x.double().norm(dim=-1).clamp(min=1)).all()


@dtypes
def test_canonicalisation_has_the_derivative_of_an_isometry(dtype):
    x = torch.tensor([[3.0, 1.0], [4.0, 1.0], [7.0, -8.0]], dtype=dtype, requires_grad=True)
    (slope,) = torch.autograd.grad(KleinBottle().projx(x).sum(), x)
    assert_close(slope, torch.tensor([[1.0, 1.0], [1.0, -1.0], [1.0, 1.0]], dtype=dtype))


# Optimisers.


@glides
@pytest.mark.parametrize("start", [PI - 0.03, 0.03])
def test_riemannian_adam_carries_its_momentum_across_the_seam(manifold, start):
    """A constant force pushes on in one physical direction, as Adam does in the plane above."""
    direction = 1.0 if start > 1 else -1.0
    force = vector(direction, 0.3)
    point = geoopt.ManifoldParameter(vector(start, 0.2), manifold=manifold)
    optimiser = geoopt.optim.RiemannianAdam([point], lr=0.01)
    lift = torch.nn.Parameter(vector(start, 0.2))
    in_the_plane = torch.optim.Adam([lift], lr=0.01)
    for step in range(12):
        sign = 1.0 if math.floor(lift[0].item() / PI) % 2 == 0 else -1.0
        varying = 1 + 0.5 * math.sin(step)  # so that the momentum matters
        point.grad = -varying * force * vector(1, sign)
        lift.grad = -varying * force
        optimiser.step()
        in_the_plane.step()
        assert_close(point.data, manifold.projx(lift.data), rtol=0, atol=1e-9)
    flipped = vector(1, -1)
    assert sign == -1  # the seam was crossed
    momentum = in_the_plane.state[lift]["exp_avg"] * flipped
    assert_close(optimiser.state[point]["exp_avg"], momentum, rtol=1e-12, atol=0)


@manifolds
def test_riemannian_sgd_finds_a_point_from_across_the_seam(manifold):
    x, target = points(manifold, 2)
    point = geoopt.ManifoldParameter(x, manifold=manifold)
    optimiser = geoopt.optim.RiemannianSGD([point], lr=0.3, momentum=0.3)
    for _ in range(60):
        optimiser.zero_grad()
        manifold.dist(point, target).square().mul(0.5).backward()
        optimiser.step()
    assert manifold.dist(point.detach(), target) < 1e-6


# The rest of the contract.


@pytest.mark.parametrize(
    ("manifold", "volume", "periods"),
    [
        (Circle(), 2 * PI, (2 * PI,)),
        (Torus(3), 8 * PI**3, (2 * PI,) * 3),
        (KleinBottle(), 2 * PI**2, (PI, 2 * PI)),
        (MoebiusBand(0.5), PI, (PI, 1.0)),
        (OPEN_BAND, math.inf, (PI, 1.0)),
        (Euclidean(2), math.inf, (1.0, 1.0)),
    ],
    ids=repr,
)
def test_volume_and_periods(manifold, volume, periods):
    assert manifold.volume == pytest.approx(volume, rel=1e-15)
    assert manifold.periods == pytest.approx(periods, rel=1e-15)
    assert len(manifold.periods) == manifold.scale_shape.numel() == manifold.dim


@pytest.mark.parametrize(
    "manifold", [Circle(), Torus(2), KleinBottle(), MoebiusBand(0.5)], ids=repr
)
@dtypes
def test_uniform_points_are_canonical_and_fill_the_manifold_evenly(manifold, dtype):
    y = manifold.random_uniform(20_000, *manifold.event_shape, dtype=dtype).as_subclass(
        torch.Tensor
    )
    assert y.dtype == dtype
    assert manifold.contains(y).all()
    assert_close(manifold.projx(y), y, rtol=0, atol=0)
    # The share of each box of equal area is binomial.
    flat = y.reshape(20_000, -1)
    low = 0.0 if manifold.dim == 2 and manifold != Torus(2) else -PI
    along = ((flat[:, 0] - low) / (PI - low) * 10).long()
    counts = torch.bincount(along, minlength=10).double()
    assert (counts.sub(2000).square() / 2000).sum() < 30  # chi-squared of 9 degrees: p < 5e-4


@manifolds
def test_equality_hash_copy_and_pickle(manifold):
    twin = pickle.loads(pickle.dumps(manifold))
    assert twin == manifold == copy.deepcopy(manifold)
    assert hash(twin) == hash(manifold)
    assert sum(manifold == other for other in MANIFOLDS) == 1


@manifolds
def test_equivalent_accepts_every_lift_and_refuses_other_points(manifold):
    y = points(manifold, 10)
    for lift in manifold.covering.fibre(y):
        assert manifold.equivalent(manifold.covering(lift), y).all()
    step = torch.full_like(y, 1e-3)
    assert not manifold.equivalent(manifold.expmap(y, step), y).any()


def _eps(dtype, factor):
    return factor * torch.finfo(dtype).eps
