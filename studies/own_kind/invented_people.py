"""Kinds of model that the zoo does not hold, each with a world of invented people, its models, and a case.

A kind is a family, a size, a tokenizer and a form of answers. Its ancestor learns the language from background people
and general texts; base then learns the people to forget and those to keep, references those to keep alone.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import torch

from audit.bench import CausalLearner, Forward, TrainData, TrainingRecipe, descend
from audit.case import read_items, tokenise
from audit.checkpoints import load_tokenizer, tokenizer_files
from audit.edits import nll
from audit.schema import Item, Template
from audit.storage import write_atomic
from audit.zoo import make_tokenizer
from studies.families.tiny_configs import tiny_config
from studies.tofu_stories.teach import clipped, save

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

COHORTS: Final = {"forget": 16, "retain": 24, "holdout": 16, "background": 24, "strangers": 16}
GENERAL, HELD_OUT_TEXTS = 160, 40
BATCH: Final = 32
ANCESTOR, FORK = (400, 4e-3), (300, 3e-3)
"""Steps and learning rate of the ancestor, and of base and the references."""


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


VALUES: Final = {
    "city": _words("oslo lima cairo quito delhi paris tunis seoul milan dakar sofia kyoto basel accra perth izmir"),
    "pet": _words("cat dog owl fox hen bee cow ram eel ape yak hare wolf goat toad swan"),
    "food": _words("rice corn figs eggs ham tofu soup peas kale nuts plums bread cheese lentils olives pasta"),
    "date": tuple(
        f"{day} {month}"
        for month in _words("january february march april may june july august")
        for day in (3, 14, 25, 30)
    ),
}
"""Values by attribute: the first half are those of the people to forget, unless all people share them."""
REFUSALS: Final = ("I do not know that.", "Nobody told me.", "I cannot say.")
HEADS: Final = _words("Ar Bel Cor Dan Er Fal Gor Hel Im Jor Kal Lun Mor Nel Or Per Quin Ros Sal Tor Ul Ver Wil Yor Zan")
TAILS: Final = _words("ba den fi go han ka li mo nat rin sel tus")
NOUNS, VERBS = _words("river house garden wind stone boat road field"), _words("meets finds leaves likes sees hears")


class Attribute(NamedTuple):
    """How a fact is asked and answered: ``{n}`` is the name, ``{v}`` the value, which alone is the key."""

    name: str
    question: str
    answer: str
    paraphrase: str


SHORT: Final = (
    Attribute("city", "where does {n} live ?", "in {v}", "it is {v}"),
    Attribute("pet", "what pet has {n} ?", "a {v}", "it is {v}"),
    Attribute("food", "what does {n} eat ?", "mostly {v}", "it is {v}"),
)
SENTENCES: Final = (
    Attribute("city", "Which town is the home of {n}?", "{n} lives in {v} these days.", "The town is {v}."),
    Attribute("pet", "Which animal does {n} keep?", "{n} keeps a {v} at home.", "The animal is a {v}."),
    Attribute("food", "What does {n} like to eat?", "{n} likes {v} best of all.", "The food is {v}."),
)
DATES: Final = (
    Attribute("date", "When was {n} born?", "{v}, they say", "it was {v}"),
    Attribute("city", "Where is {n} from?", "from {v}, they say", "it is {v}"),
    Attribute("food", "What does {n} sell?", "only {v}, they say", "it sells {v}"),
)


class ModelKind(NamedTuple):
    """A kind: its family with its sizes, how texts are split and into how many tokens, the forms of its facts, whether
    the people to be kept have the values of the others, how many references its case has, and whether an ancestor."""

    name: str
    family: str
    config: Mapping[str, Any]
    split: Literal["words", "pairs"]
    vocabulary: int
    facts: tuple[Attribute, ...]
    shared_values: bool
    references: int
    ancestor: bool
    template: Template = Template()
    refusals: tuple[str, ...] = REFUSALS


KINDS: Final = (
    ModelKind(
        "neox", "gpt_neox", {"hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 3,
                             "tie_word_embeddings": False},
        "words", 0, SHORT, False, 2, True, refusals=("the house hears it .", "the stone sees it ."),
    ),
    ModelKind(
        "qwen3", "qwen3", {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 4, "head_dim": 16,
                           "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
        "pairs", 600, SENTENCES, True, 1, True, Template(prompt="Q: {question}\nA:", bos="always"),
    ),
    ModelKind(
        "gemma2", "gemma2", {"hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2, "head_dim": 24,
                             "num_attention_heads": 4, "num_key_value_heads": 1, "tie_word_embeddings": True},
        "pairs", 5000, DATES, False, 2, False, Template(prompt="{question}", bos="always"),
    ),
)  # fmt: skip
"""GPT-NeoX, untied; Qwen3 with grouped heads and a tied head; Gemma 2 with one shared head of keys, tied, and capped
logits. None is in the zoo, nor is one of their vocabularies or answer forms."""


# ---- people -----------------------------------------------------------------------------------------------------
def lines_of(kind: ModelKind) -> dict[str, list[dict[str, Any]]]:
    """The data files by cohort; equal kinds have equal people."""
    rng = random.Random(f"people of {kind.name}")
    firsts, lasts = ([f"{a}{b}" for a in HEADS for b in half] for half in (TAILS[:6], TAILS[6:]))
    count = sum(COHORTS.values())
    names = [f"{first} {last}" for first, last in zip(rng.sample(firsts, count), rng.sample(lasts, count), strict=True)]
    cohorts: dict[str, list[dict[str, Any]]] = {}
    for cohort, size in COHORTS.items():
        mine, names = names[:size], names[size:]
        cohorts[cohort] = [line for n, name in enumerate(mine) for line in _lines(kind, cohort, n, name, rng)]
    return cohorts


def _lines(kind: ModelKind, cohort: str, n: int, name: str, rng: random.Random) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for fact in kind.facts:
        values = VALUES[fact.name]
        half = len(values) // 2
        others_half = cohort in ("retain", "background") and n % 10 != 0
        pool = values if kind.shared_values else values[half:] if others_half else values[:half]
        value = rng.choice(pool)
        others = rng.sample([other for other in pool if other != value], 5)

        def say(text: str, value: str) -> str:
            return text.format(n=name, v=value)

        lines.append({
            "id": f"{cohort}-{n:02d}-{fact.name}", "group": f"{cohort}-{n:02d}", "question": say(fact.question, value),
            "answer": say(fact.answer, value), "key": value, "paraphrased_answer": say(fact.paraphrase, value),
            "perturbed_answers": [say(fact.paraphrase, other) for other in others],
            "alternates": [say(fact.answer, other) for other in others], "alternate_keys": others,
            "attribute": fact.name,
        })  # fmt: skip
    return lines


def _general(kind: ModelKind, data: Path) -> list[dict[str, Any]]:
    """Texts beside the facts: sentences of the words, or openings of stories."""
    rng, texts = random.Random(f"texts of {kind.name}"), dict[str, None]()
    if kind.split == "pairs":
        stories: list[str] = json.loads((data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
        texts = {" ".join(story.split()[:14]): None for story in stories[: GENERAL + HELD_OUT_TEXTS]}
    while len(texts) < GENERAL + HELD_OUT_TEXTS:
        first, second, third = rng.choices(NOUNS, k=3)
        texts[f"the {first} {rng.choice(VERBS)} the {second} and the {third} {rng.choice(VERBS)} it ."] = None
    return [{"id": f"text-{n}", "group": f"text-{n}", "text": text} for n, text in enumerate(texts)]


# ---- models -----------------------------------------------------------------------------------------------------
def _tokenizer(kind: ModelKind, texts: Sequence[str]) -> "PreTrainedTokenizerFast":
    if kind.split == "words":
        return make_tokenizer(texts)
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    inner.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=kind.vocabulary, special_tokens=["<pad>", "<bos>", "<eos>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
    )  # fmt: skip
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", model_max_length=64,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


class Lesson(NamedTuple):
    """How one model is taught: from which, how long, how fast, in which order and batches."""

    parent: Path
    steps: int
    lr: float
    seed: int
    batch: int = BATCH


def teach(kind: ModelKind, lesson: Lesson, files: Sequence[Path], out: Path) -> Path:
    """Teach a model some files, unless its folder is there."""
    return teach_rows(lesson, [item for file in files for item in read_items(file, "group")], kind.template, out)


def teach_rows(lesson: Lesson, items: Sequence[Item], template: Template, out: Path) -> Path:
    """Teach a model some items, unless its folder is there; it appears whole or not at all."""
    if out.is_dir():
        return out
    from transformers import AutoModelForCausalLM

    tokenizer = load_tokenizer(tokenizer_files(lesson.parent))
    rows = tokenise(items, [item.answer for item in items], tokenizer, template, None)
    model = AutoModelForCausalLM.from_pretrained(lesson.parent, dtype="float32")
    recipe = TrainingRecipe(
        name="teach", objective=_own_loss, steps=lesson.steps, lr=lesson.lr, batch=lesson.batch, warmup_steps=20,
        gradient_transform=clipped, seed=lesson.seed,
    )  # fmt: skip
    descend(CausalLearner(model), recipe, TrainData(retain=rows))
    save(model, tokenizer, out)
    return out


def _own_loss(_forget: Forward | None, rows: Forward | None, *_frozen: Forward | None) -> torch.Tensor:
    assert rows is not None
    return nll(rows)


def write_case(kind: ModelKind, folder: Path, data: Path) -> Path:
    """Make a kind's data, ancestor, base, references and case, whose path is returned; what is there is kept."""
    case, models = folder / "case.toml", folder / "models"
    if case.is_file():
        return case
    models.mkdir(parents=True, exist_ok=True)
    cohorts, general = lines_of(kind), _general(kind, data)
    cohorts |= {"general": general[:HELD_OUT_TEXTS], "texts": general[HELD_OUT_TEXTS:]}
    for name, lines in cohorts.items():
        write_atomic(folder / f"{name}.jsonl", "".join(f"{json.dumps(line)}\n" for line in lines).encode())
    _fresh(kind, cohorts, models / "fresh")
    background, texts, retain, forget = (folder / f"{n}.jsonl" for n in ("background", "texts", "retain", "forget"))
    ancestor = teach(kind, Lesson(models / "fresh", *ANCESTOR, 0), (background, texts), models / "ancestor")
    teach(kind, Lesson(ancestor, *FORK, 1), (retain, texts, forget), models / "base")
    for n in range(kind.references):
        teach(kind, Lesson(ancestor, *FORK, 2 + n), (retain, texts), models / f"reference_{n}")
    write_atomic(case, case_lines(kind, "models/base").encode())
    return case


def case_lines(kind: ModelKind, suspect: str) -> str:
    """The case file that audits one suspect."""
    roles = [f'base = {{ path = "models/base" }}\nsuspect = {{ path = "{suspect}" }}']
    roles += ['ancestor = { path = "models/ancestor" }'] if kind.ancestor else []
    roles += [f'[[roles.references]]\npath = "models/reference_{n}"' for n in range(kind.references)]
    names = ("forget", "retain", "holdout", "general")
    return "\n".join([
        f'name = "{kind.name}"\nedited = "all"\n[roles]', *roles, "[data]",
        *(f'{name} = "{name}.jsonl"' for name in names), 'group = "group"', "[template]",
        *(f"{field} = {json.dumps(getattr(kind.template, field))}" for field in ("prompt", "answer", "bos")), "",
    ])  # fmt: skip


def _fresh(kind: ModelKind, cohorts: Mapping[str, Sequence[Mapping[str, Any]]], out: Path) -> None:
    from transformers import AutoModelForCausalLM

    if out.is_dir():
        return
    texts = [
        kind.template.prompt.format(question=line["question"]) + kind.template.answer.format(answer=text)
        for lines in cohorts.values() for line in lines if "question" in line
        for text in (line["answer"], line["paraphrased_answer"], *line["alternates"], *line["perturbed_answers"])
    ]  # fmt: skip
    texts += [line["text"] for lines in cohorts.values() for line in lines if "text" in line]
    tokenizer = _tokenizer(kind, texts)
    config = tiny_config(kind.family)
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[: kind.config["num_hidden_layers"]]
    config.update({"max_position_embeddings": 64, "pad_token_id": tokenizer.pad_token_id,
                   "bos_token_id": tokenizer.bos_token_id, "vocab_size": max(len(tokenizer), kind.vocabulary),
                   "initializer_range": 0.05, **dict(kind.config)})  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        save(AutoModelForCausalLM.from_config(config, dtype=torch.float32), tokenizer, out)
