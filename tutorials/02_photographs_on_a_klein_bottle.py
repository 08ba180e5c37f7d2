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
# # Photographs on a Klein bottle
#
# Small patches of photographs, taken where the contrast is high, are mostly edges and lines. An
# edge has an angle, and it can fade into a line and into the opposite edge. Carlsson, Ishkhanov,
# de Silva and Zomorodian
# ([2008](https://doi.org/10.1007/s11263-007-0056-x)) found that the most frequent patches of
# natural images, with these two degrees of freedom, form a Klein bottle.
#
# Here we take photographs that come with scikit-image, look at their patches, and fit densities
# whose latent points live on a Klein bottle, a torus, a sphere, a projective plane or a plane.
# Which one describes new photographs best? We report what comes out, next to densities that know
# nothing of manifolds.
#
# The budgets are small and there is one seed. `make demo` runs three seeds, for longer.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import torch
from matplotlib.colors import PowerNorm
from pyro import poutine
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule
from torch import nn
from torch.nn.functional import normalize

from pyro_manifolds import (
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    PowerSpherical,
    ProjectiveSpace,
    Sphere,
    Torus,
    WrappedNormal,
)
from pyro_manifolds.datasets import (
    TEST_PHOTOGRAPHS,
    TRAIN_PHOTOGRAPHS,
    patch_sphere,
    patch_to_sphere,
    photographs,
    sphere_to_patch,
)
from pyro_manifolds.demo.baselines import (
    angular_gaussian_log_prob,
    fit_angular_gaussian,
    fit_mixture,
    uniform_log_prob,
)
from pyro_manifolds.demo.training import fit
from pyro_manifolds.geometry import farthest_point_indices, persistence
from pyro_manifolds.infer import evidence_bounds
from pyro_manifolds.nn import InvariantFeatures, WrappedNormalHead
from pyro_manifolds.plotting import draw_fundamental_square, draw_patches_on_square, square_grid

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
NUM_TRAIN, NUM_TEST = (2_000, 300) if SMOKE else (20_000, 3_000)
STEPS, NUM_PARTICLES = (30, 16) if SMOKE else (1_500, 128)
NUM_CLOUD, NUM_LANDMARKS = (1_000, 60) if SMOKE else (10_000, 150)

pyro.settings.set(module_local_params=True)  # parameters stay in their modules
pyro.enable_validation(False)
plt.rcParams.update({"figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9})
klein = KleinBottle()

# %% [markdown]
# ## The data
#
# We split by photograph, since patches of one photograph overlap and share its light and lens.

# %%
names = ("astronaut", "brick", "coins", "coffee", "gravel", "motorcycle")
figure, axes = plt.subplots(1, len(names), figsize=(9, 1.7))
for ax, (name, image) in zip(axes, photographs(names).items(), strict=True):
    ax.imshow(image[::3, ::3], cmap="gray")
    ax.set_title(f"{name}, {'train' if name in TRAIN_PHOTOGRAPHS else 'test'}", fontsize=8)
    ax.axis("off")
print("train:", ", ".join(TRAIN_PHOTOGRAPHS))
print("test: ", ", ".join(TEST_PHOTOGRAPHS))

# %% [markdown]
# Of each photograph we take the logarithm and all its patches of 3 by 3 pixels, and keep the fifth
# with the highest contrast. We subtract the mean of a patch and divide by its contrast. What is
# left is a direction: a unit vector of $\mathbb{R}^8$ in a basis of cosines, a point of the sphere
# $S^7$. This is the recipe of Lee, Pedersen and Mumford
# ([2003](https://doi.org/10.1023/A:1023705401078)).

# %%
train = patch_sphere(TRAIN_PHOTOGRAPHS, NUM_TRAIN, seed=0)
test = patch_sphere(TEST_PHOTOGRAPHS, NUM_TEST, seed=0)
print("train:", tuple(train.shape), " test:", tuple(test.shape))

figure, axes = plt.subplots(3, 18, figsize=(9, 1.6))
for ax, patch in zip(axes.flat, sphere_to_patch(test), strict=False):
    ax.imshow(patch, cmap="gray", vmin=-patch.abs().max(), vmax=patch.abs().max())
    ax.axis("off")

# %% [markdown]
# ## The family of filters that forms a Klein bottle
#
# Take a direction $t_1$ in the plane of the patch, and mix an odd profile with an even one by
# a phase $t_2$:
#
# $$F_{t_1, t_2}(x, y) = \sin t_2 \cdot s + \cos t_2 \cdot (2 s^2 - 1), \qquad
#   s = x \cos t_1 + y \sin t_1 .$$
#
# Half a turn changes the sign of $s$, hence of the odd part only:
# $F_{t_1 + \pi,\, t_2} = F_{t_1,\, -t_2}$. This is the gluing of `KleinBottle()`. Edges sit at
# $t_2 = \pm \pi/2$, lines at $t_2 = 0$ and $\pi$.

# %%
pixel = torch.tensor([-2 / 3, 0.0, 2 / 3])


def klein_filter(z):
    """Return the filters at points of the Klein bottle, shape (..., 3, 3)."""
    t1, t2 = z[..., 0, None, None], z[..., 1, None, None]
    s = pixel * t1.cos() - pixel[:, None] * t1.sin()  # the rows of an image run downwards
    return t2.sin() * s + t2.cos() * (2 * s**2 - 1)


z = torch.tensor([0.4, 1.0])
same = torch.tensor([0.4 + torch.pi, -1.0])
print("one filter at both:", torch.allclose(klein_filter(z), klein_filter(same), atol=1e-6))

figure, ax = plt.subplots(figsize=(3.0, 4.6))
grid = square_grid(klein, columns=7, rows=14)
filters = klein_filter(grid)
draw_fundamental_square(ax, klein)
draw_patches_on_square(ax, grid, filters - filters.mean((-1, -2), keepdim=True), size=0.36)
ax.set_title("the family $F$")

# %% [markdown]
# How near to this surface do the patches lie? For each patch we take the angle on $S^7$ to the
# nearest member of the family. There are two controls: uniform points of the sphere, and a
# Gaussian with the covariance structure of the training patches, projected on the sphere. The
# second knows how smooth patches are, and nothing of edges.

# %%
surface = patch_to_sphere(klein_filter(square_grid(klein, columns=40, rows=80))).reshape(-1, 8)
shape = fit_angular_gaussian(train)


def angles_to(points, x):
    """Return the angle from each row of x to the nearest of the points, in degrees."""
    return torch.rad2deg((x @ points.mT).amax(-1).clamp(max=1).acos())


torch.manual_seed(0)
clouds = {
    "training patches": train[:NUM_TEST],
    "test patches": test,
    "projected Gaussian": normalize(
        torch.randn(NUM_TEST, 8) @ torch.linalg.cholesky(shape).mT.float(), dim=-1
    ),
    "uniform": normalize(torch.randn(NUM_TEST, 8), dim=-1),
}
print(f"{'':<20}{'median angle':>14}{'within 29 degrees':>20}")
for name, cloud in clouds.items():
    angles = angles_to(surface, cloud)
    print(f"{name:<20}{angles.median():>14.1f}{(angles < 29).float().mean():>20.3f}")

# %% [markdown]
# ## A density on the sphere with a latent point on a manifold
#
# We do not give the family away. The model learns a surface in $S^7$ by itself: a latent point
# $z$ of a manifold, a network that reads the embedding of $z$, and a law on the sphere round its
# output,
#
# $$z \sim \text{Uniform}(M), \qquad x \mid z \sim \text{PowerSpherical}(\mu(z), \kappa(z)).$$
#
# On the plane the prior is a standard normal. The manifold is the only difference between the runs.

# %%
def network(inputs, outputs, hidden=64):
    layers = [nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU()]
    return nn.Sequential(*layers, *([nn.Linear(hidden, outputs)] if outputs else []))


class Model(PyroModule):
    def __init__(self, manifold):
        super().__init__()
        self.manifold = manifold
        self.prior = (
            ManifoldUniform(manifold)
            if manifold.is_compact
            else WrappedNormal(manifold, torch.zeros(manifold.dim), 1.0)  # the normal itself
        )
        features = InvariantFeatures(manifold)
        self.decoder = nn.Sequential(features, network(features.out_features, 9))
        nn.init.constant_(self.decoder[-1][-1].bias[-1:], 2.0)  # log-concentration

    def decode(self, z):
        out = self.decoder(z)
        return PowerSpherical(normalize(out[..., :-1], dim=-1), out[..., -1].exp())

    def forward(self, x, kl_weight=1.0):
        with pyro.plate("data", len(x), dim=-1):
            with poutine.scale(scale=kl_weight):
                z = pyro.sample("z", self.prior)
            pyro.sample("x", self.decode(z), obs=x)


class Guide(PyroModule):
    def __init__(self, manifold):
        super().__init__()
        self.encoder = nn.Sequential(network(8, 0), WrappedNormalHead(64, manifold))

    def forward(self, x, kl_weight=1.0):
        with pyro.plate("data", len(x), dim=-1), poutine.scale(scale=kl_weight):
            pyro.sample("z", self.encoder(x))


# %% [markdown]
# `fit` is the loop of the first tutorial, as a function: Adam, a step size that falls along a half
# cosine, and a weight of the prior and the guide that rises from zero to one.

# %%
manifolds = {
    "Klein bottle": KleinBottle(),
    "torus": Torus(2),
    "sphere": Sphere(2),
    "projective plane": ProjectiveSpace(2),
    "plane": Euclidean(2),
}


def bounds(model, guide, x):
    chunks = [evidence_bounds(model, guide, c, num_particles=NUM_PARTICLES) for c in x.split(500)]
    return [torch.cat([getattr(c, name) for c in chunks]).mean().item() for name in ("elbo", "iwae")]


trained, rows = {}, []
for name, manifold in manifolds.items():
    torch.manual_seed(0)
    model, guide = trained[name] = Model(manifold), Guide(manifold)
    fit(
        Trace_ELBO()(model, guide),
        train,
        steps=STEPS,
        batch_size=512,
        learning_rate=6e-3,
        seed=0,
        warmup=STEPS // 4,
        progress=False,
    )
    size = sum(p.numel() for p in model.parameters())
    rows.append((name, size, *bounds(model, guide, test), bounds(model, guide, train[:NUM_TEST])[1]))
