"""Geometry of latent spaces: metrics of decoders, potentials, curves, topology of samples."""

from pyro_manifolds.geometry.capsule_shifts import (
    ShiftAgreement,
    capsule_shifts,
    estimated_shifts,
    shift_agreement,
    shift_hit_rates,
)
from pyro_manifolds.geometry.capsules import (
    equivariance_chance,
    equivariance_error,
    prior_null,
    roll_capsules,
)
from pyro_manifolds.geometry.curves import Geodesic, curve_energy, curve_length, geodesic
from pyro_manifolds.geometry.decoder_volume import log_det_metric, log_volume
from pyro_manifolds.geometry.encoder_precision import EncoderPrecisionProxy
from pyro_manifolds.geometry.filter_tuning import (
    FilterTuning,
    filter_tuning,
    tuning_differences,
)
from pyro_manifolds.geometry.fisher import (
    fisher_metric,
    fisher_root,
    hermitian_fisher,
    pullback,
)
from pyro_manifolds.geometry.fisher_coordinates import fisher_coordinates
from pyro_manifolds.geometry.flatness import flatness_factor
from pyro_manifolds.geometry.kahler import KahlerDefect, kahler_defect
from pyro_manifolds.geometry.map_order import (
    ClassPreference,
    MapOrder,
    class_preference,
    map_order,
    torus_neighbors,
)
from pyro_manifolds.geometry.potentials import LogSumExpPotential
from pyro_manifolds.geometry.roll_forward import RollForward, roll_forward
from pyro_manifolds.geometry.topology import (
    TopologyScore,
    betti_numbers,
    farthest_point_indices,
    persistence,
    topology_score,
)
from pyro_manifolds.geometry.volume_sampling import (
    VolumeSample,
    sample_by_volume,
    volume_weighted,
)
from pyro_manifolds.geometry.wirtinger import (
    mixed_hessian,
    mixed_to_real_hessian,
    real_to_mixed_hessian,
    wirtinger,
)

__all__ = [
    "ClassPreference",
    "EncoderPrecisionProxy",
    "FilterTuning",
    "Geodesic",
    "KahlerDefect",
    "LogSumExpPotential",
    "MapOrder",
    "RollForward",
    "ShiftAgreement",
    "TopologyScore",
    "VolumeSample",
    "betti_numbers",
    "capsule_shifts",
    "class_preference",
    "curve_energy",
    "curve_length",
    "equivariance_chance",
    "equivariance_error",
    "estimated_shifts",
    "farthest_point_indices",
    "filter_tuning",
    "fisher_coordinates",
    "fisher_metric",
    "fisher_root",
    "flatness_factor",
    "geodesic",
    "hermitian_fisher",
    "kahler_defect",
    "log_det_metric",
    "log_volume",
    "map_order",
    "mixed_hessian",
    "mixed_to_real_hessian",
    "persistence",
    "prior_null",
    "pullback",
    "real_to_mixed_hessian",
    "roll_capsules",
    "roll_forward",
    "sample_by_volume",
    "shift_agreement",
    "shift_hit_rates",
    "topology_score",
    "torus_neighbors",
    "tuning_differences",
    "volume_weighted",
    "wirtinger",
]
