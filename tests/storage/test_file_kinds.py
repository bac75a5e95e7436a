"""Only regular files and folders are read: what would keep a reader waiting is refused before it is opened."""

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from audit import checkpoints
from audit.case import CaseFile, load_case, open_case
from audit.schema import AuditError, Source
from audit.storage import refuse_special
from tests.case.test_opened import root as root

SPECIAL: dict[str, Callable[[Path], object]] = {
    "a named pipe": os.mkfifo,
    "a socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "a device": lambda path: path.symlink_to("/dev/null"),
}


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A reader that waits is a failure and no test that never ends."""

    def late(_signal: int, _frame: object) -> None:
        raise TimeoutError("it waited")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("kind", SPECIAL)
def test_what_is_no_file_is_refused_by_its_kind(tmp_path: Path, kind: str) -> None:
    SPECIAL[kind](tmp_path / "there")
    with pytest.raises(AuditError, match=kind) as caught:
        refuse_special(tmp_path / "there")
    assert caught.value.code == 2


@pytest.mark.skipif(not os.path.ismount("/proc"), reason="no /proc here")
def test_a_file_that_the_kernel_makes_up_is_refused_behind_a_link_too(tmp_path: Path) -> None:
    (tmp_path / "there").symlink_to("/proc/self/status")
    with pytest.raises(AuditError, match="a file of the kernel") as caught:
        refuse_special(tmp_path / "there")
    assert caught.value.code == 2


VAST = 1 << 42
"""Bytes of a file of which nothing is written: more than any machine reads at once."""


def test_a_file_larger_than_memory_is_refused_only_where_it_would_be_read_whole(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    os.truncate(tmp_path / "there", VAST)
    refuse_special(tmp_path / "there")
    with pytest.raises(AuditError, match="more than can be read at once") as caught:
        refuse_special(tmp_path / "there", in_memory=True)
    assert caught.value.code == 2


@pytest.mark.parametrize(
    "name", ["case.toml", "forget.jsonl", "base/config.json", "base/tokenizer.json", "base/generation_config.json"]
)
def test_no_file_of_a_case_is_read_that_is_larger_than_memory(root: Path, name: str, tmp_path: Path) -> None:
    (root / name).touch()
    os.truncate(root / name, VAST)
    with pytest.raises(AuditError, match="more than can be read at once"):
        file = CaseFile.read(root / "case.toml")
        open_case(file.case, file.root, tmp_path / "out")


def test_files_folders_and_what_is_not_there_pass(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path, tmp_path / "file", tmp_path / "absent", tmp_path / "loop"):
        refuse_special(path)


PLACES = (
    "forget.jsonl", "base/config.json", "base/tokenizer.json", "base/tokenizer_config.json", "base/x.tiktoken",
    "suspect/model.safetensors", "reference1/generation_config.json", "folder",
)  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", SPECIAL)
def test_no_input_of_a_case_is_waited_for(root: Path, place: str, kind: str) -> None:
    """Refused in a sentence, or not read at all."""
    case = load_case(root / "case.toml")
    if place == "folder":
        (root / "folder").mkdir()
        case = case.model_copy(update={"data": case.data.model_copy(update={"forget": "folder"})})
        SPECIAL[kind](root / "folder" / "rows.jsonl")
    else:
        if place.endswith("tiktoken"):
            (root / "base" / "tokenizer.json").unlink()
        (root / place).unlink(missing_ok=True)
        SPECIAL[kind](root / place)
    try:
        open_case(case, root, root / "out")
    except AuditError as error:
        assert error.code in (2, 3)
    else:
        assert place in ("reference1/generation_config.json", "base/tokenizer_config.json"), "a file that may be absent"


def test_a_case_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "case.toml")
    with pytest.raises(AuditError, match="named pipe"):
        CaseFile.read(tmp_path / "case.toml")


@pytest.mark.parametrize("name", ["a pipe", "a loop"])
def test_a_role_that_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    if name == "a pipe":
        os.mkfifo(tmp_path / "model")
    else:
        (tmp_path / "model").symlink_to("model")
    with pytest.raises(AuditError) as caught:
        checkpoints.resolve(Source(path="model"), tmp_path)
    assert caught.value.code == 2
