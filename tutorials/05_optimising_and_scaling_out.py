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
# # Optimising on manifolds and scaling out
#
# A location on a sphere, a rotation, a point of a Klein bottle: how do we learn it by gradient
# steps, with mini-batches, and in several processes? Pyro and torch have the tools. This tutorial
# puts them together, and shows which mistakes pass without a word.
#
# 1. A plain parameter leaves its manifold. Two ways to keep it there, and which arrives sooner.
# 2. The training loop, with mini-batches and checkpoints, and what `torch.compile` is worth.
# 3. The same loop in two processes, with the same result.
#
# The problems are small and have exact answers, so every claim can be checked.

# %%
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import fill

import geoopt
import matplotlib.pyplot as plt
import numpy as np
import pyro
import pyro.distributions as dist
import torch
from geoopt.optim import RiemannianAdam, RiemannianSGD
from pyro import poutine
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.nn import PyroModule, PyroParam
from pyro.optim import PyroOptim
from scipy.optimize import minimize
from scipy.spatial.transform import Rotation
from torch import nn

from pyro_manifolds import (
    SO3,
    AutoWrappedNormal,
    KleinBottle,
    ManifoldUniform,
    Sphere,
    Torus,
    WrappedNormal,
)
from pyro_manifolds.plotting import draw_fundamental_square

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
STARTS, RACE_STEPS = (3, 30) if SMOKE else (50, 200)
MAP_STEPS, EPOCHS = (60, 2) if SMOKE else (400, 40)

pyro.settings.set(module_local_params=True)  # parameters stay in their modules
torch.set_default_dtype(torch.float64)
torch.set_num_threads(1)  # everything here is tiny
plt.rcParams.update({"figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9})
INDENT = {"initial_indent": " " * 4, "subsequent_indent": " " * 4}
sphere, so3, klein = Sphere(2), SO3(), KleinBottle()

# %% [markdown]
# ## A location that leaves its manifold
#
# Forty readings of one direction, by a sensor that loses a fifth of the signal. We look for the
# direction by maximum likelihood, and write the first thing that comes to mind: a unit vector as a
# parameter, and Adam. Three models read it: a normal law round it, Pyro's `VonMises3D`,
# whose parameter is the direction times the concentration, and `WrappedNormal` on the sphere.

# %%
pyro.set_rng_seed(0)
x = 0.8 * (torch.tensor([0.0, 0.6, -0.8]) + 0.4 * torch.randn(40, 3))
exact = sphere.projx(x.mean(0))  # of all unit vectors, the nearest to the mean
start = torch.tensor([1.0, 0.0, 0.0])

laws = {
    "Normal(loc, 0.4)": (lambda loc: dist.Normal(loc, 0.4).to_event(1), x),
    "VonMises3D(10 * loc)": (lambda loc: dist.VonMises3D(10 * loc), sphere.projx(x)),
    "WrappedNormal(sphere, loc, 0.4)": (
        lambda loc: WrappedNormal(sphere, loc, 0.4),
        sphere.projx(x),
    ),
}


def nothing(*args):
    """Guide of a model without latent sites."""


def svi_path(model, optimiser, data, steps=200):
    """Take SVI steps and yield the loss before and the parameter after each of them."""
    pyro.clear_param_store()
    svi = SVI(model, nothing, optimiser, Trace_ELBO())
    for _ in range(steps):
        yield svi.step(data), pyro.param("loc").detach().clone()


for name, (law, data) in laws.items():

    def model(data, law=law):
        loc = pyro.param("loc", lambda: start.clone())  # steps change it in place
        with pyro.plate("data", len(data)):
            pyro.sample("x", law(loc), obs=data)

    print(name)
    try:
        path = svi_path(model, pyro.optim.Adam({"lr": 0.1}), data)
        for step, (_, loc) in enumerate(path, 1):
            if step in (1, 2, 200):
                print(f"    length after step {step}: {loc.norm():.3f}")
        best = sphere.projx(data.mean(0))
        losses = [-law(end).log_prob(data).sum() for end in (loc, best)]
        print(f"    loss {losses[0]:.1f}; at the best unit vector {losses[1]:.1f}")
    except ValueError as error:
        print(fill(f"next step: {str(error).splitlines()[0]}", 90, **INDENT))

# %% [markdown]
# Nothing is raised for the first two, and both end at a loss that no unit vector has: the length
# makes up for the sensor, or for the concentration. A law on the sphere checks where its location
# is, as long as validation is on, which is Pyro's default.
#
# On a flat manifold there is no such trap. Every pair of angles is a point of a torus or a Klein
# bottle: plain Adam walks on the cover, and `manifold.projx` reads the result. It is spheres,
# projective spaces, lens spaces and rotations that a plain parameter leaves.
#
# ## Two ways to stay
#
# **A constraint.** `constraint=sphere.support` stores a free vector of the ambient space and hands
# `unembed` of it to the model. Any optimiser serves.
#
# **A manifold optimiser.** Our manifolds are those of geoopt, so a `geoopt.ManifoldTensor` with
# `RiemannianAdam` or `RiemannianSGD` steps along geodesics. `PyroOptim` brings them to `SVI`.
# In a torch loop the same is a `geoopt.ManifoldParameter` of a module.

# %%
STEPS = {"lr": 0.1, "betas": (0.5, 0.999)}


def constrained(x):
    loc = pyro.param("loc", lambda: start.clone(), constraint=sphere.support)
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 0.4).to_event(1), obs=x)


def geodesic(x):
    loc = pyro.param("loc", lambda: geoopt.ManifoldTensor(start.clone(), manifold=sphere))
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(loc, 0.4).to_event(1), obs=x)


class Located(PyroModule):
    """Data round the image of a point, or of several at once."""

    def __init__(self, manifold, loc):
        super().__init__()
        self.manifold, self.loc = manifold, loc

    def forward(self, x):
        images = self.manifold.embed(self.loc).reshape(-1, 1, self.manifold.embed_dim)
        with pyro.plate("points", len(images), dim=-2), pyro.plate("data", len(x), dim=-1):
            pyro.sample("x", dist.Normal(images, 0.4).to_event(1), obs=x)


def torch_path(model, x, optimiser, steps=200, **options):
    """Take steps in a torch loop and yield the parameter after each of them."""
    loss_of = Trace_ELBO()(model, nothing)
    optimiser = optimiser(loss_of.parameters(), **options)
    for _ in range(steps):
        optimiser.zero_grad()
        loss_of(x).backward()
        optimiser.step()
        yield model.loc.detach().clone()


paths = {
    "constraint, SVI with Adam": [
        loc for _, loc in svi_path(constrained, pyro.optim.Adam(STEPS), x)
    ],
    "ManifoldTensor, SVI with RiemannianAdam": [
        loc for _, loc in svi_path(geodesic, PyroOptim(RiemannianAdam, STEPS), x)
    ],
}
modules = {
    "ManifoldParameter, loop with RiemannianAdam": (geoopt.ManifoldParameter, RiemannianAdam),
    "ManifoldParameter, loop with torch's Adam": (geoopt.ManifoldParameter, torch.optim.Adam),
    "PyroParam(ManifoldTensor), RiemannianAdam": (PyroParam, RiemannianAdam),
}
for name, (wrap, optimiser) in modules.items():
    loc = wrap(geoopt.ManifoldTensor(start.clone(), manifold=sphere))
    paths[name] = list(torch_path(Located(sphere, loc), x, optimiser, **STEPS))

print(f"{'after 200 steps':<46}{'|length - 1|':>13}{'from exact':>12}")
for name, path in paths.items():
    off = max((loc.norm() - 1).abs().item() for loc in path)
    print(f"{name:<46}{off:>13.1e}{(path[-1] - exact).norm():>12.1e}")

# %% [markdown]
# The first three stay and arrive. The last two leave without a word. torch's own
# optimisers do not know manifolds, and Pyro turns a `ManifoldTensor` in a `PyroParam` into a plain
# parameter: give the module a `ManifoldParameter` itself. One more limit is Pyro's: with
# `module_local_params`, `SVI` refuses parameters of torch modules, of geoopt or not.

# %%
loc = geoopt.ManifoldParameter(start.clone(), manifold=sphere)
try:
    next(svi_path(Located(sphere, loc), PyroOptim(RiemannianAdam, STEPS), x))
except AttributeError as error:
    print("SVI:", error)

# %% [markdown]
# ## Which arrives sooner?
#
# The same likelihood on three manifolds, from random starts, all of them at once: the optimisers
# treat the points of one tensor apart. The noise is made to cancel, so the optimum is known. We
# count the starts that settle within $10^{-6}$ of it, those that were ever there, and the median
# number of steps after which they have settled, for three step sizes.

# %%
METHODS = {
    "unembed, Adam": (torch.optim.Adam, (0.03, 0.1, 0.3), {"betas": (0.5, 0.999)}),
    "RiemannianAdam": (RiemannianAdam, (0.03, 0.1, 0.3), {"betas": (0.5, 0.999)}),
    "unembed, SGD": (torch.optim.SGD, (3e-4, 1e-3, 3e-3), {}),
    "RiemannianSGD": (RiemannianSGD, (3e-4, 1e-3, 3e-3), {}),
}


def race(manifold, method, lr, steps=RACE_STEPS, **options):
    """Return the step from which each start is near for good, or 0; and how many ever were."""
    pyro.set_rng_seed(1)
    truth = manifold.random_uniform(manifold.event_shape)
    noise = torch.randn(40, manifold.embed_dim)
    x = manifold.embed(truth) + 0.4 * (noise - noise.mean(0))
    starts = manifold.random_uniform(STARTS, *manifold.event_shape)
    if "unembed" in method:
        loc = PyroParam(starts, manifold.support, event_dim=manifold.ndim)
    else:
        loc = geoopt.ManifoldParameter(starts, manifold=manifold)
    path = torch_path(Located(manifold, loc), x, METHODS[method][0], steps, lr=lr, **options)
    near = torch.stack([manifold.dist(loc, truth) < 1e-6 for loc in path])
    settled = near[-1] * (1 + steps - near.flip(0).cumprod(0).sum(0))
    return settled, near.any(0).sum().item()


def verdict(settled, ever):
    steps = settled[settled > 0]
    median = f"in {steps.median():.0f}" if len(steps) else ""
    return f"{len(steps)}/{ever} {median:<6}"


print(f"of {STARTS} starts: settled / ever near, median of steps; step size small, middle, large")
for manifold in (sphere, so3, klein):
    for method, (_, sizes, options) in METHODS.items():
        cells = [verdict(*race(manifold, method, lr, **options)) for lr in sizes]
        print(f"{manifold!s:<14}{method:<16}" + "".join(f"{cell:>14}" for cell in cells))

print("\nsphere, with the default momentum 0.9 of Adam")
for method in ("unembed, Adam", "RiemannianAdam"):
    cell = verdict(*race(sphere, method, 0.1, steps=3 * RACE_STEPS // 2))
    print(f"{method:<30}{'':<14}{cell:>14}")

# %% [markdown]
# Both ways arrive, and neither wins everywhere.
#
# - `RiemannianSGD` is the fastest where its step size suits the manifold (12 to 18 steps), and
#   useless where it does not: on SO3 only the smallest of the three works.
# - Plain SGD through `unembed` minds the step size less: no step was too large, though with
#   the smallest 200 steps are too few for many starts.
# - The two versions of Adam need about the same number of steps. Adam does not settle: with large
#   steps some starts that were near are off again at the end, so let the step size fall to zero.
# - Momentum matters more than the manifold: with 0.9 both need five times as many steps.
#
# The constraint is the simpler choice and works everywhere in Pyro. The price is the ambient
# vector: 9 numbers for a rotation, and a projection in every step.
#
# ## A path across the seam
#
# Across the seam of the Klein bottle the second coordinate changes its sign, and so must the
# velocity that a momentum optimiser carries along. geoopt asks the manifold to transport it. We
# follow `RiemannianSGD` from (0.5, 1.5) to a point beyond the seam. Two controls: the same
# optimiser on a plain parameter in the plane, which knows no seam, and a Klein bottle that forgets
# to transport.


# %%
class Forgetful(KleinBottle):
    def transp_follow_expmap(self, x, u, v):
        return v


def walk(loc, steps=200):
    path, optimiser = [loc.detach().clone()], RiemannianSGD([loc], lr=0.01, momentum=0.9)
    for _ in range(steps):
        optimiser.zero_grad()
        (klein.embed(loc) - klein.embed(target)).square().sum().backward()
        optimiser.step()
        path.append(loc.detach().clone())
    return torch.stack(path)


begin, target = torch.tensor([0.5, 1.5]), torch.tensor([torch.pi - 1.0, -0.3])
walks = {
    "in the plane": walk(begin.clone().requires_grad_()),
    "on the Klein bottle": walk(geoopt.ManifoldParameter(begin.clone(), manifold=klein)),
    "without transport": walk(geoopt.ManifoldParameter(begin.clone(), manifold=Forgetful())),
}
figure, (left, right) = plt.subplots(1, 2, figsize=(7.4, 4.6), width_ratios=(1, 1.6))
draw_fundamental_square(left, klein)
print(f"{'':<22}{'furthest from the path in the plane':>36}{'end from target':>17}")
for (name, path), style in zip(walks.items(), ("-", "--", ":"), strict=True):
    apart = klein.dist(path, walks["in the plane"])
    print(f"{name:<22}{apart.max():>36.1e}{klein.dist(path[-1], target):>17.1e}")
    shown = klein.projx(path)
    shown[1:][(shown.diff(dim=0).abs() > 1).any(-1)] = torch.nan  # no lines through the square
    left.plot(*shown.T, style, label=name, lw=1.6)
    right.semilogy(klein.dist(path, target), style, label=name, lw=1.6)
left.plot(*begin, "ko", ms=5)
left.plot(*target, "k+", ms=9, mew=2)
right.set(xlabel="step", ylabel="distance to the target")
right.legend(frameon=False)
plt.show()

# %% [markdown]
# On the Klein bottle the path is that in the plane, to rounding. Without transport it turns the
# wrong way behind the seam. Here it arrives as soon all the same.
#
# ## A rotation, maximum a posteriori
#
# A thin, bent wire is scanned twice, with noise, and turned in between. Which rotation? The scans
# tell little about turns round the wire's own axis. A gyroscope gives a guess of the whole
# rotation, which is the prior: a wrapped normal law on SO3.
#
# `AutoDelta` is Pyro's guide for maximum a posteriori estimates. It asks the support for a
# constraint, so it goes through `unembed`. With geoopt we write the guide ourselves, one line.
#
# Without the prior the exact answer is a singular value decomposition. With it, scipy minimises
# the same objective over rotation vectors. Distances on SO3 are half the angle of the rotation in
# between.

# %%
pyro.set_rng_seed(2)
s = torch.linspace(-1, 1, 60)
wire = torch.stack([s, 0.03 * (5 * s).cos(), 0.03 * (5 * s).sin()], -1)
truth = so3.random_uniform(3, 3)
guess = WrappedNormal(so3, truth, 0.1).sample()
seen = wire @ truth.mT + 0.3 * torch.randn(60, 3)


def turned(seen):
    rotation = pyro.sample("rotation", WrappedNormal(so3, guess, 0.1))
    with pyro.plate("data", len(seen)):
        pyro.sample("seen", dist.Normal(wire @ rotation.mT, 0.3).to_event(1), obs=seen)


def delta(seen):
    loc = pyro.param("loc", lambda: geoopt.ManifoldTensor(guess.clone(), manifold=so3))
    pyro.sample("rotation", dist.Delta(loc, event_dim=2))


def nearest_rotation(matrix):
    u, _, vh = torch.linalg.svd(matrix)
    return u @ torch.diag(torch.tensor([1.0, 1.0, torch.det(u @ vh)])) @ vh


def objective(vector):
    """Minus the logarithm of the joint density, up to a constant, at guess * exp(vector)."""
    rotation = guess.numpy() @ Rotation.from_rotvec(vector).as_matrix()
    half = np.linalg.norm(vector) / 2
    squares = ((seen.numpy() - wire.numpy() @ rotation.T) ** 2).sum()
    return squares / (2 * 0.3**2) + half**2 / (2 * 0.1**2) + 2 * np.log(np.sinc(half / np.pi))


def maximum_a_posteriori(guide, optimiser):
    pyro.clear_param_store()
    svi = SVI(turned, guide, optimiser, Trace_ELBO())
    for _ in range(MAP_STEPS):
        svi.step(seen)
    trace = poutine.trace(guide).get_trace(seen)
    return trace.nodes["rotation"]["value"].detach()


found = minimize(objective, np.full(3, 0.01), options={"gtol": 1e-8}).x
by_scipy = guess @ torch.from_numpy(Rotation.from_rotvec(found).as_matrix())
rotations = {
    "guess": guess,
    "no prior, SVD": nearest_rotation(seen.mT @ wire),
    "prior, scipy": by_scipy,
    "prior, AutoDelta with Adam": maximum_a_posteriori(AutoDelta(turned), pyro.optim.Adam(STEPS)),
    "prior, RiemannianAdam": maximum_a_posteriori(delta, PyroOptim(RiemannianAdam, STEPS)),
}
print(f"{'':<30}{'from truth':>12}{'from scipy':>12}")
for name, rotation in rotations.items():
    print(f"{name:<30}{so3.dist(rotation, truth):>12.3f}{so3.dist(rotation, by_scipy):>12.1e}")

# %% [markdown]
# The prior mends what the scans leave open, and both ways find the same rotation as scipy.
#
# ## Mini-batches
#
# Now both scans have many points, and the noise is unknown. `Trace_ELBO()(model, guide)` is a
# module that returns the loss, and the loop is torch's. The plate has the size of the data, and a
# batch as its subsample: Pyro then scales the batch up to the data.
#
# Guides of Pyro make their parameters at the first call. So call the module once, before
# anything asks for its parameters.

# %%
NUM_POINTS, BATCH = 4096, 256


class Scans(PyroModule):
    """One rotation, the same for all pairs of points of two scans."""

    def __init__(self):
        super().__init__()
        self.log_noise = nn.Parameter(torch.tensor(0.0))

    def forward(self, pairs):
        before, after = pairs.unbind(1)
        rotation = pyro.sample("rotation", ManifoldUniform(so3))
        with pyro.plate("data", NUM_POINTS, subsample_size=len(pairs)):
            mean = (rotation @ before.unsqueeze(-1)).squeeze(
                -1
            )  # right for any batch of rotations
            noise = self.log_noise.exp()
            pyro.sample("after", dist.Normal(mean, noise).to_event(1), obs=after)


pyro.set_rng_seed(3)
truth = so3.random_uniform(3, 3)
before = torch.randn(NUM_POINTS, 3)
pairs = torch.stack([before, before @ truth.mT + 0.3 * torch.randn(NUM_POINTS, 3)], 1)


def count(module):
    return sum(p.numel() for p in module.parameters())


model = Scans()
guide = AutoWrappedNormal(model, init_scale=0.01, location="manifold")
loss_of = Trace_ELBO()(model, guide)
print("parameters before the first call:", count(loss_of))
loss_of(pairs[:BATCH])
print("parameters after it:             ", count(loss_of))

handled = Trace_ELBO()(poutine.scale(model, 1 / NUM_POINTS), guide)
print("parameters, with a handler round the model:", count(handled))

# %% [markdown]
# The one parameter before the call is the noise: an optimiser made then would train nothing else,
# without a word. A handler round the model hides the noise from the optimiser: put handlers inside
# of `forward`.
#
# The guide is our `AutoWrappedNormal`, with its location as a `ManifoldParameter`.
# `RiemannianAdam` treats all other parameters as Adam does. There are three exact controls: the
# location by the singular value decomposition, the noise from its residuals, and the width of
# the posterior from the curvature of the likelihood, all but exact with so many points.


# %%
def prepare():
    """Return a loss with all of its parameters, an optimiser and a falling step size."""
    pyro.set_rng_seed(4)
    model = Scans()
    guide = AutoWrappedNormal(model, init_scale=0.01, location="manifold")
    loss_of = Trace_ELBO(num_particles=4, vectorize_particles=True)(model, guide)
    loss_of(pairs[:BATCH])
    optimiser = RiemannianAdam(loss_of.parameters(), lr=0.05, betas=(0.9, 0.99))
    return loss_of, optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)


def train(loss_of, optimiser, schedule, epochs):
    for _ in range(epochs):
        for batch in torch.randperm(NUM_POINTS).split(BATCH):
            optimiser.zero_grad()
            loss_of(pairs[batch]).backward()
            optimiser.step()
        schedule.step()


run = prepare()
train(*run, EPOCHS)

by_svd = nearest_rotation(pairs[:, 1].mT @ pairs[:, 0])
noise = (pairs[:, 1] - pairs[:, 0] @ by_svd.mT).square().mean().sqrt()
spread = (by_svd.mT @ pairs[:, 1].mT @ pairs[:, 0]).trace() / 3  # about the same in all directions
width = noise / (8 * spread).sqrt()
fitted, q = run[0].model.log_noise.exp(), run[0].guide.get_posterior("rotation")
print(f"noise {fitted:.4f}, exact {noise:.4f}")
print(f"scale of the guide {q.scale.item():.5f}, exact {width:.5f}")
print(f"its location: {so3.dist(q.loc, by_svd) / width:.2f} of these widths from the exact one")

# %% [markdown]
# A word on shapes. Vectorised particles give the rotation batch dimensions on the left, and the
# model above lets them broadcast against the points. `before @ rotation.mT` is right for one
# rotation only: with four particles it pairs each with all. Pyro does not notice, and the data
# count four times.


# %%
class Careless(Scans):
    def forward(self, pairs):
        before, after = pairs.unbind(1)
        rotation = pyro.sample("rotation", ManifoldUniform(so3))
        with pyro.plate("data", NUM_POINTS, subsample_size=len(pairs)):
            law = dist.Normal(before @ rotation.mT, self.log_noise.exp()).to_event(1)
            pyro.sample("after", law, obs=after)


def at_truth(pairs):
    pyro.sample("rotation", dist.Delta(truth, event_dim=2))


for model in (Scans(), Careless()):
    losses = [
        Trace_ELBO(num_particles=n, vectorize_particles=True)(model, at_truth)(pairs).item()
        for n in (1, 4)
    ]
    print(
        f"{type(model).__name__:<10} loss with 1 and 4 particles: {losses[0]:.0f}, {losses[1]:.0f}"
    )

# %% [markdown]
# ## Save, load, go on
#
# `state_dict` holds the parameters of model and guide, those of geoopt included. With the state of
# optimiser, schedule and random numbers, a run that was interrupted goes on bit for bit.
# Call the loss before loading, too: a guide that was never called has nowhere to put its state.

# %%
scratch = tempfile.TemporaryDirectory()
folder = Path(scratch.name)
half = prepare()
train(*half, EPOCHS // 2)
states = [part.state_dict() for part in half]
torch.save({"parts": states, "random": torch.get_rng_state()}, folder / "half.pt")

resumed = prepare()
saved = torch.load(folder / "half.pt")
for part, state in zip(resumed, saved["parts"], strict=True):
    part.load_state_dict(state)
torch.set_rng_state(saved["random"])
train(*resumed, EPOCHS - EPOCHS // 2)
pairs_of_parameters = zip(resumed[0].parameters(), run[0].parameters(), strict=True)
print("resumed as if never interrupted:", all(torch.equal(a, b) for a, b in pairs_of_parameters))
print("location:", type(resumed[0].guide.locs.rotation).__name__)

model = Scans()
try:
    Trace_ELBO()(model, AutoWrappedNormal(model)).load_state_dict(states[0])
except RuntimeError as error:
    print(fill(f"without a call: {error}", 90, subsequent_indent="    "))

# %% [markdown]
# ## What to compile
#
# Densities compile to one graph, without their validation. That pays where the step is spent in
# them. The times below are for a density and its gradient, 1000 points, float32, one thread, the
# best of 100 calls; [benchmarks](../benchmarks/README.md) has more.


# %%
def least_ms(f, repeats=5 if SMOKE else 100):
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        f()
        times.append(1e3 * (time.perf_counter() - begun))
    return min(times)


def density_step(density, manifold):
    pyro.set_rng_seed(6)
    z = manifold.random_uniform(1000, *manifold.event_shape, dtype=torch.float32)
    loc, z = z.roll(1, 0).as_subclass(torch.Tensor), z.as_subclass(torch.Tensor)
    scale = torch.full((1000, *manifold.scale_shape), 0.3, dtype=torch.float32)
    leaves = [loc.requires_grad_(), scale.requires_grad_()]
    return lambda: density(manifold, *leaves, z).sum().backward()


def density(manifold, loc, scale, z):
    return WrappedNormal(manifold, loc, scale, validate_args=False).log_prob(z)


backend = "eager" if SMOKE else "inductor"
print(f"{'':<16}{'eager, ms':>11}{'compiled':>10}{'to compile, s':>15}")
for manifold in (Torus(128), klein, sphere):
    compiled = torch.compile(density, fullgraph=True, backend=backend)
    begun = time.perf_counter()
    density_step(compiled, manifold)()
    seconds = time.perf_counter() - begun
    before_after = [least_ms(density_step(f, manifold)) for f in (density, compiled)]
    print(f"{manifold!s:<16}{before_after[0]:>11.2f}{before_after[1]:>10.2f}{seconds:>15.1f}")


def refused():
    try:
        return not dist.Normal(0.0, -1.0)
    except ValueError:
        return True


print("a negative scale is refused:", refused())
pyro.enable_validation(True)
print("and with pyro.enable_validation(True):", refused())

# %% [markdown]
# Mind the last lines: `torch.compile` switches the validation of distributions off, for the whole
# process. The check that saved us in the first section is gone then.

# %% [markdown]
# ## More than one process
#
# The loss is a torch module, so torch's `DistributedDataParallel` takes it. Every process runs the
# same program, on its own rows of each batch, and gradients are averaged. Here is a whole script;
# the recipe is the function `train`. It goes on with the scans, with Pyro's `AutoDelta` for a
# guide: that draws no noise, so two processes must find exactly what one finds.
#
# The loss must be an average of what the processes compute. The plate sees to that: each process
# scales its rows up to all of the data, and the prior counts once. Without a subsample, divide
# the loss of each by its share of the batch, as `pyro_manifolds.demo.training.fit` does.

# %%
SCRIPT = """
import sys
from pathlib import Path

import pyro, pyro.distributions as dist, torch
from pyro.infer import Trace_ELBO
from pyro.infer.autoguide import AutoDelta
from pyro.nn import PyroModule
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from pyro_manifolds import SO3, ManifoldUniform

folder, steps = Path(sys.argv[1]), int(sys.argv[2])
pyro.settings.set(module_local_params=True)
torch.set_default_dtype(torch.float64)
pairs = torch.load(folder / "pairs.pt")  # the same in every process


class Scans(PyroModule):
    def __init__(self):
        super().__init__()
        self.log_noise = nn.Parameter(torch.tensor(0.0))

    def forward(self, batch):
        before, after = batch.unbind(1)
        rotation = pyro.sample("rotation", ManifoldUniform(SO3()))
        with pyro.plate("data", len(pairs), subsample_size=len(batch)):
            mean = (rotation @ before.unsqueeze(-1)).squeeze(-1)
            law = dist.Normal(mean, self.log_noise.exp()).to_event(1)
            pyro.sample("after", law, obs=after)


def train(model, call_first=True):
    loss_of = Trace_ELBO()(model, AutoDelta(model))
    if call_first:
        loss_of(pairs[:256])  # makes the parameters of the guide
    replica = DistributedDataParallel(loss_of)  # copies those of the first process to all
    optimiser = torch.optim.Adam(replica.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(0)  # the same batches in every process
    for _ in range(steps):
        batch = pairs[torch.randperm(len(pairs), generator=generator)[:256]]
        optimiser.zero_grad()
        replica(batch.tensor_split(world)[rank]).backward()  # its own rows
        optimiser.step()
    return loss_of.state_dict()


distributed.init_process_group("gloo")  # "nccl" with one GPU each
rank, world = distributed.get_rank(), distributed.get_world_size()
pyro.set_rng_seed(rank)  # noise of its own for each process, if the guide draws
results = {"right": train(Scans()), "too early": train(Scans(), call_first=False)}
torch.save(results, folder / f"results-{world}-{rank}.pt")
idle = Scans()
idle.unused = nn.Parameter(torch.tensor(0.0))
try:
    train(idle)
except RuntimeError as error:
    if rank == 0:
        print(str(error)[:77])
distributed.barrier()
distributed.destroy_process_group()
"""

(folder / "train.py").write_text(SCRIPT)
torch.save(pairs, folder / "pairs.pt")


def torchrun(processes, *arguments):
    """Run ``torchrun --standalone --nproc_per_node=... ...`` and return what it prints."""
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command = [sys.executable, *launch, *map(str, arguments)]
    options = {"env": os.environ | {"OMP_NUM_THREADS": "1"}, "timeout": 300}
    finished = subprocess.run(command, check=False, capture_output=True, text=True, **options)
    if finished.returncode:
        raise RuntimeError(finished.stderr)
    return finished.stdout


printed = [torchrun(n, folder / "train.py", folder, 10 if SMOKE else 300) for n in (1, 2)]


def parameters(world, rank, order="right"):
    state = torch.load(folder / f"results-{world}-{rank}.pt")[order]
    rotation = so3.unembed(state["guide.rotation_unconstrained"].flatten())
    return torch.cat([value.flatten() for value in state.values()]), so3.dist(rotation, by_svd)


(two, right), (one, _) = parameters(2, 0), parameters(1, 0)
print(f"parameters of two processes against one:   {(two - one).abs().max():.1e}")
print(f"first process against second:              {(two - parameters(2, 1)[0]).abs().max():.1e}")
print(f"their rotation from the exact one:         {right:.4f}")
print(f"the same, wrapped before the first call:   {parameters(2, 0, 'too early')[1]:.4f}")
print(f"with a parameter that the loss never uses: {printed[1].strip()} ...")

# %% [markdown]
# Two processes agree with one to rounding. What breaks the recipe:
#
# - Wrapping, or making the optimiser, before the first call: the guide is never trained, and
#   nothing is raised.
# - A handler round the model: its parameters are hidden from the wrapper as they were from the
#   optimiser above, so they would drift apart.
# - A parameter that the loss does not use: torch raises in the second step.
# - Calling `loss_of` in place of the wrapper, or `SVI`: no gradient is averaged.
#
# On machines with GPUs, the same script with `"nccl"`, and data and modules on
# `cuda:LOCAL_RANK`, uses one GPU for each process. That was not run here.
#
# A guide that draws needs noise of its own in each process, or the shares of a batch get the same.
# `pyro_manifolds.demo` does all of this. It trains the models of tutorial 2, with checkpoints
# that any number of processes can go on from:
#
# ```
# torchrun --standalone --nproc_per_node=2 -m pyro_manifolds.demo
# ```
#
# A tiny run of it, in one process and in two:

# %%
options = ["--smoke", "--quiet", "--manifolds", "klein", *([] if SMOKE else ["--steps", "300"])]
for processes in (2,) if SMOKE else (1, 2):
    output = ["--output", folder / f"demo-{processes}"]
    table = torchrun(processes, "-m", "pyro_manifolds.demo", *options, *output)
    header, row = (next(t for t in table.splitlines() if k in t) for k in ("ELBO", "Klein"))
    seconds = next(t for t in table.splitlines() if "seconds" in t)
    print(f"{processes} process(es): {seconds}", header, row, sep="\n")
scratch.cleanup()

# %% [markdown]
# The scores differ by the noise. At this size two processes cost more than they save: a
# batch has 64 rows. Processes pay when a step is long compared to the exchange of its gradients.
#
# ## What to take home
#
# - A location on a sphere or a rotation is not a plain parameter. Write
#   `constraint=manifold.support`, or a `geoopt.ManifoldParameter` with an optimiser of geoopt.
#   Both arrive.
# - The constraint goes with any optimiser. `RiemannianSGD` with the right step size needs the
#   fewest steps, and momentum is carried across seams.
# - Make model, guide and loss, call the loss once, then make optimiser, checkpoint loader and
#   `DistributedDataParallel`, in this order.
# - Compile densities, and switch validation on again.
