"""The wrapped normal: test vectors, 40-digit sums, derivatives, and evaluation in every mode."""

import math
from functools import partial

import mpmath
import pytest
import torch
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds.ops import blocks
from pyro_manifolds.ops.wrapped_normal import (
    wrapped_normal_kl_to_uniform,
    wrapped_normal_log_prob,
)

DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
# Around the switches of the code (0.38 and 1.8) and over eight decades.
SCALES = [1e-4, 1e-2, 0.07, 0.3, 0.379, 0.381, 0.7, 1.0, 1.5, 1.79, 1.81, 2.2, 3.0, 8.0, 1e2, 1e4]
DIFFERENCES = [
    *(0.0, 1e-8, 0.3, -1.0, math.pi / 2, -2.5, 3.0, 3.1, -3.14, 3.1415),
    *(math.pi - 1e-7, -math.nextafter(math.pi, 0), math.pi),
]
VECTORS = [  # difference, scale, log-density, its derivatives by location and by scale
    (0, 0.05, 2.076793740349318, 0, -20.0),
    (0.3, 0.05, -15.92320625965068, 120.0, 700.0),
    (3.1, 0.05, -1919.923206259651, 1240.0, 76860.0),
    (3.0, 0.3, -49.71491479883062, 33.32977783576337, 330.0033562155718),
    (1.0, 0.5, -2.225791352644727, 4.0, 6.0),
    (-2.5, 0.5, -12.72579125333102, -9.999997503974294, 48.00000640572702),
    (3.1, 1.0, -5.152945755463703, 0.366589932328555, 8.837379556127024),
    (0.5, 1.5, -1.379295435231802, 0.2205832051186632, -0.5859236219762726),
    (3.0, 1.79, -2.341676965082228, 0.09106799456843903, 1.144344589378789),
    (3.0, 1.81, -2.319285810775858, 0.08619653685585925, 1.095154602132945),
    (-3.0, 2.0, -2.148920100485397, -0.05162146545018222, 0.7244210850945031),
    (1.0, 3.0, -1.825944127752058, 0.01847408127414603, -0.03558595777231328),
    (2.0, 10.0, -1.837877066409345, 3.50761454748803e-22, 1.605286295441932e-21),
    (0.5, 1.0, -1.04393847118105, None, None),
    (3.0, 1.0, -5.07478280176322, None, None),
    (3.0, 3.0, -1.86011819396435, None, None),
]
KL_VECTORS = {
    **{0.05: 3.414670806758664, 0.1: 2.72152362619872, 0.2: 2.028376445638773},
    **{0.3: 1.622911337530609, 0.4: 1.33522926507884, 0.5: 1.112085714777689},
    **{0.8: 0.6423356352362517, 1: 0.4237610086806359, 1.2: 0.2613138383067406},
    **{1.25: 0.228966239671689, 1.5: 0.1105925761543898, 1.52: 0.103841335359293},
    **{2: 0.01848134987853437, 2.5: 0.001932315068236064, 3: 0.0001234174184501003},
    5: 1.388794386506046e-11,
}


def double(x, **kwargs):
    return torch.tensor(x, dtype=torch.float64, **kwargs)


def reference(difference, scale):
    """Log-density and its two derivatives by sums far longer than needed, in 40 digits."""
    with mpmath.workdps(40):
        d, s = mpmath.mpf(difference), mpmath.mpf(scale)
        if s < 3:
            window = 3 + math.ceil(2.5 * s)
            lifts = [d + 2 * mpmath.pi * k for k in range(-window, window + 1)]
            weights = [mpmath.exp(-((x / s) ** 2) / 2) for x in lifts]
            f = mpmath.fsum(weights)
            by_d = -mpmath.fsum(w * x for w, x in zip(weights, lifts, strict=True)) / s**2
            squares = (w * x**2 for w, x in zip(weights, lifts, strict=True))
            by_s = mpmath.fsum(squares) / s**3 - f / s
            log = mpmath.log(f) - mpmath.log(s) - mpmath.log(2 * mpmath.pi) / 2
        else:
            coefficients = [(n, 2 * mpmath.exp(-((n * s) ** 2) / 2)) for n in range(1, 12)]
            f = 1 + mpmath.fsum(c * mpmath.cos(n * d) for n, c in coefficients)
            by_d = -mpmath.fsum(c * n * mpmath.sin(n * d) for n, c in coefficients)
            by_s = -s * mpmath.fsum(c * n**2 * mpmath.cos(n * d) for n, c in coefficients)
            log = mpmath.log(f) - mpmath.log(2 * mpmath.pi)
        return [float(log), float(by_d / f), float(by_s / f)]


def kl_reference(scale):
    """Divergence to the uniform law by the Jacobi triple product, or the Gaussian entropy."""
    with mpmath.workdps(40):
        s = mpmath.mpf(scale)
        if s < 0.2:  # wrapping is below 1e-40 here
            return float(mpmath.log(2 * mpmath.pi / s) - (1 + mpmath.log(2 * mpmath.pi)) / 2)
        q, terms = mpmath.exp(-(s**2)), range(1, 12 + int(100 / s**2))
        product = mpmath.fsum(mpmath.log1p(-(q**n)) for n in terms)
        series = mpmath.fsum(
            (-1) ** k * q ** (k * (k + 1) // 2) / (k * (1 - q**k)) for k in range(1, 80)
        )
        return float(product - 2 * series)


def scores(difference, scale, **kwargs):
    difference, scale = (x.detach().clone().requires_grad_() for x in (difference, scale))
    log_prob = wrapped_normal_log_prob(difference, scale, **kwargs)
    return (log_prob.detach(), *grad(log_prob.sum(), [difference, scale]))


def grid(dtype, scales=SCALES, differences=DIFFERENCES):
    return torch.tensor(differences, dtype=dtype), torch.tensor(scales, dtype=dtype).unsqueeze(-1)


@pytest.mark.parametrize(("difference", "scale", "value", "by_loc", "by_scale"), VECTORS)
def test_log_prob_and_scores_match_the_vectors(difference, scale, value, by_loc, by_scale):
    found, by_difference, by_s = scores(double(difference), double(scale))
    # The vectors have 15 digits or more; scores below 1e-20 keep their relative precision.
    assert_close(found, double(value), rtol=5e-15, atol=0)
    if by_loc is not None:
        assert_close(-by_difference, double(float(by_loc)), rtol=2e-14, atol=0)
        assert_close(by_s, double(by_scale), rtol=2e-14, atol=0)


@pytest.mark.parametrize("scale", SCALES)
@DTYPES
def test_log_prob_agrees_with_sums_of_forty_digits(dtype, scale):
    difference, scale = grid(dtype, [scale])
    found = wrapped_normal_log_prob(difference, scale).double().squeeze(0)
    expected = double([reference(d.item(), scale.item())[0] for d in difference])
    error = (found - expected).abs() / expected.abs().clamp(min=1)
    # float64: the truncation at the switch costs 1.4e-15. float32: a few units of resolution.
    assert error.max() < {torch.float64: 3e-15, torch.float32: 6e-7}[dtype]


@pytest.mark.parametrize("scale", SCALES)
def test_scores_agree_with_sums_of_forty_digits(scale):
    difference = double(DIFFERENCES[:10])
    _, by_difference, by_scale = scores(difference, torch.full_like(difference, scale))
    expected = double([reference(d.item(), scale)[1:] for d in difference])
    # Near the antipode the score jumps over a width of scale^2 / 2 pi: there it is conditioned
    # like the rounding of pi times its slope, (pi / scale^2)^2.
    rounding = 1e-15 * (1 + (math.pi / scale**2) ** 2 * (difference.abs() > 3).double())
    magnitude = expected[:, 0].abs() + 1 / scale
    assert ((by_difference - expected[:, 0]).abs() <= 3e-14 * magnitude + rounding).all()
    magnitude = expected[:, 1].abs() + 1 / scale
    assert ((by_scale - expected[:, 1]).abs() <= 3e-14 * magnitude + rounding * 4 / scale).all()


@pytest.mark.parametrize("scale", [0.05, 0.4, 1.0, 1.7, 1.9, 4.0])
def test_density_solves_the_heat_equation(scale):
    difference, scale = double(DIFFERENCES[:10], requires_grad=True), double(scale).expand(10)
    scale = scale.clone().requires_grad_()
    density = wrapped_normal_log_prob(difference, scale).exp()
    first, by_scale = grad(density.sum(), [difference, scale], create_graph=True)
    (second,) = grad(first.sum(), difference)
    # Terms of magnitude 1 / scale^3 cancel in the second derivative.
    assert_close(scale * second, by_scale, rtol=1e-12, atol=1e-14 / scale[0].item() ** 3)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.75, 1.85, 3.0])
def test_first_and_second_derivatives_agree_with_finite_differences(scale):
    difference = double([-2.5, -0.3, 0.0, 1.0, 2.9], requires_grad=True)
    scale = double(scale, requires_grad=True)
    assert gradcheck(wrapped_normal_log_prob, (difference, scale))
    assert gradgradcheck(wrapped_normal_log_prob, (difference, scale))
    narrow = partial(wrapped_normal_log_prob, period=2.0)
    small = (0.3 * difference.detach()).requires_grad_()
    assert gradcheck(narrow, (small, (0.3 * scale.detach()).requires_grad_()))


@DTYPES
def test_values_and_two_derivatives_are_finite_over_twelve_decades_of_scale(dtype):
    decades = [10.0**k for k in range(-6, 7)]
    difference, scale = grid(dtype, [*decades, 1.6, 1.8, 2.0])
    shape = torch.broadcast_shapes(difference.shape, scale.shape)
    difference = difference.expand(shape).clone().requires_grad_()
    scale = scale.expand(shape).clone().requires_grad_()
    log_prob = wrapped_normal_log_prob(difference, scale)
    first = grad(log_prob.sum(), [difference, scale], create_graph=True)
    second = [grad(g.sum(), [difference, scale], retain_graph=True) for g in first]
    for tensor in (log_prob, *first, *second[0], *second[1]):
        assert tensor.isfinite().all()


def test_any_representative_of_the_difference_is_accepted():
    difference, scale = grid(torch.float64, [0.3, 1.0, 5.0])
    moved = wrapped_normal_log_prob(difference + 6 * math.pi, scale)
    # Three turns cost three units of rounding, times a score of at most 40.
    assert_close(moved, wrapped_normal_log_prob(difference, scale), rtol=0, atol=1e-12)


@pytest.mark.parametrize("period", [1.0, math.pi, 4.0, 100.0])
def test_another_period_rescales_the_circle(period):
    difference, scale = grid(torch.float64, [0.1, 1.0, 1.79, 5.0])
    ratio = period / (2 * math.pi)
    found = scores(
        (ratio * difference).expand(4, -1), (ratio * scale).expand(-1, 13), period=period
    )
    value, by_difference, by_scale = scores(difference.expand(4, -1), scale.expand(-1, 13))
    assert_close(found[0], value - math.log(ratio), rtol=1e-12, atol=1e-12)
    off_cut = difference.abs() < 3.141  # rescaling rounds the score at its jump
    for a, b in ((found[1], by_difference), (found[2], by_scale)):
        assert_close((a * ratio)[:, off_cut], b[:, off_cut], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("period", [2 * math.pi, 2.0])
@pytest.mark.parametrize("scale", [0.2, 1.0, 1.79, 1.81, 3.0])
def test_density_integrates_to_one(scale, period):
    # The trapezoid rule converges faster than any power on a smooth periodic integrand.
    nodes = period * torch.arange(400, dtype=torch.float64) / 400
    density = wrapped_normal_log_prob(nodes, double(scale), period).exp()
    assert_close(density.mean() * period, double(1.0), rtol=0, atol=1e-13)


# Evaluation in every mode.


@pytest.mark.parametrize("shapes", [((7,), ()), ((), (7,)), ((3, 1), (5,)), ((2, 3), (1, 3))])
def test_gradients_have_the_shapes_of_the_arguments_and_sum_over_broadcasting(shapes):
    difference = torch.randn(shapes[0], dtype=torch.float64).requires_grad_()
    scale = (0.5 + torch.rand(shapes[1], dtype=torch.float64) * 3).requires_grad_()
    value = wrapped_normal_log_prob(difference, scale)
    weights = torch.randn_like(value)
    found = grad((weights * value).sum(), [difference, scale])
    full = [x.detach().expand(value.shape).clone() for x in (difference, scale)]
    expected = [weights * g for g in scores(*full)[1:]]
    for tensor, gradient, reference_ in zip((difference, scale), found, expected, strict=True):
        assert gradient.shape == tensor.shape
        assert_close(gradient, reference_.sum_to_size(tensor.shape), rtol=1e-13, atol=1e-13)


@DTYPES
def test_large_inputs_go_through_blocks_and_come_out_the_same(dtype, monkeypatch):
    difference = 3 * torch.randn(7, 10001, dtype=dtype)
    scale = (2 * torch.randn(7, 1, dtype=dtype)).exp()
    assert difference.numel() > blocks._BLOCK
    in_blocks = scores(difference, scale)
    monkeypatch.setattr(blocks, "_BLOCK", difference.numel())
    at_once = scores(difference, scale)
    for a, b in zip(in_blocks, at_once, strict=True):
        assert_close(a, b, rtol=0, atol=0)


def test_non_contiguous_inputs_give_the_same():
    difference, scale = torch.randn(300, 200), torch.rand(300, 200) + 0.1
    expected = scores(difference, scale)
    found = scores(difference.t().contiguous().t(), scale.t().contiguous().t())
    strided = scores(torch.stack([difference, scale], -1)[..., 0], scale)
    for a, b, c in zip(expected, found, strided, strict=True):
        assert_close(a, b, rtol=0, atol=0)
        assert_close(a, c, rtol=0, atol=0)


def test_vmap_over_values_and_gradients_equals_a_loop():
    difference, scale = torch.randn(5, 3), torch.rand(5, 3) * 3 + 0.1

    def total(d, s):
        return wrapped_normal_log_prob(d, s).sum()

    found = torch.func.vmap(torch.func.grad(total, argnums=(0, 1)))(difference, scale)
    assert_close(found, scores(difference, scale)[1:])
    values = torch.func.vmap(wrapped_normal_log_prob, in_dims=(0, None))(difference, scale[0])
    assert_close(values, wrapped_normal_log_prob(difference, scale[0]))


# Dynamo instantiates the autograd function while it traces, against torch's own advice.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_compiles_to_one_graph_with_its_gradient():
    torch.compiler.reset()
    difference = torch.randn(40000, requires_grad=True)
    scale = (torch.rand(40000) * 3 + 0.1).requires_grad_()
    compiled = torch.compile(wrapped_normal_log_prob, fullgraph=True, backend="aot_eager")
    value = compiled(difference, scale)
    found = (value.detach(), *grad(value.sum(), [difference, scale]))
    assert_close(found, scores(difference, scale))


# The divergence to the uniform law.


@pytest.mark.parametrize(("scale", "kl"), KL_VECTORS.items())
def test_kl_matches_the_vectors(scale, kl):
    found = wrapped_normal_kl_to_uniform(double(float(scale)))
    assert_close(found, double(kl), rtol=1e-13, atol=2e-14)


def test_kl_agrees_with_forty_digits_at_every_scale():
    scales = [*(10 ** (k / 10) for k in range(-60, 8)), 0.3799, 0.3801, 1.7999, 1.8001]
    expected = double([kl_reference(s) for s in scales])
    found = wrapped_normal_kl_to_uniform(double(scales))
    assert_close(found, expected, rtol=3e-13, atol=2e-14)
    large = double([s for s in scales if s > 1.81])
    # Below the absolute error the relative one still holds.
    assert_close(found[double(scales) > 1.81], expected[double(scales) > 1.81], rtol=1e-12, atol=0)
    assert len(large) > 4


def test_kl_agrees_with_quadrature_of_the_density():
    nodes = 2 * math.pi * torch.arange(2000, dtype=torch.float64) / 2000
    scale = double([0.1, 0.37, 0.5, 1.0, 1.79, 1.81, 2.5])
    log_prob = wrapped_normal_log_prob(nodes.unsqueeze(-1), scale)
    expected = (log_prob.exp() * (log_prob + math.log(2 * math.pi))).mean(0) * 2 * math.pi
    assert_close(wrapped_normal_kl_to_uniform(scale), expected, rtol=1e-12, atol=1e-14)


@DTYPES
def test_kl_decreases_and_is_finite_with_its_gradient_over_twelve_decades(dtype):
    scale = torch.logspace(-6, 6, 500, dtype=dtype, requires_grad=True)
    kl = wrapped_normal_kl_to_uniform(scale)
    (slope,) = grad(kl.sum(), scale)
    assert kl.isfinite().all()
    assert slope.isfinite().all()
    assert (kl >= 0).all()
    assert (kl.diff() <= 0).all()
    assert (slope <= 0).all()
    assert (slope[scale < 9] < 0).all()


def test_kl_derivative_is_minus_the_scale_times_the_fisher_information():
    nodes = 2 * math.pi * torch.arange(4000, dtype=torch.float64) / 4000
    scale = double([0.1, 0.37, 0.39, 1.0, 1.79, 1.81, 3.0], requires_grad=True)
    (found,) = grad(wrapped_normal_kl_to_uniform(scale).sum(), scale)
    fixed = scale.detach().expand(4000, -1)
    log_prob, score, _ = scores(nodes.unsqueeze(-1).expand_as(fixed), fixed)
    information = (log_prob.exp() * score.square()).mean(0) * 2 * math.pi
    assert_close(found, -scale.detach() * information, rtol=1e-10, atol=1e-13)


def test_kl_gradient_agrees_with_finite_differences():
    scale = double([0.1, 0.3, 0.5, 1.0, 1.7, 2.0, 3.0], requires_grad=True)
    assert gradcheck(wrapped_normal_kl_to_uniform, scale)
    assert gradgradcheck(wrapped_normal_kl_to_uniform, scale)


def test_kl_depends_only_on_the_share_of_the_period():
    scale = double([0.1, 0.5, 1.0, 3.0])
    rescaled = wrapped_normal_kl_to_uniform(scale / math.pi, period=2.0)
    assert_close(rescaled, wrapped_normal_kl_to_uniform(scale), rtol=1e-13, atol=1e-14)
