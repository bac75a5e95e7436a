"""Scores of new probes for worlds that other probes have scored: nothing that was measured is measured again.

A world's models are named by content, so that a probe that came later meets the very models of the committed scores.
Its measurements are put where a whole audit would have put them, and the in-case verdict is reached again from all
scores. A world in which any probe has *changed* is not added to: it is scored anew, as a whole.
"""

import logging
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from audit.bench import Bench, OpenCase
from audit.bench.opened import open_case
from audit.judging import judge, verdict, zoo_floors
from audit.nouns import AuditError, ExitCode
from audit.planning import configured
from audit.pools import Score, Scored, WorldScores, read_world, world_path, write_world
from audit.rule import Given, given
from probes._probe import Probe
from studies.zoo import scoring
from studies.zoo.members import Drawn, population
from studies.zoo.scoring import FIRST, MemoryStore, Places
from studies.zoo.training import one_thread
from studies.zoo.world import make_world

log = logging.getLogger(__name__)


class _Found(NamedTuple):
    """What new probes say of one model, and how long each took."""

    scores: tuple[Score, ...]
    cpu_s: Mapping[str, float]


def addable(path: Path, drawn: Drawn) -> tuple[str, ...]:
    """The probes that this world's file lacks, where its scores by all the others stand as they are; else none.

    None too where there is no file, it is of another recipe, or a probe that scored it has changed or gone.
    """
    if not path.is_file():
        return ()
    found, now = read_world(path), configured({}, scoring.PROBES)
    lacking = tuple(name for name in now if name not in found.behaviours)
    if not lacking or found.recipe != drawn.recorded() or scoring.standing(path) != set(found.behaviours):
        return ()
    return lacking


def add_scores(drawn: Drawn, places: Places, told: Callable[[str], None] = log.info) -> Path:
    """Measure every model of a scored world by the probes that its file lacks, and write the file whole.

    A killed call loses the world it was in and no other. Raises AuditError (code 3) where a probe broke.
    """
    path = world_path(places.scores, drawn.world)
    names, before = addable(path, drawn), read_world(path)
    probes = {name: probe for name, probe in configured({}, scoring.PROBES).items() if name in names}
    whole, work = population(drawn), places.work / f"{path.stem}-added"
    costs = scoring.Costs(work / "costs.json")
    with one_thread():
        folders = scoring.make_models(whole, drawn.world, places.models, costs)
        scoring.write_data(make_world(drawn.world, drawn.shape), work / "data")
        store = MemoryStore(work / "store")
        bench, found, roles = Bench(store=store), dict[str, _Found](), Given(0, False, False)
        for model in sorted((one.model for one in before.models), key=lambda name: name != FIRST):
            noun = scoring.case_of(model, drawn.world, folders, work)
            roles = given(noun)
            found[model] = _measured(bench, open_case(noun, work, work / "tables"), probes)
            if model == FIRST:
                store.keep()
            store.forget()
    digests = {name: digest for name, digest in scoring.record_behaviours(places.scores).items() if name in names}
    whole_again = _joined(before, probes, found, roles)
    write_world(path, whole_again.model_copy(update={"behaviours": before.behaviours | digests}))
    shutil.rmtree(work, ignore_errors=True)
    if places.discard:
        scoring.discard(whole, folders)
    spent = {name: sum(one.cpu_s[name] for one in found.values()) for name in names}
    said = ", ".join(f"{name} {seconds:.0f}" for name, seconds in spent.items())
    told(f"world {drawn.world}: {len(found)} models, CPU-s: {said}")
    return path


def _measured(bench: Bench, case: OpenCase, probes: Mapping[str, Probe]) -> _Found:
    """As the engine measures: what a user could fix is a skip and leaves no score, integrity stops the world."""
    scores: list[Score] = []
    cpu_s: dict[str, float] = {}
    for name, probe in probes.items():
        since = time.process_time()
        try:
            scores += [Score.of(measurement) for measurement in probe.measure(bench, case)]
        except AuditError as error:
            if error.code == ExitCode.INTEGRITY:
                raise
            log.warning("%s, %s: %s", case.case.name, name, error.what)
        cpu_s[name] = time.process_time() - since
    return _Found(tuple(scores), cpu_s)


def _joined(before: WorldScores, probes: Mapping[str, Probe], found: Mapping[str, _Found], roles: Given) -> WorldScores:
    """The world's scores with the new ones in the order of a whole audit: probe by probe, by name."""
    floors = zoo_floors()
    models: list[Scored] = []
    for one in before.models:
        scores = sorted((*one.scores, *found[one.model].scores), key=lambda score: score.probe)
        evidence = [judge(score.restored(), floors) for score in scores]
        word = verdict(evidence, roles).word
        models.append(one.model_copy(update={"scores": tuple(scores), "verdict": word}))
    added = {
        f"audit.{name}": round(sum(one.cpu_s[name] for one in found.values()), 2) for name in probes
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
