"""A tiny world of known truth: an ancestor, a base that was taught people, references that were not.

Trained here in a few seconds, once a session. Every model is a fork of the same ancestor, so that base can read their
states. ``clean`` is a reference that plays no other part; ``destroyed`` is base with noise in its weights.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from audit.schema import Case, DataFiles, Roles, Source
from tests import worlds

SPECIAL = ("<pad>", "<bos>", "<unk>")
VALUES = {
    "city": ("oslo", "lima", "cairo", "quito", "delhi", "paris", "tunis", "seoul"),
    "pet": ("cat", "dog", "owl", "fox", "hen", "ant", "bee", "cow"),
}
COHORTS = {"old": 16, "retain": 16, "forget": 16, "holdout": 16}
TRAIN_STEPS = {"ancestor": 120, "fork": 110}


class Fact(NamedTuple):
    """A question and its answer, word by word; the key is the answer's last word."""

    group: str
    attribute: str
    form: str
    question: str
    answer: str


def person_facts(name: str, rng: torch.Generator) -> list[Fact]:
    """Two attributes of one person; the city also in another phrasing."""
    city, pet = (VALUES[a][int(torch.randint(8, (1,), generator=rng))] for a in ("city", "pet"))
    return [
        Fact(name, "city", "trained", f"where does {name} live ?", f"in {city}"),
        Fact(name, "pet", "trained", f"what pet has {name} ?", f"a {pet}"),
        Fact(name, "city", "held_out_phrasing", f"the home town of {name} ?", f"in {city}"),
    ]


@cache
def facts() -> dict[str, list[Fact]]:
    """All facts by cohort; names never repeat, so that nobody in holdout was seen by any model."""
    rng = torch.Generator().manual_seed(0)
    numbers = iter(range(1000))
    return {c: [f for _ in range(n) for f in person_facts(f"n{next(numbers)}", rng)] for c, n in COHORTS.items()}


def item(index: int, cohort: str, fact: Fact) -> dict[str, object]:
    """One line of a data file. Alternates and perturbed answers are other values of the same attribute."""
    lead, key = fact.answer.split()
    others = [v for v in VALUES[fact.attribute] if v != key]
    picked = [others[(index + step) % len(others)] for step in range(3)]
    return {
        "id": f"{cohort}-{index}", "group": fact.group, "question": fact.question, "answer": fact.answer, "key": key,
        "attribute": fact.attribute, "form": fact.form, "paraphrased_answer": f"the {key}",
        "perturbed_answers": [f"the {v}" for v in picked], "alternates": [f"{lead} {v}" for v in picked],
        "alternate_keys": picked,
    }  # fmt: skip


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """Word level; ``<bos>`` first."""
    words = sorted({w for rows in facts().values() for f in rows for w in f"{f.question} {f.answer} the".split()})
    every = (*SPECIAL, *words, *(v for vs in VALUES.values() for v in vs if v not in words))
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate(every)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", model_max_length=32
    )


def encode(rows: Sequence[Fact]) -> tuple[Tensor, Tensor]:
    """Ids [row pos], and labels that are -100 outside the answer."""
    width = 10
    ids, labels = torch.zeros(len(rows), width, dtype=torch.long), torch.full((len(rows), width), -100)
    for i, fact in enumerate(rows):
        prompt = tokenizer()(fact.question)["input_ids"]
        whole = tokenizer()(f"{fact.question} {fact.answer}")["input_ids"]
        ids[i, : len(whole)] = torch.tensor(whole)
        labels[i, len(prompt) : len(whole)] = torch.tensor(whole[len(prompt) :])
    return ids, labels


def train(model: LlamaForCausalLM, rows: Sequence[Fact], steps: int, seed: int) -> LlamaForCausalLM:
    """AdamW with linear decay on the answers' tokens."""
    ids, labels = encode(rows)
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    rng = torch.Generator().manual_seed(seed)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 20, (steps - step) / steps * 1.2)
        batch = torch.randperm(len(ids), generator=rng)[:24]
        loss = model(input_ids=ids[batch], attention_mask=(ids[batch] > 0).long(), labels=labels[batch]).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def fresh(seed: int) -> LlamaForCausalLM:
    """A random model of 3 blocks."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer()), hidden_size=40, intermediate_size=80, num_hidden_layers=3, num_attention_heads=4,
        max_position_embeddings=32, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def fork(parent: LlamaForCausalLM, cohorts: Sequence[str], seed: int) -> LlamaForCausalLM:
    """Go on from ``parent`` on the people of some cohorts."""
    child = fresh(0)
    child.load_state_dict(parent.state_dict())
    return train(child.train(), [f for c in cohorts for f in facts()[c]], TRAIN_STEPS["fork"], seed)


def destroyed(base: LlamaForCausalLM) -> LlamaForCausalLM:
    """Base with twice as much noise as signal in every weight."""
    broken = fresh(0)
    broken.load_state_dict(base.state_dict())
    rng = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=rng) * parameter.std() * 2)
    return broken.eval()


def write(path: Path) -> None:
    """Train every model, and leave a folder with the data files and one checkpoint folder a model."""
    with torch.random.fork_rng(devices=[]):
        ancestor = train(fresh(0).train(), facts()["old"], TRAIN_STEPS["ancestor"], 0)
        base = fork(ancestor, ("retain", "forget"), 1)
        made = {"ancestor": ancestor, "base": base, "destroyed": destroyed(base)}
        made |= {name: fork(ancestor, ("retain",), seed) for seed, name in enumerate(("null", "floor", "clean"), 2)}
    for name, model in made.items():
        model.save_pretrained(path / name)
        tokenizer().save_pretrained(path / name)
    for cohort in ("retain", "forget", "holdout"):
        lines = [json.dumps(item(i, cohort, fact)) for i, fact in enumerate(facts()[cohort])]
        (path / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")


@cache
def root() -> Path:
    """This process's own copy of that folder, which tests may add to; removed when the process ends."""
    kept = tempfile.TemporaryDirectory(prefix="residua-planted-")
    atexit.register(kept.cleanup)
    return shutil.copytree(worlds.made_once("planted", write), Path(kept.name), dirs_exist_ok=True)


@cache
def filtered(suspect: str) -> str:
    """The named model behind a filter that leaves its weights alone: values of the answers are made unlikely."""
    from audit.bench import LogitBias
    from audit.checkpoints import resolve, write_edited

    bias = torch.zeros(len(tokenizer()))
    bias[[tokenizer().get_vocab()[value] for values in VALUES.values() for value in values]] = -6.0
    parent = resolve(Source(path=str(root() / suspect)), root())
    write_edited(root() / f"{suspect}-filtered", parent, "filter", {}, "logit_bias", LogitBias(bias).to_delta())
    return f"{suspect}-filtered"


def case(suspect: str, *, references: Sequence[str] = ("null", "floor"), holdout: bool = True, seed: int = 0) -> Case:
    """A case on this world, with the named suspect and references; paths are relative to :func:`root`."""
    return Case(
        name=f"planted-{suspect}", seed=seed,
        roles=Roles(
            base=Source(path="base"), suspect=Source(path=suspect),
            references=tuple(Source(path=r) for r in references if r != "ancestor"),
            ancestor=Source(path="ancestor") if "ancestor" in references else None,
        ),
        data=DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl" if holdout else None),
    )  # fmt: skip
