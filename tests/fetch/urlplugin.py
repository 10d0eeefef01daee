"""An outsider's dataset that is a list of urls: `urls:FILE`, JSON lines `[id, class, url]`."""

import json
from pathlib import Path

from mia_bench import DatasetMeta, hookimpl
from mia_bench.fetch.links import Link, UrlList


class Urls(UrlList):
    """Whatever the file says."""

    meta = DatasetMeta(name="urls", summary="urls of a file", targets=("tiny",), argument="FILE")

    def urls(self):
        rows = map(json.loads, Path(self.path).read_text().splitlines())
        return [Link(name, url, f"caption of {name}", kind == "members") for name, kind, url in rows]


@hookimpl
def mia_bench_datasets():
    return [Urls]
