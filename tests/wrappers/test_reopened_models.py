"""What transformers does between a file and an opened model, where a cast or a setting changes numbers silently."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from audit import checkpoints
from audit.case import tokenise
from audit.schema import Item, Source, Template
from audit.wrappers import open_wrapper
from tests import toy


def opened(family: str, dtype: str) -> Any:
    return open_wrapper(toy.checkpoint(family), dtype=dtype).model  # type: ignore[attr-defined]


@pytest.mark.sampled
@pytest.mark.parametrize("family", ["llama", "gpt_neox", "gemma2", "qwen2"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rotary_tables_keep_their_precision_in_half_precision(family: str, dtype: str) -> None:
    """A model that is cast after it was opened has its tables cast too, and stays wrong when it is cast back."""
    whole, half = opened(family, "float32"), opened(family, dtype)
    tables = {name: table for name, table in whole.named_buffers() if "inv_freq" in name}
    ours = dict(half.named_buffers())
    assert tables and all(torch.equal(ours[name], table) for name, table in tables.items())
    assert half.get_input_embeddings().weight.dtype == getattr(torch, dtype)
    cast = dict(opened(family, "float32").to(getattr(torch, dtype)).named_buffers())
    assert any(not torch.equal(cast[name].float(), table) for name, table in tables.items()), "the trap is gone"


def test_shards_that_are_saved_again_name_the_same_weights(tmp_path: Path) -> None:
    """The library deals tensors to shards in the model's order, which is not that of the file it opened."""
    for name, source in (("one", toy.folder("llama")), ("two", tmp_path / "one")):
        model = AutoModelForCausalLM.from_pretrained(source)
        model.save_pretrained(tmp_path / name, max_shard_size="60KB" if name == "one" else "90KB")
        for path in toy.folder("llama").glob("token*"):
            shutil.copy(path, tmp_path / name)
        shutil.copy(toy.folder("llama") / "config.json", tmp_path / name)
        shutil.copy(toy.folder("llama") / "generation_config.json", tmp_path / name)
    one, two = (checkpoints.fingerprint(tmp_path / name) for name in ("one", "two"))
    assert sum(name.endswith(".safetensors") for name in one.files) > 2
    assert one.total == two.total == checkpoints.fingerprint(toy.folder("llama")).total and one.files != two.files


@pytest.mark.parametrize("stated", [False, True])
def test_a_beginning_is_what_the_encoded_ids_show_and_not_what_the_settings_state(tmp_path: Path, stated: bool) -> None:
    """``add_bos_token`` is not read beside a tokenizer.json, whose own rule puts a BOS or none."""
    folder = Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"add_bos_token": stated}))
    rule = json.loads((folder / "tokenizer.json").read_text())
    item = Item(id="a", group="g", question="who is anna ?", answer="a nurse", form="trained")
    for puts in (True, False):
        document = rule if puts else rule | {"post_processor": None}
        (folder / "tokenizer.json").write_text(json.dumps(document))
        tokenizer = checkpoints.load_tokenizer(checkpoints.tokenizer_files(folder))
        assert (tokenizer("anna")["input_ids"][0] == 1) is puts
        for bos, first in (("tokenizer", puts), ("always", True), ("never", False)):
            ids = tokenise([item], ["a nurse"], tokenizer, Template(bos=bos), toy.MAX_LENGTH).ids[0].tolist()
            assert (ids[0] == 1) is first and ids.count(1) == first


def test_an_adapter_of_a_repository_with_several_is_never_chosen_by_accident(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    from audit.schema import AuditError

    peft: Any = get_peft_model(toy.model("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    peft.add_adapter("second", LoraConfig(r=2, target_modules=["v_proj"], init_lora_weights=False))
    peft.save_pretrained(tmp_path)
    with pytest.raises(AuditError, match="second"):
        checkpoints.resolve(Source(path=str(toy.folder("llama")), adapter=str(tmp_path)), Path("/"))
    chosen = Source(path=str(toy.folder("llama")), adapter=str(tmp_path / "second"))
    assert checkpoints.resolve(chosen, Path("/")).adapter == str(tmp_path / "second")
