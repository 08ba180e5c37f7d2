"""Complex networks: phases go through without biases, and data may have any shape."""

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO
from torch.testing import assert_close

from pyro_manifolds.geometry import kahler_defect
from pyro_manifolds.nn import (
    ComplexDecoder,
    ComplexEncoder,
    ComplexGuide,
    ComplexModel,
    GaussianNoise,
    ModulusGate,
)

SHAPE = (2, 5)


def pair(bias=False):
    torch.manual_seed(0)
    options = {"hidden": (8, 8), "bias": bias}
    decoder, encoder = ComplexDecoder(3, SHAPE, **options), ComplexEncoder(3, SHAPE, **options)
    model = ComplexModel(3, SHAPE, decoder=decoder, likelihood=GaussianNoise(0.5))
    return model, ComplexGuide(3, SHAPE, encoder=encoder)


@pytest.mark.parametrize("bias", [False, True])
def test_a_phase_goes_through_networks_without_biases(bias):
    model, guide = pair(bias)
    x = torch.randn(5, *SHAPE, dtype=torch.cfloat)
    turn = torch.polar(torch.tensor(1.0), torch.tensor(0.7))
    q, turned = guide.posterior(x).base_dist, guide.posterior(turn * x).base_dist
    pairs = [
        (turned.loc, turn * q.loc),
        (turned.scale, q.scale),
        (model.decode(turn * q.loc).mean, turn * model.decode(q.loc).mean),
    ]
    assert all(torch.allclose(a, b, atol=1e-5) != bias for a, b in pairs)


def test_every_parameter_learns():
    model, guide = pair(bias=True)
    loss = TraceMeanField_ELBO()(model, guide)
    loss(torch.randn(7, *SHAPE, dtype=torch.cfloat)).backward()
    assert all(p.grad.abs().sum() > 0 for p in loss.parameters())


def test_gate_by_hand():
    gate = ModulusGate(1)
    gate.bias.data.fill_(-25.0)
    z = torch.tensor([[3 - 4j], [0j]]).requires_grad_()
    assert_close(gate(z).detach(), torch.tensor([[1.5 - 2j], [0j]]))
    gate(z).abs().square().sum().backward()
    assert torch.isfinite(torch.view_as_real(z.grad)).all()


def test_is_not_holomorphic():
    model, _ = pair()
    assert kahler_defect(model.decode, torch.randn(3, dtype=torch.cfloat)).pure > 1e-3
