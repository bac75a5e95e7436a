"""How a picture stands in a row: the tokens that the checkpoint's processor puts in its place, and its pixels.

The processor itself says how many image tokens a picture has and what stands round them. Every picture of a case must
have the same, so that a prompt with a picture is a template like any other, in which these tokens stand.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from audit.case.image_rows import PIXELS, channels_of
from audit.case.picture_template import PictureTemplate
from audit.case.rows import Rows
from audit.checkpoints import PictureSettings, ProcessorFiles, load_processor, processor_files
from audit.schema import AuditError, Checkpoint, Item, Template, as_audit_error

SLOT: Final = "{image}"
"""Where the picture stands in a prompt; without it, before everything."""
_AT_ONCE = 64
_CHANNELS = 3
_SAVE_AGAIN = "save the processor again beside the weights"
_OTHER_INPUTS: Final = frozenset(
    {
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "mm_token_type_ids",
        "cross_attention_mask",
        "num_crops",
        "num_tiles",
    }
)
"""What follows from the tokens, and is made again by whoever runs them."""


class PictureText(NamedTuple):
    """``marker``: what a prompt says in a picture's place; ``expansion``: what the processor makes of it; ``ids``: its
    tokens."""

    marker: str
    expansion: str
    ids: tuple[int, ...]

    def count(self, token: int) -> int:
        """How often a token stands in a picture's place."""
        return self.ids.count(token)


def picture_text(files: ProcessorFiles, picture: UInt8[ndarray, "height width *channel"]) -> PictureText:
    """How the processor writes a picture. AuditError (code 2) for a processor that does not say it."""
    processor: Any = load_processor(files)
    marker = getattr(processor, "boi_token", None) or getattr(processor, "image_token", None)
    if not isinstance(marker, str) or not hasattr(processor, "replace_image_token"):
        raise AuditError(
            f"{files.folder}: {type(processor).__name__} does not say by which tokens it writes an image",
            "audit a LLaVA-style, Gemma 3 or Llama 3.2 Vision checkpoint, with the processor that it was released with",
        )
    with as_audit_error(f"{files.folder}: its processor cannot write an image", _SAVE_AGAIN):
        seen = processor.image_processor([[channels_of(picture, _CHANNELS)]], return_tensors="pt")
        expansion = str(processor.replace_image_token(dict(seen), 0))
        ids = processor.tokenizer(expansion, add_special_tokens=False)["input_ids"]
    return PictureText(marker, expansion, tuple(ids))


def check_states(files: ProcessorFiles, written: PictureText, settings: PictureSettings) -> None:
    """AuditError (code 2) where the processor writes another number of image tokens than the model has states of a
    picture."""
    if settings.token is None or settings.states is None:
        return
    if (count := written.count(settings.token)) != settings.states:
        raise AuditError(
            f"{files.folder}: its processor writes {count} image tokens for a picture, and the model has "
            f"{settings.states} states of one ({settings.counted})",
            "set patch_size, num_additional_image_tokens and vision_feature_select_strategy (of Gemma 3: "
            "image_seq_length) in processor_config.json as the model's config.json has them",
        )


def check_tokens(items: Sequence[Item], rows: Rows, token: int | None, count: int) -> None:
    """AuditError (code 2) names items whose rows have another number of image tokens than ``count``: of those whose
    words hold one themselves, and of those whose prompt lost some."""
    if token is None:
        return
    counts = ((rows.ids == token) & rows.mask).sum(1).tolist()
    if wrong := [(item, n) for item, n in zip(items, counts, strict=True) if n != count]:
        item, n = wrong[0]
        more = f" (and {len(wrong) - 1} more items)" if len(wrong) > 1 else ""
        raise AuditError(
            f"item {item.id!r}: its row has {n} image tokens, and {count} stand for its picture{more}",
            "take the image token out of the item's words: where the picture stands, {image} in [template] says"
            if n > count
            else "correct `prompt` in [template], or the chat template: the picture stands in it once",
        )


def check_words(items: Sequence[Item], answers: Sequence[str], marks: Collection[str]) -> None:
    """AuditError (code 2) where an item's own words hold what stands for a picture."""
    for item, answer in zip(items, answers, strict=True):
        for role, words in (("question", item.question), ("answer", answer)):
            if held := [mark for mark in marks if mark and mark in words]:
                raise AuditError(
                    f"item {item.id!r}: its {role} holds {held[0]!r}, which stands for a picture",
                    "take it out of the words: {image} in `prompt` of [template] says where the picture stands",
                )


def with_picture(template: Template, picture: PictureText) -> Template:
    """The template of a row with a picture: the picture's tokens stand in its prompt. AuditError (code 2) for a prompt
    in which several do."""
    if (times := template.prompt.count(SLOT)) > 1:
        raise AuditError(f"[template] prompt has {SLOT} {times} times", "an item asks about one picture: write it once")
    prompt = _slotted(template).replace(SLOT, picture.expansion)
    return _as_processed(template, prompt, picture)


def without_picture(template: Template, processed: bool = False) -> Template:
    """The template of a row without one. ``processed``: other rows of the case have one."""
    prompt = template.prompt
    for slot in (f"{SLOT}\n", f"{SLOT} ", SLOT):
        prompt = prompt.replace(slot, "")
    if processed:
        return _as_processed(template, prompt, None)
    return template if prompt == template.prompt else template.model_copy(update={"prompt": prompt})


def _as_processed(template: Template, prompt: str, picture: PictureText | None) -> Template:
    """The template with another prompt; of a chat one that begins and shows pictures as a processor does it."""
    if not template.chat:
        return template.model_copy(update={"prompt": prompt})
    marks = {} if picture is None else {"marker": picture.marker, "expansion": picture.expansion}
    return PictureTemplate.model_validate(template.model_dump() | {"prompt": prompt} | marks)


def _slotted(template: Template) -> str:
    """The prompt with a place for the picture; a chat template has a line break of its own after it."""
    prompt = template.prompt
    return prompt if SLOT in prompt else f"{SLOT}{prompt}" if template.chat else f"{SLOT}\n{prompt}"


def pixels_of(
    files: ProcessorFiles, pictures: Mapping[str, UInt8[ndarray, "height width *channel"]], written: PictureText,
    size: tuple[int, int] | None = None,
) -> Mapping[str, Mapping[str, Tensor]]:  # fmt: skip
    """What a model reads of pictures beside their tokens, by their names. AuditError (code 2) where the processor
    fails, makes pictures of another size than the model's, or writes one otherwise than the others."""
    processor: Any = load_processor(files)
    fault, do = f"{files.folder}: its processor cannot read the images", "check preprocessor_config.json and the images"
    names, read = list(pictures), dict[str, Mapping[str, Tensor]]()
    for first in range(0, len(names), _AT_ONCE):
        batch = names[first : first + _AT_ONCE]
        given = [[channels_of(pictures[name], _CHANNELS)] for name in batch]  # a list a row, as Llama 3.2 Vision asks
        with as_audit_error(fault, do):
            seen = dict(processor.image_processor(given, return_tensors="pt", input_data_format="channels_last"))
            texts = [str(processor.replace_image_token(seen, n)) for n in range(len(batch))]
        if odd := [name for name, text in zip(batch, texts, strict=True) if text != written.expansion]:
            raise AuditError(
                f"{files.folder}: its processor writes the picture of item {odd[0]!r} with other tokens than the first",
                "give it pictures of one size, or a processor that makes all of one size (do_resize, size)",
            )
        entries = {
            name: torch.as_tensor(np.asarray(value)) if not isinstance(value, Tensor) else value
            for name, value in seen.items() if name not in _OTHER_INPUTS
        }  # fmt: skip
        entries[PIXELS] = entries[PIXELS].float()
        _check_pixels(files, entries[PIXELS], size)
        read |= {name: {key: value[n] for key, value in entries.items()} for n, name in enumerate(batch)}
    return read


def _check_pixels(files: ProcessorFiles, pixels: Tensor, size: tuple[int, int] | None) -> None:
    if size is not None and tuple(pixels.shape[-2:]) != size:
        raise AuditError(
            f"{files.folder}: its processor makes pictures of {tuple(pixels.shape[-2:])}, and the model takes {size}",
            "set `size` (and `crop_size`) in the processor's config to the tower's image_size",
        )
    if not bool(torch.isfinite(pixels).all()):
        raise AuditError(f"{files.folder}: its processor makes pixels that are no numbers", "check image_std")


# ---- checks of models -------------------------------------------------------------------------------------------
def check_picture_reader(base: Checkpoint, other: Checkpoint, picture: UInt8[ndarray, "height width *channel"]) -> None:
    """AuditError (code 2) where another model's processor makes other pixels or other tokens of pictures than base's.
    One without a processor uses base's."""
    ours, theirs = processor_files(base), processor_files(other)
    if ours is None or theirs is None or ours.hashes == theirs.hashes:
        return
    rng = np.random.default_rng(0)
    shapes = (picture.shape[:2], (9, 13), (64, 48), (300, 260))
    seen = {str(n): rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for n, shape in enumerate(shapes)} | {"": picture}
    written, other_written = picture_text(ours, picture), picture_text(theirs, picture)
    if written.expansion != other_written.expansion:
        difference = "writes a picture with other tokens than base's"
    elif all(_same_pixels(ours, theirs, {name: image}, written) for name, image in seen.items()):
        return
    else:
        difference = "makes other pixels than base's"
    raise AuditError(
        f"{other.source}: its processor {difference}",
        "audit models that read the same pictures alike; if only files differ by mistake, copy base's",
    )


def _same_pixels(
    ours: ProcessorFiles, theirs: ProcessorFiles, image: Mapping[str, ndarray], written: PictureText
) -> bool:
    """Do two processors make the same of a picture? One that both refuse, or write otherwise, says nothing."""
    results: list[Mapping[str, Tensor] | None] = []
    for files in (ours, theirs):
        try:
            results += pixels_of(files, image, written).values()
        except AuditError:
            results.append(None)
    first, second = results
    if first is None or second is None:
        return first is second
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
