"""What will be done, fixed before looking: which probes run, why the others do not, and what each costs."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

from pydantic import ValidationError

from audit import plugins
from audit.case import OpenCase
from audit.planning.plan_inputs import fingerprints, hashes_of_data
from audit.probing import Probe
from audit.runs import code_version, plan_hash_of
from audit.schema import (
    AuditError,
    Cohort,
    Cost,
    Need,
    Op,
    Plan,
    PlannedTest,
    Read,
    Role,
    Texts,
    content_key,
)


class Planned(NamedTuple):
    """A probe with its settings, its row of the plan, and what measuring costs beyond the merged needs."""

    name: str
    probe: Probe
    test: PlannedTest
    own: Cost


class Dropped(NamedTuple):
    """Why a test that could run will not: the limit as it was given, and what it would have cost."""

    by: str
    reason: str


class Fetch(NamedTuple):
    """One pass: a model in a role, its rows, and every read that some probe wants of them."""

    role: Role
    reference: int
    texts: Texts
    reads: tuple[Read, ...]


def configured(settings: dict[str, dict[str, str | int | float | bool]], package: str) -> dict[str, Probe]:
    """The probes of the folder with the case's settings. AuditError (code 2) names an unknown probe or setting."""
    classes = plugins.discover(package, Probe)
    for name in settings:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, 1)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise AuditError(f"case.toml: there is no probe {name!r}{hint}", "`residua probes` lists them")
    probes: dict[str, Probe] = {}
    for name, cls in classes.items():
        try:
            probes[name] = cls.model_validate(settings.get(name, {}))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise AuditError(
                f"case.toml: probe {name!r}, setting {where!r}: {first['msg']}", "`residua probes` lists the settings"
            ) from None
    return probes


class Planner:
    """Plans one opened case with the probes of a package. ``ops`` is what the chosen backend can do, ``lacking`` says
    why it cannot do something that it could with other weights."""

    def __init__(
        self, case: OpenCase, ops: frozenset[Op], package: str = "probes",
        dropped: Mapping[str, Dropped] | None = None, lacking: Mapping[Op, str] | None = None,
    ) -> None:  # fmt: skip
        self._case, self._ops, self._package = case, ops, package
        self._dropped, self._lacking = dropped or {}, lacking or {}

    def without(self, dropped: Mapping[str, Dropped]) -> "Planner":
        """The same case planned with some tests left out."""
        return Planner(self._case, self._ops, self._package, dropped, self._lacking)

    def on(self, case: OpenCase) -> "Planner":
        """The same tests planned on the case as it is judged, by the roles that take part; itself where all do."""
        if case is self._case:
            return self
        return Planner(case, self._ops, self._package, self._dropped, self._lacking)

    @cached_property
    def probes(self) -> tuple[Planned, ...]:
        """Every probe with its row of the plan, in the order of their names."""
        settings = self._case.case.probes
        return tuple(self._planned(name, probe) for name, probe in configured(settings, self._package).items())

    @cached_property
    def plan(self) -> Plan:
        """The plan, named by its hash: of the code, the case, what was received, and every probe's settings."""
        case = self._case
        payload = Plan(
            case=case.case,
            fingerprints=fingerprints(case),
            data_sha256=hashes_of_data(case.case, case.root, case.data_sha256),
            tests=tuple(planned.test for planned in self.probes),
            code_version=code_version(),
            plan_hash="",
            notes=(*case.notes, *self._family_notes()),
            settings_sha256=content_key(
                {name: [probe.version, probe.model_dump(mode="json")] for name, probe, *_ in self.probes}
            ),
        )
        return payload.model_copy(update={"plan_hash": plan_hash_of(payload)})

    def _family_notes(self) -> list[str]:
        tested = [(planned.name, planned.probe.groups_tested(self._case)) for planned in self.running]
        return [f"{name}: {test.short_family}" for name, test in tested if test is not None and test.short_family]

    @property
    def running(self) -> tuple[Planned, ...]:
        """The probes that will run."""
        return tuple(planned for planned in self.probes if planned.test.will_run)

    @property
    def undecidable(self) -> str:
        """Why no test can decide what is left, with so few groups, and what would suffice; empty where one can."""
        tested = [planned.probe.groups_tested(self._case) for planned in self.running]
        resting = [test for test in tested if test is not None]
        if not resting or any(test.decides for test in resting):
            return ""
        return str(max(resting, key=lambda test: test.audited))

    def fetches(self, planned: Iterable[Planned]) -> tuple[Fetch, ...]:
        """The needs of these probes merged: one pass per role and rows, with the union of their reads."""
        merged: dict[tuple[Role, int, Texts], dict[Read, None]] = {}
        for name in planned:
            for need in self._present(name.probe):
                reads = merged.setdefault((need.role, need.reference, need.texts), {})
                reads.update(dict.fromkeys(need.reads))
        return tuple(Fetch(role, ref, texts, tuple(reads)) for (role, ref, texts), reads in merged.items())

    def _planned(self, name: str, probe: Probe) -> Planned:
        reason, dropped = self._reason_not(probe), self._dropped.get(name)
        question = self._case.replicate.rephrased((type(probe).__doc__ or "").strip().partition("\n")[0])
        own = Cost() if reason else in_states(probe.cost(self._case), self._case)
        cost = Cost() if reason else self._cost(probe, own)
        if dropped is not None and not reason:
            reason = dropped.reason
        tested = None if reason else probe.groups_tested(self._case)
        test = PlannedTest(probe=name, question=question, will_run=not reason, reason=reason, cost=cost,
                           dropped_by="" if dropped is None else dropped.by,
                           undecidable="" if tested is None or tested.decides else str(tested),
                           attack=probe.attack or "")  # fmt: skip
        return Planned(name, probe, test, own)

    def _reason_not(self, probe: Probe) -> str:
        """Why a probe cannot run on this case, or an empty string."""
        requires, case = probe.requires, self._case
        lacking = [role for role in requires.roles if not _has_role(case, role)]
        if lacking:
            return f"needs a model in the role of {' and '.join(lacking)}"
        if requires.any_of_roles and not any(_has_role(case, role) for role in requires.any_of_roles):
            return f"needs a model in the role of {' or '.join(requires.any_of_roles)}"
        absent = [cohort for cohort in requires.data if not _has_cohort(case, cohort)]
        if absent:
            return f"needs {' and '.join(absent)} items"
        if requires.families and case.base.family not in requires.families:
            return f"works on {', '.join(requires.families)}, not on {case.base.family}"
        if case.modality not in requires.modalities:
            return f"works on models of {' or '.join(requires.modalities)}, not of {case.modality}"
        if requires.hooked and not any(record.is_hook for record in case.suspect.edits):
            return "the suspect carries no edit that acts on the way"
        missing = sorted(set(requires.ops) - self._ops)
        if not missing:
            return ""
        reason = "; ".join(dict.fromkeys(self._lacking[op] for op in missing if op in self._lacking))
        return f"{reason}: cannot {', '.join(missing)}" if reason else f"the backend cannot {', '.join(missing)}"

    def _present(self, probe: Probe) -> list[Need]:
        """A probe's needs, without those of models and items that this case does not have."""
        case = self._case
        return [
            need.model_copy(update={"texts": texts, "every": False})
            for need in probe.needs(case.case)
            if _has_model(case, need)
            for texts in (case.numbered(need.texts) if need.every else (need.texts,))
            if case.has(texts)
        ]

    def _cost(self, probe: Probe, own: Cost) -> Cost:
        fetched = sum(_passes(need) * states_of(self._case, need.texts) for need in self._present(probe))
        return own.model_copy(update={"fwd_tokens": own.fwd_tokens + fetched})


def by_model(fetches: Iterable[Fetch]) -> dict[tuple[Role, int], list[Fetch]]:
    """What is fetched of each model, role after role."""
    models: dict[tuple[Role, int], list[Fetch]] = {}
    for fetch in sorted(fetches, key=lambda fetch: (fetch.role, fetch.reference)):
        models.setdefault((fetch.role, fetch.reference), []).append(fetch)
    return models


def states_of(case: OpenCase, texts: Texts) -> int:
    """How many states one pass over these texts makes: one a token, or one a patch of an image."""
    return round(case.states_per_token * int(case.rows(texts).mask.sum()))


def in_states(cost: Cost, case: OpenCase) -> Cost:
    """A cost that was counted in tokens of the rows, in states: what a pass takes of time and memory."""
    fwd, bwd = (round(case.states_per_token * tokens) for tokens in (cost.fwd_tokens, cost.bwd_tokens))
    return cost.model_copy(update={"fwd_tokens": fwd, "bwd_tokens": bwd})


def _passes(need: Need) -> int:
    """The passes of a need as a bench makes them by default: patterns are read in one of their own. The plan does not
    depend on how a run is made."""
    return len({read.site.part == "pattern" for read in need.reads}) or 1


def _has_role(case: OpenCase, role: Role) -> bool:
    return {"reference": bool(case.references), "ancestor": case.ancestor is not None}.get(role, True)


def _has_model(case: OpenCase, need: Need) -> bool:
    return _has_role(case, need.role) and (need.role != "reference" or need.reference < len(case.references))


def _has_cohort(case: OpenCase, cohort: Cohort) -> bool:
    return getattr(case.case.data, cohort) is not None
