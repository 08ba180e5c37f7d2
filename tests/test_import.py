"""Importing the package adds names and registrations, and changes nothing else."""

import importlib
import json
import subprocess
import sys

import pytest

import pyro_manifolds

STATE = """
import json, random, sys, warnings
import numpy, torch, pyro, geoopt, matplotlib

def state():
    return {
        "default dtype": str(torch.get_default_dtype()),
        "default device": str(torch.get_default_device()),
        "rng": hash(torch.get_rng_state().numpy().tobytes()),
        "numpy rng": hash(numpy.random.get_state()[1].tobytes()),
        "python rng": hash(random.getstate()),
        "torch validation": torch.distributions.Distribution._validate_args,
        "pyro validation": pyro.infer.util.is_validation_enabled(),
        "pyro settings": {key: repr(value) for key, value in pyro.settings.get().items()},
        "warning filters": repr(warnings.filters),
        "grad": torch.is_grad_enabled(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "params": sorted(pyro.get_param_store().keys()),
        "stack": len(pyro.poutine.runtime._PYRO_STACK),
        "error handling": numpy.geterr(),
        "print options": repr(torch._tensor_str.PRINT_OPTS),
        "pyplot, which starts a window system": "matplotlib.pyplot" in sys.modules,
        "biject_to": dict.fromkeys(map(str, torch.distributions.biject_to._registry)),
        "recursion": sys.getrecursionlimit(),
    }

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    before = state()
    import pyro_manifolds
    after = state()
print(json.dumps([before, after, [str(warning.message) for warning in caught]]))
"""
MODULES = ["", ".distributions", ".distributions.transforms", ".geometry", ".infer"]
MODULES += [".infer.reparam", ".manifolds", ".nn"]


@pytest.fixture(scope="module")
def process():
    """Import in a fresh interpreter, after the libraries that it builds on."""
    return subprocess.run([sys.executable, "-c", STATE], capture_output=True, text=True)


def test_importing_changes_no_global_state(process):
    assert process.returncode == 0, process.stderr
    before, after, _ = json.loads(process.stdout)
    registered = set(after.pop("biject_to")) - set(before.pop("biject_to"))
    assert before == after
    # Registrations are for types of our own.
    assert registered
    assert all("pyro_manifolds" in name for name in registered)


def test_importing_warns_of_nothing_and_prints_nothing(process):
    *_, caught = json.loads(process.stdout)  # one line, and no other
    assert caught == []
    assert process.stderr == ""


@pytest.mark.parametrize("module", MODULES)
def test_public_names_are_sorted_unique_and_importable(module):
    public = importlib.import_module("pyro_manifolds" + module)
    names = public.__all__
    # As ruff sorts them: constants, then classes, then functions and modules.
    order = sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert list(names) == order or list(names) == sorted(names)
    assert len(set(names)) == len(names)
    for name in names:
        assert getattr(public, name) is not None


def test_the_version_is_a_release_number():
    assert all(part.isdigit() for part in pyro_manifolds.__version__.split(".")[:2])
