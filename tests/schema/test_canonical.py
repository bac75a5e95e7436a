"""Content keys: equal content gives equal names, anything else another, and issued names do not move."""

import hashlib
from typing import NamedTuple

import pytest

from audit.schema import Checkpoint, EditRecord, Interval, Source, canonical_hash, content_key
from audit.schema.canonical import canonical_json


class Settings(NamedTuple):
    steps: int
    rate: float


def test_order_of_keys_and_kind_of_sequence_do_not_enter_a_key() -> None:
    assert content_key({"a": 1, "b": 2}) == content_key({"b": 2, "a": 1})
    assert content_key("x", Settings(2, 0.5)) == content_key("x", [2, 0.5]) == content_key("x", (2, 0.5))


def test_parts_are_told_apart_by_order_place_and_type() -> None:
    parts: list[tuple[object, ...]] = [
        ("ab", "c"),
        ("a", "bc"),
        ("abc",),
        ("c", "ab"),
        (["ab", "c"],),
        (1,),
        ("1",),
        (None,),
        (),
    ]
    assert len({content_key(*each) for each in parts}) == len(parts)


def test_canonical_text_is_plain_utf8_json_and_is_what_is_hashed() -> None:
    assert canonical_json({"b": [1, 2], "a": "é"}) == '{"a":"é","b":[1,2]}'
    assert canonical_hash({"a": "é"}) == hashlib.sha256('{"a":"é"}'.encode()).hexdigest()


def test_what_names_a_folder_is_no_part_of_a_key() -> None:
    checkpoint = Checkpoint(source="/a/folder", family="llama", fingerprint="0" * 64)
    for part in (checkpoint, Source(path="x")):
        with pytest.raises(TypeError):
            content_key(part)
    assert content_key(checkpoint.key) == content_key(checkpoint.model_copy(update={"source": "/another"}).key)


def test_hashes_of_records_and_keys_of_checkpoints_are_those_that_were_issued() -> None:
    edit = EditRecord(name="é", plays="weights", settings={"lr": 0.1}, delta_sha256="1" * 64)
    edited = Checkpoint(source="s", family="llama", fingerprint="0" * 64, edits=(edit,))
    assert edited.key == "b2f79c012449cc0bb61235776728949a1785937495ce083133337b5a1e613595"
    assert Interval(lo=0, hi=1).content_hash() == "2942caffe71998239b851ba1846c9d0236dda28b997204c21762bbc1ce921d5e"
