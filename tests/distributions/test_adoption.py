"""Pyro's distributions on circles, tori and spheres: the same law, on its manifold."""

import math
from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import Independent
from torch.distributions import VonMises as TorchVonMises
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, Sphere, Torus, VonMises, WrappedNormal
from pyro_manifolds.distributions.adoption import DeclaredOn, adopt, manifold_of
from pyro_manifolds.distributions.manifold_mixture import ManifoldMixture
from pyro_manifolds.testing import circle_rule, sphere_rule, torus_rule

CIRCLE, TORUS, SPHERE = Circle(), Torus(2), Sphere(2)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def bivariate():
    return dist.SineBivariateVonMises(*tensor(0.5, 3.0, 2.0, 0.7), weighted_correlation=0.5)


def skewed():
    base = dist.VonMises(tensor(0.5), tensor(2.0)).to_event(1)
    return dist.SineSkewed(base, tensor(0.6))


def mixture():
    weights = dist.Categorical(tensor(0.3, 0.7))
    return dist.MixtureSameFamily(weights, dist.VonMises(tensor(0.5, 3.0), tensor(2.0, 5.0)))


LAWS = {
    "von-mises": (lambda: dist.VonMises(*tensor(3.0, 1.5)), CIRCLE, circle_rule),
    "torch": (lambda: TorchVonMises(*tensor(3.0, 1.5)), CIRCLE, circle_rule),
    "mixture": (mixture, CIRCLE, circle_rule),
    "sine-bivariate": (bivariate, TORUS, partial(torus_rule, 2)),
    "sine-skewed": (skewed, Torus(1), lambda: (circle_rule()[0].unsqueeze(-1), circle_rule()[1])),
    "sine-skewed-2": (
        lambda: dist.SineSkewed(bivariate(), tensor(0.3, -0.5)),
        TORUS,
        partial(torus_rule, 2),
    ),
    "projected-normal": (
        lambda: dist.ProjectedNormal(tensor(0.3, -1.0, 0.5)),
        SPHERE,
        partial(sphere_rule, 2),
    ),
    "von-mises-3d": (
        lambda: dist.VonMises3D(tensor(0.3, -1.0, 2.5)),
        SPHERE,
        partial(sphere_rule, 2),
    ),
}
every = pytest.mark.parametrize(("make", "manifold", "rule"), LAWS.values(), ids=list(LAWS))


@every
def test_the_density_is_the_same_and_the_support_that_of_the_manifold(make, manifold, rule):
    law, (nodes, weights) = make(), rule()
    adopted = adopt(law)
    assert adopted.support == manifold.support
    assert manifold_of(law) == manifold
    assert adopted.batch_shape == law.batch_shape
    assert adopted.event_shape == law.event_shape
    # The Bessel polynomial of torch's von Mises is good to seven digits.
    assert_close(adopted.log_prob(nodes), law.log_prob(nodes), atol=1e-6, rtol=0)
    assert_close((adopted.log_prob(nodes).exp() * weights).sum().item(), 1.0, atol=1e-6, rtol=0)


@every
def test_wrappers_are_kept(make, manifold, rule):
    law, point = make(), rule()[0][:6].reshape((2, 3) + manifold.event_shape)
    if not isinstance(law, dist.Distribution):
        law = dist.VonMises(law.loc, law.concentration)
    expected = adopt(law).log_prob(point)
    expanded = adopt(law.expand((2, 3)))
    assert expanded.batch_shape == (2, 3)
    assert_close(expanded.log_prob(point), expected)
    event = adopt(law.expand((2, 3)).to_event(1))
    assert (event.batch_shape, event.event_shape) == ((2,), (3,) + manifold.event_shape)
    assert manifold_of(law.expand((2, 3)).to_event(1)) == manifold
    assert_close(event.log_prob(point), expected.sum(-1))
    mask = torch.tensor([True, False, True])
    assert_close(adopt(law.expand((2, 3)).mask(mask)).log_prob(point), expected * mask)
    forced = adopt(dist.ExpandedDistribution(law, (2, 3)))
    assert_close(forced.log_prob(point), expected)


@every
def test_draws_and_gradients_follow(make, manifold, rule):
    adopted = adopt(make())
    draws = adopted.sample((2,))
    assert draws.dtype == torch.float64
    assert manifold.support.check(draws).all()
    assert_close(manifold.projx(draws), draws)
    assert adopted.expand((3, 2)).sample().shape == (3, 2) + manifold.event_shape


def test_parameters_stay_differentiable():
    kappa, vector = torch.tensor(2.0), torch.tensor([1.0, 2.0, 2.0])
    for leaf, make, point in (
        (kappa, partial(dist.VonMises, torch.tensor(0.3)), torch.tensor(1.0)),
        (vector, dist.ProjectedNormal, torch.tensor([0.0, 0.6, 0.8])),
        (vector, dist.VonMises3D, torch.tensor([0.0, 0.6, 0.8])),
    ):
        leaf.requires_grad_()
        (expected,) = torch.autograd.grad(make(leaf).log_prob(point), leaf)
        (found,) = torch.autograd.grad(adopt(make(leaf)).log_prob(point), leaf)
        assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_angles_have_one_density_at_every_representative():
    for law in (bivariate(), dist.SineSkewed(bivariate(), tensor(0.3, -0.5)), mixture()):
        angles = tensor(0.4, -2.0)
        turned = angles + tensor(2 * math.pi, -4 * math.pi)
        assert_close(adopt(law).log_prob(turned), adopt(law).log_prob(angles))
    uniform = dist.Uniform(-math.pi, math.pi).expand((2,)).to_event(1)
    skew = adopt(dist.SineSkewed(_with_mean(uniform), torch.tensor([0.2, 0.3])))
    assert skew.log_prob(torch.tensor([9.0, 0.0])).isfinite()


def _with_mean(law):
    assert law.mean.shape == (2,)
    return law


def test_von_mises_3d_is_repaired():
    """Pyro's is NaN at concentration zero, and infinite from 90 on in float32."""
    x = torch.tensor([0.0, 0.6, 0.8])
    nothing = torch.zeros(3, requires_grad=True)
    assert dist.VonMises3D(nothing).log_prob(x).isnan()
    log_prob = adopt(dist.VonMises3D(nothing)).log_prob(x)
    assert_close(log_prob.item(), -math.log(4 * math.pi), atol=1e-6, rtol=0)
    # The density is exp(c x) / (4 pi sinh |c| / |c|), and the last factor is flat at zero.
    assert_close(torch.autograd.grad(log_prob, nothing)[0], x, atol=1e-5, rtol=0)
    strong = 500 * x
    assert dist.VonMises3D(strong).log_prob(x).isinf()
    exact = math.log(500 / (2 * math.pi))  # c x - |c| + log(|c| / 2 pi), up to exp(-2 |c|)
    assert_close(adopt(dist.VonMises3D(strong)).log_prob(x).item(), exact, atol=1e-4, rtol=0)
    draws = adopt(dist.VonMises3D(strong)).sample((1000,))
    assert (draws @ x).mean() == pytest.approx(1 - 1 / 500, abs=5e-4)  # coth c - 1 / c


def test_projected_normal_has_every_dimension_and_its_antipode():
    c, x = 10 * tensor(0.0, 0.6, 0.8), tensor(0.0, 0.6, 0.8)
    # The integral of the reference density by mpmath.
    assert adopt(dist.ProjectedNormal(c)).log_prob(-x).item() == pytest.approx(-59.0289237699807)
    five = adopt(dist.ProjectedNormal(torch.ones(5)))
    assert five.log_prob(five.sample()).isfinite()


def test_what_is_on_a_manifold_is_returned_as_it_is():
    point = WrappedNormal(KleinBottle(), torch.zeros(3, 2), 1.0)
    weights = dist.Categorical(torch.ones(3))
    for law in (point, point.to_event(1), point.mask(False), ManifoldMixture(weights, point)):
        assert adopt(law) is law
        assert manifold_of(law) == KleinBottle()
    assert manifold_of(dist.MixtureSameFamily(weights, point)) == KleinBottle()


@pytest.mark.parametrize(
    "law",
    [
        dist.Normal(0.0, 1.0),
        dist.Normal(torch.zeros(2), 1.0).to_event(1).mask(False),
        dist.LogNormal(0.0, 1.0),
        dist.Dirichlet(torch.ones(3)),
        dist.Poisson(1.0),
        dist.Unit(torch.zeros(())),
        dist.Delta(torch.zeros(2)),
        dist.MixtureSameFamily(dist.Categorical(torch.ones(2)), dist.Normal(torch.zeros(2), 1.0)),
        dist.ProjectedNormal(torch.ones(1)),
        Independent(torch.distributions.Normal(torch.zeros(2), 1.0), 1),
        torch.distributions.Distribution(validate_args=False),
    ],
    ids=lambda law: type(law).__name__,
)
def test_whatever_else_there_is_is_left_alone(law):
    assert adopt(law) is None
    assert manifold_of(law) is None


def test_other_laws_of_directions_are_declared_to_live_on_the_sphere():
    class Cap(dist.TorchDistribution):
        arg_constraints = {}
        support = dist.constraints.sphere

        def log_prob(self, value):
            return value.sum(-1)

    law = Cap(torch.Size([4]), torch.Size([3]), validate_args=False)
    adopted = adopt(law)
    assert manifold_of(law) == SPHERE
    assert adopted.log_prob(torch.tensor([0.0, 0.6, 0.8])) == pytest.approx(1.4)


def test_a_declaration_must_fit():
    with pytest.raises(ValueError, match=r"of event_shape \(2,\).*Torus\(2\), got \(\)"):
        DeclaredOn(dist.Uniform(-1.0, 1.0), TORUS)
    law = DeclaredOn(dist.Uniform(-math.pi, math.pi), CIRCLE)
    with pytest.raises(ValueError, match="within the support"):
        law.log_prob(torch.tensor(math.nan))
    assert repr(law).startswith("DeclaredOn(Uniform(")
    assert law.expand((2,)).rsample().shape == (2,)
    assert law.has_rsample
    assert not adopt(bivariate()).has_rsample
    assert_close(adopt(bivariate()).mean, TORUS.projx(tensor(0.5, 3.0)))


def test_mixtures_have_no_averages_of_coordinates():
    law = adopt(mixture())
    assert isinstance(law, ManifoldMixture)
    assert isinstance(law.component_distribution, VonMises)
    for name in ("mean", "variance"):
        with pytest.raises(NotImplementedError, match=f"ManifoldMixture.*{name}"):
            getattr(law, name)
