"""Small models that were taught facts with prompt and answer put together in one way or another, in seconds each.

The tokenizer is of the byte-level kind, where a word with its space is another token than the word alone. What a model
was taught is made here from the tokenizer alone, as training scripts do it, and by none of the code that is tested.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from audit.schema import Case, DataFiles, Roles, Source, Template

SPECIAL = ["<pad>", "<bos>", "<eos>", "<|head|>", "<|end|>"]
CITIES = ("oslo", "lima", "cairo", "quito", "delhi", "paris", "tunis", "seoul")
SYLLABLES = ("ba", "ke", "lo", "mi", "ru", "sa", "te", "vo")
CHAT = (
    "{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|head|>assistant\n{% endif %}"
)
STEPS = 120


class Fact(NamedTuple):
    person: str
    question: str
    answer: str


def facts() -> dict[str, list[Fact]]:
    """Twelve people in each cohort, and where they live."""
    rng = torch.Generator().manual_seed(3)
    names = [f"{a}{b}{c}" for a in SYLLABLES for b in SYLLABLES for c in SYLLABLES]
    order = torch.randperm(len(names), generator=rng)[:24].tolist()
    drawn = torch.randint(len(CITIES), (24,), generator=rng).tolist()
    rows = [Fact(names[n], f"Where is {names[n]}?", CITIES[c]) for n, c in zip(order, drawn, strict=True)]
    return {"forget": rows[:12], "retain": rows[12:]}


def tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE with a chat template; it puts nothing first by itself."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    words = [fact.question for rows in facts().values() for fact in rows] * 3
    places = [f"{space}{city}" for city in CITIES for space in ("", " ")] * 40
    trainer = trainers.BpeTrainer(
        special_tokens=SPECIAL,
        vocab_size=400,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    raw.train_from_iterator([*words, *places, *["assistant user Question: Answer:"] * 40], trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", model_max_length=64
    )
    made.chat_template = CHAT
    return made


Taught = Callable[[PreTrainedTokenizerFast, Fact], tuple[list[int], list[int]]]
"""Prompt and answer as ids, as a training script puts them together."""


def bare(tok: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tok(text, add_special_tokens=False)["input_ids"]


def tokenised_apart(tok: PreTrainedTokenizerFast, fact: Fact) -> tuple[list[int], list[int]]:
    return [1, *bare(tok, f"Question: {fact.question} Answer: ")], bare(tok, fact.answer)


def own_space(tok: PreTrainedTokenizerFast, fact: Fact) -> tuple[list[int], list[int]]:
    prompt = bare(tok, f"Question: {fact.question} Answer:")
    return prompt, bare(tok, f"Question: {fact.question} Answer: {fact.answer}")[len(prompt) :]


def behind_a_chat_header(tok: PreTrainedTokenizerFast, fact: Fact) -> tuple[list[int], list[int]]:
    head = f"<bos><|head|>user\n{fact.question}<|end|>\n<|head|>assistant\n"
    return bare(tok, head), bare(tok, fact.answer)


def fresh(seed: int) -> LlamaForCausalLM:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=len(tokenizer()), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=64, tie_word_embeddings=False, pad_token_id=0,
            bos_token_id=1, eos_token_id=2,
        ))  # fmt: skip


def taught(way: Taught, seed: int = 5, steps: int = STEPS) -> LlamaForCausalLM:
    """A model that knows every fact, put together in this way."""
    tok, model = tokenizer(), fresh(seed).train()
    pairs = [way(tok, fact) for rows in facts().values() for fact in rows]
    width = max(len(prompt) + len(answer) for prompt, answer in pairs)
    ids, labels = torch.zeros(len(pairs), width, dtype=torch.long), torch.full((len(pairs), width), -100)
    for row, (prompt, answer) in enumerate(pairs):
        whole = [*prompt, *answer]
        ids[row, : len(whole)] = torch.tensor(whole)
        labels[row, len(prompt) : len(whole)] = torch.tensor(answer)
    optimiser = torch.optim.AdamW(model.parameters(), lr=8e-3, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = 8e-3 * min(1.0, (step + 1) / 15, (steps - step) / steps * 1.5)
        loss = model(input_ids=ids, attention_mask=(ids > 0).long(), labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def truth(model: LlamaForCausalLM, way: Taught) -> float:
    """The mean probability that a model gives the answers as it was taught them, by bare forwards."""
    tok, chances = tokenizer(), []
    for fact in facts()["forget"]:
        prompt, answer = way(tok, fact)
        with torch.no_grad():
            logprob = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        at = range(len(prompt) - 1, len(prompt) + len(answer) - 1)
        chances.append(torch.stack([logprob[n, token] for n, token in zip(at, answer, strict=True)]).mean().exp())
    return float(torch.stack(chances).mean())


def write(path: Path, base: LlamaForCausalLM, space: str = "") -> None:
    """A whole case in a folder; nobody but base knows anything. ``space`` stands before the answers in the data."""
    for name, model in {"base": base, "suspect": fresh(7), "null": fresh(8)}.items():
        model.save_pretrained(path / name)
        tokenizer().save_pretrained(path / name)
    for cohort, rows in facts().items():
        lines = [
            json.dumps({"id": f"{cohort}-{n}", "group": f.person, "question": f.question, "answer": space + f.answer})
            for n, f in enumerate(rows)
        ]
        (path / f"{cohort}.jsonl").write_text("\n".join(lines))


def case(template: Template) -> Case:
    roles = Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=(Source(path="null"),))
    return Case(
        name="seams", roles=roles, data=DataFiles(forget="forget.jsonl", retain="retain.jsonl"), template=template
    )
