"""Labels: a name, an encoder in brackets, a preset."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mia_bench.engine.label import Label

WORD = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)


@given(WORD, st.one_of(st.just(""), WORD, st.just("dino:/some/path.d/x@y")), st.one_of(st.just(""), WORD))
def test_a_label_is_read_as_it_is_written(name, encoder, preset):
    label = Label(name, encoder, preset)
    assert Label.parse(str(label)) == label


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("pia", ("pia", "", "")),
        ("pia@t200", ("pia", "", "t200")),
        ("drc[dino]", ("drc", "dino", "")),
        ("drc[dino:/a/b]@quick", ("drc", "dino:/a/b", "quick")),
        ("drc[dino", ("drc[dino", "", "")),
        ("drc@quick[dino]", ("drc@quick[dino]", "", "")),
        ("pia@", ("pia@", "", "")),
    ],
)
def test_parts(text, parts):
    label = Label.parse(text)
    assert (label.name, label.encoder, label.preset) == parts


def test_the_encoder_is_that_of_the_parameters():
    def attack(asked, **params):
        return SimpleNamespace(params=SimpleNamespace(**params), encoders=lambda: asked)

    assert str(Label("drc", preset="quick").of(attack({"vae": ()}, encoder="vae"))) == "drc[vae]@quick"
    assert str(Label("drc", preset="quick").of(attack({}, encoder="vae"))) == "drc@quick", "it is not asked"
    assert str(Label("pia").of(attack({}))) == "pia"
    assert Label("drc", "vae", "quick").bare == "drc@quick"
