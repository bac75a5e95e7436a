"""Whom a rank-one edit of the weights is about, as the weight difference tells it: notes, readings and a listing."""

from collections.abc import Mapping
from typing import NamedTuple

from audit.probing import (
    AuditError,
    Bench,
    Difference,
    Listing,
    OpenCase,
    Spike,
    SubjectMatches,
    WeightEdit,
    edited_subjects,
    number,
    p_value,
    value_map,
)

REDIRECT = "reversible rank-one redirect"
ONE_BLOCK = "rank-one edit of one block, about nobody who is told"
ADJACENT = "rank-one edits of adjacent blocks, about nobody who is told"
SCATTERED = "rank-one edits of blocks that are not adjacent"
_SHOWN = 10


class RankOneEdit(NamedTuple):
    """What was found; all empty where the difference is no rank-one edit of value vectors.

    ``group`` is told, ``first`` fits best, whether it is told or not.
    """

    finding: str = ""
    group: str = ""
    first: str = ""
    notes: tuple[str, ...] = ()
    readings: dict[str, float] = {}
    listings: tuple[Listing, ...] = ()


def rank_one_edit(bench: Bench, case: OpenCase, edit: WeightEdit) -> RankOneEdit:
    """The finding about an edit that changed nothing but matrices, each in one direction."""
    if edit.kind() != "rank-one" or case.modality != "text":
        return RankOneEdit()
    in_blocks = [(place.block, d) for d, place in edit.changed if place.part == "blocks"]
    spiked = {block: d for block, d in in_blocks if block is not None}
    try:
        spikes = _spikes(bench, case, spiked)
        matches = edited_subjects(bench, case, case.suspect, spikes)
    except AuditError as error:
        return RankOneEdit(notes=(f"rank-one changes, and nobody is told whom they are about: {error.what}",))
    return _finding(spikes, matches)


def _spikes(bench: Bench, case: OpenCase, spiked: Mapping[int, Difference]) -> list[Spike]:
    """The directions over hidden units. AuditError where a change is not of value vectors."""
    wrapper = bench.open(case.suspect)
    spikes: list[Spike] = []
    for block, d in sorted(spiked.items()):
        values = value_map(wrapper, block)
        assert d.spectrum is not None, "it is a spike"
        if values.names != (d.name,) or d.expert is not None:
            problem = f"{d.name} is not the matrix through which the MLP of block {block} writes to the stream"
            raise AuditError(problem, "read the listing of parameters")
        spikes.append(Spike(block, d.spectrum.left if values.tensors[d.name].by_unit else d.spectrum.right))
    return spikes


def _finding(spikes: list[Spike], matches: SubjectMatches) -> RankOneEdit:
    blocks, subject, first = [spike.block for spike in spikes], matches.subject, matches.matches[0]
    if blocks[-1] - blocks[0] != len(blocks) - 1:
        finding = SCATTERED
    elif subject is not None:
        finding = REDIRECT
    else:
        finding = ONE_BLOCK if len(blocks) == 1 else ADJACENT
    where = f"block {blocks[0]}" if len(blocks) == 1 else f"blocks {', '.join(map(str, blocks))}"
    score = f"score {number(first.score)}, {number(matches.margin)} ahead of the next, {p_value(matches.p)} over "
    score += f"{matches.tokens} other tokens"
    whom = f"it is about the group that is listed first (of {first.cohort}; {score})"
    nobody = f"no name of the case is told from other tokens (best {score})"
    note = f"{finding}: the value vectors of {where} were changed by one direction each; "
    return RankOneEdit(
        finding, "" if subject is None else subject.group, first.group, (note + (nobody if subject is None else whom),),
        {"subject_score": first.score, "subject_margin": matches.margin, "subject_p": matches.p},
        (_listing(matches),),
    )  # fmt: skip


def _listing(matches: SubjectMatches) -> Listing:
    blocks = sorted(matches.matches[0].ranks)
    columns = ("group", "cohort", "score", *(f"rank at block {block}" for block in blocks))
    rows = tuple(
        (match.group, match.cohort, match.score, *(match.ranks[block] + 1 for block in blocks))
        for match in matches.matches[:_SHOWN]
    )
    title = "groups by how well their names fit the direction"
    return Listing(title=title, columns=columns, rows=rows, of=len(matches.matches), quoted=("group",))
