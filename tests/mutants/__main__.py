"""``python -m tests.mutants [room ...]``: a seeded sample of each room's mutants against the tests that reach them.

Results are kept in tests/mutants/results, one file a room, after every mutant; what has a result is not run again.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.mutants import session
from tests.mutants.operators import Mutant, digest, mutated, sample
from tests.mutants.reached import Reach, measure, reach_of
from tests.mutants.results import Results, summary
from tests.mutants.rooms import ROOMS, ROOT, Room
from tests.mutants.swapped import Loaded, held, loaded, swap
from tests.worlds import SHARED

SEED, SIZE, MOST = 23, 60, 60.0
SLACK = 20.0
"""Seconds of processor time beyond four times what the tests take without the change."""
OUTSIDE = ("audit", "probes", "saes", "dashboards", "studies", "tests")


def main() -> None:
    """Runs what has no result yet, prints k of n a room, and ends with 1 where a survivor has no reason."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("rooms", nargs="*", metavar="room", help=f"any of {', '.join(ROOMS)}")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--size", type=int, default=SIZE, help=f"mutants of each room, {SIZE} unless told")
    parser.add_argument("--most", type=float, default=MOST, help="seconds of tests a mutant may ask for")
    parser.add_argument("--survivors", action="store_true", help="run those again that nothing caught")
    parser.add_argument("--tests", nargs="+", help="try these test files of the room only, instead of all of them")
    parser.add_argument("--show", action="store_true", help="run nothing, print what is known")
    asked = parser.parse_args()
    for name in asked.rooms or ROOMS:
        if not asked.show:
            _in_a_copy(name, asked)
    sys.exit(0 if summary(asked.rooms or list(ROOMS)) else 1)


def _in_a_copy(name: str, asked: argparse.Namespace) -> None:
    """One room's sample, in a copy of the tree and in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        scratch, tree = Path(folder) / "scratch", Path(folder) / "tree"
        scratch.mkdir()
        _copied(tree)
        _alone(lambda: Sample(name, tree, scratch, asked).run())


def _alone(work: Any) -> None:
    """Does something in a fork, whose imports are nobody else's business."""
    child = os.fork()
    if not child:
        try:
            work()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(0)
    os.waitpid(child, 0)


def _copied(tree: Path) -> None:
    """A copy of every file that the repository keeps, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True,
                            text=True, check=True).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, tree / name)


class Sample:
    """One room's sample, and the copy of the tree in which its mutants are made.

    Those inside functions are put into one collected session, fork by fork; the others each import the room anew.
    """

    def __init__(self, name: str, tree: Path, scratch: Path, asked: argparse.Namespace) -> None:
        self._name, self._tree, self._scratch, self._asked = name, tree, scratch, asked
        self._room: Room = ROOMS[name]
        self._tests, self._paths = tuple(asked.tests or self._room.tests), self._room.paths(tree)
        self._console = os.dup(1)

    def run(self) -> None:
        """Runs the mutants that have no result. The process that calls it is of no other use afterwards."""
        os.chdir(self._tree)
        sys.path.insert(0, str(self._tree))
        os.environ["PYTHONPATH"] = str(self._tree)
        os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
        os.environ[SHARED] = str(self._scratch / "worlds")  # made by the first run of the tests, there for all forks
        for ours in [module for module in sys.modules if module.partition(".")[0] == "tests"]:
            del sys.modules[ours]
        drawn: list[Mutant] = []
        for mutant in sample(self._tree, self._paths, self._asked.seed):
            drawn.append(mutant)
            if len(drawn) == self._asked.size:
                break
        self._results = Results(self._name, self._room, drawn, vars(self._asked))
        if self._asked.survivors:
            self._results.forget_survivors()
        self._wanted = self._results.missing()
        if self._wanted:
            _alone(self._collected)
            self._results.read()
            self._wanted = self._results.missing()
        if self._wanted:
            self._anew()

    def _collected(self) -> None:
        """One session of the room's tests. What they write goes to a file."""
        with (self._scratch / "output.txt").open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        session.collected(self._tests, self._scratch, self._serve)

    def _serve(self, items: list[pytest.Item]) -> None:
        """With the tests collected: which of them reach what, and then mutant by mutant."""
        paths = {path: str(self._tree / path) for path in self._paths}
        ended = session.in_fork(lambda: measure(items, paths), self._scratch, 1800.0)
        if ended.status or not ended.notes:
            self._say(f"the tests end with {ended.status} on the code as it is")
            return
        (self._scratch / "reach.json").write_text((self._scratch / f"notes-{os.getpid()}.json").read_text())
        reach = reach_of(ended.notes)
        for name in ended.notes["modules"]:
            _import(name)  # what the tests imported on their way, so that no fork has to
        self._say(f"{len(reach.seconds)} of {len(items)} tests pass, in {sum(reach.seconds.values()):.0f} s")
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        by_name = {item.nodeid: item for item in items}
        code = {path: loaded(self._tree / path) for path in self._paths}
        functions = held([self._tree / path for path in self._paths])
        for mutant in self._wanted:
            was, place = code[mutant.path], self._tree / mutant.path
            if was is None:
                continue

            def work(names: list[str], was: Loaded = was, place: Path = place) -> dict[str, Any]:
                if not swap(place, was, functions[place]):
                    return {"swapped": False}
                return {"failed": session.run([by_name[name] for name in names], stop=True).failed}

            self._try(mutant, reach, work)

    def _try(self, mutant: Mutant, reach: Reach, work: Callable[[list[str]], dict[str, Any]]) -> None:
        """One mutant in place of its file, its tests run in a fork that does this work, and the file put back."""
        path = self._tree / mutant.path
        source, stat = path.read_text(encoding="utf-8"), path.stat()
        names = reach.of(mutant.path, mutant.line, source, self._asked.most)
        row: dict[str, Any] = {"tests": len(names), "source": digest(source)}
        if not names:
            self._keep(mutant, {**row, "outcome": "alive", "by": "no test tried runs this line", "seconds": 0.0})
            return
        limit = 4 * sum(reach.seconds[name] for name in names) + SLACK
        path.write_text(mutated(source, mutant.operator, mutant.occurrence), encoding="utf-8")
        try:
            ended = session.in_fork(lambda: work(names), self._scratch, limit)
        finally:
            path.write_text(source, encoding="utf-8")
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # what was compiled from it holds again
        if ended.notes.get("swapped") is False:
            return
        failed = [f"ended by signal {-ended.status}"] if ended.status < 0 else ended.notes.get("failed", ["import"])
        outcome = {"outcome": "caught" if failed else "alive", "by": failed[0] if failed else ""}
        self._keep(mutant, {**row, **outcome, "seconds": ended.seconds})

    def _anew(self) -> None:
        """The mutants of what runs at import: each fork imports the room as it is then, the libraries are there."""
        notes = self._scratch / "reach.json"
        if not notes.is_file():
            return
        with (self._scratch / "output.txt").open("a") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        session.in_fork(lambda: _imported(self._tests, self._scratch), self._scratch, 300.0)
        for name in json.loads((self._scratch / f"notes-{os.getpid()}.json").read_text())["names"]:
            _import(name)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        reach = reach_of(json.loads(notes.read_text()))
        for mutant in self._wanted:
            self._try(mutant, reach, lambda names: _fresh(names, self._scratch))

    def _keep(self, mutant: Mutant, row: dict[str, Any]) -> None:
        self._results.keep(mutant, row)
        self._say(f"{len(self._results.rows)} of {len(self._results.drawn)}: {row['outcome']} {mutant.path}:"
                  f"{mutant.line} {mutant.after}")  # fmt: skip

    def _say(self, text: str) -> None:
        os.write(self._console, f"{self._name}: {text}\n".encode())


def _fresh(names: list[str], scratch: Path) -> dict[str, Any]:
    """In a fork without anything of ours in memory: these tests, collected now."""
    failed = ["import or collection"]

    def serve(items: list[pytest.Item]) -> None:
        by_name = {item.nodeid: item for item in items}
        if by_name.keys() >= set(names):
            failed[:] = session.run([by_name[name] for name in names], stop=True).failed

    session.collected(sorted({name.partition("::")[0] for name in names}), scratch, serve)
    return {"failed": failed}


def _imported(tests: tuple[str, ...], scratch: Path) -> dict[str, Any]:
    """Which libraries the tests of a room import."""
    session.collected(tests, scratch, lambda items: None)
    return {"names": [name for name in sys.modules if name.partition(".")[0] not in OUTSIDE]}


def _import(name: str) -> None:
    try:
        __import__(name)
    except (ImportError, AttributeError, RuntimeError, ValueError):
        return  # a name that only exists within the process that made it


if __name__ == "__main__":
    main()
