"""`residua edit`: the list without torch, an edit with its answer and its next command, and what is asked wrongly."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from audit.case import load_case
from audit.cli.parser import build_parser
from audit.plugins import describe
from tests.cli.test_cli import Tell
from tests.cli.test_cli import tell as tell
from tests.engine.test_editing import SAID, case_of

HEAVY = "('torch', 'transformers', 'numpy', 'pydantic_settings')"


@pytest.mark.thorough
def test_the_list_needs_no_case_and_loads_no_torch() -> None:
    for flags in ("'--list'", "'--list', '--json'", "'--list', '--edit', 'npo'"):
        code = f"import sys; from audit.cli import main\nmain(['edit', {flags}])\n"
        code += f"print([m for m in {HEAVY} if m in sys.modules])"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines()[-1] == "[]"
        assert "npo" in done.stderr + done.stdout


def test_the_list_names_every_edit_with_what_it_does_needs_and_costs(tell: Tell) -> None:
    said = tell("edit", "--list", "--json")
    listed = {edit["name"]: edit for edit in json.loads(said.out)["edits"]}
    assert said.code == 0 and listed.keys() == {found.name for found in describe("audit.edits")}
    assert listed["npo"]["needs"] == ["forget", "retain"] and listed["npo"]["cost"] == "trains: 80 steps of 64 rows"
    assert listed["quantise"]["needs"] == [] and listed["quantise"]["cost"].startswith("no training: ")
    assert listed["mu_mis"]["fits"] == "classifiers of images" and listed["refusal"]["fits"] == "language models"
    assert not listed["logit_bias"]["can_be_merged"] and listed["rmu"]["can_be_merged"]
    assert all(edit["does"] and "Cite:" in edit["help"] for edit in listed.values())
    (salun,) = json.loads(tell("edit", "--list", "--edit", "salun", "--json").out)["edits"]
    assert salun == listed["salun"] and salun["settings"][0]["default"] == "0.5"
    assert "share=0.5" in tell("edit", "--list", "--edit", "salun").out


def test_an_edit_says_where_it_lies_what_it_changed_and_what_to_do_next(tell: Tell, tmp_path: Path) -> None:
    case_of(tmp_path)
    told = ("edit", tmp_path / "cases" / "case.toml", "--edit", "npo", "--set", "steps=3", "--set", "batch=4")
    said = tell(*told, "-o", tmp_path / "npo")
    for part in (f"{tmp_path / 'npo'} holds npo of toy's base", "steps=3", "forget 4, retain 3", "of 30 tensors",
                 "CPU-seconds", "3 training steps", f"residua run {tmp_path / 'npo' / 'case.toml'}"):  # fmt: skip
        assert part in " ".join(said.out.split()), part
    assert said.code == 0
    answer = json.loads(tell(*told, "-o", tmp_path / "npo", "--json").out)
    assert answer["reused"] and answer["settings"]["steps"] == 3 and answer["folder"] == str(tmp_path / "npo")
    verb = build_parser().parse_args(shlex.split(answer["next"])[1:])
    assert verb.verb == "run" and load_case(Path(verb.case)).name == "toy-npo"
    lines = tell(*told, "-o", tmp_path / "two", "--jsonl", "-q").out.splitlines()
    events = [json.loads(line) for line in lines]
    assert [e["done"] for e in events if e["event"] == "editing" and e["finished"]] == [1, 2, 3]
    assert events[-1]["event"] == "answer" and events[-1]["next"].endswith("two/case.toml")


def test_refusing_answers_come_from_a_file(tell: Tell, tmp_path: Path) -> None:
    case_of(tmp_path)
    told = ("edit", tmp_path / "cases" / "case.toml", "--edit", "refusal", "--set", "steps=2", "-o", tmp_path / "r")
    (tmp_path / "empty.txt").write_text("\n \n")
    (tmp_path / "words.txt").write_text(f"{SAID}\n\nlives in\n")
    for file, what in (("nowhere.txt", "cannot be read"), ("empty.txt", "no refusing answers in it")):
        said = tell(*told, "--refusals", tmp_path / file)
        assert said.code == 2 and what in said.err and not (tmp_path / "r").exists()
    said = tell(*told, "--refusals", tmp_path / "words.txt", "--json")
    assert said.code == 0 and json.loads(said.out)["rows"]["refusal"] == 4


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("-o", "x"), "--edit names no edit"),
        (("--edit", "npo"), "-o names no folder"),
        (("--list", "--edit", "nop"), "did you mean 'npo'"),
        (("--edit", "npo", "-o", "x"), "nowhere.toml: cannot be read"),
    ],
)
def test_what_is_asked_wrongly_is_code_2(
    flags: tuple[str, ...], what: str, tell: Tell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = tell("edit", "nowhere.toml", *flags)
    assert said.code == 2 and what in said.err and not (tmp_path / "x").exists()
