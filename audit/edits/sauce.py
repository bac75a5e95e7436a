"""SAUCE: a concept is suppressed at inference by clamping the features of a sparse dictionary that speak for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from audit.bench import Bench, GatedClamp
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.edits._edit import Concepts, Edit, EditData, Material
from audit.edits._sauce import Place, Wanted, check_read, dictionary, place_of, put_beside
from audit.schema import AuditError, Checkpoint
from saes import (
    FARRELL,
    SAEURON,
    Choice,
    Edited,
    Grid,
    ReadRows,
    Search,
    StoredDictionary,
    chosen,
    codes_of,
    gated_clamp,
    joined,
    read_rows,
)

DICTIONARY = "dictionary"
"""The folder beside the edit that holds the whole dictionary."""
Share = Annotated[float, Field(ge=0, le=1)]
Percentile = Annotated[float, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1)]


class SAUCE(Edit):
    """Clamps the features of a sparse dictionary that speak for a concept, wherever they are active: a filter.

    Every concept that the forget questions ask for (``attribute``; of texts all of them are one) has features by two
    rules, SAeUron's score of normalised means above one of ``percentiles`` and the ``counts`` that fire most often of
    those that fire on less than ``rates`` of other states; z_j <- -kappa q95_j where z_j is active, kappa of
    ``strengths``. Features and strength are those that suppress most while ``budget`` of the accuracy on retained
    questions stays, on the calibration half of the groups alone; what the dictionary does not describe stays.
    ``site``: the vision block that the language model reads, where nothing else is said (vision.22.resid_out); of texts
    a middle block; of a classifier the last but one. ``dictionary``: a folder to read; else one of ``factor`` features
    a channel with ``k`` active is trained on these rows in ``steps`` of ``tokens`` states, ``patches`` of each image.
    ``paper``: the grids and units of ``saeuron`` (codes multiplied) or ``farrell`` (clamped to absolute values).
    The model is whole without it: not one weight changes. No code of the method is public, and its preprint was
    withdrawn; this is built from the public code beside it.
    Cite: arXiv 2503.14530 (SAUCE); 2501.18052 (SAeUron); 2410.19278 (clamped features in language models).
    """

    plays: ClassVar[str] = "gated_clamp"
    needs: ClassVar[tuple[Material, ...]] = ("forget", "retain", "concepts")
    work: ClassVar[str] = "trains a dictionary on states that are read once, not the model"

    site: str = ""
    dictionary: str = ""
    factor: Count = 8
    k: Count = 8
    steps: Count = 2000
    tokens: Count = 64
    patches: Count = 20
    percentiles: tuple[Percentile, ...] = Grid().percentiles
    rates: tuple[Share, ...] = Grid().most_elsewhere
    counts: tuple[Count, ...] = Grid().counts
    strengths: tuple[float, ...] = Grid().strengths
    budget: Share = 0.99
    paper: Literal["", "saeuron", "farrell"] = ""
    seed: Annotated[int, Field(ge=0)] = 0

    def fit(self, bench: Bench, parent: Checkpoint, data: EditData, out: Path) -> Checkpoint:
        """Train or read the dictionary, choose for every concept, and write the clamp with the dictionary beside it.

        AuditError (code 2): a site that is not there or that nothing reads, a dictionary of another, or no choice that
        keeps the budget.
        """
        place = place_of(self.name, bench.open(parent), data.forget, self.site)
        rows = selection(data)
        check_read(self.name, bench, parent, data.forget, place)
        wanted = Wanted(self.dictionary, self.factor, self.k, self.steps, self.tokens, self.seed, self.patches)
        with dictionary(self.name, bench, parent, data, place, wanted) as stored:
            edited = Edited(parent, place.site, stored.coder, place.leading)
            choices = self.choices(bench, edited, rows)
            write = gated_clamp(stored.coder, place.site, joined([each.moves for each in choices]), place.leading)
            suspect = self._written(out, parent, write, self._record(stored, place, choices))
            put_beside(stored, out / DICTIONARY)
        return suspect

    @property
    def grid(self) -> Grid:
        """What is tried."""
        if self.paper:
            return {"saeuron": SAEURON, "farrell": FARRELL}[self.paper]
        return Grid(self.percentiles, self.rates, self.counts, self.strengths)

    def choices(self, bench: Bench, edited: Edited, rows: "Selection") -> tuple[Choice, ...]:
        """Features and strength of every concept, one after another. AuditError (code 2) where nothing holds the
        budget."""
        retain = read_rows(bench, edited, rows.retain)
        own = [read_rows(bench, edited, concept) for concept in rows.concepts]
        choices: list[Choice] = []
        for number, read in enumerate(own):
            elsewhere = [_apart(read, other) for n, other in enumerate(own) if n != number]
            others = [retain.described(), *elsewhere]
            search = Search(self.grid, self.budget, tuple(each.moves for each in choices))
            choice = chosen(bench, edited, (read, retain), codes_of(edited, read, others), search)
            if choice is None:
                problem = f"{self.name}: no features and strength leave {self.budget:g} of the accuracy elsewhere"
                raise AuditError(problem, "lower budget, give smaller strengths, or train a larger dictionary")
            choices.append(choice)
        return tuple(choices)

    def _written(
        self, out: Path, parent: Checkpoint, write: GatedClamp, settings: Mapping[str, str | int | float | bool]
    ) -> Checkpoint:
        if not write.bites():
            raise AuditError(f"{self.name}: the chosen features are moved by nothing", "give strengths other than 0")
        return write_edited(out, parent, self.name, settings, self.plays, write.to_delta())

    def _record(
        self, stored: StoredDictionary, place: Place, choices: tuple[Choice, ...]
    ) -> dict[str, str | int | float | bool]:
        """The settings, and what was chosen: numbers of the selection rows, in the order of the concepts' names."""
        stated = {
            name: ",".join(map(str, value)) if isinstance(value, tuple) else value
            for name, value in self.model_dump().items()
        }
        measured = {} if stored.record is None else {
            "explained variance": stored.record.held_out.fve, "active features": stored.record.held_out.l0
        }  # fmt: skip
        each = {
            "chosen rules": [choice.candidate.rule for choice in choices],
            "chosen features": [str(len(choice.candidate.features)) for choice in choices],
            "chosen strengths": [f"{choice.strength:g}" for choice in choices],
            "accuracy before, selection rows": [f"{choice.before:.3f}" for choice in choices],
            "accuracy after, selection rows": [f"{choice.after:.3f}" for choice in choices],
            "retained accuracy before, selection rows": [f"{choice.others_before:.3f}" for choice in choices],
            "retained accuracy after, selection rows": [f"{choice.others_after:.3f}" for choice in choices],
        }
        about = {"edited site": str(place.site), "concepts": len(choices), "dictionary name": stored.coder.name}
        return stated | measured | about | {name: ",".join(values) for name, values in each.items()}


class Selection(NamedTuple):
    """The rows on which a choice is made: of every concept, by its name, and of what is retained."""

    concepts: tuple[Rows, ...]
    retain: Rows


def selection(data: EditData) -> Selection:
    """The rows of the groups that choices may be made on, concepts in the order of their names; all rows of a concept
    or of what is retained that has none there."""
    concepts = data.concepts or Concepts({}, frozenset())
    names = [concepts.by_item.get(item, "") for item in data.forget.item_ids]
    each = [torch.tensor([n for n, name in enumerate(names) if name == concept]) for concept in sorted(set(names))]
    own = tuple(_of_groups(data.forget.take(index), concepts.selection) for index in each)
    return Selection(own, _of_groups(data.retain, concepts.selection))


def _of_groups(rows: Rows, groups: frozenset[str]) -> Rows:
    index = [n for n, group in enumerate(rows.group_ids) if group in groups]
    return rows.take(torch.tensor(index)) if index else rows


def _apart(read: ReadRows, other: ReadRows) -> Float[Tensor, "state d"]:
    """The states of another concept's rows that are of no group of this one: a picture may show both."""
    groups = set(read.rows.group_ids)
    return other.described(torch.tensor([group not in groups for group in other.rows.group_ids]))
