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
# # Angles done right
#
# A latent angle is the simplest latent variable that does not live on a line, and the simplest way
# to get a wrong answer without a warning. Pyro declares the support of `VonMises` to be the real
# line, so its guides and samplers run, and a known issue
# ([pyro#2740](https://github.com/pyro-ppl/pyro/issues/2740)) tells what becomes of them.
#
# We look at the failure, mend it by one line, and then infer the angle by which a real handwritten
# digit has been turned: with guides, with a mixture of two, with NUTS, each against the exact
# answer.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.autoguide import (
    AutoMultivariateNormal,
    AutoNormal,
    init_to_sample,
    init_to_value,
)
from pyro.ops.stats import split_gelman_rubin
from torch import pi

from pyro_manifolds import AutoManifoldReparam, AutoWrappedNormal, Circle
from pyro_manifolds.datasets import mnist_digits, rotate_images
from pyro_manifolds.infer import evidence_bounds, manifold_samples, manifold_summary

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
STEPS, PARTICLES = (60, 8) if SMOKE else (1500, 32)
WARMUP, DRAWS = (20, 20) if SMOKE else (300, 600)
DIGITS = 8 if SMOKE else 40

plt.rcParams.update({"figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9})
circle = Circle()


def circular_mean(angles):
    return circle.unembed(circle.embed(angles).mean(0))


def train(model, guide, *args, lr=0.03, particles=PARTICLES):
    """Return minus the ELBO at each step, with a step size that falls to zero."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    optimiser = pyro.optim.CosineAnnealingLR(
        {"optimizer": torch.optim.Adam, "optim_args": {"lr": lr}, "T_max": STEPS}
    )
    elbo = Trace_ELBO(num_particles=particles, max_plate_nesting=1, vectorize_particles=True)
    svi, losses = SVI(model, guide, optimiser, elbo), []
    for _ in range(STEPS):
        losses.append(svi.step(*args))
        optimiser.step()
    return losses


# %% [markdown]
# ## A prior and nothing else
#
# The model has no data, so its evidence is 1 and minus the ELBO can never be below 0. For every
# law on a circle the entropy is at most $\log 2\pi$; for a normal on the line it has no bound. A
# normal that goes round the circle many times looks better and better to the ELBO.


# %%
def prior_only(concentration=0.5, loc=0.0):
    return pyro.sample("theta", dist.VonMises(torch.tensor(loc), concentration))


moved = AutoManifoldReparam()(prior_only)  # or @AutoManifoldReparam() above the model

guides = {
    "Pyro's AutoNormal": (prior_only, AutoNormal(prior_only)),
    "AutoNormal, AutoManifoldReparam": (moved, AutoNormal(moved)),
    "AutoMultivariateNormal, the same": (moved, AutoMultivariateNormal(moved)),
    "AutoWrappedNormal": (prior_only, AutoWrappedNormal(prior_only)),
}
figure, ax = plt.subplots(figsize=(7, 2.8))
print(f"{'minus the ELBO; exact: 0':<36}{'end of training':>16}")
for name, (model, guide) in guides.items():
    losses = torch.tensor(train(model, guide))
    smooth = losses.unfold(0, 20, 20).mean(-1)
    ax.plot(20 * torch.arange(len(smooth)), smooth, label=name)
    print(f"{name:<36}{losses[-len(losses) // 5 :].mean():>16.3f}")
ax.axhline(0, color="black", lw=0.8)
ax.set(xlabel="step", ylabel="minus the ELBO", title="Below zero there is no bound")
ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# Pyro's guide passes zero and goes on falling: the number is no bound. `AutoManifoldReparam`
# replaces the site by a normal vector of the plane, whose direction is the angle, with a factor
# that makes up for the law; any guide of Pyro serves the vector, and the bound is one.
# The length of the vector, which means nothing on the circle, costs it some tenths of a nat.
# `AutoWrappedNormal` puts a wrapped normal with its exact density on the circle itself.
#
# The model is Pyro's own in all four rows. `VonMises` of this library is the same law with the
# right support, draws with pathwise gradients, and a density that is exact at large concentrations
# in float32.
#
# ## By what angle was this digit turned?
#
# A one from MNIST, smoothed, is turned by 3 radians, next to the cut of the angles at $\pi$, and
# observed with much noise. Half a turn changes a one little, so there should be two answers.

# %%
images, labels = mnist_digits()
blur = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0])
kernel = (blur[:, None] * blur / blur.sum() ** 2)[None, None]
images = torch.nn.functional.conv2d(images[:, None], kernel, padding=2)[:, 0]
template, noise = images[labels == 1][7], 2.0

pyro.set_rng_seed(0)
seen = dist.Normal(rotate_images(template, torch.tensor(3.0)), noise).sample()


def turned(x):
    theta = pyro.sample("theta", dist.VonMises(torch.tensor(0.0), 0.1))
    mean = rotate_images(template, theta)
    pyro.sample("x", dist.Normal(mean, noise).to_event(2), obs=x)


grid = torch.linspace(-pi, pi, 1441)[:-1]
log_joint = dist.VonMises(0.0, 0.1).log_prob(grid) + dist.Normal(
    rotate_images(template, grid), noise
).log_prob(seen).sum((-1, -2))
log_evidence = (log_joint + torch.tensor(2 * pi / 1440).log()).logsumexp(0)
posterior = (log_joint - log_evidence).exp()
exact = (posterior[:, None] * circle.embed(grid)).sum(0) * 2 * pi / 1440
print(f"log-evidence by quadrature: {log_evidence:.3f}")

figure, axes = plt.subplots(1, 3, figsize=(9, 2.3), width_ratios=[1, 1, 2.5])
for ax, image, title in zip(axes, (template, seen), ("template", "seen"), strict=False):
    ax.imshow(image, cmap="gray")
    ax.set_title(title)
    ax.axis("off")
axes[2].plot(grid, posterior, color="black")
axes[2].set(title="exact posterior of the angle", xlabel="angle", yticks=[])
plt.show()

# %% [markdown]
# A wrapped normal has one mode, and settles on one of the two. `num_components` makes a mixture,
# whose weights and components are learned together. The evidence is estimated by importance
# sampling from the guide, with its standard error.

# %%
figure, ax = plt.subplots(figsize=(7, 2.6))
ax.plot(grid, posterior, color="black", label="exact")
print(f"{'':<16}{'ELBO':>9}{'IWAE':>9}{'error':>8}{'exact':>9}")
for components in (1, 2):
    pyro.set_rng_seed(0)
    guide = AutoWrappedNormal(turned, num_components=components, init_loc_fn=init_to_sample)
    train(turned, guide, seen)
    bounds = evidence_bounds(turned, guide, seen, num_particles=4000)
    row = (bounds.elbo, bounds.iwae, bounds.iwae_error, log_evidence)
    print(f"{components} component(s)".ljust(16) + "".join(f"{float(x):>9.3f}" for x in row))
    density = guide.get_posterior("theta").log_prob(grid).exp().detach()
    ax.plot(grid, density, label=f"{components} component(s)")
ax.set(xlabel="angle", yticks=[])
ax.legend()
plt.show()

# %% [markdown]
# Two components come close to the exact evidence. With one, even the importance-weighted estimate
# is two nats short, and its standard error does not tell: no draw ever came near the other mode.
#
# ## NUTS
#
# A law with its mode at the cut, and nothing else. On the angle as Pyro declares it, NUTS walks on
# the line: each chain settles many turns away from the others. Every draw is a right one when it
# is read on the circle, but means of the angle and its $\hat R$ are void. Reparameterised, NUTS
# walks round the origin of a plane; `manifold_samples` turns its draws back into angles. In both
# cases `manifold_summary` reads means and convergence on embedded points, cosine and sine.


# %%
def at_the_cut():
    return pyro.sample("theta", dist.VonMises(torch.tensor(3.1), 2.0))


def nuts(model, chains=2):
    """Run the chains one after the other; draws are grouped by chain."""
    pyro.set_rng_seed(0)
    runs = []
    for _ in range(chains):
        mcmc = MCMC(NUTS(model), DRAWS, WARMUP, disable_progbar=True)
        mcmc.run()
        runs.append(mcmc.get_samples())
    return {name: torch.stack([run[name] for run in runs]) for name in runs[0]}


raw = nuts(at_the_cut)
print(
    "Pyro's angle ran from", " and ".join(f"{x.min():.0f} to {x.max():.0f}" for x in raw["theta"])
)
print(f"mean {raw['theta'].mean():.2f}, R-hat {split_gelman_rubin(raw['theta']):.2f}\n")
print("its draws, read on the circle:")
print(manifold_summary(raw, {"theta": circle}))

model = AutoManifoldReparam()(at_the_cut)
draws = manifold_samples(model, nuts(model))
wrapped = draws["theta"]
print("\nreparameterised:")
print(manifold_summary(draws, model))
print(f"for the angle between -pi and pi: mean {wrapped.mean():.2f}, which nobody means")

grid_law = dist.VonMises(3.1, 2.0).log_prob(grid).exp()
resultant = (grid_law[:, None] * circle.embed(grid)).sum(0).norm() * 2 * pi / len(grid)
found = circle.embed(wrapped).mean((0, 1)).norm()
print(f"mean resultant length: exact {resultant:.3f}, found {found:.3f}")

# %% [markdown]
# ## Many angles
#
# Forty digits, each turned by an angle of its own around a common direction. The angles are local
# latents in a plate; their direction and concentration are latents too, one on the circle and one
# positive. `AutoWrappedNormal` guides all three. Such posteriors have many modes, and the start
# decides: each angle starts where its own image fits best among sixteen.

# %%
kinds = (2, 3, 4, 7)
pyro.set_rng_seed(0)
templates = torch.cat([images[labels == k][: DIGITS // len(kinds)] for k in kinds])
truth = dist.VonMises(2.8, 3.0).sample((len(templates),))
turned_digits = dist.Normal(rotate_images(templates, truth), 1.0).sample()


def many(x):
    loc = pyro.sample("loc", dist.VonMises(torch.tensor(0.0), 0.1))
    concentration = pyro.sample("concentration", dist.LogNormal(0.0, 1.0))
    with pyro.plate("digits", len(x)):
        theta = pyro.sample("theta", dist.VonMises(loc, concentration))
        mean = rotate_images(templates, theta)
        pyro.sample("x", dist.Normal(mean, 1.0).to_event(2), obs=x)


coarse = 2 * pi * torch.arange(16) / 16
misfit = rotate_images(templates[:, None], coarse) - turned_digits[:, None]
start = coarse[misfit.square().sum((-1, -2)).argmin(-1)]

guide = AutoWrappedNormal(many, init_loc_fn=init_to_value(values={"theta": start}))
train(many, guide, turned_digits, particles=4)
median = guide.median()
error = circle.dist(median["theta"], truth)
print(
    f"median error of an angle {error.median():.3f}; off by more than 0.5: {(error > 0.5).sum()}"
)
print(f"direction {median['loc']:.2f}, of the {len(truth)} true angles {circular_mean(truth):.2f}")
print(f"concentration {median['concentration']:.2f}, true 3")

figure, axes = plt.subplots(3, 12, figsize=(9, 2.5))
back = rotate_images(turned_digits, -median["theta"])
chosen = torch.arange(0, len(templates), max(1, len(templates) // 12))[:12]
for row, pictures in zip(axes, (templates, turned_digits, back), strict=True):
    for ax in row:
        ax.axis("off")
    for ax, picture in zip(row, pictures[chosen], strict=False):
        ax.imshow(picture, cmap="gray")
axes[0, 0].set_title("templates", loc="left")
axes[1, 0].set_title("seen", loc="left")
axes[2, 0].set_title("seen, turned back", loc="left")
plt.show()

# %% [markdown]
# ## Which way to take
#
# | you want | take |
# |---|---|
# | SVI with a guide made for you | `AutoWrappedNormal`, with `num_components` for several modes |
# | SVI with a guide of your own | `WrappedNormal` or `VonMises` of this library in it |
# | NUTS, or another guide of Pyro | `AutoManifoldReparam()` above the model |
# | to judge chains | `manifold_samples` and `manifold_summary`, never the raw angle |
