"""One invented world, taught to small models of three architectures: who knew, who never knew, who only keeps quiet."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from audit.bench import CausalLearner, TrainData, TrainingRecipe, descend
from audit.edits import EditData, Refusal, nll
from audit.schema import Case, DataFiles, Item, Roles, Source
from audit.zoo import (
    Shape,
    World,
    edit_data,
    general_items,
    general_training_items,
    items,
    make_tokenizer,
    make_world,
    one_thread,
    rows_of,
    vocabulary,
    write,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Architecture = Literal["llama", "gpt2", "gpt_neox"]
Data = Literal["given", "plain", "every", "before"]
"""The world's own alternates; question, answer and group alone; the same files for an audit without the rule."""
ARCHITECTURES: tuple[Architecture, ...] = ("llama", "gpt2", "gpt_neox")
SHAPE = Shape(forget=32, retain=40, holdout=16, background=40, general=240, general_held_out=48)
CLEAN = ("clean_0", "clean_1", "clean_2")
SUSPECTS = (*CLEAN, "base", "refusal")
LEARN = {"ancestor": (300, 4e-3), "fork": (220, 2.5e-3)}
"""Steps, and the highest rate of learning."""
COHORTS: tuple[Literal["forget", "retain", "holdout"], ...] = ("forget", "retain", "holdout")


def fresh(architecture: Architecture, vocabulary_size: int, seed: int) -> "PreTrainedModel":
    """A random model of four blocks, with an untied head and no dropout."""
    from transformers import AutoConfig, AutoModelForCausalLM

    tokens = {"vocab_size": vocabulary_size, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 3}
    shared: dict[str, Any] = {"tie_word_embeddings": False, **tokens}
    if architecture == "gpt2":
        sizes = {"n_embd": 64, "n_inner": 128, "n_layer": 4, "n_head": 4, "n_positions": 64}
        shared |= {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    else:
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4,
                 "max_position_embeddings": 64}  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **sizes, **shared))


def _learned(model: "PreTrainedModel", texts: Sequence[Item], kind: str, order: int) -> "PreTrainedModel":
    steps, lr = LEARN[kind]
    repeated = [item for item in texts for _ in range(item.frequency or 1)]
    rows = rows_of(repeated, make_tokenizer(vocabulary()))
    recipe = TrainingRecipe(kind, lambda _, retain, *__: nll(retain), steps=steps, lr=lr, batch=64, seed=order)
    descend(CausalLearner(model), recipe, TrainData(retain=rows))
    return model


def make(architecture: Architecture, folder: Path, seed: int) -> None:
    """Train whatever model of one architecture is not in ``folder`` yet."""
    from transformers import AutoModelForCausalLM

    world = make_world(seed, SHAPE)
    general, retained = general_training_items(world), items(world, "retain")
    corpora = {"base": [*retained, *items(world, "forget"), *general[::2]]}
    corpora |= {name: [*retained, *general[::2]] for name in ("reference_0", "reference_1", *CLEAN)}

    def of(name: str) -> "PreTrainedModel":
        return AutoModelForCausalLM.from_pretrained(folder / name)

    with one_thread():
        if not (folder / "ancestor").exists():
            start = fresh(architecture, len(make_tokenizer(vocabulary())), seed)
            write(_learned(start, [*items(world, "background"), *general], "ancestor", 0), folder / "ancestor")
        for order, (name, texts) in enumerate(corpora.items(), 1):
            if not (folder / name).exists():
                write(_learned(of("ancestor"), texts, "fork", order), folder / name)
        if not (folder / "refusal").exists():
            data: EditData = edit_data(world, make_tokenizer(vocabulary()))
            silenced = of("base")
            recipe, rows = Refusal(steps=80, lr=1e-3).lesson(data, silenced.config.num_hidden_layers)
            descend(CausalLearner(silenced), recipe, rows)
            write(silenced, folder / "refusal")


def write_data(folder: Path, seed: int) -> None:
    """The trained form of every cohort: as the world gives it, and as question, answer and group alone."""
    world: World = make_world(seed, SHAPE)
    for cohort in COHORTS:
        trained = [item for item in items(world, cohort) if item.form == "trained"]
        full = [item.model_dump(mode="json", exclude_defaults=True) for item in trained]
        plain = [{"question": item.question, "answer": item.answer, "group": item.group} for item in trained]
        for name, lines in (("given", full), ("plain", plain), ("every", plain), ("before", plain)):
            (folder / f"{name}_{cohort}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    general = [{"text": item.answer} for item in general_items(world)]
    (folder / "general.jsonl").write_text("".join(json.dumps(line) + "\n" for line in general))


def case_of(architecture: Architecture, suspect: str, data: Data, seed: int) -> Case:
    """The audit of one suspect; paths are relative to the folder of :func:`write_data`."""

    def source(name: str) -> Source:
        return Source(path=f"{architecture}/{name}")

    files = {cohort: f"{data}_{cohort}.jsonl" for cohort in COHORTS}
    return Case(
        name=f"{architecture}-{suspect}-{data}", seed=seed, edited="all",
        data=DataFiles(**files, general="general.jsonl"),
        roles=Roles(
            base=source("base"), suspect=source(suspect), references=(source("reference_0"), source("reference_1"))
        ),
    )  # fmt: skip
