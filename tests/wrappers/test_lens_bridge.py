"""No bridge is booted on a vision-language model, opening one installs nothing, and torch stays as it is."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText, PreTrainedModel

from audit.checkpoints import resolve
from audit.schema import AuditError, Source
from audit.wrappers import lens_bridge, open_wrapper, wrap
from audit.wrappers.lens_bridge import LensBridgeWrapper, without_downloads
from tests import toy, toy_vlm

_STARTERS = ("Popen", "run", "call", "check_call", "check_output")


@pytest.fixture(autouse=True)
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever starts a process fails the test, and says so even where the failure is swallowed."""
    begun: list[str] = []

    def starting(name: str) -> object:
        def start(*args: object, **_: object) -> None:
            begun.append(f"{name} {args}")
            raise AssertionError(f"a process is started: {args}")

        return start

    for name in _STARTERS:
        monkeypatch.setattr(subprocess, name, starting(name))
    monkeypatch.setattr(os, "system", starting("os.system"))
    return begun


def _without_processor(kind: str, tmp_path: Path) -> Path:
    bare = shutil.copytree(toy_vlm.folder(kind), tmp_path / "bare")
    (bare / "processor_config.json").unlink()
    return bare


@pytest.mark.parametrize("kind", toy_vlm.KINDS)
@pytest.mark.parametrize("processor", [True, False], ids=["with a processor", "without a processor"])
def test_a_bridge_is_refused_by_name_and_no_process_is_started(
    kind: str, processor: bool, tmp_path: Path, no_process: list[str]
) -> None:
    folder = toy_vlm.folder(kind) if processor else _without_processor(kind, tmp_path)
    model: PreTrainedModel = AutoModelForImageTextToText.from_pretrained(folder, local_files_only=True)
    ckpt = resolve(Source(path=str(folder)), tmp_path)
    ways: list[Callable[[], object]] = [
        lambda: open_wrapper(ckpt, "transformer_lens"), lambda: wrap(model, "transformer_lens"),
        lambda: LensBridgeWrapper(model),
    ]  # fmt: skip
    for way in ways:
        with pytest.raises(AuditError, match="opens no vision-language model.*weight \\+ 1") as caught:
            way()
        assert caught.value.code == 2
    assert not no_process


def test_a_bridge_on_a_language_model_starts_no_process(no_process: list[str]) -> None:
    assert wrap(toy.model("gpt2"), "transformer_lens").n_blocks == toy.N_BLOCKS and not no_process


def test_a_boot_that_replaces_torch_is_an_error_of_integrity(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = iter(["2.13.0+cpu", "2.15.0", "2.15.0"])
    monkeypatch.setattr(lens_bridge, "version", lambda _: next(versions))
    with pytest.raises(AuditError, match=r"replaced torch 2\.13\.0\+cpu by 2\.15\.0") as caught:
        wrap(toy.model("gpt2"), "transformer_lens")
    assert caught.value.code == 3


def test_inside_a_boot_no_index_is_reached_and_the_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "0")
    monkeypatch.delenv("UV_OFFLINE", raising=False)
    with without_downloads():
        assert (os.environ["PIP_NO_INDEX"], os.environ["UV_OFFLINE"], os.environ["HF_HUB_OFFLINE"]) == ("1", "1", "1")
    assert os.environ["PIP_NO_INDEX"] == "0" and "UV_OFFLINE" not in os.environ
