"""Figures of merit with their confidence intervals; `docs/statistics.md` says what each means and where it is from."""

from edgecxr.statistics.auroc import auroc, delong, delong_difference
from edgecxr.statistics.bootstrap import paired_bootstrap
from edgecxr.statistics.calibration import brier, ece, fit_temperature
from edgecxr.statistics.curves import average_precision, confusion, precision_recall, reliability, roc
from edgecxr.statistics.interval import Interval
from edgecxr.statistics.proportion import paired_difference, sensitivity, specificity, wilson

__all__ = [
    "Interval",
    "auroc",
    "average_precision",
    "brier",
    "confusion",
    "delong",
    "delong_difference",
    "ece",
    "fit_temperature",
    "paired_bootstrap",
    "paired_difference",
    "precision_recall",
    "reliability",
    "roc",
    "sensitivity",
    "specificity",
    "wilson",
]
