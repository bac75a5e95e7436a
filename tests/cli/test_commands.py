"""Every command by discovery: what its file states, what it imports, and that a new one is a file and nothing else."""

import inspect
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.case import case_file
from audit.cli import commands, main
from audit.cli.commands import Command
from audit.cli.parser import build_parser

COMMANDS = commands.discover()
FOLDER = Path(commands.__file__).parent
GREETING = '''"""Greet someone by name."""

from argparse import ArgumentParser, Namespace

from audit.cli.answer import Answer


def add_arguments(parser: ArgumentParser) -> None:
    """Whom."""
    parser.add_argument("name")


def act(args: Namespace) -> Answer:
    """Greet."""
    return Answer({"greeted": args.name}, (f"good morning, {args.name}",), 0)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A second folder of commands, looked at after the first."""
    monkeypatch.setattr(commands, "__path__", [*commands.__path__, str(tmp_path)])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("audit.cli.commands.greet")]:
        del sys.modules[name]


def test_a_file_is_a_command_of_its_name_and_each_has_its_place_in_the_help() -> None:
    files = {path.stem for path in FOLDER.glob("[!_]*.py")}
    assert {command.name for command in COMMANDS} == files and len(COMMANDS) == len(files) > 0
    orders = [command.order for command in COMMANDS]
    assert orders == sorted(set(orders)) and max(orders) < commands.LAST


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_a_command_states_its_help_its_flags_and_what_it_does(
    command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    first = (sys.modules[f"audit.cli.commands.{command.name}"].__doc__ or "").splitlines()[0]
    assert first[0].isupper() and first.endswith(".") and command.about == first[0].lower() + first[1:-1]
    assert inspect.get_annotations(command.add_arguments, eval_str=True) == {"parser": ArgumentParser, "return": None}
    stated = inspect.get_annotations(command.act, eval_str=True)
    assert stated["args"] is Namespace and stated["return"].__name__ == "Answer"
    for words in (["--help"], [command.name, "--help"]):
        with pytest.raises(SystemExit) as left:
            build_parser().parse_args(words)
        assert left.value.code == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert command.name in shown and command.about in shown


def test_a_new_command_is_one_file(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "greet.py").write_text(GREETING)
    (folder / "_shared.py").write_text('"""Shared code."""\n')
    with pytest.raises(SystemExit):
        main(["--help"])
    shown = capsys.readouterr().out
    assert "    greet            greet someone by name\n" in shown and "_shared" not in shown
    assert shown.index("greet ") > shown.index("fingerprint "), "without an ORDER it comes last"
    assert main(["greet", "Ada", "--json"]) == 0
    assert capsys.readouterr().out == '{"greeted": "Ada"}\n'


@pytest.mark.parametrize("verb", ["plan", "run", "forecast"])
def test_a_case_file_is_parsed_once(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The template names folders that are not there, so that the command ends where the case is opened."""
    parse, parsed = case_file._document, list[Path]()

    def counted(path: Path) -> object:
        parsed.append(path)
        return parse(path)

    monkeypatch.setattr(case_file, "_document", counted)
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert main([verb, "-q"]) == 2
    assert "models/base" in capsys.readouterr().err, "the case was opened, with paths from its own folder"
    assert parsed == [Path("case.toml")]


@pytest.mark.parametrize(("verb", "out"), [("run", "runs"), ("report", "copy.md"), ("verify", None)])
def test_a_gate_is_read_before_anything_is_done(
    verb: str, out: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([verb, "nowhere", "--fail-on", "often", *(() if out is None else ("-o", out))]) == 2
    assert "is no gate" in capsys.readouterr().err and not list(tmp_path.iterdir())
