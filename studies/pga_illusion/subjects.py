"""What is edited and read: a case, its forget people in two halves, and the texts that each is paired with."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from audit.case import OpenCase, Part, Rows, load_case, matched, open_case, stacked, tokenise
from audit.edits import PGA, Edit, EditData, PGAProjection
from audit.schema import Texts

Pairing = Literal["unrelated", "matched"]
TruthLabel = Literal["edited", "fresh"]
PARTS: dict[TruthLabel, Part] = {"edited": "calibration", "fresh": "audit"}
SEQUENCES = 32
"""Texts a half: the published edits were fitted on 7 to 24."""
FORGET, RETAIN = Texts(cohort="forget"), Texts(cohort="retain")


class Paired(NamedTuple):
    """Pairs: row 2i is a text that base learned, row 2i + 1 the other; ``person`` is whose text it is."""

    rows: Rows
    person: tuple[str, ...]


class Edited(NamedTuple):
    """One edit and the pairing that it was fitted with."""

    edit: Edit
    pairing: Pairing


def edits(steps: int) -> Mapping[str, Edited]:
    """Every variant, on unrelated pairs (as published) and on matched ones. CE is never taken of matched alternates:
    it would teach them."""
    by_name: dict[str, Edited] = {}
    for pairing, controls in (("unrelated", "retain"), ("matched", "relabelled")):
        ce = 1.0 if pairing == "unrelated" else 0.0
        trained = PGA.model_validate({"controls": controls, "ce": ce, "steps": steps, "lr": 1e-3})
        variants: dict[str, Edit] = {"training loss": trained}
        for name, method, rank in (("direction", "direction", 1), ("md k=2", "moments", 2), ("md k=3", "moments", 3)):
            variants[name] = PGAProjection.model_validate({"method": method, "rank": rank, "controls": controls})
        variants["refit loop"] = PGAProjection.model_validate({"method": "refit", "rank": 4, "controls": controls})
        by_name |= {f"{name}, {pairing}": Edited(edit, pairing) for name, edit in variants.items()}
    return by_name


def opened(case: Path, out: Path) -> OpenCase:
    """The case of base itself, whose people are split once: one half is edited, the other is fresh."""
    return open_case(load_case(case), case.parent, out)


def _dealt(groups: tuple[str, ...], at_most: int = SEQUENCES) -> torch.Tensor:
    """At most so many texts, dealt to the people in turn."""
    turn: dict[str, int] = {}
    ranked: list[tuple[int, int]] = []
    for place, name in enumerate(groups):
        ranked.append((turn.setdefault(name, 0), place))
        turn[name] += 1
    return torch.tensor(sorted(place for _, place in sorted(ranked)[:at_most]))


def material(case: OpenCase, pairing: Pairing, pool: TruthLabel) -> EditData:
    """What an edit is fitted on (``edited``) or what it is read on afresh: forget rows, and the rows beside them."""
    part = PARTS[pool]
    retain = case.rows(RETAIN, part)
    if pairing == "unrelated":
        forget = case.rows(FORGET, part)
        return EditData(forget.take(_dealt(forget.group_ids)), retain)
    matches = matched(case.items(FORGET, part), case.case.seed).matches
    matches = tuple(matches[i] for i in _dealt(tuple(m.item.group for m in matches)).tolist())
    items = [m.item for m in matches]

    def rows(answers: list[str]) -> Rows:
        words = case.function_words.words
        return tokenise(items, answers, case.tokenizer, case.case.template, case.max_length, words)

    return EditData(rows([m.learned for m in matches]), retain, None, rows([m.others[0] for m in matches]))


def pairs(case: OpenCase, pairing: Pairing, pool: TruthLabel) -> Paired:
    """The pairs of a pool, as the edit pairs them."""
    data = material(case, pairing, pool)
    n = len(data.forget)
    other = data.retain if data.relabelled is None else data.relabelled
    order = torch.stack([torch.arange(n), n + torch.arange(n) % len(other)], 1).flatten()
    return Paired(stacked([data.forget, other]).take(order), data.forget.group_ids)
