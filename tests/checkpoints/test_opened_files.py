"""What is hashed is what is opened: whatever lies beside the weights, and wherever a config or an index leads."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from audit import checkpoints
from audit.checkpoints import library_config
from audit.schema import AuditError, Checkpoint, Source
from audit.wrappers import open_wrapper
from audit.wrappers.families.causal_lm import load_folder
from tests import toy


def copy(out: Path, family: str = "llama") -> Path:
    return Path(shutil.copytree(toy.folder(family), out))


def resolved(folder: Path) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(folder)), Path("/"))


def edit_json(path: Path, **fields: object) -> None:
    document = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps(document | fields))


def other_weights(folder: Path, by: float = 1.0) -> dict[str, torch.Tensor]:
    """The right names with other values: opened by mistake, they are seen."""
    return {name: tensor + by for name, tensor in load_file(toy.folder("llama") / "model.safetensors").items()}


def shards(folder: Path, weights: dict[str, torch.Tensor], names: tuple[str, str], index: str) -> None:
    """Two files and an index of them; nothing is said of metadata, as some tools leave it out."""
    halves = (sorted(weights)[::2], sorted(weights)[1::2])
    for name, mine in zip(names, halves, strict=True):
        (folder / name).parent.mkdir(exist_ok=True)
        save_file({n: weights[n] for n in mine}, folder / name)
    places = {n: name for name, mine in zip(names, halves, strict=True) for n in mine}
    (folder / index).write_text(json.dumps({"weight_map": places}))


def adapter(folder: Path) -> None:
    """An adapter's files beside the weights, as a merge in place leaves them."""
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(toy.model("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    peft.save_pretrained(folder)


STANDARD = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
BESIDE: dict[str, Callable[[Path], object]] = {
    "consolidated": lambda f: save_file(other_weights(f, 2.0), f / "consolidated.safetensors"),
    "variant": lambda f: save_file(other_weights(f, 3.0), f / "model.fp16.safetensors"),
    "pickle": lambda f: torch.save(other_weights(f, 4.0), f / "pytorch_model.bin"),
    "adapter": adapter,
    "index": lambda f: shards(f, other_weights(f, 5.0), STANDARD, "model.safetensors.index.json"),
    "a shard of the single file's name": lambda f: shards(
        f, other_weights(f, 6.0), ("model.safetensors", "rest.safetensors"), "model.safetensors.index.json"
    ),
    "index into a subfolder": lambda f: (
        (f / "model.safetensors").unlink(missing_ok=True),
        shards(f, other_weights(f, 7.0), ("sub/a.safetensors", "sub/b.safetensors"), "model.safetensors.index.json"),
    ),
    "index alone": lambda f: (
        (f / "model.safetensors").unlink(missing_ok=True),
        shards(f, other_weights(f, 8.0), STANDARD, "model.safetensors.index.json"),
    ),
    "a tensor in two shards": lambda f: (
        (f / "model.safetensors").unlink(missing_ok=True),
        shards(f, other_weights(f, 9.0), STANDARD, "model.safetensors.index.json"),
        save_file(other_weights(f, 10.0), f / STANDARD[0]),
    ),
    "distributed": lambda f: ((f / ".metadata").write_bytes(b""), (f / "__0_0.distcp").write_bytes(b"")),
    "another config": lambda f: (
        (f / "config.4.0.0.json").write_text((f / "config.json").read_text().replace('"silu"', '"relu"')),
        edit_json(f / "config.json", configuration_files=["config.4.0.0.json", "config.json"]),
    ),
    "a file named in the config": lambda f: (
        save_file(other_weights(f, 11.0), f / "other.safetensors"),
        edit_json(f / "config.json", transformers_weights="other.safetensors"),
    ),
    "an index named in the config": lambda f: (
        shards(f, other_weights(f, 12.0), ("x.safetensors", "y.safetensors"), "other.safetensors.index.json"),
        edit_json(f / "config.json", transformers_weights="other.safetensors.index.json"),
    ),
    "a subfolder named in the config": lambda f: (
        (f / "far").mkdir(exist_ok=True),
        save_file(other_weights(f, 13.0), f / "far" / "other.safetensors"),
        edit_json(f / "config.json", transformers_weights="far/other.safetensors"),
    ),
    "a folder above named in the config": lambda f: edit_json(
        f / "config.json", transformers_weights="../x.safetensors"
    ),
    "a pickle named in the config": lambda f: edit_json(f / "config.json", transformers_weights="adapter_model.bin"),
    "null in the config": lambda f: edit_json(f / "config.json", transformers_weights=None),
}  # fmt: skip


def loaded_is_hashed(folder: Path) -> bool:
    """Every opened tensor is, to the bit, that of the files in the fingerprint; False where the folder is refused."""
    try:
        ckpt = resolved(folder)
        model = load_folder(folder, torch.float32, "default")
    except AuditError as error:
        assert error.code in (2, 3) and "\n" not in error.what
        return False
    hashed = [load_file(folder / n) for n in checkpoints.fingerprint_of(ckpt).files if n.endswith(".safetensors")]
    tensors = {name: tensor for file in hashed for name, tensor in file.items()}
    state = model.state_dict()
    assert tensors.keys() == state.keys() and all(torch.equal(state[n], t) for n, t in tensors.items())
    assert library_config(folder).hidden_act == model.config.hidden_act == "silu"
    return True


@given(st.lists(st.sampled_from(sorted(BESIDE)), max_size=3, unique=True))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_whatever_lies_beside_the_weights_what_is_opened_is_what_was_hashed(
    tmp_path_factory: pytest.TempPathFactory, beside: list[str]
) -> None:
    folder = copy(tmp_path_factory.mktemp("generated") / "model")
    for name in beside:
        BESIDE[name](folder)
    loaded_is_hashed(folder)


REFUSED = {
    "index into a subfolder", "a tensor in two shards", "another config", "a subfolder named in the config",
    "a folder above named in the config", "a pickle named in the config", "a shard of the single file's name",
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("name", sorted(BESIDE))
def test_each_thing_beside_the_weights_is_left_out_followed_or_refused(tmp_path: Path, name: str) -> None:
    folder = copy(tmp_path / "model")
    BESIDE[name](folder)
    assert loaded_is_hashed(folder) is (name not in REFUSED)


def test_adapter_files_beside_merged_weights_change_neither_the_logits_nor_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copy(tmp_path / "model")
    clean = resolved(folder)
    ids = torch.arange(4, 16)[None]
    with torch.inference_mode():
        expected = load_folder(folder, torch.float32, "default")(ids).logits
        adapter(folder)
        beside = resolved(folder)
        opened = open_wrapper(beside)
        assert beside.key == clean.key
        assert torch.equal(opened.model(ids).logits, expected)  # type: ignore[attr-defined]
    assert "adapter_config.json, adapter_model.safetensors" in caplog.text
    assert checkpoints.unopened_files(folder) == ("adapter_config.json", "adapter_model.safetensors")


def test_the_file_that_the_config_names_is_hashed_listed_and_checked_for_nan(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    before = resolved(folder)
    weights = other_weights(folder)
    weights["model.norm.weight"][3] = float("nan")
    save_file(weights, folder / "other.safetensors")
    edit_json(folder / "config.json", transformers_weights="other.safetensors")
    after = resolved(folder)
    assert after.key != before.key and "other.safetensors" in checkpoints.fingerprint_of(after).files
    assert checkpoints.unopened_files(folder) == ("model.safetensors",)
    with pytest.raises(AuditError, match=r"other\.safetensors.*NaN"):
        checkpoints.check_finite(after)
    assert set(checkpoints.tensor_shapes(folder)) == set(weights)


HARMLESS: dict[str, object] = {
    "auto_map": None, "attn_implementation": "flash_attention_2", "_attn_implementation": "flash_attention_2",
    "configuration_files": ["config.json"],
}  # fmt: skip


@pytest.mark.parametrize("entry", HARMLESS)
def test_entries_that_name_no_code_and_kernels_of_another_machine_do_not_keep_a_model_shut(
    tmp_path: Path, entry: str
) -> None:
    folder = copy(tmp_path / "model")
    edit_json(folder / "config.json", **{entry: HARMLESS[entry]})
    if entry == "auto_map":
        edit_json(folder / "tokenizer_config.json", auto_map=None)
    assert loaded_is_hashed(folder)
    checkpoints.check_compatible(toy.checkpoint("llama"), resolved(folder))
    checkpoints.load_tokenizer(checkpoints.tokenizer_files(folder))


def test_an_ordinary_folder_keeps_its_fingerprint() -> None:
    """As it was computed before the list of files was ours, from the bytes alone."""
    import hashlib

    from audit.storage import safetensors_file

    folder = toy.folder("gpt2")
    names = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
    small = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in names if (folder / n).is_file()}
    tensors = safetensors_file.combined(safetensors_file.digest(folder / "model.safetensors").tensors)
    total = hashlib.sha256(f"{tensors}\n{json.dumps(small, sort_keys=True)}".encode()).hexdigest()
    assert checkpoints.fingerprint(folder).total == total


def test_files_that_changed_while_the_model_was_opened_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy(tmp_path / "model")
    ckpt = resolved(folder)

    def swapped(*args: object) -> object:
        save_file(other_weights(folder), folder / "model.safetensors")
        return load_folder(*args)  # type: ignore[arg-type]

    monkeypatch.setattr("audit.wrappers.families.causal_lm.load_folder", swapped)
    with pytest.raises(AuditError, match="not the weights that were named") as caught:
        open_wrapper(ckpt)
    assert caught.value.code == 3


def test_a_model_and_its_tokenizer_are_opened_from_links_that_are_gone_afterwards(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    with checkpoints.staged_model(folder) as stage:
        names = sorted(path.name for path in stage.iterdir())
        assert names == ["config.json", "generation_config.json", "model.safetensors"]
    assert not stage.exists()
    model = load_folder(folder, torch.float32, "default")
    assert model.name_or_path == model.config.name_or_path == str(folder)


# ---- what a library raises ---------------------------------------------------------------------------------------
BROKEN: dict[str, Callable[[Path], object]] = {
    "config of another kind": lambda f: edit_json(f / "config.json", num_attention_heads="four"),
    "unknown architecture": lambda f: edit_json(f / "config.json", model_type="foo"),
    "rope of an unknown kind": lambda f: edit_json(f / "config.json", rope_parameters={"rope_type": "spiral"}),
    "heads that do not divide": lambda f: edit_json(f / "config.json", num_attention_heads=7, head_dim=None),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BROKEN))
def test_what_a_library_raises_over_a_folder_is_an_audit_error_about_that_folder(tmp_path: Path, name: str) -> None:
    folder = copy(tmp_path / "model")
    ckpt = resolved(folder)
    BROKEN[name](folder)
    with pytest.raises(AuditError) as caught:
        load_folder(folder, torch.float32, "default")
    assert caught.value.code in (2, 3) and str(folder) in caught.value.what and "residua-stage" not in str(caught.value)
    with pytest.raises(AuditError):
        checkpoints.check_compatible(toy.checkpoint("llama"), ckpt.model_copy(update={"source": str(folder)}))


def test_an_error_over_a_staged_folder_names_the_folder_that_it_stands_for(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    stage = tmp_path / "stage"
    with pytest.raises(AuditError) as caught, checkpoints.opening(folder, stage, "it cannot be opened", "mend it"):
        raise OSError(f"Error no file named x in directory {stage}")
    assert caught.value.what == f"it cannot be opened: OSError: Error no file named x in directory {folder}"


@pytest.mark.parametrize("damage", ["nonsense", "no model", "not JSON"])
def test_a_broken_tokenizer_is_refused_in_a_sentence(tmp_path: Path, damage: str) -> None:
    folder = copy(tmp_path / "model")
    document = json.loads((folder / "tokenizer.json").read_text())
    written = {"nonsense": {**document, "model": {"type": "Spiral"}}, "no model": {"version": "1.0"}}.get(damage)
    (folder / "tokenizer.json").write_text("{" if written is None else json.dumps(written))
    with pytest.raises(AuditError, match="tokenizer cannot be loaded") as caught:
        checkpoints.load_tokenizer(checkpoints.tokenizer_files(folder))
    assert caught.value.code == 2 and str(folder) in caught.value.what and "residua-stage" not in caught.value.what


def test_a_tokenizer_that_hands_over_to_another_file_is_refused(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    edit_json(folder / "tokenizer_config.json", fast_tokenizer_files=["tokenizer.4.0.0.json", "tokenizer.json"])
    with pytest.raises(AuditError, match="fast_tokenizer_files"):
        resolved(folder)


def test_named_chat_templates_are_hashed_with_the_tokenizer(tmp_path: Path) -> None:
    folder = copy(tmp_path / "model")
    before = resolved(folder).key
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("{{ messages[0]['content'] }}")
    files = checkpoints.tokenizer_files(folder)
    assert resolved(folder).key != before and "additional_chat_templates/default.jinja" in dict(files.hashes)
    assert checkpoints.load_tokenizer(files).chat_template == "{{ messages[0]['content'] }}"


@pytest.mark.parametrize(
    "name", ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "merges.txt"]
)
def test_settings_without_a_vocabulary_are_no_tokenizer(tmp_path: Path, name: str) -> None:
    folder = copy(tmp_path / "model")
    ckpt = resolved(folder)
    assert checkpoints.tokenizer_folder(ckpt) == folder
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / name).write_text("{}")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates" / "default.jinja").write_text("")
    assert checkpoints.tokenizer_folder(ckpt) is None
    (folder / "tekken.json").write_text("{}")
    assert checkpoints.tokenizer_folder(ckpt) == folder
