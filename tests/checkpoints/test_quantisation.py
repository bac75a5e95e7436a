"""A quantised checkpoint is refused in a sentence that names its method, before anything is loaded."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING

from audit import checkpoints
from audit.schema import AuditError, Source
from tests import toy

METHODS: dict[str, dict[str, object]] = {
    "modelopt": {"quant_method": "modelopt", "quant_algo": "NVFP4"},
    "aqlm": {"quant_method": "aqlm", "nbits_per_codebook": 16},
    "method-of-tomorrow": {"quant_method": "method-of-tomorrow"},
    "an unnamed method": {"bits": 4},
}


def copy(out: Path) -> Path:
    return Path(shutil.copytree(toy.folder("llama"), out))


def edit_config(folder: Path, **fields: object) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))


def refusal(folder: Path, code: int = 2) -> str:
    with pytest.raises(AuditError) as caught:
        checkpoints.resolve(Source(path=str(folder)), Path("/"))
    assert caught.value.code == code and ("before they were quantised" in caught.value.do) == (code == 2)
    return caught.value.what


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_quantised_checkpoint_is_refused_by_the_name_of_its_method(tmp_path: Path, method: str, nested: bool) -> None:
    folder = copy(tmp_path / "model")
    stated = {"quantization_config": METHODS[method]}
    edit_config(folder, **({"text_config": stated} if nested else stated))
    assert f"quantised ({method})" in refusal(folder)


OPENED = {
    "awq", "bitsandbytes_4bit", "bitsandbytes_8bit", "compressed-tensors", "fbgemm_fp8", "fp8", "gguf", "gptq", "hqq",
    "mxfp4", "mxfp8", "torchao",
}  # fmt: skip


@pytest.mark.parametrize("method", sorted(AUTO_QUANTIZATION_CONFIG_MAPPING))
def test_every_method_of_the_library_is_opened_or_refused_by_its_name(tmp_path: Path, method: str) -> None:
    folder = copy(tmp_path / "model")
    edit_config(folder, quantization_config={"quant_method": method})
    with pytest.raises(AuditError) as caught:
        checkpoints.weights_folder(checkpoints.resolve(Source(path=str(folder)), Path("/")))
    assert caught.value.code == 2
    assert (f"quantised ({method})" in caught.value.what) == (method not in OPENED or method == "gguf")


CODES: dict[str, torch.Tensor] = {
    "model.layers.0.mlp.up_proj.qweight": torch.zeros(4, 4, dtype=torch.int32),
    "model.layers.0.mlp.up_proj.weight_packed": torch.zeros(4, 4, dtype=torch.int32),
    "model.layers.0.mlp.up_proj.weight": torch.zeros(80, 48, dtype=torch.int8),
    "model.layers.1.mlp.up_proj.weight": torch.zeros(80, 24, dtype=torch.uint8),
    "model.layers.2.mlp.up_proj.weight": torch.zeros(80, 48).to(torch.float8_e4m3fn),
    "model.layers.0.mlp.experts_blocks": torch.zeros(4, 4, dtype=torch.uint8),
    "model.layers.0.self_attn.q_proj.SCB": torch.zeros(4, dtype=torch.int16),
}


@given(st.sampled_from(sorted(CODES)), st.sampled_from(["", "modelopt", "vptq"]))
@settings(max_examples=14, deadline=None, suppress_health_check=list(HealthCheck))
def test_codes_are_found_where_no_config_says_that_they_are(
    tmp_path_factory: pytest.TempPathFactory, name: str, beside: str
) -> None:
    folder = copy(tmp_path_factory.mktemp("codes") / "model")
    weights = load_file(folder / "model.safetensors") | {name: CODES[name]}
    save_file(weights, folder / "model.safetensors")
    if beside:
        (folder / "hf_quant_config.json").write_text(json.dumps({"quantization": {"quant_algo": beside}}))
    integers = not beside and name.endswith(".weight") and not CODES[name].is_floating_point()
    assert name in (sentence := refusal(folder, 3 if integers else 2))
    assert ("stored as integers" if integers else beside or "an unnamed method") in sentence


def test_plain_weights_beside_a_settings_file_and_old_masks_are_no_codes(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    (folder / "quantize_config.json").write_text(json.dumps({"bits": 4}))
    edit_config(folder, quantization_config=None)
    tables = {
        "model.layers.0.self_attn.bias": torch.ones(1, 1, 8, 8).tril().to(torch.uint8),
        "model.position_ids": torch.arange(8),
    }
    save_file(load_file(folder / "model.safetensors") | tables, folder / "model.safetensors")
    assert checkpoints.resolve(Source(path=str(folder)), Path("/")).family == "llama"
