"""``residua sae``: dictionaries of a case's base, trained from the command line and looked at, forget texts masked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from audit.cli import main
from saes import write_dictionary
from tests.case.test_opened import root as root
from tests.saes.planted_rows import random_coder

TRAIN = ("--site", "0,2", "--width", "16", "--k", "2", "--rows", "3000", "--store", "none")


class Heard(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out.splitlines()[-1])


Call = Callable[..., Heard]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*argv: object) -> Heard:
        capsys.readouterr()
        code = main(["sae", *map(str, argv)])
        return Heard(code, *capsys.readouterr())

    return run


@pytest.mark.thorough
def test_dictionaries_are_trained_shown_and_looked_at_with_forget_texts_masked(call: Call, root: Path) -> None:
    out = root / "dictionaries"
    trained = call("train", root / "case.toml", *TRAIN, "-o", out, "--json")
    assert trained.code == 0, trained.err
    sites = [each["record"]["site"]["block"] for each in trained.document["dictionaries"]]
    assert sites == [0, 2] and "training text.0.resid_out: FVE" in trained.err and "rows/s" in trained.err
    assert "left" in trained.err and "2976/2976" in trained.err
    again = call("train", root / "case.toml", *TRAIN, "-o", out, "--json")
    assert again.document == trained.document and "training text" not in again.err

    shown = call("show", out)
    assert shown.code == 0 and "text.0.resid_out" in shown.out and "text.2.resid_out" in shown.out and not shown.err
    looked = call("show", out / "text.2.resid_out", root / "case.toml", "--json", "--store", "none", "--features", 6)
    (view,) = looked.document["dictionaries"]
    assert view["trained_on_this_base"] and view["validity"]["base"]["rows"] > view["record"]["held_out"]["rows"]
    rates = [feature["firing_rate"]["base"] for feature in view["top_features"]]
    assert len(rates) == 6 and rates == sorted(rates, reverse=True) and rates[0] > 0
    texts = [text for feature in view["top_features"] for text in feature["top_texts"]]
    assert {text["cohort"] for text in texts} == {"forget", "retain"}
    for text in texts:
        assert text["text"].startswith("‹masked") == (text["cohort"] == "forget")
        assert text["code"] > 0 and 0 < text["share"] <= 1
    for people in ("anna", "boris", "clara", "david"):
        assert people not in looked.out + looked.err
    clear = call("show", out / "text.2.resid_out", root / "case.toml", "--store", "none", "--unmask")
    assert any(people in clear.out for people in ("anna", "boris", "clara", "david")) and "masked" not in clear.out
    assert "on the suspect: it explains" in clear.out


def test_output_flags_hold_before_and_behind_the_action(call: Call, tmp_path: Path) -> None:
    write_dictionary(tmp_path / "d", random_coder("topk"))
    for words in (("--json", "show", tmp_path), ("show", tmp_path, "--json"), ("--json", "show", tmp_path / "d")):
        (each,) = call(*words).document["dictionaries"]
        assert each["k"] == 3 and each["record"] is None


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (("--site", "3"), "no block of base"), (("--site", "0,x"), "--site x"), (("--site", "0,"), "--site"),
        (("--site", "0,0"), "each once"), (("--k", "16"), "16 of 16 features"), (("--k", "40"), "40 of 16"),
        (("--device", "abacus"), "abacus"), (("--patches", "3"), "places of images"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_code_2_and_writes_no_dictionary(
    flags: tuple[str, ...], word: str, call: Call, root: Path
) -> None:
    heard = call("train", root / "case.toml", *TRAIN, "-o", root / "d", "-q", *flags)
    assert heard.code == 2 and word in heard.err and not list((root / "d").rglob("cfg.json"))


def test_a_damaged_or_foreign_dictionary_is_told_by_its_code(call: Call, root: Path) -> None:
    write_dictionary(root / "d", random_coder("topk"))
    foreign = call("show", root / "d", root / "case.toml", "-q")
    assert foreign.code == 2 and "no record of ours" in foreign.err
    nowhere = call("show", root / "d", "-o", root / "seen")
    assert nowhere.code == 2 and "name the case" in nowhere.err and not (root / "seen").exists()
    (root / "d" / "sae_weights.safetensors").write_bytes(b"")
    damaged = call("show", root / "d")
    assert damaged.code == 3 and "sae_weights.safetensors" in damaged.err
    assert call("show", root / "nothing").code == 2
