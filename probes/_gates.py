"""What the gates of a suspect read: of forgotten prompts, of retained ones, and of other phrasings of the forgotten."""

from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.probing import (
    Bench,
    Checkpoint,
    Count,
    Curve,
    GatedShift,
    Interval,
    Listing,
    Measurement,
    Missing,
    Naming,
    OpenCase,
    Read,
    Rows,
    Texts,
    blank,
    clustered,
    delta_of,
    stats,
)

GATE = Naming(
    probe="filter_removal", name="gate", kind="context",
    statistic="area under the curve by which the gate tells forgotten prompts from retained ones, as the suspect reads "
    "them (the mean over steered blocks)",
    unit="area (.5 chance, 1 apart)", scale="probability",
)  # fmt: skip
FORGET, RETAIN = Texts(cohort="forget"), Texts(cohort="retain")
DESCRIBED = Missing(missing="a description of the gate: nothing is tested")
SAME_ROWS = "A gate is fitted on the edit's own prompts: how it does on others, the other rows of the table say."
LEVELS = np.linspace(0.0, 1.0, 51)


class Prompts(NamedTuple):
    """Prompts of one kind, and what the gate reads of each, mean over the places."""

    texts: Texts
    groups: tuple[str, ...]
    value: Float[ndarray, " row"]


class Gates(NamedTuple):
    """The gated shifts that a suspect's edits play, in their order."""

    hooks: tuple[GatedShift, ...]

    def kinds(self, case: OpenCase) -> list[Texts]:
        """All prompts that are asked: of the forgotten, the retained and the held out, in every form."""
        cohorts = ("forget", "retain", "holdout")
        every = [Texts(cohort=cohort, form=form) for cohort in cohorts for form in ("trained", *case.forms())]
        return [texts for texts in dict.fromkeys(every) if case.has(texts)]

    def tokens(self, case: OpenCase) -> int:
        """How many tokens reading them takes."""
        return len(self.hooks) * sum(int(case.rows(texts).mask.sum()) for texts in self.kinds(case))

    def read(self, bench: Bench, off: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
        """u . e of every row, where each gate sees what the gates before it have done."""
        firsts = torch.searchsorted(rows.targets("answer")[0].contiguous(), torch.arange(len(rows)))
        values: list[ndarray] = []
        for n, hook in enumerate(self.hooks):
            read = Read(site=hook.site, at="answer")
            state = bench.run(off, rows, (read,), self.hooks[:n])[read][firsts]
            values.append((state.double() @ hook.gate.double()).numpy())
        return np.mean(values, 0)


def gates_of(case: OpenCase) -> Gates:
    """The gates of the case's suspect; none where its edits have none."""
    hooks: list[GatedShift] = []
    for record in case.suspect.edits:
        if record.plays == GatedShift.kind():
            hooks += GatedShift.from_delta(delta_of(case.suspect, record))
    return Gates(tuple(hooks))


def gate_measurement(bench: Bench, case: OpenCase, off: Checkpoint, gates: Gates) -> Measurement:
    """The receiver operating characteristic of the gate on forgotten against retained prompts, and a table of all
    kinds of prompts. ``off`` is the suspect without its edits that act on the way."""
    if not case.has(RETAIN):
        return blank(GATE, "no retained prompts to tell from", Count(scored=0), 0, case.case.seed)
    read: list[Prompts] = []
    for texts in gates.kinds(case):
        rows = case.rows(texts)
        read.append(Prompts(texts, rows.group_ids, gates.read(bench, off, rows)))
    forget, retain = (next(p for p in read if p.texts == texts) for texts in (FORGET, RETAIN))
    opened = float(forget.value.mean())
    n = len(set(forget.groups))
    return blank(GATE, "", Count(scored=len(forget.value) + len(retain.value)), n, case.case.seed).model_copy(
        update={
            "value": stats.auroc(forget.value, retain.value), "ci95": _interval(forget, retain, case.case.seed),
            "p": DESCRIBED, "p_below": DESCRIBED, "null": DESCRIBED, "positive_control": DESCRIBED,
            "floor": DESCRIBED, "items": DESCRIBED, "curves": (_curve(forget, retain),),
            "readings": {"gate_forgotten": opened, "gate_retained": float(retain.value.mean()),
                         "leakage": float(np.abs(retain.value).mean() / max(abs(opened), 1e-12))},
            "listings": (_listing(read, retain, opened),), "notes": (SAME_ROWS,),
        }
    )  # fmt: skip


def _interval(forget: Prompts, retain: Prompts, seed: int) -> Interval | Missing:
    """Over groups; missing where there are too few."""
    names = [*forget.groups, *(f"kept {group}" for group in retain.groups)]
    if min(len(set(forget.groups)), len(set(retain.groups))) < 2:
        return Missing(missing="an interval over groups needs two of either kind")
    knows = np.arange(len(names)) < len(forget.groups)
    cluster = np.unique(names, return_inverse=True)[1].reshape(-1)
    area = clustered.clustered_auroc(
        clustered.Labelled(np.concatenate([forget.value, retain.value]), knows, cluster), seed
    )
    return area.ci95


def _curve(forget: Prompts, retain: Prompts) -> Curve:
    """Which share of the forgotten prompts opens the gate where so many of the retained ones do."""
    bars = np.quantile(retain.value, 1 - LEVELS, method="higher")
    shares = [float((forget.value > bar).mean()) for bar in bars[:-1]]
    return Curve(
        axis="share of retained prompts", unit="share of forgotten prompts", scale="probability", role="suspect",
        x=tuple(LEVELS.tolist()), y=(*shares, 1.0),
    )  # fmt: skip


def _listing(read: list[Prompts], retain: Prompts, opened: float) -> Listing:
    """What the gate reads of each kind of prompt; ``missed``: the share below half of what the forgotten ones read."""
    columns = ("prompts of", "form", "n", "gate (mean)", "least", "most", "area against retained", "opens for")
    rows = tuple(
        (
            p.texts.cohort,
            p.texts.form.replace("_", " "),
            len(p.value),
            float(p.value.mean()),
            float(p.value.min()),
            float(p.value.max()),
            stats.auroc(p.value, retain.value),
            float((p.value >= opened / 2).mean()),
        )
        for p in read
    )
    return Listing(title="what the gate reads", columns=columns, rows=rows, of=len(rows))
