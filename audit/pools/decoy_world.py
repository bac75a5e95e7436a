"""One world of decoys: who is audited in it, what each of them knows by how it was made, and what the audit says.

World n is about the decoys of set n. Base is the case's base taught that set; the case's own base, which never knew
them, is its ancestor, and bases that were taught other sets are its references. Audited are fakes that hide what they
hold, one that was taught half of the set, bases that were taught another set (and such ones made to forget *that*, or
made to forget what they never knew), and in some worlds a destroyed one. Whoever was taught a set is shared by the
worlds that need it.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from audit.bench import Bench
from audit.calibration import Content, Score, ScoredModel
from audit.case import CaseFile, OpenCase, moved, open_case
from audit.checkpoints import resolve
from audit.edits import Choice, EditData, edit_data
from audit.engine import Run, domain_of, prepare
from audit.planning import Dropped, Planner, Pricer, RunSettings, configured, unwatched
from audit.pools import decoy_models, decoy_teaching
from audit.pools.decoy_facts import Decoys
from audit.pools.decoy_models import Pupil
from audit.pools.decoy_teaching import DecoyLesson, Teaching
from audit.pools.memory_store import MemoryStore
from audit.pools.stage_costs import Costs
from audit.probing import recall
from audit.runs import code_version
from audit.schema import AuditError, Case, DataFiles, ExitCode, Item, Roles, Texts, TruthLabel
from audit.zoo import write_jsonl

log = logging.getLogger(__name__)
FAKES: Final = ("head_edit", "last_layer", "logit_bias")
"""All but one a world, in turn."""
UNLEARNERS: Final = ("grad_diff", "npo", "simnpo", "refusal", "kl_min", "random_label")
"""One a set, in turn."""
DESTROYER = "destroyed"
REFERENCE: Final = "reference"
"""A model that never knew any decoys and was not taught from base either: one of the case's own references, in turn. It
is as far from base as the case's honest suspects are, as what was taught from base is not."""
EVERY: Final = 4
"""A destroyed model is audited in every so many-th world."""
TESTS: Final = (
    "answer_lens", "cross_sequence", "forget_likelihood", "reverse_patch", "utility",
)  # fmt: skip
"""What decoy worlds are scored by, unless more is asked for: the output, two decoders and a causal test, none of which
trains."""


class DecoySuspect(NamedTuple):
    """One audited model of a world: what was done to it, its truth, and how many of the world's groups it was
    taught."""

    model: str
    mechanism: str
    pool: TruthLabel
    taught: int
    content: Content = "same"


class DecoyPool(NamedTuple):
    """What all worlds share: the case as a file, whose base is taught, how, which sets of decoys there are, where
    models lie, by which settings audits are made, and which tests score."""

    file: CaseFile
    pupil: Pupil
    teaching: Teaching
    sets: Sequence[Decoys]
    work: Path
    settings: RunSettings
    tests: Sequence[str]

    @property
    def references(self) -> int:
        """How many references of the same ancestor the case has, and so every world."""
        return len(self.file.case.roles.never_trained)

    @property
    def case_references(self) -> tuple[Path, ...]:
        """The case's own references that are whole checkpoints in folders: see :func:`case_references`."""
        return case_references(self.file, self.work)

    def suspects(self, world: int, people: int) -> tuple[DecoySuspect, ...]:
        """Whom the audit of a world is asked about, with such references where the case has some."""
        return suspects_of(world, people, bool(self.case_references))

    def taught(self, n: int) -> Path:
        """The base that was taught set n (counted round), made where it is not there."""
        n %= len(self.sets)
        out = self._taught_at(n)
        if not out.is_dir():
            count = decoy_teaching.TOGETHER if self.teaching.form == "adapter" else 1
            lessons = [
                DecoyLesson(each.forget, self._taught_at(k), k) for k, each in list(enumerate(self.sets))[n : n + count]
            ]
            decoy_teaching.teach(self.pupil, lessons, self.teaching)
        return out

    def _taught_at(self, n: int) -> Path:
        return self.work / "models" / f"taught-{n:04d}"

    def release(self, world: int) -> None:
        """Delete the base that was taught a finished world's set, unless the last worlds will come round to it."""
        if world >= self.first:
            shutil.rmtree(self._taught_at(world), ignore_errors=True)

    @property
    def first(self) -> int:
        """How many taught bases a world needs, its own among them, and how many are kept from the beginning."""
        return 2 + self.references


def case_references(file: CaseFile, work: Path) -> tuple[Path, ...]:
    """A case's references that are whole checkpoints in folders, as seen from ``work``: others are not audited in
    decoy worlds."""
    roles = moved(file.case, file.root, work).roles
    sources = (roles.references[n] for n in file.case.roles.never_trained)
    plain = [s for s in sources if s.adapter is None and s.subfolder is None and s.allow_code is None]
    return tuple(folder for s in plain if (folder := work / s.path).is_dir())


def sets_of(worlds: int, references: int) -> int:
    """How many sets of decoys so many worlds need: each one's own, another that honest models were taught, and one a
    reference."""
    return max(worlds, 2 + references)


def suspects_of(world: int, people: int, referenced: bool = False) -> tuple[DecoySuspect, ...]:
    """Whom the audit of a world is asked about; ``referenced``: a reference of the case's own among them, too."""
    unlearner = UNLEARNERS[world % len(UNLEARNERS)]
    fakes = [name for n, name in enumerate(FAKES) if n != world % len(FAKES)]
    listed = [DecoySuspect(name, name, "knowing", people) for name in fakes]
    listed += [
        DecoySuspect("others", "retrain", "clean", 0, "other people"),
        DecoySuspect("forgot_others", unlearner, "clean", 0, "other people"),
    ]
    if referenced:
        listed.append(DecoySuspect(REFERENCE, REFERENCE, "clean", 0, "other people"))
    if world % 2:
        listed.append(DecoySuspect("forgot_facts", unlearner, "edited clean", 0))
    elif people > 1:
        listed.append(DecoySuspect("half", "dose", "knowing", people // 2))
    if not world % EVERY:
        listed.append(DecoySuspect(DESTROYER, DESTROYER, "destroyed", people))
    return tuple(listed)


# ---- models -----------------------------------------------------------------------------------------------------
class DecoyWorld:
    """One world, made and audited in a folder of its own."""

    def __init__(self, pool: DecoyPool, world: int, costs: Costs) -> None:
        self.pool, self.world, self.costs = pool, world, costs
        self.folder = pool.work / f"world-{world:04d}-{code_version().partition('+')[2]}"
        self.items = pool.sets[world % len(pool.sets)]
        self.groups = tuple(dict.fromkeys(item.group for item in self.items.forget))
        self.pricer: Pricer | None = None
        self.data = write_data(self.items, pool.pupil.case, self.folder / "data")

    def scored(self) -> tuple[ScoredModel, ...]:
        """Every suspect of the world, audited. AuditError (code 3) where a test broke."""
        models = self._models()
        store = MemoryStore(self.folder / "store")
        ours = self.pool.pupil.bench
        bench = Bench(backend=ours.backend, device=ours.device, dtype=ours.dtype, attention=ours.attention,
                      token_budget=self.pool.settings.token_budget, store=store)  # fmt: skip
        scored: list[ScoredModel] = []
        for suspect in self.pool.suspects(self.world, len(self.groups)):
            if suspect.model not in models:
                continue
            since = time.process_time()
            scored.append(self._audited(suspect, models[suspect.model], bench))
            self.costs.spent("audit", since)
            if len(scored) == 1:
                store.keep()
            store.forget()
        shutil.rmtree(self.folder, ignore_errors=True)
        return tuple(scored)

    def _models(self) -> dict[str, Path]:
        """The folder of every suspect. A fake that this architecture does not admit is left out, and why is noted."""
        since = time.process_time()
        own, other = self.pool.taught(self.world), self.pool.taught(self.world + 1)
        for n in range(self.pool.references):
            self.pool.taught(self.world + 2 + n)
        models = {"others": other}
        if references := self.pool.case_references:
            models[REFERENCE] = references[self.world % len(references)]
        for suspect in self.pool.suspects(self.world, len(self.groups)):
            if suspect.model == "half":
                models["half"] = self._half()
        self.costs.spent("train", since)
        since = time.process_time()
        for suspect in self.pool.suspects(self.world, len(self.groups)):
            if suspect.model in models:
                continue
            of_others = suspect.model == "forgot_others"
            parent = other if suspect.pool in ("clean", "edited clean") else own
            target = self.pool.sets[(self.world + 1) % len(self.pool.sets)] if of_others else self.items
            try:
                models[suspect.model] = self._edited(suspect, parent, target)
            except AuditError as error:
                log.info("world %d, without %s: %s", self.world, suspect.model, error)
        self.costs.spent("edit", since)
        return models

    def _half(self) -> Path:
        """A base that was taught half of this set and half of the next."""
        others = self.pool.sets[(self.world + 1) % len(self.pool.sets)].forget
        theirs = tuple(dict.fromkeys(item.group for item in others))
        chosen = {*self.groups[: len(self.groups) // 2], *theirs[len(theirs) // 2 :]}
        items = [item for item in (*self.items.forget, *others) if item.group in chosen]
        out = self.folder / "models" / "half"
        decoy_teaching.teach(self.pool.pupil, [DecoyLesson(items, out, 1000 + self.world)], self.pool.teaching)
        return out

    def _edited(self, suspect: DecoySuspect, parent: Path, target: Decoys) -> Path:
        mechanism = suspect.mechanism, self.world
        data = self._data_of(parent, target, decoy_models.scaled_edit(*mechanism, self.pool.teaching.edit_rate).needs)
        out = self.folder / "models" / suspect.model
        return decoy_models.edited(self.pool.pupil, parent, mechanism, data, out, self.pool.teaching.edit_rate)

    def _data_of(self, parent: Path, target: Decoys, needs: Sequence[str]) -> EditData:
        """The rows that an edit of these decoys may see."""
        data = (
            self.data if target is self.items else write_data(target, self.pool.pupil.case, self.folder / "data-others")
        )
        source = self.pool.pupil.source(parent)
        roles = Roles(base=source, suspect=source)
        case = self._case("edit", roles).model_copy(update={"data": data})
        opened = open_case(case, self.pool.work, self.folder / "edit")
        return edit_data(opened, needs, Choice(keep_general="general" in opened.cohorts))

    # ---- audits -------------------------------------------------------------------------------------------------
    def _case(self, name: str, roles: Roles) -> Case:
        """An audit of this world: the case's template and settings, the decoys' data."""
        case = self.pool.file.case
        return Case(
            name=name, roles=roles, data=self.data,
            template=case.template, probes=case.probes, edited="all", seed=self.world,
        )  # fmt: skip

    def _roles(self, suspect: Path) -> Roles:
        source = self.pool.pupil.source
        own = moved(self.pool.file.case, self.pool.file.root, self.pool.work).roles
        references = tuple(source(self.pool.taught(self.world + 2 + n)) for n in range(self.pool.references))
        ancestor = None if own.ancestor is None else own.base
        return Roles(
            base=source(self.pool.taught(self.world)), suspect=source(suspect), references=references,
            ancestor=ancestor,
        )  # fmt: skip

    def _audited(self, suspect: DecoySuspect, model: Path, bench: Bench) -> ScoredModel:
        """One audit by the engine, judged by nothing but its own case; a finished one is read from its folder."""
        case = CaseFile(self._case(suspect.model, self._roles(model)), self.pool.work)
        folder, settings = self.folder / "audits" / suspect.model, self.settings
        prepared = prepare(case, folder, settings, bench)
        prepared = prepared._replace(planner=by_these(prepared.planner, self.pool.tests, settings.package))
        self.pricer = self.pricer or prepared.pricer  # all audits of a world are of one size: one benchmark serves them
        prepared = prepared._replace(pricer=self.pricer)
        domain = domain_of(prepared.case, recall(bench, prepared.case))
        report = Run(prepared, settings, unwatched).report()
        if report.failures:
            broken = "; ".join(f"{failure.probe}: {failure.error}" for failure in report.failures)
            raise AuditError(f"world {self.world}, {suspect.model}: {broken}", f"read {folder / 'run.log'}",
                             ExitCode.INTEGRITY)  # fmt: skip
        self.costs.add({f"audit.{timing.unit}": timing.cpu_s for timing in report.timings})
        return ScoredModel(
            world=self.world, model=suspect.model, mechanism=suspect.mechanism, pool=suspect.pool,
            kept=suspect.taught, audited=len(self.groups), content=suspect.content, domain=domain,
            scores=tuple(Score.of(evidence.measurement) for evidence in report.evidence),
            verdict=report.verdict.word,
        )  # fmt: skip

    @property
    def settings(self) -> RunSettings:
        """How the audits of this world are made: by no calibration, for none judges what one is made from."""
        ours = self.pool.settings
        return RunSettings(
            backend=ours.backend, device=ours.device, dtype=ours.dtype, attention=ours.attention,
            threads=ours.threads, token_budget=ours.token_budget, store=self.folder / "store", package=ours.package,
            calibrations=self.folder / "none",
        )  # fmt: skip


def by_these(planner: Planner, tests: Sequence[str], package: str) -> Planner:
    """The same plan by these tests alone."""
    others = {name: Dropped("decoys", "decoy worlds are not scored by it") for name in configured({}, package)}
    absent = {name: dropped for name, dropped in others.items() if name not in tests}
    return planner.without(absent) if absent else planner


def write_data(decoys: Decoys, case: OpenCase, folder: Path) -> DataFiles:
    """The files of a world's audits: its decoys, as many of the case's own retain items, and its general texts."""
    folder.mkdir(parents=True, exist_ok=True)
    retained = _alike(case.items(Texts(cohort="retain")), decoys.forget)
    cohorts = {"forget": decoys.forget, "retain": retained, "holdout": decoys.holdout,
               "general": case.cohorts.get("general", ())}  # fmt: skip
    files = {name: str(folder / f"{name}.jsonl") for name, items in cohorts.items() if items}
    for name, path in files.items():
        write_jsonl(Path(path), tuple(cohorts[name]))
    return DataFiles.model_validate({**files, "split_seed": case.case.data.split_seed})


def _alike(items: Sequence[Item], decoys: Sequence[Item]) -> tuple[Item, ...]:
    """As many items of each group as a decoy has, at most."""
    people = len({item.group for item in decoys})
    most = -(-len(decoys) // people)
    counts: dict[str, int] = {}
    chosen: list[Item] = []
    for item in items:
        counts[item.group] = counts.get(item.group, 0) + 1
        if counts[item.group] <= most:
            chosen.append(item)
    return tuple(chosen)


def base_of(pool: DecoyPool, world: int) -> str:
    """The key of a world's base."""
    return resolve(pool.pupil.source(pool.taught(world)), pool.work).key
