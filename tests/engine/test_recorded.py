"""Results of the first version stay readable, with the verdicts that they support and no others."""

import json
from pathlib import Path

import pytest
import tiny

from mia_bench.engine.recorded import BLIND
from mia_bench.engine.run import read_result
from mia_bench.errors import UnavailableError
from mia_bench.result import RESULT_VERSION
from mia_bench_plugins.controls import blind


@pytest.fixture
def recorded(tmp_path):
    """A result as version 1 wrote it; `{label: blind}` are its marks."""
    made = tiny.registry(blind, samples=tiny.icons(30, 30, (4, 4)))
    content = json.loads(tiny.go(tmp_path / "run", made, attacks="loss,pia").model_dump_json())
    content |= {"schema_version": 1}
    content.pop("controls")

    def write(auc, baseline, reason=None):
        for row in content["rows"]:
            row.pop("verdicts"), row.pop("behind")
            row["blind"] = None if row["control"] else {"verdict": "?", "baseline": baseline, "reason": reason}
            if not row["control"]:
                value, low, high = auc
                row["evaluation"]["auc"] |= {"value": value, "low": low, "high": high}
        path = tmp_path / "recorded.json"
        path.write_text(json.dumps(content))
        return read_result(path)

    return write


@pytest.mark.parametrize(
    ("auc", "baseline", "reason", "word"),
    [
        ((0.95, 0.9, 0.98), 0.55, None, "clears blind"),
        ((0.66, 0.52, 0.78), 0.6, None, "does not clear blind"),
        ((0.55, 0.4, 0.7), 0.6, None, "at chance"),
        ((0.95, 0.9, 0.98), None, "control blind: 3 groups of members, 10 needed", "no blind baseline"),
    ],
)
def test_the_first_version_is_read(recorded, auc, baseline, reason, word):
    result = recorded(auc, baseline, reason)
    row = tiny.row(result, "loss")
    assert result.schema_version == RESULT_VERSION and row.verdicts["auc"].verdict == word
    assert row.verdicts["tpr_at_1"].verdict == "too few samples"
    assert "asr_calibrated" not in row.verdicts or row.verdicts["asr_calibrated"].verdict == "at chance"
    assert (row.verdicts["auc"].blind.against if baseline else row.verdicts["auc"].reason) == (reason or BLIND)
    assert tiny.row(result, "blind").verdicts == {}


def test_every_recorded_result_of_the_package_has_verdicts():
    folder = Path(__file__).parents[2] / "benchmarks" / "results"
    for path in folder.rglob("emoji-*.json"):
        rows = read_result(path).rows
        assert all(row.verdicts for row in rows if not row.control and row.evaluation), path.name
    clid = tiny.row(read_result(folder / "emoji-overtrain-seed0.json"), "clid")
    assert clid.verdicts["auc"].verdict == "clears blind"


@pytest.mark.parametrize("text", ['{"schema_version": 1, "rows": 3}', '{"schema_version": 1, "rows": [1]}'])
def test_damaged_ones_are_named(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UnavailableError, match=r"x\.json"):
        read_result(tmp_path / "x.json")
