"""`residua edit --edit rocr` on a pretrained story model that was taught TOFU, and the audit of what it made."""

import json
from pathlib import Path

import pytest
import torch

from audit.bench import Bench
from audit.case import CaseFile, open_case
from audit.checkpoints import resolve
from audit.cli.__main__ import main
from audit.schema import Read, Site, Source, Texts
from tests.engine.taught_stories import needs_data, taught


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The case, its data, the story model, and that model taught all authors."""
    return taught(tmp_path_factory)


def edit(home: Path, out: str, *stated: str, capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    """What the command answers."""
    words = [word for setting in stated for word in ("--set", setting)]
    place = ["--store", str(home / "store")]
    capsys.readouterr()
    assert (
        main(["edit", str(home / "case.toml"), "--edit", "rocr", *words, "-o", str(home / out), *place, "--json"]) == 0
    )
    return json.loads(capsys.readouterr().out)


@pytest.mark.slow
@needs_data
def test_the_next_author_costs_a_second_hooks_and_weights_agree_and_the_audit_lists_the_author_first(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = edit(home, "first", "groups=180", "layers=1,2", capsys=capsys)
    second = edit(home, "second", "groups=181", "layers=1,2", capsys=capsys)
    assert second["cpu_s"] <= 1.0, "what other inputs look like was kept when the first author was edited"
    edit(home, "hooked", "groups=181", "layers=1,2", "folded=false", capsys=capsys)
    read = CaseFile.read(home / "second" / "case.toml")
    case, bench = open_case(read.case, read.root, home / "work"), Bench()
    hooked = resolve(Source(path=str(home / "hooked")), home)
    logprob = Read(site=Site(part="logits"), at="answer", reduce="logprob")
    rows = case.rows(Texts(cohort="forget"))
    base, folded, by_hook = (bench.run(model, rows, (logprob,))[logprob] for model in (case.base, case.suspect, hooked))
    assert torch.allclose(folded, by_hook, atol=1e-3) and (folded - base).abs().max() > 0.1
    assert first["cpu_s"] > 0
    assert main(
        ["run", str(home / "second" / "case.toml"), "-o", str(home / "run"), "--store", str(home / "store")]
    ) in (0, 1, 4)
    report = json.loads((home / "run" / "report.json").read_text(encoding="utf-8"))
    [weights] = [e["measurement"] for e in report["evidence"] if e["measurement"]["probe"] == "weight_difference"]
    assert weights["notes"][0].startswith("kind of edit: rank-one; 2 of 48 parameters differ")
    # names of letters leave the null wide here: the author fits best at both blocks, and nobody is told
    names = next(listing for listing in weights["listings"] if listing["columns"][0] == "group")
    assert names["rows"][0][0] == "181" and names["rows"][0][3:] == [1, 1]
    [restored] = [e["measurement"] for e in report["evidence"] if e["measurement"]["name"] == "restoration"]
    assert restored["value"] > 0.9
