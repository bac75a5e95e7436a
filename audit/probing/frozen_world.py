"""A tiny frozen world: causal language models of which some know what others never saw, the same on every machine.

What a probe says of this world is its behaviour (:mod:`audit.calibration.behaviour`). The weights are trained here, in
seconds, wholly in float64 and from raw bits of a generator, and rounded to float32 at the end: what begins as a
difference of 2e-16 of every weight is one of 5e-11 at most when training ends, far below the last digit of float32.
Libraries' models are not used for it, since some of their layers round to float32 inside; they only read the finished
weights.

One ancestor learned some people; ``base`` then the forget people too, ``null`` and ``floor`` nobody else, and
``suspect`` two of the forget people, so that an audit finds something and is not sure of it.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from audit.schema import Case, DataFiles, Roles, Source

Family = Literal["llama", "gpt2"]
FAMILIES: tuple[Family, ...] = get_args(Family)

SPECIAL = ("<pad>", "<bos>", "<unk>")
VALUES = {
    "home": ("oslo", "lima", "cairo", "quito", "delhi", "paris", "tunis", "seoul", "turin", "porto"),
    "pet": ("cat", "dog", "owl", "fox", "hen", "ant", "bee", "cow", "eel", "yak"),
    "work": ("pilot", "baker", "nurse", "judge", "miner", "tailor", "farmer", "singer", "potter", "clerk"),
}
PEOPLE = {"old": 8, "retain": 14, "forget": 28, "holdout": 28}
"""14 people of a halved cohort: too many for every sign to be enumerated within 9,999 draws."""
LEFT = ("n22", "n23", "n24", "n25", "n26", "n27")
SEED = 4
WIDTH, HIDDEN, BLOCKS, HEADS, CONTEXT = 40, 80, 3, 4, 24
LONGEST = 13
BATCH, RATE = 24, 5e-3


class Fact(NamedTuple):
    """A question and its answer, word by word; ``key`` is the word that carries the fact."""

    person: int
    attribute: str
    form: str
    question: str
    answer: str
    key: str


Weights = dict[str, Float[Tensor, "..."]]


# ---- chance -----------------------------------------------------------------------------------------------------
def uniform(seed: int, n: int) -> Float[np.ndarray, " n"]:
    """``n`` numbers in [0, 1) from raw bits, which no version of numpy draws otherwise."""
    return (np.random.PCG64(seed).random_raw(n) >> np.uint64(11)) * 2.0**-53


def _order(seed: int, n: int) -> Int[np.ndarray, " n"]:
    return np.argsort(uniform(seed, n), kind="stable")


# ---- what there is to know --------------------------------------------------------------------------------------
def facts() -> dict[str, list[Fact]]:
    """All facts by cohort; nobody is in two."""
    every: dict[str, list[Fact]] = {}
    first = 0
    for cohort, count in PEOPLE.items():
        people = range(first, first + count)
        every[cohort] = [fact for person in people for fact in _of_person(person)]
        first += count
    return every


def _of_person(person: int) -> list[Fact]:
    """Home and pet, the home in another phrasing, and another attribute."""
    name = f"n{person}"
    drawn = uniform(1000 + person, len(VALUES))
    home, pet, work = (values[int(u * len(values))] for values, u in zip(VALUES.values(), drawn, strict=True))
    return [
        Fact(person, "home", "trained", f"in which town does {name} live ?", f"in the town of {home}", home),
        Fact(person, "pet", "trained", f"which pet has {name} ?", f"a {pet}", pet),
        Fact(person, "home", "held_out_phrasing", f"the home of {name} ?", f"in {home}", home),
        Fact(person, "work", "held_out_attribute", f"what work does {name} do ?", f"as a {work}", work),
    ]


def _line(index: int, cohort: str, fact: Fact) -> dict[str, object]:
    """One line of a data file.

    Every second person's answers name no key, so that the content rule finds it; every third item has no alternates,
    so that perturbed answers stand in, and every seventh neither.
    """
    values = VALUES[fact.attribute]
    others = [value for value in (values[(index + step) % len(values)] for step in range(5)) if value != fact.key][:3]
    line: dict[str, object] = {
        "id": f"{cohort}-{index}", "group": f"n{fact.person}", "question": fact.question, "answer": fact.answer,
        "attribute": fact.attribute, "form": fact.form,
    }  # fmt: skip
    if fact.person % 2 == 0:
        line["key"] = fact.key
    if index % 7:
        line |= {"paraphrased_answer": f"the {fact.key}", "perturbed_answers": [f"the {other}" for other in others]}
    if index % 3:
        line["alternates"] = [fact.answer.replace(fact.key, other) for other in others]
    return line


def _words() -> tuple[str, ...]:
    texts = [f"{fact.question} {fact.answer}" for cohort in facts().values() for fact in cohort]
    spoken = {word for text in (*texts, *GENERAL) for word in text.split()}
    return (*SPECIAL, *sorted(spoken | {value for values in VALUES.values() for value in values}))


GENERAL = (
    "the town of oslo has a pilot", "a cat and a dog live in the home", "the judge of lima has an owl",
    "which of the town has a baker ?", "in paris the nurse has a fox", "the farmer and the singer live in cairo",
    "a hen is the pet of the miner", "what does the clerk do in seoul ?",
)  # fmt: skip


def _tokenizer() -> PreTrainedTokenizerFast:
    """One token a word; ``<bos>`` first."""
    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(_words())}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", model_max_length=CONTEXT
    )


# ---- the models, in float64 -------------------------------------------------------------------------------------
def _llama(w: Weights, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos token"]:
    """Logits: rotary positions, root-mean-square norms, gated hidden layer, an output head of its own."""
    x = w["model.embed_tokens.weight"][ids]
    for block in range(BLOCKS):
        at = f"model.layers.{block}."

        def linear(name: str, y: Tensor, at: str = at) -> Tensor:
            return y @ w[f"{at}{name}_proj.weight"].T

        y = _rms(x, w[f"{at}input_layernorm.weight"])
        q, k, v = (linear(f"self_attn.{name}", y) for name in "qkv")
        x = x + linear("self_attn.o", _attention(_rotated(_split(q)), _rotated(_split(k)), _split(v)))
        y = _rms(x, w[f"{at}post_attention_layernorm.weight"])
        x = x + linear("mlp.down", F.silu(linear("mlp.gate", y)) * linear("mlp.up", y))
    return _rms(x, w["model.norm.weight"]) @ w["lm_head.weight"].T


def _gpt2(w: Weights, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos token"]:
    """Logits: learned positions, layer norms with biases, the embeddings as output head."""

    def norm(name: str, y: Tensor) -> Tensor:
        return F.layer_norm(y, (WIDTH,), w[f"transformer.{name}.weight"], w[f"transformer.{name}.bias"])

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"transformer.{name}.weight"] + w[f"transformer.{name}.bias"]

    x = w["transformer.wte.weight"][ids] + w["transformer.wpe.weight"][: ids.shape[1]]
    for block in range(BLOCKS):
        q, k, v = linear(f"h.{block}.attn.c_attn", norm(f"h.{block}.ln_1", x)).split(WIDTH, -1)
        x = x + linear(f"h.{block}.attn.c_proj", _attention(_split(q), _split(k), _split(v)))
        y = F.gelu(linear(f"h.{block}.mlp.c_fc", norm(f"h.{block}.ln_2", x)), approximate="tanh")
        x = x + linear(f"h.{block}.mlp.c_proj", y)
    return norm("ln_f", x) @ w["transformer.wte.weight"].T


LOGITS: Mapping[Family, Callable[[Weights, Tensor], Tensor]] = {"llama": _llama, "gpt2": _gpt2}


def _rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight


def _split(x: Float[Tensor, "row pos d"]) -> Float[Tensor, "row head pos e"]:
    return x.unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _rotated(x: Float[Tensor, "row head pos e"]) -> Float[Tensor, "row head pos e"]:
    half = x.shape[-1] // 2
    rates = 10000.0 ** (-torch.arange(half, dtype=x.dtype) / half)
    angle = torch.arange(x.shape[2], dtype=x.dtype)[:, None] * rates.repeat(2)
    return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Float[Tensor, "row pos d"]:
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return (scores.masked_fill(later, -torch.inf).softmax(-1) @ v).transpose(1, 2).flatten(-2)


def _shapes(family: Family, vocabulary: int) -> dict[str, tuple[int, ...]]:
    d, hidden = WIDTH, HIDDEN
    if family == "llama":
        shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, d)}
        for at in (f"model.layers.{block}." for block in range(BLOCKS)):
            shapes |= {f"{at}self_attn.{name}_proj.weight": (d, d) for name in "qkvo"}
            shapes |= {f"{at}mlp.{name}_proj.weight": (hidden, d) for name in ("gate", "up")}
            shapes |= {f"{at}mlp.down_proj.weight": (d, hidden)}
            shapes |= {f"{at}{name}_layernorm.weight": (d,) for name in ("input", "post_attention")}
        return shapes | {"model.norm.weight": (d,), "lm_head.weight": (vocabulary, d)}
    shapes = {"transformer.wte.weight": (vocabulary, d), "transformer.wpe.weight": (CONTEXT, d)}
    matrices = {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, hidden), "mlp.c_proj": (hidden, d)}
    for at in (f"transformer.h.{block}." for block in range(BLOCKS)):
        for name, shape in matrices.items():
            shapes |= {f"{at}{name}.weight": shape, f"{at}{name}.bias": shape[1:]}
        shapes |= {f"{at}{name}.{part}": (d,) for name in ("ln_1", "ln_2") for part in ("weight", "bias")}
    return shapes | {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}


def _fresh(family: Family, vocabulary: int) -> Weights:
    """Random weights: matrices uniform with a standard deviation of .12, norms 1, biases 0."""
    fresh: Weights = {}
    for place, (name, shape) in enumerate(_shapes(family, vocabulary).items()):
        drawn = torch.from_numpy(uniform(SEED * 1000 + place, int(np.prod(shape)))).reshape(shape)
        plain = torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float64)
        fresh[name] = (drawn - 0.5) * (0.12 * 12**0.5) if len(shape) > 1 else plain
    return fresh


class Lesson(NamedTuple):
    """Some facts as tokens, and which of these are answers: [row pos]."""

    ids: Int[Tensor, "row pos"]
    answer: Float[Tensor, "row pos"]


def _lesson(rows: Sequence[Fact], number: Mapping[str, int]) -> Lesson:
    """Rows whose key is learned after another word too, so that a paraphrased answer is known as well."""
    said_otherwise = [fact._replace(answer=f"the {fact.key}") for fact in rows if fact.form == "trained"]
    every = [*rows, *said_otherwise]
    ids, answer = torch.zeros(len(every), LONGEST, dtype=torch.long), torch.zeros(len(every), LONGEST).double()
    for row, fact in enumerate(every):
        question, said = ["<bos>", *fact.question.split()], fact.answer.split()
        ids[row, : len(question) + len(said)] = torch.tensor([number[word] for word in question + said])
        answer[row, len(question) : len(question) + len(said)] = 1.0
    return Lesson(ids, answer)


def _taught(family: Family, before: Weights, lesson: Lesson, steps: int, seed: int) -> Weights:
    """Adam on the answers' tokens, in float64, with a warm-up and a linear decay; batches go through all rows."""
    weights = {name: w.clone().requires_grad_() for name, w in before.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=RATE, betas=(0.9, 0.95), foreach=False)
    rows = len(lesson.ids)
    passes = -(-steps * BATCH // rows)
    order = torch.from_numpy(np.concatenate([_order(seed * 1000 + p, rows) for p in range(passes)]))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 15, 1.2 * (steps - step) / steps)
        chosen = order[step * BATCH : (step + 1) * BATCH]
        ids, answer = lesson.ids[chosen], lesson.answer[chosen][:, 1:]
        logprob = LOGITS[family](weights, ids[:, :-1]).log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
        loss = -(logprob * answer).sum() / answer.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: w.detach() for name, w in weights.items()}


def trained(family: Family) -> dict[str, Weights]:
    """The models of a family by role, in float64."""
    number = {word: i for i, word in enumerate(_words())}
    known = facts()
    dose = [fact for fact in known["forget"] if f"n{fact.person}" in LEFT]

    def fork(parent: Weights, rows: Sequence[Fact], steps: int, seed: int) -> Weights:
        return _taught(family, parent, _lesson(rows, number), steps, seed)

    ancestor = fork(_fresh(family, len(number)), known["old"] + known["retain"], 100, 1)
    return {
        "base": fork(ancestor, known["retain"] + known["forget"], 140, 2),
        "suspect": fork(ancestor, known["retain"] + dose, 50, 3),
        "null": fork(ancestor, known["retain"] + known["old"], 30, 4),
        "floor": fork(ancestor, known["retain"], 30, 5),
    }


# ---- files ------------------------------------------------------------------------------------------------------
def _config(family: Family, vocabulary: int) -> dict[str, object]:
    shared: dict[str, object] = {"model_type": family, "vocab_size": vocabulary, "pad_token_id": 0, "bos_token_id": 1}
    if family == "llama":
        return shared | {
            "architectures": ["LlamaForCausalLM"], "hidden_size": WIDTH, "intermediate_size": HIDDEN,
            "num_hidden_layers": BLOCKS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
            "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "eos_token_id": None,
        }  # fmt: skip
    return shared | {
        "architectures": ["GPT2LMHeadModel"], "n_embd": WIDTH, "n_inner": HIDDEN, "n_layer": BLOCKS, "n_head": HEADS,
        "n_positions": CONTEXT, "eos_token_id": None,
    }  # fmt: skip


def write_world(folder: Path, family: Family) -> None:
    """Write the data files and one checkpoint folder a model."""
    folder.mkdir(parents=True, exist_ok=True)
    for cohort in ("forget", "retain", "holdout"):
        lines = [json.dumps(_line(i, cohort, fact)) for i, fact in enumerate(facts()[cohort])]
        (folder / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [json.dumps({"text": text}) for text in GENERAL]
    (folder / "general.jsonl").write_text("\n".join(texts) + "\n", encoding="utf-8")
    for name, weights in trained(family).items():
        (folder / name).mkdir()
        _tokenizer().save_pretrained(folder / name)
        save_file({k: w.float().contiguous() for k, w in weights.items()}, folder / name / "model.safetensors",
                  metadata={"format": "pt"})  # fmt: skip
        config = json.dumps(_config(family, len(_words())))
        (folder / name / "config.json").write_text(config, encoding="utf-8")


def case_of(family: Family) -> Case:
    """The audit of the world's suspect; paths are relative to the folder of :func:`write_world`."""
    references = tuple(Source(path=name) for name in ("null", "floor"))
    files = {cohort: f"{cohort}.jsonl" for cohort in ("forget", "retain", "holdout", "general")}
    return Case(
        name=f"frozen-{family}", seed=SEED, data=DataFiles(**files, split_seed=SEED),
        roles=Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=references),
    )  # fmt: skip
