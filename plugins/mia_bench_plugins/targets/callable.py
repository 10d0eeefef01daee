"""A Python function that makes images, in a file of the user's."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mia_bench import Capability, Target, TargetMeta, hookimpl
from mia_bench.black_box import BlackBox, Request
from mia_bench.errors import BrokenPluginError, SampleError, UnavailableError, UsageError, brief

if TYPE_CHECKING:
    from PIL.Image import Image

GIVEN = ("seed", "size", "steps", "guidance", "image", "strength")
FORM = "callable:FILE.py:NAME"


class Function(BlackBox):
    """`NAME(caption, *, seed, size, steps, guidance, image, strength)`, called for one image at a time.

    It returns a PIL image, a uint8 array `(H, W, 3)` or the bytes of an image file; parameters that it does not name
    are not passed. `seed` is an int in [0, 2^31) and stands for the noise of the sample, `size` the side wanted in
    pixels. Without an image, `image` and `strength` are None. A function that does not name both draws from captions
    alone. What it raises costs one sample.

    The file is run like any program. It identifies the target; what it imports, or reads, does not: name that with
    --revision.
    """

    meta = TargetMeta(
        name="callable",
        summary="a Python function that makes images: f(caption, *, seed, size, steps, guidance, image, strength)",
        kind="pixel",
        capabilities=frozenset({Capability.GENERATE, Capability.CAPTION, Capability.VARY}),
        argument="FILE.py:NAME",
    )

    @cached_property
    def place(self) -> tuple[Path, str]:
        """The file, and the name of the function in it."""
        path, _, name = self.argument.rpartition(":")
        if not path or not name.isidentifier():
            where = self.argument if self.argument.endswith(".py") else "FILE.py"
            why = "it does not say which function of which file"
            raise UsageError(f"target callable:{self.argument}", why, f"write --target callable:{where}:NAME")
        return Path(path).expanduser(), name

    @cached_property
    def function(self) -> Callable[..., Any]:
        """The function; the file is run now."""
        from mia_bench.plugins import import_file, suggest

        path, name = self.place
        try:
            module = import_file(path)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # it is the user's program: it may even call sys.exit()
            why = f"{type(error).__name__}: {brief(error)}{_where(error, path)}"
            raise BrokenPluginError(f"target file {path}", why, "fix the file") from error
        found = getattr(module, name, None)
        if not callable(found):
            own = [
                n for n, v in vars(module).items() if callable(v) and getattr(v, "__module__", "") == module.__name__
            ]
            why = f"it has no function {name!r}: {suggest(name, own)}"
            raise UsageError(f"target file {path}", why, f"write --target callable:{path}:NAME")
        self._check(found)
        return found  # type: ignore[no-any-return]

    def _check(self, function: Callable[..., Any]) -> None:
        """Refuse a function that cannot be called as this class calls it."""
        try:
            parameters = signature(function)
            parameters.bind("a caption", **dict.fromkeys(self._named(function)))
        except (TypeError, ValueError) as error:
            path, name = self.place
            fix = f"write it as {name}(caption, *, {', '.join(GIVEN)}), leaving out what it does not read"
            raise UsageError(f"target function {name} of {path}", brief(error), fix) from error

    def _named(self, function: Callable[..., Any]) -> tuple[str, ...]:
        """What is passed beside the caption."""
        parameters = signature(function).parameters
        anything = any(p.kind is Parameter.VAR_KEYWORD for p in parameters.values())
        return tuple(n for n in GIVEN if anything or n in parameters)

    @property
    def capabilities(self) -> frozenset[Capability]:
        varies = {"image", "strength"} <= set(self._named(self.function))
        return super().capabilities - (frozenset() if varies else {Capability.VARY})

    def weights(self) -> Mapping[str, str]:
        from mia_bench.hashing import sha256_of

        path, _ = self.place
        if not path.is_file():
            raise UnavailableError(f"target file {path}", "no such file", f"check the path: --target {FORM}")
        return {"file": sha256_of(path)}

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "function": self.place[1]}

    def facts(self) -> Mapping[str, Any]:
        path, name = self.place
        return {"file": str(path), "function": name, "revision": self.options.revision}

    def made(self, requests: Sequence[Request]) -> list[Image | bytes | SampleError]:
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Image | bytes | SampleError:
        path, name = self.place
        given = {n: getattr(request, n) for n in self._named(self.function)}
        try:
            return _picture(self.function(request.caption, **given))
        except (Exception, SystemExit) as error:
            why = f"{name} raised {type(error).__name__}: {brief(error)}{_where(error, path)}"
            return SampleError(f"target function {name} on sample {request.sample!r}", why, f"fix {path}")


def _picture(answer: Any) -> Image | bytes:
    import numpy as np
    from PIL import Image

    if isinstance(answer, bytes | Image.Image):
        return answer
    array = np.asarray(answer)
    if array.dtype != np.uint8 or array.shape[2:] != (3,):
        kind = f"an array of {array.dtype} {array.shape}" if array.ndim else f"a {type(answer).__name__}"
        raise TypeError(f"it gave {kind}, not a PIL image, a uint8 array (H, W, 3) or the bytes of an image file")
    return Image.fromarray(array)


def _where(error: BaseException, path: Path) -> str:
    """The innermost line of the file that an exception came through."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename) == path]
    return f" at {path}:{frames[-1].lineno}" if frames else ""


@hookimpl
def mia_bench_targets() -> list[type[Target]]:
    return [Function]
