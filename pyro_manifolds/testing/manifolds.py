"""Laws of manifolds: geodesics, distance, transport, coordinates."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable

import geoopt
import torch
from torch import Size, Tensor
from torch.testing import assert_close

from pyro_manifolds.testing.cases import ManifoldCase
from pyro_manifolds.testing.statistics import assert_mean

__all__ = [
    "check_bad_shapes",
    "check_both_transports_agree",
    "check_derivatives_at_equal_points",
    "check_distance_is_least_over_orbit",
    "check_embed_is_invariant",
    "check_equality_and_copies",
    "check_exp_inverts_log",
    "check_log_inverts_exp",
    "check_manifold_vmap",
    "check_nan_passes",
    "check_optimiser_crosses_the_seam",
    "check_projection",
    "check_small_distances",
    "check_transport_is_isometric",
    "check_triangle_inequality",
    "check_unembed_inverts_embed",
    "check_unembed_is_finite",
    "check_uniform_samples",
]


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-5 if dtype == torch.float32 else 1e-12


def _gradient(function: Callable[..., Tensor], *arguments: Tensor) -> tuple[Tensor, ...]:
    leaves = [argument.detach().clone().requires_grad_() for argument in arguments]
    # The sum ties the result to all arguments, also to those on which it does not depend.
    result = function(*leaves).sum() + sum((0 * leaf).sum() for leaf in leaves)
    return torch.autograd.grad(result, leaves)


def check_log_inverts_exp(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Inside the injectivity radius log inverts exp, and distances are lengths."""
    manifold, x = case.manifold, case.points(dtype, 200)
    atol = 30 * _tolerance(dtype)
    for length in (1e-20, 1e-3, 0.3 * case.injectivity_radius, 0.98 * case.injectivity_radius):
        u = case.tangents(x, length)
        y = manifold.expmap(x, u)
        lengths = torch.full((200,), length, dtype=dtype)
        assert bool(manifold.contains(y).all())
        assert_close(manifold.logmap(x, y), u, atol=atol, rtol=0)
        assert_close(manifold.dist(x, y), lengths, atol=atol, rtol=0)
        assert_close(manifold.norm(x, u), lengths)


def check_exp_inverts_log(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Exp inverts log everywhere, and the length of log is the distance."""
    manifold, x, y = case.manifold, case.points(dtype, 200), case.points(dtype, 200)
    u = manifold.logmap(x, y)
    assert manifold.check_vector_on_tangent(x, u)
    assert manifold.dist(manifold.expmap(x, u), y).max() < 10 * _tolerance(dtype)
    assert_close(manifold.norm(x, u), manifold.dist(x, y))
    assert_close(manifold.inner(x, u), manifold.dist2(x, y))


def check_distance_is_least_over_orbit(case: ManifoldCase, dtype: torch.dtype) -> None:
    """The distance is the least one between lifts, over all images that matter."""
    assert case.orbit is not None
    assert case.cover_dist is not None
    x, y = case.points(dtype, 200), case.points(dtype, 200)
    images = case.cover_dist(x, case.orbit(y, 3))
    # An arc cosine, the simplest formula, loses half the digits near zero.
    assert_close(case.manifold.dist(x, y), images.amin(0), atol=1e-7, rtol=0)


def check_triangle_inequality(case: ManifoldCase, dtype: torch.dtype) -> None:
    """The distance is symmetric, zero on the diagonal alone, and the direct way is shortest."""
    manifold = case.manifold
    x, y, z = (case.points(dtype, 200) for _ in range(3))
    slack = 30 * _tolerance(dtype)
    xy = manifold.dist(x, y)
    assert_close(xy, manifold.dist(y, x), atol=_tolerance(dtype), rtol=0)
    assert bool((manifold.dist(x, z) <= xy + manifold.dist(y, z) + slack).all())
    assert bool((manifold.dist(x, x.clone()) <= slack).all())
    assert bool((xy > 0).all())
    assert manifold.dist(x, y, keepdim=True).shape == (200,) + (1,) * manifold.ndim
    assert manifold.dist(x[:, None], y[:3]).shape == (200, 3)


def check_small_distances(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Distances of a thousand roundings are still right to a few per cent."""
    x = case.points(dtype, 100)
    length = 1e3 * torch.finfo(dtype).eps
    d = case.manifold.dist(x, case.manifold.expmap(x, case.tangents(x, length)))
    assert_close(d, torch.full_like(d, length), rtol=2e-2, atol=length * 2e-2)


def check_derivatives_at_equal_points(case: ManifoldCase, dtype: torch.dtype) -> None:
    """At equal points and at the zero vector everything is finite, and exp the identity."""
    manifold, x = case.manifold, case.points(dtype, 20)
    zero, v, w = torch.zeros_like(x), case.tangents(x), case.tangents(x)
    at_points = [manifold.dist, manifold.logmap, lambda x, y: manifold.transp(x, y, v)]
    at_zero = [manifold.expmap, manifold.norm, lambda x, u: manifold.transp_follow_expmap(x, u, v)]
    for functions, second in [(at_points, x.clone()), (at_zero, zero)]:
        for function in functions:
            assert bool(function(x, second).isfinite().all())
            assert all(bool(g.isfinite().all()) for g in _gradient(function, x, second))
    assert_close(manifold.expmap(x, zero), x)
    assert_close(manifold.logmap(x, x.clone()), zero, atol=_tolerance(dtype), rtol=0)
    assert_close(manifold.transp(x, x.clone(), v), v)
    # Pushed forward: pulling back would tell of the metric of the ambient space as well.
    pushed = torch.func.jvp(lambda u: manifold.expmap(x, u), (zero,), (w,))[1]
    assert_close(manifold.proju(x, pushed), w)


def check_transport_is_isometric(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Transport is linear and keeps inner products of tangent vectors."""
    manifold, x, y = case.manifold, case.points(dtype, 100), case.points(dtype, 100)
    u = case.tangents(x, case.injectivity_radius / 2)
    v, w = case.tangents(x), case.tangents(x)
    moves = [
        (y, lambda v: manifold.transp(x, y, v)),
        (manifold.expmap(x, u), lambda v: manifold.transp_follow_expmap(x, u, v)),
        (manifold.retr(x, u), lambda v: manifold.retr_transp(x, u, v)[1]),
    ]
    atol = 30 * _tolerance(dtype)
    for end, move in moves:
        assert manifold.check_vector_on_tangent(end, move(v), atol=atol)
        inner = manifold.inner(x, v, w)
        assert_close(manifold.inner(end, move(v), move(w)), inner, atol=atol, rtol=0)
        assert_close(move(2 * v - w), 2 * move(v) - move(w), atol=atol, rtol=0)


def check_both_transports_agree(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Along shortest geodesics both transports agree, and carry the velocity along."""
    manifold, x = case.manifold, case.points(dtype, 100)
    u = case.tangents(x, 0.9 * case.injectivity_radius)
    v, y = case.tangents(x), manifold.expmap(x, u)
    atol = 30 * _tolerance(dtype)
    followed = manifold.transp_follow_expmap(x, u, v)
    assert_close(manifold.transp(x, y, v), followed, atol=atol, rtol=0)
    assert_close(manifold.transp(x, y, u), -manifold.logmap(y, x), atol=atol, rtol=0)
    assert_close(manifold.expmap_transp(x, u, v), (y, followed))


def check_embed_is_invariant(case: ManifoldCase, dtype: torch.dtype) -> None:
    """All representatives embed and project to the same point."""
    manifold, x = case.manifold, case.points(dtype, 200)
    for move in case.deck:
        for image in (move(x), move(move(x))):
            atol = 20 * _tolerance(dtype)
            assert_close(manifold.embed(image), manifold.embed(x), atol=atol, rtol=0)
            assert manifold.dist(manifold.projx(image), x).max() < atol
            assert bool(manifold.equivalent(image, x).all())
            assert bool(manifold.contains(image).all())


def check_unembed_inverts_embed(case: ManifoldCase, dtype: torch.dtype) -> None:
    """``unembed`` inverts ``embed``, up to the representative."""
    manifold, x = case.manifold, case.points(dtype, 300)
    a = manifold.embed(x)
    y = manifold.unembed(a)
    assert a.shape == (300, manifold.embed_dim)
    assert bool(manifold.contains(y).all())
    assert manifold.dist(x, y).max() < 20 * _tolerance(dtype)
    # Derivatives too: moving along a geodesic moves the image by the same vector.
    u, step = case.tangents(x), 1e-6
    if dtype == torch.float64:
        moved = manifold.embed(manifold.expmap(x, step * u))
        back = manifold.embed(manifold.expmap(x, -step * u))
        image = torch.func.jvp(manifold.unembed, (a,), ((moved - back) / (2 * step),))[1]
        length = manifold.norm(y, manifold.proju(y, image))
        assert_close(length, manifold.norm(x, u), atol=1e-6, rtol=1e-6)


def check_unembed_is_finite(case: ManifoldCase, dtype: torch.dtype) -> None:
    """``unembed`` and its gradient are finite everywhere, at zero too."""
    n = case.manifold.embed_dim
    singular = [torch.zeros(n), torch.ones(n), torch.eye(n)[0], -torch.eye(n)[-1]]
    a = torch.stack(singular).to(dtype)
    for scale in (1.0, 1e-15, 1e6):
        y = case.manifold.unembed(scale * a)
        assert bool(case.manifold.contains(y).all()), f"no point at {scale} times a singular one"
        assert bool(_gradient(case.manifold.unembed, scale * a)[0].isfinite().all())


def check_nan_passes(case: ManifoldCase, dtype: torch.dtype) -> None:
    """NaN is no point, and goes through ``unembed`` without an error."""
    a = torch.full((2, case.manifold.embed_dim), torch.nan, dtype=dtype)
    x = case.points(dtype, 2) * torch.nan
    assert not bool(case.manifold.contains(x).any())
    found = case.manifold.unembed(a).reshape(2, -1)
    assert bool(found.isnan().any(-1).all())


def check_projection(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Projecting once is projecting twice, and ends on the manifold; so does the origin."""
    manifold = case.manifold
    x = manifold.projx(torch.randn(500, *manifold.event_shape, dtype=dtype))
    assert bool(manifold.contains(x).all())
    assert_close(manifold.projx(x), x, atol=_tolerance(dtype), rtol=0)
    origin = manifold.origin(3, *manifold.event_shape, dtype=dtype)
    assert origin.dtype == dtype
    assert bool(manifold.contains(origin).all())


def check_uniform_samples(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Uniform draws fill balls in proportion to their volume, or infinity is refused."""
    manifold = case.manifold
    size = Size((20_000,)) + manifold.event_shape
    assert_close(manifold.volume, case.volume, rtol=1e-13, atol=0)
    if not manifold.is_compact:
        try:
            manifold.random_uniform(size)
        except ValueError:
            return
        raise AssertionError("uniform draws from an infinite volume")
    x = manifold.random_uniform(size, dtype=dtype)
    assert isinstance(x, geoopt.ManifoldTensor)
    x = x.as_subclass(Tensor)
    assert x.dtype == dtype
    assert bool(manifold.contains(x).all())
    assert_close(manifold.projx(x), x, atol=_tolerance(dtype), rtol=0)
    # A ball below the injectivity radius has a volume that does not depend on its centre.
    radius = 0.8 * case.injectivity_radius
    centres = case.points(dtype, 4)
    inside = torch.stack([manifold.dist(c.expand_as(x), x) < radius for c in centres], -1)
    share = inside.double().mean()
    assert_mean(inside.double(), share.expand(4), what="share of balls")


def check_optimiser_crosses_the_seam(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Riemannian Adam reaches a point beyond a seam by the short way."""
    manifold = case.manifold
    if case.crossing is None:
        target = case.points(dtype)
        start = manifold.expmap(target, case.tangents(target, 0.9 * case.injectivity_radius))
    else:
        start, target = (torch.tensor(point, dtype=dtype) for point in case.crossing)
    x = geoopt.ManifoldParameter(start, manifold=manifold)
    optimiser = geoopt.optim.RiemannianAdam([x], lr=0.2, betas=(0.8, 0.99), stabilize=20)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.97)
    length = first = manifold.dist(x, target).item()
    for _ in range(200):
        optimiser.zero_grad()
        loss = manifold.dist2(x, target)
        loss.backward()
        optimiser.step()
        scheduler.step()
        length = max(length, loss.item() ** 0.5)
    assert first > 1e-2
    assert manifold.dist2(x, target).item() < 1e-5, "the optimiser does not arrive"
    assert length < 2 * first + 0.5, "the optimiser took the long way"
    assert manifold.check_point_on_manifold(x)


def check_equality_and_copies(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Copies and pickles are equal, hash alike and embed alike."""
    manifold, x = case.manifold, case.points(dtype, 3)
    for twin in (copy.deepcopy(manifold), pickle.loads(pickle.dumps(manifold))):
        assert twin == manifold
        assert hash(twin) == hash(manifold)
        assert twin.support == manifold.support
        assert twin.covering == manifold.covering
        assert_close(twin.embed(x), manifold.embed(x))
    assert manifold != object()
    assert repr(manifold).startswith(type(manifold).__name__)


def check_bad_shapes(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Sizes and points that do not end in the event shape are refused, and named."""
    manifold = case.manifold
    if not manifold.ndim:
        return
    wrong = (5, *(n + 1 for n in manifold.event_shape))
    actions = [lambda: manifold.origin(*wrong), lambda: manifold.support.check(torch.zeros(wrong))]
    actions += [lambda: manifold.random_uniform(*wrong)] * manifold.is_compact
    for action in actions:
        try:
            action()
            message = f"no error at the shape {wrong}"
        except ValueError as error:
            message = str(error)
        assert str(tuple(manifold.event_shape)) in message, message


def check_manifold_vmap(case: ManifoldCase, dtype: torch.dtype) -> None:
    """Mapped over a batch, every method gives what it gives one by one."""
    manifold, x, y = case.manifold, case.points(dtype, 6), case.points(dtype, 6)
    u, a = case.tangents(x), torch.randn(6, manifold.embed_dim, dtype=dtype)

    def first(a: Tensor) -> Tensor:
        return manifold.unembed(a).square().reshape(-1)[0]

    calls: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (manifold.dist, (x, y)),
        (manifold.logmap, (x, y)),
        (manifold.expmap, (x, u)),
        (manifold.transp, (x, y, u)),
        (manifold.transp_follow_expmap, (x, u, u)),
        (manifold.contains, (x,)),
        (manifold.embed, (x,)),
        (manifold.unembed, (a,)),
        (torch.func.grad(first), (a,)),
    ]
    for function, arguments in calls:
        batched = torch.vmap(function)(*arguments)
        one_by_one = torch.stack([function(*each) for each in zip(*arguments, strict=True)])
        assert_close(batched, one_by_one)
