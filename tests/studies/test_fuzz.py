"""Mutated inputs are refused in a sentence or audited for a reason; a sample here, many in the study."""

import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from studies.fuzz import study
from studies.fuzz.commands import options
from studies.fuzz.study import BROKE, KINDS, Seen, attempt, kind_of, outcomes, table, tally
from studies.fuzz.world import DONE, PACKAGE, finish_audit, write_probes, write_world
from tests import worlds


def _write(folder: Path) -> None:
    (folder / "world").mkdir()
    write_world(folder / "world")
    write_probes(folder / PACKAGE)
    sys.path.insert(0, str(folder))
    finish_audit(folder / "world")
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def world() -> Iterator[Path]:
    root = worlds.made_once("fuzz", _write)
    sys.path.insert(0, str(root))
    yield root / "world"
    sys.path.remove(str(root))


@pytest.fixture(autouse=True)
def _seldom_audited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sample that is not slow is opened and planned with all its checks, and not run."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setattr(study, "_audited", _opened)


def _opened(root: Path) -> tuple[str, str]:
    from audit.case import CaseFile, open_case
    from audit.schema import AuditError

    try:
        file = CaseFile.read(root / "case.toml")
        open_case(file.case, file.root, root / "out")
    except AuditError as error:
        return str(error.code), str(error)
    return "0", "opened"


FEW = random.Random(7).sample(range(len(KINDS)), 36)


@pytest.mark.sampled
@pytest.mark.parametrize("number", FEW, ids=lambda n: f"{kind_of(n).target}: {kind_of(n).name}")
def test_a_mutated_input_is_refused_in_a_sentence_or_opened(world: Path, number: int) -> None:
    seen = attempt(11, number, world)
    assert seen.outcome in ("0", "1", "2", "3", "4")
    if seen.target == "command":
        assert seen.message.partition("): ")[2].strip()
    else:
        assert seen.outcome == "0" or "what to do: " in seen.message or "no such input" in seen.message


def test_the_sound_case_is_opened(world: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(world, tmp_path / "case"))
    assert _opened(root) == ("0", "opened")


@pytest.mark.thorough
def test_the_same_seed_and_number_make_the_same_input(world: Path, tmp_path: Path) -> None:
    for number in range(0, len(KINDS), 9):
        copies = [Path(shutil.copytree(world, tmp_path / f"{number}-{n}")) for n in range(2)]
        for root in copies:
            kind_of(number).act(random.Random(f"3 {number}"), root)
        first, second = ({p.relative_to(root): p.lstat().st_size for p in root.rglob("*")} for root in copies)
        assert first.keys() == second.keys()
        assert {p: n for p, n in first.items() if p.suffix == ".jsonl"} == {
            p: n for p, n in second.items() if p.suffix == ".jsonl"
        }


def test_an_exception_that_is_no_sentence_of_ours_is_counted_as_a_break(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    from audit import engine

    def broken(*_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr(engine, "run", broken)
    at = next(n for n in range(len(KINDS)) if kind_of(n).name == "byte-order mark" and kind_of(n).target == "data")
    seen = attempt(1, at, world)
    assert seen.outcome == BROKE and seen.message.startswith("KeyError: 'x'")


def _ends_with(monkeypatch: pytest.MonkeyPatch, root: Path, act: Callable[[], int]) -> str:
    """What becomes of a command that does this."""
    from audit import cli

    with monkeypatch.context() as patched:
        patched.setattr(cli, "main", lambda _words: act())
        with study.as_it_was():
            return study.exit_code_of(root, ("report",))[0]


def _raise(error: BaseException) -> int:
    raise error


def test_a_command_is_said_within_the_copy_and_leaves_folder_and_environment_as_they_were(
    world: Path, tmp_path: Path
) -> None:
    root, before, folder = Path(shutil.copytree(world, tmp_path / "case")), dict(os.environ), Path.cwd()
    with study.as_it_was():
        code, message = study.exit_code_of(root, ("report", DONE))
        os.environ["RESIDUA_CACHE"] = "elsewhere"
    assert code == "0" and "0 failed" in message
    assert (dict(os.environ), Path.cwd()) == (before, folder)


def test_a_command_that_raises_prints_what_is_hidden_or_ends_with_an_unknown_code_is_counted_as_a_break(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _ends_with(monkeypatch, tmp_path, lambda: 3) == "3"
    assert _ends_with(monkeypatch, tmp_path, lambda: _raise(SystemExit(2))) == "2"
    assert _ends_with(monkeypatch, tmp_path, lambda: 7) == BROKE
    assert _ends_with(monkeypatch, tmp_path, lambda: _raise(KeyError("x"))) == BROKE
    assert _ends_with(monkeypatch, tmp_path, lambda: sys.stderr.write("\x1b[31m") and 2) == BROKE


def test_every_option_with_a_value_is_tried_but_of_commands_that_train_or_wait() -> None:
    tried = options()
    assert {("run", "--max-mem"), ("verify", "--signed-by"), ("init", "--data"), ("report", "--prior-odds")} <= {*tried}
    assert not {verb for verb, _ in tried} & {"demo", "calibrate", "dashboard", "sweep"}


def test_an_acceptance_without_a_reason_of_its_kind_is_a_fault() -> None:
    unexplained = next(kind for kind in KINDS if not kind.harmless)
    explained = next(kind for kind in KINDS if kind.harmless)
    seen = [
        Seen(seed=1, number=n, target=kind.target, kind=kind.name, outcome="0", message="")
        for n, kind in enumerate((unexplained, explained))
    ]
    results = tally(seen, (1,), 2)
    assert [fault.kind for fault in results.faults] == [unexplained.name]
    assert explained.harmless in table(results) and "| all | 2 | 2 |" in table(results)


@pytest.mark.slow
def test_a_sample_of_inputs_neither_breaks_nor_hangs(world: Path) -> None:
    seen = list(outcomes(random.Random(5).randrange(10**6), 2 * len(KINDS), world))
    assert len(seen) == 2 * len(KINDS)
    assert [each for each in seen if each.outcome not in ("0", "1", "2", "3", "4")] == []
    assert tally(seen, (5,), len(seen)).faults == ()


def test_half_a_character_of_a_message_stands_in_the_record_as_the_command_prints_it(
    world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "_audited", lambda root: ("2", "half \ud800"))
    seen = attempt(1, 0, world)
    assert Seen.model_validate_json(seen.model_dump_json()).message == "half ‹U+D800›"
