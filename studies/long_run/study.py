"""The long run: ``python -m studies.long_run.study --work DIR --out studies/long_run/results.json``.

Rounds of two audits at once, over one store that is too small for them all, on a disk that is nearly full in some
rounds; workers are killed at random moments and told to take the audit up again, and the store is pruned meanwhile.
What a round does is drawn from the seed and its number alone. The study itself may be killed: it goes on where it was.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import psutil

from audit.planning import RunSettings
from audit.runs import code_version, run_files
from audit.schema import AuditError
from audit.storage import IN_USE, LEDGER, TEMP, Store, write_atomic
from studies.long_run.hired import KILLED, Hired, InHand
from studies.long_run.results import Audit, Results, Round
from studies.long_run.small_disk import SmallDisk, small_disk
from studies.long_run.worker import serve
from studies.provenance import stamp
from studies.speed.sweep import PACKAGE, SUSPECTS, World, timeless, world_in

PROBES: Final = ("answer_lens", "forget_likelihood", "utility")
AUDITS, SEED, LIMIT, DISK = 500, 23, 1_000_000, 64_000_000
"""``LIMIT``: bytes of the store, about half of what all suspects want; ``DISK``: of the disk with store and runs."""
KILL, PRUNE, FILL, ALIKE = 0.35, 0.15, 0.12, 0.3
"""Shares of the rounds: a worker is killed, the store is pruned, the disk is filled, both audit the same suspect."""
LONGEST_S, LOOK_S, FULL_S, LEFT_FREE = 3.0, 0.05, 3.0, 150_000
SETTLED_S = 65.0
"""How long a folder has to lie there to be taken for left over."""


class Place(NamedTuple):
    """Where everything lies: the world with its suspects, the small disk, and what survives the study's own end."""

    work: Path
    world: World
    disk: SmallDisk

    @property
    def store(self) -> Path:
        """The store of all audits."""
        return self.disk.root / "store"

    @property
    def temporary(self) -> Path:
        """The folder for temporary files of all workers."""
        return self.disk.root / "temporary"

    def hired(self, store: str = "store", limit: int = LIMIT) -> Hired:
        """A worker over this store of the disk."""
        case, scratch = self.world.case, self.world.scratch
        words = ["-m", "studies.long_run.study", "--serve", scratch, case, self.disk.root / store, limit]
        path = os.pathsep.join([str(scratch / "packages"), *filter(None, sys.path)])
        environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": path, "TMPDIR": str(self.temporary)}
        return Hired([str(word) for word in words], environment, self.work / "said.log")


class Wishes(NamedTuple):
    """What a round does: its two suspects; whom to kill, and when to kill, prune and fill (seconds from its begin)."""

    suspects: tuple[int, int]
    victim: int
    kill: float | None
    prune: float | None
    fill: float | None


def wishes(seed: int, number: int) -> Wishes:
    """What the round of this number does."""
    rng = np.random.default_rng([seed, number])
    first, second, victim = int(rng.integers(SUSPECTS)), int(rng.integers(SUSPECTS)), int(rng.integers(2))
    when = [float(rng.uniform(0, LONGEST_S)) if rng.random() < share else None for share in (KILL, PRUNE, FILL)]
    return Wishes((first, first if rng.random() < ALIKE else second), victim, *when)


def held(store: Path) -> tuple[int, set[str]]:
    """The bytes of all entries and of what is being written, and the names of the entries."""
    total, names = 0, set[str]()
    for path in store.glob("??/*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size
            names |= {path.name} if path.suffix != TEMP else set()
    return total, names


def perform(place: Place, workers: Sequence[Hired], number: int, seed: int) -> Round:
    """One round, to the end of both its audits."""
    wish = wishes(seed, number)
    hands = [InHand(worker, suspect, place.disk.root / "runs" / f"{number}-{n}")
             for n, (worker, suspect) in enumerate(zip(workers, wish.suspects, strict=True))]  # fmt: skip
    due = {name: when for name in ("kill", "prune", "fill") if (when := getattr(wish, name)) is not None}
    begin, peak, before, evicted, occurred = time.monotonic(), 0, set[str](), False, set[str]()
    while not all(hand.over for hand in hands):
        now = time.monotonic() - begin
        size, names = held(place.store)
        evicted |= bool(before - names) and "prune" not in occurred
        peak, before = max(peak, size), names
        for name in [name for name, when in due.items() if now >= when]:
            if name == "kill" and not hands[wish.victim].over:
                workers[wish.victim].kill()
            elif name == "prune":
                Store(place.store, LIMIT).prune(LIMIT // 4)
            elif name == "fill":
                place.disk.fill(LEFT_FREE)
            occurred.add(name)
            del due[name]
        if "fill" in occurred and (any(hand.refused for hand in hands) or now >= (wish.fill or 0) + FULL_S):
            place.disk.empty()
        for hand in hands:
            hand.look()
        time.sleep(LOOK_S)
    place.disk.empty()
    audits = tuple(_finished(place, hand, 2 * number + n) for n, hand in enumerate(hands))
    return Round(audits=audits, pruned="prune" in occurred, filled="fill" in occurred, peak=peak, evicted=evicted)


def _finished(place: Place, hand: InHand, number: int) -> Audit:
    """Compare the audit with the undisturbed one, note what it left behind, and delete it."""
    problems = [answer for answer in hand.answers if answer != "done" and answer != KILLED and not _of_disk(answer)]
    same = False
    if hand.answers[-1] == "done":
        same = timeless(hand.folder) == timeless(place.work / "undisturbed" / str(hand.suspect))
        left = [p.name for p in hand.folder.rglob("*") if p.name == run_files.LOCK or p.suffix == TEMP]
        problems += [f"left in a finished run: {name}" for name in left]
    shutil.rmtree(hand.folder, ignore_errors=True)
    return Audit(
        number=number, suspect=hand.suspect, killed=hand.answers.count(KILLED), same=same, problems=tuple(problems),
        stopped_by_disk=sum(_of_disk(answer) for answer in hand.answers),
    )  # fmt: skip


def _of_disk(answer: str) -> bool:
    return answer.startswith("refused") and "No space left" in answer


def undisturbed(place: Place) -> None:
    """Every suspect audited once over a store of its own kind that no limit touches; kept beside the rounds."""
    worker = place.hired("undisturbed-store", DISK)
    for suspect in range(SUSPECTS):
        reference = place.work / "undisturbed" / str(suspect)
        if not (reference / run_files.MANIFEST).exists():
            hand = InHand(worker, suspect, place.disk.root / "runs" / f"undisturbed-{suspect}")
            while not hand.over:
                hand.look()
                time.sleep(LOOK_S)
            if hand.answers != ["done"]:
                raise RuntimeError(f"an undisturbed audit fails: {hand.answers}")
            shutil.rmtree(reference, ignore_errors=True)
            shutil.copytree(hand.folder, reference)
            shutil.rmtree(hand.folder)
    worker.leave()
    shutil.rmtree(place.disk.root / "undisturbed-store", ignore_errors=True)


def leftovers(place: Place) -> Iterator[str]:
    """Locks, temporary files and processes that are there after the end."""
    for path in place.store.rglob("*"):
        stray = path.parent.name == IN_USE and path.name != LEDGER
        if stray or path.suffix == TEMP:
            yield f"store: {path.relative_to(place.store)}"
    yield from (f"temporary: {path.name}" for path in place.temporary.iterdir())
    yield from (f"run: {path.name}" for path in (place.disk.root / "runs").iterdir())
    for process in psutil.process_iter(["cmdline"]):
        if process.pid != os.getpid() and str(place.world.scratch) in " ".join(process.info["cmdline"] or []):
            yield f"process: {' '.join(process.info['cmdline'])}"


def settle(place: Place) -> None:
    """One undisturbed round after what was killed last has become old enough to be told from what is being made."""
    time.sleep(SETTLED_S)
    hand = InHand(worker := place.hired(), 0, place.disk.root / "runs" / "settling")
    Store(place.store, LIMIT).prune(0)
    while not hand.over:
        hand.look()
        time.sleep(LOOK_S)
    shutil.rmtree(hand.folder, ignore_errors=True)
    worker.leave()


def long_run(place: Place, audits: int, seed: int) -> list[Round]:
    """All rounds; those that an earlier start of the study finished are not made again."""
    journal = place.work / "rounds.jsonl"
    rounds = [Round.model_validate_json(line) for line in journal.read_text().splitlines()] if journal.exists() else []
    workers = [place.hired(), place.hired()]
    try:
        for number in range(len(rounds), (audits + 1) // 2):
            for stale in (place.disk.root / "runs").iterdir():
                shutil.rmtree(stale)
            rounds.append(perform(place, workers, number, seed))
            with journal.open("a", encoding="utf-8") as file:
                file.write(rounds[-1].model_dump_json() + "\n")
            same = sum(audit.same for each in rounds for audit in each.audits)
            sys.stderr.write(f"\r{2 * len(rounds)} audits, {same} identical ")
    finally:
        for worker in workers:
            worker.leave()
    return rounds


def prepared(work: Path, seed: int) -> World:
    """The world, trained once a work folder, with its suspects and the probes. AuditError (code 2) where the folder was
    begun by other code."""
    scratch, case, begun_by = work / "world", work / "case", work / "code_version"
    if begun_by.exists() and begun_by.read_text() != code_version():
        raise AuditError(f"{work} was begun by other code: its reports are not comparable", "name a new folder")
    write_atomic(begun_by, code_version().encode())
    if not case.exists():
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        world = world_in(scratch, seed, PROBES)
        write_atomic(case, str(world.case).encode())
        return world
    return World(scratch, Path(case.read_text()))


def measured(work: Path, audits: int, seed: int) -> Results:
    """The whole study, or the rest of it."""
    before, wall, world = stamp(seed), time.monotonic(), prepared(work, seed)
    with small_disk(work / "disk", DISK) as disk:
        place = Place(work, world, disk)
        for folder in (place.temporary, place.store, disk.root / "runs"):
            folder.mkdir(exist_ok=True)
        undisturbed(place)
        rounds = long_run(place, audits, seed)
        settle(place)
        left = tuple(leftovers(place))
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    finished = [audit for each in rounds for audit in each.audits]
    return Results(
        stamp=before, command=f"python -m studies.long_run.study --audits {audits}", seed=seed, limit=LIMIT, disk=DISK,
        audits=len(finished), kills=sum(a.killed for a in finished), identical=sum(a.same for a in finished),
        stopped_by_disk=sum(a.stopped_by_disk for a in finished), rounds_with_prune=sum(r.pruned for r in rounds),
        rounds_with_full_disk=sum(r.filled for r in rounds), rounds_with_eviction=sum(r.evicted for r in rounds),
        problems=tuple(problem for a in finished for problem in a.problems), peak=max(r.peak for r in rounds),
        leftovers=left, cpu_s=round(sum(u.ru_utime + u.ru_stime for u in used), 1),
        wall_s=round(time.monotonic() - wall, 1),
    )  # fmt: skip


def main() -> None:
    """Run and write, or serve as one of the workers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, help="folder that keeps what is done, for a study that is killed")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--audits", type=int, default=AUDITS)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--serve", nargs=4, metavar="WORD", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        scratch, case, store, limit = args.serve
        suspects = World(Path(scratch), Path(case)).suspects()
        serve(suspects, RunSettings(package=PACKAGE, store=Path(store), store_limit=int(limit), threads=1))
        return
    work = (args.work or Path(tempfile.mkdtemp(prefix="residua-long-run-"))).absolute()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["RESIDUA_CACHE"] = str(work / "cache")
    results = measured(work, args.audits, args.seed)
    subprocess.run(["umount", str(work / "disk")], check=False)
    if args.out:
        write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())
    sys.stdout.write(f"\n{results.sentence}\n")


if __name__ == "__main__":
    main()
