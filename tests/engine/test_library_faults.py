"""Whatever a library raises while a checkpoint, template or data file is opened ends as a sentence of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import peft
import pytest
import transformers
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from pyarrow import parquet

from audit.case import load_case, open_case
from audit.checkpoints import resolve
from audit.schema import AuditError, Source, Template
from audit.wrappers import open_wrapper
from tests.case.test_opened import read_rows
from tests.case.test_opened import root as root


class OddError(Exception):
    """An exception that no code of ours knows."""


def _case(root: Path, **data: str) -> None:
    """The case of a folder, with other data files where they are given."""
    case = load_case(root / "case.toml")
    open_case(case.model_copy(update={"data": case.data.model_copy(update=data)}), root, root / "out")


def _model(root: Path, adapter: str | None = None, backend: str = "native") -> None:
    source = Source(path=str(root / "suspect"), adapter=adapter)
    open_wrapper(resolve(source, root), backend)


def _chat(root: Path) -> None:
    case = load_case(root / "case.toml")
    open_case(case.model_copy(update={"template": Template(chat=True, answer="{answer}")}), root, root / "out")


def _hub(root: Path) -> None:
    resolve(Source(path="owner/name", commit="0" * 40), root, online=True)


@pytest.fixture
def whole(root: Path) -> Path:
    """A whole case that has a chat template, an adapter and a table of rows as well."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(root / "base")
    tokenizer.chat_template = "{{ messages[-1]['content'] }}"
    tokenizer.save_pretrained(root / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(root / "suspect")
    adapted: Any = get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False))
    adapted.save_pretrained(root / "adapter")
    names = ("question", "answer", "group", "form")
    rows = [{name: row[name] for name in names} for row in read_rows(root / "forget.jsonl")]
    Dataset.from_list(rows).to_parquet(root / "forget.parquet")
    return root


def _adapter(root: Path) -> None:
    _model(root, adapter="adapter")


def _parquet(root: Path) -> None:
    _case(root, forget="forget.parquet")


CALLS: dict[str, tuple[object, str, Callable[[Path], None]]] = {
    "tokenizer": (transformers.PreTrainedTokenizerFast, "from_pretrained", _case),
    "encoding": (transformers.PreTrainedTokenizerFast, "_encode_plus", _case),
    "chat template": (transformers.PreTrainedTokenizerFast, "apply_chat_template", _chat),
    "config": (transformers.AutoConfig, "from_pretrained", _case),
    "parquet": (parquet, "ParquetFile", _parquet),
    "model": (transformers.AutoModelForCausalLM, "from_pretrained", _model),
    "forward": (transformers.LlamaForCausalLM, "forward", _model),
    "adapter": (peft.PeftModel, "__init__", _adapter),
    "adapter's weights": (peft, "set_peft_model_state_dict", _adapter),
    "merge": (peft.tuners.lora.Linear, "merge", _adapter),
    "hub": (huggingface_hub.HfApi, "list_repo_files", _hub),
}
"""A call of a library by what it opens: whose it is, its name, and what of ours ends in it."""


@pytest.mark.sampled
@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [OddError, ImportError, KeyError])
def test_what_a_library_raises_is_an_audit_error_with_the_original_in_it(
    whole: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type[Exception]
) -> None:
    owner, attribute, opening = CALLS[name]

    def broken(*_: object, **__: object) -> None:
        raise kind("a wheel came off")

    monkeypatch.setattr(owner, attribute, broken)
    with pytest.raises(AuditError) as raised:
        opening(whole)
    assert "a wheel came off" in raised.value.what and raised.value.do
    assert raised.value.code in (2, 3)


@pytest.mark.thorough
def test_the_same_calls_open_everything_where_nothing_breaks(whole: Path) -> None:
    for opening in {opening for _, _, opening in CALLS.values()} - {_hub}:
        opening(whole)


def test_a_bridge_that_breaks_is_an_audit_error(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformer_lens.model_bridge import TransformerBridge

    def broken(*_: object, **__: object) -> None:
        raise OddError("a wheel came off")

    monkeypatch.setattr(TransformerBridge, "boot_transformers", broken)
    with pytest.raises(AuditError, match="a wheel came off"):
        _model(whole, backend="transformer_lens")
