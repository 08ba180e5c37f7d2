"""Flows: change of variables, mass, seams, contexts, states, and use as a guide."""

import copy
import io
import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
import zuko
from pyro.infer import SVI, Trace_ELBO
from pyro.optim.pytorch_optimizers import Adam
from torch.testing import assert_close

from pyro_manifolds import (
    CoveringPushforward,
    Cylinder,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    Torus,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.distributions import NormalizingFlow
from pyro_manifolds.nn import CylinderFlow, TorusFlow
from pyro_manifolds.testing import circle_rule, gauss_rule, glide_rule, line_rule

PI = math.pi
FLOWS = {
    "circle": lambda **more: TorusFlow(1, **more),
    "torus": lambda **more: TorusFlow(2, **more),
    "torus-3": lambda **more: TorusFlow(3, **more),
    "torus-5": lambda **more: TorusFlow(5, **more),
    "cylinder": lambda **more: CylinderFlow(0.7, **more),
    "open-cylinder": lambda **more: CylinderFlow(math.inf, **more),
}
flows = pytest.mark.parametrize("make", FLOWS.values(), ids=FLOWS.keys())


def shaped(flow, std=0.3, seed=0):
    """Weights that are neither zero nor trained, in double precision."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in flow.parameters():
        torch.nn.init.normal_(parameter, std=std, generator=generator)
    return flow.double()


def vector(*entries):
    return torch.tensor(entries, dtype=torch.float64)


@flows
def test_untrained_it_is_its_base(make):
    d = make(hidden_features=(8,)).double()()
    x = d.sample((50,))
    base = d.base_dist
    assert_close(d.log_prob(x), base.log_prob(x), rtol=0, atol=1e-13)
    if d.manifold.is_compact:
        expected = torch.full((50,), -d.manifold.log_volume, dtype=torch.float64)
        assert_close(d.log_prob(x), expected, rtol=0, atol=1e-13)


@flows
def test_the_density_is_that_of_the_base_times_the_jacobian(make):
    flow = shaped(make(context=2, layers=4, bins=5, hidden_features=(8, 8)))
    context = vector(0.5, -1.0)
    d = flow(context)

    def to_base(x):
        for layer in flow.layers:
            x, _ = layer(x, context)
        return x

    x = d.sample((100,))
    jacobian = torch.vmap(torch.func.jacrev(to_base))(x)
    expected = d.base_dist.log_prob(to_base(x)) + jacobian.det().abs().log()
    assert_close(d.log_prob(x), expected, rtol=0, atol=1e-10)
    assert d.log_prob(x).std() > 0.1  # not the uniform law


@flows
def test_draws_are_canonical_and_come_from_the_draws_of_the_base(make):
    flow = shaped(make(layers=5, hidden_features=(8,)))
    torch.manual_seed(1)
    x = flow().sample((300,))
    torch.manual_seed(1)
    expected = flow().base_dist.sample((300,))
    z = x
    for layer in flow.layers:
        z, _ = layer(z, None)
    gap = flow.manifold.dist(z, expected)
    assert_close(gap, torch.zeros_like(gap), rtol=0, atol=1e-10)
    assert torch.equal(flow.manifold.projx(x), x)
    assert flow.manifold.contains(x).all()


MASSES = {
    "klein": (TorusFlow(2, layers=4, bins=4, hidden_features=(8,)), KleinBottle(),
              lambda: glide_rule(circle_rule(512), 256)),
    "band": (CylinderFlow(0.7, layers=4, bins=4, hidden_features=(8,)), MoebiusBand(0.7),
             lambda: glide_rule(gauss_rule(-0.7, 0.7, 400), 300)),
    "open band": (CylinderFlow(math.inf, layers=4, bins=4, hidden_features=(8,)),
                  MoebiusBand(math.inf), lambda: glide_rule(line_rule(-7, 7, 800), 300)),
}  # fmt: skip


@pytest.mark.parametrize(("flow", "manifold", "rule"), MASSES.values(), ids=MASSES.keys())
def test_on_a_quotient_the_mass_is_one(flow, manifold, rule):
    d = CoveringPushforward(shaped(flow, std=0.2)(), manifold.orientation_covering)
    nodes, weights = rule()
    with torch.no_grad():
        density = d.log_prob(nodes).exp()
    assert density.max() > 3 * density.min()
    # What is left is the error of the rule at the kinks of the splines.
    assert abs((density * weights).sum().item() - 1) < 1e-6


def seam_jumps(log_prob, axis, gap=1e-9):
    """Differences of a log-density between both sides of the seam of one angle of a torus."""
    other = torch.linspace(-3, 3, 41, dtype=torch.float64)
    ends = [torch.full_like(other, PI - gap), torch.full_like(other, gap - PI)]
    points = [torch.stack((end, other) if axis == 0 else (other, end), -1) for end in ends]
    with torch.no_grad():
        return (log_prob(points[0]) - log_prob(points[1])).abs()


def test_no_seam_shows_on_the_torus_and_one_does_where_networks_read_angles():
    flow = shaped(TorusFlow(2))
    for axis in (0, 1):
        assert seam_jumps(flow().log_prob, axis).max() < 1e-6
    raw = shaped(zuko.flows.NCSF(2, hidden_features=(64, 64)), std=0.2)
    assert seam_jumps(raw().log_prob, axis=0).max() > 1e-3


def test_on_the_seam_itself_the_density_is_finite_and_the_same_from_all_sides():
    klein = KleinBottle()
    d = CoveringPushforward(shaped(TorusFlow(2))(), klein.orientation_covering)
    h = torch.linspace(-3, 3, 7, dtype=torch.float64)
    zero = torch.zeros_like(h)
    seam = torch.stack([zero, h], -1)
    images = [(PI, -1), (2 * PI, 1), (-PI, -1)]
    expected = d.log_prob(seam)
    assert expected.isfinite().all()
    for turn, sign in images:
        image = torch.stack([zero + turn, sign * h], -1)
        assert_close(d.log_prob(image), expected, rtol=0, atol=1e-10)
    edges = vector(PI, PI, -PI, -PI, 0, PI).reshape(3, 2)
    assert d.log_prob(edges).isfinite().all()


def test_to_the_edge_of_a_band_the_density_is_finite():
    d = CoveringPushforward(shaped(CylinderFlow(0.7))(), MoebiusBand(0.7).orientation_covering)
    edge = 0.7 * (1 - 1e-15)
    values = torch.stack([vector(0.0, 1.0, 3.0), vector(edge, -edge, edge)], -1)
    assert d.log_prob(values).isfinite().all()


def test_any_density_on_the_torus_is_pushed_the_same_way():
    covering = KleinBottle().orientation_covering
    raw = shaped(zuko.flows.NCSF(2, hidden_features=(8,)))
    d = CoveringPushforward(raw(), covering)
    x = d.sample((20,))
    sheets = raw().log_prob(covering.fibre(x))
    assert_close(d.log_prob(x), sheets.logsumexp(0))


def test_a_base_of_the_users_own_is_moved_by_the_flow():
    loc = vector(0.5, 3.0).expand(6, 2)
    for base in (WrappedNormal(Torus(2), loc, 0.2), VonMises(loc, 5.0).to_event(1)):
        d = TorusFlow(2, context=3).double()(torch.zeros(6, 3).double(), base_dist=base)
        x = d.sample((10,))
        assert d.batch_shape == (6,)
        assert_close(d.log_prob(x), base.log_prob(x), rtol=0, atol=1e-12)
    loc = loc[0].clone().requires_grad_()
    moved = shaped(TorusFlow(2))(base_dist=WrappedNormal(Torus(2), loc, 0.2))
    x = moved.rsample((5,))
    gradient = torch.autograd.grad((moved.log_prob(x).sum() + x.sum()), loc)[0]
    assert gradient.isfinite().all()
    assert gradient.abs().min() > 0


@flows
def test_gradients_reach_every_weight_through_draws_and_densities(make):
    flow = shaped(make(context=2, hidden_features=(8,)))
    d = flow(torch.randn(4, 2).double())
    features = flow.manifold.embed(d.rsample()).sin().sum()
    for value in (features, d.log_prob(d.sample()).sum()):
        gradients = torch.autograd.grad(value, list(flow.parameters()))
        assert all(g.isfinite().all() and g.abs().sum() > 0 for g in gradients)


# Contexts, shapes, states.


def test_each_row_of_a_context_has_its_own_law():
    flow = shaped(TorusFlow(2, context=3))
    context, x = torch.randn(4, 1, 3).double(), torch.randn(5, 2).double()
    rows = [flow(row).log_prob(x) for row in context[:, 0]]
    assert_close(flow(context).log_prob(x), torch.stack(rows))
    assert_close(flow(context).expand((2, 4, 5)).log_prob(x)[1], torch.stack(rows))
    assert rows[0].sub(rows[1]).abs().max() > 1e-2


def test_an_expansion_that_cannot_be_is_refused():
    d = TorusFlow(2, context=3)(torch.zeros(4, 1, 3))
    with pytest.raises(RuntimeError):
        d.expand((3, 1))


@pytest.mark.parametrize("context", [None, torch.zeros(()), torch.zeros(5, 2)])
def test_a_wrong_context_is_refused(context):
    with pytest.raises(ValueError, match=r"TorusFlow: expected context of shape \(\.\.\., 3\)"):
        TorusFlow(2, context=3)(context)


def test_a_context_that_nobody_asked_for_is_refused():
    with pytest.raises(ValueError, match=r"CylinderFlow: expected context of None, got shape"):
        CylinderFlow()(torch.zeros(5, 0))


def test_a_context_of_nan_is_refused_under_validation_only():
    flow, context = TorusFlow(2, context=1), torch.tensor([math.nan])
    with pytest.raises(ValueError, match="context"):
        flow(context)
    assert flow(context, validate_args=False).batch_shape == ()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dim": 0}, "Torus: expected dim"),
        ({"dim": 2, "layers": 0}, "expected layers of at least 1, got 0"),
        ({"dim": 2, "bins": 1}, "expected bins of at least 2, got 1"),
        ({"dim": 2, "context": -1}, "expected context of at least 0, got -1"),
        ({"dim": 2, "hidden_features": ()}, r"expected len\(hidden_features\) of at least 1"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TorusFlow(**arguments)


def test_laws_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"half_width > 0, got -1"):
        CylinderFlow(-1.0)
    with pytest.raises(ValueError, match=r"event_shape \(2,\), got \(\)"):
        NormalizingFlow(dist.Normal(torch.zeros(2), 1.0), [], Torus(2))
    torus = TorusFlow(2)()
    for manifold in (MoebiusBand(), MoebiusBand(math.inf)):
        with pytest.raises(ValueError, match=r"expected a distribution on Cylinder.*on Torus"):
            CoveringPushforward(torus, manifold.orientation_covering)
    with pytest.raises(ValueError, match=r"Cylinder\(2.0\), the cover.*on Cylinder\(1.0\)"):
        CoveringPushforward(CylinderFlow(1.0)(), MoebiusBand(2.0).orientation_covering)


@flows
def test_states_copies_and_types_pass_on(make):
    flow = shaped(make(layers=3, hidden_features=(8,)))
    x = flow().sample((5,))
    twin = make(layers=3, hidden_features=(8,)).double()
    twin.load_state_dict(flow.state_dict())
    saved = io.BytesIO(pickle.dumps(flow))
    for other in (twin, copy.deepcopy(flow), pickle.load(saved)):
        assert torch.equal(other().log_prob(x), flow().log_prob(x))
    single = copy.deepcopy(flow).float()()
    assert single.rsample().dtype == single.log_prob(x.float()).dtype == torch.float32
    assert_close(single.log_prob(x.float()).double(), flow().log_prob(x), rtol=0, atol=1e-3)
    assert "bijections" in repr(flow())


# As the guide of a model.


def test_an_amortised_guide_learns_posteriors_and_stays_below_the_evidence():
    klein, sigma = KleinBottle(), 0.4
    flow = TorusFlow(2, context=5, layers=3, hidden_features=(32,))
    prior = ManifoldUniform(klein)
    data = klein.embed(prior.sample((64,)))
    data = data + sigma * torch.randn_like(data)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", prior)
            pyro.sample("x", dist.Normal(klein.embed(z), sigma).to_event(1), obs=x)

    def guide(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("z", CoveringPushforward(flow(x), klein.orientation_covering))

    nodes, weights = glide_rule(circle_rule(96), 48)
    noise = dist.Normal(klein.embed(nodes), sigma).to_event(1)
    log_joint = noise.log_prob(data.unsqueeze(1)) - math.log(klein.volume)
    evidence = (log_joint + weights.log()).logsumexp(-1).mean().item()
    elbo = Trace_ELBO(num_particles=4, vectorize_particles=True)
    svi = SVI(model, guide, Adam({"lr": 5e-3}), elbo)
    gaps = torch.tensor([svi.step(data) for _ in range(150)]) / len(data) + evidence
    assert gaps[:5].mean() > 3  # untrained it is uniform, far from the posteriors
    assert 0 < gaps[-30:].mean() < 0.25 * gaps[:5].mean()


# The cylinder that carries flows to the band.


@pytest.mark.parametrize("half_width", [0.7, math.inf])
def test_a_wrapped_normal_on_the_cylinder_is_pushed_to_that_on_the_band(half_width):
    band = MoebiusBand(half_width)
    loc, scale = vector(2.0, 0.3), vector(0.8, 0.5)
    pushed = CoveringPushforward(
        WrappedNormal(Cylinder(half_width), loc, scale), band.orientation_covering
    )
    value = WrappedNormal(band, loc, 1.0).sample((100,))
    expected = WrappedNormal(band, loc, scale).log_prob(value)
    assert_close(pushed.log_prob(value), expected, rtol=0, atol=1e-12)
