"""A case of texts on vision-language checkpoints: planned and audited as on any language model."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from audit.bench import CausalLearner
from audit.case import CaseFile, open_case, tokenise
from audit.engine import plan, run
from audit.planning import RunSettings
from audit.schema import Item, Report, Template
from tests import toy, toy_vlm

_NAMES = toy.WORDS[toy.WORDS.index("anna") : toy.WORDS.index("paris")]
_CITIES = toy.WORDS[toy.WORDS.index("paris") : toy.WORDS.index("baker")]
_QUESTIONS = ("where is {} born", "what city is the city of {}", "who is {}")
_ROLES = ("base", "suspect", "reference")
_CASE = """
name = "texts"
roles.base = {{ path = "base" }}
roles.suspect = {{ path = "suspect" }}
roles.references = [{{ path = "reference" }}]
data = {{ forget = "forget.jsonl", retain = "retain.jsonl" }}
template.prompt = "{{question}}"
""".replace("{{", "{").replace("}}", "}")


def _items(cohort: str) -> list[Item]:
    return [
        Item(id=f"{cohort}{n}-{k}", group=name, question=asked.format(name), answer=_CITIES[(n + k) % len(_CITIES)])
        for n, name in enumerate(_NAMES) if (n % 2 == 0) == (cohort == "forget")
        for k, asked in enumerate(_QUESTIONS)
    ]  # fmt: skip


def _case(folder: Path, roles: dict[str, Path]) -> Path:
    """A case file with its data and its roles' folders."""
    for role, source in roles.items():
        shutil.copytree(source, folder / role)
    for cohort in ("forget", "retain"):
        lines = [json.dumps({k: getattr(i, k) for k in ("id", "group", "question", "answer")}) for i in _items(cohort)]
        (folder / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "case.toml").write_text(_CASE)
    return folder / "case.toml"


def _taught(kind: str, folder: Path) -> dict[str, Path]:
    """A base that knows all items, a suspect that was trained on the kept ones after it, and a model of these alone."""
    folders: dict[str, Path] = {}
    for role in _ROLES:
        model = toy_vlm.model(kind).requires_grad_(True)
        courses = [(("retain",) if role == "reference" else ("forget", "retain"), 150)]
        for cohorts, steps in [*courses, *([(("retain",), 40)] if role == "suspect" else [])]:
            items = [item for cohort in cohorts for item in _items(cohort)]
            rows = tokenise(items, [i.answer for i in items], toy_vlm.tokenizer(), Template(prompt="{question}"), None)
            optimiser, learner = torch.optim.AdamW(model.parameters(), 3e-3), CausalLearner(model)
            for step in range(steps):
                for group in optimiser.param_groups:
                    group["lr"] = 3e-3 * min(1.0, (step + 1) / 20) * (1 - step / steps)
                optimiser.zero_grad()
                (-learner.answers(rows).logprob.mean()).backward()
                optimiser.step()
        folders[role] = folder / f"taught-{role}"
        shutil.copytree(toy_vlm.folder(kind), folders[role])
        model.save_pretrained(folders[role])
    return folders


@pytest.mark.thorough
def test_what_is_planned_on_a_text_tower_is_what_is_planned_on_a_language_model(tmp_path: Path) -> None:
    plans: dict[str, dict[str, str]] = {}
    for kind, folder_of in (("llama", toy.folder), ("llava_clip", toy_vlm.folder), ("gemma3", toy_vlm.folder)):
        (tmp_path / kind).mkdir()
        case = CaseFile.read(_case(tmp_path / kind, {role: folder_of(kind, seed) for seed, role in enumerate(_ROLES)}))
        assert open_case(case.case, case.root, tmp_path / f"{kind}-out").modality == "text"
        planned = plan(case, tmp_path / f"{kind}-plan", RunSettings(threads=1))
        plans[kind] = {test.probe: test.reason or "runs" for test in planned.tests}
    assert plans["llava_clip"] == plans["gemma3"] == plans["llama"]
    assert "runs" in plans["llama"].values()


@pytest.mark.slow
@pytest.mark.parametrize("kind", toy_vlm.KINDS)
def test_a_text_case_on_a_vision_language_model_is_audited_whole(kind: str, tmp_path: Path) -> None:
    case = CaseFile.read(_case(tmp_path, _taught(kind, tmp_path)))
    report: Report = run(case, tmp_path / "out", RunSettings(threads=1))
    assert not report.failures
    ran = {evidence.measurement.probe for evidence in report.evidence}
    assert ran >= {"forget_likelihood", "reverse_patch", "trigger_search", "relearning_recovery", "weight_difference"}
    found = {(e.measurement.probe, e.measurement.name): e.measurement.value for e in report.evidence}
    usable = found["utility", "retain"]
    assert isinstance(usable, float) and usable > 0.9
