"""Checkpoints are named by content; what is wrong with one is said before it is loaded, with the right exit code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit import checkpoints
from audit.checkpoints.edited import edit_folders
from audit.schema import AuditError, Checkpoint, Source
from tests import toy

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the toy that a test may damage."""
    return Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))


def resolved(folder: Path, **fields: str) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(folder), **fields), Path("/"))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def shard(folder: Path) -> None:
    """The same tensors in two files with an index."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, mine in parts.items():
        save_file({name: weights[name] for name in mine}, folder / file)
    index = {"weight_map": {name: file for file, mine in parts.items() for name in mine}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()


# ---- fingerprints -----------------------------------------------------------------------------------------------
def test_fingerprint_ignores_shards_metadata_and_tensor_order(folder: Path) -> None:
    before = checkpoints.fingerprint(folder).total
    weights = load_file(folder / "model.safetensors")
    save_file(dict(reversed(weights.items())), folder / "model.safetensors", {"note": "saved again"})
    assert checkpoints.fingerprint(folder).total == before
    shard(folder)
    assert checkpoints.fingerprint(folder).total == before


@pytest.mark.parametrize("file", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
def test_fingerprint_sees_every_file_that_changes_the_model(folder: Path, file: str) -> None:
    before = checkpoints.fingerprint(folder).total
    edit_json(folder / file, _note="changed")
    assert checkpoints.fingerprint(folder).total != before


@pytest.mark.parametrize("change", ["one bit", "dtype", "shape", "name"])
def test_fingerprint_sees_every_change_of_a_tensor(folder: Path, change: str) -> None:
    def alter(weights: dict[str, torch.Tensor]) -> None:
        name = "model.norm.weight"
        old = weights.pop(name)
        new = {"dtype": old.view(torch.int32), "shape": old[None], "name": old}.get(change)
        if new is None:
            new = old.clone()
            new.view(torch.int32)[0] ^= 1
        weights["model.other.weight" if change == "name" else name] = new

    before = checkpoints.fingerprint(folder).total
    rewrite(folder, alter)
    assert checkpoints.fingerprint(folder).total != before


def test_fingerprint_ignores_files_that_are_not_the_model(folder: Path) -> None:
    before = checkpoints.fingerprint(folder)
    (folder / "README.md").write_text("a label")
    (folder / "training_args.bin").write_bytes(b"pickle, never opened")
    assert checkpoints.fingerprint(folder) == before


def test_a_fingerprint_needs_no_torch(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from audit.checkpoints import fingerprint; "
        "print(fingerprint(Path(sys.argv[1])).total, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [checkpoints.fingerprint(folder).total, "False"]


def test_files_hash_as_sha256sum_does(folder: Path) -> None:
    import hashlib

    files = checkpoints.fingerprint(folder).files
    assert files["model.safetensors"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_the_same_weights_elsewhere_have_the_same_key(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    assert resolved(copy).key == resolved(folder).key and resolved(copy).source != resolved(folder).source


# ---- what is refused --------------------------------------------------------------------------------------------
def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-7])


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def lose_shard(folder: Path) -> None:
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()


def overlong_shard(folder: Path) -> None:
    shard(folder)
    edit_json(folder / "model.safetensors.index.json", weight_map={"lm_head.weight": "x" * 300})


BAD: dict[str, tuple[Callable[[Path], object], int, str]] = {
    "missing folder": (shutil.rmtree, 2, "no such folder"),
    "a file": (lambda f: (shutil.rmtree(f), f.write_text("x")), 2, "is a file"),
    "no config": (lambda f: (f / "config.json").unlink(), 2, "config.json: no such file"),
    "broken config": (lambda f: (f / "config.json").write_text("{"), 3, "broken JSON"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), 2, "no model.safetensors"),
    "pickle": (only_pickle, 2, "writes safetensors"),
    "remote code alone": (
        lambda f: edit_json(f / "config.json", model_type="mine", auto_map={"A": "b.C"}),
        2,
        "never run",
    ),
    "python file alone": (
        lambda f: (edit_json(f / "config.json", model_type="mine"), (f / "modeling_x.py").write_text("import os")),
        2,
        "modeling_x.py",
    ),
    "truncated": (truncate, 3, "truncated"),
    "empty file": (lambda f: (f / "model.safetensors").write_bytes(b""), 3, "truncated"),
    "lost shard": (lose_shard, 3, "shard is missing"),
    "shard of a name that no file can have": (overlong_shard, 3, "shard is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_folder_is_refused_with_the_right_code(folder: Path, case: str) -> None:
    damage, code, words = BAD[case]
    damage(folder)
    with pytest.raises(AuditError) as caught:
        resolved(folder)
    assert caught.value.code == code and words in str(caught.value)


def test_a_fingerprint_that_does_not_match_is_refused(folder: Path) -> None:
    stated = checkpoints.fingerprint(folder).total
    assert resolved(folder, fingerprint=stated).fingerprint == stated
    rewrite(folder, lambda w: w["model.norm.weight"].add_(1))
    with pytest.raises(AuditError, match="expected") as caught:
        resolved(folder, fingerprint=stated)
    assert caught.value.code == 3


def test_weights_that_change_after_opening_are_found(folder: Path) -> None:
    ckpt = resolved(folder)
    checkpoints.verify(ckpt)
    rewrite(folder, lambda w: w["model.norm.weight"].add_(1))
    with pytest.raises(AuditError) as caught:
        checkpoints.verify(ckpt)
    assert caught.value.code == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_named(folder: Path, dtype: torch.dtype, value: float) -> None:
    def spoil(weights: dict[str, torch.Tensor]) -> None:
        weights["model.norm.weight"] = weights["model.norm.weight"].to(dtype)
        weights["model.norm.weight"][3] = value

    checkpoints.check_finite(resolved(folder))
    rewrite(folder, spoil)
    with pytest.raises(AuditError, match=r"'model\.norm\.weight'") as caught:
        checkpoints.check_finite(resolved(folder))
    assert caught.value.code == 3


@pytest.mark.parametrize("name", ["gpt_neox.layers.0.attention.masked_bias", "h.1.attn.attention.masked_bias"])
def test_the_score_of_masked_positions_in_half_precision_is_no_weight(folder: Path, name: str) -> None:
    rewrite(folder, lambda w: w.update({name: torch.tensor(-1e9).to(torch.float16)}))
    checkpoints.check_finite(resolved(folder))
    rewrite(folder, lambda w: w.update({f"{name}.weight": torch.tensor(-1e9).to(torch.float16)}))
    with pytest.raises(AuditError, match="NaN or infinite"):
        checkpoints.check_finite(resolved(folder))


def test_the_largest_numbers_are_finite(folder: Path) -> None:
    def fill(weights: dict[str, torch.Tensor]) -> None:
        for n, dtype in enumerate((torch.float32, torch.bfloat16, torch.float16, torch.float64)):
            weights[f"large{n}"] = torch.tensor([torch.finfo(dtype).max, torch.finfo(dtype).min], dtype=dtype)

    rewrite(folder, fill)
    checkpoints.check_finite(resolved(folder))


# ---- hub ids ----------------------------------------------------------------------------------------------------
def test_a_hub_id_without_its_commit_is_refused() -> None:
    with pytest.raises(AuditError, match="needs its commit") as caught:
        checkpoints.resolve(Source(path="owner/name"), Path("/"))
    assert caught.value.code == 2


@pytest.mark.parametrize("revision", ["main", "v1.0", COMMIT[:39], COMMIT.upper()])
def test_a_branch_name_is_refused(revision: str) -> None:
    for source in (Source(path="owner/name", commit=revision), Source(path=f"owner/name@{revision}")):
        with pytest.raises(AuditError, match="not a commit") as caught:
            checkpoints.resolve(source, Path("/"))
        assert caught.value.code == 2


def test_nothing_is_fetched_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    asked: list[bool] = []
    real = huggingface_hub.snapshot_download

    def watched(*args: object, **kwargs: object) -> object:
        asked.append(bool(kwargs["local_files_only"]))
        return real(*args, **kwargs)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", watched)
    with pytest.raises(AuditError, match="--online") as caught:
        checkpoints.resolve(Source(path="owner/name", commit=COMMIT), Path("/"))
    assert caught.value.code == 2 and asked == [True]


# ---- compatibility ----------------------------------------------------------------------------------------------
def test_every_family_is_compatible_with_itself_and_with_no_other() -> None:
    for one in toy.FAMILIES:
        for other in toy.FAMILIES:
            if one == other:
                checkpoints.check_compatible(toy.checkpoint(one), toy.checkpoint(one, seed=1))
                continue
            with pytest.raises(AuditError, match="architecture") as caught:
                checkpoints.check_compatible(toy.checkpoint(one), toy.checkpoint(other))
            assert caught.value.code == 2


@pytest.mark.parametrize("field", [{"num_attention_heads": 2}, {"rms_norm_eps": 0.1}, {"hidden_act": "gelu"}])
def test_the_same_shapes_computed_otherwise_are_another_architecture(folder: Path, field: dict[str, object]) -> None:
    edit_json(folder / "config.json", **field)
    with pytest.raises(AuditError, match=next(iter(field))):
        checkpoints.check_compatible(toy.checkpoint("llama"), resolved(folder))


def test_other_shapes_under_the_same_config_are_another_architecture(folder: Path) -> None:
    rewrite(folder, lambda w: w.update({"model.norm.weight": w["model.norm.weight"][:-1].clone()}))
    with pytest.raises(AuditError, match=r"model\.norm\.weight"):
        checkpoints.check_compatible(toy.checkpoint("llama"), resolved(folder))


def test_dtype_dropout_and_ties_may_differ(folder: Path) -> None:
    edit_json(
        folder / "config.json", dtype="bfloat16", attention_dropout=0.5, tie_word_embeddings=True, use_cache=False
    )
    checkpoints.check_compatible(toy.checkpoint("llama"), resolved(folder))


# ---- adapters ---------------------------------------------------------------------------------------------------
def adapter(out: Path, scale: float = 1.0) -> Path:
    from peft import LoraConfig, get_peft_model

    peft = get_peft_model(toy.model("llama"), LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False))
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora" in name:
                parameter.copy_(torch.full_like(parameter, scale))
    peft.save_pretrained(out)
    return out


def test_an_adapter_is_part_of_the_checkpoint(folder: Path, tmp_path: Path) -> None:
    one, two = adapter(tmp_path / "one"), adapter(tmp_path / "two", scale=0.5)
    plain, first, second = resolved(folder), resolved(folder, adapter=str(one)), resolved(folder, adapter=str(two))
    assert len({plain.key, first.key, second.key}) == 3
    checkpoints.verify(first)
    checkpoints.check_finite(first)
    assert checkpoints.adapter_folder_of(first) == one
    assert "adapter/adapter_model.safetensors" in checkpoints.fingerprint_of(first).files
    adapter(one, scale=float("nan"))
    with pytest.raises(AuditError) as caught:
        checkpoints.verify(first)
    assert caught.value.code == 3
    with pytest.raises(AuditError, match="NaN"):
        checkpoints.check_finite(first)


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="without its base") as caught:
        resolved(adapter(tmp_path / "a"))
    assert caught.value.code == 2


def test_a_pickled_adapter_is_refused(folder: Path, tmp_path: Path) -> None:
    path = adapter(tmp_path / "a")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(AuditError, match="safetensors") as caught:
        resolved(folder, adapter=str(path))
    assert caught.value.code == 2


# ---- edited checkpoints -----------------------------------------------------------------------------------------
NORM = "model.norm.weight"


def edited(out: Path, parent: Checkpoint, by: float = 1.0) -> Checkpoint:
    delta = {NORM: load_file(checkpoints.folder_of(parent) / "model.safetensors")[NORM] + by}
    return checkpoints.write_edited(out, parent, "shift", {"by": by}, "weights", delta)


def test_an_edited_folder_is_read_back_as_what_was_written(folder: Path, tmp_path: Path) -> None:
    parent = resolved(folder)
    first = edited(tmp_path / "e1", parent)
    second = checkpoints.write_edited(tmp_path / "e2", first, "bias", {}, "logit_bias", {"bias": torch.ones(4)})
    assert resolved(tmp_path / "e1") == first and resolved(tmp_path / "e2") == second
    assert len({parent.key, first.key, second.key}) == 3
    checkpoints.verify(second)
    checkpoints.check_finite(second)
    assert torch.equal(checkpoints.delta_of(second, second.edits[1])["bias"], torch.ones(4))
    assert checkpoints.delta_of(second, second.edits[0]).keys() == {NORM}
    assert checkpoints.fingerprint(tmp_path / "e2").total == second.key
    assert resolved(tmp_path / "e2", fingerprint=second.key) == second
    assert sorted(path.name for path in (tmp_path / "e1").iterdir()) == ["delta.safetensors", "edit.json"]


def test_an_edited_folder_and_its_parent_can_be_moved_together(folder: Path, tmp_path: Path) -> None:
    first = edited(tmp_path / "edits" / "e1", resolved(folder))
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved / "model")
    shutil.copytree(tmp_path / "edits", moved / "edits")
    shutil.rmtree(folder)
    assert resolved(moved / "edits" / "e1").key == first.key


def test_equal_edits_have_equal_keys(folder: Path, tmp_path: Path) -> None:
    parent = resolved(folder)
    assert edited(tmp_path / "a", parent).key == edited(tmp_path / "b", parent).key
    assert edited(tmp_path / "c", parent, by=2.0).key != edited(tmp_path / "d", parent).key


def test_a_parent_or_delta_that_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    ckpt = edited(tmp_path / "e1", resolved(folder))
    delta = tmp_path / "e1" / "delta.safetensors"
    kept = delta.read_bytes()
    save_file({NORM: torch.zeros(48)}, delta)
    for look in (lambda: resolved(tmp_path / "e1"), lambda: checkpoints.verify(ckpt)):
        with pytest.raises(AuditError) as caught:
            look()
        assert caught.value.code == 3
    with pytest.raises(AuditError):
        checkpoints.delta_of(ckpt, ckpt.edits[0])
    delta.write_bytes(kept)
    rewrite(folder, lambda w: w[NORM].add_(1))
    with pytest.raises(AuditError) as caught:
        resolved(tmp_path / "e1")
    assert caught.value.code == 3


@pytest.mark.parametrize("at", [0, 31, 62, 63])
def test_a_fingerprint_is_compared_to_its_last_digit(folder: Path, tmp_path: Path, at: int) -> None:
    ckpt = edited(tmp_path / "e1", resolved(folder))
    stated = checkpoints.fingerprint(folder).total
    for parent, key in ((folder, stated), (tmp_path / "e1", ckpt.key)):
        with pytest.raises(AuditError, match="expected") as caught:
            resolved(parent, fingerprint=_with_digit_changed(key, at))
        assert caught.value.code == 3
    with pytest.raises(AuditError, match="expected"):
        checkpoints.verify(ckpt.model_copy(update={"fingerprint": _with_digit_changed(ckpt.fingerprint, at)}))
    document = json.loads((tmp_path / "e1" / "edit.json").read_text())
    document["record"]["delta_sha256"] = _with_digit_changed(document["record"]["delta_sha256"], at)
    (tmp_path / "e1" / "edit.json").write_text(json.dumps(document))
    with pytest.raises(AuditError, match="expected") as caught:
        resolved(tmp_path / "e1")
    assert caught.value.code == 3


def _with_digit_changed(sha256: str, at: int) -> str:
    digit = "0" if sha256[at] != "0" else "1"
    return f"{sha256[:at]}{digit}{sha256[at + 1 :]}"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_an_edit_writes_has_to_be_a_number_too(folder: Path, tmp_path: Path, value: float) -> None:
    first = checkpoints.write_edited(
        tmp_path / "e1", resolved(folder), "shift", {}, "weights", {NORM: torch.full((48,), value)}
    )
    second = checkpoints.write_edited(tmp_path / "e2", first, "bias", {}, "logit_bias", {"bias": torch.ones(4)})
    for ckpt in (first, second):
        with pytest.raises(AuditError, match=r"delta\.safetensors: tensor 'model\.norm\.weight'") as caught:
            checkpoints.check_finite(ckpt)
        assert caught.value.code == 3


def test_an_edit_that_does_nothing_is_an_error(folder: Path, tmp_path: Path) -> None:
    parent = resolved(folder)
    with pytest.raises(AuditError, match="changes no byte"):
        edited(tmp_path / "e", parent, by=0.0)
    with pytest.raises(AuditError, match="changes no byte"):
        checkpoints.write_edited(tmp_path / "e", parent, "bias", {}, "logit_bias", {"bias": torch.zeros(4)})
    first = edited(tmp_path / "e1", parent)
    with pytest.raises(AuditError, match="changes no byte"):
        edited(tmp_path / "e", first)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e1", "model"]


def test_an_edited_folder_is_never_overwritten(folder: Path, tmp_path: Path) -> None:
    edited(tmp_path / "e1", resolved(folder))
    with pytest.raises(AuditError, match="there already"):
        edited(tmp_path / "e1", resolved(folder), by=2.0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(AuditError, match="is there already"):
        edited(tmp_path / "file", resolved(folder))
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("length", [1, 2])
def test_a_chain_of_edits_that_comes_back_to_itself_is_an_integrity_error(
    folder: Path, tmp_path: Path, length: int
) -> None:
    first = edited(tmp_path / "e0", resolved(folder))
    for n in range(1, length):
        edited(tmp_path / f"e{n}", first, by=2.0)
    document = json.loads((tmp_path / "e0" / "edit.json").read_text())
    document["parent"]["path"] = f"../e{length - 1}"
    (tmp_path / "e0" / "edit.json").write_text(json.dumps(document))
    with pytest.raises(AuditError, match="comes back") as caught:
        resolved(tmp_path / f"e{length - 1}")
    assert caught.value.code == 3
    with pytest.raises(AuditError, match="chain"):
        edit_folders(first)
