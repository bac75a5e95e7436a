"""Scores of a case's rows in every model that plays a part: per item, then averaged over each person.

The unit of replication is the person, so everything that is tested is a person's mean. Models are compared on the same
items: an item that any of them cannot score drops out for all of them, and is counted.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.bench import Bench
from audit.case import OpenCase, Rows, row_means
from audit.checkpoints import model_config
from audit.schema import Case, Checkpoint, Count, Item, Read, Role, Site, Table, Texts

LOGITS = Site(part="logits")
KEY_LOGPROB = Read(site=LOGITS, at="key", reduce="logprob")
KEY_RANK = Read(site=LOGITS, at="key", reduce="rank")
ANSWER_LOGPROB = Read(site=LOGITS, at="answer", reduce="logprob")


class CaseModels(NamedTuple):
    """Who plays what. ``null`` never knew (a reference, else the ancestor); ``floors`` are further such references."""

    base: Checkpoint
    suspect: Checkpoint
    null: Checkpoint | None
    null_role: Role | None
    floors: tuple[Checkpoint, ...]

    def by_name(self) -> dict[str, Checkpoint]:
        """Every model under a name of its own: base, suspect, null, floor0, floor1, ..."""
        null = {} if self.null is None else {"null": self.null}
        floors = {f"floor{i}": floor for i, floor in enumerate(self.floors)}
        return {"base": self.base, "suspect": self.suspect} | null | floors

    def role(self, name: str) -> str:
        """The role of a named model, as tables show it."""
        return {"base": "base", "suspect": "suspect", "null": self.null_role or "null"}.get(name, "reference")


def case_models_of(case: OpenCase) -> CaseModels:
    """The models of a case, by the part they play in an effect."""
    null = case.null
    return CaseModels(
        base=case.checkpoint("base"),
        suspect=case.checkpoint("suspect"),
        null=None if null is None else case.checkpoint(*null),
        null_role=None if null is None else null[0],
        floors=tuple(case.checkpoint("reference", i) for i in case.floors),
    )


def models_of(case: Case) -> list[tuple[Role, int]]:
    """Role and number of every model that :func:`case_models_of` gives a part, before the case is opened."""
    null, floors = case.roles.null, case.roles.floors
    return [("base", 0), ("suspect", 0), *([] if null is None else [null]), *(("reference", i) for i in floors)]


def every_variant(texts: Texts, most: int) -> list[Texts]:
    """The paraphrased and the perturbed answers of these texts, whether or not the data has them."""
    paraphrased = texts.model_copy(update={"answer": "paraphrased"})
    return [paraphrased, *(texts.model_copy(update={"answer": "perturbed", "index": i}) for i in range(most))]


def n_blocks(case: OpenCase) -> int:
    """How many blocks base has, by its config (nothing is loaded)."""
    return model_config(case.base).blocks


def width(model: Checkpoint) -> int:
    """How wide a model's residual stream is, by its config (nothing is loaded)."""
    return model_config(model).width


class PersonRows(NamedTuple):
    """The rows of one set of texts, their items, and the person that each row belongs to."""

    rows: Rows
    items: tuple[Item, ...]
    people: tuple[str, ...]
    person: Int[ndarray, " row"]


def person_rows_of(case: OpenCase, texts: Texts) -> PersonRows:
    """The audited rows of these texts. Raises AuditError where there are none."""
    rows = case.rows(texts)
    people, person = np.unique(np.array(rows.group_ids), return_inverse=True)
    by_id = {item.id: item for item in case.items(texts)}
    return PersonRows(rows, tuple(by_id[i] for i in rows.item_ids), tuple(str(p) for p in people), person.reshape(-1))


def key_logprob(bench: Bench, checkpoint: Checkpoint, rows: Rows) -> Float[ndarray, " row"]:
    """Mean log-probability (nats) of each row's content tokens in the model's output."""
    return row_means(bench.run(checkpoint, rows, (KEY_LOGPROB,))[KEY_LOGPROB], rows)


def aligned(values: Float[ndarray, " other"], source: Sequence[str], target: Sequence[str]) -> Float[ndarray, " row"]:
    """Values of ``source`` item ids in the order of ``target`` item ids; NaN where an item has none."""
    by_id = dict(zip(source, values.tolist(), strict=True))
    return np.array([by_id.get(i, np.nan) for i in target])


def variants(case: OpenCase, texts: Texts, most: int) -> list[Rows]:
    """The rows of these texts with answer variant 0, 1, ... (at most ``most`` of them), as far as the data has them."""
    by_variant: list[Rows] = []
    for index in range(most):
        numbered = texts.model_copy(update={"index": index})
        if not case.has(numbered):
            break
        by_variant.append(case.rows(numbered))
    return by_variant


class ModelScores(NamedTuple):
    """Person means [person layer] per named model over the items that all of them score, and how many those are."""

    people: Mapping[str, Float[ndarray, "person layer"]]
    n: Count


def by_person(sheet: PersonRows, scores: Mapping[str, Float[ndarray, "row layer"]]) -> ModelScores:
    """Average each model's item scores over people.

    An item without content tokens (or variants) in the texts is unscored, one for which a model's number is not finite
    is errored; both leave every model's mean. A person without any item left drops out.
    """
    stack = np.concatenate(list(scores.values()), axis=1)
    absent, complete = np.isnan(stack).sum(1) == stack.shape[1], np.isfinite(stack).sum(1) == stack.shape[1]
    n = Count(scored=int(complete.sum()), errored=int((~complete & ~absent).sum()), unscored=int(absent.sum()))
    member = np.zeros((len(sheet.people), len(complete)))
    member[sheet.person[complete], np.flatnonzero(complete)] = 1.0
    member = member[member.sum(1) > 0]
    member /= member.sum(1, keepdims=True)
    people = {name: member[:, complete] @ score[complete] for name, score in scores.items()}
    return ModelScores(people, n)


def item_table(
    case: OpenCase,
    name: str,
    sheet: PersonRows,
    scores: Mapping[str, Float[ndarray, "row place"]],
    roles: Mapping[str, str],
    axis: str = "",
) -> Table:
    """Write item scores beside the report: one line per item, model and place on the axis.

    ``axis`` names what the columns of the scores are (a layer, a site, a precision); without one they are one column,
    and its place is -1.

    Items that a model could not score are left out here and counted in the measurement.
    """
    assert axis or all(score.shape[1] == 1 for score in scores.values()), "several scores of an item lie on an axis"
    ids, groups = list(sheet.rows.item_ids), list(sheet.rows.group_ids)
    fixed = [(i, g, s.question, s.key or s.answer) for i, g, s in zip(ids, groups, sheet.items, strict=True)]
    lines = [
        (
            *fixed[row][:2],
            roles[model],
            *fixed[row][2:],
            "",
            float(score[row, place]),
            place if axis else -1,
        )
        for model, score in scores.items()
        for place in range(score.shape[1])
        for row in np.flatnonzero(np.isfinite(score[:, place])).tolist()
    ]
    names = ("item", "group", "role", "prompt", "target", "output", "score", "axis_value")
    columns = {name: [line[i] for line in lines] for i, name in enumerate(names)}
    return case.write_table(name, columns, axis)
