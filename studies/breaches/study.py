"""Is what an earlier build believed, broke on or waited for refused today? The same inputs, given to both builds.

``python -m studies.breaches.study --before FOLDER`` trains the tiny world, damages its case and a finished run in the
ways of :mod:`studies.breaches.inputs` and :mod:`studies.breaches.tampering`, tries each on FOLDER (a checkout of the
build to compare with: ``git worktree add --detach FOLDER 3552af1``) and on this build, and writes results.json and the
table of the page here.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from audit.schema import Record
from audit.storage import write_atomic
from audit.zoo import build
from studies.breaches.held import HELD, TESTS
from studies.breaches.inputs import HIDDEN, INPUTS, ROLES, SECRET, settings, write_case
from studies.breaches.served import served
from studies.breaches.tampering import ANEW, REISSUE, edit, other_value, plain, resigned, unfinished, unit_of
from studies.pages import with_section
from studies.provenance import Stamp, commit, stamp

HERE: Final = Path(__file__).parent
MARKS: Final = "<!-- table: made by studies.breaches.study -->", "<!-- end of table -->"
QUICK_S, RUN_S = 180, 1200
"""So long may a command take that only looks, and one that audits (wall time of a busy machine)."""
OPENED: Final = """
from pathlib import Path
try:
    from audit.schema import Source
except ImportError:
    from audit.nouns import Source
from audit.checkpoints import resolve
from audit.wrappers import open_wrapper
seen = open_wrapper(resolve(Source(path={path!r}), Path("/"))).model.config._attn_implementation
"""
BELIEVED, CHANGED, PLAIN, REHASHED = (
    "a unit changed between a kill and the resume", "a verdict word changed in a finished run",
    "tampering, hashes left alone", "tampering, hashes made anew",
)  # fmt: skip
NAMES, OBEYED = "the dashboard and foreign names", "_attn_implementation in config.json"


class World(NamedTuple):
    """Folders of models by role, and the folder of the data."""

    models: dict[str, Path]
    data: Path


class Tried(Record):
    """One input on both builds: what each ended with, and the first line of what it said."""

    row: str
    name: str
    before: str
    today: str
    before_said: str = ""
    today_said: str = ""


class Results(Record):
    """Everything that was tried, on which build against which."""

    stamp: Stamp
    before: str
    tried: tuple[Tried, ...]


class Ended(NamedTuple):
    """What one job ended with and all that it said."""

    ended: str
    output: str
    errors: str

    @property
    def line(self) -> str:
        """The first line that says what is wrong; else the last of all."""
        every = [line for line in (self.errors + self.output).splitlines() if line.strip()]
        fault = [line for line in every if line.startswith("residua ") or "REJECTED" in line]
        return (fault or every[-1:] or [""])[0].replace("|", "/")[:200]


class Build(NamedTuple):
    """One build and the folder in which its jobs lie."""

    code: Path
    scratch: Path

    def folder(self, name: str) -> Path:
        """A new place for a job."""
        return self.scratch / "".join(c if c.isalnum() else "-" for c in name)

    def does(self, jobs: Iterable[dict[str, Any]]) -> dict[str, Ended]:
        """What every job ended with, by its name; one that ended the whole process is told by its absence."""
        listed, results = self.scratch / "jobs.json", self.scratch / "results.jsonl"
        listed.write_text(json.dumps(list(jobs)), encoding="utf-8")
        env = {**os.environ, "PYTHONPATH": str(self.code), "RESIDUA_CACHE": str(self.scratch / "cache")}
        words = [sys.executable, "-P", str(HERE / "driver.py"), str(listed), str(results)]
        subprocess.run(words, env=env, cwd=self.scratch, stderr=subprocess.DEVNULL, check=False)
        lines = [json.loads(line) for line in results.read_text(encoding="utf-8").splitlines()]
        scratch = f"{self.scratch}{os.sep}"
        return {x["name"]: Ended(x["ended"], *(x[k].replace(scratch, "") for k in ("said", "told"))) for x in lines}


# ---- jobs -------------------------------------------------------------------------------------------------------
def command(name: str, folder: Path, *words: str, seconds: int = QUICK_S) -> dict[str, Any]:
    """A command of the command line in a folder."""
    return {"name": name, "folder": str(folder), "words": list(words), "seconds": seconds}


def piece(name: str, folder: Path, code: str) -> dict[str, Any]:
    """A piece of code."""
    return {"name": name, "folder": str(folder), "code": code, "seconds": QUICK_S}


def run_words(out: str = "out") -> tuple[str, ...]:
    """How a case is audited here."""
    return "run", "case.toml", "-o", out, "--allow-undecided", "-q", "--json"


def damaged(to: Build, world: World, rows: Sequence[str] = ()) -> dict[str, Ended]:
    """Every damaged case as it ends, or those of some rows alone."""
    jobs: list[dict[str, Any]] = []
    for each in (x for x in INPUTS if not rows or x.row in rows):
        name = f"{each.row}: {each.name}"
        folder = to.folder(name)
        write_case(folder, *world)
        each.damage(folder)
        words = ("plan", "case.toml", "--json") if each.verb == "plan" else run_words()
        jobs.append(command(name, folder, *words, seconds=QUICK_S if each.verb == "plan" else RUN_S))
    if not rows or OBEYED in rows:
        folder = to.folder(OBEYED)
        write_case(folder, *world)
        settings("suspect", "config.json", lambda d: d.update(_attn_implementation="eager"))(folder)
        jobs.append(piece(OBEYED, folder, OPENED.format(path=str(folder / "suspect"))))
    return to.does(jobs)


def finished(to: Build, world: World) -> Path:
    """A finished run of the sound case. RuntimeError where it does not finish."""
    folder = to.folder("finished")
    write_case(folder, *world)
    ended = to.does([command("finished", folder, *run_words(), seconds=3 * RUN_S)])["finished"]
    if ended.ended != "0":
        raise RuntimeError(f"{to.code}: the sound case ended with {ended.ended}: {ended.errors[-2000:]}")
    return folder / "out"


def word_of(run: Path) -> str:
    """The verdict of a run."""
    return str(json.loads((run / "report.json").read_text(encoding="utf-8"))["verdict"]["word"])


def tampered(to: Build, run: Path) -> dict[str, Ended]:
    """Every tampering with a finished run as it ends."""
    word, reissued, jobs = word_of(run), list[dict[str, Any]](), list[dict[str, Any]]()
    for row, kinds in ((PLAIN, plain(word)), (REHASHED, ANEW)):
        for kind, tamper in kinds.items():
            name = f"{row}: {kind}"
            folder = Path(shutil.copytree(run, to.folder(name)))
            tamper(folder)
            if row == REHASHED:
                reissued.append(piece(name, folder, REISSUE.format(folder=str(folder))))
            jobs.append(command(name, folder, "verify", str(folder)))
    to.does(reissued)
    for job in reissued:
        resigned(Path(job["folder"]))
    folder = Path(shutil.copytree(run.parent, to.folder(CHANGED), symlinks=True))
    plain(word)["the verdict's word"](folder / "out")
    for words in (("report", "out"), ("compare", "out", "out"), run_words()):
        jobs.append(command(f"{CHANGED}: {words[0]}", folder, *words))
    folder = to.folder(BELIEVED)
    shutil.copytree(run.parent, folder, symlinks=True, ignore=shutil.ignore_patterns("out"))
    edit(unit_of(unfinished(run, folder / "out")), other_value)
    jobs += [command(f"{BELIEVED}: run", folder, *run_words(), seconds=RUN_S),
             command(f"{BELIEVED}: verify", folder, "verify", "out")]  # fmt: skip
    return to.does(jobs)


# ---- what is made of it -----------------------------------------------------------------------------------------
def shown(name: str, ended: Ended) -> str:
    """How an input ended on a build, as it stands in the table."""
    output, words = ended.output + ended.errors, [f"exit {ended.ended}" if ended.ended.isdecimal() else ended.ended]
    if SECRET.strip() in output:
        words.append(f"quotes {len(output) / 1000:.0f} KB of the data")
    if any(c in ended.errors for c in HIDDEN[:1] + HIDDEN[5:6]):
        words.append("control characters as they are")
    if "wish for code" in name:
        words.append("says so" if any(word in output for word in ("not run", "not followed")) else "no word of it")
    if name == OBEYED:
        return f"opened with {ended.output}"
    if name == f"{BELIEVED}: run" and ended.ended == "0":
        words.append(f"verdict {json.loads(ended.output.splitlines()[-1])['verdict']}")
    return ", ".join(words)


def trained() -> World:
    """The tiny world: a suspect that learned to refuse, and who judges it."""
    zoo = build("tiny", 0)
    names = {role: role for role in ROLES} | {"suspect": "refusal"}
    return World({role: zoo.models[name] for role, name in names.items()}, zoo.cases["base"].parent.parent / "data")


def tries(before: Build, today: Build, rows: Sequence[str]) -> list[Tried]:
    """Everything that is tried, or the inputs of some rows alone, on both builds."""
    world, sides, doors = trained(), list[dict[str, Ended]](), list[str]()
    for to in (before, today):
        to.scratch.mkdir(parents=True)
        if rows:
            sides.append(damaged(to, world, rows))
            continue
        run = finished(to, world)
        sides.append(tampered(to, run) | damaged(to, world))
        seen = served(to.code, run.parent)
        doors.append(f"a foreign name {seen.page}, a foreign page {seen.connection}, "
                     f"asked {', '.join(seen.outside) or 'nobody outside'}")  # fmt: skip
    missing, tried = Ended("no result", "", ""), list[Tried]()
    for name in sides[1]:
        first, second = (side.get(name, missing) for side in sides)
        row, _, kind = name.partition(": ")
        tried.append(Tried(row=row, name=kind, before=shown(name, first), today=shown(name, second),
                           before_said=first.line, today_said=second.line))  # fmt: skip
    return [*tried, *([Tried(row=NAMES, name="", before=doors[0], today=doors[1])] if doors else [])]


def merged(new: list[Tried], rows: Sequence[str]) -> list[Tried]:
    """The new rows in the place of those that the record has of them."""
    if not rows:
        return new
    earlier = Results.model_validate_json((HERE / "results.json").read_bytes()).tried
    at = next((n for n, x in enumerate(earlier) if x.row in rows), len(earlier))
    return [*earlier[:at], *new, *(x for x in earlier[at:] if x.row not in rows)]


def table(results: Results) -> str:
    """The page's table: one line a row of inputs, alike ones counted."""
    lines = [MARKS[0], f"| input | tried | {results.before[:7]} | today | held by |", "|---|---|---|---|---|"]
    for row in dict.fromkeys(x.row for x in results.tried):
        alike = [x for x in results.tried if x.row == row]
        cells = [_counted(alike, side) for side in (lambda x: x.before, lambda x: x.today)]
        lines.append(f"| {row} | {len(alike)} | {cells[0]} | {cells[1]} | {TESTS[row]} |")
    return "\n".join([*lines, *HELD, MARKS[1]])


def _counted(alike: list[Tried], of: Callable[[Tried], str]) -> str:
    """How inputs of a row ended: each outcome with those that ended so, by name where they differ."""
    outcomes: dict[str, list[str]] = {}
    for each in alike:
        outcomes.setdefault(of(each), []).append(each.name)
    if len(outcomes) == 1:
        return next(iter(outcomes))
    most = max(outcomes, key=lambda outcome: len(outcomes[outcome]))
    return "; ".join(
        f"{outcome}: {len(names)}" if outcome == most and len(names) > 3 else f"{outcome}: {', '.join(names)}"
        for outcome, names in outcomes.items()
    )


def main() -> None:
    """Try everything and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--rows", nargs="*", default=[], help="try the inputs of these rows alone, and keep the others")
    args = parser.parse_args()
    begun = stamp(0)
    compared = commit(args.before)
    with tempfile.TemporaryDirectory(prefix="residua-breaches-") as temp:
        sides = {"before": args.before.resolve(), "today": HERE.parents[1]}
        before, today = (Build(code, Path(temp) / name) for name, code in sides.items())
        results = Results(stamp=begun, before=compared, tried=tuple(merged(tries(before, today, args.rows), args.rows)))
    write_atomic(HERE / "results.json", (results.model_dump_json(indent=1) + "\n").encode())
    page = (HERE / "README.md").read_text(encoding="utf-8")
    write_atomic(HERE / "README.md", with_section(page, table(results)).encode())
    sys.stdout.write(table(results) + "\n")


if __name__ == "__main__":
    main()
