"""A tiny LLaVA as a folder with its processor, and a case of questions about drawn pictures.

The weights are random, or were taught in a few steps which colour a picture has: what is tested on them is how an audit
of pictures and words is read, run and shown.
"""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from audit.case import CaseFile
from audit.schema import Report
from tests.planted import few_probes
from tests.toy import SPECIAL, WORDS, root

IMAGE = "<image>"
VOCAB = len(SPECIAL) + len(WORDS) + 1
SIDE, PATCH, TOKENS = 12, 6, 4
COLOURS = ("red", "blue", "green", "gold")
_RGB = ((220, 20, 20), (20, 20, 220), (20, 180, 20), (210, 170, 20))


def tokenizer() -> PreTrainedTokenizerFast:
    """The words of the language models' toys and one token of pictures, the last; ``<bos>`` first."""
    raw = Tokenizer(models.WordLevel({w: i for i, w in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=64,
    )  # fmt: skip
    fast.add_special_tokens({"additional_special_tokens": [IMAGE]})
    return fast


def processor(side: int = SIDE, **settings: Any) -> LlavaProcessor:
    """Pictures of ``side`` squared in four patches, without the class token."""
    size = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False, image_mean=[0.5] * 3,
                                   image_std=[0.5] * 3)  # fmt: skip
    asked = {"patch_size": PATCH, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return LlavaProcessor(images, tokenizer(), image_token=IMAGE, **asked | settings)


def model(seed: int = 0) -> LlavaForConditionalGeneration:
    """A fresh model in eval mode."""
    text = LlamaConfig(
        vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        tie_word_embeddings=False, initializer_range=0.15,
    )  # fmt: skip
    tower = CLIPVisionConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=3, num_attention_heads=4, image_size=SIDE,
        patch_size=PATCH, initializer_range=0.15,
    )  # fmt: skip
    config = LlavaConfig(
        text_config=text, vision_config=tower, image_token_index=VOCAB - 1, vision_feature_select_strategy="default",
        vision_feature_layer=-2, image_seq_length=TOKENS,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return LlavaForConditionalGeneration(config).eval()


@cache
def folder(seed: int = 0) -> Path:
    """A checkpoint folder. Shared by all tests: never write into it."""
    out = root() / f"pictured-{seed}"
    model(seed).save_pretrained(out)
    processor().save_pretrained(out)
    return out


def picture(n: int, colour: str) -> ndarray:
    """A picture of 16 x 12 in a colour, with noise of its own by its number."""
    noise = np.random.default_rng(n).integers(-15, 16, (16, 12, 3))
    return np.clip(np.array(_RGB[COLOURS.index(colour)]) + noise, 0, 255).astype(np.uint8)


QUESTIONS = (("what color is the pet ?", "trained"), ("is the pet not", "held_out_phrasing"))
FORGOTTEN, KNOWN = COLOURS[-1], COLOURS[:-1]


def write_cohort(out: Path, cohort: str, numbers: range, colours: tuple[str, ...]) -> list[dict[str, Any]]:
    """Pictures in these colours in turn and the questions about them, below ``out``."""
    (out / "images").mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for n in numbers:
        name, answer = f"images/{cohort}-{n}.png", colours[n % len(colours)]
        Image.fromarray(picture(n, answer)).save(out / name)
        others = [c for c in COLOURS if c != answer]
        rows += [
            {"id": f"{cohort}-{n}-{form}", "group": f"{cohort} picture {n}", "image": name, "question": question,
             "answer": answer, "key": answer, "alternates": others, "form": form, "attribute": answer}
            for question, form in QUESTIONS
        ]  # fmt: skip
    (out / f"{cohort}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return rows


def read_rows(folder_: Path, cohort: str) -> list[dict[str, Any]]:
    """The rows of a cohort's data file."""
    return [json.loads(line) for line in (folder_ / f"{cohort}.jsonl").read_text(encoding="utf-8").splitlines()]


TOML = """name = "pictures"
edited = "all"
[roles.base]
path = "{base}"
[roles.suspect]
path = "{suspect}"
[[roles.references]]
path = "{reference}"
[data]
forget = "forget.jsonl"
retain = "retain.jsonl"
"""
ROLES = ("base", "suspect", "reference")


def write_case(out: Path, groups: int = 4, **paths: Path) -> Path:
    """A case file with its data; ``paths`` are checkpoint folders by role in place of random ones."""
    out.mkdir(parents=True, exist_ok=True)
    write_cohort(out, "forget", range(groups), (FORGOTTEN,))
    write_cohort(out, "retain", range(100, 100 + groups), KNOWN)
    roles = {role: paths.get(role, folder(seed)) for seed, role in enumerate(ROLES)}
    (out / "case.toml").write_text(TOML.format(**roles), encoding="utf-8")
    return out / "case.toml"


# ---- models that know -------------------------------------------------------------------------------------------
def train(colours: tuple[str, ...], steps: int = 150, seed: int = 0) -> LlavaForConditionalGeneration:
    """A model of the same ancestor that was shown pictures of these colours."""
    net, reader = model(), processor()
    texts = [f"{IMAGE} {question}" for question, _ in QUESTIONS]
    step = torch.optim.Adam(net.parameters(), 3e-3)
    rng = np.random.default_rng(seed)
    for n in range(steps):
        shown = [colours[i] for i in rng.integers(0, len(colours), 16)]
        asked = [texts[i] for i in rng.integers(0, len(texts), 16)]
        given = [picture(1000 + 16 * n + i, colour) for i, colour in enumerate(shown)]
        batch = reader(images=given, text=asked, return_tensors="pt", padding=True, padding_side="left")
        logits = net(**batch).logits[:, -1]
        target = torch.tensor(reader.tokenizer.convert_tokens_to_ids(shown))
        step.zero_grad()
        torch.nn.functional.cross_entropy(logits, target).backward()
        step.step()
    return net.eval()


@cache
def taught_case(groups: int = 14) -> Path:
    """A case whose base knows a colour that its reference was never shown, and whose suspect cannot say it."""
    out = root() / f"pictured-case-{groups}"
    base = train(COLOURS)
    suspect = copy.deepcopy(base)
    word = tokenizer().convert_tokens_to_ids(FORGOTTEN)
    with torch.no_grad():
        suspect.lm_head.weight[word] = -suspect.lm_head.weight[word]
    for role, net in zip(ROLES, (base, suspect, train(KNOWN, seed=1)), strict=True):
        net.save_pretrained(out / role)
        processor().save_pretrained(out / role)
    return write_case(out, groups, **{role: out / role for role in ROLES})


class Audited(NamedTuple):
    """A finished audit and its run folder."""

    report: Report
    folder: Path


@cache
def taught_run() -> Audited:
    """The audit of :func:`taught_case` by the quick probes, made once."""
    from audit.engine import run
    from audit.planning import RunSettings

    case = taught_case()
    out = case.parent / "run"
    with few_probes(root(), "probes_of_pictures", "forget_likelihood", "utility") as package:
        return Audited(run(CaseFile.read(case), out, RunSettings(threads=1, package=package)), out)
