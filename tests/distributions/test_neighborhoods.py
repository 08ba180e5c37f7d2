"""Neighbourhood operators, against sums written out and each other."""

import copy
import io
import math
import pickle

import pyro
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.distributions import Dense, Groups, Neighborhood, Ring, Shifted, Torus2d
from pyro_manifolds.distributions.neighborhoods import ring as ring_module
from pyro_manifolds.distributions.neighborhoods import shifted as shifted_module

F64 = torch.float64
WEIGHTS = torch.tensor([[0.5, 0.0, 2.0], [0.0, 1.0, 0.3]], dtype=F64)
TAPS = [(0, 0), (-1, 2), (1, 0), (0, 6)]  # two of them are the same slot of six

NEIGHBOURHOODS = {
    "groups": Groups(3, 2, 4),
    "ring": Ring(7, 3),
    "ring-even": Ring(6, 4),
    "ring-longer-than-itself": Ring(3, 8),
    "torus": Torus2d((4, 5), (3, 2)),
    "dense": Dense(WEIGHTS),
    "shifted": Shifted(5, 6, 1, 3, num_capsules=2),
    "stationary": Shifted(5, 6, 1, 3, num_capsules=2, roll=0),
    "causal": Shifted(5, 6, 2, 1, causal=True),
    "band": Shifted.band(5, 6, 4, 1, num_capsules=2),
    "replicate": Shifted(5, 6, 2, 1, num_capsules=2, edges="replicate"),
    "zero": Shifted(5, 6, 2, 1, num_capsules=2, edges="zero"),
    "learned": Shifted.from_taps(
        5, 6, TAPS, weights=torch.tensor([1.0, 0.5, 0.0, 2.0], dtype=F64), edges="zero"
    ),
}
EACH = pytest.mark.parametrize("near", NEIGHBOURHOODS.values(), ids=NEIGHBOURHOODS.keys())


def window(kernel_size):
    return [e - (kernel_size - 1) // 2 for e in range(kernel_size)]


def brute_force(near):
    """W, entry by entry, from the definitions."""
    rows, columns = math.prod(near.event_shape), math.prod(near.noise_shape)
    w = torch.zeros(rows, columns, dtype=F64)
    if isinstance(near, Groups):
        for i in range(rows):
            first = i // near.group_size * near.group_dof
            w[i, first : first + near.group_dof] = 1
    elif isinstance(near, Dense):
        w = near.weight.clone()
    elif isinstance(near, Ring):
        for i in range(near.size):
            for e in window(near.kernel_size):
                w[i, (i + e) % near.size] += 1
    elif isinstance(near, Torus2d):
        height, width = near.event_shape
        for i in range(height):
            for j in range(width):
                for a in window(near.columns.kernel_size):
                    for b in window(near.rows.kernel_size):
                        w[i * width + j, (i + a) % height * width + (j + b) % width] += 1
    else:
        frames, capsules, slots = near.event_shape
        weights = [1.0] * len(near.taps) if near.weights is None else near.weights.tolist()
        place = {}
        for frame in range(frames):
            for capsule in range(capsules):
                for slot in range(slots):
                    place[frame, capsule, slot] = len(place)
        for (frame, capsule, slot), row in place.items():
            for (d, e), weight in zip(near.taps, weights, strict=True):
                there = frame + d
                if near.edges == "circular":
                    there %= frames
                elif near.edges == "replicate":
                    there = min(max(there, 0), frames - 1)
                elif not 0 <= there < frames:
                    continue
                w[row, place[there, capsule, (slot + e) % slots]] += weight
    return w


def draws(near, *batch):
    return torch.rand(*batch, *near.noise_shape, dtype=F64)


@EACH
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_forward_and_transpose_are_the_dense_matrix(near, batch):
    w, x = brute_force(near), draws(near, *batch)
    v = near.forward(x)
    assert v.shape == (*batch, *near.event_shape)
    flat = x.flatten(len(batch)) @ w.mT
    assert_close(v.flatten(len(batch)), flat, atol=1e-12, rtol=1e-12)
    y = torch.rand(*batch, *near.event_shape, dtype=F64)
    a = near.transpose(y)
    assert a.shape == (*batch, *near.noise_shape)
    assert_close(a.flatten(len(batch)), y.flatten(len(batch)) @ w, atol=1e-12, rtol=1e-12)
    assert_close((v * y).sum(), (x * a).sum(), atol=0, rtol=1e-12)


@EACH
def test_row_sums_terms_matrix_and_overlap(near):
    w = brute_force(near)
    assert_close(near.dof.double(), w.sum(-1).reshape(near.event_shape))
    assert torch.equal(near.num_terms, (w > 0).sum(-1).reshape(near.event_shape))
    assert near.is_binary == bool(((w == 0) | (w == 1)).all())
    assert_close(near.matrix(F64), w)
    assert_close(near.overlap(F64), w @ w.mT)


@EACH
def test_blocks_share_no_auxiliary_variable(near):
    w = brute_force(near)
    rows = near.block_sums(torch.eye(len(w)).reshape(-1, *near.event_shape)).argmax(-1)
    size = w.shape[-1]
    columns = near.block_sums(torch.eye(size).reshape(-1, *near.noise_shape)).argmax(-1)
    assert not w[rows[:, None] != columns].any()


VECTORS = {
    "shifted": (
        Shifted(5, 6, 1, 3), 9, 3.5854914078037, 3.3211202050800, 4.5499846173478, 4.9366010231284
    ),
    "band-3": (
        Shifted.band(5, 6, 3, 1), 7,
        1.8661802186176, 1.9886018073780, 3.6022043036482, 3.1289058469827,
    ),
    "band-4": (
        Shifted.band(5, 6, 4, 1), 10,
        3.8888178011153, 3.1519982660836, 5.8126470393909, 5.3663993275257,
    ),
    "stationary": (
        Shifted(5, 6, 1, 3, roll=0), 9,
        2.4675940168582, 3.3605818588113, 4.5847069046969, 5.0507544806728,
    ),
    "causal": (
        Shifted(5, 6, 2, 1, causal=True), 3,
        1.5593112858659, 1.3536081366286, 1.5870656759471, 1.4942160320401,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("near", "taps", "v0", "v1", "a0", "a1"), VECTORS.values(), ids=VECTORS)
def test_values_found_in_multiple_precision(near, taps, v0, v1, a0, a1):
    frame, slot = torch.arange(5, dtype=F64)[:, None], torch.arange(6, dtype=F64)
    u = (1 + 3 * frame + 5 * slot**2).sin()[:, None]
    t = (6 * frame + slot).cos()[:, None]
    v, a = near.forward(u * u), near.transpose(t * t)
    assert len(near.taps) == taps
    found = torch.stack([v[0, 0, 0], v[2, 0, 5], a[0, 0, 0], a[2, 0, 5]])
    assert_close(found, torch.tensor([v0, v1, a0, a1], dtype=F64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("near", [Shifted.band(5, 6, 4, 1, edges=edges, num_capsules=2)
                                  for edges in ("circular", "replicate", "zero")])  # fmt: skip
def test_long_sequences_are_summed_frame_by_frame(near, monkeypatch):
    monkeypatch.setattr(shifted_module, "TABLE_LIMIT", 29)
    long = Shifted.from_taps(5, 6, near.taps, edges=near.edges, num_capsules=2)
    x, y = draws(near, 3), draws(near, 3)
    assert_close(long.forward(x), near.forward(x), atol=1e-13, rtol=0)
    assert_close(long.transpose(y), near.transpose(y), atol=1e-13, rtol=0)
    weights = torch.rand(len(near.taps), dtype=F64)
    fields = {"weights": weights, "edges": near.edges, "num_capsules": 2}
    weighted = Shifted.from_taps(5, 6, near.taps, **fields)
    assert not weighted._is_small
    monkeypatch.undo()
    assert_close(weighted.forward(x), Shifted.from_taps(5, 6, near.taps, **fields).forward(x))


@pytest.mark.parametrize("taps", [[(0, 0)], [(1, -2), (0, 3)], [(2, 1), (2, 1), (-7, 9)]])
def test_few_taps_are_rolled_copies(taps, monkeypatch):
    near = Shifted.from_taps(7, 9, taps, num_capsules=2)
    assert near._is_rolled
    monkeypatch.setattr(shifted_module, "_TAP_COST", 100)
    table, x, y = Shifted.from_taps(7, 9, taps, num_capsules=2), draws(near, 3), draws(near, 3)
    assert not table._is_rolled
    assert_close(near.forward(x), table.forward(x), atol=1e-13, rtol=0)
    assert_close(near.transpose(y), table.transpose(y), atol=1e-13, rtol=0)
    assert_close((near.forward(x) * y).sum(), (x * near.transpose(y)).sum(), atol=1e-11, rtol=0)


def test_windows_take_any_number_of_capsules():
    near, x = Shifted(5, 6, 1, 3, num_capsules=2), torch.rand(4, 5, 7, 6)
    apart = [near.forward(x[..., [c], :]) for c in range(7)]
    assert_close(near.forward(x), torch.cat(apart, -2))
    assert near.transpose(x).shape == x.shape


def test_long_rings_are_summed_by_rolls(monkeypatch):
    short = Ring(9, 4)
    monkeypatch.setattr(ring_module, "TABLE_LIMIT", 8)
    long, x = Ring(9, 4), torch.rand(3, 9, dtype=F64)
    assert long._table is None
    assert_close(long.forward(x), short.forward(x), atol=1e-14, rtol=0)
    assert_close(long.transpose(x), short.transpose(x), atol=1e-14, rtol=0)


def test_a_full_circular_window_follows_the_motion():
    """A window of all frames makes v exactly equivariant, for any u."""
    near = Shifted.band(6, 6, 6, 0, num_capsules=2)
    v = near.forward(draws(near))
    assert_close(v[1:], v[:-1].roll(1, -1), atol=1e-14, rtol=0)


@pytest.mark.parametrize(
    "near", [Torus2d((64, 64), (25, 25)), Shifted.band(18, 18, 13, 1, num_capsules=18)]
)
def test_a_silent_half_leaves_no_negative_sum_in_float32(near):
    u = torch.randn(near.noise_shape)
    u[: near.noise_shape[0] // 2] *= 1e-6
    v = near.forward(u * u)
    assert (v > 0).all()
    exact = near.forward(u.double().square())
    assert_close(v.double(), exact, atol=0, rtol=1e-6)


@EACH
def test_gradients(near):
    x = (draws(near) + 0.1).requires_grad_()
    assert torch.autograd.gradcheck(near.forward, (x,))


@pytest.mark.parametrize("edges", ["circular", "zero"])
@pytest.mark.parametrize("limit", [1, 100])
def test_weights_of_taps_are_learned(edges, limit, monkeypatch):
    monkeypatch.setattr(shifted_module, "TABLE_LIMIT", limit)
    x = torch.rand(3, 1, 4, dtype=F64)

    def total(weights):
        near = Shifted.from_taps(3, 4, [(0, 0), (1, 1)], weights=weights, edges=edges)
        return near.forward(x)

    assert torch.autograd.gradcheck(total, (torch.rand(2, dtype=F64, requires_grad=True),))


def test_the_weight_of_a_dense_neighbourhood_is_learned():
    x, weight = torch.rand(3, dtype=F64), (WEIGHTS + 0.1).requires_grad_()
    near = Dense(weight)
    assert torch.autograd.gradcheck(lambda w: Dense(w).forward(x), (weight,))
    assert near.dof.requires_grad


@EACH
def test_vmap(near):
    x = draws(near, 3)
    assert_close(torch.vmap(near.forward)(x), near.forward(x))
    gradient = torch.func.grad(lambda u2: near.forward(u2).log().sum())
    assert_close(torch.vmap(gradient)(x + 0.1)[0], gradient(x[0] + 0.1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@EACH
def test_the_compiler_makes_one_graph(near):
    torch._dynamo.reset()
    try:
        compiled = torch.compile(near.forward, fullgraph=True, backend="eager")
        x = draws(near, 2).float()
        assert_close(compiled(x), near.forward(x))
    finally:
        pyro.enable_validation(True)  # torch.compile switches it off


@EACH
def test_copies_are_equal(near):
    saved = io.BytesIO()
    torch.save(near, saved)
    saved.seek(0)
    x = draws(near)
    loaded = torch.load(saved, weights_only=False)
    for twin in (copy.deepcopy(near), pickle.loads(pickle.dumps(near)), loaded):
        assert twin == near
        assert hash(twin) == hash(near)
        assert_close(twin.forward(x), near.forward(x), atol=0, rtol=0)
    assert len(repr(near)) < 120


def test_neighbourhoods_of_the_table_differ():
    found = list(NEIGHBOURHOODS.values())
    assert len(set(found)) == len(found)
    assert all(isinstance(near, Neighborhood) for near in found)
    assert Groups(3, 2, 4) == Groups(3, 2, 4)
    assert Dense(WEIGHTS) != Dense(WEIGHTS + 1)


def test_results_have_the_dtype_of_the_input_also_first_under_inference_mode():
    near = Shifted(4, 4, 1, 1)
    half = torch.bfloat16
    with torch.inference_mode():
        near.forward(torch.ones(4, 1, 4, dtype=half))
    x = torch.ones(4, 1, 4, dtype=half, requires_grad=True)
    v = near.forward(x)
    v.sum().backward()
    assert v.dtype == half
    assert (x.grad == 3).all()


ERRORS = {
    "no group": (lambda: Groups(0, 2, 3), "num_groups to be an integer >= 1, got 0"),
    "no dof": (lambda: Groups(1, 2, 0), "dof to be an integer >= 1"),
    "half a kernel": (lambda: Ring(5, 1.5), r"kernel_size to be an integer >= 1, got 1\.5"),
    "true": (lambda: Ring(True, 1), "size to be an integer"),
    "one number for a torus": (lambda: Torus2d(5, (3, 3)), "Torus2d: expected size to be a pair"),
    "three kernels": (lambda: Torus2d((5, 5), (3, 3, 3)), "kernel_size to be a pair"),
    "negative weight": (lambda: Dense(-WEIGHTS), "finite weights >= 0, got values from -2"),
    "row of zeros": (lambda: Dense(WEIGHTS * torch.tensor([[1.0], [0.0]])), r"got rows \[1\]"),
    "weight of three axes": (lambda: Dense(WEIGHTS[None]), r"shape \(n, m\).*got \(1, 2, 3\)"),
    "negative half width": (lambda: Shifted(5, 6, -1), "half_width to be an integer >= 0"),
    "half a roll": (lambda: Shifted(5, 6, roll=0.5), "roll to be an integer"),
    "unknown edges": (lambda: Shifted(5, 6, edges="wrap"), "edges among circular, replicate"),
    "no taps": (lambda: Shifted.from_taps(5, 6, []), "at least one tap"),
    "taps of three": (lambda: Shifted.from_taps(5, 6, [(1, 2, 3)]), r"pairs \(d, e\)"),
    "weights of another number": (
        lambda: Shifted.from_taps(5, 6, TAPS, weights=torch.ones(3)), r"shape \(4,\).*got \(3,\)"
    ),
    "negative weights": (
        lambda: Shifted.from_taps(5, 6, TAPS, weights=-torch.ones(4)), "finite weights >= 0"
    ),
    "only the future": (
        lambda: Shifted.from_taps(5, 6, [(1, 0), (2, 0)], edges="zero"),
        r"none for frames \[4\] with edges='zero'; add the tap \(0, 0\)",
    ),
    "input of another shape": (
        lambda: Ring(5, 3).forward(torch.ones(4)), r"u2 of a shape that ends in \(5,\), got \(4,\)"
    ),
    "input without an axis": (
        lambda: Shifted(5, 6).transpose(torch.ones(1, 6)), r"t2 of shape .*, 5, capsules, 6\)"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("call", "remedy"), ERRORS.values(), ids=ERRORS.keys())
def test_bad_arguments_raise_and_say_what_was_expected(call, remedy):
    with pytest.raises(ValueError, match=f"(?s){remedy}"):
        call()


@pytest.mark.parametrize(
    "call",
    [lambda: Dense([[1.0]]), lambda: Dense(torch.ones(2, 2, dtype=torch.int64)),
     lambda: Shifted.from_taps(3, 3, [(0, 0)], weights=[1.0])],
)  # fmt: skip
def test_weights_must_be_floating_point_tensors(call):
    with pytest.raises(TypeError, match="floating point"):
        call()
