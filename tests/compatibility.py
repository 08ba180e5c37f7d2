"""The table of compatibility in README: ``python -m tests.compatibility --write`` keeps it true.

One row for each distribution on each kind of manifold: a row of ``tests/cases.py`` and its title.
Columns are the algorithms of ``pyro_manifolds.testing``, those with equal verdicts side by side.
"""

import argparse
from pathlib import Path

import pyro

from pyro_manifolds.testing import ALGORITHMS
from tests.cases import CASES

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- compatibility: begin -->\n", "<!-- compatibility: end -->"

ROWS = {
    "wrapped-circle": "`WrappedNormal` on `Circle()`",
    "wrapped-torus": "`WrappedNormal` on `Torus(2)`",
    "wrapped-klein": "`WrappedNormal` on `KleinBottle()`",
    "wrapped-band": "`WrappedNormal` on `MoebiusBand(1.0)`",
    "wrapped-open-band": "`WrappedNormal` on `MoebiusBand(inf)`",
    "wrapped-sphere": "`WrappedNormal` on `Sphere(2)`",
    "wrapped-plane": "`WrappedNormal` on `ProjectiveSpace(2)`",
    "wrapped-rotations": "`WrappedNormal` on `SO3()`",
    "wrapped-lens": "`WrappedNormal` on `LensSpace(5, 2)`",
    "wrapped-globe": "`WrappedNormal` on `Product(Circle(), Sphere(2))`",
    "wrapped-funnel": "`WrappedNormal` on `Product(PoincareBall(2, -0.25), Circle())`",
    "wrapped-hyperboloid": "`WrappedNormal` on `Hyperboloid(2, -1.0)`",
    "wrapped-ball": "`WrappedNormal` on `PoincareBall(3, -1.0)`",
    "wrapped-euclidean": "`WrappedNormal` on `Euclidean(2)`",
    "uniform-klein": "`ManifoldUniform` on `KleinBottle()`",
    "uniform-lens": "`ManifoldUniform` on `LensSpace(5, 2)`",
    "uniform-band": "`ManifoldUniform` on `MoebiusBand(1.0)`",
    "von-mises": "`VonMises` on `Circle()`",
    "von-mises-torus": "`VonMises` on `Torus(2)`, by `.to_event(1)`",
    "power-spherical-sphere": "`PowerSpherical` on `Sphere(2)`",
    "von-mises-fisher-sphere": "`VonMisesFisher` on `Sphere(2)`",
    "spherical-cauchy-sphere": "`SphericalCauchy` on `Sphere(2)`",
    "projected-normal-sphere": "`ProjectedNormal` on `Sphere(2)`",
    "pushed-torus-to-klein": "`CoveringPushforward` on `KleinBottle()` of a wrapped normal",
    "pushed-von-mises-to-klein": "`CoveringPushforward` on `KleinBottle()` of `VonMises`",
    "pushed-power-spherical-to-plane": (
        "`CoveringPushforward` on `ProjectiveSpace(2)` of `PowerSpherical`"
    ),
    "pushed-full-normal": "`CoveringPushforward` on `Torus(2)` of a full covariance",
    "flow-klein": "`CoveringPushforward` on `KleinBottle()` of a flow",
    "flow-band": "`CoveringPushforward` on `MoebiusBand(1.0)` of a flow",
    "embedded-beta-sphere": "`EmbeddingPushforward` on `Sphere(2)` of `Beta`",
    "embedded-beta-torus": "`EmbeddingPushforward` on a torus in `R^(3)` of `Beta`",
    "embedded-klein": "`EmbeddingPushforward` on the Klein bottle in `R^(5)` of a wrapped normal",
    "moved-klein": "`Moved` on `KleinBottle()` of a wrapped normal",
    "tangent-sphere": "the base `TangentNormal` on `Sphere(2)`",
    "klein-filter": "`KleinFilter` on `R^(3 x 3)`, filters of 3 by 3",
    "circle-filter": "`CircleFilter` on `R^(3 x 3)`",
    "gaussian-filter": "`GaussianFilter` on `R^(3 x 3)`",
    "complex-normal": "`ComplexNormal` on `C`, proper",
    "complex-improper": "`ComplexNormal` on `C`, improper",
    "complex-vector": "`ComplexMultivariateNormal` on `C^(2)`, proper",
    "complex-multivariate": "`ComplexMultivariateNormal` on `C^(2)`, improper",
    "topographic-groups": "`TopographicStudentT` on `R^(2)`, a group of two",
    "topographic-ring": "`TopographicStudentT` on `R^(3)`, a ring",
    "concatenated": "the base `Concatenated` on `Euclidean(3)`",
}


def verdicts() -> dict[str, tuple[str, ...]]:
    """How every algorithm serves the cases of the rows."""
    pyro.set_rng_seed(0)
    cases = [CASES[name] for name in ROWS]
    return {
        name: tuple(algorithm.verdict(case).value for case in cases)
        for name, algorithm in ALGORITHMS.items()
    }


def table() -> str:
    """Print the columns, one letter for all with equal verdicts, and the table in Markdown."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for name, column in verdicts().items():
        columns.setdefault(column, []).append(name)
    letters = [chr(ord("A") + number) for number in range(len(columns))]
    legend = "".join(
        f"- **{letter}**: {', '.join(map(_code, names))}\n"
        for letter, names in zip(letters, columns.values(), strict=True)
    )
    lines = [
        ("distribution", *letters),
        ("---",) * (1 + len(columns)),
        *zip(ROWS.values(), *columns, strict=True),
    ]
    return legend + "\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _code(name: str) -> str:
    return f"`{name}`" if name[0].isupper() or "." in name else name


def printed(text: str) -> str:
    """Cut out what README holds between the markers."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def main() -> None:
    """Print the table, or put it into README."""
    parser = argparse.ArgumentParser(prog="python -m tests.compatibility", description=__doc__)
    parser.add_argument("--write", action="store_true", help="put the table into README.md")
    if parser.parse_args().write:
        text = README.read_text()
        README.write_text(text.replace(BEGIN + printed(text) + END, BEGIN + table() + END))
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
