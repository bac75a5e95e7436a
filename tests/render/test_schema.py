"""The shipped JSON Schema is the one of the nouns, and accepts and refuses what it should."""

import json

import jsonschema
import pytest

from audit.render import schema
from audit.render.formats.json_schema import SHIPPED, text
from audit.schema import Report
from tests.golden import VARIANTS, Variant, report


def test_the_shipped_schema_is_current() -> None:
    assert SHIPPED.read_text(encoding="utf-8") == text(), (
        "run audit.render.formats.json_schema.update() and commit the file"
    )


def test_it_is_a_valid_2020_12_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())


@pytest.mark.parametrize("variant", VARIANTS)
def test_reports_validate_and_round_trip(variant: Variant) -> None:
    found = report(variant)
    document = json.loads(found.canonical())
    jsonschema.Draft202012Validator(schema()).validate(document)
    assert Report.model_validate(document) == found


@pytest.mark.parametrize("change", [{"verdict": {"word": "ERASED"}}, {"unknown": 1}, {"limits": ["x"] * 6}])
def test_an_unknown_rung_key_or_too_many_limits_are_refused(change: dict[str, object]) -> None:
    document = json.loads(report().canonical())
    for key, value in change.items():
        document[key] = {**document[key], **value} if isinstance(value, dict) else value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft202012Validator(schema()).validate(document)
