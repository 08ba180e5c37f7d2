"""The table of examples: one row for each regime of each distribution, manifold and covering."""

import copy
import itertools
import math
import warnings
from functools import partial

import pyro.distributions as dist
import pytest
import torch

from pyro_manifolds.distributions import (
    CircleFilter,
    ComplexMultivariateNormal,
    ComplexNormal,
    Concatenated,
    CoveringPushforward,
    EmbeddingPushforward,
    GaussianFilter,
    Groups,
    KleinFilter,
    ManifoldUniform,
    Moved,
    PowerSpherical,
    ProjectedNormal,
    Ring,
    SphericalCauchy,
    TangentNormal,
    TopographicStudentT,
    VonMises,
    VonMisesFisher,
    WrappedNormal,
)
from pyro_manifolds.distributions.transforms import (
    EqualAreaSphereEmbedding,
    FlatIsometry,
    FlatTorusEmbedding,
    ManifoldEmbedding,
    RevolutionTorusEmbedding,
    Rotation,
    StereographicEmbedding,
)
from pyro_manifolds.manifolds import (
    SO3,
    Circle,
    Cylinder,
    Euclidean,
    Hyperboloid,
    KleinBottle,
    LensSpace,
    MoebiusBand,
    PoincareBall,
    Product,
    ProjectiveSpace,
    Sphere,
    Torus,
)
from pyro_manifolds.nn import CylinderFlow, TorusFlow
from pyro_manifolds.ops.arcs import unit
from pyro_manifolds.testing import (
    Case,
    ComplexArrays,
    CoveringCase,
    ManifoldCase,
    RealArrays,
    circle_rule,
    gauss_rule,
    glide_rule,
    hyperbolic_rule,
    line_rule,
    product_rule,
    quotient_rule,
    sphere_rule,
    torus_rule,
)

PI, TURN = math.pi, 2 * math.pi
ALL_SCALES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
SPHERE_SCALES = (1e-6, 1e-3, 1.0, 3.0, TURN)
CONCENTRATIONS = (1e-6, 1e-3, 1.0, 1e3, 1e6)
PARTS_OF_ONE = (0.0, 1e-6, 0.5, 0.999, 1 - 2.0**-24)


def rows(table, *flags):
    """Rows of a table in which every flag is set, as parameters for pytest."""
    kept = {name: case for name, case in table.items() if all(getattr(case, f) for f in flags)}
    return [pytest.param(case, id=name) for name, case in kept.items()]


# Deck groups, written out here so that they check those of the package.


def shift(*by):
    return lambda x: x + torch.tensor(by, dtype=x.dtype).reshape(x.shape[-1:] if x.dim() else ())


def turn(x):
    return x + TURN


def glide(x):
    return torch.stack([x[..., 0] + PI, -x[..., 1]], -1)


def minus(x):
    return -x


def lens_move(p, q):
    """Multiply the two complex coordinates by the roots of unity."""

    def move(x):
        angles = torch.tensor([TURN / p, TURN * q / p], dtype=x.dtype)
        re, im = x.unflatten(-1, (2, 2)).unbind(-1)
        cos, sin = angles.cos(), angles.sin()
        return torch.stack([re * cos - im * sin, re * sin + im * cos], -1).flatten(-2)

    return move


def on_parts(product, *moves):
    """Move each part of the points of a product."""

    def move(x):
        parts = product.split(x)
        return product.join([f(part) for f, part in zip(moves, parts, strict=True)])

    return move


def circle_orbit(x, n):
    return torch.stack([x + TURN * k for k in range(-n, n + 1)])


def torus_orbit(x, n):
    ks = itertools.product(range(-n, n + 1), repeat=x.shape[-1])
    shifts = TURN * torch.tensor(list(ks), dtype=x.dtype)
    return x + shifts.reshape([-1] + [1] * (x.dim() - 1) + [x.shape[-1]])


def klein_orbit(x, n):
    ranges = torch.arange(-2 * n, 2 * n + 1), torch.arange(-n, n + 1)
    a, b = torch.cartesian_prod(*ranges).unbind(-1)
    a, b = (k.to(x.dtype).reshape([-1] + [1] * (x.dim() - 1)) for k in (a, b))
    return torch.stack([x[..., 0] + PI * a, (1 - 2 * (a % 2)) * x[..., 1] + TURN * b], -1)


def open_band_orbit(x, n):
    return torch.stack([torch.stack([x[..., 0] + PI * a, (-1) ** a * x[..., 1]], -1)
                        for a in range(-2 * n, 2 * n + 1)])  # fmt: skip


def folded_band_orbit(x, n):
    """Images under the glide and the reflections at both edges, of a band of half-width one."""
    heights = torch.cat([torch.stack([h + 4 * k, 2 - h + 4 * k])
                         for k in range(-2 * n, 2 * n + 1) for h in [x[..., 1]]])  # fmt: skip
    lifted = torch.stack([x[..., 0].expand_as(heights), heights], -1)
    return open_band_orbit(lifted, n).flatten(0, 1)


def cylinder_orbit(x, n):
    return torch.stack([x + x.new_tensor([TURN * k, 0.0]) for k in range(-n, n + 1)])


def sign_orbit(x, n):
    return torch.stack([x, -x])


def lens_orbit(p, q):
    def orbit(x, n):
        images = [x]
        for _ in range(p - 1):
            images.append(lens_move(p, q)(images[-1]))
        return torch.stack(images)

    return orbit


def arc(x, y):
    return (x * y).sum(-1).clamp(-1, 1).acos()


def minkowski_arc(radius):
    def dist(x, y):
        product = (x * y).sum(-1) - 2 * x[..., 0] * y[..., 0]
        return radius * (-product / radius**2).clamp(min=1).acosh()

    return dist


def gap(x, y):
    return (x - y).norm(dim=-1)


def windings(scale):
    """Turns that carry all but 1e-17 of the mass."""
    return math.ceil(9 * scale / TURN) + 1


# Distributions.


def flat_normal(ndim):
    def base(loc, scale, validate_args=None):
        return dist.Normal(loc, scale, validate_args=validate_args).to_event(ndim)

    return base


def on(manifold):
    """Wrapped normal whose location is first moved onto the manifold."""

    def build(loc, scale, validate_args=None):
        return WrappedNormal(manifold, manifold.projx(loc), scale, validate_args=validate_args)

    return build


def tangent_normal(loc, scale, validate_args=None):
    return TangentNormal(unit(loc), scale, validate_args=validate_args)


def power_spherical(loc, concentration, validate_args=None):
    return PowerSpherical(unit(loc), concentration, validate_args=validate_args)


def von_mises_fisher(loc, concentration, validate_args=None):
    return VonMisesFisher(unit(loc), concentration, validate_args=validate_args)


def spherical_cauchy(loc, concentration, validate_args=None):
    return SphericalCauchy(unit(loc), concentration, validate_args=validate_args)


def von_mises_torus(loc, concentration, validate_args=None):
    return VonMises(loc, concentration, validate_args=validate_args).to_event(1)


def concatenated(loc, scale, validate_args=None):
    first = dist.Normal(loc[..., :2], scale[..., :2], validate_args=validate_args).to_event(1)
    second = dist.Normal(loc[..., 2], scale[..., 2], validate_args=validate_args)
    return Concatenated(first, second, validate_args=validate_args)


def pushed(base, covering):
    """Build a base and push it through a covering."""

    def build(validate_args=None, **params):
        return CoveringPushforward(
            base(**params, validate_args=validate_args), covering, validate_args=validate_args
        )

    return build


def shaped_flow(flow, seed=0):
    """Give a flow and its copy in double precision weights that are not trained, and not zero."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in flow.requires_grad_(False).parameters():
        parameter.normal_(std=0.3, generator=generator)
    return {torch.float32: flow, torch.float64: copy.deepcopy(flow).double()}


def flow(flows):
    """Build the distribution of a flow at a context, in the dtype of the context."""

    def build(context, validate_args=None):
        return flows[context.dtype](context, validate_args=validate_args)

    return build


def full_normal(loc, scale_tril, validate_args=None):
    return dist.MultivariateNormal(loc, scale_tril=scale_tril.tril(), validate_args=validate_args)


def uniform_on(manifold):
    return lambda dtype: ManifoldUniform(manifold, dtype=dtype)


def scaled(name="scale"):
    return {"wrong": {name: 1.1}, "gaussian": lambda s: {name: s}}


def flowing(flows, covering, rule, **more):
    """Row of a flow on a double cover, which depends on a context of two numbers."""
    return Case(
        build=pushed(flow(flows), covering),
        params={"context": (0.8, -0.5)},
        manifold=covering.manifold,
        other={"context": (-1.0, 0.3)},
        quadrature=rule,
        quadrature_error=2e-5,
        base=flow(flows),
        orbit=lambda x, n: torch.stack([x, glide(x)]),
        wrong={"context": -1.0},
        extremes={"context": (0.0, 1e3)},
        **more,
    )


def flat(manifold, loc, scale, other, rule, **more):
    """Row of a wrapped normal on a flat manifold."""
    fields = {
        "build": partial(WrappedNormal, manifold),
        "params": {"loc": loc, "scale": scale},
        "other": {"loc": other[0], "scale": other[1]},
        "quadrature": rule,
        "base": flat_normal(manifold.ndim),
        "reach": windings,
        "extremes": {"scale": ALL_SCALES},
        "invalid": ({"scale": -1.0}, {"scale": 0.0}, {"loc": math.inf}),
        "lifts": True,
        **scaled(),
    }
    if manifold.is_compact:
        fields |= {
            "uniform": {"scale": 1e4},
            "kl_bound": uniform_on(manifold),
            "kl_estimate": uniform_on(manifold),
        }
    return Case(manifold=manifold, **(fields | more))


def curved(manifold, loc, scale, other, rule, **more):
    """Row of a wrapped normal on a sphere or a quotient of it."""
    fields = {
        "build": on(manifold),
        "params": {"loc": loc, "scale": scale},
        "other": {"loc": other[0], "scale": other[1]},
        "quadrature": rule,
        "extremes": {"scale": SPHERE_SCALES},
        "invalid": ({"scale": -1.0}, {"scale": 0.0}, {"scale": 7.0}),
        **scaled(),
    }
    return Case(manifold=manifold, **(fields | more))


def hyperbolic(manifold, loc, scale, other, reach, size=64, **more):
    """Row of a wrapped normal on hyperbolic space."""
    fields = {
        "build": on(manifold),
        "params": {"loc": loc, "scale": scale},
        "other": {"loc": other[0], "scale": other[1]},
        "quadrature": partial(hyperbolic_rule, manifold, reach, size),
        "extremes": {"scale": ALL_SCALES},
        "invalid": ({"scale": -1.0}, {"scale": 0.0}, {"loc": math.inf}),
        "has_mean": True,
        **scaled(),
    }
    return Case(manifold=manifold, **(fields | more))


def klein_filter(amplitude, noise, loc=None, scale=None, validate_args=None, **options):
    """Filters with a given number of nodes, as transformations of functions need it."""
    density = (
        None if loc is None else WrappedNormal(KLEIN, loc, scale, validate_args=validate_args)
    )
    options = {"num_nodes": 20, "validate_args": validate_args, **options}
    return KleinFilter(3, amplitude, noise, density, **options)


def circle_filter(amplitude, noise, validate_args=None):
    return CircleFilter(3, amplitude, noise, num_nodes=24, validate_args=validate_args)


def gaussian_filter(scale, validate_args=None):
    """Filters whose weights are scaled and correlated."""
    shape = torch.full((9, 9), 0.3, dtype=scale.dtype).tril(-1) + torch.eye(9, dtype=scale.dtype)
    return GaussianFilter(scale_tril=scale.unsqueeze(-1) * shape, validate_args=validate_args)


def filters(build, params, other, **more):
    """Row of a distribution of filters."""
    fields = {"extremes": {"noise": (1e-6, 1.0, 1e6)}, "invalid": ({"noise": -1.0},)}
    return Case(build, params, RealArrays(3, 3), other=other, **(fields | more))


def numbers(pairs):
    """Complex numbers of pairs of free real ones."""
    return torch.complex(*pairs.unbind(-1))


def complex_normal(loc, scale, circularity=None, validate_args=None):
    rho = None if circularity is None else numbers(circularity)
    return ComplexNormal(numbers(loc), scale, rho, validate_args=validate_args)


def far_complex_normal(loc, scale, direction, validate_args=None):
    return ComplexNormal.from_unconstrained(
        numbers(loc), scale, numbers(direction), validate_args=validate_args
    )


def complex_vector(loc, scale, coherence=None, validate_args=None):
    """Entries that are scaled and correlated, with a multiple of one coherence."""
    scale = scale.unsqueeze(-1)  # scaled as parts, for the sake of TorchScript's derivatives
    tril = torch.complex(
        scale * scale.new_tensor([[1.0, 0.0], [0.2, 1.0]]),
        scale * scale.new_tensor([[0.0, 0.0], [-0.3, 0.0]]),
    )
    if coherence is not None:
        tilt = torch.complex(*scale.new_tensor([[[0.6, 0], [0, -0.4]], [[0, 0.3], [0.3, 0]]]))
        coherence = numbers(coherence)[..., None, None] * tilt
    return ComplexMultivariateNormal(
        numbers(loc), scale_tril=tril, coherence=coherence, validate_args=validate_args
    )


def complex_rule(dim, reach, size, dtype):
    """Integrate over so many complex numbers what vanishes beyond a square for each."""
    grid, weights = product_rule(*[line_rule(-reach, reach, size, dtype)] * (2 * dim))
    nodes = numbers(grid.unflatten(-1, (dim, 2)))
    return (nodes if dim > 1 else nodes[..., 0]), weights


def complex_case(build, params, other, rule, kl, **more):
    """Row of a normal distribution of complex numbers."""
    fields = {
        "manifold": ComplexArrays(),
        "quadrature": partial(complex_rule, *rule),
        "wrong": {"scale": 1.1},
        "extremes": {"scale": ALL_SCALES},
        "invalid": ({"scale": -1.0}, {"scale": 0.0}, {"loc": math.inf}),
        "kl": kl,
        "has_entropy": True,
        "has_mean": True,
    }
    return Case(build, params, other=other, **(fields | more))


def complex_prior(build, **params):
    return lambda dtype: build(**{k: torch.tensor(v, dtype=dtype) for k, v in params.items()})


def complex_entries(dtype):
    prior = complex_prior(complex_normal, loc=(-0.2, 0.1), scale=1.1)
    return prior(dtype).expand((2,)).to_event(1)


def on_a_map(neighborhood):
    """Row of a topographic latent whose density is known."""
    least = int(neighborhood.num_terms.min())

    def build(loc, scale, validate_args=None):
        # Enough nodes for every location of the table, so that there is no branch on it.
        fields = {"num_nodes": 20, "validate_args": validate_args}
        if least > 4 or validate_args is False:
            return TopographicStudentT(neighborhood, loc, scale, **fields)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "TopographicStudentT: expected dof", UserWarning)
            return TopographicStudentT(neighborhood, loc, scale, **fields)

    return build


def heavy_rule(dim, size, dtype):
    """Integrate over an array of numbers what falls off with a power."""
    s, weights = line_rule(-8.0, 8.0, size)
    line = (s.sinh(), weights * s.cosh())
    nodes, weights = product_rule(*[line] * dim)
    return nodes.to(dtype), weights.to(dtype)


def betas(concentration1, concentration0, validate_args=None):
    return dist.Beta(concentration1, concentration0, validate_args=validate_args).to_event(1)


def embedded(base, embedding):
    def build(validate_args=None, **params):
        law = base(validate_args=validate_args, **params)
        return EmbeddingPushforward(law, embedding, validate_args=validate_args)

    return build


def turned_beta(angle, validate_args=None, **params):
    """A Beta law on the circle, turned by an angle."""
    law = embedded(betas, FlatTorusEmbedding(1))(validate_args=validate_args, **params)
    return Moved(law, Rotation.by_angle(angle), validate_args=validate_args)


def moved_on_klein(loc, scale, shift, validate_args=None):
    """A wrapped normal on the Klein bottle, turned upside down and shifted along it."""
    shift = torch.stack([shift, torch.full_like(shift, PI)], -1)
    signs = torch.tensor([1.0, -1.0], dtype=shift.dtype)
    action = FlatIsometry(KLEIN, shift, signs, validate_args=validate_args)
    law = WrappedNormal(KLEIN, loc, scale, validate_args=validate_args)
    return Moved(law, action, validate_args=validate_args)


def torus_of_revolution(share, major, minor):
    """Points of a torus of revolution by two angles, and its area element per unit square."""
    around, along = (TURN * share).unbind(-1)
    distance = major + minor * along.cos()
    points = [distance * around.cos(), distance * around.sin(), minor * along.sin()]
    return torch.stack(points, -1), TURN**2 * minor * distance


def image_rule(square, points_and_elements, dtype):
    """Integrate over an image by a rule of the parameters and the volume element, written out."""
    nodes, weights = square
    points, elements = points_and_elements(nodes)
    return points.to(dtype), (weights * elements).to(dtype)


def circle_of_turns(share):
    angle = TURN * share.unsqueeze(-1)
    return torch.cat([angle.cos(), angle.sin()], -1), torch.full_like(share, TURN)


def klein_in_space(angles):
    """The first fundamental form of the embedding of the Klein bottle is diagonal."""
    return KLEIN.embed(angles), (1 + angles[..., 1].sin().square()).sqrt()


def sphere_of_plane(x):
    square = x.square().sum(-1, keepdim=True)
    points = torch.cat([2 * x, square - 1], -1) / (square + 1)
    return points, (2 / (1 + square.squeeze(-1))) ** 2


def sphere_by_area(share):
    """Longitude and height, which are the square, cover equal areas (Archimedes)."""
    longitude, height = TURN * share[..., 0], 2 * share[..., 1] - 1
    distance = (1 - height.square()).sqrt()
    points = [distance * longitude.cos(), distance * longitude.sin(), height]
    return torch.stack(points, -1), torch.full_like(height, 2 * TURN)


def unit_interval(size):
    """Gauss nodes in a variable that smooths what is like ``x log x`` at the ends."""
    t, weights = gauss_rule(0, 1, size)
    return t.square() * (3 - 2 * t), weights * 6 * t * (1 - t)


def unit_square(size):
    return product_rule(unit_interval(size), unit_interval(size))


CIRCLE, TORUS, KLEIN = Circle(), Torus(2), KleinBottle()
BAND, OPEN_BAND = MoebiusBand(), MoebiusBand(math.inf)
SPHERE, PLANE, SO, LENS = Sphere(2), ProjectiveSpace(2), SO3(), LensSpace(5, 2)
HYPERBOLOID, SMALL_HYPERBOLOID = Hyperboloid(2), Hyperboloid(2, curvature=-4.0)
BALL, LARGE_BALL = PoincareBall(3), PoincareBall(2, curvature=-0.25)
FUNNEL = Product(LARGE_BALL, CIRCLE)
GLOBE = Product(CIRCLE, SPHERE)
STRIP = Product(CIRCLE, Euclidean(1))
ORIENTATION = KLEIN.orientation_covering
SMALL_FLOW = {"context": 2, "layers": 2, "bins": 4, "hidden_features": (8,)}
FROM_PLANE = TORUS.covering.then(ORIENTATION)

QUARTER = ((0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.0, 0.0, 1.0))
TILTED = ((0.9, -0.3, 0.1), (0.3, 0.9, 0.2), (-0.1, -0.2, 1.0))

CIRCLE_GROUP = {"deck": (turn,), "orbit": circle_orbit}
TORUS_GROUP = {"deck": (shift(TURN, 0.0), shift(0.0, -TURN)), "orbit": torus_orbit}
KLEIN_GROUP = {"deck": (glide, shift(0.0, TURN)), "orbit": klein_orbit}
SCALES = {"fibre_scales": (1e-4, 1e-2, 0.3, 1.0, 1.79, 1.81, 5.0, 50.0)}


def klein_rule(size=64):
    return lambda dtype: glide_rule(circle_rule(2 * size, dtype), size)


def band_rule(size=48):
    return lambda dtype: glide_rule(gauss_rule(-1, 1, size, dtype), size)


CASES = {
    "wrapped-circle": flat(
        CIRCLE, 3.0, 0.5, (-2.0, 0.8), partial(circle_rule, 128), **CIRCLE_GROUP, **SCALES,
        kl=uniform_on(CIRCLE), has_mean=True, has_entropy=True,
    ),
    "wrapped-circle-narrow": flat(
        CIRCLE, -3.14, 0.02, (-3.1, 0.05), partial(circle_rule, 3000), **CIRCLE_GROUP,
        kl=lambda dtype: VonMises(torch.tensor(3.0, dtype=dtype), 4.0), has_mean=True,
        has_entropy=True,
    ),
    "wrapped-circle-many-turns": flat(
        CIRCLE, 9.0, 1.79, (0.0, 1.81), partial(circle_rule, 64), **CIRCLE_GROUP,
        kl=lambda dtype: VonMises(torch.tensor(3.0, dtype=dtype), 4.0), wrong={}, has_entropy=True,
    ),
    "wrapped-circle-nearly-uniform": flat(
        CIRCLE, 0.5, 4.0, (0.0, 6.0), partial(circle_rule, 64), **CIRCLE_GROUP,
        kl=uniform_on(CIRCLE), wrong={}, has_entropy=True,
    ),
    "wrapped-torus": flat(
        TORUS, (3.0, -0.5), (0.4, 0.9), ((-2.0, 1.0), (0.7, 0.5)),
        lambda dtype: torus_rule(2, 96, dtype), **TORUS_GROUP, **SCALES, kl=uniform_on(TORUS),
        has_entropy=True,
    ),
    "wrapped-torus-3": flat(
        Torus(3), (3.0, -0.5, 7.0), (0.6, 0.9, 2.0), ((-2.0, 1.0, 0.0), (0.7, 0.9, 1.0)),
        lambda dtype: torus_rule(3, 32, dtype), orbit=torus_orbit, kl=uniform_on(Torus(3)),
        deck=(shift(TURN, 0.0, 0.0), shift(-TURN, 0.0, TURN)), wrong={"scale": 1.15},
        has_entropy=True,
    ),
    "wrapped-klein": flat(
        KLEIN, (0.1, 1.0), (0.3, 0.4), ((3.0, -0.7), (0.5, 0.6)), klein_rule(), **KLEIN_GROUP,
        **SCALES,
    ),
    "wrapped-klein-wide-along": flat(
        KLEIN, (-4.0, 8.0), (1.5, 0.3), ((1.0, 0.5), (0.6, 0.9)), klein_rule(), **KLEIN_GROUP
    ),
    "wrapped-klein-wide-across": flat(
        KLEIN, (3.1, 3.1), (0.2, 2.0), ((0.5, 0.0), (0.4, 1.0)), klein_rule(), **KLEIN_GROUP
    ),
    "wrapped-band": flat(
        BAND, (3.0, 0.6), (0.4, 0.3), ((1.0, -0.3), (0.5, 0.5)), band_rule(), deck=(glide,),
        orbit=folded_band_orbit, fibre_scales=(1e-4, 0.1, 1.0, 2.0, 20.0),
        invalid=({"scale": -1.0}, {"loc": (0.0, 1.5)}),
    ),
    "wrapped-band-often-folded": flat(
        BAND, (0.1, -0.9), (0.4, 1.5), ((1.0, -0.3), (0.9, 0.5)), band_rule(), deck=(glide,),
        wrong={}, invalid=({"scale": -1.0}, {"loc": (0.0, 1.5)}),
    ),
    "wrapped-open-band": flat(
        OPEN_BAND, (3.0, 0.6), (0.4, 0.9), ((1.0, -1.0), (0.5, 1.2)), deck=(glide,),
        rule=lambda dtype: glide_rule(line_rule(-12, 12, 128, dtype), 64),
        orbit=open_band_orbit, fibre_scales=(1e-4, 0.1, 1.0, 30.0),
    ),
    "wrapped-euclidean": flat(
        Euclidean(2), (1.0, -2.0), (0.5, 1.0), ((0.5, -1.0), (0.8, 0.9)),
        lambda dtype: product_rule(*[line_rule(-12, 12, 128, dtype)] * 2), has_mean=True,
        has_entropy=True,
    ),
    "wrapped-great-circle": curved(
        Sphere(1), (0.6, -0.8), 0.5, ((1.0, 0.2), 0.8), partial(sphere_rule, 1, 64)
    ),
    "wrapped-sphere": curved(
        SPHERE, (0.6, -0.8, 0.3), 0.3, ((1.0, 0.2, 0.4), 0.4), partial(sphere_rule, 2, 56),
        has_mean=True,
    ),
    "wrapped-sphere-beyond-the-antipode": curved(
        SPHERE, (1.0, 0.0, 0.0), 1.5, ((1.0, 0.0, 0.0), 1.0), partial(sphere_rule, 2, 64),
    ),
    "wrapped-sphere-3": curved(
        Sphere(3), (0.6, -0.8, 0.3, 0.1), 0.4, ((1.0, 0.2, 0.4, 0.0), 0.45),
        partial(sphere_rule, 3, 36),
    ),
    "wrapped-plane": curved(
        PLANE, (-0.6, 0.8, 0.3), 0.35, ((1.0, 0.2, 0.4), 0.4),
        partial(quotient_rule, PLANE, 56), deck=(minus,), orbit=sign_orbit, base=tangent_normal,
        has_mean=False,
    ),
    "wrapped-plane-beyond-the-cut": curved(
        PLANE, (1.0, 0.0, 0.0), 1.2, ((1.0, 0.0, 0.0), 0.9), partial(quotient_rule, PLANE, 64),
        deck=(minus,), orbit=sign_orbit, base=tangent_normal,
    ),
    "wrapped-rotations": curved(
        SO, QUARTER, 0.4, (TILTED, 0.4), partial(quotient_rule, SO, 36)
    ),
    "wrapped-lens": curved(
        LENS, (-0.6, 0.8, 0.3, 0.1), 0.4, ((1.0, 0.2, 0.4, 0.0), 0.42),
        partial(quotient_rule, LENS, 36), deck=(lens_move(5, 2),), orbit=lens_orbit(5, 2),
        base=tangent_normal,
    ),
    "wrapped-globe": curved(
        GLOBE, (3.0, 0.6, -0.8, 0.3), (0.5, 0.4), ((-3.0, 1.0, 0.2, 0.4), (0.7, 0.4)),
        lambda dtype: product_rule(circle_rule(48, dtype), sphere_rule(2, 36, dtype)),
        deck=(on_parts(GLOBE, turn, lambda x: x),), has_mean=True, lifts=False,
        wrong={"scale": 1.15},
    ),
    "wrapped-strip": Case(
        partial(WrappedNormal, STRIP), {"loc": (3.0, 0.5), "scale": (0.5, 0.7)}, STRIP,
        other={"loc": (-3.0, 1.0), "scale": (0.8, 0.8)},
        quadrature=lambda dtype: product_rule(
            circle_rule(64, dtype), line_rule(-10, 10, 96, dtype)
        ),
        deck=(shift(TURN, 0.0),), extremes={"scale": ALL_SCALES}, invalid=({"scale": -1.0},),
        lifts=True, has_mean=True, **scaled(),
    ),
    "wrapped-hyperboloid": hyperbolic(
        HYPERBOLOID, (0.0, 0.6, -0.2), (0.5, 0.7), ((0.0, -0.3, 0.5), (0.6, 0.6)), 6
    ),
    "wrapped-hyperboloid-strongly-curved": hyperbolic(
        SMALL_HYPERBOLOID, (0.0, -0.4, 0.3), (0.4, 0.3), ((0.0, 0.0, 0.0), (0.4, 0.5)), 4, 96
    ),
    "wrapped-ball": hyperbolic(
        BALL, (0.2, -0.3, 0.1), (0.5, 0.6, 0.4), ((0.0, 0.2, 0.0), (0.6, 0.4, 0.5)), 5, 38
    ),
    "wrapped-funnel": Case(
        on(FUNNEL), {"loc": (0.8, -0.5, 3.0), "scale": (0.5, 0.6, 0.4)}, FUNNEL,
        other={"loc": (0.5, 0.0, -3.0), "scale": (0.6, 0.6, 0.5)}, has_mean=True,
        deck=(shift(0.0, 0.0, TURN),), extremes={"scale": ALL_SCALES}, invalid=({"scale": -1.0},),
        **scaled(),
    ),
    "wrapped-klein-and-rotations": Case(
        on(Product(KLEIN, SO)),
        {"loc": (0.1, 1.0, *itertools.chain(*QUARTER)), "scale": (0.3, 0.4, 0.3)},
        Product(KLEIN, SO), deck=(on_parts(Product(KLEIN, SO), glide, lambda x: x),),
        other={"scale": 0.5}, extremes={"scale": SPHERE_SCALES}, invalid=({"scale": -1.0},),
    ),
    "tangent-sphere": Case(
        tangent_normal, {"loc": (0.6, -0.8, 0.3), "scale": 0.3}, SPHERE,
        other={"loc": (0.0, -0.8, 0.6), "scale": 0.4}, quadrature=partial(sphere_rule, 2, 56),
        extremes={"scale": SPHERE_SCALES}, invalid=({"scale": -1.0}, {"scale": 7.0}),
        has_mean=True, **scaled() | {"gaussian": None},
    ),
    "von-mises": Case(
        VonMises, {"loc": 3.0, "concentration": 2.0}, CIRCLE,
        other={"loc": -2.0, "concentration": 5.0}, quadrature=partial(circle_rule, 128),
        deck=(turn,), wrong={"concentration": 1.21}, extremes={"concentration": CONCENTRATIONS},
        uniform={"concentration": 0.0}, gaussian=lambda s: {"concentration": s**-2},
        invalid=({"concentration": -1.0},),
        kl=lambda dtype: VonMises(torch.tensor(0.5, dtype=dtype), 3.0), has_entropy=True,
    ),
    "von-mises-concentrated": Case(
        VonMises, {"loc": 9.0, "concentration": 400.0}, CIRCLE,
        other={"loc": 3.0, "concentration": 300.0}, quadrature=partial(circle_rule, 512),
        deck=(turn,), wrong={"concentration": 1.21}, kl=uniform_on(CIRCLE), has_entropy=True,
        has_mean=True,
    ),
    "von-mises-nearly-uniform": Case(
        VonMises, {"loc": 1.0, "concentration": 0.01}, CIRCLE,
        other={"loc": 3.0, "concentration": 0.5}, quadrature=partial(circle_rule, 64),
        deck=(turn,), kl=uniform_on(CIRCLE), has_entropy=True,
    ),
    "von-mises-torus": Case(
        von_mises_torus, {"loc": (3.0, 0.2), "concentration": (2.0, 0.7)}, TORUS,
        other={"loc": (-2.0, 1.0), "concentration": (5.0, 1.0)},
        quadrature=lambda dtype: torus_rule(2, 64, dtype), deck=TORUS_GROUP["deck"],
        wrong={"concentration": 1.21}, extremes={"concentration": CONCENTRATIONS},
        uniform={"concentration": 0.0}, kl=uniform_on(TORUS), has_entropy=True,
        kl_adds=False,  # Pyro merges nested events before it looks for the divergence
    ),
    "power-spherical-circle": Case(
        power_spherical, {"loc": (0.6, -0.8), "concentration": 4.0}, Sphere(1),
        other={"loc": (1.0, 0.3), "concentration": 6.0}, quadrature=partial(sphere_rule, 1, 128),
        wrong={"concentration": 1.21}, extremes={"concentration": CONCENTRATIONS},
        uniform={"concentration": 0.0}, gaussian=lambda s: {"concentration": 2 * s**-2},
        invalid=({"concentration": -1.0},), kl=uniform_on(Sphere(1)), has_entropy=True,
    ),
    "power-spherical-sphere": Case(
        power_spherical, {"loc": (0.6, -0.8, 0.3), "concentration": 8.0}, SPHERE,
        other={"loc": (1.0, 0.3, 0.0), "concentration": 4.0},
        quadrature=partial(sphere_rule, 2, 40), wrong={"concentration": 1.21},
        extremes={"concentration": CONCENTRATIONS}, uniform={"concentration": 0.0},
        gaussian=lambda s: {"concentration": 2 * s**-2}, invalid=({"concentration": -1.0},),
        kl=uniform_on(SPHERE), has_entropy=True,
    ),
    "power-spherical-sphere-3-weak": Case(
        power_spherical, {"loc": (1.0, 0.0, 0.0, 0.0), "concentration": 1.0}, Sphere(3),
        other={"loc": (-1.0, 0.0, 0.0, 0.0), "concentration": 3.0},
        quadrature=partial(sphere_rule, 3, 28), kl=uniform_on(Sphere(3)), has_entropy=True,
    ),
    "von-mises-fisher-circle": Case(
        von_mises_fisher, {"loc": (0.6, -0.8), "concentration": 2.0}, Sphere(1),
        other={"loc": (1.0, 0.3), "concentration": 5.0}, quadrature=partial(sphere_rule, 1, 64),
        wrong={"concentration": 1.21}, extremes={"concentration": (0.0, *CONCENTRATIONS)},
        uniform={"concentration": 0.0}, gaussian=lambda s: {"concentration": s**-2},
        invalid=({"concentration": -1.0},), kl=uniform_on(Sphere(1)), has_entropy=True,
    ),
    "von-mises-fisher-sphere": Case(
        von_mises_fisher, {"loc": (0.6, -0.8, 0.3), "concentration": 6.0}, SPHERE,
        other={"loc": (1.0, 0.3, 0.0), "concentration": 3.0},
        quadrature=partial(sphere_rule, 2, 36), wrong={"concentration": 1.21},
        extremes={"concentration": (0.0, *CONCENTRATIONS)}, uniform={"concentration": 0.0},
        gaussian=lambda s: {"concentration": s**-2}, invalid=({"concentration": -1.0},),
        kl=uniform_on(SPHERE), has_entropy=True, has_mean=True,
    ),
    "von-mises-fisher-sphere-concentrated": Case(
        von_mises_fisher, {"loc": (0.0, 0.0, -1.0), "concentration": 150.0}, SPHERE,
        other={"loc": (0.1, 0.0, -1.0), "concentration": 100.0},
        quadrature=partial(sphere_rule, 2, 96), wrong={"concentration": 1.21},
        kl=lambda dtype: von_mises_fisher(
            torch.tensor([0.2, 0.1, -1.0], dtype=dtype), torch.tensor(90.0, dtype=dtype)
        ), has_entropy=True,
    ),
    "von-mises-fisher-sphere-3": Case(
        von_mises_fisher, {"loc": (0.6, -0.8, 0.3, 0.1), "concentration": 5.0}, Sphere(3),
        other={"loc": (1.0, 0.3, 0.0, 0.0), "concentration": 3.0},
        quadrature=partial(sphere_rule, 3, 28), wrong={"concentration": 1.21},
        extremes={"concentration": (0.0, *CONCENTRATIONS)}, uniform={"concentration": 0.0},
        gaussian=lambda s: {"concentration": s**-2}, invalid=({"concentration": -1.0},),
        kl=lambda dtype: von_mises_fisher(
            torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=dtype), torch.tensor(2.0, dtype=dtype)
        ), has_entropy=True,
    ),
    "von-mises-fisher-sphere-3-weak": Case(
        von_mises_fisher, {"loc": (1.0, 0.0, 0.0, 0.0), "concentration": 0.01}, Sphere(3),
        other={"loc": (-1.0, 0.0, 0.0, 0.0), "concentration": 0.5},
        quadrature=partial(sphere_rule, 3, 20), kl=uniform_on(Sphere(3)), has_entropy=True,
    ),
    "spherical-cauchy-circle": Case(
        spherical_cauchy, {"loc": (0.6, -0.8), "concentration": 0.7}, Sphere(1),
        other={"loc": (1.0, 0.3), "concentration": 0.5}, quadrature=partial(sphere_rule, 1, 128),
        wrong={"concentration": 1.1}, extremes={"concentration": PARTS_OF_ONE},
        uniform={"concentration": 0.0}, invalid=({"concentration": -0.1}, {"concentration": 1.0}),
        kl=lambda dtype: spherical_cauchy(
            torch.tensor([1.0, 1.0], dtype=dtype), torch.tensor(0.3, dtype=dtype)
        ), has_entropy=True,
    ),
    "spherical-cauchy-sphere": Case(
        spherical_cauchy, {"loc": (0.6, -0.8, 0.3), "concentration": 0.5}, SPHERE,
        other={"loc": (1.0, 0.3, 0.0), "concentration": 0.3},
        quadrature=partial(sphere_rule, 2, 56), wrong={"concentration": 1.15},
        extremes={"concentration": PARTS_OF_ONE}, uniform={"concentration": 0.0},
        invalid=({"concentration": -0.1}, {"concentration": 1.0}), kl=uniform_on(SPHERE),
        has_entropy=True,
    ),
    "spherical-cauchy-sphere-3": Case(
        spherical_cauchy, {"loc": (0.6, -0.8, 0.3, 0.0), "concentration": 0.4}, Sphere(3),
        other={"loc": (1.0, 0.3, 0.0, 0.0), "concentration": 0.2},
        quadrature=partial(sphere_rule, 3, 36), wrong={"concentration": 1.2},
        kl=lambda dtype: spherical_cauchy(
            torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=dtype), torch.tensor(0.3, dtype=dtype)
        ), has_entropy=True,
    ),
    "projected-normal-circle": Case(
        ProjectedNormal, {"concentration": (1.5, -2.0)}, Sphere(1),
        other={"concentration": (1.0, 0.3)}, quadrature=partial(sphere_rule, 1, 128),
        wrong={"concentration": 1.15}, extremes={"concentration": (0.0, *CONCENTRATIONS)},
        uniform={"concentration": 0.0}, kl=uniform_on(Sphere(1)), has_entropy=True,
        gaussian=lambda s: {"concentration": (0.6 / s, -0.8 / s)},
    ),
    "projected-normal-sphere": Case(
        ProjectedNormal, {"concentration": (1.0, -2.0, 0.5)}, SPHERE,
        other={"concentration": (0.5, 0.3, 1.0)}, quadrature=partial(sphere_rule, 2, 40),
        wrong={"concentration": 1.15}, extremes={"concentration": (0.0, *CONCENTRATIONS)},
        uniform={"concentration": 0.0}, kl=uniform_on(SPHERE), has_entropy=True,
        gaussian=lambda s: {"concentration": (0.6 / s, 0.0, -0.8 / s)},
    ),
    "projected-normal-sphere-3-weak": Case(
        ProjectedNormal, {"concentration": (0.5, 0.0, -0.3, 0.2)}, Sphere(3),
        other={"concentration": (0.0, 1.0, 1.0, 0.0)}, quadrature=partial(sphere_rule, 3, 28),
        kl=uniform_on(Sphere(3)), has_entropy=True,
    ),
    "pushed-full-normal": Case(
        pushed(full_normal, TORUS.covering),
        {"loc": (3.0, 0.2), "scale_tril": ((0.5, 0.0), (0.3, 0.6))}, TORUS,
        other={"loc": (2.0, 1.0), "scale_tril": ((0.9, 0.0), (-0.3, 0.6))},
        quadrature=lambda dtype: torus_rule(2, 96, dtype), **TORUS_GROUP, base=full_normal,
        reach=lambda scale: 3, wrong={"scale_tril": 1.1}, compiles=False, lifts=True,
    ),
    "pushed-von-mises-to-klein": Case(
        pushed(von_mises_torus, ORIENTATION),
        {"loc": (3.0, 0.2), "concentration": (2.0, 0.7)}, KLEIN,
        other={"loc": (2.0, 1.0), "concentration": (1.0, 2.0)}, quadrature=klein_rule(),
        deck=KLEIN_GROUP["deck"], wrong={"concentration": 1.21},
        extremes={"concentration": CONCENTRATIONS}, uniform={"concentration": 0.0},
    ),
    "pushed-torus-to-klein": Case(
        pushed(partial(WrappedNormal, TORUS), ORIENTATION),
        {"loc": (3.0, 0.2), "scale": (0.5, 0.7)}, KLEIN,
        other={"loc": (2.0, 1.0), "scale": (0.9, 0.6)}, quadrature=klein_rule(), **KLEIN_GROUP,
        base=flat_normal(1), reach=windings, fibre_scales=(0.01, 1.0, 10.0),
        extremes={"scale": ALL_SCALES}, uniform={"scale": 1e4}, wrong={"scale": 1.1},
    ),
    "pushed-plane-to-klein": Case(
        pushed(flat_normal(1), FROM_PLANE), {"loc": (3.0, 0.2), "scale": (0.5, 0.7)}, KLEIN,
        other={"loc": (2.0, 1.0), "scale": (0.9, 0.6)}, quadrature=klein_rule(), **KLEIN_GROUP,
        base=flat_normal(1), reach=windings, fibre_scales=(0.01, 1.0, 10.0),
        extremes={"scale": ALL_SCALES}, uniform={"scale": 1e4}, wrong={"scale": 1.1}, lifts=True,
    ),
    "pushed-power-spherical-to-plane": Case(
        pushed(power_spherical, PLANE.covering),
        {"loc": (0.6, -0.8, 0.3), "concentration": 8.0}, PLANE,
        other={"loc": (1.0, 0.3, 0.0), "concentration": 4.0}, deck=(minus,), orbit=sign_orbit,
        base=power_spherical, quadrature=partial(quotient_rule, PLANE, 40),
        wrong={"concentration": 1.21}, extremes={"concentration": CONCENTRATIONS},
        uniform={"concentration": 0.0},
    ),
    "flow-klein": flowing(
        shaped_flow(TorusFlow(2, **SMALL_FLOW)), ORIENTATION, klein_rule(96),
        deck=KLEIN_GROUP["deck"],
    ),
    "flow-band": flowing(
        shaped_flow(CylinderFlow(1.0, **SMALL_FLOW)), BAND.orientation_covering, band_rule(128),
        deck=(glide,),
    ),
    "flow-open-band": flowing(
        shaped_flow(CylinderFlow(math.inf, **SMALL_FLOW)), OPEN_BAND.orientation_covering,
        lambda dtype: glide_rule(line_rule(-8, 8, 400, dtype), 96), deck=(glide,),
    ),
    "concatenated": Case(
        concatenated, {"loc": (1.0, -2.0, 0.0), "scale": (0.5, 1.0, 0.7)}, Euclidean(3),
        other={"loc": (0.5, -1.0, 0.5), "scale": (0.8, 0.9, 0.7)},
        quadrature=lambda dtype: product_rule(*[line_rule(-9, 9, 48, dtype)] * 3),
        extremes={"scale": ALL_SCALES}, invalid=({"scale": -1.0},),
        kl=lambda dtype: concatenated(torch.zeros(3, dtype=dtype), torch.ones(3, dtype=dtype)),
        wrong={"scale": 1.15},
    ),
    "klein-filter": filters(
        klein_filter, {"amplitude": 2.0, "noise": 1.0}, {"amplitude": 3.0, "noise": 1.2},
        invalid=({"noise": -1.0}, {"amplitude": 0.0}),
    ),
    "klein-filter-density": filters(
        klein_filter, {"amplitude": 1.0, "noise": 0.5, "loc": (1.0, -0.5), "scale": (0.6, 0.9)},
        {"noise": 0.8, "loc": (2.5, 1.0)}, invalid=({"scale": -1.0},),
    ),
    "klein-filter-unit": filters(
        partial(klein_filter, unit=True), {"amplitude": 1.0, "noise": 0.5}, {"noise": 0.8}
    ),
    "circle-filter": filters(circle_filter, {"amplitude": 2.0, "noise": 1.0}, {"noise": 1.2}),
    "gaussian-filter": filters(
        gaussian_filter, {"scale": (0.7, 1.0, 1.5) * 3}, {"scale": (1.0,) * 9},
        extremes={"scale": (1e-3, 1.0, 1e3)}, invalid=({"scale": -1.0},),
    ),
    "complex-normal": complex_case(
        complex_normal, {"loc": (0.3, -0.4), "scale": 0.7}, {"loc": (0.0, 0.2), "scale": 0.9},
        (1, 6.0, 64), complex_prior(complex_normal, loc=(-0.2, 0.1), scale=1.1),
        gaussian=lambda s: {"scale": math.sqrt(2) * s},
    ),
    "complex-improper": complex_case(
        complex_normal, {"loc": (0.3, -0.4), "scale": 0.7, "circularity": (0.5, -0.3)},
        {"loc": (0.0, 0.2), "scale": 0.9, "circularity": (-0.3, 0.1)}, (1, 6.0, 96),
        complex_prior(complex_normal, loc=(-0.2, 0.1), scale=1.1, circularity=(-0.4, 0.2)),
        extremes={"scale": ALL_SCALES, "circularity": (-0.7071, 0.0, 1e-6, 0.5, 0.7071)},
        invalid=({"scale": -1.0}, {"circularity": 0.8}),
    ),
    "complex-unconstrained": complex_case(
        far_complex_normal, {"loc": (0.3, -0.4), "scale": 0.7, "direction": (0.5, -0.3)},
        {"loc": (0.0, 0.2), "scale": 0.9, "direction": (-0.3, 0.1)}, (1, 6.0, 96),
        complex_prior(complex_normal, loc=(-0.2, 0.1), scale=1.1),
        extremes={"direction": (-1e3, 0.0, 1e-6, 1.0, 1e3)},
    ),
    "complex-vector": complex_case(
        complex_vector, {"loc": ((0.1, -0.2), (0.0, 0.1)), "scale": (1.0, 0.9)},
        {"loc": ((0.0, 0.2), (0.1, -0.1)), "scale": (0.9, 1.0)}, (2, 5.5, 20),
        complex_entries, manifold=ComplexArrays(2),
    ),
    "complex-multivariate": complex_case(
        complex_vector,
        {"loc": ((0.1, -0.2), (0.0, 0.1)), "scale": (1.0, 0.9), "coherence": (0.4, -0.3)},
        {"loc": ((0.0, 0.2), (0.1, -0.1)), "scale": (0.9, 1.0), "coherence": (-0.2, 0.3)},
        (2, 5.5, 24), complex_prior(
            complex_vector, loc=((-0.2, 0.1), (0.3, 0.0)), scale=(1.1, 0.9), coherence=(0.3, -0.4)
        ),
        manifold=ComplexArrays(2),
        extremes={"scale": ALL_SCALES, "coherence": (-0.7, 0.0, 1e-6, 0.5, 0.7)},
        invalid=({"scale": -1.0}, {"coherence": 3.0}),
    ),
    "topographic-groups": Case(
        on_a_map(Groups(1, 2, 7)), {"loc": (0.5, -1.0), "scale": (1.5, 1.0)}, RealArrays(2),
        other={"loc": (1.0, 0.0), "scale": (1.2, 1.4)}, quadrature=partial(heavy_rule, 2, 80),
        wrong={"scale": 1.15}, invalid=({"scale": -1.0},),
        extremes={"scale": (1e-6, 1.0, 1e6), "loc": (0.0, 1.0, 1e3)}, has_mean=True,
    ),
    "topographic-ring": Case(
        on_a_map(Ring(3, 2)), {"loc": (0.5, -1.0, 0.3), "scale": (1.5, 1.0, 0.7)}, RealArrays(3),
        other={"loc": (1.0, 0.0, 0.2), "scale": (1.2, 1.4, 0.8)}, invalid=({"scale": -1.0},),
    ),
    "embedded-beta-circle": Case(
        embedded(betas, FlatTorusEmbedding(1)),
        {"concentration1": (2.0,), "concentration0": (3.0,)}, Sphere(1),
        other={"concentration1": (4.0,), "concentration0": (2.0,)},
        quadrature=partial(image_rule, unit_interval(64), circle_of_turns),
        wrong={"concentration1": 1.15}, invalid=({"concentration1": -1.0},),
        extremes={"concentration1": (1.0, 1e3, 1e6)}, kl=uniform_on(Sphere(1)),
    ),
    "embedded-beta-sphere": Case(
        embedded(betas, EqualAreaSphereEmbedding()),
        {"concentration1": (2.0, 3.0), "concentration0": (3.0, 4.0)}, SPHERE,
        other={"concentration1": (4.0, 3.0), "concentration0": (2.0, 3.0)},
        quadrature=partial(image_rule, unit_square(64), sphere_by_area),
        wrong={"concentration1": 1.15}, invalid=({"concentration0": 0.0},),
        kl=uniform_on(SPHERE),
    ),
    "embedded-beta-torus": Case(
        embedded(betas, RevolutionTorusEmbedding(2.0, 0.5)),
        {"concentration1": (2.0, 3.0), "concentration0": (3.0, 4.0)}, RealArrays(3),
        other={"concentration1": (4.0, 3.0), "concentration0": (2.0, 3.0)},
        quadrature=partial(
            image_rule, unit_square(64), partial(torus_of_revolution, major=2.0, minor=0.5)
        ),
        wrong={"concentration1": 1.15}, invalid=({"concentration0": 0.0},),
        kl=lambda dtype: embedded(betas, RevolutionTorusEmbedding(2.0, 0.5))(
            concentration1=torch.ones(2, dtype=dtype), concentration0=torch.ones(2, dtype=dtype)
        ),
    ),
    "embedded-normal-sphere": Case(
        embedded(flat_normal(1), StereographicEmbedding(2)),
        {"loc": (0.3, -0.2), "scale": (0.5, 0.7)}, SPHERE,
        other={"loc": (0.0, 0.4), "scale": (0.6, 0.6)},
        quadrature=partial(
            image_rule, product_rule(*[line_rule(-7, 7, 96)] * 2), sphere_of_plane
        ),
        wrong={"scale": 1.1}, invalid=({"scale": -1.0},), extremes={"scale": (1e-6, 1.0, 1e3)},
    ),
    "embedded-klein": Case(
        embedded(partial(WrappedNormal, KLEIN), ManifoldEmbedding(KLEIN)),
        {"loc": (0.1, 1.0), "scale": (0.3, 0.4)}, RealArrays(5),
        other={"loc": (3.0, -0.7), "scale": (0.5, 0.6)},
        quadrature=lambda dtype: image_rule(klein_rule()(torch.float64), klein_in_space, dtype),
        wrong={"scale": 1.1}, invalid=({"scale": -1.0},), extremes={"scale": ALL_SCALES},
    ),
    "moved-beta-circle": Case(
        turned_beta, {"concentration1": (2.0,), "concentration0": (3.0,), "angle": 0.0}, Sphere(1),
        other={"concentration1": (3.0,), "concentration0": (3.0,), "angle": 0.0},
        quadrature=partial(image_rule, unit_interval(64), circle_of_turns),
        wrong={"concentration1": 1.15}, kl=uniform_on(Sphere(1)),
    ),
    "moved-klein": Case(
        moved_on_klein, {"loc": (0.1, 1.0), "scale": (0.3, 0.4), "shift": 0.7}, KLEIN,
        other={"loc": (3.0, -0.7), "scale": (0.5, 0.6), "shift": -1.0}, quadrature=klein_rule(),
        deck=KLEIN_GROUP["deck"], wrong={"scale": 1.1}, extremes={"scale": ALL_SCALES},
        uniform={"scale": 1e4},
    ),
    **{
        f"uniform-{name}": Case(
            partial(ManifoldUniform, manifold), {}, manifold, quadrature=rule, deck=deck,
            kl=uniform_on(manifold), has_entropy=True,
        )
        for name, manifold, rule, deck in [
            ("circle", CIRCLE, partial(circle_rule, 32), (turn,)),
            ("klein", KLEIN, klein_rule(24), KLEIN_GROUP["deck"]),
            ("band", BAND, band_rule(24), (glide,)),
            ("sphere", SPHERE, partial(sphere_rule, 2, 24), ()),
            ("rotations", SO, partial(quotient_rule, SO, 32), ()),
            ("lens", LENS, partial(quotient_rule, LENS, 36), (lens_move(5, 2),)),
        ]
    },
}  # fmt: skip


# Manifolds.


def spherical(manifold, radius, volume, deck=(), orbit=None, crossing=None):
    return ManifoldCase(manifold, radius, volume, deck, orbit, arc, crossing=crossing)


def near_the_core(x):
    """Points of a band whose geodesics do not reach the edge."""
    return torch.stack([x[..., 0], 0.02 * x[..., 1]], -1)


def near_the_origin(manifold):
    """Points whose coordinates are of the order of one."""
    return lambda x: manifold.unembed(0.4 * manifold.radius * manifold.embed(x))


KLEIN_AND_LENS = Product(KLEIN, Product(LensSpace(3, 1), Sphere(1)))

MANIFOLDS = {
    "circle": ManifoldCase(
        CIRCLE, PI, TURN, (turn,), circle_orbit, lambda x, y: (x - y).abs(), crossing=(3.0, -3.0)
    ),
    "torus-1": ManifoldCase(Torus(1), PI, TURN, (turn,), torus_orbit, gap),
    "torus": ManifoldCase(
        TORUS, PI, TURN**2, TORUS_GROUP["deck"], torus_orbit, gap,
        crossing=((3.0, -3.0), (-3.0, 3.0)),
    ),
    "klein": ManifoldCase(
        KLEIN, PI / 2, 2 * PI**2, KLEIN_GROUP["deck"], klein_orbit, gap,
        crossing=((3.0, 1.0), (0.2, -1.2)),
    ),
    "band": ManifoldCase(
        BAND, 0.9, TURN, (glide,), open_band_orbit, gap, near_the_core,
        crossing=((3.0, 0.4), (0.2, -0.5)),
    ),
    "cylinder": ManifoldCase(
        Cylinder(), 0.9, 2 * TURN, (shift(TURN, 0.0),), cylinder_orbit, gap, near_the_core,
        crossing=((3.0, 0.4), (-3.0, -0.5)),
    ),
    "cylinder-open": ManifoldCase(
        Cylinder(math.inf), PI, math.inf, (shift(TURN, 0.0),), cylinder_orbit, gap, near_the_core,
        crossing=((3.0, 1.0), (-3.0, -1.2)),
    ),
    "band-open": ManifoldCase(
        OPEN_BAND, PI / 2, math.inf, (glide,), open_band_orbit, gap, near_the_core,
        crossing=((3.0, 1.0), (0.2, -1.2)),
    ),
    "euclidean": ManifoldCase(
        Euclidean(3), 2.0, math.inf, (), lambda x, n: x.unsqueeze(0), gap
    ),
    "sphere-1": spherical(Sphere(1), PI, TURN, orbit=lambda x, n: x.unsqueeze(0)),
    "sphere-2": spherical(Sphere(2), PI, 4 * PI, orbit=lambda x, n: x.unsqueeze(0)),
    "sphere-6": spherical(Sphere(6), PI, 16 * PI**3 / 15, orbit=lambda x, n: x.unsqueeze(0)),
    "projective-1": spherical(ProjectiveSpace(1), PI / 2, PI, (minus,), sign_orbit),
    "projective-2": spherical(
        PLANE, PI / 2, TURN, (minus,), sign_orbit,
        crossing=((0.1, 0.0, 0.99498743710662), (0.3, 0.0, -0.9539392014169456)),
    ),
    "projective-5": spherical(ProjectiveSpace(5), PI / 2, PI**3 / 2, (minus,), sign_orbit),
    "rotations": ManifoldCase(SO, PI / 2, PI**2),
    **{
        f"lens-{p}-{q}": spherical(
            LensSpace(p, q), PI / p, 2 * PI**2 / p, (lens_move(p, q),), lens_orbit(p, q)
        )
        for p, q in [(1, 0), (2, 1), (3, 1), (5, 2), (8, 3)]
    },
    "product-of-one": ManifoldCase(Product(Sphere(2)), PI, 4 * PI),
    "product-of-three": ManifoldCase(Product(CIRCLE, PLANE, SO), PI / 2, 4 * PI**4),
    "product-nested": ManifoldCase(
        KLEIN_AND_LENS, PI / 3, 2 * PI**2 * 2 * PI**2 / 3 * TURN,
        (on_parts(KLEIN_AND_LENS, glide, lambda x: x),),
    ),
    **{
        name: ManifoldCase(
            manifold, 2.0, math.inf, (), lambda x, n: x.unsqueeze(0),
            minkowski_arc(manifold.radius) if isinstance(manifold, Hyperboloid) else None,
            near_the_origin(manifold),
        )
        for name, manifold in [
            ("hyperboloid-1", Hyperboloid(1)),
            ("hyperboloid-2", HYPERBOLOID),
            ("hyperboloid-5", Hyperboloid(5, curvature=-0.5)),
            ("hyperboloid-strongly-curved", SMALL_HYPERBOLOID),
            ("ball-3", BALL),
            ("ball-weakly-curved", LARGE_BALL),
        ]
    },
    "product-hyperbolic": ManifoldCase(FUNNEL, PI, math.inf, (shift(0.0, 0.0, TURN),)),
    "product-open": ManifoldCase(STRIP, PI, math.inf, (shift(TURN, 0.0),)),
}  # fmt: skip


# Coverings.


def plane(n):
    def points(dtype, size):
        return 5 * torch.randn((size,) + (n,) * bool(n), dtype=dtype)

    return points


def uniform_points(manifold):
    return lambda dtype, size: ManifoldUniform(manifold, dtype=dtype).sample((size,))


def sphere_basis(x):
    """Orthonormal basis of the complement of a unit vector."""
    frame = torch.cat([x.unsqueeze(-1), torch.eye(len(x), dtype=x.dtype)[:, : len(x) - 1]], -1)
    return torch.linalg.qr(frame).Q[:, 1:].mT


def globe_points(dtype, size):
    return torch.cat([plane(1)(dtype, size), uniform_points(SPHERE)(dtype, size)], -1)


def wide_cylinder_points(dtype, size):
    return Cylinder(math.inf).projx(plane(2)(dtype, size))


def globe_basis(x):
    """Orthonormal basis beside a line and a sphere."""
    return torch.block_diag(torch.ones(1, 1, dtype=x.dtype), sphere_basis(x[1:]))


COVERINGS = {
    "circle": CoveringCase(CIRCLE.covering, plane(0)),
    "torus": CoveringCase(Torus(3).covering, plane(3)),
    "klein": CoveringCase(KLEIN.covering, plane(2)),
    "klein-orientation": CoveringCase(ORIENTATION, uniform_points(TORUS)),
    "klein-composed": CoveringCase(FROM_PLANE, plane(2)),
    "band": CoveringCase(BAND.covering, plane(2)),
    "band-open": CoveringCase(OPEN_BAND.covering, plane(2)),
    "band-orientation": CoveringCase(
        BAND.orientation_covering, uniform_points(BAND.orientation_covering.cover)
    ),
    "band-open-orientation": CoveringCase(OPEN_BAND.orientation_covering, wide_cylinder_points),
    "cylinder": CoveringCase(Cylinder().covering, plane(2)),
    "euclidean": CoveringCase(Euclidean(2).covering, plane(2)),
    "sphere": CoveringCase(SPHERE.covering, uniform_points(SPHERE), sphere_basis),
    "projective": CoveringCase(PLANE.covering, uniform_points(SPHERE), sphere_basis),
    "rotations": CoveringCase(SO.covering, uniform_points(Sphere(3)), sphere_basis),
    "lens": CoveringCase(LENS.covering, uniform_points(Sphere(3)), sphere_basis),
    "globe": CoveringCase(GLOBE.covering, globe_points, globe_basis),
    "hyperboloid": CoveringCase(
        SMALL_HYPERBOLOID.covering,
        lambda dtype, size: SMALL_HYPERBOLOID.unembed(torch.randn(size, 2, dtype=dtype)),
        lambda x: SMALL_HYPERBOLOID.from_frame(x, torch.eye(2, dtype=x.dtype)),
    ),
    "two-bands": CoveringCase(Product(OPEN_BAND, CIRCLE).covering, plane(3)),
}
