"""Diagnostics of chains: against numpy, across seams, and from the noise that kernels keep."""

import math
import sys

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.ops.stats import effective_sample_size, split_gelman_rubin
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    Product,
    Sphere,
    Torus,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.infer import (
    ManifoldSummary,
    manifold_samples,
    manifold_summary,
    manifolds_of,
    to_arviz,
)
from pyro_manifolds.infer.reparam import AutoManifoldReparam, CoveringReparam, ManifoldReparam

CIRCLE, KLEIN, LENS = Circle(), KleinBottle(), LensSpace(5, 2)
MANIFOLDS = [CIRCLE, Torus(2), KLEIN, Sphere(2), SO3(), LENS, Product(CIRCLE, Sphere(2))]
every = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


def walk(manifold, chains, draws, *batch, memory=0.8, spread=0.3, seed=0):
    """Chains of an autoregression in the ambient space, moved onto the manifold."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch, manifold.embed_dim)
    centre = torch.randn(shape, generator=generator, dtype=torch.float64)
    state = torch.randn((chains, *shape), generator=generator, dtype=torch.float64)
    path = []
    for _ in range(draws):
        shock = torch.randn((chains, *shape), generator=generator, dtype=torch.float64)
        state = memory * state + math.sqrt(1 - memory**2) * shock
        path.append(manifold.unembed(centre + spread * state))
    return torch.stack(path, 1)


# An independent way to both numbers, in numpy.


def numpy_r_hat(x):
    """Split potential scale reduction of ``[chains, draws]``."""
    half = x.shape[1] // 2
    parts = np.concatenate([x[:, :half], x[:, -half:]])
    within = parts.var(axis=1, ddof=1).mean()
    between = parts.mean(axis=1).var(ddof=1)
    return math.sqrt(((half - 1) / half * within + between) / within)


def numpy_n_eff(x):
    """Geyer's initial monotone sequence over the chains together."""
    chains, draws = x.shape
    centred = x - x.mean(axis=1, keepdims=True)
    lags = np.array(
        [
            np.mean([(c[: draws - k] * c[k:]).sum() / (draws - k) for c in centred])
            for k in range(draws)
        ]
    )
    within = x.var(axis=1, ddof=1).mean()
    total = (draws - 1) / draws * within + (x.mean(axis=1).var(ddof=1) if chains > 1 else 0)
    correlation = 1 - ((within if chains > 1 else total) - lags) / total
    correlation[0] = 1.0
    pairs = correlation[: draws // 2 * 2].reshape(-1, 2).sum(axis=1)
    monotone = np.minimum.accumulate(np.maximum(pairs[1:], 0))
    return chains * draws / (-1 + 2 * pairs[0] + 2 * monotone.sum())


@every
@pytest.mark.parametrize("chains", [1, 3])
def test_both_numbers_are_the_worst_over_embedded_coordinates(manifold, chains):
    draws = walk(manifold, chains, 101, 2)
    found = manifold_summary({"z": draws}, {"z": manifold})["z"]
    embedded = manifold.embed(draws).numpy()
    for i in range(2):
        coordinates = np.moveaxis(embedded[:, :, i], -1, 0)
        assert found.r_hat[i].item() == pytest.approx(max(map(numpy_r_hat, coordinates)))
        assert found.n_eff[i].item() == pytest.approx(min(map(numpy_n_eff, coordinates)))


def test_many_coordinates_are_taken_some_at_a_time():
    draws = walk(Torus(3), 2, 40, 30)  # 180 coordinates
    together = manifold_summary({"z": draws}, {"z": Torus(3)})["z"]
    alone = manifold_summary({"z": draws[:, :, 17]}, {"z": Torus(3)})["z"]
    assert together.r_hat.shape == together.n_eff.shape == (30,)
    assert_close(together.r_hat[17], alone.r_hat)
    assert_close(together.n_eff[17], alone.n_eff)


# Seams.


def summary_on_circle(angles):
    return manifold_summary({"z": CIRCLE.project(angles)}, {"z": CIRCLE})["z"]


def test_chains_on_opposite_sides_pass_by_their_angles_and_not_here():
    swing = 0.3 * torch.randn(2, 400, dtype=torch.float64)
    angles = CIRCLE.project(swing + torch.tensor([[0.0], [math.pi]]))
    assert split_gelman_rubin(angles) < 1.03
    assert effective_sample_size(angles) > 400
    found = summary_on_circle(angles)
    assert found.r_hat > 4
    assert found.n_eff < 4


def test_at_the_seam_angles_claim_more_draws_and_another_mean_than_on_the_line():
    path = math.pi - 0.25 + 0.2 * autoregression(4, 1000, 0.9)
    wrapped = CIRCLE.project(path)
    found, on_the_line = summary_on_circle(wrapped), effective_sample_size(path)
    assert_close(found.n_eff, on_the_line, rtol=0.05, atol=0)
    assert effective_sample_size(wrapped) > 1.5 * on_the_line
    assert_close(found.r_hat, split_gelman_rubin(path), rtol=0, atol=0.005)
    assert_close(found.mean, CIRCLE.project(path.mean()), atol=1e-6, rtol=0)
    assert abs(wrapped.mean() - found.mean) > 0.3


def autoregression(chains, draws, memory):
    state, path = torch.randn(chains, dtype=torch.float64), []
    for _ in range(draws):
        state = memory * state + math.sqrt(1 - memory**2) * torch.randn_like(state)
        path.append(state)
    return torch.stack(path, 1)


def glide_some(x):
    moved = torch.stack([x[..., 0] + math.pi, -x[..., 1]], -1)
    return torch.where(torch.rand(x.shape[:-1]).unsqueeze(-1) < 0.5, moved, x)


def test_other_representatives_of_the_points_change_nothing():
    draws = walk(KLEIN, 2, 60)
    one = manifold_summary({"z": draws}, {"z": KLEIN})["z"]
    two = manifold_summary({"z": glide_some(draws)}, {"z": KLEIN})["z"]
    assert KLEIN.equivalent(one.mean, two.mean)
    for a, b in zip(one[1:], two[1:], strict=True):
        assert_close(a, b)


# Means.


@every
def test_the_mean_is_intrinsic(manifold):
    draws = walk(manifold, 2, 50, spread=0.1)
    found = manifold_summary({"z": draws}, {"z": manifold})["z"]
    flat = draws.flatten(0, 1)
    assert manifold.support.check(found.mean)
    towards = manifold.logmap(found.mean.expand_as(flat), flat)
    assert_close(towards.mean(0), torch.zeros_like(found.mean), atol=1e-8, rtol=0)
    expected = manifold.dist(found.mean, flat).square().mean().sqrt()
    assert_close(found.dispersion, expected)


def test_the_mean_minimises_the_mean_squared_distance_on_a_grid():
    angles = CIRCLE.project(math.pi + torch.tensor([[-0.5, -0.1, 0.2, 1.5, 2.0]]).double())
    grid = torch.linspace(-math.pi, math.pi, 20_001, dtype=torch.float64)
    costs = CIRCLE.dist(grid.unsqueeze(-1), angles).square().mean(-1)
    found = summary_on_circle(angles)
    assert CIRCLE.dist(found.mean, grid[costs.argmin()]) < 1e-3
    assert_close(found.dispersion, costs.min().sqrt(), atol=1e-6, rtol=0)


def test_float32_stays_float32_and_is_precise_near_a_pole_of_a_coordinate():
    angles = (1e-4 * autoregression(4, 200, 0.5)).float()
    found = summary_on_circle(angles)
    assert {value.dtype for value in found} == {torch.float32}
    assert_close(found.dispersion, angles.std(), rtol=0.02, atol=0)
    assert found.r_hat < 1.1


def test_chains_that_stand_still_do_not_pass():
    still = torch.tensor([[0.1] * 10, [0.2] * 10])
    assert not summary_on_circle(still).r_hat < 1.1
    assert summary_on_circle(torch.zeros(2, 10)).r_hat.isnan()


# From the noise to the points.


def model(data):
    with pyro.plate("data", len(data)):
        z = pyro.sample("z", VonMises(data.new_tensor(3.1), 2.0))
        pyro.sample("x", dist.Normal(CIRCLE.embed(z), 0.4).to_event(1), obs=data)
    pyro.sample("scale", dist.LogNormal(data.new_zeros(()), 1.0))


DATA = torch.tensor([[-1.0, 0.1], [-0.9, -0.2]], dtype=torch.float64)


def test_noise_becomes_points_and_the_chains_are_kept():
    draws = {"z_noise": torch.randn(3, 4, 2, 2), "scale": torch.rand(3, 4)}
    moved = AutoManifoldReparam()(model)
    found = manifold_samples(moved, draws, DATA)
    assert set(found) == {"z", "scale"}
    assert_close(found["z"], CIRCLE.unembed(draws["z_noise"]))
    assert_close(found["scale"], draws["scale"])


def test_from_chains_that_ran_to_a_table():
    torch.set_default_dtype(torch.float64)
    moved = AutoManifoldReparam()(model)
    noise = []
    for seed in range(2):
        pyro.set_rng_seed(seed)
        mcmc = MCMC(NUTS(moved, max_tree_depth=4), 80, warmup_steps=40, disable_progbar=True)
        mcmc.run(DATA)
        noise.append(mcmc.get_samples(group_by_chain=True))
    one = manifold_samples(moved, mcmc, DATA)
    assert one["z"].shape == (1, 80, 2)
    assert one["scale"].shape == (1, 80)
    both = {name: torch.cat([chain[name] for chain in noise]) for name in noise[0]}
    points = manifold_samples(moved, both, DATA)
    found = manifold_summary(points, moved, DATA)
    # Independent posteriors, by the trapezoid rule.
    grid = 2 * math.pi * torch.arange(500) / 500
    log_joint = 2.0 * (grid - 3.1).cos().unsqueeze(-1)
    log_joint = log_joint + dist.Normal(CIRCLE.embed(grid).unsqueeze(1), 0.4).log_prob(DATA).sum(
        -1
    )
    mass = log_joint.softmax(0)
    resultant = (mass.unsqueeze(-1) * CIRCLE.embed(grid).unsqueeze(1)).sum(0)
    error = 5 * found["z"].dispersion / found["z"].n_eff.sqrt()
    assert (CIRCLE.dist(found["z"].mean, CIRCLE.unembed(resultant)) < error).all()
    assert (found["z"].r_hat < 1.15).all()
    assert (found["z"].n_eff > 20).all()
    lines = str(found).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["z[0]", "z[1]"]


def test_points_moved_twice_come_back_once():
    def on_lens():
        pyro.sample("z", ManifoldUniform(LENS))

    lifted = poutine.reparam(on_lens, {"z": CoveringReparam()})
    moved = poutine.reparam(lifted, {"z_cover": ManifoldReparam()})
    found = manifold_samples(moved, {"z_cover_noise": torch.randn(2, 3, 4)})
    assert set(found) == {"z"}
    assert LENS.support.check(found["z"]).all()
    assert manifolds_of(moved) == {"z": LENS}


def test_ordinary_sites_with_names_like_noise_are_kept():
    def tricky():
        z = pyro.sample("z", ManifoldUniform(CIRCLE))
        noise = pyro.sample("x_noise", dist.LogNormal(0.0, 1.0))
        pyro.sample("x", dist.Normal(z, noise), obs=torch.tensor(1.0))

    moved = AutoManifoldReparam()(tricky)
    draws = {"z_noise": torch.randn(1, 4, 2), "x_noise": torch.rand(1, 4)}
    assert set(manifold_samples(moved, draws)) == {"z", "x_noise"}


def test_a_model_that_was_not_reparameterised_gives_its_draws_back():
    draws = {"z": torch.rand(2, 5, 2), "scale": torch.rand(2, 5)}
    found = manifold_samples(model, draws, DATA)
    assert all(torch.equal(found[name], draws[name]) for name in draws)


def test_manifolds_are_found_through_events_and_of_pyros_own():
    def many():
        pyro.sample("turns", VonMises(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("theirs", dist.VonMises(torch.tensor(0.0), 1.0))
        pyro.sample("klein", WrappedNormal(KLEIN, torch.zeros(2), 1.0))
        pyro.sample("scale", dist.LogNormal(0.0, 1.0))
        pyro.sample("x", VonMises(torch.tensor(0.0), 1.0), obs=torch.tensor(1.0))

    expected = {"turns": CIRCLE, "theirs": CIRCLE, "klein": KLEIN}
    assert manifolds_of(many) == manifolds_of(AutoManifoldReparam()(many)) == expected
    turns = manifold_summary({"turns": torch.randn(2, 8, 3)}, {"turns": CIRCLE})
    assert turns["turns"].mean.shape == (3,)


# The table and ArviZ.


def test_the_table_has_a_line_for_each_point():
    points = {"z": walk(Sphere(2), 2, 20, 2, 2), "turn": walk(SO3(), 2, 20)}
    found = manifold_summary(points, {"z": Sphere(2), "turn": SO3()})
    assert isinstance(found, ManifoldSummary)
    assert list(found) == ["z", "turn"]
    assert len(found) == 2
    lines = str(found).splitlines()
    assert lines[0].split() == ["mean", "dispersion", "r_hat", "n_eff"]
    labels = ["z[0, 0]", "z[0, 1]", "z[1, 0]", "z[1, 1]", "turn"]
    assert all(line.startswith(label) for line, label in zip(lines[1:], labels, strict=True))
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split()[-2] == f"{found['z'].r_hat[0, 0]:.2f}"
    assert len(lines[-1].split()) == 1 + 9 + 3


@pytest.mark.filterwarnings("ignore:.*ArviZ is undergoing:FutureWarning")
def test_arviz_gets_embedded_coordinates():
    arviz = pytest.importorskip("arviz")
    draws = {"z": walk(KLEIN, 4, 100, 3), "scale": torch.rand(4, 100)}
    data = to_arviz(draws, {"z": KLEIN})
    posterior = data.posterior["z"]
    assert posterior.dims == ("chain", "draw", "z_dim_0", "z_coordinate")
    assert_close(torch.from_numpy(posterior.values), KLEIN.embed(draws["z"]))
    assert data.posterior["scale"].dims == ("chain", "draw")
    found = manifold_summary(draws, {"z": KLEIN})["z"]
    theirs = arviz.rhat(data, method="split")["z"].values.max(-1)
    assert_close(found.r_hat, torch.from_numpy(theirs))
    # ArviZ splits the chains and stops Geyer's sequence in another way.
    theirs = torch.from_numpy(arviz.ess(data, method="mean")["z"].values.min(-1))
    assert_close(found.n_eff, theirs, rtol=0.5, atol=0)


@pytest.mark.filterwarnings("ignore:.*ArviZ is undergoing:FutureWarning")
def test_arviz_takes_the_manifolds_from_the_model():
    pytest.importorskip("arviz")
    moved = AutoManifoldReparam()(lambda: pyro.sample("z", ManifoldUniform(Sphere(2))))
    data = to_arviz({"z": walk(Sphere(2), 1, 6)}, moved)
    assert data.posterior["z"].shape == (1, 6, 3)


def test_without_arviz_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(ImportError, match=r"pyro-manifolds\[diagnostics\]"):
        to_arviz({"z": torch.zeros(1, 4)}, {"z": CIRCLE})


# Refusals.


def test_draws_without_a_dimension_for_chains_are_refused():
    with pytest.raises(ValueError, match=r"'z'.*got \(8, 3\).*group_by_chain"):
        manifold_summary({"z": torch.zeros(8, 3)}, {"z": Sphere(2)})
    with pytest.raises(ValueError, match="at least 4 draws"):
        manifold_summary({"z": torch.zeros(8, 3)}, {"z": CIRCLE})
    with pytest.raises(ValueError, match=r"chains, draws.*group_by_chain"):
        manifold_samples(model, {"scale": torch.zeros(5)}, DATA)
    with pytest.raises(ValueError, match=r"got \{\}"):
        manifold_samples(model, {}, DATA)


def test_noise_in_place_of_points_is_refused():
    with pytest.raises(ValueError, match=r"'z', got those of \['z_noise'\]; manifold_samples"):
        manifold_summary({"z_noise": torch.zeros(2, 8, 2)}, model, DATA)


def test_a_model_that_hides_its_manifolds_is_refused():
    def hiding():
        with poutine.reparam(config=AutoManifoldReparam()):
            pyro.sample("z", ManifoldUniform(CIRCLE))

    with pytest.raises(ValueError, match="pass the manifold of each site by name"):
        manifold_summary({"z": torch.zeros(2, 8)}, hiding)


def test_laws_without_a_sampler_are_found():
    def model():
        pyro.sample("z", dist.VonMises3D(torch.tensor([0.0, 1.0, 0.0])))

    assert manifolds_of(AutoManifoldReparam()(model)) == manifolds_of(model) == {"z": Sphere(2)}


def test_a_latent_whose_name_ends_as_noise_does_is_kept():
    def model():
        pyro.deterministic("x", 2 * pyro.sample("x_noise", dist.Normal(0.0, 1.0)))

    draws = {"x_noise": torch.randn(2, 5)}
    assert set(manifold_samples(model, draws)) == {"x_noise"}
