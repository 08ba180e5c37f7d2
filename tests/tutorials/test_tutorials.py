"""Every tutorial: script and notebook say the same, and the notebook runs."""

import importlib.util
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

FOLDER = Path(__file__).resolve().parents[2] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("[0-9]*.ipynb"))

spec = importlib.util.spec_from_file_location("tutorials_build", FOLDER / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


def cells(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_every_script_has_a_notebook():
    scripts = sorted(FOLDER.glob("[0-9]*.py"))
    assert scripts == [path.with_suffix(".py") for path in NOTEBOOKS]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the kernel's sockets, as they close
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_matches_its_script_and_runs(path):
    notebook = nbformat.read(path, as_version=4)
    assert cells(notebook) == cells(jupytext.read(path.with_suffix(".py")))
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert outputs, "keep the outputs: python tutorials/build.py"
    assert not any(output.output_type == "error" for output in outputs)
    build.execute(notebook, smoke=True, timeout=300)
