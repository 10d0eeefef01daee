"""Cross-validated logistic regression on measured features: every score comes of a model that never saw the sample."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_matrix

FOLDS, REPEATS = 5, 5
COMPONENTS = 30  # principal components kept of the 192 thumbnail values
C = 10.0  # inverse L2 penalty; every block of features has rows of about unit length


class Features:
    """The measured terms, and the design matrix that a training fold makes of them.

    Args:
        terms: As `Blind.measure` returns them, `(N, ...)` each.
        parts: Of `image`, `caption`, `encoder`.
    """

    def __init__(self, terms: Mapping[str, NDArray[np.float64]], parts: Collection[str]) -> None:
        from scipy.sparse import csr_matrix

        self.terms, self.parts = terms, parts
        self.counts = csr_matrix(terms["caption"] if "caption" in parts else (len(terms["image"]), 0))

    def design(self, train: NDArray[np.intp]) -> csr_matrix:
        """All N rows, float64 `(N, D)`; scaling, principal components and TF-IDF are fitted on `train` alone."""
        from scipy.sparse import csr_matrix, hstack
        from sklearn.decomposition import PCA
        from sklearn.feature_extraction.text import TfidfTransformer

        blocks = []
        if "image" in self.parts:
            pixels = self.terms["thumbnail"]
            # The covariance solver is exact and deterministic; its cost does not grow with N squared.
            pca = PCA(min(COMPONENTS, len(train) - 1), svd_solver="covariance_eigh").fit(pixels[train])
            blocks.append(csr_matrix(_scaled(self.terms["image"], train)))
            blocks.append(csr_matrix(_scaled(pca.transform(pixels), train)))
        if "encoder" in self.parts:
            blocks.append(csr_matrix(_scaled(self.terms["embedding"], train)))
        if "caption" in self.parts:
            blocks.append(TfidfTransformer(sublinear_tf=True).fit(self.counts[train]).transform(self.counts))
            blocks.append(csr_matrix(_scaled(self.terms["length"], train)))
        return hstack(blocks, format="csr")


def _scaled(values: NDArray[np.float64], train: NDArray[np.intp]) -> NDArray[np.float64]:
    """Standardised on the training rows, clipped at 5 standard deviations, rows of about unit length."""
    spread = values[train].std(axis=0)
    centred = (values - values[train].mean(axis=0)) / np.where(spread > 1e-9, spread, np.inf)
    scaled: NDArray[np.float64] = centred.clip(-5, 5) / np.sqrt(values.shape[1])
    return scaled


def out_of_fold(features: Features, member: NDArray[np.bool_], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Decision values `(N,)`: 5-fold, stratified, grouped, 5 times, averaged.

    Args:
        features: Of N samples.
        member: bool `(N,)`.
        groups: Number of each sample's group, from 0; no group is in training and held-out part at once.
    """
    from sklearn import config_context
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    single = groups.max() + 1 == len(groups)  # the grouped splitter is slow, and not needed then
    splitter = StratifiedKFold if single else StratifiedGroupKFold
    total = np.zeros(len(member))
    for seed in range(REPEATS):
        folds = splitter(FOLDS, shuffle=True, random_state=seed)
        for train, held_out in folds.split(member, member, None if single else groups):
            # Checks would cost as much as small fits.
            with config_context(assume_finite=True, skip_parameter_validation=True):
                design = features.design(train)
                model = LogisticRegression(C=C, class_weight="balanced", max_iter=1000)
                model.fit(design[train], member[train])
                total[held_out] += model.decision_function(design[held_out])
    return total / REPEATS
