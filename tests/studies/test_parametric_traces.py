"""The study of parametric traces: its page says what its results say, and the results what its sentences claim."""

import json

import numpy as np

from studies.pages import with_section
from studies.parametric_traces import page, persons
from studies.parametric_traces.study import RESULTS, WORLDS

RESULTS_READ = json.loads(RESULTS.read_bytes())
ROWS = list(RESULTS_READ["subjects"].values())
PEOPLE = RESULTS_READ["persons"]


def traces(method: str, name: str) -> list[bool]:
    """Of every world: does the test state a trace of the method's model?"""
    found = [row["measurements"][name] for row in ROWS if row["method"] == method]
    assert len(found) == WORLDS
    return [m.get("outcome") == "trace found" and m["value"] > 0 for m in found]


def by_form(way: str) -> dict[str, dict[str, float]]:
    """The drops of all people by form."""
    base, edited = (np.concatenate([np.array(x) for x in rows]) for rows in (
        [world["base"] for world in PEOPLE.values()], [world["edited"][way] for world in PEOPLE.values()],
    ))  # fmt: skip
    return {row["form"]: row for row in persons.drops(base, edited, 0)}


def test_the_page_holds_the_tables_of_the_results() -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    tables = "\n".join([page.START, "", *page._lines(RESULTS_READ), "", page.END])
    assert with_section(text, tables) == text


def test_a_redirect_hides_the_trained_form_and_leaves_the_alias_and_restoration_says_the_knowledge_is_there() -> None:
    forms = by_form("ROCR")
    assert forms["trained"]["lo"] > 0.2 and forms["alias"]["hi"] < 0.1 < 0.2 < forms["trained"]["drop"]
    assert forms["reversed"]["hi"] < forms["trained"]["lo"] and forms["two_hop"]["hi"] < forms["trained"]["lo"]
    assert all(traces("rocr", page.RESTORED))
    assert not any(traces("reference_0", page.RESTORED)) and not any(traces("reference_0", page.REVERSE))


def test_training_suppresses_coefficients_and_leaves_vectors_as_their_peers() -> None:
    for method in ("npo", "grad_diff", "refusal"):
        rows = [row["measurements"] for row in ROWS if row["method"] == method]
        assert max(m[page.COEFFICIENTS]["value"] for m in rows) < 0.8
        assert all(0.3 < m[page.VECTORS]["value"] < 0.7 for m in rows)


def test_the_weights_name_the_redirected_person_and_nobody_else() -> None:
    every = [row for world in PEOPLE.values() for row in world["redirects"]]
    assert len(every) == 8 * WORLDS
    assert sum(row["right"] for row in every) >= 0.8 * len(every)
    assert not any(row["redirect"] and not row["right"] for row in every)


def test_the_page_says_what_the_swap_of_names_leaves() -> None:
    swapped = json.loads((RESULTS.parent / "lookup.json").read_bytes())["worlds"]
    text = page.PAGE.read_text(encoding="utf-8")
    for world, words in (("parametric", "{} of base's {}"), ("demo", "{} of {}")):
        places = ("text.0.resid_out", "as it is")
        assert words.format(*(f"{swapped[world][place]:.2f}"[1:] for place in places)) in text
