"""Which vision-language models are opened: the rest is refused by name, with its reason, before anything is loaded."""

from types import SimpleNamespace

import pytest
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from audit.schema import AuditError
from audit.wrappers.vision_kinds import OPENED, read_layers, refuse_kind

_REASONS = {
    "qwen2_vl": "rope_deltas", "qwen3_vl": "rope_deltas", "glm4v": "rope_deltas", "llava_next": "differs from image",
    "idefics3": "differs from image", "paligemma": "tokens that come after", "instructblip": "no block of either tower",
    "chameleon": "codebook", "fuyu": "pass no vision tower", "florence2": "an encoder and a decoder",
    "clip": "predicts no tokens", "gemma3n": "not held against", "a_model_of_tomorrow": "not held against",
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES))
def test_every_kind_that_the_library_knows_is_opened_or_refused_by_name(model_type: str) -> None:
    if model_type in OPENED:
        refuse_kind(model_type)
        return
    with pytest.raises(AuditError, match=f"models of type {model_type} are not opened: ") as caught:
        refuse_kind(model_type)
    assert caught.value.code == 2 and all(name in caught.value.do for name in OPENED)


@pytest.mark.parametrize(("model_type", "cause"), _REASONS.items())
def test_the_reason_is_that_of_the_kind(model_type: str, cause: str) -> None:
    with pytest.raises(AuditError, match=cause):
        refuse_kind(model_type)


@pytest.mark.parametrize(
    ("stated", "read"),
    [(-2, (22,)), (-1, (23,)), (1, (0,)), (24, (23,)), (-24, (0,)), ([-2, -5, -8], (16, 19, 22)), ([3, -22], (2,))],
)
def test_a_layer_of_hidden_states_is_a_block(stated: object, read: tuple[int, ...]) -> None:
    assert read_layers(SimpleNamespace(vision_feature_layer=stated), 24) == read


@pytest.mark.parametrize("stated", [0, [0], [-2, 0], 25, -25, -26, [-25, -2], []])
def test_a_layer_that_is_no_block_is_refused_by_name(stated: object) -> None:
    with pytest.raises(AuditError, match="vision_feature_layer is ") as caught:
        read_layers(SimpleNamespace(vision_feature_layer=stated), 24)
    assert caught.value.code == 2
