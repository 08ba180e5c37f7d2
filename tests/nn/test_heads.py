"""Heads: initial scales, continuity across seams, gradients and states."""

import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    Euclidean,
    KleinBottle,
    LensSpace,
    MoebiusBand,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
)
from pyro_manifolds.nn.heads import (
    InvariantFeatures,
    ManifoldHead,
    ScaleHead,
    WrappedNormalHead,
)

MANIFOLDS = [
    *(Circle(), Torus(3), KleinBottle(), MoebiusBand(0.5), Sphere(2), ProjectiveSpace(2), SO3()),
    *(LensSpace(5, 2), Product(KleinBottle(), Sphere(2)), Euclidean(2)),
]
manifolds = pytest.mark.parametrize("manifold", MANIFOLDS, ids=repr)


@manifolds
@pytest.mark.parametrize("init", [0.05, 0.3])
def test_scales_start_at_the_fraction_of_the_period(manifold, init):
    scale = ScaleHead(8, manifold, init)(torch.zeros(3, 8))
    expected = init * torch.tensor(manifold.periods).reshape(manifold.scale_shape)
    assert scale.shape == (3, *manifold.scale_shape)
    assert_close(scale[0], expected)


@manifolds
def test_scales_stay_between_zero_and_a_period_for_any_features(manifold):
    head = ScaleHead(8, manifold)
    scale = head(10 * torch.randn(100, 8))
    periods = torch.tensor(manifold.periods).reshape(manifold.scale_shape)
    assert ((scale > 0) & (scale < periods)).all()
    # Features of unit size move the initial scale little: weights of 0.1 / sqrt(features).
    usual = head(torch.randn(1000, 8)) / periods
    assert (usual.log() - math.log(0.05)).std() < 0.2


@manifolds
@pytest.mark.parametrize("batch", [(), (5,), (4, 5)])
def test_batch_shapes_pass_through(manifold, batch):
    q = WrappedNormalHead(8, manifold)(torch.randn(*batch, 8))
    assert q.batch_shape == batch
    assert q.event_shape == manifold.event_shape
    y = q.rsample()
    assert manifold.contains(y).all()
    assert q.log_prob(y).shape == batch
    assert InvariantFeatures(manifold)(y).shape == (
        *batch,
        InvariantFeatures(manifold).out_features,
    )


@pytest.mark.parametrize("manifold", [Circle(), KleinBottle(), MoebiusBand(2.0)], ids=repr)
def test_the_law_is_continuous_where_the_location_jumps(manifold):
    head = WrappedNormalHead(manifold.embed_dim, manifold, init_scale=0.2).double()
    with torch.no_grad():  # the ambient vector is the feature itself
        head.loc.linear.weight.copy_(torch.eye(manifold.embed_dim))
        head.loc.linear.bias.zero_()
    seam = math.pi if manifold == Circle() else 0.0
    step, value = 1e-7, manifold.random_uniform(50, *manifold.event_shape, dtype=torch.float64)
    if manifold.ndim:
        ends = [torch.tensor([seam + s, 0.7], dtype=torch.float64) for s in (-step, step)]
    else:
        ends = [torch.tensor(seam + s, dtype=torch.float64) for s in (-step, step)]
    before, after = (head(manifold.embed(end)) for end in ends)
    value = value.as_subclass(torch.Tensor)
    assert ((before.loc - after.loc).abs() > 1).any()  # the coordinates jump
    assert_close(before.log_prob(value), after.log_prob(value), rtol=0, atol=1e-4)


@manifolds
def test_gradients_are_finite_at_zero_weights_and_zero_features(manifold):
    head = WrappedNormalHead(4, manifold)
    with torch.no_grad():
        head.loc.linear.weight.zero_()
        head.loc.linear.bias.zero_()
    features = torch.zeros(3, 4, requires_grad=True)
    q = head(features)
    (q.rsample().sum() + q.log_prob(q.sample()).sum()).backward()
    for tensor in (features, *head.parameters()):
        assert tensor.grad.isfinite().all()


@manifolds
def test_state_round_trips_without_the_constants_of_the_manifold(manifold):
    first, second = WrappedNormalHead(4, manifold), WrappedNormalHead(4, manifold)
    features = torch.randn(3, 4)
    assert not torch.equal(first(features).loc, second(features).loc)
    second.load_state_dict(first.state_dict())
    assert_close(first(features).loc, second(features).loc)
    assert_close(first(features).scale, second(features).scale)
    assert not any("periods" in key for key in first.state_dict())


def test_heads_move_to_another_dtype_as_a_whole():
    head = WrappedNormalHead(4, KleinBottle()).double()
    q = head(torch.zeros(4, dtype=torch.float64))
    assert q.loc.dtype == q.scale.dtype == torch.float64


@pytest.mark.parametrize("init", [0.0, 1.0, -0.1, math.nan])
def test_an_initial_fraction_out_of_range_is_refused(init):
    with pytest.raises(ValueError, match=r"expected init in \(0, 1\)"):
        ScaleHead(4, Circle(), init)


@manifolds
def test_features_of_a_decoder_are_the_same_for_every_representative(manifold):
    y = ManifoldHead(4, manifold)(torch.randn(10, 4)).detach()
    covering = getattr(manifold, "orientation_covering", manifold.covering)
    lifts = covering.fibre(y)[:2]
    found = InvariantFeatures(manifold)(covering(lifts))
    assert_close(found, manifold.embed(y).expand_as(found), rtol=0, atol=1e-5)
