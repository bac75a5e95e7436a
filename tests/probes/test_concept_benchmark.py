"""The published numbers, on a file in the published format."""

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.bench import Bench
from audit.case import open_case
from audit.schema import AuditError, Measurement
from audit.storage import Store
from probes._benchmark import read_benchmark
from probes.concept_vectors import ConceptVectors
from tests import planted_world

ENTRY: dict[str, Any] = {
    "ID": "1", "Concept": "Oslo", "Layer": 1, "Dim": 7,
    "QA": [" where does n16 live ?\n", " what pet has n16 ?\n"],
    "text_completion": [{"First_half": "where does n17", "Second_half": "live ?"}],
    "unrelated_QA": ["where does n33 live ?"], "wikipedia_content": "oslo lima the cat in oslo",
}  # fmt: skip


@cache
def store() -> Store:
    return Store(Path(tempfile.mkdtemp(dir=planted_world.root())))


def written(entries: Any, name: str = "concepts.json") -> Path:
    folder = Path(tempfile.mkdtemp(dir=planted_world.root()))
    text = entries if isinstance(entries, str) else json.dumps(entries)
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


@cache
def measured(suspect: str) -> Measurement:
    case = open_case(planted_world.case(suspect), planted_world.root(), Path(tempfile.mkdtemp()))
    entries = [ENTRY, {"Concept": "Lima", "Layer": 2, "Dim": 0}]
    probe = ConceptVectors(benchmark=str(written(entries)), answer_tokens=3)
    assert probe.cost(case).fwd_tokens > ConceptVectors().cost(case).fwd_tokens
    return {m.name: m for m in probe.measure(Bench(store=store()), case)}["published_benchmark"]


@pytest.mark.thorough
def test_base_beside_itself_is_the_same_in_everything() -> None:
    base = measured("base")
    assert base.value == 1.0 and base.kind == "context" and base.mode == "paper"
    readings = base.readings
    assert readings["jaccard"] == readings["cosine"] == readings["bleu_published"] / readings["bleu"] == 1.0
    assert readings["distance"] == 0 and readings["moved_more_than"] == 0.5
    assert readings["rouge_l"] == 1.0 and readings["precision"] == readings["related"] == 1.0


def test_a_line_for_every_concept_and_nothing_where_the_file_has_nothing() -> None:
    (listing,) = measured("base").listings
    lines = [dict(zip(listing.columns, row, strict=True)) for row in listing.rows]
    assert [(line["concept"], line["block"], line["unit"]) for line in lines] == [("Oslo", 1, 7), ("Lima", 2, 0)]
    assert listing.quoted == ("concept",) and listing.of == 2
    assert lines[0]["BLEU"] is not None and lines[1]["BLEU"] is None and lines[1]["precision"] is None


@pytest.mark.thorough
def test_another_model_moved_and_answers_otherwise() -> None:
    other = measured("destroyed")
    assert 0 < other.readings["jaccard"] <= 1 and other.readings["cosine"] < 0.9 and other.readings["distance"] > 0
    assert other.readings["rouge_l"] < 1


@pytest.mark.thorough
def test_the_published_way_exchanges_reference_and_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"base": "a b c d e f g h", "suspect": "a b c d"}
    case = open_case(planted_world.case("clean"), planted_world.root(), Path(tempfile.mkdtemp()))
    monkeypatch.setattr(
        "probes._published_vectors._answers",
        lambda _case, model, prompts, _n: (
            [answers["base" if model.checkpoint == case.base else "suspect"]] * len(prompts)
        ),
    )
    probe = ConceptVectors(benchmark=str(written([ENTRY])), answer_tokens=3)
    readings = {m.name: m for m in probe.measure(Bench(store=store()), case)}["published_benchmark"].readings
    assert readings["bleu"] == pytest.approx(2.718281828 ** (1 - 8 / 4))  # base is the reference: brevity is punished
    assert readings["bleu_published"] == pytest.approx((4 / 8 * 3 / 7 * 2 / 6 * 1 / 5) ** 0.25)
    assert readings["rouge_l"] == pytest.approx(2 * 4 / 12)


# ---- the file ---------------------------------------------------------------------------------------------------
def test_a_file_of_the_published_format_is_read(tmp_path: Path) -> None:
    path = written([ENTRY, {"id": 3, "Concept": 7, "Layer": 0, "Dim": 0, "extra": None}])
    first, second = read_benchmark(str(path), tmp_path)
    assert first.beginnings == ("where does n17",) and len(first.questions) == 2 and first.article.startswith("oslo")
    assert second == ("7", 0, 0, (), (), (), "")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert read_benchmark(path.name, path.parent)[0] == first


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("not json", "no JSON"),
        ("{}", "no list"),
        ("[]", "empty one"),
        ([3], "entry 1 is no object"),
        ([ENTRY, {"Concept": "x", "Layer": 1}], "entry 2 has no 'Dim'"),
        ([ENTRY | {"Layer": -1}], "entry 1: Layer is -1"),
        ([ENTRY | {"Dim": "7"}], "entry 1: Dim is '7'"),
        ([ENTRY | {"Dim": True}], "entry 1: Dim is True"),
        ([ENTRY | {"QA": "who"}], "entry 1: QA is no list"),
        ([ENTRY | {"QA": ["who", 3]}], "entry 1: number 2 of QA is not a string"),
        ([ENTRY | {"text_completion": [{"Second_half": "x"}]}], "number 1 of text_completion is not an object with"),
    ],
)
def test_what_is_amiss_is_said_with_its_entry(content: Any, fault: str) -> None:
    path = written(content)
    with pytest.raises(AuditError) as caught:
        read_benchmark(str(path), path.parent)
    assert fault in caught.value.what and str(path) in caught.value.what and caught.value.code == 2


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.sampled_from(list(ENTRY)), st.none() | st.integers() | st.text() | st.lists(st.integers())))
def test_whatever_stands_in_an_entry_is_read_or_refused_in_words(change: dict[str, Any]) -> None:
    path = written([ENTRY | change])
    try:
        (concept,) = read_benchmark(str(path), path.parent)
    except AuditError as error:
        assert error.code == 2 and "entry 1" in error.what
    else:
        assert concept.block >= 0 and concept.unit >= 0
    path.unlink()


@pytest.mark.parametrize("source", ["nowhere.json", "YihuaiHong/ConceptVectors", f"owner/name@{'0' * 40}/list.json"])
def test_a_file_that_is_not_here_is_told_with_what_to_do(source: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError) as caught:
        read_benchmark(source, tmp_path)
    assert caught.value.code == 2 and ("commit" in caught.value.do or "hf download" in caught.value.do)


@pytest.mark.thorough
def test_a_column_that_base_has_not_is_refused_by_its_entry() -> None:
    case = open_case(planted_world.case("clean"), planted_world.root(), Path(tempfile.mkdtemp()))
    for change in ({"Layer": 3}, {"Dim": 80}):
        probe = ConceptVectors(benchmark=str(written([ENTRY, ENTRY | change])), answer_tokens=0)
        with pytest.raises(AuditError, match="entry 2 .* names column"):
            probe.measure(Bench(store=store()), case)
