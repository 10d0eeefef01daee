"""Contact sheets of the pictures that a run saved: `python sheets.py RUN FOLDER`, after `run --artifacts N --out RUN`.

One PNG for each attack that explains itself: a row for each sample, a column for each picture.
"""

from __future__ import annotations

import json
import sys
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image


def sheet(rows: list[dict[str, Any]], run: Path, path: Path) -> None:
    """Draw the pictures of one attack."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    mpl.rcParams.update({"font.size": 7})
    titles = list(rows[0]["pictures"])
    size = (1.0 * len(titles) + 1.4, 1.02 * len(rows) + 0.4)
    figure, axes = plt.subplots(len(rows), len(titles), figsize=size, squeeze=False)
    for panel, title in zip(axes[0], titles, strict=True):
        panel.set_title(title)
    for line, row in zip(axes, rows, strict=True):
        kind = {True: "member", False: "non-member", None: "unknown"}[row["member"]]
        for panel, title in zip(line, titles, strict=True):
            panel.imshow(Image.open(run / row["pictures"][title]), interpolation="nearest")
            panel.set(xticks=[], yticks=[])
            for spine in panel.spines.values():
                spine.set_linewidth(0.3)
        about = f"{row['rank']}\n{kind}\n{row['score']:.3g}"
        line[0].set_ylabel(about, rotation=0, ha="right", va="center")
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(figure)


if __name__ == "__main__":
    run, folder = (Path(argument) for argument in sys.argv[1:])
    folder.mkdir(parents=True, exist_ok=True)
    index = json.loads((run / "artifacts" / "index.json").read_text(encoding="utf-8"))["rows"]
    for attack, rows in groupby(index, key=lambda row: row["attack"]):
        sheet(list(rows), run, folder / f"{attack.partition('[')[0].partition('@')[0]}.png")
