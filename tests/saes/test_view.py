"""A dictionary on the models of a case: rates and top items side by side, the gate in words, features in pairs."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from audit.bench import Bench
from audit.case import CaseFile, open_case
from audit.cli import main
from audit.schema import AuditError, Site
from saes import (
    VIEW,
    BenchActivations,
    CaseModels,
    CaseTexts,
    DictionaryView,
    Shown,
    SparseCoder,
    TrainingSettings,
    match_dictionaries,
    measure,
    read_dictionary,
    texts_of_case,
    train,
    validity,
    view_dictionary,
    write_dictionary,
)
from saes.dictionary_folder import StoredDictionary
from tests import image_toy
from tests.saes.planted_rows import random_coder


class Trained:
    """A dictionary of the class token of the digits case, and the case's models."""

    def __init__(self, out: Path) -> None:
        file = CaseFile.read(image_toy.digits_case() / "tuned.toml")
        case = open_case(file.case, file.root, out)
        base = case.checkpoint("base")
        by_name = {"base": base, "suspect": case.checkpoint("suspect"), "reference": case.checkpoint("reference")}
        self.models = CaseModels("digits", Bench(), texts_of_case(case, base), by_name)
        site = Site(part="resid_out", block=1)
        self.sources = {
            name: BenchActivations(self.models.bench, model, self.models.texts, [site])
            for name, model in by_name.items()
        }
        settings = TrainingSettings(features=40, k=6, rows=60_000, batch=64)
        own = self.sources["base"]
        (self.stored,) = train(own, own, settings, out, own.sites)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Trained(tmp_path_factory.mktemp("view"))


def in_clear(features: int = 5, items: int = 4) -> Shown:
    return Shown(features, items, lambda top: (top.item.id, False))


@pytest.mark.thorough
def test_a_view_says_of_every_model_what_its_own_rows_say(trained: Trained) -> None:
    view = view_dictionary(trained.stored, trained.models, in_clear())
    assert [model.name for model in view.models] == ["base", "suspect", "reference"] and view.own_base
    name, coder = "text.1.resid_out", trained.stored.coder
    forget = torch.tensor([cohort == "forget" for cohort in trained.models.texts.cohorts])
    for model, source in zip(view.models, trained.sources.values(), strict=True):
        codes = torch.cat([coder.encode(source.chunk(n)[name]) for n in range(len(source.sizes))])
        owners = torch.cat([source.owners(n) for n in range(len(source.sizes))])
        assert torch.tensor(model.rates).tolist() == pytest.approx((codes > 0).float().mean(0).tolist(), abs=1e-6)
        own = (codes[forget[owners]] > 0).float().mean(0)
        assert torch.tensor(model.forget_rates).tolist() == pytest.approx(own.tolist(), abs=1e-6)
        assert model.fidelity == measure(coder, source, name).fidelity
        assert model.validity == validity(view.models[0].fidelity, model.fidelity)
    by_rate = sorted(range(40), key=lambda n: (-view.models[0].rates[n], n))[:5]
    assert [feature.feature for feature in view.features[:5]] == by_rate
    before, after = (torch.tensor(model.forget_rates) for model in view.models[:2])
    by_change = (after - before).abs().argsort(descending=True, stable=True)[:5].tolist()
    assert [feature.feature for feature in view.features] == list(dict.fromkeys([*by_rate, *by_change]))
    assert 5 < len(view.features) <= 10 and view == DictionaryView.model_validate_json(view.model_dump_json())
    for feature in view.features:
        assert all(len(rows) <= 4 and [r.code for r in rows] == sorted((r.code for r in rows), reverse=True)
                   for rows in feature.top)  # fmt: skip


@pytest.mark.thorough
def test_the_same_model_under_two_names_changes_in_nothing(trained: Trained) -> None:
    base = trained.models.by_name["base"]
    models = trained.models._replace(by_name={"base": base, "suspect": base, "reference": base})
    view = view_dictionary(trained.stored, models, in_clear())
    for feature in view.features:
        words = view.change(feature)
        assert "fires about as often" in words or "never fires" in words
        count = len(feature.top[0])
        assert not count or f"{count} of base's {count} top items are the suspect's too" in words


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("base", "suspect", "words"),
    [(0.5, 0.0, "is silent"), (0.5, 0.04, "is silent"), (0.5, 0.2, "fires less"), (0.5, 0.5, "about as often"),
     (0.2, 0.5, "fires more"), (0.0, 0.1, "not in base"), (0.0, 0.0, "never fires")],
)  # fmt: skip
def test_a_change_is_said_in_words(base: float, suspect: float, words: str, trained: Trained) -> None:
    view = view_dictionary(trained.stored, trained.models, in_clear(1))
    rates = [tuple([rate] * 40) for rate in (base, suspect, base)]
    models = [m.model_copy(update={"forget_rates": r}) for m, r in zip(view.models, rates, strict=True)]
    changed = view.model_copy(update={"models": tuple(models)})
    first = changed.change(changed.features[0])
    assert words in first.split(";")[0] and "in the reference, where the dictionary is not valid, it" in first
    gate = models[2].validity.model_copy(update={"valid": True})
    there = changed.model_copy(update={"models": (*models[:2], models[2].model_copy(update={"validity": gate}))})
    assert "; in the reference it " in there.change(there.features[0])
    broken = models[1].validity.model_copy(update={"valid": False})
    invalid = changed.model_copy(update={"models": (models[0], models[1].model_copy(update={"validity": broken}))})
    assert invalid.change(changed.features[0]).startswith("the dictionary is not valid there")


@pytest.mark.thorough
def test_a_dictionary_without_a_record_of_ours_is_not_looked_at(trained: Trained, tmp_path: Path) -> None:
    write_dictionary(tmp_path / "d", random_coder("topk", d=32))
    with pytest.raises(AuditError, match="no record of ours") as refused:
        view_dictionary(read_dictionary(tmp_path / "d"), trained.models, in_clear())
    assert refused.value.code == 2


@pytest.mark.parametrize("seed", range(4))
def test_features_of_two_dictionaries_are_paired_by_what_they_write(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    coder, order = random_coder("topk", d=20, features=12, seed=seed), torch.randperm(12, generator=g)
    shuffled = SparseCoder(coder.W_enc[:, order], coder.b_enc[order], 3 * coder.W_dec[order], coder.b_dec, "topk", 3)
    rates = torch.rand(12, generator=g)
    first = StoredDictionary(Path("first"), coder, None, rates)
    match = match_dictionaries(first, StoredDictionary(Path("second"), shuffled, None, rates[order]))
    assert [order[n] for n in match.second] == list(match.first) and match.mean_max_cosine == pytest.approx(1)
    assert match.cosine == pytest.approx([1.0] * 12) and match.other == "second"
    with pytest.raises(AuditError, match="no firing rates") as refused:
        match_dictionaries(first, StoredDictionary(Path("second"), shuffled, None, None))
    assert refused.value.code == 2


@pytest.mark.thorough
def test_the_command_shows_three_models_side_by_side_and_leaves_a_masked_view(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case, out = image_toy.digits_case() / "tuned.toml", tmp_path / "d"

    def call(*words: object) -> Any:
        capsys.readouterr()
        assert main(["sae", *map(str, words), "--store", "none"]) == 0
        return capsys.readouterr()

    flags = ("--site", "1", "--width", "40", "--k", "6", "--rows", "20000", "-q")
    call("train", case, *flags, "-o", out / "base")
    call("train", case, *flags, "-o", out / "suspect", "--role", "suspect")
    shown = call("show", out / "base", case, "-o", out, "--match", out / "suspect").out
    for words in ("in reference, 160 rows: FVE", "on the reference: it explains", "on the suspect: it explains",
                  "cosine", "whose rate at forget items", "top items"):  # fmt: skip
        assert words in " ".join(shown.split()), words
    text = (out / "text.1.resid_out" / VIEW).read_text()
    view = DictionaryView.model_validate_json(text)
    assert view.case == "digits" and view.own_base and "forget-" not in text
    rows = [row for feature in view.features for tops in feature.top for row in tops]
    assert {row.masked for row in rows if row.cohort == "forget"} == {True}
    assert not any(row.masked for row in rows if row.cohort != "forget")
    document = json.loads(call("show", out / "suspect", case, "--json", "-q").out)
    (other,) = document["dictionaries"]
    assert not other["trained_on_this_base"] and set(other["validities"]) == {"base", "suspect", "reference"}
    matched = json.loads(call("show", out / "base", "--match", out / "suspect", "--json").out)["dictionaries"][0]
    assert len(matched["match"]["cosine"]) == 40 and 0.2 < matched["match"]["mean_max_cosine"] < 1
    assert main(["sae", "show", str(out / "base"), "--match", str(tmp_path)]) == 2


@pytest.mark.thorough
def test_items_of_no_forget_set_have_no_rates_of_their_own(trained: Trained) -> None:
    places = torch.tensor([n for n, cohort in enumerate(trained.models.texts.cohorts) if cohort != "forget"])
    texts: CaseTexts = trained.models.texts.take(places)
    view = view_dictionary(trained.stored, trained.models._replace(texts=texts), in_clear())
    assert all(model.forget_rates == () for model in view.models)
    feature = view.features[0]
    assert view.rate(1, feature.feature, True) == view.models[1].rates[feature.feature]
