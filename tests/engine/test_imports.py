"""Scores of other programs as runs: what is read, what becomes of it, what is refused and how that is said."""

from __future__ import annotations

import gzip
import pickle
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mia_bench.engine import score_files
from mia_bench.engine.imports import Given, ImportOptions, import_scores
from mia_bench.engine.plan import read_plan
from mia_bench.engine.prepare import RunOptions
from mia_bench.engine.run import read_result, rescore, run
from mia_bench.engine.score_files import roles
from mia_bench.engine.scores import read_scores
from mia_bench.engine.side_by_side import side_by_side
from mia_bench.errors import MiaBenchError, NothingError, UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.store import Store

HEAD = "sample,label,score"
PLAIN = [HEAD, "a,1,0.9", "b,1,0.4", "c,0,0.5", "d,0,0.1"]


@pytest.fixture
def write(tmp_path):
    def make(*lines, name="loss.csv"):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return tmp_path / name

    return make


@pytest.fixture
def take(tmp_path):
    """Import files into a folder, and return the scores by attack and sample."""

    def call(*files, calibration=(), out=tmp_path / "run", columns=(), **given):
        named = (*(Given.parse(str(f)) for f in files), *(Given.parse(str(f), True) for f in calibration))
        import_scores(ImportOptions(named, out, columns=roles(columns), **given))
        return {label: one.by_id for label, one in read_scores(out).items()}

    return call


def test_a_run_like_any_other(write, take, tmp_path):
    assert take(write(*PLAIN)) == {"loss": {"a": 0.9, "b": 0.4, "c": 0.5, "d": 0.1}}
    result, plan = read_result(tmp_path / "run"), read_plan(Store(tmp_path / "run"))
    assert (result.n_members, result.n_nonmembers, result.dataset, result.target) == (2, 2, "loss", "an unknown target")
    (row,) = result.rows
    assert row.evaluation.auc.value == 0.75 and "imported" in row.tags
    unknown = (result.seed, result.noise, result.dtype, result.latent, result.target_kind, result.target_fingerprint)
    assert unknown == (None, *["unknown"] * 5)
    assert (row.queries, row.seconds, row.backward, result.environments, result.cost.asked) == (None, None, None, (), 0)
    assert result.sources == plan.sources and len(result.sources[0].sha256) == 64


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "npz", "npz without ids"])
def test_kinds_of_files(kind, tmp_path, take):
    path = tmp_path / f"loss.{kind.partition(' ')[0]}"
    ids, labels, scores = ["a", "b", "c", "d"], [True, True, False, False], [0.9, 0.4, 0.5, 0.1]
    if kind == "csv.gz":
        path.write_bytes(gzip.compress("\n".join(PLAIN).encode()))
    elif kind == "parquet":
        pq.write_table(pa.table({"id": ids, "member": labels, "score": scores, "more": [[1], [], [2], [3]]}), path)
    else:
        np.savez(path, label=np.array(labels), score=scores, **({} if "without" in kind else {"sample": np.array(ids)}))
    names = ids if "without" not in kind else ["0", "1", "2", "3"]
    assert take(path) == {"loss": dict(zip(names, scores, strict=True))}


def test_numpy_tables_have_timesteps_in_columns(tmp_path, take):
    np.savez(tmp_path / "x.npz", label=[1, 0, 0], score=[[1.0, 5.0], [2.0, 2.0], [0.0, 7.0]])
    assert take(tmp_path / "x.npz", options={"": {"reduce": "max"}}) == {"x": {"0": 5.0, "1": 2.0, "2": 7.0}}


STEPS = ["sample,label,t,score", "a,1,10,1", "a,1,20,3", "b,0,20,5", "b,0,10,7", "c,0,10,4", "c,0,20,4"]


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [("sum", (4, 12, 8)), ("mean", (2, 6, 4)), ("median", (2, 6, 4)), ("min", (1, 5, 4)), ("max", (3, 7, 4))],
)
def test_several_scores_of_a_sample(write, take, reduce, expected):
    lines = STEPS if reduce != "sum" else [",".join(np.delete(line.split(","), 2)) for line in STEPS]  # timeless
    found = take(write(*lines), options={"": {"reduce": reduce}})
    assert found == {"loss": dict(zip("abc", expected, strict=True))}


def test_corr_divides_by_the_pool_of_each_split(write, take, tmp_path):
    other = write("sample,label,t,score", "e,1,10,2", "e,1,20,2", "f,0,10,6", "f,0,20,2", name="other.csv")
    audit = write(*STEPS)
    options = {"": {"reduce": "corr", "lower_is_member": True}}
    found = take(audit, calibration=[f"loss={other}"], options=options)["loss"]
    assert found["a"] == pytest.approx(-(1 / 4 + 3 / 4) / 2) and found["b"] == pytest.approx(-(7 / 4 + 5 / 4) / 2)
    assert found["e"] == pytest.approx(-(2 / 4 + 2 / 2) / 2) and found["f"] == pytest.approx(-(6 / 4 + 2 / 2) / 2)
    (row,) = read_result(tmp_path / "run").rows
    assert "transductive" in row.tags and row.evaluation.asr_calibrated.value is not None
    crossing = write(HEAD, "a,1,1", "b,0,-2", name="crossing.csv")
    take(crossing, options={"": {"reduce": "corr"}})
    assert "corr of scores of both signs" in read_result(tmp_path / "run").rows[0].tags
    zero = write(HEAD, "a,1,1", "b,0,-1", name="zero.csv")
    take(zero, options={"": {"reduce": "corr"}})
    (row,) = read_result(tmp_path / "run").rows
    assert row.status == "empty" and "zero" in row.reason


def test_scored_again_with_another_reduction(write, take, tmp_path):
    take(write(*STEPS), options={"": {"reduce": "sum"}})
    result = rescore(Registry(), tmp_path / "run", {"loss": {"reduce": "min", "lower_is_member": True}})
    assert read_scores(tmp_path / "run")["loss"].by_id == {"a": -1, "b": -5, "c": -4}
    assert result.rows[0].changed == ("reduce", "lower_is_member") and result.sources
    with pytest.raises(UsageError, match="no such attack"):
        rescore(Registry(), tmp_path / "run", {"pia": {"reduce": "min"}})


def test_several_attacks_and_files(write, take):
    both = write(
        "attack,preset,sample,label,score", "x,quick,a,1,1", "x,quick,b,0,0", "y,,a,1,2", "y,,b,0,3", name="b.csv"
    )
    more = write(HEAD, "b,0,9", "a,1,8", name="c.csv")
    found = take(both, f"z={more}", more)
    assert {k: tuple(v[i] for i in "ab") for k, v in found.items()} == {
        "x@quick": (1, 0),
        "y": (2, 3),
        "z": (8, 9),
        "c": (8, 9),
    }
    halves = [write(HEAD, "a,1,1", name="m.csv"), write(HEAD, "b,0,0", name="n.csv")]
    assert take(*[f"one={half}" for half in halves]) == {"one": {"a": 1, "b": 0}}
    named = write(HEAD, "a,1,1", "b,0,0", name="x=y.csv")
    assert list(take(named)) == ["x-y"], "a file that is there is no NAME=FILE"


def test_files_of_one_name_are_not_mixed(write, take, tmp_path):
    for name in ("d1", "d2"):
        (tmp_path / name).mkdir()
    ours, theirs = (write(*PLAIN, name=f"{name}/scores.csv") for name in ("d1", "d2"))
    with pytest.raises(UsageError, match=r"'a' is in .*d1/scores\.csv, row 1, and in .*d2/scores\.csv, row 1") as e:
        take(ours, theirs, options={"": {"reduce": "mean"}})
    assert "NAME=FILE" in e.value.fix and not (tmp_path / "run").exists()
    assert list(take(f"one={ours}", f"two={theirs}")) == ["one", "two"]
    assert len(take(ours, calibration=[theirs], ids_per_split=True)["scores"]) == 8
    steps = [write("sample,label,t,score", f"a,1,{t},{t}", f"b,0,{t},0", name=f"d{t}/s.csv") for t in (1, 2)]
    assert take(*steps, options={"": {"reduce": "sum"}}) == {"s": {"a": 3, "b": 0}}


def test_a_run_s_own_scores_come_back(write, take, tmp_path):
    write("sample,label,split,score", "a,1,audit,1", "b,0,audit,0", "c,1,calibration,2", "d,0,calibration,1")
    before = take(tmp_path / "loss.csv")
    again = take(tmp_path / "run" / "scores.parquet", out=tmp_path / "again")
    assert again == before
    ours, theirs = (read_result(tmp_path / name).rows[0] for name in ("run", "again"))
    assert ours.evaluation == theirs.evaluation and ours.fingerprint == theirs.fingerprint


def test_unknown_membership_makes_suspects(write, take, tmp_path):
    rows = [f"n{i},0,{i / 200}" for i in range(200)]
    take(write(HEAD, *rows, "s,,7", "r,,0.1"))
    result = read_result(tmp_path / "run")
    assert result.n_unknown == 2 and result.rows[0].suspects.rates[0].above == 1


def test_order_of_rows_and_files_changes_nothing(write, take, tmp_path):
    take(write(*STEPS, name="x.csv"), options={"": {"reduce": "corr"}})
    first = read_result(tmp_path / "run")
    take(write(STEPS[0], *STEPS[:0:-1], name="x.csv"), options={"": {"reduce": "corr"}})
    second = read_result(tmp_path / "run")
    assert first.samples_hash == second.samples_hash and first.rows[0].evaluation == second.rows[0].evaluation


WRONG = {
    "no number": ([HEAD, "a,1,0.5", "b,0,much"], r"row 2.*'much' is no number"),
    "NaN": ([HEAD, "a,1,0.5", "b,0,nan"], "row 2.*NaN"),
    "no score": ([HEAD, "a,1,", "b,0,1"], "row 1.*missing"),
    "label": ([HEAD, "a,2,0.5", "b,0,1"], "row 1.*'2' is neither 1"),
    "no id": ([HEAD, "a,1,0.5", ",0,1"], "row 2.*sample is empty"),
    "two labels": (["sample,label,t,score", "a,1,1,1", "a,0,2,1"], "row 2.*non-member here and a member in .*row 1"),
    "doubled": (["sample,label,t,score", "a,1,1,1", "b,0,1,1", "a,1,1,2"], "row 3.*'a' at one timestep twice.*row 1"),
    "uneven": (["sample,label,t,score", "a,1,1,1", "a,1,2,1", "b,0,1,1"], "row 3.*1 scores of sample 'b', 2 of others"),
    "doubled, timeless": ([HEAD, "a,1,1", "b,0,1", "a,1,2"], "row 2.*1 scores of sample 'b', 2 of others"),
    "split": (["sample,label,split,score", "a,1,train,1"], "row 1.*split 'train'"),
    "ragged": ([HEAD, "a,1,0.5", "b,0"], "cannot be read.*(2|3)"),
    "no column": (["image,label,score", "a,1,0.5"], "no column sample or sample_id or id, only image, label, score"),
    "two columns": (["sample,label,score,score", "a,1,0.5,1"], "two columns are called 'score'"),
    "empty": ([HEAD], "it has no rows"),
    "nothing": ([""], "cannot be read"),
    "long id": ([HEAD, "a" * 600 + ",1,0.5", "b,0,1"], "row 1.*600 characters"),
    "label of an attack": (["attack,sample,label,score", "a*b,a,1,0.5"], r"'a\*b'.*not a name"),
    "infinite": (["sample,label,t,score", "a,1,1,inf", "a,1,2,1"], "row 1.*infinite"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_named(case, write, take, tmp_path):
    lines, said = WRONG[case]
    with pytest.raises(MiaBenchError, match=said) as found:
        take(write(*lines), options={"": {"reduce": "sum"}})
    assert found.value.fix and not (tmp_path / "run").exists()
    assert "loss.csv" in str(found.value)


def test_hostile_files(tmp_path, take, monkeypatch):
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return ran.write_text, ("x",)

    (tmp_path / "x.pkl").write_bytes(pickle.dumps(Evil()))
    np.savez(tmp_path / "x.npz", label=[1, 0], score=np.array([Evil(), Evil()], dtype=object))
    for name, said in {"x.pkl": "pickled", "x.npz": "cannot be read", "x.txt": "not a kind"}.items():
        (tmp_path / "x.txt").touch()
        with pytest.raises(UnavailableError, match=said):
            take(tmp_path / name)
    assert not ran.exists()
    for name in ("y.parquet", "y.npz", "y.csv.gz", "y.csv"):
        (tmp_path / name).write_bytes(b"\x00\xff not what it says \n\x00")
        with pytest.raises(UnavailableError, match=f"{name}"):
            take(tmp_path / name)
    pq.write_table(pa.table({"sample": [[1], [2]], "label": [1, 0], "score": [1.0, 2.0]}), tmp_path / "z.parquet")
    with pytest.raises(UnavailableError, match="column for sample holds"):
        take(tmp_path / "z.parquet")
    for name in (".", "absent.csv"):
        with pytest.raises(UnavailableError, match=r"folder|no such file"):
            take(tmp_path / name)
    np.savez_compressed(tmp_path / "v.npz", label=np.arange(4) % 2, score=np.random.default_rng(0).normal(size=4000))
    whole = bytearray((tmp_path / "v.npz").read_bytes())
    whole[2000:2400] = bytes(400)
    (tmp_path / "v.npz").write_bytes(whole)
    with pytest.raises(UnavailableError, match=r"v\.npz"):
        take(tmp_path / "v.npz")
    np.savez(tmp_path / "w.npz", label=[1, 0, 1], score=[1.0, 2.0])
    with pytest.raises(UnavailableError, match="differ in length"):
        take(tmp_path / "w.npz")


@pytest.mark.parametrize("kind", ["csv.gz", "parquet", "npz"])
def test_huge_files_are_refused_before_they_fill_memory(kind, tmp_path, take, monkeypatch):
    monkeypatch.setattr(score_files, "MAX_SCORES", 1000)
    path = tmp_path / f"big.{kind}"
    if kind == "csv.gz":
        path.write_bytes(gzip.compress((HEAD + "\n" + "a,1,0\n" * 10**6).encode()))
    elif kind == "parquet":
        pq.write_table(pa.table({"sample": ["a"] * 2000, "label": [1] * 2000, "score": [0.0] * 2000}), path)
    else:
        np.savez_compressed(path, label=np.zeros(10_000), score=np.zeros(10_000))
    with pytest.raises(UnavailableError, match=r"more than 1,000 scores|bytes unpacked"):
        take(path)


READING = """
import sys
from pathlib import Path
from mia_bench.engine.score_files import read_score_file
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
before = peak()
try:
    read_score_file(Path(sys.argv[1]), {})
except Exception as error:
    print(error, file=sys.stderr)
print((peak() - before) // 1024)
"""


@pytest.mark.parametrize("coded", [True, False])
def test_a_small_file_of_long_texts_takes_little_memory(coded, tmp_path):
    path, ids = tmp_path / "bomb.parquet", ["a", *["b" * 10**6] * 20]
    part = pa.table({"sample": ids, "label": [1] * 21, "score": [0.0] * 21})
    with pq.ParquetWriter(path, part.schema, compression="zstd", use_dictionary=coded) as file:
        for _ in range(40):
            file.write_table(part)
    assert path.stat().st_size < 10**6, "it would unpack to 800 MB"
    done = subprocess.run([sys.executable, "-c", READING, str(path)], capture_output=True, text=True, check=True)
    assert "row 2: sample has 1,000,000 bytes" in done.stderr and int(done.stdout) < 200, (done.stdout, done.stderr)


def test_texts_of_a_table_may_be_of_any_kind(tmp_path, take):
    ids = pa.array(["b", "a", "d", "c"])
    label = pa.array(["1", None, "0", "0"]).dictionary_encode()
    table = pa.table({"sample": ids.cast(pa.large_string()), "label": label, "score": ["1", "2e0", "3", "1"]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    assert take(tmp_path / "x.parquet") == {"x": {"a": 2, "b": 1, "c": 1, "d": 3}}
    numbers = pa.table({"sample": [1, 2], "label": pa.array([1, 0]).dictionary_encode(), "score": [0, 1]})
    pq.write_table(numbers, tmp_path / "n.parquet")
    assert take(tmp_path / "n.parquet") == {"n": {"1": 0, "2": 1}}
    pq.write_table(table.set_column(2, "score", [["1", "2", "much", None]]), tmp_path / "y.parquet", row_group_size=3)
    with pytest.raises(UnavailableError, match="row 3: score 'much' is no number"):
        take(tmp_path / "y.parquet")
    pq.write_table(table.set_column(0, "sample", [["b", "a", "é" * 600, ""]]), tmp_path / "z.parquet")
    with pytest.raises(UnavailableError, match="row 3: sample has 600 characters"):
        take(tmp_path / "z.parquet")
    fixed = pa.array([b"aa", b"bb", b"cc", b"dd"], pa.binary(2))
    pq.write_table(table.set_column(0, "sample", fixed), tmp_path / "f.parquet")
    with pytest.raises(UnavailableError, match="column for sample holds fixed_size_binary"):
        take(tmp_path / "f.parquet")


def test_splits_and_their_ids(write, take, tmp_path):
    audit = write(*PLAIN)
    other = write(HEAD, "a,0,0.3", "e,1,0.8", name="other.csv")
    with pytest.raises(UnavailableError, match="row 1: sample 'a' is of the audit set too"):
        take(audit, calibration=[f"loss={other}"])
    found = take(audit, calibration=[f"loss={other}"], ids_per_split=True)
    assert found["loss"]["a"] == 0.9 and found["loss"]["calibration:a"] == 0.3
    threshold = read_result(tmp_path / "run").rows[0].evaluation.asr_calibrated.threshold
    assert threshold == pytest.approx(0.55)
    with pytest.raises(NothingError, match="no sample is of the audit set"):
        take(calibration=[other], out=tmp_path / "none")


def test_options_are_checked_before_anything_is_written(write, take, tmp_path):
    path = write(*STEPS)
    with pytest.raises(UsageError, match="each sample has 2 scores"):
        take(path)
    with pytest.raises(UsageError, match="reduce"):
        take(path, options={"loss": {"reduce": "product"}})
    with pytest.raises(UsageError, match=r"option for 'pia'.*hold loss"):
        take(path, options={"": {"reduce": "sum"}, "pia": {"reduce": "sum"}})
    for column in ("colour=x", "score", "score="):
        with pytest.raises(UsageError, match="--column"):
            take(path, columns=[column])
    with pytest.raises(UnavailableError, match="no column 'nll'"):
        take(path, columns=["score=nll"])
    assert not (tmp_path / "run").exists()
    renamed = write("image,truth,nll", "a,member,1", "b,nonmember,2")
    assert take(renamed, columns=["sample=image", "label=truth", "score=nll"]) == {"loss": {"a": 1, "b": 2}}


def test_a_measured_run_is_not_replaced(write, take, tmp_path):
    options = RunOptions(attacks="loss", target="emoji-overtrain", limit=2, out=tmp_path / "measured")
    before = run(Registry.load(), options)
    with pytest.raises(UsageError, match="holds a run that was measured"):
        take(write(*PLAIN), out=tmp_path / "measured")
    assert read_result(tmp_path / "measured") == before
    take(write(*PLAIN))
    with pytest.raises(UsageError, match="imported scores, which a run would replace"):
        run(Registry.load(), RunOptions(attacks="loss", target="emoji-overtrain", limit=2, out=tmp_path / "run"))
    take(write(HEAD, "x,1,1", "y,0,0"))
    assert read_scores(tmp_path / "run")["loss"].by_id == {"x": 1, "y": 0}, "an import is"


def test_pairs_only_where_the_samples_are_said_to_be_the_same(write, take, tmp_path):
    take(write(*PLAIN), out=tmp_path / "a")
    write(HEAD, "a,1,0.1", "b,1,0.4", "c,0,0.5", "d,0,0.2", name="other.csv")
    take(f"loss={tmp_path / 'other.csv'}", out=tmp_path / "b")
    (why,) = side_by_side([tmp_path / "a", tmp_path / "b"]).unpaired
    assert "equal ids need not be equal samples" in why
    take(f"loss={tmp_path / 'other.csv'}", out=tmp_path / "b", dataset="loss")
    found = side_by_side([tmp_path / "a", tmp_path / "b"])
    assert found.unpaired == ("",) and found.rows[0].differences[0].value == pytest.approx(-0.5)


def test_no_plugin_may_take_the_name():
    from mia_bench import hookimpl
    from mia_bench.imported import Imported

    class Plugin:
        @hookimpl
        def mia_bench_attacks(self):
            return [Imported]

    registry = Registry()
    assert "that of imported scores" in registry.add("x", "here", "x", Plugin).error
    assert not registry.attacks
