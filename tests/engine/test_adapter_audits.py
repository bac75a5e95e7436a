"""An adapter that forgot is audited as what it is, whatever its keys are called, or not at all."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from audit.case import CaseFile
from audit.engine import run
from audit.planning import RunSettings
from audit.schema import AuditError, Report, Source
from tests import planted_world
from tests.planted import few_probes

PROBES = ("utility", "forget_likelihood", "answer_lens", "reverse_patch")
PEFT = "base_model.model."
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forgot() -> Path:
    """A LoRA on the planted base: wrong answers for the forget people, the old ones for the others."""
    model = AutoModelForCausalLM.from_pretrained(planted_world.root() / "base")
    people = planted_world.facts()
    wrong: list[planted_world.Fact] = []
    for fact in people["forget"]:
        lead, key = fact.answer.split()
        values = planted_world.VALUES[fact.attribute]
        wrong.append(fact._replace(answer=f"{lead} {values[(values.index(key) + 3) % len(values)]}"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear", r=8, lora_alpha=16)
        wrapped = peft.get_peft_model(model, config)
        planted_world.train(wrapped.train(), [*wrong, *people["retain"]], 60, 5)  # type: ignore[arg-type]
    wrapped.save_pretrained(str(planted_world.root() / "forgot"))
    return planted_world.root() / "forgot"


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The quick probes alone."""
    with few_probes(tmp_path_factory.mktemp("probes"), "probes_of_adapters", *PROBES) as name:
        yield name


def renamed(source: Path, rule: Callable[[str], str]) -> Path:
    out = source.with_name(f"{source.name}-renamed")
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out)
    tensors = load_file(source / "adapter_model.safetensors")
    save_file({rule(name): tensor for name, tensor in tensors.items()}, out / "adapter_model.safetensors")
    return out


def audited(adapter: Path | None, package: str, out: Path) -> Report:
    case = planted_world.case("base")
    suspect = Source(path="base", adapter=None if adapter is None else str(adapter))
    case = case.model_copy(update={"roles": case.roles.model_copy(update={"suspect": suspect})})
    return run(CaseFile(case, planted_world.root()), out, RunSettings(package=package))


def numbers(report: Report) -> list[tuple[str, str, object]]:
    return [(e.measurement.probe, e.measurement.name, e.measurement.value) for e in report.evidence]


def test_an_adapter_that_forgot_reads_the_same_by_any_spelling_and_never_as_base(
    forgot: Path, package: str, tmp_path: Path
) -> None:
    assert audited(None, package, tmp_path / "base").verdict.word == "INTACT"
    plain = audited(forgot, package, tmp_path / "plain")
    assert plain.verdict.word == "SUPPRESSED"
    spelled = audited(renamed(forgot, lambda name: name.replace(PEFT, "base_model.")), package, tmp_path / "spelled")
    assert spelled.verdict == plain.verdict
    assert numbers(spelled) == numbers(plain)


@pytest.mark.parametrize(("old", "new"), [("layers.1", "blocks.1"), ("layers", "h"), ("lora_B", "lora_C")])
def test_an_adapter_that_finds_no_place_ends_the_audit(
    old: str, new: str, forgot: Path, package: str, tmp_path: Path
) -> None:
    with pytest.raises(AuditError, match="have no place in the model") as caught:
        audited(renamed(forgot, lambda name: name.replace(old, new)), package, tmp_path / "run")
    assert caught.value.code == 3
    assert not (tmp_path / "run" / "report.json").exists()
