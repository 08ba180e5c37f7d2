"""Isometries as transforms, and distributions moved by them."""

import copy
import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from scipy import stats
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Cylinder,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    ProjectiveSpace,
    Sphere,
    Torus,
    VonMises,
    VonMisesFisher,
    WrappedNormal,
)
from pyro_manifolds.distributions import EmbeddingPushforward, Moved
from pyro_manifolds.distributions.transforms import FlatIsometry, FlatTorusEmbedding, Rotation

PI = math.pi
KLEIN, BAND = KleinBottle(), MoebiusBand()
REFLECTION = torch.tensor([1.0, -1.0])


def rotations(*batch):
    return SO3().unembed(torch.randn(*batch, 9))


ACTIONS = {
    "plane": Rotation.by_angle(torch.linspace(-3, 3, 4)),
    "sphere": Rotation(rotations(4)),
    "reflected sphere": Rotation(-torch.eye(3).expand(4, 3, 3)),
    "projective": Rotation(rotations(4), ProjectiveSpace(2)),
    "rotations": Rotation(rotations(4), SO3()),
    "circle": FlatIsometry(Circle(), torch.linspace(-9, 9, 4)),
    "reflected circle": FlatIsometry(Circle(), torch.linspace(-9, 9, 4), -torch.ones(())),
    "torus": FlatIsometry(Torus(3), torch.randn(4, 3)),
    "cylinder": FlatIsometry(Cylinder(math.inf), torch.tensor([1.0, 2.0]).expand(4, 2)),
    "klein": FlatIsometry(KLEIN, torch.tensor([[0.5, 0.0], [2.0, PI], [0.0, -PI], [9.0, 2 * PI]])),
    "reflected klein": FlatIsometry(KLEIN, torch.tensor([0.5, PI]).expand(4, 2), -REFLECTION),
    "band": FlatIsometry(BAND, torch.tensor([2.0, 0.0]).expand(4, 2), REFLECTION),
}
actions = pytest.mark.parametrize("action", ACTIONS.values(), ids=ACTIONS.keys())


def points(manifold, *batch):
    if manifold.is_compact:
        return ManifoldUniform(manifold).sample(batch)
    return manifold.unembed(torch.randn(*batch, manifold.embed_dim))


@actions
def test_distances_stay(action):
    manifold = action.manifold
    x, y = points(manifold, 50, 4), points(manifold, 50, 4)
    assert_close(manifold.dist(action(x), action(y)), manifold.dist(x, y), atol=2e-5, rtol=1e-5)


@actions
def test_the_inverse_undoes_it(action):
    x = points(action.manifold, 50, 4)
    assert bool(action.manifold.equivalent(action.inv(action(x)), x).all())
    assert bool(action.codomain.check(action(x)).all())


@pytest.mark.parametrize("name", ["klein", "reflected klein", "band"])
def test_all_lifts_of_a_point_go_to_lifts_of_one_point(name):
    manifold, action = ACTIONS[name].manifold, ACTIONS[name]
    x = points(manifold, 50, 4)
    for lift in manifold.orientation_covering.fibre(x):
        assert bool(manifold.equivalent(action.signs * lift + action.shift, action(x)).all())


@actions
def test_shapes(action):
    event = action.manifold.event_shape
    assert action.batch_shape == (4,)
    assert action.forward_shape(torch.Size((5, 1, *event))) == (5, 4, *event)
    x = points(action.manifold, 5, 4)
    log_det = action.log_abs_det_jacobian(x, action(x))
    assert log_det.shape == (5, 4)
    assert not log_det.any()


@actions
def test_equality_and_copies(action):
    assert action == action.with_cache()
    for twin in (copy.deepcopy(action), pickle.loads(pickle.dumps(action))):
        assert twin == action
        assert hash(twin) == hash(action)
    assert action != Rotation.by_angle(torch.tensor(0.1))


@pytest.mark.parametrize("name", sorted(ACTIONS.keys() - {"cylinder"}))
def test_the_uniform_law_stays(name):
    action = ACTIONS[name]
    uniform = ManifoldUniform(action.manifold)
    moved = Moved(uniform, action)
    assert moved.batch_shape == (4,)
    y = uniform.sample((20, 4))
    assert_close(moved.log_prob(y), uniform.log_prob(y))
    assert_close(kl_divergence(moved, uniform), torch.zeros(4), atol=1e-6, rtol=0)


def test_a_moved_wrapped_normal_is_one_at_the_moved_location():
    loc, scale = torch.tensor([1.0, 0.5]), torch.tensor([0.3, 0.4])
    for shift, signs in [
        (torch.tensor([2.0, PI]), torch.ones(2)),
        (torch.tensor([0.3, 0.0]), REFLECTION),
        (torch.tensor([-4.0, PI]), -REFLECTION),
    ]:
        moved = Moved(WrappedNormal(KLEIN, loc, scale), FlatIsometry(KLEIN, shift, signs))
        direct = WrappedNormal(KLEIN, signs * loc + shift, scale)
        x = ManifoldUniform(KLEIN).sample((200,))
        assert_close(moved.log_prob(x), direct.log_prob(x), atol=1e-4, rtol=1e-4)


def test_a_moved_fisher_law_is_one_at_the_moved_location():
    q = rotations()
    loc = torch.nn.functional.normalize(torch.randn(3), dim=-1)
    moved = Moved(VonMisesFisher(loc, 5.0), Rotation(q))
    x = ManifoldUniform(Sphere(2)).sample((200,))
    assert_close(moved.log_prob(x), VonMisesFisher(q @ loc, 5.0).log_prob(x), atol=1e-4, rtol=1e-4)


def test_divergence_from_the_uniform_law_is_that_of_the_base():
    """A Beta law on the circle, turned anywhere: minus its entropy, by scipy."""
    a, b = 9.0, 4.0
    base = EmbeddingPushforward(
        dist.Beta(torch.tensor([a]), torch.tensor([b])).to_event(1), FlatTorusEmbedding(1)
    )
    moved = Moved(base, Rotation.by_angle(torch.linspace(0, 6, 5)))
    found = kl_divergence(moved, ManifoldUniform(Sphere(1)))
    expected = torch.full((5,), -float(stats.beta(a, b).entropy()))
    assert_close(found, expected, atol=1e-5, rtol=0)


def test_divergence_from_a_law_that_is_not_known_to_be_invariant_is_refused():
    """A number there would be no bound of the evidence."""
    base = EmbeddingPushforward(
        dist.Beta(torch.tensor([2.0]), torch.tensor([2.0])).to_event(1), FlatTorusEmbedding(1)
    )
    moved = Moved(base, Rotation.by_angle(torch.tensor(0.3)))
    for prior in (base, Moved(base, Rotation.by_angle(torch.tensor(0.4)))):
        with pytest.raises(NotImplementedError):
            kl_divergence(moved, prior)
    with pytest.raises(NotImplementedError):
        kl_divergence(moved, ManifoldUniform(Sphere(2)))
    # Moved together, they keep their divergence.
    together = Moved(base, Rotation.by_angle(torch.tensor(0.3)))
    assert_close(kl_divergence(moved, together), torch.zeros(()), atol=1e-6, rtol=0)


def test_gradients_reach_the_group_element():
    """The mean cosine of a law on the circle, turned: its derivative by the angle."""
    angle = torch.tensor(0.7, requires_grad=True)
    moved = Moved(VonMises(torch.tensor(0.0), 4.0), FlatIsometry(Circle(), angle))
    torch.manual_seed(0)
    moved.rsample((40_000,)).cos().mean().backward()
    ratio = stats.vonmises(4.0).expect(math.cos)  # of Bessel functions
    assert angle.grad.item() == pytest.approx(-ratio * math.sin(0.7), abs=0.01)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Rotation(torch.ones(3)), ValueError, r"shape \[..., n, n\], got \(3,\)"),
        (lambda: Rotation(torch.ones(2, 3)), ValueError, r"got \(2, 3\)"),
        (lambda: Rotation(2 * torch.eye(3)), ValueError, "orthogonal matrices"),
        (lambda: Rotation(torch.eye(3), Sphere(3)), ValueError, r"such as Sphere\(2\)"),
        (lambda: Rotation(-torch.eye(3), SO3()), ValueError, "got a reflection"),
        (lambda: FlatIsometry(Sphere(2), torch.zeros(3)), ValueError, "got Sphere"),
        (lambda: FlatIsometry(Torus(2), torch.zeros(3)), ValueError, "shift of a shape"),
        (lambda: FlatIsometry(KLEIN, torch.tensor([0.0, 1.0])), ValueError, "to be 0 or pi"),
        (lambda: FlatIsometry(BAND, torch.tensor([0.0, 0.1])), ValueError, "to be 0 on"),
        (lambda: FlatIsometry(Torus(2), torch.zeros(2), torch.zeros(2)), ValueError, "signs"),
        (lambda: Moved(ManifoldUniform(KLEIN), torch.sin), TypeError, "to be a GroupAction"),
        (
            lambda: Moved(ManifoldUniform(KLEIN), Rotation(torch.eye(3))),
            ValueError,
            "declare event dimensions",
        ),
    ],
)
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_no_checks_without_validation():
    Rotation(2 * torch.eye(3), validate_args=False)
    FlatIsometry(KLEIN, torch.tensor([0.0, 1.0]), validate_args=False)
