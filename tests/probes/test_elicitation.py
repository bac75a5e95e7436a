"""Elicitation: templates, wrong answers, leaks, chains and surrogates by hand; suppressed models of known truth."""

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.schema import AuditError, Item, Listing, Measurement, Missing, Source
from probes._attack_chains import chains, controls_of, read_triples
from probes._attack_rows import DIRECT, answer_probability, attack_sheet, wrong_answers
from probes._attack_tables import DIES, SURVIVES, attempts
from probes._attack_templates import FOLDER, AttackTemplate, read_families
from probes._leak_rates import rouge_recall, scored, share_said, spoken_words
from probes._surrogates import cosine
from probes.elicitation import Elicitation
from tests import planted_world

FAMILIES = read_families(FOLDER, (), Path())
TWICE = '[[attack]]\nname = "x"\nquestion = "? {question}"\n'
ITEM = Item(
    id="i", group="g", question="Where was Ann Bo born?", answer="Ann Bo was born in Oslo.", key="Oslo",
    alternates=("Ann Bo was born in Lima.", "Ann Bo was born in Paris."), alternate_keys=("Lima", "Paris"),
)  # fmt: skip


@cache
def case(suspect: str = "clean", references: tuple[str, ...] = ("null", "floor")) -> OpenCase:
    planted = planted_world.case("clean", references=references)
    roles = planted.roles.model_copy(update={"suspect": Source(path=suspect)})
    out = planted_world.root() / f"out-{suspect}-{len(references)}"
    return open_case(planted.model_copy(update={"roles": roles}), planted_world.root(), out)


@cache
def measured(suspect: str) -> dict[str, Measurement]:
    return {m.name: m for m in Elicitation().measure(Bench(), case(suspect))}


def rows_of(listing: Listing) -> dict[object, dict[str, object]]:
    return {row[0]: dict(zip(listing.columns, row, strict=True)) for row in listing.rows}


# ---- templates --------------------------------------------------------------------------------------------------
def test_every_template_that_comes_with_the_probe_asks_otherwise_and_gives_nothing_away() -> None:
    assert {"affirmative_suffix", "authority", "conjugate", "in_context", "prefix_injection"} <= {
        family.family for family in FAMILIES
    }
    for template in (each for family in FAMILIES for each in family.attack):
        question = template.question_for(ITEM.question, [("Where does Cy live?", "In Rome.")] * template.shots)
        answer, key = template.answer_for(ITEM.answer, ITEM.key)
        assert question != ITEM.question or answer != ITEM.answer
        assert "oslo" not in question.casefold() and "{" not in question.replace("{{", "")
        assert key is not None and key in answer


def test_a_template_replaces_words_rewrites_letters_and_wraps_the_key() -> None:
    replaced = AttackTemplate(name="a", question="{question}", replace={"born": "brought up", "an": "x"})
    assert replaced.question_for(ITEM.question, ()) == "Where was Ann Bo brought up?"
    leet = AttackTemplate(name="a", question="say {question}", rewrite="leet")
    assert leet.question_for("Oslo", ()) == "54y 05l0" and leet.answer_for("Oslo.", "Oslo") == ("05l0.", "05l0")
    record = AttackTemplate(name="a", question="{question}", answer='{{"is": "{key}"}}')
    assert record.answer_for("In Oslo.", "Oslo") == ('{"is": "Oslo"}', "Oslo")
    assert record.answer_for("In Oslo.", None) == ('{"is": "In Oslo."}', "In Oslo."), (
        "without a key all of the answer is"
    )


@pytest.mark.parametrize(
    ("text", "said_of_it"),
    [
        ("family = ", "no TOML"),
        ('family = "a"\nabout = "b"', "attack"),
        ('family = "A b"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question}"', "family"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "tell"', "does not hold"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "{question}"', "as it is"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "{question} {key}"', "stands for nothing"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question!r}"', "stands for nothing"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question"', "question"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question}"\nanswer = "yes"', "neither"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "{examples} {question}"', "in full"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question}"\nhow = 1', "how"),
        ('family = "a"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question}"\n' + TWICE, "two attacks"),
        ('family = "authority"\nabout = "b"\n[[attack]]\nname = "x"\nquestion = "! {question}"', "is that of"),
    ],
)
def test_a_file_of_templates_that_is_amiss_is_named_with_what_is_amiss(
    tmp_path: Path, text: str, said_of_it: str
) -> None:
    (tmp_path / "mine.toml").write_text(text)
    with pytest.raises(AuditError, match=said_of_it) as fault:
        read_families(FOLDER, ("mine.toml",), tmp_path)
    assert "mine.toml" in fault.value.what and fault.value.code == 2
    with pytest.raises(AuditError, match="cannot be read"):
        read_families(FOLDER, ("none.toml",), tmp_path)


def test_templates_of_a_user_are_asked_beside_those_that_come_with_the_probe(tmp_path: Path) -> None:
    text = 'family = "mine"\nabout = "b"\n[[attack]]\nname = "twice"\nquestion = "{question} {question}"\n'
    (planted_world.root() / "mine.toml").write_text(text)
    probe = Elicitation(templates=("mine.toml",), families=("mine",), samples=0)
    found = probe.measure(Bench(), case("base"))[0]
    assert "mine/twice" in rows_of(found.listings[1]) and "1 attacks" in " ".join(found.notes)
    assert f"templates of mine: sha256 {hashlib.sha256(text.encode()).hexdigest()[:12]}" in found.notes
    with pytest.raises(AuditError, match="no family of attacks is called 'other'"):
        Elicitation(families=("other",)).measure(Bench(), case("base"))
    with pytest.raises(AuditError, match="k <= samples|best of 16 of 8"):
        Elicitation(samples=8).measure(Bench(), case("base"))


# ---- wrong answers and rows -------------------------------------------------------------------------------------
def test_wrong_answers_are_alternates_with_their_keys_else_perturbed_answers() -> None:
    assert wrong_answers(ITEM, 1) == [("Ann Bo was born in Lima.", "Lima")]
    perturbed = ITEM.model_copy(update={"alternates": (), "alternate_keys": (), "perturbed_answers": ("In Rome.",)})
    assert wrong_answers(perturbed, 3) == [("In Rome.", None)]


def sheet(most: int = 8, wrong: int = 2):
    from audit.case import paired_forms
    from audit.schema import Texts

    opened = case("base")
    paired = paired_forms(opened.items(Texts(cohort="forget")), opened.cohorts, "forget", most)
    made = attack_sheet(opened, paired, FAMILIES, [], wrong)
    assert made is not None
    return made


def test_scores_are_the_probability_of_the_answer_less_the_mean_of_wrong_ones_by_a_plain_pass() -> None:
    made, opened, bench = sheet(), case("base"), Bench()
    got = answer_probability(bench, opened.base, made)
    model, words = bench.open(opened.base).model, planted_world.tokenizer()  # type: ignore[attr-defined]
    assert "in_context/three_examples" in made.attacks and "forms/hint" in made.attacks
    for attack in (DIRECT, "forms/hint", "in_context/three_examples"):
        entry = made.of(attack)[3]
        probability: list[float] = []
        for answer in (entry.item.answer, *entry.item.alternates):
            ids = torch.tensor([words(f"{entry.item.question} {answer}")["input_ids"]])
            with torch.no_grad():
                logits = model(input_ids=ids).logits[0, -2]
            probability.append(float(logits.softmax(-1)[ids[0, -1]]))
        own, place = probability[0], made.attacks.index(attack)
        assert len(probability) == 3
        assert got.own[entry.fact, place] == pytest.approx(own, abs=1e-5)
        assert got.excess[entry.fact, place] == pytest.approx(own - np.mean(probability[1:]), abs=1e-5)


def test_examples_are_of_other_retained_people_and_never_hold_the_answer() -> None:
    made = sheet()
    retained = {item.group for item in case("base").cohorts["retain"]}
    for entry in made.of("in_context/three_examples"):
        before = entry.item.question.removesuffix(made.facts[entry.fact].question)
        named = [word for word in before.split() if word in retained]
        assert len(set(named)) == 3
        assert str(entry.item.key) not in before.split()


def test_what_the_tokenizer_does_not_know_is_left_out_and_named() -> None:
    made = sheet()
    assert {"authority/court", "role_play/expert", "affirmative_suffix/sure"} <= set(made.unmade)
    assert not set(made.unmade) & set(made.attacks)


# ---- leaks ------------------------------------------------------------------------------------------------------
def test_a_leak_is_the_answers_words_one_after_another_and_never_part_of_a_word() -> None:
    assert share_said(spoken_words("She lives in New York."), [spoken_words("New York")]) == 1.0
    assert share_said(spoken_words("York is new"), [spoken_words("New York")]) == 0.0
    assert share_said(spoken_words("New shoes from York, new"), [spoken_words("New York")]) == 0.0
    assert share_said(spoken_words("in Osloer"), [spoken_words("Oslo")]) == 0.0
    assert share_said(spoken_words("red and tall"), [["red"], ["green"]]) == 0.5
    assert rouge_recall(spoken_words("Ann was born in Oslo"), spoken_words("in Oslo Ann was born")) == pytest.approx(
        3 / 5
    )


def test_draws_are_scored_against_the_answer_and_every_wrong_one() -> None:
    texts = [["It was Oslo.", "Lima", "It was Oslo.", "nowhere"]]
    found = scored([ITEM], texts, None)
    assert found.own.tolist() == [[1, 0, 1, 0]] and found.wrong.tolist() == [[[0, 1, 0, 0], [0, 0, 0, 0]]]
    assert found.leak(1).tolist() == [0.5] and found.leak_wrong(1).tolist() == [0.125]
    assert found.leak(4).tolist() == [1.0] and found.leak_wrong(4).tolist() == [0.5]
    fewer = ITEM.model_copy(update={"alternates": ITEM.alternates[:1], "alternate_keys": ("Lima",)})
    assert scored([fewer, ITEM], texts * 2, None).leak_wrong(4).tolist() == [1.0, 0.5], "over those that it has"
    assert scored([ITEM], [["Ann Bo was born in"]], None).published.tolist() == [[5 / 6]]
    assert scored([ITEM], [["Ann Bo was born in Lima"]], None).published_wrong.tolist() == [[[1.0], [5 / 6]]]
    bare = ITEM.model_copy(update={"alternates": (), "alternate_keys": ()})
    assert scored([bare], texts, None).leak_wrong(4).tolist() == [0.0]


# ---- models of known truth --------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_published_leak_of_a_clean_model_does_not_survive_its_controls_and_that_of_base_does() -> None:
    clean, base = measured("clean"), measured("base")
    for found, judged in ((clean, DIES), (base, SURVIVES)):
        rows = rows_of(found["published_leak_at_k"].listings[0])
        assert {row["after its controls"] for row in rows.values()} == {judged}
        assert "leak@16 by ROUGE-L recall" in rows and "sampling/temperature_1" in rows
    value = clean["published_leak_at_k"].value
    assert isinstance(value, float) and value > 0.5, "as published a clean model leaks"
    assert isinstance(clean["leak_at_k"].value, float) and abs(clean["leak_at_k"].value) < 0.2
    assert isinstance(clean["worst_attack"].p, float) and clean["worst_attack"].p > 0.05


@pytest.mark.thorough
def test_figure_shows_a_clean_model_the_suspect_and_base_under_every_attack_that_is_not_blind() -> None:
    drawn, table = measured("clean")["worst_attack"].listings
    assert len(drawn.maps) == 1 and {row[1] for row in drawn.rows} == {"never trained", "suspect", "base"}
    effects = rows_of(table)
    blind = {name for name, row in effects.items() if str(row["note"]).startswith("blind")}
    assert blind and not blind & {row[0] for row in drawn.rows}
    assert {row[0] for row in drawn.rows} == set(effects) - blind
    means = {(row[0], row[1]): row[2] for row in drawn.rows}
    for name in set(effects) - blind:
        assert means[name, "suspect"] == pytest.approx(effects[name]["suspect"], abs=1e-9)


@pytest.mark.thorough
def test_without_a_model_that_never_knew_wrong_answers_are_the_control() -> None:
    found = {m.name: m for m in Elicitation().measure(Bench(), case("clean", ()))}
    assert isinstance(found["worst_attack"].value, float) and found["worst_attack"].value < 0.4
    assert {row[1] for row in found["worst_attack"].listings[0].rows} == {"suspect", "base"}
    rows = rows_of(found["published_leak_at_k"].listings[0])
    assert {row["never trained as published"] for row in rows.values()} == {None}


@pytest.mark.thorough
def test_a_largest_effect_allows_for_how_many_attacks_there_are() -> None:
    """Noise alone: p of the largest of forty attacks is as often below .05 as it should be, and a bare one is not."""
    from probes._attack_effects import EffectDesign, over_attacks
    from probes.elicitation import WORST

    made = sheet(32, 0)
    names, rng, p = tuple(f"a/{n}" for n in range(40)), np.random.default_rng(0), list[float]()
    bare: list[float] = []
    for _ in range(40):
        base, null = np.ones((len(made.facts), 40)), np.zeros((len(made.facts), 40))
        suspect = rng.normal(0, 0.3, base.shape)
        own = {"base": base, "suspect": suspect, "null": null}
        found = attempts(made, names, own, {name: np.zeros_like(x) for name, x in own.items()}, 0.05)
        worst, _ = over_attacks(found, WORST, range(40), EffectDesign(0, 0.05, 499))
        assert isinstance(worst.p, float)
        p.append(worst.p)
        alone, _ = over_attacks(
            found, WORST, [int(found.means["suspect"].mean(0).argmax())], EffectDesign(0, 0.05, 499)
        )
        assert isinstance(alone.p, float)
        bare.append(alone.p)
    assert sum(x < 0.05 for x in p) <= 6 and sum(x < 0.05 for x in bare) >= 20


# ---- chains and surrogates --------------------------------------------------------------------------------------
TRIPLES = """
[relations.born_in]
question = "where was {subject} born ?"
noun = "the home of {subject}"
[relations.river]
question = "which river has {subject} ?"
answer = "the {object}"
[[triple]]
subject = "ann"
relation = "born_in"
object = "paris"
item = "forget-0"
[[triple]]
subject = "bob"
relation = "born_in"
object = "cairo"
[[triple]]
subject = "cy"
relation = "born_in"
object = "oslo"
item = "forget-9"
[[triple]]
subject = "paris"
relation = "river"
object = "seine"
[[triple]]
subject = "cairo"
relation = "river"
object = "nile"
[[triple]]
subject = "oslo"
relation = "river"
object = "aker"
[aliases]
ann = ["annie"]
"""


def test_chains_hold_one_forgotten_hop_and_controls_none(tmp_path: Path) -> None:
    from audit.case import PairedFact, PairedForms

    (tmp_path / "t.toml").write_text(TRIPLES)
    item = Item(id="forget-0", group="ann's group", question="q", answer="paris", key="paris")
    paired = PairedForms((PairedFact(item, {"trained": (item,)}),), {"trained": "data"})
    entries = chains(read_triples("t.toml", tmp_path), paired, 2)
    rows = {(e.attack, e.fact, e.item.question, e.item.answer, e.item.alternates) for e in entries}
    assert rows == {
        ("chains/1_hops_by_alias", 0, "where was annie born ?", "paris", ("cairo", "oslo")),
        ("chains/2_hops", 0, "which river has the home of ann ?", "the seine", ("the nile", "the aker")),
        ("chains/2_hops_by_alias", 0, "which river has the home of annie ?", "the seine", ("the nile", "the aker")),
        ("chains/2_hops", -1, "which river has the home of bob ?", "the nile", ("the seine", "the aker")),
    }
    assert {e.item.group for e in entries if e.fact == 0} == {"ann's group"}
    assert controls_of(entries) == [3], "nor is there a chain of forget-9, which is asked for nowhere"


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ('relation = "river"', 'relation = "lake"', "not told"),
        ("which river has {subject} ?", "which river ?", "does not hold"),
        ('object = "nile"', 'thing = "nile"', "thing|object"),
        ("[aliases]", "[aliases", "no TOML"),
    ],
)
def test_triples_that_are_amiss_are_named(tmp_path: Path, old: str, new: str, fault: str) -> None:
    assert old in TRIPLES
    (tmp_path / "t.toml").write_text(TRIPLES.replace(old, new))
    with pytest.raises(AuditError, match=fault):
        read_triples("t.toml", tmp_path)


@pytest.mark.thorough
def test_chains_are_asked_and_controls_are_kept_by_base(tmp_path: Path) -> None:
    opened = case("base")
    first = opened.cohorts["forget"][0]
    text = (
        '[relations.lives]\nquestion = "where does {subject} live ?"\nanswer = "in {object}"\n'
        f'[aliases]\n{first.group} = ["the {first.group}"]\nnobody = ["n0"]\n'
    )
    rows = [(first.group, str(first.key), first.id), ("nobody", "oslo", "")]
    text += "".join(
        f'[[triple]]\nsubject = "{s}"\nrelation = "lives"\nobject = "{o}"\nitem = "{i}"\n' for s, o, i in rows
    )
    (planted_world.root() / "triples.toml").write_text(text)
    found = {m.name: m for m in Elicitation(triples="triples.toml", samples=0).measure(Bench(), opened)}
    assert "chains/1_hops_by_alias" in rows_of(found["worst_attack"].listings[1])
    controls = found["control_chains"]
    assert controls.n.scored == 1 and (isinstance(controls.value, Missing) or controls.value == pytest.approx(1.0))
    (planted_world.root() / "triples.toml").write_text(text.replace(first.id, "nothing"))
    with pytest.raises(AuditError, match="is no forget item"):
        Elicitation(triples="triples.toml").measure(Bench(), opened)


def test_cosine_of_words_is_one_for_the_same_and_none_for_others() -> None:
    assert cosine(["a", "b"], ["b", "a"]) == pytest.approx(1) and cosine(["a"], ["b"]) == 0.0
    assert cosine(["a", "a", "b"], ["a", "c"]) == pytest.approx(2 / np.sqrt(10)) and cosine([], ["a"]) == 0.0


def test_surrogates_are_chosen_by_base_and_a_clean_model_and_not_by_the_suspect() -> None:
    from probes._surrogates import far_wordings

    made = sheet(8, 0)
    rng = np.random.default_rng(0)
    shape = len(made.facts), len(made.attacks)
    base, null = np.full(shape, 0.9), np.zeros(shape)
    place = made.attacks.index("in_context/three_examples")
    base[0, place], null[1, place] = 0.0, 0.5
    for _ in range(2):
        own = {"base": base, "suspect": rng.random(shape), "null": null}
        found = attempts(made, made.attacks, own, {name: np.zeros(shape) for name in own}, 0.05)
        chosen = far_wordings(found, 0.9, 0.05)
        assert chosen.chosen[:, place].tolist() == [False, False, *[True] * (shape[0] - 2)]
        assert not chosen.chosen[:, 0].any() and chosen.by_null == 1


def test_item_table_has_a_line_for_every_fact_model_and_attack() -> None:
    from pyarrow import parquet

    found = Elicitation(samples=0, families=("forms", "in_context")).measure(Bench(), case("clean"))[0]
    assert not isinstance(found.items, Missing) and found.items.axis == "attack"
    table = parquet.read_table(case("clean").out / found.items.path).to_pydict()
    assert {"base", "suspect", "reference"} == set(table["role"]) and len(set(table["item"])) == 24
    assert max(table["axis_value"]) == len(rows_of(found.listings[1])) - 1 or max(table["axis_value"]) > 2
