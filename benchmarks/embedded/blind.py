"""The fixed classifiers that must not tell members from non-members; they never see a trained model.

The list was fixed before the split was drawn. A draw is thrown away when any of them leaves 0.5 by more than two null
standard errors, or when nearest-member distances differ; every draw is recorded.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from concepts import Concept, words
from numpy.typing import NDArray
from PIL import Image
from scipy.stats import ks_2samp
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import RepeatedStratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from mia_bench_plugins.controls.blind import image_features, length_features

FOLDS, REPEATS, TREES, SEED = 5, 5, 200, 0
LIMIT, LEAST_P = 2.0, 0.05  # null standard errors of an AUC; p-value of the distances


def null_error(n_members: int, n_nonmembers: int) -> float:
    """Standard error of an AUC whose scores know nothing (Mann-Whitney)."""
    return float(np.sqrt((n_members + n_nonmembers + 1) / (12 * n_members * n_nonmembers)))


def look(found: list[Concept], pixels: NDArray[np.uint8], member: NDArray[np.bool_]) -> dict[str, Any]:
    """AUC of each classifier, and the two-sample test of nearest-member distances.

    Args:
        found: The audit set's concepts.
        pixels: (N, 32, 32, 3).
        member: (N,)
    """
    images = [Image.fromarray(image) for image in pixels]
    statistics = np.array([image_features(image) for image in images])
    thumbnails = pixels.reshape(-1, 8, 4, 8, 4, 3).mean((2, 4)).reshape(len(pixels), -1)
    captions = [concept.caption for concept in found]
    categories = np.array(
        [[concept.category == name for name in sorted({c.category for c in found})] for concept in found]
    )
    lengths = np.hstack([np.array([length_features(caption) for caption in captions]), categories])
    components = PCA(30, svd_solver="covariance_eigh").fit_transform(thumbnails)
    dense = np.hstack([statistics, components, lengths])

    def logistic() -> BaseEstimator:
        return make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))

    def forest() -> BaseEstimator:
        return RandomForestClassifier(TREES, min_samples_leaf=5, random_state=SEED)

    def linear(**options: Any) -> BaseEstimator:
        return make_pipeline(TfidfVectorizer(sublinear_tf=True, **options), LogisticRegression(max_iter=2000))

    classifiers: dict[str, tuple[BaseEstimator, Any]] = {
        "image statistics, logistic": (logistic(), statistics),
        "image statistics, forest": (forest(), statistics),
        "8x8 pixels, 30 components, logistic": (logistic(), components),
        "8x8 pixels, 30 components, forest": (forest(), components),
        "caption characters, logistic": (linear(analyzer="char_wb", ngram_range=(1, 3)), captions),
        "caption words, logistic": (linear(tokenizer=words, token_pattern=None), captions),
        "caption lengths and category, forest": (forest(), lengths),
        "all dense features, logistic": (logistic(), dense),
        "all dense features, forest": (forest(), dense),
    }
    folds = RepeatedStratifiedKFold(n_splits=FOLDS, n_repeats=REPEATS, random_state=SEED)
    with threadpool_limits(1):  # the same sums on any number of cores
        auc = {
            name: float(cross_val_score(model, features, member, cv=folds, scoring="roc_auc").mean())
            for name, (model, features) in classifiers.items()
        }
    auc["caption length alone"] = float(roc_auc_score(member, [len(caption) for caption in captions]))
    auc["PNG bytes alone"] = float(roc_auc_score(member, statistics[:, -2]))
    return {"auc": auc, "null_error": null_error(member.sum(), (~member).sum()), "distance": distances(pixels, member)}


def distances(pixels: NDArray[np.uint8], member: NDArray[np.bool_]) -> dict[str, Any]:
    """Mean squared distance to the nearest (other) member: quantiles of both classes, Kolmogorov-Smirnov p-value."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float64) / 255
    square = (flat**2).sum(1)
    apart = (square[:, None] + square - 2 * flat @ flat.T) / flat.shape[1]
    np.fill_diagonal(apart, np.inf)
    nearest = apart[:, member].min(1)
    ones, others = nearest[member], nearest[~member]
    levels = (0.01, 0.1, 0.5, 0.9)
    return {
        "quantiles": levels,
        "members": np.quantile(ones, levels).round(5).tolist(),
        "nonmembers": np.quantile(others, levels).round(5).tolist(),
        "p_value": float(ks_2samp(ones, others).pvalue),
    }


def passes(seen: dict[str, Any]) -> bool:
    """Whether a draw may be used."""
    worst = max(abs(value - 0.5) for value in seen["auc"].values())
    return worst <= LIMIT * seen["null_error"] and seen["distance"]["p_value"] >= LEAST_P
