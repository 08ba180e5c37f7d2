"""Evidence bounds against quadrature and against a posterior that is known."""

import math
from contextlib import nullcontext

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, ManifoldUniform, Torus, VonMises, WrappedNormal
from pyro_manifolds.infer import EvidenceBounds, evidence_bounds, log_importance_weights
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import CoveringReparam, ManifoldReparam

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
    assert all(value.shape == (3,) for value in vars(bounds).values())
    assert list(bounds) == [bounds.elbo, bounds.iwae, bounds.iwae_error]
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


@pytest.mark.parametrize("name", ["num_particles", "chunk_size"])
def test_no_draws_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} of at least 1, got 0"):
        evidence_bounds(model, guide, DATA, **{name: 0})


def agrees(bounds, expected, error):
    """Tell whether bounds are within four standard errors of the truth, which are small."""
    near = (bounds.iwae - expected).abs() < 4 * bounds.iwae_error + 1e-9
    return bool((near & (bounds.iwae_error < error) & (bounds.elbo < bounds.iwae + 1e-9)).all())


# One point for all data: the evidence by quadrature, and the same model without plates.


def shared_model(x, plated=True):
    z = pyro.sample("z", VonMises(x.new_tensor(0.3), 1.5))
    law = dist.Normal(CIRCLE.embed(z), 0.6).to_event(1)
    if plated:
        with pyro.plate("data", len(x)):
            pyro.sample("x", law, obs=x)
    else:
        for i, row in enumerate(x):
            pyro.sample(f"x{i}", law, obs=row)


def shared_guide(x, plated=True):
    pyro.sample("z", WrappedNormal(CIRCLE, x.new_tensor(0.2), 1.0))


def exact_shared(x):
    z = 2 * math.pi * torch.arange(400, dtype=torch.float64) / 400
    prior = VonMises(x.new_tensor(0.3), 1.5).log_prob(z)
    likelihood = dist.Normal(CIRCLE.embed(z), 0.6).log_prob(x.unsqueeze(1)).sum((0, -1))
    return (prior + likelihood).logsumexp(-1) + math.log(2 * math.pi / 400)


@pytest.mark.parametrize("plated", [True, False])
def test_data_with_a_point_in_common_have_one_evidence(plated):
    bounds = evidence_bounds(shared_model, shared_guide, DATA, num_particles=10_000, plated=plated)
    assert all(value.shape == () for value in vars(bounds).values())
    assert agrees(bounds, exact_shared(DATA), 0.02)
    assert bounds.total() == bounds.mean() == (bounds.iwae.item(), bounds.iwae_error.item())


def test_plates_in_plates_have_an_evidence_for_each_cell():
    x = torch.linspace(-1, 1, 6).reshape(2, 3)

    def cells():
        return pyro.plate_stack("cells", x.shape)

    def nested(x):
        with cells():
            z = pyro.sample("z", ManifoldUniform(CIRCLE))
            pyro.sample("x", VonMises(z, 5.0), obs=x)

    def nested_guide(x):
        with cells():
            pyro.sample("z", VonMises(x, 5.0))

    bounds = evidence_bounds(nested, nested_guide, x, num_particles=4, max_plate_nesting=2)
    assert_close(bounds.iwae, torch.full_like(x, -math.log(2 * math.pi)))


def test_too_few_plate_dimensions_are_named():
    def wide(x):
        z = pyro.sample("z", VonMises(torch.zeros(2, 1, 3), 5.0))
        pyro.sample("x", VonMises(z, 5.0), obs=x)

    def wide_guide(x):
        pyro.sample("z", VonMises(torch.zeros(2, 1, 3), 5.0))

    with pytest.raises(ValueError, match="at most 1 batch dimensions .* max_plate_nesting"):
        evidence_bounds(wide, wide_guide, torch.zeros(3), num_particles=2)


# Masks, sites that the guide leaves out, and sites that only the guide has.


def test_masked_data_do_not_count():
    def gappy(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", VonMises(x.new_tensor(0.3), 1.5))
            with poutine.mask(mask=torch.tensor([True, False, True])):
                pyro.sample("x", dist.Normal(CIRCLE.embed(z), 0.6).to_event(1), obs=x)

    def wide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", WrappedNormal(CIRCLE, CIRCLE.unembed(x), 1.5))

    expected = exact(DATA) * torch.tensor([1.0, 0.0, 1.0])
    assert agrees(evidence_bounds(gappy, wide, DATA, num_particles=20_000), expected, 0.02)


def test_site_that_the_guide_leaves_out_is_drawn_from_the_prior():
    def with_noise(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", VonMises(x.new_tensor(0.3), 1.5))
            noise = pyro.sample("noise", dist.Normal(x.new_zeros(2), 0.5).to_event(1))
            loc = CIRCLE.embed(z) + noise
            pyro.sample("x", dist.Normal(loc, math.sqrt(0.6**2 - 0.5**2)).to_event(1), obs=x)

    bounds = evidence_bounds(with_noise, guide, DATA, num_particles=50_000)
    assert agrees(bounds, exact(DATA), 0.05)


def real_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", VonMises(x.new_tensor(0.3), 1.5))
        w = pyro.sample("w", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(CIRCLE.embed(z), 0.6).to_event(1), obs=x)
        pyro.sample("y", dist.Normal(w, 1.0), obs=x[:, 0])


def test_auxiliary_sites_count_where_a_delta_carries_them_over_and_are_summed_out_elsewhere():
    auxiliary = {"is_auxiliary": True}

    def mixed(x):
        with pyro.plate("data", len(x)):
            side = pyro.sample("side", dist.Bernoulli(x.new_tensor(0.3)), infer=auxiliary)
            loc = CIRCLE.unembed(x) + side - 0.5
            pyro.sample("z", WrappedNormal(CIRCLE, loc, 1.0))
            shift = pyro.sample("shift", dist.Normal(x.new_zeros(()), 0.2), infer=auxiliary)
            u = pyro.sample("u", dist.Normal(shift, 1.0), infer=auxiliary)
            w = 0.9 * u + x[:, 0] / 2
            pyro.sample("w", dist.Delta(w, log_density=torch.full_like(w, -math.log(0.9))))

    bounds = evidence_bounds(real_model, mixed, DATA, num_particles=50_000)
    expected = exact(DATA) + dist.Normal(0.0, 2**0.5).log_prob(DATA[:, 0])
    assert agrees(bounds, expected, 0.02)


@pytest.mark.parametrize("make", [AutoNormal, AutoMultivariateNormal, AutoWrappedNormal])
def test_autoguides_with_auxiliary_sites_have_the_evidence_of_the_model(make):
    def positive(x):
        with pyro.plate("data", len(x)):
            w = pyro.sample("w", dist.Gamma(x.new_tensor(2.0), 1.0))
            pyro.sample("x", dist.Poisson(w), obs=x)

    counts = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    guide = make(positive, init_scale=0.7)
    guide(counts)
    bounds = evidence_bounds(positive, guide, counts, num_particles=50_000)
    expected = dist.GammaPoisson(torch.tensor(2.0), torch.tensor(1.0)).log_prob(counts)
    if make is AutoMultivariateNormal:
        expected = expected.sum()
    assert agrees(bounds, expected, 0.05)


def test_sites_of_the_guide_alone_must_be_auxiliary():
    def misnamed(x):
        with pyro.plate("data", len(x)):
            pyro.sample("zed", VonMises(x[:, 0], 5.0))

    with pytest.raises(ValueError, match="'zed', which it has not.*is_auxiliary"):
        evidence_bounds(model, misnamed, DATA)


def test_reparameterised_model_needs_a_guide_of_its_sites():
    on_cover = poutine.reparam(wrapped_model, CoveringReparam())
    with pytest.raises(ValueError, match="'z', which it observes; reparameterise both"):
        evidence_bounds(on_cover, guide, DATA)


def wrapped_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", WrappedNormal(CIRCLE, x.new_tensor(0.3), 0.9))
        pyro.sample("x", dist.Normal(CIRCLE.embed(z), 0.6).to_event(1), obs=x)


def test_covering_reparam_of_both_leaves_the_evidence_as_it_is():
    pair = [poutine.reparam(f, CoveringReparam()) for f in (wrapped_model, guide)]
    bounds = evidence_bounds(*pair, DATA, num_particles=20_000)
    plain = evidence_bounds(wrapped_model, guide, DATA, num_particles=20_000)
    z = 2 * math.pi * torch.arange(400, dtype=torch.float64) / 400
    joint = WrappedNormal(CIRCLE, 0.3, 0.9).log_prob(z)
    joint = joint + dist.Normal(CIRCLE.embed(z), 0.6).log_prob(DATA.unsqueeze(1)).sum(-1)
    expected = joint.logsumexp(-1) + math.log(2 * math.pi / 400)
    assert agrees(plain, expected, 0.02)
    assert agrees(bounds, expected, 0.03)


SURFACES = {"circle": (CIRCLE, 400), "torus": (Torus(2), 60), "klein": (KleinBottle(), 60)}


def grid(manifold, size):
    """Return nodes and their common log-weight on a flat compact manifold."""
    axes = [torch.arange(size, dtype=torch.float64) / size * period for period in manifold.periods]
    nodes = torch.cartesian_prod(*axes)
    return nodes, manifold.log_volume - math.log(len(nodes))


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("local", [True, False])
def test_model_reparameterised_to_the_ambient_space_keeps_its_evidence(surface, local):
    manifold, size = SURFACES[surface]
    x = torch.randn(2, manifold.embed_dim, dtype=torch.float64)

    def on_manifold(x):
        plate = pyro.plate("data", len(x))
        with plate if local else nullcontext():
            z = pyro.sample("z", ManifoldUniform(manifold, dtype=x.dtype))
        with plate:
            pyro.sample("x", dist.Normal(manifold.embed(z), 0.8).to_event(1), obs=x)

    ambient = poutine.reparam(on_manifold, {"z": ManifoldReparam()})
    guide = AutoNormal(ambient, init_scale=1.5)  # wider than the normal noise
    guide(x)
    nodes, log_weight = grid(manifold, size)
    likelihood = dist.Normal(manifold.embed(nodes), 0.8).log_prob(x.unsqueeze(1)).sum(-1)
    likelihood = likelihood if local else likelihood.sum(0)
    expected = likelihood.logsumexp(-1) + log_weight - manifold.log_volume
    assert agrees(evidence_bounds(ambient, guide, x, num_particles=50_000), expected, 0.05)


# Draws in chunks, diagnostics and standard errors.


@pytest.mark.parametrize(("num_particles", "chunk_size"), [(10, 4), (8, 4), (3, 4)])
def test_chunks_bound_the_number_of_draws_at_a_time(num_particles, chunk_size):
    seen = []

    def watched(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", WrappedNormal(CIRCLE, CIRCLE.unembed(x), 0.7))
            seen.append(z.numel() // len(x))

    weights = log_importance_weights(
        model, watched, DATA, num_particles=num_particles, chunk_size=chunk_size
    )
    assert weights.shape == (num_particles, 3)
    assert weights.unique().numel() == weights.numel()
    assert (sum(seen), max(seen)) == (num_particles, min(num_particles, chunk_size))


def test_estimate_from_chunks_is_as_good():
    bounds = evidence_bounds(model, guide, DATA, num_particles=20_000, chunk_size=3_000)
    assert agrees(bounds, exact(DATA), 0.02)


def test_narrow_guide_is_found_out_by_its_weights():
    def narrow(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", WrappedNormal(CIRCLE, CIRCLE.unembed(x), 0.1))

    good, bad = (evidence_bounds(model, g, DATA, num_particles=1000) for g in (guide, narrow))
    assert (good.pareto_k < 0.5).all()
    assert (good.ess > 500).all()
    assert (bad.pareto_k > 0.7).all()
    assert (bad.ess < 200).all()
    assert ((bad.iwae - exact(DATA)).abs() > 4 * bad.iwae_error).any()  # and is not to be trusted


def test_effective_sample_size_counts_equal_weights():
    weights = evidence_bounds(conjugate_model, conjugate_guide, DATA[:, 0], num_particles=50)
    assert_close(weights.ess, torch.full_like(weights.ess, 50.0))
    assert (weights.pareto_k == -math.inf).all()


def part(bounds, start, size):
    values = (value[start : start + size] for value in vars(bounds).values())
    return EvidenceBounds(*values)


def test_error_over_the_draws_covers_the_truth():
    repeated = DATA[:1].expand(2000, 2)
    bounds = evidence_bounds(model, guide, repeated, num_particles=400)
    truth = exact(DATA[:1])
    covered = ((bounds.iwae - truth).abs() < 1.96 * bounds.iwae_error).double().mean()
    assert abs(covered - 0.95) < 0.02  # four standard errors of a frequency of 0.95
    parts = [part(bounds, i, 20) for i in range(0, 2000, 20)]
    scores = torch.tensor([(t.value - 20 * truth) / t.error for t in (p.total() for p in parts)])
    assert abs((scores.abs() < 1.96).double().mean() - 0.95) < 0.08


def gaussian_model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))
        pyro.sample("x", dist.Normal(z, 1.0), obs=x)


def gaussian_guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x / 2, 0.8))


def test_error_over_the_data_covers_the_mean_of_the_population():
    x = 2**0.5 * torch.randn(400 * 50, dtype=torch.float64)
    bounds = evidence_bounds(gaussian_model, gaussian_guide, x, num_particles=50)
    parts = [part(bounds, i, 50) for i in range(0, len(x), 50)]
    truth = -0.5 * math.log(2 * math.pi * math.e * 2)
    scores = torch.tensor([(m.value - truth) / m.error for m in (p.mean() for p in parts)])
    # The law of x^2 is skewed, so that intervals of 50 data cover a little less than they should.
    assert 0.89 < (scores.abs() < 1.96).double().mean() < 0.98


def test_a_global_latent_that_the_guide_leaves_out_makes_the_data_dependent():
    x = torch.tensor([1.0, 1.2, 0.8], dtype=torch.float64)

    def model():
        m = pyro.sample("m", dist.Normal(x.new_zeros(()), 1.0))
        with pyro.plate("data", 3):
            pyro.sample("x", dist.Normal(m, 1.0), obs=x)

    bounds = evidence_bounds(model, lambda: None, num_particles=20_000)
    covariance = torch.eye(3, dtype=torch.float64) + 1
    exact = dist.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)
    assert bounds.iwae.shape == ()
    assert (bounds.iwae - exact).abs() < 5 * bounds.iwae_error


def test_plates_of_other_names_are_other_plates():
    x = torch.tensor([0.3, -0.2, 1.0], dtype=torch.float64)

    def guide():
        with pyro.plate("a", 3):
            return pyro.sample("z", dist.Normal(x.new_zeros(()), 1.0))

    def model():
        z = guide()
        with pyro.plate("b", 3):
            pyro.sample("x", dist.Normal(z.sum(-1, keepdim=True), 1.0), obs=x)

    bounds = evidence_bounds(model, guide, num_particles=20_000)
    covariance = torch.eye(3, dtype=torch.float64) + 3
    exact = dist.MultivariateNormal(torch.zeros_like(x), covariance).log_prob(x)
    assert bounds.iwae.shape == ()
    assert (bounds.iwae - exact).abs() < 5 * bounds.iwae_error


def test_a_model_without_sites_is_refused():
    with pytest.raises(ValueError, match="expected a model with sites, got none"):
        evidence_bounds(lambda: None, lambda: None)


# Sequences: their frames have latents in common, and one weight together.


def test_a_plate_of_sequences_has_an_evidence_for_each_sequence_as_known():
    one = torch.tensor([[-1.0, -2.0], [-0.5, -3.0], [-2.0, -1.0]])  # three draws of two frames
    frames = torch.stack([one, one + 1], 1)

    def scored():
        with pyro.plate("sequences", 2):
            z = pyro.sample("z", dist.ImproperUniform(dist.constraints.real, (), (2,)))
            pyro.factor("x", z.sum(-1))

    def drawn():
        with pyro.plate("sequences", 2):
            pyro.sample("z", dist.Delta(frames, event_dim=1))

    bounds = evidence_bounds(scored, drawn, num_particles=3)
    per_frame = torch.tensor([0.0, 1.0])
    assert_close(bounds.elbo / 2, per_frame - 1.58333333333)
    assert_close(bounds.iwae / 2, per_frame - 1.57029610036)


def test_frames_that_share_a_latent_have_the_evidence_of_their_sequence():
    x = torch.tensor([[0.4, 0.9, -0.2], [-1.1, 0.3, 0.5]], dtype=torch.float64)

    def shared(x):
        with pyro.plate("sequences", len(x)):
            u = pyro.sample("u", dist.Normal(x.new_zeros(()), 1.0))
            law = dist.Normal(u.unsqueeze(-1).expand(*u.shape, 3), 0.7).to_event(1)
            pyro.sample("x", law, obs=x)

    def wide(x):
        with pyro.plate("sequences", len(x)):
            pyro.sample("u", dist.Normal(0.8 * x.mean(-1), 0.6))

    covariance = 1 + 0.49 * torch.eye(3, dtype=torch.float64)
    expected = dist.MultivariateNormal(x.new_zeros(3), covariance).log_prob(x)
    assert agrees(evidence_bounds(shared, wide, x, num_particles=20_000), expected, 0.01)
