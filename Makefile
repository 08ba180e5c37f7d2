# Every target does its own set-up: all it needs is Python 3.10 or newer.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint tutorials benchmarks compatibility dist clean

demo: .venv/installed-demo  ## learn latent manifolds from photographs; options in ARGS
	$(BIN)/python -m pyro_manifolds.demo $(ARGS)

test: .venv/installed-test  ## every law, every example, the tutorials in smoke mode
	$(BIN)/python -m pytest -n auto $(ARGS)

lint: .venv/installed-lint .venv/installed-test  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

tutorials: .venv/installed-test  ## run the notebooks in full and keep their outputs
	$(BIN)/python tutorials/build.py

benchmarks: .venv/installed-benchmarks  ## ratios against named peers
	$(BIN)/python -m benchmarks $(ARGS)

compatibility: .venv/installed-test  ## print the table of algorithms and distributions into README
	$(BIN)/python -m tests.compatibility --write

dist: .venv/installed-lint  ## build wheel and sdist, and import from the wheel alone
	rm -rf dist build/wheel
	$(BIN)/python -m build --outdir dist .
	$(BIN)/pip install --quiet --no-deps --target build/wheel dist/*.whl
	cd build/wheel && ../../$(BIN)/python -c "import pyro_manifolds as m; print(m.__file__, m.__version__)"

clean:
	rm -rf .venv build dist results *.egg-info

.venv/bin/python:
	@$(PYTHON) -c "import sys; assert sys.version_info >= (3, 10), 'Python 3.10 or newer is needed'"
	$(PYTHON) -m venv .venv

.venv/installed-%: .venv/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[$*]"
	touch $@
