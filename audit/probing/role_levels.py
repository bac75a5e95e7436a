"""What each model that is said never to have learned the forget set knows of it, by its outputs and by its states.

Three readings a person: the probability of the content tokens in the model's own output, and in base's after base's
later blocks went on from the model's state after the middle and after the last block. They are read as everywhere
(:mod:`audit.probing.effects`): (model - other) / (base - other), the largest of the three, tested over people.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.bench import Bench, Start
from audit.case import OpenCase, Rows, row_means
from audit.probing.case_models import n_blocks
from audit.probing.effects import Design, Panel, Sides, assess
from audit.probing.person_scores import KEY_LOGPROB, ModelScores, by_person, key_logprob, person_rows_of
from audit.schema import AuditError, Checkpoint, ExitCode, Missing, Site, Texts
from audit.wording import PERSON, Replicate, number

LEAST_GAP: Final = 0.2
"""By how much base has to exceed another model for a reading to say anything (probability)."""
DRAWS: Final = 9999
IN_FULL: Final = 0.75
"""A person of whom a model's output holds so much of base's excess is known in full: models that never knew reach .4,
models that were taught a person 1."""
ITEMS_A_PERSON: Final = 3
AFTER: Final = (0.5, 1.0)
"""After which blocks base goes on from another model's states, as shares of the depth."""
FORGET, HOLDOUT = Texts(cohort="forget"), Texts(cohort="holdout")
GUESSING: Final = 4.0
"""Guessing gives a content token -ln(vocabulary) nats; a model that learned other facts may give one of facts it never
learned twice that. So many times as far below zero lies no working model."""


class Level(NamedTuple):
    """One model held against another, or against people whom no model learned: effect, and p above and below."""

    effect: float
    p: float
    p_below: float
    overall: float


class Levels(NamedTuple):
    """Person means [person reading] of base and of every model that is said never to have known, by name.

    ``items``: how many items each forget person has. ``over``: what a person of the case is.
    """

    forget: ModelScores
    holdout: ModelScores | None
    items: Int[ndarray, " person"]
    seed: int
    over: Replicate = PERSON

    @property
    def others(self) -> str:
        """What those that no model learned are called: ``holdout people``."""
        return f"holdout {self.over.plural}"

    def of(self, name: str) -> Sides:
        """The readings of one model."""
        return Sides(self.forget.people[name], None if self.holdout is None else self.holdout.people[name])

    def against(self, name: str, other: str | None) -> Level | None:
        """One model against another; against None: its own level on holdout people. None where base is blind to it."""
        subject, base = self.of(name), self.of("base")
        null = self.of(other) if other else base._replace(
            forget=np.zeros_like(base.forget), holdout=None if base.holdout is None else np.zeros_like(base.holdout)
        )  # fmt: skip
        design = Design(self.seed, LEAST_GAP, differenced=base.holdout is not None, draws=DRAWS)
        result = assess(Panel(subject, base, null), design)
        if isinstance(result.value, Missing) or isinstance(result.p, Missing) or isinstance(result.p_below, Missing):
            return None
        overall = result.value if isinstance(result.overall, Missing) else result.overall.value
        return Level(result.value, result.p, result.p_below, overall)

    def known_people(self, name: str, others: Sequence[str]) -> int:
        """How many forget people, of enough items, a model's own output knows: most of base's excess over each other
        model. A few are no trace in the mean."""
        people = self.forget.people
        share = np.full(len(self.items), np.inf)
        for other in others:
            gap = (people["base"] - people[other])[:, 0]
            share = np.minimum(share, (people[name] - people[other])[:, 0] / np.maximum(gap, LEAST_GAP))
        counted = (self.items >= ITEMS_A_PERSON) & (share >= IN_FULL) if others else np.zeros(0, bool)
        return int(counted.sum())


def levels(bench: Bench, case: OpenCase, never: Mapping[str, Checkpoint]) -> Levels:
    """The readings of base and of the models that are said never to have known. AuditError (code 3) where one of them
    gives outputs that are no numbers."""
    holdout = _read(bench, case, never, HOLDOUT) if case.has(HOLDOUT) else None
    forget, items = _read(bench, case, never, FORGET), np.bincount(person_rows_of(case, FORGET).person)
    if len(items) != (people := len(forget.people["base"])):  # somebody has no item that counts: nobody is counted
        items = np.zeros(people, int)
    return Levels(forget, holdout, items, case.case.seed, case.replicate)


def _read(bench: Bench, case: OpenCase, never: Mapping[str, Checkpoint], texts: Texts) -> ModelScores:
    sheet = person_rows_of(case, texts)
    own = np.exp(output_of(bench, "base", case.base, sheet.rows))
    scores = {"base": np.repeat(own[:, None], 1 + len(AFTER), axis=1)}
    scores |= {name: _readings(bench, case, name, model, sheet.rows) for name, model in never.items()}
    return by_person(sheet, scores)


def below_guessing(bench: Bench, case: OpenCase, never: Mapping[str, Checkpoint]) -> dict[str, str]:
    """Those, by name, whose outputs on the forget set are far below guessing, with that said."""
    rows, too_low = person_rows_of(case, FORGET).rows, {}
    for name, model in never.items():
        given = float(np.nanmean(output_of(bench, name, model, rows)))
        guessed = -math.log(bench.open(model).vocab_size)
        if given < GUESSING * guessed:
            too_low[name] = (
                f"it is no working model: a content token of the forget set gets {number(given)} nats, and guessing "
                f"gives it {number(guessed)}"
            )
    return too_low


def output_of(bench: Bench, role: str, model: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
    """The :func:`key_logprob` of a model that judges. AuditError (code 3) names its role where its outputs are no
    numbers, or the same whatever it reads."""
    try:
        output = key_logprob(bench, model, rows)
    except AuditError as error:
        if error.code != ExitCode.INTEGRITY:
            raise
        raise AuditError(f"{role} ({model.source}): {error.what}", error.do, error.code) from error
    keyed = rows.key.any(1).numpy()
    if not np.isfinite(output[keyed]).all():
        raise AuditError(
            f"{role} ({model.source}): its outputs on {int((~np.isfinite(output[keyed])).sum())} of {int(keyed.sum())} "
            "items are no numbers (they overflow)",
            "give a model that runs in this precision, or another --dtype",
            ExitCode.INTEGRITY,
        )
    return output


def _readings(bench: Bench, case: OpenCase, name: str, model: Checkpoint, rows: Rows) -> Float[ndarray, "row reading"]:
    """Probabilities (geometric mean over content tokens): own output, then base from its states."""
    output = output_of(bench, name, model, rows)
    sites = [Site(part="resid_out", block=int(share * (n_blocks(case) - 1))) for share in AFTER]
    read = bench.run_variants(case.base, rows, (KEY_LOGPROB,), [((), Start(site, model)) for site in sites])
    return np.exp(np.stack([output, *(row_means(each[KEY_LOGPROB], rows) for each in read)], 1))
