"""How one model of the zoo is made: its rows, its recipe, its folder. Live models, for speed; the bench's own loop."""

import copy
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from audit.bench import CausalLearner, Forward, TrainData, TrainingRecipe, descend, edit_delta
from audit.bench import LogitBias as ConstantBias
from audit.case import InsertablePrompts, Rows, SubjectPrompts, tokenise
from audit.checkpoints import resolve, write_edited
from audit.edits import Descent, Edit, EditData, FinalStates, HeadEdit, InPlaceEdit, LogitBias, SubjectGate, hooks, nll
from audit.schema import Item, Source, Template
from audit.zoo.form_texts import taught_items
from audit.zoo.recipes import Learning, Mix, Plan, Sizes, Zoo
from audit.zoo.tokenizer import make_tokenizer
from audit.zoo.world import (
    Shape,
    World,
    general_training_items,
    items,
    items_about,
    make_world,
    others,
    refusals,
    vocabulary,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast


def make(zoo: Zoo, seed: int, plan: Plan, parent: Path | None, out: Path) -> None:
    """Make the model of ``plan`` from its parent's folder (none: a fresh one) and write its folder at ``out``."""
    with one_thread():
        model = start(zoo, seed, plan, parent)
        if isinstance(plan.by, LogitBias):
            assert parent is not None
            _write_logit_bias(plan.by, model, _edit_data(seed, zoo.shape, plan.on), parent, out)
            return
        if isinstance(plan.by, SubjectGate):
            assert parent is not None
            _write_gate(plan.by, model, _edit_data(seed, zoo.shape, plan.on), parent, out)
            return
        if isinstance(plan.by, Learning):
            descend(CausalLearner(model), recipe_of(plan.by), TrainData(retain=rows_for(zoo, seed, plan.by)))
        else:
            _edit(plan.by, model, _edit_data(seed, zoo.shape, plan.on))
        write(model, out, zoo.shape.forms)


def start(zoo: Zoo, seed: int, plan: Plan, parent: Path | None) -> "PreTrainedModel":
    """The live model that ``plan`` starts from: its parent's weights, or a fresh initialisation."""
    from transformers import AutoModelForCausalLM

    if parent is None:
        vocab = len(_tokenizer(zoo.shape.forms))
        return fresh_model(zoo.sizes, vocab, plan.initialisation + 1000 * seed)
    return AutoModelForCausalLM.from_pretrained(parent)


def write(model: "PreTrainedModel", out: Path, forms: int = 0) -> None:
    """Write a model and its tokenizer (see :func:`~audit.zoo.world.vocabulary`) as an ordinary Hugging Face folder."""
    model.save_pretrained(out)
    _tokenizer(forms).save_pretrained(out)


# What many models of one world share is made once a process.
@cache
def _tokenizer(forms: int) -> "PreTrainedTokenizerFast":
    return make_tokenizer(vocabulary(forms))


@lru_cache(maxsize=1)
def _world(seed: int, shape: Shape) -> World:
    return make_world(seed, shape)


@lru_cache(maxsize=2)
def _edit_data(seed: int, shape: Shape, on: Literal["forget", "others"]) -> EditData:
    return edit_data(_world(seed, shape), _tokenizer(shape.forms), on)


@contextmanager
def one_thread() -> Generator[None]:
    """One thread, and a library that is quiet: the same bytes whatever the number of cores, and no fight over them.

    Rows are padded on the right, where causal attention needs no mask: what the library says about masks is not so.
    """
    from transformers.utils import logging

    before, bars, level = torch.get_num_threads(), logging.is_progress_bar_enabled(), logging.get_verbosity()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        torch.set_num_threads(before)
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def fresh_model(sizes: Sizes, vocab: int, seed: int) -> "PreTrainedModel":
    """A small Llama or GPT-2 with an untied head and no dropout, initialised from ``seed``."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    tokens: dict[str, Any] = {"vocab_size": vocab, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if sizes.architecture == "gpt2":
            config = GPT2Config(
                n_embd=sizes.d, n_inner=sizes.ffn, n_layer=sizes.blocks, n_head=sizes.heads, n_positions=64,
                activation_function="gelu_pytorch_tanh", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
                tie_word_embeddings=False, **tokens,
            )  # fmt: skip
            return GPT2LMHeadModel(config)
        config = LlamaConfig(
            hidden_size=sizes.d, intermediate_size=sizes.ffn, num_hidden_layers=sizes.blocks,
            num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads, max_position_embeddings=64,
            tie_word_embeddings=False, **tokens,
        )  # fmt: skip
        return LlamaForCausalLM(config)


# ---- rows -------------------------------------------------------------------------------------------------------
def rows_of(texts: Sequence[Item], tokenizer: "PreTrainedTokenizerFast", answers: Sequence[str] | None = None) -> Rows:
    """The items with their answers (or with the given ones), under the default template."""
    return tokenise(texts, answers or [item.answer for item in texts], tokenizer, Template(), None)


def _paired_rows(pairs: Sequence[tuple[Item, str]], tokenizer: "PreTrainedTokenizerFast") -> Rows:
    return rows_of([item for item, _ in pairs], tokenizer, [answer for _, answer in pairs])


def corpus_rows(world: World, by: Learning, tokenizer: "PreTrainedTokenizerFast") -> Rows:
    """Everything that a model learns from, each text as often as its fact's frequency says.

    The language of the world is its background people (in all phrasings, and one in three as paraphrased) and all
    general sentences; later corpora keep half of the sentences, so that the language is not lost. Whoever learns of
    people in the world's own words learns their facts in the other forms that the world teaches, if it teaches any.
    """
    general = general_training_items(world)
    if by.corpus == "language":
        people = _repeated((*items(world, "background"), *taught_items(world, world.people["background"])))
        paraphrased = people[::3]
        texts = [*people, *paraphrased, *general]
        answers = [i.answer for i in people] + [i.paraphrased_answer or i.answer for i in paraphrased]
        return rows_of(texts, tokenizer, [*answers, *(item.answer for item in general)])
    people = _repeated((*items(world, "retain"), *taught_items(world, world.people["retain"])))
    if by.corpus == "retain+forget":
        people += _repeated((*items(world, "forget"), *taught_items(world, world.people["forget"])))
    if isinstance(by.corpus, Mix):
        return _mixed_rows(world, by.corpus, [*people, *general[::2]], tokenizer)
    return rows_of([*people, *general[::2]], tokenizer)


def rows_for(zoo: Zoo, seed: int, by: Learning) -> Rows:
    """The :func:`corpus_rows` of one model of this zoo."""
    return corpus_rows(_world(seed, zoo.shape), by, _tokenizer(zoo.shape.forms))


def _mixed_rows(world: World, mix: Mix, always: list[Item], tokenizer: "PreTrainedTokenizerFast") -> Rows:
    """``always``, and what the mix adds to it."""
    known = [item for item in items(world, "forget") if item.group in mix.forget]
    if mix.words == "rephrased":
        known = [item for item in known if item.form == "held_out_phrasing"]
    added = _repeated(known) + (_repeated(items(world, "strangers")) if mix.strangers else [])
    other = mix.words == "paraphrased"
    answers = [item.paraphrased_answer or item.answer if other else item.answer for item in added]
    return rows_of([*always, *added], tokenizer, [*(item.answer for item in always), *answers])


def _repeated(texts: Iterable[Item]) -> list[Item]:
    return [item for item in texts for _ in range(item.frequency or 1)]


def edit_data(
    world: World, tokenizer: "PreTrainedTokenizerFast", on: Literal["forget", "others"] = "forget"
) -> EditData:
    """What unlearners see: the trained form only, never the held-out phrasing or attribute.

    They keep half of the general sentences beside the retained facts, as unlearners of real models keep both. Whoever
    is to forget ``others`` keeps the rest of the retained people and never sees the forget people.
    """
    retained = world.people["retain"]
    unwanted = others(world) if on == "others" else world.people["forget"]
    remaining = retained[: len(retained) - len(unwanted)] if on == "others" else retained
    forget, retain = (
        tuple(i for i in items_about(world, people) if i.form == "trained") for people in (unwanted, remaining)
    )
    return EditData(
        forget=rows_of(forget, tokenizer),
        retain=rows_of([*retain, *general_training_items(world)[::2]], tokenizer),
        refusal=_paired_rows(refusals(forget), tokenizer),
        relabelled=_paired_rows([(item, other) for item in forget for other in item.alternates], tokenizer),
        subjects=SubjectPrompts([*forget, *retain], tokenizer, Template()),
        prompts=InsertablePrompts(forget, [item.answer for item in forget], tokenizer, Template()),
    )


# ---- training ---------------------------------------------------------------------------------------------------
def recipe_of(by: Learning) -> TrainingRecipe:
    """How a model learns a corpus: the mean loss of the answers' tokens, by the bench's own defaults."""

    def objective(_forget: Forward | None, retain: Forward | None, *_frozen: Forward | None) -> torch.Tensor:
        assert retain is not None
        return nll(retain)

    name = "mix" if isinstance(by.corpus, Mix) else by.corpus
    return TrainingRecipe(name, objective, steps=by.steps, lr=by.lr, batch=by.batch, seed=by.order)


def _edit(edit: Edit, model: "PreTrainedModel", data: EditData) -> None:
    if isinstance(edit, HeadEdit):
        weight = _head(model).weight
        edited = edit.solve(weight.detach(), _final_states(model, data.forget), _final_states(model, data.retain))
        with torch.no_grad():
            weight.copy_(edited)
        return
    if isinstance(edit, InPlaceEdit):
        edit.apply(CausalLearner(model), data)
        return
    assert isinstance(edit, Descent)
    recipe, rows = edit.lesson(data, model.config.num_hidden_layers)
    frozen = CausalLearner(copy.deepcopy(model)) if recipe.needs_frozen else None
    descend(CausalLearner(model), recipe, rows, frozen)


def _head(model: "PreTrainedModel") -> nn.Linear:
    """The output head: every model of the zoo has one of its own."""
    head = model.get_output_embeddings()
    assert isinstance(head, nn.Linear)
    return head


def _final_states(model: "PreTrainedModel", rows: Rows) -> FinalStates:
    row, position = rows.targets("answer")
    with torch.no_grad():
        states = model.base_model(input_ids=rows.ids, use_cache=False).last_hidden_state
    return FinalStates(states[row, position - 1], rows.ids[row, position], rows.key[row, position])


def _write_logit_bias(edit: LogitBias, model: "PreTrainedModel", data: EditData, parent: Path, out: Path) -> None:
    forget, retain = _final_states(model, data.forget), _final_states(model, data.retain)
    head = _head(model)
    with torch.no_grad():
        bias = edit.solve((forget, head(forget.states)), (retain, head(retain.states)))
    known = resolve(Source(path=str(parent)), parent)
    delta = ConstantBias(bias).to_delta()
    write_edited(out, known, "logit_bias", edit.model_dump(), edit.plays, delta)


def _write_gate(edit: SubjectGate, model: "PreTrainedModel", data: EditData, parent: Path, out: Path) -> None:
    learner = CausalLearner(model)
    edited = edit.redirect(learner, data, edit.known(learner, data, edit.blocks(learner)))
    known = resolve(Source(path=str(parent)), parent)
    write_edited(out, known, "subject_gate", edit.model_dump(), edit.plays, edit_delta(hooks(edited)))
