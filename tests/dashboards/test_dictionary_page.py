"""The page of a dictionary: models side by side, forget items masked, hostile text inert, damage said in words."""

import os
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from audit.schema import Cohort
from dashboards.serving import RUNS
from saes import VIEW, DictionaryView, FeatureView, Fidelity, ModelView, TopRow, Validity
from tests.dashboards.test_pages import APP, TIMEOUT, told
from tests.golden import HOSTILE

NAMES = ("base", "suspect", "reference")
SECRET = "anna was born in dunmare"


def row(text: str, cohort: Cohort = "retain", masked: bool = False) -> TopRow:
    return TopRow(text=text, masked=masked, cohort=cohort, code=1.25, share=0.5, spot="row 1 of 4, column 2 of 4")


def view(text: str = "boris grows pears", forget: TopRow | None = None, valid: bool = True) -> DictionaryView:
    """Three features: the second is silent in the suspect, the third fires more there."""
    good = Fidelity(fve=0.91, l0=2.5, dead=1, features=4, rows=640)
    gate = Validity(valid=valid, because="it explains 0.893 of this model's variance", base=good, other=good)
    forgotten = forget or row(SECRET, "forget")
    rates = ((0.5, 0.4, 0.1, 0.0), (0.5, 0.01, 0.4, 0.0), (0.5, 0.02, 0.1, 0.0))
    models = tuple(
        ModelView(name=name, fidelity=good, validity=gate, rates=own, forget_rates=own)
        for name, own in zip(NAMES, rates, strict=True)
    )
    tops = ((row(text),), (forgotten,), (row(text), row("pears are green")))
    features = tuple(
        FeatureView(feature=n, top=(tops[n], (row("something else"),), ()) if n == 1 else (tops[n],) * 3)
        for n in range(3)
    )
    return DictionaryView(
        name="text.1.resid_out", case="toy", site="text.1.resid_out", patches=None, activation="topk", k=2, width=4,
        own_base=False, models=models, features=features,
    )  # fmt: skip


def opened(root: Path, **state: str) -> AppTest:
    os.environ[RUNS] = str(root)
    at = AppTest.from_file(str(APP), default_timeout=TIMEOUT)
    for key, value in state.items():
        at.session_state[key] = value
    at.run()
    at.switch_page("../pages/dictionary.py").run()
    assert not at.exception, at.exception
    return at


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESIDUA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "runs"


def put(root: Path, seen: DictionaryView | str, name: str = "saes/text.1.resid_out") -> None:
    path = root / name / VIEW
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(seen if isinstance(seen, str) else seen.model_dump_json(), encoding="utf-8")


def test_features_stand_side_by_side_by_rate_or_by_what_changed(root: Path) -> None:
    put(root, view())
    at = opened(root)
    words = told(at)
    for expected in ("Valid on the suspect: it explains 0.893", "other weights than those of this case", "0.91",
                     "is silent; in the reference it is silent; 0 of base&#39;s 1 top items",
                     "fires more; in the reference it fires about as often"):  # fmt: skip
        assert expected in words, expected
    assert at.selectbox(key="feature").options == ["0", "1", "2"]
    by_change = at.selectbox(key="by").set_value("change from base to the suspect").run()
    assert by_change.selectbox(key="feature").options == ["1", "2", "0"] and not by_change.exception
    second = told(by_change.selectbox(key="feature").set_value("1").run())
    columns = second[second.index("r-columns") :]
    assert [columns.index(f"<h3>{name}</h3>") for name in NAMES] == sorted(
        columns.index(f"<h3>{n}</h3>") for n in NAMES
    )
    assert "not among base&#39;s" in columns and "It never fires." in columns and "column 2 of 4" in columns


def test_items_to_be_forgotten_are_masked_until_they_are_asked_for(root: Path) -> None:
    put(root, view())
    at = opened(root)
    at.selectbox(key="feature").set_value("1").run()
    assert SECRET not in told(at) and "\u2039masked, 5 words\u203a" in told(at)
    at.toggle(key="reveal").set_value(True).run()
    assert SECRET in told(at) and "The items are shown" in told(at)


def test_what_was_written_masked_stays_masked_and_cannot_be_revealed(root: Path) -> None:
    put(root, view(forget=row("\u2039masked 0f3a, 5 words\u203a", "forget", masked=True)))
    at = opened(root)
    at.selectbox(key="feature").set_value("1").run()
    assert "\u2039masked 0f3a, 5 words\u203a" in told(at) and not [t for t in at.toggle if t.key == "reveal"]


def test_hostile_text_is_inert(root: Path) -> None:
    hostile = view(f"<script>alert(1)</script>{HOSTILE}").model_copy(update={"case": "<img src=x onerror=alert(2)>"})
    put(root, hostile)
    words = told(opened(root))
    assert "<script>alert" not in words and "<img src=x" not in words and "&lt;script&gt;alert(1)" in words


def test_a_dictionary_that_is_not_valid_there_is_said_to_be_so_first(root: Path) -> None:
    put(root, view(valid=False))
    words = told(opened(root))
    assert "Not valid on the suspect" in words and "the dictionary is not valid there; is silent" in words


@pytest.mark.parametrize(
    "damage",
    [
        "", "{}", "[1]", "{'a'}", view().model_dump_json()[:-40],
        view().model_dump_json().replace('"version":1', '"version":2'),
        view().model_dump_json().replace('"width":4', '"width":5'),
        view().model_dump_json().replace('"feature":2', '"feature":4'),
        view().model_dump_json().replace('"feature":2', '"feature":-1'),
        view().model_dump_json().replace(',[]]}', ']}', 1),
        view().model_dump_json().replace("0.893", "0.893<b>", 1).replace('"name":"base"', '"nam":"base"'),
    ],
)  # fmt: skip
def test_a_damaged_file_is_said_to_be_one(damage: str, root: Path) -> None:
    put(root, damage)
    words = told(opened(root))
    assert "This cannot be shown" in words and "saes/text.1.resid_out/features.json cannot be read" in words
    assert "residua sae show" in words and "This page broke" not in words


def test_links_are_not_followed_and_without_a_dictionary_the_page_says_how_to_make_one(root: Path) -> None:
    put(root.parent / "elsewhere", view())
    root.mkdir()
    (root / "saes").symlink_to(root.parent / "elsewhere" / "saes")
    words = told(opened(root))
    assert "No dictionary" in words and "Valid on the suspect" not in words


def test_several_dictionaries_are_listed_by_path(root: Path) -> None:
    for n in (2, 0):
        put(root, view().model_copy(update={"name": f"text.{n}.resid_out"}), f"saes/text.{n}.resid_out")
    at = opened(root, dictionary="saes/text.2.resid_out")
    box = at.selectbox(key="dictionary")
    assert box.options == ["saes/text.0.resid_out", "saes/text.2.resid_out"] and box.value == "saes/text.2.resid_out"
