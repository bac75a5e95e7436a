"""Does any input break the workbench, keep it waiting, or pass without a reason? Mutated files of one sound case.

Inputs are drawn from seeds, evenly over the kinds, and audited in worker processes: one that ends its process or hangs
costs its own input alone. A refusal is exit code 2, 3 or 4 with a message; an acceptance is explained by its kind.

python -m studies.fuzz.study --inputs 500 --seeds 1 2 3 4        # and writes results.json and the page's table
"""

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from threading import Timer
from typing import Any, Final
from unittest.mock import patch

from audit.planning import RunSettings
from audit.runs import printable
from audit.schema import AuditError, Failure, Record
from audit.wording import is_hidden
from studies.fuzz.checkpoint_folders import FOLDER_KINDS
from studies.fuzz.commands import COMMAND_KINDS
from studies.fuzz.documents import CASE_KINDS, document_kinds
from studies.fuzz.mutations import Kind, byte_kinds, file_kinds
from studies.fuzz.tables import TABLE_KINDS
from studies.fuzz.weights import WEIGHT_KINDS
from studies.fuzz.wishes import WISH_KINDS
from studies.fuzz.world import PACKAGE, finish_audit, settings, write_probes, write_world
from studies.pages import with_section
from studies.provenance import Stamp, stamp

HERE: Final = Path(__file__).parent
SECONDS: Final = 120
"""So long may one input take, wall time of a busy machine."""
KINDS: Final[tuple[Kind, ...]] = (
    *byte_kinds(), *file_kinds(), *document_kinds(), *CASE_KINDS, *TABLE_KINDS, *WEIGHT_KINDS, *WISH_KINDS,
    *FOLDER_KINDS, *COMMAND_KINDS,
)  # fmt: skip
BROKE, HANG = "broke", "hang"
START, END = "<!-- counts: made by studies.fuzz.study -->", "<!-- end of counts -->"


class Seen(Record):
    """What became of one input: ``outcome`` is an exit code, broke or hung; ``message`` is what was printed."""

    seed: int
    number: int
    target: str
    kind: str
    outcome: str
    message: str
    seconds: float = 0.0


class Results(Record):
    """What became of all inputs; of those that were refused, counts alone. ``inputs``: of each seed."""

    stamp: Stamp
    seeds: tuple[int, ...]
    inputs: int
    counts: dict[str, dict[str, int]]
    accepted: dict[str, dict[str, int]]
    faults: tuple[Seen, ...]


# ---- one input --------------------------------------------------------------------------------------------------
def kind_of(number: int) -> Kind:
    """The kinds in turn."""
    return KINDS[number % len(KINDS)]


def attempt(seed: int, number: int, world: Path) -> Seen:
    """Audit one mutated copy of the world."""
    kind, started = kind_of(number), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="residua-fuzz-") as temp:
        root = Path(temp) / "case"
        shutil.copytree(world, root)
        rng = random.Random(f"{seed} {number}")
        with as_it_was():
            try:
                kind.act(rng, root)
            except RecursionError:
                outcome, message = "2", "no such input: the document that it would change cannot be written"
            else:
                outcome, message = (
                    _audited(root) if kind.command is None else exit_code_of(root, kind.command(rng, root))
                )
    took = round(time.monotonic() - started, 2)
    return Seen(
        seed=seed,
        number=number,
        target=kind.target,
        kind=kind.name,
        outcome=outcome,
        message=printable(message)[:600],
        seconds=took,
    )


def _audited(root: Path) -> tuple[str, str]:
    """The exit code that ``residua run`` would end with, and what it would say."""
    from audit import engine
    from audit.case import CaseFile
    from audit.review import Gate, exit_code

    try:
        report = engine.guarded(
            "the audit", root.name, lambda: engine.run(CaseFile.read(root / "case.toml"), root / "out", settings(root))
        )
    except AuditError as error:
        return str(error.code), str(error)
    if isinstance(report, Failure):  # what is looked for: an exception that is no sentence of ours
        return BROKE, report.error
    if report.failures:
        return BROKE, f"failed probes: {report.failures[0].error}"
    return str(exit_code(report, Gate(None, None, None, True))), report.verdict.word


def exit_code_of(root: Path, words: Sequence[str]) -> tuple[str, str]:
    """The exit code of ``residua`` with these words within ``root``, and what it printed; its probes are those two."""
    from audit import cli

    output = StringIO()
    os.environ.setdefault("RESIDUA_CACHE", str(root / "cache"))

    class OfThoseTwo:
        """In the place of the settings' class while a command runs."""

        def __new__(cls, **given: Any) -> RunSettings:
            return RunSettings(**{**given, "package": PACKAGE, "calibrations": root / "none"})

    os.chdir(root)
    try:
        with patch("audit.planning.RunSettings", OfThoseTwo), redirect_stdout(output), redirect_stderr(output):
            code: object = cli.main(list(words))
    except SystemExit as stop:  # of argparse
        code = stop.code
    except BaseException as error:  # noqa: BLE001 (what is looked for, a panic among it)
        trace = traceback.extract_tb(error.__traceback__)[-1]
        return BROKE, f"{words}: {type(error).__name__}: {error} ({trace.filename}:{trace.lineno})"
    if hidden := sorted({c for c in output.getvalue() if is_hidden(c) and c != "\n"}):
        return BROKE, f"{words}: printed the hidden characters {hidden}"
    if code not in (0, 1, 2, 3, 4):
        return BROKE, f"{words}: exit code {code}"
    return str(code), f"{words}: {output.getvalue()[-500:]}"


@contextmanager
def as_it_was() -> Generator[None]:
    """Working folder, environment and hooks are put back."""
    folder, environment, hook = Path.cwd(), dict(os.environ), sys.excepthook
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        sys.excepthook = hook


# ---- many -------------------------------------------------------------------------------------------------------
def work(seed: int, numbers: Sequence[int], world: Path) -> None:
    """Attempt inputs and print one line before and one after each."""
    sys.path.insert(0, str(world.parent))
    for number in numbers:
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        sys.stdout.write(attempt(seed, number, world).model_dump_json() + "\n")
        sys.stdout.flush()


def outcomes(seed: int, inputs: int, world: Path) -> Iterator[Seen]:
    """What became of every input of a seed; a worker that ends or hangs is replaced by another."""
    first = 0
    while first < inputs:
        for seen in _worker(seed, range(first, inputs), world):
            first = seen.number + 1
            yield seen


def _worker(seed: int, numbers: range, world: Path) -> Iterator[Seen]:
    command = [sys.executable, "-m", "studies.fuzz.study", "--world", str(world), "--seeds", str(seed),
               "--from", str(numbers.start), "--inputs", str(numbers.stop)]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    number, late = numbers.start, False
    while True:
        timer = Timer(SECONDS, process.kill)
        timer.start()
        line = process.stdout.readline()
        late = not timer.is_alive()
        timer.cancel()
        if line.startswith("{"):
            number += 1
            yield Seen.model_validate_json(line)
        elif not line:
            break
    process.stdout.close()
    process.wait()
    if number < numbers.stop:
        kind = kind_of(number)
        outcome, message = (
            (HANG, f"more than {SECONDS} s") if late else (BROKE, f"the process ended: {process.returncode}")
        )
        yield Seen(seed=seed, number=number, target=kind.target, kind=kind.name, outcome=outcome, message=message)


def tally(seen: Sequence[Seen], seeds: Sequence[int], inputs: int) -> Results:
    """The record of a run. An acceptance without a reason of its kind is a fault too."""
    reasons = {(kind.target, kind.name): kind.harmless for kind in KINDS}
    counts = {target: Counter(s.outcome for s in seen if s.target == target) for target in {s.target for s in seen}}
    accepted: dict[str, dict[str, int]] = {}
    for s in seen:
        if s.outcome in ("0", "1"):
            of_kind = accepted.setdefault(f"{s.target}: {s.kind}", {})
            reason = reasons[s.target, s.kind] or "no reason"
            of_kind[reason] = of_kind.get(reason, 0) + 1
    unexplained = [s for s in seen if s.outcome in ("0", "1") and not reasons[s.target, s.kind]]
    faults = [s for s in seen if s.outcome in (BROKE, HANG)] + unexplained
    return Results(
        stamp=stamp(seeds[0]), seeds=tuple(seeds), inputs=inputs,
        counts={target: dict(sorted(counts[target].items())) for target in sorted(counts)},
        accepted=dict(sorted(accepted.items())), faults=tuple(faults),
    )  # fmt: skip


def table(results: Results) -> str:
    """The counts as a Markdown table, and the acceptances by kind."""
    columns = ("0", "2", "3", "4", BROKE, HANG)
    lines = [
        "| file | inputs | accepted | code 2 | code 3 | code 4 | broke | hung |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for target, counts in results.counts.items():
        cells = [str(counts.get(column, 0)) for column in columns]
        lines.append(f"| {target} | {sum(counts.values())} | {' | '.join(cells)} |")
    total = Counter[str]()
    for counts in results.counts.values():
        total.update(counts)
    cells = [str(total.get(column, 0)) for column in columns]
    lines += [
        f"| all | {sum(total.values())} | {' | '.join(cells)} |",
        "",
        "| accepted | inputs | because |",
        "|---|--:|---|",
    ]
    for name, reasons in results.accepted.items():
        lines += [f"| {name} | {count} | {reason} |" for reason, count in reasons.items()]
    return "\n".join(lines)


def main() -> None:
    """Attempt the inputs of all seeds, and write what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--jobs", type=int, default=1, help="how many seeds at a time")
    parser.add_argument("--from", dest="first", type=int, default=0)
    parser.add_argument("--world", type=Path, help="attempt here, in this world, and print a line for each input")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    if args.world is not None:
        work(args.seeds[0], range(args.first, args.inputs), args.world)
        return
    seen: list[Seen] = []
    with tempfile.TemporaryDirectory(prefix="residua-fuzz-") as temp:
        world = write_world(Path(temp) / "world")
        write_probes(Path(temp) / PACKAGE)
        sys.path.insert(0, temp)
        finish_audit(world)

        def attempted(seed: int) -> None:
            for each in outcomes(seed, args.inputs, world):
                seen.append(each)
                if each.outcome in (BROKE, HANG):
                    sys.stdout.write(f"{each.model_dump_json()}\n")
                    sys.stdout.flush()

        with ThreadPoolExecutor(args.jobs) as pool:
            list(pool.map(attempted, args.seeds))
    args.out.write_text(tally(seen, args.seeds, args.inputs).model_dump_json(indent=1) + "\n", encoding="utf-8")
    results = Results.model_validate_json(args.out.read_bytes())
    sys.stdout.write(table(results) + "\n")
    if args.out == HERE / "results.json":
        page = HERE / "README.md"
        page.write_text(
            with_section(page.read_text(encoding="utf-8"), f"{START}\n{table(results)}\n{END}"), encoding="utf-8"
        )


if __name__ == "__main__":
    main()
