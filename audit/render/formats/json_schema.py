"""The JSON Schema (2020-12) of a report, shipped with this room: others read reports without our code."""

import json
from pathlib import Path
from typing import Final

from pydantic import JsonValue

from audit.schema import Report

SHIPPED: Final = Path(__file__).parents[1] / "schema" / "report-1.json"


def schema() -> dict[str, JsonValue]:
    """JSON Schema of :class:`audit.schema.report.Report`, from its types."""
    document = Report.model_json_schema(mode="serialization")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$id": "urn:residua:report:1", **document}


def text() -> str:
    """The schema as it is shipped: sorted keys, two spaces, a final newline."""
    return json.dumps(schema(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def update() -> Path:
    """Write the shipped file anew, after a change of the nouns (additive within a major version)."""
    SHIPPED.parent.mkdir(exist_ok=True)
    SHIPPED.write_text(text(), encoding="utf-8")
    return SHIPPED
