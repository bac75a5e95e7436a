"""Models with other numbers of vocabulary rows meet: the shared rows count in all of them, and the case says so."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from audit import checkpoints
from audit.bench import Bench
from audit.case import OpenCase
from audit.schema import AuditError, Checkpoint, Read, Site, Source, Texts
from audit.wrappers import open_wrapper
from tests import toy
from tests.case.test_opened import opened, root

__all__ = ["root"]
MORE = 5
LOGITS, RESID = Site(part="logits"), Site(part="resid_out", block=1)
READS = (
    Read(site=LOGITS, at="answer", reduce="logprob"), Read(site=LOGITS, at="key", reduce="rank"),
    Read(site=RESID, at="all"), Read(site=RESID, at="answer", reduce="logprob"),
)  # fmt: skip
FORGET = Texts(cohort="forget")


def padded(folder: Path, out: Path, rows: int = toy.VOCAB + MORE) -> Path:
    """The same model with further rows, whose logits would take the whole of a softmax; the tokenizer comes along."""
    shutil.copytree(folder, out)
    model = AutoModelForCausalLM.from_pretrained(folder)
    old = model.get_output_embeddings().weight.detach().clone()
    model.resize_token_embeddings(rows, mean_resizing=False)
    with torch.no_grad():
        for part in (model.get_input_embeddings(), model.get_output_embeddings()):
            assert isinstance(weight := part.weight, nn.Parameter)
            weight[toy.VOCAB :] = 30 * old[4 : 4 + rows - toy.VOCAB]
    model.save_pretrained(out)
    return out


def named(folder: Path) -> Checkpoint:
    return checkpoints.resolve(Source(path=str(folder)), Path("/"))


def widen(root: Path, *roles: str) -> None:
    for role in roles:
        padded(root / role, root / "wide")
        shutil.rmtree(root / role)
        (root / "wide").rename(root / role)


# ---- a case --------------------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("wider", [("suspect",), ("base",), ("base", "suspect"), ("reference1", "ancestor")])
def test_every_read_of_a_case_is_that_of_models_without_the_further_rows(root: Path, wider: tuple[str, ...]) -> None:
    before = opened(root)
    expected = [Bench().run(ckpt, before.rows(FORGET), READS).reads for ckpt in _everyone(before)]
    widen(root, *wider)
    case = opened(root)
    assert torch.equal(case.rows(FORGET).ids, before.rows(FORGET).ids)
    for ckpt, old in zip(_everyone(case), expected, strict=True):
        found = Bench().run(ckpt, case.rows(FORGET), READS)
        for read in READS:
            torch.testing.assert_close(found[read], old[read], msg=str(read))


def _everyone(case: OpenCase) -> tuple[Checkpoint, ...]:
    assert case.ancestor is not None
    return (case.base, case.suspect, *case.references, case.ancestor)


def test_the_case_says_how_many_rows_each_model_has_and_which_count(root: Path) -> None:
    assert not any("vocabulary" in note for note in opened(root).notes)
    widen(root, "suspect", "reference1")
    (note,) = (note for note in opened(root).notes if note.startswith("vocabulary:"))
    assert f"suspect {toy.VOCAB + MORE}" in note and f"base {toy.VOCAB}" in note
    assert f"the first {toy.VOCAB} count" in note
    case = opened(root)
    assert case.suspect.vocabulary == case.references[1].vocabulary == toy.VOCAB and case.base.vocabulary is None


def test_the_rows_that_count_are_part_of_the_key_and_not_of_the_name(root: Path) -> None:
    widen(root, "suspect")
    whole, cut = named(root / "suspect"), opened(root).suspect
    assert cut.key != whole.key and cut.fingerprint == whole.fingerprint
    assert "vocabulary" not in whole.model_dump()
    checkpoints.verify(cut)


def test_a_vocabulary_without_rows_is_refused_by_role(root: Path) -> None:
    config = root / "suspect" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"vocab_size": 0}))
    with pytest.raises(AuditError, match=r"suspect: .*: a vocabulary of 0 rows"):
        opened(root)


def test_a_text_with_a_token_that_only_one_model_knows_is_still_refused(root: Path) -> None:
    from tests.case.test_vocabulary import append

    widen(root, "suspect")
    append(root / "suspect", "anna boris", pad=False)
    with pytest.raises(AuditError, match="gives other tokens"):
        opened(root, data={"forget": str(_both(root)), "retain": "retain.jsonl"})


def _both(root: Path) -> Path:
    from tests.case.test_vocabulary import both

    return both(root)


def test_another_shape_beside_the_vocabulary_is_still_another_architecture(root: Path) -> None:
    widen(root, "suspect")
    weights = load_file(root / "suspect" / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    weights[name] = torch.cat([weights[name], weights[name]])
    from safetensors.torch import save_file

    save_file(weights, root / "suspect" / "model.safetensors", {"format": "pt"})
    with pytest.raises(AuditError, match=r"another architecture.*up_proj"):
        opened(root)


# ---- opened models -------------------------------------------------------------------------------------------------
@pytest.mark.sampled
@pytest.mark.parametrize("backend", ["native", "nnsight", "transformer_lens"])
@pytest.mark.parametrize("family", toy.FAMILIES)
def test_the_logits_of_a_cut_model_are_those_of_one_without_the_rows(tmp_path: Path, family: str, backend: str) -> None:
    if backend != "native" and family not in ("llama", "gpt2", "gemma2"):
        pytest.skip("tied, untied and capped heads are enough for the other backends")
    cut = checkpoints.cut_to(named(padded(toy.folder(family), tmp_path / "wide")), toy.VOCAB)
    rows, read = toy.rows(), (Read(site=LOGITS, at="all"),)
    plain, ours = (Bench(backend=backend).run(ckpt, rows, read)[read[0]] for ckpt in (toy.checkpoint(family), cut))
    assert plain.shape == ours.shape and plain.shape[-1] == toy.VOCAB
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_ties_stay_and_the_model_says_its_new_size(tmp_path: Path, family: str) -> None:
    cut = checkpoints.cut_to(named(padded(toy.folder(family), tmp_path / "wide")), toy.VOCAB)
    model = open_wrapper(cut).model  # type: ignore[attr-defined]
    one, other = model.get_input_embeddings(), model.get_output_embeddings()
    assert (one.weight is other.weight) is (family == "gpt2")
    assert model.config.vocab_size == one.num_embeddings == other.out_features == toy.VOCAB


@pytest.mark.thorough
def test_weights_are_streamed_and_compared_over_the_shared_rows(tmp_path: Path) -> None:
    for family in ("llama", "gpt2"):
        base = toy.checkpoint(family)
        cut = checkpoints.cut_to(named(padded(toy.folder(family, 1), tmp_path / family)), toy.VOCAB)
        same = toy.checkpoint(family, 1)
        bench = Bench()
        for name, (ours, theirs) in bench.weights(same, cut):
            assert torch.equal(ours, theirs), name
        assert bench.displacements(base, same, cut)[1:, 1:].std() < 1e-6
        found = [(d.name, d.shape, getattr(d, "moved_sq", None)) for d in bench.weight_differences(base, cut)]
        assert found == [(d.name, d.shape, getattr(d, "moved_sq", None)) for d in bench.weight_differences(base, same)]


@pytest.mark.thorough
def test_edits_of_whole_models_and_of_cut_ones_are_played_on_the_shared_rows(tmp_path: Path) -> None:
    folder = padded(toy.folder("llama"), tmp_path / "wide")
    whole = named(folder)
    cut = checkpoints.cut_to(whole, toy.VOCAB)
    head, read, rows = "lm_head.weight", (Read(site=LOGITS, at="all"),), toy.rows()
    stored = load_file(folder / "model.safetensors")[head]
    bias = torch.randn(toy.VOCAB + MORE, generator=torch.Generator().manual_seed(0))
    made: list[tuple[Checkpoint, Checkpoint]] = []
    for plays, delta in (("weights", {head: stored * 2}), ("logit_bias", {"bias": bias})):
        edited = checkpoints.write_edited(tmp_path / f"whole-{plays}", whole, "e", {}, plays, delta)
        short: dict[str, Tensor] = {name: value[: toy.VOCAB].clone() for name, value in delta.items()}
        again = checkpoints.write_edited(tmp_path / f"cut-{plays}", cut, "e", {}, plays, short)
        plain = checkpoints.write_edited(tmp_path / f"plain-{plays}", toy.checkpoint("llama"), "e", {}, plays, short)
        made += [(checkpoints.cut_to(edited, toy.VOCAB), plain), (again, plain)]
    for ours, plain in made:
        torch.testing.assert_close(Bench().run(ours, rows, read)[read[0]], Bench().run(plain, rows, read)[read[0]])


def test_a_head_that_would_give_other_logits_when_it_is_cut_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.wrappers.vocabulary_rows import cut_vocabulary

    model = toy.model("llama")
    real = model.lm_head.forward
    monkeypatch.setattr(model.lm_head, "forward", lambda x: real(x) - real(x).mean(-1, keepdim=True))
    with pytest.raises(AuditError, match="cannot be cut to 20 rows"):
        cut_vocabulary(model, 20, "model")


# ---- images and text -----------------------------------------------------------------------------------------------
def wide_vlm(out: Path) -> Path:
    from tests import toy_vlm

    model = toy_vlm.model("llava_clip")
    model.resize_token_embeddings(toy_vlm.VOCAB + MORE, mean_resizing=False)
    shutil.copytree(toy_vlm.folder("llava_clip"), out)
    model.save_pretrained(out)
    return out


@pytest.mark.thorough
def test_a_vision_language_model_is_cut_as_a_language_model_is(tmp_path: Path) -> None:
    from tests import toy_vlm

    plain, wide = toy_vlm.checkpoint("llava_clip"), named(wide_vlm(tmp_path / "wide"))
    checkpoints.check_compatible(plain, wide)
    rows, said = checkpoints.shared_vocabulary({"base": plain, "suspect": wide})
    assert rows == toy_vlm.VOCAB and said
    read, pictured = (Read(site=LOGITS, at="answer", reduce="logprob"),), toy_vlm.rows("llava_clip")
    ours, theirs = (Bench().run(c, pictured, read)[read[0]] for c in (checkpoints.cut_to(wide, rows), plain))
    torch.testing.assert_close(ours, theirs)


def test_the_token_of_an_image_is_never_cut_off(tmp_path: Path) -> None:
    from tests import toy_vlm

    folder = Path(shutil.copytree(toy_vlm.folder("llava_clip"), tmp_path / "short"))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["vocab_size"] = toy_vlm.IMAGE_ID
    (folder / "config.json").write_text(json.dumps(config))
    short = toy_vlm.checkpoint("llava_clip").model_copy(update={"source": str(folder)})
    with pytest.raises(AuditError, match=rf"base.*= {toy_vlm.IMAGE_ID} lies behind"):
        checkpoints.shared_vocabulary({"base": short, "suspect": toy_vlm.checkpoint("llava_clip")})


def test_a_head_that_lies_elsewhere_is_not_cut() -> None:
    from audit.wrappers.vocabulary_rows import cut_vocabulary

    model = toy.model("llama")
    model.lm_head.to("meta")
    with pytest.raises(AuditError, match="does not lie here as a whole") as caught:
        cut_vocabulary(model, 20, "model")
    assert caught.value.code == 2
