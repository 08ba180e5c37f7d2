"""Topographic maps of filters: the density, what is recovered from known sources, and training."""

import copy
import io
import math

import pyro
import pytest
import torch
from pyro.infer import Trace_ELBO
from scipy import stats
from torch.testing import assert_close

from pyro_manifolds.datasets import normalized_patches
from pyro_manifolds.distributions import Groups, TopographicStudentT, Torus2d
from pyro_manifolds.geometry import filter_tuning, map_order, tuning_differences
from pyro_manifolds.nn import TopographicMap, fit_topographic_map

OPTIONS = {"steps": 20, "check_every": 10, "progress": False}


def patches(count=600, shape=(4, 5)):
    mixing = torch.randn(math.prod(shape), math.prod(shape))
    return (torch.randn(count, math.prod(shape)) ** 3 @ mixing).reshape(count, *shape)


def turned(sheet):
    """Return a map with a rotation away from its start."""
    torch.nn.init.normal_(sheet.skew, 0.0, 0.3)
    return sheet


def test_whitened_patches_are_white_and_colouring_undoes_whitening():
    x = patches().double()
    sheet = TopographicMap(x, Torus2d((3, 4), (3, 3)))
    white = sheet.whiten(x)
    assert_close(white.mean(0), torch.zeros(12).double(), atol=1e-12, rtol=0)
    assert_close(white.mT.cov(), torch.eye(12).double())
    assert_close(sheet.whitening @ sheet.coloring, torch.eye(12).double())
    # The directions kept are those of largest variance.
    flat = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    kept = (white @ sheet.coloring.mT).var(0).sum()
    assert_close(kept, torch.linalg.eigvalsh(flat.mT.cov())[-12:].sum())


def test_codes_are_products_with_filters_and_features_rebuild_patches():
    x = patches(shape=(3, 3)).double()
    sheet = turned(TopographicMap(x, Torus2d((2, 4), (1, 3))))  # all directions are kept
    flat = x.flatten(1) - x.flatten(1).mean(1, keepdim=True) - sheet.center
    codes = sheet.codes(x)
    assert codes.shape == (600, 2, 4)
    assert_close(codes, torch.einsum("np,ijp->nij", flat, sheet.filters.flatten(2)))
    rebuilt = torch.einsum("nij,ijp->np", codes, sheet.features.flatten(2))
    assert_close(rebuilt, flat)


def test_the_rotation_is_orthogonal_at_any_parameter():
    sheet = TopographicMap(patches(), Torus2d((3, 4), (3, 3)))
    for scale in (0.0, 1.0, 100.0):
        torch.nn.init.normal_(sheet.skew, 0.0, scale)
        assert_close(sheet.rotation @ sheet.rotation.mT, torch.eye(12), atol=2e-5, rtol=0)


def test_independent_codes_have_the_density_of_students_law_less_a_constant():
    x = patches().double()
    sheet = turned(TopographicMap(x, Groups(12, 1, 5)))
    scale = sheet.log_scale.exp().item()
    t = (sheet.whiten(x) @ sheet.rotation.mT).detach().numpy()
    exact = stats.t.logpdf(t, 5, scale=scale / math.sqrt(5)).sum(-1)
    gap = torch.from_numpy(exact) - sheet.log_prob_lower_bound(x).detach()
    # Jensen loses the same at every value: the exact density of one entry at 0 less the bound.
    at_zero = stats.t.logpdf(0.0, 5, scale=1 / math.sqrt(5))
    bound = -0.5 * math.log(2 * math.pi) - 0.635181422730739 + 0.5 * math.log(5)
    assert_close(gap, torch.full_like(gap, 12 * (at_zero - bound)))


def test_the_elbo_of_the_model_is_the_bound():
    x = patches()
    sheet = turned(TopographicMap(x, Torus2d((3, 4), (3, 3))))
    loss = Trace_ELBO().loss(sheet, lambda patches: None, x)
    assert loss == pytest.approx(-sheet.log_prob_lower_bound(x).sum().item(), rel=1e-5)
    law = TopographicStudentT(sheet.neighborhood, scale=sheet.log_scale.exp())
    assert_close(sheet.log_prob_lower_bound(x), law.log_prob_lower_bound(sheet.codes(x)))


def test_the_normal_density_is_that_of_whitened_patches():
    x = patches()
    sheet = TopographicMap(x, Torus2d((3, 4), (3, 3)))
    law = torch.distributions.MultivariateNormal(torch.zeros(12), torch.eye(12))
    assert_close(sheet.log_prob_normal(x), law.log_prob(sheet.whiten(x)))


def mixed(codes):
    """Mix codes by a random orthogonal matrix, and add a pixel that keeps the mean at zero."""
    size = codes[0].numel()
    mixing = torch.linalg.qr(torch.randn(size, size)).Q
    x = codes.flatten(1) @ mixing
    # Rows of a basis of what has mean zero in size + 1 pixels.
    basis = torch.linalg.svd(torch.ones(1, size + 1)).Vh[1:]
    return (x @ basis).unsqueeze(-1), mixing @ basis


def test_independent_sources_are_recovered():
    codes = torch.distributions.StudentT(4.0).sample((8000, 9))
    x, truth = mixed(codes)
    sheet = fit_topographic_map(x, Groups(9, 1, 4), steps=400, progress=False)
    likeness = torch.nn.functional.cosine_similarity(
        sheet.features.squeeze(-1)[:, None], truth, dim=-1
    ).abs()
    assert float(likeness.amax(1).min()) > 0.97
    assert likeness.argmax(1).unique().numel() == 9


def test_filters_of_photographs_are_ordered_by_direction_where_neighbours_depend():
    pytest.importorskip("skimage")
    x = normalized_patches(
        ["camera", "astronaut"], 6000, seed=0, kernel_size=7, window=15, top=0.5
    )
    orders = {}
    for name, neighborhood in {"map": Torus2d((6, 6), (3, 3)), "none": Groups(36, 1, 9)}.items():
        sheet = fit_topographic_map(x, neighborhood, steps=400, progress=False)
        apart = tuning_differences(filter_tuning(sheet.filters))
        orders[name] = map_order(apart["orientation"], (6, 6))
    assert orders["map"].z < -3
    assert orders["none"].p_value > 0.05


def test_training_raises_the_bound_and_keeps_the_best():
    x = patches(2000)
    held_out = x[:500]
    sheet = fit_topographic_map(
        x[500:], Torus2d((3, 4), (3, 3)), validation=held_out, steps=60, check_every=20,
        progress=False,
    )  # fmt: skip
    assert len(sheet.scores) == 4
    assert sheet.scores[-1] > sheet.scores[0]
    found = sheet.log_prob_lower_bound(held_out).mean().item()
    assert found == pytest.approx(max(sheet.scores), rel=1e-6)
    assert not sheet.training
    assert not any(p.requires_grad for p in sheet.parameters())


def test_the_seed_decides_and_global_states_are_left_alone():
    x = patches()
    pyro.param("mine", torch.ones(()))
    before = torch.get_rng_state()
    one, two, other = (
        fit_topographic_map(x, Torus2d((3, 3), (3, 3)), seed=seed, **OPTIONS) for seed in (0, 0, 1)
    )
    assert torch.equal(one.filters, two.filters)
    assert not torch.allclose(one.filters, other.filters, atol=1e-2)
    assert torch.equal(torch.get_rng_state(), before)
    assert list(pyro.get_param_store().keys()) == ["mine"]


def test_double_precision_is_kept():
    sheet = fit_topographic_map(patches().double(), Torus2d((3, 3), (3, 3)), **OPTIONS)
    assert sheet.filters.dtype == torch.float64


def test_maps_are_copied_and_stored():
    sheet = fit_topographic_map(patches(), Torus2d((3, 3), (3, 3)), **OPTIONS)
    buffer = io.BytesIO()
    torch.save(sheet.state_dict(), buffer)
    fresh = TopographicMap(patches(), Torus2d((3, 3), (3, 3)))
    fresh.load_state_dict(torch.load(io.BytesIO(buffer.getvalue()), weights_only=True))
    for twin in (copy.deepcopy(sheet), fresh):
        assert torch.equal(twin.filters, sheet.filters)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "expected steps >= 1, got 0"),
        ({"batch_size": 0}, "expected batch_size >= 1, got 0"),
        ({"check_every": 0}, "expected check_every >= 1, got 0"),
        ({"learning_rate": 0.0}, "expected learning_rate > 0, got 0.0"),
        ({"validation": 1.0}, r"expected validation to be patches or in \(0, 1\), got 1.0"),
        ({"validation": torch.ones(3, 2, 2)}, r"validation of shape \(N, 4, 5\), got \(3, 2, 2\)"),
        ({"validation": torch.full((3, 4, 5), math.nan)}, "expected a finite validation"),
        ({"patches": torch.randn(600, 3, 3)}, "than the 9 codes, got shape"),
        ({"patches": torch.randn(9, 4, 5)}, "than the 9 codes, got shape"),
        ({"patches": torch.ones(600, 4, 5).long()}, "floating point numbers, got .*int64"),
        ({"patches": torch.full((600, 4, 5), math.inf)}, "expected finite patches"),
        ({"patches": torch.randn(600, 1).expand(600, 20)}, "vary in at least 9 directions"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused(change, message):
    arguments = {"patches": patches(), "neighborhood": Torus2d((3, 3), (3, 3))}
    with pytest.raises(ValueError, match=message):
        fit_topographic_map(**(arguments | OPTIONS | change))


def test_patches_of_another_shape_are_refused():
    sheet = TopographicMap(patches(), Torus2d((3, 3), (3, 3)))
    with pytest.raises(
        ValueError, match=r"expected patches of shape \(N, 4, 5\), got \(7, 5, 4\)"
    ):
        sheet.codes(torch.randn(7, 5, 4))


@pytest.mark.filterwarnings("ignore:Encountered NaN")  # Pyro says so first
def test_a_bound_that_is_not_finite_stops_the_training():
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        fit_topographic_map(
            patches(), Torus2d((3, 3), (3, 3)), learning_rate=1e30, steps=30, progress=False
        )
