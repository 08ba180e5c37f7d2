"""Mixtures of normal filters against torch's own mixtures, and against their samples."""

import itertools
import math

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from torch.testing import assert_close

from pyro_manifolds.distributions import FilterDistribution, MixtureFilter
from pyro_manifolds.nn.bayesian import BayesianModule


def _parts(rank, dtype=torch.float64, components=5, size=9):
    torch.manual_seed(1)
    rotation, _ = torch.linalg.qr(torch.randn(size, size, dtype=dtype))
    return (
        torch.randn(components, dtype=dtype),
        torch.randn(components, size, dtype=dtype),
        torch.rand(components, size, dtype=dtype) + 0.3,
        torch.randn(components, size, rank, dtype=dtype),
        rotation * torch.linspace(0.5, 2, size, dtype=dtype),
    )


def _oracle(logits, loc, scale, factor, basis):
    """The same mixture out of dense covariances."""
    covariance = torch.diag_embed(scale.square()) + factor @ factor.mT
    normal = dist.MultivariateNormal(loc @ basis.mT, basis @ covariance @ basis.mT)
    return dist.MixtureSameFamily(dist.Categorical(logits=logits), normal)


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_density_and_moments_are_those_of_the_dense_mixture(rank):
    parts = _parts(rank)
    law, oracle = MixtureFilter(*parts), _oracle(*parts)
    w = 2 * torch.randn(7, 2, 3, 3, dtype=torch.float64)
    assert_close(law.log_prob(w), oracle.log_prob(w.flatten(-2)), rtol=0, atol=1e-10)
    assert_close(law.mean, oracle.mean.reshape(3, 3), rtol=0, atol=1e-12)
    assert_close(law.variance, oracle.variance.reshape(3, 3), rtol=1e-12, atol=0)


def test_gradients_are_those_of_the_dense_mixture():
    leaves = [part.requires_grad_() for part in _parts(2)]
    w = torch.randn(4, 3, 3, dtype=torch.float64, requires_grad=True)
    grads = [
        torch.autograd.grad(value.sum(), [w, *leaves])
        for value in (
            MixtureFilter(*leaves).log_prob(w),
            _oracle(*leaves).log_prob(w.flatten(-2)),
        )
    ]
    for ours, theirs in zip(*grads, strict=True):
        assert_close(ours, theirs, rtol=1e-9, atol=1e-10)


def test_samples_have_the_covariance():
    law = MixtureFilter(*_parts(2))
    w = law.sample((100_000,)).flatten(-2)
    centred = w - law.mean.flatten()
    products = centred.unsqueeze(-1) * centred.unsqueeze(-2)
    error = products.std(0) / len(w) ** 0.5
    assert ((products.mean(0) - law.covariance_matrix).abs() / error).max() < 5  # 45 numbers
    assert (
        (w.mean(0) - law.mean.flatten()).abs() * (len(w) / law.variance.flatten()) ** 0.5
    ).max() < 5


def test_rescaled_density_is_that_of_scaled_filters():
    law = MixtureFilter(*_parts(1)).expand([2])
    assert isinstance(law, FilterDistribution)
    w = torch.randn(2, 3, 3, dtype=torch.float64)
    expected = law.log_prob(w) - 9 * torch.tensor(0.3, dtype=torch.float64).log()
    assert_close(law.rescale(0.3).log_prob(0.3 * w), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("rank", [0, 1])
def test_narrow_components_far_from_zero_keep_float32(rank):
    torch.manual_seed(0)
    loc = 3 + torch.randn(6, 9)
    parts = (torch.zeros(6), loc, torch.full((6, 9), 0.01), 0.02 * torch.randn(6, 9, rank))
    law = MixtureFilter(*parts)
    oracle = _oracle(*(part.double() for part in parts), torch.eye(9, dtype=torch.float64))
    w = law.sample((200,))
    # Of squares near 1e5, which float32 knows to 0.01 each.
    expected = oracle.log_prob(w.double().flatten(-2)).float()
    assert_close(law.log_prob(w), expected, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("shape", [(4, 1), (3,), (5, 4, 1)])
def test_factors_of_each_row_rescale_it(shape):
    law = MixtureFilter(*_parts(1)).expand([4, 1] if len(shape) > 1 else [])
    factor = torch.linspace(-2, 3, math.prod(shape), dtype=torch.float64).reshape(shape)
    scaled = law.rescale(factor).rescale(0.5)
    assert scaled.batch_shape == shape
    draws = scaled.sample((2,))
    assert draws.shape == (2, *shape, 3, 3)
    values, moments = scaled.log_prob(draws), (scaled.mean, scaled.covariance_matrix)
    for index in itertools.product(*map(range, shape)):
        one, row = 0.5 * factor[index], draws[(slice(None), *index)]
        parts = list(_parts(1))
        parts[4] = one * parts[4]
        alone = MixtureFilter(*parts)
        assert_close(values[(slice(None), *index)], alone.log_prob(row), rtol=0, atol=1e-9)
        assert_close(moments[0][index], alone.mean, rtol=0, atol=1e-12)
        assert_close(moments[1][index], alone.covariance_matrix, rtol=1e-12, atol=1e-12)


def test_a_layer_of_either_dtype_may_have_it():
    law = MixtureFilter(*_parts(1, torch.float32))
    weight = law.sample((4, 1))
    for dtype in (torch.float32, torch.float64):
        net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten()).to(dtype)
        model = BayesianModule(net, {"0": law})
        value = {"0.weight": weight.to(dtype)}
        conditioned = pyro.poutine.condition(model, value)
        trace = pyro.poutine.trace(conditioned).get_trace(torch.ones(2, 1, 3, 3, dtype=dtype))
        found = trace.nodes["0.weight"]["fn"].log_prob(weight.to(dtype))
        assert found.dtype == dtype
        assert_close(found, law.log_prob(weight).sum().to(dtype), rtol=1e-5, atol=0)


def test_gradients_are_taken_more_than_once():
    loc = torch.zeros(2, 9, requires_grad=True)
    law = MixtureFilter(torch.zeros(2), loc, torch.ones(2, 9))
    for times in (1, 2):
        law.log_prob(torch.ones(3, 3)).backward()
        assert_close(loc.grad, torch.full((2, 9), 0.5 * times))


@pytest.mark.parametrize("parallel", [False, True])
def test_the_amplitude_of_a_layer_may_be_a_site_of_vectorised_particles(parallel):
    law = MixtureFilter(*_parts(1, torch.float32))

    def prior(parameter):
        return law.rescale(pyro.sample("amplitude", dist.LogNormal(-2.0, 0.5)))

    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Flatten(), torch.nn.Linear(4, 2))
    model = BayesianModule(net, {"0": prior})
    x, y = torch.randn(6, 1, 3, 3), torch.randint(2, (6,))
    with pyro.get_param_store().scope():
        elbo = Trace_ELBO(num_particles=3, vectorize_particles=parallel)
        svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.01}), elbo)
        assert math.isfinite(svi.step(x, y))


def test_float32_is_kept_and_agrees():
    single, double = MixtureFilter(*_parts(1, torch.float32)), MixtureFilter(*_parts(1))
    w = single.sample((20,))
    assert w.dtype == single.log_prob(w).dtype == torch.float32
    parts = (single.logits, single.loc, single.scale, single.factor, single.basis)
    double = MixtureFilter(*(part.double() for part in parts))
    assert_close(single.log_prob(w).double(), double.log_prob(w.double()), rtol=1e-4, atol=1e-4)


def test_shapes_of_expanded_laws():
    law = MixtureFilter(*_parts(0)).expand([4, 1])
    assert law.sample((3,)).shape == (3, 4, 1, 3, 3)
    assert law.log_prob(torch.zeros(3, 4, 5, 3, 3, dtype=torch.float64)).shape == (3, 4, 5)
    assert law.variance.shape == law.mean.shape == (4, 1, 3, 3)
    assert law.sample((0,)).shape == (0, 4, 1, 3, 3)
    with pytest.raises(RuntimeError):
        law.expand([3, 1])


def test_density_compiles_and_maps():
    law = MixtureFilter(*_parts(1), validate_args=False)
    w = torch.randn(6, 3, 3, dtype=torch.float64)
    expected = law.log_prob(w)
    assert_close(torch.func.vmap(law.log_prob)(w), expected, rtol=0, atol=1e-12)
    torch._dynamo.reset()
    compiled = torch.compile(law.log_prob, fullgraph=True, backend="eager")
    assert_close(compiled(w), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, torch.zeros(4), r"loc of shape \(n, d\), got \(4,\) and \(5, 9\)"),
        (2, torch.ones(5, 8), r"of one shape \(n, k \* k\), got \(5, 9\) and \(5, 8\)"),
        (2, -torch.ones(5, 9), "scale"),
        (3, torch.ones(5, 9), r"factor of shape \(5, 9\) \+ \(rank,\)"),
        (4, torch.eye(8), r"basis of shape \(9, 9\), got \(8, 8\)"),
    ],
)
def test_wrong_arguments_are_refused(index, value, message):
    parts = list(_parts(0, torch.float32))
    parts[index] = value
    with pytest.raises(ValueError, match=message):
        MixtureFilter(*parts)


def test_expand_keeps_dimensions_given_as_minus_one():
    d = MixtureFilter(torch.zeros(2), torch.randn(2, 9), torch.ones(2, 9)).expand([3])
    assert d.expand([2, -1]).batch_shape == (2, 3)
