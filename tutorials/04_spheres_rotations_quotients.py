# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Spheres, rotations, quotients
#
# A direction is a point of a sphere, an orientation is a rotation, an axis is a direction up to its
# sign. Each can be a site of a Pyro model. Three choices remain: the law, the guide, and the space
# itself. This tutorial makes them on small problems, where quadrature gives the exact answer.
#
# 1. Five laws on the sphere, and which to take when some of the data are wrong.
# 2. A rotation as a latent variable, with a guide and with NUTS.
# 3. An axis as a latent variable: on the sphere a single guide loses $\log 2$, on the projective
#    plane it loses nothing.
#
# All data are simulated.

# %%
import math
import os
import time
from functools import partial

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, Trace_ELBO
from pyro.infer.autoguide import AutoMultivariateNormal, AutoNormal, init_to_value

from pyro_manifolds import (
    SO3,
    AutoManifoldReparam,
    AutoWrappedNormal,
    CoveringReparam,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    PowerSpherical,
    ProjectedNormal,
    ProjectiveSpace,
    Sphere,
    SphericalCauchy,
    VonMisesFisher,
    WrappedNormal,
)
from pyro_manifolds.distributions import ManifoldMixture
from pyro_manifolds.infer import (
    compare_evidence,
    evidence_bounds,
    manifold_samples,
    manifold_summary,
)
from pyro_manifolds.testing import circle_rule, gauss_rule, glide_rule, quotient_rule, sphere_rule

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
REPLICATES, FIT_STEPS, DRAWS_TIMED = (3, 20, 1_000) if SMOKE else (30, 200, 100_000)
STEPS, NUM_PARTICLES = (20, 200) if SMOKE else (300, 4_000)
WARMUP, DRAWS = (10, 10) if SMOKE else (150, 300)
NODES = 16 if SMOKE else 60

torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # the tensors are small
pyro.settings.set(module_local_params=True)  # parameters stay in their guides
pyro.enable_validation(False)
plt.rcParams.update({"figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9})
sphere, so3, plane = Sphere(2), SO3(), ProjectiveSpace(2)

# %% [markdown]
# ## Five laws on the sphere
#
# Each has a location and one number for the spread. To compare them, we choose that number such
# that the mean vector has the length 0.9 for all: the cloud of points then is about 18 degrees
# wide in each direction. The densities depend on the angle to the location only, so integrals over
# the sphere are integrals over one angle.

# %%
pole = torch.tensor([0.0, 0.0, 1.0])
laws = {
    "VonMisesFisher": (lambda x: VonMisesFisher(pole, x), 1e-2, 1e3),
    "PowerSpherical": (lambda x: PowerSpherical(pole, x), 1e-2, 1e3),
    "ProjectedNormal": (lambda x: ProjectedNormal(x * pole), 1e-2, 1e2),
    "SphericalCauchy": (lambda x: SphericalCauchy(pole, x), 1e-2, 0.999),
    "WrappedNormal": (lambda x: WrappedNormal(sphere, pole, 1 / x), 1.0, 1e2),
}
angle, weight = gauss_rule(0.0, math.pi, 600)
arc = torch.stack([angle.sin(), torch.zeros_like(angle), angle.cos()], -1)
area = 2 * math.pi * angle.sin() * weight


def expectation(law, values):
    return (law.log_prob(arc).exp() * values * area).sum().item()


def spread_for(make, low, high, resultant):
    """Find the number by bisection; the laws narrow as it grows."""
    for _ in range(60):
        middle = math.sqrt(low * high)
        wide = expectation(make(torch.tensor(middle)), angle.cos()) < resultant
        low, high = (middle, high) if wide else (low, middle)
    return torch.tensor(middle)


def milliseconds(make, number):
    """Time draws with their density and both gradients, the median of five."""
    times = []
    for _ in range(5):
        x, start = number.clone().requires_grad_(), time.perf_counter()
        law = make(x)
        law.log_prob(law.rsample((DRAWS_TIMED,))).sum().backward()
        times.append(1e3 * (time.perf_counter() - start))
    return sorted(times)[2]


figure, ax = plt.subplots(figsize=(6, 3))
print(f"{'':<18}{'number':>8}{'KL':>8}{'>60 deg':>10}{'>90 deg':>10}{'log p(-loc)':>13}{'ms':>8}")
for name, (make, low, high) in laws.items():
    number = spread_for(make, low, high, 0.9)
    law = make(number)
    log_prob = law.log_prob(arc)
    row = (
        f"{1 / number if name == 'WrappedNormal' else number:>8.3f}",
        f"{expectation(law, log_prob + sphere.log_volume):>8.3f}",
        *(f"{expectation(law, angle > math.radians(far)):>10.1e}" for far in (60, 90)),
        f"{law.log_prob(-pole):>13.1f}{milliseconds(make, number):>8.0f}",
    )
    print(f"{name:<18}" + "".join(row))
    ax.plot(angle.rad2deg(), log_prob, label=name)
ax.set(xlabel="angle to the location, degrees", ylabel="log-density", ylim=(-25, 2))
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# KL is the divergence from the uniform law, in nats; the entropy is $\log 4\pi$ less that. The
# last column is the time of 100,000 draws with their densities and gradients, on one thread.
#
# In the middle the five laws are nearly one. They differ in the tail, and there by orders of
# magnitude. The power spherical law vanishes at the antipode, where `log_prob` returns a floor.
# The spherical Cauchy law puts more than a hundred times as much beyond 90 degrees as the von
# Mises-Fisher law.
#
# - `VonMisesFisher` is the exponential family: mean vectors are all it needs to know of data,
#   and products of its densities are of its kind.
# - `PowerSpherical` is much like it without a Bessel function, and draws fastest.
# - `ProjectedNormal` has one free vector for its parameter, with no constraint to respect.
# - `SphericalCauchy` has heavy tails, and draws fast too.
# - `WrappedNormal` exists on all manifolds here. It is what `AutoWrappedNormal` uses.
#
# ## When some of the data are wrong
#
# We draw 100 directions from a von Mises-Fisher law, all of them good, or each replaced by
# a uniform one with probability 0.1. Each law is fitted by maximum likelihood, and scored on 1000
# new directions of the same kind. As a control we fit the law that made the data, a
# mixture of a von Mises-Fisher and the uniform law.


# %%
def mixture(loc, concentration, share):
    both = torch.stack([concentration, torch.zeros_like(concentration)], -1)
    parts = VonMisesFisher(loc.unsqueeze(-2).expand(*loc.shape[:-1], 2, 3), both)
    return ManifoldMixture(dist.Categorical(torch.stack([1 - share, share], -1)), parts)


families = {  # from a location and two real numbers
    "VonMisesFisher": lambda loc, a, b: VonMisesFisher(loc, a.exp()),
    "PowerSpherical": lambda loc, a, b: PowerSpherical(loc, a.exp()),
    "ProjectedNormal": lambda loc, a, b: ProjectedNormal(loc * (a / 2).exp().unsqueeze(-1)),
    "SphericalCauchy": lambda loc, a, b: SphericalCauchy(loc, (a / 2).tanh()),
    "WrappedNormal": lambda loc, a, b: WrappedNormal(sphere, loc, (-a / 2).exp()),
    "the true mixture": lambda loc, a, b: mixture(loc, a.exp(), b.sigmoid()),
}


def contaminated(truth, number, share):
    good = VonMisesFisher(truth, 50.0).sample((number,))
    wrong = ManifoldUniform(sphere).sample((number, len(truth)))
    return torch.where(torch.rand(number, len(truth), 1) < share, wrong, good)


def fit_family(family, data):
    """Return the laws of highest likelihood, one for each replicate."""
    vector = data.mean(0).requires_grad_()
    a, b = (torch.full((data.shape[1],), value, requires_grad=True) for value in (2.0, -2.0))
    optimiser = torch.optim.Adam([vector, a, b], 0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, FIT_STEPS)
    for _ in range(FIT_STEPS):
        optimiser.zero_grad()
        (-family(sphere.unembed(vector), a, b).log_prob(data).mean(0).sum()).backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        return family(sphere.unembed(vector), a, b), sphere.unembed(vector)


pyro.set_rng_seed(0)
truth = ManifoldUniform(sphere).sample((REPLICATES,))
for share in (0.0, 0.1):
    train, test = contaminated(truth, 100, share), contaminated(truth, 1_000, share)
    print(f"share of wrong data {share}: nats per new direction, over {REPLICATES} replicates")
    print(f"{'':<18}{'held out':>10}{'less vMF':>10}{'s.e.':>8}{'location off by':>18}")
    for name, family in families.items():
        law, loc = fit_family(family, train)
        with torch.no_grad():
            score = law.log_prob(test).mean(0)
        if name == "VonMisesFisher":
            reference = score
        ahead = score - reference
        error = ahead.std() / REPLICATES**0.5
        off = sphere.dist(loc, truth).rad2deg().mean()
        print(f"{name:<18}{score.mean():>10.3f}{ahead.mean():>10.3f}{error:>8.3f}{off:>14.2f} deg")
    print()

# %% [markdown]
# Without wrong data, the heavy tails of the spherical Cauchy law cost it a little, and the
# others are one. With a tenth of them wrong, the order is that of the tails, and the power
# spherical law, which calls a point at the antipode impossible, comes last. The law that knows
# how data go wrong is better than all: heavy tails are for when one does not know.
#
# ## A rotation as a latent variable
#
# Directions $a_i$ were seen before a turn, directions $b_i$ after it. Which rotation was it? This is
# Wahba's problem ([1965](https://doi.org/10.1137/1007077)). As a model:


# %%
def turn(a, b):
    rotation = pyro.sample("rotation", ManifoldUniform(so3))
    with pyro.plate("pairs", len(a)):
        turned = (rotation @ a.unsqueeze(-1)).squeeze(-1)
        pyro.sample("b", VonMisesFisher(turned, 10.0), obs=b)


pyro.set_rng_seed(3)
a = VonMisesFisher(pole, 8.0).sample((5,))  # five directions not far from each other
true_rotation = ManifoldUniform(so3).sample()
b = VonMisesFisher(a @ true_rotation.mT, 10.0).sample()

# %% [markdown]
# The posterior is known in closed form. Its density is proportional to
# $e^{\operatorname{tr}(F^\top R)}$ with $F = \kappa \sum_i b_i a_i^\top$, a matrix Fisher law. The
# mode is the rotation nearest to $F$, usually found by a singular value decomposition, and here by
# `unembed`, which is defined as the nearest rotation. Its normaliser is an integral over one
# variable of two Bessel functions (Prentice,
# [1986](https://doi.org/10.1111/j.2517-6161.1986.tb01400.x)), and derivatives of that are
# the moments. A grid over all rotations must give the same.

# %%
concentration = 10.0
f = concentration * b.mT @ a
mode = so3.unembed(f.flatten())
left, singular, right = torch.linalg.svd(f)
sign = torch.det(left @ right).sign()
flip = torch.tensor([1.0, 1.0, sign])
print(f"mode, distance to that of the SVD: {so3.dist(mode, left * flip @ right):.1e}")
print(f"mode, off the truth by {2 * so3.dist(mode, true_rotation).rad2deg():.1f} degrees")


def log_matrix_fisher_normaliser(s):
    x, w = gauss_rule(-1.0, 1.0, 200)
    low, high = (s[0] - s[1]) * (1 - x) / 2, (s[0] + s[1]) * (1 + x) / 2
    bessel = (torch.special.i0e(low) * torch.special.i0e(high)).log() + low.abs() + high.abs()
    return (bessel + s[2] * x + (w / 2).log()).logsumexp(0)


s = (singular * flip).requires_grad_()
log_normaliser = log_matrix_fisher_normaliser(s)
(moments,) = torch.autograd.grad(log_normaliser, s)
at_the_pole = VonMisesFisher(pole, concentration).log_prob(pole)
log_evidence = (log_normaliser + len(a) * (at_the_pole - concentration)).item()

nodes, weights = quotient_rule(so3, NODES)
log_joint = (f * nodes).sum((-1, -2)) + len(a) * (at_the_pole - concentration) - so3.log_volume
print(f"log-evidence by one integral {log_evidence:.6f}")
print(f"log-evidence by the grid     {(log_joint + weights.log()).logsumexp(0):.6f}")

# %% [markdown]
# Now the guides. `AutoWrappedNormal` puts a wrapped normal on the rotations. `AutoManifoldReparam`
# moves the site to nine normal numbers, and then Pyro's own guides serve.


# %%
def train_pair(model, guide, *args, lr=0.05):
    pyro.set_rng_seed(0)
    loss_of = Trace_ELBO(16, max_plate_nesting=1, vectorize_particles=True)(model, guide)
    loss_of(*args)  # creates the parameters
    optimiser = torch.optim.Adam(loss_of.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss_of(*args).backward()
        optimiser.step()
        schedule.step()
    return model, guide


moved = AutoManifoldReparam()(turn)
pairs = {
    "AutoWrappedNormal": (turn, AutoWrappedNormal(turn)),
    "AutoNormal, reparameterised": (moved, AutoNormal(moved)),
    "AutoMultivariateNormal, the same": (moved, AutoMultivariateNormal(moved)),
}
print(f"{'exact ' + format(log_evidence, '.3f'):<34}{'ELBO':>9}{'IWAE':>9}{'s.e.':>7}{'k':>7}")
for name, pair in pairs.items():
    train_pair(*pair, a, b)
    pyro.set_rng_seed(1)
    found = evidence_bounds(*pair, a, b, num_particles=NUM_PARTICLES)
    row = f"{found.elbo:>9.3f}{found.iwae:>9.3f}{found.iwae_error:>7.3f}{found.pareto_k:>7.2f}"
    print(f"{name:<34}{row}")

# %% [markdown]
# All bounds are below the exact log-evidence. The guide on the manifold is the tightest by far.
# The others spend nats on the length of nine numbers, which means nothing for a rotation.
# The Pareto $k$ tells whether importance weights can be trusted: below 0.7 they can.
#
# NUTS runs on the nine numbers, and `manifold_samples` gives rotations back. `manifold_summary`
# reads convergence in embedded coordinates, and prints the intrinsic mean. Lengths on `SO3` are
# half the angle of a turn.


# %%
def nuts(model, *args, chains=2):
    """Run the chains one after the other, each from a start of its own."""
    pyro.set_rng_seed(0)
    mcmc = MCMC(NUTS(model), DRAWS, WARMUP, disable_progbar=True)
    found = []
    for _ in range(chains):
        mcmc.run(*args)
        found.append(mcmc.get_samples())
    draws = {name: torch.stack([chain[name] for chain in found]) for name in found[0]}
    return manifold_samples(model, draws, *args)


draws = nuts(moved, a, b)
print(manifold_summary(draws, moved, a, b))
rotations = {
    "NUTS": draws["rotation"].reshape(-1, 3, 3),
    "guide": pairs["AutoWrappedNormal"][1].get_posterior("rotation").sample((NUM_PARTICLES,)),
}

# %% [markdown]
# The posterior mean of $R$, in the frame of the singular vectors, is diagonal, and its three
# entries are the exact moments from above. The turns from the mode, as vectors along
# the axis with the angle for their length, show the shape. About the middle of the five
# directions the turn is known worst.

# %%
frame = right.mT * flip if sign > 0 else right.mT


def turns_from_mode(rotations):
    """Return rotation vectors in radians, in the frame of the right singular vectors."""
    skew = mode.mT @ so3.logmap(mode.expand_as(rotations), rotations)
    vector = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
    return vector @ right.mT


half, width = circle_rule(NODES)[0] / 2, math.pi / NODES
grid = torch.cartesian_prod(half, half, half)
length = torch.linalg.vector_norm(grid, dim=-1, keepdim=True)
quaternions = torch.cat([length.cos(), torch.sinc(length / math.pi) * grid @ right], -1)
log_posterior = (f * (mode @ so3.project(quaternions))).sum((-1, -2)) - log_normaliser.detach()
mass = log_posterior.exp() * torch.sinc(length[:, 0] / math.pi) ** 2 * width**3 / so3.volume
mass = torch.where(length[:, 0] < math.pi / 2, mass, 0.0).reshape(NODES, NODES, NODES)

figure, axes = plt.subplots(1, 3, figsize=(9, 2.4), sharey=True)
print(f"mass of the grid {mass.sum():.6f}")
print(f"{'':<8}{'moments':>21}{'standard deviations, degrees':>33}")
exact_sd = []
for k, ax in enumerate(axes):
    marginal = mass.sum([d for d in range(3) if d != k])
    exact_sd.append((marginal * (2 * half) ** 2).sum().sqrt().rad2deg().item())
    ax.plot((2 * half).rad2deg(), marginal / torch.tensor(2 * width).rad2deg(), color="black")
    for label, r in rotations.items():
        values = turns_from_mode(r)[:, k].rad2deg()
        ax.hist(values, 30, density=True, histtype="step", label=label)
    ax.set(xlabel=f"turn about axis {k + 1}, degrees", xlim=(-110, 110))
axes[0].plot([], [], color="black", label="exact")
axes[0].legend(frameon=False)


def three(numbers, digits):
    return "".join(f"{float(x):>8.{digits}f}" for x in numbers)


print(f"{'exact':<8}{three(moments, 3)}{three(exact_sd, 1)}")
for label, r in rotations.items():
    mean = (left.mT @ r.mean(0) @ right.mT).diagonal() * flip
    print(f"{label:<8}{three(mean, 3)}{three(turns_from_mode(r).std(0).rad2deg(), 1)}")
plt.show()
