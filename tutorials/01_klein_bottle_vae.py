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
    CoveringReparam,
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    Sphere,
    Torus,
    WrappedNormal,
    covering_kl_bound,
)
from pyro_manifolds.datasets import klein_circle, klein_circles
from pyro_manifolds.geometry import (
    betti_numbers,
    farthest_point_indices,
    persistence,
    topology_score,
)
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import (
    AlignedHead,
    InvariantFeatures,
    ManifoldHead,
    ScaleHead,
    align_to_manifold,
)
from pyro_manifolds.plotting import draw_fundamental_square, draw_patches_on_square, square_grid

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
NUM_TRAIN, NUM_TEST = (2_000, 300) if SMOKE else (20_000, 2_000)
EPOCHS, WARMUP_EPOCHS = (3, 1) if SMOKE else (20, 6)
NUM_LANDMARKS = 30 if SMOKE else 120

pyro.settings.set(module_local_params=True)  # parameters stay in their modules
pyro.enable_validation(False)
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
here = klein_circle(u, v, size)
print("once round u, with a flip:", torch.equal(klein_circle(u + 1, -v, size), here))
print("once round u, without one:", torch.equal(klein_circle(u + 1, v, size), here))
print("once round v:             ", torch.equal(klein_circle(u, v + 1, size), here))

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
plt.show()

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
    layers = []
    for size_in, size_out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(size_in, size_out), nn.ReLU()]
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
    def __init__(self, manifold, alignment=None):
        super().__init__()
        self.manifold, self.aligned = manifold, alignment is not None
        self.encoder = nn.Sequential(mlp(size**2, 256, 128, 64, 32), nn.ReLU())
        self.scale = ScaleHead(32, manifold)
        if self.aligned:  # unembed(alignment(x) + linear(features)), explained below
            self.loc = AlignedHead(alignment, 32, manifold)
        else:  # unembed(linear(features))
            self.loc = ManifoldHead(32, manifold)

    def posterior(self, x):
        features = self.encoder(x)
        loc = self.loc(x, features) if self.aligned else self.loc(features)
        return WrappedNormal(self.manifold, loc, self.scale(features))

    def forward(self, x, kl_weight=1.0):
        q = self.posterior(x)
        if self.aligned and kl_weight < 1:  # an untrained decoder must not tear the code
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
# An encoder that starts at random wraps the data round the manifold at random: it covers some
# part twice, another not at all. Small steps mend that badly, since the way from one homotopy
# class to another leads through a tear.
#
# `align_to_manifold` finds a better start, without labels. It whitens the leading principal
# components and rotates them onto the embedded manifold. The residual, the mean squared
# distance that is left relative to the size of the manifold, tells how well the data fit it.
# We try three manifolds before any training.

# %%
for candidate in (KleinBottle(), Torus(2), Sphere(2)):
    residual = align_to_manifold(x_train[:4_000], candidate).residual
    print(f"{candidate!s:<14} {candidate.embed_dim} components, residual {residual:.4f}")

# %% [markdown]
# The Klein bottle fits best, although it must match more components than the others.
#
# ## Training
#
# `Trace_ELBO()(model, guide)` is a torch module that returns the loss, so training is a
# torch loop. The weight of the prior and the guide rises from zero to one over the first
# epochs; an aligned location stays at its start meanwhile. The step size falls along a half
# cosine.
#
# We train three pairs: the Klein bottle with the aligned start, the Klein bottle with a random
# start, and the plane with a random start, which is the ordinary Gaussian VAE.


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


recipes = {
    "Klein bottle, aligned start": (klein, align_to_manifold(x_train[:4_000], klein)),
    "Klein bottle, random start": (klein, None),
    "plane": (Euclidean(2), None),
}
pairs, histories = {}, {}
for name, (manifold, alignment) in recipes.items():
    torch.manual_seed(0)
    pairs[name] = Model(manifold), Guide(manifold, alignment)
    histories[name] = fit(*pairs[name], x_train, EPOCHS, WARMUP_EPOCHS)

# %% [markdown]
# `evidence_bounds` scores a pair on held-out pictures: the ELBO, and the importance-weighted bound
# from the same draws, which is tighter.


# %%
def score(model, guide, num_particles=64):
    torch.manual_seed(1)
    batches = x_test.split(500)
    parts = [evidence_bounds(model, guide, x, num_particles=num_particles) for x in batches]
    elbo, iwae, _ = (torch.cat(values).mean().item() for values in zip(*parts, strict=True))
    return -elbo, -iwae


print(f"{'nats per picture':<30}{'-ELBO':>8}{'-IWAE':>8}")
for name, pair in pairs.items():
    elbo, iwae = score(*pair)
    print(f"{name:<30}{elbo:>8.2f}{iwae:>8.2f}")

figure, ax = plt.subplots(figsize=(5.0, 2.8))
colors = dict(zip(pairs, ("tab:blue", "tab:cyan", "tab:orange"), strict=True))
for name, history in histories.items():
    ax.plot(range(1, EPOCHS + 1), history, label=name, color=colors[name])
ax.axvline(WARMUP_EPOCHS, color="0.6", linewidth=0.8, linestyle=":")
ax.set(xlabel="epoch (dotted: end of the warm-up)", ylabel="training loss, nats", yscale="log")
ax.set_yticks([10, 20, 50, 100], ["10", "20", "50", "100"])
ax.minorticks_off()
ax.spines[["top", "right"]].set_visible(False)
ax.legend(frameon=False)
plt.show()

# %% [markdown]
# The manifold alone does not win: from a random start, the Klein bottle loses to the plane. From
# the aligned start, it needs about half the nats of the plane.

# %% [markdown]
# ## The code on the fundamental square
#
# Where do the codes of held-out pictures lie, and do they vary like the true centres? We colour
# them by $t_1$, on a cyclic scale, and by $\cos t_2$; both are functions on the Klein bottle. Red
# edges are glued with a flip, blue edges straight. Where the code is right, colours
# vary smoothly, and agree across every glued edge.


# %%
def codes(name, x=x_test):
    with torch.no_grad():
        return pairs[name][1].posterior(x).mode


t1, t2 = test.points.unbind(-1)
colorings = {
    "coloured by $t_1$": (t1, "twilight_shifted", 0, math.pi),
    r"coloured by $\cos t_2$": (t2.cos(), "viridis", -1, 1),
}
figure, axes = plt.subplots(2, 3, figsize=(8.5, 8.6), width_ratios=(1, 1, 1.5))
for row, (label, (values, cmap, low, high)) in zip(axes, colorings.items(), strict=True):
    for ax, name in zip(row, pairs, strict=True):
        code = codes(name)
        if name == "plane":
            ax.set_aspect("equal")
            ax.spines[:].set_color("0.8")
            ax.tick_params(length=0, labelcolor="0.5")
        else:
            draw_fundamental_square(ax, klein)
        points = ax.scatter(*code.T, c=values, cmap=cmap, vmin=low, vmax=high, s=5, linewidths=0)
        ax.set_title(name.replace(", ", "\n"), fontsize=9)
    figure.colorbar(points, ax=row[-1], label=label, shrink=0.7).outline.set_visible(False)
plt.show()

# %% [markdown]
# From the aligned start, the code is the true square, up to a shift, and it fills it evenly. From
# a random start it leaves holes, and colours meet that should not. In the plane, colours change
# abruptly across slits: these are the tears.
#
# The decoder turns every point of the square into a picture. Follow a row from the left edge to
# the right one: it goes on at the opposite height.

# %%
figure, ax = plt.subplots(figsize=(4.2, 7.2))
grid = square_grid(klein, columns=7, rows=14)
with torch.no_grad():
    decoded = pairs["Klein bottle, aligned start"][0].decoder(grid).sigmoid()
decoded = decoded.unflatten(-1, (size, size)).flip(-2)  # v runs upwards
draw_fundamental_square(ax, klein)
draw_patches_on_square(ax, grid, decoded - 0.5, size=0.38, cmap="gray_r")
ax.set_title("decoded pictures")
plt.show()

# %% [markdown]
# ## The exact density, and the bound on the cover
#
# The divergence of the guide from the prior can be charged on the Klein bottle, where densities
# sum over the fibre, or on a cover, where they do not. Projecting both laws to $K$ can only bring
# them nearer:
#
# $$\mathrm{KL}_K(\pi_* q \,\|\, \pi_* p) \le \mathrm{KL}_{\text{cover}}(q \,\|\, p).$$
#
# The ELBO on the cover is therefore valid, and never the tighter one.
# `CoveringReparam` moves the site there. We score the same trained pair with the same draws,
# under two priors: the uniform one, on $K$ and on the torus that covers it twice; and a normal
# law in the middle of the square, wrapped on $K$ and in the plane (Beketov and Snopov, 2026,
# [arXiv 2604.23804](https://arxiv.org/abs/2604.23804)).


# %%
def on_cover(pair, reparam):
    return [poutine.reparam(fn, config={"z": reparam}) for fn in pair]


model, guide = pair = pairs["Klein bottle, aligned start"]
periods = torch.tensor(klein.periods)
normal_prior = WrappedNormal(klein, 0.5 * periods, math.sqrt(0.1) * periods)

torus = CoveringReparam(klein.orientation_covering)
gap = score(*on_cover(pair, torus))[0] - score(*pair)[0]
print(f"uniform prior, -ELBO on K:        {score(*pair)[0]:.3f}")
print(f"uniform prior, -ELBO on torus:    {score(*on_cover(pair, torus))[0]:.3f}")
print(f"   difference {gap:.3f}, which is at most log 2 = {math.log(2):.3f}")

model.prior = normal_prior
print(f"normal prior, -ELBO on K:         {score(*pair)[0]:.3f}")
print(f"normal prior, -ELBO on the plane: {score(*on_cover(pair, CoveringReparam()))[0]:.3f}")
model.prior = ManifoldUniform(klein)

# %% [markdown]
# On the torus, the bound misses the exact value by $\log 2$: the posterior is narrow, and the
# torus cannot know that both sheets are one. In the plane it also depends on which of infinitely
# many coordinates the encoder picks for one and the same posterior:

# %%
with torch.no_grad():
    q = guide.posterior(x_test[0])
    z = q.sample((4_000,))
    for turns in range(3):
        loc = q.loc + torch.tensor([turns * math.pi, 0.0])
        loc = loc * torch.tensor([1.0, (-1.0) ** turns])  # the same point of K
        lifted = WrappedNormal(klein, loc, q.scale)
        exact = (lifted.log_prob(z) - normal_prior.log_prob(z)).mean()
        bound = covering_kl_bound(lifted, normal_prior)
        print(f"{turns} turns: KL on K {exact:.3f}, bound in the plane {bound:.3f}")

# %% [markdown]
# ## Is the topology right?
#
# A good likelihood does not prove a good code. Persistent homology looks at the codes as a set of
# points with distances, and counts the loops and voids that last. The Klein bottle has the Betti
# numbers $(1, 2, 1)$ over the field with two elements and $(1, 1, 0)$ over that with three: twice
# round one of its loops is a boundary, and over the second field once round it is one too. The
# torus has $(1, 2, 1)$ over both.
#
# We thin the codes to evenly spread landmarks, and count what is alive at the scale 0.8.


# %%
def thinned(distances, number=NUM_LANDMARKS):
    chosen = farthest_point_indices(distances, number)
    return distances[chosen][:, chosen]


def klein_distances(points):
    return klein.dist(points.unsqueeze(1), points)


def code_distances(name):
    code = codes(name)
    return torch.cdist(code, code) if name == "plane" else klein_distances(code)


truth = thinned(klein_distances(test.points))
matrices = {name: thinned(code_distances(name)) for name in pairs}
for name, matrix in {"true centres": truth, **matrices}.items():
    if name != "plane":
        numbers = [betti_numbers(matrix, coeff=coeff, scale=0.8) for coeff in (2, 3)]
        print(f"{name:<28} over Z2 {numbers[0]}, over Z3 {numbers[1]}")

# %% [markdown]
# `topology_score` needs no scale, and so serves for the plane too: it normalises the distances and
# takes the mean bottleneck distance to the diagrams of the true centres. Zero is best. We read
# it next to codes whose quality is known.

# %%
other = klein_circles(NUM_TEST, 2, seed=3).points
known = {
    "another uniform sample of K": klein_distances(other),
    "half of K": klein_distances(other * torch.tensor([0.5, 1.0])),
    "a square, nothing glued": torch.cdist(other, other),
}
known = {f"({name})": thinned(matrix) for name, matrix in known.items()}
for name, matrix in {**matrices, **known}.items():
    print(f"{name:<32}{topology_score(matrix, truth).mean:.3f}")

# %% [markdown]
# The code from the aligned start scores like a second sample of the Klein bottle itself. The plane
# scores like a square of which nothing is glued.
#
# Here are the longest bars. A bar is a loop or a void; it begins at the scale where it
# appears and ends where it is filled. The void over the field with three elements is none of the
# Klein bottle: it appears only where the long loops are filled. The code has both patterns.

# %%
shown = {"true centres": truth, **{k: v for k, v in matrices.items() if "random" not in k}}
figure, axes = plt.subplots(2, len(shown), figsize=(8.5, 3.6), sharex=True)
for column, (name, matrix) in zip(axes.T, shown.items(), strict=True):
    matrix = matrix / matrix[matrix > 0].quantile(0.9)
    for ax, coeff in zip(column, (2, 3), strict=True):
        diagrams, height = persistence(matrix, coeff=coeff), 0
        for bars, color in zip(diagrams[1:], ("tab:blue", "tab:red"), strict=True):
            longest = (bars[:, 1] - bars[:, 0]).argsort(descending=True)[:8]
            for birth, death in bars[longest].tolist():
                ax.plot((birth, death), (height, height), color=color, linewidth=3)
                height -= 1
        ax.set_yticks([])
        ax.spines[["top", "left", "right"]].set_visible(False)
    column[0].set_title(name, fontsize=9)
    column[1].set_xlabel("scale / 90 % quantile of distances")
for ax, coeff in zip(axes[:, 0], (2, 3), strict=True):
    ax.set_ylabel(f"over Z{coeff}")
for color, label in (("tab:blue", "loops"), ("tab:red", "voids")):
    axes[0, 2].plot([], [], color=color, linewidth=3, label=label)
axes[0, 2].legend(frameon=False, loc="center right")
plt.show()

# %% [markdown]
# Last, the tears. We move each held-out centre by 0.05 radians in a random direction, draw both
# pictures, and count how often their codes jump: by more than a quarter of the 90 % quantile
# of all distances between codes.


# %%
def tears(name, step=0.05):
    manifold = recipes[name][0]
    torch.manual_seed(2)
    angle = 2 * math.pi * torch.rand(NUM_TEST)
    moved = test.points + step * torch.stack([angle.cos(), angle.sin()], -1)
    fractions = moved / torch.tensor([math.pi, 2 * math.pi])
    code = codes(name)
    after = codes(name, klein_circle(*fractions.T, size).flatten(1))
    size_of_code = manifold.dist(code[:500, None], code[:500]).quantile(0.9)
    return (manifold.dist(code, after) > 0.25 * size_of_code).float().mean().item()


for name in pairs:
    print(f"{name:<28} tiny steps that jump: {100 * tears(name):.2f} %")

# %% [markdown]
# ## What to take home
#
# - A site on a manifold is an ordinary Pyro site: `ManifoldUniform` in the model, `WrappedNormal`
#   in the guide, `embed` in front of the decoder, `unembed` at the end of the encoder.
# - The right manifold needs the right start. `align_to_manifold` finds it without labels where the
#   leading principal components show the topology, and its residual ranks the candidates.
# - `Trace_ELBO` charges the exact divergence. A cover is a valid bound, and a looser one.
# - Check the topology: the likelihood alone does not show it.
