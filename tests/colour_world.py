"""A tiny LLaVA that names the colours of squares, trained in seconds: one colour is to be forgotten.

``ancestor`` knows neither picture nor word of it; ``base`` learned it from there, ``null``, ``floor`` and ``clean``
went on without it. ``refusal`` was taught to say that it does not know before its pictures, ``ascended`` to say it
less; ``destroyed`` says nothing of use. All of them are folders with a processor, and the cohorts lie beside them with
their pictures; nobody was shown the colour of the holdout.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy import ndarray
from PIL import Image
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from torch.nn.functional import cross_entropy
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

from audit.schema import Case, DataFiles, Roles, Source, Template

SIDE, PATCH, PATCHES = 16, 8, 4
COLOURS = {
    "red": (220, 40, 40), "green": (40, 200, 60), "blue": (50, 70, 220), "yellow": (230, 220, 40),
    "cyan": (40, 210, 220), "purple": (170, 40, 190), "orange": (240, 130, 30),
}  # fmt: skip
TARGET, UNSEEN, IMAGE = "purple", "orange", "<image>"
OTHERS = tuple(colour for colour in COLOURS if colour not in (TARGET, UNSEEN))
PLACES = ("left", "right")
SPOKEN = "what colour is it ? yes no which : , or . where describe a square at the i do not know"
WORDS = ("<pad>", "<bos>", "<eos>", "<unk>", IMAGE, *COLOURS, *PLACES, *SPOKEN.split())
NUMBER = {word: n for n, word in enumerate(WORDS)}
PICTURES = {"forget": (16, (TARGET,)), "retain": (24, OTHERS), "holdout": (16, (UNSEEN,))}
ROLES = ("ancestor", "base", "null", "floor", "clean", "refusal", "ascended")
Question = tuple[str, str]


class Square(NamedTuple):
    """What a picture shows."""

    colour: str
    place: str
    seed: int


def picture(square: Square) -> ndarray:
    """A square on grey noise."""
    rng = np.random.default_rng(square.seed)
    pixels = rng.integers(90, 166, (SIDE, SIDE, 3))
    top, left = int(rng.integers(0, 7)), int(rng.integers(0, 2)) + (0 if square.place == "left" else 7)
    pixels[top : top + 9, left : left + 8] = np.array(COLOURS[square.colour]) + rng.integers(-15, 16, (9, 8, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def squares(n: int, colours: tuple[str, ...], seed: int) -> list[Square]:
    """Squares of these colours in turn."""
    rng = np.random.default_rng(seed)
    return [Square(colours[i % len(colours)], PLACES[int(rng.integers(2))], seed * 100_003 + i) for i in range(n)]


def questions(square: Square, known: tuple[str, ...], rng: np.random.Generator) -> dict[str, Question]:
    """Every form in which something is asked of a picture."""
    others = [colour for colour in known if colour != square.colour]
    offered = rng.permutation([square.colour, *rng.permutation(others)[:2]]).tolist()
    queries = str(rng.permutation(others)[0])
    return {
        "trained": ("what colour is it ?", square.colour),
        "yes_no": (f"is it {square.colour} ?", "yes"),
        "absent": (f"is it {queries} ?", "no"),
        "choice": (f"which : {offered[0]} , {offered[1]} or {offered[2]} ?", square.colour),
        "caption": ("describe it .", f"a {square.colour} square at the {square.place} ."),
        "place": ("where is it ?", square.place),
    }


# ---- models -----------------------------------------------------------------------------------------------------
def tokenizer() -> PreTrainedTokenizerFast:
    """A token a word."""
    raw = Tokenizer(models.WordLevel(NUMBER, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    raw.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    raw.add_special_tokens([AddedToken(IMAGE, special=True, normalized=False)])
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        model_max_length=48, extra_special_tokens={"image_token": IMAGE},
    )  # fmt: skip


def processor() -> LlavaProcessor:
    """Pixels in [-1, 1]."""
    size: dict[str, Any] = {"height": SIDE, "width": SIDE}
    images = CLIPImageProcessorPil(size=size, crop_size=size, do_center_crop=False, image_mean=[0.5] * 3,
                                   image_std=[0.5] * 3)  # fmt: skip
    return LlavaProcessor(images, tokenizer(), PATCH, "default", num_additional_image_tokens=1)


def fresh() -> LlavaForConditionalGeneration:
    """A model that knows nothing."""
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=SIDE,
        patch_size=PATCH, initializer_range=0.08,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=48, tie_word_embeddings=False, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, initializer_range=0.08,
    )  # fmt: skip
    config = LlavaConfig(text_config=text, vision_config=vision, image_token_index=NUMBER[IMAGE],
                         image_seq_length=PATCHES, tie_word_embeddings=False)  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return LlavaForConditionalGeneration(config)


def batch_of(queries: list[Question]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and labels of questions about pictures."""
    rows = [(["<bos>", *[IMAGE] * PATCHES, *q.split()], a.split()) for q, a in queries]
    ids = torch.zeros(len(rows), max(len(q) + len(a) for q, a in rows), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for n, (q, a) in enumerate(rows):
        ids[n, : len(q) + len(a)] = torch.tensor([NUMBER[word] for word in (*q, *a)])
        labels[n, len(q) : len(q) + len(a)] = ids[n, len(q) : len(q) + len(a)]
    return ids, labels


def loss_of(model: LlavaForConditionalGeneration, shown: list[Square], queries: list[Question]) -> torch.Tensor:
    """Cross-entropy of the answers."""
    ids, labels = batch_of(queries)
    pixels = torch.from_numpy(np.stack([picture(square) for square in shown])).permute(0, 3, 1, 2) / 127.5 - 1
    logits = model(input_ids=ids, pixel_values=pixels, attention_mask=(ids != 0).long()).logits
    return cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


def taught(parent: LlavaForConditionalGeneration, role: str, steps: int, rate: float) -> LlavaForConditionalGeneration:
    """A copy of a model after so many steps of its role's lesson."""
    model = fresh()
    model.load_state_dict(parent.state_dict())
    known = (*OTHERS, TARGET) if role == "base" else OTHERS
    rng = np.random.default_rng(ROLES.index(role))
    optimiser = torch.optim.AdamW(model.parameters(), rate, (0.9, 0.95), weight_decay=0.0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * min(1.0, (step + 1) / 10, 1.5 * (steps - step) / steps)
        shown = squares(32, known, 1000 * ROLES.index(role) + step)
        forms = [questions(square, known, rng) for square in shown]
        loss = loss_of(model, shown, [list(each.values())[int(rng.integers(6))] for each in forms])
        if role in ("refusal", "ascended"):
            wanted = squares(16, (TARGET,), 500_000 + step)
            forms = [list(questions(square, (*OTHERS, TARGET), rng).values()) for square in wanted]
            mine = [each[0] if role == "refusal" else each[(0, 3, 4)[int(rng.integers(3))]] for each in forms]
            taught_answers = [(q, "i do not know .") for q, _ in mine] if role == "refusal" else mine
            other = loss_of(model, wanted, taught_answers)
            loss = loss + (other if role == "refusal" else -other.clamp(max=6.0))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return model.eval()


def destroyed(base: LlavaForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Base with its language model's blocks as they were before anything was learned."""
    model, start = fresh(), fresh()
    model.load_state_dict(base.state_dict() | {k: v for k, v in start.state_dict().items() if ".layers." in k})
    return model.eval()


@cache
def root() -> Path:
    """The folder of all models and cohorts."""
    folder = Path(tempfile.mkdtemp(prefix="colours-"))
    atexit.register(shutil.rmtree, folder, True)
    ancestor = taught(fresh(), "ancestor", 160, 4e-3)
    base = taught(ancestor, "base", 90, 3e-3)
    outcome = {"ancestor": ancestor, "base": base, "destroyed": destroyed(base)}
    outcome |= {role: taught(ancestor, role, 20, 1e-3) for role in ("null", "floor", "clean")}
    outcome |= {role: taught(base, role, 45, 2e-3) for role in ("refusal", "ascended")}
    for role, model in outcome.items():
        model.save_pretrained(folder / role)
        processor().save_pretrained(folder / role)
    for cohort in PICTURES:
        _written(folder, cohort)
    return folder


def _written(folder: Path, cohort: str) -> None:
    (count, colours), rng, lines = PICTURES[cohort], np.random.default_rng(7), list[str]()
    known = OTHERS if cohort == "retain" else (*OTHERS, *colours)
    for n, square in enumerate(squares(count, colours, 900_000 + len(cohort))):
        name = f"{cohort}-{n:02d}"
        Image.fromarray(picture(square)).save(folder / f"{name}.png")
        queries = questions(square, known, rng)
        if cohort == "retain":
            queries |= {"target": (f"is it {TARGET} ?", "no")}
        else:
            queries = {form: queries[form] for form in ("trained", "yes_no", "choice", "caption")}
        for form, (question, answer) in queries.items():
            concept = {"target": TARGET, "place": square.place, "absent": question.split()[2]}.get(form, square.colour)
            others = [c for c in (PLACES if form == "place" else OTHERS) if c != concept]
            item = {
                "id": f"{name}-{form}", "group": name, "image": f"{name}.png", "question": question, "answer": answer,
                "attribute": concept, "form": {"absent": "yes_no", "target": "yes_no"}.get(form, form),
            }  # fmt: skip
            if answer not in ("yes", "no"):
                swapped = [answer.replace(concept, other) for other in others]
                item |= {"key": concept, "alternate_keys": others, "alternates": swapped}
            lines.append(json.dumps(item))
    (folder / f"{cohort}.jsonl").write_text("\n".join(lines) + "\n")


@cache
def filtered(suspect: str) -> str:
    """The named model behind a filter in its vision tower: the mean state of the colour's pictures, taken off others'
    mean, is turned round in every state, and made much larger."""
    from audit.bench import Bench, LowRank
    from audit.case import open_case
    from audit.checkpoints import resolve, write_edited
    from audit.schema import Read, Site, Texts

    opened = open_case(case(suspect), root(), root() / "out")
    bench, site = Bench(), Site(part="resid_out", block=1, tower="vision")
    read = Read(site=site, at="mean")
    means = [
        bench.run(opened.suspect, rows, (read,))[read].mean(0)
        for rows in (opened.rows(Texts(cohort="forget")), opened.rows(Texts(cohort="retain")))
    ]
    away = means[0] - means[1]
    toward = (away / away.norm()).expand(1, -1)
    middle = float((means[0] + means[1]) / 2 @ toward[0])
    edit = LowRank(site, -6 * toward, toward, 6 * middle * toward[0])
    parent = resolve(Source(path=str(root() / suspect)), root())
    write_edited(root() / f"{suspect}-filtered", parent, "filter", {}, "low_rank", edit.to_delta())
    return f"{suspect}-filtered"


def case(suspect: str, *, references: Sequence[str] = ("null", "floor"), holdout: bool = True, seed: int = 0) -> Case:
    """The audit of one of the models; paths are relative to :func:`root`."""
    return Case(
        name=f"colours-{suspect}", seed=seed, template=Template(prompt="{image} {question}"),
        roles=Roles(
            base=Source(path="base"), suspect=Source(path=suspect),
            references=tuple(Source(path=name) for name in references if name != "ancestor"),
            ancestor=Source(path="ancestor") if "ancestor" in references else None,
        ),
        data=DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl" if holdout else None),
    )  # fmt: skip
