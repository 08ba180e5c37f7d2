"""Bad arguments raise at once, and say what to do."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_manifolds import (
    SO3,
    Circle,
    CoveringPushforward,
    CoveringReparam,
    Euclidean,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    MoebiusBand,
    PowerSpherical,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
    VonMises,
    WrappedNormal,
)
from pyro_manifolds.distributions import Concatenated, TangentNormal
from pyro_manifolds.nn import ScaleHead

NAN = math.nan
KLEIN, SPHERE, BAND = KleinBottle(), Sphere(2), MoebiusBand(0.5)
POLE = torch.tensor([0.0, 0.0, 1.0])


def zeros(*shape):
    return torch.zeros(*shape)


def wrapped(manifold, loc, scale=0.5):
    return WrappedNormal(manifold, loc, scale)


CASES = {
    # manifolds
    "torus of no angle": (lambda: Torus(0), ValueError, "dim of at least 1, got 0"),
    "euclidean of no dimension": (lambda: Euclidean(0), ValueError, "dim of at least 1, got 0"),
    "sphere of no dimension": (lambda: Sphere(0), ValueError, "dim"),
    "projective space of no dimension": (lambda: ProjectiveSpace(0), ValueError, "dim"),
    "band of no width": (lambda: MoebiusBand(0.0), ValueError, "half_width > 0, got 0"),
    "band of negative width": (lambda: MoebiusBand(-1.0), ValueError, "half_width > 0, got -1"),
    "band of NaN width": (lambda: MoebiusBand(NAN), ValueError, "half_width > 0, got nan"),
    "lens space with a common factor": (lambda: LensSpace(4, 2), ValueError, "coprime|prime"),
    "empty product": (lambda: Product(), ValueError, "at least one manifold"),
    "product of something else": (lambda: Product(Circle(), 3), TypeError, "got int"),
    "uniform draws of a wrong shape": (
        *(lambda: KLEIN.random_uniform(3), ValueError),
        r"ends in \(2,\), got \(3,\)",
    ),
    "origin of a wrong shape": (lambda: SPHERE.origin(2), ValueError, r"ends in \(3,\)"),
    "uniform draws on infinite volume": (
        *(lambda: Euclidean(2).random_uniform(2), ValueError),
        "volume is infinite",
    ),
    # the location of wrapped normals
    "location of too few coordinates": (
        *(lambda: wrapped(KLEIN, zeros(3)), ValueError),
        r"expected loc of a shape that ends in \(2,\).*got \(3,\)",
    ),
    "location in ambient coordinates": (
        *(lambda: wrapped(KLEIN, zeros(7, 5)), ValueError),
        r"the shape of a point of KleinBottle\(\), got \(7, 5\)",
    ),
    "intrinsic location on a sphere": (
        *(lambda: wrapped(SPHERE, zeros(2)), ValueError),
        r"ends in \(3,\)",
    ),
    "location without event dimension": (
        *(lambda: wrapped(Torus(1), torch.tensor(0.0)), ValueError),
        r"ends in \(1,\)",
    ),
    "vector for a rotation": (lambda: wrapped(SO3(), zeros(9)), ValueError, r"\(3, 3\)"),
    "NaN location": (lambda: wrapped(KLEIN, torch.tensor([NAN, 0])), ValueError, "parameter loc"),
    "location off the sphere": (
        *(lambda: wrapped(SPHERE, 2 * POLE), ValueError),
        r"parameter loc.*on_manifold\(Sph\(2\)\)",
    ),
    "location beyond the edge": (
        *(lambda: wrapped(BAND, torch.tensor([0.0, 0.5])), ValueError),
        "parameter loc.*MoebiusBand",
    ),
    # the scale of wrapped normals
    "zero scale": (lambda: wrapped(KLEIN, zeros(2), 0.0), ValueError, "scale.*GreaterThan"),
    "negative scale": (lambda: wrapped(Circle(), zeros(4), -1.0), ValueError, "scale"),
    "NaN scale": (lambda: wrapped(Circle(), zeros(4), NAN), ValueError, "scale"),
    "scale on a sphere beyond one turn": (
        *(lambda: wrapped(SPHERE, POLE, 7.0), ValueError),
        r"scale.*upper_bound=6.28",
    ),
    "zero scale on a sphere": (lambda: wrapped(SPHERE, POLE, 0.0), ValueError, "parameter scale"),
    "column of scales for angles": (
        *(lambda: wrapped(Circle(), zeros(4), torch.ones(4, 1)), ValueError),
        r"broadcastable to \(4,\), got \(4, 1\); drop its last dimension",
    ),
    "column of scales on spheres": (
        *(lambda: wrapped(SPHERE, POLE.expand(4, 3), torch.ones(4, 1)), ValueError),
        "drop its last dimension",
    ),
    "batch of scales that does not fit": (
        *(lambda: wrapped(Circle(), zeros(4), torch.ones(3)), ValueError),
        r"broadcastable to \(4,\), got \(3,\)",
    ),
    "batch of scales for coordinates": (
        *(lambda: wrapped(KLEIN, zeros(5, 2), torch.ones(5)), ValueError),
        r"broadcastable to \(5, 2\), one entry for each coordinate, got \(5,\)",
    ),
    "three scales for two coordinates": (
        *(lambda: wrapped(KLEIN, zeros(2), torch.ones(3)), ValueError),
        "one entry for each coordinate",
    ),
    "covariance matrix on the Klein bottle": (
        *(lambda: wrapped(KLEIN, zeros(2), torch.eye(2)), ValueError),
        "may be a covariance matrix.*depends on the lift",
    ),
    "batch of covariance matrices on the Klein bottle": (
        *(lambda: wrapped(KLEIN, zeros(5, 2), torch.eye(2).expand(5, 2, 2)), ValueError),
        "may be a covariance matrix.*depends on the lift",
    ),
    "covariance matrix on the torus": (
        *(lambda: wrapped(Torus(3), zeros(3), torch.eye(3)), ValueError),
        "push dist.MultivariateNormal forward with CoveringPushforward",
    ),
    "scale of one factor only": (
        *(lambda: wrapped(Product(Circle(), KLEIN), zeros(3), torch.ones(2)), ValueError),
        r"broadcastable to \(3,\)",
    ),
    # the other laws
    "uniform on infinite volume": (
        *(lambda: ManifoldUniform(Euclidean(2)), ValueError),
        r"finite volume, got Euclidean\(2\)",
    ),
    "uniform on an open band": (
        *(lambda: ManifoldUniform(MoebiusBand(math.inf)), ValueError),
        "finite volume",
    ),
    "full covariance on the Klein bottle": (
        *(
            lambda: CoveringPushforward(
                dist.MultivariateNormal(zeros(2), torch.eye(2)), KLEIN.covering
            ),
            ValueError,
        ),
        "expected independent normals.*another lift",
    ),
    "manifold for a covering": (
        *(lambda: CoveringPushforward(dist.Normal(zeros(2), 1.0), KLEIN), TypeError),
        "expected covering to be a Covering, got KleinBottle",
    ),
    "base without event dimension": (
        *(lambda: CoveringPushforward(dist.Normal(zeros(2), 1.0), KLEIN.covering), ValueError),
        r"declare event dimensions with \.to_event\(\)",
    ),
    "nothing to concatenate": (lambda: Concatenated(), ValueError, "at least one part"),
    "tangent normal off the sphere": (
        *(lambda: TangentNormal(2 * POLE, torch.tensor(0.5)), ValueError),
        "parameter loc",
    ),
    "tangent normal of zero scale": (
        *(lambda: TangentNormal(POLE, torch.tensor(0.0)), ValueError),
        "parameter scale",
    ),
    "column of concentrations": (
        *(lambda: VonMises(zeros(4), torch.ones(4, 1)), ValueError),
        "drop its last dimension",
    ),
    "negative concentration": (lambda: VonMises(0.0, -1.0), ValueError, "concentration"),
    "power spherical of no unit norm": (
        *(lambda: PowerSpherical(2 * POLE, 1.0), ValueError),
        "divide it by its norm",
    ),
    # values
    "value of another event shape": (
        *(lambda: wrapped(KLEIN, zeros(2)).log_prob(zeros(3)), ValueError),
        r"\(2,\)|\[2\]|shape",
    ),
    "NaN value": (
        *(lambda: wrapped(KLEIN, zeros(2)).log_prob(torch.tensor([NAN, 0.0])), ValueError),
        r"on_manifold\(KleinBottle\(\)\)",
    ),
    "value off the sphere": (
        *(lambda: wrapped(SPHERE, POLE).log_prob(1.1 * POLE), ValueError),
        r"on_manifold\(Sph\(2\)\)",
    ),
    "value beyond the edge": (
        *(lambda: wrapped(BAND, zeros(2)).log_prob(torch.tensor([0.0, 0.6])), ValueError),
        "on_manifold",
    ),
    "batch of values that does not fit": (
        *(lambda: wrapped(KLEIN, zeros(4, 2)).log_prob(zeros(3, 2)), ValueError),
        "not broadcastable|broadcast",
    ),
    "value of a uniform law of another shape": (
        *(lambda: ManifoldUniform(KLEIN).log_prob(zeros(5)), ValueError),
        r"\(2,\)|\[2\]|shape",
    ),
    "density without a known sum": (
        *(
            lambda: CoveringPushforward(
                dist.StudentT(3.0, zeros(2), 1.0).to_event(1), KLEIN.covering
            ).log_prob(zeros(2)),
            NotImplementedError,
        ),
        "StudentT.*expected independent normals",
    ),
    # inference
    "manifold for a finite covering": (
        *(lambda: CoveringReparam(KLEIN), TypeError),
        "finitely many sheets",
    ),
    "initial scale of a whole period": (
        *(lambda: ScaleHead(4, KLEIN, 1.0), ValueError),
        r"init in \(0, 1\), got 1",
    ),
}


@pytest.mark.parametrize(("call", "error", "remedy"), CASES.values(), ids=CASES.keys())
def test_bad_arguments_raise_and_name_the_remedy(call, error, remedy):
    with pytest.raises(error, match=f"(?s){remedy}"):
        call()


def test_without_validation_values_are_not_checked():
    free = WrappedNormal(KLEIN, zeros(2), -1.0, validate_args=False)
    assert free.batch_shape == ()
    law = WrappedNormal(SPHERE, POLE, 0.5, validate_args=False)
    assert law.log_prob(1.001 * POLE).isfinite()


def test_shapes_are_checked_even_without_validation():
    with pytest.raises(ValueError, match="drop its last dimension"):
        WrappedNormal(Circle(), zeros(4), torch.ones(4, 1), validate_args=False)
    with pytest.raises(ValueError, match="covariance matrix"):
        WrappedNormal(KLEIN, zeros(2), torch.eye(2), validate_args=False)


def test_validation_follows_the_global_switch():
    torch.distributions.Distribution.set_default_validate_args(False)
    try:
        assert WrappedNormal(KLEIN, zeros(2), -1.0).batch_shape == ()
    finally:
        torch.distributions.Distribution.set_default_validate_args(True)
