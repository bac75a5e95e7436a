"""A .gguf file is a release like another: found, named by its bytes, turned into a folder, nothing of it left out."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, PreTrainedTokenizerFast

from audit import checkpoints
from audit.schema import AuditError, Checkpoint, Source
from audit.wrappers import open_wrapper
from studies.quantised.releases import edit_config
from tests import quantised_toys as toys

pytest.importorskip("gguf")
from studies.quantised import gguf_writer  # noqa: E402

FREQUENCIES = "rope_freqs.weight"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def written(out: Path, name: str = "toy.gguf", **settings: Any) -> Path:
    out.mkdir(exist_ok=True)
    return gguf_writer.write(toys.folder(), out / name, settings.pop("kind", "Q8_0"), **settings)


def resolved(path: Path, **more: Any) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(path), **more), Path("/"))


def config_of(ckpt: Checkpoint) -> Any:
    return AutoConfig.from_pretrained(checkpoints.weights_folder(ckpt))


def logits(ckpt: Checkpoint) -> torch.Tensor:
    with torch.no_grad():
        return open_wrapper(ckpt).model(torch.arange(3, 13).unsqueeze(0)).logits  # type: ignore[attr-defined]


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE with one merge."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = ["<s>", "</s>", *letters, "an"]
    raw = Tokenizer(models.BPE({token: n for n, token in enumerate(tokens)}, [("a", "n")]))
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>")


@pytest.mark.thorough
def test_a_file_in_floating_point_is_the_model_that_it_was_made_of(tmp_path: Path) -> None:
    base, suspect = resolved(toys.folder()), resolved(written(tmp_path, kind="F32"))
    checkpoints.check_compatible(base, suspect)
    assert torch.equal(logits(base), logits(suspect))
    assert suspect.family == "llama" and config_of(suspect).dtype == torch.float32


def test_a_file_and_a_folder_that_holds_it_are_named_by_its_bytes(tmp_path: Path) -> None:
    file = written(tmp_path / "a")
    file_named, inside = resolved(file), resolved(file.parent)
    assert file_named.fingerprint == inside.fingerprint
    assert list(checkpoints.fingerprint_of(file_named).files) == ["toy.gguf"]
    assert checkpoints.fingerprint(file).total == checkpoints.fingerprint(file.parent).total == file_named.fingerprint
    toys.with_tokenizer(file.parent, toys.folder())
    assert resolved(file).fingerprint == file_named.fingerprint, "beside a file that is named itself nothing counts"
    assert resolved(file.parent).fingerprint != file_named.fingerprint
    assert checkpoints.tokenizer_folder(resolved(file.parent)) == file.parent
    assert checkpoints.tokenizer_folder(resolved(file)) is None
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(AuditError, match="not the weights") as caught:
        checkpoints.verify(file_named)
    assert caught.value.code == 3


def test_several_files_are_asked_about_and_parts_are_refused(tmp_path: Path) -> None:
    first = written(tmp_path, "a-Q8_0.gguf")
    shutil.copy(first, tmp_path / "b-Q4_0.gguf")
    with pytest.raises(AuditError, match=r"a-Q8_0\.gguf, b-Q4_0\.gguf") as caught:
        resolved(tmp_path)
    assert caught.value.code == 2 and str(first) in caught.value.do
    part = tmp_path / "c-00001-of-00002.gguf"
    shutil.copy(first, part)
    with pytest.raises(AuditError, match="one part of a model"):
        resolved(part)


def test_safetensors_come_before_a_gguf_file_beside_them(tmp_path: Path) -> None:
    shutil.copytree(toys.folder(), tmp_path / "both")
    written(tmp_path / "both")
    ckpt = resolved(tmp_path / "both")
    assert checkpoints.weights_folder(ckpt) == tmp_path / "both"
    assert checkpoints.unopened_files(tmp_path / "both") == ("toy.gguf",)


def test_a_broken_file_is_an_error(tmp_path: Path) -> None:
    file = written(tmp_path)
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(AuditError) as caught:
        checkpoints.weights_folder(resolved(file))
    assert caught.value.code in (2, 3) and "toy.gguf" in caught.value.what


def test_the_tokenizer_in_a_file_is_used_where_none_lies_beside_it(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    ckpt = resolved(written(tmp_path, tokenizer=tokenizer))
    folder = checkpoints.tokenizer_folder(ckpt)
    assert folder == checkpoints.weights_folder(ckpt)
    read = checkpoints.load_tokenizer(checkpoints.tokenizer_files(folder))
    for text in ("banana and", "An owl, anna?"):
        assert read(text, add_special_tokens=False)["input_ids"] == tokenizer(text)["input_ids"]
        assert read.decode(read(text, add_special_tokens=False)["input_ids"]) == text


def llama3_table(factor: float) -> np.ndarray:
    """The divisors by transformers' own Llama 3 scaling: plain frequencies over scaled ones."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

    plain = {"rope_type": "default", "rope_theta": 10000.0}
    scaled = plain | {
        "rope_type": "llama3", "factor": factor, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "max_position_embeddings": 131072}
    before, after = (LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=r)).inv_freq for r in (plain, scaled))
    return (before / after).numpy().astype(np.float32)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_scaled_rope_is_read_from_the_table_that_the_library_passes_over(tmp_path: Path, factor: float) -> None:
    ckpt = resolved(written(tmp_path, extra={FREQUENCIES: llama3_table(factor)}))
    rope = config_of(ckpt).rope_parameters
    assert (rope["rope_type"], rope["factor"], rope["original_max_position_embeddings"]) == ("llama3", factor, 8192)
    with pytest.raises(AuditError, match="rope") as caught:
        checkpoints.check_compatible(resolved(toys.folder()), ckpt)
    assert caught.value.code == 2


def test_a_table_of_ones_changes_nothing(tmp_path: Path) -> None:
    ckpt = resolved(written(tmp_path, extra={FREQUENCIES: np.ones(8, np.float32)}))
    checkpoints.check_compatible(resolved(toys.folder()), ckpt)
    open_wrapper(ckpt)


def test_a_table_of_another_kind_needs_the_config_that_the_model_was_made_from(tmp_path: Path) -> None:
    table = np.linspace(1, 3, 8, dtype=np.float32)
    file = written(tmp_path / "odd", extra={FREQUENCIES: table})
    with pytest.raises(AuditError, match="rope_freqs") as caught:
        resolved(file.parent)
    assert caught.value.code == 2 and "beside the .gguf file" in caught.value.do
    shutil.copy(toys.folder() / "config.json", file.parent)
    with pytest.raises(AuditError, match="rope_freqs"):
        checkpoints.weights_folder(resolved(file.parent))
    scaled = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.0}
    edit_config(file.parent, rope_parameters=scaled)
    assert config_of(resolved(file.parent)).rope_parameters["factor"] == 2.0


def test_an_entry_that_the_library_does_not_read_is_refused_or_taken_from_the_config_beside(tmp_path: Path) -> None:
    entries = {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}
    file = written(tmp_path / "scaled", entries=entries)
    with pytest.raises(AuditError, match=r"llama\.rope\.scaling") as caught:
        resolved(file.parent)
    assert caught.value.code == 2
    shutil.copy(toys.folder() / "config.json", file.parent)
    edit_config(
        file.parent, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}, torch_dtype=None
    )
    assert config_of(resolved(file.parent)).rope_parameters["factor"] == 4.0


def test_a_tensor_without_a_place_is_an_error(tmp_path: Path) -> None:
    ckpt = resolved(written(tmp_path, extra={"blk.0.attn_rot_extra.weight": np.ones((4, 4), np.float32)}))
    with pytest.raises(AuditError, match="attn_rot_extra") as caught:
        checkpoints.weights_folder(ckpt)
    assert caught.value.code == 2


def test_a_family_that_the_library_does_not_read_is_refused_by_name(tmp_path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "plamo")
    writer.add_block_count(1)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    with pytest.raises(AuditError, match="plamo") as caught:
        resolved(tmp_path / "x.gguf")
    assert caught.value.code == 2


def test_a_file_is_priced_and_its_dtype_known_without_a_config_beside_it(tmp_path: Path) -> None:
    ckpt = resolved(written(tmp_path))
    assert checkpoints.model_config(ckpt).blocks == 2
    assert checkpoints.exact_dtype([ckpt]) == "bfloat16"
