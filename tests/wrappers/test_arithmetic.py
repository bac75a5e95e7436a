"""What is said of a model's arithmetic is what the opened model computes with, whatever its settings wish for."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from audit import checkpoints
from audit.schema import Checkpoint, Source
from audit.wrappers import arithmetic_of, open_wrapper
from tests import expert_toy, image_toy, torch_module_toy, toy, toy_vlm


def opened(ckpt: Checkpoint, attention: str = "default") -> Any:
    wrapper: Any = open_wrapper(ckpt, attention=attention)
    return wrapper.model


@pytest.mark.sampled
@pytest.mark.parametrize("family", toy.FAMILIES)
@pytest.mark.parametrize("asked", ["default", "eager"])
def test_what_is_said_of_a_family_is_what_its_opened_model_has(family: str, asked: str) -> None:
    ckpt = toy.checkpoint(family)
    assert arithmetic_of(ckpt, attention=asked) == opened(ckpt, asked).config._attn_implementation
    assert arithmetic_of(ckpt) == ("eager" if family == "gemma2" else "sdpa")


def test_a_model_of_experts_says_how_they_are_computed() -> None:
    ckpt = expert_toy.checkpoint("mixtral")
    config = opened(ckpt).config
    assert arithmetic_of(ckpt) == f"{config._attn_implementation}, experts {config._experts_implementation}"


@pytest.mark.parametrize("kind", ["llava_clip", "gemma3", "mllama"])
def test_a_model_of_images_and_words_says_one_name_where_its_parts_agree(kind: str) -> None:
    ckpt = toy_vlm.checkpoint(kind)
    config = opened(ckpt).config
    parts = {config.text_config._attn_implementation, config.vision_config._attn_implementation}
    assert {arithmetic_of(ckpt)} == parts


def test_parts_that_differ_are_named_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from audit.wrappers import arithmetic

    class Part:
        def __init__(self, used: str) -> None:
            self._attn_implementation = used

    class Model:
        class config:  # noqa: N801 (the name is the library's)
            sub_configs = {"text_config": None, "vision_config": None}
            text_config, vision_config = Part("sdpa"), Part("eager")

        def modules(self) -> tuple[()]:
            return ()

    monkeypatch.setattr(arithmetic, "fresh_model", lambda _: Model())
    assert arithmetic_of(toy_vlm.checkpoint("llava_clip")) == "sdpa (text_config), eager (vision_config)"


def test_a_model_of_images_and_a_module_of_torch_say_theirs() -> None:
    assert arithmetic_of(image_toy.checkpoint()) == opened(image_toy.checkpoint()).config._attn_implementation
    assert arithmetic_of(torch_module_toy.checkpoint()) == "the module's own"


def test_a_backend_with_an_attention_of_its_own_says_that_one() -> None:
    assert arithmetic_of(toy.checkpoint("llama"), "transformer_lens") == "eager"


def test_a_wish_in_a_config_changes_nothing_of_what_is_said(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(toy.folder("llama"), tmp_path / "model"))
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"_attn_implementation": "eager"}))
    assert arithmetic_of(checkpoints.resolve(Source(path=str(folder)), tmp_path)) == "sdpa"
