"""The tables of the page, from the results."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from audit.stats import clopper_pearson, upper_bound
from audit.storage import write_atomic
from studies.pages import with_section
from studies.suppression_or_deletion.models import NEVER_SAW, SUPPRESSED

PAGE: Final = Path(__file__).parent / "README.md"
START, END = "<!-- tables: written by study.py -->", "<!-- end of the tables -->"
KINDS: Final = {"vit": "Digits, vision transformers", "resnet": "Digits, residual networks",
                "language": "Invented people, language models"}  # fmt: skip
PUBLISHED, DONOR = "sae_restoration.published_restoration", "sae_restoration.donor_restoration"
REVERSE, DICTIONARY = "reverse_patch.depth_profile_all", "sae_restoration.dictionary_reverse"
FEW_SHOT, TABLE = "sae_restoration.few_shot_readout", "sae_restoration.decision_table"
JUDGED: Final = {"reverse patch": REVERSE, "the dictionary": DICTIONARY}
NOTHING_RESTORED = 0.05
ALPHAS = (1, 5, 10)

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A column of a table: its head, and what stands in it for the models of one method."""

    head: str
    cell: Callable[[Sequence[Row]], str]


def write_page(results: Mapping[str, Any]) -> None:
    """Put the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    write_atomic(PAGE, with_section(page, "\n".join([START, "", *_lines(results), END])).encode())


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    every: list[Row] = list(results["subjects"].values())
    for kind, title in KINDS.items():
        rows = [row for row in every if row["kind"] == kind]
        if not rows:
            continue
        worlds, targets = {row["world"] for row in rows}, {(row["world"], row["target"]) for row in rows}
        yield f"### {title}: {len(worlds)} worlds, {len(targets)} targets"
        yield ""
        yield "As published: accuracy on what was forgotten, mean over targets."
        yield ""
        yield from _table(rows, PUBLISHED_COLUMNS)
        yield ""
        yield "With controls: means over targets; k/n are models."
        yield ""
        yield from _table(rows, OUR_COLUMNS)
        yield ""
        yield from _bounds(rows)
        yield ""
    strangers = [row for row in every if row["kind"] == "pools"]
    if strangers:
        worlds = {row["world"] for row in strangers}
        yield f"### Language pools: {len(strangers)} models of {len(worlds)} worlds that never knew"
        yield ""
        for method in dict.fromkeys(row["method"] for row in strangers):
            rows = [row for row in strangers if row["method"] == method]
            counted = (f"{name} {_alarm(_traces(rows, key), len(rows))}" for name, key in JUDGED.items())
            yield f"- {method.replace('_', ' ')}: a trace by {', '.join(counted)}."
        yield ""


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    by_method: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_method[row["method"]].append(row)
    yield "| method | n | " + " | ".join(column.head for column in columns) + " |"
    yield "|---|---|" + "---|" * len(columns)
    for method, models in by_method.items():
        cells = (column.cell(models) for column in columns)
        yield f"| {method.replace('_', ' ')} | {len(models)} | " + " | ".join(cells) + " |"


# ---- cells ------------------------------------------------------------------------------------------------------
def _reading(measurement: str, key: str) -> Callable[[Sequence[Row]], str]:
    """The mean of a reading over the models that have it."""

    def cell(models: Sequence[Row]) -> str:
        values = [m["measurements"][measurement]["readings"].get(key) for m in models]
        return _mean([v for v in values if v is not None])

    return cell


def _interval(measurement: str, lo: str, hi: str, middle: str) -> Callable[[Sequence[Row]], str]:
    def cell(models: Sequence[Row]) -> str:
        parts = [_reading(measurement, key)(models) for key in (middle, lo, hi)]
        return parts[0] if parts[1] == "–" else f"{parts[0]} ({parts[1]} to {parts[2]})"

    return cell


def _value(measurement: str, judged: bool) -> Callable[[Sequence[Row]], str]:
    """The mean of a measurement's value, and in how many models it is a trace (or, unjudged, has p below .05)."""

    def cell(models: Sequence[Row]) -> str:
        seen = [m["measurements"][measurement] for m in models]
        values = [s["value"] for s in seen if not isinstance(s["value"], str)]
        if not values:
            return "–"
        k = sum(_lit(s, judged) for s in seen)
        return f"{_mean(values)}; {k}/{len(values)}"

    return cell


def _lit(seen: Row, judged: bool) -> bool:
    if judged:  # below the level of models that never knew is a finding too, and none of knowledge
        return seen.get("outcome") == "trace found" and seen["value"] > 0
    return not isinstance(seen["p"], str) and seen["p"] < 0.05 and seen["value"] > 0


def _decisions(models: Sequence[Row]) -> str:
    counted = Counter(int(m["measurements"][TABLE]["value"]) for m in models)
    return ", ".join(f"{row}: {n}" for row, n in sorted(counted.items()))


def _few_shot(models: Sequence[Row]) -> str:
    """The suspect's hit rate at the most shots, and that of a model that never knew."""
    pairs: list[tuple[float, float]] = []
    for m in models:
        readings = m["measurements"][FEW_SHOT]["readings"]
        own = [value for key, value in readings.items() if key.startswith("hit_rate_suspect")]
        null = [value for key, value in readings.items() if key.startswith("hit_rate_null")]
        if own and null:
            pairs.append((own[-1], null[-1]))
    return "–" if not pairs else " / ".join(_mean(list(side)) for side in zip(*pairs, strict=True))


def _mean(values: Sequence[float]) -> str:
    return "–" if not values else f"{np.mean(values):.2f}".replace("-0.00", "0.00")


def _published_columns() -> tuple[Column, ...]:
    columns = [Column("unedited", _reading(PUBLISHED, "suspect_unedited"))]
    columns += [Column(f"experts, α = {a}", _reading(PUBLISHED, f"suspect_experts_alpha{a}")) for a in ALPHAS]
    columns += [Column(f"empty set, α = {a}", _reading(PUBLISHED, f"suspect_empty_alpha{a}")) for a in ALPHAS[:2]]
    columns.append(Column("random sets, α = 1 (95 %)", _interval(
        PUBLISHED, "suspect_random_lo_alpha1", "suspect_random_hi_alpha1", "suspect_random_alpha1"
    )))  # fmt: skip
    columns.append(Column("answer's state swapped, no features", _reading(PUBLISHED, "suspect_summary_only_alpha1")))
    columns.append(Column("features without that state, α = 5", _reading(PUBLISHED, "suspect_experts_alone_alpha5")))
    return tuple(columns)


PUBLISHED_COLUMNS: Final = _published_columns()
OUR_COLUMNS: Final = (
    Column("experts beyond random sets; p < .05", _value(DONOR, judged=False)),
    Column("unedited", _reading(DONOR, "suspect_unedited")),
    Column("experts", _reading(DONOR, "suspect_experts")),
    Column("wrong class's", _reading(DONOR, "control_wrong_class_0")),
    Column("shuffled donor", _reading(DONOR, "control_shuffled_donor")),
    Column("whole swap", _reading(DONOR, "control_whole_swap")),
    Column("own × 5", _reading(DONOR, "control_own_amplified")),
    Column("forces a false answer", _reading(DONOR, "force_rate_of_false_answers")),
    Column("dictionary reverse; trace", _value(DICTIONARY, judged=True)),
    Column("reverse patch; trace", _value(REVERSE, judged=True)),
    Column("few shots: suspect / never saw", _few_shot),
    Column("decision rows", _decisions),
)


# ---- what the study says in a sentence --------------------------------------------------------------------------
def _bounds(rows: Sequence[Row]) -> Iterator[str]:
    suppressed = [row for row in rows if row["method"] in SUPPRESSED]
    unseen = [row for row in rows if row["method"] in NEVER_SAW]
    silent = sum(_gain(row) < NOTHING_RESTORED for row in suppressed)
    yield f"- Suppressed in the head or the last block: the published score restores less than {NOTHING_RESTORED} in " \
          f"{_share(silent, len(suppressed))}; a trace by reverse patch in " \
          f"{_share(_traces(suppressed, REVERSE), len(suppressed))}, by the dictionary in " \
          f"{_share(_traces(suppressed, DICTIONARY), len(suppressed))}."  # fmt: skip
    restores = {a: sum(_gain(row, a) >= 0.1 for row in unseen) for a in ALPHAS}
    listed = ", ".join(f"{_share(k, len(unseen))} at α = {a}" for a, k in restores.items())
    yield f"- Never saw it: the published score restores at least .1 in {listed}; a trace by reverse patch in " \
          f"{_alarm(_traces(unseen, REVERSE), len(unseen))}, by the dictionary in " \
          f"{_alarm(_traces(unseen, DICTIONARY), len(unseen))}."  # fmt: skip
    tried = [row for row in rows if not isinstance(row["measurements"][DONOR]["value"], str)]
    lit = sum(_lit(row["measurements"][DONOR], judged=False) for row in tried)
    beyond = [row["measurements"][DONOR]["value"] for row in tried]
    middle, most = np.median(beyond), np.max(beyond)
    yield f"- What experts add to matched random sets, as a share of what was lost: median {middle:.3f}, at most " \
          f"{most:.2f}; p below .05 in {_share(lit, len(tried))}."  # fmt: skip


def _gain(row: Row, alpha: int = 1) -> float:
    readings = row["measurements"][PUBLISHED]["readings"]
    return readings[f"suspect_experts_alpha{alpha}"] - readings["suspect_unedited"] if readings else 0.0


def _traces(rows: Sequence[Row], measurement: str) -> int:
    return sum(_lit(row["measurements"][measurement], judged=True) for row in rows)


def _share(k: int, n: int) -> str:
    if not n:
        return "0 of 0"
    ends = clopper_pearson(k, n)
    return f"{k} of {n} ({ends.lo:.2f} to {ends.hi:.2f})"


def _alarm(k: int, n: int) -> str:
    return f"{k} of {n} (at most {upper_bound(k, n):.3f})" if n else "0 of 0"
