"""Thresholds, temperature and guarantees: numpy and scipy only, so that a CPU pod starts in a second."""

from natix_lib.decisions.binomial import upper_risk_bound
from natix_lib.decisions.policy import Decisions, Policy
from natix_lib.decisions.score import log_odds
from natix_lib.decisions.selection import (
    Certificate,
    best_start,
    certifiable_alpha,
    certify_selection,
    needed_independent,
)
from natix_lib.decisions.sets import PredictionSets, fit_prediction_sets
from natix_lib.decisions.sweep import ThresholdSweep, sweep_thresholds
from natix_lib.decisions.temperature import TemperatureFit, fit_temperature

__all__ = [
    "Certificate",
    "Decisions",
    "Policy",
    "PredictionSets",
    "TemperatureFit",
    "ThresholdSweep",
    "best_start",
    "certifiable_alpha",
    "certify_selection",
    "fit_prediction_sets",
    "fit_temperature",
    "log_odds",
    "needed_independent",
    "sweep_thresholds",
    "upper_risk_bound",
]
