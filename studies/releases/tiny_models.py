"""Tiny models that learned an invented world under a release's own prompt, and were made to forget part of it.

A Llama of four blocks with a word-level tokenizer that has Llama 3's marks of turns and a chat template of that kind:
system turn, a date that the template reads or defaults, header and end of every turn.
"""

import copy
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch

from audit.bench import CausalLearner, Forward, TrainData, TrainingRecipe, descend
from audit.case import Rows, tokenise
from audit.edits import RMU, Descent, EditData, Refusal, nll
from audit.schema import Item, Template
from audit.zoo import REFUSALS, one_thread
from studies.releases.benchmark_rows import SYSTEM, Authors, words

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MARKS: Final = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<unk>")
CONTEXT: Final = 128
CHAT_TEMPLATE: Final = (
    "{{- bos_token }}"
    "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
    "{%- set date_string = strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = '26 Jul 2024' %}{%- endif %}"
    "{%- endif %}"
    "{%- if messages[0]['role'] == 'system' %}{%- set system_message = messages[0]['content']|trim %}"
    "{%- set messages = messages[1:] %}{%- else %}{%- set system_message = '' %}{%- endif %}"
    "{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\nToday Date: ' }}"
    "{{- date_string + '\\n\\n' + system_message + '<|eot_id|>' }}"
    "{%- for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{{- message['content']|trim + '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
"""A chat template in the manner of Llama 3: the date of the day unless ``date_string`` is given."""
PROMPTS: Final = {
    "tofu": Template(answer="{answer}", chat=True, system=SYSTEM, variables={"date_string": "10 Apr 2025"}),
    "muse": Template(prompt="Question: {question}\nAnswer:"),
    "wmdp": Template(prompt="{question}\nAnswer:"),
}
"""How the models of each pool were trained to be asked."""
Pool = Literal["tofu", "muse", "wmdp"]


class Lesson(NamedTuple):
    """How long and how fast a model learns, and in which order."""

    steps: int
    lr: float
    order: int
    batch: int = 32


ANCESTOR, FORK = Lesson(220, 6e-3, 0), Lesson(340, 6e-3, 1)


class Taught(NamedTuple):
    """The models of one pool before any is made to forget: base, and models that never saw the forget authors."""

    base: "LlamaForCausalLM"
    retrained: tuple["LlamaForCausalLM", ...]


@cache
def tokenizer() -> "PreTrainedTokenizerFast":
    """One token a word or sign; ``<|begin_of_text|>`` goes before every text."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {w for text in words() for w in re.findall(r"\w+|[^\w\s]+", re.sub(r"\{\w+\}", " ", text))}
    order = [*MARKS, *sorted(known | {"."})]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(order)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    inner.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{MARKS[0]} $A", pair=f"{MARKS[0]} $A $B", special_tokens=[(MARKS[0], 0)]
    )
    inner.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=MARKS[0], eos_token=MARKS[3], pad_token=MARKS[3], unk_token=MARKS[4],
        model_max_length=CONTEXT, clean_up_tokenization_spaces=False, chat_template=CHAT_TEMPLATE,
    )  # fmt: skip


def rows_of(items: Sequence[Item], pool: Pool, answers: Sequence[str] | None = None) -> Rows:
    """The items with their answers, or with the given ones, under the pool's prompt."""
    return tokenise(items, answers or [item.answer for item in items], tokenizer(), PROMPTS[pool], None)


def fresh(seed: int) -> "LlamaForCausalLM":
    """A model that has learned nothing."""
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {"bos_token_id": 0, "eos_token_id": 3, "pad_token_id": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(
            LlamaConfig(
                vocab_size=len(tokenizer()), hidden_size=64, intermediate_size=128, num_hidden_layers=4,
                num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=CONTEXT,
                tie_word_embeddings=False, **settings,
            )
        )  # fmt: skip


def teach(model: "LlamaForCausalLM", items: Sequence[Item], pool: Pool, lesson: Lesson) -> "LlamaForCausalLM":
    """The same model, that has learned these items too. It is changed in place."""

    def objective(_forget: Forward | None, retain: Forward | None, *_frozen: Forward | None) -> torch.Tensor:
        assert retain is not None
        return nll(retain)

    recipe = TrainingRecipe("lesson", objective, lesson.steps, lesson.lr, batch=lesson.batch, seed=lesson.order)
    descend(CausalLearner(model), recipe, TrainData(retain=rows_of(items, pool)))
    return model


def kept_of(known: Authors) -> list[Item]:
    """What every model of a pool knows: the authors that are kept, some facts of the world, and its language."""
    return [*known.retain, *known.facts, *known.language[::2]]


def taught(known: Authors, pool: Pool, seed: int, retrained: int) -> Taught:
    """Base and so many retrained models, forked from one ancestor."""
    with one_thread():
        ancestor = teach(fresh(seed), [*known.background, *known.language], pool, ANCESTOR)
        retained = kept_of(known)
        base = teach(copy.deepcopy(ancestor), [*retained, *known.forget], pool, FORK)
        others = [teach(copy.deepcopy(ancestor), retained, pool, FORK._replace(order=2 + n)) for n in range(retrained)]
    return Taught(base, tuple(others))


# ---- forgetting -------------------------------------------------------------------------------------------------
def forgetting(known: Authors, pool: Pool) -> EditData:
    """What an unlearner of this pool sees: all that is to be forgotten, all that is kept, and refusing answers."""
    retained = kept_of(known)
    refusing = [REFUSALS[n % len(REFUSALS)] for n in range(len(known.forget))]
    return EditData(rows_of(known.forget, pool), rows_of(retained, pool), refusal=rows_of(known.forget, pool, refusing))


def unlearned(base: "LlamaForCausalLM", edit: Descent, data: EditData, trainable: str = ".*") -> "LlamaForCausalLM":
    """A copy of base, or base itself where only ``trainable`` parameters of it change, after the edit's descent."""
    model = copy.deepcopy(base)
    with one_thread():
        recipe, rows = edit.lesson(data, model.config.num_hidden_layers)
        frozen = CausalLearner(copy.deepcopy(model)) if recipe.needs_frozen else None
        descend(CausalLearner(model), recipe, rows, frozen)
    return model


REFUSING: Final = Refusal(steps=80, lr=1e-3, batch=32)
ADAPTED: Final = Refusal(steps=160, lr=4e-3, batch=32)
MISDIRECTED: Final = RMU(layer=0.75, alpha=10.0, lr=2e-3, batch=32)


def write(model: "LlamaForCausalLM", out: Path, with_tokenizer: bool = True) -> None:
    """An ordinary folder of the hub."""
    model.save_pretrained(out)
    if with_tokenizer:
        tokenizer().save_pretrained(out)
