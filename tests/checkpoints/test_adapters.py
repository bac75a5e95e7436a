"""Adapters that cannot be merged are refused by what their config says, before a model is built."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from audit.checkpoints import adapter_settings, resolve
from audit.checkpoints.adapters import MERGED_TYPES
from audit.schema import AuditError, Source
from audit.storage import write_tensors
from tests import toy

PLAIN = {"peft_type": "LORA", "target_modules": ["q_proj"], "r": 2}


def adapter(folder: Path, **entries: Any) -> Path:
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(PLAIN | entries))
    write_tensors(folder / "adapter_model.safetensors", {"a": torch.ones(2)}, {})
    return folder


def refusal(folder: Path) -> AuditError:
    with pytest.raises(AuditError) as caught:
        resolve(Source(path=str(toy.folder("llama")), adapter=str(folder)), toy.root())
    assert caught.value.code == 2
    return caught.value


@pytest.mark.parametrize(("kind", "reason"), [
    ("PROMPT_TUNING", "before the text"), ("PREFIX_TUNING", "before the text"), ("P_TUNING", "before the text"),
    ("MULTITASK_PROMPT_TUNING", "before the text"), ("ADAPTION_PROMPT", "inside attention"),
    ("XLORA", "for every input"), ("POLY", "for every input"),
    ("TELEPATHY", "'TELEPATHY' is no type of adapter that is known"),
])  # fmt: skip
def test_adapters_that_no_weights_can_hold_are_refused_with_the_reason(kind: str, reason: str, tmp_path: Path) -> None:
    error = refusal(adapter(tmp_path / "a", peft_type=kind))
    assert kind in error.what
    assert reason in error.what
    assert "audit" in error.do


@pytest.mark.parametrize("kind", sorted(str(kind.value) for kind in PEFT_TYPE_TO_CONFIG_MAPPING))
def test_every_type_of_the_installed_peft_is_merged_or_refused_by_name(kind: str, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", peft_type=kind)
    if kind in MERGED_TYPES:
        assert adapter_settings(folder)["peft_type"] == kind
    else:
        assert f"type {kind}" in refusal(folder).what


@pytest.mark.parametrize(("entries", "reason"), [
    ({"alora_invocation_tokens": [5, 6]}, "activated LoRA"),
    ({"layer_replication": [[0, 2], [1, 3]]}, "repeats blocks"),
    ({"init_lora_weights": "pissa_niter_16"}, "another model"), ({"init_lora_weights": "corda"}, "another model"),
    ({"init_lora_weights": "lora_ga"}, "another model"), ({"init_lora_weights": "loftq"}, "another model"),
    ({"peft_type": None}, "no peft_type"), ({"peft_type": 7}, "no peft_type"),
])  # fmt: skip
def test_entries_that_would_open_as_another_model_are_refused(
    entries: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    error = refusal(adapter(tmp_path / "a", **entries))
    assert reason in error.what
    assert all(name in error.what for name in entries)


@pytest.mark.parametrize("start", [True, False, "gaussian", "pissa", "olora", "orthogonal", None])
def test_entries_that_only_start_training_are_none_of_ours(start: object, tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a", init_lora_weights=start, alora_invocation_tokens=None, layer_replication=[])
    assert resolve(Source(path=str(toy.folder("llama")), adapter=str(folder)), toy.root()).adapter == str(folder)


def test_adapters_in_subfolders_are_listed_and_asked_for(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    adapter(folder / "second")
    adapter(folder / "third")
    error = refusal(folder)
    assert "second, third" in error.what
    assert "second" in error.do
    (folder / "adapter_config.json").unlink()
    assert "in subfolders (second, third)" in refusal(folder).what
    assert adapter_settings(folder / "second") == PLAIN


@pytest.mark.parametrize("step", ["checkpoint-500", "last-checkpoint", "checkpoint-final", "checkpoint_3"])
def test_earlier_steps_of_a_trainer_are_not_asked_about(tmp_path: Path, step: str) -> None:
    folder = adapter(tmp_path / "a")
    adapter(folder / step)
    assert adapter_settings(folder) == PLAIN


def test_folders_without_an_adapter_say_what_they_hold(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "no adapter" in refusal(tmp_path / "empty").what
    folder = adapter(tmp_path / "a")
    (folder / "model.safetensors").write_bytes(b"")
    assert "a whole model beside" in refusal(folder).what
    assert "no such folder" in refusal(tmp_path / "nowhere").what


def test_a_broken_config_is_said(tmp_path: Path) -> None:
    folder = adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(AuditError, match="broken JSON") as caught:
        adapter_settings(folder)
    assert caught.value.code == 3


def test_what_an_adapter_is_is_read_without_loading_a_model_library(tmp_path: Path) -> None:
    lines = (
        "import sys", "from pathlib import Path", "from audit.checkpoints import adapter_settings",
        f"adapter_settings(Path({str(adapter(tmp_path / 'a'))!r}))", "print(*({'torch', 'peft'} & sys.modules.keys()))",
    )  # fmt: skip
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
