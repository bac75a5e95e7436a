"""A run signed with a user's key: what every hash made anew cannot fake."""

import shutil
import sys
from pathlib import Path

import pytest

from audit.cli import main
from audit.review import sign_run, verify_run
from audit.runs import custody, manifest
from audit.schema import AuditError, ExitCode
from tests import whole_run

minisign = pytest.importorskip("minisign", reason="py-minisign is not installed")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pairs of keys, ``mine`` and ``other``, and ``mine`` once more under the password 'horse'."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "other"):
        pair = minisign.KeyPair.generate()
        (folder / name).write_bytes(bytes(pair.secret_key) + b"\n")
        (folder / f"{name}.pub").write_bytes(bytes(pair.public_key) + b"\n")
    locked = minisign.SecretKey.from_file(folder / "mine")
    locked.encrypt("horse")
    (folder / "locked").write_bytes(bytes(locked) + b"\n")
    return folder


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, keys: Path) -> Path:
    folder = tmp_path_factory.mktemp("signed") / "run"
    whole_run.make(folder)
    sign_run(folder, keys / "mine", never)
    return folder


@pytest.fixture
def folder(signed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(signed, tmp_path / "run"))


def never() -> str:
    raise AssertionError("the key has no password")


def problems(folder: Path, key: Path) -> tuple[str, ...]:
    return verify_run(folder, signer=key).problems


def test_a_signed_run_is_accepted_by_its_key_and_a_signature_that_nobody_checks_is_said(
    folder: Path, keys: Path
) -> None:
    assert problems(folder, keys / "mine.pub") == () == verify_run(folder, signer=keys / "mine.pub").remarks
    (remark,) = verify_run(folder).remarks
    assert remark == "manifest.sha256.minisig is there and was not checked: give --signed-by"
    assert manifest.check(folder) == []
    text = (folder / "manifest.sha256.minisig").read_text().splitlines()
    assert len(text) == 4 and text[0].startswith("untrusted comment: ") and "UA-" in text[2]


def test_a_signature_by_another_key_is_rejected(folder: Path, keys: Path) -> None:
    assert problems(folder, keys / "other.pub") == ("manifest.sha256.minisig: is by another key",)
    assert main(["verify", str(folder), "--signed-by", str(keys / "other.pub")]) == ExitCode.INTEGRITY
    assert main(["verify", str(folder), "--signed-by", str(keys / "mine.pub")]) == ExitCode.OK


def test_a_run_that_nobody_signed_is_rejected(folder: Path, keys: Path) -> None:
    (folder / "manifest.sha256.minisig").unlink()
    assert problems(folder, keys / "mine.pub") == ("manifest.sha256.minisig is missing: nobody signed this run",)
    (folder / "manifest.sha256.minisig").write_text("signed, I promise")
    assert problems(folder, keys / "mine.pub")[0].startswith("manifest.sha256.minisig is no signature of minisign")


def test_a_changed_run_is_rejected_although_every_hash_was_made_anew(folder: Path, keys: Path) -> None:
    document = whole_run.read(folder)
    document["cohorts"]["forget"]["items"] = 9
    whole_run.write(folder, document)
    assert verify_run(folder).accepted, "what is said once alone is believed without a signature"
    told = "manifest.sha256.minisig: does not fit manifest.sha256, which was changed"
    assert problems(folder, keys / "mine.pub") == (told,)


def test_a_custody_log_made_anew_is_rejected_although_the_manifest_is_the_one_that_was_signed(
    folder: Path, keys: Path
) -> None:
    line = custody.read(folder).last("issued")
    assert line is not None
    (folder / custody.NAME).unlink()
    custody.receive(folder, [custody.Arrival("base", "0" * 64, "elsewhere")], "test")
    custody.append(folder, "issued", line.about, "test")
    assert any("was made of another custody log" in p for p in problems(folder, keys / "mine.pub"))


def test_lines_of_custody_that_came_after_are_no_fault(folder: Path, keys: Path) -> None:
    custody.append(folder, "verified", {"outcome": "accepted"}, "test")
    assert problems(folder, keys / "mine.pub") == ()


def test_a_key_under_a_password_is_opened_by_it_alone(folder: Path, keys: Path) -> None:
    sign_run(folder, keys / "locked", lambda: "horse")
    assert problems(folder, keys / "mine.pub") == ()
    with pytest.raises(AuditError, match="gives no secret key of minisign") as caught:
        sign_run(folder, keys / "locked", lambda: "donkey")
    assert caught.value.code == ExitCode.INPUT


def test_a_run_that_is_not_as_it_was_issued_is_not_signed(folder: Path, keys: Path) -> None:
    (folder / "report.md").write_text("all well")
    with pytest.raises(AuditError, match="is not what was issued: report.md: changed") as caught:
        sign_run(folder, keys / "mine", never)
    assert caught.value.code == ExitCode.INTEGRITY


@pytest.mark.parametrize("name", ["mine", "nowhere"])
def test_what_is_no_public_key_is_bad_input(folder: Path, keys: Path, name: str) -> None:
    with pytest.raises(AuditError, match="is no public key of minisign") as caught:
        verify_run(folder, signer=keys / name)
    assert caught.value.code == ExitCode.INPUT


def test_a_report_alone_has_no_signature_to_check(folder: Path, keys: Path) -> None:
    lone = folder.parent / "sent.json"
    shutil.copy(folder / "report.json", lone)
    with pytest.raises(AuditError, match="stands alone") as caught:
        verify_run(lone, signer=keys / "mine.pub")
    assert caught.value.code == ExitCode.INPUT


def test_without_the_package_it_is_said_which_to_install(
    folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "minisign", None)
    with pytest.raises(AuditError, match="py-minisign") as caught:
        verify_run(folder, signer=keys / "mine.pub")
    assert "residua[sign]" in caught.value.do and verify_run(folder).accepted


def test_the_command_signs_and_names_the_key(folder: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sign", str(folder), "--key", str(keys / "other")]) == 0
    assert "signed with key " in capsys.readouterr().out
    assert problems(folder, keys / "other.pub") == ()
