"""The table of published statistics of membership: areas and hits at few false alarms, with intervals over groups."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray

from audit.probing import Control, Interval, Listing, Measurement, Missing, PersonRows, clustered, stats
from probes._bag_of_words import blind_scores
from probes._member_scores import ALONE

RATES = (0.01, 0.001)
FEWEST = 2
NO_OTHERS = "needs holdout people, who are members of no model"
NO_GROUPS = Missing(missing=f"an interval over groups needs at least {FEWEST} of members and of others")
COLUMNS = (
    "statistic", "model", "AUROC", "lo", "hi", "beyond never trained", "gap lo", "gap hi", "found at 1 %", "1 % lo",
    "1 % hi", "found at 0.1 %", "0.1 % lo", "0.1 % hi",
)  # fmt: skip
BLIND = "the words alone"
UNCONTROLLED = (
    "As published: cohorts that differ in topic or format are told apart by any model, and by the words alone. What "
    "counts is the gap to the never-trained model, and above all the excess, which is tested."
)
OF_IAM = (
    "IAM takes base as trained: it tells forget from holdout items in a model that saw neither, whose AUROC is then "
    "not 0.5. Compare it with that of another model that never knew."
)


class Scored(NamedTuple):
    """Statistic -> model -> scores of the items, those of the forget sheet first."""

    published: Mapping[str, Mapping[str, Float[ndarray, " item"]]]
    forget: PersonRows
    holdout: PersonRows

    @property
    def member(self) -> Bool[ndarray, " item"]:
        """Which items are members."""
        return np.arange(len(self.forget.rows) + len(self.holdout.rows)) < len(self.forget.rows)

    @property
    def group(self) -> Int[ndarray, " item"]:
        """The group of each item; no group has members and others."""
        return np.concatenate([self.forget.person, len(self.forget.people) + self.holdout.person])

    @property
    def texts(self) -> list[str]:
        """Question and answer of each item."""
        return [f"{item.question} {item.answer}" for item in (*self.forget.items, *self.holdout.items)]


class Row(NamedTuple):
    """One statistic of one model."""

    statistic: str
    model: str
    auroc: float
    ci95: Interval | Missing
    gap: clustered.Gap | None
    points: tuple[stats.OperatingPoint, ...]

    @property
    def cells(self) -> tuple[str | float | None, ...]:
        """As a line of the listing."""
        gap = (None, None, None) if self.gap is None else (self.gap.gap, *self.gap.ci95.ends)
        points = [x for p in self.points for x in (p.hit_rate, *p.ci95.ends)] or [None] * (3 * len(RATES))
        ends = (None, None) if isinstance(self.ci95, Missing) else self.ci95.ends
        return (self.statistic.replace("_", " "), _words(self.model), self.auroc, *ends, *gap, *points)


class PublishedTable(NamedTuple):
    """All rows, that of the suspect by the leading statistic first."""

    lead: str
    rows: tuple[Row, ...]
    unscored: int
    others: int

    def onto(self, empty: Measurement) -> Measurement:
        """The measurement with the suspect's area by the leading statistic, and the table."""
        of = {(row.statistic, row.model): row for row in self.rows}
        lead, base = of.get((self.lead, "suspect")), of.get((self.lead, "base"))
        if lead is None:
            return empty
        listing = Listing(
            title="published statistics of membership", columns=COLUMNS, rows=tuple(row.cells for row in self.rows),
            of=len(self.rows),
        )  # fmt: skip
        blind = of.get((BLIND, "none"))
        readings = {f"auroc_{row.statistic}_{row.model}": row.auroc for row in self.rows if row.model != "none"}
        readings |= {} if blind is None else {"auroc_words_alone": blind.auroc}
        resolution = f"{self.others} others: a false alarm is {1 / self.others:.2g} of them"
        left_out = (f"{self.unscored} scores are no numbers and are left out",) if self.unscored else ()
        of_iam = (OF_IAM,) if self.lead == "iam_published" else ()
        control = empty.positive_control
        if base is not None:
            result = isinstance(base.ci95, Interval) and base.ci95.lo > 0.5
            control = Control(value=base.auroc, ci95=base.ci95, found=result)
        return empty.model_copy(
            update={
                "value": lead.auroc, "ci95": lead.ci95, "positive_control": control, "readings": readings,
                "listings": (listing,), "notes": (UNCONTROLLED, *of_iam, resolution, *left_out),
            }
        )  # fmt: skip


def table_of(scored: Scored, lead: str, seed: int, draws: int) -> PublishedTable:
    """Every statistic of every model, and the words alone."""
    rows, unscored = list[Row](), 0
    for statistic in sorted(scored.published, key=lambda name: name != lead):
        models = scored.published[statistic]
        for model in sorted(models, key=lambda name: name != "suspect"):
            # a statistic beside the null has nothing to say of the null itself
            beside = statistic not in ALONE
            if model == "null" and beside:
                continue
            never = None if beside or model == "null" else models.get("null")
            retained = np.isfinite(models[model]) & (True if never is None else np.isfinite(never))
            unscored += int((~retained).sum())
            if (row := _row(scored, statistic, model, retained, (seed, draws))) is not None:
                rows.append(
                    row if never is None else row._replace(gap=_gap(scored, models[model], never, retained, seed))
                )
    words = blind_scores(scored.texts, scored.member, scored.group, seed)
    if words is not None:
        every = np.ones(len(words), bool)
        of_words = scored._replace(published={BLIND: {"none": words}})
        blind = _row(of_words, BLIND, "none", every, (seed, draws))
        rows += [] if blind is None else [blind]
    return PublishedTable(lead, tuple(rows), unscored, int((~scored.member).sum()))


def _row(
    scored: Scored, statistic: str, model: str, retained: Bool[ndarray, " item"], drawn: tuple[int, int]
) -> Row | None:
    """One line; None where either kind has no item left."""
    score, member, group = scored.published[statistic][model][retained], scored.member[retained], scored.group[retained]
    if not member.any() or member.all():
        return None
    area = stats.auroc(score[member], score[~member])
    if _groups(member, group) < FEWEST:
        return Row(statistic, model, area, NO_GROUPS, None, ())
    full = clustered.clustered_auroc(clustered.labelled(score, member, group), drawn[0])
    points = stats.operating_points(score, member, group, RATES, *drawn)
    return Row(statistic, model, area, full.ci95, None, points)


def _gap(
    scored: Scored, score: Float[ndarray, " item"], never: Float[ndarray, " item"], retained: Bool[ndarray, " item"],
    seed: int,
) -> clustered.Gap | None:  # fmt: skip
    """By how much the model's area exceeds that of a model that never knew, on the same items."""
    member, group = scored.member[retained], scored.group[retained]
    if not member.any() or member.all() or _groups(member, group) < FEWEST:
        return None
    return clustered.difference(clustered.labelled(score[retained], member, group), never[retained], seed)


def _groups(member: Bool[ndarray, " item"], group: Int[ndarray, " item"]) -> int:
    return min(len(np.unique(group[member])), len(np.unique(group[~member])))


def _words(model: str) -> str:
    """A model's part in words."""
    return "another never trained" if model.startswith("floor") else {"null": "never trained"}.get(model, model)
