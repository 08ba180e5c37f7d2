"""The benchmark of learned embeddings at a tiny size: every row comes, and once."""

import json
import math

from benchmarks.learned_embeddings import RECIPES, main


def test_every_row_comes_and_a_second_run_adds_none(tmp_path, capsys):
    arguments = ["--quick", "--seeds", "0", "--manifolds", "circle"]
    arguments += ["--output", str(tmp_path / "rows.json")]
    rows = main(arguments)
    assert [row["recipe"] for row in rows] == list(RECIPES)
    assert all(math.isfinite(v) for row in rows for v in row.values() if isinstance(v, float))
    assert all(0 <= row["coverage"] <= 1 for row in rows)
    saved = (tmp_path / "rows.json").read_text()
    assert json.loads(saved) == rows
    lines = capsys.readouterr().out.splitlines()
    assert all(any(recipe in line for line in lines) for recipe in RECIPES)
    main(arguments)
    assert (tmp_path / "rows.json").read_text() == saved
