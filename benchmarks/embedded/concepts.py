"""Concepts: base emoji with an id, a caption, a category, and the family of near-identical meanings they belong to."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from sources import EMOJIBASE, FLUENT

TAGS = 3
COMPONENT, FLAGS, PEOPLE = 2, 9, 1
# Fluent's icon names where they are not the slug of emojibase's label.
ICON_NAMES = {
    "smiling face with open hands": "hugging-face",
    "face with crossed-out eyes": "knocked-out-face",
    "enraged face": "pouting-face",
    "black bird": "blackbird",
    "phoenix": "phoenix-bird",
    "piñata": "piata",
    "red triangle pointed up": "red-triangle",
    "deaf person": "person-deaf",
    "superhero": "person-superhero",
    "supervillain": "person-supervillain",
    "mage": "person-mage",
    "fairy": "person-fairy",
    "vampire": "person-vampire",
    "merperson": "person-merpeople",
    "elf": "person-elf",
    "genie": "person-genie",
    "zombie": "person-zombie",
    "people with bunny ears": "person-with-bunny-ears",
    "people wrestling": "person-wrestling",
}
PERSON = re.compile(r"(wo)?m[ae]n|person|people|boy|girl|child|adult|older|old|baby|mrs?|mx")
COLOUR_SIZE = re.compile(r"red|orange|yellow|green|blue|purple|brown|black|grey|white|pink|light|large|medium|small")
COLOURED = {"heart", "circle", "square", "book", "diamond"}


@dataclass(frozen=True)
class Concept:
    """One base emoji.

    Attributes:
        id: Name of the Fluent icon, which is the sample's id.
        caption: Label and up to three tags, lower-case ASCII.
        family: Concepts of one family mean the same up to gender, age, colour, size or number.
    """

    id: str
    hexcode: str
    label: str
    caption: str
    category: str
    subgroup: str
    family: str


def concepts(cache: Path) -> list[Concept]:
    """Base emoji that Fluent has drawn, in Unicode order: no skin tones, no national flags."""
    names = {key: {g["order"]: g["key"] for g in EMOJIBASE.read(cache, "en/messages.json")[key]} for key in KEYS}
    icons = FLUENT.read(cache, "icons.json")
    drawn = {*icons["icons"], *icons["aliases"]}
    found = []
    for entry in sorted(EMOJIBASE.read(cache, "en/data.json"), key=lambda entry: entry.get("order", 0)):
        group, label = entry.get("group"), entry["label"].lower()
        if group in (None, COMPONENT):
            continue
        subgroup = names["subgroups"][entry["subgroup"]]
        name = ICON_NAMES.get(label, slug(label))
        if name not in drawn or (group == FLAGS and subgroup != "flag"):
            continue
        found.append(
            Concept(
                id=name,
                hexcode=entry["hexcode"],
                label=label,
                caption=caption(label, entry.get("tags", [])),
                category=names["groups"][group],
                subgroup=subgroup,
                family=family(label, group, subgroup),
            )
        )
    return found


KEYS = ("groups", "subgroups")


def ascii_lower(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()


def slug(label: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"['.]", "", ascii_lower(label))).strip("-")


def words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9#*]+", ascii_lower(text))


def caption(label: str, tags: list[str]) -> str:
    """The label, then the first tags that add a word to it."""
    new = [tag for tag in map(ascii_lower, tags) if words(tag) and not {*words(tag)} & {*words(label)}]
    return ", ".join([ascii_lower(label), *new[:TAGS]])


def family(label: str, group: int, subgroup: str) -> str:
    """The label without the words that only vary a meaning."""
    if subgroup in ("keycap", "time") and ("keycap" in label or "o’clock" in label or "-thirty" in label):
        return subgroup
    if label.startswith("japanese") and label.endswith("button"):
        return "japanese button"
    kept = words(label.replace("facing right", ""))
    if group == PEOPLE:
        kept = [word for word in kept if not PERSON.fullmatch(word)] or ["person"]
    elif kept[-1] in COLOURED:
        kept = [word for word in kept if not COLOUR_SIZE.fullmatch(word)]
    return " ".join(kept)
