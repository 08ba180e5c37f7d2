"""Moving a site to the ambient space: exact densities, guides, NUTS, plates and refusals."""

import math
from functools import partial

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.distributions.util import sum_rightmost
from pyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, TraceMeanField_ELBO
from pyro.infer.autoguide import (
    AutoDelta,
    AutoLaplaceApproximation,
    AutoMultivariateNormal,
    AutoNormal,
    init_to_mean,
    init_to_value,
)
from pyro.infer.autoguide.initialization import InitMessenger
from pyro.ops.stats import effective_sample_size
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Euclidean,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    MoebiusBand,
    PoincareBall,
    PowerSpherical,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.distributions.constraints import OnManifold
from pyro_manifolds.infer.reparam import AutoManifoldReparam, CoveringReparam, ManifoldReparam
from pyro_manifolds.testing import (
    assert_mean,
    circle_rule,
    glide_rule,
    line_rule,
    product_rule,
    quotient_rule,
    smooth_test,
    sphere_rule,
    torus_rule,
)
from tests.cases import CASES

KLEIN, OPEN_BAND, PLANE = KleinBottle(), MoebiusBand(math.inf), ProjectiveSpace(2)
STRIP = Product(Circle(), Euclidean(1))
RULES = {
    Circle(): circle_rule,
    Torus(2): partial(torus_rule, 2, 32),
    KLEIN: lambda: glide_rule(circle_rule(64), 32),
    OPEN_BAND: lambda: glide_rule(line_rule(-8, 8, 96), 32),
    Sphere(2): partial(sphere_rule, 2, 24),
    PLANE: partial(quotient_rule, PLANE, 24),
    SO3(): partial(quotient_rule, SO3(), 24),
    STRIP: lambda: product_rule(circle_rule(32), line_rule(-8, 8, 64)),
}
WITHOUT_DENSITY = [LensSpace(5, 2), MoebiusBand(1.0), Product(Circle(), LensSpace(3, 1))]
every = pytest.mark.parametrize("manifold", list(RULES), ids=repr)


def trace(model):
    return poutine.trace(model).get_trace()


def moved(model, repulsion=2.0):
    return poutine.reparam(model, config=AutoManifoldReparam(repulsion))


def normal_draws(manifold, size=20_000):
    return torch.randn(size, manifold.embed_dim, dtype=torch.float64)


# Normal vectors, and where unembed takes them.


@every
def test_normal_vectors_are_unembedded_with_the_density_that_is_claimed(manifold):
    nodes, weights = RULES[manifold]()
    draws = manifold.embed(manifold.unembed(normal_draws(manifold)))
    rule = manifold.embed(nodes), weights
    assert smooth_test(draws, manifold.log_prob_unembed(nodes), rule) > 1e-3


def test_normal_vectors_are_not_unembedded_uniformly_on_a_lens_space():
    lens = LensSpace(5, 2)
    nodes, weights = quotient_rule(lens, 24)
    draws = lens.embed(lens.unembed(normal_draws(lens)))
    uniform = ManifoldUniform(lens, dtype=torch.float64).log_prob(nodes)
    assert smooth_test(draws, uniform, (lens.embed(nodes), weights)) < 1e-6


@every
@pytest.mark.parametrize("power", [1.0, 2.5])
def test_repulsion_is_a_normalised_weight_independent_of_the_point(manifold, power):
    z = normal_draws(manifold, 60_000)
    weight = manifold.log_repulsion(z, power).exp()
    assert_mean(weight, torch.ones(()), what="weight", floor=1e-12)
    nodes, weights = RULES[manifold]()
    waves = torch.randn(manifold.embed_dim, 6, dtype=torch.float64)
    mass = (manifold.log_prob_unembed(nodes).exp() * weights).unsqueeze(-1)
    expected = (mass * (manifold.embed(nodes) @ waves).cos()).sum(0)
    values = (manifold.embed(manifold.unembed(z)) @ waves).cos()
    assert_mean(weight.unsqueeze(-1) * values, expected, what="weighted waves", floor=1e-6)


@every
def test_preimages_are_typical_and_far_from_the_singular_set(manifold):
    y = manifold.unembed(normal_draws(manifold, 50).float())
    a = manifold.preimage(y).requires_grad_()
    assert manifold.equivalent(manifold.unembed(a), y).all()
    weight = manifold.log_repulsion(a, 1.0)
    assert (weight > -2.5).all()
    if not isinstance(manifold, Euclidean):
        assert torch.autograd.grad(weight.sum(), a)[0].isfinite().all()


@pytest.mark.parametrize("manifold", WITHOUT_DENSITY, ids=repr)
def test_manifolds_without_a_density_name_the_way_round(manifold):
    y = ManifoldUniform(manifold).sample()
    with pytest.raises(NotImplementedError, match="AutoWrappedNormal"):
        manifold.log_prob_unembed(y)
    model = poutine.reparam(
        lambda: pyro.sample("z", ManifoldUniform(manifold)), {"z": ManifoldReparam()}
    )
    with pytest.raises(NotImplementedError, match="AutoWrappedNormal"):
        trace(model)


@pytest.mark.parametrize("manifold", WITHOUT_DENSITY, ids=repr)
def test_the_strategy_goes_by_the_cover_where_there_is_no_density(manifold):
    law = WrappedNormal(manifold, ManifoldUniform(manifold).sample(), 0.5)
    found = trace(moved(lambda: pyro.sample("z", law)))
    assert set(found.stochastic_nodes) <= {"z_cover", "z_cover_noise"}
    cover, z = found.nodes["z_cover"], found.nodes["z"]["value"]
    assert manifold.equivalent(manifold.covering(cover["value"]), z)
    # The cover carries the law, with its factor, and the projection nothing.
    assert found.nodes["z"]["fn"].log_prob(z) == 0
    assert cover["fn"].log_prob(cover["value"]).isfinite()


def test_the_strategy_moves_uniform_laws_to_covers_with_finitely_many_sheets_only():
    lens = trace(moved(lambda: pyro.sample("z", ManifoldUniform(LensSpace(5, 2)))))
    assert lens.stochastic_nodes == ["z_cover_noise"]
    with pytest.raises(NotImplementedError, match="AutoWrappedNormal"):
        trace(moved(lambda: pyro.sample("z", ManifoldUniform(MoebiusBand(1.0)))))


# The site.


def has_density(law):
    manifold = base_of(law).support.manifold
    lens = "LensSpace" in repr(manifold)
    return not lens and manifold != MoebiusBand(1.0)


def base_of(law):
    while isinstance(law, dist.Independent):
        law = law.base_dist
    return law


def on_manifold(law):
    return isinstance(getattr(base_of(law), "support", None), OnManifold)


def exact_laws():
    laws = {name: case.make(torch.float64) for name, case in CASES.items()}
    kept = {k: law for k, law in laws.items() if on_manifold(law) and has_density(law)}
    return [pytest.param(law, id=name) for name, law in kept.items()]


@pytest.mark.parametrize("law", exact_laws())
def test_the_joint_density_is_exact_for_every_distribution(law):
    nodes = trace(poutine.reparam(lambda: pyro.sample("z", law), {"z": ManifoldReparam()})).nodes
    y = nodes["z"]["value"]
    assert y.dtype == nodes["z_noise"]["value"].dtype == torch.float64
    assert law.support.check(y).all()
    manifold = base_of(law).support.manifold
    outer = law.event_dim - base_of(law).event_dim
    factor = manifold.log_repulsion(nodes["z_noise"]["value"], 2.0) - manifold.log_prob_unembed(y)
    expected = law.log_prob(y) + sum_rightmost(factor, outer)
    assert_close(nodes["z"]["fn"].log_prob(y), expected)


def test_the_site_keeps_its_name_and_nothing_else_is_added():
    model = moved(lambda: pyro.sample("z", WrappedNormal(KLEIN, torch.ones(2), 0.5)))
    found = trace(model)
    assert found.stochastic_nodes == ["z_noise"]
    assert found.observation_nodes == ["z"]
    assert_close(found.nodes["z"]["value"], KLEIN.unembed(found.nodes["z_noise"]["value"]))
    assert_close(found.nodes["_RETURN"]["value"], found.nodes["z"]["value"])


@every
@pytest.mark.parametrize("repulsion", [0.0, 2.0])
def test_initial_values_land_exactly_and_away_from_the_singular_set(manifold, repulsion):
    value = manifold.unembed(normal_draws(manifold, 3).float())

    def model():
        with pyro.plate("data", 3):
            base = WrappedNormal(manifold, manifold.unembed(torch.ones(manifold.embed_dim)), 1.0)
            pyro.sample("z", base)

    model = moved(model, repulsion)
    nodes = trace(InitMessenger(init_to_value(values={"z": value}))(model)).nodes
    assert nodes["z"]["value"] is value
    assert manifold.equivalent(manifold.unembed(nodes["z_noise"]["value"]), value).all()
    guide = AutoNormal(model, init_loc_fn=init_to_value(values={"z": value}))
    guide()
    assert manifold.equivalent(manifold.unembed(guide.median()["z_noise"]), value).all()
    nodes = trace(InitMessenger(init_to_mean)(model)).nodes
    assert nodes["z_noise"]["fn"].log_prob(nodes["z_noise"]["value"]).isfinite().all()


def test_plates_event_dimensions_and_subsamples_are_kept():
    def model():
        with pyro.plate("data", 6, subsample_size=4):
            law = VonMises(torch.zeros(4, 3), 2.0).to_event(1)
            return pyro.sample("z", law)

    found = trace(poutine.reparam(model, {"z": ManifoldReparam(repulsion=0.0)}))
    found.compute_log_prob()
    nodes = found.nodes
    assert nodes["z_noise"]["value"].shape == (4, 3, 2)
    assert nodes["z_noise"]["fn"].batch_shape == nodes["z"]["fn"].batch_shape == (4,)
    y = nodes["z"]["value"]
    joint = VonMises(0.0, 2.0).log_prob(y).sum() + 12 * math.log(2 * math.pi)
    assert_close(nodes["z"]["log_prob_sum"], 6 / 4 * joint)


def test_guides_of_pyro_train_on_subsamples():
    data = Circle().embed(torch.linspace(-0.5, 0.5, 8) + 3.0)

    def model():
        with pyro.plate("data", 8, subsample_size=4) as index:
            z = pyro.sample("z", ManifoldUniform(Circle()))
            pyro.sample("x", dist.Normal(Circle().embed(z), 0.3).to_event(1), obs=data[index])

    guide = AutoNormal(moved(model))
    svi = SVI(moved(model), guide, pyro.optim.Adam({"lr": 0.1}), TraceMeanField_ELBO(8))
    for _ in range(80):
        svi.step()
    found = Circle().unembed(guide.locs.z_noise.detach())
    assert found.shape == (8,)
    assert Circle().dist(found, Circle().unembed(data)).max() < 0.3


def test_vectorised_particles_pass_through():
    law = PowerSpherical(torch.tensor([1.0, 0.0, 0.0]), 3.0)

    def single():
        pyro.sample("z", law)

    def plated():
        with pyro.plate("data", 4):
            pyro.sample("z", law)

    losses = []
    for model, nesting in ((single, 0), (plated, 1)):
        pyro.clear_param_store()
        guide = AutoNormal(moved(model), init_scale=0.8)
        elbo = Trace_ELBO(20_000, nesting, vectorize_particles=True)
        losses.append(elbo.loss(moved(model), guide))
    assert losses[1] == pytest.approx(4 * losses[0], rel=0.05)


def test_masks_reach_the_factor():
    mask = torch.tensor([True, False, True])

    def model():
        with pyro.plate("data", 3), poutine.mask(mask=mask):
            pyro.sample("z", VonMises(torch.zeros(3), 2.0))

    found = trace(moved(model))
    found.compute_log_prob()
    for name in ("z", "z_noise"):
        assert ((found.nodes[name]["log_prob"] != 0) == mask).all()


def test_predictive_returns_points_of_the_manifold():
    def model():
        z = pyro.sample("z", ManifoldUniform(SO3()))
        pyro.sample("x", dist.Normal(z, 0.1).to_event(2))

    guide = AutoNormal(moved(poutine.condition(model, {"x": torch.eye(3)})))
    guide()
    for parallel in (False, True):
        draws = Predictive(moved(model), guide=guide, num_samples=5, parallel=parallel)()
        assert draws["z"].shape == draws["x"].shape == (5, 3, 3)
        assert SO3().support.check(draws["z"]).all()
        assert_close(draws["z"], SO3().unembed(draws["z_noise"]).reshape(5, 3, 3))


# The strategy.


def test_the_strategy_leaves_other_sites_alone():
    def model():
        scale = pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        flat = pyro.sample("flat", WrappedNormal(Euclidean(2), torch.zeros(2), 1.0))
        pyro.sample("ball", WrappedNormal(PoincareBall(2), torch.zeros(2), torch.ones(2)))
        z = pyro.sample("z", VonMises(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", VonMises(z + flat, scale).to_event(1), obs=torch.ones(2))

    for handled in (AutoManifoldReparam()(model), moved(model, 0.0)):
        found = trace(handled)
        assert set(found.stochastic_nodes) == {"scale", "flat", "ball", "z_noise"}
        assert isinstance(found.nodes["x"]["fn"].base_dist, VonMises)
    assert AutoManifoldReparam(3.0).repulsion == 3.0


def test_the_remedy_that_biject_to_names_makes_every_algorithm_run():
    def model():
        z = pyro.sample("z", WrappedNormal(Sphere(2), torch.tensor([0.0, 0.6, 0.8]), 0.4))
        pyro.sample("x", dist.Normal(z, 0.5).to_event(1), obs=torch.tensor([0.5, 0.5, 0.5]))

    with pytest.raises((NotImplementedError, ValueError)):
        AutoNormal(model)()
    for kind in (AutoNormal, AutoDelta, AutoMultivariateNormal, AutoLaplaceApproximation):
        pyro.clear_param_store()
        guide = kind(moved(model))
        svi = SVI(moved(model), guide, pyro.optim.Adam({"lr": 0.05}), Trace_ELBO())
        losses = [svi.step() for _ in range(40)]
        assert math.isfinite(sum(losses))
        if kind is AutoLaplaceApproximation:
            guide = guide.laplace_approximation()
        z = Predictive(moved(model), guide=guide, num_samples=20)()["z"]
        assert Sphere(2).support.check(z).all()
        assert z.mean(0) @ torch.tensor([0.3, 0.6, 0.7]) > 0.5


# The bound.


def train(model, guide, steps=150, lr=0.05):
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=0)
    guide()
    optim = pyro.optim.ClippedAdam({"lr": lr, "lrd": 0.02 ** (1 / steps)})
    svi = SVI(model, guide, optim, elbo)
    for _ in range(steps):
        svi.step()
    final = Trace_ELBO(num_particles=20_000, vectorize_particles=True, max_plate_nesting=0)
    with torch.no_grad():
        return final.loss(model, guide)


@pytest.mark.parametrize(
    ("law", "repulsion", "cost"),
    [
        (VonMises(torch.tensor(0.0), 0.5), 0.0, 0.05),  # support=real: -1.3 and falling
        (VonMises(torch.tensor(3.1), 5.0), 0.0, 0.25),  # mode at the cut; an interval chart: 0.71
        (VonMises(torch.tensor(3.1), 5.0), 2.0, 0.1),
        (VonMises(torch.tensor(3.1), 50.0), 0.0, 0.6),
        (VonMises(torch.tensor(3.1), 50.0), 4.0, 0.3),
        (PowerSpherical(torch.tensor([0.0, 0.6, 0.8]), 4.0), 0.0, 0.2),
    ],
    ids=["diffuse", "cut", "cut, repelled", "concentrated", "concentrated, repelled", "sphere"],
)
def test_without_data_the_bound_of_a_normal_guide_is_at_least_zero(law, repulsion, cost):
    model = moved(lambda: pyro.sample("z", law), repulsion)
    guide = AutoNormal(model, init_loc_fn=init_to_mean, init_scale=0.5)
    assert -0.005 < train(model, guide) < cost


# Refusals.


def test_observed_sites_are_refused():
    model = poutine.condition(
        lambda: pyro.sample("z", ManifoldUniform(KLEIN)), {"z": torch.zeros(2)}
    )
    with pytest.raises(NotImplementedError, match="'z' is observed; leave it out"):
        trace(poutine.reparam(model, {"z": ManifoldReparam()}))


def test_a_value_from_outside_is_never_taken_for_a_draw():
    model = moved(lambda: pyro.sample("z", ManifoldUniform(KLEIN)))
    found = trace(poutine.condition(model, {"z": torch.ones(2)}))
    assert found.log_prob_sum() == -math.inf


@pytest.mark.parametrize(
    "law",
    [dist.Normal(0.0, 1.0), dist.LogNormal(0.0, 1.0), ManifoldUniform(KLEIN).mask(False)],
    ids=["normal", "transformed", "masked"],
)
def test_other_sites_are_refused(law):
    with pytest.raises(TypeError, match="'z' is .*expected a distribution with the support"):
        trace(poutine.reparam(lambda: pyro.sample("z", law), {"z": ManifoldReparam()}))


def test_negative_repulsion_is_refused():
    for kind in (ManifoldReparam, AutoManifoldReparam):
        with pytest.raises(ValueError, match="expected repulsion >= 0, got -1"):
            kind(-1.0)


# NUTS.


def sample_nuts(model, num_samples, depth):
    kernel = NUTS(model, max_tree_depth=depth)
    mcmc = MCMC(kernel, num_samples=num_samples, warmup_steps=60, disable_progbar=True)
    mcmc.run()
    assert not mcmc.diagnostics()["divergences"]["chain 0"]
    return mcmc.get_samples()["z_noise"]


@pytest.mark.parametrize(
    ("manifold", "rule", "num_samples", "depth"),
    [
        (Circle(), RULES[Circle()], 150, 4),
        (Sphere(2), RULES[Sphere(2)], 100, 4),
        (KLEIN, RULES[KLEIN], 100, 4),
        (SO3(), RULES[SO3()], 100, 4),
    ],
    ids=lambda x: repr(x) if hasattr(x, "volume") else "",
)
def test_nuts_agrees_with_quadrature_and_does_not_diverge(manifold, rule, num_samples, depth):
    torch.set_default_dtype(torch.float64)
    data = torch.linspace(-0.4, 0.8, manifold.embed_dim)

    def log_likelihood(y):
        return dist.Normal(manifold.embed(y), 0.7).log_prob(data).sum(-1)

    def model():
        y = pyro.sample("z", ManifoldUniform(manifold))
        pyro.factor("x", log_likelihood(y))

    features = manifold.embed(manifold.unembed(sample_nuts(moved(model), num_samples, depth)))
    nodes, weights = rule()
    mass = (log_likelihood(nodes) + weights.log()).softmax(0)
    expected = (mass.unsqueeze(-1) * manifold.embed(nodes)).sum(0)
    size = effective_sample_size(features.unsqueeze(0)).clamp(max=num_samples)
    assert (size > 8).all()
    error = features.std(0) / size.sqrt()
    assert ((features.mean(0) - expected).abs() < 5 * error).all()


def test_repulsion_keeps_nuts_from_diverging_on_a_concentrated_posterior():
    torch.set_default_dtype(torch.float64)
    law = VonMises(torch.tensor(3.1), 100.0)
    model = moved(lambda: pyro.sample("z", law), 8.0)
    draws = Circle().unembed(sample_nuts(model, 100, 4))
    assert Circle().dist(draws, torch.tensor(3.1)).max() < 0.6


def test_sites_without_a_density_move_to_a_cover_that_has_one():
    def model():
        pyro.sample("z", ManifoldUniform(LensSpace(5, 2)))

    lifted = poutine.reparam(model, {"z": CoveringReparam()})
    found = trace(poutine.reparam(lifted, {"z_cover": ManifoldReparam()}))
    assert found.stochastic_nodes == ["z_cover_noise"]
    assert LensSpace(5, 2).support.check(found.nodes["z"]["value"])


@pytest.mark.parametrize("manifold", [Sphere(2), KleinBottle()], ids=str)
def test_a_guide_of_pyro_on_the_bare_site_names_what_to_use_instead(manifold):
    def model():
        pyro.sample("z", ManifoldUniform(manifold))

    with pytest.raises(NotImplementedError, match="ManifoldReparam.*AutoWrappedNormal"):
        AutoNormal(model)()
