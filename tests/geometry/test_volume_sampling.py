"""Priors weighted by a volume element, and the factor that flattens decoders."""

import functools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexNormal
from pyro_manifolds.geometry import (
    EncoderPrecisionProxy,
    flatness_factor,
    log_det_metric,
    log_volume,
    sample_by_volume,
    volume_weighted,
)

TILT = torch.tensor([0.8, -0.5])


def tilt(z):
    """Weights that move the mean of a standard normal prior by the tilt, and leave its shape."""
    return z @ TILT


def bowl(z):
    """The decoder of a mean (z, z^2 / 2), of volume element the root of 1 + z^2."""
    return dist.Normal(torch.cat([z, z.square() / 2], -1), 1.0).to_event(1)


def second_moment_under_bowl():
    """By quadrature, of the standard normal prior weighted by the volume."""
    z = torch.linspace(-12, 12, 4001, dtype=torch.float64)
    density = (-z.square() / 2).exp() * (1 + z.square()).sqrt()
    return ((z.square() * density).sum() / density.sum()).item()


def standard(dim):
    return dist.Normal(torch.zeros(dim), 1.0).to_event(1)


def test_resampled_points_have_the_moments_of_the_weighted_prior():
    drawn = sample_by_volume(standard(2), tilt, 2000, num_candidates=200_000)
    assert drawn.points.shape == (2000, 2)
    assert_close(drawn.log_volume, tilt(drawn.points))
    # Five standard errors of 2000 draws; one per cent is chosen, which hardly shows.
    assert_close(drawn.points.mean(0), TILT, rtol=0, atol=5 / math.sqrt(2000))
    assert_close(drawn.points.var(0), torch.ones(2), rtol=0, atol=5 * math.sqrt(2 / 2000))


def test_effective_size_is_that_of_the_weights():
    """For tilted normals it is the number of candidates times exp(-|tilt|^2)."""
    drawn = sample_by_volume(standard(2), tilt, 10, num_candidates=100_000)
    expected = 100_000 * TILT.square().sum().neg().exp()
    assert_close(drawn.effective_size, expected, rtol=0.05, atol=0)
    flat = sample_by_volume(standard(2), lambda z: 700 + 0 * z[:, 0], 10, num_candidates=500)
    assert_close(flat.effective_size, torch.tensor(500.0))


def test_points_are_distinct_and_all_candidates_may_be_chosen():
    drawn = sample_by_volume(standard(1), lambda z: 20 * z[:, 0], 50, num_candidates=50)
    assert len(drawn.points.unique()) == 50


def test_chunks_change_nothing():
    pyro.set_rng_seed(1)
    one = sample_by_volume(standard(2), tilt, 30)
    pyro.set_rng_seed(1)
    sizes = []

    def counted(z):
        sizes.append(len(z))
        return tilt(z)

    other = sample_by_volume(standard(2), counted, 30, chunk_size=250)
    assert_close(other, one)
    assert sizes == [250, 250, 100]


@pytest.mark.parametrize("weight", ["exact", "proxy"])
def test_volumes_of_decoders_and_proxies_are_weights(weight):
    if weight == "exact":
        drawn = sample_by_volume(
            standard(1), functools.partial(log_volume, bowl), 2000, num_candidates=40_000
        )
        expected = second_moment_under_bowl()
        assert_close(drawn.points.square().mean().item(), expected, rtol=0.15, atol=0)
        assert expected > 1.2  # not that of the prior
    else:
        loc = torch.tensor([[2.0 + 0j], [-2.0 + 0j]])
        proxy = EncoderPrecisionProxy(loc, torch.tensor([[0.25], [1.0]]))
        prior = ComplexNormal(torch.zeros(1, dtype=torch.cfloat), 2.0).to_event(1)
        drawn = sample_by_volume(prior, proxy.log_volume, 1000)
        # Points next to the sharper code weigh sixteen times as much.
        assert (drawn.points.real > 0).float().mean() > 0.6


@pytest.mark.parametrize(
    "arguments", [(0, None, 5), (3, 2, 5), (3, None, 0)], ids=["none", "few", "no-chunk"]
)
def test_bad_numbers_of_points_are_refused(arguments):
    num, candidates, chunk = arguments
    with pytest.raises(ValueError, match=r"expected 1 <= num_samples <= num_candidates and"):
        sample_by_volume(standard(1), tilt, num, num_candidates=candidates, chunk_size=chunk)


def test_a_batch_of_priors_is_refused():
    with pytest.raises(ValueError, match=r"expected a prior of batch shape \(\), got \(2,\)"):
        sample_by_volume(dist.Normal(torch.zeros(2), 1.0), tilt, 3)


# In models.


def test_nuts_draws_from_a_weighted_complex_prior():
    """The weight exp(2 Re(conj(t) z)) moves the mean of a standard normal by t."""
    prior = ComplexNormal(torch.zeros(1, dtype=torch.cfloat), 1.0).to_event(1)
    shift = 0.8 - 0.5j

    def model():
        volume_weighted("z", prior, lambda z: 2 * (shift.conjugate() * z).real.sum(-1))

    kernel = NUTS(model, max_tree_depth=4)
    mcmc = MCMC(kernel, 300, warmup_steps=100, disable_progbar=True)
    mcmc.run()
    z = mcmc.get_samples()["z"]
    # Five errors of a mean of 150 independent draws, of variance a half in each part.
    error = 5 * math.sqrt(0.5 / 150)
    assert abs(z.mean().item() - shift) < math.sqrt(2) * error
    assert error < 0.5


def test_the_weight_is_a_factor_in_the_plate_of_the_site():
    def model():
        with pyro.plate("data", 5):
            return volume_weighted("z", standard(2), tilt)

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    z = trace.nodes["z"]["value"]
    assert_close(trace.nodes["_RETURN"]["value"], z)
    assert_close(trace.nodes["z_volume"]["log_prob"], tilt(z))


class Net(nn.Module):
    """A decoder of complex latents, with its model and guide."""

    def __init__(self, **options):
        super().__init__()
        torch.manual_seed(0)
        self.decode = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 6))
        self.encode = nn.Linear(6, 4)
        self.options = options

    def decoder(self, z):
        return dist.Normal(self.decode(torch.cat([z.real, z.imag], -1)), 0.5).to_event(1)

    def model(self, x):
        pyro.module("net", self)
        with pyro.plate("data", 40, subsample_size=len(x)):
            prior = ComplexNormal(torch.zeros(2, dtype=torch.cfloat), 1.0)
            z = pyro.sample("z", prior.to_event(1))
            if self.options:
                flatness_factor("flatness", self.decoder, z, **self.options)
            pyro.sample("x", self.decoder(z), obs=x)

    def guide(self, x):
        with pyro.plate("data", 40, subsample_size=len(x)):
            loc = torch.complex(*self.encode(x).chunk(2, -1))
            pyro.sample("z", ComplexNormal(loc, 0.3).to_event(1))


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO])
def test_the_loss_grows_by_the_weighted_mean_over_the_data(elbo):
    """The same draws with and without the factor, scaled from a batch of 20 to 40 data."""
    x = torch.randn(20, 6)
    plain, flat = Net(), Net(weight=0.3, eps=1e-2)
    trace = poutine.trace(flat.guide)
    pyro.set_rng_seed(2)
    z = trace.get_trace(x).nodes["z"]["value"]
    losses = []
    for net in (plain, flat):
        pyro.clear_param_store()
        pyro.set_rng_seed(2)
        losses.append(elbo().loss(net.model, net.guide, x))
    expected = 0.3 * 2 * log_det_metric(flat.decoder, z, eps=1e-2).sum().item()
    assert_close(losses[1] - losses[0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("num_latents", [None, 5])
def test_a_positive_weight_flattens_and_a_negative_one_does_not(num_latents):
    x, volumes = torch.randn(20, 6), []
    for weight in (1.0, 0.0, -0.3):
        pyro.clear_param_store()
        pyro.set_rng_seed(3)
        net = Net(weight=weight, num_latents=num_latents)
        svi = SVI(net.model, net.guide, pyro.optim.Adam({"lr": 1e-2}), TraceMeanField_ELBO())
        for _ in range(40):
            svi.step(x)
        z = torch.randn(200, 2, dtype=torch.cfloat)
        volumes.append(log_volume(net.decoder, z).mean().item())
    assert volumes[0] < volumes[1] - 1
    assert volumes[1] < volumes[2] - 0.2


def test_some_latents_count_for_all_without_bias():
    """Over many choices of three of twelve, the mean is that of all of them."""

    def decoder(z):
        return dist.Normal(z.exp(), 1.0)  # of log det 2 z

    z = torch.arange(12.0).reshape(3, 4, 1)
    values = []
    for _ in range(300):
        trace = poutine.trace(flatness_factor).get_trace(
            "f", decoder, z, weight=-0.5, eps=0.0, num_latents=3
        )
        values.append(trace.nodes["f"]["fn"].log_factor)
        assert values[-1].shape == (3, 4)
        assert (values[-1] != 0).sum() <= 3
    sums = torch.stack(values).sum((-1, -2))
    error = 5 * sums.std() / math.sqrt(300)
    assert (sums.mean() - z.sum()).abs() < error
    assert error < 0.1 * z.sum()


def test_bad_numbers_of_latents_are_refused():
    for number in (0, 7):
        with pytest.raises(ValueError, match=rf"expected num_latents from 1 to 6, got {number}"):
            flatness_factor("f", bowl, torch.zeros(6, 1), weight=1.0, num_latents=number)
