"""Mixtures on manifolds: the laws of every distribution, and what the parts must satisfy."""

from functools import partial

import pyro.distributions as dist
import pytest
import torch
from torch.testing import assert_close

from pyro_manifolds import Circle, KleinBottle, VonMises, WrappedNormal
from pyro_manifolds import testing as laws
from pyro_manifolds.distributions import ManifoldMixture

KLEIN = KleinBottle()


def mixed(law):
    """Build a mixture from weights and the stacked parameters of its components."""

    def build(weights, validate_args=None, **params):
        return ManifoldMixture(
            dist.Categorical(weights, validate_args=validate_args),
            law(**params, validate_args=validate_args),
            validate_args=validate_args,
        )

    return build


CIRCLE_CASE = laws.Case(
    mixed(VonMises),
    {"weights": (0.3, 0.7), "loc": (0.5, 3.0), "concentration": (8.0, 2.0)},
    Circle(),
    quadrature=partial(laws.circle_rule, 128),
    deck=(lambda x: x + 2 * torch.pi,),
    wrong={"concentration": 1.3},
    uniform={"concentration": 0.0},
    invalid=({"concentration": -1.0}, {"weights": (-0.5, 1.5)}),
)
KLEIN_CASE = laws.Case(
    mixed(partial(WrappedNormal, KLEIN)),
    {
        "weights": (0.2, 0.5, 0.3),
        "loc": ((0.1, 1.0), (3.0, -2.0), (1.5, 3.0)),
        "scale": ((0.3, 0.4), (0.5, 0.5), (0.4, 0.6)),
    },
    KLEIN,
    quadrature=lambda dtype: laws.glide_rule(laws.circle_rule(128, dtype), 64),
    deck=(lambda x: x * x.new_tensor([1.0, -1.0]) + x.new_tensor([torch.pi, 0.0]),),
    wrong={"scale": 1.3},
    invalid=({"scale": -1.0}, {"weights": (-0.5, 1.0, 0.5)}),
)
LAWS = [
    *(laws.check_normalisation, laws.check_goodness_of_fit, laws.check_deck_invariance),
    *(laws.check_continuity_across_seams, laws.check_shapes, laws.check_expand),
    *(laws.check_cells_keep_their_law, laws.check_wrappers, laws.check_samples_are_canonical),
    *(laws.check_dtype, laws.check_copies, laws.check_validation, laws.check_pathwise_gradient),
    *(laws.check_log_prob_gradient, laws.check_vmap, laws.check_predictive, laws.check_relations),
]


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.__name__.removeprefix("check_"))
@pytest.mark.parametrize("case", [CIRCLE_CASE, KLEIN_CASE], ids=["circle", "klein"])
def test_mixtures_obey(case, law):
    law(case, torch.float64)


def test_diffuse_components_make_a_uniform_mixture():
    laws.check_uniform_limit(CIRCLE_CASE, torch.float64)


def test_events_of_several_points_are_mixed_as_one():
    components = VonMises(torch.tensor([[0.0, 1.0], [3.0, -2.0]]), 4.0).to_event(1)
    law = ManifoldMixture(dist.Categorical(torch.tensor([0.25, 0.75])), components)
    assert (law.batch_shape, law.event_shape) == ((), (2,))
    points = torch.tensor([[0.0, 1.0], [0.0, -2.0]])
    both = components.log_prob(points.unsqueeze(-2)).exp()
    assert_close(law.log_prob(points).exp(), 0.25 * both[:, 0] + 0.75 * both[:, 1])
    assert law.support.check(law.sample((5,))).all()


def test_numbers_of_weights_and_components_must_agree():
    with pytest.raises(ValueError, match="mixture_distribution"):
        ManifoldMixture(dist.Categorical(torch.ones(3)), VonMises(torch.zeros(2), 1.0))
