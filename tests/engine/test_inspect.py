"""What is said of a dataset is so: counts, duplicates, and whether its classes differ."""

import io
import json
from dataclasses import replace

import pytest
import tiny
from PIL import Image

from mia_bench import Dataset, DatasetMeta
from mia_bench.engine import inspect as engine
from mia_bench.engine.inspect import inspect_dataset
from mia_bench.engine.samples import take
from mia_bench.errors import BrokenPluginError, UsageError
from mia_bench.inspection import Inspection
from mia_bench.plugins import Registry


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MIA_BENCH_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


def inspect(registry, samples, encoder="emoji-clip", **options) -> Inspection:
    registry.datasets["given"] = samples if isinstance(samples, type) else tiny.dataset(samples)
    return inspect_dataset(registry, "given", encoder=encoder, **options)[0]


def named(found, label):
    return next(row for row in found.blind if row.label == label)


def test_counts_and_captions_of_each_class(registry):
    samples = tiny.icons(14, 12, (3, 2), unknown=4)
    samples[0] = replace(samples[0], caption=None)
    samples[1] = replace(samples[1], caption="five words are in here")
    found = inspect(registry, samples)
    assert [(c.split, c.name, c.n, c.read) for c in found.classes] == [
        ("audit", "members", 14, 14),
        ("audit", "non-members", 12, 12),
        ("audit", "unknown", 4, 4),
        ("calibration", "members", 3, 3),
        ("calibration", "non-members", 2, 2),
    ]
    members = found.classes[0]
    assert members.captioned == 13 and members.words.most >= 5
    assert (members.width.least, members.width.most, members.aspect.median) == (32, 32, 1)
    assert members.formats == {} and members.bytes is None, "these are no files"
    assert sum(members.characters.bins) == pytest.approx(1, abs=1e-3)
    assert found.n == 35 and found.hashed == 35
    assert named(found, "blind").members == 14 and named(found, "blind").value is not None
    assert Inspection.model_validate_json(json.dumps(found.model_dump(mode="json"))) == found


def test_a_fair_split_is_called_fair_and_a_darker_class_is_found(registry):
    samples = take(tiny.Icons().samples(), 60)

    def darker(sample):
        return replace(sample, image=lambda: sample.open().point(lambda v: int(0.8 * v)))

    fair = inspect(registry, samples)
    unfair = inspect(registry, [darker(s) if s.member else s for s in samples])
    assert named(fair, "blind@image").low < 0.5 < named(fair, "blind@image").high
    assert named(unfair, "blind@image").low > 0.7
    assert named(unfair, "blind@caption").low < 0.5 < named(unfair, "blind@caption").high
    assert unfair.frechet.low > unfair.frechet.floor_high
    assert fair.frechet.value < unfair.frechet.value
    assert fair.frechet.half == 30


def test_longer_captions_and_telling_words_are_found(registry):
    samples = [replace(s, caption=f"stock photo of {s.caption}" if s.member else s.caption) for s in tiny.icons(30, 30)]
    found = inspect(registry, samples)
    assert found.lengths.low > 0.7
    assert {w.word for w in found.words} == {"stock", "photo", "of"}
    assert found.words[0].members == 1 and found.words[0].nonmembers == 0
    assert named(found, "blind@caption").low > 0.9


def test_duplicates_within_and_across(registry):
    samples = tiny.icons(12, 12, (2, 2))
    samples += [
        replace(samples[0], id="same"),
        replace(samples[1], id="other-class", member=False),
        replace(samples[2], id="other-split", split="calibration"),
        replace(samples[3], id="resized", content="f" * 64, image=lambda: samples[3].open().resize((64, 64))),
    ]
    found = inspect(registry, samples)
    assert (found.exact.groups, found.exact.samples) == (3, 6)
    assert (found.exact.across_classes, found.exact.across_splits) == (1, 1)
    assert set(found.exact.examples[0]) == {samples[1].id, "other-class"}, "the worst first"
    assert set(found.exact.examples[1]) == {samples[2].id, "other-split"}
    assert (found.alike.groups, found.alike.across_classes, found.alike.across_splits) == (1, 0, 0)
    assert set(found.alike.examples[0]) == {samples[3].id, "resized"}


def test_limits_bound_what_is_read_but_not_what_is_counted(registry):
    samples = tiny.icons(30, 30)
    samples.append(replace(samples[0], id="same"))
    found = inspect(registry, samples, limit=5)
    assert [(c.n, c.read) for c in found.classes] == [(31, 5), (30, 5)]
    assert found.hashed == 10 and found.exact.groups == 1 and found.limit == 5
    assert sum(c.captioned for c in found.classes) == 61
    known = inspect(registry, [replace(s, near=i << 20) for i, s in enumerate(samples)], limit=5)
    assert known.hashed == 61, "hashes that the dataset has need no reading"


def test_images_within_larger_files_show_format_and_bytes(registry):
    def packed(sample):
        stream = io.BytesIO()
        sample.open().save(stream, "JPEG" if sample.member else "PNG")

        def read():
            opened.append(sample.id)
            return stream.getvalue()

        sizes[sample.member].append(len(stream.getvalue()))
        return replace(sample, image=read)

    opened, sizes = [], {True: [], False: []}
    members, others = inspect(registry, [packed(s) for s in tiny.icons(11, 12)]).classes
    assert members.formats == {"JPEG": 11} and others.formats == {"PNG": 12}
    for kind, member in ((members, True), (others, False)):
        assert (kind.bytes.least, kind.bytes.most) == (min(sizes[member]), max(sizes[member]))
    assert len(opened) == len(set(opened)) == 23, "each is read once"


def test_damaged_images_are_counted_and_named(registry, tmp_path):
    for i, sample in enumerate(tiny.icons(11, 11)):
        folder = tmp_path / "images" / ("members" if sample.member else "nonmembers")
        folder.mkdir(parents=True, exist_ok=True)
        sample.open().save(folder / f"{i}.{'png' if sample.member else 'jpg'}")
    (tmp_path / "images" / "members" / "0.png").write_bytes(b"no image")
    whole = (tmp_path / "images" / "members" / "1.png").read_bytes()
    (tmp_path / "images" / "members" / "1.png").write_bytes(whole[: len(whole) // 2])
    found, _ = inspect_dataset(registry, f"folder:{tmp_path / 'images'}", encoder="emoji-clip")
    members, others = found.classes
    assert (members.n, members.read, members.damaged, others.damaged) == (11, 9, 2, 0)
    assert members.formats == {"PNG": 9} and others.formats == {"JPEG": 11}
    assert members.bytes.most > members.bytes.least > 0
    assert set(found.damaged) == {"members/0.png", "members/1.png"}
    assert "not an image" in found.damaged["members/0.png"]
    assert "9 groups of members, 10 needed" in named(found, "blind").reason
    assert "no captions" in named(found, "blind@caption").reason or named(found, "blind@caption").value is None
    assert found.lengths.reason == "no captions" and "9 members" in found.frechet.reason


@pytest.mark.parametrize(
    ("kinds", "classes"),
    [
        ({"a": "", "b": "", "c": ""}, 1),
        ({"a": "members/", "b": "members/", "c": "members/"}, 1),
        ({"a": "members/", "b": "nonmembers/", "c": "nonmembers/"}, 2),
    ],
)
def test_three_images_are_enough_to_say_something(registry, tmp_path, kinds, classes):
    for shade, (name, folder) in enumerate(kinds.items()):
        (tmp_path / "x" / folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), (90 * shade, 20, 7)).save(tmp_path / "x" / folder / f"{name}.png")
    found, _ = inspect_dataset(registry, f"folder:{tmp_path / 'x'}", encoder="emoji-clip")
    assert len(found.classes) == classes and sum(c.read for c in found.classes) == 3
    assert all(row.value is None and row.reason for row in found.blind)
    assert found.frechet.reason and found.alike.samples == 3, "plain pictures are all alike"


def test_without_labels_that_is_the_reason_and_not_the_captions(registry):
    found = inspect(registry, tiny.icons(0, 0, unknown=3))
    assert found.lengths.reason == "no audited sample has a label"


def test_hosts_and_survival_of_a_dataset_that_has_them(registry):
    urls = {True: "https://a.example/x.jpg", False: "http://b.example:80/y.png"}
    samples = [
        replace(s, labels={"url": urls[s.member] if i % 4 else "https://both.example/"})
        for i, s in enumerate(tiny.icons(8, 8))
    ]
    samples[1] = replace(samples[1], labels={"url": "https://[bad/"})

    class Fetched(Dataset):
        meta = DatasetMeta(name="given", summary="given", biases="hosts die together")

        def samples(self):
            return samples

        def survival(self):
            row = {"kind": "members", "urls": 90, "tried": 80, "survived": 40, "low": 0.39, "high": 0.61}
            return [type("Row", (), row)()]

    found = inspect(registry, Fetched)
    assert found.about["biases"] == "hosts die together"
    hosts = {h.host: (h.members, h.nonmembers) for h in found.hosts}
    assert hosts == {
        "a.example": (pytest.approx(5 / 7), 0),
        "b.example": (0, 6 / 8),
        "both.example": (pytest.approx(2 / 7), 2 / 8),
    }
    assert found.hosts_in_all == 3 and found.hosts_shared == pytest.approx(4 / 15)
    assert (found.survival[0].kind, found.survival[0].survived) == ("members", 40)
    assert inspect(registry, samples[:4]).survival == ()


def test_somebody_elses_control_is_shown_and_its_fault_costs_its_row_alone():
    from mia_bench import Access, Control
    from mia_bench.attack import Meta

    class Broken(Control):
        meta = Meta(name="broken", summary="fails", paper="none", access=Access.NONE, needs=frozenset())

        def measure(self, batch, target):
            raise RuntimeError("on purpose")

        def score(self, measured, calibration):
            return measured["none"]

    registry = Registry.load()
    registry.attacks["broken"] = Broken
    found = inspect(registry, tiny.icons(12, 12))
    assert "on purpose" in named(found, "broken").reason
    assert named(found, "blind").value is not None


def test_the_same_whatever_the_order_and_the_threads(registry, monkeypatch):
    samples = tiny.icons(15, 15)
    first = inspect(registry, samples)
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0})
    assert inspect(registry, samples[::-1]) == first


def test_the_encoder_is_the_first_at_hand(registry, monkeypatch):
    monkeypatch.setattr(engine, "at_hand", lambda cls: False)
    assert inspect(registry, tiny.icons(2, 2), encoder=None).frechet.encoder == "emoji-clip"
    with pytest.raises(UsageError, match="unknown encoder"):
        inspect(registry, tiny.icons(2, 2), encoder="nobody")


def test_a_dataset_plugin_that_fails_is_blamed(registry):
    class Fails(Dataset):
        meta = DatasetMeta(name="given", summary="fails")

        def samples(self):
            raise RuntimeError("on purpose")

    with pytest.raises(BrokenPluginError, match="on purpose"):
        inspect(registry, Fails)
