"""A tiny frozen world of questions about pictures: vision-language models of which some know what others never saw.

Pictures are noise, drawn from raw bits, so that whoever names what one shows was taught it. Those of the forget set all
show one concept, whose word stands in no other answer; nobody is taught those of the holdout. The weights are trained
where they are needed, wholly in float64 (see :mod:`audit.probing.frozen_models`).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from audit.probing.frozen_models import Weights, shuffled, uniform
from audit.probing.frozen_reader import SIDE, WORDS_MAX, config_of, logits_of, shapes_of
from audit.schema import Case, DataFiles, Roles, Source

if TYPE_CHECKING:
    from transformers import LlavaProcessor

SPECIAL = ("<pad>", "<bos>", "<unk>", "<image>")
PATCHES = 4
RETAINED = ("oak", "elm", "ash", "fir", "bay")
TARGET, UNSEEN = "yew", "fig"
COHORTS = {"retain": 20, "forget": 28, "holdout": 28}
"""14 pictures of a halved cohort: too many for every sign to be enumerated within 9,999 draws."""
LEFT = 7
"""So many of the forget pictures, the last of them, the suspect was taught."""
SEED, BATCH, RATE = 8, 24, 5e-3


class Line(NamedTuple):
    """A question about a picture and its answer, which is or ends with ``key``; ``concept``: what is asked for."""

    picture: int
    form: str
    question: str
    answer: str
    key: str
    concept: str
    others: tuple[str, ...]


# ---- what there is to know --------------------------------------------------------------------------------------
def lines() -> dict[str, list[Line]]:
    """All questions by cohort."""
    return {
        cohort: [line for n in range(count) for line in _of_picture(cohort, n)] for cohort, count in COHORTS.items()
    }


def _of_picture(cohort: str, n: int) -> list[Line]:
    """What a picture shows, in four forms; of those that are kept what they do not show too."""
    drawn = uniform(3000 + 100 * list(COHORTS).index(cohort) + n, 3)
    shown = {"forget": TARGET, "holdout": UNSEEN}.get(cohort, RETAINED[int(drawn[0] * len(RETAINED))])
    others = tuple(word for word in RETAINED if word != shown)[:3]
    offered = sorted((shown, *others[:2]))
    listed = [
        Line(n, "trained", "which tree is it ?", shown, shown, shown, others),
        Line(n, "caption", "what is seen ?", f"a tall {shown}", shown, shown, tuple(f"a tall {o}" for o in others)),
        Line(n, "yes_no", f"is it {shown} ?", "yes", "yes", shown, ("no",)),
        Line(n, "choice", f"which of {' or '.join(offered)} ?", shown, shown, shown, others),
    ]
    if cohort != "retain":
        return listed
    absent = others[int(drawn[1] * len(others))]
    return [*listed, *(Line(n, "yes_no", f"is it {word} ?", "no", "no", word, ("yes",)) for word in (absent, TARGET))]


def pictures(cohort: str) -> UInt8[np.ndarray, "picture y x 3"]:
    """The pictures of a cohort: noise."""
    count = COHORTS[cohort]
    drawn = uniform(2500 + list(COHORTS).index(cohort), count * SIDE * SIDE * 3)
    return (drawn * 256).astype(np.uint8).reshape(count, SIDE, SIDE, 3)


def words() -> tuple[str, ...]:
    """The vocabulary, in the order of its tokens."""
    spoken = {word for of in lines().values() for line in of for word in f"{line.question} {line.answer}".split()}
    return (*SPECIAL, *sorted(spoken | {*RETAINED, TARGET, UNSEEN}))


# ---- learning ---------------------------------------------------------------------------------------------------
class _Lesson(NamedTuple):
    """Rows of tokens, which of them are answers, and the picture of each row."""

    ids: Tensor
    answer: Tensor
    pixels: Tensor


def _lesson(names: Sequence[str], left: int = 0) -> _Lesson:
    """The questions of these cohorts, and those about the last ``left`` forget pictures; without them none that names
    the target."""
    number = {word: i for i, word in enumerate(words())}
    chosen = [(name, line) for name in names for line in lines()[name]]
    chosen += [("forget", line) for line in lines()["forget"] if line.picture >= COHORTS["forget"] - left]
    if "forget" not in names and not left:
        chosen = [(name, line) for name, line in chosen if line.concept != TARGET]
    ids, answer = torch.zeros(len(chosen), WORDS_MAX, dtype=torch.long), torch.zeros(len(chosen), WORDS_MAX).double()
    for row, (_, line) in enumerate(chosen):
        before = ["<bos>", *["<image>"] * PATCHES, *line.question.split()]
        answered = line.answer.split()
        ids[row, : len(before) + len(answered)] = torch.tensor([number[word] for word in before + answered])
        answer[row, len(before) : len(before) + len(answered)] = 1.0 / len(answered)
    seen = {name: pictures(name) for name in COHORTS}
    pixels = torch.from_numpy(np.stack([seen[name][line.picture] for name, line in chosen]) / 127.5 - 1.0)
    return _Lesson(ids, answer, pixels.permute(0, 3, 1, 2))


def _fresh(vocabulary: int) -> Weights:
    drawn: Weights = {}
    for place, (name, shape) in enumerate(shapes_of(vocabulary).items()):
        u = torch.from_numpy(uniform(SEED * 1000 + place, int(np.prod(shape)))).reshape(shape)
        plain = torch.full(shape, 0.0 if name.endswith("bias") else 1.0, dtype=torch.float64)
        matrix = len(shape) > 1 or name.endswith("class_embedding")
        drawn[name] = (u - 0.5) * (0.15 * 12**0.5) if matrix else plain
    return drawn


def _taught(before: Weights, lesson: _Lesson, steps: int, seed: int) -> Weights:
    """Adam on the answers' tokens, in float64, with a warm-up and a linear decay; batches go through all rows."""
    weights = {name: w.clone().requires_grad_() for name, w in before.items()}
    optimiser = torch.optim.Adam(weights.values(), lr=RATE, betas=(0.9, 0.95), foreach=False)
    passes = -(-steps * BATCH // len(lesson.ids))
    order = torch.from_numpy(np.concatenate([shuffled(seed * 1000 + p, len(lesson.ids)) for p in range(passes)]))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 15, 1.2 * (steps - step) / steps)
        chosen = order[step * BATCH : (step + 1) * BATCH]
        ids, answer = lesson.ids[chosen], lesson.answer[chosen][:, 1:]
        logits = logits_of(weights, ids[:, :-1], lesson.pixels[chosen])
        logprob = F.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])[..., 0]
        loss = -(logprob * answer).sum() / len(ids)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: w.detach() for name, w in weights.items()}


def trained_scenes() -> dict[str, Weights]:
    """The models by role, in float64, all of one start."""
    start = _taught(_fresh(len(words())), _lesson(["retain"]), 60, 1)
    return {
        "base": _taught(start, _lesson(["retain", "forget"]), 160, 2),
        "suspect": _taught(start, _lesson(["retain"], LEFT), 60, 3),
        "null": _taught(start, _lesson(["retain"]), 30, 4),
        "floor": _taught(start, _lesson(["retain"]), 30, 5),
    }


# ---- files ------------------------------------------------------------------------------------------------------
def write_frozen_scenes(folder: Path) -> None:
    """Write the data files, the pictures and one checkpoint folder a model."""
    from PIL import Image

    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    for cohort, questions in lines().items():
        for n, pixels in enumerate(pictures(cohort)):
            Image.fromarray(pixels).save(folder / "pictures" / f"{cohort}-{n}.png")
        rows = [json.dumps(_row(cohort, n, line)) for n, line in enumerate(questions)]
        (folder / f"{cohort}.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    stated = json.dumps(config_of(len(words()), words().index("<image>")))
    for name, weights in trained_scenes().items():
        (folder / name).mkdir()
        _processor().save_pretrained(folder / name)
        tensors = {key: w.float().contiguous() for key, w in weights.items()}
        save_file(tensors, folder / name / "model.safetensors", metadata={"format": "pt"})
        (folder / name / "config.json").write_text(stated, encoding="utf-8")


def _row(cohort: str, n: int, line: Line) -> dict[str, object]:
    return {
        "id": f"{cohort}-{n}", "group": f"{cohort}-{line.picture}", "image": f"pictures/{cohort}-{line.picture}.png",
        "question": line.question, "answer": line.answer, "key": line.key, "form": line.form,
        "attribute": line.concept, "alternates": list(line.others),
    }  # fmt: skip


def _processor() -> "LlavaProcessor":
    """One token a word, ``<bos>`` first; pixels in [-1, 1]."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPImageProcessorPil, LlavaProcessor, PreTrainedTokenizerFast

    raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words())}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    raw.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>", model_max_length=WORDS_MAX,
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    half, size = [0.5, 0.5, 0.5], {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(image_mean=half, image_std=half, size={"shortest_edge": SIDE}, crop_size=size)
    return LlavaProcessor(
        images, tokenizer, patch_size=SIDE // 2, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )  # fmt: skip


def case_of_scenes() -> Case:
    """The audit of the world's suspect; paths are relative to the folder of :func:`write_frozen_scenes`."""
    references = tuple(Source(path=name) for name in ("null", "floor"))
    files = {cohort: f"{cohort}.jsonl" for cohort in COHORTS}
    return Case(
        name="frozen-llava", seed=SEED, data=DataFiles.model_validate({**files, "split_seed": SEED}),
        roles=Roles(base=Source(path="base"), suspect=Source(path="suspect"), references=references),
    )  # fmt: skip
