"""Repositories fetched from a hub that answers, refuses, or is not there; by the names that models are known by."""

import json
import logging
import os
import resource
import shutil
import subprocess
import sys

import pipelines
import pytest
from hubserver import COMMIT, serving

from mia_bench import TargetOptions
from mia_bench.diffusion import hub
from mia_bench.engine.named import open_target
from mia_bench.errors import UnavailableError, UsageError
from mia_bench.plugins import Registry

NAME = "someone/tiny"


@pytest.fixture(scope="module")
def registry():
    return Registry.load()


@pytest.fixture
def at_hub(tmp_path, monkeypatch):
    """`at_hub(server)`: the hub is that server, its cache empty."""

    def use(server=None):
        url = server.url if server else "http://127.0.0.1:9"  # nobody listens
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        hub._snapshot.cache_clear()
        return tmp_path / "cache"

    yield use
    hub._snapshot.cache_clear()


@pytest.fixture
def pipeline(tmp_path):
    """A repository with more in it than is needed."""
    folder = shutil.copytree(pipelines.TINY_SD, tmp_path / "repository")
    for name in ("diffusion_pytorch_model.fp16", "diffusion_pytorch_model.non_ema", "other"):
        (folder / "unet" / f"{name}.safetensors").write_bytes(b"not needed")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"not needed")
    (folder / "safety_checker").mkdir()
    (folder / "safety_checker" / "model.safetensors").write_bytes(b"not needed")
    return folder


def refused(registry, spec, kind=UnavailableError, **options):
    with pytest.raises(kind) as caught:
        target = open_target(registry, spec, TargetOptions(**options))
        target.weights()
        target.open()
    assert caught.value.fix and len(str(caught.value)) < 500
    return str(caught.value), caught.value.fix


def test_only_what_is_needed_is_fetched_and_the_commit_is_known(registry, at_hub, pipeline):
    with serving(**{NAME: pipeline}) as server:
        cache = at_hub(server)
        target = open_target(registry, NAME)
        assert target.fingerprint == open_target(registry, str(pipelines.TINY_SD)).fingerprint
        assert target.facts()["repository"] == NAME and target.facts()["revision"] == COMMIT
        fetched = [path for method, path in server.asked if method == "GET" and "/resolve/" in path]
        assert len(fetched) == 1 + len(target.weights()) == len(set(fetched))
        assert not any(word in path for path in fetched for word in ("fp16", "non_ema", ".bin", "other", "safety"))
        target.open(rows=2)
        hub._snapshot.cache_clear()
        server.asked.clear()
        assert open_target(registry, NAME, TargetOptions(revision=COMMIT)).fingerprint == target.fingerprint
        assert not server.asked, "a commit that is here needs no network"
    assert not any("fp16" in path.name for path in cache.rglob("*"))
    hub._snapshot.cache_clear()
    assert open_target(registry, NAME).fingerprint == target.fingerprint, "the server is gone"


def test_pickled_weights_on_the_hub(registry, at_hub, pipeline):
    for path in (pipeline / "unet").glob("*model*"):
        path.unlink()
    pipelines.sd().unet.save_pretrained(pipeline / "unet", safe_serialization=False)
    with serving(**{NAME: pipeline}) as server:
        at_hub(server)
        why, fix = refused(registry, NAME)
        assert "no weights" in why and "--allow-pickle" in fix
        assert not any(".bin" in path for _, path in server.asked)
        target = open_target(registry, NAME, TargetOptions(allow_pickle=True))
        assert "unet/diffusion_pytorch_model.bin" in target.weights()
        target.open(rows=2)


def test_half_precision_on_the_hub(registry, at_hub, pipeline):
    shutil.copytree(pipelines.TINY_SD / "unet", pipeline / "unet", dirs_exist_ok=True)
    whole = pipeline / "unet" / "diffusion_pytorch_model.safetensors"
    whole.replace(whole.with_suffix(".fp16.safetensors"))
    with serving(**{NAME: pipeline}) as server:
        at_hub(server)
        assert "unet/diffusion_pytorch_model.fp16.safetensors" in open_target(registry, NAME).weights()


@pytest.mark.parametrize(
    ("answer", "why", "fix"),
    [
        ((403, "GatedRepo"), "it is gated", "ask for access at http://127.0.0.1"),
        ((401, "GatedRepo"), "it is gated", "hf auth login"),
        ((401, "RepoNotFound"), "no such repository, or it is private", "hf auth login"),
        ((404, "RepoNotFound"), "no such repository, or it is private", "check the name at"),
    ],
)
def test_a_hub_that_refuses(registry, at_hub, answer, why, fix):
    with serving(**{NAME: answer}) as server:
        at_hub(server)
        said, how = refused(registry, NAME)
    assert said.startswith(f"repository {NAME}: ") and why in said and fix in how


def test_a_revision_that_is_not_there(registry, at_hub, pipeline):
    with serving(**{NAME: pipeline}) as server:
        at_hub(server)
        for spec, options in ((NAME, {"revision": "v9"}), (f"{NAME}@v9", {})):
            why, fix = refused(registry, spec, **options)
            assert why == f"repository {NAME} at v9: it has no such revision" and "leave out --revision" in fix
        assert "names another" in refused(registry, f"{NAME}@main", UsageError, revision="v9")[0]
        assert open_target(registry, f"{NAME}@main").facts()["asked revision"] == "main"


def test_no_network(registry, at_hub, monkeypatch):
    at_hub()
    why, fix = refused(registry, NAME)
    assert "not whole in the hub's cache" in why and "no network" in why
    assert f"`mia-bench fetch --weights {NAME}`" in fix
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub._snapshot.cache_clear()
    assert "HF_HUB_OFFLINE is set" in refused(registry, NAME)[0]


def test_a_cache_that_lacks_a_part(registry, at_hub, monkeypatch):
    cache = at_hub()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # else the hub is tried for 20 s
    root = pipelines.in_hub_cache(pipelines.TINY_SD, cache, NAME, COMMIT)
    shutil.rmtree(root / "snapshots" / COMMIT / "vae")
    why, fix = refused(registry, NAME)
    assert "its part vae/ is missing" in why and f"`mia-bench fetch --weights {NAME} --revision {COMMIT}`" in fix


def test_a_repository_that_holds_no_pipeline(registry, at_hub, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model.safetensors").write_bytes(b"x")
    with serving(**{NAME: tmp_path / "other"}) as server:
        at_hub(server)
        why, fix = refused(registry, NAME)
    assert "no such file" in why and f"{NAME} holds no diffusers pipeline" in fix


def test_no_room(registry, at_hub, pipeline):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with serving(**{NAME: pipeline}) as server:
        cache = at_hub(server)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**15, hard))  # as a disk that is full: writing fails
        try:
            why, fix = refused(registry, NAME)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert f"no room for it in {cache}" in why and "HF_HUB_CACHE" in fix
        hub._snapshot.cache_clear()
        assert open_target(registry, NAME).weights(), "and goes on where it stopped"


def test_of_an_adapters_repository_only_its_own_files_are_fetched(registry, at_hub, tmp_path):
    folder = tmp_path / "adapter"
    (folder / "full").mkdir(parents=True)
    (folder / "full" / "model.safetensors").write_bytes(b"not needed")
    (folder / "pytorch_lora_weights.safetensors").write_bytes(b"needed")
    with serving(**{NAME: folder}) as server:
        at_hub(server)
        target = open_target(registry, str(pipelines.TINY_SD), TargetOptions(lora=(f"{NAME}:0.5",)))
        assert "lora 0 x 0.5" in target.weights()
        fetched = [path for method, path in server.asked if method == "GET" and "/resolve/" in path]
    assert [path.rpartition("/")[2] for path in fetched] == ["pytorch_lora_weights.safetensors"]
    assert "--exclude '*/*'" in hub.fetching(NAME, None, ["*.safetensors"])


# Known names --------------------------------------------------------------------------------------------------------


def test_a_known_name_is_its_repository(registry, at_hub, pipeline):
    with serving(**{"CompVis/stable-diffusion-v1-4": pipeline}) as server:
        at_hub(server)
        target = open_target(registry, "sd-v1-4", TargetOptions(revision="main"))
        assert target.facts()["repository"] == "CompVis/stable-diffusion-v1-4" and target.facts()["revision"] == COMMIT
        assert type(open_target(registry, "CompVis/stable-diffusion-v1-4")) is type(target)


@pytest.mark.parametrize("at", ["", "@main"])
def test_a_repository_that_moved_is_found_and_said_once(registry, at_hub, pipeline, caplog, at):
    mirror = "stable-diffusion-v1-5/stable-diffusion-v1-5"
    with serving(**{mirror: pipeline}) as server, caplog.at_level(logging.WARNING, "mia_bench"):
        at_hub(server)
        target = open_target(registry, f"runwayml/stable-diffusion-v1-5{at}")
        assert target.facts()["repository"] == mirror
    said = f"runwayml/stable-diffusion-v1-5 is gone; {mirror} is read in its place"
    assert target.facts()["note"] == said
    assert [said in message for message in caplog.messages] == [True]


def test_every_known_name_says_where_it_is(registry):
    known = {n: cls.meta for n, cls in registry.targets.items() if cls.meta.repository}
    assert {"sd-v1-4", "sd-v1-5", "sd-v2-1", "sdxl", "ldm-celebahq-256", "commoncanvas-xl-c"} <= set(known)
    assert len({m.repository for m in known.values()}) == len(known)
    for meta in known.values():
        assert hub.REPOSITORY.fullmatch(meta.repository) and meta.repository in meta.summary and not meta.takes
        assert not meta.formerly & {m.repository for m in known.values()}


# The command line ---------------------------------------------------------------------------------------------------


def test_from_the_command_line(tmp_path, pipeline):
    with serving(**{NAME: pipeline, "someone/gated": (403, "GatedRepo")}) as server:
        env = {**os.environ, "HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}

        def call(target):
            options = ["--attacks", "loss", "--dataset", "fluent-emoji", "--limit", "1", "--rows", "4"]
            command = [sys.executable, "-m", "mia_bench", "run", "--target", target, *options, "--revision", "main"]
            return subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)

        done, gated = call(NAME), call("someone/gated")
    assert done.returncode in (0, 3), done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    facts = json.loads((run / "results.json").read_text())["target_facts"]
    assert (facts["repository"], facts["revision"]) == (NAME, COMMIT)
    assert facts["weights"]["unet/diffusion_pytorch_model.safetensors"]
    assert gated.returncode == 3
    assert (
        "error: repository someone/gated at main: it is gated" in gated.stderr and "fix: ask for access" in gated.stderr
    )
    assert "Traceback" not in done.stderr + gated.stderr
