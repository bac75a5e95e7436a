"""Facts under attacks by rewording, as rows of one packed pass: each with its answer and with matched wrong answers.

A wrong answer is an alternate of the item (the same sentence with another value), put into the same words as the
answer. What a model gives to the answer less what it gives to the wrong ones on average is what it knows of the fact,
and not how well such answers fit such words.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from audit.probing import Bench, Checkpoint, Item, OpenCase, PairedFact, PairedForms, Rows, Texts, folded
from probes._attack_templates import AttackFamily, AttackTemplate
from probes._fitting_rows import fitting, most_unknown
from probes._packed import packed_logprob

DIRECT: Final = "direct"
FORMS: Final = "forms"
NOT_ATTACKS: Final = ("trained", "multiple_choice")
"""Forms that are no other wording of a question: the trained one, and options, which are scored against one another."""


class Attacked(NamedTuple):
    """One fact (by number; -1: none that is forgotten) under one attack, its wrong answers as alternates of its item;
    ``given``: the data ask it so."""

    attack: str
    fact: int
    item: Item
    given: bool = False

    @property
    def rows(self) -> list[tuple[Item, str]]:
        """The item with its answer, then with every wrong one."""
        return [(self.item, answer) for answer in (self.item.answer, *self.item.alternates)]


class AttackSheet(NamedTuple):
    """All attacks on some facts. ``attacks``: those that have rows, the plain question first; ``unmade``: those for
    which the tokenizer, the context or the data have no room."""

    facts: tuple[Item, ...]
    attacks: tuple[str, ...]
    entries: tuple[Attacked, ...]
    rows: Rows
    unmade: tuple[str, ...]

    def person(self) -> tuple[tuple[str, ...], Int[ndarray, " fact"]]:
        """The people, and whose each fact is."""
        people, person = np.unique(np.array([item.group for item in self.facts]), return_inverse=True)
        return tuple(str(name) for name in people), person.reshape(-1)

    def of(self, attack: str) -> list[Attacked]:
        """The entries of one attack."""
        return [entry for entry in self.entries if entry.attack == attack]


class Told(NamedTuple):
    """What a model gives under every attack: to the answer, and to its wrong answers on average (0 where there is
    none); NaN where a fact is not asked for. ``entries``: the difference, entry by entry."""

    own: Float[ndarray, "fact attack"]
    wrong: Float[ndarray, "fact attack"]
    entries: Float[ndarray, " entry"]

    @property
    def excess(self) -> Float[ndarray, "fact attack"]:
        """To the answer beyond wrong ones."""
        return self.own - self.wrong


# ---- wrong answers ----------------------------------------------------------------------------------------------
def wrong_answers(item: Item, most: int) -> list[tuple[str, str | None]]:
    """Matched wrong answers of an item, each with its key where it has one: alternates, else perturbed answers."""
    if not item.alternates:
        return [(answer, None) for answer in item.perturbed_answers[:most]]
    keys = [*item.alternate_keys, *[None] * len(item.alternates)]
    return list(zip(item.alternates, keys, strict=False))[:most]


def posed(item: Item, name: str, question: str, answers: Sequence[tuple[str, str | None]]) -> Item:
    """The item under a name of its own, with another question and these answers, the right one first."""
    (answer, key), *wrong = answers
    keys = [other for _, other in wrong]
    return item.model_copy(
        update={
            "id": f"{item.id}!{name}", "question": question, "answer": answer, "key": key,
            "alternates": tuple(text for text, _ in wrong),
            "alternate_keys": tuple(k for k in keys if k is not None) if None not in keys else (),
            "alternates_from": "given", "perturbed_answers": (), "paraphrased_answer": None,
            "paraphrased_question": None,
        }
    )  # fmt: skip


def _restated(fact: Item, restated: Item, most: int) -> Item:
    """A form of a fact, with wrong answers in the words of the form."""
    own, wrong = (restated.answer, restated.key), wrong_answers(fact, most)
    if restated.alternates or restated.perturbed_answers:
        wrong = wrong_answers(restated, most)
    elif restated.form == "spelled":
        spelled = [" ".join(key.replace(" ", "")) for _, key in wrong if key is not None]
        wrong = [(text, text) for text in spelled]
    elif restated.answer != fact.answer:
        key = fact.key
        held = key is not None and key in restated.answer
        wrong = [(restated.answer.replace(key, k), k) for _, k in wrong if k] if key is not None and held else []
    return posed(restated, "form", restated.question, [own, *wrong])


# ---- attacks ----------------------------------------------------------------------------------------------------
def _of_forms(facts: Sequence[PairedFact], sources: Mapping[str, str], most: int) -> Iterator[Attacked]:
    for n, fact in enumerate(facts):
        for form, items in fact.forms.items():
            if form not in NOT_ATTACKS:
                given = sources[form] == "data"
                yield from (Attacked(f"{FORMS}/{form}", n, _restated(fact.item, item, most), given) for item in items)


def _of_template(
    name: str, template: AttackTemplate, facts: Sequence[PairedFact], others: Sequence[Item], most: int
) -> Iterator[Attacked]:
    for n, item in enumerate(fact.item for fact in facts):
        examples = _examples(item, others, template.shots)
        question = template.asked(item.question, [(other.question, other.answer) for other in examples])
        answers = [(item.answer, item.key), *wrong_answers(item, most)]
        said = [template.said(answer, key) for answer, key in answers]
        changed = question != item.question or said[0][0] != item.answer
        if item.question and changed and len(examples) == template.shots:
            yield Attacked(name, n, posed(item, name, question, said))


def _examples(item: Item, others: Sequence[Item], shots: int) -> list[Item]:
    """Retained items of other people, one each, on the same attribute first; none that holds what is asked for."""
    if not shots:
        return []
    value = folded(item.answer if item.key is None else item.key)
    ordered = sorted(others, key=lambda other: other.attribute is None or other.attribute != item.attribute)
    chosen: dict[str, Item] = {}
    for other in ordered:
        if value not in folded(f"{other.question} {other.answer}") and other.group != item.group:
            chosen.setdefault(other.group, other)
        if len(chosen) == shots:
            break
    return list(chosen.values())


def attack_sheet(
    case: OpenCase, paired: PairedForms, families: Sequence[AttackFamily], chains: Sequence[Attacked], most_wrong: int,
    forms: bool = True,
) -> AttackSheet | None:  # fmt: skip
    """The rows of all attacks on these facts, with at most so many wrong answers; None where no fact can be asked.
    ``forms``: also what the data or a rule asks in other forms."""
    facts = paired.facts
    retained = Texts(cohort="retain")
    others = [item for item in case.items(retained) if item.question] if case.has(retained) else []
    wanted = [
        Attacked(DIRECT, n, posed(f.item, DIRECT, f.item.question,
                                  [(f.item.answer, f.item.key), *wrong_answers(f.item, most_wrong)]), True)
        for n, f in enumerate(facts)
    ]  # fmt: skip
    wanted += list(_of_forms(facts, paired.made_by, most_wrong)) if forms else []
    named = [(f"{family.family}/{each.name}", each) for family in families for each in family.attack]
    wanted += [entry for name, each in named for entry in _of_template(name, each, facts, others, most_wrong)]
    wanted += list(chains)
    entries = _held(case, wanted)
    if not entries:
        return None
    present = tuple(dict.fromkeys((DIRECT, *(entry.attack for entry in entries if entry.fact >= 0))))
    tried = dict.fromkeys((*(entry.attack for entry in wanted if entry.fact >= 0), *(name for name, _ in named)))
    pairs = [row for entry in entries for row in entry.rows]
    rows = case.rows_of([item for item, _ in pairs], [answer for _, answer in pairs])
    unmade = tuple(name for name in tried if name not in present)
    return AttackSheet(tuple(fact.item for fact in facts), present, entries, rows, unmade)


def _held(case: OpenCase, wanted: Sequence[Attacked]) -> tuple[Attacked, ...]:
    """What tokenizer and context can hold; what the data do not ask so may have no more unknown tokens than the fact
    as it was trained."""
    pairs = [entry.rows for entry in wanted]
    fit = fitting(case, pairs, [entry.attack for entry in wanted])
    unknown = dict(zip(fit, most_unknown(case, [pairs[n] for n in fit]), strict=True))
    usual = {wanted[n].fact: most for n, most in unknown.items() if wanted[n].attack == DIRECT}
    return tuple(
        wanted[n] for n in fit if wanted[n].given or unknown[n] <= usual.get(wanted[n].fact, 0)
    )  # fmt: skip


# ---- scores -----------------------------------------------------------------------------------------------------
def told(bench: Bench, checkpoint: Checkpoint, sheet: AttackSheet) -> Told:
    """One packed pass of a model over all attacks: probabilities (geometric means over content tokens)."""
    probability = np.exp(packed_logprob(bench, checkpoint, sheet.rows).mean)
    place = {attack: n for n, attack in enumerate(sheet.attacks)}
    shape = (len(sheet.facts), len(sheet.attacks))
    own, wrong, count = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    each, at = list[float](), 0
    for entry in sheet.entries:
        answers = probability[at : at + len(entry.rows)]
        at += len(entry.rows)
        others = float(answers[1:].mean()) if len(answers) > 1 else 0.0
        each.append(float(answers[0]) - others)
        if entry.fact >= 0:
            where = entry.fact, place[entry.attack]
            own[where] += answers[0]
            wrong[where] += others
            count[where] += 1
    means = [np.where(count > 0, total / np.maximum(count, 1), np.nan) for total in (own, wrong)]
    return Told(means[0], means[1], np.array(each))
