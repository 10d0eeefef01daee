"""The registry packages everything is built from, pinned by version and content."""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Package:
    """One npm package: `name@version` and the sha256 of its tarball."""

    name: str
    version: str
    sha256: str
    licence: str

    @property
    def tarball(self) -> str:
        return f"{self.name.lstrip('@').replace('/', '-')}-{self.version}.tgz"

    def read(self, cache: Path, member: str) -> Any:
        """A JSON file of the package, which `npm pack` fetches if the cache lacks it.

        Raises:
            SystemExit: The tarball cannot be fetched, or is not the pinned one.
        """
        path = cache / self.tarball
        if not path.exists():
            cache.mkdir(parents=True, exist_ok=True)
            command = ["npm", "pack", "--silent", f"{self.name}@{self.version}", "--pack-destination", str(cache)]
            try:
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            except (OSError, subprocess.CalledProcessError) as error:
                raise SystemExit(f"{self.tarball}: {error}; install npm, or put the tarball into {cache}") from error
        if (found := hashlib.sha256(path.read_bytes()).hexdigest()) != self.sha256:
            raise SystemExit(f"{path}: sha256 is {found}, not {self.sha256}; delete it and build again")
        with tarfile.open(path) as archive:
            file = archive.extractfile(f"package/{member}")
            assert file is not None
            return json.load(file)


EMOJIBASE = Package(
    "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a", "MIT"
)
FLUENT = Package(
    "@iconify-json/fluent-emoji", "1.2.7", "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b", "MIT"
)
NOTO = Package(
    "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad", "Apache-2.0"
)
TWEMOJI = Package(
    "@iconify-json/twemoji", "1.2.5", "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7", "CC BY 4.0"
)
