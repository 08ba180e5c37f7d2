"""README: its model runs and recovers the points, and its tables name what exists."""

import re
from pathlib import Path

import torch

import pyro_manifolds

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_model_runs_and_finds_the_latent_points():
    (source,) = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names: dict = {}
    exec(source, names)
    distance = names["klein"].dist(names["guide"].median()["z"], names["truth"])
    assert torch.isfinite(torch.tensor(names["losses"])).all()
    assert distance.median() < 0.1


def test_the_tables_name_public_classes():
    rows = re.findall(r"^\| `(\w+)", README, flags=re.M)
    assert len(rows) >= 15
    assert set(rows) <= set(pyro_manifolds.__all__)
