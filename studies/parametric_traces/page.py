"""The tables of the page, from the results."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from audit.stats import clopper_pearson
from audit.storage import write_atomic
from probes._edited import REDIRECT
from studies.pages import with_section
from studies.parametric_traces.persons import WAYS, drops

PAGE: Final = Path(__file__).parent / "README.md"
START, END = "<!-- tables: written by study.py -->", "<!-- end of the tables -->"
OUTPUT, REVERSE = "forget_likelihood.probability", "reverse_patch.depth_profile_all"
RESTORED, VECTORS = "concept_vectors.restoration", "concept_vectors.value_vectors"
COEFFICIENTS, BIAS = "concept_vectors.coefficients", "form_dependence.bias"
FORMS, WEIGHTS = "form_dependence.remaining", "weight_difference.change"
FORM_TABLE: Final = "The same facts by form"
GROUPS: Final = "groups by how well their names fit the direction"
SHOWN_FORMS: Final = (
    "trained",
    "held_out_phrasing",
    "cloze",
    "multiple_choice",
    "hint",
    "alias",
    "reversed",
    "two_hop",
)

Row = Mapping[str, Any]


def write_page(results: Mapping[str, Any]) -> None:
    """Put the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    write_atomic(PAGE, with_section(page, "\n".join([START, "", *_lines(results), "", END])).encode())


def _lines(results: Mapping[str, Any]) -> Iterator[str]:
    rows: list[Row] = list(results["subjects"].values())
    worlds = {row["world"] for row in rows}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    spent = sum(sum(row["cpu_s"].values()) for row in rows) + sum(p["cpu_s"] for p in results["persons"].values())
    yield f"{len(rows)} models of {len(worlds)} worlds, {spent:,.0f} CPU-seconds of one thread, seed {results['seed']}."
    yield ""
    yield "### By method: means over worlds; k/n are worlds in which the test states a trace"
    yield ""
    yield from _by_method(rows, methods)
    yield ""
    yield "### By form: what is left of base's excess over a model that never knew, means over worlds"
    yield ""
    yield from _by_form(rows, methods)
    yield ""
    yield from _one_person_at_a_time(results["persons"])


# ---- every method -----------------------------------------------------------------------------------------------
def _by_method(rows: Sequence[Row], methods: Sequence[str]) -> Iterator[str]:
    yield (
        "| method | outputs | reverse patch | restoration | coefficients kept | vectors moved (percentile among peers) "
        "| form bias | kind of edit | redirect of the right person |"
    )
    yield "|---|---|---|---|---|---|---|---|---|"
    for method in methods:
        members = [row for row in rows if row["method"] == method]
        cells = [
            *(_judged(members, name) for name in (OUTPUT, REVERSE, RESTORED)),
            *(_mean(members, name) for name in (COEFFICIENTS, VECTORS, BIAS)),
            _kinds(members),
            _named(members),
        ]
        yield f"| `{method}` | " + " | ".join(cells) + " |"


def _values(rows: Sequence[Row], name: str) -> list[float]:
    values = [row["measurements"][name]["value"] for row in rows if name in row["measurements"]]
    return [value for value in values if isinstance(value, float)]


def _mean(rows: Sequence[Row], name: str) -> str:
    values = _values(rows, name)
    return f"{np.mean(values):.2f}" if values else "none"


def _judged(rows: Sequence[Row], name: str) -> str:
    above = [
        row["measurements"][name]["outcome"] == "trace found" and row["measurements"][name]["value"] > 0
        for row in rows
        if isinstance(row["measurements"][name]["value"], float)
    ]
    return f"{_mean(rows, name)} ({sum(above)}/{len(rows)})"


def _note(row: Row, start: str) -> str:
    return next((note for note in row["measurements"][WEIGHTS]["notes"] if note.startswith(start)), "")


def _listed_first(row: Row) -> str:
    """The group that fits the changed direction best."""
    return row["measurements"][WEIGHTS]["listings"][GROUPS][1][0]


def _kinds(rows: Sequence[Row]) -> str:
    kinds = [_note(row, "kind of edit: ").removeprefix("kind of edit: ").partition(";")[0] for row in rows]
    return ", ".join(dict.fromkeys(kinds))


def _named(rows: Sequence[Row]) -> str:
    """How often the one edited person was named; of edits of many, none is asked for."""
    if rows[0]["method"] != "rocr_one":
        count = sum(bool(_note(row, REDIRECT)) for row in rows)
        return f"said of {count}/{len(rows)}"
    right = sum(_listed_first(row) == "forget-000" for row in rows if _note(row, REDIRECT))
    return f"**{right}/{len(rows)}**"


# ---- forms ------------------------------------------------------------------------------------------------------
def _by_form(rows: Sequence[Row], methods: Sequence[str]) -> Iterator[str]:
    yield "| method | " + " | ".join(form.replace("_", " ") for form in SHOWN_FORMS) + " |"
    yield "|---" * (len(SHOWN_FORMS) + 1) + "|"
    for method in methods:
        cells: list[str] = []
        for form in SHOWN_FORMS:
            effects = [
                effect
                for row in rows
                if row["method"] == method and (effect := _effect(row, form)) is not None
            ]  # fmt: skip
            cells.append(f"{np.mean(effects):.2f}" if effects else "blind")
        yield f"| `{method}` | " + " | ".join(cells) + " |"


def _effect(row: Row, form: str) -> float | None:
    head, *lines = row["measurements"][FORMS]["listings"][FORM_TABLE]
    place = head.index("effect")
    return next((line[place] for line in lines if line[0] == form), None)


# ---- one person at a time ---------------------------------------------------------------------------------------
def _one_person_at_a_time(persons: Mapping[str, Any]) -> Iterator[str]:
    base = np.concatenate([np.array(world["base"]) for world in persons.values()])
    yield f"### One person at a time: {len(base)} people of {len(persons)} worlds, each by an edit of its own"
    yield ""
    yield (
        "D = (base - edited)/base of the probability of the facts, 95 % by drawing people anew; the last column is "
        "what the first person's edit takes from everybody who was to be kept."
    )
    yield ""
    forms = [row["form"] for row in drops(base, base, 0)]
    yield "| edit | " + " | ".join(form.replace("_", " ") for form in forms) + " | retained |"
    yield "|---" * (len(forms) + 2) + "|"
    never = np.concatenate([np.array(world["never_knew"]) for world in persons.values()])
    yield "| a model that never knew | " + " | ".join(_drop(row) for row in drops(base, never, 0)) + " | |"
    for way in WAYS:
        edited = np.concatenate([np.array(world["edited"][way]) for world in persons.values()])
        lost = [1 - world["retain_edited"][way] / world["retain_base"] for world in persons.values()]
        yield f"| {way} | " + " | ".join(_drop(row) for row in drops(base, edited, 0)) + f" | {np.mean(lost):.2f} |"
    yield ""
    hidden = np.concatenate([np.array(world["edited"]["ROCR"]) for world in persons.values()])
    halved = (hidden < base / 2).sum(0)
    bounds = [clopper_pearson(int(k), len(base)) for k in halved]
    counts = ", ".join(
        f"{form.replace('_', ' ')} {k} of {len(base)} ({ci.lo:.2f} to {ci.hi:.2f})"
        for form, k, ci in zip(forms, halved.tolist(), bounds, strict=True)
    )
    yield f"People of whose facts ROCR takes more than half, by form: {counts}."
    yield ""
    every = [row for world in persons.values() for row in world["redirects"]]
    right, wrong = sum(row["right"] for row in every), sum(row["redirect"] and not row["right"] for row in every)
    ci = clopper_pearson(right, len(every))
    yield (
        f"Of these edits as weights, the weight difference says *reversible rank-one redirect* and the right person of "
        f"{right} of {len(every)} ({ci.lo:.2f} to {ci.hi:.2f}), and a wrong one of {wrong}."
    )


def _drop(row: Mapping[str, Any]) -> str:
    return f"{row['drop']:.2f} [{row['lo']:.2f}, {row['hi']:.2f}]"
