import pytest
import torch
from pyro.ops.provenance import get_provenance, track_provenance
from torch.autograd import grad, gradcheck, gradgradcheck
from torch.testing import assert_close

from pyro_manifolds.ops.chords import squared_chord


@pytest.mark.parametrize("shapes", [((3, 4), (3, 4)), ((2, 1, 4), (3, 4)), ((4,), (2, 4))])
def test_values_and_derivatives_agree_with_the_definition(shapes):
    torch.manual_seed(0)
    x, y = (torch.randn(s, dtype=torch.float64, requires_grad=True) for s in shapes)
    found, expected = squared_chord(x, y), (x - y).square().sum(-1)
    assert_close(found, expected)
    weights = torch.rand_like(found)
    slopes = [grad((weights * square).sum(), [x, y]) for square in (found, expected)]
    assert_close(*slopes)
    assert gradcheck(squared_chord, [x, y])
    assert gradgradcheck(squared_chord, [x, y])


def test_equal_points_have_zero_gradients():
    x = torch.randn(3, requires_grad=True)
    assert not grad(squared_chord(x, x.detach().clone()), x)[0].any()


def test_vmap_of_gradients():
    x, y = torch.randn(2, 5, 3, dtype=torch.float64)
    mapped = torch.vmap(torch.func.grad(squared_chord, argnums=(0, 1)))(x, y)
    assert_close(mapped, (2 * (x - y), 2 * (y - x)))


def test_tensors_that_record_their_origin_keep_it_and_their_gradient():
    x, y = torch.randn(2, 3, requires_grad=True)
    found = squared_chord(track_provenance(x, frozenset({"x"})), y)
    assert get_provenance(found) == {"x"}
    assert_close(torch.stack(grad(found, [x, y])), torch.stack([2 * (x - y), 2 * (y - x)]))
