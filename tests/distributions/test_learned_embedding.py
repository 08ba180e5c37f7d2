"""Embeddings by networks: the inverse, equality, densities and divergences, copies and devices."""

import copy
import io
import math
import pickle

import pytest
import torch
from pyro import distributions as dist
from torch import nn
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds import Circle, EmbeddingPushforward, Sphere
from pyro_manifolds.distributions.transforms import LearnedEmbedding, Rotation


class Arc(nn.Module):
    """An arc of the circle whose angle and radius are parameters."""

    def __init__(self, angle=6.0, radius=1.0):
        super().__init__()
        self.angle = nn.Parameter(torch.tensor(float(angle)))
        self.radius = nn.Parameter(torch.tensor(float(radius)))

    def forward(self, z):
        t = self.angle * z
        return self.radius * torch.cat([t.cos(), t.sin()], -1)


def wave(z):
    """A smooth sheet over the unit square."""
    a, b = z.unbind(-1)
    return torch.stack([a, b, (3 * a).sin() * b, (2 * a * b).cos()], -1)


def arc(angle=6.0, **kwargs):
    return LearnedEmbedding(Arc(angle), dim=1, embed_dim=2, **kwargs)


def sheet(**kwargs):
    return LearnedEmbedding(wave, dim=2, embed_dim=4, **kwargs)


def beta(a, b, dim=1):
    return dist.Beta(torch.tensor(a), torch.tensor(b)).expand([dim]).to_event(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("embedding", [arc(), arc(6.27), sheet()], ids=str)
def test_inverse_brings_all_points_back_also_next_to_the_seam(embedding, dtype):
    torch.manual_seed(0)
    embedding = copy.deepcopy(embedding).to(dtype)
    z = torch.rand(500, embedding.dim, dtype=dtype)
    z[:2] = torch.tensor([[0.0], [1.0]])
    assert_close(embedding.inv(embedding(z)), z, rtol=0, atol=50 * torch.finfo(dtype).eps)


def test_inverse_on_the_line_goes_beyond_the_table_of_codes():
    embedding = LearnedEmbedding(
        lambda z: torch.cat([z.sinh(), z.cosh()], -1), dim=1, embed_dim=2, base="normal"
    ).double()
    z = torch.tensor([[-4.0], [0.3], [4.0]], dtype=torch.float64)
    assert_close(embedding.inv(embedding(z)), z)


def test_an_encoder_proposes_starts_and_the_best_one_wins():
    z = torch.rand(50, 1)

    def far_and_near(y):
        near = torch.atan2(y[..., 1:], y[..., :1]).remainder(2 * math.pi) / 6
        return torch.stack([torch.zeros_like(near), near], -2)

    for encoder in (far_and_near, lambda y: far_and_near(y)[..., 1, :]):
        embedding = LearnedEmbedding(Arc(), encoder, dim=1, embed_dim=2, num_codes=2)
        assert_close(embedding.inv(embedding(z)), z, rtol=0, atol=1e-5)


def test_derivative_of_the_inverse_undoes_that_of_the_map():
    embedding = copy.deepcopy(sheet()).double()
    z = torch.rand(2).double()
    forward = torch.autograd.functional.jacobian(embedding, z)
    backward = torch.autograd.functional.jacobian(embedding.inv, embedding(z))
    assert_close(backward @ forward, torch.eye(2).double())


def test_density_integrates_to_one_over_the_image():
    embedding = copy.deepcopy(arc(5.0)).double()
    d = EmbeddingPushforward(beta(2.0, 3.0), embedding)
    angle = 5 * (torch.arange(2000).double() + 0.5) / 2000
    points = torch.stack([angle.cos(), angle.sin()], -1)  # by length, without the map
    assert_close((d.log_prob(points).exp().mean() * 5).item(), 1.0, rtol=1e-6, atol=0)


def test_divergence_is_exactly_that_of_the_bases():
    embedding = arc()
    q, p = (EmbeddingPushforward(base, embedding) for base in (beta(2.0, 3.0), embedding.prior()))
    assert_close(kl_divergence(q, p).item(), math.log(12) - 9 / 4, rtol=1e-5, atol=0)
    # The very same number, not one that is close.
    assert kl_divergence(q, p) == kl_divergence(q.base_dist, p.base_dist)


def test_equality_is_that_of_the_decoder_object():
    one = arc()
    assert one == one.with_cache() == copy.copy(one)
    assert hash(one) == hash(one.with_cache())
    for other in (arc(), copy.deepcopy(one), one.onto(Circle()), sheet()):
        assert one != other
    assert one.onto(Circle()) == one.onto(Circle())
    q, p = (EmbeddingPushforward(beta(2.0, 2.0), e) for e in (one, copy.deepcopy(one)))
    with pytest.raises(NotImplementedError):
        kl_divergence(q, p)


def test_a_cached_value_needs_no_inverse(monkeypatch):
    embedding = arc()
    d = EmbeddingPushforward(embedding.prior(), embedding)
    monkeypatch.setattr(LearnedEmbedding, "_inverse", None)
    assert d.log_prob(d.rsample((3,))).shape == (3,)


def test_pickles_and_states_keep_map_and_inverse():
    embedding, other = arc(4.0), arc(5.0)
    d = EmbeddingPushforward(beta(2.0, 3.0), embedding)
    y = d.sample((5,))
    again = pickle.loads(pickle.dumps(d))
    assert_close(again.log_prob(y), d.log_prob(y))
    buffer = io.BytesIO()
    torch.save(embedding.state_dict(), buffer)
    buffer.seek(0)
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert_close(other(other.inv(y)), y)


def test_parts_move_together_with_all_copies():
    embedding = arc()
    d = EmbeddingPushforward(embedding.prior(), embedding)
    embedding.double()
    assert d.embedding.codes.dtype == d.embedding.decoder.angle.dtype == torch.float64
    assert embedding.prior().sample().dtype == torch.float64


def test_onto_a_manifold_is_on_it_and_can_be_rotated():
    rough = LearnedEmbedding(Arc(6.0, radius=1.1), dim=1, embed_dim=2)
    exact = rough.onto(Circle())
    z = torch.rand(200, 1)
    assert_close(exact(z).norm(dim=-1), torch.ones(200))
    assert_close(exact.inv(exact(z)), z, rtol=0, atol=1e-5)
    # The radius no longer counts: length is that of the arc.
    assert_close(exact.log_abs_det_jacobian(z, exact(z)).exp(), torch.full((200,), 6.0))
    turned = Rotation.by_angle(torch.tensor(0.1))(exact(z))
    inside = (turned - exact(exact.inv(turned))).norm(dim=-1) < 1e-5
    assert inside.float().mean() > 0.9
    assert not ((turned * 1.1 - exact(exact.inv(turned * 1.1))).norm(dim=-1) < 1e-5).any()
    assert rough.manifold is None


def test_support_is_the_image():
    embedding = arc(3.0)
    y = torch.tensor([[0.0, 1.0], [0.0, -1.0], [0.0, 0.9]])
    assert embedding.codomain.check(y).tolist() == [True, False, False]


def test_shapes_and_vmap():
    embedding = sheet()
    z = torch.rand(3, 1, 5, 2)
    y = embedding(z)
    assert embedding.forward_shape(z.shape) == y.shape == (3, 1, 5, 4)
    assert embedding.inverse_shape(y.shape) == embedding.inv(y).shape == z.shape
    assert embedding.log_abs_det_jacobian(z, y).shape == (3, 1, 5)
    flat = y.reshape(-1, 4)
    assert_close(torch.func.vmap(embedding._inverse)(flat), embedding._inverse(flat))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 3, "embed_dim": 2}, "expected 1 <= dim <= embed_dim, got 3 and 2"),
        ({"dim": 1, "embed_dim": 2, "base": "beta"}, "'uniform' or 'normal', got 'beta'"),
        ({"dim": 1, "embed_dim": 2, "refine_steps": 0}, "refine_steps >= 1, got 0"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LearnedEmbedding(Arc(), **arguments)


def test_a_manifold_elsewhere_is_refused():
    with pytest.raises(ValueError, match=r"expected a manifold in R\^2, got Sphere\(2\) in R\^3"):
        arc().onto(Sphere(2))
