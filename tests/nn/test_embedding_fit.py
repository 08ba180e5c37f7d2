"""Learning an embedding: coverage of a circle, checkpoints, clouds, diagnostics and warnings."""

import math
import warnings

import pytest
import torch
from pyro import distributions as dist
from torch import nn
from torch.distributions import kl_divergence
from torch.testing import assert_close

import pyro_manifolds.nn.embedding_training as embedding_training
from pyro_manifolds import Circle, EmbeddingPushforward, Euclidean, Sphere, Torus
from pyro_manifolds.distributions import transforms
from pyro_manifolds.distributions.transforms import LearnedEmbedding
from pyro_manifolds.nn import diagnose_embedding, fit_embedding
from pyro_manifolds.nn.embedding_networks import EmbeddingDecoder, EmbeddingEncoder
from pyro_manifolds.nn.embedding_objectives import MatchedCodes

QUICK = {"steps": 40, "check_every": 20, "width": 16, "batch_size": 64, "restarts": 0}
QUICK |= {"progress": False, "warn": False}


def ellipse(count):
    """Points on an ellipse in three dimensions, denser at its ends."""
    t = 2 * math.pi * torch.rand(count)
    return torch.stack([2 * t.cos(), t.sin(), 0.5 * t.cos()], -1)


def turn(angle, radius=1.0):
    """Part of a circle, as an embedding without parameters."""
    return LearnedEmbedding(
        lambda z: radius * torch.cat([(angle * z).cos(), (angle * z).sin()], -1),
        dim=1,
        embed_dim=2,
    )


@pytest.mark.slow
def test_circle_is_covered_without_a_fold_for_every_seed():
    for seed in range(3):
        embedding = fit_embedding(Circle(), steps=1500, seed=seed, progress=False)
        z = torch.linspace(0, 1, 20_001).unsqueeze(-1)
        x, y = embedding(z).unbind(-1)
        steps = torch.remainder(torch.atan2(y, x).diff() + math.pi, 2 * math.pi) - math.pi
        assert 0.99 < steps.sum().abs() / (2 * math.pi) < 1.005
        assert (steps * steps.sum().sign() > 0).all()
        assert (torch.stack([x, y]).norm(dim=0) - 1).abs().max() < 0.03


@pytest.fixture(scope="module")
def quick():
    return fit_embedding(Circle(), **QUICK)


def test_result_is_frozen_and_its_divergence_is_that_of_the_bases(quick):
    assert not quick.training
    assert not any(p.requires_grad for p in quick.parameters())
    base = dist.Beta(torch.tensor(2.0), torch.tensor(3.0)).expand([1]).to_event(1)
    q, p = (EmbeddingPushforward(b, quick) for b in (base, quick.prior()))
    assert kl_divergence(q, p) == kl_divergence(q.base_dist, p.base_dist)
    assert_close(kl_divergence(q, p).item(), math.log(12) - 9 / 4, rtol=1e-5, atol=0)


def test_a_seed_decides_everything_and_the_global_state_stays(quick):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again, other = fit_embedding(Circle(), **QUICK), fit_embedding(Circle(), seed=1, **QUICK)
    assert torch.equal(torch.get_rng_state(), before)
    z = torch.rand(5, 1)
    assert torch.equal(again(z), quick(z))
    assert not torch.equal(other(z), quick(z))


@pytest.mark.parametrize("method", ["matched", "wae"])
def test_an_interrupted_fit_goes_on_to_the_same_end(method, tmp_path, monkeypatch):
    options = QUICK | {"steps": 60, "method": method, "patience": 9, "restarts": 1}
    whole = fit_embedding(Circle(), **options)
    saved, calls = embedding_training.save_checkpoint, []

    def save_and_stop(*args):
        saved(*args)
        calls.append(1)
        if len(calls) in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(embedding_training, "save_checkpoint", save_and_stop)
    path = tmp_path / "fit.pt"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            fit_embedding(Circle(), checkpoint=path, **options)
    resumed = fit_embedding(Circle(), checkpoint=path, **options)
    z = torch.rand(5, 1)
    assert torch.equal(resumed(z), whole(z))
    with pytest.raises(ValueError, match="expected one of a run with seed 1, got one with seed 0"):
        fit_embedding(Circle(), checkpoint=path, seed=1, **options)


def test_a_cloud_of_ones_own_is_learned():
    torch.manual_seed(0)
    cloud = ellipse(1500)
    embedding = fit_embedding(cloud, 1, steps=750, restarts=0, progress=False, warn=False)
    found = diagnose_embedding(embedding, ellipse(1000), warn=False)
    assert found.misfit < 0.03
    assert found.collisions < 0.01
    assert found.image_volume == pytest.approx(9.909, rel=0.03)  # the length of the ellipse
    assert found.energy_distance < 5 * found.energy_null
    # It comes back as a state, too.
    other = LearnedEmbedding(EmbeddingDecoder(1, 3), dim=1, embed_dim=3)
    other.load_state_dict(embedding.state_dict())
    assert_close(other(cloud[:5, :1]), embedding(cloud[:5, :1]))


def test_surfaces_and_a_normal_base_run():
    for target, base in ((Torus(2), "uniform"), (Sphere(2), "normal")):
        embedding = fit_embedding(target, base=base, **QUICK)
        y = embedding(embedding.prior().sample((7,)))
        assert y.shape == (7, target.embed_dim)
        assert embedding.diagnostics.swept is None
        assert embedding.log_abs_det_jacobian(embedding.inv(y), y).isfinite().all()


def test_all_is_said_in_a_warning_unless_it_is_not_wanted():
    options = QUICK | {"steps": 30, "restarts": 0}
    with pytest.warns(UserWarning, match=r"fit_embedding: .*of the (image|target)"):
        fit_embedding(Circle(), **(options | {"warn": True, "method": "wae"}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit_embedding(Circle(), **options)


def test_it_stops_early_and_restarts_when_it_must(monkeypatch):
    calls = []

    class Good:
        good, penalty, coverage, collisions = True, 0.0, 1.0, 0.0

        @staticmethod
        def complaints():
            return []

    class Bad(Good):
        good = False

        @staticmethod
        def complaints():
            return ["it folds"]

    for verdict, expected in ((Good, 2 + 2), (Bad, 2 * 8)):
        calls.clear()

        def diagnose(*args, verdict=verdict, **kwargs):
            calls.append(1)
            return verdict()

        monkeypatch.setattr(embedding_training, "diagnose_embedding", diagnose)
        options = QUICK | {"steps": 8, "check_every": 1, "patience": 2, "restarts": 1}
        fit_embedding(Circle(), **options)
        assert len(calls) == expected


def test_a_gap_is_measured():
    found = diagnose_embedding(turn(0.9 * 2 * math.pi), Circle(), warn=False)
    assert_close(found.swept, 0.9, rtol=1e-4, atol=0)
    # The samples within reach of an end count as covered.
    reach = 2 * found.tolerance / (2 * math.pi)
    assert abs(found.coverage - 0.9 - reach) < 4 * math.sqrt(0.09 / 2000)
    assert (found.missed - torch.tensor([1.0, 0.0])).norm(dim=-1).max() < 0.63
    assert not found.folds
    assert found.closed == 0
    assert len(found.seam) == 0
    assert found.complaints()[0].startswith("it misses")


def test_the_seam_of_a_closed_curve_is_found_where_it_is():
    found = diagnose_embedding(turn(2 * math.pi - 1e-3), Circle(), warn=False)
    assert found.good
    assert found.closed == 1
    assert_close(found.seam, torch.tensor([[1.0, 0.0]] * 2), rtol=0, atol=2e-3)
    assert_close(found.image_volume, found.target_volume, rtol=1e-3, atol=0)
    assert "100% of the edge of the domain" in str(found)


def test_an_overlap_is_a_fold_and_its_share_is_right():
    found = diagnose_embedding(turn(1.1 * 2 * math.pi), Circle(), warn=False)
    assert abs(found.collisions - 0.2 / 1.1) < 4 * math.sqrt(0.15 / 2000)
    with pytest.warns(UserWarning, match="it folds: .* of the image overlaps"):
        diagnose_embedding(turn(1.1 * 2 * math.pi), Circle())


def test_a_map_that_turns_back_folds():
    def back(z):
        angle = 6 * (z + 0.25 * (2 * math.pi * z).sin())  # its derivative changes sign
        return torch.cat([angle.cos(), angle.sin()], -1)

    found = diagnose_embedding(LearnedEmbedding(back, dim=1, embed_dim=2), Circle(), warn=False)
    assert found.monotone < 0.9
    assert found.folds


def test_an_image_beside_the_target_is_seen():
    found = diagnose_embedding(turn(6.2, radius=1.2), Circle(), warn=False)
    assert found.strays == 1
    assert found.coverage == 0
    assert_close(found.misfit, 0.2, rtol=1e-3, atol=0)
    assert found.energy_distance > found.energy_null
    assert any("off the target" in text for text in found.complaints())


def test_the_seam_of_a_sphere_is_one_point():
    def polar(z):
        """Around a pole, by equal areas, from the unit square by way of a disc."""
        a, b = (2 * z - 1).unbind(-1)
        u, v = a * (1 - b.square() / 2).sqrt(), b * (1 - a.square() / 2).sqrt()
        t = 0.998 * math.pi * (u.square() + v.square()).clamp(min=1e-12).sqrt()
        return torch.stack([t.sin() / t * u * math.pi, t.sin() / t * v * math.pi, t.cos()], -1)

    found = diagnose_embedding(
        LearnedEmbedding(polar, dim=2, embed_dim=3), Sphere(2), num_samples=1000, warn=False
    )
    assert_close(found.seam.mean(0), torch.tensor([0.0, 0.0, -1.0]), rtol=0, atol=0.05)


def test_edges_that_overlap_are_cut_and_folds_are_not():
    class Turn(nn.Module):
        def __init__(self, turns):
            super().__init__()
            self.turns = turns
            self.register_buffer("shrink", torch.ones(()))

        def forward(self, z):
            angle = 2 * math.pi * self.turns * self.shrink * (z - 0.5)
            return torch.cat([angle.cos(), angle.sin()], -1)

    for turns, least, most in ((1.005, 0.993, 0.997), (0.99, 1.0, 1.0), (1.5, 1.0, 1.0)):
        embedding = LearnedEmbedding(Turn(turns), dim=1, embed_dim=2)
        embedding_training._cut_overlap(embedding, 0.02)
        assert least - 1e-6 <= embedding.decoder.shrink <= most + 1e-6


def test_matched_codes_have_the_law_of_the_base_and_the_order_of_the_curve():
    def draw(count):
        t = 2 * math.pi * torch.rand(count)
        return torch.stack([t.cos(), t.sin()], -1)

    objective = MatchedCodes(turn(2 * math.pi - 1e-3), draw, pairs=500, neighbours=10)
    for number in range(2):
        objective.begin(number)
        codes = objective.codes.squeeze(-1)
        assert len(codes) > 450  # those next to the cut are left out at first
        ranks = (torch.arange(len(codes)) + 0.5) / len(codes)
        spread = 0.005 if number == 0 else 0.1  # later codes move half of the way
        assert (codes.sort().values - ranks).abs().max() < spread
        along = objective.samples[codes.argsort()]
        steps = torch.remainder(torch.atan2(along[:, 1], along[:, 0]).diff() + 1, 2 * math.pi) - 1
        assert (steps > 0).all() or (steps < 0).all()
        assert steps.abs().max() < 0.3


def test_several_codes_let_an_encoder_jump():
    encoder = EmbeddingEncoder(2, 1, heads=3, width=8)
    assert encoder(torch.zeros(4, 5, 2)).shape == (4, 5, 3, 1)
    assert ((encoder(torch.randn(50, 2)) > 0) & (encoder(torch.randn(50, 2)) < 1)).all()


def test_units_of_a_decoder_are_those_of_the_samples():
    decoder, samples = EmbeddingDecoder(1, 2), 100 + 3 * torch.randn(1000, 2)
    with torch.no_grad():
        decoder.set_units(samples)
        for parameter in decoder.parameters():
            parameter.zero_()
    assert_close(decoder(torch.rand(1, 1))[0], samples.mean(0))
    assert_close(decoder.scale, torch.tensor(3.0), rtol=0.1, atol=0)
    assert all(not isinstance(layer, nn.ReLU) for layer in decoder.modules())


def test_it_is_found_where_transforms_are():
    assert transforms.fit_embedding is fit_embedding
    with pytest.raises(AttributeError, match="no attribute 'fit_nothing'"):
        _ = transforms.fit_nothing


@pytest.mark.parametrize(
    ("target", "arguments", "message"),
    [
        (torch.zeros(500, 2), {}, "expected dim between 1 and 2"),
        (torch.zeros(500, 2), {"dim": 3}, "expected dim between 1 and 2"),
        (torch.zeros(20, 2), {"dim": 1}, r"N >= 100, got shape \(20, 2\)"),
        (torch.full((500, 2), math.nan), {"dim": 1}, "expected finite samples"),
        (Euclidean(2), {}, "expected a compact manifold"),
        (Circle(), {"base": "beta"}, "expected base in"),
        (Circle(), {"method": "gan"}, "expected method in"),
        (Circle(), {"activation": "relu"}, "expected activation in"),
        (Circle(), {"kernel": "linear"}, "expected kernel in"),
        (Circle(), {"held_out": 1.0}, r"expected held_out in \(0, 1\), got 1.0"),
        (Circle(), {"restarts": -1}, "expected restarts >= 0, got -1"),
        (Circle(), {"steps": 0}, "expected steps >= 1, got 0"),
        (Circle(), {"depth": 0}, "expected depth >= 1, got 0"),
        (Circle(), {"dim": 2}, r"expected dim to be that of Circle\(\) or none, got 2"),
    ],
)
def test_bad_arguments_are_refused(target, arguments, message):
    with pytest.raises(ValueError, match=message):
        fit_embedding(target, progress=False, **arguments)


def test_other_targets_are_refused():
    with pytest.raises(TypeError, match="a manifold of this library or a tensor, got list"):
        fit_embedding([[0.0, 1.0]], 1)


def test_samples_of_wrong_shape_are_refused(quick):
    with pytest.raises(ValueError, match=r"samples of shape \(N, 2\) with N >= 10, got \(50, 3\)"):
        diagnose_embedding(quick, torch.zeros(50, 3))
