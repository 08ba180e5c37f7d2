"""The benchmarks run, report every row, and bear out what is claimed of the wrapped normal."""

import json

import pytest

from benchmarks.__main__ import ENTRIES, main, table

# Dynamo instantiates the autograd function while it traces, against torch's own advice.
pytestmark = pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    path = tmp_path_factory.mktemp("results") / "benchmarks.json"
    return main(["--quick", "--output", str(path)]), json.loads(path.read_text())


@pytest.mark.slow
def test_every_entry_reports_rows_in_the_table_and_in_the_file(report):
    rows, written = report
    assert {row.entry for row in rows} == set(ENTRIES)
    assert [row["name"] for row in written["rows"]] == [row.name for row in rows]
    lines = table(rows).splitlines()[2:]
    assert all(row.name in line for row, line in zip(rows, lines, strict=True))
    assert all(row.milliseconds > 0 for row in rows)


@pytest.mark.slow
def test_a_wrapped_normal_on_a_torus_costs_a_few_normals_and_far_less_than_von_mises(report):
    wrapped = next(row for row in report[0] if row.name == "WrappedNormal")
    # The claim is 5, and 2.5 is typical; three repeats on a busy machine scatter by half.
    assert wrapped.to_normal < 8
    assert wrapped.speedup > 5


def test_an_unknown_entry_is_refused_by_name(capsys):
    with pytest.raises(SystemExit):
        main(["tori"])
    assert "expected entries among torus, scale" in capsys.readouterr().err
