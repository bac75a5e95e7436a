"""Base and suspect are comparable where one function of the weights is computed, however their configs spell it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit.schema import AuditError
from tests import toy
from tests.case.test_opened import ROLES, opened, root
from tests.case.test_shared_vocabulary import padded

__all__ = ["root"]
MISMATCHES: list[tuple[str, dict[str, object], str]] = [
    ("llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}},
     "rope_parameters.rope_theta: 10000.0 and 500000.0"),
    ("llama", {"rope_parameters": None, "rope_theta": 500000.0}, "rope_parameters.rope_theta: 10000.0 and 500000.0"),
    ("llama", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}},
     "rope_parameters.factor: None and 2.0"),
    ("llama", {"rope_parameters": None, "rope_theta": 10000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
     "rope_parameters.factor: None and 2.0"),
    ("gemma2", {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping: 2.0 and 50.0"),
    ("gemma2", {"final_logit_softcapping": None}, "final_logit_softcapping: 5.0 and None"),
    ("gemma2", {"sliding_window": 4096}, "sliding_window: 6 and 4096"),
    ("gemma2", {"query_pre_attn_scalar": 24}, "query_pre_attn_scalar: 16 and 24"),
    ("mistral", {"sliding_window": None}, "sliding_window: 6 and None"),
    ("gpt_neox", {"rope_parameters": None, "rotary_emb_base": 500000},
     "rope_parameters.rope_theta: 10000.0 and 500000"),
    ("gpt_neox", {"rope_parameters": None, "rotary_pct": 1.0}, "partial_rotary_factor: 0.25 and 1.0"),
]  # fmt: skip


def of_family(root: Path, family: str) -> Path:
    """The whole case with models of a family."""
    for seed, role in enumerate(ROLES):
        shutil.rmtree(root / role)
        shutil.copytree(toy.folder(family, seed), root / role)
    return root


def edit_json(path: Path, **fields: Any) -> None:
    document = json.loads(path.read_text()) | fields
    path.write_text(
        json.dumps({name: value for name, value in document.items() if value is not None or name in fields})
    )


@pytest.mark.parametrize(("family", "change", "words"), MISMATCHES)
def test_another_rope_cap_window_or_scale_is_refused_with_both_values(
    root: Path, family: str, change: dict[str, object], words: str
) -> None:
    of_family(root, family)
    path = root / "suspect" / "config.json"
    document = {k: v for k, v in json.loads(path.read_text()).items() if k not in change or change[k] is not None}
    absent = ("rope_parameters",)
    path.write_text(json.dumps(document | {k: v for k, v in change.items() if v is not None or k not in absent}))
    with pytest.raises(AuditError, match="another architecture") as caught:
        opened(root)
    assert caught.value.code == 2 and words in caught.value.what


@pytest.mark.sampled
@pytest.mark.parametrize("more", [1, 60])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_one_more_vocabulary_row_is_not_refused_and_is_said(root: Path, family: str, more: int) -> None:
    of_family(root, family)
    padded(root / "suspect", root / "wide", toy.VOCAB + more)
    shutil.rmtree(root / "suspect")
    (root / "wide").rename(root / "suspect")
    case = opened(root)
    assert case.suspect.vocabulary == toy.VOCAB
    assert any(f"suspect {toy.VOCAB + more}" in note and f"base {toy.VOCAB}" in note for note in case.notes)


@pytest.mark.parametrize("tied", ["base", "suspect"])
def test_a_tied_and_an_untied_head_may_meet(root: Path, tied: str) -> None:
    """Qwen's small models are tied; a copy whose head was trained on its own is not."""
    from safetensors.torch import load_file, save_file

    of_family(root, "qwen2")
    for role in ROLES:
        if role == tied:
            continue
        weights = load_file(root / role / "model.safetensors")
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"].clone()
        save_file(weights, root / role / "model.safetensors", {"format": "pt"})
        edit_json(root / role / "config.json", tie_word_embeddings=False)
    assert opened(root).base.family == "qwen2"
