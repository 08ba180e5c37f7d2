"""What Klein and circle filters have in common: derivatives, transformations, copies, errors."""

import copy
import math
import pickle

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from torch.testing import assert_close

from pyro_manifolds import Circle, CircleFilter, KleinBottle, KleinFilter, VonMises, WrappedNormal
from pyro_manifolds.distributions import ManifoldMixture
from pyro_manifolds.ops.filters import circle_filters
from pyro_manifolds.testing import assert_mean

KLEIN = KleinBottle()
KINDS = [KleinFilter, CircleFilter]


def number(x):
    return torch.tensor(x, dtype=torch.float64)


def normal(loc, scale):
    return WrappedNormal(KLEIN, loc, scale)


def mixture(**options):
    loc = torch.tensor([[0.5, 1.0], [2.0, -2.0]], **options)
    parts = WrappedNormal(KLEIN, loc, torch.tensor(0.5, **options))
    return ManifoldMixture(dist.Categorical(torch.ones(2, **options)), parts)


def test_the_circle_by_a_grid_of_directions():
    angles = 2 * math.pi * torch.arange(400, dtype=torch.float64) / 400
    density = VonMises(number(1.0), 3.0)
    d = CircleFilter(5, number(4.0), 0.5, density)
    w = d.sample((50,))
    parts = dist.MultivariateNormal(
        torch.zeros(25, dtype=torch.float64),
        16 * torch.einsum("ni,nj->nij", *[circle_filters(angles, 5).flatten(-2)] * 2)
        + 0.25 * torch.eye(25, dtype=torch.float64),
    )
    terms = parts.log_prob(w.flatten(-2).unsqueeze(-2)) + density.log_prob(angles)
    expected = terms.logsumexp(-1) + math.log(2 * math.pi / 400)
    assert_close(d.log_prob(w), expected, atol=1e-9, rtol=0)


def parameters(shape=()):
    """Free numbers of a filter with everything that can be trained."""
    torch.manual_seed(2)
    tril = 0.1 * torch.randn(9, 9, dtype=torch.float64).tril() + torch.eye(9, dtype=torch.float64)
    free = [
        torch.full(shape, 1.3, dtype=torch.float64),
        torch.full(shape, 0.6, dtype=torch.float64),
        number([0.5, 1.0]),
        number([0.6, 0.9]),
        tril,
    ]
    return [x.requires_grad_() for x in free]


def log_prob(w, amplitude, noise, loc, scale, tril):
    # Of a triangular matrix, as its derivative is.
    d = KleinFilter(3, amplitude, noise, normal(loc, scale), noise_tril=tril.tril(), num_nodes=20)
    return d.log_prob(w)


@pytest.mark.parametrize("shape", [(), (2,)], ids=["shared", "batched"])
def test_derivatives_by_everything(shape):
    w = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_prob, (w, *parameters(shape)))


def test_second_derivatives():
    w = torch.randn(2, 3, 3, dtype=torch.float64, requires_grad=True)
    few = parameters()[:4]

    def value(w, *free):
        return KleinFilter(3, free[0], free[1], normal(*free[2:]), num_nodes=12).log_prob(w)

    assert torch.autograd.gradgradcheck(value, (w, *few))
    fixed = KleinFilter(3, number(1.3), 0.6)
    hessian = torch.autograd.functional.hessian(lambda w: fixed.log_prob(w), w[0].detach())
    step = 1e-5 * torch.eye(9, dtype=torch.float64).reshape(9, 3, 3)
    ends = torch.stack([w[0].detach() + step, w[0].detach() - step]).requires_grad_()
    (slopes,) = torch.autograd.grad(fixed.log_prob(ends).sum(), ends)
    numeric = (slopes[0] - slopes[1]).reshape(9, 9) / 2e-5
    assert_close(hessian.reshape(9, 9), numeric, atol=1e-7, rtol=1e-6)


def test_mapped_over_parameters_and_over_values():
    w = torch.randn(4, 3, 3, dtype=torch.float64)
    fixed = KleinFilter(3, number(1.3), 0.6, mixture(dtype=torch.float64))
    slopes = torch.vmap(torch.func.grad(fixed.log_prob))(w)
    leaf = w.clone().requires_grad_()
    assert_close(slopes, torch.autograd.grad(fixed.log_prob(leaf).sum(), leaf)[0])
    amplitudes = number([0.5, 1.0, 2.0, 3.0])

    def one(w, amplitude):
        return KleinFilter(3, amplitude, number(0.6), num_nodes=16).log_prob(w)

    by_both = torch.vmap(torch.func.grad(one, argnums=(0, 1)))(w, amplitudes)
    leaves = [w.clone().requires_grad_(), amplitudes.clone().requires_grad_()]
    total = one(*leaves).sum()
    assert_close(by_both, torch.autograd.grad(total, leaves))


@pytest.mark.parametrize("size", [4, 1])
def test_pathwise_gradients_are_those_of_the_moments(size):
    """Of the mean square of a projection, by amplitude, noise and location of the points."""
    free = [x.detach().requires_grad_() for x in parameters()[:4]]
    direction = torch.linspace(-1, 2, 9, dtype=torch.float64)
    d = KleinFilter(3, *free[:2], normal(*free[2:]))
    exact = torch.autograd.grad(direction @ d.covariance_matrix @ direction, free)
    many = [x.detach().expand((40_000, size) + x.shape).clone().requires_grad_() for x in free]
    batch = KleinFilter(3, *many[:2], normal(*many[2:]), num_nodes=4)
    assert batch.has_rsample
    found = torch.autograd.grad((batch.rsample().flatten(-2) @ direction).square().sum(), many)
    for draws, expected in zip(found, exact, strict=True):
        assert_mean(draws.flatten(0, 1), expected, floor=1e-9, what="pathwise gradient")


def test_without_reparameterised_points_there_are_no_pathwise_draws():
    d = KleinFilter(3, 1.0, 0.5, mixture())
    assert not d.has_rsample
    with pytest.raises(NotImplementedError):
        d.rsample()
    assert d.expand([2]).sample((4,)).shape == (4, 2, 3, 3)


def test_score_function_gradients_train_a_guide_of_such_draws():
    def model():
        pyro.sample("w", KleinFilter(3, 3.0, 0.5, num_nodes=24))

    def guide():
        amplitude = pyro.param(
            "amplitude", torch.tensor(1.0), constraint=dist.constraints.positive
        )
        pyro.sample("w", KleinFilter(3, amplitude, 0.5, mixture(), num_nodes=24))

    svi = SVI(
        model, guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO(200, 0, vectorize_particles=True)
    )
    for _ in range(60):
        svi.step()
    assert 2 < pyro.param("amplitude") < 4


def test_what_is_trained_is_read_anew():
    """A prior that is built once follows its parameters through the steps of an optimiser."""
    loc, amplitude = number([0.5, 1.0]).requires_grad_(), number(1.0).requires_grad_()
    for leaf, build in [
        (loc, lambda: KleinFilter(3, number(1.3), 0.6, normal(loc, number([0.6, 0.9])))),
        (amplitude, lambda: KleinFilter(3, amplitude, 0.6)),
    ]:
        d, w = build(), torch.randn(5, 3, 3, dtype=torch.float64)
        for _ in range(2):
            d.log_prob(w).sum().backward()  # twice: no graph is kept
            with torch.no_grad():
                leaf += 0.1
        assert_close(d.log_prob(w), build().log_prob(w))


@pytest.mark.parametrize("name", ["amplitude", "noise", "noise_tril"])
def test_what_is_not_trained_is_copied(name):
    given = {"amplitude": number(1.0), "noise": number(0.5), "noise_tril": torch.eye(9).double()}
    d, w = KleinFilter(3, **given), torch.randn(5, 3, 3, dtype=torch.float64)
    expected = d.log_prob(w), d.covariance_matrix
    given[name].mul_(3).requires_grad_()
    assert_close((d.log_prob(w), d.covariance_matrix), expected, atol=0, rtol=0)
    assert not d.log_prob(w).requires_grad


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning")
def test_amplitudes_that_vary_need_their_nodes_told():
    def value(w, amplitude, num_nodes=None):
        d = KleinFilter(3, amplitude, 0.3, num_nodes=num_nodes, validate_args=False)
        return d.log_prob(w)

    w, amplitudes = torch.randn(3, 3), torch.tensor([1.0, 5.0])
    message = "KleinFilter: expected num_nodes to be given where amplitude, noise or density vary"
    with pytest.raises(ValueError, match=message):
        torch.vmap(value, (None, 0))(w, amplitudes)
    with pytest.raises(ValueError, match=message):
        torch.jit.trace(value, (w, amplitudes[0]))
    traced = torch.jit.trace(lambda w: value(w, 1.0) + value(w, amplitudes[1]), (w,))
    assert_close(traced(-2 * w), value(-2 * w, 1.0) + value(-2 * w, 5.0))
    by_nodes = torch.jit.trace(lambda w, a: value(w, a, 40), (w, amplitudes[0]))
    assert_close(by_nodes(w, amplitudes[1]), value(w, 5.0, 40))


def test_hessians_by_either_mode():
    d, w = KleinFilter(3, number(1.3), 0.6), torch.randn(3, 3, dtype=torch.float64)
    expected = torch.autograd.functional.hessian(d.log_prob, w)
    assert_close(torch.func.hessian(d.log_prob)(w), expected)
    assert_close(torch.func.jacrev(torch.func.jacrev(d.log_prob))(w), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes_and_factors_of_every_kind(kind):
    d = kind(np.int64(3), torch.tensor([1.0, 2.0]), 0.5)
    assert type(d.kernel_size) is int
    assert d.expand([4, -1]).batch_shape == (4, 2)
    assert d.expand([4, -1]).sample().shape == (4, 2, 3, 3)
    with pytest.raises(ValueError, match=f"{kind.__name__}: expected factor .* got 0"):
        d.rescale(0.0)


@pytest.mark.parametrize("kind", KINDS)
def test_copies_expansions_and_masks(kind):
    d = kind(5, torch.tensor([1.0, 2.0]), 0.5)
    x = d.sample((3,))
    for twin in (copy.deepcopy(d), pickle.loads(pickle.dumps(d)), d.expand([3, 2])):
        assert type(twin) is kind
        assert torch.equal(twin.log_prob(x), d.log_prob(x))
    assert_close(d.to_event(1).log_prob(x), d.log_prob(x).sum(-1))
    assert not d.mask(False).log_prob(x).any()
    assert d.expand([4, 2]).rescale(2.0).expand([3, 4, 2]).sample().shape == (3, 4, 2, 5, 5)
    with pytest.raises(RuntimeError):
        d.expand([3])
    assert f"{kind.__name__}(kernel_size: 5" in repr(d)


@pytest.mark.parametrize("kind", KINDS)
def test_plates_with_subsampling_scale_the_density(kind):
    d = kind(3, 1.0, 0.5)

    def model():
        with pyro.plate("filters", 10, subsample_size=4):
            pyro.sample("w", d)

    trace = poutine.trace(model).get_trace()
    trace.compute_log_prob()
    site = trace.nodes["w"]
    assert site["log_prob"].shape == (4,)
    assert_close(site["log_prob_sum"], 2.5 * d.log_prob(site["value"]).sum())


def test_a_batch_of_densities_has_its_own_weights():
    loc = number([[0.0, 0.5], [1.0, 2.0], [2.0, -1.0]])
    scale = number([0.5, 0.7])
    batch = KleinFilter(3, number(2.0), 0.5, normal(loc, scale))
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    for i in range(3):
        alone = KleinFilter(3, number(2.0), 0.5, normal(loc[i], scale))
        assert_close(batch.log_prob(w)[:, i], alone.log_prob(w[:, i]))
        assert_close(batch.covariance_matrix[i], alone.covariance_matrix)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((4, 1.0, 0.5), {}, "expected kernel_size to be odd and at least 3, got 4"),
        ((3, 1.0, 0.5), {"num_nodes": 7}, "num_nodes to be even and >= 4, got 7"),
        ((3, 1.0, 0.5), {"num_nodes": 2}, "num_nodes to be even and >= 4, got 2"),
        ((3, 1.0, 0.5), {"noise_tril": torch.eye(3)}, r"of shape \(9, 9\), got \(3, 3\)"),
        ((3, 1.0, 0.5), {"noise_tril": -torch.eye(9)}, "lower triangular with a positive diag"),
        ((3, 1.0, 0.5), {"noise_tril": torch.ones(9, 9)}, "lower triangular with a positive diag"),
        ((3, 0.0, 0.5), {}, "amplitude"),
        ((3, 1.0, -0.5), {}, "noise"),
        ((3, math.nan, 0.5), {"validate_args": False}, "got nan"),
        ((3, 1.0, 0.5, dist.Normal(0.0, 1.0)), {}, "expected density on"),
        ((3, 1.0, 0.5, VonMises(torch.zeros(2), 1.0).to_event(1)), {}, "expected density on"),
    ],
)
def test_wrong_arguments_are_named(kind, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        kind(*arguments, **options)


def test_densities_of_the_other_manifold_are_refused():
    with pytest.raises(ValueError, match=r"KleinFilter: expected density on KleinBottle\(\)"):
        KleinFilter(3, 1.0, 0.5, VonMises(torch.tensor(0.0), 1.0))
    with pytest.raises(ValueError, match=r"CircleFilter: expected density on Circle\(\)"):
        CircleFilter(3, 1.0, 0.5, mixture())
    pyros = dist.VonMises(torch.tensor(0.0), torch.tensor(2.0))
    ours = VonMises(torch.tensor(0.0), 2.0)
    w = torch.randn(4, 3, 3)
    assert_close(*[CircleFilter(3, 1.0, 0.5, d).log_prob(w) for d in (pyros, ours)])
    assert Circle() == CircleFilter.manifold


def test_numbers_of_any_kind():
    a = KleinFilter(3, 1, torch.tensor(0.5, dtype=torch.float64))
    assert a.sample().dtype == torch.float64
    assert KleinFilter(3, torch.ones(2, 1), torch.full((3,), 0.5)).batch_shape == (2, 3)
