"""The four ways to write a topographic latent in Pyro are one model."""

import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.infer.reparam import LocScaleReparam
from torch.testing import assert_close

from pyro_manifolds.distributions import Groups, Ring, Shifted, TopographicStudentT
from pyro_manifolds.infer.reparam import TopographicReparam

F64 = torch.float64
WINDOW = Shifted(3, 4, 1, 1)
LOC = 3.0

# Three degrees of freedom, as in the published vector.
pytestmark = pytest.mark.filterwarnings("ignore:TopographicStudentT. expected dof:UserWarning")


def published():
    """The values, the data and the shape of them of the published vector."""
    frame, slot = torch.arange(3, dtype=F64)[:, None], torch.arange(4, dtype=F64)
    u = (1 + 3 * frame + 5 * slot**2).sin()[:, None]
    z = (2 + frame + 3 * slot).cos()[:, None]
    x = (5 * torch.arange(3)[:, None] + torch.arange(5)) % 2
    return z, u, x.to(F64)


def observe(t):
    decoder = torch.linspace(-1, 1, 20, dtype=F64).view(4, 5)
    pyro.sample("x", dist.Bernoulli(logits=t[..., 0, :] @ decoder).to_event(2), obs=published()[2])


def by_hand():
    zeros = torch.zeros(3, 1, 4, dtype=F64)
    z = pyro.sample("z", dist.Normal(zeros, 1.0).to_event(3))
    u = pyro.sample("u", dist.Normal(zeros, 1.0).to_event(3))
    observe(pyro.deterministic("t", (z + LOC) * WINDOW.forward(u * u).rsqrt(), event_dim=3))


def centred():
    u = pyro.sample("u", dist.Normal(torch.zeros(3, 1, 4, dtype=F64), 1.0).to_event(3))
    s = WINDOW.forward(u * u).rsqrt()
    observe(pyro.sample("t", dist.Normal(LOC * s, s).to_event(3)))


def as_one_site():
    observe(pyro.sample("t", TopographicStudentT(WINDOW, torch.tensor(LOC, dtype=F64))))


def joint(model, **values):
    trace = poutine.trace(poutine.condition(model, values)).get_trace()
    return float(trace.log_prob_sum())


def test_all_forms_have_the_published_joint_density():
    z, u, _ = published()
    s = WINDOW.forward(u * u).rsqrt()
    t = (z + LOC) * s
    assert joint(by_hand, z=z, u=u) == pytest.approx(-41.994266285531, abs=1e-10)
    assert joint(centred, t=t, u=u) == pytest.approx(-38.410917858869, abs=1e-10)
    free = poutine.reparam(centred, {"t": LocScaleReparam(0.0)})
    assert joint(free, t_decentered=z, u=u) == pytest.approx(-41.994266285531, abs=1e-10)
    moved = poutine.reparam(as_one_site, {"t": TopographicReparam()})
    assert joint(moved, t=t, t_u=u) == pytest.approx(-38.410917858869, abs=1e-10)
    both = poutine.reparam(moved, {"t": LocScaleReparam(0.0)})
    assert joint(both, t_decentered=z, t_u=u) == pytest.approx(-41.994266285531, abs=1e-10)


def test_the_parts_have_the_published_densities():
    z, u, _ = published()
    v = WINDOW.forward(u * u)
    t = (z + LOC) * v.rsqrt()
    assert float(v[0, 0, 0]) == pytest.approx(1.851349069527, abs=1e-11)
    assert float(t.sum()) == pytest.approx(26.541769376804, abs=1e-10)
    law = TopographicStudentT(WINDOW, torch.tensor(LOC, dtype=F64))
    assert float(law.log_prob_given(t, u)) == pytest.approx(-10.565019740005, abs=1e-10)
    assert float(law.given(u).log_prob(t)) == pytest.approx(-10.565019740005, abs=1e-10)


def test_half_normal_variables_have_twice_the_density_each():
    z, u, _ = published()
    t = (z + LOC) * WINDOW.forward(u * u).rsqrt()
    moved = poutine.reparam(as_one_site, {"t": TopographicReparam("halfnormal")})
    expected = -38.410917858869 + u.numel() * torch.tensor(2.0, dtype=F64).log().item()
    assert joint(moved, t=t, t_u=u.abs()) == pytest.approx(expected, abs=1e-10)


LAWS = {
    "no batch": lambda: TopographicStudentT(Groups(2, 2, 6), 1.0),
    "expanded": lambda: TopographicStudentT(Groups(2, 2, 6), 1.0).expand([5]),
    "batch of locations": lambda: TopographicStudentT(Ring(4, 6), torch.ones(3, 5, 4), 0.5),
    "as one event": lambda: TopographicStudentT(Groups(2, 2, 6), torch.ones(3, 1)).to_event(1),
    "float64": lambda: TopographicStudentT(Ring(4, 6), torch.zeros((), dtype=F64)),
}


@pytest.mark.parametrize("auxiliary", ["normal", "halfnormal"])
@pytest.mark.parametrize("make", LAWS.values(), ids=LAWS.keys())
def test_shapes_dtypes_and_the_density_of_the_latent(make, auxiliary):
    law = make()
    moved = poutine.reparam(lambda: pyro.sample("t", law), {"t": TopographicReparam(auxiliary)})
    with poutine.trace() as tracer:
        t = moved()
    nodes = tracer.trace.nodes
    assert nodes["t"]["fn"].batch_shape == nodes["t_u"]["fn"].batch_shape == law.batch_shape
    assert t.shape == law.shape()
    assert t.dtype == nodes["t_u"]["value"].dtype == law.sample().dtype
    inner = law if isinstance(law, TopographicStudentT) else law.base_dist
    expected = inner.log_prob_given(t, nodes["t_u"]["value"])
    outer = expected.dim() - len(law.batch_shape)
    expected = expected.flatten(expected.dim() - outer).sum(-1) if outer else expected
    assert_close(nodes["t"]["fn"].log_prob(t), expected)


def plated(batch):
    """Sequences in one or two plates; data are observed entry by entry."""

    def model(data):
        with pyro.plate("first", data.shape[0], dim=-len(batch)):
            law = TopographicStudentT(Ring(4, 6), 1.0)
            if len(batch) == 1:
                t = pyro.sample("t", law)
                return pyro.sample("x", dist.Normal(t, 0.5).to_event(1), obs=data)
            with pyro.plate("second", data.shape[1], dim=-1):
                t = pyro.sample("t", law)
                return pyro.sample("x", dist.Normal(t, 0.5).to_event(1), obs=data)

    return model


@pytest.mark.parametrize("batch", [(5,), (3, 5)])
@pytest.mark.parametrize("kind", [Trace_ELBO, TraceMeanField_ELBO])
def test_guides_train_in_plates(batch, kind):
    data = torch.randn(*batch, 4)
    model = poutine.reparam(plated(batch), {"t": TopographicReparam()})
    guide = AutoNormal(model)
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), kind(4, vectorize_particles=True))
    losses = [svi.step(data) for _ in range(60)]
    assert sum(losses[-10:]) < sum(losses[:10])
    draws = Predictive(model, guide=guide, num_samples=7)(data)
    assert draws["t_u"].shape == (7, *batch, 4)
    assert draws["t"].shape == (7, *batch, 4)


def test_the_mean_field_elbo_is_that_written_by_hand():
    """Both divergences of the factorised guide, in closed form, and one draw of the likelihood."""
    m, s = torch.tensor(0.3, dtype=F64), torch.tensor(0.8, dtype=F64)
    model = poutine.reparam(as_one_site, {"t": TopographicReparam()})
    model = poutine.reparam(model, {"t": LocScaleReparam(0.0)})
    ones = torch.ones(3, 1, 4, dtype=F64)

    def guide():
        u = pyro.sample("t_u", dist.Normal(m * ones, s).to_event(3))
        z = pyro.sample("t_decentered", dist.Normal(-m * ones, s).to_event(3))
        return z, u

    pyro.set_rng_seed(3)
    z, u = guide()
    t = (z + LOC) * WINDOW.forward(u * u).rsqrt()
    likelihood = poutine.trace(observe).get_trace(t).log_prob_sum()
    divergence = 24 * 0.5 * (s.square() + m.square() - 1 - 2 * s.log())
    pyro.set_rng_seed(3)
    found = TraceMeanField_ELBO().loss(model, guide)
    assert found == pytest.approx(float(divergence - likelihood), abs=1e-10)


def test_observed_latents_keep_their_data():
    data = torch.randn(4)
    model = lambda: pyro.sample("t", TopographicStudentT(Ring(4, 6)), obs=data)  # noqa: E731
    trace = poutine.trace(poutine.reparam(model, {"t": TopographicReparam()})).get_trace()
    assert trace.nodes["t"]["is_observed"]
    assert trace.nodes["t"]["value"] is data
    assert not trace.nodes["t_u"]["is_observed"]


def test_moments_of_the_latent_stay():
    law = TopographicStudentT(Ring(4, 9), 2.0, 1.5)
    model = poutine.reparam(lambda: pyro.sample("t", law.expand([20_000])),
                            {"t": TopographicReparam()})  # fmt: skip
    t = model()
    error = (law.variance / 20_000).sqrt()
    assert ((t.mean(0) - law.mean).abs() < 4 * error).all()


def test_other_sites_and_other_variables_are_refused():
    with pytest.raises(ValueError, match="among normal, halfnormal, got 'chi2'"):
        TopographicReparam("chi2")
    for law, match in (
        (dist.Normal(0.0, 1.0), "site 't', got Normal"),
        (TopographicStudentT(Ring(4, 6)).mask(False), "poutine.mask instead"),
    ):
        model = poutine.reparam(lambda law=law: pyro.sample("t", law), {"t": TopographicReparam()})
        with pytest.raises(TypeError, match=match):
            model()


def test_no_warning_where_none_is_due():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TopographicStudentT(Ring(6, 5))
