"""Execute tutorials and write their notebooks: ``python tutorials/build.py [script ...]``."""

import os
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

__all__ = ["build", "execute"]

FOLDER = Path(__file__).resolve().parent


def execute(notebook: nbformat.NotebookNode, *, smoke: bool = False, timeout: int = 1200) -> None:
    """Run a notebook in place, in the root of the repository, which it imports from."""
    root = str(FOLDER.parent)
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {"PYTHONPATH": root}
    resources = {"metadata": {"path": root}}
    client = NotebookClient(notebook, timeout=timeout, resources=resources, coalesce_streams=True)
    client.execute(env=environment | ({"CI": "1"} if smoke else {}))


def build(source: Path) -> None:
    """Write the executed notebook next to a script."""
    notebook = jupytext.read(source)
    execute(notebook)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times of day
        if "outputs" in cell:  # warnings show paths of this machine
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    nbformat.write(notebook, source.with_suffix(".ipynb"))


if __name__ == "__main__":
    for script in map(Path, sys.argv[1:] or sorted(FOLDER.glob("[0-9]*.py"))):
        start = time.perf_counter()
        build(script)
        print(f"{script.name}: {time.perf_counter() - start:.0f} s", flush=True)
