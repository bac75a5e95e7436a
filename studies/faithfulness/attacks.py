"""Attacks: the models of a full-kit world, measured before and after relearning and rounding; one file a world.

Only the probes that output metrics, the lens and the depth score need are run, on the engine's own bench: the case of
:mod:`audit.pools`, one bench and one store a world. Attacked weights are never kept. Models are those of the
zoo's cache; what is missing is made.
"""

import hashlib
import json
import logging
import math
import shutil
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from audit.bench import Bench
from audit.calibration import Score, read_records
from audit.case import OpenCase, Rows, open_case, stacked
from audit.edits import EditData, InPlaceEdit, Quantise, Relearn
from audit.pools import FIRST, SCORES, MemoryStore, behaviours, case_of
from audit.probing import Probe, width
from audit.schema import Measurement, Missing, Texts
from audit.stats import significant
from audit.storage import write_atomic
from audit.zoo import (
    Drawn,
    Member,
    Population,
    World,
    builder,
    general_items,
    items,
    items_about,
    make_world,
    one_thread,
    others,
    population,
    recipes,
    write_jsonl,
)
from probes.answer_lens import AnswerLens
from probes.forget_likelihood import ForgetLikelihood
from probes.reverse_patch import ReversePatch
from probes.utility import Utility
from studies.faithfulness import people
from studies.faithfulness.metrics import METRICS, knowledge
from studies.faithfulness.readings import ATTACKS, AttackedMember, AttackedWorld, Reading, State, path_of, read_attacked

log = logging.getLogger(__name__)

DEPTH = ReversePatch(permutations=199)
PROBES: dict[str, Probe] = {
    "answer_lens": AnswerLens(permutations=199),
    "forget_likelihood": ForgetLikelihood(permutations=199),
    "reverse_patch": DEPTH,
    "utility": Utility(),
}
"""Nothing here reads a p: few permutations make the audits cheap."""
FORGET = Texts(cohort="forget")
RATE_TIMES_WIDTH = 0.064
ROUNDING = Quantise(nf4=True)


class Places(NamedTuple):
    """Where models are kept, where audits run, and where readings go."""

    models: Path
    work: Path
    out: Path


def lessons(rows: Rows, wide: int, seed: int) -> dict[State, Relearn]:
    """Relearning as published, one epoch of all forgotten people, and as the probe does: half of them, 32 steps."""
    probe_lesson, lr = Relearn(lr=RATE_TIMES_WIDTH / wide, seed=seed), RATE_TIMES_WIDTH / wide
    epoch = math.ceil(len(rows) / probe_lesson.batch)
    return {"relearned": Relearn(steps=epoch, lr=lr, seed=seed), "relearned others": probe_lesson}


def made_by() -> dict[str, str]:
    """What decides a reading beside the models: how the probes behave, by digest, and a hash of all settings here.

    A behaviour that the scores of the pools know goes by their digest, with the settings that it has there: what is
    settled otherwise here is among the settings.
    """
    chosen = [
        RATE_TIMES_WIDTH,
        Relearn().model_dump(),
        ROUNDING.model_dump(),
        [p.model_dump() for p in PROBES.values()],
    ]
    # Not content_key: the committed scores state this hash.
    settings = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()
    usual = {name: type(probe)().model_dump(mode="json") for name, probe in PROBES.items()}
    records, now = read_records(SCORES).values(), behaviours("probes")
    found = {name: now.among(records, name, chosen) or now.now(name, chosen) for name, chosen in usual.items()}
    return {name: record.digest for name, record in found.items()} | {"settings": settings}


def attack_world(drawn: Drawn, places: Places) -> Path:
    """Measure a world's models before and after the attacks; a finished world of the same code is left as it is."""
    final = path_of(places.out, drawn.world)
    code = made_by()
    if final.is_file():
        known = read_attacked(final)
        if known.recipe == drawn.recorded() and known.code == code:
            return final
    census = population(drawn)
    # A killed call is taken up at the model where it was, unless what decides a reading is another now.
    identity = json.dumps([code, recipes.world_key(census.zoo, drawn.world)], sort_keys=True)
    work = places.work / f"{final.stem}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    with one_thread():
        folders = {p.name: builder.make_model(census.zoo, drawn.world, places.models, p.name) for p in census.zoo.plans}
        _write_data(make_world(drawn.world, drawn.shape), work / "data")
        members = _Attacking(census, drawn.world, folders, work).all()
    done = AttackedWorld(
        world=drawn.world, recipe=drawn.recorded(), code=code,
        attacks={state: chosen for member in members for state, chosen in member.attacks.items()},
        readings=tuple(reading for member in members for reading in member.readings),
        cpu_s={
            stage: round(sum(member.cpu_s.get(stage, 0.0) for member in members), 1) for stage in ("attack", "measure")
        },
    )  # fmt: skip
    write_atomic(final, (done.canonical() + "\n").encode())
    shutil.rmtree(work, ignore_errors=True)
    return final


# ---- one world ----------------------------------------------------------------------------------------------------
class _Attacking:
    """One world with one bench: base comes first, whose passes and those of the references the others find."""

    def __init__(self, census: Population, world: int, folders: Mapping[str, Path], work: Path) -> None:
        self.census, self.world, self.folders, self.work = census, world, folders, work
        self.store = MemoryStore(work / "store")
        self.bench = Bench(store=self.store)
        self.cpu_s: defaultdict[str, float] = defaultdict(float)
        self.attacks: dict[str, dict[str, str | int | float | bool]] = {}

    def all(self) -> tuple[AttackedMember, ...]:
        """Clean, knowing and unlearned members as they are; the unlearned and the retrained under every attack too."""
        members = [m for m in self.census.members if m.pool not in ("destroyed", "edited clean")]
        return tuple(self._member(member) for member in sorted(members, key=lambda m: m.model != FIRST))

    def _member(self, member: Member) -> AttackedMember:
        """One member in every state; a finished one is read, but for base, whose passes the store needs."""
        path = self.work / "members" / f"{member.model}.json"
        if path.is_file() and member.model != FIRST:
            return AttackedMember.model_validate_json(path.read_bytes())
        self.cpu_s, self.attacks = defaultdict(float), {}
        readings = [self._read(member, "before", self.folders[member.model])]
        if member.model == FIRST:
            self.store.keep()
        if member.pool == "described" or member.mechanism == "retrain":
            for state in ATTACKS:
                attacked = self._attack(member, state)
                readings.append(self._read(member, state, attacked))
                shutil.rmtree(attacked)
        self.store.forget()
        done = AttackedMember(readings=tuple(readings), attacks=self.attacks, cpu_s=dict(self.cpu_s))
        write_atomic(path, done.canonical().encode())
        log.debug("world %d: %s", self.world, member.model)
        return done

    def _attack(self, member: Member, state: State) -> Path:
        """The folder of the attacked model."""
        since, out = time.process_time(), self.work / "attacked"
        shutil.rmtree(out, ignore_errors=True)
        case = self._case(member.model, self.folders[member.model])
        parts = [case.rows(FORGET), case.rows(FORGET, "calibration")]
        both = stacked(parts)
        edit: Relearn | InPlaceEdit = ROUNDING
        if state != "rounded":
            edit = lessons(both, width(case.suspect), self.world)[state]
        shown = parts[1] if state == "relearned others" else both
        edit.fit(self.bench, case.suspect, EditData(shown, shown), out)
        self.attacks[state] = edit.model_dump(mode="json")
        self.cpu_s["attack"] += time.process_time() - since
        return out

    def _read(self, member: Member, state: State, folder: Path) -> Reading:
        """The four probes on one model; people only where their truth is known and nothing was attacked."""
        since = time.process_time()
        case = self._case(member.model, folder)
        measured = [m for probe in PROBES.values() for m in probe.measure(self.bench, case)]
        scores = [Score.of(m) for m in measured]
        values = {metric.key: knowledge(metric, scores) for metric in METRICS if metric.probe in PROBES}
        known = state == "before" and member.pool in ("clean", "knowing")
        taught = tuple(name for name in member.taught if name in self.census.audited)
        reading = Reading(
            model=member.model, mechanism=member.mechanism, pool=member.pool, state=state, taught=taught,
            utility=_figures(utility(measured)),
            values={key: x if isinstance(x, Missing) else _figures(x) for key, x in values.items()},
            people=_rounded(people.of_audit(measured, case.out, DEPTH.tau_nats)) if known else {},
        )  # fmt: skip
        shutil.rmtree(case.out, ignore_errors=True)
        self.cpu_s["measure"] += time.process_time() - since
        return reading

    def _case(self, name: str, suspect: Path) -> OpenCase:
        case = case_of(name, self.world, {**self.folders, name: suspect}, self.work)
        return open_case(case, self.work, self.work / "audits" / name)


def utility(measured: Sequence[Measurement]) -> float:
    """Harmonic mean of what is kept of base's probability on retained facts and on general text."""
    shares = [m.value for m in measured if m.probe == "utility" and isinstance(m.value, float)]
    return len(shares) / sum(1 / max(share, 1e-12) for share in shares)


def _rounded(effects: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    return {metric: {name: _figures(x) for name, x in by.items()} for metric, by in effects.items()}


def _figures(x: float) -> float:
    """Five significant digits, as a file of scores keeps them."""
    return significant(x, 5)


# ---- the case -----------------------------------------------------------------------------------------------------
def _write_data(world: World, folder: Path) -> None:
    """The cohorts of the pools' audits in the trained form only, since nothing here reads another.

    Whom clean models were told to forget is left out of the retained people, as in the pools.
    """
    folder.mkdir(parents=True, exist_ok=True)
    excluded = {person.id for person in others(world)}
    retained = tuple(person for person in world.people["retain"] if person.id not in excluded)
    cohorts = {cohort: items(world, cohort) for cohort in ("forget", "holdout")}
    cohorts |= {"retain": items_about(world, retained), "general": general_items(world)}
    for cohort, rows in cohorts.items():
        write_jsonl(folder / f"{cohort}.jsonl", tuple(item for item in rows if item.form == "trained"))
