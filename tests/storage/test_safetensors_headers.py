"""The header reader takes no file that the library refuses, and what the library refuses ends as a sentence of ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, safe_open

from audit.schema import AuditError, ExitCode
from audit.storage import opened_tensors, read_tensors, safetensors_file

DATA = np.arange(6, dtype=np.float32).tobytes()
SOUND: dict[str, Any] = {
    "a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]},
    "b": {"dtype": "F32", "shape": [2], "data_offsets": [16, 24]},
}


def written(path: Path, header: object, data: bytes = DATA) -> Path:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def changed(**entries: object) -> dict[str, Any]:
    return {**SOUND, "b": {**SOUND["b"], **entries}}


def text(old: str, new: str) -> bytes:
    return json.dumps(SOUND).replace(old, new, 1).encode()


def refused_by_library(path: Path) -> bool:
    try:
        with safe_open(path, framework="np") as file:
            list(file.keys())
    except SafetensorError:
        return True
    return False


LIES: dict[str, object] = {
    "offsets that are texts": changed(data_offsets=["16", "24"]),
    "three offsets": changed(data_offsets=[16, 24, 24]),
    "one offset": changed(data_offsets=[16]),
    "offsets as an object": changed(data_offsets={"0": 16, "1": 24}),
    "offsets with a fraction": changed(data_offsets=[16.0, 24.0]),
    "an offset below nought": changed(data_offsets=[-1, 24]),
    "minus nought": text("[0, 16]", "[-0.0, 16]"),
    "a side that is a text": changed(shape=["2"]),
    "a side that is true": changed(shape=[True, 2]),
    "a side with a fraction": changed(shape=[2.0]),
    "a side below nought": changed(shape=[-1, -2]),
    "a shape that is a text": changed(shape="2"),
    "no shape": {**SOUND, "b": {"dtype": "F32", "data_offsets": [16, 24]}},
    "more elements than can be counted": {**SOUND, "b": {**SOUND["b"], "shape": [0, 2**40, 2**40]}},
    "a dtype that is a number": changed(dtype=32),
    "a dtype in a list": changed(dtype=["F32"]),
    "an entry that is a list": {**SOUND, "b": [1, 2]},
    "an entry that is nothing": {**SOUND, "b": None},
    "metadata that is a text": {**SOUND, "__metadata__": "x"},
    "metadata that is a list": {**SOUND, "__metadata__": []},
    "metadata with a number": {**SOUND, "__metadata__": {"a": 1}},
    "metadata with half a character": {**SOUND, "__metadata__": {"a": "\ud800"}},
    "a name that is half a character": {**SOUND, "\ud800": {"dtype": "F32", "shape": [0], "data_offsets": [24, 24]}},
    "a list of tensors": [SOUND],
    "a dtype twice": text('"dtype"', '"dtype": "F32", "dtype"'),
    "metadata twice": text("{", '{"__metadata__": {}, "__metadata__": {}, '),
    "what is no number": text('"dtype"', '"more": NaN, "dtype"'),
    "another encoding": json.dumps(SOUND).encode("utf-16"),
    "a byte-order mark": b"\xef\xbb\xbf" + json.dumps(SOUND).encode(),
}


@pytest.mark.parametrize("header", LIES.values(), ids=LIES.keys())
def test_a_header_that_the_library_refuses_is_refused_here_first(header: object, tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", header)
    with pytest.raises(AuditError, match="not a whole safetensors file: its header cannot be read") as caught:
        safetensors_file.read_header(path)
    assert caught.value.code == ExitCode.INTEGRITY
    if "more elements" not in str(caught.value):  # of no element at all: the library says so when it is opened
        assert refused_by_library(path)


def test_a_tensor_that_stands_twice_is_refused_though_the_library_takes_one_of_them(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.safetensors", text('"a"', '"b": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}, "a"')
    )
    assert not refused_by_library(path)
    with pytest.raises(AuditError, match="a name stands twice"):
        safetensors_file.read_header(path)


VALUES = st.sampled_from(
    [None, True, 0, -1, 1, 2, 16, 24, 2**63, 2**64, 0.5, 16.0, "16", "", "F32", "F16", [], [2], [0, 16], [16, 24, 24],
     ["16", "24"], {}, {"a": "b"}, {"a": 1}, {"dtype": "F32"}]
)  # fmt: skip


@given(st.sampled_from(["dtype", "shape", "data_offsets", "more", "b", "__metadata__"]), VALUES)
def test_no_header_is_taken_that_the_library_refuses(
    tmp_path_factory: pytest.TempPathFactory, field: str, value: object
) -> None:
    header = {**SOUND, field: value} if field in ("b", "__metadata__") else changed(**{field: value})
    path = written(tmp_path_factory.getbasetemp() / "drawn.safetensors", header)
    try:
        safetensors_file.read_header(path)
    except AuditError as error:
        assert error.code == ExitCode.INTEGRITY
    else:
        assert not refused_by_library(path)


def test_what_only_the_library_refuses_is_an_integrity_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.safetensors", changed(data_offsets=["16", "24"]))
    entries = safetensors_file.Header({"a": safetensors_file.Entry("F32", (2, 2), 0, 16)}, {})
    monkeypatch.setattr(safetensors_file, "read_header", lambda _path: entries)  # a fault that nobody listed
    with pytest.raises(AuditError, match=r"a\.safetensors: not a whole safetensors file: SafetensorError") as caught:
        read_tensors(path)
    assert caught.value.code == ExitCode.INTEGRITY


OPENED: dict[str, Callable[[Path], object]] = {
    "a file that is not there": lambda path: path.unlink(),
    "a file cut short": lambda path: path.write_bytes(path.read_bytes()[:20]),
    "no file of tensors": lambda path: path.write_bytes(b"noise"),
}


@pytest.mark.parametrize("damage", OPENED.values(), ids=OPENED.keys())
def test_a_file_that_the_library_cannot_open_is_named(damage: Callable[[Path], object], tmp_path: Path) -> None:
    path = written(tmp_path / "a.safetensors", SOUND)
    with opened_tensors(path) as file:
        assert file.names() == ["a", "b"] and file.read("b").tolist() == [4.0, 5.0]
        with pytest.raises(AuditError, match="tensor 'c' cannot be read") as caught:
            file.read("c")
        assert caught.value.code == ExitCode.INTEGRITY
    damage(path)
    with pytest.raises(AuditError, match=r"a\.safetensors: not a whole") as caught, opened_tensors(path):
        pass
    assert caught.value.code == ExitCode.INTEGRITY
