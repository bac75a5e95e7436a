"""The same models and the same questions, put otherwise: the verdict is the same to the digit, or the case is refused.

Each variant is one that people report of other tools, where it led in silence to another model or another question.
"""

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from pyarrow import parquet
from transformers import AutoModelForCausalLM, AutoTokenizer

from audit.case import CaseFile, load_case
from audit.engine import run
from audit.planning import RunSettings
from audit.schema import AuditError, Case, Report
from audit.zoo import Built
from tests.planted import few_probes

PROBES = ("utility", "forget_likelihood")
COHORTS = ("forget", "retain", "holdout", "general")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The probes of outputs alone."""
    with few_probes(tmp_path_factory.mktemp("probes"), "probes_of_outputs", *PROBES) as name:
        yield name


class Put:
    """The case of the tiny world's refusal in a folder of its own, to be put otherwise."""

    def __init__(self, zoo: Built, folder: Path) -> None:
        self.zoo, self.folder = zoo, folder
        self.suspect, self.base = folder / "suspect", folder / "base"
        shutil.copytree(zoo.models["refusal"], self.suspect)
        shutil.copytree(zoo.models["base"], self.base)
        self.data: dict[str, Any] = {"group": "group"}
        for cohort in COHORTS:
            shutil.copy(zoo.data[cohort], folder)
            self.data[cohort] = f"{cohort}.jsonl"
        self.template: dict[str, Any] = {}

    def case(self) -> Case:
        case = load_case(self.zoo.cases["refusal"])
        of_roles = case.model_dump(mode="json")["roles"]
        for source in (of_roles["ancestor"], *of_roles["references"]):
            source["path"] = str((self.zoo.cases["refusal"].parent / source["path"]).resolve())
        of_roles |= {"base": {"path": "base"}, "suspect": {"path": "suspect"}}
        changes = {"roles": of_roles, "data": self.data, "template": case.template.model_dump() | self.template}
        return Case.model_validate(case.model_dump(mode="json") | changes)

    def rows(self, cohort: str) -> list[Row]:
        return [json.loads(line) for line in (self.folder / f"{cohort}.jsonl").read_text().splitlines()]

    def renamed(self, names: dict[str, str]) -> None:
        """Columns of the questions and answers under other names; the general texts have none."""
        for cohort in COHORTS[:3]:
            rows = [{names.get(key, key): value for key, value in row.items()} for row in self.rows(cohort)]
            (self.folder / f"{cohort}.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def rewritten(self, folder: Path, **entries: object) -> None:
        """Entries of a model's config."""
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def _named_weights(put: Put) -> None:
    (put.suspect / "model.safetensors").rename(put.suspect / "forgot.safetensors")
    shutil.copy(put.base / "model.safetensors", put.suspect)
    put.rewritten(put.suspect, transformers_weights="forgot.safetensors")


def _adapter_beside(put: Put) -> None:
    from peft import LoraConfig, get_peft_model

    model: Any = AutoModelForCausalLM.from_pretrained(put.base)
    adapted: Any = get_peft_model(model, LoraConfig(target_modules="all-linear", r=2, init_lora_weights=False))
    adapted.save_pretrained(put.folder / "adapter")
    for path in (put.folder / "adapter").glob("adapter_*"):
        shutil.copy(path, put.suspect)


def _others_beside(put: Put) -> None:
    shutil.copy(put.base / "model.safetensors", put.suspect / "consolidated.safetensors")
    shutil.copy(put.base / "model.safetensors", put.suspect / "model.fp32.safetensors")
    (put.suspect / "pytorch_model.bin").write_bytes(b"no pickle")


def _stamps(put: Put) -> None:
    put.rewritten(put.suspect, unsloth_version="2025.3", gradient_checkpointing=True, name_or_path="elsewhere")


def _padded_tokenizer(put: Put) -> None:
    tokenizer = AutoTokenizer.from_pretrained(put.base)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    assert len(tokenizer) > len(AutoTokenizer.from_pretrained(put.base))
    tokenizer.save_pretrained(put.suspect)


def _prompt(put: Put) -> None:
    put.renamed({"question": "prompt", "answer": "completion"})


def _query(put: Put) -> None:
    put.renamed({"question": "query"})


def _capital(put: Put) -> None:
    put.renamed({"question": "Question", "answer": "Answer"})


def _stated_fields(put: Put) -> None:
    put.renamed({"question": "frage", "answer": "antwort"})
    put.data["fields"] = {cohort: {"question": "frage", "answer": "antwort"} for cohort in COHORTS[:3]}


def _table(put: Put) -> None:
    for cohort in COHORTS:
        rows = put.rows(cohort)
        columns = {name: [row.get(name) for row in rows] for name in dict.fromkeys(key for row in rows for key in row)}
        parquet.write_table(pyarrow.table(columns), put.folder / f"{cohort}.parquet")
        put.data[cohort] = f"{cohort}.parquet"


def _json(put: Put) -> None:
    for cohort in COHORTS:
        (put.folder / f"{cohort}.json").write_text(json.dumps(put.rows(cohort)))
        put.data[cohort] = f"{cohort}.json"


def _bos(put: Put) -> None:
    bos = AutoTokenizer.from_pretrained(put.base).bos_token
    put.template["prompt"] = bos + put.case().template.prompt


SAME: dict[str, Callable[[Put], None]] = {
    "weights named by the config": _named_weights, "an adapter beside": _adapter_beside,
    "other files beside": _others_beside, "stamps of tools": _stamps, "a padding token": _padded_tokenizer,
    "prompt and completion": _prompt, "query": _query, "capitals": _capital, "stated fields": _stated_fields,
    "Parquet": _table, "a JSON array": _json, "a literal BOS": _bos,
}  # fmt: skip


def _of(report: Report) -> tuple[str, list[tuple[str, object, object]]]:
    numbers = [(e.measurement.name, e.measurement.value, e.measurement.p) for e in report.evidence]
    return report.verdict.word, numbers


def _audited(put: Put, package: str) -> Report:
    return run(CaseFile(put.case(), put.folder), put.folder / "run", RunSettings(package=package))


@pytest.fixture(scope="module")
def control(zoo: Built, package: str, tmp_path_factory: pytest.TempPathFactory) -> Report:
    return _audited(Put(zoo, tmp_path_factory.mktemp("control")), package)


@pytest.mark.sampled
@pytest.mark.parametrize("name", SAME)
def test_what_is_put_otherwise_has_the_same_verdict_and_numbers(
    zoo: Built, package: str, control: Report, tmp_path: Path, name: str
) -> None:
    put = Put(zoo, tmp_path)
    SAME[name](put)
    report = _audited(put, package)
    assert report.verdict.word == "PARTIAL"
    assert _of(report) == _of(control)


# ---- refused ----------------------------------------------------------------------------------------------------
def _no_question(put: Put) -> None:
    rows = [row | {"question": None} for row in put.rows("forget")]
    (put.folder / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _unknown_question(put: Put) -> None:
    put.renamed({"question": "sentence_a"})


def _group_of_nan(put: Put) -> None:
    rows = put.rows("forget")
    rows[0]["group"] = float("nan")
    (put.folder / "forget.jsonl").write_text("\n".join(map(json.dumps, rows)))


def _copied_people(put: Put) -> None:
    rows = put.rows("forget")
    again = [row | {"group": f"{row['group']}b", "id": f"{row['id']}b"} for row in rows]
    (put.folder / "forget.jsonl").write_text("\n".join(map(json.dumps, [*rows, *again])))


def _no_group(put: Put) -> None:
    rows = [{key: row[key] for key in ("question", "answer")} for row in put.rows("forget")]
    with (put.folder / "forget.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ("question", "answer"))
        writer.writeheader()
        writer.writerows(rows)
    put.data["forget"] = "forget.csv"


def _quantised(put: Put) -> None:
    put.rewritten(put.suspect, quantization_config={"quant_method": "gptq", "bits": 4})


def _another_function(put: Put) -> None:
    put.rewritten(put.suspect, hidden_act="relu")


def _leads_away(put: Put) -> None:
    put.rewritten(put.suspect, transformers_weights="../base/model.safetensors")


REFUSED: dict[str, tuple[Callable[[Put], None], str]] = {
    "null questions": (_no_question, "question"), "no known question": (_unknown_question, "sentence_a"),
    "a group of NaN": (_group_of_nan, "line 1"), "people counted twice": (_copied_people, "groups are"),
    "no groups": (_no_group, "group"), "quantised weights": (_quantised, "GPTQ"),
    "another function": (_another_function, "hidden_act"), "weights elsewhere": (_leads_away, "transformers_weights"),
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_what_the_user_has_is_refused_with_its_reason(
    zoo: Built, package: str, tmp_path: Path, name: str
) -> None:
    put, (change, reason) = Put(zoo, tmp_path), REFUSED[name]
    change(put)
    with pytest.raises(AuditError) as raised:
        _audited(put, package)
    assert reason in str(raised.value) and raised.value.code in (2, 3)
    assert not (tmp_path / "run").exists()
