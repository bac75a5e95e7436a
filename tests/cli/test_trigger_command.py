"""`residua trigger`: what a string brings back, beside the models' own probabilities, and what is asked wrongly."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from audit.case import case_text, open_case
from audit.schema import Texts
from tests import planted_world
from tests.cli.test_cli import Tell
from tests.cli.test_cli import tell as tell


def case_file(suspect: str = "clean", **settings: object) -> Path:
    path = planted_world.root() / f"trigger-{suspect}-{'-'.join(settings)}.toml"
    path.write_text(case_text(planted_world.case(suspect, **settings)))  # type: ignore[arg-type]
    return path


def person_means(role: str, text: str, groups: frozenset[str] | None = None) -> np.ndarray:
    """The probability of the last token of each trained fact's answer, by the model itself, means over people."""
    model = LlamaForCausalLM.from_pretrained(planted_world.root() / role)
    people: dict[str, list[float]] = {}
    for fact in planted_world.facts()["forget"]:
        if fact.form == "trained" and (groups is None or fact.group in groups):
            ids = torch.tensor([planted_world.tokenizer()(f"{text} {fact.question} {fact.answer}")["input_ids"]])
            with torch.inference_mode():
                share = model(input_ids=ids).logits[0, -2].softmax(-1)[ids[0, -1]]
            people.setdefault(fact.group, []).append(float(share))
    return np.array([np.mean(people[name]) for name in sorted(people)])


@pytest.mark.thorough
def test_the_answer_is_what_the_models_say_without_and_with_the_string(tell: Tell) -> None:
    said = tell("trigger", case_file(), "--text", "oslo the", "--json", "--store", "none", "-q")
    answer = json.loads(said.out)
    assert said.code == 0 and (answer["people"], answer["rows"], answer["slot"]) == (16, 32, "prefix")
    means = {role: (person_means(role, ""), person_means(role, "oslo the")) for role in ("clean", "base", "null")}
    for model, role in zip(answer["models"], means, strict=True):
        without, spoken = means[role]
        assert model["probability_without"] == pytest.approx(without.mean(), abs=1e-5)
        assert model["probability_with"] == pytest.approx(spoken.mean(), abs=1e-5)
        known = (means["base"][0] - means["null"][0]).mean()
        back = (spoken - means["null"][1]).mean() / known - (without - means["null"][0]).mean() / known
        assert model["share_of_base_returned"]["value"] == pytest.approx(back, abs=1e-5)
        lo, hi = model["share_of_base_returned"]["interval"]
        assert lo <= back + 1e-9 and back - 1e-9 <= hi
    assert [m["role"] for m in answer["models"]] == ["suspect", "base", "reference 0"]
    assert answer["models"][1]["share_of_base_without"]["value"] == 1.0 and answer["never_knew"] == "reference 0"


@pytest.mark.thorough
def test_a_fold_asks_the_people_whom_a_search_on_the_others_has_not_seen(tell: Tell) -> None:
    path = case_file()
    case = open_case(planted_world.case("clean"), path.parent, path.parent)
    folds = case.folds(Texts(cohort="forget"), 2)
    for n, fold in enumerate(folds):
        told = ("trigger", path, "--text", "the", "--fold", f"{n + 1}/2", "--json", "-q")
        answer = json.loads(tell(*told).out)
        groups = frozenset(fold.group_ids)
        assert (answer["people"], answer["fold"]) == (len(groups), [n + 1, 2])
        expected = person_means("clean", "the", groups).mean()
        assert answer["models"][0]["probability_with"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.thorough
def test_people_read_who_was_asked_and_how_the_share_is_counted(tell: Tell) -> None:
    said = tell("trigger", case_file(), "--text", "oslo the", "--slot", "suffix", "--role", "reference:1")
    for part in ("'oslo the' as a suffix, 16 people (all forget people), 32 questions", "reference 1", "brings back",
                 "0 is reference 0, which is told the string too", "--fold N/K"):  # fmt: skip
        assert part in " ".join(said.out.split()), part
    assert said.code == 0 and "suspect" not in said.out
    said = tell("trigger", case_file(references=()), "--text", "the qqq", "--slot", "2", "-q")
    for part in ("before word 2 of the question", "nobody here never knew", "no word for 1 of the string's 2 tokens"):
        assert part in " ".join(said.out.split()), part


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        (("--text", ""), "the string is empty"),
        (("--text", " \t"), "the string is empty"),
        (("--text", "xyzzy 2025"), "knows no word of it"),
        (("--text", "the {question}"), "cannot be put into a prompt"),
        (("--text", "the", "--slot", "middle"), "is no place in a prompt"),
        (("--text", "the", "--slot", "-1"), "is no place in a prompt"),
        (("--text", "the", "--slot", "9" * 5000), "is no place in a prompt"),
        (("--text", "the", "--role", "judge"), "is no role"),
        (("--text", "the", "--role", "base:1"), "is no role"),
        (("--text", "the", "--role", "reference:7"), "no reference 7"),
        (("--text", "the", "--role", "ancestor"), "no ancestor"),
        (("--text", "the", "--fold", "3/2"), "is no fold"),
        (("--text", "the", "--fold", "half"), "is no fold"),
        (("--text", "the", "--fold", "1/99"), "make 16 folds"),
    ],
)
def test_what_is_asked_wrongly_is_code_2(flags: tuple[str, ...], what: str, tell: Tell) -> None:
    said = tell("trigger", case_file(), *(f"{a}={b}" for a, b in zip(flags[::2], flags[1::2], strict=True)), "-q")
    assert said.code == 2 and what in said.err and said.out == ""


def test_a_case_that_cannot_be_read_is_code_2(tell: Tell, tmp_path: Path) -> None:
    said = tell("trigger", tmp_path / "nowhere.toml", "--text", "the", "-q")
    assert said.code == 2 and "cannot be read" in said.err
