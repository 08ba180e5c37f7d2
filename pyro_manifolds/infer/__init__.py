"""Inference: reparameterisers and guides for sites on manifolds, and estimates of the evidence."""

from pyro_manifolds.infer.evidence import EvidenceBounds, evidence_bounds, log_importance_weights

__all__ = ["EvidenceBounds", "evidence_bounds", "log_importance_weights"]
