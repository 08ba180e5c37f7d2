"""The decoder of the reference values, of two complex latents and four outputs."""

import pyro.distributions as dist
import torch

from pyro_manifolds.distributions import ComplexNormal

Z = torch.tensor([0.3 - 0.4j, -0.2 + 0.5j], dtype=torch.complex128)


def mean(z, holomorphic=False):
    a, b = z.unbind(-1)
    second = a * b * b if holomorphic else a * b.conj()
    return torch.stack([a * a + b, second, (a / 2 - b).exp(), a.sin() * b], -1)


def scale(z, learned):
    exponent = 0.1 * learned * torch.arange(1.0, 5.0).to(z.real)
    return (exponent * z[..., 1:].real).exp()


def logits(z, holomorphic=False):
    m = mean(z, holomorphic)
    return m.real + m.imag


DECODERS = {
    "CN, hol, const": lambda z: ComplexNormal(mean(z, True), scale(z, 0)).to_event(1),
    "CN, m, const": lambda z: ComplexNormal(mean(z), scale(z, 0)).to_event(1),
    "CN, m, learned l": lambda z: ComplexNormal(mean(z), scale(z, 1)).to_event(1),
    "real normal, const": lambda z: dist.Normal(mean(z).real, scale(z, 0)).to_event(1),
    "real normal, learned l": lambda z: dist.Normal(mean(z).real, scale(z, 1)).to_event(1),
    "Bernoulli, m": lambda z: dist.Bernoulli(logits=logits(z)).to_event(1),
    "Bernoulli, hol": lambda z: dist.Bernoulli(logits=logits(z, True)).to_event(1),
}
