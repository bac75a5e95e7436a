"""The item tables beside a report: verified by the hash that the report states, capped, and paired by item.

A table holds raw text, the very data that should be gone; what is shown of it is masked unless it is asked for.
"""

import hashlib
from collections.abc import Sequence
from difflib import SequenceMatcher
from statistics import fmean, pstdev
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from audit.schema import AuditError, ExitCode, Table, axis_column
from audit.wording import visible
from dashboards.vault import MB, Vault, shown

CAP, ROWS, UNPACKED = 512 * MB, 3_000_000, 1500 * MB
"""The largest file, the most rows and the most bytes once unpacked that are read."""
TEXT: Final = 2000
"""Characters of a text that are kept; the rest is only counted."""
NEEDED: Final = ("item", "group", "role", "prompt", "target", "output", "score")
WHOLE: Final = -1.0
"""The layer of a score that belongs to the whole model."""


class Row(NamedTuple):
    """One item in every role: texts as they are, scores by role, and how far the suspect stands from the reference."""

    item: str
    group: str
    prompt: str
    target: str
    output: dict[str, str]
    score: dict[str, float]
    z: float | None
    copied: int


class Sheet(NamedTuple):
    """The items of one table at one layer."""

    rows: tuple[Row, ...]
    layer: float


def layers(table: pa.Table) -> tuple[float, ...]:
    """The layers (or steps, or bit widths) that a table has scores of."""
    axis = axis_column(table.column_names)
    if axis is None:
        return (WHOLE,)
    return tuple(sorted(float(x) for x in pc.unique(table[axis]).to_pylist() if x is not None)) or (WHOLE,)


def read(vault: Vault, run: str, table: Table) -> pa.Table:
    """A table, verified. AuditError (code 3) if its bytes are not those of the report, or it is too big to open."""
    path = f"{run}/{table.path}"
    data = vault.read(path, CAP)
    digest = hashlib.sha256(data).hexdigest()
    if digest != table.sha256:
        raise AuditError(
            f"{shown(path)} does not hash to what the report states: expected {table.sha256}, found {digest}",
            "its items are withheld; restore the file, or make the audit again",
            ExitCode.INTEGRITY,
        )
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        held = [file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups)]
        if file.metadata.num_rows > ROWS or sum(held) > UNPACKED:
            raise _broken(path, f"{file.metadata.num_rows} rows of {sum(held)} bytes are too big to open here")
        if lacking := [name for name in NEEDED if name not in file.schema_arrow.names]:
            raise _broken(path, f"it lacks the columns {', '.join(lacking)}")
        axis = axis_column(file.schema_arrow.names)
        return _shortened(file.read(columns=[*NEEDED, *([axis] if axis else [])]))
    except (pa.ArrowException, OSError) as error:
        raise _broken(path, f"it is no table: {visible(str(error), 200)}") from None


def _broken(path: str, reason: str) -> AuditError:
    return AuditError(f"{shown(path)} cannot be shown: {reason}", "open it by hand", ExitCode.INTEGRITY)


def _shortened(table: pa.Table) -> pa.Table:
    """Texts cut to what is ever shown, before they become Python strings."""
    for i, name in enumerate(table.column_names):
        if name not in ("score", axis_column(table.column_names)):
            cut = pc.utf8_slice_codeunits(table[name].cast(pa.large_string()), 0, TEXT)
            table = table.set_column(i, name, cut)
    return table.set_column(table.column_names.index("score"), "score", table["score"].cast(pa.float64()))


def sheet(table: pa.Table, layer: float) -> Sheet:
    """The items at one layer, one row an item with its scores in every role, in the order of the table."""
    if axis := axis_column(table.column_names):
        table = table.filter(pc.equal(table[axis].cast(pa.float64()), layer))
    texts: dict[str, dict[str, str]] = {}
    outputs: dict[str, dict[str, str]] = {}
    scores: dict[str, dict[str, float]] = {}
    columns = [table[name].to_pylist() for name in NEEDED]
    for item, group, role, prompt, target, output, score in zip(*columns, strict=True):
        texts.setdefault(item, {"group": group or "", "prompt": prompt or "", "target": target or ""})
        # Of several references the first is the null, as in every test.
        outputs.setdefault(item, {}).setdefault(role or "", output or "")
        if score is not None:
            scores.setdefault(item, {}).setdefault(role or "", score)
    known = [s["reference"] for s in scores.values() if "reference" in s]
    centre, spread = (fmean(known), pstdev(known)) if len(known) > 1 else (0.0, 0.0)
    rows = []
    for item, fields in texts.items():
        score = scores.get(item, {})
        z = (score["suspect"] - centre) / spread if spread > 0 and "suspect" in score else None
        span = copied(fields["target"], outputs[item].get("suspect", ""))
        rows.append(Row(item or "", **fields, output=outputs[item], score=score, z=z, copied=span))
    return Sheet(tuple(rows), layer)


# ---- copied words -----------------------------------------------------------------------------------------------
class Span(NamedTuple):
    """A piece of an output, and whether the target holds it word for word."""

    text: str
    copied: bool


def spans(target: str, output: str, least: int = 2) -> list[Span]:
    """An output in pieces: marked where ``least`` words or more (or the whole target) stand in the target too."""
    wanted, words = target.split(), output.split()
    low = min(least, len(wanted)) or 1
    matcher = SequenceMatcher(None, [w.casefold() for w in words], [w.casefold() for w in wanted], autojunk=False)
    pieces, end = list[Span](), 0
    for start, _, length in matcher.get_matching_blocks():
        if length >= low:
            if start > end:
                pieces.append(Span(" ".join(words[end:start]), False))
            pieces.append(Span(" ".join(words[start : start + length]), True))
            end = start + length
    return [*pieces, Span(" ".join(words[end:]), False)] if end < len(words) else pieces


def copied(target: str, output: str) -> int:
    """The length in words of the longest run of the target that an output holds."""
    if not output or not target:
        return 0
    return max((len(piece.text.split()) for piece in spans(target, output, 1) if piece.copied), default=0)


# ---- masks ------------------------------------------------------------------------------------------------------
def masked(text: str) -> str:
    """What stands for a text that is not shown: how many words it has, and nothing else."""
    words = len(text.split())
    return "‹empty›" if not words else f"‹masked, {words} {'word' if words == 1 else 'words'}›"


def as_shown(text: str, reveal: bool) -> str:
    """A text as the page may show it."""
    return visible(text, TEXT) if reveal else masked(text)


def matching(rows: Sequence[Row], search: str, low: float, high: float) -> list[Row]:
    """The rows whose suspect score lies within the bounds and whose texts hold the words searched for."""
    wanted = search.casefold().strip()
    within = [r for r in rows if "suspect" not in r.score or low <= r.score["suspect"] <= high]
    if not wanted:
        return within
    return [r for r in within if any(wanted in text.casefold() for text in (r.prompt, r.target, *r.output.values()))]
