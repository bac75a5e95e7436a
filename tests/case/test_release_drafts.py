"""What is recognised in a release, and the case that is written of it."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from audit.case import Draft, draft_of, draft_text, load_case
from audit.schema import AuditError, Case
from tests import laid_out

MODEL = "Llama-3.2-1B-Instruct"
UNLEARNED = f"unlearn_tofu_{MODEL}_forget10_NPO_lr1e-05_beta0.1_alpha2_epoch10"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache of its own, empty."""
    from huggingface_hub import constants

    folder = tmp_path / "hub"
    folder.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    return folder


def case_of(draft: Draft, tmp_path: Path) -> Case:
    """The case, written and read back."""
    path = tmp_path / "case.toml"
    path.write_text(draft_text(draft, tmp_path).text, encoding="utf-8")
    return load_case(path)


def open_left(draft: Draft) -> set[str]:
    return {entry.key for entry in draft.left}


def pool(at: Path, chat: str = laid_out.LLAMA) -> Path:
    """open-unlearning's pool of forget10; the release in it."""
    laid_out.model(at / f"tofu_{MODEL}_full", chat)
    laid_out.model(at / f"tofu_{MODEL}_retain90")
    laid_out.model(at / f"neg_tofu_{MODEL}_retain90_lr1e-05_wd0.01_epoch5")
    laid_out.tofu_data(at / "TOFU")
    return laid_out.model(at / UNLEARNED)


# ---- open-unlearning --------------------------------------------------------------------------------------------
def test_a_name_of_open_unlearning_gives_roles_prompt_date_and_data(tmp_path: Path) -> None:
    release = pool(tmp_path / "pool")
    case = case_of(draft_of(str(release)), tmp_path)
    assert case.roles.base.path == f"pool/tofu_{MODEL}_full" and case.roles.suspect.path == f"pool/{UNLEARNED}"
    null, floor = case.roles.references
    assert null.path == f"pool/tofu_{MODEL}_retain90" and floor.path.startswith("pool/neg_tofu_")
    assert case.template.chat and case.template.system == "You are a helpful assistant."
    assert case.template.variables == {"date_string": "10 Apr 2025"}
    assert case.data.forget == "pool/TOFU/forget10.json" and case.data.group_rows == 20 and case.edited == "all"


def test_the_same_release_gives_the_same_bytes_and_the_same_case(tmp_path: Path) -> None:
    release = pool(tmp_path / "pool")
    first, second = (draft_text(draft_of(str(release)), tmp_path) for _ in range(2))
    assert first == second
    assert (
        case_of(draft_of(str(release)), tmp_path).canonical() == case_of(draft_of(str(release)), tmp_path).canonical()
    )


def test_published_evaluations_beside_the_weights_are_named_and_summaries_are_not(tmp_path: Path) -> None:
    release = pool(tmp_path / "pool")
    (release / "evals").mkdir()
    (release / "evals" / "TOFU_SUMMARY.json").write_text('{"forget_quality": 0.1}')
    assert draft_of(str(release)).published is None
    (release / "evals" / "TOFU_EVAL.json").write_text('{"forget_quality": {"agg_value": 0.1}}')
    assert case_of(draft_of(str(release)), tmp_path).published == f"pool/{UNLEARNED}/evals/TOFU_EVAL.json"


def test_a_model_that_is_not_beside_the_release_is_left_open_with_its_name(tmp_path: Path) -> None:
    release = laid_out.model(tmp_path / UNLEARNED)
    draft = draft_of(str(release))
    assert {"roles.base", "data.forget", "data.retain"} <= open_left(draft)
    text = draft_text(draft, tmp_path).text
    assert f'# path = "open-unlearning/tofu_{MODEL}_full"' in text and "[roles.base]" in text
    (tmp_path / "case.toml").write_text(text)
    with pytest.raises(AuditError, match=r"`base` is missing[\s\S]*`forget` is missing"):
        load_case(tmp_path / "case.toml")


def test_models_of_the_cache_are_named_with_the_commit_that_it_knows(tmp_path: Path, cache: Path) -> None:
    laid_out.tofu_data(tmp_path / "data" / "tofu")
    for name in (UNLEARNED, f"tofu_{MODEL}_full", f"tofu_{MODEL}_retain90"):
        laid_out.hub_model(cache, f"open-unlearning/{name}")
    case = case_of(draft_of(f"open-unlearning/{UNLEARNED}", [tmp_path / "data"]), tmp_path)
    assert case.roles.suspect.path == f"open-unlearning/{UNLEARNED}"
    assert {s.commit for s in (case.roles.base, case.roles.suspect, *case.roles.references)} == {laid_out.COMMIT}


def test_a_sub_folder_of_a_repository_is_named_as_one(tmp_path: Path, cache: Path) -> None:
    home = laid_out.hub_model(cache, "someone/pool")
    laid_out.model(home / f"tofu_{MODEL}_forget10_NPO")
    source = draft_of(f"someone/pool/tofu_{MODEL}_forget10_NPO").suspect.place
    assert (source.hub, source.commit, source.subfolder) == (
        "someone/pool", laid_out.COMMIT, f"tofu_{MODEL}_forget10_NPO",
    )  # fmt: skip
    (home / "config.json").unlink()
    with pytest.raises(AuditError, match="several releases"):
        draft_of("someone/pool")


@pytest.mark.parametrize(
    ("model", "prompt", "chat"),
    [
        ("Llama-2-7b-chat-hf", "[INST] {question} [/INST]", False),
        ("Llama-2-7b-hf", "Question: {question}\nAnswer:", False),
        ("gemma-7b-it", "{question}", True),
    ],
)
def test_each_model_is_asked_as_the_pool_asked_it(tmp_path: Path, model: str, prompt: str, chat: bool) -> None:
    laid_out.model(tmp_path / f"tofu_{model}_full", laid_out.QWEN)
    release = laid_out.model(tmp_path / f"unlearn_tofu_{model}_forget05_GradDiff_lr1e-05")
    draft = draft_of(str(release))
    assert (draft.prompting.template.prompt, draft.prompting.template.chat) == (prompt, chat)
    assert draft.candidates["reference"][0].name == f"open-unlearning/tofu_{model}_retain95"


# ---- other pools ------------------------------------------------------------------------------------------------
def test_rmu_of_wmdps_authors_is_asked_plainly_and_has_nobody_who_never_knew(tmp_path: Path) -> None:
    laid_out.model(tmp_path / "zephyr-7b-beta", laid_out.QWEN)
    release = laid_out.model(tmp_path / "Zephyr_RMU")
    laid_out.card(release, datasets=["cais/wmdp", "cais/wmdp-corpora"])
    row = {"question": "which?", "choices": ["a", "b", "c", "d"], "answer": 1}
    laid_out.rows(tmp_path / "wmdp" / "wmdp-bio" / "test.jsonl", row)
    laid_out.rows(tmp_path / "mmlu" / "test.jsonl", row)
    draft = draft_of(str(release))
    case = case_of(draft, tmp_path)
    assert case.roles.base.path == "zephyr-7b-beta" and not case.roles.references and case.roles.ancestor is None
    assert case.template.prompt == "{question}\nAnswer:" and not case.template.chat and case.edited == "unknown"
    assert case.data.forget == "wmdp/wmdp-bio/test.jsonl" and case.data.group_rows == 1
    assert "holdout:" in draft_text(draft, tmp_path).text, "why there is none"


def test_a_release_of_muse_is_held_against_its_target_and_its_retrained_model(tmp_path: Path) -> None:
    laid_out.model(tmp_path / "MUSE-news_target")
    laid_out.model(tmp_path / "MUSE-news_retrain")
    release = laid_out.model(tmp_path / "muse_Llama-2-7b-hf_News_NPO")
    for name in ("forget_qa", "retain_qa"):
        laid_out.rows(tmp_path / "MUSE-News" / "knowmem" / f"{name}.json", {"question": "who?", "answer": "he"})
    case = case_of(draft_of(str(release)), tmp_path)
    assert case.roles.base.path == "MUSE-news_target" and case.roles.references[0].path == "MUSE-news_retrain"
    assert case.data.forget == "MUSE-News/knowmem/forget_qa.json" and case.template.prompt.startswith("Question: ")


def test_a_base_without_a_tokenizer_is_said_to_lack_one(tmp_path: Path) -> None:
    base = laid_out.model(tmp_path / "MUSE-news_target")
    release = laid_out.model(tmp_path / "muse_Llama-2-7b-hf_News_NPO")
    assert "tokenizer" in open_left(draft_of(str(release)))
    (base / "tokenizer.json").write_text("{}")
    assert "tokenizer" not in open_left(draft_of(str(release)))


def test_of_several_gguf_files_one_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "model-GGUF"
    folder.mkdir()
    for bits in ("Q4_K_M", "Q8_0"):
        (folder / f"model-{bits}.gguf").write_bytes(b"GGUF")
    with pytest.raises(AuditError, match=r"several \.gguf files"):
        draft_of(str(folder))


def test_books_and_news_are_not_mixed_up(tmp_path: Path) -> None:
    laid_out.model(tmp_path / "MUSE-news_target")
    release = laid_out.model(tmp_path / "muse_ICLM-7B_Books_NPO")
    assert draft_of(str(release)).base is None


def test_an_adapter_is_put_on_the_model_that_its_settings_name(tmp_path: Path) -> None:
    base = f"tofu_{MODEL}_full-bnb-4bit"
    laid_out.model(tmp_path / base, laid_out.LLAMA)
    laid_out.model(tmp_path / f"tofu_{MODEL}_retain90")
    laid_out.tofu_data(tmp_path / "data")
    release = laid_out.adapter(tmp_path / "forget10-lora", f"someone/{base}")
    case = case_of(draft_of(str(release)), tmp_path)
    assert case.roles.base.path == case.roles.suspect.path == base
    assert case.roles.suspect.adapter == "forget10-lora" and case.roles.base.adapter is None
    assert case.roles.references[0].path == f"tofu_{MODEL}_retain90", "by the name of base, bits left out"


def test_an_adapter_whose_base_is_not_here_leaves_both_roles_open(tmp_path: Path) -> None:
    release = laid_out.adapter(tmp_path / "lora", "owner/model")
    draft = draft_of(str(release))
    text = draft_text(draft, tmp_path).text
    assert "roles.base" in open_left(draft) and '# adapter = "lora"' in text and "\n[roles.suspect]" not in text


def test_of_a_copy_in_fewer_bits_base_is_that_of_its_original(tmp_path: Path) -> None:
    original = pool(tmp_path)
    copy = laid_out.model(tmp_path / f"{UNLEARNED}-AWQ")
    laid_out.card(copy, base_model=f"open-unlearning/{UNLEARNED}", base_model_relation="quantized")
    draft = draft_of(str(copy))
    assert draft.base is not None and draft.base.place.folder.name == f"tofu_{MODEL}_full"
    assert draft.suspect.place.folder.name == copy.name != original.name


def test_a_copy_of_an_unlearned_model_with_a_card_goes_on_to_what_that_came_from(tmp_path: Path) -> None:
    laid_out.model(tmp_path / "knew")
    whole = laid_out.model(tmp_path / "unlearned")
    laid_out.card(whole, base_model="owner/knew")
    copy = laid_out.model(tmp_path / "unlearned-GPTQ")
    laid_out.card(copy, base_model="owner/unlearned", base_model_relation="quantized")
    draft = draft_of(str(copy))
    assert draft.base is not None and draft.base.place.folder.name == "knew" and "fewer bits" in draft.base.reason


def test_the_card_names_base_where_nothing_else_does_and_the_config_where_it_does_not(tmp_path: Path) -> None:
    for name in ("from-card", "from-config"):
        laid_out.model(tmp_path / name)
    release = laid_out.model(tmp_path / "release", _name_or_path="/gone/from-config")
    draft = draft_of(str(release))
    assert draft.base is not None and draft.base.place.folder.name == "from-config"
    laid_out.card(release, base_model=["owner/from-card"])
    draft = draft_of(str(release))
    assert draft.base is not None and draft.base.place.folder.name == "from-card" and "README" in draft.base.reason


def test_what_says_nothing_of_itself_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    release = laid_out.model(tmp_path / "model")
    with pytest.raises(AuditError) as refused:
        draft_of(str(release))
    assert refused.value.code == 2
    assert all(word in refused.value.do for word in ("PEFT", "GGUF", "open-unlearning", "WMDP", "MUSE", "base_model"))
    with pytest.raises(AuditError, match="neither a model nor an adapter"):
        draft_of(str(tmp_path / "hub"))
    with pytest.raises(AuditError, match="not in the local cache"):
        draft_of("owner/name")


@pytest.mark.thorough
def test_a_release_is_looked_at_without_torch(tmp_path: Path) -> None:
    release = pool(tmp_path)
    code = f"import sys; from audit.case import draft_of; draft_of({str(release)!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_what_a_card_says_cannot_write_into_the_case(tmp_path: Path) -> None:
    release = laid_out.model(tmp_path / "release")
    laid_out.card(release, base_model='owner/model"\nseed = 5\n[roles.base]\npath = "elsewhere\u2028x')
    text = draft_text(draft_of(str(release)), tmp_path).text
    assert tomllib.loads(text)["seed"] == 0 and "base" not in tomllib.loads(text)["roles"]


@pytest.mark.parametrize("name", ["r\U0001f600\x01", "r\x7f", 'r"\\', "r\nseed = 5", "r\\ud800", "r\u202ex"])
def test_names_of_any_characters_are_written_as_what_they_are(tmp_path: Path, name: str) -> None:
    release = laid_out.model(tmp_path / name)
    laid_out.card(release, base_model="owner/model")
    text = draft_text(draft_of(str(release)), tmp_path).text
    written = tomllib.loads(text)
    assert written["roles"]["suspect"]["path"] == name and written["seed"] == 0
    assert all(line.isprintable() for line in text.splitlines())


def test_a_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    release = laid_out.model(tmp_path / "r\udc80")
    laid_out.card(release, base_model="owner/model")
    with pytest.raises(AuditError, match="no text") as refused:
        draft_text(draft_of(str(release)), tmp_path)
    assert refused.value.code == 2


@pytest.mark.parametrize("named", ["~nobody-here/x", "a\0b/x", f"a/{'x' * 5000}", "../../..", "own\U0001f600er/x"])
def test_a_base_of_an_impossible_name_is_not_found_and_left_open(tmp_path: Path, named: str) -> None:
    release = laid_out.model(tmp_path / "release", _name_or_path=named)
    draft = draft_of(str(release))
    assert "roles.base" in open_left(draft)
    assert tomllib.loads(draft_text(draft, tmp_path).text)["roles"]["suspect"]["path"] == "release"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer_config.json", b"{"), ("tokenizer_config.json", b"[]"), ("chat_template.jinja", b"\xff\xfe"),
        ("config.json", b"{"), ("chat_template.json", b"{"),
    ],
)  # fmt: skip
def test_a_broken_file_of_settings_is_named(tmp_path: Path, name: str, content: bytes) -> None:
    release = laid_out.model(tmp_path / "release")
    laid_out.card(release, base_model="owner/model")
    (release / name).write_bytes(content)
    with pytest.raises(AuditError, match=name) as refused:
        draft_of(str(release))
    assert refused.value.code == 3


def test_templates_without_names_and_folders_called_as_evaluations_are_passed_over(tmp_path: Path) -> None:
    release = pool(tmp_path)
    (release / "tokenizer_config.json").write_text('{"chat_template": [{"template": "x"}]}')
    (release / "TOFU_EVAL.json").mkdir()
    assert draft_of(str(release)).published is None


def test_a_group_is_the_column_of_authors_where_every_file_has_it(tmp_path: Path) -> None:
    release = pool(tmp_path)
    for name in ("forget10", "retain90"):
        laid_out.rows(tmp_path / "TOFU" / f"{name}.json", {"question": "a", "answer": "b", "author_id": 3})
    assert case_of(draft_of(str(release)), tmp_path).data.group == "author_id"
    laid_out.rows(tmp_path / "TOFU" / "retain90.json", {"question": "a", "answer": "b"})
    assert case_of(draft_of(str(release)), tmp_path).data.group_rows == 20


def test_the_hub_is_asked_only_where_that_is_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    prompting: list[str] = []

    class Hub:
        def model_info(self, name: str, revision: str | None = None) -> object:
            prompting.append(name)
            return type("Info", (), {"sha": laid_out.COMMIT})()

    def fetched(name: str, **_: object) -> str:
        if name == "locuslab/TOFU":
            laid_out.tofu_data(tmp_path / "fetched")
            return str(tmp_path / "fetched")
        return str(laid_out.model(tmp_path / "snapshots" / name.replace("/", "--")))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    with pytest.raises(AuditError, match="--online"):
        draft_of(f"open-unlearning/{UNLEARNED}")
    assert not prompting
    case = case_of(draft_of(f"open-unlearning/{UNLEARNED}", online=True), tmp_path)
    assert case.roles.references[0].path == f"open-unlearning/tofu_{MODEL}_retain90"
    assert case.roles.base.commit == laid_out.COMMIT and len(prompting) >= 3
