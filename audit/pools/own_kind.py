"""Error rates for one case's own kind of model: worlds of decoys on its own base, scored, counted, and sealed.

``residua calibrate --on case.toml``: base is taught decoys that it does not know; every world is audited and kept as
one file, so that a killed call goes on; then the calibration is fitted as any pool's is, bound to the base and the
prompt template, and sealed last.
"""

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from audit.calibration import (
    SEAL,
    Bound,
    InstalledBehaviours,
    OwnKind,
    ScoredModel,
    WorldScores,
    read_records,
    read_world,
    recorded,
    seal,
    world_path,
    write_world,
)
from audit.planning import Step, Watch, configured
from audit.pools.decoy_plan import LEAST_WORLDS, OwnRequest, Prepared
from audit.pools.decoy_teaching import ENOUGH, TaughtForm, Teaching, find_teaching
from audit.pools.decoy_world import DecoyPool, DecoyWorld, suspects_of
from audit.pools.fit import Pooled, calibrate, write_all
from audit.pools.renew import Renewed
from audit.pools.stage_costs import Costs
from audit.pools.zoo_variance import between_base_share
from audit.probing import behaviour_of
from audit.schema import AuditError, ExitCode, Record, content_key
from audit.storage import exclusive, write_atomic

RECIPE: Final = 3
"""Counts up where worlds are made otherwise: what was scored before is then scored again."""
_DONE: Final = "teaching.json"


class _Taught(Record):
    """How base was found to be taught, kept beside what was made so far."""

    lr: float
    steps: int
    lift: float
    form: TaughtForm = "full"


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
        if not any(work.parent.iterdir()):
            work.parent.rmdir()
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
        **({} if prepared.plan.form == "full" else {"form": prepared.plan.form}),
    }  # fmt: skip


def _teaching(prepared: Prepared, work: Path) -> Teaching:
    """How this base is taught: found once, and kept beside the first taught model."""
    path = work / _DONE
    if path.is_file() and (work / "models" / "taught-0000").is_dir():
        return Teaching(**_Taught.model_validate_json(path.read_bytes()).model_dump())
    out = work / "models" / "taught-0000"
    shutil.rmtree(out, ignore_errors=True)
    wanted = ENOUGH * (prepared.recall.base - prepared.recall.against)
    teaching = find_teaching(prepared.pupil, prepared.sets[0].forget, wanted, out, prepared.plan.form)
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
        current = DecoyWorld(pool, world, costs)
        models = current.scored()
        write_world(path, WorldScores(
            world=world, recipe=recipe, models=models, behaviours=digests,
            stages_cpu_s={stage: round(s, 2) for stage, s in sorted(costs.cpu_s.items())},
            versions={name: probe.version for name, probe in probes.items()},
            settings={name: probe.model_dump(mode="json") for name, probe in probes.items()},
        ))  # fmt: skip
        done.append(read_world(path))
        pool.release(world)
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
    present = {model.model for model in world.models}
    return tuple(s.mechanism for s in suspects_of(world.world, _people(world.models)) if s.model not in present)


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
