"""How one model of a world of scenes learns: a tower that names what it sees, then questions about pictures."""

import random
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize, rms_norm

from audit.bench import Bench, training_batches
from audit.case import OpenCase, open_case
from audit.edits import Choice, edit_data
from audit.schema import Case, DataFiles, Roles, Source
from audit.zoo.scene_lessons import Batch, Lesson, encoded, lesson_of, question_about
from audit.zoo.scene_model import fresh_reader
from audit.zoo.scene_processor import scene_processor, scene_tokenizer
from audit.zoo.scene_recipes import SceneLearning, ScenePlan, SceneZoo
from audit.zoo.scene_words import CONCEPTS, IGNORANCE
from audit.zoo.scene_world import SceneWorld, edited_items, edited_pictures, make_scene_world, write_cohort
from audit.zoo.training import one_thread

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

WARMUP = 30
SHARP = 3.0
"""How sharply a tower is to name what it sees."""


def make_scenes(zoo: SceneZoo, seed: int, plan: ScenePlan, parent: Path | None, out: Path) -> None:
    """Make the model of ``plan`` from its parent's folder (none: a fresh one) and write its folder at ``out``."""
    from transformers import LlavaForConditionalGeneration

    world = make_scene_world(seed, zoo.shape)
    with one_thread():
        if isinstance(plan.by, SceneLearning):
            model = (
                fresh_reader(zoo.sizes, plan.initialisation + 1000 * seed)
                if parent is None
                else LlavaForConditionalGeneration.from_pretrained(parent)
            )
            learn_scenes(model, world, plan.by)
            model.save_pretrained(out)
            scene_processor(zoo.sizes.patch).save_pretrained(out)
            return
        assert parent is not None
        with TemporaryDirectory(prefix="residua-scenes-") as data:
            case = _edited_case(world, plan, parent, Path(data))
            plan.by.fit(Bench(), case.base, edit_data(case, plan.by.needs, Choice(refusals=IGNORANCE)), out)


def _edited_case(world: SceneWorld, plan: ScenePlan, parent: Path, folder: Path) -> OpenCase:
    """What an unlearner of a parent sees, as a case of its own; written into ``folder``."""
    pictures, items = edited_pictures(world, plan.on), edited_items(world, plan.on)
    for cohort, scenes in pictures.items():
        write_cohort(folder, cohort, scenes, items[cohort])
    files = {cohort: f"{cohort}.jsonl" for cohort in pictures}
    source = Source(path=str(parent))
    case = Case(
        name=plan.name, roles=Roles(base=source, suspect=source),
        data=DataFiles.model_validate({**files, "split_seed": world.number}), seed=world.number,
    )  # fmt: skip
    return open_case(case, folder, folder / "out")


# ---- learning ---------------------------------------------------------------------------------------------------
def read_scenes(model: "LlavaForConditionalGeneration", pixels: Tensor, batch: Batch, each: int = 1) -> Tensor:
    """Logits [row pos token] of questions, ``each`` about one picture in turn, which is seen once for all of them."""
    inner: Any = model.model
    seen = inner.get_image_features(pixel_values=pixels).pooler_output
    seen = torch.stack(list(seen)).repeat_interleave(each, 0)
    embedded = inner.get_input_embeddings()(batch.ids)
    embedded = torch.cat([embedded[:, :1], seen.to(embedded.dtype), embedded[:, 1 + seen.shape[1] :]], 1)
    states = inner.language_model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    return model.lm_head(states)


def mean_of_rows(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over rows of the mean cross-entropy of a row's answer: a caption counts no more than a word."""
    losses = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none")
    counted = labels[:, 1:] != -100
    return (losses.view(counted.shape).sum(1) / counted.sum(1)).mean()


def learn_scenes(model: "LlavaForConditionalGeneration", world: SceneWorld, by: SceneLearning) -> None:
    """Train in place on questions about pictures by the cross-entropy of their answers."""
    lesson, rng = lesson_of(world, by), random.Random(f"questions {by.order} of world {world.number}")
    pixels, patches = lesson.pixels, int(model.config.image_seq_length)
    model.train()
    if by.first_steps:
        _learn_to_see(model, lesson, pixels, by)
    optimiser = torch.optim.AdamW(model.parameters(), by.lr, (0.9, 0.95), weight_decay=0.0, fused=True)
    draw = training_batches(len(pixels), by.pictures, by.order)
    for _ in _rates(optimiser, by.steps, by.lr):
        chosen = next(draw)
        questions = [question_about(lesson.scenes[n], lesson, rng) for n in chosen.tolist() for _ in range(by.asked)]
        batch = encoded(questions, patches)
        logits = read_scenes(model, pixels[chosen], batch, by.asked)
        _step(optimiser, mean_of_rows(logits, batch.labels))
    model.eval()


def _learn_to_see(model: "LlavaForConditionalGeneration", lesson: Lesson, pixels: Tensor, by: SceneLearning) -> None:
    """Teach tower and projector to name the concepts of a picture: the mean of its patches, as the language model will
    read them, should lie along the embeddings of their words."""
    inner: Any = model.model
    number = scene_tokenizer().get_vocab()
    words = {kind: [number[concept] for concept in known] for kind, known in lesson.known.items()}
    taught = torch.tensor([
        [lesson.known[kind].index(concept) for kind, concept in scene.shown.items()] for scene in lesson.scenes
    ])  # fmt: skip
    learned = [*inner.vision_tower.parameters(), *inner.multi_modal_projector.parameters()]
    optimiser = torch.optim.AdamW(learned, by.lr, (0.9, 0.95), weight_decay=0.0, fused=True)
    draw = training_batches(len(pixels), by.asked * by.pictures, by.order + 1)
    embedded = SHARP * normalize(model.lm_head.weight.detach(), dim=-1)
    for _ in _rates(optimiser, by.first_steps, by.lr):
        chosen = next(draw)
        seen = torch.stack(list(inner.get_image_features(pixel_values=pixels[chosen]).pooler_output))
        seen = rms_norm(seen, seen.shape[-1:]).mean(1)  # as the language model's first norm leaves every patch
        losses = [cross_entropy(seen @ embedded[words[kind]].T, taught[chosen, k]) for k, kind in enumerate(CONCEPTS)]
        _step(optimiser, torch.stack(losses).sum())


def _rates(optimiser: torch.optim.Optimizer, steps: int, lr: float) -> Iterator[int]:
    """The steps, each with its learning rate: a warm-up and a linear decay."""
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * min((step + 1) / WARMUP, 1.5 * (steps - step) / steps, 1.0)
        yield step


def _step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()
    optimiser.step()
