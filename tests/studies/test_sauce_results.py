"""The study of suppressed concepts: its design, its records, and the page that says what they count."""

import json
from typing import Any

import pytest

from studies.sauce import attacks, study
from studies.sauce.design import SEEDS, TOGETHER, concepts, hands, world_of
from studies.sauce.page import PAGE, VARIANTS, attack_tables, tables

RESULTS: dict[str, Any] = json.loads(study.RESULTS.read_bytes())
ATTACKS: dict[str, Any] = json.loads(attacks.RESULTS.read_bytes())


def test_the_page_has_the_tables_of_the_committed_records() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for lines in (tables(RESULTS), attack_tables(ATTACKS)):
        assert "\n".join(lines) in page


def test_every_concept_was_suppressed_in_every_model_in_every_way() -> None:
    assert len(concepts()) == 25 and set(RESULTS["concepts"]) == {f"{s}/{c}" for s in SEEDS for c in concepts()}
    assert {frozenset(row["variants"]) for row in RESULTS["concepts"].values()} == {frozenset(VARIANTS)}
    assert set(RESULTS["together"]) == {f"{seed}/{size}" for seed in SEEDS for size in TOGETHER}
    assert all(len(hand) == size for size in TOGETHER for hand in hands(0, size))


def test_what_is_reported_is_asked_before_other_pictures_than_edits_saw() -> None:
    seen, asked_of = (world_of(0, "star", use) for use in ("edited", "asked"))
    pictures = [{scene.seed for scene in (*world.plain, *world.wanted)} for world in (seen, asked_of)]
    assert not pictures[0] & pictures[1]
    assert all(scene.shown["shape"] == "star" for scene in asked_of.wanted)
    assert not any(scene.shown["shape"] == "star" for scene in asked_of.plain)


def test_the_chosen_features_suppress_more_than_random_ones_and_cost_less() -> None:
    rows = [row["variants"] for row in RESULTS["concepts"].values()]

    def mean(variant: str, name: str) -> float:
        return sum(row[variant][name] for row in rows) / len(rows)

    assert mean("base", "trained") - mean("SAUCE", "trained") > 3 * (
        mean("base", "trained") - mean("random features", "trained")
    )
    assert mean("SAUCE", "flips") < mean("random features", "flips")


@pytest.mark.parametrize("model", attacks.FILTERS)
def test_every_filter_was_found_and_gone_when_it_was_turned_off(model: str) -> None:
    rows = [row for key, row in ATTACKS["models"].items() if key.endswith(f"/{model}")]
    assert len(rows) == 10 and all(row["filter"] == ["True"] for row in rows)
    assert all(row["turned off"][0] == pytest.approx(1.0, abs=1e-3) for row in rows)
