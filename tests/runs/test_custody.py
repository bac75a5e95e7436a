"""The chain of custody: recomputed by hand, whole after a kill, and broken by any change of a byte or of the order."""

import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from audit.runs import custody
from audit.runs.custody import Arrival
from audit.schema import AuditError, ExitCode

ARRIVALS = [Arrival("base", "a" * 64, "../models/base"), Arrival("suspect", "b" * 64, "d\u00e9p\u00f4t \u201cx\u201d")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a finished run leaves."""
    (tmp_path / "manifest.sha256").write_text("the manifest")
    (tmp_path / "events.jsonl").write_text("what happened")
    custody.receive(tmp_path, ARRIVALS, "1.0+abc")
    custody.issue(tmp_path, "UA-1", tmp_path / "manifest.sha256", "1.0+abc")
    return tmp_path


def lines(folder: Path) -> list[str]:
    return (folder / custody.NAME).read_text(encoding="utf-8").splitlines()


def test_every_line_is_hashed_and_names_the_one_before(folder: Path) -> None:
    before = "0" * 64
    for n, text in enumerate(lines(folder), 1):
        line = json.loads(text)
        stated = line.pop("sha256")
        plain = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(plain.encode()).hexdigest() == stated
        assert (line["n"], line["before"]) == (n, before)
        before = stated
    received, _, issued = (json.loads(text) for text in lines(folder))
    assert received["about"] == {"role": "base", "fingerprint": "a" * 64, "path": "../models/base"}
    digest = hashlib.sha256(b"the manifest").hexdigest()
    happened = {"events_bytes": "13", "events_sha256": hashlib.sha256(b"what happened").hexdigest()}
    assert issued["about"] == {"report_id": "UA-1", "manifest_sha256": digest} | happened
    assert received["time"].endswith("+00:00") and received["tool"] == "1.0+abc"


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_the_command_of_the_docstring_gives_the_hash(folder: Path) -> None:
    for n, text in enumerate(lines(folder), 1):
        command = f"sed -n {n}p custody.jsonl | jq -cjS 'del(.sha256)' | sha256sum"
        done = subprocess.run(["sh", "-c", command], cwd=folder, capture_output=True, text=True, check=True)
        assert done.stdout.split()[0] == json.loads(text)["sha256"]


def test_what_was_written_down_is_not_written_down_again(folder: Path) -> None:
    before = lines(folder)
    custody.receive(folder, ARRIVALS, "1.0+abc")
    custody.issue(folder, "UA-1", folder / "manifest.sha256", "1.0+abc")
    assert lines(folder) == before
    assert custody.read(folder).faults == ()


@pytest.mark.thorough
def test_every_changed_byte_is_a_fault_in_its_line(folder: Path) -> None:
    path = folder / custody.NAME
    whole = path.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(bytes(changed))
        faults = custody.read(folder).faults
        line = whole[:place].count(b"\n") + 1
        assert any(fault.startswith(f"custody.jsonl, line {line}, ") for fault in faults), (place, faults)


def test_lines_in_another_order_left_out_or_doubled_are_faults(folder: Path) -> None:
    path = folder / custody.NAME
    first, second, third = path.read_bytes().splitlines(keepends=True)
    for order in ((second, first, third), (first, third), (second, third), (first, first, second, third)):
        path.write_bytes(b"".join(order))
        assert custody.read(folder).faults
    path.write_bytes(first + second)
    assert custody.read(folder).faults == (), "a tail that was cut off cannot be seen, and the text says so"
    assert any("cut off the end" in said for said in custody.WHAT_IT_SHOWS)


def test_a_torn_last_line_is_mended_by_a_run_and_by_nobody_else(folder: Path) -> None:
    path = folder / custody.NAME
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"n": 4, "ti')
    assert custody.read(folder).faults == ("custody.jsonl, line 4, its end: is torn off",)
    with pytest.raises(AuditError, match="line 4, its end: is torn") as caught:
        custody.append(folder, "verified", {"outcome": "accepted"}, "1.0")
    assert caught.value.code == ExitCode.INTEGRITY
    custody.mend(folder)
    assert path.read_bytes() == whole
    assert custody.append(folder, "verified", {"outcome": "accepted"}, "1.0").n == 4


def test_a_broken_chain_is_never_added_to(folder: Path) -> None:
    path = folder / custody.NAME
    broken = path.read_bytes().replace(b"base", b"bose")
    path.write_bytes(broken)
    with pytest.raises(AuditError, match="line 1"):
        custody.append(folder, "verified", {"outcome": "accepted"}, "1.0")
    custody.mend(folder)
    assert path.read_bytes() == broken


def test_a_line_written_anew_with_its_own_hash_breaks_the_line_after_it(folder: Path) -> None:
    first, second, third = lines(folder)
    line = json.loads(second) | {"tool": "9.9"}
    del line["sha256"]
    plain = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    line["sha256"] = hashlib.sha256(plain.encode()).hexdigest()
    forged = json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (folder / custody.NAME).write_text("\n".join([first, forged, third, ""]), encoding="utf-8")
    (fault,) = custody.read(folder).faults
    assert fault.startswith("custody.jsonl, line 3, before: states ")


def test_the_same_line_in_other_bytes_is_a_fault(folder: Path) -> None:
    first, *rest = lines(folder)
    spaced = json.dumps(json.loads(first), sort_keys=True, ensure_ascii=False)
    (folder / custody.NAME).write_text("\n".join([spaced, *rest, ""]), encoding="utf-8")
    assert custody.read(folder).faults == ("custody.jsonl, line 1, the whole line: is not canonical JSON",)


def test_files_that_are_kept_are_written_down_once_and_under_every_hash_that_they_had(folder: Path) -> None:
    custody.keep(folder, {"units/a.json": "1" * 64, "tables/a.parquet": "2" * 64}, "1.0")
    custody.keep(folder, {"units/a.json": "1" * 64, "tables/a.parquet": "3" * 64}, "1.0")
    chain = custody.read(folder)
    assert chain.faults == () and [line.action for line in chain.lines[3:]] == ["kept"] * 3
    assert chain.file_hashes() == custody.held(folder) == {
        "units/a.json": {"1" * 64}, "tables/a.parquet": {"2" * 64, "3" * 64},
    }  # fmt: skip


def test_what_is_held_of_a_log_with_a_torn_end_is_what_stands_before_it(folder: Path) -> None:
    custody.keep(folder, {"units/a.json": "1" * 64}, "1.0")
    path = folder / custody.NAME
    path.write_bytes(path.read_bytes() + b'{"about":{"file":"units/b.json"')
    assert custody.held(folder) == {"units/a.json": {"1" * 64}}
    path.write_bytes(path.read_bytes().replace(b"base", b"bose"))
    with pytest.raises(AuditError, match="is broken: custody.jsonl, line 1") as caught:
        custody.held(folder)
    assert caught.value.code == ExitCode.INTEGRITY


def test_the_first_line_has_nothing_before_it_and_every_fault_is_told_in_twelve_digits(folder: Path) -> None:
    first, second, third = map(json.loads, lines(folder))
    assert first["before"] == custody.FIRST == "0" * 64 and second["before"] == first["sha256"]
    other = third | {"n": 7, "before": "f" * 64}
    raw = json.dumps(other, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    (folder / custody.NAME).write_text("\n".join([*lines(folder)[:2], raw, "torn"]), encoding="utf-8")
    bare = {name: value for name, value in other.items() if name != "sha256"}
    plain = json.dumps(bare, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    gives = hashlib.sha256(plain.encode()).hexdigest()
    assert custody.read(folder).faults == (
        "custody.jsonl, line 3, n: states 7",
        f"custody.jsonl, line 3, before: states {'f' * 12}, the line before gives {second['sha256'][:12]}",
        f"custody.jsonl, line 3, sha256: states {third['sha256'][:12]}, the line gives {gives[:12]}",
        "custody.jsonl, line 4, its end: is torn off",
    )
    with pytest.raises(AuditError, match="is broken: custody.jsonl, line 3, n: states 7"):
        custody.append(folder, "verified", {"outcome": "accepted"}, "1.0")


def test_a_log_that_was_never_written_is_an_empty_one_and_nothing_of_it_is_mended(tmp_path: Path) -> None:
    assert custody.read(tmp_path) == custody.Chain((), ()) and custody.held(tmp_path) == {}
    custody.mend(tmp_path)
    assert not list(tmp_path.iterdir())
    (tmp_path / custody.NAME).write_bytes(b"half of the first")
    custody.mend(tmp_path)
    assert (tmp_path / custody.NAME).read_bytes() == b""


def test_a_line_that_cannot_be_read_is_one_fault_and_the_lines_after_it_are_still_looked_at(folder: Path) -> None:
    first, _, third = lines(folder)
    (folder / custody.NAME).write_text(
        "\n".join([first, "no JSON", third.replace("UA-1", "UA-2"), ""]), encoding="utf-8"
    )
    faults = custody.read(folder).faults
    assert faults[0] == "custody.jsonl, line 2, the whole line: cannot be read" and len(faults) == 2
    assert faults[1].startswith("custody.jsonl, line 3, sha256: states ")
