"""Decoy worlds taught as adapters over one resident base, against whole copies taught one by one.

``python -m studies.speed.adapter_stack --out studies/speed/adapter_stack.json``. An invented world is taught to a Llama
of 30 million parameters (8 blocks x 512, vocabulary of the zoo); then sets of decoys are taught to it in both forms, in
turn and in one process, each set until it is recalled as much as calibration asks for. Peak memory is of a process of
its own, beyond what the imports take. The verdicts of worlds in both forms are compared on a smaller Llama.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import fmean
from typing import Final, NamedTuple

import torch

from audit.bench import AdapterStack, LowRankForm
from audit.case import CaseFile
from audit.checkpoints import resolve, tensor_shapes
from audit.planning import RunSettings
from audit.pools import (
    ALPHA,
    ENOUGH,
    RANK,
    Costs,
    DecoyLesson,
    DecoyPool,
    DecoyWorld,
    OwnRequest,
    Prepared,
    TaughtForm,
    Teaching,
    find_teaching,
    prepare_own,
    teach,
)
from audit.schema import Record
from audit.storage import write_atomic
from audit.zoo import general_items, items, make_model, make_world, recipes, write_jsonl
from studies.provenance import Stamp, stamp

LARGE: Final = recipes.Sizes(512, 8, 8, 1728)
SMALL: Final = recipes.Sizes(128, 4, 4, 352)
SHAPE: Final = recipes.Shape(forget=12, retain=16, holdout=8, background=16, general=160, general_held_out=24)
FORMS: Final[tuple[TaughtForm, ...]] = ("full", "adapter")
SETS, WORLDS = 3, 3
_MIB: Final = 2**20


class TeachingRow(Record):
    """One round: so many sets taught in one form; how many steps, by how much each is then recalled more than before
    (mean probability of the keys), and CPU-seconds of one thread."""

    form: str
    sets: int
    steps: int
    lifts: tuple[float, ...]
    wanted: float
    cpu_s: float


class PeakRow(Record):
    """Peak memory of teaching in one form in a process of its own, in MiB beyond its imports; ``resident``: of the base
    once it is open and has run, beyond the imports; ``optimiser``: matrices, gradients and moments of the adapters."""

    form: str
    peak_mib: float
    resident_mib: float
    optimiser_mib: float

    @property
    def times(self) -> float:
        """The peak over base and optimiser."""
        return self.peak_mib / (self.resident_mib + self.optimiser_mib)


class VerdictRow(Record):
    """One suspect of one world of decoys, audited where base was taught in each form: verdicts and effects."""

    world: int
    model: str
    verdicts: Mapping[str, str]
    effects: Mapping[str, Mapping[str, float]]


class Results(Record):
    """What was measured; ``parameters`` of the large model and of the small one, on which verdicts are compared."""

    stamp: Stamp
    command: str
    load_after: float
    parameters: tuple[int, int]
    taught: tuple[TeachingRow, ...] = ()
    peaks: tuple[PeakRow, ...] = ()
    verdicts: tuple[VerdictRow, ...] = ()

    @property
    def times(self) -> float:
        """CPU-seconds of adapters as a share of whole copies', all rounds together."""
        spent = {form: sum(row.cpu_s for row in self.taught if row.form == form) for form in FORMS}
        return spent["adapter"] / spent["full"]


# ---- the world --------------------------------------------------------------------------------------------------
def case_of(
    sizes: recipes.Sizes, folder: Path, steps: tuple[int, int], rates: tuple[float, float], others: int
) -> Path:
    """Train a world's models where they are not there, with so many references; the path of its case."""

    def plan(
        name: str, corpus: recipes.Corpus, parent: str | None, order: int, steps_taken: int | None = None
    ) -> recipes.Plan:
        forked = parent is not None
        return recipes.Plan(
            name, parent, recipes.Learning(corpus, steps_taken or steps[forked], rates[forked], order, 32)
        )

    plans = [plan("ancestor", "language", None, 0), plan("base", "retain+forget", "ancestor", 1),
             plan("suspect", "retain", "base", 9, 1),
             *(plan(f"reference_{k}", "retain", "ancestor", 2 + k) for k in range(others))]  # fmt: skip
    zoo = recipes.Zoo(SHAPE, sizes, tuple(plans), ("suspect",))
    folder.mkdir(parents=True, exist_ok=True)
    at = {each.name: make_model(zoo, 0, folder, each.name) for each in plans}
    world = make_world(0, SHAPE)
    for cohort in ("forget", "retain", "holdout"):
        write_jsonl(folder / f"{cohort}.jsonl", items(world, cohort))
    write_jsonl(folder / "general.jsonl", general_items(world))
    roles = "".join(f'[roles.{role}]\npath = "{at[role].name}"\n' for role in ("base", "suspect", "ancestor"))
    roles += "".join(f'[[roles.references]]\npath = "{at[f"reference_{k}"].name}"\n' for k in range(others))
    data = "".join(f'{cohort} = "{cohort}.jsonl"\n' for cohort in ("forget", "retain", "holdout", "general"))
    (folder / "case.toml").write_text(f'name = "{folder.name}"\n{roles}[data]\n{data}')
    return folder / "case.toml"


def decoys_of(case: Path, form: TaughtForm, worlds: int) -> Prepared:
    """A case's sets of decoys, each unknown to base."""
    return prepare_own(CaseFile.read_unedited(case), OwnRequest(worlds=worlds, form=form), RunSettings(threads=1))


# ---- time -------------------------------------------------------------------------------------------------------
def timed(case: Path, rounds: int, work: Path) -> tuple[TeachingRow, ...]:
    """Rounds of both forms in turn, each of sets of its own."""
    prepared = {form: decoys_of(case, form, SETS * rounds) for form in FORMS}
    return tuple(
        taught(prepared[form], form, range(SETS * n, SETS * (n + 1)), work / form)
        for n in range(rounds)
        for form in (FORMS if n % 2 else FORMS[::-1])
    )


def taught(prepared: Prepared, form: TaughtForm, sets: Sequence[int], work: Path) -> TeachingRow:
    """Teach these sets: the first until it is recalled, the others as long, as a calibration does."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    pupil, wanted = prepared.pupil, ENOUGH * (prepared.recall.base - prepared.recall.against)
    first, *others = sets
    since = time.process_time()
    teaching = find_teaching(pupil, prepared.sets[first].forget, wanted, work / f"{first}", form)
    teach(pupil, [DecoyLesson(prepared.sets[n].forget, work / f"{n}", n) for n in others], teaching)
    cpu_s = time.process_time() - since
    lifts = tuple(round(_lift(prepared, n, work / f"{n}"), 4) for n in sets)
    return TeachingRow(form=form, sets=len(sets), steps=teaching.steps, lifts=lifts, wanted=wanted, cpu_s=cpu_s)


def _lift(prepared: Prepared, n: int, folder: Path) -> float:
    pupil = prepared.pupil
    rows = pupil.rows(prepared.sets[n].forget)
    after = pupil.recalled(resolve(pupil.source(folder), folder), rows)
    return fmean(after.values()) - fmean(pupil.recalled(pupil.base, rows).values())


# ---- memory -----------------------------------------------------------------------------------------------------
def peak_of(case: Path, form: TaughtForm, work: Path) -> PeakRow:
    """Teach some sets for a few steps in this process, and say how high its memory went."""
    import peft  # noqa: F401  # pyright: ignore[reportUnusedImport]

    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    imported = _rss_mib()
    prepared = decoys_of(case, form, WORLDS)
    opened = _rss_mib() - imported
    stack = AdapterStack(prepared.pupil.bench.open(prepared.pupil.base), LowRankForm(RANK, ALPHA, 4), range(SETS))
    optimiser = stack.bytes_of_training() / _MIB
    del stack
    lessons = [DecoyLesson(prepared.sets[n].forget, work / f"{n}", n) for n in range(SETS)]
    teach(prepared.pupil, lessons, Teaching(1e-3, 6, 0.0, form))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - imported
    return PeakRow(form=form, peak_mib=peak, resident_mib=opened, optimiser_mib=optimiser)


def _rss_mib() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def peaks(case: Path, work: Path) -> tuple[PeakRow, ...]:
    """:func:`peak_of` of both forms, each in a fresh interpreter."""
    rows: list[PeakRow] = []
    for form in FORMS:
        words = [sys.executable, "-m", __spec__.name, "--peak-of", form, str(case), "--work", str(work)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{form} ended with {done.returncode}: {done.stderr[-2000:]}")
        rows.append(PeakRow.model_validate_json(done.stdout.splitlines()[-1]))
    return tuple(rows)


# ---- verdicts ---------------------------------------------------------------------------------------------------
class _Audited(NamedTuple):
    verdict: str
    effects: Mapping[str, float]


def verdicts(case: Path, worlds: int, work: Path) -> tuple[VerdictRow, ...]:
    """Audit every suspect of some worlds, made in both forms."""
    by_form: dict[TaughtForm, dict[tuple[int, str], _Audited]] = {}
    for form in FORMS:
        prepared, folder = decoys_of(case, form, max(worlds, WORLDS)), work / form
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "models").mkdir(parents=True)
        wanted = ENOUGH * (prepared.recall.base - prepared.recall.against)
        out = folder / "models" / "taught-0000"
        teaching = find_teaching(prepared.pupil, prepared.sets[0].forget, wanted, out, form)
        pool = DecoyPool(
            prepared.file, prepared.pupil, teaching, prepared.sets, folder, prepared.settings, OwnRequest().tests
        )
        by_form[form] = {
            (world, model.model): _Audited(
                model.verdict, {f"{each.probe}.{each.name}": each.value for each in model.scores}
            )
            for world in range(worlds)
            for model in DecoyWorld(pool, world, Costs(folder / f"costs-{world}.json")).scored()
        }
    both = [key for key in by_form["full"] if key in by_form["adapter"]]
    return tuple(
        VerdictRow(world=world, model=model, verdicts={form: by_form[form][world, model].verdict for form in FORMS},
                   effects={form: by_form[form][world, model].effects for form in FORMS})
        for world, model in both
    )  # fmt: skip


def main() -> None:
    """Everything, or a part; parts that are not asked for stay as the file has them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("studies/speed/adapter_stack.json"))
    parser.add_argument("--work", type=Path, default=Path("runs/adapter_stack"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--worlds", type=int, default=2)
    parser.add_argument("--parts", nargs="+", default=["time", "memory", "verdicts"])
    parser.add_argument("--peak-of", nargs=2)
    given = parser.parse_args()
    torch.set_num_threads(1)
    if given.peak_of:
        form: TaughtForm = given.peak_of[0]
        sys.stdout.write(peak_of(Path(given.peak_of[1]), form, given.work / f"peak-{form}").model_dump_json() + "\n")
        return
    work: Path = given.work.resolve()
    large = case_of(LARGE, work / "large", (100, 100), (8e-4, 6e-4), 0)
    small = case_of(SMALL, work / "small", (200, 160), (3e-3, 2e-3), 1)
    rows: dict[str, tuple[Record, ...]] = {}
    if given.out.is_file():
        present = Results.model_validate_json(given.out.read_bytes())
        rows = {"taught": present.taught, "peaks": present.peaks, "verdicts": present.verdicts}
    command = f"python -m studies.speed.adapter_stack --parts {' '.join(given.parts)} --rounds {given.rounds}"
    state = stamp(0)

    def write_part(part: str, part_rows: tuple[Record, ...]) -> None:
        rows[part] = part_rows
        results = Results.model_validate({
            "stamp": state, "command": command, "load_after": os.getloadavg()[0],
            "parameters": (_parameters(large), _parameters(small)), **rows,
        })  # fmt: skip
        write_atomic(given.out, (results.model_dump_json(indent=1) + "\n").encode())

    if "time" in given.parts:
        write_part("taught", timed(large, given.rounds, work / "taught"))
    if "memory" in given.parts:
        write_part("peaks", peaks(large, work))
    if "verdicts" in given.parts:
        write_part("verdicts", verdicts(small, given.worlds, work / "verdicts"))


def _parameters(case: Path) -> int:
    shapes = tensor_shapes(case.parent / CaseFile.read_unedited(case).case.roles.base.path)
    return sum(prod(shape) for shape in shapes.values())


if __name__ == "__main__":
    main()
