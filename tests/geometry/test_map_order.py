"""Order of maps on a torus: neighbours counted by hand, nulls by enumeration, and preferences."""

import itertools
import math

import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds.geometry import class_preference, map_order, torus_neighbors


def by_hand(height, width):
    """Set of all pairs at distance one along either ring."""
    pairs = set()
    for i, j in itertools.product(range(height), range(width)):
        for other in (((i + 1) % height, j), (i, (j + 1) % width)):
            if other != (i, j):
                pairs.add(frozenset([i * width + j, other[0] * width + other[1]]))
    return pairs


@pytest.mark.parametrize("shape", [(4, 5), (3, 3), (2, 4), (1, 6), (5, 1), (2, 2), (1, 2)])
def test_neighbors_are_each_pair_once(shape):
    pairs = torus_neighbors(shape).tolist()
    assert len(pairs) == len({frozenset(pair) for pair in pairs})
    assert {frozenset(pair) for pair in pairs} == by_hand(*shape)


def test_value_is_the_mean_over_neighbors():
    pairwise = torch.rand(12, 12)
    pairwise = pairwise + pairwise.mT
    expected = [pairwise[tuple(pair)].item() for pair in by_hand(3, 4)]
    assert map_order(pairwise, (3, 4)).value == pytest.approx(sum(expected) / len(expected))


def test_null_is_that_of_all_permutations():
    pairwise = torch.rand(6, 6)
    pairwise = pairwise + pairwise.mT
    values = torch.tensor(
        [
            sum(pairwise[order[i], order[(i + 1) % 6]].item() for i in range(6)) / 6
            for order in itertools.permutations(range(6))
        ]
    )
    order = map_order(pairwise, (1, 6), num_permutations=20_000)
    assert order.null_mean == pytest.approx(values.mean().item(), abs=0.005)
    assert order.null_std == pytest.approx(values.std(correction=0).item(), abs=0.005)
    extreme = (values - values.mean()).abs() >= abs(order.value - values.mean()) - 1e-6
    assert order.p_value == pytest.approx(extreme.float().mean().item(), abs=0.02)
    assert order.z == pytest.approx((order.value - order.null_mean) / order.null_std)


def test_an_ordered_map_is_told_from_its_shuffle():
    angle = torch.arange(8.0) * 2 * math.pi / 8
    near = angle.cos()[:, None] + angle.sin()  # smooth over both rings
    pairwise = -(near.flatten()[:, None] - near.flatten()).abs()
    assert map_order(pairwise, (8, 8)).p_value == pytest.approx(1 / 1001)
    assert map_order(pairwise, (8, 8)).z > 10
    shuffled = torch.randperm(64)
    assert map_order(pairwise[shuffled][:, shuffled], (8, 8)).p_value > 0.01


def test_equal_units_are_at_the_null():
    order = map_order(torch.ones(9, 9), (3, 3))
    assert (order.value, order.null_mean, order.p_value) == (1.0, 1.0, 1.0)
    assert abs(order.z) < 1e-3


def test_the_seed_decides_and_the_global_state_is_left_alone():
    pairwise, before = torch.rand(9, 9), torch.get_rng_state()
    first, again = (map_order(pairwise, (3, 3), seed=1) for _ in range(2))
    assert first == again
    assert map_order(pairwise, (3, 3), seed=2) != first
    assert torch.equal(torch.get_rng_state(), before)


def test_preferences_are_those_of_a_loop():
    labels = torch.arange(30) % 3
    responses = torch.randn(30, 2, 4, dtype=torch.float64) + labels[:, None, None]
    found = class_preference(responses, labels)
    assert (found.classes.shape, found.means.shape) == ((2, 4), (3, 2, 4))
    for i, j in itertools.product(range(2), range(4)):
        groups = [responses[labels == c, i, j] for c in range(3)]
        means = torch.stack([group.mean() for group in groups])
        within = torch.cat([group - group.mean() for group in groups]).square().sum()
        total = (responses[:, i, j] - responses[:, i, j].mean()).square().sum()
        assert_close(found.means[:, i, j], means)
        assert int(found.classes[i, j]) == int(means.argmax())
        assert_close(found.selectivity[i, j], 1 - within / total)


def test_a_constant_response_is_not_selective():
    found = class_preference(torch.ones(4, 2), torch.tensor([0, 0, 1, 1]))
    assert found.selectivity.tolist() == [0.0, 0.0]


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"expected pairwise of shape \(6, 6\), got \(4, 4\)"):
        map_order(torch.ones(4, 4), (2, 3))
    with pytest.raises(ValueError, match="expected num_permutations >= 1, got 0"):
        map_order(torch.ones(4, 4), (2, 2), num_permutations=0)
    with pytest.raises(ValueError, match=r"expected a height and a width, got \(4,\)"):
        map_order(torch.ones(4, 4), (4,))
    with pytest.raises(ValueError, match="at least two places, got one"):
        torus_neighbors((1, 1))
    with pytest.raises(ValueError, match=r"got \(4, 2\) and \(3,\)"):
        class_preference(torch.ones(4, 2), torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="expected data of all classes from 0 to 2"):
        class_preference(torch.ones(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="of all classes from 0 to 1 and of no other"):
        class_preference(torch.ones(2, 2), torch.tensor([0, 2]), num_classes=2)
