"""Potentials against reference values and their Hessians; the proxy against the best ELBO."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal
from pyro_manifolds.geometry import (
    EncoderPrecisionProxy,
    LogSumExpPotential,
    fisher_metric,
    hermitian_fisher,
    mixed_hessian,
)
from tests.geometry.decoder_examples import Z

EXACT = {"rtol": 0, "atol": 1e-10}

LOC = torch.tensor(
    [[0.5 + 0.2j, -0.3 + 0.1j], [-0.6, 0.4 - 0.7j], [0.1 - 0.9j, 0.8j]], dtype=torch.complex128
)
PRECISION = torch.tensor([[2.0, 1.0], [0.5, 3.0], [1.5, 0.8]], dtype=torch.float64)
SHARED = torch.tensor([1.2, 1.7], dtype=torch.float64)
WEIGHT = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)

# Value, g11, g22, g12, det g.
REFERENCE = {
    "plus": (
        *(4.6963140712941, 0.5446294892822, 3.187027462567),
        *(0.0067381608820136 + 0.051759484155309j, 1.7330246922541),
    ),
    "log_mixture": (
        *(-0.65328450234067, -1.0168390303637, -0.82191015270719),
        *(-0.28004875305468 + 0.019024369511159j, 0.75696109200211),
    ),
    "fubini_study": (
        *(-0.25868558512489, 0.44674936405043, 0.41596012335989),
        *(-0.41424206228314 + 0.045015848160493j, 0.012207007831174),
    ),
}
KINDS = ["plus", "log_mixture", "minus_log_mixture", "fubini_study"]
RESPONSIBILITIES = {
    "plus": (0.0120407174518, 0.984829375537, 0.00312990701128),
    "log_mixture": (0.728537996409, 0.002404957147, 0.269057046444),
}


def reference_potential(kind, *, full=False):
    precision = SHARED if kind == "fubini_study" else PRECISION
    name = "precision_diag"
    if full:
        precision, name = torch.diag_embed(precision), "precision_matrix"
    return LogSumExpPotential(kind, LOC, log_weight=WEIGHT.log(), **{name: precision})


@pytest.mark.parametrize("kind", REFERENCE)
@pytest.mark.parametrize("full", [False, True])
def test_reference_values(kind, full):
    potential = reference_potential(kind, full=full)
    value, g11, g22, g12, det = REFERENCE[kind]
    expected = torch.tensor([[g11, g12], [g12.conjugate(), g22]], dtype=torch.complex128)
    assert_close(potential(Z).item(), value, **EXACT)
    assert_close(potential.metric(Z), expected, **EXACT)
    assert_close(torch.linalg.det(potential.metric(Z)).real.item(), det, **EXACT)


@pytest.mark.parametrize("kind", RESPONSIBILITIES)
def test_reference_responsibilities(kind):
    expected = torch.tensor(RESPONSIBILITIES[kind], dtype=torch.float64)
    assert_close(reference_potential(kind).responsibilities(Z), expected, **EXACT)


def random_potential(kind, *, full, num=6, n=3, dtype=torch.complex128):
    torch.manual_seed(0)
    loc = torch.randn(num, n, dtype=dtype)
    if full:
        root = torch.randn(num, n, n, dtype=dtype)
        precision = root @ root.mH + 0.5 * torch.eye(n)
        name = "precision_matrix"
    else:
        precision, name = torch.rand(num, n).to(loc.real) + 0.5, "precision_diag"
    precision = precision[0] if kind == "fubini_study" else precision
    weight = torch.randn(num).to(loc.real)
    return LogSumExpPotential(kind, loc, log_weight=weight, **{name: precision})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("full", [False, True])
def test_the_metric_is_the_mixed_hessian_of_the_value(kind, full):
    potential = random_potential(kind, full=full)
    z = torch.randn(4, 5, 3, dtype=torch.complex128)
    assert potential(z).shape == (4, 5)
    found = potential.metric(z)
    assert_close(found, mixed_hessian(potential, z)[0])
    assert_close(torch.func.vmap(potential.metric)(z), found)


@pytest.mark.parametrize("kind", ["plus", "fubini_study"])
@pytest.mark.parametrize("full", [False, True])
def test_two_kinds_are_plurisubharmonic(kind, full):
    """At a thousand points, near the centres and far away."""
    potential = random_potential(kind, full=full)
    z = torch.logspace(-1, 1, 1000, dtype=torch.float64).unsqueeze(-1) * torch.randn(
        1000, 3, dtype=torch.complex128
    )
    metric = potential.metric(z)
    eigenvalues = torch.linalg.eigvalsh(metric)
    # Responsibilities of one component leave zeros, which rounding makes negative.
    slack = 1e-12 * eigenvalues.amax(-1, keepdim=True).clamp(min=1)
    assert bool((eigenvalues > (0 if kind == "plus" else -slack)).all())
    if kind == "plus":
        assert_close(potential.log_det(z), torch.linalg.slogdet(metric).logabsdet)


@pytest.mark.parametrize("kind", ["log_mixture", "minus_log_mixture"])
def test_two_kinds_have_either_sign_and_no_logarithm_there(kind):
    potential = random_potential(kind, full=False)
    z = torch.randn(200, 3, dtype=torch.complex128)
    eigenvalues = torch.linalg.eigvalsh(potential.metric(z))
    assert eigenvalues.min() < -0.5
    assert eigenvalues.max() > 0.5
    assert torch.equal(potential.log_det(z).isnan(), eigenvalues[:, 0] <= 0)


@pytest.mark.parametrize("full", [False, True])
def test_the_mixture_is_one_of_normal_densities(full):
    potential = random_potential("log_mixture", full=full)
    z = torch.randn(7, 1, 3, dtype=torch.complex128)
    if full:
        each = ComplexMultivariateNormal(potential.loc, precision_matrix=potential.precision)
    else:
        each = ComplexNormal(potential.loc, potential.precision.rsqrt()).to_event(1)
    density = (each.log_prob(z) + potential.log_weight).logsumexp(-1)
    assert_close(potential(z.squeeze(1)), density + 3 * math.log(math.pi))


def test_few_components_make_a_singular_metric_of_the_last_kind():
    potential = random_potential("fubini_study", full=False, num=3)
    eigenvalues = torch.linalg.eigvalsh(potential.metric(Z[0].expand(3)))
    assert eigenvalues[0].abs() < 1e-12 < eigenvalues[1]


def test_close_components_keep_the_digits_of_their_metric():
    """Single precision, centres a thousandth apart at a distance of ten from the origin."""
    torch.manual_seed(0)
    loc = 10 + 1e-3 * torch.randn(4, 2, dtype=torch.complex64)
    z = loc[0] + 1e-3
    single, double = (
        LogSumExpPotential("fubini_study", loc.to(kind), precision_diag=torch.ones(2))
        for kind in (torch.complex64, torch.complex128)
    )
    exact = double.metric(z.to(torch.complex128))
    assert single.metric(z).dtype == torch.complex64
    # Squares of differences of 1e-3, each right to the resolution of ten, 1e-6.
    assert_close(single.metric(z).to(exact), exact, rtol=1e-2, atol=1e-9)


def test_weights_are_equal_by_default_and_a_precision_may_be_shared():
    ones, num = torch.ones(2, dtype=torch.float64), len(LOC)
    found = LogSumExpPotential("plus", LOC, precision_diag=ones)
    full = LogSumExpPotential(
        "plus",
        LOC,
        precision_matrix=torch.eye(2).expand(num, 2, 2),
        log_weight=-math.log(num) * torch.ones(num),
    )
    assert_close(found(Z), full(Z), rtol=0, atol=1e-7)  # weights in single precision
    assert_close(found.metric(Z), full.metric(Z), rtol=0, atol=1e-7)


def test_bad_potentials_are_refused():
    ones = torch.ones(2)
    for arguments, options, message in [
        (("mixture", LOC), {"precision_diag": ones}, r"expected kind among plus, .*'mixture'"),
        (("plus", LOC.real), {"precision_diag": ones}, r"expected complex loc of shape \(K, n\)"),
        (("plus", LOC[0]), {"precision_diag": ones}, r"got torch.complex128 of shape \(2,\)"),
        (("plus", LOC), {}, r"expected one of precision_diag and precision_matrix"),
        (("plus", LOC), {"precision_diag": torch.ones(3)}, r"shape \(2,\) or \(3, 2\) for kind"),
        (
            ("fubini_study", LOC),
            {"precision_diag": PRECISION},
            r"expected precision_diag of shape \(2,\) for kind 'fubini_study', got \(3, 2\)",
        ),
        (("plus", LOC), {"precision_matrix": ones}, r"of shape \(2, 2\) or \(3, 2, 2\)"),
        (("plus", LOC), {"precision_diag": ones, "log_weight": ones}, r"shape \(3,\), got \(2,\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            LogSumExpPotential(*arguments, **options)
    with pytest.raises(ValueError, match=r"expected complex points, got torch.float64"):
        reference_potential("plus")(Z.real)


# The precision of encoders.


def test_reference_values_of_the_proxy():
    proxy = EncoderPrecisionProxy(LOC, PRECISION.rsqrt(), log_weight=WEIGHT.log())
    expected = torch.tensor([1.8618640410576, 0.95099850500525], dtype=torch.float64)
    assert_close(proxy.precision(Z), expected, **EXACT)
    assert_close(proxy.log_det(Z).item(), 0.57133537003512, **EXACT)
    assert_close(proxy.log_volume(Z), proxy.log_det(Z) + 2 * math.log(2))
    metric = torch.diag((expected - 1).clamp(min=0)).to(Z)
    assert_close(proxy.metric(Z), metric, **EXACT)
    assert_close(
        proxy.responsibilities(Z), reference_potential("log_mixture").responsibilities(Z), **EXACT
    )


def test_the_proxy_of_real_codes_is_that_of_their_mixture():
    loc, scale = torch.randn(5, 3), torch.rand(5, 3) + 0.5
    z = torch.randn(4, 2, 3)
    log_prob = torch.distributions.Normal(loc, scale).log_prob(z.unsqueeze(-2)).sum(-1)
    proxy = EncoderPrecisionProxy(loc, scale)
    assert_close(proxy.responsibilities(z), log_prob.softmax(-1))
    assert_close(proxy.precision(z), log_prob.softmax(-1) @ scale**-2)
    assert_close(proxy.log_volume(z), proxy.log_det(z) / 2)
    assert proxy.metric(z).shape == (4, 2, 3, 3)
    assert_close(torch.func.vmap(proxy.log_det)(z), proxy.log_det(z))


@pytest.mark.parametrize(
    ("family", "metric", "dtype"),
    [(Normal, fisher_metric, torch.float64), (ComplexNormal, hermitian_fisher, torch.complex128)],
)
def test_the_best_encoder_of_a_linear_decoder_stores_its_metric(family, metric, dtype):
    slope, zero = torch.tensor([3.0, 0.5], dtype=dtype), torch.zeros(2, dtype=dtype)
    log_scale = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    # Means of squares are exact at plus and minus one deviation, of real and imaginary parts.
    signs = torch.tensor([1, -1, 1j, -1j] if dtype.is_complex else [1.0, -1.0], dtype=dtype)
    options = {"tolerance_grad": 1e-12, "tolerance_change": 0, "line_search_fn": "strong_wolfe"}
    optimiser = torch.optim.LBFGS([log_scale], max_iter=100, **options)

    def decoder(z):
        return family(slope * z, torch.ones(2, dtype=torch.float64))

    def negative_elbo():
        optimiser.zero_grad()
        posterior = family(zero, log_scale.exp())
        z = signs.unsqueeze(-1) * log_scale.exp()
        prior = family(zero, torch.ones(2, dtype=torch.float64))
        divergence = kl_divergence(posterior, prior)
        loss = (divergence - decoder(z).log_prob(zero).mean(0)).sum()
        loss.backward()
        return loss

    optimiser.step(negative_elbo)
    proxy = EncoderPrecisionProxy(zero.unsqueeze(0), log_scale.detach().exp())
    assert_close(proxy.metric(zero), metric(decoder, zero), rtol=1e-6, atol=1e-6)


def test_gradients_reach_points_and_codes():
    loc = torch.randn(3, 2, dtype=torch.complex128, requires_grad=True)
    scale = (torch.rand(3, 2, dtype=torch.float64) + 0.5).requires_grad_()
    z = torch.randn(4, 2, dtype=torch.complex128, requires_grad=True)

    def proxy(z, loc, scale):
        return EncoderPrecisionProxy(loc, scale).log_det(z)

    def plus(z, loc, scale):
        return LogSumExpPotential("plus", loc, precision_diag=scale).log_det(z)

    assert torch.autograd.gradcheck(proxy, (z, loc, scale))
    assert torch.autograd.gradcheck(plus, (z, loc, scale))


def test_bad_codes_are_refused():
    with pytest.raises(ValueError, match=r"expected loc of shape \(K, n\), got \(2,\)"):
        EncoderPrecisionProxy(torch.zeros(2), torch.ones(2))
    with pytest.raises(
        ValueError, match=r"expected scale that broadcasts to \(3, 2\), got \(4, 3"
    ):
        EncoderPrecisionProxy(torch.zeros(3, 2), torch.ones(4, 3, 2))
    with pytest.raises(ValueError, match=r"expected log_weight of shape \(3,\), got \(2,\)"):
        EncoderPrecisionProxy(torch.zeros(3, 2), torch.ones(2), log_weight=torch.ones(2))
    with pytest.raises(
        ValueError, match=r"expected points like codes of torch.float32, got torch.c"
    ):
        EncoderPrecisionProxy(torch.zeros(3, 2), torch.ones(2)).log_det(torch.zeros(2) + 0j)
