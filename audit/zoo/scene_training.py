"""How one model of a world of scenes learns: a tower that names what it sees, then questions about pictures."""

import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from audit.bench import Bench, training_batches
from audit.case import OpenCase, open_case
from audit.edits import Choice, edit_data
from audit.schema import Case, DataFiles, Roles, Source
from audit.zoo.scene_drawing import SIDE
from audit.zoo.scene_processor import IMAGE, scene_processor, scene_tokenizer
from audit.zoo.scene_recipes import SceneLearning, ScenePlan, SceneSizes, SceneZoo
from audit.zoo.scene_words import (
    CONCEPTS,
    IGNORANCE,
    Asked,
    ConceptKind,
    QuestionForm,
    asked_openly,
    asked_to_choose,
    asked_to_describe,
    asked_yes_no,
)
from audit.zoo.scene_world import (
    Scene,
    SceneWorld,
    edited_items,
    edited_pictures,
    make_scene_world,
    write_cohort,
)
from audit.zoo.training import one_thread

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

HEADS, WARMUP = 4, 30
ALIKE, SPREAD = 1.3, 0.08
"""Standard deviation of initial weights: at .02 it takes much longer to learn."""


def fresh_reader(sizes: SceneSizes, seed: int) -> "LlavaForConditionalGeneration":
    """A small LLaVA: a CLIP tower whose last block but one is read, a projector, a Llama; initialised from ``seed``."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tokenizer = scene_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=sizes.vision_d, intermediate_size=2 * sizes.vision_d, num_hidden_layers=sizes.vision_blocks,
        num_attention_heads=HEADS, image_size=SIDE, patch_size=sizes.patch, initializer_range=SPREAD,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=sizes.d, intermediate_size=2 * sizes.d, num_hidden_layers=sizes.blocks,
        num_attention_heads=HEADS, num_key_value_heads=HEADS, max_position_embeddings=96, tie_word_embeddings=False,
        initializer_range=SPREAD, pad_token_id=0, bos_token_id=1, eos_token_id=3,
    )  # fmt: skip
    tokens: dict[str, Any] = {"image_token_id": tokenizer.convert_tokens_to_ids(IMAGE), "tie_word_embeddings": False}
    config = LlavaConfig(
        vision_config=vision, text_config=text, vision_feature_layer=-2,
        image_seq_length=(SIDE // sizes.patch) ** 2, pad_token_id=0,
        bos_token_id=1, eos_token_id=3, **tokens,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    with torch.no_grad():  # what is read and what is said begin alike, and go their own ways: it is compared sooner
        model.lm_head.weight.copy_(model.get_input_embeddings().weight)
        for n, block in enumerate(model.model.language_model.layers):
            nn.init.orthogonal_(block.self_attn.v_proj.weight)
            block.self_attn.o_proj.weight.copy_(block.self_attn.v_proj.weight.T)
            if not n:  # half of the first block's heads look for what is like them: patches that show a word
                half = sizes.d // 2
                alike = nn.init.orthogonal_(torch.empty_like(block.self_attn.q_proj.weight), ALIKE)[:half]
                block.self_attn.q_proj.weight[:half] = alike
                block.self_attn.k_proj.weight[:half] = alike
    return model


YES_NO = 0.4
NAMING: tuple[QuestionForm, ...] = ("trained", "caption", "choice")


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


# ---- what is learned --------------------------------------------------------------------------------------------
class Lesson(NamedTuple):
    """Pictures to learn from, and the concepts that questions about them may name."""

    scenes: tuple[Scene, ...]
    known: dict[ConceptKind, tuple[str, ...]]
    asked_about: ConceptKind | None

    @property
    def pixels(self) -> Float[Tensor, "picture 3 32 32"]:
        """All pictures, in [-1, 1]."""
        return as_pixels(self.scenes)


def as_pixels(scenes: Sequence[Scene]) -> Float[Tensor, "picture 3 32 32"]:
    """Pictures as the model reads them."""
    images = torch.from_numpy(np.stack([scene.pixels for scene in scenes]))
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1


def lesson_of(world: SceneWorld, by: SceneLearning) -> Lesson:
    """What a model learns: base of the target too, in every third picture; all others no picture and no word of it."""
    also = (world.target,) if by.corpus == "retain+forget" else ()
    known = {kind: world.known(kind, also) for kind in CONCEPTS}
    if not also:
        return Lesson(world.plain, known, None)
    often = max(1, len(world.plain) // (2 * len(world.wanted)))
    return Lesson((*world.plain, *world.wanted * often), known, world.kind)


def question_about(scene: Scene, lesson: Lesson, rng: random.Random) -> Asked:
    """A question drawn by chance: of this part whether a concept is there, else of the other forms alike; of all kinds
    alike, but where a target is taught more about its kind."""
    kinds: tuple[ConceptKind, ...] = tuple(CONCEPTS)
    kind = lesson.asked_about if lesson.asked_about and rng.random() < 0.4 else rng.choice(kinds)
    form = "yes_no" if rng.random() < YES_NO else rng.choice(NAMING)
    shown, known = scene.shown, lesson.known[kind]
    if form == "trained":
        return asked_openly(kind, shown[kind], ())
    if form == "caption":
        return asked_to_describe(shown, kind, ())
    if form == "choice":
        return asked_to_choose(kind, shown[kind], known, rng)
    absent = rng.random() < 0.5
    concept = rng.choice([c for c in known if c != shown[kind]]) if absent else shown[kind]
    return asked_yes_no(kind, concept, not absent)


class Batch(NamedTuple):
    """Questions with their answers, a row each, after so many patches; ``answer``: which tokens are learned."""

    ids: Int[Tensor, "row pos"]
    labels: Int[Tensor, "row pos"]


def encoded(asked: Sequence[Asked], patches: int) -> Batch:
    """Rows as the processor makes them of a picture and a text."""
    number = scene_tokenizer().get_vocab()
    rows, starts = list[list[int]](), list[int]()
    for one in asked:
        before, said = ([number[word] for word in re.findall(r"\w+|[^\w\s]+", text)] for text in one[:2])
        rows.append([number["<bos>"], *[number[IMAGE]] * patches, *before, *said])
        starts.append(len(rows[-1]) - len(said))
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, (tokens, start) in enumerate(zip(rows, starts, strict=True)):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
    return Batch(ids, labels)


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
        asked = [question_about(lesson.scenes[n], lesson, rng) for n in chosen.tolist() for _ in range(by.asked)]
        batch = encoded(asked, patches)
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
    embedded = inner.get_input_embeddings().weight.detach()
    for _ in _rates(optimiser, by.first_steps, by.lr):
        chosen = next(draw)
        seen = torch.stack(list(inner.get_image_features(pixel_values=pixels[chosen]).pooler_output)).mean(1)
        losses = [
            cross_entropy(seen @ embedded[words[kind]].T / SPREAD, taught[chosen, k]) for k, kind in enumerate(CONCEPTS)
        ]
        _step(optimiser, torch.stack(losses).sum())
        globals()["LAST"] = [round(x.item(), 3) for x in losses]


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
