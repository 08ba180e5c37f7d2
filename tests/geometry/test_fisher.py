"""Metrics, volumes and defects of decoders, against reference values and formulas."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexNormal
from pyro_manifolds.geometry import (
    fisher_metric,
    fisher_root,
    hermitian_fisher,
    kahler_defect,
    log_det_metric,
    log_volume,
    pullback,
    real_to_mixed_hessian,
)
from pyro_manifolds.ops.complex_linalg import split_parts
from tests.geometry.decoder_examples import DECODERS, Z

EXACT = {"rtol": 0, "atol": 1e-10}

# g11, g22, g12, det g, a quarter of sqrt(det G), and the two defects.
REFERENCE = {
    "CN, hol, const": (
        *(1.9011399082437, 3.5598023731681, -0.83616709662165 - 0.70704997987j),
        *(5.5685872695837, 5.5685872695837, 0, 0),
    ),
    "CN, m, const": (
        *(2.1070399082437, 3.5198023731681, -0.68536709662165 - 0.74764997987j),
        *(6.3876555198649, 6.2914913781007, 0.0876, 0.2313),
    ),
    "CN, m, learned l": (
        *(2.2906040241329, 4.1826094448535, -0.83757536849856 - 0.77121530163472j),
        *(8.2843964863668, 8.1544121693966, 0.1013, 0.2361),
    ),
    "real normal, const": (
        *(0.52675997706093, 0.87995059329201, -0.23634177415541 - 0.2044124949675j),
        *(0.36588085202749, 0.040787563361318, 0.6763, 0.2277),
    ),
    "real normal, learned l": (
        *(0.57265100603324, 1.1206523612134, -0.27980750152351 - 0.21176134909299j),
        *(0.51860759518384, 0.1288670362456, 0.6686, 0.2312),
    ),
    "Bernoulli, m": (
        *(0.26063360531066, 0.43622779511037, -0.092103337802173 - 0.062042303840697j),
        *(0.10136335067617, 0.0023345251387277, 0.8222, 0.2388),
    ),
    "Bernoulli, hol": (
        *(0.2358282424714, 0.44193533779382, -0.10237072212652 - 0.088616230848588j),
        *(0.085888232879408, 0.011842138292192, 0.6887, 0),
    ),
}
# h11, h22, h12.
PURE = {
    "CN, m, learned l": (0, 0.3, 0.15166018947449 - 0.24915602556524j),
    "real normal, const": (
        *(-0.14379706211476 - 0.37978745811878j, 0.30508886182282 - 0.4987958102625j),
        0.1691483048804 + 0.056079431158291j,
    ),
    "Bernoulli, m": (
        *(-0.18900394345603 + 0.070557581452002j, -0.30573595606673 - 0.16971320976069j),
        0.071820958220475 - 0.094757664793104j,
    ),
}


@pytest.mark.parametrize("name", DECODERS)
def test_reference_values(name):
    decoder = DECODERS[name]
    g11, g22, g12, det, root, *defects = REFERENCE[name]
    expected = torch.tensor([[g11, g12], [complex(g12).conjugate(), g22]], dtype=torch.complex128)
    assert_close(hermitian_fisher(decoder, Z), expected, **EXACT)
    volumes = log_volume(decoder, Z), log_volume(decoder, Z, volume="riemannian")
    assert_close(
        torch.stack(volumes).exp() / 4, torch.tensor([det, root], dtype=torch.float64), **EXACT
    )
    found = torch.stack(kahler_defect(decoder, Z))
    assert_close(
        found, torch.tensor(defects, dtype=torch.float64), rtol=0, atol=5e-5
    )  # as printed there
    assert bool((found[torch.tensor(defects) == 0] < 1e-10).all())


@pytest.mark.parametrize("name", PURE)
def test_reference_values_of_the_other_part(name):
    h11, h22, h12 = PURE[name]
    expected = torch.tensor([[h11, h12], [h12, h22]], dtype=torch.complex128)
    assert_close(real_to_mixed_hessian(fisher_metric(DECODERS[name], Z))[1], expected, **EXACT)


# Shapes, transforms and gradients.


def network(inputs):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, 12)).double()


def normal_decoder(inputs):
    """A network of mean and scale."""
    net = network(inputs)

    def decoder(z):
        loc, log_scale = net(split_parts(z) if z.is_complex() else z).chunk(2, -1)
        return dist.Normal(loc, log_scale.exp())

    return decoder


@pytest.mark.parametrize(
    "measure",
    [fisher_metric, fisher_root, hermitian_fisher, log_volume, log_det_metric, kahler_defect],
)
def test_a_batch_is_its_points_and_maps(measure):
    decoder, z = normal_decoder(4), torch.randn(3, 5, 2, dtype=torch.complex128)
    found = measure(decoder, z)
    one = measure(decoder, z[2, 1])
    mapped = torch.func.vmap(lambda z: measure(decoder, z), randomness="error")(z)
    if isinstance(found, tuple):
        found, one, mapped = torch.stack(found, -1), torch.stack(one, -1), torch.stack(mapped, -1)
    assert_close(found[2, 1], one)
    assert_close(mapped, found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_single_precision_is_kept(dtype):
    z = torch.randn(5, 2, dtype=dtype)

    def decoder(z):
        real = split_parts(z) if z.is_complex() else z
        return dist.Normal(torch.cat([real, real.sin()], -1), 0.3)

    assert fisher_metric(decoder, z).dtype == torch.float32
    assert log_volume(decoder, z).dtype == torch.float32
    if dtype.is_complex:
        assert hermitian_fisher(decoder, z).dtype == torch.complex64
        assert kahler_defect(decoder, z).closure.dtype == torch.float32


@pytest.mark.parametrize("volume", ["hermitian", "riemannian"])
@pytest.mark.parametrize("eps", [0.0, 0.1])
def test_volumes_have_correct_gradients(volume, eps):
    decoder, z = normal_decoder(4), torch.randn(2, 2, dtype=torch.complex128)
    z.requires_grad_()
    measure = lambda z: log_volume(decoder, z, volume=volume, eps=eps)  # noqa: E731
    assert torch.autograd.gradcheck(measure, (z,))


def test_gradients_reach_the_decoder():
    """Five means proportional to a scale: log det is ten times its logarithm."""
    scale = torch.tensor(3.0, requires_grad=True)
    log_det_metric(lambda z: dist.Normal(scale * z, 1.0), torch.zeros(5)).backward()
    assert_close(scale.grad, torch.tensor(2 * 5 / 3.0))


def test_volume_of_one_is_that_of_the_other_at_least():
    """Equal for a holomorphic mean and constant noise; strictly less for a network."""
    z = torch.randn(100, 2, dtype=torch.complex128)
    for name, decoder in [*DECODERS.items(), ("network", normal_decoder(4))]:
        gap = log_volume(decoder, z) - log_volume(decoder, z, volume="riemannian")
        assert bool((gap > -1e-9).all())
        if name == "CN, hol, const":
            assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-9)
        else:
            assert bool((gap > 1e-6).any())


def test_fewer_data_than_dimensions_have_no_volume():
    decoder, z = (lambda z: dist.Bernoulli(logits=z.sum(-1))), torch.zeros(4, 2)
    assert_close(log_volume(decoder, z), torch.full((4,), -math.inf))
    # (1/4 + 1/4 + eps) eps, of which the volume is the root.
    found = log_volume(decoder, z, eps=0.1)
    assert_close(found, torch.full((4,), math.log(0.6 * 0.1) / 2))


@pytest.mark.parametrize("n", [2, 3, 5])
def test_a_latent_that_does_nothing_has_no_volume(n):
    decoder, z = (lambda z: dist.Normal((z[..., 1:] ** 2).repeat(1, 2), 1.0)), torch.ones(4, n)
    assert_close(log_volume(decoder, z), torch.full((4,), -math.inf))


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_rounding_leaves_at_least_eps_of_a_collapsed_direction(dtype):
    """Linear maps of rank two; eps is far below the resolution of the metric, which is 0.1."""
    weight = 100 * torch.randn(500, 40, 2, dtype=dtype) @ torch.randn(500, 2, 3, dtype=dtype)
    family = ComplexNormal if dtype.is_complex else dist.Normal

    def decoder(z):
        return family((weight @ z.unsqueeze(-1)).squeeze(-1), 1.0)

    large = torch.linalg.svdvals(weight)[:, :2].square().log().sum(-1)
    found = log_det_metric(decoder, torch.zeros(500, 3, dtype=dtype), eps=1e-3)
    assert bool((found > large + math.log(1e-3) - 1e-3).all())
    assert bool((found < large + math.log(10.0)).all())


def test_extreme_logits_keep_their_metric():
    """At logits of 40, the probability rounds to one; p (1 - p) is exp(-40)."""
    z = torch.tensor([40.0, -40.0, 80.0])
    found = fisher_metric(lambda z: dist.Bernoulli(logits=z), z).diagonal()
    assert_close(found, (-z.abs()).exp(), rtol=1e-4, atol=0)


def test_holomorphic_decoder_of_constant_noise_is_kahler_everywhere():
    z = torch.randn(50, 2, dtype=torch.complex128)
    pure, closure = kahler_defect(DECODERS["CN, hol, const"], z)
    assert max(pure.max(), closure.max()) < 1e-10
    assert min(*kahler_defect(normal_decoder(4), z[:5])[1]) > 0.01


def test_a_constant_metric_has_no_defect():
    found = kahler_defect(lambda z: dist.Normal(split_parts(z), 1.0), torch.zeros(1) + 0j)
    assert_close(found, type(found)(torch.tensor(0.0), torch.tensor(0.0)))


# Pullbacks.


def test_pullback_of_real_maps_is_the_gram_matrix_of_the_jacobian():
    net, z = network(3), torch.randn(2, 5, 3, dtype=torch.float64)
    slope = torch.func.jacrev(net)(z[1, 2])
    assert_close(pullback(net, z)[1, 2], slope.mT @ slope)
    phase = torch.randn(12, dtype=torch.complex128)
    slope = phase.unsqueeze(-1) * slope
    found = pullback(lambda z: phase * net(z), z)[1, 2]
    assert_close(found, (slope.mH @ slope).real)


def test_pullback_of_a_holomorphic_map():
    matrix = torch.randn(5, 3, dtype=torch.complex128)
    z, w = torch.randn(2, 4, 3, dtype=torch.complex128).unbind()
    found = pullback(lambda z: z @ matrix.mT, z)
    assert_close(found, (matrix.mH @ matrix).mT.expand(4, 3, 3))
    length = torch.einsum("ni,nij,nj->n", w, found, w.conj()).real
    assert_close(length, (w @ matrix.mT).abs().square().sum(-1))


@pytest.mark.parametrize("noise", ["CN", "real normal"])
def test_pullback_is_the_metric_of_unit_noise(noise):
    """Of total variance one for complex data, and twice it for real data."""
    decoder = DECODERS[f"{noise}, {'m, ' if noise == 'CN' else ''}const"]
    found = pullback(lambda z: decoder(z).mean, Z)
    assert_close(found, hermitian_fisher(decoder, Z) * (1 if noise == "CN" else 2))


def test_bad_arguments_are_refused():
    def decoder(z):
        return dist.Normal(z.real, 1.0)

    z = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"expected complex z, got torch.float32; see fisher_"):
        hermitian_fisher(decoder, z)
    with pytest.raises(ValueError, match=r"expected complex z for a Hermitian volume, got torch"):
        log_volume(decoder, z, volume="hermitian")
    with pytest.raises(ValueError, match=r"expected volume 'hermitian' or 'riemannian', got 'x'"):
        log_volume(decoder, z, volume="x")
    with pytest.raises(ValueError, match=r"expected eps >= 0, got -1"):
        log_det_metric(decoder, z, eps=-1)
    with pytest.raises(ValueError, match=r"decoder: expected values that begin with the shape"):
        fisher_metric(lambda z: dist.Normal(z.sum(0), 1.0), z)
    with pytest.raises(TypeError, match=r"returns a tensor, got Normal; for a distribution see"):
        pullback(decoder, z)
    with pytest.raises(TypeError, match=r"a distribution of a registered kind, got Tensor"):
        fisher_metric(lambda z: z, z)
    with pytest.raises(ValueError, match=r"pullback: expected values that begin with the shape"):
        pullback(lambda z: z.sum(0), z)
