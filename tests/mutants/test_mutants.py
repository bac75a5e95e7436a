"""Mutation testing itself: the same sample for a seed, no annotation changed, a change put in reaches its callers."""

import importlib
import sys
import textwrap
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

pytest.importorskip("cosmic_ray")
pytest.importorskip("coverage")

from tests.mutants import results
from tests.mutants.operators import digest, mutated, sample
from tests.mutants.reached import Reach
from tests.mutants.rooms import ROOT, Room
from tests.mutants.swapped import held, loaded, swap

SOURCE = textwrap.dedent('''
    """A module with a constant, a default and a few functions."""

    from functools import cache

    LIMIT: int | None = 3


    def above(x: int | None, least: int = 2) -> bool | None:
        if x is None:
            return None
        return x > least


    class Counted:
        @property
        def twice(self) -> int:
            return [n * 2 for n in (1, 2)][-1]


    @cache
    def kept(x: int) -> int:
        return x + 1
''')


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "changing.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield importlib.import_module("changing")
    del sys.modules["changing"]


def test_a_seed_draws_the_same_mutants_and_another_one_others(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    one, again, other = (list(sample(tmp_path, ["a.py"], seed)) for seed in (1, 1, 2))
    assert one == again != other and len(one) == len(other) > 8
    assert len({(m.line, m.before, m.after) for m in one}) == len(one)


def test_every_mutant_changes_what_runs_and_no_annotation(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(SOURCE)
    for seed in range(5):
        for m in sample(tmp_path, ["a.py"], seed):
            changed = mutated(SOURCE, m.operator, m.occurrence)
            assert compile(changed, "a.py", "exec") and changed != SOURCE
            assert changed.count("int | None") == 2 and "bool | None" in changed
    with pytest.raises(ValueError, match="no change number"):
        mutated(SOURCE, "core/NumberReplacer", 999)


def test_a_change_reaches_whoever_holds_the_function_and_a_constant_has_to_be_imported(module: ModuleType) -> None:
    path = Path(str(module.__file__))
    above, kept, counted = module.above, module.kept, module.Counted()
    was, functions = loaded(path), held([path])[path]
    assert was is not None and len(functions) >= 3
    for old, new, done in (
        ("x > least", "x < least", True), ("n * 2", "n * 5", True), ("x + 1", "x - 1", True),
        ("LIMIT: int | None = 3", "LIMIT: int | None = 4", False), ("least: int = 2", "least: int = 1", False),
    ):  # fmt: skip
        path.write_text(SOURCE.replace(old, new))
        assert swap(path, was, functions) == done, old
        path.write_text(SOURCE)
        if old == "x > least":
            assert above(1) and not above(3)
        elif old == "n * 2":
            assert counted.twice == 10
        elif old == "x + 1":
            assert kept(1) == 0
    assert module.LIMIT == 3 and loaded(path.with_name("never.py")) is None


def test_a_line_is_tested_by_what_runs_its_statement_and_a_constant_by_what_runs_its_module() -> None:
    lines = {"a.py": {10: ["t1", "t2"], 12: ["t2"], 18: ["t3"]}}
    reach = Reach({"t1": 1.0, "t2": 3.0, "t3": 2.0}, lines)
    at = {line: reach.of("a.py", line, SOURCE, 100.0) for line in (6, 9, 10, 12, 18, 23)}
    everybody = ["t1", "t3", "t2"]
    assert at == {6: everybody, 9: everybody, 10: ["t1", "t2"], 12: ["t2"], 18: ["t3"], 23: []}
    assert reach.of("a.py", 6, SOURCE, 3.5) == ["t1", "t3"] and reach.of("a.py", 12, SOURCE, 0.5) == ["t2"]
    assert reach.of("b.py", 1, SOURCE, 9.0) == []


def test_survivors_are_run_again_and_what_was_caught_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    path = "tests/mutants/rooms.py"
    drawn = list(islice(sample(ROOT, [path], 1), 3))
    source, asked = digest((ROOT / path).read_text(encoding="utf-8")), {"seed": 1, "size": 3, "most": 1.0}

    def reread() -> results.Results:
        return results.Results("a room", Room((), ()), drawn, asked)

    assert reread().missing() == drawn
    found = reread()
    for mutant, outcome, of in zip(drawn, ("caught", "alive", "caught"), (source, source, "another"), strict=True):
        found.keep(mutant, {"outcome": outcome, "source": of, "seconds": 1.0})
    assert reread().missing() == drawn[2:], "a result of a file that was changed since is none"
    found.forget_survivors()
    assert reread().missing() == drawn[1:]
