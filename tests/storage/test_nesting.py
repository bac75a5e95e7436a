"""A document that would exhaust whoever walks through it is refused before anybody does."""

import json
from pathlib import Path
from typing import Any

import pytest

from audit.case import CaseFile
from audit.checkpoints.folder import read_json
from audit.schema import AuditError
from audit.storage import too_deep


def nested(depth: int, kind: type) -> Any:
    value: Any = "x"
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_depth_is_told_by_the_deepest_part(kind: type) -> None:
    assert not too_deep(nested(64, kind)) and too_deep(nested(65, kind))
    assert too_deep({"flat": 1, "deep": [nested(900, kind)]}) and not too_deep("text")


@pytest.mark.parametrize("depth", [100, 900, 20_000])
def test_settings_that_are_nested_too_deep_are_broken(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "config.json"
    path.write_text(f'{{"a": {"[" * depth}{"]" * depth}}}')
    with pytest.raises(AuditError, match="broken JSON") as caught:
        read_json(path)
    assert caught.value.code == 3


@pytest.mark.parametrize("depth", [400, 20_000])
def test_a_case_that_is_nested_too_deep_is_no_case(tmp_path: Path, depth: int) -> None:
    path = tmp_path / "case.toml"
    path.write_text(f"seed = {'[' * depth}{']' * depth}\n")
    with pytest.raises(AuditError) as caught:
        CaseFile.read(path)
    assert caught.value.code == 2 and len(json.dumps(str(caught.value))) < 3000
