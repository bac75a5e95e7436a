"""An audit of classifiers that are code of the user's own: allowed by the case, and said in the report."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from audit.case import CaseFile
from audit.engine import plan, run
from audit.planning import RunSettings
from audit.schema import AuditError
from tests import image_toy
from tests import torch_module_toy as toy

CODE = "own_tokens:Mixer"


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Base knows all digits, the suspect has one of them hidden by its head, the ancestor is untaught; the code of all
    three stands on Python's path. The case file allows it for base alone."""
    out = tmp_path_factory.mktemp("own-code")
    (out / "code").mkdir()
    (out / "code" / "own_tokens.py").write_text(toy.OWN)
    sys.path.insert(0, str(out / "code"))
    importlib.invalidate_caches()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = importlib.import_module("own_tokens").Mixer(d=24)
    settings = {**toy.TOKENS, "arguments": {"d": 24}}
    toy.write(out / "ancestor", net, settings)
    digits = image_toy.digits()
    pixels = torch.from_numpy(digits.images[:, None] / 127.5 - 1).float()
    labels, optimiser = torch.from_numpy(digits.labels), torch.optim.AdamW(net.parameters(), 3e-3)
    rng = torch.Generator().manual_seed(0)
    for _ in range(500):
        chosen = torch.randint(len(labels), (64,), generator=rng)
        torch.nn.functional.cross_entropy(net(pixels[chosen]), labels[chosen]).backward()
        optimiser.step()
        optimiser.zero_grad()
    toy.write(out / "base", net.eval(), settings)
    toy.write(out / "suspect", net, settings)
    tensors = load_file(out / "suspect" / "model.safetensors")
    tensors["out.bias"][image_toy.FORGOTTEN] -= 50
    save_file(tensors, out / "suspect" / "model.safetensors")
    known = digits.labels != image_toy.FORGOTTEN
    for cohort, index in (("forget", np.flatnonzero(~known)[:40]), ("retain", np.flatnonzero(known)[:120])):
        np.savez(out / f"{cohort}.npz", x=digits.images[index], y=digits.labels[index])
    yield out
    sys.path.remove(str(out / "code"))
    sys.modules.pop("own_tokens", None)


def case_file(folder: Path, *allowed: str) -> Path:
    """A case file that allows the code in these roles."""
    roles = "".join(
        f'[roles.{role}]\npath = "{role}"\n' + (f'allow_code = "{CODE}"\n' if role in allowed else "")
        for role in ("base", "suspect", "ancestor")
    )
    path = folder / f"{len(allowed)}.toml"
    path.write_text(f'name = "own"\n{roles}[data]\nforget = "forget.npz"\nretain = "retain.npz"\n')
    return path


@pytest.mark.parametrize("role", ["base", "suspect", "ancestor"])
def test_code_of_each_role_is_allowed_by_name_or_refused(role: str, case: Path, tmp_path: Path) -> None:
    others = [name for name in ("base", "suspect", "ancestor") if name != role]
    with pytest.raises(AuditError, match=rf"{role}: .*code of its own \({CODE}\), which is never run") as caught:
        plan(CaseFile.read(case_file(case, *others)), tmp_path, RunSettings(threads=1))
    assert caught.value.code == 2


@pytest.mark.thorough
def test_an_audit_of_own_code_says_whose_code_ran(case: Path, tmp_path: Path) -> None:
    path = case_file(case, "base", "suspect", "ancestor")
    report = run(CaseFile.read(path), tmp_path / "out", RunSettings(threads=1))
    assert not report.failures and report.verdict.word == "SUPPRESSED"
    sentences = [limit for limit in report.limits if "code of the case's own" in limit]
    assert (
        len(sentences) == 1 and f"{CODE} (sha256 " in sentences[0] and "ran as base, suspect, ancestor" in sentences[0]
    )
    assert all("code/own_tokens.py" in exhibit.files for exhibit in report.exhibits)
    assert report.plan.case.roles.base.allow_code == CODE
    values = {f"{e.measurement.probe}.{e.measurement.name}": e.measurement.value for e in report.evidence}
    assert values["reverse_patch.depth_profile_all"] > 0.9  # type: ignore[operator]
    assert isinstance(values["answer_lens.lens_lift"], float), "blocks of one width are scored through the head"
