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
# # Learned embeddings
#
# Sometimes a manifold is known only by samples: a cloud of points, no formula. If a smooth map $f$
# of a cube goes through the cloud once, and carries the uniform law to the law of the cloud, then
# any law $q$ on the cube becomes one on the manifold, and divergences are free:
#
# $$\mathrm{KL}(f_\# q \,\|\, f_\# p) = \mathrm{KL}(q \,\|\, p).$$
#
# This is the embedding-reparameterisation of
# [Golikov and Kretov (2018)](https://arxiv.org/abs/1812.02769), who learn $f$ as the decoder of a
# Wasserstein auto-encoder. We learn one from a cloud, look at what it misses, and put it into a
# variational auto-encoder.

# %%
import os

import matplotlib.pyplot as plt
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import SVI, TraceMeanField_ELBO
from torch import nn, pi
from torch.distributions import kl_divergence

from pyro_manifolds import EmbeddingPushforward
from pyro_manifolds.distributions.transforms import fit_embedding
from pyro_manifolds.nn import diagnose_embedding
from pyro_manifolds.plotting import draw_embedding

SMOKE = "CI" in os.environ  # tiny sizes, to test that everything runs
STEPS = 60 if SMOKE else 3000
SVI_STEPS = 20 if SMOKE else 2000
SIZE = 300 if SMOKE else 3000

plt.rcParams.update({"figure.dpi": 100, "figure.constrained_layout.use": True, "font.size": 9})
pyro.set_rng_seed(0)

# %% [markdown]
# ## A cloud
#
# A closed curve in space, with a little noise and with more points on one side than on the other.
# Nothing that follows knows the formula.


# %%
def draw_cloud(count):
    t = 2 * pi * torch.rand(count)
    t = t + 0.4 * t.sin()
    curve = torch.stack([t.cos(), t.sin(), 0.4 * (2 * t).cos()], -1)
    return curve + 0.002 * torch.randn_like(curve)


cloud, fresh = draw_cloud(SIZE), draw_cloud(SIZE // 4)

# %% [markdown]
# ## The recipe of the source, and another
#
# A Wasserstein auto-encoder has an encoder, a continuous one, and a closed curve cannot be mapped
# to an interval continuously without a fold. Something must give: with `tanh` the map may settle
# in a fold, which crosses the middle; with SiLU the encoder runs back through the interval on a
# short arc, and the decoder leaves a gap there.
#
# `method="matched"`, the default, has no network that encodes. It cuts the cloud open where
# shortest paths from a random centre end, and lays it flat; then it matches codes to samples by
# optimal transport, teaches the decoder the pairs, and matches again. The inverse is found by
# Gauss-Newton from the nearest of a table of codes, and may jump.

# %%
recipes = {
    "WAE-MMD, tanh": {"method": "wae", "activation": "tanh", "learning_rate": 3e-3},
    "WAE-MMD, SiLU": {"method": "wae", "learning_rate": 3e-3},
    "matched codes": {},
}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
print(f"{'':<16}{'coverage':>10}{'overlap':>10}{'off the cloud':>15}")
for ax, (name, settings) in zip(axes, recipes.items(), strict=True):
    batch = 128 if settings else 512
    embedding = fit_embedding(
        cloud, 1, steps=STEPS, batch_size=batch, restarts=0, progress=False, warn=False, **settings
    )
    found = diagnose_embedding(embedding, fresh, warn=False)
    draw_embedding(ax, embedding, fresh, diagnostics=found)
    ax.set_title(name)
    print(f"{name:<16}{found.coverage:>10.1%}{found.collisions:>10.1%}{found.strays:>15.1%}")
axes[-1].legend(fontsize=8, markerscale=2)
plt.show()

# %% [markdown]
# Colours run along the interval, and a sample is missed if the image is farther from it than
# samples are from one another. `embedding` is now the last of the three. A fit warns if the image
# folds, misses a part or lies beside the cloud, and this is all that it looks at:

# %%
print(found)

# %% [markdown]
# The seam is where both ends of the interval meet. No smooth map of an interval onto a closed
# curve does without: it costs nothing in the density, but an encoder that is to be continuous must
# not cross it, and a law with one mode cannot straddle it.
#
# ## Densities and divergences
#
# `EmbeddingPushforward` has the density with respect to length, here of a Beta law. The two
# divergences are one number, since the map is the same object in both; a copy of the map is
# another map.

# %%
prior = EmbeddingPushforward(embedding.prior(), embedding)
base = dist.Beta(torch.tensor(20.0), torch.tensor(40.0)).expand([1]).to_event(1)
q = EmbeddingPushforward(base, embedding)
draws = q.rsample((5000,))
estimate = (q.log_prob(draws) - prior.log_prob(draws)).mean()
print(f"divergence on the curve     {kl_divergence(q, prior):.6f}")
print(f"divergence on the interval  {kl_divergence(base, embedding.prior()):.6f}")
print(f"estimate from 5000 draws    {estimate:.6f}")

# %% [markdown]
# ## A latent on the learned curve
#
# Data in twenty dimensions, a fixed function of points of the curve. The encoder gives a Beta law
# on the interval; the decoder sees only points of the curve. `TraceMeanField_ELBO` uses the exact
# divergence.

# %%
torch.manual_seed(0)
mixing = torch.randn(3, 40) / 3**0.5, torch.randn(40, 20) / 40**0.5
data = (draw_cloud(SIZE) @ mixing[0]).relu() @ mixing[1]
data = data + 0.1 * torch.randn_like(data)


class VAE(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding = embedding
        self.encoder = nn.Sequential(nn.Linear(20, 64), nn.SiLU(), nn.Linear(64, 2))
        self.decoder = nn.Sequential(nn.Linear(3, 64), nn.SiLU(), nn.Linear(64, 20))

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", len(x)):
            law = self.embedding.prior().expand([len(x)])
            y = pyro.sample("y", EmbeddingPushforward(law, self.embedding))
            pyro.sample("x", dist.Normal(self.decoder(y), 0.1).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        mean, size = self.encoder(x).split(1, -1)
        mean, size = mean.sigmoid(), 100 * size.clamp(-6, 6).exp()
        law = dist.Beta(1 + mean * size, 1 + (1 - mean) * size).to_event(1)
        with pyro.plate("data", len(x)):
            pyro.sample("y", EmbeddingPushforward(law, self.embedding))


pyro.clear_param_store()
vae = VAE(embedding)
svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 3e-3}), TraceMeanField_ELBO())
losses = []
for _ in range(SVI_STEPS):
    batch = data[torch.randint(len(data), (128,))]
    losses.append(svi.step(batch) / 128)
window = max(1, SVI_STEPS // 20)
print(f"minus the ELBO per datum, first {sum(losses[:window]) / window:.2f}, ", end="")
print(f"last {sum(losses[-window:]) / window:.2f}")
trained = sum(p.requires_grad for p in embedding.parameters())
print(f"parameters of the embedding that were trained: {trained}")

# %% [markdown]
# Where along the curve do the images go, and where does the guide fail? At the seam, where
# neighbours in the data have codes near 0 and near 1. The encoder is continuous, and runs through
# all codes in between.

# %%
with torch.no_grad():
    mean = vae.encoder(data)[:, :1].sigmoid()
    error = (vae.decoder(embedding(mean)) - data).square().mean(-1).sqrt()
    seam = error > error.quantile(0.97)
figure, ax = plt.subplots(figsize=(6, 2.6))
ax.scatter(mean[:, 0], error, s=3, color="0.6")
ax.scatter(mean[seam, 0], error[seam], s=6, color="tab:red", label="largest 3 %")
ax.axhline(0.1, color="black", lw=0.8, label="noise")
ax.set(xlabel="code", ylabel="error of an image", ylim=(0, None))
ax.legend(fontsize=8)
plt.show()
print(f"median error {error.median():.3f}, largest 3 %: {error[seam].mean():.3f}, noise 0.1")
