"""Edits of one person at a time, asked for in every form: one resident model serves all of them in one pass.

Each of the forgotten people is redirected by an edit of its own; every row of that person runs under that edit alone,
as a low-rank hook on base. So the table of forms has people for its units, as the published evaluation has targets.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench, Redirect, copied
from audit.case import OpenCase, Rows, SubjectPrompts, open_case, tokenise
from audit.edits import ROCR, ROME, EditData, Redirection, hooks
from audit.schema import Checkpoint, Item, Read, Site, Source, Template
from audit.stats import bootstrap_effect, percentile_interval
from audit.zoo import REFUSALS, World, form_items, general_training_items, items
from probes._edited import REDIRECT
from probes.weight_difference import WeightDifference

KEY: Final = Read(site=Site(part="logits"), at="key", reduce="logprob")
FORMS: Final = ("trained", "held_out_phrasing", "hint", "cloze", "alias", "reversed", "two_hop")
_NEAR: Final = ROCR()
WAYS: Final[dict[str, Redirection]] = {
    "ROCR": _NEAR,
    "ROCR, random state": _NEAR.model_copy(update={"mode": "noise"}),
    "ROCR, refusing": _NEAR.model_copy(update={"mode": "reject", "answer": REFUSALS[0]}),
    "ROCR as published": ROCR(paper=True),
    "ROME, refusing": ROME(answer=REFUSALS[0]),
    "ROME": ROME(mode="unrelated"),
}


class Asking(NamedTuple):
    """Rows of people in all forms, and whose and which each is."""

    rows: Rows
    people: tuple[str, ...]
    person: ndarray
    form: ndarray


def asking(world: World, tokenizer: Any, group: str) -> Asking:
    """The facts of a cohort in every form that is asked for here."""
    people = world.people[group]  # type: ignore[index]
    every: list[Item] = [item for item in items(world, group) if item.form in FORMS]  # type: ignore[arg-type]
    every += [item for item in form_items(world, people) if item.form in FORMS]
    names = tuple(person.id for person in people)
    return Asking(
        tokenise(every, [item.answer for item in every], tokenizer, Template(), None), names,
        np.array([names.index(item.group) for item in every]), np.array([FORMS.index(item.form) for item in every]),
    )  # fmt: skip


def knowledge(
    bench: Bench, model: Checkpoint, of: Asking, writes: Sequence[Redirect] = ()
) -> Float[ndarray, "person form"]:
    """Mean probability (geometric over an answer's content tokens) of each person's facts, by form."""
    read = bench.run(model, of.rows, (KEY,), writes)[KEY]
    row, _ = of.rows.targets("key")
    total = torch.zeros(len(of.rows), dtype=torch.float64).index_add(0, row, read.double())
    mean = (total / torch.bincount(row, minlength=len(of.rows))).exp().numpy()
    return np.array([
        [mean[(of.person == p) & (of.form == f)].mean() for f in range(len(FORMS))] for p in range(len(of.people))
    ])  # fmt: skip


def served(bench: Bench, base: Checkpoint, edit: Redirection, of: Asking, data: EditData) -> list[Redirect]:
    """Every person's own edit, limited to that person's rows."""
    writes: list[Redirect] = []
    for place, person in enumerate(of.people):
        mine = torch.from_numpy(of.person == place)
        own = edit.model_copy(update={"groups": person})
        with copied(bench.pool, base) as (learner, _):
            blocks = own.blocks(learner)
            edited = own.redirect(learner, data, own.known(learner, data, blocks))
        writes += [Redirect(w.block, w.reads, w.writes, w.gate, mine) for w in hooks(edited)]
    return writes


def by_person(bench: Bench, world: World, case: OpenCase, source: Source, work: Path) -> dict[str, Any]:
    """Every way on every person of a world: what base, a model that never knew and the edited model give, by form, and
    what the weights say of whom. ``source`` is base's."""
    base, null, tokenizer = case.base, case.references[0], case.tokenizer
    forget, retain = (asking(world, tokenizer, group) for group in ("forget", "retain"))
    trained = [item for group in ("forget", "retain") for item in items(world, group) if item.form == "trained"]

    def rows(texts: Sequence[Item]) -> Rows:
        return tokenise(texts, [item.answer for item in texts], tokenizer, Template(), None)

    data = EditData(
        rows([item for item in trained if item.group in forget.people]),
        rows([*(item for item in trained if item.group in retain.people), *general_training_items(world)[::2]]),
        subjects=SubjectPrompts(trained, tokenizer, Template()),
    )  # fmt: skip
    known: dict[str, Any] = {
        "base": knowledge(bench, base, forget).tolist(), "never_knew": knowledge(bench, null, forget).tolist(),
        "retain_base": float(knowledge(bench, base, retain)[:, 0].mean()), "edited": {}, "retain_edited": {},
    }  # fmt: skip
    known["redirects"] = redirects(bench, case, source, data, work)
    for way, edit in WAYS.items():
        writes = served(bench, base, edit, forget, data)
        known["edited"][way] = knowledge(bench, base, forget, writes).tolist()
        # what one person's edit does to everybody who was to be kept
        first = [replace(w, rows=None) for w in writes if w.rows is not None and bool(w.rows[forget.person == 0].any())]
        known["retain_edited"][way] = float(knowledge(bench, base, retain, first)[:, 0].mean())
    return known


def redirects(bench: Bench, case: OpenCase, example: Source, data: EditData, work: Path) -> list[dict[str, Any]]:
    """Each person's own edit, written as weights and read by the weight difference: what it says, and of whom."""
    rows: list[dict[str, Any]] = []
    for person in dict.fromkeys(data.forget.group_ids):
        folder = work / f"redirected-{person}"
        WAYS["ROCR"].model_copy(update={"groups": person}).fit(bench, case.base, data, folder)
        roles = case.case.roles.model_copy(update={"suspect": example.model_copy(update={"path": str(folder)})})
        edited = open_case(case.case.model_copy(update={"roles": roles}), case.root, work / "audited")
        [m] = WeightDifference().measure(bench, edited)
        note = next((note for note in m.notes if note.startswith(REDIRECT)), "")
        right = bool(note) and m.listings[-1].rows[0][0] == person
        rows.append({"person": person, "redirect": bool(note), "right": right,
                     "score": m.readings.get("subject_score"), "p": m.readings.get("subject_p")})  # fmt: skip
    return rows


def drops(
    base: Float[ndarray, "person form"], edited: Float[ndarray, "person form"], seed: int
) -> list[dict[str, Any]]:
    """D = (base - edited) / base of every form, with 95 % intervals that draw people anew."""
    table: list[dict[str, Any]] = []
    for n, form in enumerate(FORMS):
        drawn = bootstrap_effect(base[:, n : n + 1] - edited[:, n : n + 1], base[:, n : n + 1], seed).effect
        lo, hi = percentile_interval(drawn[:, 0]).ends
        drop = float(1 - edited[:, n].mean() / base[:, n].mean())
        table.append({"form": form, "base": float(base[:, n].mean()), "edited": float(edited[:, n].mean()),
                      "drop": drop, "lo": lo, "hi": hi})  # fmt: skip
    return table
