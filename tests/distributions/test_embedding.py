"""Embeddings and what is pushed through them: vectors by mpmath, second charts, divergences."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from mpmath import mp
from pyro.distributions import constraints
from scipy.special import betainc
from torch.distributions import biject_to, kl_divergence, transform_to
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Cylinder,
    Hyperboloid,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    ProjectiveSpace,
    Sphere,
    Torus,
    WrappedNormal,
)
from pyro_manifolds.distributions import EmbeddingPushforward
from pyro_manifolds.distributions.transforms import (
    Embedding,
    EqualAreaSphereEmbedding,
    FlatTorusEmbedding,
    FunctionEmbedding,
    ImageOf,
    ManifoldEmbedding,
    RevolutionTorusEmbedding,
    StereographicEmbedding,
)

F64 = {"dtype": torch.float64}
STRETCH = dist.transforms.AffineTransform(0.0, torch.tensor([2.0, 1.0], **F64))


def helix(z):
    return torch.cat([z.cos(), z.sin(), 0.3 * z], -1)


def saddle(z):
    a, b = z.unbind(-1)
    return torch.stack([a, b, a * b, a.sin()], -1)


HELIX = FunctionEmbedding(helix, lambda y: y[..., 2:] / 0.3, 1, 3)
SADDLE = FunctionEmbedding(saddle, lambda y: y[..., :2], 2, 4)
ELLIPSE = FlatTorusEmbedding(1).then(STRETCH)
TORUS_IN_SPACE = RevolutionTorusEmbedding(2.0, 0.5)


def cube(dim, dtype=torch.float64):
    return dist.Uniform(torch.zeros(dim, dtype=dtype), torch.ones(dim, dtype=dtype)).to_event(1)


def beta(*pairs):
    a, b = torch.tensor(pairs, **F64).unbind(-1)
    return dist.Beta(a, b).to_event(1)


# Computed with mpmath at 30 digits.
@pytest.mark.parametrize(
    ("embedding", "z", "expected"),
    [
        (FlatTorusEmbedding(1), (0.1,), 1.83787706640935),
        (ELLIPSE, (0.1,), 2.19348713175346),
        (TORUS_IN_SPACE, (0.1, 0.2), 3.75016957425022),
        (HELIX, (0.7,), 0.0430888481205262),
        (SADDLE, (0.5, -1.0), 0.583554131431537),
    ],
)
def test_volume_elements(embedding, z, expected):
    z = torch.tensor(z, **F64)
    found = embedding.log_abs_det_jacobian(z, embedding(z))
    assert found.item() == pytest.approx(expected, abs=1e-13)


EXPLICIT = [
    (FlatTorusEmbedding(1), cube(1)),
    (FlatTorusEmbedding(3), cube(3)),
    (TORUS_IN_SPACE, cube(2)),
    (EqualAreaSphereEmbedding(), cube(2)),
    (StereographicEmbedding(1), dist.Normal(torch.zeros(1, **F64), 2.0).to_event(1)),
    (StereographicEmbedding(4), dist.Normal(torch.zeros(4, **F64), 2.0).to_event(1)),
    *(
        (ManifoldEmbedding(manifold), ManifoldUniform(manifold, **F64))
        for manifold in (
            Circle(),
            Torus(3),
            Cylinder(1.0),
            KleinBottle(),
            MoebiusBand(),
            Sphere(2),
            ProjectiveSpace(3),
            SO3(),
        )
    ),
]
NAMES = [repr(embedding) for embedding, _ in EXPLICIT]
explicit = pytest.mark.parametrize(("embedding", "base"), EXPLICIT, ids=NAMES)


@explicit
def test_formulas_are_those_of_the_jacobian(embedding, base):
    """Torus of revolution included: its area element to 1e-12."""
    z = base.sample((200,))
    generic = Embedding.log_abs_det_jacobian(embedding, z, embedding(z))
    assert_close(embedding.log_abs_det_jacobian(z, embedding(z)), generic, atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("embedding", "base"), [row for row in EXPLICIT if isinstance(row[0], ManifoldEmbedding)]
)
def test_lengths_of_short_steps(embedding, base):
    """The frame that is pushed forward has unit length on the domain: by moves along geodesics."""
    manifold, h = embedding.manifold, 1e-5
    z = base.sample((50,))
    u = manifold.proju(z, torch.randn_like(z))
    u = u / manifold.norm(z, u).reshape(manifold.norm(z, u).shape + (1,) * manifold.ndim)
    step = embedding(manifold.expmap(z, h * u)) - embedding(manifold.expmap(z, -h * u))
    squares = (step / (2 * h)).square().sum(-1)
    gram = embedding.jacobian(z).mT @ embedding.jacobian(z)
    low, high = torch.linalg.eigvalsh(gram).aminmax(dim=-1)
    assert bool((squares >= low - 1e-8).all())
    assert bool((squares <= high + 1e-8).all())


@explicit
def test_inverse_undoes_the_map(embedding, base):
    y = embedding(base.sample((200,)))
    assert_close(embedding(embedding.inv(y)), y, atol=1e-12, rtol=1e-12)
    assert bool(embedding.codomain.check(y).all())
    assert not bool(embedding.codomain.check(y + 0.05).any())
    assert embedding.forward_shape(torch.Size((5, *embedding.domain_shape))) == (5, y.shape[-1])
    assert embedding.inverse_shape(torch.Size((5, y.shape[-1]))) == (5, *embedding.domain_shape)


def test_inverse_is_precise_near_the_poles():
    share = torch.tensor([1e-12, 1e-7, 1 - 1e-12], **F64)
    z = torch.stack([torch.full_like(share, 0.3), share], -1)
    embedding = EqualAreaSphereEmbedding()
    assert_close(embedding.inv(embedding(z)), z, rtol=1e-9, atol=1e-15)
    far = torch.tensor([3e6, -4e6], **F64)
    stereographic = StereographicEmbedding(2)
    assert_close(stereographic.inv(stereographic(far)), far)


def test_angles_just_below_zero_stay_below_one():
    """A law on [0, 1) has no density at one."""
    z = FlatTorusEmbedding(1).inv(torch.tensor([1.0, -1e-12]))
    assert 0.99 < z.item() < 1


def test_an_ellipse_has_all_its_mass():
    """What torch composes sums to 0.771 of it: the published trap, as a check of the check."""
    angles = torch.linspace(0, 2 * math.pi, 4001, **F64)[:-1]
    points = torch.stack([2 * angles.cos(), angles.sin()], -1)
    lengths = (4 * angles.sin().square() + angles.cos().square()).sqrt() * 2 * math.pi / 4000
    mp.dps = 20
    perimeter = 8 * mp.ellipe(mp.mpf(3) / 4)
    assert lengths.sum().item() == pytest.approx(float(perimeter), rel=1e-13)

    ours = EmbeddingPushforward(cube(1), ELLIPSE)
    assert (ours.log_prob(points).exp() * lengths).sum().item() == pytest.approx(1, abs=1e-12)
    composed = dist.TransformedDistribution(cube(1), [FlatTorusEmbedding(1), STRETCH])
    wrong = (composed.log_prob(points).exp() * lengths).sum().item()
    assert wrong == pytest.approx(0.770982212595020, abs=1e-12)


def test_composition_is_one_map():
    """Embedding after embedding, against the map written out."""
    bent = ELLIPSE.then(FunctionEmbedding(saddle, lambda y: y[..., :2], 2, 4))
    z = torch.rand(20, 1, **F64)

    def whole(z):
        angle = 2 * math.pi * z
        return saddle(torch.cat([2 * angle.cos(), angle.sin()], -1))

    plain = FunctionEmbedding(whole, lambda y: y[..., :1], 1, 4)
    assert_close(bent(z), whole(z))
    assert_close(bent.inv(bent(z)), z, atol=1e-12, rtol=0)
    assert_close(
        bent.log_abs_det_jacobian(z, bent(z)), plain.log_abs_det_jacobian(z, plain(z)), rtol=1e-12,
        atol=1e-12,
    )  # fmt: skip


def test_composition_after_a_curved_manifold():
    """The area of a prolate spheroid, as the mean volume element over the sphere it is made of."""
    axes = torch.tensor([1.0, 1.0, 2.0], **F64)
    ellipsoid = ManifoldEmbedding(Sphere(2)).then(dist.transforms.AffineTransform(0.0, axes))
    x = ManifoldUniform(Sphere(2), **F64).sample((40_000,))
    element = ellipsoid.log_abs_det_jacobian(x, ellipsoid(x)).exp()
    eccentricity = math.sqrt(0.75)  # of the prolate spheroid with half-axes 1 and 2
    area = 2 * math.pi * (1 + 2 / eccentricity * math.asin(eccentricity))
    found, error = 4 * math.pi * element.mean(), 4 * math.pi * element.std() / 200
    assert abs(found - area) < 5 * error
    assert error < 0.01 * area


def test_density_on_the_circle():
    d = EmbeddingPushforward(beta((2.0, 3.0)), FlatTorusEmbedding(1))
    angle = torch.tensor(2 * math.pi * 0.3, **F64)
    y = torch.stack([angle.cos(), angle.sin()])
    assert d.log_prob(y).item() == pytest.approx(-1.27029310882475, abs=1e-12)


def test_torus_of_revolution_through_a_second_chart():
    """Mass of a band around the tube, by angles there, against the incomplete beta function."""
    d = EmbeddingPushforward(beta((2.0, 3.0), (3.0, 2.0)), TORUS_IN_SPACE)
    nodes = (torch.arange(400, **F64) + 0.5) / 400
    around, along = torch.cartesian_prod(nodes, 0.25 * nodes).unbind(-1)  # a quarter of the tube
    around, along = 2 * math.pi * around, 2 * math.pi * along
    distance = 2 + 0.5 * along.cos()
    y = torch.stack([distance * around.cos(), distance * around.sin(), 0.5 * along.sin()], -1)
    area = 0.5 * distance * (2 * math.pi) ** 2 / 400**2 / 4
    mass = (d.log_prob(y).exp() * area).sum().item()
    assert mass == pytest.approx(betainc(3.0, 2.0, 0.25), abs=2e-5)  # midpoint rule: O(h^2)


def test_divergence_is_that_of_the_bases():
    for embedding, q, expected in [
        (FlatTorusEmbedding(1), beta((2.0, 3.0)), 0.234906649788000),
        (FlatTorusEmbedding(1), beta((5.0, 1.5)), 0.579905141061233),
        (FlatTorusEmbedding(2), beta((2.0, 3.0), (5.0, 1.5)), 0.814811790849233),
        (SADDLE, beta((2.0, 3.0), (5.0, 1.5)), 0.814811790849233),
    ]:
        p = cube(embedding.dim)
        pushed = EmbeddingPushforward(q, embedding), EmbeddingPushforward(p, embedding)
        assert kl_divergence(*pushed).item() == pytest.approx(expected, abs=1e-12)


def test_divergence_needs_equal_embeddings():
    other = FunctionEmbedding(lambda z: saddle(z), lambda y: y[..., :2], 2, 4)
    q, p = EmbeddingPushforward(cube(2), SADDLE), EmbeddingPushforward(cube(2), other)
    with pytest.raises(NotImplementedError):
        kl_divergence(q, p)
    with pytest.raises(NotImplementedError, match="uniform law becomes"):
        kl_divergence(q, ManifoldUniform(Sphere(2), **F64))


def test_uniform_laws_become_uniform():
    for embedding, manifold in [
        (FlatTorusEmbedding(1), Sphere(1)),
        (EqualAreaSphereEmbedding(), Sphere(2)),
    ]:
        d, uniform = EmbeddingPushforward(cube(embedding.dim), embedding), ManifoldUniform(
            manifold, **F64
        )  # fmt: skip
        y = uniform.sample((100,))
        assert_close(d.log_prob(y), uniform.log_prob(y), atol=1e-12, rtol=0)
        assert kl_divergence(d, uniform).item() == pytest.approx(0, abs=1e-12)


def test_equality_of_embeddings():
    again = RevolutionTorusEmbedding(2.0, 0.5)
    assert again == TORUS_IN_SPACE
    assert hash(again) == hash(TORUS_IN_SPACE)
    assert again.with_cache() == again
    assert RevolutionTorusEmbedding(2.0, 0.6) != again
    assert FlatTorusEmbedding(2) != FlatTorusEmbedding(3)
    assert FlatTorusEmbedding(1).then(STRETCH) == ELLIPSE
    assert hash(ELLIPSE) == hash(FlatTorusEmbedding(1).then(STRETCH))
    assert ManifoldEmbedding(KleinBottle()) == ManifoldEmbedding(KleinBottle())
    assert ManifoldEmbedding(Torus(2)) != ManifoldEmbedding(KleinBottle())


def test_a_rough_inverse_is_refined_at_every_scale():
    """A parabola of a size of thousands, from a guess that is off by a hundredth of it."""

    def parabola(z):
        return torch.cat([z, z.square() / 1000], -1)

    z = torch.linspace(-3000, 3000, 11, **F64).unsqueeze(-1)
    rough = FunctionEmbedding(parabola, lambda y: 1.01 * y[..., :1] + 20, 1, 2, refine_steps=6)
    assert_close(rough.inv(rough(z)), z, rtol=1e-12, atol=1e-9)


def test_fresh_draws_need_no_inverse():
    def inverse(y):
        raise AssertionError("the inverse was called")

    embedding = FunctionEmbedding(saddle, inverse, 2, 4)
    d = EmbeddingPushforward(cube(2), embedding, validate_args=False)
    z_and_log_prob = d.log_prob(d.rsample())
    assert math.isfinite(z_and_log_prob)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda d: pickle.loads(pickle.dumps(d))])
def test_copies_after_a_draw_with_gradient(copied):
    loc = torch.tensor([2.0], requires_grad=True)
    d = EmbeddingPushforward(dist.Normal(loc, 1.0).to_event(1), StereographicEmbedding(1))
    d.rsample()
    twin = copied(d)
    y = d.sample((5,))
    assert_close(twin.log_prob(y), d.log_prob(y))
    assert twin.embedding == d.embedding


def test_support_is_the_image_of_the_support_of_the_base():
    half = dist.Uniform(torch.zeros(1), torch.full((1,), 0.5)).to_event(1)
    d = EmbeddingPushforward(half, FlatTorusEmbedding(1))
    above, below = torch.tensor([0.6, 0.8]), torch.tensor([0.6, -0.8])
    assert d.support.check(above)
    assert not d.support.check(below)
    x = torch.linspace(-9, 9, 21).unsqueeze(-1)
    for registry in (biject_to, transform_to):
        assert bool(d.support.check(registry(d.support)(x)).all())


def test_bijections_to_an_image():
    """Onto it and back, with the volume element of the whole map."""
    transform = biject_to(ImageOf(TORUS_IN_SPACE))
    x = torch.randn(7, 2, **F64)
    y = transform(x)
    assert_close(transform.inv(y), x)
    logit = torch.sigmoid(x)
    expected = (logit * (1 - logit)).log().sum(-1)
    expected = (
        expected + (4 * math.pi**2 * 0.5 * (2 + 0.5 * (2 * math.pi * logit[:, 1]).cos())).log()
    )
    assert_close(transform.log_abs_det_jacobian(x, y), expected)


def test_no_bijection_where_the_domain_has_none():
    support = ManifoldEmbedding(KleinBottle()).codomain
    with pytest.raises(NotImplementedError, match="does both.*AutoWrappedNormal"):
        biject_to(support)
    assert bool(support.check(transform_to(support)(torch.randn(9, 5))).all())


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: FlatTorusEmbedding(0), ValueError, "dim of at least 1, got 0"),
        (lambda: StereographicEmbedding(0), ValueError, "dim of at least 1, got 0"),
        (lambda: RevolutionTorusEmbedding(0.5, 1.0), ValueError, "major > minor > 0"),
        (lambda: FunctionEmbedding(saddle, saddle, 3, 2), ValueError, "1 <= dim <= embed_dim"),
        (
            lambda: FunctionEmbedding(saddle, saddle, 2, 4, domain=constraints.unit_interval),
            ValueError,
            "one event dimension",
        ),
        (lambda: ManifoldEmbedding(Hyperboloid(2)), NotImplementedError, "got Hyperboloid"),
        (lambda: SADDLE.then(torch.sin), TypeError, "expected a Transform"),
        (
            lambda: SADDLE.then(dist.transforms.SoftmaxTransform()),
            ValueError,
            "expected an injective transform",
        ),
        (lambda: EmbeddingPushforward(cube(2), saddle), TypeError, "to be an Embedding"),
        (lambda: EmbeddingPushforward(cube(3), SADDLE), ValueError, r"event_shape \(2,\)"),
        (
            lambda: EmbeddingPushforward(dist.Normal(0.0, 1.0), SADDLE),
            ValueError,
            "declare event dimensions",
        ),
        (lambda: ImageOf(SADDLE).check(torch.zeros(3)), ValueError, r"ends in \(4,\)"),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_wrapped_normal_through_the_embedding_of_its_manifold():
    """Divergences stay those on the manifold; densities change by the volume element."""
    klein = KleinBottle()
    q = WrappedNormal(Torus(2), torch.tensor([1.0, 2.0]), torch.tensor([0.3, 0.4]))
    embedding = ManifoldEmbedding(Torus(2))
    pushed = EmbeddingPushforward(q, embedding)
    uniform = ManifoldUniform(Torus(2))
    assert_close(
        kl_divergence(pushed, EmbeddingPushforward(uniform, embedding)), kl_divergence(q, uniform)
    )
    z = ManifoldUniform(klein).sample((9,))
    embedding = ManifoldEmbedding(klein)
    law = WrappedNormal(klein, torch.ones(2), 0.5)
    element = (1 + z[:, 1].sin().square()).log() / 2
    assert_close(
        EmbeddingPushforward(law, embedding).log_prob(embedding(z)), law.log_prob(z) - element
    )


def test_repr_is_short():
    assert repr(EmbeddingPushforward(cube(1), ELLIPSE)).startswith("EmbeddingPushforward(")
