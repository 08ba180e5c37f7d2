"""Evidence bounds against quadrature and against a posterior that is known."""

import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, ManifoldUniform, VonMises, WrappedNormal
from pyro_manifolds.infer.evidence import evidence_bounds, log_importance_weights

CIRCLE = Circle()
DATA = torch.tensor([[0.9, 0.1], [-0.7, 0.8], [0.1, -1.4]], dtype=torch.float64)


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", VonMises(x.new_tensor(0.3), 1.5))
        pyro.sample("x", dist.Normal(CIRCLE.embed(z), 0.6).to_event(1), obs=x)


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", WrappedNormal(CIRCLE, CIRCLE.unembed(x), 0.7))


def exact(x):
    """Log-evidence by the periodic trapezoid rule."""
    z = 2 * math.pi * torch.arange(400, dtype=torch.float64) / 400
    prior = VonMises(x.new_tensor(0.3), 1.5).log_prob(z)
    likelihood = dist.Normal(CIRCLE.embed(z), 0.6).log_prob(x.unsqueeze(1)).sum(-1)
    return (prior + likelihood).logsumexp(-1) + math.log(2 * math.pi / 400)


def conjugate_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", ManifoldUniform(CIRCLE, dtype=x.dtype))
        pyro.sample("x", VonMises(z, 5.0), obs=x)


def conjugate_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", VonMises(x, 5.0))


def test_iwae_agrees_with_quadrature_within_its_error_and_elbo_is_below():
    bounds = evidence_bounds(model, guide, DATA, num_particles=20_000)
    expected = exact(DATA)
    assert bounds.iwae.shape == bounds.elbo.shape == bounds.iwae_error.shape == (3,)
    assert ((bounds.iwae - expected).abs() < 4.5 * bounds.iwae_error).all()
    assert (bounds.iwae_error < 0.02).all()
    assert (bounds.elbo < expected).all()


def test_both_bounds_are_exact_and_certain_when_the_guide_is_the_posterior():
    bounds = evidence_bounds(conjugate_model, conjugate_guide, DATA[:, 0], num_particles=8)
    expected = torch.full((3,), -math.log(2 * math.pi), dtype=torch.float64)
    assert_close(bounds.elbo, expected, rtol=0, atol=1e-12)
    assert_close(bounds.iwae, expected, rtol=0, atol=1e-12)
    assert_close(bounds.iwae_error, torch.zeros_like(expected), rtol=0, atol=1e-12)


def test_the_bounds_tighten_with_the_number_of_draws():
    means = []
    for draws in (1, 4, 32):
        repeated = DATA[:1].expand(4000, 2)
        bounds = evidence_bounds(model, guide, repeated, num_particles=draws)
        assert (bounds.elbo <= bounds.iwae + 1e-12).all()  # Jensen, for the same draws
        means.append(bounds.iwae.mean())
    truth = exact(DATA[:1])[0]
    # Standard errors are below 0.01; the gaps shrink from about 0.1.
    assert means[0] < means[1] < means[2] < truth + 0.01


def test_one_draw_has_the_elbo_and_no_error_estimate():
    bounds = evidence_bounds(model, guide, DATA, num_particles=1)
    assert_close(bounds.iwae, bounds.elbo)
    assert bounds.iwae_error.isnan().all()


def test_weights_have_one_row_for_each_draw_and_no_gradient():
    weights = log_importance_weights(model, guide, DATA, num_particles=6)
    assert weights.shape == (6, 3)
    assert not weights.requires_grad
    assert weights.unique().numel() == 18


def test_weights_equal_the_log_densities_of_the_traces():
    weights = log_importance_weights(model, guide, DATA, num_particles=1)
    pyro.set_rng_seed(0)
    weights = log_importance_weights(model, guide, DATA, num_particles=1)
    pyro.set_rng_seed(0)
    guide_trace = poutine.trace(guide).get_trace(DATA)
    model_trace = poutine.trace(poutine.replay(model, guide_trace)).get_trace(DATA)
    expected = model_trace.log_prob_sum() - guide_trace.log_prob_sum()
    assert_close(weights.sum(), expected, rtol=0, atol=1e-12)


def test_a_subsampled_scale_does_not_enter_the_evidence_of_a_datum():
    def scaled(x):
        with pyro.plate("data", 30, subsample_size=3):
            z = pyro.sample("z", ManifoldUniform(CIRCLE, dtype=x.dtype))
            pyro.sample("x", VonMises(z, 5.0), obs=x)

    def scaled_guide(x):
        with pyro.plate("data", 30, subsample_size=3):
            pyro.sample("z", VonMises(x, 5.0))

    bounds = evidence_bounds(scaled, scaled_guide, DATA[:, 0], num_particles=4)
    expected = torch.full((3,), -math.log(2 * math.pi), dtype=torch.float64)
    assert_close(bounds.iwae, expected, rtol=0, atol=1e-12)


def test_candidate_manifolds_are_told_apart_by_their_evidence():
    klein = KleinBottle()
    points = torch.tensor([[0.5, 1.0], [2.0, -0.4]], dtype=torch.float64)
    data = klein.embed(points)

    def on_klein(x):
        with pyro.plate("data", 2):
            z = pyro.sample("z", ManifoldUniform(klein, dtype=x.dtype))
            pyro.sample("x", dist.Normal(klein.embed(z), 0.05).to_event(1), obs=x)

    def near(x):
        with pyro.plate("data", 2):
            pyro.sample("z", WrappedNormal(klein, klein.unembed(x), 0.05))

    bounds = evidence_bounds(on_klein, near, data, num_particles=4000)
    # A narrow likelihood is Gaussian on the tangent plane: volume element sqrt(1 + sin^2 t2).
    precision = (1 + points[:, 1].sin().square()).log() / 2
    expected = -1.5 * math.log(2 * math.pi * 0.05**2) - precision - math.log(klein.volume)
    assert_close(bounds.iwae, expected, rtol=0, atol=0.05)  # the curvature of the embedding


def test_no_draws_are_refused():
    with pytest.raises(ValueError, match="num_particles of at least 1, got 0"):
        evidence_bounds(model, guide, DATA, num_particles=0)
