"""The benchmark of topographic maps at a tiny size: every row comes, and once."""

import json
import math

import pytest

from benchmarks.topographic_maps import DIGITS, PATCHES, main

pytest.importorskip("skimage")
pytest.importorskip("mlxtend")


def numbers(value):
    if isinstance(value, dict):
        return [number for part in value.values() for number in numbers(part)]
    return [value] if isinstance(value, float) else []


def test_every_row_comes_and_a_second_run_adds_none(tmp_path, capsys):
    arguments = ["--quick", "--seeds", "0", "--output", str(tmp_path / "rows.json")]
    rows = main(arguments)
    assert [row["model"] for row in rows] == [*PATCHES, *DIGITS]
    assert all(math.isfinite(number) for row in rows for number in numbers(row))
    assert all(0 <= row["trained"]["agreement"]["value"] <= 1 for row in rows[len(PATCHES) :])
    lines = capsys.readouterr().out.splitlines()
    assert all(any(line.startswith(name) for line in lines) for name in [*PATCHES, *DIGITS])
    saved = (tmp_path / "rows.json").read_text()
    assert json.loads(saved) == rows
    main(arguments)
    assert (tmp_path / "rows.json").read_text() == saved
