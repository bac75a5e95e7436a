"""References that are no references, on models of known truth: named, refused, and the remaining roles decide."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.case import CaseFile
from audit.engine import run
from audit.planning import RunSettings
from audit.schema import Report, Source
from audit.zoo import Built, build
from tests import worlds

pytestmark = pytest.mark.slow


def _train(folder: Path) -> None:
    build("demo", cache=folder)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The demo's world, trained once a session."""
    cache = shutil.copytree(worlds.made_once("demo", _train), tmp_path_factory.mktemp("demo") / "cache")
    return build("demo", cache=cache)


def _copied(source: Path, folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    """A model saved again, in other bytes."""
    shutil.copytree(source, folder)
    weights = {name: change(x).contiguous() for name, x in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _noisy(source: Path, folder: Path) -> Path:
    draw = torch.Generator().manual_seed(0)
    return _copied(source, folder, lambda x: x + 1e-5 * torch.randn(x.shape, generator=draw))


def _rounded(source: Path, folder: Path) -> Path:
    return _copied(source, folder, lambda x: x.bfloat16().to(x.dtype))


def _audited(demo: Built, suspect: str, references: tuple[Path, ...], out: Path) -> Report:
    """The demo's own case of this suspect, with other references."""
    case_file = CaseFile.read(demo.cases[suspect])
    declared = tuple(Source(path=str(folder), lineage="same_ancestor") for folder in references)
    roles = case_file.case.roles.model_copy(update={"references": declared})
    case = case_file.case.model_copy(update={"roles": roles})
    return run(CaseFile(case, case_file.root), out / "run", RunSettings(threads=1, store=out / "store"))


def _refused(report: Report) -> dict[str, str]:
    return {x.role: x.because[0] for x in report.roles_audited if not x.takes_part}


def test_dup_a_refusal_between_two_copies_of_itself_is_suppressed(demo: Built, tmp_path: Path) -> None:
    refusal = demo.models["refusal"]
    copies = _noisy(refusal, tmp_path / "noisy"), _rounded(refusal, tmp_path / "rounded")
    report = _audited(demo, "refusal", copies, tmp_path)
    refused = _refused(report)
    assert set(refused) == {"reference 0", "reference 1"}
    assert all("its weights are those of suspect" in because for because in refused.values())
    assert report.verdict.word == "SUPPRESSED"


@pytest.mark.parametrize("first", [True, False], ids=["dup_one", "dup_second"])
def test_dup_one_and_dup_second_the_genuine_reference_decides(first: bool, demo: Built, tmp_path: Path) -> None:
    copy, genuine = _noisy(demo.models["refusal"], tmp_path / "noisy"), demo.models["reference_1"]
    report = _audited(demo, "refusal", (copy, genuine) if first else (genuine, copy), tmp_path)
    assert set(_refused(report)) == {"reference 0" if first else "reference 1"}
    assert report.verdict.word == "SUPPRESSED"


def test_npo_reference_a_sibling_edit_is_no_null_and_clears_nobody(demo: Built, tmp_path: Path) -> None:
    siblings = demo.models["npo"], demo.models["reference_1"]
    report = _audited(demo, "grad_diff", siblings, tmp_path)
    refused = _refused(report)
    assert set(refused) == {"reference 0"} and "descend from base" in refused["reference 0"]
    assert report.verdict.word == "INCONCLUSIVE"
    assert any("below the only model that never knew" in because for because in report.verdict.because)
