"""Candidate models, of several manifolds for instance, compared by their evidence."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pyro_manifolds.infer.evidence import (
    Estimate,
    EvidenceBounds,
    evidence_bounds,
    mean_over_data,
)

__all__ = ["EvidenceRow", "EvidenceTable", "compare_evidence"]

Pair = tuple[Callable[..., Any], Callable[..., Any]]

_HEADER = ("", "log-evidence", "s.e.", "difference", "s.e.", "ELBO", "gap", "min ESS", "bad k")


@dataclass(frozen=True, eq=False)
class EvidenceRow:
    r"""What a candidate got, in nats per datum.

    Attributes:
        name: Name of the candidate.
        bounds: Bounds of each datum, or of all data together.
        log_evidence: Mean importance-weighted bound, with its standard error over the data.
        difference: The same less that of the best candidate, paired by datum: zero or less.
        elbo: Mean evidence lower bound; the rest of the log-evidence is the gap of the guide.
        min_ess: Smallest effective sample size, of as many as there were draws.
        bad_k: Share of the data whose log-evidence is not to be trusted, for the tail of their
            weights is heavy, with a Pareto k above 0.7 (or above :math:`1 - 1/\log_{10} n`, if the
            number of draws n is small), or unknown from less than 21 draws.
    """

    name: str
    bounds: EvidenceBounds
    log_evidence: Estimate
    difference: Estimate
    elbo: float
    min_ess: float
    bad_k: float

    @property
    def gap(self) -> float:
        """Log-evidence less ELBO, what the guide loses."""
        return self.log_evidence.value - self.elbo


@dataclass(frozen=True, eq=False)
class EvidenceTable:
    """Candidates with their evidence, best first; prints as a table.

    Attributes:
        rows: One for each candidate.
        num_data: Number of data with an evidence each; one if they have it together.
        num_particles: Number of draws from each guide.
    """

    rows: tuple[EvidenceRow, ...]
    num_data: int
    num_particles: int

    @property
    def best(self) -> str:
        """Name of the candidate with the highest log-evidence."""
        return self.rows[0].name

    def __iter__(self) -> Iterator[EvidenceRow]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, name: str) -> EvidenceRow:
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(f"EvidenceTable: expected one of {[r.name for r in self]}, got {name!r}")

    def __str__(self) -> str:
        width = max(map(len, (row.name for row in self)))
        lines = [_line(_HEADER, width), *(_line(_cells(row), width) for row in self)]
        over = "the data" if self.num_data > 1 else "the draws"
        unit = f"nats per datum of {self.num_data}" if self.num_data > 1 else "nats"
        caption = f"In {unit}, from {self.num_particles} draws; standard errors over {over}."
        if any(row.bad_k for row in self):
            caption += "\nbad k: share of the data with weights too uneven to trust; "
            caption += "draw more, or train the guide."
        return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", caption])


def compare_evidence(
    candidates: Mapping[str, Pair],
    *args: Any,
    num_particles: int = 256,
    chunk_size: int | None = None,
    max_plate_nesting: int = 1,
    **kwargs: Any,
) -> EvidenceTable:
    """Compare candidates by their evidence on the same data.

    Differences are taken datum by datum, so that what makes a datum easy or hard for all cancels.
    A difference of a few standard errors tells two candidates apart on data of this kind; what
    guides lose shows as the gap between log-evidence and ELBO, and speaks of the guides.

    References:
        | Importance Weighted Autoencoders (Burda, Grosse and Salakhutdinov, 2016), arXiv
          1509.00519
        | Pareto Smoothed Importance Sampling (Vehtari, Simpson, Gelman, Yao and Gabry, 2024)

    Args:
        candidates: A model and its guide by name, all of the same data.
        *args: Arguments of all models and guides: the data, held out from training.
        num_particles: Number of draws from each guide.
        chunk_size: Number of draws at a time, to bound the memory; all of them by default.
        max_plate_nesting: Number of dimensions of the plates of the models.
        **kwargs: Keyword arguments of all models and guides.

    Raises:
        ValueError: If there are no candidates, or some have an evidence for each datum and others
            for all of them together; and as for
            :func:`~pyro_manifolds.infer.importance.log_importance_weights`.

    Example:
        >>> def around(scale):
        ...     def model(x):
        ...         with pyro.plate("data", len(x)):
        ...             z = pyro.sample("z", dist.Normal(0.0, scale))
        ...             pyro.sample("x", dist.Normal(z, 1.0), obs=x)
        ...     def guide(x):
        ...         share = scale**2 / (1 + scale**2)
        ...         with pyro.plate("data", len(x)):
        ...             pyro.sample("z", dist.Normal(share * x, share**0.5))
        ...     return model, guide
        >>> from pyro_manifolds.infer import compare_evidence
        >>> x = torch.linspace(-3.0, 3.0, 101)
        >>> print(compare_evidence({"narrow": around(0.5), "wide": around(2.0)}, x))
                log-evidence    s.e.  difference    s.e.      ELBO     gap  min ESS   bad k
        -----------------------------------------------------------------------------------
        wide          -2.030   0.027       0.000   0.000    -2.030   0.000    256.0    0.0%
        narrow        -2.255   0.109      -0.225   0.082    -2.255   0.000    256.0    0.0%
        <BLANKLINE>
        In nats per datum of 101, from 256 draws; standard errors over the data.
    """
    if not candidates:
        raise ValueError("compare_evidence: expected at least one candidate, got none")
    bounds = {
        name: evidence_bounds(
            *pair,
            *args,
            num_particles=num_particles,
            chunk_size=chunk_size,
            max_plate_nesting=max_plate_nesting,
            **kwargs,
        )
        for name, pair in candidates.items()
    }
    shapes = {name: tuple(b.iwae.shape) for name, b in bounds.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(
            "compare_evidence: expected evidences of the same data from all candidates, got "
            f"shapes {shapes}; put all sites of each into its plates, or none"
        )
    best = max(bounds.values(), key=lambda b: b.iwae.mean().item())
    rows = [_row(name, b, best, num_particles) for name, b in bounds.items()]
    rows.sort(key=lambda row: row.log_evidence.value, reverse=True)
    return EvidenceTable(tuple(rows), best.iwae.numel(), num_particles)


def _row(name: str, ours: EvidenceBounds, best: EvidenceBounds, num_particles: int) -> EvidenceRow:
    # As Vehtari et al. recommend; with less than 21 draws k is not known, which is as bad.
    threshold = min(0.7, 1 - 1 / math.log10(max(num_particles, 21)))
    return EvidenceRow(
        name=name,
        bounds=ours,
        log_evidence=ours.mean(),
        difference=_difference(ours, best),
        elbo=ours.elbo.mean().item(),
        min_ess=ours.ess.min().item(),
        bad_k=1 - (ours.pareto_k <= threshold).double().mean().item(),
    )


def _difference(ours: EvidenceBounds, best: EvidenceBounds) -> Estimate:
    if ours is best:
        return Estimate(0.0, 0.0)
    errors = torch.hypot(ours.iwae_error, best.iwae_error)
    return mean_over_data(ours.iwae - best.iwae, errors)


def _cells(row: EvidenceRow) -> tuple[str, ...]:
    estimates = (*row.log_evidence, *row.difference, row.elbo, row.gap)
    numbers = (f"{round(number, 3) + 0.0:.3f}" for number in estimates)  # no minus before zero
    return row.name, *numbers, f"{row.min_ess:.1f}", f"{row.bad_k:.1%}"


def _line(cells: tuple[str, ...], width: int) -> str:
    name, *numbers = cells
    widths = (14, 8, 12, 8, 10, 8, 9, 8)
    return name.ljust(width) + "".join(map(str.rjust, numbers, widths))
