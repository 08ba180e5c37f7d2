"""Priors on the weights of any torch module: Bayesian nets as ordinary Pyro models."""

from pyro_manifolds.nn.bayesian.bayesian_module import BayesianModule
from pyro_manifolds.nn.bayesian.calibration import expected_calibration_error
from pyro_manifolds.nn.bayesian.checkpoint import checkpoint, restore
from pyro_manifolds.nn.bayesian.initialization import init_to_weights
from pyro_manifolds.nn.bayesian.likelihoods import classification, regression
from pyro_manifolds.nn.bayesian.prediction import ClassPrediction, RegressionPrediction, predict
from pyro_manifolds.nn.bayesian.priors import fan_in_normal, scaled_to_fan_in

__all__ = [
    "BayesianModule",
    "ClassPrediction",
    "RegressionPrediction",
    "checkpoint",
    "classification",
    "expected_calibration_error",
    "fan_in_normal",
    "init_to_weights",
    "predict",
    "regression",
    "restore",
    "scaled_to_fan_in",
]
