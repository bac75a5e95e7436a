"""Worlds of many sizes whose audits are priced and then made: families, widths, depths, vocabularies, people.

Every world is invented people, two facts each; base was taught those to forget and those to keep, two references those
to keep alone, and the suspect goes on from base. Models are as small as their config makes them, and trained in
seconds.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast

from audit.zoo import make_tokenizer
from studies.families.tiny_configs import tiny_config

CITIES: Final = ("oslo", "lima", "cairo", "quito", "delhi", "paris", "tunis", "seoul")
PETS: Final = ("cat", "dog", "owl", "fox", "hen", "ant", "bee", "cow")
ROUND, ROUNDS, FURTHER, BATCH, SMALL_LOSS = 100, 3, 8, 40, 0.15
LONG: Final = " as people say of those who come from far away and stay for many years in one place"
"""Put before every question of a world of long texts."""


class PriceWorld(NamedTuple):
    """A family, its config where it is not the tiny one, people a cohort, and whether texts are long."""

    name: str
    family: str
    config: Mapping[str, Any]
    people: int = 10
    long: bool = False


def llama_config(width: int, blocks: int, vocabulary: int) -> dict[str, Any]:
    """Settings of a Llama that differ from the tiny one's."""
    return {
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": blocks, "vocab_size": vocabulary,
        "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": width // 4,
    }  # fmt: skip


FITTED: Final = (
    PriceWorld("llama", "llama", {}),
    PriceWorld("llama, width 128", "llama", llama_config(128, 4, 200), 15),
    PriceWorld("llama, vocabulary 20,000", "llama", llama_config(64, 4, 20_000)),
    PriceWorld("gpt2, 25 people", "gpt2", {"vocab_size": 200}, 25),
)
"""Worlds that the shipped prices were fitted on, beside the demo's."""
JUDGED: Final = (
    PriceWorld("qwen3", "qwen3", {}),
    PriceWorld("llama, vocabulary 50,000", "llama", llama_config(64, 4, 50_000)),
    PriceWorld("llama, 30 people", "llama", llama_config(32, 2, 200), 30),
    PriceWorld("opt", "opt", {}),
    PriceWorld("llama, width 256", "llama", llama_config(256, 3, 200)),
    PriceWorld("gpt2, long texts", "gpt2", {"vocab_size": 150}, 10, True),
    PriceWorld("llama, 12 blocks", "llama", llama_config(32, 12, 200)),
    PriceWorld("gpt_neox", "gpt_neox", {}),
    PriceWorld("qwen2, vocabulary 5,000", "qwen2", llama_config(48, 4, 5_000), 15),
    PriceWorld("mixtral", "mixtral", {}),
    PriceWorld("phi3", "phi3", {}),
    PriceWorld("llama, 20 people, long texts", "llama", llama_config(48, 3, 300), 20, True),
    PriceWorld("gemma3", "gemma3_text", {}),
    PriceWorld("bloom", "bloom", {}),
    PriceWorld("olmo2, 20 people", "olmo2", {"vocab_size": 200}, 20),
    PriceWorld("gpt2, vocabulary 10,000", "gpt2", {"vocab_size": 10_000, "n_embd": 64}),
    PriceWorld("llama, width 192, 20 people", "llama", llama_config(192, 4, 200), 20),
    PriceWorld("llama, 60 people", "llama", llama_config(32, 2, 400), 60),
    PriceWorld("stablelm", "stablelm", {}),
    PriceWorld("starcoder2", "starcoder2", {}),
)
"""Worlds that they were not fitted on."""


def lines_of(world: PriceWorld) -> dict[str, list[dict[str, Any]]]:
    """The data files by cohort."""
    cohorts, number = dict[str, list[dict[str, Any]]](), 0
    lead = LONG if world.long else ""
    for cohort in ("forget", "retain", "holdout"):
        cohorts[cohort] = []
        for _ in range(world.people):
            number += 1
            name, city, pet = f"n{number}", CITIES[number * 5 % 8], PETS[number * 3 % 7]
            cohorts[cohort] += [
                _line(f"{name}-city", name, f"{lead} where does {name} live ?".strip(), "in", city, CITIES),
                _line(f"{name}-pet", name, f"{lead} what pet has {name} ?".strip(), "a", pet, PETS),
            ]
    return cohorts


def _line(identity: str, name: str, question: str, lead: str, key: str, values: Sequence[str]) -> dict[str, Any]:
    others = [value for value in values if value != key][:3]
    return {
        "id": identity, "group": name, "subject": name, "question": question, "answer": f"{lead} {key}", "key": key,
        "paraphrased_answer": f"the {key}", "perturbed_answers": [f"the {value}" for value in others],
        "alternates": [f"{lead} {value}" for value in others], "alternate_keys": others,
    }  # fmt: skip


class _Lessons(NamedTuple):
    """Encoded lines: ids [row pos], and labels that are -100 outside the answers."""

    ids: Tensor
    labels: Tensor

    @classmethod
    def of(cls, lines: Sequence[Mapping[str, Any]], words: PreTrainedTokenizerFast) -> "_Lessons":
        token_lists: list[list[int]] = [words(f"{line['question']} {line['answer']}")["input_ids"] for line in lines]
        prompts: list[int] = [len(words(line["question"])["input_ids"]) for line in lines]
        ids = torch.zeros(len(lines), max(map(len, token_lists)), dtype=torch.long)
        labels = torch.full_like(ids, -100)
        for row, (tokens, start) in enumerate(zip(token_lists, prompts, strict=True)):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
        return cls(ids, labels)

    def loss(self, model: PreTrainedModel, rows: Tensor) -> Tensor:
        """Cross-entropy of the answers' tokens."""
        logits = model(input_ids=self.ids[rows], use_cache=False).logits[:, :-1]
        return F.cross_entropy(logits.flatten(0, 1), self.labels[rows, 1:].flatten(), ignore_index=-100)


def _taught(model: PreTrainedModel, lessons: _Lessons, steps: int, seed: int) -> float:
    """AdamW in an order of its own; the loss on all answers after it."""
    width = int(model.config.get_text_config().hidden_size)
    rate = 5e-3 * min(1.0, 48 / width)
    optimiser = torch.optim.AdamW(model.train().parameters(), lr=rate, betas=(0.9, 0.95), weight_decay=0.0)
    dice, n = torch.Generator().manual_seed(seed), len(lessons.ids)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10, 1.2 * (steps - step) / steps)
        loss = lessons.loss(model, torch.randperm(n, generator=dice)[:BATCH])
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
    model.eval()
    with torch.no_grad():
        return float(lessons.loss(model, torch.arange(n)))


def _learned(model: PreTrainedModel, lessons: _Lessons, seed: int) -> None:
    for number in range(ROUNDS):
        if _taught(model, lessons, ROUND, seed + 100 * number) < SMALL_LOSS:
            return


def write_world(world: PriceWorld, folder: Path) -> Path:
    """Train a world's models and leave them, the data and the case, whose path is returned; what is there is kept."""
    case = folder / "case.toml"
    if case.is_file():
        return case
    folder.mkdir(parents=True, exist_ok=True)
    cohorts = lines_of(world)
    words = make_tokenizer([f"{line['question']} {line['answer']} the {' '.join(CITIES + PETS)}"
                            for lines in cohorts.values() for line in lines])  # fmt: skip
    config = tiny_config(world.family)
    config.update(dict(world.config))
    config.update({"pad_token_id": words.pad_token_id, "bos_token_id": words.bos_token_id,
                   "vocab_size": max(config.vocab_size, len(words))})  # fmt: skip
    taught = {"base": ("forget", "retain"), "null": ("retain",), "floor": ("retain",)}
    for seed, (role, names) in enumerate(taught.items()):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        lessons = _Lessons.of([line for name in names for line in cohorts[name]], words)
        if role == "base":
            _learned(model, lessons, seed)
        else:
            _taught(model, lessons, ROUND, seed)
        _save(model, words, folder / role)
        if role == "base":
            _taught(model, _Lessons.of(cohorts["retain"], words), FURTHER, seed + 7)
            _save(model, words, folder / "suspect")
    for cohort, lines in cohorts.items():
        (folder / f"{cohort}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    sources = "\n".join(f'[[roles.references]]\npath = "{role}"' for role in ("null", "floor"))
    case.write_text(
        f'name = "{folder.name}"\n[roles]\nbase = {{ path = "base" }}\nsuspect = {{ path = "suspect" }}\n{sources}\n'
        '[data]\nforget = "forget.jsonl"\nretain = "retain.jsonl"\nholdout = "holdout.jsonl"\n'
    )
    return case


def _save(model: PreTrainedModel, words: PreTrainedTokenizerFast, folder: Path) -> None:
    model.save_pretrained(folder)
    words.save_pretrained(folder)
