"""Tokens that a tokenizer has and the embeddings have not: never read as padding, refused where a text uses one."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from audit.checkpoints import tokenizer_files, tokenizers_agree
from audit.schema import AuditError, Texts
from audit.wrappers.families.causal_lm import load_folder
from tests import toy
from tests.case.test_opened import ROLES, opened, people, root, write_rows

__all__ = ["root"]
WORDS = ["who", "is", "anna", "born", "paris", "the", "cat"]


def append(folder: Path, *tokens: str, pad: bool = True) -> None:
    """Tokens put behind a folder's vocabulary, the first as padding, as a tutorial on padding has it."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(list(tokens))
    if pad and tokens:
        tokenizer.pad_token = tokens[0]
    tokenizer.save_pretrained(folder)


def saved(out: Path, *tokens: str, pad: bool = True) -> Path:
    toy.tokenizer().save_pretrained(out)
    append(out, *tokens, pad=pad)
    return out


@pytest.mark.sampled
@pytest.mark.parametrize("who", [ROLES, ("suspect",), ("base",), ("reference1", "ancestor")])
def test_a_padding_token_without_an_embedding_changes_no_row_and_no_logit(root: Path, who: tuple[str, ...]) -> None:
    rows = people("anna boris clara david", "f")
    for row in rows[:4]:
        row["answer"] += " the job of the nurse ."  # so that other rows are padded
    write_rows(root / "forget.jsonl", rows)
    before = opened(root).rows(Texts(cohort="forget"))
    for role in who:
        append(root / role, "[PAD]")
    case = opened(root)
    after = case.rows(Texts(cohort="forget"))
    assert torch.equal(after.ids, before.ids) and not bool(after.mask.all()) and int(after.ids.max()) < toy.VOCAB
    with torch.inference_mode():
        assert bool(torch.isfinite(load_folder(root / "base", torch.float32, "default")(before.ids).logits).all())


@pytest.mark.parametrize("cohort", ["forget", "retain"])
@pytest.mark.parametrize("field", ["question", "answer"])
def test_a_text_with_a_token_that_has_no_embedding_is_refused_by_item_and_token(
    root: Path, cohort: str, field: str
) -> None:
    for role in ROLES:
        append(root / role, "[PAD]", "<think>")
    rows = people("anna boris clara david", "f") if cohort == "forget" else people("elena felix greta", "r")
    rows[2][field] = f"<think> {rows[2][field]}"
    write_rows(root / f"{cohort}.jsonl", rows)
    with pytest.raises(AuditError, match=rf"{rows[2]['id']}.*'<think>' has number {toy.VOCAB + 1}") as caught:
        opened(root)
    assert caught.value.code == 2 and str(toy.VOCAB) in caught.value.what


def test_a_suspect_that_reads_a_token_that_base_does_not_know_is_refused(root: Path) -> None:
    append(root / "suspect", "[PAD]", "anna boris")
    with pytest.raises(AuditError, match="gives other tokens"):
        opened(root, data={"forget": str(both(root)), "retain": "retain.jsonl"})


def both(root: Path) -> Path:
    rows = people("anna boris clara david", "f")
    rows[0]["answer"] = "anna boris lives in paris ."
    write_rows(root / "both.jsonl", rows)
    return root / "both.jsonl"


# ---- tokenizers against one another -----------------------------------------------------------------------------
TOKENS = st.lists(st.sampled_from(["[PAD]", "<think>", "</think>", "<tool>"]), unique=True, max_size=3)


@given(TOKENS, TOKENS, st.lists(st.sampled_from([*WORDS, "<think>", "<tool>"]), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_tokens_behind_the_shared_vocabulary_matter_only_where_a_text_uses_them(
    tmp_path_factory: pytest.TempPathFactory, ours: list[str], theirs: list[str], words: list[str]
) -> None:
    at = tmp_path_factory.mktemp("tokenizers")
    first, second = (tokenizer_files(saved(at / name, *t)) for name, t in (("a", ours), ("b", theirs)))
    shared = {token for token in ours if token in theirs and ours.index(token) == theirs.index(token)}
    read = {word for word in words if word.startswith("<") and (word in ours or word in theirs)}
    behind = [ours.index(t) for t in shared]
    odd = [own.index(t) for own in (ours, theirs) for t in own if t not in shared]
    expected = read <= shared and not (odd and behind and min(odd) < max(behind))
    assert (tokenizers_agree(first, second, [" ".join(words)]) is None) is expected


def test_a_token_of_the_shared_vocabulary_that_is_another_still_differs(tmp_path: Path) -> None:
    first, second = tokenizer_files(saved(tmp_path / "a")), saved(tmp_path / "b")
    document = json.loads((second / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["cat"], vocabulary["dog"] = vocabulary["dog"], vocabulary["cat"]
    (second / "tokenizer.json").write_text(json.dumps(document))
    assert "2 of them differ" in (tokenizers_agree(first, tokenizer_files(second), ["anna"]) or "")
