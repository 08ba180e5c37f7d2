"""On which manifold do data live? One auto-encoder for each candidate, compared by evidence."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_manifolds.infer.comparison import EvidenceTable, compare_evidence
from pyro_manifolds.infer.evidence import Estimate
from pyro_manifolds.manifolds import Manifold
from pyro_manifolds.nn.held_out import check_counts
from pyro_manifolds.nn.manifold_runs import describe_data, load_pair, save_pair
from pyro_manifolds.nn.manifold_vae import (
    ManifoldGuide,
    ManifoldModel,
    count_steps,
    fit_manifold_vae,
)

__all__ = ["ManifoldChoice", "ManifoldRow", "compare_manifolds"]

Pair = tuple[ManifoldModel, ManifoldGuide]

_NAME = "compare_manifolds"  # in messages of errors
_MAX_ERRORS = 2.0  # standard errors over the data within which two candidates are tied
_MAX_NUMBERS = 20_000_000  # held at a time while evidences are estimated
_CRITERIA = ("elbo", "iwae")
_HEADER = ("", "dim", "ELBO", "IWAE", "exact", "bad k", "difference", "± seeds")


@dataclass(frozen=True, eq=False)
class ManifoldRow:
    """What a candidate got, in nats per datum; means over seeds, with the spread between seeds.

    Attributes:
        name: Name of the candidate.
        dim: Intrinsic dimension.
        elbo: Evidence lower bound of held-out data.
        iwae: Importance-weighted bound of held-out data.
        exact: Log-evidence of the decoder alone, without a guide; NaN where it was not asked for.
        difference: Of the criterion from that of the best candidate, paired by seed.
        bad_k: Share of data whose weights are too uneven to trust.
        tied: Whether the data do not tell the candidate from the best one.
        wins: Number of seeds whose choice it is.
    """

    name: str
    dim: int
    elbo: Estimate
    iwae: Estimate
    exact: Estimate
    difference: Estimate
    bad_k: float
    tied: bool
    wins: int


@dataclass(frozen=True, eq=False)
class ManifoldChoice:
    """Candidate manifolds with their evidence from several seeds; prints as a table and a verdict.

    In one seed, a candidate is *tied* with the best one if its held-out criterion is behind by at
    most two standard errors over the data, paired. Over all seeds, it is tied with the best one on
    average if it is ahead of it or tied with it in at least one seed. The choice is the simplest
    of those tied: the smallest intrinsic dimension, and then the highest criterion. For
    a superfluous dimension costs nothing if the decoder ignores it.

    Attributes:
        tables: Held-out evidence for each seed.
        pairs: Trained model and guide for each seed, by name: ordinary Pyro, to go on with.
        dims: Intrinsic dimension of each candidate.
        exact: Log-evidence of each decoder alone for each seed, where it was asked for.
        criterion: What candidates are compared by: "elbo" or "iwae". To see what another one
            would choose: ``dataclasses.replace(choice, criterion="iwae")``.
    """

    tables: Mapping[int, EvidenceTable]
    pairs: Mapping[int, Mapping[str, Pair]]
    dims: Mapping[str, int]
    exact: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    criterion: str = "elbo"

    @property
    def best(self) -> str:
        """Name of the candidate with the highest criterion, on average over the seeds."""
        return self._simplest(list(self.dims), dims=False)

    @property
    def tied(self) -> list[str]:
        """Names of the candidates that are not told from the best one, which is one of them."""
        best = self.best
        return [n for n in self.dims if any(self._is_tied(s, n, best) for s in self.tables)]

    @property
    def choice(self) -> str:
        """Name of the simplest candidate among those tied."""
        return self._simplest(self.tied)

    @property
    def choices(self) -> dict[int, str]:
        """Name of the simplest candidate among those tied, for each seed by itself."""
        return {
            seed: replace(self, tables={seed: table}).choice for seed, table in self.tables.items()
        }

    @property
    def rows(self) -> list[ManifoldRow]:
        """One row for each candidate, best first."""
        rows = [self._row(name) for name in self.dims]
        return sorted(rows, key=lambda row: row.difference.value, reverse=True)

    def __str__(self) -> str:
        rows, width = self.rows, max(map(len, self.dims))
        header = _line(_HEADER, width)
        lines = [header, "-" * len(header), *(_line(_cells(row), width) for row in rows), ""]
        num = next(iter(self.tables.values())).num_data
        lines.append(
            f"In nats per datum of {num} held out, means over {len(self.tables)} seeds; "
            f"differences of the {self.criterion.upper()}."
        )
        return "\n".join([*lines, self.verdict])

    @property
    def verdict(self) -> str:
        """The choice in words."""
        choices = list(self.choices.values())
        agree = f"the choice of {choices.count(self.choice)} of {len(choices)} seeds"
        others = [name for name in self.tied if name != self.choice]
        if not others:
            return f"{self.choice}: ahead of all others beyond the noise; {agree}."
        return f"{self.choice}: the simplest of those tied, with {', '.join(others)}; {agree}."

    def _scores(self, seed: int, name: str) -> Tensor:
        """Return the criterion of each held-out datum."""
        bounds = self.tables[seed][name].bounds
        return bounds.elbo if self.criterion == "elbo" else bounds.iwae

    def _mean(self, seed: int, name: str) -> float:
        return self._scores(seed, name).mean().item()

    def _is_tied(self, seed: int, name: str, best: str) -> bool:
        behind = self._scores(seed, best) - self._scores(seed, name)
        error = (behind.std() / math.sqrt(behind.numel())).item()
        return behind.mean().item() <= _MAX_ERRORS * error

    def _simplest(self, names: Sequence[str], *, dims: bool = True) -> str:
        scores = {n: statistics.mean(self._mean(seed, n) for seed in self.tables) for n in names}
        return min(names, key=lambda name: (dims * self.dims[name], -scores[name]))

    def _row(self, name: str) -> ManifoldRow:
        best, rows = self.best, [table[name] for table in self.tables.values()]
        exact = [values[name] for values in self.exact.values() if name in values]
        return ManifoldRow(
            name,
            self.dims[name],
            _over_seeds([row.elbo for row in rows]),
            _over_seeds([row.log_evidence.value for row in rows]),
            _over_seeds(exact),
            _over_seeds([self._mean(s, name) - self._mean(s, best) for s in self.tables]),
            statistics.mean(row.bad_k for row in rows),
            name in self.tied,
            list(self.choices.values()).count(name),
        )


def compare_manifolds(
    data: Tensor,
    manifolds: Mapping[str, Manifold] | Sequence[Manifold],
    *,
    noise: float,
    held_out: Tensor | float = 0.1,
    seeds: Sequence[int] = (0, 1, 2),
    restarts: int = 4,
    steps: int = 1500,
    batch_size: int = 128,
    learning_rate: float = 4e-3,
    hidden: Sequence[int] = (128, 256),
    num_particles: int = 128,
    num_points: int = 0,
    criterion: str = "elbo",
    folder: str | Path | None = None,
    progress: bool = True,
) -> ManifoldChoice:
    r"""Train the same auto-encoder on every candidate manifold and compare held-out evidence.

    All candidates have the same decoder of the embedding, the same noise, steps and starts, a
    uniform prior (standard normal where the volume is infinite) and a wrapped normal posterior
    (:class:`ManifoldModel`, :class:`ManifoldGuide`). They are compared by
    :func:`~pyro_manifolds.infer.compare_evidence` on data held out, by the ELBO, and ties go to
    the simplest, see :class:`ManifoldChoice`.

    The ELBO counts what the encoder loses, and this is on purpose. The evidence of the decoder
    alone hardly tells manifolds apart: a line bent into an almost closed curve is nearly a circle,
    and a torus decoded in two equal sheets has the evidence of the Klein bottle. What a wrong
    manifold cannot have is a continuous encoder to one point of it: where data lie on a circle and
    codes on a line, the encoder must jump, and on a cover it must leave all sheets but one, which
    costs the logarithm of their number. Bounds by importance weighting see less of this the more
    draws they take, and in the end nothing.

    The noise must be known, or added on purpose: on data without noise, the evidence grows
    with training for ever. With much of it posteriors are wide and all manifolds alike; the
    less there is, the more a jump costs.

    References:
        | Embedding-Reparameterization Procedure for Manifold-Valued Latent Variables in Generative
          Models (Golikov and Kretov, 2018), arXiv 1812.02769, which suggests the comparison
        | Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), arXiv
          1509.00519

    Args:
        data: Data of any shape, ``[n, *event_shape]``, in floating point.
        manifolds: Candidates by name, or in a list, where they are called by what they print.
        noise: Standard deviation of the noise in the data.
        held_out: Data held out, or the fraction of ``data`` to hold out at random.
        seeds: Seeds of training, one pair for each and each candidate.
        restarts: Number of starts for each seed; the best by training ELBO after a fifth of the
            steps is trained to the end.
        steps: Number of steps of Adam.
        batch_size: Data in a batch.
        learning_rate: Step size at the start; it falls to zero.
        hidden: Widths of the hidden layers of the decoder; the encoder has the reverse.
        num_particles: Number of draws for both bounds.
        num_points: Number of draws for :meth:`ManifoldModel.log_evidence`, which needs no guide,
            on candidates of at most two dimensions; 0 for none.
        criterion: What to compare by, "elbo" or "iwae".
        folder: Where to keep trained pairs. A call that was interrupted, or one with more
            candidates or seeds, goes on from those found there.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: If an argument is out of range or has the wrong shape, or a file in ``folder``
            is of other data or settings.
        TypeError: If a candidate is not a manifold of this library.
        FloatingPointError: If the ELBO of every start of a candidate stops being finite.

    Example:
        >>> from pyro_manifolds.nn import compare_manifolds
        >>> angles = Circle().random_uniform(600).as_subclass(torch.Tensor)
        >>> x = Circle().embed(angles) @ torch.eye(2, 9) + 0.1 * torch.randn(600, 9)
        >>> candidates = [Circle(), Euclidean(1)]
        >>> options = dict(noise=0.1, seeds=[0], steps=300, hidden=(32, 32), progress=False)
        >>> compare_manifolds(x, candidates, **options).choice
        'Circle()'
    """
    candidates = _named(manifolds)
    _check(data, noise, held_out, seeds)
    if criterion not in _CRITERIA:
        raise ValueError(f"{_NAME}: expected criterion in {_CRITERIA}, got {criterion!r}")
    options: dict[str, Any] = {"steps": steps, "restarts": restarts, "batch_size": batch_size}
    check_counts(_NAME, **options, num_particles=num_particles)
    train, test = _split(data, held_out)
    settings = {**options, "learning_rate": learning_rate, "hidden": tuple(hidden)}
    identity = {**settings, "noise": noise, "data": describe_data(train)}
    pairs: dict[int, dict[str, Pair]] = {}
    tables, exact = {}, {}
    total = len(seeds) * len(candidates) * count_steps(steps, restarts)
    with tqdm(total=total, desc=_NAME, disable=not progress, mininterval=1.0) as bar:
        for seed in seeds:
            pairs[seed] = {}
            for name, manifold in candidates.items():
                bar.set_description(f"{name}, seed {seed}")
                path = Path(folder) / f"{_slug(name)}-{seed}.pt" if folder else None
                ours = {**identity, "manifold": str(manifold), "seed": seed}
                pair = load_pair(path, manifold, train, noise, hidden, ours)
                if pair is None:
                    model, guide, _ = fit_manifold_vae(
                        manifold, train, noise=noise, seed=seed, on_step=bar.update, **settings
                    )
                    pair = model, guide
                    save_pair(path, *pair, ours)
                else:
                    bar.update(count_steps(steps, restarts))
                pairs[seed][name] = pair
            tables[seed] = _table(pairs[seed], test, num_particles, seed)
            exact[seed] = _exact(pairs[seed], test, num_points, seed) if num_points else {}
    dims = {name: manifold.dim for name, manifold in candidates.items()}
    return ManifoldChoice(tables, pairs, dims, exact, criterion)


def _named(manifolds: Mapping[str, Manifold] | Sequence[Manifold]) -> dict[str, Manifold]:
    if isinstance(manifolds, Mapping):
        named = dict(manifolds)
    else:
        named = {str(manifold): manifold for manifold in manifolds}
        if len(named) < len(manifolds):
            raise ValueError(f"{_NAME}: expected different manifolds, got {list(manifolds)}")
    if not named:
        raise ValueError(f"{_NAME}: expected at least one manifold, got none")
    for manifold in named.values():
        if not isinstance(manifold, Manifold):
            raise TypeError(
                f"{_NAME}: expected manifolds of pyro_manifolds, got {type(manifold).__name__}"
            )
    if len({_slug(name) for name in named}) < len(named):
        raise ValueError(f"{_NAME}: expected names that differ in letters, got {list(named)}")
    return named


def _check(data: Tensor, noise: float, held_out: Tensor | float, seeds: Sequence[int]) -> None:
    if not 0 < noise < math.inf:
        raise ValueError(f"{_NAME}: expected noise > 0, got {noise}")
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"{_NAME}: expected different seeds, at least one, got {list(seeds)}")
    parts = {"data": data}
    if isinstance(held_out, Tensor):
        parts["held_out"] = held_out
    elif not 0 < held_out < 1:
        raise ValueError(f"{_NAME}: expected held_out to be data or in (0, 1), got {held_out}")
    for name, part in parts.items():
        if part.dim() < 2 or part.shape[1:] != data.shape[1:] or len(part) < 4:
            raise ValueError(
                f"{_NAME}: expected {name} of shape (n, *event_shape) with n >= 4 and "
                f"an event_shape of {tuple(data.shape[1:])}, got {tuple(part.shape)}"
            )
        if not part.is_floating_point() or not part.isfinite().all():
            raise ValueError(
                f"{_NAME}: expected finite floating-point {name}, got {part.dtype}"
                + (", with nan or infinity" if part.is_floating_point() else "")
            )


def _split(data: Tensor, held_out: Tensor | float) -> tuple[Tensor, Tensor]:
    if isinstance(held_out, Tensor):
        return data, held_out.to(data)
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).to(data.device)
    number = max(2, int(held_out * len(data)))
    return data[order[number:]], data[order[:number]]


def _table(
    pairs: Mapping[str, Pair], test: Tensor, num_particles: int, seed: int
) -> EvidenceTable:
    chunk = min(num_particles, max(1, _MAX_NUMBERS // test.numel()))
    with torch.random.fork_rng(devices=[test.device] if test.is_cuda else []):
        torch.manual_seed(seed)
        return compare_evidence(pairs, test, num_particles=num_particles, chunk_size=chunk)


def _exact(
    pairs: Mapping[str, Pair], test: Tensor, num_points: int, seed: int
) -> dict[str, float]:
    models = {name: model for name, (model, _) in pairs.items() if model.manifold.dim <= 2}
    with torch.random.fork_rng(devices=[test.device] if test.is_cuda else []):
        torch.manual_seed(seed)
        return {n: m.log_evidence(test, num_points).mean().item() for n, m in models.items()}


def _over_seeds(values: Sequence[float]) -> Estimate:
    spread = statistics.stdev(values) if len(values) > 1 else math.nan
    return Estimate(statistics.mean(values) if values else math.nan, spread)


def _slug(name: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in name).split())


def _cells(row: ManifoldRow) -> tuple[str, ...]:
    numbers = (row.elbo.value, row.iwae.value, row.exact.value, *row.difference)
    cells = ["" if math.isnan(n) else f"{round(n, 2) + 0.0:.2f}" for n in numbers]
    return row.name, str(row.dim), *cells[:3], f"{row.bad_k:.0%}", *cells[3:], "tied" * row.tied


def _line(cells: tuple[str, ...], width: int) -> str:
    name, *numbers = cells
    widths = (5, 10, 10, 10, 7, 12, 9, 6)
    numbers += [""] * (len(widths) - len(numbers))
    return name.ljust(width) + "".join(map(str.rjust, numbers, widths))
