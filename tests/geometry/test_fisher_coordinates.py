"""Coordinates of families: the metric is the Hessian of a divergence, written out for each."""

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal
from pyro_manifolds.geometry import (
    fisher_coordinates,
    fisher_metric,
    hermitian_fisher,
    real_to_mixed_hessian,
)
from pyro_manifolds.ops.complex_linalg import join_parts, split_parts

# Families, as functions of twelve numbers that a network makes of a latent, with their divergence
# written out.


def positive(x):
    return (0.5 * x).exp()


def triangle(a, b, c):
    return torch.stack([a, torch.zeros_like(a), b, c], -1).unflatten(-1, (2, 2))


def real_triangle(x):
    return triangle(positive(x[..., 0]), x[..., 1], positive(x[..., 2]))


def complex_triangle(x):
    return torch.complex(real_triangle(x), triangle(0 * x[..., 0], x[..., 3], 0 * x[..., 0]))


def in_disk(x):
    """Complex numbers of modulus less than a half, from pairs."""
    return join_parts(0.3 * x.tanh())


def coherence(x):
    a, b, c = in_disk(x).unbind(-1)
    return torch.stack([a, b, b, c], -1).unflatten(-1, (2, 2))


def kl_normal(mean, cov, other_mean, other_cov):
    gap, ratio = other_mean - mean, torch.linalg.solve(other_cov, cov)
    trace = ratio.diagonal(dim1=-2, dim2=-1).sum(-1) - ratio.logdet() - len(gap)
    return (trace + gap @ torch.linalg.solve(other_cov, gap)) / 2


def normal_moments(x):
    return x[:6], torch.diag(positive(x[6:]).square())


def multivariate_normal_moments(x):
    return x[:2], real_triangle(x[2:]) @ real_triangle(x[2:]).mT


def parts_of_moments(loc, variance, relation):
    """Mean and covariance of the parts of a complex vector."""
    total, apart = relation + variance, relation - variance
    rows = [torch.cat([total.real, apart.imag], -1), torch.cat([total.imag, -apart.real], -1)]
    return split_parts(loc), torch.cat(rows) / 2


def complex_normal_moments(x, *, improper=False):
    variance = torch.diag(positive(x[4:6]).square())
    relation = variance * torch.diag(in_disk(x[6:10])) * improper
    return parts_of_moments(join_parts(x[:4]), variance, relation)


def complex_multivariate_normal_moments(x, *, improper=False):
    tril = complex_triangle(x[4:8])
    relation = tril @ coherence(x[6:12]) @ tril.mT * improper
    return parts_of_moments(join_parts(x[:4]), tril @ tril.mH, relation)


def gaussian(moments, **options):
    return lambda x, y: kl_normal(*moments(x, **options), *moments(y, **options))


def kl_bernoulli(x, y):
    p = x.sigmoid()
    return (
        p * (p.log() - y.sigmoid().log()) + (1 - p) * ((1 - p) / (1 - y.sigmoid())).log()
    ).sum()


def kl_categorical(x, y):
    p, q = (numbers.unflatten(-1, (3, 4)).softmax(-1) for numbers in (x, y))
    return (p * (p / q).log()).sum()


def kl_poisson(x, y):
    return (x.exp() * (x - y) - x.exp() + y.exp()).sum()


FAMILIES = {
    "normal": (lambda x: dist.Normal(x[..., :6], positive(x[..., 6:])), gaussian(normal_moments)),
    "multivariate normal": (
        lambda x: dist.MultivariateNormal(x[..., :2], scale_tril=real_triangle(x[..., 2:])),
        gaussian(multivariate_normal_moments),
    ),
    "multivariate normal by its covariance": (
        lambda x: dist.MultivariateNormal(
            x[..., :2], real_triangle(x[..., 2:]) @ real_triangle(x[..., 2:]).mT
        ),
        gaussian(multivariate_normal_moments),
    ),
    "complex normal": (
        lambda x: ComplexNormal(join_parts(x[..., :4]), positive(x[..., 4:6])).to_event(1),
        gaussian(complex_normal_moments),
    ),
    "improper complex normal": (
        lambda x: ComplexNormal(
            join_parts(x[..., :4]), positive(x[..., 4:6]), in_disk(x[..., 6:10])
        ),
        gaussian(complex_normal_moments, improper=True),
    ),
    "complex multivariate normal": (
        lambda x: ComplexMultivariateNormal(
            join_parts(x[..., :4]), scale_tril=complex_triangle(x[..., 4:8])
        ),
        gaussian(complex_multivariate_normal_moments),
    ),
    "improper complex multivariate normal": (
        lambda x: ComplexMultivariateNormal(
            join_parts(x[..., :4]),
            scale_tril=complex_triangle(x[..., 4:8]),
            coherence=coherence(x[..., 6:12]),
        ),
        gaussian(complex_multivariate_normal_moments, improper=True),
    ),
    "Bernoulli": (lambda x: dist.Bernoulli(logits=x).to_event(1), kl_bernoulli),
    "Bernoulli by probabilities": (lambda x: dist.Bernoulli(x.sigmoid()), kl_bernoulli),
    "categorical": (lambda x: dist.Categorical(logits=x.unflatten(-1, (3, 4))), kl_categorical),
    "one-hot": (
        lambda x: dist.OneHotCategorical(x.unflatten(-1, (3, 4)).softmax(-1)).to_event(1),
        kl_categorical,
    ),
    "Poisson": (lambda x: dist.Poisson(x.exp()).to_event(1), kl_poisson),
}


def network(inputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 12)).double()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_metric_is_the_hessian_of_the_divergence(family):
    make, kl = FAMILIES[family]
    net, z = network(3), torch.randn(2, 3, dtype=torch.float64)
    found = fisher_metric(lambda z: make(net(z)), z)
    for one, metric in zip(z, found, strict=True):
        hessian = torch.func.hessian(lambda other, one=one: kl(net(one), net(other)))(one)
        assert_close(metric, hessian, rtol=0, atol=1e-8)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hermitian_part_is_the_mixed_hessian_of_the_divergence(family):
    make, kl = FAMILIES[family]
    net, z = network(4), torch.randn(2, dtype=torch.complex128)
    x = split_parts(z)
    hessian = torch.func.hessian(lambda other: kl(net(x), net(other)))(x)
    found = hermitian_fisher(lambda z: make(net(split_parts(z))), z)
    assert_close(found, real_to_mixed_hessian(hessian)[0], rtol=0, atol=1e-8)


def test_a_family_of_the_user_is_registered():
    class Rate(dist.Exponential):
        pass

    with pytest.raises(TypeError, match=r"expected a distribution of a registered kind, got Rate"):
        fisher_metric(lambda z: Rate(z.exp()), torch.zeros(1))
    fisher_coordinates.register(Rate, lambda distribution, at: (distribution.rate / at.rate,))
    found = fisher_metric(lambda z: Rate((2 * z).exp()), torch.ones(1))
    assert_close(found, torch.tensor([[4.0]]))  # of log rate, the Fisher information is one
