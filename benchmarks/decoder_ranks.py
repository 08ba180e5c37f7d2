"""What stands in for the volume of a decoder: does it rank latents as the volume does?

Run as ``python -m benchmarks.decoder_ranks``: VAEs of four complex latents on grey digits, as in
the experiment on samples of ``benchmarks.complex_vae``, at held-out codes and at the prior.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence

import pyro
import torch
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks.complex_vae import fit
from benchmarks.complex_vae_data import digits
from pyro_manifolds.geometry import EncoderPrecisionProxy, LogSumExpPotential, log_volume
from pyro_manifolds.nn import ComplexGuide, ComplexModel, GaussianNoise

__all__ = ["main", "ranks"]

_NUM_CODES = 512  # that a stand-in is made of


def ranks(seed: int, epochs: int, num_train: int = 1400) -> dict[str, float]:
    """Train a VAE, and return rank correlations with the exact volume."""
    data = digits(num_train)
    torch.manual_seed(seed)
    model = ComplexModel(4, (64,), likelihood=GaussianNoise(0.15, learn=False))
    guide = ComplexGuide(4, (64,))
    steps = epochs * math.ceil(len(data.train) / 128)
    fit(model, guide, [model, guide], data.train, 128, steps, f"ranks, {seed}")
    with torch.no_grad():
        codes = guide.posterior(data.train[:_NUM_CODES]).base_dist
        proxy = EncoderPrecisionProxy(codes.loc, codes.scale)
        plus = LogSumExpPotential("plus", proxy.loc, precision_diag=proxy.scale**-2)
        contenders: dict[str, Callable[[Tensor], Tensor]] = {
            "encoder precision": proxy.log_det,
            "plus potential": plus.log_det,
            "-|z|^2": lambda z: -torch.view_as_real(z).square().sum((-1, -2)),
        }
        places = {
            "codes": guide.posterior(data.test).sample(),
            "prior": model.prior.sample((400,)),
        }
        return {
            f"{name}, {place}": float(
                spearmanr(log_volume(model.decode, z), contender(z)).statistic
            )
            for place, z in places.items()
            for name, contender in contenders.items()
        }


def main(arguments: Sequence[str] | None = None) -> None:
    """Print mean and standard deviation over seeds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoder_ranks", description=__doc__
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--train", type=int, default=1400, help="number of digits to train on")
    options = parser.parse_args(arguments)
    with pyro.validation_enabled(False):
        found = [ranks(seed, options.epochs, options.train) for seed in options.seeds]
    for name in found[0]:
        values = torch.tensor([one[name] for one in found])
        spread = f" ± {values.std().item():.2f}" if len(values) > 1 else ""
        print(f"{name}: {values.mean().item():.2f}{spread}")


if __name__ == "__main__":
    main()
