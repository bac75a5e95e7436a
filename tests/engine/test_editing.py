"""Edits made from a case: every edit of the house, an audit of what it left, whole folders, resuming, refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageClassification, AutoTokenizer

from audit.bench import Bench
from audit.case import CaseFile, open_case
from audit.checkpoints import delta_of
from audit.edits import NPO, Choice, Edit, edit_data
from audit.engine import Edited, EditRequest, edit, run
from audit.engine.editing import CASE, SUMMARY
from audit.planning import RunSettings, Step
from audit.plugins import discover
from audit.review import verify_run
from audit.schema import AuditError, Checkpoint, EditSummary, Read, Site, Texts
from tests import image_toy, planted_world, toy
from tests.case.test_opened import people, write_rows
from tests.planted import planted_package

EDITS = discover("audit.edits", Edit)
QUICK = ("steps=3", "batch=4", "warmup_steps=1", "sample=4")
SETTINGS = (*QUICK, "poison_rate=0.5")
"""The toy's forget set has four groups: a tenth of them, which edits poison unless told, would be none."""
LOGPROB = Read(site=Site(part="logits"), at="answer", reduce="logprob")
SAID = "where is it"
OF_EACH_KIND = ("npo", "refusal", "salun", "quantise", "head_edit", "logit_bias")
"""One that descends, one that needs refusals, one that works in place, one without data, one of the head, a hook."""


def case_of(root: Path, family: str = "llama", dtype: torch.dtype = torch.float32) -> CaseFile:
    """A case without a suspect: base, a reference and the ancestor in one folder, the file in another."""
    for seed, role in enumerate(("base", "reference", "ancestor")):
        shutil.copytree(toy.folder(family, seed, dtype), root / "models" / role, dirs_exist_ok=True)
    write_rows(root / "forget.jsonl", people("anna boris clara david", "f"))
    write_rows(root / "retain.jsonl", people("elena felix greta", "r"))
    (root / "cases").mkdir(exist_ok=True)
    (root / "cases" / "case.toml").write_text(
        'name = "toy"\n[roles.base]\npath = "../models/base"\n[[roles.references]]\npath = "../models/reference"\n'
        '[roles.ancestor]\npath = "../models/ancestor"\n[data]\nforget = "../forget.jsonl"\n'
        'retain = "../retain.jsonl"\n'
    )
    return CaseFile.read_unedited(root / "cases" / "case.toml")


@pytest.fixture
def case_file(tmp_path: Path) -> CaseFile:
    return case_of(tmp_path)


def request(name: str, **more: Any) -> EditRequest:
    """The edit in a few steps; refusing answers of the toy's own words."""
    stated = tuple(pair for pair in SETTINGS if pair.partition("=")[0] in EDITS[name].model_fields)
    return EditRequest(name, **{"settings": stated, "choice": Choice(refusals=(SAID,)), **more})


def opened(folder: Path) -> Checkpoint:
    """The suspect of the case in an edited folder, as an audit opens it."""
    case_file = CaseFile.read(folder / CASE)
    return open_case(case_file.case, case_file.root, folder / "out").suspect


def made(case_file: CaseFile, folder: Path, name: str, **more: Any) -> Edited:
    return edit(case_file, request(name, **more), folder, RunSettings())


# ---- every edit ---------------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize(
    "name",
    [
        name if name in OF_EACH_KIND else pytest.param(name, marks=pytest.mark.slow)
        for name, cls in EDITS.items()
        if not cls.of_images
    ],
)
def test_every_edit_leaves_a_folder_whose_case_opens_with_it_as_the_suspect(
    name: str, case_file: CaseFile, tmp_path: Path
) -> None:
    result = made(case_file, tmp_path / "out" / "edited", name)
    suspect, summary = opened(result.folder), result.summary
    assert suspect.edits[-1].name == name == summary.edit and summary.fingerprint == suspect.key
    assert suspect.edits[-1].plays == summary.plays == EDITS[name].plays
    assert set(summary.rows) == {"forget", "retain"} | (set(EDITS[name].needs) & {"refusal", "relabelled"})
    assert summary.cpu_s > 0 and summary.steps == (3 if "steps=3" in request(name).settings and summary.steps else 0)
    assert (summary.change is None) == (summary.plays != "weights") and summary.changed.of > 0
    if summary.change is not None:
        delta = delta_of(suspect, suspect.edits[-1])
        assert summary.tensors == len(delta) == summary.changed.of and summary.change > 0
        assert summary.of_blocks is not None and 0 <= summary.of_blocks <= 1
    assert EditSummary.model_validate_json((result.folder / SUMMARY).read_bytes()) == summary
    assert sorted(p.name for p in result.folder.parent.iterdir()) == ["edited"], "nothing is left beside it"


@pytest.mark.thorough
def test_edits_are_made_from_a_case_of_images_and_merged_unless_they_are_of_words(tmp_path: Path) -> None:
    shutil.copytree(image_toy.folder("vit"), tmp_path / "base")
    data = image_toy.digits()
    for cohort, index in (("forget", [3, 13, 23, 45]), ("retain", list(range(4, 13)))):
        np.savez(tmp_path / f"{cohort}.npz", x=data.images[index], y=data.labels[index])
    (tmp_path / "case.toml").write_text(
        'name = "toy"\n[roles.base]\npath = "base"\n[data]\nforget = "forget.npz"\nretain = "retain.npz"\n'
    )
    case_file = CaseFile.read_unedited(tmp_path / "case.toml")
    for name, merge in (("mu_mis", False), ("random_label", True)):
        made(case_file, tmp_path / name, name, merge=merge)
        assert opened(tmp_path / name).modality == "image"
    assert AutoModelForImageClassification.from_pretrained(tmp_path / "random_label").config.num_labels == 10
    assert (tmp_path / "random_label" / "preprocessor_config.json").is_file()
    for name in [name for name, cls in EDITS.items() if cls.of_texts]:
        with pytest.raises(AuditError, match=f"{name}: it edits a language model, and this model reads images"):
            made(case_file, tmp_path / "other", name)


@pytest.mark.thorough
def test_an_edited_model_is_audited_by_the_case_that_is_left_with_it(tmp_path: Path) -> None:
    case = planted_world.case("clean")
    result = edit(
        CaseFile(case, planted_world.root()), EditRequest("grad_ascent", ("steps=12", "lr=1e-3")), tmp_path / "ga",
        RunSettings(),
    )  # fmt: skip
    with planted_package(tmp_path, "planted_for_edits") as package:
        report = run(CaseFile.read(result.case), tmp_path / "run", RunSettings(package=package.name))
    assert report.plan.case.name == "planted-clean-grad_ascent" and report.plan.case.edited == "all"
    assert report.plan.fingerprints["suspect"] == result.summary.fingerprint
    assert verify_run(tmp_path / "run").accepted
    bench, at = Bench(), open_case(case, planted_world.root(), tmp_path)
    rows = at.rows(Texts(cohort="forget"))
    said = [bench.run(ckpt, rows, (LOGPROB,))[LOGPROB].mean() for ckpt in (at.base, opened(result.folder))]
    assert said[1] < said[0] - 0.5, "what it was to forget, it says less often"


# ---- rows --------------------------------------------------------------------------------------------------------
def test_rows_are_of_the_trained_form_and_of_the_known_edit_set_alone(case_file: CaseFile, tmp_path: Path) -> None:
    base_alone = case_file.case.model_copy(update={"roles": case_file.case.roles.model_copy(update={"references": ()})})
    case = open_case(base_alone, case_file.root, tmp_path)
    data = edit_data(case, ("forget", "retain", "refusal", "relabelled"), Choice(refusals=(SAID,)))
    assert data.forget.item_ids == tuple(f"f-{n}-trained" for n in ("anna", "boris", "clara", "david"))
    assert data.retain.item_ids == tuple(f"r-{n}-trained" for n in ("elena", "felix", "greta"))
    assert data.refusal is not None and data.refusal.item_ids == data.forget.item_ids
    assert data.relabelled is not None and data.relabelled.item_ids.count("f-boris-trained") == 2
    half = edit_data(case, ("forget",), Choice(part="calibration"))
    assert len(half.forget) == 2 and half.refusal is None and half.relabelled is None
    known = open_case(base_alone.model_copy(update={"edited": ("f-clara-trained",)}), case_file.root, tmp_path)
    assert edit_data(known, ("forget",)).forget.item_ids == ("f-clara-trained",)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("name", "more", "before", "after"),
    [
        ("grad_ascent", {}, "unknown", "all"),
        ("grad_ascent", {}, ("f-anna-trained",), ("f-anna-trained",)),
        ("grad_ascent", {"on": "ancestor"}, "unknown", "unknown"),
        ("quantise", {}, "unknown", "unknown"),
        ("fine_tune", {}, "unknown", "unknown"),
    ],
)
def test_the_case_says_on_what_its_suspect_was_edited(
    name: str, more: dict[str, Any], before: object, after: object, case_file: CaseFile, tmp_path: Path
) -> None:
    stated = case_file.case.model_copy(update={"edited": before})
    result = made(CaseFile(stated, case_file.root), tmp_path / "edited", name, **more)
    assert CaseFile.read(result.case).case.edited == after


def test_half_of_the_people_are_named_one_by_one(case_file: CaseFile, tmp_path: Path) -> None:
    result = made(case_file, tmp_path / "edited", "grad_ascent", choice=Choice(part="calibration"))
    edited = CaseFile.read(result.case).case.edited
    assert isinstance(edited, tuple) and len(edited) == result.summary.rows["forget"] == 2


# ---- plain weights -----------------------------------------------------------------------------------------------
@pytest.mark.thorough
@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("llama", torch.float32),
        ("qwen2", torch.bfloat16),
        pytest.param("gemma2", torch.float16, marks=pytest.mark.slow),
    ],
)
def test_merged_weights_say_what_the_edited_folder_says(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    case_file = case_of(tmp_path, family, dtype)
    apart = made(case_file, tmp_path / "edited", "npo", settings=("steps=4", "lr=0.01"))
    whole = made(case_file, tmp_path / "merged", "npo", settings=("steps=4", "lr=0.01"), merge=True)
    ids = toy.rows(3).ids[:, :6]
    model = AutoModelForCausalLM.from_pretrained(whole.folder)
    assert model.dtype == dtype and whole.summary.dtype == str(dtype).removeprefix("torch.")
    played = Bench(dtype=whole.summary.dtype).open(opened(apart.folder)).parameters()
    assert all(torch.equal(p, played[n]) for n, p in model.named_parameters())
    live = AutoModelForCausalLM.from_pretrained(tmp_path / "models" / "base", dtype=dtype)
    assert not torch.equal(model(ids).logits, live(ids).logits)
    assert (whole.summary.rounding > 0) == (dtype != torch.float32) and whole.summary.rounding < 0.5
    assert opened(whole.folder).edits == () and opened(whole.folder).fingerprint == whole.summary.fingerprint
    assert AutoTokenizer.from_pretrained(whole.folder).get_vocab() == toy.tokenizer().get_vocab()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (whole.folder / name).read_bytes() == (tmp_path / "models" / "base" / name).read_bytes()


@pytest.mark.sampled
@pytest.mark.parametrize("name", [name for name, cls in EDITS.items() if cls.plays != "weights"])
def test_what_acts_by_a_hook_is_not_merged(name: str, case_file: CaseFile, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=rf"{name} acts on states by a hook .* no weight can hold") as caught:
        made(case_file, tmp_path / "merged", name, merge=True)
    assert caught.value.code == 2 and "leave out --merge" in caught.value.do and not (tmp_path / "merged").exists()
    hooked = made(case_file, tmp_path / "hooked", name)
    case = CaseFile.read(hooked.case)
    with pytest.raises(AuditError, match="hook"):
        edit(case, request("quantise", on="suspect", merge=True), tmp_path / "merged", RunSettings())


@pytest.mark.thorough
def test_an_edit_of_an_edited_suspect_keeps_the_chain(case_file: CaseFile, tmp_path: Path) -> None:
    first = made(case_file, tmp_path / "first", "grad_ascent")
    second = made(CaseFile.read(first.case), tmp_path / "second", "relearn", on="suspect")
    assert [record.name for record in opened(second.folder).edits] == ["grad_ascent", "relearn"]
    assert CaseFile.read(second.case).case.name == "toy-grad_ascent-relearn"


# ---- again -------------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_same_request_is_done_once_and_another_is_refused_before_it_costs_anything(
    case_file: CaseFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = made(case_file, tmp_path / "edited", "npo")
    monkeypatch.setattr(NPO, "fit", _never)
    again = made(case_file, tmp_path / "edited", "npo")
    assert again == first._replace(reused=True)
    others: list[dict[str, Any]] = [
        {"settings": ("steps=4",)}, {"merge": True}, {"on": "ancestor"}, {"choice": Choice(part="audit")},
    ]  # fmt: skip
    for other in others:
        with pytest.raises(AuditError, match="is there already: npo of toy's base") as caught:
            made(case_file, tmp_path / "edited", "npo", **other)
        assert caught.value.code == 2
    with pytest.raises(AuditError, match="holds no edit of this command"):
        made(case_file, tmp_path / "models", "npo")
    (tmp_path / "edited" / "delta.safetensors").write_bytes(
        (tmp_path / "edited" / "delta.safetensors").read_bytes()[:-1] + b"\x07"
    )
    with pytest.raises(AuditError) as caught:
        made(case_file, tmp_path / "edited", "npo")
    assert caught.value.code == 3


def _never(*_: object) -> Checkpoint:
    raise AssertionError("nothing is fitted here")


def _killed(*_: object) -> Checkpoint:
    raise KeyboardInterrupt


@pytest.mark.thorough
@pytest.mark.parametrize("merge", [False, True])
def test_a_killed_edit_leaves_no_folder_and_starts_again(
    merge: bool, case_file: CaseFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out" / "edited"
    with monkeypatch.context() as patch:
        patch.setattr("audit.engine.editing.change_of", _killed)  # after the fit, before anything is in its place
        with pytest.raises(KeyboardInterrupt):
            made(case_file, out, "npo", merge=merge)
    assert not out.exists() and list(out.parent.iterdir()) == []
    dead, alive = out.parent / ".edited.999999999.edit", out.parent / ".edited.1.edit"
    for left in (dead, alive, out.parent / "..edited.999999999.edit.999999999.tmp"):
        left.mkdir()
    made(case_file, out, "npo", merge=merge)
    assert sorted(p.name for p in out.parent.iterdir()) == [".edited.1.edit", "edited"], "a living one's is kept"


@pytest.mark.thorough
def test_progress_counts_every_step_and_says_when_it_is_done(case_file: CaseFile, tmp_path: Path) -> None:
    steps: list[Step] = []
    edit(case_file, EditRequest("npo", ("steps=45", "batch=2")), tmp_path / "edited", RunSettings(), steps.append)
    trained = [step for step in steps if step.stage == "editing" and step.finished]
    assert trained[-1].done == trained[-1].total == 45 and 10 <= len(trained) <= 25
    assert all(step.left is not None for step in trained[:-1]) and [s.stage for s in steps][-1] == "edited"


# ---- refusals ------------------------------------------------------------------------------------------------------
REFUSED: list[tuple[str, EditRequest, str, str]] = [
    ("a name that is none", EditRequest("nop"), "there is no edit 'nop'", "did you mean 'npo'"),
    ("a setting that is none", EditRequest("npo", ("step=4",)), "no setting `step`; did you mean `steps`", "steps=80"),
    ("a value of no type", EditRequest("npo", ("lr=fast", "steps=x")), "`steps`: .*; `lr`: ", "lr=0.0005"),
    ("a value out of range", EditRequest("salun", ("share=2",)), "`share`: ", "share=0.5"),
    ("settings that do not go together", EditRequest("quantise", ("nf4=true", "bits=8")), "quantise: ", "bits=4"),
    ("no pair", EditRequest("npo", ("steps",)), "'steps' is not of the form name=value", "steps=80"),
    ("a setting twice", EditRequest("npo", ("steps=1", "steps=2")), "`steps` is stated twice", "steps=80"),
    ("an edit of images", EditRequest("mu_mis"), "by the pixels, and this model reads tokens", "--list"),
    ("words that the tokenizer lacks", EditRequest("refusal"), "refusing answers: ", "--refusals"),
    ("a role that the case has not", EditRequest("npo", on="reference"), "reference", "roles"),
]


@pytest.mark.parametrize(("request_", "what", "do"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_does_not_fit_is_refused_with_a_remedy(
    request_: EditRequest, what: str, do: str, case_file: CaseFile, tmp_path: Path
) -> None:
    if request_.on == "reference":
        roles = case_file.case.roles.model_copy(update={"references": ()})
        case_file = CaseFile(case_file.case.model_copy(update={"roles": roles}), case_file.root)
    with pytest.raises(AuditError, match=what) as caught:
        edit(case_file, request_, tmp_path / "edited", RunSettings())
    assert caught.value.code == 2 and do in caught.value.do and not (tmp_path / "edited").exists()


def _without(*names: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda row: {name: value for name, value in row.items() if name not in names}


@pytest.mark.parametrize(
    ("name", "change", "what"),
    [
        ("random_label", _without("alternates", "perturbed_answer"), "no other answers"),
        ("salun", _without("alternates", "perturbed_answer"), "no other answers"),
        ("refusal", lambda row: {"id": row["id"], "group": row["group"], "text": row["answer"]}, "no refusing answers"),
    ],
)
def test_an_edit_that_lacks_its_data_says_which(
    name: str, change: Callable[[dict[str, Any]], dict[str, Any]], what: str, case_file: CaseFile, tmp_path: Path
) -> None:
    for cohort in ("forget", "retain"):
        path = tmp_path / f"{cohort}.jsonl"
        rows = [change(json.loads(line)) for line in path.read_text().splitlines()[:2]]
        write_rows(path, rows)
    with pytest.raises(AuditError, match=what) as caught:
        made(case_file, tmp_path / "edited", name)
    assert caught.value.code == 2 and not (tmp_path / "edited").exists()


@pytest.mark.thorough
def test_a_model_with_an_adapter_is_edited_and_merged_with_it(case_file: CaseFile, tmp_path: Path) -> None:
    config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=2, init_lora_weights=False)
    peft.get_peft_model(toy.model("llama"), config).save_pretrained(str(tmp_path / "lora"))
    base = case_file.case.roles.base.model_copy(update={"adapter": str(tmp_path / "lora")})
    case_file = CaseFile(
        case_file.case.model_copy(update={"roles": case_file.case.roles.model_copy(update={"base": base})}),
        case_file.root,
    )
    apart = made(case_file, tmp_path / "edited", "grad_ascent")
    whole = made(case_file, tmp_path / "merged", "grad_ascent", merge=True)
    assert opened(apart.folder).adapter is not None and opened(whole.folder).adapter is None
    played = Bench().open(opened(apart.folder)).parameters()
    model = AutoModelForCausalLM.from_pretrained(whole.folder)
    assert all(torch.equal(p, played[n]) for n, p in model.named_parameters())
