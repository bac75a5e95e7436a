"""Opening a case: who plays what, which rows there are, and every fault of the input told with the right exit code."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.case import OpenCase, load_case, open_case
from audit.judging import given as given_roles
from audit.probing import models_of
from audit.schema import AuditError, Case, Texts
from tests import toy

ROLES = ("base", "suspect", "reference0", "reference1", "reference2", "ancestor")
CITIES = ("paris", "lima", "oslo", "cairo")
Rows = list[dict[str, Any]]


def people(names: str, prefix: str) -> Rows:
    """Two items a person, the second of a held-out phrasing; words of the toy's vocabulary only."""
    rows: Rows = []
    for n, name in enumerate(names.split()):
        for form, city in (("trained", CITIES[n % 4]), ("held_out_phrasing", CITIES[(n + 1) % 4])):
            rows.append({
                "id": f"{prefix}-{name}-{form}", "group": name, "question": f"where is {name} born ?", "form": form,
                "answer": f"{name} lives in {city} .", "key": city, "perturbed_answer": [f"the city of {city}"],
                "alternates": [f"{name} lives in quito .", f"{name} lives in delhi ."][: 1 + n % 2],
            })  # fmt: skip
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    path.write_text("\n".join(json.dumps(row) for row in rows))


def read_rows(path: Path) -> Rows:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A whole case in a folder, ready to be damaged."""
    for seed, role in enumerate(ROLES):
        shutil.copytree(toy.folder("llama", seed), tmp_path / role)
    write_rows(tmp_path / "forget.jsonl", people("anna boris clara david", "f"))
    write_rows(tmp_path / "retain.jsonl", people("elena felix greta", "r"))
    (tmp_path / "case.toml").write_text(
        'name = "toy"\n[roles.base]\npath = "base"\n[roles.suspect]\npath = "suspect"\n'
        '[[roles.references]]\npath = "reference0"\nlineage = "other_initialisation"\n'
        '[[roles.references]]\npath = "reference1"\n[[roles.references]]\npath = "reference2"\n'
        '[roles.ancestor]\npath = "ancestor"\n[data]\nforget = "forget.jsonl"\nretain = "retain.jsonl"\n'
    )
    return tmp_path


def opened(root: Path, **changes: Any) -> OpenCase:
    case = Case.model_validate(load_case(root / "case.toml").model_dump() | changes)
    return open_case(case, root, root / "out")


def roles(**kept: Any) -> dict[str, Any]:
    return {"base": {"path": "base"}, "suspect": {"path": "suspect"}} | kept


# ---- roles ------------------------------------------------------------------------------------------------------
def test_the_null_is_the_first_kindred_reference_and_the_others_the_floor(root: Path) -> None:
    case = opened(root)
    assert case.null == ("reference", 1) and case.floors == (2,)
    assert case.case.roles.never_trained == (1, 2), "the first is of another initialisation"
    assert case.checkpoint(*case.null) == case.references[1] and case.checkpoint("base") == case.base


def test_the_judge_and_the_probes_count_the_same_references_before_a_case_is_opened(root: Path) -> None:
    case = load_case(root / "case.toml")
    assert given_roles(case).references == 2
    assert models_of(case) == [("base", 0), ("suspect", 0), ("reference", 1), ("reference", 2)]
    stranger = case.model_copy(
        update={"roles": case.roles.model_copy(update={"references": case.roles.references[:1]})}
    )
    assert given_roles(stranger).references == 0 and models_of(stranger)[2:] == [("ancestor", 0)]


def test_without_a_kindred_reference_the_ancestor_is_the_null_else_there_is_none(root: Path) -> None:
    stranger = {"path": "reference0", "lineage": "other_initialisation"}
    case = opened(root, roles=roles(references=[stranger], ancestor={"path": "ancestor"}))
    assert case.null == ("ancestor", 0) and case.floors == ()
    case = opened(root, roles=roles(references=[stranger]))
    assert case.null is None
    for role in ("ancestor", "reference"):
        with pytest.raises(AuditError, match=role):
            case.checkpoint(role, 5)


def test_base_may_be_audited_and_no_model_enters_its_own_null(root: Path) -> None:
    opened(root, roles=roles(suspect={"path": "base"}, references=[{"path": "reference1"}]))
    same = [
        roles(suspect={"path": "reference1"}, references=[{"path": "reference1"}]),
        roles(references=[{"path": "reference1"}, {"path": "reference1"}]),
        roles(references=[{"path": "base"}]),
        roles(suspect={"path": "ancestor"}, ancestor={"path": "ancestor"}),
        roles(references=[{"path": "ancestor"}], ancestor={"path": "ancestor"}),
        roles(
            suspect={"path": "ancestor"}, ancestor={"path": "ancestor"},
            references=[{"path": "reference1", "lineage": "other_initialisation"}],
        ),
    ]  # fmt: skip
    for given in same:
        with pytest.raises(AuditError, match="own null") as caught:
            opened(root, roles=given)
        assert caught.value.code == 2


# ---- rows -------------------------------------------------------------------------------------------------------
def test_parts_halve_the_groups_and_hold_their_rows_in_file_order(root: Path) -> None:
    case = opened(root)
    texts = Texts(cohort="forget")
    whole, audit, fitted = (case.rows(texts, part) for part in ("all", "audit", "calibration"))
    assert (len(whole), len(audit), len(fitted)) == (4, 2, 2)
    assert not set(audit.group_ids) & set(fitted.group_ids)
    assert [i for i in whole.item_ids if i in audit.item_ids] == list(audit.item_ids)
    assert tuple(item.id for item in case.items(texts)) == whole.item_ids, "all are measured"
    assert case.rows(texts) is whole
    first, last = case.folds(texts, 2)
    assert (first.item_ids, last.item_ids) == (fitted.item_ids, audit.item_ids)


def test_rows_are_of_the_asked_form_and_answer(root: Path) -> None:
    case = opened(root)
    said = {
        Texts(cohort="forget", form="held_out_phrasing"): "anna lives in lima .",
        Texts(cohort="forget", answer="perturbed"): "the city of paris",
        Texts(cohort="forget", answer="alternate"): "anna lives in quito .",
    }
    for texts, answer in said.items():
        rows = case.rows(texts, "all")
        start, end = rows.answer_spans[0].tolist()
        assert case.tokenizer.decode(rows.ids[0, start:end]) == answer
    alternate = case.rows(Texts(cohort="forget", answer="alternate"), "all")
    assert case.tokenizer.decode(alternate.ids[0, alternate.key[0]]) == "quito"


def test_items_without_the_asked_answer_have_no_row(root: Path) -> None:
    case = opened(root)
    second = Texts(cohort="forget", answer="alternate", index=1)
    assert case.rows(second, "all").group_ids == ("boris", "david")
    for texts in (
        Texts(cohort="forget", answer="paraphrased"),
        Texts(cohort="holdout"),
        second.model_copy(update={"index": 2}),
    ):
        assert not case.has(texts, "all") and case.items(texts, "all") == ()
        with pytest.raises(AuditError, match=texts.cohort) as caught:
            case.rows(texts, "all")
        assert caught.value.code == 2
    assert second in case.every_texts() and all(case.has(texts, "all") for texts in case.every_texts())


@pytest.mark.thorough
def test_where_the_edit_set_is_known_only_its_items_are_trained_forget_rows(root: Path) -> None:
    case = opened(root, edited=("f-anna-trained", "f-david-trained"))
    assert case.rows(Texts(cohort="forget"), "all").group_ids == ("anna", "david")
    assert len(case.rows(Texts(cohort="forget", form="held_out_phrasing"), "all")) == 4
    for edited in (("nobody",), ("f-anna-held_out_phrasing",), ()):
        with pytest.raises(AuditError, match="edited") as caught:
            opened(root, edited=edited)
        assert caught.value.code == 2


@pytest.mark.thorough
def test_an_edit_set_of_any_half_of_the_groups_is_measured(root: Path) -> None:
    for part in ("calibration", "audit"):
        ids = tuple(item.id for item in opened(root).items(Texts(cohort="forget"), part))
        assert opened(root, edited=ids).rows(Texts(cohort="forget")).item_ids == ids


def test_a_second_case_on_the_same_data_tokenises_nothing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.case import cohorts

    first = opened(root)
    monkeypatch.setattr(cohorts, "tokenised", lambda *_: pytest.fail("tokenised again"))
    second = opened(root, roles=roles(suspect={"path": "reference2"}))
    texts = Texts(cohort="retain")
    assert second.suspect != first.suspect and second.rows(texts).hash == first.rows(texts).hash


def test_data_that_changed_is_read_again(root: Path) -> None:
    before = opened(root)
    write_rows(root / "retain.jsonl", people("elena felix greta hugo", "r"))
    after = opened(root)
    assert len(after.cohorts["retain"]) == len(before.cohorts["retain"]) + 2
    assert after.data_sha256["retain"] != before.data_sha256["retain"]


def test_the_context_is_the_smallest_of_all_roles(root: Path) -> None:
    assert opened(root).max_length == toy.MAX_LENGTH
    path = root / "suspect" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 20}))
    assert opened(root).max_length == 20


def test_item_tables_are_parquet_with_their_hash(root: Path) -> None:
    import hashlib

    from pyarrow import parquet

    table = opened(root).write_table("likelihood", {"item": ["a", "b"], "score": [0.5, 1.0]})
    path = root / "out" / table.path
    assert table.path == "tables/likelihood.parquet" and (table.rows, table.columns) == (2, ("item", "score"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == table.sha256
    assert parquet.read_table(path).to_pydict() == {"item": ["a", "b"], "score": [0.5, 1.0]}
    again = opened(root).write_table("likelihood", {"item": ["a", "b"], "score": [0.5, 1.0]})
    assert again == table


# ---- tokenizers -------------------------------------------------------------------------------------------------
def retoken(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "tokenizer.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def swap_words(document: dict[str, Any]) -> None:
    words = document["model"]["vocab"]
    words["oslo"], words["lima"] = words["lima"], words["oslo"]


def test_a_tokenizer_saved_in_other_bytes_is_the_same(root: Path) -> None:
    retoken(root / "suspect", lambda document: None)
    path = root / "suspect" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pad_token": "<eos>"}))
    opened(root)


def test_a_suspect_without_a_tokenizer_is_read_with_bases(root: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (root / "suspect" / name).unlink()
    opened(root)


def test_a_tokenizer_that_splits_the_cases_texts_otherwise_differs(root: Path) -> None:
    retoken(
        root / "suspect",
        lambda document: document.update(
            normalizer={"type": "Replace", "pattern": {"String": "lives"}, "content": "is"}
        ),
    )
    with pytest.raises(AuditError, match="gives other tokens") as caught:
        opened(root)
    assert caught.value.code == 2


# ---- bad input --------------------------------------------------------------------------------------------------
def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(weights)
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def other_family(root: Path) -> None:
    shutil.rmtree(root / "suspect")
    shutil.copytree(toy.folder("mistral"), root / "suspect")


def truncated(root: Path) -> None:
    path = root / "suspect" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])


def stated(root: Path) -> None:
    path = root / "case.toml"
    path.write_text(path.read_text().replace('path = "suspect"', f'path = "suspect"\nfingerprint = "{"0" * 64}"'))


def wants_code(root: Path) -> None:
    path = root / "suspect" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "mine", "auto_map": {"AutoModel": "m.M"}}))


def more(file: str, row: dict[str, Any]) -> Callable[[Path], None]:
    return lambda root: write_rows(root / file, [*read_rows(root / file), row])


def not_a_number(root: Path) -> None:
    rewrite(root / "reference2", lambda weights: weights["lm_head.weight"].fill_(float("nan")))


def unknown_key(root: Path) -> None:
    path = root / "case.toml"
    path.write_text(path.read_text() + "retian = 1")


def pickled(root: Path) -> None:
    (root / "suspect" / "model.safetensors").rename(root / "suspect" / "pytorch_model.bin")


LONG = {"id": "long", "group": "z", "question": "who ?", "answer": "red " * 70}
BAD: dict[str, tuple[Callable[[Path], object], int, tuple[str, ...]]] = {
    "missing folder": (lambda r: shutil.rmtree(r / "suspect"), 2, ("suspect: ", "no such folder")),
    "fingerprint": (stated, 3, ("suspect", "expected 0000")),
    "architecture": (other_family, 2, ("another architecture", "model_type")),
    "truncated": (truncated, 3, ("model.safetensors", "truncated")),
    "nan": (not_a_number, 3, ("reference2", "lm_head", "NaN")),
    "pickle": (pickled, 2, ("pytorch_model.bin", "save_pretrained")),
    "unknown key": (unknown_key, 2, ("[data]", "`retian`", "`retain`")),
    "empty forget": (lambda r: (r / "forget.jsonl").write_text("\n"), 2, ("the forget set is empty",)),
    "empty retain": (lambda r: (r / "retain.jsonl").write_text(""), 2, ("the retain set is empty",)),
    "no data file": (lambda r: (r / "forget.jsonl").unlink(), 2, ("forget.jsonl", "cannot be read")),
    "overlap": (more("retain.jsonl", people("anna", "f")[0]), 2, ("forget and retain share", "f-anna-trained", "anna")),
    "too long": (more("forget.jsonl", LONG), 2, ("context of 64 tokens", "long (")),
    "long alternate": (
        more("forget.jsonl", LONG | {"answer": "red", "alternates": ["red " * 70]}), 2, ("context of 64", "long ("),
    ),
    "tokenizer": (lambda r: retoken(r / "suspect", swap_words), 2, ("tokenizer differs", "'lima'")),
    "remote code": (wants_code, 2, ("suspect: ", "'mine'", "m.M")),
    "nothing trained": (
        lambda r: write_rows(r / "forget.jsonl", people("anna boris", "f")[1::2]), 2, ("no forget item has form",),
    ),
    "no tokenizer": (
        lambda r: [(r / "base" / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], 2,
        ("no tokenizer in base",),
    ),
    "unknown word": (more("forget.jsonl", LONG | {"answer": "in basel", "key": "basel"}), 2, ("'long'", "basel")),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_refused_with_its_code_and_nothing_is_written(root: Path, fault: str) -> None:
    damage, code, words = BAD[fault]
    damage(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    with pytest.raises(AuditError) as caught:
        opened(root)
    assert caught.value.code == code
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert caught.value.do and {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_a_full_disk_is_told_when_a_table_is_written(root: Path) -> None:
    case = opened(root)
    (root / "out").write_text("a file where the folder should be")
    with pytest.raises(AuditError) as caught:
        case.write_table("x", {"item": ["a"]})
    assert caught.value.code == 3
