"""Every law over every row of the table to which it applies."""

import dataclasses

import pyro
import pytest
import torch

from pyro_manifolds import testing
from tests.cases import CASES, COVERINGS, MANIFOLDS, rows

FLOAT64 = pytest.mark.parametrize("dtype", [torch.float64], ids=["float64"])
FLOAT32 = pytest.mark.parametrize("dtype", [torch.float32], ids=["float32"])
BOTH = pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])


def test_a_wrong_density_is_found():
    """The laws can fail: half the density is no density."""
    case = CASES["wrapped-klein"]
    nodes, weights = case.quadrature(torch.float64)
    halved = dataclasses.replace(case, quadrature=lambda dtype: (nodes, weights / 2))
    with pytest.raises(AssertionError, match="mass"):
        testing.check_normalisation(halved, torch.float64)


def law(check, dtypes, table, *flags):
    """Make the test of one law over the rows with the flags."""

    @dtypes
    @pytest.mark.parametrize("case", rows(table, *flags))
    def test(case, dtype):
        check(case, dtype)

    test.__doc__ = check.__doc__
    return test


test_normalisation = law(testing.check_normalisation, BOTH, CASES, "quadrature")
test_goodness_of_fit = law(testing.check_goodness_of_fit, BOTH, CASES, "quadrature")
test_mean = law(testing.check_mean, FLOAT64, CASES, "quadrature", "has_mean")
test_deck_invariance = law(testing.check_deck_invariance, BOTH, CASES, "deck")
test_independence_of_the_lift = law(
    testing.check_independence_of_the_lift, BOTH, CASES, "deck", "has_loc"
)
test_continuity_across_seams = law(testing.check_continuity_across_seams, FLOAT64, CASES, "deck")
test_uniform_limit = law(testing.check_uniform_limit, BOTH, CASES, "uniform")
test_gaussian_limit = law(testing.check_gaussian_limit, BOTH, CASES, "gaussian")
test_extremes = law(testing.check_extremes, BOTH, CASES, "extremes")
test_fibre_sum = law(testing.check_fibre_sum, FLOAT64, CASES, "orbit", "base")

test_shapes = law(testing.check_shapes, FLOAT32, CASES)
test_expand = law(testing.check_expand, FLOAT32, CASES)
test_cells_keep_their_law = law(testing.check_cells_keep_their_law, FLOAT64, CASES, "params")
test_wrappers = law(testing.check_wrappers, FLOAT32, CASES)
test_samples_are_canonical = law(testing.check_samples_are_canonical, BOTH, CASES)
test_dtype = law(testing.check_dtype, BOTH, CASES)
test_copies = law(testing.check_copies, FLOAT32, CASES)
test_validation = law(testing.check_validation, FLOAT32, CASES)

test_pathwise_gradient = law(testing.check_pathwise_gradient, BOTH, CASES, "quadrature", "params")
test_log_prob_gradient = law(testing.check_log_prob_gradient, FLOAT64, CASES, "params")
test_recorded_tensors = law(testing.check_recorded_tensors, FLOAT64, CASES, "params")
test_vmap = law(testing.check_vmap, FLOAT64, CASES, "compiles")
test_jit_trace = law(testing.check_jit_trace, FLOAT32, CASES, "compiles")

test_entropy = law(testing.check_entropy, BOTH, CASES, "quadrature", "has_entropy")
test_kl = law(testing.check_kl, BOTH, CASES, "quadrature", "kl")
test_kl_bound = law(testing.check_kl_bound, BOTH, CASES, "quadrature", "kl_bound")
test_kl_estimate = law(testing.check_kl_estimate, BOTH, CASES, "quadrature", "kl_estimate")

test_own_guide_is_exact = law(testing.check_own_guide_is_exact, BOTH, CASES)
test_elbo_is_below_the_evidence = law(
    testing.check_elbo_is_below_the_evidence, FLOAT32, CASES, "quadrature"
)
test_cover_bound_is_looser = law(testing.check_cover_bound_is_looser, FLOAT32, CASES, "lifts")
test_plates = law(testing.check_plates, FLOAT32, CASES)
test_predictive = law(testing.check_predictive, FLOAT32, CASES)
test_jit_elbo = law(testing.check_jit_elbo, FLOAT32, CASES, "compiles", "params")
test_relations = law(testing.check_relations, FLOAT32, CASES)
test_parameters_on_the_support = law(testing.check_parameters_on_the_support, BOTH, CASES)


# The compiler itself does what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("case", rows(CASES, "compiles"))
def test_compile(case):
    testing.check_compile(case, torch.float32)
    pyro.enable_validation(True)  # torch.compile switches it off


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compile_to_machine_code():
    testing.check_compile(CASES["wrapped-klein"], torch.float32, backend="inductor")
    pyro.enable_validation(True)


test_log_inverts_exp = law(testing.check_log_inverts_exp, BOTH, MANIFOLDS)
test_exp_inverts_log = law(testing.check_exp_inverts_log, BOTH, MANIFOLDS)
test_distance_is_least_over_orbit = law(
    testing.check_distance_is_least_over_orbit, FLOAT64, MANIFOLDS, "orbit", "cover_dist"
)
test_triangle_inequality = law(testing.check_triangle_inequality, BOTH, MANIFOLDS)
test_small_distances = law(testing.check_small_distances, BOTH, MANIFOLDS)
test_derivatives_at_equal_points = law(testing.check_derivatives_at_equal_points, BOTH, MANIFOLDS)
test_transport_is_isometric = law(testing.check_transport_is_isometric, BOTH, MANIFOLDS)
test_both_transports_agree = law(testing.check_both_transports_agree, FLOAT64, MANIFOLDS)
test_embed_is_invariant = law(testing.check_embed_is_invariant, BOTH, MANIFOLDS, "deck")
test_unembed_inverts_embed = law(testing.check_unembed_inverts_embed, BOTH, MANIFOLDS)
test_unembed_is_finite = law(testing.check_unembed_is_finite, BOTH, MANIFOLDS)
test_nan_passes = law(testing.check_nan_passes, BOTH, MANIFOLDS)
test_projection = law(testing.check_projection, BOTH, MANIFOLDS)
test_uniform_samples = law(testing.check_uniform_samples, BOTH, MANIFOLDS)
test_optimiser_crosses_the_seam = law(testing.check_optimiser_crosses_the_seam, FLOAT64, MANIFOLDS)
test_equality_and_copies = law(testing.check_equality_and_copies, FLOAT64, MANIFOLDS)
test_bad_shapes = law(testing.check_bad_shapes, FLOAT32, MANIFOLDS)
test_manifold_vmap = law(testing.check_manifold_vmap, FLOAT64, MANIFOLDS)


def test_manifolds_of_the_table_differ():
    manifolds = [case.manifold for case in MANIFOLDS.values()]
    assert len(set(manifolds)) == len(manifolds)


test_lift = law(testing.check_lift, BOTH, COVERINGS)
test_fibre = law(testing.check_fibre, BOTH, COVERINGS)
test_covering_is_isometric = law(testing.check_covering_is_isometric, BOTH, COVERINGS)
test_covering_shapes = law(testing.check_covering_shapes, FLOAT64, COVERINGS)
test_covering_equality = law(testing.check_covering_equality, FLOAT64, COVERINGS)
