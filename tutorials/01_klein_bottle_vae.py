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
# # A VAE whose latent space is a Klein bottle
#
# Some data vary along a surface that no plane can hold. This tutorial takes pictures that form a
# Klein bottle, and fits a variational auto-encoder whose latent points live on one. Model and
# guide are ordinary Pyro, about twenty lines each.
#
# You will see
#
# 1. why a code in the plane must tear, and a code on the right manifold need not;
# 2. a model and a guide with a site on a manifold, trained with `Trace_ELBO`;
# 3. how to start the encoder in the right homotopy class, and to compare candidate manifolds
#    before any training;
# 4. what the exact density on the manifold is worth against a bound on its cover;
# 5. how to check the topology of the code, against a plain Euclidean VAE.
#
# All numbers come from one seed. `python -m benchmarks.klein_vae` runs three.

# %%
import math
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn

from pyro_manifolds import (
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    Sphere,
    Torus,
    WrappedNormal,
)
from pyro_manifolds.datasets import klein_circle, klein_circles
from pyro_manifolds.nn import (
    AlignedHead,
    InvariantFeatures,
    ScaleHead,
    align_to_manifold,
    principal_start,
)

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
NUM_TRAIN, NUM_TEST = (2_000, 300) if SMOKE else (20_000, 2_000)
EPOCHS, WARMUP_EPOCHS = (4, 2) if SMOKE else (30, 10)
NUM_LANDMARKS = 60 if SMOKE else 200

pyro.settings.set(module_local_params=True)  # parameters stay in their modules
pyro.enable_validation(False)  # checks cost a third of the time of these small networks
plt.rcParams.update({"figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9})

# %% [markdown]
# ## The data
#
# Take the unit square and glue its edges: top to bottom straight, left to right with a flip,
# $(u + 1, v) \sim (u, -v)$. The result is a Klein bottle. A picture is a disc on it, so the data
# set has two degrees of freedom, the centre of the disc. We write the centre as angles
# $t_1 = \pi u$ and $t_2 = 2 \pi v$. Then
#
# $$(t_1 + \pi,\; t_2) \sim (t_1,\; -t_2), \qquad (t_1,\; t_2 + 2\pi) \sim (t_1,\; t_2),$$
#
# which are the coordinates of `KleinBottle()`.

# %%
size = 15
train = klein_circles(NUM_TRAIN, size, seed=1)
test = klein_circles(NUM_TEST, size, seed=2)
x_train, x_test = train.images.flatten(1).float(), test.images.flatten(1).float()

u, v = 0.3, 0.2
print(
    "once round u, with a flip:",
    torch.equal(klein_circle(u + 1, -v, size), klein_circle(u, v, size)),
)
print(
    "once round u, without one:",
    torch.equal(klein_circle(u + 1, v, size), klein_circle(u, v, size)),
)

# %% [markdown]
# Below, the disc leaves through one edge and comes back through the other. In the upper row it
# moves along $u$ and comes back upside down; after a second round it is where it was.
# In the lower row it moves along $v$.

# %%
steps = torch.linspace(0, 1, 9)
frames = {
    "$u$ from 0 to 1, $v = 0.2$": klein_circle(steps, torch.tensor(0.2), size),
    "$u$ from 1 to 2, $v = 0.2$": klein_circle(1 + steps, torch.tensor(0.2), size),
    "$v$ from 0 to 1, $u = 0.3$": klein_circle(torch.tensor(0.3), steps, size),
}
figure, axes = plt.subplots(len(frames), len(steps), figsize=(8.5, 3.1))
for row, (label, images) in zip(axes, frames.items(), strict=True):
    for ax, image in zip(row, images, strict=True):
        ax.imshow(image, cmap="gray_r", origin="lower")
        ax.set(xticks=[], yticks=[])
    row[0].set_ylabel(label, rotation=0, ha="right", va="center")

# %% [markdown]
# ## Why the plane tears
#
# The Klein bottle contains loops that cannot be shrunk to a point. A continuous map into the
# plane can shrink every loop, so it cannot be inverted: an encoder with values in $\mathbb{R}^2$
# is discontinuous somewhere, or sends different pictures to one code
# (de Haan and Falorsi, 2018, [arXiv 1812.10783](https://arxiv.org/abs/1812.10783)).
# A covering such as $\mathbb{R}^2 \to K$ does not help by itself: a continuous encoder into the
# cover has the same problem.
#
# The way out has two parts.
#
# - **The encoder goes through the ambient space.** The network returns a vector of
#   $\mathbb{R}^5$, in which $K$ is embedded, and `KleinBottle().unembed` takes it to $K$. The
#   coordinates of the result jump at the seams, the point of $K$ does not.
# - **The decoder reads the embedding.** `KleinBottle().embed(z)` is the same for all coordinates
#   of one point.

# %%
klein = KleinBottle()
z = torch.tensor([0.3, 1.0])
same = torch.tensor([0.3 + math.pi, -1.0])
print("embed, two coordinates of one point:", klein.embed(z), klein.embed(same), sep="\n")
print("unembed:", klein.unembed(klein.embed(same)))

# %% [markdown]
# ## Model and guide
#
# The model draws a point of the manifold and decodes it to the pixels,
#
# $$z \sim \text{Uniform}(M), \qquad x \mid z \sim \text{Bernoulli}(f(z)).$$
#
# The guide is a wrapped normal: a normal in the plane, projected to $M$. Its density sums over
# all points of the plane above $z$. Nothing in the two classes is particular to the
# Klein bottle, so the same code serves for the control.


# %%
def mlp(*sizes):
    layers = [
        m for a, b in zip(sizes, sizes[1:], strict=False) for m in (nn.Linear(a, b), nn.ReLU())
    ]
    return nn.Sequential(*layers[:-1])


class Model(PyroModule):
    def __init__(self, manifold):
        super().__init__()
        features = InvariantFeatures(manifold)  # embed(z)
        self.prior = standard_prior(manifold)
        self.decoder = nn.Sequential(
            features, mlp(features.out_features, 32, 64, 128, 256, size**2)
        )

    def forward(self, x, kl_weight=1.0):
        with pyro.plate("data", len(x), dim=-1):
            with poutine.scale(scale=kl_weight):
                z = pyro.sample("z", self.prior)
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)


class Guide(PyroModule):
    def __init__(self, manifold, alignment):
        super().__init__()
        self.manifold = manifold
        self.encoder = nn.Sequential(mlp(size**2, 256, 128, 64, 32), nn.ReLU())
        self.loc = AlignedHead(alignment, 32, manifold)  # unembed(linear(x) + correction)
        self.scale = ScaleHead(32, manifold)

    def posterior(self, x):
        features = self.encoder(x)
        return WrappedNormal(self.manifold, self.loc(x, features), self.scale(features))

    def forward(self, x, kl_weight=1.0):
        q = self.posterior(x)
        if kl_weight < 1:  # warm-up: a decoder that knows nothing must not tear the code
            q = WrappedNormal(self.manifold, q.loc.detach(), q.scale)
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=kl_weight):
            pyro.sample("z", q)


def standard_prior(manifold):
    if manifold.is_compact:
        return ManifoldUniform(manifold)
    return WrappedNormal(manifold, torch.zeros(manifold.dim), 1.0)  # the normal itself


# %% [markdown]
# ## An aligned start
#
# An encoder that starts at random wraps the data round the manifold in a random way: some loops
# twice, some not at all. Gradients cannot mend that, since the way from one homotopy class to
# another leads through a tear.
#
# `align_to_manifold` finds a better start without labels. It takes the leading principal
# components, whitens them, and rotates them onto the embedded manifold. What is left over,
# relative to the size of the manifold, tells how well the data fit it. We try several
# manifolds before any training.

# %%
for candidate in (KleinBottle(), Torus(2), Sphere(2)):
    residual = align_to_manifold(x_train[:4_000], candidate).residual
    print(f"{candidate!s:<14} {candidate.embed_dim} components, residual {residual:.4f}")

# %% [markdown]
# The residuals are read against each other with care: manifolds with fewer ambient dimensions
# have an easier task.

# %% [markdown]
# ## Training
#
# `Trace_ELBO()(model, guide)` is a torch module that returns the loss, so training is a
# torch loop. The weight of the prior and the guide rises from zero to one over the first
# epochs; the location stays at its start meanwhile. The step size falls along a half cosine.


# %%
def fit(model, guide, data, epochs, warmup_epochs, batch_size=256):
    loss_of = Trace_ELBO()(model, guide)
    optimiser = torch.optim.Adam(loss_of.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    history = []
    for epoch in range(epochs):
        total = 0.0
        batches = torch.randperm(len(data)).split(batch_size)
        for index, batch in enumerate(batches):
            weight = min(1.0, (epoch + (index + 1) / len(batches)) / warmup_epochs)
            optimiser.zero_grad()
            loss = loss_of(data[batch], weight)
            loss.backward()
            optimiser.step()
            total += loss.item()
        schedule.step()
        history.append(total / len(data))
    return history


torch.manual_seed(0)
pairs, histories = {}, {}
starts = {
    "Klein bottle": (klein, align_to_manifold(x_train[:4_000], klein)),
    "plane": (Euclidean(2), principal_start(x_train[:4_000], 2)),
}
for name, (manifold, start) in starts.items():
    pairs[name] = Model(manifold), Guide(manifold, start)
    histories[name] = fit(*pairs[name], x_train, EPOCHS, WARMUP_EPOCHS)

# %%
