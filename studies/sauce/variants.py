"""One concept in one model: what is chosen to suppress it, and what stands in the place of that choice.

States at the block that the language model reads are computed once; whatever acts on them is resumed from there.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from audit.bench import Bench, GatedClamp
from audit.case import OpenCase, Rows
from audit.edits import Choice, edit_data
from audit.schema import Checkpoint, Read, Site, Texts
from audit.zoo import IGNORANCE
from saes import Choice as Chosen
from saes import (
    ConceptCodes,
    Edited,
    Grid,
    Moves,
    ReadRows,
    Search,
    answers,
    chosen,
    codes_of,
    gated_clamp,
    joined,
    matched_moves,
    read_rows,
)
from studies.sauce.asked import Questions, accuracies, flips
from studies.sauce.design import BY_WEIGHTS, DRAWS

GRID = Grid()


class Suppressed(NamedTuple):
    """A concept with what was chosen for it, and its questions with the states that were read of them."""

    concept: str
    choice: Chosen | None
    codes: ConceptCodes
    about: Questions
    read: Mapping[str, ReadRows]
    away: Tensor

    @property
    def moves(self) -> Moves:
        """What is moved. AssertionError where nothing held the budget."""
        assert self.choice is not None, "nothing holds the budget for this concept"
        return self.choice.moves


def suppressed(bench: Bench, edited: Edited, case: OpenCase, concept: str, about: Questions) -> Suppressed:
    """Choose features and a strength for a concept on a case that edits see, and read the states of what is asked."""
    own, retain = (read_rows(bench, edited, case.rows(Texts(cohort=cohort))) for cohort in ("forget", "retain"))
    codes = codes_of(edited, own, [retain.described()])
    choice = chosen(bench, edited, (own, retain), codes, Search(GRID))
    read = {name: read_rows(bench, edited, rows) for name, rows in about.every().items()}
    return Suppressed(concept, choice, codes, about, read, retain.described().mean(0))


def by_states(bench: Bench, edited: Edited, of: Suppressed, other: Suppressed) -> dict[str, Any]:
    """Everything that acts on states: the choice, and its controls."""
    base = _right(bench, edited, of, ())
    rows: dict[str, Any] = {"base": _told(of, base, base)}
    if of.choice is None:
        return rows
    features = of.choice.candidate.features
    ablated = Moves(features, *(torch.zeros(len(features)) + x for x in (0.0, -1.0, 0.0)))
    rows["SAUCE"] = _told(of, _right(bench, edited, of, (of.moves,)), base) | _chosen(of.choice)
    rows["features set to 0"] = _told(of, _right(bench, edited, of, (ablated,)), base)
    rows["random features"] = _mean([
        _told(of, _right(bench, edited, of, (moves,)), base)
        for moves in matched_moves(edited, of.codes, of.choice, GRID, DRAWS, seed=0)
    ])  # fmt: skip
    if other.choice is not None:
        rows["another concept's features"] = _told(of, _right(bench, edited, of, (other.moves,)), base)
    rows["detector: patches replaced by the mean"] = _told(of, _replaced(bench, edited, of), base)
    return rows


def together(bench: Bench, edited: Edited, each: list[Suppressed]) -> dict[str, Any]:
    """Several concepts at once: the mean over them of how they are answered."""
    moves = tuple(of.moves for of in each)
    return _mean([_told(of, _right(bench, edited, of, moves), _right(bench, edited, of, ())) for of in each])


def by_edits(bench: Bench, base: Checkpoint, case: OpenCase, of: Suppressed, out: Path) -> dict[str, Any]:
    """What changes weights, and steering: fitted on a case that edits see, open questions alone of the concept."""
    plain = {name: right_of(bench, base, rows) for name, rows in of.about.every().items()}
    results: dict[str, Any] = {}
    for name, edit in BY_WEIGHTS.items():
        data = edit_data(case, edit.needs, Choice(refusals=IGNORANCE))
        model = edit.fit(bench, base, data, out / name.replace(" ", "_"))
        with bench.hold(model):
            right = {part: right_of(bench, model, rows) for part, rows in of.about.every().items()}
        results[name] = _told(of, right, plain)
    return results


def right_of(bench: Bench, model: Checkpoint, rows: Rows) -> Tensor:
    """Which rows a model answers right: every content token is the likeliest."""
    read = Read(site=Site(part="logits"), at="key", reduce="rank")
    rank = bench.run(model, rows, (read,))[read]
    missed = torch.zeros(len(rows)).index_add(0, rows.targets("key")[0], (rank > 0).float())
    return missed == 0


def _right(bench: Bench, edited: Edited, of: Suppressed, moves: tuple[Moves, ...]) -> dict[str, Tensor]:
    write = gated_clamp(edited.coder, edited.site, joined(moves), edited.leading) if moves else None
    return {name: answers(bench, edited, read, write).right for name, read in of.read.items()}


def _replaced(bench: Bench, edited: Edited, of: Suppressed) -> dict[str, Tensor]:
    """The same gate, and in a patch's place where it opens the mean patch of pictures without the concept."""
    gate: GatedClamp = gated_clamp(edited.coder, edited.site, of.moves, edited.leading)

    def away(read: ReadRows) -> ReadRows:
        fires = (gate.codes(read.states) != 0).any(-1, keepdim=True) & read.own[..., None]
        return read._replace(states=torch.where(fires, of.away, read.states))

    return {name: answers(bench, edited, away(read)).right for name, read in of.read.items()}


def _told(of: Suppressed, right: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> dict[str, Any]:
    return {**accuracies(of.about, right), "flips": flips(of.about, right, base)}


def _chosen(choice: Chosen) -> dict[str, Any]:
    rule, setting = choice.candidate.rule, ", ".join(f"{x:g}" for x in choice.candidate.setting)
    return {"features": len(choice.candidate.features), "strength": choice.strength, "rule": f"{rule} {setting}"}


def _mean(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: round(sum(row[name] for row in rows) / len(rows), 4) for name in rows[0]}
