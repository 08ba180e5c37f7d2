"""The table of training steps: a row for every prior on filters, in units of its control."""

import math

import pytest

from benchmarks.steps import bayesian_conv

# What is compared with each control; the second ones have a site more, as it does.
ROWS = {
    "iid Gaussian": {
        "matched Gaussian",
        "circle",
        "Klein",
        "Klein, unit filters",
        "Klein, mixture of 8",
        "Klein, first layer",
        "Klein, mixture of 8, first layer",
    },
    "iid Gaussian, scale as a site": {"Klein, scale as a site", "Klein, amplitude as a site"},
}


@pytest.mark.slow
def test_priors_on_filters_are_measured_against_their_controls():
    """What the ratios are is for the benchmark to tell: a busy machine adds to them."""
    rows = {row.name: row for row in bayesian_conv(0.0)}
    assert set(rows) == set(ROWS).union(*ROWS.values())
    for row in rows.values():
        assert row.entry == "bayesian_conv"
        assert 0 < row.milliseconds < math.inf
    for name, others in ROWS.items():
        control = rows[name]
        assert (control.to_normal, control.target, control.passed) == (1, "", None)
        for row in map(rows.get, others):
            assert row.to_normal == pytest.approx(row.milliseconds / control.milliseconds)
            assert row.target == f"<= 1.1 x {name}"
            assert row.passed is (row.to_normal <= 1.1)
