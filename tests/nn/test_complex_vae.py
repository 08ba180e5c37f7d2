"""Complex VAEs: the bound by hand, the twin that is the same model, and what learns."""

import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexNormal
from pyro_manifolds.geometry import fisher_metric, kahler_defect
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import ComplexGuide, ComplexModel, GaussianNoise
from pyro_manifolds.ops.complex_linalg import join_parts, split_parts

KINDS = {"proper": {}, "improper": {"improper": True}, "real twin": {"real_twin": True}}
SHAPE = (2, 3)


def pair(kind="proper", dim=2, **options):
    torch.manual_seed(0)
    common = {"hidden": (8,), **options}
    twin = kind == "real twin"
    model = ComplexModel(dim, SHAPE, real_twin=twin, **common)
    return model.double(), ComplexGuide(dim, SHAPE, **KINDS[kind], **common).double()


def images(count=5):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(2, (count, *SHAPE), generator=generator).double()


@pytest.mark.parametrize("kind", KINDS)
def test_bound_by_hand(kind):
    """From the real view: a normal law of twice the size, by its covariance matrix."""
    model, guide = pair(kind)
    x = images()
    torch.manual_seed(7)
    z = poutine.trace(guide).get_trace(x).nodes["z"]["value"]
    real = split_parts(z) if z.is_complex() else z
    numbers = guide.encoder(x)
    loc, scale = numbers[:, :4], (numbers[:, 4:6] / 2).exp()
    v = numbers[:, 6:] if kind == "improper" else torch.zeros(5, 4).double()
    rho = join_parts(v) / (1 + join_parts(v).abs().square()).sqrt()
    covariance = torch.zeros(5, 4, 4).double()
    for i in range(2):
        variance = scale[:, i] ** 2
        covariance[:, i, i] = variance * (1 + rho[:, i].real) / 2
        covariance[:, i + 2, i + 2] = variance * (1 - rho[:, i].real) / 2
        covariance[:, i, i + 2] = covariance[:, i + 2, i] = variance * rho[:, i].imag / 2
    if kind == "real twin":
        covariance = torch.diag_embed(numbers[:, 4:].exp())
    logits = model.decoder.layers(real).unflatten(-1, SHAPE)
    expected = (x * logits - logits.exp().log1p()).sum()
    expected += (-real.square() - 0.5 * math.log(math.pi)).sum()
    expected -= dist.MultivariateNormal(loc, covariance).log_prob(real).sum()
    torch.manual_seed(7)
    assert_close(-Trace_ELBO().differentiable_loss(model, guide, x), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_closed_form_agrees_with_sampling(kind):
    model, guide = pair(kind)
    x = images(2)
    closed, sampled = (
        torch.tensor([-elbo.loss(model, guide, x) for _ in range(100)])
        for elbo in (TraceMeanField_ELBO(), Trace_ELBO())
    )
    error = math.hypot(closed.std() / 10, sampled.std() / 10)
    assert abs(closed.mean() - sampled.mean()) < 4 * error


def test_real_twin_is_the_same_model():
    """With one decoder and one noise, all data have the same evidence."""
    model, guide = pair()
    twin, twin_guide = pair("real twin")
    twin.decoder.load_state_dict(model.decoder.state_dict())
    ours, theirs = (
        evidence_bounds(m, g, images(), num_particles=20_000)
        for m, g in ((model, guide), (twin, twin_guide))
    )
    error = (ours.iwae_error.square() + theirs.iwae_error.square()).sqrt()
    assert ((ours.iwae - theirs.iwae).abs() < 4 * error).all()


@pytest.mark.parametrize("kind", KINDS)
def test_learns(kind):
    model, guide = pair(kind)
    x = images(2).repeat(10, 1, 1)
    loss = TraceMeanField_ELBO()(model, guide)
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
    values = []
    for _ in range(60):
        optimiser.zero_grad()
        values.append(loss(x))
        values[-1].backward()
        optimiser.step()
    assert sum(values[-5:]) < 0.7 * sum(values[:5])


class Linear(nn.Linear):
    """Complex, from vectors to images."""

    def __init__(self):
        super().__init__(2, 6, dtype=torch.cdouble)

    def forward(self, z):
        return super().forward(z).unflatten(-1, SHAPE)


@pytest.mark.parametrize("kind", ["proper", "improper"])
def test_complex_data_and_a_complex_decoder(kind):
    """Complex normal noise is learned, and a holomorphic decoder has a Kähler metric."""
    model, guide = pair(kind, complex_data=True)
    assert isinstance(model.likelihood, GaussianNoise)
    holomorphic = ComplexModel(2, SHAPE, decoder=Linear(), likelihood=GaussianNoise(0.5)).double()
    x = torch.randn(7, *SHAPE, dtype=torch.cdouble)
    for m in (model, holomorphic):
        loss = TraceMeanField_ELBO()(m, guide)
        loss(x).backward()
        assert m.likelihood.log_scale.grad.abs() > 0
        assert isinstance(m.decode(guide.posterior(x).mean).base_dist, ComplexNormal)
    z = guide.posterior(x).mean.detach()
    assert max(kahler_defect(holomorphic.decode, z).pure) < 1e-12
    assert min(kahler_defect(model.decode, z).pure) > 1e-3
    weight = holomorphic.decoder.weight.detach()
    gram = (weight.mH @ weight).mT / 0.25
    expected = 2 * torch.cat(
        [torch.cat([gram.real, gram.imag], -1), torch.cat([-gram.imag, gram.real], -1)], -2
    )
    assert_close(fisher_metric(holomorphic.decode, z[0]).detach(), expected)


def test_complex_noise_is_that_of_both_parts():
    noise, mean = GaussianNoise(0.7, learn=False), torch.randn(3, dtype=torch.cfloat)
    assert not list(noise.parameters())
    x = torch.randn(3, dtype=torch.cfloat)
    parts = dist.Normal(torch.view_as_real(mean), 0.7 / math.sqrt(2)).log_prob(
        torch.view_as_real(x)
    )
    assert_close(noise(mean).log_prob(x), parts.sum(-1))
    assert_close(noise(mean.real).scale, torch.full((3,), 0.7))


def test_particles_and_validation():
    """A plate to the left of the data, with validation on."""
    model, guide = pair("improper")
    loss = TraceMeanField_ELBO(num_particles=3, vectorize_particles=True, max_plate_nesting=1)
    loss(model, guide)(images()).backward()
    assert model(images()).shape == (5, 2)


def test_far_out_directions_have_finite_gradients():
    """The circularity rounds to modulus one."""
    model, guide = pair("improper")
    guide.encoder.layers[-1].bias.data[-4:] = 1e6
    TraceMeanField_ELBO()(model, guide)(images()).backward()
    assert all(torch.isfinite(p.grad).all() for p in guide.parameters())


def test_pickles():
    model, guide = pair("improper", complex_data=True)
    again, x = (
        pickle.loads(pickle.dumps((model, guide))),
        torch.randn(2, *SHAPE, dtype=torch.cdouble),
    )
    z = guide.posterior(x).mean
    assert_close(again[1].posterior(x).mean, z)
    assert_close(again[0].decode(z).mean, model.decode(z).mean)


def test_refuses_an_improper_twin():
    with pytest.raises(ValueError, match="expected improper=False for a real twin"):
        ComplexGuide(2, SHAPE, improper=True, real_twin=True)


def test_refuses_noise_without_a_scale():
    with pytest.raises(ValueError, match="GaussianNoise: expected scale > 0, got 0"):
        GaussianNoise(0.0)
