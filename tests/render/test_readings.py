"""Readings at several strengths stand side by side, none is lost; a row of a table is said where one looks first."""

from hypothesis import given
from hypothesis import strategies as st

from audit.render.sections.blocks import Facts, Grid
from audit.render.sections.findings import family
from audit.render.sections.readings import LEAST_ROWS, readings, sides
from audit.schema import EFFECT_UNIT, Evidence
from audit.wording import IMAGE, counted, number
from tests.golden import report

NAMES = st.lists(
    st.tuples(st.sampled_from(["suspect_a", "suspect_b", "null_a", "null_b", "null_c"]),
              st.sampled_from(["alpha", "layer"]), st.sampled_from(["1", "2", "10", "2.5"])), max_size=40,
)  # fmt: skip
FOUND = report("suppressed")


def with_readings(given_readings: dict[str, float], **others: object) -> Evidence:
    e = FOUND.evidence[1]
    return e.model_copy(update={"measurement": e.measurement.model_copy(update={"readings": given_readings, **others})})


@given(NAMES, st.sets(st.sampled_from(["mean_base", "people", "null_floor0"])))
def test_every_reading_stands_in_exactly_one_table(names: list[tuple[str, str, str]], others: set[str]) -> None:
    values = {f"{stem}_{axis}{at}": n + 0.25 for n, (stem, axis, at) in enumerate(names)}
    values |= dict.fromkeys(others, 0.5)
    tables = [block for block in readings([with_readings(values)]) if isinstance(block, Grid)]
    shown = [cell.text for grid in tables for row in grid.rows for cell in row if cell.tone == "number"]
    assert sorted(shown) == sorted(number(value) for value in values.values())
    assert all(len(side.rows) >= LEAST_ROWS and len(side.at) > 1 for side in sides(values))


def test_readings_at_three_strengths_are_three_columns_in_their_order() -> None:
    stems = [f"{role}_{name}" for role in ("suspect", "null") for name in ("experts", "empty", "random")]
    values = {f"{stem}_alpha{at}": at / 7 for stem in stems for at in (10, 1, 5)}
    (table,) = readings([with_readings(values)])
    assert isinstance(table, Grid) and table.columns == ("Reading", "alpha 1", "alpha 5", "alpha 10")
    assert [row[0].text for row in table.rows][:2] == ["null empty", "null experts"] and len(table.rows) == 6
    assert [cell.text for cell in table.rows[0][1:]] == [number(at / 7) for at in (1, 5, 10)]


def test_few_readings_with_a_number_stay_in_the_list() -> None:
    (table,) = readings([with_readings({f"effect_layer{n}": 0.1 * n for n in range(1, 9)})])
    assert isinstance(table, Grid) and [row[1].text for row in table.rows][:2] == ["effect layer1", "effect layer2"]


def test_readings_are_named_in_the_units_of_the_audit() -> None:
    e = with_readings({"people": 12.0, "largest_person": 0.9})
    of_images = e.model_copy(update={"measurement": counted(e.measurement, IMAGE)})
    (plain,), (images,) = readings([e]), readings([of_images])
    assert isinstance(plain, Grid) and [row[1].text for row in plain.rows] == ["largest person", "people"]
    assert isinstance(images, Grid) and [row[1].text for row in images.rows] == ["largest image", "images"]


def test_what_a_row_of_a_table_says_stands_before_the_numbers_of_its_family() -> None:
    text = "retained: the states hold the answers"
    row = with_readings({}, unit="row", scale="other", value=1.0, kind="context", notes=(text,), name="table")
    first, table, *_ = family(FOUND.model_copy(update={"evidence": (*FOUND.evidence, row)}), "context")
    assert isinstance(first, Facts) and first.rows[0][1] == "Retained: the states hold the answers."
    assert isinstance(table, Grid) and any(cell.text == "row 1" for line in table.rows for cell in line)
    assert EFFECT_UNIT != "row"
