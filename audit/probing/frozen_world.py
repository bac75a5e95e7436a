"""A tiny frozen world: causal language models of which some know what others never saw, the same on every machine.

What a probe says of this world is its behaviour (:mod:`audit.calibration.behaviour`). The weights are trained where
they are needed, in seconds, and come out alike on every machine (:mod:`audit.probing.frozen_models`).

One ancestor learned some people; ``base`` then the forget people too, ``null`` and ``floor`` nobody else, and
``suspect`` a few of the forget people, so that an audit finds something and is not sure of it.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from audit.probing.frozen_models import CONTEXT, Family, Lesson, Weights, config, fresh, taught, uniform
from audit.schema import Case, DataFiles, Roles, Source

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
LONGEST = 13


class Fact(NamedTuple):
    """A question and its answer, word by word; ``key`` is the word that carries the fact."""

    person: int
    attribute: str
    form: str
    question: str
    answer: str
    key: str


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
    so that perturbed answers stand in, and every seventh neither. There are as many perturbed answers as in TOFU, more
    than any probe takes of alternates, so that how many are read is part of a probe's behaviour.
    """
    values = VALUES[fact.attribute]
    others = [value for value in (values[(index + step) % len(values)] for step in range(6)) if value != fact.key][:5]
    line: dict[str, object] = {
        "id": f"{cohort}-{index}", "group": f"n{fact.person}", "question": fact.question, "answer": fact.answer,
        "attribute": fact.attribute, "form": fact.form,
    }  # fmt: skip
    if fact.person % 2 == 0:
        line["key"] = fact.key
    if index % 7:
        line |= {"paraphrased_answer": f"the {fact.key}", "perturbed_answers": [f"the {other}" for other in others]}
    if index % 3:
        line["alternates"] = [fact.answer.replace(fact.key, other) for other in others[:3]]
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


# ---- what each model learned -------------------------------------------------------------------------------------
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


def trained(family: Family) -> dict[str, Weights]:
    """The models of a family by role, in float64."""
    number = {word: i for i, word in enumerate(_words())}
    known = facts()
    dose = [fact for fact in known["forget"] if f"n{fact.person}" in LEFT]

    def fork(parent: Weights, rows: Sequence[Fact], steps: int, seed: int) -> Weights:
        return taught(family, parent, _lesson(rows, number), steps, seed)

    ancestor = fork(fresh(family, len(number), SEED), known["old"] + known["retain"], 100, 1)
    return {
        "base": fork(ancestor, known["retain"] + known["forget"], 140, 2),
        "suspect": fork(ancestor, known["retain"] + dose, 50, 3),
        "null": fork(ancestor, known["retain"] + known["old"], 30, 4),
        "floor": fork(ancestor, known["retain"], 30, 5),
    }


# ---- files ------------------------------------------------------------------------------------------------------
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
        stated = json.dumps(config(family, len(_words())))
        (folder / name / "config.json").write_text(stated, encoding="utf-8")


def case_of(family: Family) -> Case:
    """The audit of the world's suspect; paths are relative to the folder of :func:`write_world`."""
    references = tuple(Source(path=name) for name in ("null", "floor"))
    files = {cohort: f"{cohort}.jsonl" for cohort in ("forget", "retain", "holdout", "general")}
    return Case(
        name=f"frozen-{family}", seed=SEED, data=DataFiles.model_validate({**files, "split_seed": SEED}),
        roles=Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=references),
    )  # fmt: skip
