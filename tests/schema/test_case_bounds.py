"""What no file system and no generator takes is refused by the case's own types, with the field's name."""

from pathlib import Path

import pytest

from audit.case import load_case
from audit.schema import AuditError, Case

TEXT = """name = "toy"
seed = {seed}
[roles]
base = {{ path = {base}, adapter = {adapter} }}
suspect = {{ path = "suspect", subfolder = {subfolder} }}
[data]
forget = {forget}
retain = "retain.jsonl"
split_seed = {split}
"""
SOUND = {"seed": "0", "base": '"base"', "adapter": '"a"', "subfolder": '"s"', "forget": '"f.jsonl"', "split": "0"}
NAMES = {"base": "path", "split": "split_seed"}


def read(tmp_path: Path, **changes: str) -> Case:
    (tmp_path / "case.toml").write_text(TEXT.format(**SOUND | changes))
    return load_case(tmp_path / "case.toml")


@pytest.mark.parametrize("field", ["seed", "split"])
@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, -(2**63) - 1, 10**40])
def test_a_seed_is_neither_negative_nor_beyond_64_bits(tmp_path: Path, field: str, seed: int) -> None:
    with pytest.raises(AuditError, match=f"`{NAMES.get(field, field)}`: input should be") as caught:
        read(tmp_path, **{field: str(seed)})
    assert caught.value.code == 2


def test_the_largest_seed_is_one(tmp_path: Path) -> None:
    assert read(tmp_path, seed=str(2**63 - 1)).seed == 2**63 - 1


@pytest.mark.parametrize("field", ["base", "adapter", "subfolder", "forget"])
@pytest.mark.parametrize(
    ("path", "fault"),
    [('"a\\u0000b"', "zero character"), (f'"{"x" * 256}"', "longer than any path"), (f'"{"x/" * 2048}"', "longer")],
)
def test_a_path_that_no_file_has_is_refused_by_its_field(tmp_path: Path, field: str, path: str, fault: str) -> None:
    with pytest.raises(AuditError, match=f"`{NAMES.get(field, field)}`: .*{fault}") as caught:
        read(tmp_path, **{field: path})
    assert caught.value.code == 2 and len(str(caught.value)) < 500


def test_a_long_path_of_short_names_and_letters_of_any_script_is_one(tmp_path: Path) -> None:
    assert read(tmp_path, forget=f'"{"x" * 255}/{"ё" * 127}"').data.forget.startswith("x")
