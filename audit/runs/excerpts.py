"""Excerpts: of every table of items a few lines, chosen by a rule that does not choose what suits anybody.

The items with the highest suspect's score say what the finding rests on; as many drawn at random, by the seed of the
case, say what the others look like. Both are quoted through a mask; only a derived report shows the texts.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from audit.case import asked_pictures, stored_pictures
from audit.runs.masking import KEY, Mask, key_of, people_renamed, renamed
from audit.runs.quoted_words import kept_words
from audit.runs.report_file import report_id
from audit.runs.thumbnails import thumbnail
from audit.schema import (
    SCHEMA_VERSION,
    AuditError,
    Evidence,
    Excerpt,
    Excerpts,
    ExitCode,
    Measurement,
    Missing,
    Pictured,
    Quote,
    Report,
    Shown,
    Table,
    axis_column,
)
from audit.stats import significant
from audit.storage import hashed_columns

EACH: Final = 5
Quoting = Callable[[str], Quote]
Picturing = Callable[[str], Pictured | None]
"""An item's image by its id; None where it has none."""


class Line(NamedTuple):
    """One line of an item table."""

    item: str
    group: str
    role: str
    prompt: str
    target: str
    output: str
    score: float
    axis_value: int


COLUMNS: Final = frozenset(Line._fields) - {"axis_value"}


class Imaged(NamedTuple):
    """How the images of items are quoted.

    ``classed``: the items are images and no more; their classes are no texts of the data. ``unpictured``: the tables,
    by path, whose items are known to have none.
    """

    quote: Picturing
    classed: bool = False
    unpictured: frozenset[str] = frozenset()


class Quoted(NamedTuple):
    """How an item is quoted: its texts, and its image where it has one."""

    text: Quoting
    images: Imaged | None = None

    def __call__(self, line: Line) -> dict[str, Quote]:
        """The quotes of a line by the fields of an excerpt."""
        names = {name: self.text(getattr(line, name)) for name in ("item", "group")}
        image = None if self.images is None else self.images.quote(line.item)
        if image is not None and self.images is not None and self.images.classed:
            return names | {"prompt": image, "target": Shown(text=line.target), "output": Shown(text=line.output)}
        texts = {name: self.text(getattr(line, name)) for name in ("prompt", "target", "output")}
        return names | texts | ({} if image is None else {"picture": image})


def choose(
    evidence: Sequence[Evidence], folder: Path, seed: int, quote: Quoting, images: Imaged | None = None
) -> tuple[Excerpts, ...]:
    """Excerpts of every item table of these findings that says of its items what an excerpt shows.

    AuditError (code 3) if a table is missing or is not the one that the findings state.
    """
    by_table: dict[str, list[Measurement]] = {}
    for m in (e.measurement for e in evidence):
        if not isinstance(m.items, Missing) and set(m.items.columns) >= COLUMNS:
            by_table.setdefault(m.items.path, []).append(m)
    texts, unpictured = Quoted(quote), frozenset[str]() if images is None else images.unpictured
    return tuple(
        _of(path, measured, folder, seed, texts if path in unpictured else Quoted(quote, images))
        for path, measured in by_table.items()
    )


def unmasked(report: Report, folder: Path) -> Report:
    """The same report with its excerpts, the groups that stand out and the quoted words of its listings in clear, as a
    document of its own that names its parent. Groups and words stay masked where the key of the run folder is not
    there."""
    seed = report.plan.case.seed
    shown = choose(report.evidence, folder, seed, lambda text: Shown(text=text), _images(report, folder))
    clear = _clear(report.evidence, folder)
    evidence = tuple(
        e.model_copy(update={"measurement": renamed(e.measurement, lambda mark: clear.get(mark, mark))})
        for e in report.evidence
    )
    people = people_renamed(report.verdict.people, lambda mark: clear.get(mark, mark))
    changes = {
        "excerpts": shown, "masked": False, "parent": report.report_id, "schema_version": SCHEMA_VERSION,
        "evidence": evidence, "verdict": report.verdict.model_copy(update={"people": people}),
    }  # fmt: skip
    derived = report.model_copy(update=changes)
    return derived.model_copy(update={"report_id": report_id(derived)})


def _images(report: Report, folder: Path) -> Imaged | None:
    """Quotes an image as a small picture, from the data files that the report states, looked for where the command was
    given and beside the run folder; masked where these are not found. None where no item has one."""
    excerpts = [x for table in report.excerpts for x in table.items]
    classed = any(isinstance(x.prompt, Pictured) for x in excerpts)
    if not classed and all(x.picture is None for x in excerpts):
        return None
    texts = frozenset(t.table for t in report.excerpts if not classed and all(x.picture is None for x in t.items))
    mask = Mask(key_of(folder)) if (folder / KEY).is_file() else None
    roots = (Path.cwd(), *folder.resolve().parents)
    case, hashes = report.plan.case, report.plan.data_sha256
    pixels = stored_pictures(case.data, hashes, roots) if classed else asked_pictures(case, hashes, roots)

    def pictured(item: str) -> Pictured | None:
        if item not in pixels:
            return None if pixels and not classed else Pictured(mark="")
        mark = "" if mask is None else mask.image(pixels[item]).mark
        return Pictured(mark=mark, png=thumbnail(pixels[item]))

    return Imaged(pictured, classed, texts)


def _clear(evidence: Sequence[Evidence], folder: Path) -> dict[str, str]:
    """The words that listings quote and the groups of all item tables of these findings, by their marks; none without
    the key of the run folder."""
    if not (folder / KEY).is_file():
        return {}
    mask = Mask(key_of(folder))
    tables = {m.items.path: m.items for m in (e.measurement for e in evidence) if not isinstance(m.items, Missing)}
    lines = [read_table(table, folder) for table in tables.values() if set(table.columns) >= COLUMNS]
    groups = {str(mask(group)): group for group in {line.group for table in lines for line in table}}
    return kept_words(folder, mask) | groups


def read_table(table: Table, folder: Path) -> tuple[Line, ...]:
    """The lines of an item table. AuditError (code 3) if it is not there or hashes to something else."""
    path = folder / table.path
    columns = hashed_columns(path, table.sha256, Line._fields[:-1])
    if columns is None:
        state = "is not what the report states" if path.is_file() else "is missing"
        raise AuditError(f"{path} {state}", "restore the run folder, or run the audit again", ExitCode.INTEGRITY)
    rows = len(columns["item"])
    axis = axis_column(columns)
    places = [-1] * rows if axis is None else columns[axis]
    fields = [columns[name] for name in Line._fields[:-1]]
    return tuple(Line._make(values) for values in zip(*fields, places, strict=True))


def _of(path: str, measured: Sequence[Measurement], folder: Path, seed: int, quote: Quoted) -> Excerpts:
    table = measured[0].items
    assert not isinstance(table, Missing)
    lines = read_table(table, folder)
    place = _place(measured[0], lines)
    there = [line for line in lines if line.axis_value == place]
    suspect = [line for line in there if line.role == "suspect"]
    ranked = sorted(suspect, key=lambda line: (-line.score, line.item))
    top, rest = ranked[:EACH], sorted(ranked[EACH:], key=lambda line: line.item)
    drawn = np.random.default_rng([seed, *path.encode()]).permutation(len(rest))[:EACH]
    picked = [("highest", line) for line in top] + [("random", rest[i]) for i in sorted(drawn)]
    rule = f"the {EACH} items with the highest score of the suspect, and {EACH} of the others at random, seed {seed}"
    excerpts: list[Excerpt] = []
    for chosen, line in picked:
        texts = quote(line)
        scores = _scores(there, line.item)
        where = place if place >= 0 else None
        excerpts.append(Excerpt.model_validate({"chosen": chosen, **texts, "layer": where, "scores": scores}))
    names = tuple(f"{m.probe}.{m.name}" for m in measured)
    return Excerpts(table=path, findings=names, rule=rule, of=len(suspect), items=tuple(excerpts),
                    axis=table.axis)  # fmt: skip


def _place(m: Measurement, lines: Sequence[Line]) -> int:
    """Which lines of a table with an axis are compared: at the value's layer, else the last; -1 without an axis."""
    places = sorted({line.axis_value for line in lines})
    return m.layer if m.layer is not None and m.layer in places else places[-1] if places else -1


def _scores(lines: Sequence[Line], item: str) -> dict[str, float]:
    """What every role scores on one item; of several references the first, which is the null."""
    scores: dict[str, float] = {}
    for line in lines:
        if line.item == item:
            scores.setdefault(line.role, significant(line.score, 6))
    return scores
