import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.distributions import constraints
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.nn.functional import normalize
from torch.testing import assert_close

from pyro_manifolds.distributions import ManifoldUniform, ProjectedNormal
from pyro_manifolds.infer.reparam import ManifoldReparam
from pyro_manifolds.manifolds import Sphere
from pyro_manifolds.ops.projected_normal import mean_resultant

DOUBLE = torch.float64

# Ambient dimension, length of the concentration, cosine of the angle to it, log-density.
VECTORS = [
    (2, 5.0, -1.0, -17.6632396958657),
    (3, 10.0, -1.0, -59.0289237699807),
    (5, 2.0, 0.6, -2.34302241530904),
    (16, 3.0, -1.0, -15.7030551353171),
    (128, 10.0, 0.5, 140.207569675196),
    (1024, 30.0, -1.0, 874.124319369088),
]


def axis(dim, dtype=DOUBLE):
    return torch.eye(dim, dtype=dtype)[0]


@pytest.mark.parametrize(("dim", "length", "cosine", "expected"), VECTORS)
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_log_prob_matches_the_vectors(dim, length, cosine, expected, dtype):
    point = torch.zeros(dim, dtype=dtype)
    point[:2] = torch.tensor([cosine, math.sqrt(1 - cosine**2)], dtype=dtype)
    found = ProjectedNormal(length * axis(dim, dtype)).log_prob(point)
    assert found.dtype == dtype
    assert_close(found.item(), expected, rtol=5e-7 if dtype == torch.float32 else 1e-13, atol=0)


@pytest.mark.parametrize("dim", [2, 3, 4])
def test_agrees_with_pyro_where_pyro_is_right(dim):
    c = torch.linspace(-1, 1.5, dim, dtype=DOUBLE)
    x = dist.ProjectedNormal(c).sample((100,))
    theirs = dist.ProjectedNormal(c).log_prob(x)
    assert_close(ProjectedNormal(c).log_prob(x), theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("dim", [2, 3, 16, 1024])
@pytest.mark.parametrize("length", [0.0, 1e-3, 1.0, 30.0, 1000.0])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_values_and_gradients_are_finite_everywhere(dim, length, dtype):
    c = (length * axis(dim, dtype)).requires_grad_()
    x = torch.stack([axis(dim, dtype), -axis(dim, dtype), axis(dim, dtype).roll(1)])
    x.requires_grad_()
    d = ProjectedNormal(c)
    for value in (d.log_prob(x), d.rsample((50,)), d.entropy(), d.mean_resultant, d.mean):
        assert value.isfinite().all()
        found = grad(value.sum(), [c, x], allow_unused=True)
        assert all(g is None or g.isfinite().all() for g in found)


def test_the_score_is_the_mean_of_what_was_projected_minus_the_concentration():
    """E[z | x] - c, with z = s x: at the antipode of a long c the mean of s is nearly d / |c|."""
    c = torch.tensor([40.0, 0.0, 0.0], dtype=DOUBLE, requires_grad=True)
    (score,) = grad(ProjectedNormal(c).log_prob(-axis(3)), c)
    assert_close(score, -(40 + 3 / 40) * axis(3), rtol=1e-4, atol=1e-12)


@pytest.mark.parametrize("dim", [2, 5, 40])
def test_log_prob_derivatives_agree_with_finite_differences(dim):
    c = torch.linspace(-1, 1.5, dim, dtype=DOUBLE, requires_grad=True)
    points = torch.randn(3, dim, dtype=DOUBLE).requires_grad_()

    def log_prob(c, points):
        return ProjectedNormal(c, validate_args=False).log_prob(normalize(points, dim=-1))

    assert gradcheck(log_prob, (c, points))
    assert gradgradcheck(log_prob, (c, points))


@pytest.mark.parametrize("dim", [2, 3, 16, 1024])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_draws_lie_on_the_sphere_and_have_the_mean_resultant(dim, dtype):
    c = torch.tensor([0.0, 0.5, 5.0, 200.0], dtype=dtype).unsqueeze(-1) * axis(dim, dtype)
    d = ProjectedNormal(c)
    x = d.sample((max(1000, 40_000 // dim),))
    assert x.dtype == dtype
    assert constraints.sphere.check(x).all()
    height = x[..., 0].double()
    error = height.std(0) / len(x) ** 0.5
    assert ((height.mean(0) - d.mean_resultant).abs() < 5 * error + 1e-7).all()


@pytest.mark.parametrize("length", [0.3, 3.0])
def test_pathwise_gradient_is_the_slope_of_the_mean_resultant(length):
    leaf = torch.full((100_000,), length, dtype=DOUBLE, requires_grad=True)
    (draws,) = grad(ProjectedNormal(leaf.unsqueeze(-1) * axis(5)).rsample()[:, 0].sum(), leaf)
    exact = torch.tensor(length, dtype=DOUBLE, requires_grad=True)
    (expected,) = grad(mean_resultant(exact, 5), exact)
    assert (draws.mean() - expected).abs() < 5 * draws.std() / len(leaf) ** 0.5


@pytest.mark.parametrize("dim", [3, 64])
def test_divergence_is_the_mean_log_ratio_of_draws(dim):
    d = ProjectedNormal(3 * axis(dim))
    uniform = ManifoldUniform(Sphere(dim - 1))
    x = d.sample((20_000,))
    ratio = d.log_prob(x) - uniform.log_prob(x)
    found = torch.distributions.kl_divergence(d, uniform)
    assert (ratio.mean() - found).abs() < 5 * ratio.std() / len(x) ** 0.5
    with pytest.raises(NotImplementedError, match="needs Sphere"):
        torch.distributions.kl_divergence(d, ManifoldUniform(Sphere(dim)))


def test_shapes():
    d = ProjectedNormal(torch.ones(3, 1, 4))
    assert d.batch_shape == (3, 1)
    assert d.event_shape == (4,)
    assert type(d.expand([5, 3, 2])) is ProjectedNormal
    assert d.expand([5, 3, 2]).entropy().shape == (5, 3, 2)
    assert d.expand([3, 2]).rsample((6,)).shape == (6, 3, 2, 4)
    assert d.log_prob(d.sample((6,))).shape == (6, 3, 1)
    assert ProjectedNormal.infer_shapes(concentration=torch.Size([3, 1, 4])) == ((3, 1), (4,))


def test_mean_is_a_direction():
    d = ProjectedNormal(torch.tensor([[0.0, 3.0, 4.0], [0.0, 0.0, 0.0]]))
    assert_close(d.mean, torch.tensor([[0.0, 0.6, 0.8], [1.0, 0.0, 0.0]]))


def test_is_reparameterised_by_the_ambient_space():
    c = torch.tensor([0.0, 3.0, 4.0])

    def model():
        return pyro.sample("x", ProjectedNormal(c))

    with pyro.poutine.reparam(config={"x": ManifoldReparam()}):
        trace = pyro.poutine.trace(model).get_trace()
    assert constraints.sphere.check(trace.nodes["x"]["value"])


@pytest.mark.parametrize(
    ("concentration", "message"),
    [
        (torch.tensor(1.0), r"d of at least 2, got \(\)"),
        (torch.ones(4, 1), r"d of at least 2, got \(4, 1\)"),
        (torch.full((3,), math.nan), "concentration"),
    ],
)
def test_bad_arguments_are_refused(concentration, message):
    with pytest.raises(ValueError, match=message):
        ProjectedNormal(concentration)


def test_values_off_the_sphere_are_refused():
    with pytest.raises(ValueError, match="on_manifold"):
        ProjectedNormal(torch.ones(3)).log_prob(torch.ones(3))


def test_rsample_works_under_vmap():
    def draw(c):
        return ProjectedNormal(c, validate_args=False).rsample()

    x = torch.vmap(draw, randomness="different")(torch.randn(10, 3))
    assert constraints.sphere.check(x).all()
