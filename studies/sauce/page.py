"""The tables of the study's page, from its results alone."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from audit.stats import percentile_interval
from audit.storage import write_atomic
from audit.zoo import CONCEPTS
from studies.pages import with_section
from studies.sauce.design import BY_WEIGHTS, CONCRETE, KINDS, TOGETHER

PAGE: Final = Path(__file__).parent / "README.md"
ATTACKS: Final = PAGE.with_name("attacks.json")
ATTACKS_START = "<!-- attacks: python -m studies.sauce.attacks --worlds 10 -->"
START, END = "<!-- tables: python -m studies.sauce.study --tables -->", "<!-- end of tables -->"
DRAWS: Final = 2000
LAST: Final = "flips"
VARIANTS: Final = (
    "base", "SAUCE", "features set to 0", "random features", "another concept's features",
    "detector: patches replaced by the mean", *BY_WEIGHTS,
)  # fmt: skip
"""The lines of the first table, in their order."""
UNLEARNED: Final = {"trained": "open", "caption": "caption", "choice": "choice", "yes_no": "yes or no"}
KEPT: Final = {"same kind": "same kind", "other kinds": "other kinds", "absent": "absent, no"}
Row = Mapping[str, Any]


def write_page(results: Mapping[str, Any]) -> None:
    """Put the tables into the page."""
    page = with_section(PAGE.read_text(encoding="utf-8"), "\n".join([START, "", *tables(results), "", END]))
    if ATTACKS.is_file():
        lines = attack_tables(json.loads(ATTACKS.read_bytes()))
        page = with_section(page, "\n".join([ATTACKS_START, "", *lines, "", END]))
    write_atomic(PAGE, page.encode())


def tables(results: Mapping[str, Any]) -> list[str]:
    """All tables: every way over all concepts, suppression by kind, and several concepts at once."""
    rows: Mapping[str, Row] = results["concepts"]
    present = {name for row in rows.values() for name in row["variants"]}
    names = [name for name in VARIANTS if name in present]
    assert len(names) == len(present), "every variant has its place in the table"
    lines = [
        f"{len(rows)} times a concept in a model ({len({key.split('/')[0] for key in rows})} models); 95 % intervals "
        "by resampling concepts, of several at once sets of them. Unlearning accuracy is 1 - accuracy.", "",
        _heading(["", *map("unlearned: {}".format, UNLEARNED.values()), *map("right: {}".format, KEPT.values()), LAST]),
    ]  # fmt: skip
    lines += [_line(name, _of_variant(rows, name)) for name in names]
    chosen = [row["variants"]["SAUCE"] for row in rows.values() if "SAUCE" in row["variants"]]
    lines += [
        "", f"Features and strength were found for {len(chosen)} of {len(rows)}: {_spread(chosen, 'features')} "
        f"features, strength {_spread(chosen, 'strength')} (median, range).", "",
        _heading(["suppressed by its features", *UNLEARNED.values(), *KEPT.values(), LAST]),
    ]  # fmt: skip
    for kind in KINDS:
        of_kind = {key: row for key, row in rows.items() if key.split("/")[1] in CONCEPTS[kind]}
        concrete = "concrete" if kind in CONCRETE else "abstract"
        lines.append(_line(f"{kind} ({concrete})", _of_variant(of_kind, "SAUCE")))
    lines += ["", _heading(["concepts at once", *UNLEARNED.values(), *KEPT.values(), LAST])]
    for size in TOGETHER:
        sets = [row for key, rows_ in results["together"].items() if key.endswith(f"/{size}") for row in rows_]
        if sets:
            lines.append(_line(str(size), sets))
    return lines


def attack_tables(attacks: Mapping[str, Any]) -> list[str]:
    """What each attack leaves or brings back, by model, and what is said of filters."""
    rows: Mapping[str, Row] = attacks["models"]
    models = list(dict.fromkeys(key.split("/")[1] for key in rows))
    by_model = {m: [row for key, row in rows.items() if key.split("/")[1] == m] for m in models}
    names = list(dict.fromkeys(name for row in rows.values() for name in row["attacks"]))
    lines = [
        f"{len({key.split('/')[0] for key in rows})} worlds; effect on the concept's probability before pictures that "
        "show it, less that before others: 0 is a model that never knew, 1 is base (95 % by resampling worlds). *Not "
        "attacked* is what the suspect says of base by itself. *Recoverable* is asked where anything is hidden.", "",
        _heading(["", "not attacked", *names, "recoverable", "removable filter"]),
    ]  # fmt: skip
    for model, own in by_model.items():
        left = _cell(own, lambda row: row["readings"]["plain_suspect"] / row["readings"]["plain_base"])
        cells = [left, *(_effect(own, name) for name in names)]
        lines.append(f"| {model} | {' | '.join(cells)} | {_holds(own, 'recoverable')} | {_holds(own, 'filter')} |")
    return lines


def _holds(rows: Sequence[Row], finding: str) -> str:
    """How often a finding holds, of those of whom it was asked."""
    answers = [row[finding][0] for row in rows if finding in row and row[finding][0] in ("True", "False")]
    return f"{answers.count('True')} of {len(answers)}" if answers else "–"


def _effect(rows: Sequence[Row], name: str) -> str:
    known = [row for row in rows if row["attacks"].get(name) is not None]
    return _cell(known, lambda row: row["attacks"][name]) if len(known) > 1 else "–"


def _of_variant(rows: Mapping[str, Row], name: str) -> list[Row]:
    """A variant's numbers, a row a concept: the mean over its models, which share pictures' kinds and words."""
    by_concept: dict[str, list[Row]] = {}
    for key, row in rows.items():
        if name in row["variants"]:
            by_concept.setdefault(key.split("/")[1], []).append(row["variants"][name])
    numbers = (*UNLEARNED, *KEPT, LAST)
    return [{n: float(np.mean([row[n] for row in own])) for n in numbers} for own in by_concept.values()]


def _line(name: str, rows: Sequence[Row]) -> str:
    cells = [_cell(rows, lambda row, c=c: 1 - row[c]) for c in UNLEARNED]
    cells += [_cell(rows, lambda row, c=c: row[c]) for c in (*KEPT, "flips")]
    return f"| {name} | {' | '.join(cells)} |"


def _cell(rows: Sequence[Row], value: Callable[[Row], float]) -> str:
    values = np.array([value(row) for row in rows])
    rng = np.random.default_rng(len(values))
    draws = values[rng.integers(0, len(values), (DRAWS, len(values)))].mean(1)
    interval = percentile_interval(draws)
    return f"{_short(values.mean())} ({_short(interval.lo)} to {_short(interval.hi)})"


def _short(x: float) -> str:
    shown = f"{round(x, 2) + 0.0:.2f}"
    return shown.replace("0.", ".", 1) if abs(round(x, 2)) < 1 else shown


def _spread(rows: Sequence[Row], name: str) -> str:
    values = [row[name] for row in rows]
    return f"{np.median(values):g} ({min(values):g} to {max(values):g})"


def _heading(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n|{'---|' * len(cells)}"
