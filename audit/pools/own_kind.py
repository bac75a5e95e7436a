"""Error rates for one case's own kind of model: worlds of decoys on its own base, scored, counted, and sealed.

``residua calibrate --on case.toml``: decoys are made (or a user's are dealt), asked of base, which must not know them,
and taught to it; every world is audited and kept as one file, so that a killed call goes on; then the calibration is
fitted as any pool's is, bound to the base and the prompt template, and sealed last.
"""

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from audit.calibration import (
    SEAL,
    Bound,
    InstalledBehaviours,
    OwnKind,
    ScoredModel,
    WorldScores,
    own_folder,
    read_records,
    read_world,
    recorded,
    seal,
    world_path,
    write_world,
)
from audit.case import CaseFile, open_case
from audit.planning import RunSettings, Step, Watch, configured, make_bench
from audit.pools import decoy_models
from audit.pools.base_share import between_base_share
from audit.pools.decoy_facts import QUESTIONS, Decoys, DecoySource, decoy_source, decoys, worlds_of
from audit.pools.decoy_models import Pupil, Teaching
from audit.pools.decoy_world import TESTS, DecoyPool, DecoyWorld, sets_of, suspects_of
from audit.pools.fit import Pooled, calibrate, write_all
from audit.pools.renew import Renewed
from audit.pools.stage_costs import Costs
from audit.probing import Recall, behaviour_of, check_recall
from audit.schema import AuditError, ExitCode, Record, content_key
from audit.stats import upper_bound
from audit.storage import exclusive, write_atomic
from audit.wording import number

WORLDS: Final = 19
"""Decoy worlds where neither their number nor a time is asked for: 0 of 19 bounds a rate at 14.6 %."""
LEAST_WORLDS: Final = 3
"""Ratios are checked on worlds that they were not fitted on, and a fit needs two."""
DRAWS_OF_DECOYS: Final = 3
"""How often other decoys are drawn where base recalls some of them."""
RECIPE: Final = 1
"""Counts up where worlds are made otherwise: what was scored before is then scored again."""
PASSES: Final = 400
"""What a world takes, in passes of base over its decoys: teaching, edits and audits together."""
_DONE: Final = "teaching.json"


class OwnRequest(NamedTuple):
    """How many worlds (None: as many as the time gives, else :data:`WORLDS`), within which time (seconds), with whose
    decoys, where unfinished work is kept, how many questions a decoy has, and which tests are calibrated."""

    worlds: int | None = None
    max_time: float | None = None
    decoys: Path | None = None
    work: Path | None = None
    questions: int = QUESTIONS
    tests: tuple[str, ...] = TESTS


class OwnPlan(NamedTuple):
    """What would be made: worlds of so many decoys and questions each, in about so many seconds each."""

    worlds: int
    people: int
    questions: int
    models: int
    seconds: float
    folder: Path

    def lines(self) -> tuple[str, ...]:
        """What so many worlds can support, in words."""
        bound = number(100 * upper_bound(0, self.worlds))
        return (
            f"{self.worlds} decoy worlds, each of {self.people} people with {self.questions} questions in all and of "
            f"about {self.models} audited models; about {number(self.seconds)} s a world, "
            f"{number(self.worlds * self.seconds)} s in all",
            f"{self.worlds} worlds support no likelihood ratio above {self.worlds + 1} (or below 1/{self.worlds + 1}); "
            f"a mistake that none of them shows is bounded at {bound} % (exact, 95 %)",
            f"written to {self.folder}, where every case of this base beside it finds it",
        )


class Prepared(NamedTuple):
    """An opened case, what base recalls of it, where its decoys come from, and what would be made."""

    file: CaseFile
    pupil: Pupil
    recall: Recall
    source: DecoySource
    sets: tuple[Decoys, ...]
    plan: OwnPlan
    settings: RunSettings


class _Taught(Record):
    """How base was found to be taught, kept beside what was made so far."""

    lr: float
    steps: int
    lift: float


def own_tests(added: Sequence[str]) -> tuple[str, ...]:
    """The tests that decoy worlds are scored by, with those that a user adds. AuditError (code 2) for one that is
    none."""
    unknown = sorted(set(added) - set(configured({}, RunSettings().package)))
    if unknown:
        raise AuditError(f"there is no probe {unknown[0]!r}", "`residua probes` lists them")
    return tuple(dict.fromkeys((*TESTS, *added)))


# ---- before anything is made ------------------------------------------------------------------------------------
def prepare_own(file: CaseFile, request: OwnRequest, settings: RunSettings) -> Prepared:
    """Open the case, make decoys that base does not know, and see how many worlds fit. Nothing is trained or written.

    AuditError (code 2): a case that has no questions, decoys that base knows, too few of a user's own, a time that is
    too short for the fewest worlds; code 4 where base does not recall its own forget items.
    """
    case = open_case(file.case, file.root, file.root, online=settings.online)
    settings = replace(settings, store=None).settled([case.base])
    bench = make_bench(settings)
    pupil = Pupil(bench, case)
    found = check_recall(bench, case)
    source = decoy_source(case, request.questions, request.decoys)
    first = decoys(source, 0)
    since = time.monotonic()
    pupil.recalled(pupil.base, pupil.rows(first.forget))
    seconds = PASSES * (time.monotonic() - since)
    worlds = _worlds(request, source, len(case.case.roles.never_trained), seconds)
    count = sets_of(worlds, len(case.case.roles.never_trained))
    bar = (found.base + found.against) / 2
    sets = tuple(_unknown(pupil, source, n, bar) for n in range(count))
    folder = own_folder(file.root, case.base.key)
    people = len({item.group for item in first.forget})
    plan = OwnPlan(worlds, people, len(first.forget), len(suspects_of(1, people)), seconds, folder)
    return Prepared(file, pupil, found, source, sets, plan, settings)


def _worlds(request: OwnRequest, source: DecoySource, references: int, seconds: float) -> int:
    """How many worlds are made. AuditError (code 2) where they are too few to fit a rule."""
    asked = request.worlds or (WORLDS if request.max_time is None else 10**6)
    if asked < LEAST_WORLDS:
        raise AuditError(f"{asked} decoy worlds are too few to fit a rule and to check it on others",
                         f"ask for at least {LEAST_WORLDS}")  # fmt: skip
    if (most := worlds_of(source)) is not None:
        if most < sets_of(LEAST_WORLDS, references):
            raise AuditError(
                f"the decoys are enough for {most} sets of {source.people} groups, and the fewest worlds need "
                f"{sets_of(LEAST_WORLDS, references)}",
                f"give at least {source.people * sets_of(LEAST_WORLDS, references)} groups of decoys",
            )
        asked = min(asked, most)
    if request.max_time is None:
        return asked
    fitting = int(request.max_time / seconds)
    if fitting < LEAST_WORLDS:
        problem = "not even one decoy world fits" if not fitting else f"{fitting} decoy worlds fit, too few for a rule"
        raise AuditError(
            f"{problem}: one takes about {number(seconds)} s here, and --max-time gives {number(request.max_time)} s",
            f"give at least {number(LEAST_WORLDS * seconds)} s, or a machine that is faster",
        )
    return min(asked, fitting)


def _unknown(pupil: Pupil, source: DecoySource, world: int, bar: float) -> Decoys:
    """Decoys of a world that neither base nor the ancestor recalls. AuditError (code 2) where none are found."""
    known: Sequence[str] = ()
    for draw in range(1 if source.stated else DRAWS_OF_DECOYS):
        drawn = decoys(source, world, draw)
        known = decoy_models.recalled_groups(pupil, drawn.forget, bar)
        if not known:
            return drawn
    raise AuditError(
        f"base or its ancestor already knows decoys: {', '.join(known[:3])}{' ...' if len(known) > 3 else ''} (mean "
        f"probability at least {bar:.2f}, half-way to what base gives its own forget items)",
        "leave these groups out of --decoys" if source.stated else "give decoys of your own with --decoys FILE",
    )


# ---- made -------------------------------------------------------------------------------------------------------
def calibrate_own(prepared: Prepared, request: OwnRequest, watch: Watch, command: str) -> Renewed:
    """Make, score and fit the worlds of a plan; finished worlds are found again. The seal is written last.

    AuditError (code 4) where base cannot be taught decoys, (code 3) where a test broke, (code 2) where the time ends
    before the fewest worlds are there; what is finished is kept.
    """
    started, folder = time.monotonic(), prepared.plan.folder
    with exclusive(folder.parent / f".{folder.name}"):
        recipe = _recipe(prepared, request)
        key = content_key(recipe)[:12]
        work = (request.work or folder / "work").resolve() / key
        (work / "models").mkdir(parents=True, exist_ok=True)
        watch(Step("teaching", "decoys", 0, 1))
        pool = DecoyPool(
            prepared.file, prepared.pupil, _teaching(prepared, work), prepared.sets, work, prepared.settings,
            request.tests,
        )  # fmt: skip
        watch(Step("teaching", f"decoys, {pool.teaching.steps} steps", 1, 1, finished=True))
        worlds = _scored(pool, prepared, (recipe, request.max_time, started), watch)
        left_out = tuple(dict.fromkeys(note for n in range(len(worlds)) for note in _notes(worlds[n])))
        fitted = _fitted(prepared, pool, worlds, command, left_out)
        shutil.rmtree(work, ignore_errors=True)
        return fitted


def _recipe(prepared: Prepared, request: OwnRequest) -> dict[str, str | int | float]:
    """Everything that the scores of a world depend on beside its number."""
    case = prepared.pupil.case
    texts = [[item.question, item.answer] for each in prepared.sets for item in (*each.forget, *each.holdout)]
    return {
        "base": case.base.key, "template": content_key(case.case.template.model_dump(mode="json")),
        "data": content_key(dict(case.data_sha256)), "decoys": content_key(texts), "sets": len(prepared.sets),
        "made": RECIPE, "tests": ",".join(request.tests),
        "probes": content_key({name: dict(stated) for name, stated in case.case.probes.items()}),
        "roles": content_key(case.case.roles.model_dump(mode="json")),
    }  # fmt: skip


def _teaching(prepared: Prepared, work: Path) -> Teaching:
    """How this base is taught: found once, and kept beside the first taught model."""
    path = work / _DONE
    if path.is_file() and (work / "models" / "taught-0000").is_dir():
        return Teaching(**_Taught.model_validate_json(path.read_bytes()).model_dump())
    out = work / "models" / "taught-0000"
    shutil.rmtree(out, ignore_errors=True)
    wanted = decoy_models.ENOUGH * (prepared.recall.base - prepared.recall.against)
    teaching = decoy_models.find_teaching(prepared.pupil, prepared.sets[0].forget, wanted, out)
    write_atomic(path, _Taught.model_validate(teaching._asdict()).canonical().encode())
    return teaching


def _scored(
    pool: DecoyPool, prepared: Prepared, limits: tuple[dict[str, str | int | float], float | None, float], watch: Watch
) -> list[WorldScores]:
    """The scores of every world, as far as the time goes."""
    recipe, max_time, started = limits
    folder, planned = prepared.plan.folder / "scores", prepared.plan.worlds
    installed = InstalledBehaviours(pool.settings.package, behaviour_of)
    probes = {n: p for n, p in configured(pool.file.case.probes, pool.settings.package).items() if n in pool.tests}
    digests = {name: recorded(folder, installed, name, p.model_dump(mode="json")) for name, p in probes.items()}
    done: list[WorldScores] = []
    longest = 0.0
    for world in range(planned):
        path = world_path(folder, world)
        if path.is_file() and (before := read_world(path)).recipe == recipe and before.behaviours == digests:
            done.append(before)
            continue
        since = time.monotonic()
        if max_time is not None and done and since - started + longest > max_time:
            break
        watch(Step("world", f"decoy world {world + 1}", world, planned))
        costs = Costs(pool.work / f"costs-{world:04d}.json")
        made = DecoyWorld(pool, world, costs)
        models = made.scored()
        write_world(path, WorldScores(
            world=world, recipe=recipe, models=models, behaviours=digests,
            stages_cpu_s={stage: round(s, 2) for stage, s in sorted(costs.cpu_s.items())},
            versions={name: probe.version for name, probe in probes.items()},
            settings={name: probe.model_dump(mode="json") for name, probe in probes.items()},
        ))  # fmt: skip
        done.append(read_world(path))
        longest = max(longest, time.monotonic() - since)
        watch(Step("world", f"decoy world {world + 1}", world + 1, planned, finished=True))
    if len(done) < LEAST_WORLDS:
        raise AuditError(
            f"the time ended after {len(done)} decoy worlds, and a rule needs {LEAST_WORLDS}",
            "the same command with more time goes on from here", ExitCode.UNDECIDED,
        )  # fmt: skip
    return done


def _notes(world: WorldScores) -> tuple[str, ...]:
    """The fakes that a world lacks, which its architecture does not admit."""
    there = {model.model for model in world.models}
    return tuple(s.mechanism for s in suspects_of(world.world, _people(world.models)) if s.model not in there)


def _people(models: Sequence[ScoredModel]) -> int:
    return models[0].audited


def _fitted(
    prepared: Prepared, pool: DecoyPool, worlds: Sequence[WorldScores], command: str, left_out: tuple[str, ...]
) -> Renewed:
    """The calibration of these worlds, bound to the base and sealed."""
    case, plan = prepared.pupil.case, prepared.plan
    bound = Bound.of(case.base.key, case.case.template)
    own = OwnKind(
        base=bound.base, template=bound.template, people=plan.people, questions=plan.questions,
        steps=pool.teaching.steps, share=between_base_share(), left_out=left_out,
    )  # fmt: skip
    pooled = Pooled(
        f"{case.case.name}'s own kind", command, False, records=read_records(plan.folder / "scores"), own=own
    )
    fitted = calibrate(worlds, pooled)
    (plan.folder / SEAL).unlink(missing_ok=True)
    write_all(plan.folder, fitted)
    seal(plan.folder)
    spent: dict[str, float] = {}
    for world in worlds:
        for stage, cpu_s in world.stages_cpu_s.items():
            spent[stage] = round(spent.get(stage, 0.0) + cpu_s, 1)
    return Renewed(fitted, plan.folder, len(worlds), dict(sorted(spent.items())))
