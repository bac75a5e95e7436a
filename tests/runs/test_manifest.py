"""The manifest holds against coreutils, and notices every change of a file that it lists."""

import shutil
import subprocess
from pathlib import Path

import pytest

from audit.runs import manifest, provenance
from audit.runs.manifest import Problem
from audit.schema import AuditError, ExitCode


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """A finished run as the engine leaves it, with everything that must stay out of the manifest."""
    for name in ("report.json", "report.html", "tables/a.parquet", "units/u 1.json", "events.jsonl", "run.lock",
                 "custody.jsonl", "sign.key", "half.json.tmp"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"content of {name}", encoding="utf-8")
    manifest.write(tmp_path)
    return tmp_path


def listed(folder: Path) -> list[str]:
    lines = (folder / manifest.NAME).read_text(encoding="utf-8").splitlines()
    return [line.split("  ", 1)[1] for line in lines]


def test_lists_every_kept_file_sorted_and_nothing_else(run_folder: Path) -> None:
    assert listed(run_folder) == ["report.html", "report.json", "tables/a.parquet", "units/u 1.json"]


def test_an_untouched_folder_has_no_problem(run_folder: Path) -> None:
    assert manifest.check(run_folder) == []


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="coreutils is not installed")
def test_coreutils_accepts_it_without_our_tool(run_folder: Path) -> None:
    (run_folder / "odd\nname\\.txt").write_text("x", encoding="utf-8")
    manifest.write(run_folder)
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", manifest.NAME], cwd=run_folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert manifest.check(run_folder) == []


@pytest.mark.parametrize("name", ["report.html", "report.json", "tables/a.parquet", "units/u 1.json"])
def test_one_changed_byte_in_any_listed_file_is_found(run_folder: Path, name: str) -> None:
    path = run_folder / name
    content = bytearray(path.read_bytes())
    content[3] ^= 1
    path.write_bytes(bytes(content))
    assert manifest.check(run_folder) == [Problem(name, "changed")]


def test_missing_and_extra_files_are_found(run_folder: Path) -> None:
    (run_folder / "report.json").unlink()
    (run_folder / "slipped_in.html").write_text("x", encoding="utf-8")
    assert manifest.check(run_folder) == [Problem("report.json", "missing"), Problem("slipped_in.html", "extra")]


def test_what_a_living_run_appends_to_is_left_alone(run_folder: Path) -> None:
    for name in ("events.jsonl", "custody.jsonl", "run.lock"):
        (run_folder / name).write_text("more", encoding="utf-8")
    assert manifest.check(run_folder) == []


def test_writing_again_gives_the_same_bytes(run_folder: Path) -> None:
    before = (run_folder / manifest.NAME).read_bytes()
    assert manifest.write(run_folder).read_bytes() == before


@pytest.mark.parametrize("broken", ["", "not a line\n", "0" * 64 + " one-space\n"])
def test_a_manifest_that_is_missing_or_damaged_is_an_integrity_error(run_folder: Path, broken: str) -> None:
    path = run_folder / manifest.NAME
    if broken:
        path.write_text(broken, encoding="utf-8")
    else:
        path.unlink()
    with pytest.raises(AuditError) as caught:
        manifest.check(run_folder)
    assert caught.value.code == ExitCode.INTEGRITY


def test_a_run_that_was_kept_aside_is_listed_in_full(run_folder: Path) -> None:
    aside = run_folder / "superseded" / "run-1"
    aside.mkdir(parents=True)
    for name in ("custody.jsonl", "events.jsonl", "manifest.sha256"):
        (aside / name).write_text(name, encoding="utf-8")
    manifest.write(run_folder)
    assert [path for path in listed(run_folder) if path.startswith("superseded")] == [
        f"superseded/run-1/{name}" for name in ("custody.jsonl", "events.jsonl", "manifest.sha256")
    ]


def test_version_of_the_code_changes_with_the_templates_that_probes_ask_by(monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = {}
    for packages in ((), ("probes/attacks",)):
        monkeypatch.setattr(provenance, "HASHED_PACKAGES", packages)
        hashed[packages] = provenance.code_version.__wrapped__()
    assert len(set(hashed.values())) == 2
