"""Sites on images of embeddings: the joint density, initial values, guides."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoLaplaceApproximation, AutoNormal
from pyro.infer.autoguide.initialization import InitMessenger, init_to_value
from torch.distributions import kl_divergence
from torch.testing import assert_close

from pyro_manifolds import KleinBottle, ManifoldUniform, Torus
from pyro_manifolds.distributions import EmbeddingPushforward
from pyro_manifolds.distributions.transforms import ManifoldEmbedding, StereographicEmbedding
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.infer.reparam import AutoManifoldReparam, EmbeddingReparam

TORUS = ManifoldEmbedding(Torus(2))
SPHERE = StereographicEmbedding(2)
REPARAM = {"z": EmbeddingReparam()}


def on_sphere():
    law = EmbeddingPushforward(dist.Normal(torch.zeros(2), 1.0).to_event(1), SPHERE)
    z = pyro.sample("z", law)
    pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=torch.tensor([1.0, 0.0, 0.5]))


def on_torus():
    z = pyro.sample("z", EmbeddingPushforward(ManifoldUniform(Torus(2)), TORUS))
    pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=TORUS(torch.tensor([1.0, 2.0])))


def test_the_joint_density_is_that_of_the_base():
    trace = poutine.trace(poutine.reparam(on_sphere, REPARAM)).get_trace()
    trace.compute_log_prob()
    nodes = trace.nodes
    assert list(trace.stochastic_nodes) == ["z_base"]
    base = nodes["z_base"]["value"]
    assert_close(nodes["z"]["value"], SPHERE(base))
    expected = dist.Normal(0.0, 1.0).log_prob(base).sum()
    expected = expected + dist.Normal(SPHERE(base), 0.5).log_prob(nodes["x"]["value"]).sum()
    assert_close(trace.log_prob_sum(), expected)


def test_plates_and_events_of_several_points():
    def model():
        law = EmbeddingPushforward(ManifoldUniform(Torus(2)).expand([3]), TORUS).to_event(1)
        with pyro.plate("data", 5):
            return pyro.sample("z", law)

    trace = poutine.trace(poutine.reparam(model, REPARAM)).get_trace()
    trace.compute_log_prob()
    assert trace.nodes["z_base"]["fn"].batch_shape == (5,)
    assert trace.nodes["z_base"]["value"].shape == (5, 3, 2)
    assert trace.nodes["_RETURN"]["value"].shape == (5, 3, 4)


def test_initial_values_are_those_of_the_site():
    value = torch.tensor([0.0, 0.6, 0.8])
    model = poutine.reparam(on_sphere, REPARAM)
    with InitMessenger(init_to_value(values={"z": value})):
        trace = poutine.trace(model).get_trace()
    assert_close(trace.nodes["z"]["value"], value)
    assert_close(SPHERE(trace.nodes["z_base"]["value"]), value)


def test_a_replayed_point_outranks_an_initial_value():
    """As in the Laplace approximation, whose guide holds a model with initial values."""
    guide = AutoLaplaceApproximation(poutine.reparam(on_sphere, REPARAM))
    guide()
    for _ in range(2):
        trace = poutine.trace(guide).get_trace()
        nodes = poutine.trace(poutine.replay(guide.model, trace=trace)).get_trace().nodes
        assert_close(nodes["z"]["value"], SPHERE(trace.nodes["z_base"]["value"]))
        with torch.no_grad():
            guide.loc += 1


def test_the_strategy_moves_images_of_manifolds_and_no_others():
    moved = poutine.trace(AutoManifoldReparam()(on_torus)).get_trace()
    assert list(moved.stochastic_nodes) == ["z_base_noise"]
    left = poutine.trace(AutoManifoldReparam()(on_sphere)).get_trace()
    assert list(left.stochastic_nodes) == ["z"]


def test_the_guide_of_wrapped_normals_pushes_them_through_the_embedding():
    guide = AutoWrappedNormal(on_torus)
    guide()
    posterior = guide.get_posterior("z")
    assert isinstance(posterior, EmbeddingPushforward)
    prior = EmbeddingPushforward(ManifoldUniform(Torus(2)), TORUS)
    expected = kl_divergence(posterior.base_dist, ManifoldUniform(Torus(2)))
    assert_close(kl_divergence(posterior, prior), expected)

    svi = SVI(on_torus, guide, pyro.optim.ClippedAdam({"lr": 0.05}), TraceMeanField_ELBO())
    losses = [svi.step() for _ in range(400)]
    # Two von Mises posteriors of concentration four around the angles of the datum.
    assert Torus(2).dist(TORUS.inv(guide.median()["z"]), torch.tensor([1.0, 2.0])) < 0.15
    assert sum(losses[-100:]) < sum(losses[:100])
    assert TORUS.codomain.check(guide.quantiles([0.1, 0.9])["z"]).all()


def test_several_components_are_refused_with_the_remedy():
    with pytest.raises(NotImplementedError, match="AutoManifoldReparam"):
        AutoWrappedNormal(on_torus, num_components=2)()


def test_pyros_guide_after_the_strategy_bounds_the_evidence():
    """The evidence of two angles with a uniform prior, by a grid."""
    grid = torch.linspace(-torch.pi, torch.pi, 201)[:-1]
    angles = torch.cartesian_prod(grid, grid)
    target = TORUS(torch.tensor([1.0, 2.0]))
    log_lik = dist.Normal(TORUS(angles), 0.5).log_prob(target).sum(-1)
    evidence = log_lik.logsumexp(0) - torch.tensor(200.0**2).log()

    model = AutoManifoldReparam()(on_torus)
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.ClippedAdam({"lr": 0.05}), Trace_ELBO(num_particles=4))
    for _ in range(300):
        svi.step()
    with torch.no_grad():
        losses = torch.tensor([Trace_ELBO().loss(model, guide) for _ in range(300)])
    assert -losses.mean() < evidence + 4 * losses.std() / 300**0.5
    assert -losses.mean() > evidence - 1


def test_bad_sites():
    with pytest.raises(TypeError, match="to be an EmbeddingPushforward, got Normal"):
        poutine.reparam(lambda: pyro.sample("z", dist.Normal(0.0, 1.0)), REPARAM)()

    def observed():
        law = EmbeddingPushforward(
            ManifoldUniform(KleinBottle()), ManifoldEmbedding(KleinBottle())
        )
        pyro.sample("z", law, obs=KleinBottle().embed(torch.zeros(2)))

    with pytest.raises(NotImplementedError, match="site 'z' is observed"):
        poutine.reparam(observed, REPARAM)()
