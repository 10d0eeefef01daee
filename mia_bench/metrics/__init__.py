"""Exact ROC, the numbers read off it, their intervals, and the record they make.

Scores are float64 (N,), higher = member; `member` is bool (N,). Start with `evaluate`.
"""

from mia_bench.metrics.bootstrap import (
    Resamples,
    asr_at_interval,
    asr_oracle_interval,
    bootstrap_difference,
    paired_tprs,
    resample,
    tnr_interval,
    tpr_interval,
)
from mia_bench.metrics.delong import (
    PairedDifference,
    auc_interval,
    delong_covariance,
    newcombe,
    paired_delong,
)
from mia_bench.metrics.intervals import Estimate, clopper_pearson, mean_of_two_proportions, wilson
from mia_bench.metrics.models import (
    Evaluation,
    Exceedance,
    Gap,
    Metric,
    RocPoints,
    Status,
    Suspects,
    Transferred,
    Verdict,
    Word,
)
from mia_bench.metrics.roc import (
    OperatingPoint,
    Rates,
    Roc,
    asr_at,
    asr_oracle,
    auc,
    best_threshold,
    exact_roc,
    log_points,
    rates_at,
    roc_auc,
    tnr_at_fnr,
    tpr_at_fpr,
)
from mia_bench.metrics.summary import evaluate, tail_status
from mia_bench.metrics.suspects import exceeding, threshold_at
from mia_bench.metrics.transfer import transferred

__all__ = [
    "Estimate",
    "Evaluation",
    "Exceedance",
    "Gap",
    "Metric",
    "OperatingPoint",
    "PairedDifference",
    "Rates",
    "Resamples",
    "Roc",
    "RocPoints",
    "Status",
    "Suspects",
    "Transferred",
    "Verdict",
    "Word",
    "asr_at",
    "asr_at_interval",
    "asr_oracle",
    "asr_oracle_interval",
    "auc",
    "auc_interval",
    "best_threshold",
    "bootstrap_difference",
    "clopper_pearson",
    "delong_covariance",
    "evaluate",
    "exceeding",
    "exact_roc",
    "log_points",
    "mean_of_two_proportions",
    "newcombe",
    "paired_delong",
    "paired_tprs",
    "rates_at",
    "resample",
    "roc_auc",
    "tail_status",
    "threshold_at",
    "tnr_at_fnr",
    "tnr_interval",
    "tpr_at_fpr",
    "tpr_interval",
    "transferred",
    "wilson",
]
