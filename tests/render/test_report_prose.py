"""The body of a report as prose: its length, its sentences, its words, and that each of its terms is defined."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from audit.judging import decision_rule
from audit.render import markdown, report_sections, sentence, spoken
from audit.render.sections.blocks import Block, Bullets, Facts, Figure, Grid, Heading, Section, Text
from audit.render.sections.glossary import GLOSSARY
from audit.render.sections.pageone import first_lines
from audit.schema import Report
from tests.golden import VARIANTS, Variant, own_kind, report

OWN = [variant for variant in VARIANTS if variant != "hostile"]
MOST_WORDS = 6000
LONGEST = 25
"""Words in a sentence that is ours; what a run recorded is its own."""
UNWANTED = (
    # American spelling
    "behavior", "color", "analyze", "artifact", "labeled", "modeled", "favor", "center", "gray", "license plate",
    # long-winded or of an office
    "utilise", "utilize", "leverage", "facilitate", "aforementioned", "hereby", "herein", "thereof", "pursuant",
    "whilst", "amongst", "prior to", "in order to", "due to the fact", "with regard to", "in terms of", "commence",
    "endeavour", "ascertain", "robustly", "seamless", "cutting-edge", "state-of-the-art", "comprehensive", "delve",
    # dialect and slang
    "gonna", "wanna", "ain't", "kinda", "gotten", "y'all", "outwith", "anyways", "irregardless", "a lot of",
    # claims
    "obviously", "clearly", "of course", "undoubtedly",
    # wordings that readers stumbled over
    "how sure can", "for never having known stands", "ceiling of this design", "which is not erasure", "silent down to",
    "above its own bar", "lost by calibration", "still allows −", "the knowledge is still inside",
    "section 3", "section 4", "section 9", "last section", "fully erased", "successfully",
)  # fmt: skip
JARGON = {
    r"decoys?|own kind": "Decoy, own kind",
    r"worlds?": "World", r"zoo": "Zoo", r"mechanisms?": "Mechanism", r"joint (rule|score)": "Joint rule, score",
    r"floor": "Floor", r"null band": "Null band", r"null": "Null", r"ceiling": "Ceiling", r"fakes?": "Fake, dose",
    r"doses?": "Fake, dose", r"Holm|BH|adjusted": "p", r"Cllr": "Cllr", r"blind": "Positive control",
    r"sharp|blunt": "Sharp, blunt", r"strength": "Strength", r"in-case": "In-case basis",
    r"calibrated": "Calibrated basis", r"over-suppressed": "Over-suppressed", r"references?": "Reference",
    r"ancestor": "Ancestor", r"suspect": "Suspect", r"base": "Base", r"effects?": "Effect",
    r"never[- ]trained": "Never trained, never-trained level", r"overall": "Overall effect",
    r"largest": "Largest over layers", r"detection limit": "Detection limit", r"power": "Detection limit",
    r"upper bound": "Upper bound", r"traces?": "Trace", r"hints?": "Trace", r"states": "States, layer",
    r"layers?": "States, layer", r"internals": "Outputs, internals", r"outputs": "Outputs, internals",
    r"false discovery rate": "False discovery rate", r"false alarms?": "False alarm, miss",
    r"missed": "False alarm, miss", r"threshold": "Calibrated threshold", r"held[- ]out": "Held out",
    r"gate": "Utility gate", r"common basis": "Compatibility gate, common basis", r"holdout": "Holdout people",
    r"forget set": "Forget set, F", r"retained": "Forget set, F", r"plan hash": "Plan hash, fingerprint",
    r"likelihood ratio": "Likelihood ratio", r"black-box|logits|fine-tune": "Access",
    r"context": "Context, as published", r"roles": "Roles audited", r"causal|decoding|recovery": "Class of evidence",
    r"phrasing": "Held-out phrasing",
    r"▼": "▼ below never trained", r"◧": "◧ PARTIAL", r"■": "■ INTACT", r"▣": "▣ SUPPRESSED", r"◇": "◇ INCONCLUSIVE",
}  # fmt: skip
"""What a reader from another field does not know, and the entry that says it."""


def texts(block: Block) -> Iterator[str]:
    """Everything that a block says, also its captions and heads."""
    match block:
        case Text() | Heading():
            yield block.text
        case Bullets():
            yield from block.items
        case Facts():
            yield from (text for row in block.rows for text in row)
        case Grid():
            yield from (block.caption, *block.columns, *(cell.text for row in block.rows for cell in row))
        case Figure():
            yield from (block.label, block.caption)
        case _:
            pass


def body(document: Report) -> tuple[Section, ...]:
    return tuple(part for part in report_sections(document) if not part.appendix)


def body_texts(document: Report) -> Iterator[str]:
    """All that stands in the body, page one first."""
    yield from (text for row in first_lines(document) for text in row)
    yield from (text for part in body(document) for block in part.blocks for text in (part.title, *texts(block)))


def recorded(value: object) -> Iterator[str]:
    """Every string of a document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from recorded(part)
    elif isinstance(value, list):
        for part in value:
            yield from recorded(part)


def words(text: str) -> int:
    """How many words; a masked one is one word, whatever its mark is made of."""
    return sum(any(c.isalnum() for c in word) for word in re.sub(r"‹masked[^›]*›", "masked", text).split())


def too_long(document: Report) -> list[str]:
    """Our own sentences of more words than are wanted."""
    theirs = " ".join(sentence(spoken(document, x)) for x in recorded(document.model_dump(mode="json"))).lower()
    sentences = (s for text in body_texts(document) for s in re.split(r"(?<=[.!?])\s+(?=[A-Z(])", text))
    return [s for s in dict.fromkeys(sentences) if words(s) > LONGEST and s.lower().rstrip(".") not in theirs]


def golden(variant: Variant) -> Report:
    """A golden report with the rule as it is today, and so with its table."""
    return report(variant).model_copy(update={"decision_rule": decision_rule()})


@pytest.mark.parametrize("variant", OWN)
def test_a_sentence_of_the_body_has_at_most_twenty_five_words(variant: Variant) -> None:
    assert too_long(golden(variant)) == []


def test_what_a_calibration_of_its_own_kind_adds_is_prose_too() -> None:
    document = own_kind().model_copy(update={"decision_rule": decision_rule()})
    assert too_long(document) == []
    text = "\n".join(body_texts(document))
    assert "decoy worlds" in text and not [
        word for word in UNWANTED if re.search(rf"\b{re.escape(word)}\b", text, re.I)
    ]


@pytest.mark.parametrize("variant", OWN)
def test_the_body_uses_no_unwanted_word_and_defines_its_terms(variant: Variant) -> None:
    text = "\n".join(body_texts(golden(variant)))
    for word in UNWANTED:
        assert not re.search(rf"\b{re.escape(word)}\b", text, re.I), word
    entries = " ".join(term for term, _ in GLOSSARY)
    before_glossary = "\n".join(t for part in body(golden(variant)) if part.id != "glossary"
                                for block in part.blocks for t in texts(block))  # fmt: skip
    for term, entry in JARGON.items():
        if re.search(rf"(?<!\w){term}(?!\w)", before_glossary, re.I):
            assert entry in entries, term


def test_every_term_that_the_glossary_uses_is_defined_in_it_too() -> None:
    entries = " ".join(term for term, _ in GLOSSARY)
    meanings = "\n".join(meaning for _, meaning in GLOSSARY)
    for term, entry in JARGON.items():
        assert not re.search(rf"(?<!\w){term}(?!\w)", meanings, re.I) or entry in entries, term
    assert len({term for term, _ in GLOSSARY}) == len(GLOSSARY)


@pytest.mark.parametrize("variant", OWN)
def test_a_sentence_stands_once_in_the_body(variant: Variant) -> None:
    sentences = [s for text in body_texts(golden(variant)) for s in re.split(r"(?<=[.!?])\s+", text) if words(s) > 12]
    assert [s for s in dict.fromkeys(sentences) if sentences.count(s) > 1] == []


def test_one_table_has_a_row_for_every_measurement() -> None:
    document = golden("calibrated")
    (table,) = [
        b for part in body(document) for b in part.blocks if isinstance(b, Grid) and b.caption.startswith("All t")
    ]
    rows = [row for row in table.rows if row[0].tone != "group"]
    assert len(rows) == len(document.evidence) and {len(row) for row in table.rows} == {len(table.columns)}
    alarms = [row[table.columns.index("False alarms")].text for row in rows]
    assert any(re.fullmatch(r"\d+ of \d+", cell) for cell in alarms)


def test_the_rule_is_a_table_and_an_earlier_rule_keeps_its_own_words() -> None:
    (section,) = [part for part in body(golden("suppressed")) if part.id == "method"]
    (table,) = [b for b in section.blocks if isinstance(b, Grid)]
    assert [row[0].text for row in table.rows][:3] == ["INVALID", "INTACT", "SUPPRESSED"]
    (earlier,) = [part for part in body(report("suppressed")) if part.id == "method"]
    assert not [b for b in earlier.blocks if isinstance(b, Grid)]
    assert sentence(report("suppressed").decision_rule[0]) in [t for b in earlier.blocks for t in texts(b)]


@pytest.mark.thorough
def test_the_body_of_a_full_audit_is_short(finished: Path) -> None:
    """All families, from a run; a third of what a page of A4 holds is left for figures."""
    document = Report.model_validate_json((finished / "report.json").read_bytes())
    text = markdown(document).split("\n## Appendix")[0]
    assert len(document.evidence) > 10 and words(text) <= MOST_WORDS
    assert too_long(document) == []
