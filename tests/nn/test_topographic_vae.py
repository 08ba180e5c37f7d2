"""Topographic VAEs: the bound by hand, the law of the codes, and what a frame sees."""

import math
import pickle

import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO, TraceMeanField_ELBO
from torch.testing import assert_close

from pyro_manifolds.distributions import Ring, Shifted, Torus2d
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import TopographicGuide, TopographicModel

FRAMES, CAPSULES, SLOTS, SIDE = 4, 2, 4, 3


def window():
    return Shifted.band(FRAMES, SLOTS, 3, 1, num_capsules=CAPSULES)


def pair(auxiliary="halfnormal", **options):
    torch.manual_seed(0)
    shape, common = (SIDE, SIDE), {"auxiliary": auxiliary, "hidden": (8,)}
    model = TopographicModel(window(), shape, **common, **options)
    return model.double(), TopographicGuide(window(), shape, **common).double()


def images(count=5):
    generator = torch.Generator().manual_seed(1)
    shape = (count, FRAMES, SIDE, SIDE)
    return torch.randint(2, shape, generator=generator).double()


def drawn(guide, x, seed):
    """Replay the draws of the guide."""
    torch.manual_seed(seed)
    trace = poutine.trace(guide).get_trace(x)
    return trace.nodes["z"]["value"], trace.nodes["u"]["value"]


def brute_force_sums(squares):
    """The window of the published code, tap by tap."""
    total = torch.zeros_like(squares)
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            if abs(a - b) <= 1:
                total += squares.roll((-a, -b), (1, 3))
    return total


@pytest.mark.parametrize("auxiliary", ["halfnormal", "normal"])
def test_bound_by_hand(auxiliary):
    """The closed form of the folded divergence is checked in its own tests; here it is sampled."""
    model, guide = pair(auxiliary)
    x = images()
    z, u = drawn(guide, x, seed=7)
    t = (z + 30.0) / brute_force_sums(u.square()).sqrt()
    standard = 3.0 * (t - model.center) / model.spread
    logits = model.decoder(standard.flatten(-2))
    likelihood = (x * logits - logits.exp().log1p()).sum()
    (z_q, u_q), expected = guide.posterior(x), likelihood
    for site, value, posterior in (("z", z, z_q), ("u", u, u_q)):
        folded = site == "u" and auxiliary == "halfnormal"
        log_p = -0.5 * value**2 - 0.5 * math.log(2 * math.pi) + (math.log(2) if folded else 0)
        expected = expected + log_p.sum() - posterior.log_prob(value).sum()
    torch.manual_seed(7)
    assert_close(-Trace_ELBO().differentiable_loss(model, guide, x), expected, rtol=1e-12, atol=0)


def test_closed_form_agrees_with_sampling():
    model, guide = pair()
    x = images(2)
    closed, sampled = (
        torch.tensor([-elbo.loss(model, guide, x) for _ in range(100)])
        for elbo in (TraceMeanField_ELBO(), Trace_ELBO())
    )
    error = math.hypot(closed.std() / 10, sampled.std() / 10)
    assert abs(closed.mean() - sampled.mean()) < 4 * error


def test_half_normal_auxiliaries_lose_nothing():
    """A guide of sizes is the fold of a guide of signed variables: its bound is higher."""
    losses = {}
    for auxiliary in ("normal", "halfnormal"):
        model, guide = pair(auxiliary)
        for part in guide.encoders:
            part[-1].bias.data[: len(part[-1].bias) // 2] += 0.5
        torch.manual_seed(0)
        losses[auxiliary] = evidence_bounds(model, guide, images(), num_particles=500)
    assert (losses["halfnormal"].elbo > losses["normal"].elbo).all()
    assert (losses["halfnormal"].elbo <= losses["halfnormal"].iwae).all()


@pytest.mark.parametrize("loc", [0.0, 3.0, -30.0])
def test_decoder_reads_standardised_codes(loc):
    model, _ = pair(loc=loc)
    torch.manual_seed(0)
    z, u = (prior.sample((4000,)) for prior in model.priors)
    standard = (model.code(z, u.square()) - model.center) / model.spread
    quartiles = torch.quantile(standard.flatten(), torch.tensor([0.25, 0.5, 0.75]).double())
    assert abs(quartiles[1]) < 0.02  # 130,000 dependent draws
    assert abs(quartiles[2] - quartiles[0] - 1.349) < 0.03


def test_codes_of_frames_far_away_do_not_matter():
    """The window of three frames reaches one to each side."""
    model, guide = pair()
    x = images(1)
    z, u2 = guide.moments(x)
    other = u2.clone()
    other[:, 2] += 1.0
    moved = (model.code(z, u2) != model.code(z, other)).any(-1).any(-1)
    assert moved.tolist() == [[False, True, True, True]]


def test_plug_in_code_uses_the_second_moment():
    model, guide = pair()
    x = images(2)
    z_law, u_law = guide.posterior(x)
    z, u2 = guide.moments(x)
    torch.manual_seed(0)
    samples = u_law.sample((40_000,)).square().mean(0)
    assert_close(z, z_law.base_dist.mean)
    assert_close(u2, samples, rtol=0.036, atol=0)  # five standard errors: 5 sqrt(2 / 40,000)


def test_plug_in_code_of_a_known_example():
    means = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    u_loc = torch.tensor([0.5, -1, 0, 2], dtype=torch.float64)
    u_scale = torch.tensor([0.3, 0.2, 1, 0.5], dtype=torch.float64)
    expected = [1.306494231079, 2.074251915367, 1.315796167668, 1.438046777089]
    model = TopographicModel(Ring(4, 3), (SIDE, SIDE), loc=3.0, hidden=(8,)).double()
    found = model.code(means, u_loc.square() + u_scale.square())
    assert_close(found, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0)


def test_map_of_single_images():
    torus = Torus2d((4, 5), (3, 3))
    model = TopographicModel(torus, (SIDE, SIDE), loc=10.0, hidden=(8,))
    guide = TopographicGuide(torus, (SIDE, SIDE), hidden=(8,))
    x = images(6)[:, 0].float()
    loss = TraceMeanField_ELBO()(model, guide)
    optimiser = torch.optim.Adam(loss.parameters(), lr=1e-2)
    values = []
    for _ in range(30):
        optimiser.zero_grad()
        values.append(loss(x))
        values[-1].backward()
        optimiser.step()
    assert sum(values[-5:]) < sum(values[:5])
    assert model.code(*guide.moments(x)).shape == (6, 4, 5)


def test_own_networks_and_likelihood():
    torus = Torus2d((2, 3), (1, 3))
    decoder = torch.nn.Linear(6, 9)
    model = TopographicModel(
        torus,
        (9,),
        decoder=decoder,
        likelihood=lambda mean: dist.Normal(mean, 0.5),
    )
    encoders = torch.nn.Linear(9, 12), torch.nn.Linear(9, 12)
    guide = TopographicGuide(torus, (9,), encoders=encoders)
    x = torch.randn(7, 9)
    TraceMeanField_ELBO()(model, guide)(x).backward()
    assert decoder.weight.grad is not None
    assert encoders[1].weight.grad.abs().sum() > 0


def test_pickles_and_keeps_its_state():
    model, guide = pair()
    again = pickle.loads(pickle.dumps(model))
    z, u2 = guide.moments(images())
    assert_close(again.code(z, u2), model.code(z, u2))
    assert {"loc", "center", "spread"} < set(model.state_dict())


def test_refuses_other_auxiliary_variables():
    for build in (TopographicModel, TopographicGuide):
        with pytest.raises(ValueError, match="expected auxiliary among .* got 'chi2'"):
            build(window(), (3, 3), auxiliary="chi2")


def test_refuses_data_of_other_shapes():
    model, guide = pair()
    with pytest.raises(
        ValueError, match=r"expected data of shape \(n, 4, 3, 3\), got \(5, 3, 3, 3\)"
    ):
        model(images()[:, 1:])
