"""The guide of wrapped normals: exact bounds on every manifold, plates, quantiles and refusals."""

import math
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, JitTrace_ELBO, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoGuideList,
    AutoNormal,
    init_to_mean,
    init_to_value,
)
from torch.distributions import biject_to
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Euclidean,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    MoebiusBand,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.infer.autoguide import AutoWrappedNormal
from pyro_manifolds.testing import circle_rule, glide_rule

KLEIN = KleinBottle()
MANIFOLDS = [
    *(Circle(), Torus(2), KLEIN, MoebiusBand(), MoebiusBand(math.inf), Euclidean(2)),
    *(Sphere(2), ProjectiveSpace(2), SO3(), LensSpace(5, 2)),
    *(Product(Circle(), Sphere(2)), Product(KLEIN, SO3()), Product(Circle(), Euclidean(1))),
]
every = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


def point_of(manifold, *batch):
    return manifold.unembed(torch.randn(*batch, manifold.embed_dim))


def prior_on(manifold, loc, fraction=0.1):
    scale = fraction * torch.tensor(manifold.periods).reshape(manifold.scale_shape)
    return WrappedNormal(manifold, loc, scale)


def bound(model, guide, size=20_000, nesting=0):
    elbo = Trace_ELBO(num_particles=size, vectorize_particles=True, max_plate_nesting=nesting)
    with torch.no_grad():
        return elbo.loss(model, guide)


def train(model, guide, steps=200, lr=0.1):
    guide()
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=0)
    optim = pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.02 ** (1 / steps)})
    svi = SVI(model, guide, optim, elbo)
    for _ in range(steps):
        svi.step()
    return bound(model, guide)


# Bounds.


@every
def test_without_data_the_bound_is_zero_at_the_prior_and_above_elsewhere(manifold):
    loc, other = point_of(manifold), point_of(manifold)

    def model():
        pyro.sample("z", prior_on(manifold, loc))

    exact = AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": loc}))
    for elbo in (Trace_ELBO(), TraceMeanField_ELBO(), JitTrace_ELBO()):
        exact()
        assert abs(elbo.loss(model, exact)) < 2e-4
    pyro.clear_param_store()
    init = init_to_value(values={"z": other})
    assert bound(model, AutoWrappedNormal(model, init_loc_fn=init), 1000) > 0.1


@every
def test_gradients_reach_location_and_scale(manifold):
    loc = point_of(manifold, 4)

    def model():
        with pyro.plate("data", 4):
            pyro.sample("z", prior_on(manifold, loc))

    guide = AutoWrappedNormal(model)
    guide()
    Trace_ELBO(10, 1, vectorize_particles=True).differentiable_loss(model, guide).backward()
    for parameter in guide.parameters():
        assert parameter.grad.isfinite().all()
        assert (parameter.grad != 0).any()


def test_on_the_circle_the_trained_bound_meets_the_evidence():
    def model():
        z = pyro.sample("z", VonMises(torch.tensor(0.0), 1.0))
        noisy = dist.Normal(Circle().embed(z), 2.0).to_event(1)
        pyro.sample("x", noisy, obs=torch.tensor([1.0, 0.0]))

    nodes, weights = circle_rule(128, torch.float32)
    log_joint = VonMises(torch.tensor(0.0), 1.0).log_prob(nodes)
    noisy = dist.Normal(Circle().embed(nodes), 2.0).to_event(1)
    log_joint = log_joint + noisy.log_prob(torch.tensor([1.0, 0.0]))
    evidence = (log_joint + weights.log()).logsumexp(0).item()
    found = train(model, AutoWrappedNormal(model))
    assert -0.005 < found + evidence < 0.03


def test_on_the_klein_bottle_the_trained_bound_meets_the_evidence():
    data = KLEIN.embed(torch.tensor([3.0, 2.0])) + 0.1

    def log_likelihood(z):
        return dist.Normal(KLEIN.embed(z), 0.3).to_event(1).log_prob(data)

    def model():
        z = pyro.sample("z", ManifoldUniform(KLEIN))
        pyro.factor("x", log_likelihood(z))

    nodes, weights = glide_rule(circle_rule(128, torch.float32), 64)
    log_joint = log_likelihood(nodes) + ManifoldUniform(KLEIN).log_prob(nodes)
    evidence = (log_joint + weights.log()).logsumexp(0).item()
    guide = AutoWrappedNormal(
        model, init_loc_fn=init_to_value(values={"z": torch.tensor([2.7, 1.7])})
    )
    found = train(model, guide)
    assert -0.005 < found + evidence < 0.06


def mixed_model():
    """Evidence one, every site independent, every posterior in the family."""
    pyro.sample("angle", WrappedNormal(Circle(), torch.tensor(3.1), 0.6))
    pyro.sample("turn", prior_on(SO3(), torch.eye(3)))
    pyro.sample("scale", dist.LogNormal(0.5, 0.3))
    pyro.sample("weights", dist.Normal(torch.ones(3), 0.5).to_event(1))
    pyro.sample("angles", WrappedNormal(Circle(), torch.ones(2), 0.6).to_event(1))


def test_manifold_and_ordinary_sites_mix_and_the_bound_holds():
    guide = AutoWrappedNormal(mixed_model, init_loc_fn=init_to_mean)
    assert -0.01 < train(mixed_model, guide, 120) < 0.1
    assert_close(guide.median()["scale"], torch.tensor(0.5).exp(), atol=0.15, rtol=0)
    assert Circle().dist(guide.median()["angle"], torch.tensor(3.1)) < 0.15


def test_a_euclidean_space_is_guided_as_the_real_line():
    def model():
        pyro.sample("z", WrappedNormal(Euclidean(2), torch.zeros(2), 1.0))

    guide = AutoWrappedNormal(model)
    guide()
    draws = guide.quantiles([0.5, 0.8413447])["z"]
    assert_close(draws, torch.tensor([[0.0, 0.0], [0.1, 0.1]]), atol=1e-4, rtol=0)


# Plates.


@pytest.mark.parametrize("manifold", [Circle(), Sphere(2), KLEIN], ids=repr)
def test_subsamples_train_one_parameter_for_each_datum(manifold):
    centre = manifold.embed(point_of(manifold))
    truth = manifold.unembed(centre + 0.2 * torch.randn(8, 2, manifold.embed_dim))
    data = manifold.embed(truth)
    start = manifold.unembed(centre).expand(4, 2, *manifold.event_shape)

    def model():
        with pyro.plate("data", 8, dim=-2, subsample_size=4) as index, pyro.plate("two", 2):
            z = pyro.sample("z", ManifoldUniform(manifold))
            noisy = dist.Normal(manifold.embed(z), 0.2).to_event(1)
            pyro.sample("x", noisy, obs=data[index])

    guide = AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": start}))
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.05}), TraceMeanField_ELBO())
    for _ in range(150):
        svi.step()
    assert guide()["z"].shape == (4, 2, *manifold.event_shape)
    assert guide.median()["z"].shape == (8, 2, *manifold.event_shape)
    assert guide.get_posterior("z").batch_shape == (8, 2)
    assert manifold.dist(guide.median()["z"], truth).quantile(0.9) < 0.3


def test_a_subsample_takes_its_own_rows():
    angles = torch.linspace(-3, 3, 8)

    def plates():
        return pyro.plate("data", 8, subsample=torch.tensor([6, 1]))

    def model():
        with plates():
            pyro.sample("z", ManifoldUniform(Circle()))

    guide = AutoWrappedNormal(model, init_scale=1e-4, create_plates=plates)
    guide()
    guide.locs.z = Circle().embed(angles)
    assert_close(guide()["z"], angles[[6, 1]], atol=0.01, rtol=0)


def test_vectorised_particles_and_events_of_several_points():
    def model():
        with pyro.plate("data", 3):
            pyro.sample("z", WrappedNormal(KLEIN, torch.ones(3, 4, 2), 1.0).to_event(1))

    guide = AutoWrappedNormal(model, init_loc_fn=init_to_value(values={"z": torch.ones(3, 4, 2)}))
    assert guide()["z"].shape == (3, 4, 2)
    assert guide.scales.z.shape == (3, 4, 2)
    single = bound(model, guide, 2000, 1) / 12
    posterior = guide.get_posterior("z").base_dist
    draws = posterior.sample((2000,))
    prior = WrappedNormal(KLEIN, torch.ones(2), 1.0)
    expected = (posterior.log_prob(draws) - prior.log_prob(draws)).mean()
    assert single == pytest.approx(expected.item(), abs=0.05)


# What the guide tells.


def test_quantiles_on_flat_manifolds_are_those_of_the_cover():
    product = Product(KLEIN, Circle())

    def model():
        pyro.sample("z", ManifoldUniform(KLEIN))
        with pyro.plate("data", 2):
            pyro.sample("y", ManifoldUniform(product))

    guide = AutoWrappedNormal(
        model, init_loc_fn=init_to_value(values={"z": torch.tensor([3.0, 1.0])})
    )
    guide()
    found = guide.quantiles([0.5, 0.8413447])
    expected = KLEIN.projx(torch.tensor([[3.0, 1.0], [3.0 + 0.1 * math.pi, 1.0 + 0.2 * math.pi]]))
    assert_close(found["z"], expected, atol=1e-3, rtol=0)
    assert found["y"].shape == (2, 2, 3)


def test_quantiles_on_a_sphere_are_refused_and_the_posterior_is_named():
    guide = AutoWrappedNormal(mixed_model)
    guide()
    with pytest.raises(NotImplementedError, match="of 'turn'.*get_posterior"):
        guide.quantiles([0.5])
    assert guide.get_posterior("turn").manifold == SO3()
    scale = guide.get_posterior("scale")
    assert_close(scale.icdf(torch.tensor(0.5)), guide.median()["scale"])


def test_posteriors_have_the_density_of_the_guide():
    guide = AutoWrappedNormal(mixed_model)
    guide()
    nodes = poutine.trace(guide).get_trace().nodes
    for name in ("angle", "turn", "angles"):
        posterior = guide.get_posterior(name)
        value = nodes[name]["value"]
        assert_close(posterior.log_prob(value), nodes[name]["fn"].log_prob(value))
        assert posterior.event_dim == nodes[name]["fn"].event_dim
    with pytest.raises(KeyError, match="expected one of .*'angle'.*got 'moon'"):
        guide.get_posterior("moon")


def test_medians_are_points_and_the_guide_predicts():
    guide = AutoWrappedNormal(mixed_model)
    guide()
    assert SO3().support.check(guide.median()["turn"])
    draws = Predictive(mixed_model, guide=guide, num_samples=7, parallel=True)()
    assert draws["turn"].shape == (7, 3, 3)
    assert SO3().support.check(draws["turn"]).all()


def test_the_state_survives_a_round_trip():
    first, second = AutoWrappedNormal(mixed_model), AutoWrappedNormal(mixed_model)
    first()
    with torch.no_grad():
        for parameter in first.parameters():
            parameter.add_(0.3)
    state = first.state_dict()
    pyro.clear_param_store()
    second()
    second.load_state_dict(state)
    assert_close(second.median(), first.median())
    assert_close(second.get_posterior("turn").scale, first.get_posterior("turn").scale)


@every
def test_scales_start_at_a_fraction_of_the_period_and_stay_valid(manifold):
    def model():
        pyro.sample("z", prior_on(manifold, point_of(manifold)))

    guide = AutoWrappedNormal(model, init_scale=0.05)
    guide()
    expected = 0.05 * torch.tensor(manifold.periods).reshape(manifold.scale_shape)
    assert_close(guide.scales.z.detach(), expected, rtol=1e-3, atol=0)
    with torch.no_grad():
        guide.scales.z_unconstrained.fill_(50.0)
    assert guide.get_posterior("z").log_prob(guide()["z"]).isfinite()


def test_the_guide_composes_with_others():
    guide = AutoGuideList(mixed_model)
    guide.append(AutoWrappedNormal(poutine.block(mixed_model, expose=["angle", "turn"])))
    guide.append(AutoNormal(poutine.block(mixed_model, expose=["scale"])))
    guide.append(AutoWrappedNormal(poutine.block(mixed_model, expose=["weights", "angles"])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isfinite(Trace_ELBO().loss(mixed_model, guide))


# Refusals.


def test_the_remedies_that_biject_to_names_exist():
    with pytest.raises(NotImplementedError) as error:
        biject_to(KLEIN.support)
    named = [word.rstrip(",.") for word in str(error.value).split() if "pyro_manifolds." in word]
    assert len(named) == 2
    for path in named:
        module, name = path.rsplit(".", 1)
        assert hasattr(__import__(module, fromlist=[name]), name)
    assert "NotImplementedError" not in str(error.value)


def test_bad_initial_scales_are_refused():
    for scale in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="expected init_scale > 0"):
            AutoWrappedNormal(mixed_model, init_scale=scale)

    def model():
        pyro.sample("z", ManifoldUniform(Sphere(2)))

    with pytest.raises(ValueError, match="expected init_scale < 1 .* 'z'"):
        AutoWrappedNormal(model, init_scale=1.5)()


def test_a_discrete_site_and_a_guide_that_was_never_called_are_refused():
    guide = AutoWrappedNormal(lambda: pyro.sample("n", dist.Poisson(3.0)))
    with pytest.raises(ValueError, match="discrete sample site 'n'"):
        guide()
    with pytest.raises(RuntimeError, match="call the guide once"):
        AutoWrappedNormal(mixed_model).median()
