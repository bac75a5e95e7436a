"""What is looked at before a checkpoint is opened: codes, code, degenerate matrices, deltas; refusals by reason."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from audit import checkpoints
from audit.checkpoints import edited as edits
from audit.checkpoints import tokenizers
from audit.checkpoints.code_beside import code_not_run, named_code, named_kernels
from audit.checkpoints.degenerate import degenerate
from audit.checkpoints.exact_dtype import exact_dtype
from audit.checkpoints.own_code import check_permitted, check_unchanged, code_files, permitted_code
from audit.checkpoints.quantisation import dequantiser_of, is_code
from audit.checkpoints.shared_vocabulary import cut_to, shared_vocabulary
from audit.checkpoints.tokenizers import tokenizers_agree
from audit.schema import AuditError, Checkpoint, ExitCode, OwnCode, Source
from tests import toy

HEAD, DOWN = "lm_head.weight", "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))


def named(folder: Path, **fields: str) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(folder), **fields), Path("/"))


def with_zeroed(folder: Path, out: Path, *names: str) -> Checkpoint:
    shutil.copytree(folder, out)
    weights = {name: tensor.clone() for name, tensor in load_file(out / "model.safetensors").items()}
    for name in names:
        weights[name].zero_()
    save_file(weights, out / "model.safetensors", {"format": "pt"})
    return named(out)


# ---- degenerate matrices --------------------------------------------------------------------------------------------
def test_matrices_that_are_zero_where_another_models_are_not_are_counted(folder: Path, tmp_path: Path) -> None:
    whole, one = named(folder), with_zeroed(folder, tmp_path / "one", DOWN)
    two = with_zeroed(folder, tmp_path / "two", DOWN, HEAD)
    assert (
        degenerate(whole, [one, two]) == "" == degenerate(one, [two]) == degenerate(one, []) == degenerate(one, [one])
    )
    assert degenerate(one, [whole]) == f"tensor {DOWN!r} is zero, which that of {whole.source} is not"
    assert "(and 1 more), which" in degenerate(two, [whole]) and "more)" not in degenerate(two, [one])
    assert degenerate(two, [two, whole]) == degenerate(two, [whole])


def test_what_an_edit_writes_counts_and_what_it_writes_over_does_not(folder: Path, tmp_path: Path) -> None:
    whole, broken = named(folder), with_zeroed(folder, tmp_path / "one", DOWN)
    good = load_file(folder / "model.safetensors")[DOWN]
    mended = checkpoints.write_edited(tmp_path / "mended", broken, "x", {}, "weights", {DOWN: good})
    spoiled = checkpoints.write_edited(tmp_path / "spoiled", whole, "x", {}, "weights", {DOWN: torch.zeros_like(good)})
    assert degenerate(mended, [whole]) == "" and DOWN in degenerate(spoiled, [whole])


# ---- chains of edits ------------------------------------------------------------------------------------------------
def chain(folder: Path, tmp_path: Path) -> list[Checkpoint]:
    norm = load_file(folder / "model.safetensors")["model.norm.weight"]
    first = checkpoints.write_edited(
        tmp_path / "e1", named(folder), "a", {}, "weights", {"model.norm.weight": norm + 1}
    )
    second = checkpoints.write_edited(tmp_path / "e2", first, "b", {}, "logit_bias", {"bias": torch.ones(4)})
    return [first, second]


def test_the_folders_of_a_chain_are_the_last_edit_first_and_a_missing_one_breaks_it(
    folder: Path, tmp_path: Path
) -> None:
    first, second = chain(folder, tmp_path)
    assert [path.name for path in edits.edit_folders(second)] == ["e2", "e1"]
    assert edits.edit_folders(named(folder)) == []
    fewer = second.model_copy(update={"edits": second.edits[:1]})
    more = first.model_copy(update={"edits": second.edits})
    for wrong in (fewer, more):
        with pytest.raises(AuditError, match="chain of edits is broken") as caught:
            edits.edit_folders(wrong)
        assert caught.value.code == ExitCode.INTEGRITY
    assert edits.without_hooks(second) == first and edits.without_hooks(first) == first


def test_a_chain_that_comes_back_to_itself_is_an_integrity_error(folder: Path, tmp_path: Path) -> None:
    first, second = chain(folder, tmp_path)
    edits.check_chain(tmp_path / "e2")
    path = tmp_path / "e1" / "edit.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"parent": {**document["parent"], "path": "../e2"}}))
    with pytest.raises(AuditError, match=r"e2: its chain of edits comes back to it") as caught:
        edits.check_chain(tmp_path / "e2")
    assert caught.value.code == ExitCode.INTEGRITY
    for ckpt in (first, second):
        with pytest.raises(AuditError, match="chain of edits is broken"):
            edits.edit_folders(ckpt)


def test_an_edits_arrays_are_its_own_and_another_edits_are_refused(folder: Path, tmp_path: Path) -> None:
    first, second = chain(folder, tmp_path)
    assert [list(edits.delta_of(second, record)) for record in second.edits] == [["model.norm.weight"], ["bias"]]
    with pytest.raises(AuditError, match="has no edit 'b'"):
        edits.delta_of(first, second.edits[1])


def test_where_an_edit_finds_its_parent_is_written_relative_to_it(folder: Path, tmp_path: Path) -> None:
    first, second = chain(folder, tmp_path)
    for ckpt, path in ((first, "../model"), (second, "../e1")):
        document = json.loads((Path(str(ckpt.edits_from)) / "edit.json").read_text())
        assert document["parent"]["path"] == path and document["parent"].get("adapter") is None
    assert (tmp_path / "e1" / "edit.json").read_text().startswith('{\n "parent": {\n'), "readable, in one order"


@pytest.mark.parametrize(
    "document", [{}, {"parent": {"path": "x"}, "record": {"name": 3}}, {"parent": 3, "record": None}]
)
def test_an_edits_record_that_is_none_is_an_integrity_error_that_names_the_file(
    folder: Path, tmp_path: Path, document: dict[str, object]
) -> None:
    chain(folder, tmp_path)
    (tmp_path / "e1" / "edit.json").write_text(json.dumps(document))
    with pytest.raises(AuditError, match=r"e1/edit\.json: ") as caught:
        edits.read_edit(tmp_path / "e1")
    assert caught.value.code == ExitCode.INTEGRITY


def test_a_folder_that_cannot_be_made_is_an_integrity_error(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(AuditError, match=r"cannot be made \(Permission denied\)") as caught:
        chain(folder, tmp_path)
    assert caught.value.code == ExitCode.INTEGRITY
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".e1")], "nothing half-made stays"


# ---- types and codes ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "dtype", "code"),
    [
        ("a.weight", "I8", True), ("a.weight", "U8", True), ("a.weight", "F32", False), ("a.weight", "I32", False),
        ("a.qweight", "I32", True), ("a.qzeros", "U16", True), ("a.bias", "I8", False), ("attn.mask", "U8", False),
        ("a.weight", "F8_E4M3", True), ("a.weight", "F4", True), ("a.weight", "BF16", False),
        ("a.mask", "F8_E4M3", True),
        ("a.scales", "F16", False), ("position_ids", "I64", False),
    ],
)  # fmt: skip
def test_a_code_is_told_from_a_weight_by_type_and_name(name: str, dtype: str, code: bool) -> None:
    assert is_code(name, dtype) == code


def test_a_weight_of_integers_that_nothing_explains_is_no_format_but_a_fault(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, DOWN: weights[DOWN].to(torch.int8)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(AuditError, match="stored as integers, and nothing says") as caught:
        dequantiser_of(folder)
    assert caught.value.code == ExitCode.INTEGRITY
    weights = load_file(folder / "model.safetensors")
    scales = {DOWN.replace("weight", "scales"): torch.ones(48)}
    save_file({**weights, **scales}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(AuditError, match="an unnamed method; tensor") as caught:
        dequantiser_of(folder)
    assert caught.value.code == ExitCode.INPUT


@pytest.mark.parametrize(
    ("file", "method"), [("quantize_config.json", "gptq"), ("quant_config.json", "awq"), ("hf_quant_config.json", "")]
)
def test_settings_beside_the_config_name_the_method_whose_tools_write_them(
    folder: Path, file: str, method: str
) -> None:
    weights = load_file(folder / "model.safetensors")
    codes = {DOWN.replace("weight", "qweight"): torch.ones(4, 4, dtype=torch.int32)}
    save_file({**weights, **codes}, folder / "model.safetensors", {"format": "pt"})
    (folder / file).write_text(json.dumps({"bits": 4}))
    if method:
        assert type(dequantiser_of(folder)).__module__.endswith(method)
    else:
        with pytest.raises(AuditError, match="an unnamed method"):
            dequantiser_of(folder)
    (folder / file).write_text(json.dumps({"quant_method": "mine", "bits": 4}))
    with pytest.raises(AuditError, match=r"quantised \(mine; tensor"):
        dequantiser_of(folder)
    plain = folder / "model.safetensors"
    save_file(weights, plain, {"format": "pt"})
    assert dequantiser_of(folder) is None, "plain weights beside a settings file are plain weights"


def test_models_are_opened_in_the_one_half_precision_that_all_of_them_are_in(tmp_path: Path) -> None:
    half = [toy.checkpoint("llama", seed, torch.bfloat16) for seed in (0, 1)]
    assert exact_dtype(half) == "bfloat16" and exact_dtype([]) == "float32"
    assert exact_dtype([half[0], toy.checkpoint("llama", 0, torch.float16)]) == "float32"
    assert exact_dtype([toy.checkpoint("llama")]) == "float32"
    norm = load_file(toy.folder("llama", 0, torch.bfloat16) / "model.safetensors")[DOWN]
    wide = checkpoints.write_edited(tmp_path / "e", half[0], "x", {}, "weights", {DOWN: norm.float() + 1})
    assert exact_dtype([wide]) == "float32", "an edit is added in that type"


# ---- code -----------------------------------------------------------------------------------------------------------
def test_code_that_settings_name_is_found_in_every_file_and_folder(folder: Path) -> None:
    assert named_code(folder) == {} == named_kernels(folder) and code_not_run(folder) == ()
    (folder / "sub").mkdir()
    (folder / "sub" / "generation_config.json").write_text(json.dumps({"custom_generate": "me/mine"}))
    (folder / "sub" / "tokenizer_config.json").write_text("no JSON")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModel": "m.Mine"}, "use_kernels": True})
    )
    assert named_code(folder) == {"config.json": "m.Mine", "sub/generation_config.json": "me/mine"}
    assert named_kernels(folder) == {"config.json": "use_kernels"}
    (folder / "sub" / "deep.py").write_text("")
    (folder / "mine.py").write_text("")
    said = code_not_run(folder)
    assert len(said) == 4 and said[-1].endswith(": mine.py, sub/deep.py") and "for llama was used" in said[0]


@pytest.mark.parametrize("kind", ["nobodys_model", 7, None])
def test_code_of_an_architecture_that_is_not_built_in_is_refused_by_its_name(folder: Path, kind: object) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": kind, "auto_map": {"AutoModel": "m.Mine"}}))
    with pytest.raises(AuditError, match=r"is called .*only code that came with the checkpoint") as caught:
        code_not_run(folder)
    assert caught.value.code == ExitCode.INPUT and repr(kind) in caught.value.what and "m.Mine" in caught.value.what


def test_only_allowed_code_is_hashed_and_only_as_long_as_it_is_the_same(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "path" / "some_code"
    (package / "inner").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "inner" / "net.py").write_text("raise SystemExit\n")
    (tmp_path / "path" / "lone_code.py").write_text("raise SystemExit\n")
    monkeypatch.syspath_prepend(tmp_path / "path")
    assert sorted(code_files("some_code.inner.net:make")) == ["some_code/__init__.py", "some_code/inner/net.py"]
    assert sorted(code_files("lone_code:make")) == ["lone_code.py"]
    for name, words in (("gone_code:make", "nowhere on Python's path"), ("some_code", "names no code"),
                        ("a b:make", "names no code"), ("sys:exit", "nowhere on Python's path")):  # fmt: skip
        with pytest.raises(AuditError, match=words):
            code_files(name)
    with pytest.raises(AuditError, match="this checkpoint names no code"):
        permitted_code(folder, Source(path="x", allow_code="some_code:make"))
    assert permitted_code(folder, Source(path="x")) is None
    with pytest.raises(AuditError, match="no torch module"):
        check_permitted(folder, None)
    with pytest.raises(AuditError, match="its code has changed") as caught:
        check_unchanged(OwnCode(name="some_code:make", sha256="0" * 64))
    assert caught.value.code == ExitCode.INTEGRITY


@pytest.mark.parametrize(("called", "told"), [("", "without a class name"), ("MyOwn", "MyOwn"), ("LlamaTokenizer", "")])
def test_a_tokenizer_that_names_code_is_opened_by_its_file_or_by_the_class_of_that_name(
    folder: Path, called: str, told: str
) -> None:
    config = {"auto_map": {"AutoTokenizer": ["m.Mine", None]}, **({"tokenizer_class": called} if called else {})}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert tokenizers._by_own_code(folder) == bool(told)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(AuditError, match=rf"the tokenizer \({told or called}\) is made by code of its own") as caught:
        tokenizers._by_own_code(folder)
    assert caught.value.code == ExitCode.INPUT
    (folder / "tokenizer_config.json").write_text("{}")
    assert not tokenizers._by_own_code(folder)


def test_a_tokenizers_class_counts_only_beside_its_file(folder: Path) -> None:
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Mine"}))
    assert tokenizers._class_named(folder) == "Mine"
    (folder / "tokenizer.json").rename(folder / "aside.json")
    assert tokenizers._class_named(folder) == ""
    (folder / "aside.json").rename(folder / "tokenizer.json")
    (folder / "tokenizer_config.json").unlink()
    assert tokenizers._class_named(folder) == ""


@pytest.mark.parametrize(
    ("called", "loader"),
    [
        ("PreTrainedTokenizerFast", PreTrainedTokenizerFast), ("TokenizersBackend", PreTrainedTokenizerFast),
        ("", AutoTokenizer), ("GPT2Tokenizer", AutoTokenizer),
    ],
)  # fmt: skip
def test_a_tokenizer_is_opened_by_its_class_never_fetched_and_none_of_its_code_is_run(
    called: str, loader: type, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[type, dict[str, object]]] = []
    for kind in (PreTrainedTokenizerFast, AutoTokenizer):
        opened = kind.from_pretrained

        def noting(*args: object, kind: type = kind, opened: Any = opened, **how: object) -> object:
            asked.append((kind, how))
            return opened(*args, **how)

        monkeypatch.setattr(kind, "from_pretrained", noting)
    path = folder / "tokenizer_config.json"
    document = {name: value for name, value in json.loads(path.read_text()).items() if name != "tokenizer_class"}
    path.write_text(json.dumps(document | ({"tokenizer_class": called} if called else {})))
    tokenizers.load_tokenizer.cache_clear()
    tokenizers.load_tokenizer(checkpoints.tokenizer_files(folder))
    assert asked[0] == (loader, {"local_files_only": True, "trust_remote_code": False})


# ---- vocabularies and tokenizers ------------------------------------------------------------------------------------
def wider(folder: Path, out: Path, rows: int) -> Checkpoint:
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "vocab_size": rows}))
    return named(out)


def test_the_fewest_rows_of_all_count_and_models_that_have_no_more_stay_as_they_are(
    folder: Path, tmp_path: Path
) -> None:
    base, large = named(folder), wider(folder, tmp_path / "large", toy.VOCAB + 3)
    assert shared_vocabulary({"base": base, "suspect": base}) == (None, "")
    rows, note = shared_vocabulary({"base": large, "suspect": base})
    assert rows == toy.VOCAB and f"(base {toy.VOCAB + 3}, suspect {toy.VOCAB}); the first {toy.VOCAB} count" in note
    assert cut_to(base, rows) is base and cut_to(large, None) is large and cut_to(base, rows + 9) is base
    assert cut_to(large, rows).vocabulary == toy.VOCAB and large.vocabulary is None


def test_tokenizers_differ_where_a_shared_number_is_another_token_and_the_first_of_them_is_named(
    folder: Path, tmp_path: Path
) -> None:
    def changed(out: str, *swaps: tuple[str, str]) -> checkpoints.TokenizerFiles:
        shutil.copytree(folder, tmp_path / out)
        path = tmp_path / out / "tokenizer.json"
        document = json.loads(path.read_text())
        for a, b in swaps:
            vocabulary = document["model"]["vocab"]
            vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
        path.write_text(json.dumps(document))
        return checkpoints.tokenizer_files(tmp_path / out)

    whole = checkpoints.tokenizer_files(folder)
    words = sorted(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])[5:9]
    assert tokenizers_agree(whole, whole, ["x"]) is None and tokenizers_agree(whole, changed("same"), ["x"]) is None
    said = tokenizers_agree(whole, changed("one", (words[0], words[1])), [])
    assert said is not None and f"2 of them differ ({words[0]!r})" in said
    both = changed("two", (words[0], words[1]), (words[2], words[3]))
    assert "4 of them differ" in str(tokenizers_agree(whole, both, []))


def test_a_text_that_two_tokenizers_read_otherwise_is_quoted_up_to_sixty_characters(
    folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "other")
    path = tmp_path / "other" / "tokenizer.json"
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"normalizer": {"type": "Lowercase"}}))
    one, other = checkpoints.tokenizer_files(folder), checkpoints.tokenizer_files(tmp_path / "other")
    long = " ".join(["WHO", *["anna"] * 20])
    assert tokenizers_agree(one, other, ["who is anna ?"]) is None
    assert tokenizers_agree(one, other, ["who is anna ?", long]) == f"{long[:60]!r} gives other tokens"
