"""Optimisers of geoopt in Pyro: where they arrive, what stays on the manifold, what leaves it."""

import math

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.nn import PyroModule, PyroParam
from pyro.optim import PyroOptim
from torch.testing import assert_close

from pyro_manifolds import (
    SO3,
    Circle,
    KleinBottle,
    LensSpace,
    ManifoldUniform,
    MoebiusBand,
    ProjectiveSpace,
    Sphere,
    Torus,
    WrappedNormal,
)

ADAM, SGD = geoopt.optim.RiemannianAdam, geoopt.optim.RiemannianSGD
OPTIONS = {ADAM: {"lr": 0.1, "betas": (0.5, 0.999)}, SGD: {"lr": 1e-3, "momentum": 0.5}}
TOLERANCE = {torch.float32: 3e-4, torch.float64: 1e-8}
optimisers = pytest.mark.parametrize("optimiser", [ADAM, SGD], ids=["adam", "sgd"])
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])


@pytest.fixture(params=[False, True], ids=["global", "local"])
def local(request):
    """Parameters in Pyro's global store, or in their modules."""
    with pyro.settings.context(module_local_params=request.param):
        yield request.param


# Starts, data and the points whose images under ``embed`` are nearest to the mean of the data.


def angles(x):
    return torch.atan2(x.mean(0)[1::2], x.mean(0)[::2])


def nearest_rotation(x):
    u, _, vh = torch.linalg.svd(x.mean(0).reshape(3, 3))
    return u @ torch.diag(torch.tensor([1.0, 1.0, torch.det(u @ vh)], dtype=x.dtype)) @ vh


CASES = {
    "circle": (Circle(), [3.0], lambda x: angles(x)[0]),
    "torus": (Torus(2), [3.0, -3.0], angles),
    "sphere": (Sphere(2), [1.0, 0.0, 0.0], lambda x: x.mean(0) / x.mean(0).norm()),
    "so3": (SO3(), [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]], nearest_rotation),
    "klein": (KleinBottle(), [0.2, 0.9], None),
}
CENTRES = {
    "circle": -2.7,
    "torus": [-2.7, 2.5],
    "sphere": [0.0, 0.6, -0.8],
    "so3": [[0.0, -0.6, 0.8], [1.0, 0.0, 0.0], [0.0, 0.8, 0.6]],
    "klein": [math.pi - 0.3, -0.5],  # across the seam, where it is seen as (-0.3, 0.5)
}
cases = pytest.mark.parametrize("name", CASES)


def problem(name, dtype):
    """Return the manifold, a start, noisy data of its ambient space and the nearest point."""
    manifold, start, nearest = CASES[name]
    centre = torch.tensor(CENTRES[name], dtype=dtype)
    noise = torch.randn(40, manifold.embed_dim, dtype=dtype)
    if nearest is None:  # noise that cancels keeps the mean on the manifold
        noise = noise - noise.mean(0)
    x = manifold.embed(centre) + 0.4 * noise
    start = torch.tensor(start, dtype=dtype).reshape(manifold.event_shape)
    return manifold, start, x, centre if nearest is None else nearest(x)


def observe(manifold, loc, x):
    """Data around the image of a point, which is the maximum-likelihood location."""
    with pyro.plate("data", len(x)):
        pyro.sample("x", dist.Normal(manifold.embed(loc), 0.4).to_event(1), obs=x)


class Model(PyroModule):
    def __init__(self, manifold, loc):
        super().__init__()
        self.manifold, self.loc = manifold, loc

    def forward(self, x):
        observe(self.manifold, self.loc, x)


class Nothing(PyroModule):
    def forward(self, x):
        pass


def train(model, guide, x, optimiser, steps, **options):
    """Run the modern loop and return the loss at its end."""
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True)(model, guide)
    optim = optimiser(elbo.parameters(), **options)
    for _ in range(steps):
        optim.zero_grad()
        elbo(x).backward()
        optim.step()
    return elbo(x).item()


def train_svi(model, x, optim, steps):
    svi = SVI(model, Nothing(), optim, Trace_ELBO())
    for _ in range(steps):
        svi.step(x)


@cases
@dtypes
@optimisers
def test_parameter_of_the_store_arrives_at_the_nearest_point(name, dtype, optimiser):
    manifold, start, x, expected = problem(name, dtype)

    def model(x):
        loc = pyro.param("loc", lambda: geoopt.ManifoldTensor(start, manifold=manifold))
        observe(manifold, loc, x)

    train_svi(model, x, PyroOptim(optimiser, OPTIONS[optimiser]), 150)
    loc = pyro.param("loc")
    assert isinstance(loc, geoopt.ManifoldTensor)
    assert manifold.dist(loc, expected) < TOLERANCE[dtype]
    assert manifold.contains(loc)


@cases
@optimisers
def test_attribute_of_a_module_arrives_at_the_nearest_point(name, optimiser, local):
    manifold, start, x, expected = problem(name, torch.float64)
    model = Model(manifold, geoopt.ManifoldParameter(start, manifold=manifold))
    train(model, Nothing(), x, optimiser, 150, **OPTIONS[optimiser])
    assert isinstance(model.loc, geoopt.ManifoldParameter)
    assert manifold.dist(model.loc, expected) < TOLERANCE[torch.float64]
    assert manifold.contains(model.loc)


@cases
@pytest.mark.parametrize("how", ["param", "PyroParam"])
def test_plain_adam_arrives_at_the_nearest_point_under_the_constraint(name, how):
    manifold, start, x, expected = problem(name, torch.float64)
    module = Model(manifold, PyroParam(start, manifold.support, event_dim=manifold.ndim))

    def get():
        if how == "PyroParam":
            return module.loc
        return pyro.param("loc", start, constraint=manifold.support)

    model = module if how == "PyroParam" else lambda x: observe(manifold, get(), x)
    train_svi(model, x, pyro.optim.Adam(OPTIONS[ADAM]), 200)
    assert manifold.contains(get())
    assert manifold.dist(get(), expected) < TOLERANCE[torch.float64]


class Latent(PyroModule):
    """A latent point with a uniform prior; its posterior mean is the point nearest to the data."""

    def __init__(self, manifold):
        super().__init__()
        self.manifold = manifold

    def forward(self, x):
        z = pyro.sample("z", ManifoldUniform(self.manifold, dtype=x.dtype))
        with pyro.plate("data", len(x)):
            loc = self.manifold.embed(z)
            pyro.sample("x", dist.Normal(loc, 0.4).to_event(1), obs=x)


class Guide(PyroModule):
    """A wrapped normal at a parameter on the manifold, with a scale that is an ordinary one."""

    def __init__(self, manifold, start):
        super().__init__()
        self.manifold = manifold
        self.loc = geoopt.ManifoldParameter(start, manifold=manifold)
        log_scale = torch.full(manifold.scale_shape, -1.0, dtype=start.dtype)
        self.log_scale = torch.nn.Parameter(log_scale)

    def forward(self, x):
        pyro.sample("z", WrappedNormal(self.manifold, self.loc, self.log_scale.exp()))


@cases
def test_guide_located_at_a_parameter_finds_the_posterior_mean(name):
    manifold, start, x, expected = problem(name, torch.float64)
    with pyro.settings.context(module_local_params=True):
        guide = Guide(manifold, start)
        train(Latent(manifold), guide, x, ADAM, 150, lr=0.05)
    # The posterior is about 0.4 / sqrt(40) = 0.06 wide, 0.03 on SO3, whose embedding stretches.
    assert manifold.dist(guide.loc, expected) < 0.03
    assert (guide.log_scale.exp() < 0.1).all()
    assert manifold.contains(guide.loc)


class Crooked(KleinBottle):
    """Klein bottle whose vectors keep their coordinates across the seam."""

    def transp_follow_expmap(self, x, u, v):
        return v


def follow(optimiser, manifold, targets, loc):
    """Chase the image of a target that moves along; return the path."""
    optim, path = optimiser([loc], **CHASE[optimiser]), []
    for target in targets:
        optim.zero_grad()
        (manifold.embed(loc) - manifold.embed(target)).square().sum().backward()
        optim.step()
        path.append(loc.detach().clone())
    return torch.stack(path)


CHASE = {ADAM: {"lr": 0.1, "betas": (0.95, 0.999)}, SGD: {"lr": 0.05, "momentum": 0.9}}
TIMES = torch.arange(200, dtype=torch.float64)
ROUNDS = {
    "circle": (Circle(), 0.1 * TIMES),
    "torus": (Torus(2), torch.stack([0.1 * TIMES, -0.07 * TIMES], -1)),
    "klein": (KleinBottle(), torch.stack([0.1 * TIMES, 0.05 * TIMES], -1)),
    "moebius": (MoebiusBand(math.inf), torch.stack([0.1 * TIMES, (0.2 * TIMES).sin()], -1)),
    "klein without transport": (Crooked(), torch.stack([0.1 * TIMES, 0.05 * TIMES], -1)),
}


@optimisers
@pytest.mark.parametrize("name", ROUNDS)
def test_steps_across_a_seam_are_those_on_the_cover(optimiser, name):
    manifold, targets = ROUNDS[name]
    above = follow(optimiser, manifold, targets, targets[0].clone().requires_grad_())
    parameter = geoopt.ManifoldParameter(targets[0].clone(), manifold=manifold)
    below = follow(optimiser, manifold, targets, parameter)
    rounds = (above - below).reshape(len(targets), -1)[-1, 0] / manifold.periods[0]
    assert abs(rounds) > 2.5
    apart = manifold.dist(above, below).max()
    assert apart > 0.01 if name == "klein without transport" else apart < 1e-12


CURVED = [Sphere(2), ProjectiveSpace(2), LensSpace(5, 2), SO3()]


@dtypes
@optimisers
@pytest.mark.parametrize("manifold", CURVED, ids=str)
def test_point_and_momentum_stay_on_the_manifold(manifold, dtype, optimiser):
    target = manifold.embed(manifold.random_uniform(manifold.event_shape, dtype=dtype))
    loc = geoopt.ManifoldParameter(manifold.random_uniform(manifold.event_shape, dtype=dtype))
    optim = optimiser([loc], lr=0.1, **({"momentum": 0.9} if optimiser is SGD else {}))
    for _ in range(200):
        optim.zero_grad()
        noise = torch.randn(manifold.embed_dim, dtype=dtype)
        (manifold.embed(loc) * (target + noise)).sum().backward()
        optim.step()
        assert manifold.contains(loc)
    momentum = optim.state[loc]["exp_avg" if optimiser is ADAM else "momentum_buffer"]
    assert manifold._check_vector_on_tangent(loc.detach(), momentum)[0]


class OnTheManifold(Model):
    def forward(self, x):
        with pyro.plate("data", len(x)):
            pyro.sample("x", WrappedNormal(self.manifold, self.loc, 0.3), obs=x)


LEAVING = {
    "plain parameter": (lambda on_it: torch.nn.Parameter(on_it.data), ADAM),
    "parameter made plain by PyroParam": (PyroParam, ADAM),
    "plain Adam": (geoopt.ManifoldParameter, torch.optim.Adam),
}


@pytest.mark.parametrize("how", LEAVING)
def test_location_that_has_left_is_refused_by_a_law_on_the_manifold(how):
    manifold, start, _, _ = problem("sphere", torch.float32)
    make, optimiser = LEAVING[how]
    model = OnTheManifold(manifold, make(geoopt.ManifoldTensor(start, manifold=manifold)))
    x = manifold.random_uniform(20, 3)
    with pytest.raises(ValueError, match="parameter loc .* of distribution WrappedNormal"):
        train_svi(model, x, PyroOptim(optimiser, {"lr": 0.01}), 2)


@pytest.mark.parametrize("name", ["sphere", "so3"])
def test_plain_adam_silently_beats_every_point_of_the_manifold_by_leaving_it(name):
    manifold, start, x, expected = problem(name, torch.float64)
    x = 0.8 * x  # the mean of the data lies inside of the image of the manifold
    model = Model(manifold, geoopt.ManifoldParameter(start, manifold=manifold))
    loss = train(model, Nothing(), x, torch.optim.Adam, 200, **OPTIONS[ADAM])
    best = Trace_ELBO()(Model(manifold, expected), Nothing())(x)
    assert loss < best - 1
    assert_close(manifold.embed(model.loc), x.mean(0), rtol=0, atol=1e-3)
    assert not manifold.contains(model.loc)
