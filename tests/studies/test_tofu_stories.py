"""Real input: TOFU's authors on a pretrained story model. The whole study is slow; its data are checked by default."""

import json
from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs TOFU and stories260K beside the project")


@needs_data
def test_every_author_brings_four_questions_and_no_author_is_in_two_cohorts(tmp_path: Path) -> None:
    from studies.tofu_stories.material import prepare

    material = prepare(DATA, tmp_path)
    authors: dict[str, set[int]] = {}
    for name in ("forget", "retain", "holdout"):
        rows = [json.loads(line) for line in getattr(material, name).read_text(encoding="utf-8").splitlines()]
        authors[name] = {row["author_id"] for row in rows}
        assert len(rows) == 4 * len(authors[name]) == 4 * {"forget": 20, "retain": 40, "holdout": 20}[name]
        assert all("perturbed_answer" in row for row in rows) == (name != "retain")
    assert not authors["forget"] & authors["retain"] and not authors["forget"] & authors["holdout"]
    assert not authors["retain"] & authors["holdout"]
    taught = set(material.taught_stories.read_text(encoding="utf-8").splitlines())
    assert not taught & set(material.general.read_text(encoding="utf-8").splitlines())


@needs_data
def test_untying_gives_the_head_its_own_weights_and_changes_no_logit(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    from studies.tofu_stories.teach import untie

    model = DATA / "models" / "stories260K-hf"
    untie(model, tmp_path / "ancestor")
    before, after = (AutoModelForCausalLM.from_pretrained(path) for path in (model, tmp_path / "ancestor"))
    ids = torch.arange(3, 40)[None]
    assert torch.equal(before(ids).logits, after(ids).logits)
    with torch.no_grad():
        after.get_output_embeddings().weight.add_(1.0)
    assert torch.equal(after.get_input_embeddings().weight, before.get_input_embeddings().weight)


@pytest.mark.slow
@needs_data
def test_base_and_the_head_edit_hold_the_authors_and_the_reference_does_not(tmp_path: Path) -> None:
    from studies.tofu_stories.study import study

    found = study(DATA, Path("runs/tofu_stories"), tmp_path, workers=2)
    verdicts = {name: audit["verdict"] for name, audit in found.items()}
    assert verdicts["base"] == "INTACT"
    assert verdicts["head_edit"] == "SUPPRESSED"
    assert verdicts["r0"] in ("CONSISTENT WITH NEVER TRAINED", "INCONCLUSIVE")
    no_trace = [m for m in found["r0"]["measurements"] if m["outcome"] == "trace found"]
    assert not no_trace, "the audited reference shows no trace in any test"
