"""The page of the attacks: all that the metadata say, and nothing that a name or docstring could smuggle in."""

import re

import pytest
import tiny

from mia_bench.attack import Attack, Control, by_kind
from mia_bench.plugins import Registry
from mia_bench.report.markdown import code, fenced, markdown, paper_link, prose
from mia_bench.report.reference import attack_section, attacks_page

ATTACKS = Registry.load().attacks


def test_every_attack_has_a_row_and_a_section_and_controls_come_last():
    page = attacks_page(Registry.load())
    heads = re.findall(r"^## (.*)$", page, re.MULTILINE)
    rows = re.findall(r"^\| \[`(.*?)`\]\(#(.*?)\)( \(control\))?", page, re.MULTILINE)
    assert heads == [name for name, _, _ in rows] and set(heads) == set(ATTACKS)
    assert all(name == anchor and bool(control) == issubclass(ATTACKS[name], Control) for name, anchor, control in rows)
    assert [bool(control) for *_, control in rows] == sorted(bool(control) for *_, control in rows)


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_a_section_says_all_there_is_to_know(name):
    cls = ATTACKS[name]
    section, meta = attack_section(cls), cls.meta
    assert cls.meta.equation and f"\n{meta.equation}\n" in section
    for text in (prose(meta.citation), f"- captions: {meta.caption}", f"- calibration set: {meta.calibration}"):
        assert text in section
    assert paper_link(meta.paper) in section and "](https://" in paper_link(meta.paper)
    for label in [name, *(f"{name}@{preset}" for preset in cls.presets)]:
        assert f"| `{label}` |" in section
    for parameter in cls.Params.model_fields:
        row = next(line for line in section.splitlines() if line.startswith(f"| `{parameter}` |"))
        assert row.strip("| ").count("|") - row.count(r"\|") == 4 and not row.endswith("|  |"), "documented"
    assert all(prose(fault) in section for fault in meta.faults)


def test_queries_are_given_for_each_preset_and_kind_of_target():
    class Walk(tiny.Logged):
        meta = tiny.Logged.meta.model_copy(update={"name": "walk"})
        presets = {"long": {"steps": 9}}

        class Params(Attack.Params):
            """Parameters.

            Attributes:
                steps: How many.
            """

            steps: int = by_kind(pixel=2, latent=3)

        def queries(self):
            return self.params.steps

    section = attack_section(Walk)
    assert "| `walk` | defaults | 2 (pixel), 3 (latent) |" in section
    assert "| `walk@long` | `steps=9` | 9 |" in section
    assert "| `steps` | int | `2 (pixel), 3 (latent)` | measure | How many. |" in section


def test_what_strangers_write_is_shown_and_does_nothing():
    class Hostile(tiny.Logged):
        """<script>x</script> [a](http://b) | `kept` \x1b[1m *bold*

        - no list

        1. no list
        """

        meta = tiny.Logged.meta.model_copy(
            update={
                "name": "hostile",
                "summary": "a | b <img src=x> \n# head",
                "paper": "arXiv:2305.18355) [x](http://y",
                "equation": "x\n```\n# out",
                "faults": ("<b> `a|b` ~~no~~ $x$ &lt;",),
            }
        )

    section = attack_section(Hostile)
    assert r"\<script\>x\</script\> \[a\](http://b) \| `kept`" in section and "\x1b" not in section
    assert "\n\\- no list\n" in section and "\n1\\. no list\n" in section
    assert "````text\nx\n```\n# out\n````" in section
    assert r"arXiv:2305.18355) \[x\](http://y" in section and "](http" not in section.replace(r"\]", "")
    assert r"- \<b\> `a\|b` \~\~no\~\~ \$x\$ \&lt;" in section
    made = tiny.registry(tiny.plugin([Hostile]))
    row = next(line for line in attacks_page(made).splitlines() if line.startswith("| [`hostile`]"))
    assert row.endswith(r"| a \| b \<img src=x\>  \# head |")


def test_papers_are_links_where_their_address_is_known():
    assert paper_link("arXiv:2305.18355") == "[arXiv:2305.18355](https://arxiv.org/abs/2305.18355)"
    assert paper_link("openreview:vwOq7twk7L") == "[openreview:vwOq7twk7L](https://openreview.net/forum?id=vwOq7twk7L)"
    assert paper_link("doi:10.1145/3576915.3616652").endswith("](https://doi.org/10.1145/3576915.3616652)")
    assert paper_link("none") == "none"


@pytest.mark.parametrize(
    ("text", "shown"), [("a", "`a`"), ("a`b", "`` a`b ``"), ("``", "``` `` ```"), ("a|b", r"`a\|b`"), ("a\nb", "`a b`")]
)
def test_code_spans_hold_any_text(text, shown):
    assert code(text) == shown


def test_a_backtick_alone_opens_nothing():
    assert prose("a ` b") == r"a \` b"
    assert fenced(" x ") == "```text\nx\n```"
    assert markdown("2. x-y - z") == r"2\. x-y - z"
