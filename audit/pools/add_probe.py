"""Scores of new probes for worlds that other probes have scored: nothing that was measured is measured again.

A world's models are named by content, so that a probe that came later meets the very models of the committed scores.
Its measurements are put where a whole audit would have put them, and the in-case verdict is reached again from all
scores. A world in which any probe has *changed* is not added to: it is scored anew, as a whole.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audit.bench import Bench
from audit.calibration import Score, ScoredModel, WorldScores, read_world, world_path, write_world
from audit.case import OpenCase, open_case
from audit.judging import Given, given
from audit.pools import score_world
from audit.pools.kinds import AnyDrawn, audiences, case_of, census_of, dealt, floors_of, kind_of, write_data
from audit.pools.memory_store import MemoryStore
from audit.pools.panel_file import Assessed
from audit.pools.reassessment import assessed_of, word_of
from audit.pools.score_world import Audited, Places
from audit.pools.stage_costs import Costs
from audit.probing import Probe, recording
from audit.schema import AuditError, ExitCode
from audit.zoo import one_thread

log = logging.getLogger(__name__)


class _NewScores(NamedTuple):
    """What new probes say of one model and of which people, and how long each took."""

    scores: tuple[Score, ...]
    cpu_s: Mapping[str, float]
    panels: dict[str, Assessed]


def addable(path: Path, drawn: AnyDrawn) -> tuple[str, ...]:
    """The probes that this world's file lacks, where its scores by all the others stand as they are; else none.

    None too where there is no file, it is of another recipe, or a probe that scored it has changed or gone.
    """
    scores = _standing(path, drawn)
    return () if scores is None else tuple(name for name in _measuring(drawn) if name not in scores.behaviours)


def lacking(path: Path, drawn: AnyDrawn, names: Sequence[str]) -> tuple[str, ...]:
    """Those of the named probes that this world's file lacks.

    AuditError (code 2) where there is no such probe, or the world cannot be added to.
    """
    unknown = sorted(set(names) - set(_measuring(drawn)))
    if unknown:
        raise AuditError(f"there is no probe {unknown[0]!r}", "`residua probes` lists them")
    scores = _standing(path, drawn)
    if scores is None:
        raise AuditError(
            f"world {drawn.world} cannot be added to: it has no scores, or they are of another recipe, or of a probe "
            "that has changed or gone since",
            "`residua calibrate` without --probe scores it anew, as a whole",
        )
    return tuple(name for name in names if name not in scores.behaviours)


def _standing(path: Path, drawn: AnyDrawn) -> WorldScores | None:
    """The scores of a world of this recipe, if every probe that gave them is as it was."""
    if not path.is_file():
        return None
    scores = read_world(path)
    same = score_world.of_recipe(scores, drawn) and score_world.standing(path) == set(scores.behaviours)
    return scores if same else None


def _measuring(drawn: AnyDrawn) -> dict[str, Probe]:
    return score_world.measuring(drawn.world)


def add_scores(
    drawn: AnyDrawn, places: Places, notify: Callable[[str], None] = log.info, only: Sequence[str] = ()
) -> Path:
    """Measure every model of a scored world by the probes that its file lacks (``only`` these), and write it whole.

    A killed call loses the world it was in and no other. Raises AuditError (code 3) where a probe broke.
    """
    path = world_path(places.scores, drawn.world)
    names, before = lacking(path, drawn, only) if only else addable(path, drawn), read_world(path)
    if only and not names:
        return path
    probes = {name: probe for name, probe in _measuring(drawn).items() if name in names}
    census, work = census_of(drawn), places.work / f"{path.stem}-added"
    costs = Costs(work / "costs.json")
    with one_thread():
        models = tuple(scored.model for scored in before.models)
        folders = score_world.make_models(census, drawn.world, places.models, costs, models)
        write_data(dealt(drawn), work / "data")
        store = MemoryStore(work / "store")
        bench, new_scores, roles = Bench(store=store), dict[str, _NewScores](), Given(0, False, False)
        for audience in audiences(census, [member for member in census.members if member.model in models]):
            for n, member in enumerate(audience.members):
                noun = case_of(member.model, drawn.world, folders, work)
                roles = given(noun)
                new_scores[member.model] = _measured(bench, open_case(noun, work, work / "tables"), probes)
                if not n:
                    store.keep()
                store.forget()
    recorded = score_world.record_behaviours(places.scores, kind_of(drawn.world))
    digests = {name: digest for name, digest in recorded.items() if name in names}
    joined = _joined(before, probes, new_scores, roles)
    audits = [Audited(scored, new_scores[scored.model].panels) for scored in joined.models]
    score_world.keep_panels(places, drawn.world, audits)
    write_world(path, joined.model_copy(update={"behaviours": before.behaviours | digests}))
    shutil.rmtree(work, ignore_errors=True)
    if places.discard:
        score_world.discard(census, folders)
    spent = {name: sum(scored.cpu_s[name] for scored in new_scores.values()) for name in names}
    breakdown = ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items())
    notify(f"world {drawn.world}: {len(new_scores)} models, CPU-s: {breakdown}")
    return path


def _measured(bench: Bench, case: OpenCase, probes: Mapping[str, Probe]) -> _NewScores:
    """As the engine measures: what a user could fix is a skip and leaves no score, integrity stops the world."""
    scores: list[Score] = []
    cpu_s: dict[str, float] = {}
    panels: dict[str, Assessed] = {}
    names = {group: group for group in score_world.forget_groups(case)}
    for name, probe in probes.items():
        since = time.process_time()
        try:
            with recording() as recorded:
                new = [Score.of(measurement, names) for measurement in probe.measure(bench, case)]
            scores += new
            panels |= assessed_of(recorded, new)
        except AuditError as error:
            if error.code == ExitCode.INTEGRITY:
                raise
            log.warning("%s, %s: %s", case.case.name, name, error.what)
        cpu_s[name] = time.process_time() - since
    return _NewScores(tuple(scores), cpu_s, panels)


def _joined(
    before: WorldScores, probes: Mapping[str, Probe], new_scores: Mapping[str, _NewScores], roles: Given
) -> WorldScores:
    """The world's scores with the new ones in the order of a whole audit: probe by probe, by name."""
    floors = floors_of(before.world)
    models: list[ScoredModel] = []
    for scored in before.models:
        scores = sorted((*scored.scores, *new_scores[scored.model].scores), key=lambda score: score.probe)
        models.append(scored.model_copy(update={"scores": tuple(scores), "verdict": word_of(scores, roles, floors)}))
    added = {
        f"audit.{name}": round(sum(scored.cpu_s[name] for scored in new_scores.values()), 2) for name in probes
    }  # fmt: skip
    stages = {**before.stages_cpu_s, **added}
    stages["audit"] = round(before.stages_cpu_s.get("audit", 0.0) + sum(added.values()), 2)
    return before.model_copy(
        update={
            "models": tuple(models), "stages_cpu_s": dict(sorted(stages.items())),
            "versions": before.versions | {name: probe.version for name, probe in probes.items()},
            "settings": before.settings | {name: probe.model_dump(mode="json") for name, probe in probes.items()},
        }
    )  # fmt: skip
