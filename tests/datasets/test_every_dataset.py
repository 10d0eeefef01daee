"""What every bundled dataset states, and what all of them do alike."""

from __future__ import annotations

import pytest

from mia_bench_plugins.datasets import celeba, clid, copymark, folder, hf, parquet, secmi, stroll, webdataset

MODULES = (celeba, clid, copymark, folder, hf, parquet, secmi, stroll, webdataset)
DATASETS = [cls for module in MODULES for cls in module.mia_bench_datasets()]


@pytest.mark.parametrize("cls", DATASETS, ids=lambda cls: cls.meta.name)
def test_it_says_what_it_is(cls):
    meta = cls.meta
    for fact in (meta.summary, meta.construction, meta.biases, meta.licence, meta.argument):
        assert fact
    assert meta.citation or meta.name in ("folder", "hf", "parquet", "webdataset")
    assert len(meta.summary) < 120


def test_names_are_unique():
    names = [cls.meta.name for cls in DATASETS]
    assert len(set(names)) == len(names) == 14
