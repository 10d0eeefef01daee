"""The parts of a diffusers pipeline, wherever they lie: quietly, without pickle or remote code.

`open_checkpoint` answers with a `Checkpoint`: a folder (local, or a snapshot of a hub repository), a single file, or a
pipeline that is loaded already. All hand out the same parts, so the same pipeline scores the same however it is given.
"""

from __future__ import annotations

import json
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench.errors import UnavailableError, brief
from mia_bench.hashing import sha256_of

if TYPE_CHECKING:
    from mia_bench.diffusion.schedule import Schedule

SAVE = "save the pipeline again with `save_pretrained(..., safe_serialization=True)`"
WHOLE = "give a complete diffusers pipeline folder"
INDEX = "model_index.json"
TEXTS = frozenset({".json", ".txt", ".model"})  # configurations, vocabularies, sentencepiece
WEIGHTS = re.compile(r"(diffusion_pytorch_model|pytorch_model|model)(\.fp16)?(-\d{5}-of-\d{5})?(\.fp16)?\.(\w+)")
PICKLED = frozenset({".bin", ".ckpt", ".pt", ".pth"})


class Checkpoint(ABC):
    """Where the parts of a pipeline come from.

    Attributes:
        facts: What is recorded about the source: repository and commit, file, notes.
    """

    facts: Mapping[str, str]

    @abstractmethod
    def index(self) -> Mapping[str, Any]:
        """`model_index.json`: `_class_name`, settings, and library and class of each part; empty if there is none."""

    @abstractmethod
    def load(self, classes: Sequence[str], part: str, dtype: str = "float32") -> Any:
        """One part; a network in evaluation mode, without gradients.

        Args:
            classes: Names of the classes it may be, the first where the index does not say.
            part: Its name in the pipeline.
            dtype: Precision of a network.

        Raises:
            UnavailableError: It is missing, damaged, incomplete or of another class.
        """

    @abstractmethod
    def config(self, part: str) -> Mapping[str, Any]:
        """Configuration of a part, before anything is loaded."""

    @abstractmethod
    def hashes(self, parts: Iterable[str]) -> dict[str, str]:
        """sha256 of everything that decides these parts' numbers, by name."""

    def paths(self, parts: Iterable[str]) -> dict[str, Path]:
        """The files whose hashes those are; none of a pipeline object."""
        return {}

    def check(self, parts: Iterable[str]) -> None:
        """Check that every network has weights that may be read.

        Raises:
            UnavailableError: One has not.
        """
        return None

    def has(self, part: str) -> bool:
        """Whether the pipeline has this part; an index may leave optional ones out."""
        index = self.index()
        return not index or bool((index.get(part) or [None])[0])

    def schedule(self, part: str = "scheduler") -> Schedule:
        """The noise levels of the scheduler.

        Raises:
            UnavailableError: There is no readable scheduler, or one without levels.
        """
        return schedule_of(dict(self.config(part)))

    def class_of(self, part: str, classes: Sequence[str]) -> Any:
        """The class of a part: one of these, whatever the index asks for.

        Raises:
            UnavailableError: The index names another.
        """
        entry = self.index().get(part)
        name = str(entry[1]).removeprefix("Flax") if isinstance(entry, list | tuple) and len(entry) == 2 else classes[0]
        if name.removesuffix("Fast") not in {c.removesuffix("Fast") for c in classes}:
            raise UnavailableError(f"target part {part}", f"it is a {name}, not a {' or '.join(classes)}", WHOLE)
        import diffusers
        import transformers

        return getattr(diffusers, name, None) or getattr(transformers, name)


class Folder(Checkpoint):
    """A pipeline folder as `save_pretrained` writes it.

    Args:
        root: The folder.
        allow_pickle: Whether weights may be pickled, where there is no safetensors file; tensors alone are unpickled.
        repair: The command that completes the folder.
        places: Parts that lie elsewhere.
        facts: As above.
    """

    def __init__(
        self,
        root: Path,
        *,
        allow_pickle: bool = False,
        repair: str = WHOLE,
        places: Mapping[str, Path] | None = None,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.allow_pickle, self.repair, self.places = root, allow_pickle, repair, places or {}
        self.facts = facts or {}

    def place(self, part: str) -> Path:
        """Where a part lies."""
        return self.places.get(part, self.root / part)

    def index(self) -> Mapping[str, Any]:
        path = self.root / INDEX
        return read_json(path, self.repair) if path.exists() else {}

    def config(self, part: str) -> Mapping[str, Any]:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        self._check(part)
        return read_json(self.place(part) / name, self.repair)

    def hashes(self, parts: Iterable[str]) -> dict[str, str]:
        return {name: hash_file(path) for name, path in self.paths(parts).items()}

    def paths(self, parts: Iterable[str]) -> dict[str, Path]:
        return {f"{p}/{path.name}": path for p in parts for path in self.files(p)}

    def check(self, parts: Iterable[str]) -> None:
        for part in parts:
            self._check(part)
            if (self.place(part) / "config.json").exists():
                self._chosen(part)

    def files(self, part: str) -> list[Path]:
        """What decides a part's numbers: configuration, vocabulary, and the weights that are loaded.

        Raises:
            UnavailableError: The folder holds nothing, or cannot be read.
        """
        self._check(part)
        folder = self.place(part)
        try:
            names = {p.name: p for p in sorted(folder.iterdir())}
        except OSError as error:
            raise UnavailableError(f"target part {folder}", brief(error), "make it readable") from error
        weights = chosen(names, self.allow_pickle)
        found = [p for name, p in names.items() if p.suffix in TEXTS or name in weights]
        if not found:
            raise UnavailableError(f"target part {folder}", "no weights or configuration in it", SAVE)
        return found

    def load(self, classes: Sequence[str], part: str, dtype: str = "float32") -> Any:
        cls = self.class_of(part, classes)
        folder = self.place(part)
        self._check(part)
        options: dict[str, Any] = self._weights(part, dtype, cls) if hasattr(cls, "forward") else {}
        try:
            with quiet():
                found = cls.from_pretrained(str(folder), local_files_only=True, **options)
        except Exception as error:  # many kinds, from OSError to safetensors' own
            why = f"{type(error).__name__}: {brief(error)}"
            raise UnavailableError(f"target part {folder}", why, self.repair if self.facts else SAVE) from error
        if not options:
            return found
        network, report = found
        # What a checkpoint lacks would be random.
        complete(f"target part {folder}", cls, report["missing_keys"])
        return settled(network, dtype)

    def _chosen(self, part: str) -> list[str]:
        """Names of the weight files of a part that are loaded."""
        folder = self.place(part)
        names = [p.name for p in folder.iterdir()]
        weights = chosen(names, self.allow_pickle)
        if not weights:
            pickled = chosen(names, allow_pickle=True)
            why = f"its weights are pickled ({pickled[0]}), which can hide code" if pickled else "no weights in it"
            if not pickled and not any(n.endswith(".safetensors") for n in names):
                why = "no weights (*.safetensors) in it"
            fix = f"{SAVE}, or add --allow-pickle: tensors alone are read" if pickled else self._without_weights()
            raise UnavailableError(f"target part {folder}", why, fix)
        return weights

    def _weights(self, part: str, dtype: str, cls: Any) -> dict[str, Any]:
        import torch
        from diffusers.utils import is_accelerate_available

        weights = self._chosen(part)
        options: dict[str, Any] = {
            "use_safetensors": weights[0].endswith(".safetensors"),
            "torch_dtype": getattr(torch, dtype),
            "output_loading_info": True,
        }
        if ".fp16" in weights[0]:
            options["variant"] = "fp16"
        if cls.__module__.startswith("diffusers") and not is_accelerate_available():
            options["low_cpu_mem_usage"] = False  # its default complains without accelerate
        return options

    def _without_weights(self) -> str:
        repository = self.facts.get("repository")
        return f"if {repository} has them as .bin only, add --allow-pickle" if repository else SAVE

    def _check(self, part: str) -> None:
        folder = self.place(part)
        if not folder.is_dir():
            why = f"its part {folder.name}/ is missing"
            raise UnavailableError(f"pipeline folder {folder.parent}", why, self.repair)


def chosen(names: Iterable[str], allow_pickle: bool = False) -> list[str]:
    """The weight files among `names` that are loaded: full precision before fp16, safetensors before pickle."""
    kinds: dict[tuple[bool, bool], list[str]] = {}
    for name in sorted(names):
        match = WEIGHTS.fullmatch(name.removesuffix(".index.json"))
        if match and f".{match[5]}" in {".safetensors", ".bin"}:
            kinds.setdefault((match[5] == "bin", bool(match[2] or match[4])), []).append(name)
    for kind in sorted(kinds):
        files = [n for n in kinds[kind] if not n.endswith(".json")]
        if files and (allow_pickle or not kind[0]):
            whole = [n for n in files if "-of-" not in n]  # loaded in preference to shards
            return whole or files
    return []


def settled(network: Any, dtype: str) -> Any:
    """A network in evaluation mode, without gradients, in the precision asked for: libraries do not always see to it.

    What they keep in float32 on purpose, as when they load it from a folder, stays so.
    """
    import torch

    wanted = getattr(torch, dtype)
    if network.dtype != wanted:
        # T5's overflow in float16; bfloat16 has the range.
        names = set(getattr(network, "_keep_in_fp32_modules", None) or ()) if dtype == "float16" else set()
        kept = {name: value.data for name, value in network.named_parameters() if names & set(name.split("."))}
        network.to(dtype=wanted)
        for name, value in kept.items():
            network.get_parameter(name).data = value.float()
    return network.eval().requires_grad_(False)


def complete(what: str, cls: Any, missing: Iterable[str]) -> None:
    """Check that a checkpoint lacked nothing.

    Raises:
        UnavailableError: It did.
    """
    if absent := sorted(name for name in missing if not name.endswith("position_ids")):
        raise UnavailableError(what, f"no whole {cls.__name__}: it lacks {len(absent)} weights, e.g. {absent[0]}", SAVE)


def schedule_of(config: dict[str, Any]) -> Schedule:
    """Noise levels of a scheduler's configuration; a product of 1 - beta is taken in float64.

    Flow matching: timestep i = 0 .. N-1 is the level sigma = s (i+1)/N / (1 + (s-1) (i+1)/N), s the configuration's
    `shift`, or 1 where it depends on the size of the image (`use_dynamic_shifting`); the network is told 1000 sigma.
    That is diffusers' own table of training sigmas, in ascending order.

    Raises:
        UnavailableError: It is none of diffusers', has neither betas nor sigmas of a flow, or uses them in its own way.
    """
    import diffusers
    import numpy as np

    from mia_bench.diffusion.schedule import Schedule

    name = str(config.get("_class_name"))
    cls: Any = getattr(diffusers, name, None)
    what, usual = f"scheduler {name}", "use a DDPM-, DDIM- or FlowMatchEuler-style scheduler"
    known = isinstance(cls, type) and issubclass(cls, diffusers.SchedulerMixin)
    if not known:
        raise UnavailableError(what, "diffusers has no scheduler of that name", usual)
    try:
        with quiet():
            scheduler = cls.from_config(config)
        given = scheduler.config
        if name.startswith("FlowMatch"):
            if given.get("invert_sigmas"):
                raise ValueError("its sigmas are inverted")
            shift = 1.0 if given.get("use_dynamic_shifting") else float(given.shift)
            return Schedule.from_flow(int(given.num_train_timesteps), shift)
        if not hasattr(scheduler, "alphas_cumprod") or "prediction_type" not in given:
            raise UnavailableError(what, "it has no betas, or does not say what is predicted", usual)
        if given.get("timestep_type") == "continuous":
            raise UnavailableError(what, "its timesteps are continuous", usual)
        betas, offset = scheduler.betas.double().numpy(), int(given.get("steps_offset", 0))
        schedule = Schedule.from_betas(betas, given.prediction_type, offset)
        # In float32, and with a last level that is not quite zero, where that is rescaled.
        if not np.allclose(schedule.abar, scheduler.alphas_cumprod.double().numpy(), rtol=1e-3, atol=1e-5):
            raise UnavailableError(what, "its noise levels are not those of its betas", usual)
        return schedule
    except UnavailableError:
        raise
    except Exception as error:  # many kinds, of whatever a configuration may say
        raise UnavailableError(what, brief(error), "check scheduler/scheduler_config.json") from error


def square(denoiser: Any, channels: int | None = None) -> int | None:
    """Side of a denoiser's inputs, or None if it does not say.

    Args:
        denoiser: A diffusers network that predicts noise.
        channels: Channels of its inputs and outputs, if they are known.

    Raises:
        UnavailableError: Its inputs are not square, or its inputs and outputs do not have these channels.
    """
    size, config = denoiser.config.sample_size, denoiser.config
    sides = set(size) if isinstance(size, list | tuple) else {size}
    part = "transformer" if "Transformer" in type(denoiser).__name__ else "unet"
    if len(sides) != 1:
        raise UnavailableError(f"target part {part}", f"its sample_size is {size}", "use a model of square images")
    channels = channels or config.in_channels
    if {config.in_channels, config.out_channels} != {channels}:
        why = f"{config.in_channels} channels in and {config.out_channels} out, where {channels} are needed"
        fix = "inpainting, grey and learned-variance models do not fit"
        raise UnavailableError(f"target part {part}", why, fix)
    side = sides.pop()
    return None if side is None else int(side)


def read_json(path: Path, repair: str = WHOLE) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        UnavailableError: Missing or not JSON.
    """
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        why = "no such file" if isinstance(error, FileNotFoundError) else brief(error)
        raise UnavailableError(f"file {path}", why, repair) from error


def hash_file(path: Path) -> str:
    """sha256 of a file's content; once per process while size and time of change stay the same.

    The name of a blob in the hub's cache is not taken for its hash: it says what was asked for, not what lies there.

    Raises:
        UnavailableError: It cannot be read.
    """
    try:
        return sha256_of(path)
    except OSError as error:
        raise UnavailableError(f"file {path}", brief(error), "make it readable") from error


@contextmanager
def quiet() -> Iterator[None]:
    """A block in which diffusers and transformers say nothing."""
    import diffusers.utils.logging as diffusers_logging
    import transformers.utils.logging as transformers_logging

    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
