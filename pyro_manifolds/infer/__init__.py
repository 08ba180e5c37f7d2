"""Inference: reparameterisers and guides for sites on manifolds, and estimates of the evidence."""

from pyro_manifolds.infer.chains import manifold_samples, manifolds_of
from pyro_manifolds.infer.comparison import EvidenceRow, EvidenceTable, compare_evidence
from pyro_manifolds.infer.complex_deltas import RealDeltas, real_deltas
from pyro_manifolds.infer.diagnostics import (
    ManifoldSummary,
    SiteSummary,
    manifold_summary,
    to_arviz,
)
from pyro_manifolds.infer.evidence import Estimate, EvidenceBounds, evidence_bounds
from pyro_manifolds.infer.importance import log_importance_weights

__all__ = [
    "Estimate",
    "EvidenceBounds",
    "EvidenceRow",
    "EvidenceTable",
    "ManifoldSummary",
    "RealDeltas",
    "SiteSummary",
    "compare_evidence",
    "evidence_bounds",
    "log_importance_weights",
    "manifold_samples",
    "manifold_summary",
    "manifolds_of",
    "real_deltas",
    "to_arviz",
]
