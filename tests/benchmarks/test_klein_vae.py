"""The KleinVAE ladder at a tiny size: every rung trains, is scored, and resumes."""

import math

import pytest
import torch
from pyro.infer import TraceMeanField_ELBO

from benchmarks.klein_vae import (
    RUNGS,
    Guide,
    Model,
    Protocol,
    _square_distances,
    format_table,
    main,
    train_and_score,
)
from pyro_manifolds import KleinBottle
from pyro_manifolds.datasets import klein_circles
from pyro_manifolds.nn import align_to_manifold

TINY = Protocol(9, train=512, test=64, epochs=2, batch_size=64, hidden=(16, 8), warmup_epochs=1)


@pytest.mark.parametrize("name", RUNGS)
def test_every_rung_trains_and_is_scored(name, tmp_path):
    score = train_and_score(name, 0, TINY, output=tmp_path)
    assert all(math.isfinite(value) for value in score)
    assert name in format_table({name: [score]})


def test_a_finished_run_resumes_to_the_same_score(tmp_path):
    first = train_and_score("+ aligned start", 0, TINY, output=tmp_path)
    torch.manual_seed(1)
    again = train_and_score("+ aligned start", 0, TINY, output=tmp_path, resume=True)
    assert again.reconstruction == first.reconstruction


def test_the_location_is_held_while_the_divergence_warms_up():
    images = klein_circles(512, 9, seed=0).images.flatten(1)
    rung = RUNGS["+ aligned start"]
    alignment = align_to_manifold(images.float(), rung.manifold, steps=2)
    model, guide = Model(rung, 81, TINY), Guide(rung, 81, TINY, alignment)
    for kl_weight, moves in ((0.5, False), (1.0, True)):
        guide.zero_grad()
        TraceMeanField_ELBO()(model, guide)(images[:32], kl_weight).backward()
        grad = guide.loc.direct.weight.grad
        assert (grad is not None and bool(grad.abs().sum() > 0)) == moves


def test_distances_on_the_square_are_those_to_the_nearest_image():
    klein, points = KleinBottle(), klein_circles(40, 2, seed=0).points.double()
    unit = points / points.new_tensor([math.pi, 2 * math.pi])
    images = [
        torch.stack([unit[:, 0] + k, (-1) ** k * unit[:, 1] + j], -1)
        for k in range(-2, 3)
        for j in range(-2, 3)
    ]
    expected = torch.stack([(unit.unsqueeze(1) - image).norm(dim=-1) for image in images]).amin(0)
    torch.testing.assert_close(_square_distances(klein, points), expected, atol=1e-12, rtol=0)


def test_too_few_epochs_are_refused_before_anything_is_computed(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--epochs", "0", "--output", str(tmp_path / "new")])
    assert "--epochs above the warm-up of 10, got 0" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
