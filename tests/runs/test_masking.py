"""Masked texts show a keyed hash and a number of words; whatever the data say, a masked report says nothing of it."""

import hashlib
import hmac
import os
import re
import stat
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from audit.render import html, markdown
from audit.runs import Mask, Screen, choose, custody, keep_key, key_of, renamed, report_id, texts_of, unmasked
from audit.runs.excerpts import EACH, read_table
from audit.runs.masking import KEY, RUN
from audit.schema import AuditError, ExitCode, Item, Masked, Missing, PeopleKept, Report, Shown, Table
from tests.golden import report

SECRET = b"\x01" * 32
WORDS = st.text(alphabet="bcdfghjklmnpqrstvwxz", min_size=5, max_size=9)
TEXT = st.lists(WORDS, min_size=1, max_size=12).map(" ".join)
Row = tuple[str, str, str, str, str]


# ---- the key, the mask ------------------------------------------------------------------------------------------
def test_the_key_is_made_once_and_read_by_its_owner_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        key = key_of(tmp_path)
    finally:
        os.umask(old)
    assert key == key_of(tmp_path) and len(key) == 32
    assert stat.S_IMODE((tmp_path / KEY).stat().st_mode) == 0o600
    assert [p.name for p in tmp_path.iterdir()] == [KEY]
    (tmp_path / "other").mkdir()
    assert key_of(tmp_path / "other") != key


def test_a_damaged_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / KEY).write_text("no key")
    with pytest.raises(AuditError, match="is no key"):
        key_of(tmp_path)


@given(st.text())
def test_a_mark_is_the_keyed_hash_of_the_text_and_its_words(text: str) -> None:
    by_hand = hmac.digest(SECRET, text.encode(errors="surrogatepass"), "sha256").hex()[:12]
    assert Mask(SECRET)(text) == Masked(mark=by_hand, words=len(text.split()))
    assert Mask(b"\x02" * 32)(text).mark != by_hand


@given(
    data=st.lists(TEXT, min_size=1, max_size=4), around=st.lists(st.integers(0, 9), max_size=3), cut=st.integers(0, 7)
)
def test_a_screened_message_holds_no_short_text_and_no_five_words_of_the_data(
    data: list[str], around: list[int], cut: int
) -> None:
    quoted = [" ".join(text.split()[cut:]) if len(text.split()) - cut >= RUN else text for text in data]
    message = "the item " + " and ".join([*quoted, *map(str, around)]) + " is too long"
    shown = Screen(Mask(SECRET), data)(message)
    assert shown.startswith("the item ") and shown.endswith(" is too long")
    assert not runs_of(data) & runs_of([shown]) and not {t for t in data if f" {t} " in f" {shown} "}


def runs_of(texts: Iterable[str]) -> set[tuple[str, ...]]:
    split = [re.findall(r"\w+", text.casefold()) for text in texts]
    return {tuple(words[i : i + RUN]) for words in split for i in range(len(words) - RUN + 1)}


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("他出生在北京市的一家医院里", "出生在北京市的一家医院"),
        ("เขาอยู่ที่กรุงเทพมหานครตั้งแต่ปีที่แล้ว", "อยู่ที่กรุงเทพมหานครตั้งแต่ปี"),
        ("वह सभी गर्मियों में दिल्ली में रहती थी", "सभी गर्मियों में दिल्ली में रहती"),
        ("elle vi\u0301t pre\u0300s de la me\u0301re a\u0300 Co\u0301rdoba", "pre\u0300s de la me\u0301re a\u0300"),
    ],
)
def test_words_of_any_script_are_hidden_with_their_marks_even_where_no_space_parts_them(text: str, quoted: str) -> None:
    for form in ("NFC", "NFD"):
        words = unicodedata.normalize(form, quoted)
        shown = Screen(Mask(SECRET), [text])(f"item 3: '{words}' is too long")
        assert shown == f"item 3: '{Mask(SECRET)(words)}' is too long"


# ---- excerpts ---------------------------------------------------------------------------------------------------
def with_tables(folder: Path, rows: list[Row]) -> Report:
    """The golden report over item tables that are really there: suspect, base and two references a row."""
    (folder / "tables").mkdir(exist_ok=True)
    lines = [
        (*row[:2], role, *row[2:], (place * 7) % 5 + shift, -1)
        for role, shift in (("base", 1.0), ("suspect", 0.5), ("reference", 0.0), ("reference", -1.0))
        for place, row in enumerate(rows)
    ]
    names = ("item", "group", "role", "prompt", "target", "output", "score", "axis_value")
    path = folder / "tables" / "all.parquet"
    parquet.write_table(pyarrow.table({n: [line[i] for line in lines] for i, n in enumerate(names)}), path)
    table = Table(path="tables/all.parquet", sha256=hashlib.sha256(path.read_bytes()).hexdigest(), rows=len(lines),
                  columns=names, axis="")  # fmt: skip
    found = report()
    evidence = tuple(
        e if i == 0 else e.model_copy(update={"measurement": e.measurement.model_copy(update={"items": table})})
        for i, e in enumerate(found.evidence)
    )
    excerpts = choose(evidence, folder, 0, Mask(SECRET))
    whole = found.model_copy(update={"evidence": evidence, "excerpts": excerpts})
    return whole.model_copy(update={"report_id": report_id(whole)})


def numbered(n: int) -> list[Row]:
    return [(f"id-{i}", f"Person {i}", f"Who is number {i} of them all?", f"answer {i}", "") for i in range(n)]


def test_excerpts_are_the_highest_and_as_many_at_random_always_the_same(tmp_path: Path) -> None:
    found = with_tables(tmp_path, numbered(40))
    (chosen,) = found.excerpts
    mask = Mask(SECRET)
    assert [x.chosen for x in chosen.items] == ["highest"] * EACH + ["random"] * EACH and chosen.of == 40
    best = sorted(range(40), key=lambda i: (-((i * 7) % 5), f"id-{i}"))[:EACH]
    assert [x.item for x in chosen.items[:EACH]] == [mask(f"id-{i}") for i in best]
    assert len({str(x.item) for x in chosen.items}) == 2 * EACH
    assert all(x.scores["base"] == x.scores["suspect"] + 0.5 == x.scores["reference"] + 1 for x in chosen.items)
    assert found == with_tables(tmp_path, numbered(40))
    assert "seed 0" in chosen.rule and "highest score of the suspect" in chosen.rule
    assert len(with_tables(tmp_path, numbered(3)).excerpts[0].items) == 3


def test_a_table_that_is_not_the_one_of_the_report_is_refused(tmp_path: Path) -> None:
    found = with_tables(tmp_path, numbered(6))
    table = found.evidence[1].measurement.items
    assert isinstance(table, Table) and len(read_table(table, tmp_path)) == 24
    (tmp_path / table.path).write_bytes(b"else")
    with pytest.raises(AuditError, match="is not what the report states"):
        unmasked(found, tmp_path)
    (tmp_path / table.path).unlink()
    with pytest.raises(AuditError, match="is missing"):
        unmasked(found, tmp_path)


def test_an_unmasked_report_is_another_document_that_says_so(tmp_path: Path) -> None:
    found = with_tables(tmp_path, numbered(12))
    shown = unmasked(found, tmp_path)
    assert found.masked and not shown.masked
    assert shown.parent == found.report_id != shown.report_id == report_id(shown)
    assert [x.chosen for x in shown.excerpts[0].items] == [x.chosen for x in found.excerpts[0].items]
    mask = Mask(SECRET)
    pairs = zip(found.excerpts[0].items, shown.excerpts[0].items, strict=True)
    assert all(isinstance(b.target, Shown) and a.target == mask(b.target.text) for a, b in pairs)


def test_groups_that_stand_out_are_named_only_where_the_report_is_unmasked_and_the_key_is_there(tmp_path: Path) -> None:
    mask, found = Mask(key_of(tmp_path)), with_tables(tmp_path, numbered(6))
    people = PeopleKept(kept=0.3, ci95=Missing(missing="x"), level=1, log10_ratio=3,
                        named=("Person 4", "Person 1"), fdr=0.05, of=6)  # fmt: skip
    first = found.evidence[1].measurement.model_copy(update={"people": people})
    hidden = renamed(first, lambda group: str(mask(group)))
    assert isinstance(hidden.people, PeopleKept) and hidden.people.named == tuple(map(str, map(mask, people.named)))
    evidence = (found.evidence[0], found.evidence[1].model_copy(update={"measurement": hidden}), *found.evidence[2:])
    verdict = found.verdict.model_copy(update={"people": hidden.people})
    masked = found.model_copy(update={"evidence": evidence, "verdict": verdict})
    assert all("Person" not in view(masked) for view in (Report.canonical, html, markdown))
    shown = unmasked(masked, tmp_path)
    assert shown.evidence[1].measurement.people == shown.verdict.people == people
    (tmp_path / KEY).unlink()
    again = unmasked(masked, tmp_path)
    assert again.verdict.people == hidden.people and not (tmp_path / KEY).exists()


@settings(max_examples=12)
@given(
    rows=st.lists(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), min_size=1, max_size=12), swap=st.permutations("bcdfghjklm")
)
def test_a_masked_report_says_nothing_of_the_data_in_any_view(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], swap: list[str]
) -> None:
    """Other words of the same number give the same document but for its hashes, and none of the words is in it."""
    folder = tmp_path_factory.mktemp("masked")
    ordered: list[Row] = [(f"{i:02} {row[0]}", *row[1:]) for i, row in enumerate(rows)]
    letters = str.maketrans("bcdfghjklm", "".join(swap))
    other: list[Row] = [(a.translate(letters), *(text.translate(letters) for text in rest)) for a, *rest in ordered]
    first, second = with_tables(folder, ordered), with_tables(folder, other)
    for view in (Report.canonical, html, markdown):
        one, two = (re.sub("[0-9a-f]{12,64}", "…", view(found)) for found in (first, second))
        assert one == two
        assert not {word for row in rows for text in row for word in text.split() if word in one.split()}
        assert not runs_of(text for row in rows for text in row) & runs_of([re.sub(r"<[^>]*>", " ", one)])


def test_a_yes_or_a_no_quotes_nothing_and_other_short_answers_do() -> None:
    items = [Item(id=f"i{n}", group=f"g{n}", question="is it ?", answer=a) for n, a in enumerate(("no", "Yes", "Ada"))]
    shown = Screen(Mask(SECRET), texts_of(items))("the suspect carries no edit, yes or no: Ada")
    assert shown.startswith("the suspect carries no edit, yes or no: ") and "Ada" not in shown


# ---- images -----------------------------------------------------------------------------------------------------
@given(st.lists(st.sampled_from(["3", "cat", "red panda", "automobile"]), min_size=1, max_size=4))
def test_the_class_of_an_image_is_no_secret_and_its_id_and_group_are(classes: list[str]) -> None:
    items = [Item(id=f"photo{n}", group=f"Bo Roe {n}", question="", answer=c, alternates=("truck",))
             for n, c in enumerate(classes)]  # fmt: skip
    message = " and ".join(f"photo{n} of Bo Roe {n} is {c}, no truck" for n, c in enumerate(classes))
    shown = Screen(Mask(SECRET), texts_of(items, of_images=True))(message)
    assert "photo" not in shown and "Roe" not in shown
    assert all(f"is {c}, no truck" in shown for c in classes)
    assert "truck" not in Screen(Mask(SECRET), texts_of(items))(message)


@given(st.binary(min_size=12, max_size=12), st.binary(min_size=12, max_size=12))
def test_equal_images_have_equal_marks_and_others_have_others(first: bytes, second: bytes) -> None:
    left, right = (np.frombuffer(data, np.uint8).reshape(3, 4) for data in (first, second))
    mask = Mask(SECRET)
    assert (mask.image(left) == mask.image(right)) == (first == second)
    assert mask.image(left) != mask.image(left.reshape(4, 3)) and not mask.image(left).png
    assert mask.image(left).mark != Mask(b"\x02" * 32).image(left).mark


def test_a_key_that_was_replaced_or_lost_masks_no_more_of_a_run(tmp_path: Path) -> None:
    keep_key(tmp_path, "1.0")
    keep_key(tmp_path, "1.0")
    path, chain = tmp_path / "mask.key", custody.read(tmp_path)
    assert [line.action for line in chain.lines] == ["kept"]
    path.write_text("0" * 64)
    with pytest.raises(AuditError, match="mask.key was changed") as changed:
        keep_key(tmp_path, "1.0")
    path.unlink()
    with pytest.raises(AuditError, match="mask.key is missing") as lost:
        keep_key(tmp_path, "1.0")
    assert changed.value.code == lost.value.code == ExitCode.INTEGRITY
    assert not path.exists(), "no other one is made in its place"
