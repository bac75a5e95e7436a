"""Folders of vision-language models: what names them, adapters on every tower, and which weights are rounded."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from audit.bench import Bench, WrapperLearner
from audit.checkpoints import model_config, resolve
from audit.edits.quantise import matrices
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from audit.wrappers import open_wrapper, unused_tensors, wrap
from tests import toy_vlm

kinds = pytest.mark.parametrize("kind", toy_vlm.KINDS)
LOGPROB = Read(site=Site(part="logits"), at="key", reduce="logprob")


def _changed(kind: str, tmp_path: Path, name: str, change: Callable[[str], str]) -> Checkpoint:
    folder = shutil.copytree(toy_vlm.folder(kind), tmp_path / "changed")
    (folder / name).write_text(change((folder / name).read_text()))
    return resolve(Source(path=str(folder)), tmp_path)


@kinds
def test_a_processor_s_settings_are_part_of_the_fingerprint(kind: str, tmp_path: Path) -> None:
    other = _changed(kind, tmp_path, "processor_config.json", lambda text: text.replace("0.5", "0.25"))
    assert other.fingerprint != toy_vlm.checkpoint(kind).fingerprint and other.modality == "image+text"


@kinds
def test_sizes_are_those_of_each_tower(kind: str) -> None:
    size = model_config(toy_vlm.checkpoint(kind))
    assert size.towers.keys() == {"text", "vision"}
    assert (size.blocks, size.width, size.towers["vision"].width) == (4, toy_vlm.WIDTH, toy_vlm.VISION_WIDTH)
    assert not unused_tensors(toy_vlm.checkpoint(kind))


@pytest.mark.sampled
@pytest.mark.parametrize("tower", ["q_proj|v_proj", ".*language_model.*(q_proj|down_proj)", ".*vision.*(q_proj|fc1)"])
@pytest.mark.parametrize("kind", ["llava_clip", "mllama", pytest.param("gemma3", marks=pytest.mark.slow)])
def test_an_adapter_is_opened_on_every_tower(kind: str, tower: str, tmp_path: Path) -> None:
    """Merged into the base, against peft's own forward."""
    targets: Any = tower if tower.startswith(".") else tower.split("|")
    lora = get_peft_model(toy_vlm.model(kind), LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    lora.save_pretrained(tmp_path / "adapter")
    ckpt = resolve(Source(path=str(toy_vlm.folder(kind)), adapter=str(tmp_path / "adapter")), tmp_path)
    rows = toy_vlm.rows(kind)
    with torch.no_grad():
        logits = lora.eval()(**toy_vlm.own_inputs(kind, rows), use_cache=False).logits
    row, position = rows.targets("key")
    own = logits[row, position - 1].log_softmax(-1).gather(-1, rows.ids[row, position, None])[:, 0]
    got, base = (Bench().run(c, rows, [LOGPROB])[LOGPROB] for c in (ckpt, toy_vlm.checkpoint(kind)))
    torch.testing.assert_close(got, own, atol=1e-5, rtol=1e-5)
    assert float((got - base).abs().max()) > 0.1


@kinds
def test_a_tensor_that_a_file_lacks_is_named(kind: str, tmp_path: Path) -> None:
    folder = shutil.copytree(toy_vlm.folder(kind), tmp_path / "lacking")
    tensors = load_file(folder / "model.safetensors")
    lost = next(name for name in tensors if "vision" in name and "weight" in name)
    save_file({n: v for n, v in tensors.items() if n != lost}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(AuditError, match="lacks 1 tensors") as caught:
        open_wrapper(resolve(Source(path=str(folder)), tmp_path))
    assert caught.value.code == 3


@kinds
def test_a_kind_that_is_not_opened_is_refused_by_its_config_alone(kind: str, tmp_path: Path) -> None:
    """Whatever its files hold: exit code 2, with the reason, before a weight is read."""

    def other(text: str) -> str:
        return json.dumps({**json.loads(text), "model_type": "qwen2_vl", "architectures": ["X"]})

    ckpt = _changed(kind, tmp_path, "config.json", other)
    for backend in ("native", "nnsight"):
        with pytest.raises(AuditError, match="models of type qwen2_vl are not opened: .*rope_deltas") as caught:
            open_wrapper(ckpt, backend)
        assert caught.value.code == 2


@kinds
def test_rounding_covers_every_tower_and_leaves_the_ends(kind: str) -> None:
    found = {matrix.name for matrix in matrices(WrapperLearner(wrap(toy_vlm.model(kind))))}
    every = {matrix.name for matrix in matrices(WrapperLearner(wrap(toy_vlm.model(kind))), ends=True)}
    assert any(".language_model." in name for name in found) and any(".vision_" in name for name in found)
    assert kind == "gemma3" or any("multi_modal_projector" in name for name in found)
    ends = {name.split(".")[-2] for name in every - found}
    assert {"embed_tokens", "patch_embedding"} <= ends and "patch_embedding" not in {n.split(".")[-2] for n in found}
