"""The uniform law: density, dtype, draws and what has none."""

import math

import pyro
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Euclidean,
    KleinBottle,
    ManifoldUniform,
    MoebiusBand,
    Product,
    Sphere,
    Torus,
)

VOLUMES = {
    Circle(): 2 * math.pi,
    Torus(2): 4 * math.pi**2,
    KleinBottle(): 2 * math.pi**2,
    MoebiusBand(0.5): math.pi,
    Sphere(2): 4 * math.pi,
    SO3(): math.pi**2,
    Product(Circle(), Sphere(2)): 8 * math.pi**2,
}
volumes = pytest.mark.parametrize(("manifold", "volume"), VOLUMES.items(), ids=map(repr, VOLUMES))


@volumes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_density_is_one_over_the_volume_in_the_dtype_of_the_value(manifold, volume, dtype):
    law = ManifoldUniform(manifold, dtype=dtype)
    y = law.sample((5,))
    expected = torch.full((5,), -math.log(volume), dtype=dtype)
    assert y.dtype == dtype
    assert_close(law.log_prob(y), expected)
    assert_close(law.entropy(), -expected[0])


@volumes
def test_draws_are_points_of_plain_tensors_with_a_mean_embedding_of_symmetry(manifold, volume):
    y = ManifoldUniform(manifold).sample((10_000,))
    assert type(y) is torch.Tensor
    assert manifold.contains(y).all()
    # These embeddings average to zero over the manifold.
    features = manifold.embed(y)
    error = features.std(0) / 100
    assert (features.mean(0).abs() < 4.5 * error + 1e-6).all()
    assert volume == pytest.approx(manifold.volume)


@volumes
def test_batch_shapes_expand_and_broadcast(manifold, volume):
    law = ManifoldUniform(manifold).expand((4,))
    y = law.rsample((3,))
    assert y.shape == (3, 4, *manifold.event_shape)
    assert law.log_prob(y).shape == (3, 4)
    assert law.log_prob(y[0, 0]).shape == (4,)
    assert law.entropy().shape == (4,)
    assert law.to_event(1).log_prob(y).shape == (3,)
    assert law.mask(False).log_prob(y).eq(0).all()
    assert_close(law.entropy()[0].exp(), torch.tensor(volume), rtol=1e-6, atol=0)


def test_values_off_the_manifold_are_refused_under_validation_only():
    law = ManifoldUniform(Sphere(2))
    with pytest.raises(ValueError, match=r"on_manifold\(Sph\(2\)\)"):
        law.log_prob(torch.tensor([0.0, 0.0, 2.0]))
    free = ManifoldUniform(Sphere(2), validate_args=False)
    assert free.log_prob(torch.tensor([0.0, 0.0, 2.0])).isfinite()


@pytest.mark.parametrize("manifold", [Euclidean(2), MoebiusBand(math.inf)], ids=repr)
def test_an_infinite_volume_has_no_uniform_law(manifold):
    with pytest.raises(ValueError, match="expected a manifold of finite volume"):
        ManifoldUniform(manifold)
    with pytest.raises(ValueError, match="the volume is infinite"):
        manifold.random_uniform(3, 2)


def test_follows_the_default_dtype_and_samples_in_a_plate():
    with pyro.plate("data", 3):
        y = pyro.sample("y", ManifoldUniform(KleinBottle()))
    assert y.shape == (3, 2)
    torch.set_default_dtype(torch.float64)
    assert ManifoldUniform(KleinBottle()).sample().dtype == torch.float64
