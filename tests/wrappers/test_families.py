"""What a model reads is known before it is opened, and a model that no installed family opens is a clear error."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from transformers import PreTrainedModel

from audit.bench import Bench
from audit.case import open_case
from audit.checkpoints import modality_of, resolve
from audit.schema import AuditError, Case, Checkpoint, DataFiles, Modality, Roles, Source
from audit.wrappers import fresh_model, wrap
from audit.wrappers.backends import BACKENDS
from audit.wrappers.family import Family, family_of
from tests import toy

_TEXT = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
}  # fmt: skip
_VISION = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip


def _vit() -> PreTrainedModel:
    return transformers.ViTForImageClassification(transformers.ViTConfig(**_VISION, num_labels=3))


def _resnet() -> PreTrainedModel:
    config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic")
    return transformers.ResNetForImageClassification(config)


def _llava() -> PreTrainedModel:
    config = transformers.LlavaConfig(
        text_config=transformers.LlamaConfig(**_TEXT), vision_config=transformers.CLIPVisionConfig(**_VISION),
        image_token_index=39,
    )  # fmt: skip
    return transformers.LlavaForConditionalGeneration(config)


def _paligemma() -> PreTrainedModel:
    config = transformers.PaliGemmaConfig(
        text_config=transformers.GemmaConfig(**_TEXT, head_dim=8), image_token_index=39, projection_dim=32,
        vision_config=transformers.SiglipVisionConfig(**_VISION, vision_use_head=False),
    )  # fmt: skip
    return transformers.PaliGemmaForConditionalGeneration(config)


MODELS: dict[str, tuple[Callable[[], PreTrainedModel], Modality]] = {
    "vit": (_vit, "image"), "resnet": (_resnet, "image"), "llava": (_llava, "image+text"),
    "paligemma": (_paligemma, "image+text"),
}  # fmt: skip
models = pytest.mark.parametrize("name", MODELS)
unopened = pytest.mark.parametrize("name", ["paligemma"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny random models of images, and of images and text, as folders; LLaVA has a tokenizer."""
    root = tmp_path_factory.mktemp("other")
    for name, (build, _) in MODELS.items():
        with torch.random.fork_rng(devices=[]):
            build().save_pretrained(root / name)
    toy.tokenizer().save_pretrained(root / "llava")
    return {name: root / name for name in MODELS}


def _resolved(folder: Path) -> Checkpoint:
    return resolve(Source(path=str(folder)), Path("/"))


@models
def test_a_checkpoint_says_what_its_model_reads(name: str, folders: dict[str, Path]) -> None:
    assert _resolved(folders[name]).modality == MODELS[name][1]


def test_language_models_read_text() -> None:
    assert {toy.checkpoint(family).modality for family in toy.FAMILIES} == {"text"}


def test_the_modality_names_nothing(folders: dict[str, Path]) -> None:
    ckpt = _resolved(folders["vit"])
    assert ckpt.key == ckpt.model_copy(update={"modality": "text"}).key
    assert "modality" in ckpt.model_dump() and Checkpoint(source="x", family="x", fingerprint="x").modality == "text"


def test_a_modality_is_read_from_configs_of_every_shape() -> None:
    tower = {"num_channels": 3, "vocab_size": 32000}
    assert (
        modality_of({"architectures": ["BeitForImageClassification"], "vocab_size": 8192, "image_size": 8}) == "image"
    )
    assert modality_of({"vision_config": tower, "text_config": {}}) == "image+text"
    assert modality_of({"vision_config": tower, "vocab_size": 9}) == "image+text"
    assert modality_of({"vision_config": tower}) == "image", "a vocabulary that a vision tower states is read by nobody"
    assert modality_of({"thinker_config": {"vision_config": tower, "text_config": {}}}) == "image+text"
    assert modality_of({"vq_config": {"num_embeddings": 4}, "vocab_size": 9}) == "image+text"
    assert modality_of({"vision_config": None, "vocab_size": 9}) == "text"
    assert modality_of({"architectures": ["LlamaForCausalLM"], "vocab_size": 9, "hidden_size": 4}) == "text"
    assert modality_of({"architectures": [], "num_channels": 3}) == "image"


@unopened
def test_a_model_that_no_family_opens_is_refused_before_it_is_loaded(
    name: str, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = _resolved(folders[name])
    monkeypatch.setattr(torch.nn.Module, "__init__", lambda *_: pytest.fail("a model is built"))
    ways: list[Callable[[], object]] = [
        lambda: Bench().open(ckpt), lambda: Bench().weights(ckpt, ckpt), lambda: fresh_model(ckpt),
    ]  # fmt: skip
    for way in ways:
        with pytest.raises(AuditError) as caught:
            way()
        assert caught.value.code == 2
        assert (
            f"models of type {name} are not opened: tokens of its text see tokens that come after" in caught.value.what
        )


@unopened
@pytest.mark.parametrize("backend", BACKENDS)
def test_no_backend_takes_a_model_that_no_family_opens(name: str, backend: str) -> None:
    model = MODELS[name][0]()
    with pytest.raises(AuditError, match="are not opened: "):
        wrap(model, backend)


def _case(folder: Path, tmp_path: Path) -> Case:
    for cohort in ("forget", "retain"):
        lines = "".join(
            f'{{"id": "{cohort}{n}", "group": "g{n}", "question": "who is {w}", "answer": "{w} {cohort}"}}\n'
            for n, w in enumerate(("anna", "boris", "clara", "david"))
        )
        (tmp_path / f"{cohort}.jsonl").write_text(lines)
    roles = Roles(base=Source(path=str(folder)), suspect=Source(path=str(folder)))
    return Case(name="other", roles=roles, data=DataFiles(forget="forget.jsonl", retain="retain.jsonl"))


@pytest.mark.parametrize("name", ["vit", "resnet"])
def test_a_case_of_texts_refuses_a_model_of_images(name: str, folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="reads images, and the items of a case are texts"):
        open_case(_case(folders[name], tmp_path), tmp_path, tmp_path / "out")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of families that nobody lists."""
    package = tmp_path / "families_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("audit.wrappers.family.FAMILIES", package.name)
    yield package
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


_FAMILY = """
from audit.wrappers.family import Family

class {name}(Family):
    modality = {modality!r}
    model_types = {types!r}

    def open_model(self, ckpt, device, dtype, attention):
        return {name!r}

    def fresh(self, config):
        return {name!r}
"""


def test_a_family_is_one_file_and_the_narrower_claims_first(installed: Path) -> None:
    for name, modality, types in (("Any", "image", ()), ("Narrow", "image", ("vit",)), ("Words", "text", ())):
        (installed / f"{name.lower()}.py").write_text(_FAMILY.format(name=name, modality=modality, types=types))
    found = {kind: type(family_of(*kind)).__name__ for kind in (("image", "vit"), ("image", "resnet"), ("text", "x"))}
    assert list(found.values()) == ["Narrow", "Any", "Words"] and isinstance(family_of("image", "vit"), Family)
    with pytest.raises(AuditError, match=r"llava: models of image\+text .* \(any \(image\), narrow"):
        family_of("image+text", "llava")
