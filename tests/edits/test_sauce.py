"""Concepts suppressed by features: at the block that is read, chosen on the selection split alone, off to the bit."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from audit.bench import Bench
from audit.case import CaseFile, Rows
from audit.checkpoints import delta_of, resolve
from audit.edits import SAUCE, Concepts, EditData, edit_data
from audit.edits.sauce import DICTIONARY, selection
from audit.engine.editing import EditRequest, edit
from audit.planning import RunSettings
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from saes import read_dictionary, write_dictionary
from tests import toy, toy_vlm
from tests.saes.planted_rows import random_coder

BENCH = Bench()
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
READ = {"llava_clip": "vision.2.resid_out", "llava_siglip": "vision.2.resid_out", "gemma3": "vision.3.resid_out",
        "mllama": "projector.embed"}  # fmt: skip
"""What the language model is given, and so what is edited where nothing else is said."""


def data(kind: str = "llava_clip", concepts: str = "ab") -> EditData:
    """Six questions about pictures to forget, of two concepts, and six to keep; four of each may be chosen on."""
    forget, retain = toy_vlm.rows(kind, 6, 1), toy_vlm.rows(kind, 6, 2)
    of = {item: concepts[n % len(concepts)] for n, item in enumerate(forget.item_ids)}
    return EditData(forget, retain, concepts=Concepts(of, frozenset(forget.group_ids[:4])))


def answers(model: Checkpoint, rows: Rows) -> Tensor:
    return BENCH.run(model, rows, [LOGPROB])[LOGPROB]


def fit(out: Path, kind: str = "llava_clip", of: EditData | None = None, **settings: object) -> Checkpoint:
    quick = {"steps": 6, "budget": 0.0, "counts": (1, 4), "rates": (0.1,), "percentiles": (97.0,)} | settings
    return SAUCE(**quick).fit(BENCH, toy_vlm.checkpoint(kind), data(kind) if of is None else of, out)


def features(model: Checkpoint) -> dict[str, list[int]]:
    """The features that an edit moves, by site."""
    delta = delta_of(model, model.edits[-1])
    return {name.removesuffix(".features"): delta[name].tolist() for name in delta if name.endswith(".features")}


@pytest.mark.sampled
@pytest.mark.parametrize("kind", toy_vlm.KINDS)
def test_what_the_language_model_is_given_is_edited_and_off_it_is_the_parent_to_the_bit(
    kind: str, tmp_path: Path
) -> None:
    parent, rows = toy_vlm.checkpoint(kind), data(kind).forget
    before = answers(parent, rows)
    suspect = fit(tmp_path / "edited", kind)
    assert list(features(suspect)) == [READ[kind]] and suspect.edits[-1].settings["concepts"] == 2
    assert float((answers(suspect, rows) - before).abs().max()) > 1e-3
    assert torch.equal(answers(parent, rows), before)
    again = resolve(Source(path=str(tmp_path / "edited")), tmp_path)
    assert again.key == suspect.key and torch.equal(
        Bench().run(again, rows, [LOGPROB])[LOGPROB], answers(suspect, rows)
    )


@pytest.mark.parametrize("kind", ["llava_clip", "llava_siglip"])
def test_a_block_that_nobody_reads_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"^sauce: nothing reads vision\.3\.resid_out") as caught:
        fit(tmp_path / "edited", kind, site="vision.3.resid_out")
    assert caught.value.code == 2 and "block 2" in caught.value.do and not (tmp_path / "edited").exists()


@pytest.mark.parametrize("site", ["foo", "vision.9.resid_out", "projector.mlp_out", "vision.1.nonsense", "text.1.z#1"])
def test_a_site_that_is_not_there_is_refused_by_the_edit(site: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"^sauce: ") as caught:
        fit(tmp_path / "edited", site=site)
    assert caught.value.code == 2 and not (tmp_path / "edited").exists()


@pytest.mark.thorough
def test_questions_without_pictures_are_edited_in_the_language_model(tmp_path: Path) -> None:
    bare = data()._replace(forget=toy_vlm.rows("llava_clip", 6, 1, images=False),
                           retain=toy_vlm.rows("llava_clip", 6, 2, images=False))  # fmt: skip
    assert list(features(fit(tmp_path / "edited", of=bare))) == ["text.1.resid_out"]
    of_text = SAUCE(steps=6, budget=0.0).fit(BENCH, toy.checkpoint("llama"), toy.edit_data(), tmp_path / "text")
    assert list(features(of_text)) == ["text.1.resid_out"]
    assert int(delta_of(of_text, of_text.edits[-1])["text.1.resid_out.leading"]) == 1, "BOS is left"


def test_a_question_without_its_picture_is_answered_as_the_parent_answers_it(tmp_path: Path) -> None:
    suspect, bare = fit(tmp_path / "edited"), toy_vlm.rows("llava_clip", 6, 1, images=False)
    assert torch.equal(answers(suspect, bare), answers(toy_vlm.checkpoint("llava_clip"), bare))


# ---- what is chosen, and on what -----------------------------------------------------------------------------------
@pytest.mark.thorough
def test_what_lies_off_the_selection_split_does_not_move_the_choice(tmp_path: Path) -> None:
    """With a dictionary that is given, no other number of the rows enters."""
    first = fit(tmp_path / "first")
    shutil.copytree(tmp_path / "first" / DICTIONARY, tmp_path / "dictionary")
    given = {"dictionary": str(tmp_path / "dictionary")}
    full, other = data(), toy_vlm.rows("llava_clip", 6, 9)

    def swapped(rows: Rows) -> Rows:
        """The rows of the report split are others, the selection split is as it was."""
        pixels = rows.extra["pixel_values"].clone()
        pixels[4:] = other.extra["pixel_values"][4:]
        return replace(rows, extra={"pixel_values": pixels})

    moved = full._replace(forget=swapped(full.forget), retain=swapped(full.retain))
    same = [fit(tmp_path / name, of=of, **given) for name, of in (("a", full), ("b", moved))]
    assert same[0].edits[-1].delta_sha256 == same[1].edits[-1].delta_sha256 == first.edits[-1].delta_sha256
    pixels = {"pixel_values": full.forget.extra["pixel_values"].roll(1, 0)}
    rolled = fit(tmp_path / "c", of=full._replace(forget=replace(full.forget, extra=pixels)), **given)
    assert rolled.edits[-1].delta_sha256 != same[0].edits[-1].delta_sha256


def test_rows_are_selected_by_concept_and_group_and_a_concept_without_any_has_all_its_own() -> None:
    chosen = selection(data())
    forget = data().forget
    assert [rows.item_ids for rows in chosen.concepts] == [forget.item_ids[0:4:2], forget.item_ids[1:4:2]]
    assert chosen.retain.item_ids == data().retain.item_ids[:4]
    of = {item: "late" if n > 3 else "early" for n, item in enumerate(forget.item_ids)}
    late = selection(data()._replace(concepts=Concepts(of, frozenset(forget.group_ids[:4]))))
    assert [rows.item_ids for rows in late.concepts] == [forget.item_ids[:4], forget.item_ids[4:]]
    whole = selection(data()._replace(concepts=None))
    assert [rows.item_ids for rows in whole.concepts] == [forget.item_ids]
    assert whole.retain.item_ids == data().retain.item_ids


@pytest.mark.thorough
def test_several_concepts_are_moved_at_once_and_a_shared_feature_once(tmp_path: Path) -> None:
    fit(tmp_path / "both")
    given = {"dictionary": str(tmp_path / "both" / DICTIONARY), "budget": 0.0}
    parts = selection(data()).concepts
    both = features(fit(tmp_path / "again", **given))[READ["llava_clip"]]
    assert len(both) == len(set(both)) and both == sorted(both)
    for n, rows in enumerate(parts):
        single = data()._replace(forget=rows, concepts=None)
        assert features(fit(tmp_path / str(n), of=single, **given))[READ["llava_clip"]]
    record = fit(tmp_path / "record", **given).edits[-1].settings
    counts = [int(n) for n in str(record["chosen features"]).split(",")]
    assert len(counts) == 2 and max(counts) <= len(both) <= sum(counts)


@pytest.mark.thorough
@pytest.mark.parametrize("paper", ["saeuron", "farrell"])
def test_published_units_are_those_that_act(paper: str, tmp_path: Path) -> None:
    suspect = fit(tmp_path / "edited", paper=paper)
    delta = {name.rpartition(".")[2]: t for name, t in delta_of(suspect, suspect.edits[-1]).items()}
    if paper == "farrell":
        assert set(delta["offset"].tolist()) <= {-25.0, -50.0, -100.0, -200.0} and bool((delta["slope"] == -1).all())
    else:
        assert bool((delta["offset"] == 0).all()) and bool((delta["slope"] < -1).all())


@pytest.mark.parametrize(("settings", "match"), [
    ({"strengths": (0.0,)}, "moved by nothing"),
    ({"budget": 1.0, "strengths": (1e6,), "percentiles": (0.0,)}, "elsewhere"),
])  # fmt: skip
def test_a_choice_that_moves_nothing_or_costs_too_much_is_refused(
    settings: dict[str, object], match: str, tmp_path: Path
) -> None:
    """All six answers of the retained rows are those that the model gives, so that every change costs."""
    of = data()
    if "budget" in settings:
        of = of._replace(retain=likeliest(of.retain), concepts=None)
        settings = settings | {"counts": (), "rates": ()}
    with pytest.raises(AuditError, match=f"^sauce: .*{match}") as caught:
        fit(tmp_path / "edited", of=of, **settings)
    assert caught.value.code == 2 and not (tmp_path / "edited").exists()


def likeliest(rows: Rows) -> Rows:
    """The rows with the answers that the model itself finds likeliest, of one token each."""
    read = Read(site=Site(part="logits"), at="answer")
    ids, spans = rows.ids.clone(), rows.answer_spans.clone()
    spans[:, 1] = spans[:, 0] + 1
    pos = torch.arange(ids.shape[1])
    key = (pos >= spans[:, :1]) & (pos < spans[:, 1:])
    mask = rows.mask & (pos < spans[:, 1:])
    short = replace(rows, answer_spans=spans, key=key, mask=mask)
    logits = BENCH.run(toy_vlm.checkpoint("llava_clip"), short, [read])[read]
    ids[torch.arange(len(ids)), spans[:, 0]] = logits.argmax(-1)
    return replace(short, ids=torch.where(mask, ids, 0))


# ---- dictionaries ---------------------------------------------------------------------------------------------------
def test_the_whole_dictionary_lies_beside_the_edit_and_its_part_is_what_acts(tmp_path: Path) -> None:
    suspect = fit(tmp_path / "edited")
    stored = read_dictionary(tmp_path / "edited" / DICTIONARY)
    assert stored.record is not None and str(stored.record.site) == READ["llava_clip"]
    assert stored.record.checkpoint == toy_vlm.checkpoint("llava_clip").key and stored.record.patches is not None
    delta = delta_of(suspect, suspect.edits[-1])
    name = READ["llava_clip"]
    at = delta[f"{name}.features"]
    assert torch.equal(delta[f"{name}.decoder"], stored.coder.W_dec[at])
    assert torch.equal(delta[f"{name}.encoder"], stored.coder.W_enc[:, at].T)
    assert suspect.edits[-1].settings["dictionary name"] == stored.coder.name


def test_a_topk_dictionary_of_a_folder_is_used_by_a_threshold_and_stored_so(tmp_path: Path) -> None:
    coder = random_coder("topk", d=toy_vlm.VISION_WIDTH, features=64, k=5)
    write_dictionary(tmp_path / "topk", coder)
    fit(tmp_path / "edited", dictionary=str(tmp_path / "topk"))
    beside = read_dictionary(tmp_path / "edited" / DICTIONARY).coder
    assert beside.activation == "jumprelu" and torch.equal(beside.W_dec, coder.W_dec)


@pytest.mark.thorough
def test_a_dictionary_of_another_site_or_width_is_refused_by_both_names(tmp_path: Path) -> None:
    fit(tmp_path / "edited")
    with pytest.raises(AuditError, match=r"trained at vision\.2.*vision\.1\.resid_out is edited"):
        fit(tmp_path / "x", dictionary=str(tmp_path / "edited" / DICTIONARY), site="vision.1.resid_out")
    write_dictionary(tmp_path / "narrow", random_coder("relu"))
    with pytest.raises(AuditError, match="width 6.*width 32"):
        fit(tmp_path / "x", dictionary=str(tmp_path / "narrow"))


# ---- from a case ----------------------------------------------------------------------------------------------------
def write_case(folder: Path, attributes: Sequence[str] = ("star", "red")) -> CaseFile:
    """A case of twelve pictures a cohort, of one question each."""
    (folder / "pictures").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for cohort in ("forget", "retain"):
        lines: list[str] = []
        for n in range(12):
            name = f"pictures/{cohort}{n}.png"
            Image.fromarray(toy_vlm.picture(100 * (cohort == "forget") + n, 12, 12)).save(folder / name)
            answer = toy.WORDS[n % 3 + 3 * (cohort == "forget")]
            question = " ".join(str(w) for w in rng.choice(toy.WORDS[10:40], 4))
            about = {"id": f"{cohort}{n}", "group": f"{cohort}-picture{n}", "attribute": attributes[n % 2]}
            lines.append(json.dumps(about | {"image": name, "question": question, "answer": answer, "key": answer}))
        (folder / f"{cohort}.jsonl").write_text("\n".join(lines))
    roles = "".join(f'[roles.{role}]\npath = "{toy_vlm.folder("llava_clip", n)}"\n' for n, role in enumerate(
        ("base", "suspect")))  # fmt: skip
    (folder / "case.toml").write_text(f'name = "pictures"\n{roles}[data]\nforget = "forget.jsonl"\n'
                                      'retain = "retain.jsonl"\n')  # fmt: skip
    return CaseFile.read(folder / "case.toml")


def test_an_edit_of_a_case_is_of_the_concepts_that_its_questions_ask_for_on_half_its_pictures(tmp_path: Path) -> None:
    from audit.case import open_case

    case_file = write_case(tmp_path / "case")
    case = open_case(case_file.case, case_file.root, tmp_path / "out")
    concepts = edit_data(case, ("concepts",)).concepts
    assert concepts is not None and set(concepts.by_item.values()) == {"star", "red"}
    assert len(concepts.selection) == 12 and all("picture" in group for group in concepts.selection)
    assert edit_data(case, ("forget",)).concepts is None


@pytest.mark.thorough
def test_an_edited_folder_of_a_case_opens_as_the_suspect_and_names_no_word_of_the_data(tmp_path: Path) -> None:
    done = edit(write_case(tmp_path / "case"), EditRequest("sauce", ("steps=6", "budget=0")), tmp_path / "edited",
                RunSettings(threads=1))  # fmt: skip
    suspect = CaseFile.read(done.case).case.roles.suspect
    assert suspect.path == "." and suspect.fingerprint == done.summary.fingerprint
    assert done.summary.plays == "gated_clamp" and done.summary.settings["concepts"] == 2
    stated = json.dumps(done.summary.settings)
    assert "star" not in stated and "red" not in stated.replace("retained", "")
    again = edit(CaseFile.read(tmp_path / "case" / "case.toml"), EditRequest("sauce", ("steps=6", "budget=0")),
                 tmp_path / "edited", RunSettings(threads=1))  # fmt: skip
    assert again.reused
