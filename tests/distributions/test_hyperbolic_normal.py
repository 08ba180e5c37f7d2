"""Wrapped normals on hyperbolic space: known values, mass, frame, geoopt, and inference."""

import geoopt
import mpmath
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
)
from torch.distributions import biject_to, transform_to
from torch.testing import assert_close

from pyro_manifolds.distributions import HyperbolicNormal, WrappedNormal
from pyro_manifolds.distributions.transforms import Chart, has_chart
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam, ManifoldReparam
from pyro_manifolds.manifolds import (
    Circle,
    Euclidean,
    Hyperboloid,
    KleinBottle,
    PoincareBall,
    Product,
)
from pyro_manifolds.testing import (
    assert_mean,
    circle_rule,
    gauss_rule,
    hyperbolic_rule,
    line_rule,
    product_rule,
)

MODELS = (Hyperboloid, PoincareBall)
F64 = torch.float64


def wrapped(space, loc, scale, dtype=F64):
    """Wrapped normal at the point with normal coordinates ``loc``."""
    loc = space.unembed(torch.as_tensor(loc, dtype=dtype))
    return WrappedNormal(space, loc, torch.as_tensor(scale, dtype=dtype))


# Dimension, curvature, scale, distance: log-density, by mpmath with forty digits.
KNOWN = [
    (2, -1.0, 1.0, 0.5, -2.00420192102226),
    (5, -1.0, 0.7, 1.5, -6.5085104352334),
    (10, -1.0, 1.0, 4.0, -34.4713917867555),
    (3, -0.25, 0.8, 1.2, -3.33097699636261),
]


@pytest.mark.parametrize(("dim", "curvature", "scale", "r", "expected"), KNOWN)
@pytest.mark.parametrize("model", MODELS)
def test_known_densities(model, dim, curvature, scale, r, expected):
    space = model(dim, curvature)
    d = wrapped(space, torch.linspace(-0.5, 0.8, dim), scale)
    direction = torch.nn.functional.normalize(torch.randn(dim, dtype=F64), dim=0)
    value = space.exp_frame(d.loc, r * direction)
    assert_close(d.log_prob(value).item(), expected, rtol=0, atol=2e-13)


def test_a_known_chain():
    """From the origin to the location, from there to the value, and on to the ball."""
    space, ball = Hyperboloid(2), PoincareBall(2)
    loc = space.unembed(torch.tensor([0.6, -0.2], dtype=F64))
    expected = torch.tensor([1.20675619330663, 0.640807661529977, -0.213602553843326], dtype=F64)
    assert_close(loc, expected, rtol=0, atol=1e-14)
    value = space.exp_frame(loc, torch.tensor([0.5, 1.0], dtype=F64))
    expected = torch.tensor([2.17337560016212, 1.73357420469162, 0.847515177567857], dtype=F64)
    assert_close(value, expected, rtol=0, atol=1e-14)
    y = ball.unembed(space.embed(value))
    assert_close(
        y, torch.tensor([0.546287116029712, 0.267070553364234], dtype=F64), rtol=0, atol=1e-14
    )
    assert_close(space.dist(loc, value).item(), 1.11803398874989, rtol=0, atol=1e-14)
    for d, point in (
        (WrappedNormal(space, loc, 0.7), value),
        (wrapped(ball, [0.6, -0.2], 0.7), y),
    ):
        assert_close(d.log_prob(point).item(), -2.60032040908608, rtol=0, atol=1e-13)


@pytest.mark.parametrize("curvature", [-1.0, -3.0])
def test_mass_over_coordinates_of_minkowski_space(curvature):
    """The area element over the last two coordinates is R over the first one."""
    space = Hyperboloid(2, curvature)
    d = wrapped(space, [0.3, -0.4], [0.3, 0.4])
    a, weights = product_rule(*[line_rule(-1, 1, 400)] * 2)
    # Sinh of a uniform grid: far more points near the origin.
    reach = 5.5 * space.radius
    stretch = reach * a.mul(reach / space.radius).cosh().prod(-1) * reach
    a = space.radius * (reach * a / space.radius).sinh()
    time = (space.radius**2 + a.square().sum(-1, keepdim=True)).sqrt()
    density = d.log_prob(torch.cat([time, a], -1)).exp()
    mass = (density * weights * stretch * space.radius / time.squeeze(-1)).sum()
    assert_close(mass.item(), 1.0, rtol=0, atol=1e-9)


@pytest.mark.parametrize("curvature", [-1.0, -0.3])
def test_mass_over_the_disc(curvature):
    """By polar coordinates of the plane; the area is that of the plane times lambda squared."""
    ball = PoincareBall(2, curvature)
    d = wrapped(ball, [0.3, -0.4], [0.3, 0.4])
    grid, weights = product_rule(gauss_rule(0, 9, 200), circle_rule(200))
    t = (grid[:, 0] / 2).tanh()  # equidistant in distance
    r, jacobian = ball.radius * t, ball.radius * (1 - t.square()) / 2
    y = torch.stack([r * grid[:, 1].cos(), r * grid[:, 1].sin()], -1)
    factor = 2 / (1 + curvature * r.square())
    mass = (d.log_prob(y).exp() * factor.square() * r * jacobian * weights).sum()
    assert_close(mass.item(), 1.0, rtol=0, atol=1e-9)


def test_models_have_one_density():
    space, ball = Hyperboloid(3, -0.5), PoincareBall(3, -0.5)
    d, e = (wrapped(m, [0.4, -1.0, 0.3], [0.3, 0.5, 1.5]) for m in (space, ball))
    x = d.sample((100,))
    assert_close(e.log_prob(ball.unembed(space.embed(x))), d.log_prob(x), rtol=0, atol=1e-11)


@pytest.mark.parametrize("model", MODELS)
def test_draws_lie_at_the_lengths_of_normal_vectors(model):
    """E cosh r is a confluent hypergeometric function, and the entropy that by quadrature."""
    space = model(2)
    d = wrapped(space, [0.5, 1.0], 1.0)
    x = d.sample((50_000,))
    r = space.dist(d.loc.expand_as(x), x)
    exact = float(mpmath.hyp1f1(1, 0.5, 0.5))
    assert_close(exact, 2.41068613464245, rtol=0, atol=1e-13)
    assert_mean(r.cosh(), torch.tensor(exact))
    assert_mean(-d.log_prob(x), torch.tensor(3.13781446785156))


@pytest.mark.parametrize("model", MODELS)
def test_the_frame_is_that_of_the_origin_carried_along(model):
    """Transported to the origin by geoopt, vectors have independent coordinates."""
    space = model(2)
    scale = torch.tensor([0.3, 1.0], dtype=F64)
    d = wrapped(space, [0.5, 1.0], scale)
    x = d.sample((40_000,))
    other = (
        geoopt.Lorentz(torch.ones((), dtype=F64))
        if model is Hyperboloid
        else geoopt.PoincareBall()
    )
    at_origin = other.transp0back(d.loc, other.logmap(d.loc, x))
    v = at_origin[:, 1:] if model is Hyperboloid else 2 * at_origin
    assert_close(v, space.log_frame(d.loc, x), rtol=1e-6, atol=1e-6)
    products = v[:, :, None] * v[:, None, :]
    assert_mean(products.flatten(1), torch.diag(scale.square()).flatten())


@pytest.mark.parametrize("model", MODELS)
def test_draws_move_with_the_location(model):
    """Unlike those of geoopt's wrapped normal (geoopt/geoopt#223)."""
    space = model(2)
    loc = torch.tensor([0.4, -0.3]).requires_grad_()
    scale = torch.tensor(0.2).requires_grad_()
    x = WrappedNormal(space, space.unembed(loc), scale).rsample((500,))
    gradient = torch.autograd.grad(space.embed(x).sum(), (loc, scale))
    # A translation hardly turns what is that near to the origin.
    assert_close(gradient[0] / 500, torch.ones(2), rtol=0, atol=0.3)
    assert bool(gradient[1].abs() > 0)


@pytest.mark.parametrize("other", [geoopt.Lorentz(k=2.0), geoopt.PoincareBall(c=0.5)])
def test_manifolds_of_geoopt_will_do(other):
    space = Hyperboloid(2, -0.5) if isinstance(other, geoopt.Lorentz) else PoincareBall(2, -0.5)
    loc = space.unembed(torch.tensor([0.4, -0.3]))
    d = WrappedNormal(other, loc, 0.3)
    assert type(d.manifold) is type(space)
    x = d.sample((100,))
    assert other.check_point_on_manifold(x)
    assert_close(d.log_prob(x), WrappedNormal(space, loc, 0.3).log_prob(x))
    with pytest.raises(ValueError, match="learnable"):
        WrappedNormal(type(other)(learnable=True), loc, 0.3)


def test_bad_arguments():
    loc = Hyperboloid(2).unembed(torch.zeros(2))
    with pytest.raises(TypeError, match="expected a manifold of pyro_manifolds"):
        WrappedNormal(geoopt.Sphere(), loc, 0.3)
    with pytest.raises(ValueError, match="shape that ends in \\(3,\\)"):
        WrappedNormal(Hyperboloid(2), torch.zeros(2), 0.3)
    with pytest.raises(ValueError, match="one entry for each coordinate"):
        WrappedNormal(Hyperboloid(2), loc, torch.ones(3))
    with pytest.raises(ValueError, match="loc"):
        WrappedNormal(Hyperboloid(2), torch.tensor([1.0, 0.5, 0.0]), 0.3)
    with pytest.raises(ValueError, match="scale"):
        HyperbolicNormal(Hyperboloid(2), loc, torch.tensor([0.1, -1.0]), validate_args=True)


@pytest.mark.parametrize("model", MODELS)
def test_far_locations_in_float32(model):
    """At six units from the origin single precision agrees with double to the rounding there."""
    space = model(2)
    d = wrapped(space, [4.8, -3.6], 0.5, dtype=torch.float32)
    x = d.sample((1000,))
    loc, value = (space.projx(point.double()) for point in (d.loc, x))
    exact = WrappedNormal(space, loc, d.scale.double()).log_prob(value)
    assert_close(d.log_prob(x).double(), exact, rtol=0, atol=5e-4)


@pytest.mark.parametrize("model", MODELS)
def test_curvature_of_the_density_at_the_location(model):
    """Second derivatives at the location are those of the normal and of the volume element."""
    space = model(3, -0.5)
    d = wrapped(space, [0.4, -1.0, 0.3], [0.3, 0.5, 1.5])
    hessian = torch.func.hessian(lambda v: d.log_prob(space.exp_frame(d.loc, v)))(
        torch.zeros(3, dtype=F64)
    )
    expected = -torch.diag(d.scale**-2) - (3 - 1) * 0.5 / 3 * torch.eye(3, dtype=F64)
    assert_close(hessian, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("model", MODELS)
def test_flat_limit(model):
    """Curved by next to nothing, space has the normal distribution, in float32 too."""
    space = model(3, -1e-8)
    d = wrapped(space, [0.4, -1.0, 0.3], [0.3, 0.5, 1.5], dtype=torch.float32)
    x = d.sample((100,))
    v = space.embed(x)
    normal = dist.Normal(torch.tensor([0.4, -1.0, 0.3]), d.scale).to_event(1)
    assert_close(d.log_prob(x), normal.log_prob(v), rtol=0, atol=2e-5)


FUNNEL = Product(Hyperboloid(2), Euclidean(1), PoincareBall(2, -0.5))


@pytest.mark.parametrize("space", [Hyperboloid(3, -2.0), PoincareBall(3), FUNNEL], ids=str)
def test_bijection(space):
    assert has_chart(space)
    x = torch.randn(30, space.embed_dim, dtype=F64)
    chart = biject_to(space.support)
    y = chart(x)
    assert chart.bijective
    assert bool(space.contains(y).all())
    assert_close(chart.inv(y), x, rtol=0, atol=1e-12)
    assert chart.forward_shape(x.shape) == y.shape
    assert chart.inverse_shape(y.shape) == x.shape
    assert transform_to(space.support) == chart
    # The density of the image of a normal vector, known by another way.
    normal = dist.Normal(torch.zeros(space.embed_dim, dtype=F64), 1.0).to_event(1)
    image = dist.TransformedDistribution(normal, [chart])
    assert image.support == space.support
    assert_close(image.log_prob(y), space.log_prob_unembed(y), rtol=0, atol=1e-11)
    assert not has_chart(Product(space, Circle()))
    with pytest.raises(ValueError, match="Chart: expected"):
        Chart(KleinBottle())


# A latent point, seen by its noisy distances from three others.
SPACE = Hyperboloid(2)
ANCHORS = SPACE.unembed(torch.tensor([[1.5, 0.0], [-0.5, 1.0], [0.0, -1.5]]))
DISTANCES = torch.tensor([0.9, 1.3, 1.8])


def model(space=SPACE):
    anchors = space.unembed(SPACE.embed(ANCHORS))
    prior = WrappedNormal(space, space.unembed(torch.tensor([0.3, 0.2])), torch.tensor([0.8, 0.6]))
    z = pyro.sample("z", prior)
    seen = dist.Normal(space.dist(z.unsqueeze(-2), anchors), 0.5).to_event(1)
    pyro.sample("x", seen, obs=DISTANCES)


def posterior():
    """Evidence and posterior mean of normal coordinates, by quadrature."""
    nodes, weights = hyperbolic_rule(SPACE, 6.0, 160)
    prior = WrappedNormal(
        SPACE, SPACE.unembed(torch.tensor([0.3, 0.2]).double()), torch.tensor([0.8, 0.6])
    )
    seen = dist.Normal(SPACE.dist(nodes.unsqueeze(-2), ANCHORS.double()), 0.5).to_event(1)
    joint = (prior.log_prob(nodes) + seen.log_prob(DISTANCES)).exp() * weights
    return joint.sum().log(), (joint[:, None] * SPACE.embed(nodes)).sum(0) / joint.sum()


def loss_of(programme, guide, steps=300):
    optim = pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99})
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True)
    svi = SVI(programme, guide, optim, elbo)
    for _ in range(steps):
        svi.step()
    return Trace_ELBO(num_particles=5000, vectorize_particles=True).loss(programme, guide)


@pytest.mark.parametrize("space", [SPACE, PoincareBall(2)], ids=str)
@pytest.mark.parametrize("kind", [AutoNormal, AutoMultivariateNormal, AutoWrappedNormal])
def test_guides_reach_the_evidence(kind, space):
    evidence, mean = posterior()
    guide = kind(lambda: model(space))
    loss = loss_of(lambda: model(space), guide)
    # Five thousand draws, of a standard deviation below one half.
    assert -evidence - 0.03 < loss < -evidence + 0.15
    with torch.no_grad(), pyro.plate("draws", 4000):
        draws = space.embed(guide()["z"])
    assert_close(draws.mean(0).double(), mean, rtol=0, atol=0.1)


def test_guides_of_one_point():
    _, mean = posterior()
    guide = AutoDelta(model)
    loss_of(model, guide, steps=100)
    assert (SPACE.embed(guide.median()["z"]).double() - mean).norm() < 0.3
    guide = AutoLaplaceApproximation(model)
    loss_of(model, guide, steps=100)
    normal = guide.laplace_approximation()
    assert (SPACE.embed(normal.median()["z"]).double() - mean).norm() < 0.3


def test_nuts_on_the_site_itself():
    _, mean = posterior()
    mcmc = MCMC(NUTS(model), num_samples=300, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    assert z.shape == (300, 3)
    assert bool(SPACE.support.check(z).all())
    assert_close(SPACE.embed(z).mean(0).double(), mean, rtol=0, atol=0.12)
    assert mcmc.diagnostics()["divergences"]["chain 0"] == []


def test_reparameterisation_is_not_needed_but_exact():
    plain = poutine.trace(AutoManifoldReparam()(model)).get_trace()
    assert list(plain.stochastic_nodes) == ["z"]
    # The joint density of the noise is that of the point, times the volume element.
    trace = poutine.trace(poutine.reparam(model, {"z": ManifoldReparam()})).get_trace()
    noise, z = (trace.nodes[name]["value"] for name in ("z_noise", "z"))
    joint = poutine.trace(poutine.condition(model, {"z": z})).get_trace().log_prob_sum()
    expected = joint + biject_to(SPACE.support).log_abs_det_jacobian(noise, z)
    assert_close(trace.log_prob_sum(), expected, rtol=0, atol=1e-5)


def test_a_parameter_on_the_space():
    start = SPACE.unembed(torch.tensor([2.0, -1.0]))
    point = pyro.param("point", start, constraint=SPACE.support)
    assert_close(point, start)
    assert point.unconstrained().shape == (2,)
