"""NUTS on posteriors over manifolds: moments of embedded draws against quadrature."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, gelman_rubin

from pyro_manifolds import Circle, KleinBottle, ManifoldUniform, Sphere, Torus, VonMises
from pyro_manifolds.infer.reparam import AutoManifoldReparam
from pyro_manifolds.testing import circle_rule, glide_rule, sphere_rule, torus_rule

CIRCLE, TORUS, KLEIN, SPHERE = Circle(), Torus(2), KleinBottle(), Sphere(2)
SEEDS = (0, 1, 2)


def seen(manifold, point, noise):
    """Return the log-likelihood of one noisy observation of the embedded point."""
    centre = manifold.embed(torch.tensor(point, dtype=torch.float64))

    def log_likelihood(z):
        return -(manifold.embed(z) - centre).square().sum(-1) / (2 * noise**2)

    return log_likelihood


def two_of(first, second):
    return lambda z: torch.logaddexp(first(z), second(z))


# Barriers of about two nats between the modes: higher ones hold NUTS up on a line as well.
POSTERIORS = {
    "circle-at-the-cut": (
        VonMises(torch.tensor(3.0, dtype=torch.float64), 2.0),
        CIRCLE,
        seen(CIRCLE, -3.0, 0.7),
        circle_rule(256),
    ),
    "circle-bimodal-across-the-cut": (
        ManifoldUniform(CIRCLE, dtype=torch.float64),
        CIRCLE,
        lambda z: (2 * z).cos() + 0.3 * z.cos() + 0.2 * z.sin(),
        circle_rule(256),
    ),
    "torus": (
        ManifoldUniform(TORUS, dtype=torch.float64),
        TORUS,
        lambda z: 2 * (z[..., 0] - z[..., 1] - 0.5).cos() + 1.5 * (z[..., 0] - 3.0).cos(),
        torus_rule(2, 64),
    ),
    "klein-at-the-seam": (
        ManifoldUniform(KLEIN, dtype=torch.float64),
        KLEIN,
        seen(KLEIN, [3.1, 2.5], 0.5),
        glide_rule(circle_rule(128), 64),
    ),
    "klein-bimodal-across-the-seam": (
        ManifoldUniform(KLEIN, dtype=torch.float64),
        KLEIN,
        two_of(seen(KLEIN, [0.1, 0.5], 0.9), seen(KLEIN, [1.6, -2.0], 0.9)),
        glide_rule(circle_rule(128), 64),
    ),
    "sphere": (
        ManifoldUniform(SPHERE, dtype=torch.float64),
        SPHERE,
        seen(SPHERE, [0.0, 0.6, -0.8], 0.5),
        sphere_rule(2, 40),
    ),
    "sphere-bimodal": (
        ManifoldUniform(SPHERE, dtype=torch.float64),
        SPHERE,
        lambda z: 2 * z[..., 0].square() + 0.3 * z[..., 1],
        sphere_rule(2, 40),
    ),
}


def sample(model, seed, num_samples=300, warmup=150):
    pyro.set_rng_seed(seed)
    kernel = NUTS(model, max_tree_depth=5, jit_compile=True, ignore_jit_warnings=True)
    mcmc = MCMC(kernel, num_samples, warmup_steps=warmup, disable_progbar=True)
    mcmc.run()
    divergences = mcmc.diagnostics()["divergences"]["chain 0"]
    return mcmc.get_samples()["z_noise"], len(divergences)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("prior", "manifold", "log_likelihood", "rule"), POSTERIORS.values(), ids=list(POSTERIORS)
)
def test_moments_are_those_of_quadrature(prior, manifold, log_likelihood, rule):
    torch.set_default_dtype(torch.float64)

    def model():
        z = pyro.sample("z", prior)
        pyro.factor("x", log_likelihood(z))

    chains = [sample(poutine.reparam(model, config=AutoManifoldReparam()), s) for s in SEEDS]
    divergences = [count for _, count in chains]
    assert sum(divergences) <= 3, f"divergent transitions by seed: {divergences}"
    points = torch.stack([manifold.embed(manifold.unembed(noise)) for noise, _ in chains])
    # First moments, and second ones, which tell how the mass is spread over opposite modes.
    features = torch.cat([points, points.square()], -1)
    nodes, weights = rule
    mass = (prior.log_prob(nodes) + log_likelihood(nodes) + weights.log()).softmax(0)
    at_nodes = manifold.embed(nodes)
    expected = mass @ torch.cat([at_nodes, at_nodes.square()], -1)
    size = effective_sample_size(features).clamp(max=features[..., 0].numel())
    report = (
        f"expected {expected.tolist()}, got {features.mean((0, 1)).tolist()}, effective sizes "
        f"{size.round().tolist()}, divergences {divergences}"
    )
    assert (size > 25).all(), report
    assert (gelman_rubin(features) < 1.2).all(), report
    error = features.flatten(0, 1).std(0) / size.sqrt()
    assert ((features.mean((0, 1)) - expected).abs() < 4 * error + 1e-9).all(), report
