"""Script for ``torchrun``: train small models, and write what came of it in each process."""

import sys
from pathlib import Path
from unittest import mock

import pyro
import pyro.distributions as dist
import torch
from pyro.infer import Trace_ELBO
from pyro.nn import PyroModule

from pyro_manifolds import KleinBottle, ManifoldUniform, PowerSpherical, WrappedNormal
from pyro_manifolds.demo import training
from pyro_manifolds.demo.distributed import process_group, rank
from pyro_manifolds.demo.model import SphereGuide, SphereModel
from pyro_manifolds.demo.training import fit
from pyro_manifolds.nn.checkpoints import save_checkpoint

KLEIN = KleinBottle()
OPTIONS = {"steps": 12, "learning_rate": 0.03, "seed": 5, "warmup": 4, "progress": False}


class Model(PyroModule):
    """Points of a Klein bottle, decoded; a row is a datum and the noise for its latent point."""

    def __init__(self):
        super().__init__()
        self.decoder = torch.nn.Linear(KLEIN.embed_dim, 3, dtype=torch.float64)

    def forward(self, rows, kl_weight):
        with pyro.plate("data", len(rows)):
            with pyro.poutine.scale(scale=kl_weight):
                z = pyro.sample("z", ManifoldUniform(KLEIN, dtype=rows.dtype))
            x = self.decoder(KLEIN.embed(z))
            pyro.sample("x", dist.Normal(x, 0.5).to_event(1), obs=rows[:, :3])


class Guide(PyroModule):
    """Wrapped normal that takes its noise from the row, so that a share of a batch has its own."""

    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(3, 4, dtype=torch.float64)

    def forward(self, rows, kl_weight):
        loc, scale = self.encoder(rows[:, :3]).tensor_split(2, -1)
        z = KLEIN.projx(loc + scale.exp() * rows[:, 3:])
        law = WrappedNormal(KLEIN, loc, scale.exp())
        with pyro.plate("data", len(rows)), pyro.poutine.scale(scale=kl_weight):
            pyro.sample("z", dist.Delta(z, log_density=law.log_prob(z), event_dim=1))


class RecordingGuide(SphereGuide):
    def forward(self, x, kl_weight=1.0):
        self.drawn = super().forward(x, kl_weight)
        return self.drawn


def train_with_noise_in_rows(**options):
    torch.manual_seed(rank())  # the parameters of the first process count
    elbo = Trace_ELBO()(Model(), Guide())
    generator = torch.Generator().manual_seed(2)
    rows = torch.randn(50, 5, dtype=torch.float64, generator=generator)
    history = fit(elbo, rows, **{**OPTIONS, **options})
    return {"history": history, "modules": elbo.state_dict()}


def train_with_noise_of_its_own():
    torch.manual_seed(2)
    data = PowerSpherical(torch.eye(8)[0], 5.0).sample((64,))
    elbo = Trace_ELBO()(SphereModel(KLEIN, hidden=8), RecordingGuide(KLEIN, hidden=8))
    options = {**OPTIONS, "steps": 300, "learning_rate": 0.01}
    history = fit(elbo, data, batch_size=32, **options)
    drawn = elbo.guide.drawn.detach()
    return {"history": history, "modules": elbo.state_dict(), "drawn": drawn}


def save_each(path, identity, state):
    """Write each checkpoint to a file of its own, numbered by steps."""
    save_checkpoint(path.with_stem(f"{path.stem}-{len(state['history'])}"), identity, state)


def main(folder):
    """Train on even and uneven shares, go on from a checkpoint, train with noise."""
    checkpoints = {"checkpoint": folder / "uneven.pt", "checkpoint_every": 5}
    resumed = {"checkpoint": folder / "interrupted.pt", "resume": True}
    with mock.patch.object(training, "save_checkpoint", save_each):
        results = {
            "even": train_with_noise_in_rows(batch_size=16),
            "uneven": train_with_noise_in_rows(batch_size=7, **checkpoints),
            "resumed": train_with_noise_in_rows(batch_size=7, **resumed),
            "noisy": train_with_noise_of_its_own(),
        }
    torch.save(results, folder / f"results-{rank()}.pt")


if __name__ == "__main__":
    with pyro.settings.context(module_local_params=True), process_group():
        main(Path(sys.argv[1]))
