"""Pytest set-up shared by tests and doctests: names for examples, seeds, a clean Pyro."""

import math
from collections.abc import Iterator
from typing import Any

import geoopt
import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine

import pyro_manifolds
from pyro_manifolds.distributions import Concatenated, TangentNormal


@pytest.fixture(autouse=True)
def _clean_state() -> Iterator[None]:
    """Start every test from one seed, an empty parameter store and validation switched on."""
    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    pyro.enable_validation(True)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, Any]) -> None:
    """Make what every example needs available in docstrings."""
    names = {name: getattr(pyro_manifolds, name) for name in pyro_manifolds.__all__}
    extra = {"Concatenated": Concatenated, "TangentNormal": TangentNormal}
    common = {"torch": torch, "math": math, "pyro": pyro, "dist": dist, "geoopt": geoopt}
    doctest_namespace.update(names | extra | common | {"poutine": poutine})
