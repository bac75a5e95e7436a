"""What a calibration of a case's own kind would take, and whether it can be made: before anything is trained.

The case is opened, decoys are made (or a user's are dealt) and asked of base, which must not know them, and the worlds
that fit into the time are counted, with what so many can support.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from audit.calibration import own_folder
from audit.case import CaseFile, open_case
from audit.checkpoints import weight_files, weights_folder
from audit.planning import RunSettings, configured, make_bench
from audit.pools import decoy_models
from audit.pools.decoy_facts import QUESTIONS, Decoys, DecoySource, decoy_source, decoys, worlds_of
from audit.pools.decoy_models import Pupil
from audit.pools.decoy_price import world_seconds
from audit.pools.decoy_teaching import TaughtForm, form_for
from audit.pools.decoy_world import TESTS, case_references, sets_of, suspects_of
from audit.probing import Recall, check_recall
from audit.schema import AuditError, Interval
from audit.stats import upper_bound
from audit.wording import lasting, number, told_bytes

WORLDS: Final = 19
"""Decoy worlds where neither their number nor a time is asked for: 0 of 19 bounds a rate at 14.6 %."""
LEAST_WORLDS: Final = 3
"""Ratios are checked on worlds that they were not fitted on, and a fit needs two."""
TIMES_NAMED: Final = 12
"""How often decoys are named anew whom base recalls: of few values it guesses some by chance."""
_ADAPTERS: Final = (
    "decoys are taught to adapters over base, several sets at a time; base itself is never copied. Times and disk are "
    "those of whole copies"
)


class OwnRequest(NamedTuple):
    """How many worlds (None: as many as the time gives, else :data:`WORLDS`), within which time (seconds), with whose
    decoys, where unfinished work is kept, how many questions a decoy has, which tests are calibrated, and what is
    taught (None: whole copies of base)."""

    worlds: int | None = None
    max_time: float | None = None
    decoys: Path | None = None
    work: Path | None = None
    questions: int = QUESTIONS
    tests: tuple[str, ...] = TESTS
    form: TaughtForm | None = None


class OwnPlan(NamedTuple):
    """What would be made: worlds of so many decoys and questions each, each in about so many seconds, from and to, by
    the plan of its passes; ``disk`` is how many bytes the models take at most that are there at once."""

    worlds: int
    people: int
    questions: int
    models: int
    seconds: Interval
    folder: Path
    disk: int = 0
    form: TaughtForm = "full"

    def lines(self) -> tuple[str, ...]:
        """What so many worlds can support, in words."""
        bound = number(100 * upper_bound(0, self.worlds))
        return (
            f"{self.worlds} decoy worlds, each of {self.people} people with {self.questions} questions in all and of "
            f"about {self.models} audited models; {lasting(*self.seconds.ends)} a world, "
            f"{lasting(*(self.worlds * end for end in self.seconds.ends))} in all, by the plan of its passes; about "
            f"{told_bytes(self.disk)} of disk while it is made",
            f"{self.worlds} worlds support no likelihood ratio above {self.worlds + 1} (or below 1/{self.worlds + 1}); "
            f"a mistake that none of them shows is bounded at {bound} % (exact, 95 %)",
            *((_ADAPTERS,) if self.form == "adapter" else ()),
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
    form = form_for(pupil, request.form)
    recall = check_recall(bench, case)
    source = decoy_source(case, request.questions, request.decoys)
    references, bar = len(case.case.roles.never_trained), (recall.base + recall.against) / 2
    wanted, first = _wanted(request, source, references), unknown_decoys(pupil, source, 0, bar)
    seconds = world_seconds(file, pupil, first, request.tests, settings)
    worlds = _fitting(wanted, request.max_time, seconds)
    sets = (first, *(unknown_decoys(pupil, source, n, bar) for n in range(1, sets_of(worlds, references))))
    folder = own_folder(file.root, case.base.key)
    people = len({item.group for item in first.forget})
    models = len(suspects_of(1, people, bool(case_references(file, file.root))))
    together = 2 * (2 + references) + models
    size = sum(path.stat().st_size for path in weight_files(weights_folder(case.base)))
    plan = OwnPlan(worlds, people, len(first.forget), models, seconds, folder, together * size, form)
    return Prepared(file, pupil, recall, source, sets, plan, settings)


def price_own(file: CaseFile, request: OwnRequest, settings: RunSettings) -> Interval:
    """About how many seconds a decoy world takes, from and to; base need not know anything yet. Nothing is made."""
    case = open_case(file.case, file.root, file.root, online=settings.online)
    settings = replace(settings, store=None).settled([case.base])
    pupil, source = Pupil(make_bench(settings), case), decoy_source(case, request.questions, request.decoys)
    return world_seconds(file, pupil, decoys(source, 0), request.tests, settings)


def _wanted(request: OwnRequest, source: DecoySource, references: int) -> int:
    """How many worlds are asked for, and there are decoys for. AuditError (code 2) where they are too few for a
    rule."""
    wanted = request.worlds or (WORLDS if request.max_time is None else 10**6)
    if wanted < LEAST_WORLDS:
        raise AuditError(f"{wanted} decoy worlds are too few to fit a rule and to check it on others",
                         f"ask for at least {LEAST_WORLDS}")  # fmt: skip
    if (most := worlds_of(source)) is None:
        return wanted
    if most < sets_of(LEAST_WORLDS, references):
        raise AuditError(
            f"the decoys are enough for {most} sets of {source.people} groups, and the fewest worlds need "
            f"{sets_of(LEAST_WORLDS, references)}",
            f"give at least {source.people * sets_of(LEAST_WORLDS, references)} groups of decoys",
        )
    return min(wanted, most)


def _fitting(wanted: int, max_time: float | None, seconds: Interval) -> int:
    """How many of them fit into the time. AuditError (code 2) where they are too few for a rule."""
    if max_time is None:
        return wanted
    usual = sum(seconds.ends) / 2
    fitting = int(max_time / usual)
    if fitting < LEAST_WORLDS:
        problem = "not even one decoy world fits" if not fitting else f"{fitting} decoy worlds fit, too few for a rule"
        raise AuditError(
            f"{problem}: one takes {lasting(*seconds.ends)} here, and --max-time gives {number(max_time)} s",
            f"give at least {number(LEAST_WORLDS * usual)} s, or a machine that is faster",
        )
    return min(wanted, fitting)


def unknown_decoys(pupil: Pupil, source: DecoySource, world: int, bar: float) -> Decoys:
    """Decoys of a world that neither base nor the ancestor recalls: whom they do is given another name, which changes
    what is guessed. AuditError (code 2) where none are found."""
    known: Sequence[str] = ()
    renamed: dict[str, int] = {}
    for _ in range(1 if source.stated else TIMES_NAMED):
        drawn = decoys(source, world, renamed)
        known = decoy_models.recalled_groups(pupil, drawn.forget, bar)
        if not known:
            return drawn
        renamed |= {group: renamed.get(group, 0) + 1 for group in known}
    raise AuditError(
        f"base or its ancestor already knows decoys: {', '.join(known[:3])}{' ...' if len(known) > 3 else ''} (mean "
        f"probability at least {bar:.2f}, half-way to what base gives its own forget items)",
        "leave these groups out of --decoys" if source.stated else "give decoys of your own with --decoys FILE",
    )
