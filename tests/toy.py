"""Tiny random checkpoints of six families, as folders with a tokenizer, built once a process.

The weights mean nothing: what is tested on them is plumbing. Norm weights and biases are random too, so that a state
read on the wrong side of a norm differs; the families bring tied and untied heads, grouped queries, parallel blocks,
post-norms, soft caps and sliding windows shorter than the rows.
"""

import atexit
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from audit.case import InsertablePrompts, Rows, SubjectPrompts, tokenise
from audit.edits import Concepts, EditData
from audit.schema import Checkpoint, Item, Source, Template

FAMILIES = ("llama", "gpt2", "gpt_neox", "qwen2", "mistral", "gemma2")
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")
_TEXT = (
    "who what where when is was the a of in by born lives works author book city job color pet "
    "anna boris clara david elena felix greta hugo iris jonas karla leo maria nils olga pavel "
    "paris lima oslo cairo quito delhi baker pilot nurse judge cat dog owl fox red blue green gold "
    "not know sorry do i ? . , : !"
)
WORDS = tuple(_TEXT.split())
N_BLOCKS = 3
VOCAB = len(SPECIAL) + len(WORDS)
MAX_LENGTH = 64


def config(family: str) -> PreTrainedConfig:
    """The configuration of one family's toy."""
    shared = {
        "vocab_size": VOCAB, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "initializer_range": 0.15,
    }  # fmt: skip
    rotary = {
        "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": N_BLOCKS, "num_attention_heads": 4,
        "max_position_embeddings": MAX_LENGTH,
    }  # fmt: skip
    if family == "gpt2":
        return GPT2Config(n_positions=MAX_LENGTH, n_embd=48, n_layer=N_BLOCKS, n_head=4, **shared)
    if family == "gpt_neox":
        return GPTNeoXConfig(tie_word_embeddings=False, **rotary, **shared)
    grouped = {**rotary, **shared, "num_key_value_heads": 2}
    if family == "llama":
        return LlamaConfig(tie_word_embeddings=False, **grouped)
    if family == "qwen2":
        return Qwen2Config(tie_word_embeddings=True, **grouped)
    if family == "mistral":
        return MistralConfig(tie_word_embeddings=False, sliding_window=6, **grouped)
    if family == "gemma2":
        return Gemma2Config(
            head_dim=16, query_pre_attn_scalar=16, sliding_window=6, attn_logit_softcapping=2.0,
            final_logit_softcapping=5.0, tie_word_embeddings=True, **grouped,
        )  # fmt: skip
    raise ValueError(f"no toy of family {family!r}")


def model(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A fresh random model of one family in eval mode; every parameter random, norms and biases included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = AutoModelForCausalLM.from_config(config(family), dtype=torch.float32)
        with torch.no_grad():
            for _, parameter in sorted(fresh.named_parameters()):
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter), alpha=0.3)
            for module in fresh.modules():
                if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                    module.weight[module.padding_idx].normal_(0, 0.15)
    return fresh.to(dtype).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer that puts ``<bos>`` first and knows only :data:`WORDS`."""
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=MAX_LENGTH, padding_side="right",
    )  # fmt: skip


@cache
def root() -> Path:
    """The folder that holds this process's toys; removed when the process ends."""
    kept = tempfile.TemporaryDirectory(prefix="residua-toys-")
    atexit.register(kept.cleanup)
    return Path(kept.name)


@cache
def folder(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Path:
    """A checkpoint folder (safetensors, config, tokenizer). Shared by all tests: never write into it, copy it."""
    out = root() / f"{family}-{seed}-{str(dtype).removeprefix('torch.')}"
    model(family, seed, dtype).save_pretrained(out)
    tokenizer().save_pretrained(out)
    return out


@cache
def checkpoint(family: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """The same as a Checkpoint, named by its content."""
    from audit import checkpoints

    return checkpoints.resolve(Source(path=str(folder(family, seed, dtype))), root())


def rows(n: int = 5, seed: int = 0, longest: int = 14) -> Rows:
    """``n`` random rows of different lengths, each with an answer of 2 to 4 tokens and some of them content tokens."""
    rng = torch.Generator().manual_seed(seed)
    lengths = torch.randint(6, longest + 1, (n,), generator=rng)
    lengths[0] = longest
    pos = torch.arange(longest)
    mask = pos < lengths[:, None]
    ids = torch.randint(len(SPECIAL), VOCAB, (n, longest), generator=rng).masked_fill(~mask, 0)
    ids[:, 0] = 1
    start = lengths - torch.randint(2, 5, (n,), generator=rng)
    spans = torch.stack([start, lengths], 1)
    answer = (pos >= start[:, None]) & mask
    key = answer & (torch.rand(n, longest, generator=rng) < 0.6)
    key[torch.arange(n), lengths - 1] = True
    names = tuple(f"item{i}" for i in range(n))
    return Rows(
        ids=ids, mask=mask, answer_spans=spans, key=key, item_ids=names,
        group_ids=tuple(f"person{i // 2}" for i in range(n)), template_hash="toy",
    )  # fmt: skip


def edit_data() -> EditData:
    """Six random rows of every kind that an edit may see; those of the forget items share their names. What is refused
    is asked of the people whom questions name, and what a string is put into is asked of them too."""
    retain = replace(rows(6, seed=2), group_ids=tuple(f"kept{i // 2}" for i in range(6)))
    items = [item for item in _subject_items() if item.group.startswith("person")]
    refusal = replace(tokenise(items, ["not know"] * 6, tokenizer(), Template(), None), template_hash="toy")
    prompts = InsertablePrompts(items, [item.answer for item in items], tokenizer(), Template())
    concepts = Concepts({item: "" for item in rows(6, seed=1).item_ids}, frozenset(rows(6, seed=1).group_ids[:3]))
    return EditData(rows(6, seed=1), retain, refusal, rows(6, seed=4), subjects(), prompts, concepts)


def subjects() -> SubjectPrompts:
    """Names of three people to forget and of three to keep, in two questions each."""
    return SubjectPrompts(_subject_items(), tokenizer(), Template())


def _subject_items() -> list[Item]:
    groups = [f"{cohort}{i}" for cohort in ("person", "kept") for i in range(3)]
    return [
        Item(
            id=f"item{2 * g + n}",
            group=group,
            subject=f"{WORDS[2 * g]} {WORDS[2 * g + 1]}",
            answer=WORDS[-1],
            question=f"{words} {WORDS[2 * g]} {WORDS[2 * g + 1]}",
        )
        for g, group in enumerate(groups)
        for n, words in enumerate((WORDS[-2], f"{WORDS[-3]} {WORDS[-4]}"))
    ]
