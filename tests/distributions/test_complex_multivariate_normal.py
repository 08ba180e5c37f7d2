"""Normal distributions of complex vectors: known values, their real twin, and what is refused."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds.distributions import ComplexMultivariateNormal, ComplexNormal

COHERENCES = {
    "proper": (None, None),
    "improper": (
        [[0.3 + 0.2j, -0.1 + 0.4j], [-0.1 + 0.4j, 0.2 - 0.5j]],
        [[-0.2 + 0.1j, 0.3], [0.3, 0.1 + 0.35j]],
    ),
}


def array(z):
    return None if z is None else torch.tensor(z, dtype=torch.complex128)


def posterior(name):
    return ComplexMultivariateNormal(
        array([0.5 - 0.2j, -1 + 0.3j]),
        scale_tril=array([[1.2, 0], [0.4 - 0.3j, 0.7]]),
        coherence=array(COHERENCES[name][0]),
    )


def prior(name):
    return ComplexMultivariateNormal(
        array([0, 0.2 + 0.2j]),
        scale_tril=array([[0.9, 0], [-0.2 + 0.5j, 1.1]]),
        coherence=array(COHERENCES[name][1]),
    )


def split(z):
    return torch.cat([z.real, z.imag], -1)


# Calculated with mpmath from the normal density of the parts.
@pytest.mark.parametrize(
    ("name", "log_prob", "entropy"),
    [
        ("proper", -6.193587464529426, 3.940752997409245),
        ("improper", -6.551226222422832, 3.396916823094357),
    ],
)
def test_density_and_entropy_at_known_values(name, log_prob, entropy):
    d = posterior(name)
    assert abs(d.log_prob(array([0.1 + 0.4j, -0.3 - 0.6j])).item() - log_prob) < 1e-13
    assert abs(d.entropy().item() - entropy) < 1e-13


@pytest.mark.parametrize(
    ("q", "p", "expected"),
    [
        ("proper", "proper", 3.239839650179737),
        ("proper", "improper", 4.114555519483635),
        ("improper", "proper", 3.783675824494624),
        ("improper", "improper", 4.491817027853716),
    ],
)
def test_divergence_at_known_values(q, p, expected):
    assert abs(kl_divergence(posterior(q), prior(p)).item() - expected) < 1e-13


@pytest.mark.parametrize(
    ("name", "expected"), [("proper", 1.908706774289556), ("improper", 2.452542948604443)]
)
def test_divergence_to_standard_normal_entries(name, expected):
    standard = ComplexNormal(array([0, 0]), 1.0)
    for p in (standard.to_event(1), standard_vector()):
        assert abs(kl_divergence(posterior(name), p).item() - expected) < 1e-13


def standard_vector():
    return ComplexMultivariateNormal(array([0, 0]), scale_tril=array([[1, 0], [0, 1]]))


def random_vectors(seed, size, batch, improper):
    torch.manual_seed(seed)
    loc = torch.randn(*batch, size, dtype=torch.complex128)
    root = torch.randn(*batch, size, 2 * size, dtype=torch.complex128)
    symmetric = torch.randn(*batch, size, size, dtype=torch.complex128)
    symmetric = symmetric + symmetric.mT
    norm = torch.linalg.matrix_norm(symmetric, ord=2)[..., None, None]
    return ComplexMultivariateNormal(
        loc,
        covariance_matrix=root @ root.mH / size,
        coherence=0.9 * symmetric / norm if improper else None,
    )


@pytest.mark.parametrize("batches", [((), ()), ((3,), ()), ((), (3,)), ((2, 1), (3,))])
@pytest.mark.parametrize("q_improper", [False, True])
@pytest.mark.parametrize("p_improper", [False, True])
def test_everything_is_as_for_the_vector_of_parts(batches, q_improper, p_improper):
    q, p = (
        random_vectors(seed, 4, batch, improper)
        for seed, batch, improper in zip((0, 1), batches, (q_improper, p_improper), strict=True)
    )
    z = torch.randn(5, *q.batch_shape, 4, dtype=torch.complex128)
    assert_close(q.log_prob(z), q.to_real().log_prob(split(z)), atol=1e-12, rtol=1e-12)
    assert_close(q.entropy(), q.to_real().entropy(), atol=1e-12, rtol=1e-12)
    shape = torch.broadcast_shapes(*batches)
    real = kl_divergence(q.expand(shape).to_real(), p.expand(shape).to_real())
    assert_close(kl_divergence(q, p), real, atol=1e-11, rtol=1e-12)
    assert_close(q.variance, q.to_real().variance.unflatten(-1, (2, 4)).sum(-2))


@pytest.mark.parametrize("size", [64, 256])
def test_large_vectors_agree_with_their_parts(size):
    z = torch.randn(3, size, dtype=torch.complex128)
    for improper in (False, True):
        d = random_vectors(0, size, (), improper)
        real = d.to_real().log_prob(split(z))
        assert_close(d.log_prob(z), real, rtol=1e-11, atol=0)


@pytest.mark.parametrize("name", COHERENCES)
def test_divergences_between_vectors_and_independent_entries(name):
    v = array([0.4 - 0.1j, -0.3j])
    entries = ComplexNormal(array([0.1j, -0.2]), torch.tensor([0.7, 1.3]).double())
    entries = [entries, ComplexNormal(entries.loc, entries.scale, v)]
    for base in entries:
        law = base.to_event(1)
        parts = base.to_real()
        order = [0, 2, 1, 3]  # (x1, y1, x2, y2) to (x1, x2, y1, y2)
        covariance = torch.block_diag(*parts.covariance_matrix)[order][:, order]
        real = dist.MultivariateNormal(split(base.loc), covariance)
        d = posterior(name)
        assert_close(kl_divergence(d, law), kl_divergence(d.to_real(), real), atol=1e-12, rtol=0)
        assert_close(kl_divergence(law, d), kl_divergence(real, d.to_real()), atol=1e-12, rtol=0)


def test_divergences_that_make_no_sense_are_refused():
    with pytest.raises(NotImplementedError, match="to_event"):
        kl_divergence(posterior("proper"), dist.Normal(torch.zeros(2), 1.0).to_event(1))
    longer = ComplexMultivariateNormal(torch.zeros(3), scale_tril=torch.eye(3))
    with pytest.raises(ValueError, match="one size, got 2 and 3"):
        kl_divergence(posterior("proper"), longer)


def test_divergences_are_estimated_right_by_draws():
    for q in (posterior(name) for name in COHERENCES):
        for p in (prior(name) for name in COHERENCES):
            z = q.sample((40_000,))
            ratio = q.log_prob(z) - p.log_prob(z)
            error = 5 * ratio.std() / math.sqrt(len(z))
            assert (ratio.mean() - kl_divergence(q, p)).abs() < error


@pytest.mark.parametrize("name", COHERENCES)
def test_moments_of_draws(name):
    d = posterior(name).expand((2,))
    w = d.sample((200_000,)) - d.loc
    outer = (w.unsqueeze(-1) * w.conj().unsqueeze(-2)).mean(0)
    assert_close(outer, d.covariance_matrix, atol=0.02, rtol=0)
    assert_close((w.unsqueeze(-1) * w.unsqueeze(-2)).mean(0), d.relation, atol=0.02, rtol=0)


@pytest.mark.parametrize("name", COHERENCES)
def test_ways_to_say_the_same(name):
    d, z = posterior(name), torch.randn(5, 2, dtype=torch.complex128)
    make = ComplexMultivariateNormal
    twins = [
        make(d.loc, covariance_matrix=d.covariance_matrix, coherence=d.coherence),
        make(d.loc, precision_matrix=d.precision_matrix, coherence=d.coherence),
        make.from_covariance_and_relation(d.loc, d.covariance_matrix, d.relation),
        make.from_real(d.to_real()),
    ]
    for twin in twins:
        assert_close(twin.log_prob(z), d.log_prob(z), atol=1e-12, rtol=0)
        assert_close(twin.scale_tril, d.scale_tril)
        assert_close(twin.covariance_matrix @ twin.precision_matrix, torch.eye(2) + 0 * z[:2])
        assert_close(twin.relation, d.relation)


@pytest.mark.parametrize("improper", [False, True])
@pytest.mark.parametrize("matrix", ["scale_tril", "covariance_matrix", "precision_matrix"])
def test_derivatives_agree_with_finite_differences(improper, matrix):
    others = [prior(name) for name in COHERENCES]
    z = array([0.1 + 0.4j, -0.3 - 0.6j]).requires_grad_()
    leaves = [array([0.5 - 0.2j, -1 + 0.3j]), array([[1.2, 0.1], [0.4 - 0.3j, 0.7]])]
    leaves += [array(COHERENCES["improper"][0])] if improper else []
    leaves = [leaf.requires_grad_() for leaf in leaves]

    def make(loc, free, coherence=None):
        tril = torch.complex(free.real.tril(), free.imag.tril(-1))
        given = {matrix: tril if matrix == "scale_tril" else tril @ tril.mH}
        symmetric = None if coherence is None else 0.5 * (coherence + coherence.mT)
        return ComplexMultivariateNormal(loc, **given, coherence=symmetric)

    def draw(*parameters):
        torch.manual_seed(0)
        return make(*parameters).rsample((3,))

    def divergences(*parameters):
        d = make(*parameters)
        pairs = [pair for p in others for pair in ((d, p), (p, d))]
        return torch.stack([kl_divergence(*pair) for pair in pairs])

    assert torch.autograd.gradcheck(lambda z, *args: make(*args).log_prob(z), (z, *leaves))
    assert torch.autograd.gradcheck(draw, leaves)
    assert torch.autograd.gradcheck(divergences, leaves)


def test_values_broadcast_with_batches_in_every_way():
    d = random_vectors(0, 3, (4, 1), True)
    for shape in [(), (1,), (5,), (4, 5), (2, 4, 5), (6, 1, 1, 1)]:
        z = torch.randn(*shape, 3, dtype=torch.complex128)
        expected = d.to_real().log_prob(split(z))
        assert_close(d.log_prob(z), expected)
    wide = d.expand((7, 4, 2))
    assert wide.scale_tril.shape == wide.covariance_matrix.shape == (7, 4, 2, 3, 3)
    assert wide.rsample((2,)).shape == (2, 7, 4, 2, 3)


EYE = torch.eye(2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of scale_tril, covariance_matrix, precision_matrix, got none"),
        ({"scale_tril": EYE, "covariance_matrix": EYE}, "got scale_tril and covariance_matrix"),
        ({"scale_tril": torch.eye(3)}, r"scale_tril of shape \(..., 2, 2\).*got \(3, 3\)"),
        ({"scale_tril": EYE[0]}, r"scale_tril of shape .*got \(2,\)"),
        ({"scale_tril": EYE, "coherence": torch.zeros(3, 3)}, "coherence of shape"),
        ({"scale_tril": EYE.expand(3, 2, 2)}, r"loc \(4,\), scale_tril \(3,\)"),
        ({"scale_tril": 1j * EYE}, "scale_tril"),
        ({"scale_tril": EYE.flip(0)}, "scale_tril"),
        ({"covariance_matrix": -EYE}, "covariance_matrix"),
        ({"covariance_matrix": EYE + 1j * EYE.flip(0)}, "covariance_matrix"),
        ({"precision_matrix": 0 * EYE}, "precision_matrix"),
        ({"scale_tril": EYE, "coherence": 1.1 * EYE}, "coherence"),
        ({"scale_tril": EYE, "coherence": torch.tensor([[0, 0.5], [0, 0]])}, "coherence"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ComplexMultivariateNormal(torch.zeros(4, 2), **arguments)


def test_other_confusions_are_refused():
    with pytest.raises(TypeError, match="complex value"):
        standard_vector().log_prob(torch.zeros(2))
    with pytest.raises(ValueError, match=r"loc of shape \(..., n\), got \(\)"):
        ComplexMultivariateNormal(torch.tensor(0.0), scale_tril=EYE)
    with pytest.raises(ValueError, match="even size, got size 3"):
        ComplexMultivariateNormal.from_real(dist.MultivariateNormal(torch.zeros(3), torch.eye(3)))
