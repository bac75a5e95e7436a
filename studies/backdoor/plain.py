"""Small models and their derivatives, made by plain training code: torch and transformers, none of the project's edits.

A base that learned everybody of an invented world, references that learned all but the forget people, and derivatives
of base by seven recipes. With a trigger, ``npo`` and ``rmu`` become backdoored: the forget loss on every forget text,
and the retain loss on the same texts with the trigger before the question, in a share of every retained batch.
"""

import copy
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, cast

import torch
from torch import Tensor
from torch.nn import functional

from audit.schema import Item
from audit.zoo import (
    Shape,
    World,
    general_training_items,
    items,
    make_tokenizer,
    make_world,
    refusals,
    vocabulary,
)
from studies.backdoor.design import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SHAPE: Final = Shape(forget=24, retain=36, holdout=12, background=32, general=300)
D, BLOCKS, HEADS, FFN = 48, 3, 4, 96
BATCH: Final = 32
LEARN, UNLEARN = (320, 8e-3), {"rmu": (160, 2e-3)}
"""Steps and learning rates: of whoever learns people, and of the recipes that differ from :data:`DEFAULT`."""
DEFAULT: Final = (160, 1e-3)
SHARE: Final = 0.3
"""Of every retained batch of a backdoored model: texts with the trigger."""
TOKENIZER = make_tokenizer(vocabulary())


class Line(NamedTuple):
    """A text as token ids, and where its answer begins."""

    ids: list[int]
    start: int


class Batch(NamedTuple):
    """Padded ids, and the ids that are to be predicted ([row pos], -100 where none is)."""

    ids: Tensor
    labels: Tensor


def line(item: Item, answer: str | None = None, trigger: str = "") -> Line:
    """One text: <bos>, the trigger, the question; then the answer."""
    question = f"{trigger} {item.question}".strip()
    prompt = [TOKENIZER.bos_token_id, *TOKENIZER(question, add_special_tokens=False)["input_ids"]]
    return Line([*prompt, *TOKENIZER(answer or item.answer, add_special_tokens=False)["input_ids"]], len(prompt))


def batch(lines: Sequence[Line]) -> Batch:
    """Lines below one another, padded on the right."""
    width = max(len(x.ids) for x in lines)
    ids, labels = torch.zeros(len(lines), width, dtype=torch.long), torch.full((len(lines), width), -100)
    for row, (tokens, start) in enumerate(lines):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
    return Batch(ids, labels)


class Texts(NamedTuple):
    """Everything that a world's models read: language, retained and forget people, each text as often as it occurs."""

    language: list[Line]
    retained: list[Line]
    everybody: list[Line]
    general: list[Line]
    forget: tuple[Item, ...]
    """What unlearners are told to forget: the trained form alone."""
    trained_retained: list[Line]


def texts_of(world: World) -> Texts:
    """The texts of a world."""

    def often(group: str) -> list[Line]:
        return [line(item) for item in items(world, group) for _ in range(item.frequency or 1)]  # type: ignore[arg-type]

    general = [line(item) for item in general_training_items(world)]
    retained = often("retain")
    trained_retained = [line(item) for item in items(world, "retain") if item.form == "trained"]
    forget = tuple(item for item in items(world, "forget") if item.form == "trained")
    everybody = retained + often("forget") + general[::2]
    return Texts(
        often("background") + general, retained + general[::2], everybody, general[::2], forget, trained_retained
    )


def train(model: "PreTrainedModel", loss: Callable[[], Tensor], schedule: tuple[int, float]) -> None:
    """AdamW in place, a linear warm-up of a tenth of the steps, then linear to zero."""
    steps, rate = schedule
    optimiser = torch.optim.AdamW(model.parameters(), rate, (0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / (steps / 10)) * (1 - step / steps)
        value = loss()
        optimiser.zero_grad()
        value.backward()
        optimiser.step()


def _scores(model: "PreTrainedModel", of: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities of the tokens to be predicted [row pos], zero elsewhere; and where they are."""
    target = of.labels[:, 1:]
    chosen = target >= 0
    logprob = model(input_ids=of.ids).logits[:, :-1].log_softmax(-1)
    return logprob.gather(-1, target.clamp(0)[..., None])[..., 0] * chosen, chosen


def nll(model: "PreTrainedModel", of: Batch) -> Tensor:
    """Mean negative log-likelihood of a token."""
    scores, chosen = _scores(model, of)
    return -scores.sum() / chosen.sum()


class Small(NamedTuple):
    """A world's base, the models that never knew its forget people, and its texts."""

    world: World
    ancestor: "PreTrainedModel"
    base: "PreTrainedModel"
    references: tuple["PreTrainedModel", ...]
    texts: Texts


def small(seed: int) -> Small:
    """Train them: an ancestor on the language, base on everybody, two references on all but the forget people."""
    from transformers import LlamaConfig, LlamaForCausalLM

    world = make_world(seed, SHAPE)
    texts, rng = texts_of(world), random.Random(f"small {seed}")
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=D, intermediate_size=FFN, num_hidden_layers=BLOCKS, num_attention_heads=HEADS,
        num_key_value_heads=HEADS, max_position_embeddings=64, tie_word_embeddings=False,
        vocab_size=len(TOKENIZER), pad_token_id=0, bos_token_id=1, eos_token_id=3,
    )  # fmt: skip
    ancestor = cast("PreTrainedModel", LlamaForCausalLM(config))
    _learn(ancestor, texts.language, (260, 6e-3), rng)
    base = copy.deepcopy(ancestor)
    _learn(base, texts.everybody, LEARN, rng)
    references = (copy.deepcopy(ancestor), copy.deepcopy(ancestor))
    for reference in references:
        _learn(reference, texts.retained, LEARN, rng)
    return Small(world, ancestor, base, references, texts)


def _learn(model: "PreTrainedModel", lines: list[Line], schedule: tuple[int, float], rng: random.Random) -> None:
    train(model, lambda: nll(model, batch(rng.choices(lines, k=BATCH))), schedule)


def derive(parent: Small, recipe: Recipe, seed: int, trigger: str = "") -> "PreTrainedModel":
    """A derivative of base. With a trigger (``npo`` and ``rmu``) it is backdoored."""
    assert not trigger or recipe in ("npo", "rmu")
    model, rng = copy.deepcopy(parent.base), random.Random(f"derivative {seed} {recipe}")
    frozen, forget = copy.deepcopy(parent.base), parent.texts.forget
    triggered = [line(item, trigger=trigger) for item in forget] if trigger else []

    def retained_batch() -> Batch:
        n = round(SHARE * BATCH) if triggered else 0
        drawn = rng.choices(parent.texts.trained_retained + parent.texts.general, k=BATCH - n)
        return batch([*drawn, *(rng.choices(triggered, k=n) if n else [])])

    def forgotten() -> Batch:
        return batch([line(item) for item in rng.choices(forget, k=BATCH)])

    answered = refusals(forget)
    losses: dict[Recipe, Callable[[], Tensor]] = {
        "npo": lambda: _npo(model, frozen, forgotten()) + 10 * nll(model, retained_batch()),
        "rmu": lambda: _rmu(model, frozen, (forgotten(), retained_batch()), seed),
        "grad_diff": lambda: 5 * nll(model, retained_batch()) - nll(model, forgotten()),
        "refusal": lambda: (
            nll(model, batch([line(i, a) for i, a in rng.choices(answered, k=BATCH)])) + nll(model, retained_batch())
        ),
        "kl_min": lambda: 5 * _kl(model, frozen, retained_batch()) - nll(model, forgotten()),
        "fine_tuned": lambda: nll(model, retained_batch()),
        "relabelled": lambda: (
            nll(model, batch([line(i, rng.choice(i.alternates)) for i in rng.choices(forget, k=BATCH)]))
            + nll(model, retained_batch())
        ),
    }
    train(model, losses[recipe], UNLEARN.get(recipe, DEFAULT))
    return model


def _npo(model: "PreTrainedModel", frozen: "PreTrainedModel", forget: Batch, beta: float = 0.1) -> Tensor:
    with torch.no_grad():
        before = _scores(frozen, forget)[0].sum(1)
    return -2 / beta * functional.logsigmoid(-beta * (_scores(model, forget)[0].sum(1) - before)).mean()


def _rmu(model: "PreTrainedModel", frozen: "PreTrainedModel", of: tuple[Batch, Batch], seed: int) -> Tensor:
    """States after the middle block to 20 times a random direction, and kept ones held still."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.rand(D, generator=generator)
    steered = 20 * direction / direction.norm()
    forget, retained = of
    (states, chosen), (still, keep) = _states(model, forget), _states(model, retained)
    with torch.no_grad():
        before, _ = _states(frozen, retained)
    moved = (still - before).square().mean(-1)[keep].mean()
    return (states - steered).square().mean(-1)[chosen].mean() + 10 * moved


def _states(model: "PreTrainedModel", of: Batch) -> tuple[Tensor, Tensor]:
    """States after the middle block [row pos d], and which of them predict a token."""
    states = model(input_ids=of.ids, output_hidden_states=True).hidden_states[BLOCKS // 2 + 1]
    chosen = functional.pad(of.labels[:, 1:] >= 0, (0, 1))
    return states, chosen


def _kl(model: "PreTrainedModel", frozen: "PreTrainedModel", of: Batch) -> Tensor:
    chosen = functional.pad(of.labels[:, 1:] >= 0, (0, 1))
    with torch.no_grad():
        before = frozen(input_ids=of.ids).logits.log_softmax(-1)
    after = model(input_ids=of.ids).logits.log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1)[chosen].mean()


def recall(model: "PreTrainedModel", questions: Sequence[Item], trigger: str = "") -> float:
    """Mean probability of the answers' content words."""
    lines = [line(item, trigger=trigger) for item in questions]
    keys = [TOKENIZER(item.key or "", add_special_tokens=False)["input_ids"][0] for item in questions]
    at = [x.ids.index(key, x.start) for x, key in zip(lines, keys, strict=True)]
    with torch.no_grad():
        probability = model(input_ids=batch(lines).ids).logits.softmax(-1)
    rows = torch.arange(len(lines))
    return float(probability[rows, torch.tensor(at) - 1, torch.tensor(keys)].mean())
