"""What the demonstration reports: a table, the same as JSON, and a figure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from pyro_manifolds.datasets import sphere_to_patch
from pyro_manifolds.demo.experiment import Score
from pyro_manifolds.demo.model import SphereGuide, SphereModel
from pyro_manifolds.nn.checkpoints import replacing
from pyro_manifolds.plotting import draw_fundamental_square, draw_patches_on_square, square_grid

__all__ = ["Row", "save_figure", "save_json", "save_text", "summarise", "table"]

_HEADINGS = ("", "parameters", "ELBO", "log-density", "on training")


@dataclass(frozen=True)
class Row:
    """Scores of one manifold or baseline over its seeds.

    Attributes:
        name: Its label.
        latent: Whether there is a latent manifold, so that ``log_density`` is a lower bound.
        parameters: Number of parameters of the density.
        elbo: Held-out ELBO, one value a seed; empty without a latent.
        log_density: Held-out log-density, one value a seed.
        train: The same on training patches.
    """

    name: str
    latent: bool
    parameters: int
    elbo: tuple[float, ...]
    log_density: tuple[float, ...]
    train: tuple[float, ...]

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, each figure with its spread over the seeds."""
        columns = (self.elbo, self.log_density, self.train)
        return (self.name, f"{self.parameters:,}", *map(_with_spread, columns))


def summarise(scores: Sequence[Score]) -> list[Row]:
    """Gather scores by name: first the latent manifolds, then the baselines, best first.

    Example:
        >>> a, b = Score("torus", 9, -2.0, -3.0, -3.5, 0), Score("torus", 9, -2.0, -3.2, -3.7, 1)
        >>> for row in summarise([Score("uniform", 0, -3.5, -3.5), a, b]):
        ...     print(row.cells())
        ('torus', '9', '-3.600 ± 0.141', '-3.100 ± 0.141', '-2.000 ± 0.000')
        ('uniform', '0', '', '-3.500', '-3.500')
    """
    rows = [_row([s for s in scores if s.name == name]) for name in {s.name: None for s in scores}]
    return sorted(rows, key=lambda row: (not row.latent, -statistics.mean(row.log_density)))


def table(rows: Sequence[Row]) -> str:
    """Lay rows out as text, with a rule between the latent manifolds and the baselines."""
    cells = [_HEADINGS, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(_aligned(line, widths)).rstrip() for line in cells]
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    latent = sum(row.latent for row in rows)
    body = [*lines[1 : 1 + latent], *([rule] if latent else []), *lines[1 + latent :]]
    return "\n".join([lines[0], rule, *body])


def save_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def save_json(path: Path, rows: Sequence[Row], about: Mapping[str, Any]) -> None:
    """Write all scores, seed by seed, and what they are about."""
    content = {"about": dict(about), "rows": [asdict(row) for row in rows]}
    save_text(path, json.dumps(content, indent=2))


def save_figure(
    path: Path,
    rows: Sequence[Row],
    caption: str,
    trained: tuple[SphereModel, SphereGuide] | None,
    patches: Tensor,
) -> None:
    """Draw the table, and beside it what a model with a Klein bottle has learned.

    Args:
        path: Where to write a PNG, whole or not at all.
        rows: Of the table.
        caption: Small print below the table.
        trained: Model and guide on the Klein bottle, if there are any.
        patches: Held-out patches, unit vectors, to place on the square.
    """
    if trained is None:
        figure = Figure(figsize=(7.5, 4.5), layout="constrained")
        _draw_table(figure.subplots(), rows, caption)
    else:
        figure = Figure(figsize=(15, 6.4), layout="constrained")
        left, middle, right = figure.subplots(1, 3, width_ratios=(1, 1, 1.85))
        _draw_density(left, trained, patches)
        _draw_decoded(middle, trained[0])
        _draw_table(right, rows, caption)
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=150)


@torch.no_grad()
def _draw_density(ax: Axes, trained: tuple[SphereModel, SphereGuide], patches: Tensor) -> None:
    model, guide = trained
    grid = square_grid(model.manifold, columns=45, rows=90)
    posterior = guide.encoder(patches[:1000])
    log_prob = torch.stack([posterior.log_prob(z) for z in grid.reshape(-1, 1, 2)])
    relative = log_prob.exp().mean(-1).reshape(grid.shape[:-1]) * model.manifold.volume
    draw_fundamental_square(ax, model.manifold)
    limits = ax.get_xlim(), ax.get_ylim()
    image = ax.imshow(
        relative.numpy(),
        cmap="magma_r",
        vmin=0.0,
        vmax=float(relative.flatten().quantile(0.998)),
        extent=(0.0, torch.pi, -torch.pi, torch.pi),
        origin="lower",
        interpolation="bilinear",
    )
    ax.set(xlim=limits[0], ylim=limits[1])
    ax.set_title("Klein bottle: where held-out patches lie", fontsize=11)
    bar = ax.figure.colorbar(image, cax=ax.inset_axes((1.08, 0.2, 0.04, 0.6)), extend="max")
    bar.set_label("density, uniform = 1")
    bar.outline.set_visible(False)


@torch.no_grad()
def _draw_decoded(ax: Axes, model: SphereModel) -> None:
    columns = 7
    grid = square_grid(model.manifold, columns=columns, rows=2 * columns)
    draw_fundamental_square(ax, model.manifold)
    images = sphere_to_patch(model.decode(grid).loc)
    draw_patches_on_square(ax, grid, images, size=0.8 * torch.pi / columns)
    ax.set_title("Klein bottle: decoded patches", fontsize=11)


def _draw_table(ax: Axes, rows: Sequence[Row], caption: str) -> None:
    ax.axis("off")
    ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set_title("Held-out nats per patch", fontsize=11)
    edges = (0.0, 0.43, 0.62, 0.81, 1.0)
    y, step = 0.93, 0.062
    _draw_line(ax, y, edges, _HEADINGS, weight="bold")
    ax.axhline(y - 0.5 * step, color="black", linewidth=1)
    for index, row in enumerate(rows):
        if index and rows[index - 1].latent and not row.latent:
            ax.axhline(y - 0.6 * step, color="0.6", linewidth=0.8)
            y -= 0.2 * step
        y -= step
        _draw_line(ax, y, edges, row.cells())
    ax.axhline(y - 0.6 * step, color="black", linewidth=1)
    ax.text(0, y - step, caption, va="top", fontsize=8.5, color="0.25", linespacing=1.5)


def _draw_line(
    ax: Axes, y: float, edges: Sequence[float], cells: Sequence[str], weight: str = "normal"
) -> None:
    for x, cell in zip(edges, cells, strict=True):
        text = "\N{MINUS SIGN}" + cell[1:] if cell[:1] == "-" else cell
        side = "left" if x == 0 else "right"
        ax.text(x, y, text, ha=side, va="center", fontsize=9, fontweight=weight)


def _row(scores: Sequence[Score]) -> Row:
    first = scores[0]
    elbo = tuple(s.elbo for s in scores if s.elbo is not None)
    return Row(
        name=first.name,
        latent=bool(elbo),
        parameters=first.parameters,
        elbo=elbo,
        log_density=tuple(s.log_density for s in scores),
        train=tuple(s.train for s in scores),
    )


def _with_spread(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = f"{statistics.mean(values):.3f}"
    return f"{mean} ± {statistics.stdev(values):.3f}" if len(values) > 1 else mean


def _aligned(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return [cells[0].ljust(widths[0]), *others]
