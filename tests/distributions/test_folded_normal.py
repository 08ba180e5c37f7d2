"""The folded normal law, against scipy, quadrature and vectors in closed form."""

import math

import pyro
import pyro.distributions as dist
import pytest
import scipy.stats
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds.distributions import FoldedNormal

DOUBLE = torch.float64


def numbers(*values):
    return torch.tensor(values, dtype=DOUBLE)


def test_density_and_moments_match_scipy():
    loc, scale, y = numbers(-1.0, 0.0, 2.5), numbers(0.5, 2.0, 1.0), numbers(0.3, 1.7, 2.0)
    d, peer = FoldedNormal(loc, scale), scipy.stats.foldnorm((loc / scale).abs(), scale=scale)
    assert_close(d.log_prob(y), torch.tensor(peer.logpdf(y)), atol=1e-13, rtol=0)
    assert_close(d.mean, torch.tensor(peer.mean()), atol=1e-13, rtol=0)
    assert_close(d.variance, torch.tensor(peer.var()), atol=1e-12, rtol=0)


@pytest.mark.parametrize(
    ("loc", "scale", "saved"),
    [
        (0.0, 1.0, 0.0),
        (0.5, 0.5, 0.33683082034683),
        (1.0, 0.3, 0.69190612381435),
        (2.0, 0.3, 0.69314718051987),
    ],
)
def test_folding_saves_what_the_sign_costs(loc, scale, saved):
    """Vectors by quadrature; 24 nodes err by 1e-12."""
    loc, scale = numbers(loc), numbers(scale)
    whole = kl_divergence(dist.Normal(loc, scale), dist.Normal(numbers(0.0), numbers(1.0)))
    folded = kl_divergence(FoldedNormal(loc, scale), dist.HalfNormal(numbers(1.0)))
    assert_close(whole - folded, numbers(saved), atol=2e-12, rtol=0)


@pytest.mark.parametrize("width", [0.4, 1.0, 3.0])
def test_divergence_matches_quadrature(width):
    q, p = FoldedNormal(numbers(-0.7), numbers(0.6)), dist.HalfNormal(numbers(width))
    y = torch.linspace(1e-12, 9, 200_001, dtype=DOUBLE)
    log_q = q.log_prob(y)
    terms = log_q.exp() * (log_q - p.log_prob(y))
    assert_close(kl_divergence(q, p), torch.trapezoid(terms, y)[None], atol=1e-8, rtol=0)


def test_gradient_of_samples():
    loc, scale = numbers(0.3).requires_grad_(), numbers(0.8).requires_grad_()
    torch.manual_seed(0)
    draws = FoldedNormal(loc, scale).rsample((200_000,))
    found = torch.autograd.grad(draws.mean(), (loc, scale))
    expected = torch.autograd.grad(FoldedNormal(loc, scale).mean.sum(), (loc, scale))
    assert_close(found, expected, atol=0.01, rtol=0)  # four standard errors


def test_shapes_and_expand():
    d = FoldedNormal(torch.zeros(3, 1), 1.0).expand([2, 3, 4])
    assert isinstance(d, FoldedNormal)
    assert d.loc.shape == d.sample().shape == (2, 3, 4)
    assert d.to_event(1).log_prob(d.sample()).shape == (2, 3)


def test_guides_under_the_closed_form():
    """The exact divergence is used, so the ELBO of a model without data has no noise."""
    loc = torch.tensor(0.4, requires_grad=True)

    def model():
        pyro.sample("size", dist.HalfNormal(1.0))

    def guide():
        pyro.sample("size", FoldedNormal(loc, 0.5))

    losses = {TraceMeanField_ELBO().differentiable_loss(model, guide).item() for _ in range(5)}
    assert len(losses) == 1
    whole = kl_divergence(dist.Normal(loc, 0.5), dist.Normal(0.0, 1.0)).item()
    assert whole - math.log(2) < losses.pop() < whole


def test_refuses_bad_arguments():
    with pytest.raises(ValueError, match="scale"):
        FoldedNormal(0.0, -1.0, validate_args=True)
