"""What the documentation tells people to type works.

A block ```` ```console ```` is run: lines after `$ ` are commands, one after another in a folder of the page's own that
has what a checkout has; they must end with 0 unless `$ echo $?` follows. Other lines must occur in the output, in that
order: digits may differ, but a share with three decimals (an AUC) by no more than 0.03; `...` stands for more lines, or
for the rest of one. A block with `title="FILE"` is written to that file. `<!-- not run: REASON -->` above a block, and
any other mention of a command, leaves a check that click can parse it.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click
import pytest

from mia_bench.cli import COMMANDS, group, main

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "examples/README.md", *sorted(ROOT.glob("docs/**/*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
BLOCK = re.compile(r"^(<!-- not run: [^\n]+ -->\n)?```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"(?<![\w.])[+-]?\d+(?:[.,]\d+)*")
TOLERANCE = 0.03


@dataclass
class Step:
    """A command and what is shown of its output, or a file and what is in it."""

    command: str
    shown: list[str]
    file: str = ""


def steps(text):
    """What a reader of a page does, in order."""
    for marker, kind, info, body in BLOCK.findall(text):
        if title := re.search(r'title="(.+?)"', info):
            yield Step("", [body], title[1])
        elif kind == "console" and not marker:
            for part in re.split(r"^\$ ", body.replace("\\\n", ""), flags=re.MULTILINE)[1:]:
                command, *shown = part.rstrip().split("\n")
                yield Step(command, [line for line in shown if line.strip() not in ("", "...")])


def same(shown, printed):
    """Whether two lines agree in all but digits and blanks, and shares nearly."""
    shown, rest = re.fullmatch(r"(.*?)( \.\.\.)?", shown).groups()
    printed = re.sub(r" \(\d+:\d\d:\d\d\)$", "", printed)  # pytest's from a minute on
    texts = [" ".join(NUMBER.sub("0", line).split()) for line in (shown, printed)]
    texts = [re.sub(r"\b0 (ms|s)\b", "0 s", text) for text in texts]  # machines differ
    if texts[0] != texts[1] and not (rest and texts[1].startswith(texts[0])):
        return False
    pairs = zip(NUMBER.findall(shown), NUMBER.findall(printed), strict=False)
    return all(abs(float(a) - float(b)) <= TOLERANCE for a, b in pairs if re.fullmatch(r"[01]\.\d{3}", a))


def missing(shown, output):
    """Shown lines that do not follow one another in the output."""
    lines = iter(output.splitlines())
    return [line for line in shown if not any(same(line, printed) for printed in lines)]


@pytest.mark.parametrize("name", [n for n, page in zip(NAMES, PAGES, strict=True) if [*steps(page.read_text("utf-8"))]])
def test_commands_of_a_page_do_what_it_says(name, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "leaderboard.md", tmp_path)
    shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    for variable in ("MIA_BENCH_CACHE", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / ".cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("CI", raising=False)  # where no baseline is recorded
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status, unasked = 0, ""
    for step in steps((ROOT / name).read_text(encoding="utf-8")):
        if step.file:
            Path(step.file).parent.mkdir(parents=True, exist_ok=True)
            Path(step.file).write_text(step.shown[0], encoding="utf-8")
            continue
        if step.command == "echo $?":
            assert [str(status)] == step.shown
            unasked = ""
            continue
        assert not unasked, unasked
        words = shlex.split(step.command)
        if words[0] == "mia-bench" and not {"|", "&&", ">"} & {*words}:
            monkeypatch.setattr(sys, "argv", words)
            with pytest.raises(SystemExit) as ended:
                main()
            status = int(ended.value.code or 0)
            output = "\n".join(capfd.readouterr())
        else:
            done = subprocess.run(
                ["bash", "-c", step.command], capture_output=True, text=True, env={**os.environ, "PATH": path}
            )
            status, output = done.returncode, done.stdout + done.stderr
        assert not missing(step.shown, output), f"$ {step.command}\n{output}"
        unasked = f"$ {step.command}\nended with {status}:\n{output}" if status else ""
    assert not unasked, unasked


@pytest.mark.parametrize("name", NAMES)
def test_no_block_escapes(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    found = [body for _, kind, _, body in BLOCK.findall(text) if kind == "console"]
    assert len(found) == len(re.findall(r"^ *```+ *console", text, re.MULTILINE))
    assert all(body.startswith("$ ") for body in found)
    assert len(re.findall("<!-- *not", text)) == sum(bool(marker) for marker, *_ in BLOCK.findall(text))


def mentioned(text):
    """Every line of a block, or code span, that starts with the command."""
    lines = re.findall(r"^ *(?:\$ )?(?:\w+=\S+ )*(mia-bench .*)$", text.replace("\\\n", ""), re.MULTILINE)
    whole = [re.split(r" (?:&&|\||>|#) ", line)[0] for line in lines]
    return whole, [" ".join(span.split()) for span in re.findall(r"(?<!`)`(mia-bench [^`]+)`(?!`)", text)]


def parse(words):
    context = click.Context(group, info_name="mia-bench")
    command = group.get_command(context, words[0])
    assert command, f"no command {words[0]}"
    return command, context


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_exist(name):
    lines, spans = mentioned((ROOT / name).read_text(encoding="utf-8"))
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        if words[0].startswith("-") or "[OPTIONS]" in words:
            continue
        command, context = parse(words)
        try:
            command.make_context(words[0], words[1:], parent=context)
        except click.ClickException as error:
            pytest.fail(f"{line}: {error.format_message()}")
        except click.exceptions.Exit:  # --help
            pass
    for span in spans:
        words = span.split()[1:]
        if words[0] in COMMANDS or words[0].islower():
            command, context = parse(words)
            known = {name for option in command.params for name in [*option.opts, *option.secondary_opts]}
            given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
            assert given <= known | {"--help", "-h"}, span


def test_the_check_of_output_can_fail():
    assert same("clid  100  0.903 [0.855, 0.937]", "clid   40  0.911 [0.860, 0.930]")
    assert not same("clid  100  0.903", "clid  100  0.803") and not same("clid 1", "pia 1")
    assert not same("clid [0.855, 0.937]", "clid [0.755, 0.937]") and not same("clid 1", "clid 1 more")
    assert same("clid 0.903 ...", "clid 0.904 more") and not same("clid 0.903 ...", "pia 0.904 more")
    assert missing(["b", "a"], "a\nb") == ["a"] and not missing(["a", "c"], "a\nb\nc")


def test_the_check_of_options_can_fail():
    lines, spans = mentioned("```\n$ X=1 mia-bench run --nonsense 3 | cat\n```\nand `mia-bench run\n--no-such`")
    assert lines == ["mia-bench run --nonsense 3"] and spans == ["mia-bench run --no-such"]
    command, context = parse(["run"])
    with pytest.raises(click.ClickException):
        command.make_context("run", ["--nonsense", "3"], parent=context)
