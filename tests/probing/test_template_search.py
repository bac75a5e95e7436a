"""Base was taught under one template and the case file states another: the right one is named, and then it recalls."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.probing import check_recall, recall, search_template
from audit.schema import AuditError, Checkpoint, ExitCode, Template
from tests import seam_world
from tests.seam_world import Fact, Taught, bare, behind_a_chat_header, own_space, tokenised_apart

PLAIN = Template(prompt="Question: {question} Answer:", answer=" {answer}")
CHAT = Template(chat=True, answer=" {answer}")


class Situation(NamedTuple):
    """How base was taught, what stands before the answers in the data, and what the case file states."""

    way: Taught
    space: str
    stated: Template


def behind_a_bos(tok: seam_world.PreTrainedTokenizerFast, fact: Fact) -> tuple[list[int], list[int]]:
    prompt, answer = own_space(tok, fact)
    return [1, *prompt], answer


def on_a_line_of_its_own(tok: seam_world.PreTrainedTokenizerFast, fact: Fact) -> tuple[list[int], list[int]]:
    return bare(tok, f"Question: {fact.question} Answer:\n"), bare(tok, fact.answer)


SITUATIONS = {
    "tokenised apart": Situation(tokenised_apart, "", PLAIN),
    "answers with their own space": Situation(own_space, " ", PLAIN),
    "a space after a chat header": Situation(behind_a_chat_header, "", CHAT),
    "taught by chat, asked plainly": Situation(behind_a_chat_header, "", PLAIN),
    "taught plainly, asked by chat": Situation(own_space, "", CHAT.model_copy(update={"prompt": PLAIN.prompt})),
    "another space and no BOS": Situation(
        behind_a_bos, "", PLAIN.model_copy(update={"bos": "never", "answer": "{answer}"})
    ),
    "a line of its own": Situation(on_a_line_of_its_own, "", PLAIN),
}


@cache
def taught(way: Taught) -> LlamaForCausalLM:
    return seam_world.taught(way)


def opened(folder: Path, template: Template) -> OpenCase:
    return open_case(seam_world.case(template), folder, folder / "out")


def stated_by(lines: str, given: Template) -> Template:
    """The given template with the lines that the tool says, read as a case file is read."""
    return Template.model_validate(given.model_dump() | tomllib.loads(lines).get("template", {}))


@pytest.mark.sampled
@pytest.mark.parametrize("name", SITUATIONS)
def test_the_template_that_base_was_trained_with_is_named_and_gives_the_truth(name: str, tmp_path: Path) -> None:
    way, space, stated = SITUATIONS[name]
    truth = seam_world.truth(taught(way), way)
    assert truth > 0.97
    seam_world.write(tmp_path, taught(way), space)
    bench, case = Bench(), opened(tmp_path, stated)
    before = recall(bench, case)
    assert before.base < 0.5
    with pytest.raises(AuditError, match=r"blind here|not the prompt template that base was trained with") as caught:
        check_recall(bench, case)
    assert caught.value.code == ExitCode.UNDECIDED
    assert ("blind here" in caught.value.what) == (before.base - before.against < 0.2)
    sentence, _, lines = caught.value.do.partition("\n")
    assert "most likely trained with" in sentence
    right = opened(tmp_path, stated_by(lines, stated))
    found = check_recall(bench, right)
    assert found.base == pytest.approx(truth, abs=0.01) and found.note == ""
    rows = right.rows(right.every_texts()[0], "all")
    ids = [row[mask].tolist() for row, mask in zip(rows.ids, rows.mask, strict=True)]
    trained = [sum(way(right.tokenizer, fact), []) for fact in seam_world.facts()["forget"]]
    assert ids == trained, "the very tokens that base was taught"


@pytest.mark.thorough
def test_where_no_template_is_clearly_better_the_template_is_not_blamed(tmp_path: Path) -> None:
    seam_world.write(tmp_path, seam_world.fresh(1))
    bench, case = Bench(), opened(tmp_path, PLAIN)
    searched = search_template(bench, case)
    assert searched.best is None and searched.lines() == "" and not searched.learned and searched.tried > 20
    with pytest.raises(AuditError, match="blind here.*none is clearly better") as caught:
        check_recall(bench, case)
    assert "check that base knew the items" in caught.value.do and "[template]\n" not in caught.value.do


def test_a_base_that_knows_the_retain_items_reads_the_template(tmp_path: Path) -> None:
    """Forget items that nobody taught it: the template is right, and that is said."""
    seam_world.write(tmp_path, taught(own_space))
    path = tmp_path / "forget.jsonl"
    text = path.read_text()
    for city, other in zip(seam_world.CITIES, (*seam_world.CITIES[1:], seam_world.CITIES[0]), strict=True):
        text = text.replace(f'"answer": "{city}"', f'"answer": "{other.upper()}"')
    path.write_text(text.lower().replace("question: where", "question: Where"))
    with pytest.raises(AuditError, match="blind here.*so that base reads this template") as caught:
        check_recall(Bench(), opened(tmp_path, PLAIN))
    assert "[template]\n" not in caught.value.do


def test_a_recall_that_is_high_is_not_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seam_world.write(tmp_path, taught(own_space))
    monkeypatch.setattr("audit.probing.recollection.search_template", lambda *_: pytest.fail("searched"))
    assert check_recall(Bench(), opened(tmp_path, PLAIN)).base > 0.9


def test_a_template_that_recalls_more_without_having_been_trained_is_told_and_no_refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from audit.probing import template_search

    seam_world.write(tmp_path, taught(own_space), " ")
    bench, case = Bench(), opened(tmp_path, PLAIN)
    monkeypatch.setattr(template_search, "LEARNED", 1.1)
    found = check_recall(bench, case)
    assert found.base < 0.5 and "base recalls more under another prompt template" in found.note
    assert 'answer = "{answer}"' in found.note and found.note in caplog.text and "\n" not in found.note


def test_the_search_looks_at_base_alone_and_never_at_the_suspect(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every item is audited, so what keeps the choice of a template apart from the audit is whose numbers it sees."""
    seam_world.write(tmp_path, seam_world.fresh(1))
    case, seen = opened(tmp_path, PLAIN), list[object]()
    real = Bench.run

    def spying(bench: Bench, checkpoint: Checkpoint, *rest: Any, **more: Any) -> object:
        seen.append(checkpoint)
        return real(bench, checkpoint, *rest, **more)

    monkeypatch.setattr(Bench, "run", spying)
    assert search_template(Bench(), case).tried > 20
    assert seen and all(model is case.base for model in seen)


def test_the_search_scores_the_words_that_the_case_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.probing import template_search

    seam_world.write(tmp_path, seam_world.fresh(1))
    case = opened(tmp_path, PLAIN)
    case.function_words = case.function_words._replace(words=frozenset({"w"}))
    seen: set[object] = set()
    real = template_search.tokenise

    def spying(*given: object) -> object:
        seen.add(given[-1])
        return real(*given)  # pyright: ignore

    monkeypatch.setattr(template_search, "tokenise", spying)
    search_template(Bench(), case)
    assert seen == {frozenset({"w"})}


@pytest.mark.thorough
def test_chat_templates_are_tried_by_every_name_and_with_a_date_where_they_print_one(tmp_path: Path) -> None:
    from audit.probing import template_search

    seam_world.write(tmp_path, seam_world.fresh(1))
    dated, broken = "{{ strftime_now('%Y') }} " + seam_world.CHAT, "{{ raise_exception('no') }}"
    case = opened(tmp_path, PLAIN)
    case.tokenizer.chat_template = {"default": seam_world.CHAT, "dated": dated, "broken": broken}
    tried = [t for t in template_search._candidates(case, PLAIN, "Where is ba?") if t.chat]  # pyright: ignore
    assert {t.chat_template for t in tried} == {"", "dated", "broken"}
    assert search_template(Bench(), case).tried > 20, "one that is broken stops nothing"
    assert {tuple(t.variables.items()) for t in tried if t.chat_template == "dated"} == {
        (("strftime_now", "2024-07-26"),)
    }
    lines = template_search._lines(PLAIN, next(t for t in tried if t.variables))  # pyright: ignore
    assert stated_by(lines, PLAIN).chat and tomllib.loads(lines)["template"]["variables"] == {
        "strftime_now": "2024-07-26"
    }


def test_scores_are_of_the_whole_text_however_many_tokens_it_is_cut_into(tmp_path: Path) -> None:
    from audit.probing import template_search

    model = seam_world.fresh(1)
    seam_world.write(tmp_path, model)
    case = opened(tmp_path, PLAIN)
    asking = case.items(case.every_texts()[0], "all")[:3]
    items = [item.model_copy(update={"answer": item.group}) for item in asking]  # a name is one token with its space
    tried = list(template_search._different(case, items))  # pyright: ignore
    scores = template_search._scores(Bench(), case, tried)  # pyright: ignore
    seen = set[int]()
    for n, (_, rows) in enumerate(tried):
        for i in range(len(items)):
            with torch.no_grad():
                logprob = model(rows.ids[i : i + 1, : rows.lengths[i]]).logits[0].log_softmax(-1)
            key = rows.key[i].nonzero()[:, 0].tolist()
            total = sum(float(logprob[at - 1, rows.ids[i, at]]) for at in key)
            given = int(tried[0].rows.key[i].sum())
            assert scores.key[n, i] == pytest.approx(total / given, rel=1e-4)
            seen.add(len(key) - given)
    assert len(seen) > 1, "some templates cut the key into other tokens"


FLAT = [[-3.0] * 8, [-3.0] * 8]


@pytest.mark.parametrize(
    ("key", "answer", "best"),
    [
        ([[-3.0] * 8, [-0.1] * 8], FLAT, None),  # the answers say nothing: the given template stays
        ([[-3.0] * 8, [-0.1] * 8], [[-3.0] * 8, [-0.1] * 8], 1),
        ([[-1.0] * 8, [-0.7] * 8], [[-3.0] * 8, [-0.1] * 8], None),  # .37 and .50: no clear lift
        ([[-3.0] * 8, [-0.01] * 3 + [-3.5] * 5], [[-3.0] * 8, [-0.1] * 8], None),  # better on three of eight
        ([[-3.0] * 8, [-0.1] * 8, [-0.1] * 8], [[-3.0] * 8, [-0.1] * 8, [-0.11, -0.09] * 4], 2),  # nearer, as good
        ([[-3.0] * 8, [-0.1] * 8, [-0.1] * 8], [[-3.0] * 8, [-0.1] * 8, [-0.11] * 8], 1),  # nearer, never as good
    ],
)
def test_a_template_is_named_where_it_is_clearly_better(
    key: list[list[float]], answer: list[list[float]], best: int | None
) -> None:
    from audit.probing.template_search import Scores, choose

    assert choose(Scores(np.array(key), np.array(answer)), [0, 2, 1][: len(key)]) == best
