"""`mia-bench fetch --weights`: what a target needs, into the hub's cache, so that a run works without a network."""

import json
import os
import resource
import shlex
import shutil
import subprocess
import sys

import pipelines
import pytest
from hubserver import COMMIT, serving

from mia_bench import TargetOptions
from mia_bench.diffusion import hub
from mia_bench.engine.prefetch import prefetch
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry
from mia_bench.report.fetched import show_prefetched

NAME, ADAPTER = "someone/tiny", "someone/adapter"


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def at_hub(tmp_path, monkeypatch):
    """`at_hub(server)`: the hub is that server, its cache empty; without one nobody answers."""

    def use(server=None, offline=False):
        url = server.url if server else "http://127.0.0.1:9"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
        hub._snapshot.cache_clear()
        return tmp_path / "cache"

    yield use
    hub._snapshot.cache_clear()


@pytest.fixture
def pipeline(tmp_path):
    """A repository with more in it than is needed."""
    folder = shutil.copytree(pipelines.TINY_SD, tmp_path / "repository")
    weights = "unet/diffusion_pytorch_model"
    for name in (f"{weights}.fp16", f"{weights}.non_ema", "sd-v1-4", "safety_checker/model"):
        path = folder / f"{name}.safetensors"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"not needed")
    return folder


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"an adapter")
    (folder / "preview.png").write_bytes(b"not needed")
    return folder


def test_what_is_needed_is_fetched_once(registry, at_hub, pipeline, adapter, capsys):
    options = TargetOptions(revision="main", lora=(f"{ADAPTER}:0.5",))
    with serving(**{NAME: pipeline, ADAPTER: adapter}) as server:
        cache = at_hub(server)
        found = prefetch(registry, NAME, options)
        assert (found.repository, found.revision, found.cache) == (NAME, COMMIT, str(cache))
        whole = {f"{p.parent.name}/{p.name}": p.stat().st_size for p in pipelines.TINY_SD.glob("*/*")}
        assert found.files == {**whole, "lora 0 x 0.5": len(b"an adapter")}
        assert set(found.new) == set(found.files)
        got = [path for method, path in server.asked if method == "GET" and "/resolve/" in path]
        assert len(got) == len(set(got)) == 1 + len(found.files), "the index, and each file once"
        assert found.command == (
            f"HF_HUB_OFFLINE=1 mia-bench run --target {NAME} --revision {COMMIT} --lora {ADAPTER}:0.5"
        )
        show_prefetched(found, as_json=False)
        said = capsys.readouterr().out
        assert COMMIT in said and f"offline: {found.command}" in said
        total = f"{len(found.files)}, {sum(found.files.values()) / 1e6:.3g} MB"
        assert [line.split("  ")[-1] for line in said.splitlines() if line.startswith("f")] == [total, total]
        hub._snapshot.cache_clear()
        again = prefetch(registry, NAME, options)
        assert (again.new, again.files) == ((), found.files)
        show_prefetched(again, as_json=False)
        assert "nothing: all is on this machine" in capsys.readouterr().out
    at_hub(offline=True)
    assert prefetch(registry, NAME, TargetOptions(revision=COMMIT)).files == whole, "without a network"


def test_a_fetch_that_was_cut_off_is_told_from_one_that_was_not(registry, at_hub, pipeline):
    with serving(**{NAME: pipeline}) as server:
        at_hub(server)
        found = prefetch(registry, NAME, TargetOptions())
        cached = next(at_hub(server).glob(f"*/snapshots/{COMMIT}/vae/*.safetensors"))
        cached.resolve().unlink()
        cached.unlink()
        again = prefetch(registry, NAME, TargetOptions())
    assert again.new == ("vae/diffusion_pytorch_model.safetensors",) and again.files == found.files


def test_pickled_weights_have_to_be_allowed(registry, at_hub, pipeline):
    for path in (pipeline / "unet").glob("*.safetensors"):
        path.unlink()
    pipelines.sd().unet.save_pretrained(pipeline / "unet", safe_serialization=False)
    with serving(**{NAME: pipeline}) as server:
        at_hub(server)
        with pytest.raises(UnavailableError) as caught:
            prefetch(registry, NAME, TargetOptions())
        assert "no weights" in str(caught.value) and "--allow-pickle" in caught.value.fix
        found = prefetch(registry, f"{NAME}@main", TargetOptions(allow_pickle=True))
    assert "unet/diffusion_pytorch_model.bin" in found.new
    assert found.command.endswith(f"--target {NAME}@main --allow-pickle")


def test_what_lies_here_needs_no_fetching(registry, at_hub, capsys):
    at_hub()
    found = prefetch(registry, str(pipelines.TINY_SD), TargetOptions())
    assert (found.repository, found.new) == ("", ()) and "unet/config.json" in found.files
    show_prefetched(found, as_json=False)
    assert "fetched now  nothing: all is on this machine" in capsys.readouterr().out
    embedded = prefetch(registry, "emoji-realworld", TargetOptions())
    assert embedded.new == () and embedded.command == "HF_HUB_OFFLINE=1 mia-bench run --target emoji-realworld"


@pytest.mark.parametrize(
    ("answer", "options", "kind", "why", "fix"),
    [
        ((403, "GatedRepo"), {}, UnavailableError, "it is gated", "ask for access at http://127.0.0.1"),
        ((404, "RepoNotFound"), {}, UnavailableError, "no such repository", "check the name at"),
        (None, {"revision": "v9"}, UnavailableError, "it has no such revision", "leave out --revision"),
        (None, {"lora": ("nowhere",)}, UnavailableError, "no such file", "--lora PATH_OR_ID"),
        (None, {"config": "someone/other"}, UsageError, "a folder or repository", "leave it out"),
    ],
)
def test_refusals(registry, at_hub, pipeline, answer, options, kind, why, fix):
    with serving(**{NAME: answer or pipeline}) as server:
        at_hub(server)
        with pytest.raises(kind) as caught:
            prefetch(registry, NAME, TargetOptions(**options))
    assert why in str(caught.value) and fix in caught.value.fix


@pytest.mark.parametrize(("offline", "why"), [(False, "no network"), (True, "HF_HUB_OFFLINE is set")])
def test_no_network(registry, at_hub, offline, why):
    at_hub(offline=offline)
    with pytest.raises(UnavailableError) as caught:
        prefetch(registry, "sd-v1-4", TargetOptions())
    assert why in str(caught.value) and "fetch it where there is one" in caught.value.fix


def test_no_room(registry, at_hub, pipeline):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(**{NAME: pipeline}) as server:
        at_hub(server)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, hard))  # as a disk that is full: writing fails
        try:
            with pytest.raises(UnavailableError, match="no room for it in"):
                prefetch(registry, NAME, TargetOptions())
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        hub._snapshot.cache_clear()
        found = prefetch(registry, NAME, TargetOptions())
    assert found.new and len(found.new) <= len(found.files), "it goes on where it stopped"


def test_the_command_it_names_works_without_a_network(tmp_path, pipeline):
    with serving(**{NAME: pipeline}) as server:
        env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        command = [sys.executable, "-m", "mia_bench", "fetch", "--weights", NAME, "--json"]
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=250)
        assert done.returncode == 0, done.stderr
    variable, _, *words = shlex.split(json.loads(done.stdout)["command"])
    env |= [variable.split("=")]
    words += ["--attacks", "loss", "--dataset", "fluent-emoji", "--limit", "1", "--rows", "4", "--out", "run"]
    command = [sys.executable, "-m", "mia_bench", *words]
    run = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    facts = json.loads((tmp_path / "run" / "results.json").read_text())["target_facts"]
    assert facts["revision"] == COMMIT and "Traceback" not in run.stderr, run.stderr
