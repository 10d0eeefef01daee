"""What `--attacks`, `-k` and `-o` mean."""

import pytest
import tiny

from mia_bench.engine.select import make_params, matches, parse_options, select
from mia_bench.errors import BrokenPluginError, NothingError, UsageError
from mia_bench.plugins import Registry


@pytest.fixture(scope="module")
def installed():
    """What is installed, but five attacks alone: new ones must not change what patterns mean here."""
    made = Registry.load()
    for name in made.attacks.keys() - {"clid", "loss", "mc", "pia", "pian", "blind"}:
        del made.attacks[name]
    return made


def labels(made, *args, **kwargs):
    return [s.label for s in select(made, *args, **kwargs) if not s.control]


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("all", ["clid", "loss", "mc", "pia", "pian"]),
        ("pia", ["pia"]),
        ("pia,loss", ["pia", "loss"]),
        (" pia , loss ,", ["pia", "loss"]),
        ("pia,pia", ["pia"]),
        ("pia@t400", ["pia@t400"]),
        ("pia*", ["pia", "pian"]),
        ("?c", ["mc"]),
        ("[lm]*", ["loss", "mc"]),
        ("pia@*", ["pia@p5", "pia@t200", "pia@t400", "pia@repo-sd"]),
        ("*@t200", ["pia@t200", "pian@t200"]),
        ("all,clid@null", ["clid", "loss", "mc", "pia", "pian", "clid@null"]),
        ("", []),
        ("blind", []),
    ],
)
def test_patterns(installed, pattern, chosen):
    assert labels(installed, pattern) == chosen


def test_controls_always_come_with_attacks(installed):
    controls = [s.label for s in select(installed, "pia") if s.control]
    assert controls == ["blind", "blind@image", "blind@caption", "blind@encoder"]
    assert [s.label for s in select(installed, "blind")] == controls
    assert select(installed, "") == []


def test_a_glob_that_matches_nothing_is_an_error(installed):
    with pytest.raises(NothingError, match="matches no attack"):
        select(installed, "pia,zzz*")


def test_only_what_was_named_must_run(installed):
    named = {s.label: s.named for s in select(installed, "clid*,pia,pia*")}
    assert named["pia"] and not named["clid"] and not named["pian"]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("piaa", "did you mean pia"),
        ("PIA", "unknown attack 'PIA'"),
        ("pia@t40", "did you mean t400"),
        ("pia@", "unknown attack 'pia@'"),
        ("loss@x", "known: none"),
        ("pia,nope", "unknown attack 'nope'"),
    ],
)
def test_unknown_names(installed, pattern, said):
    with pytest.raises(UsageError) as caught:
        select(installed, pattern)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("keyword", "chosen"),
    [
        ("pia", ["pia", "pian"]),
        ("pia and not pian", ["pia"]),
        ("PIAN or mc", ["mc", "pian"]),
        ("not (pia or clid)", ["loss", "mc"]),
        ("error and one", ["loss"]),
        ("caption", ["clid"]),
        ("not not mc", ["mc"]),
        ("nothing-like-it", []),
    ],
)
def test_keywords_read_label_access_and_summary(installed, keyword, chosen):
    assert labels(installed, "all", keyword) == chosen


@pytest.mark.parametrize("bad", ["and", "pia and", "or pia", "(pia", "pia)", "pia mc", "not", "()", " "])
def test_bad_keywords_are_refused(installed, bad):
    with pytest.raises(UsageError, match="not an expression"):
        select(installed, "all", bad)


def test_keyword_precedence():
    text = "a b"
    assert matches("a or x and y", text)
    assert not matches("(a or x) and y", text)
    assert matches("not x and a", text)


def test_option_values_are_json_or_text():
    texts = ["a.x=0.9", "a.y=[1,2]", "a.z=true", "b@p.w=null", "a.name=clip", "a.url=a=b", "a.x=1"]
    assert parse_options(texts) == {
        "a": {"x": 1, "y": [1, 2], "z": True, "name": "clip", "url": "a=b"},
        "b@p": {"w": None},
    }


@pytest.mark.parametrize("bad", ["clid", "clid.alpha", "clid=0.9", ".alpha=1", "clid.=1", "a.b.c=1"])
def test_options_of_another_form_are_refused(bad):
    with pytest.raises(UsageError, match="not of the form"):
        parse_options([bad])


def option(installed, text, pattern="all"):
    return {s.label: s.params for s in select(installed, pattern, options=parse_options([text]))}


def test_options_reach_their_attack(installed):
    assert option(installed, "clid.alpha=0.5")["clid"].alpha == 0.5
    assert option(installed, "mc.t=[1,2]")["mc"].t == (1, 2)
    assert option(installed, "clid.alpha=null")["clid"].alpha is None
    assert option(installed, "clid.reduction=null")["clid"].reduction == "null", "the word, where null means nothing"


def test_a_label_beats_a_name_and_presets_are_frozen(installed):
    options = parse_options(["pia.p=3", "pia@t400.p=2", "pia.t=100"])
    chosen = {s.label: s.params for s in select(installed, "pia,pia@t400,pia@p5", options=options)}
    assert (chosen["pia"].t, chosen["pia"].p) == (100, 3)
    assert (chosen["pia@t400"].t, chosen["pia@t400"].p) == (400, 2)
    assert (chosen["pia@p5"].t, chosen["pia@p5"].p) == (100, 5)


def test_an_option_against_a_preset_is_refused(installed):
    with pytest.raises(UsageError, match="the preset fixes it to 400"):
        select(installed, "pia@t400", options=parse_options(["pia@t400.t=100"]))
    with pytest.raises(UsageError, match="no selected row reads it"):
        select(installed, "pia@t400", options=parse_options(["pia.t=100"]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("clid.alpha=1.5", "less than or equal to 1 (got 1.5)"),
        ("clid.alpha=NaN", "option clid.alpha"),
        ("clid.alpha=high", "valid number (got 'high')"),
        ("clid.alpa=0.5", "did you mean alpha"),
        ("loss.t=1000", "less than or equal to 999"),
        ("loss.t=true", "valid integer"),
        ("loss.t=2.5", "integer"),
        ('loss.t="200"', "valid integer"),
        ("mc.t=[]", "at least 1"),
        ("mc.t=[2000]", "999"),
        ("clid.reduction=clap", "'importance', 'gaussian' or 'null'"),
        ("clidd.alpha=0.5", "did you mean clid"),
    ],
)
def test_bad_options(installed, text, said):
    with pytest.raises(UsageError) as caught:
        option(installed, text)
    assert said in str(caught.value)
    assert caught.value.fix


def test_an_option_for_an_attack_that_does_not_run_is_refused(installed):
    with pytest.raises(UsageError, match="not selected"):
        option(installed, "clid.alpha=0.5", "pia")


def test_a_broken_plugin_fails_a_run_only_when_selected(installed):
    made = tiny.registry()
    made.add("mine", "elsewhere 1.0", "mine", lambda: 1 / 0)
    assert labels(made, "all") == ["clid", "logged", "loss", "pia"]
    with pytest.raises(BrokenPluginError, match="ZeroDivisionError"):
        select(made, "loss,mine")


def test_defaults_by_kind_obey_the_constraints(installed):
    params = make_params(installed.attacks["loss"], "loss", {})
    assert params.resolved("pixel").t == 200
    assert params.resolved("latent").t == 450
    given = make_params(installed.attacks["loss"], "loss", {"loss": {"t": 7}})
    assert given.resolved("latent").t == 7


@pytest.mark.parametrize(
    ("text", "value"),
    [("440,450", (440, 450)), ("440", (440,)), ("[440, 450]", (440, 450)), (" 440 , 450", (440, 450))],
)
def test_a_tuple_is_given_by_commas(installed, text, value):
    cls = installed.attack("clid")
    assert make_params(cls, "clid", parse_options([f"clid.t={text}"])).t == value


@pytest.mark.parametrize("text", ["440,x", "", "440;450", "1000", "440,"])
def test_a_tuple_that_is_none_is_refused(installed, text):
    with pytest.raises(UsageError, match=r"option clid\.t"):
        make_params(installed.attack("clid"), "clid", parse_options([f"clid.t={text}"]))
