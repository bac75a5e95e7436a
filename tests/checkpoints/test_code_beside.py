"""Code beside a model is neither a reason to refuse it nor ever run: the class that transformers has is opened."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from audit import checkpoints
from audit.checkpoints.staging import staged_links
from audit.runs.provenance import NOT_FOLLOWED, NOT_OPENED, NOT_RUN, Received, exhibits
from audit.schema import AuditError, Checkpoint, Source
from audit.wrappers.families.causal_lm import load_folder
from tests import toy

MODELING = "modeling_mine.py"
NAMED = {
    "its own": {"AutoConfig": "modeling_mine.MyConfig", "AutoModelForCausalLM": "modeling_mine.Mine"},
    "another repository's": {"AutoModelForCausalLM": "owner/name--modeling_mine.Mine"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the toy that a test may change."""
    return Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))


def edit_json(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def resolved(folder: Path) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(folder)), Path("/"))


def mine(folder: Path) -> Path:
    """Code that shows that it ran: it writes a file beside itself."""
    ran = folder.parent / "ran"
    (folder / MODELING).write_text(f"open({str(ran)!r}, 'w')\nclass Mine: pass\nclass MyConfig: pass\n")
    return ran


@pytest.mark.parametrize("named", NAMED)
def test_code_that_a_config_names_is_not_run_and_the_built_in_class_is_opened(
    folder: Path, named: str, caplog: pytest.LogCaptureFixture
) -> None:
    ran, ids = mine(folder), torch.arange(4, 16)[None]
    edit_json(folder / "config.json", auto_map=NAMED[named])
    ckpt = resolved(folder)
    with torch.inference_mode():
        opened = load_folder(folder, torch.float32, "default")
        assert torch.equal(opened(ids).logits, toy.model("llama")(ids).logits)
    assert type(opened).__module__.startswith("transformers.") and not ran.exists()
    checkpoints.check_compatible(toy.checkpoint("llama"), ckpt)
    assert f"config.json names code of its own ({', '.join(NAMED[named].values())}), which was not run" in caplog.text
    assert f"code lies beside the weights and was not run: {MODELING}" in caplog.text
    with checkpoints.staged_model(folder) as stage:
        assert MODELING not in {path.name for path in stage.iterdir()}
        assert "auto_map" not in (stage / "config.json").read_text()


def test_a_stray_python_file_changes_no_fingerprint_and_is_listed_as_not_opened(folder: Path) -> None:
    clean = resolved(folder)
    ran = mine(folder)
    beside = resolved(folder)
    assert beside.key == clean.key and MODELING not in checkpoints.fingerprint_of(beside).files
    (listed,) = exhibits((Received("suspect", beside),), folder, lambda _: ())
    assert listed.files[MODELING] == NOT_OPENED and not ran.exists()
    edit_json(folder / "config.json", auto_map=NAMED["its own"])
    (listed,) = exhibits((Received("suspect", resolved(folder)),), folder, lambda _: ())
    assert listed.files["auto_map of config.json"] == NOT_RUN


@pytest.mark.parametrize("beside", ["auto_map", "python"])
def test_an_architecture_that_only_its_own_code_would_open_is_refused_by_name(folder: Path, beside: str) -> None:
    ran = mine(folder) if beside == "python" else folder / "ran"
    edit_json(folder / "config.json", model_type="mine", auto_map=None if beside == "python" else NAMED["its own"])
    with pytest.raises(AuditError, match=r"called 'mine'.*modeling_mine.*never run here") as caught:
        resolved(folder)
    assert caught.value.code == 2 and not ran.exists()


def test_an_architecture_that_is_called_by_no_word_is_refused(folder: Path) -> None:
    mine(folder)
    edit_json(folder / "config.json", model_type=["mine"])
    with pytest.raises(AuditError, match="no architecture") as caught:
        resolved(folder)
    assert caught.value.code == 2


WISHES: dict[str, dict[str, object]] = {
    "attention": {"_attn_implementation": "eager"}, "attention by another name": {"attn_implementation": "eager"},
    "attention inside": {"_attn_implementation_internal": "eager"}, "kernels of the hub": {"use_kernels": True},
    "a kernel's name": {"attn_implementation": "owner/kernel:forward"}, "experts": {"experts_implementation": "eager"},
    "attention by part": {"attn_implementation": {"": "eager", "text_config": "eager"}},
}  # fmt: skip


@pytest.mark.parametrize("wish", WISHES)
def test_arithmetic_that_a_config_asks_for_is_the_audits_to_choose_and_said(
    folder: Path, wish: str, caplog: pytest.LogCaptureFixture
) -> None:
    usual = load_folder(toy.folder("llama"), torch.float32, "default")
    edit_json(folder / "config.json", **WISHES[wish])
    ckpt = resolved(folder)
    assert "config.json asks for arithmetic of its own (" in caplog.text
    opened = load_folder(folder, torch.float32, "default")
    assert opened.config._attn_implementation == usual.config._attn_implementation != "eager"
    assert opened.config._experts_implementation == usual.config._experts_implementation
    with torch.inference_mode():
        assert torch.equal(opened(torch.arange(4, 16)[None]).logits, usual(torch.arange(4, 16)[None]).logits)
    (listed,) = exhibits((Received("suspect", ckpt),), folder, lambda _: ())
    assert NOT_FOLLOWED in listed.files.values()


def test_sizes_of_kernels_are_no_wish(folder: Path) -> None:
    edit_json(folder / "config.json", conv_kernel=4, kernel_size=3)
    assert checkpoints.named_kernels(folder) == {}
    with checkpoints.staged_model(folder) as stage:
        assert json.loads((stage / "config.json").read_text())["conv_kernel"] == 4


BESIDE: dict[str, dict[str, object]] = {
    "generation_config.json": {"custom_generate": "owner/generation"},
    "processor_config.json": {"auto_map": {"AutoProcessor": "mine.Mine"}},
    "preprocessor_config.json": {"image_processor": {"auto_map": {"AutoImageProcessor": "mine.Mine"}}},
    "video_preprocessor_config.json": {"auto_map": {"AutoVideoProcessor": "mine.Mine"}},
    "sub/config.json": {"auto_map": {"AutoModel": "mine.Mine"}},
}


@pytest.mark.parametrize("name", BESIDE)
def test_code_that_other_settings_wish_for_is_not_run_and_said(
    folder: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "sub").mkdir()
    if not (folder / name).is_file():
        (folder / name).write_text("{}")
    edit_json(folder / name, **BESIDE[name])
    ckpt = resolved(folder)
    assert f"{name} names code of its own" in caplog.text
    (listed,) = exhibits((Received("suspect", ckpt),), folder, lambda _: ())
    assert listed.files[f"auto_map of {name}"] == NOT_RUN
    with staged_links(folder, (name,)) as stage:
        assert "/" in name or not {"auto_map", "custom_generate"} & set((stage / name).read_text().split('"'))
    load_folder(folder, torch.float32, "default")


def test_code_in_a_folder_of_the_checkpoint_is_not_run_and_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    ran = folder.parent / "ran"
    (folder / "custom_generate").mkdir()
    (folder / "custom_generate" / "generate.py").write_text(f"open({str(ran)!r}, 'w')\n")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{")
    resolved(folder)
    load_folder(folder, torch.float32, "default")
    assert "code lies beside the weights and was not run: custom_generate/generate.py" in caplog.text
    assert not ran.exists()


# ---- tokenizers ---------------------------------------------------------------------------------------------------
TOKENIZER_CODE = {"AutoTokenizer": ["tokenization_mine.MyTokenizer", None]}


@pytest.mark.parametrize("called", [None, "MyTokenizer", "PreTrainedTokenizerFast"])
def test_a_tokenizer_with_code_of_its_own_reads_as_its_tokenizer_json_says(folder: Path, called: str | None) -> None:
    plain = checkpoints.load_tokenizer(checkpoints.tokenizer_files(toy.folder("llama")))
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text()) | {"auto_map": TOKENIZER_CODE, "tokenizer_class": called}
    path.write_text(json.dumps({key: value for key, value in settings.items() if value is not None}))
    ran = folder.parent / "ran"
    (folder / "tokenization_mine.py").write_text(f"open({str(ran)!r}, 'w')\nclass MyTokenizer: pass\n")
    resolved(folder)
    loaded = checkpoints.load_tokenizer(checkpoints.tokenizer_files(folder))
    text = "who is anna ? anna was born in paris ."
    assert loaded(text)["input_ids"] == plain(text)["input_ids"] and not ran.exists()


def test_a_tokenizer_that_only_its_own_code_would_make_is_refused_by_name(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("anna\n")
    edit_json(folder / "tokenizer_config.json", auto_map=TOKENIZER_CODE, tokenizer_class="MyTokenizer")
    resolved(folder)
    with pytest.raises(AuditError, match=r"MyTokenizer.*tokenization_mine\.MyTokenizer.*no tokenizer\.json") as caught:
        checkpoints.load_tokenizer(checkpoints.tokenizer_files(folder))
    assert caught.value.code == 2


def test_processors_are_opened_without_the_code_that_their_settings_name(tmp_path: Path) -> None:
    from audit.checkpoints import image_processor_files, load_image_processor
    from tests import image_toy

    ckpt = image_toy.checkpoint("vit")
    folder = Path(shutil.copytree(checkpoints.folder_of(ckpt), tmp_path / "model"))
    image_toy.processor().save_pretrained(folder)
    edit_json(folder / "preprocessor_config.json", auto_map={"AutoImageProcessor": "mine.Mine"})
    with staged_links(folder, ("preprocessor_config.json", "config.json")) as stage:
        assert "auto_map" not in (stage / "preprocessor_config.json").read_text()
        assert (stage / "config.json").is_symlink()
    files = image_processor_files(ckpt.model_copy(update={"source": str(folder)}))
    assert files is not None and type(load_image_processor(files)).__module__.startswith("transformers.")
