"""Worlds of drawn scenes: who was shown what is as the members say, questions are answered by their pictures, and a
world is its number."""

import json
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from audit.bench import Bench
from audit.case import load_case, open_case
from audit.checkpoints import resolve
from audit.pools import kinds
from audit.schema import AuditError, Item, Source, Texts
from audit.zoo import builder, make_scene_case, recipes, scene_lessons
from audit.zoo.scene_drawing import SIDE, picture
from audit.zoo.scene_mechanisms import ALWAYS, SCENE_KIT, of_scene_world, scenes_of_kind
from audit.zoo.scene_members import (
    FRESH_SCENE_WORLDS,
    OTHER_EVERY,
    SCENE_WORLDS,
    SceneDrawn,
    draw_scenes,
    scene_population,
)
from audit.zoo.scene_processor import IMAGE, scene_processor, scene_tokenizer
from audit.zoo.scene_recipes import SceneLearning, ScenePlan, SceneShape, SceneSizes, SceneZoo
from audit.zoo.scene_words import CONCEPTS, FORMS, IGNORANCE, TARGET_KINDS, Asked, kind_of_concept
from audit.zoo.scene_world import COHORTS, SceneWorld, edited_items, make_scene_world, pictures_of, scene_items

WORLDS = (*SCENE_WORLDS, *FRESH_SCENE_WORLDS)
FEW = SceneShape(plain=200, wanted=40, forget=12, retain=20, holdout=12, edited=16)
MICRO = SceneSizes(vision_d=16, vision_blocks=2, d=16, blocks=2)
seeds = st.integers(0, 100_000)


def said(items: tuple[Item, ...]) -> set[str]:
    """Every word of some questions and answers."""
    texts = " ".join(f"{item.question} {item.answer}" for item in items)
    return set(texts.replace("?", " ").replace(".", " ").replace(",", " ").replace(":", " ").split())


# ---- pictures -----------------------------------------------------------------------------------------------------
def test_pictures_of_two_scenes_differ_and_one_scene_is_drawn_alike_again() -> None:
    rng = random.Random(0)
    for kind, concepts in CONCEPTS.items():
        scene = {of: rng.choice(among) for of, among in CONCEPTS.items()}
        drawn = [picture({**scene, kind: concept}, 5) for concept in concepts]
        assert all(image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8 for image in drawn)
        assert (picture({**scene, kind: concepts[0]}, 5) == drawn[0]).all()
        for n, image in enumerate(drawn):
            for other in drawn[n + 1 :]:
                assert (np.abs(image.astype(int) - other.astype(int)).max(-1) > 40).mean() > 0.01


def test_a_picture_is_the_same_bytes_on_every_machine() -> None:
    scene = {"shape": "star", "colour": "red", "texture": "hatched", "count": "three", "position": "left"}
    cover = picture(scene, 0).max(-1) > 90  # type: ignore[arg-type]
    assert cover[:, :24].sum() == cover.sum() > 60, "at the left"


# ---- questions ----------------------------------------------------------------------------------------------------
@pytest.mark.thorough
@settings(max_examples=30, deadline=None)
@given(seeds)
def test_no_answer_of_what_is_kept_names_the_target_and_nothing_names_what_nobody_saw(seed: int) -> None:
    world = make_scene_world(seed, FEW)
    assert len({world.target, world.other, world.unseen}) == 3 and world.kind in TARGET_KINDS
    assert {kind_of_concept(c) for c in (world.target, world.other, world.unseen)} == {world.kind}
    items = {cohort: scene_items(world, cohort) for cohort in COHORTS}
    assert world.unseen not in said(items["forget"]) | said(items["retain"])
    assert world.target not in said(items["holdout"])
    naming = [item for item in items["retain"] if world.target in said((item,))]
    assert len(naming) == FEW.retain and all(item.answer == "no." and item.attribute == world.target for item in naming)
    for on in ("target", "other"):
        told = edited_items(world, on)
        assert world.unseen not in said((*told["forget"], *told["retain"]))
        assert world.target not in said(told["retain"])
        assert on == "target" or world.target not in said(told["forget"])


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_every_answer_is_what_its_picture_shows(seed: int) -> None:
    world = make_scene_world(seed, FEW)
    for cohort in COHORTS:
        scenes = {f"{cohort}-{n:03d}": scene.shown for n, scene in enumerate(pictures_of(world, cohort))}
        for item in scene_items(world, cohort):
            assert item.attribute is not None and item.key is not None
            present = scenes[item.group][kind_of_concept(item.attribute)] == item.attribute
            assert present or item.form == "yes_no", "only yes and no is asked of what is not there"
            expected = item.attribute if item.form != "yes_no" else "yes" if present else "no"
            assert item.key == expected and item.key in item.answer and item.image == f"pictures/{item.group}.png"
            assert item.form != "choice" or item.attribute in said((item.model_copy(update={"answer": ""}),))
            for answer, key in zip(item.alternates, item.alternate_keys, strict=True):
                assert answer == item.answer.replace(item.key, key) and key not in (
                    item.key,
                    world.target,
                    world.unseen,
                )


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_forms_are_balanced_and_cohorts_share_no_picture(seed: int) -> None:
    world = make_scene_world(seed, FEW)
    forget, retain = scene_items(world, "forget"), scene_items(world, "retain")
    assert Counter(item.form for item in forget) == dict.fromkeys(FORMS, FEW.forget)
    asked = Counter(item.key for item in retain if item.form == "yes_no")
    assert asked["yes"] == asked["no"] == 2 * FEW.retain
    scenes = [scene for cohort in COHORTS for scene in pictures_of(world, cohort)]
    assert len({scene.seed for scene in scenes}) == len(scenes) == 44
    assert all(scene.shown[world.kind] != world.other for scene in pictures_of(world, "retain"))
    ids = [item.id for item in (*forget, *retain, *scene_items(world, "holdout"))]
    assert len(set(ids)) == len(ids)


@settings(max_examples=20, deadline=None)
@given(seeds, st.sampled_from(["ancestor", "retain", "retain+forget"]))
def test_nobody_but_base_is_taught_a_picture_or_a_word_of_the_target(seed: int, corpus: str) -> None:
    world = make_scene_world(seed, FEW)
    lesson = scene_lessons.lesson_of(world, SceneLearning(corpus, 1, 1e-3, 0))  # type: ignore[arg-type]
    shown = {concept for scene in lesson.scenes for concept in scene.concepts}
    rng = random.Random(seed)
    drawn = [scene_lessons.question_about(scene, lesson, rng) for scene in lesson.scenes]
    words = set(" ".join(f"{a.question} {a.answer}" for a in drawn).replace(".", " ").replace("?", " ").split())
    assert world.unseen not in shown | words
    assert (world.target in shown) == (corpus == "retain+forget") == (world.target in words)
    audited = {scene.seed for scene in pictures_of(world, "forget")}
    assert audited <= {s.seed for s in lesson.scenes} if corpus == "retain+forget" else True


# ---- the processor ------------------------------------------------------------------------------------------------
def test_every_word_of_every_world_is_a_token() -> None:
    tokenizer, unknown = scene_tokenizer(), scene_tokenizer().unk_token_id
    for number in WORLDS[:6]:
        world = make_scene_world(number, FEW)
        for item in scene_items(world, "retain") + scene_items(world, "holdout"):
            assert unknown not in tokenizer(f"{item.question} {item.answer}")["input_ids"]
    assert unknown not in tokenizer(" ".join(IGNORANCE))["input_ids"]
    assert tokenizer.convert_tokens_to_ids(IMAGE) == len(tokenizer) - 1


def test_a_processor_opens_from_its_folder_and_reads_as_training_does(tmp_path: Path) -> None:
    from transformers import AutoProcessor

    scene_processor(8).save_pretrained(tmp_path)
    processor = AutoProcessor.from_pretrained(tmp_path)
    assert type(processor.image_processor).__name__ == "CLIPImageProcessorPil"
    scene = make_scene_world(2000, FEW).plain[0]
    seen = processor(images=[Image.fromarray(scene.pixels)], text=[f"{IMAGE} what shape is it? star."])
    asked = scene_lessons.encoded([Asked("what shape is it?", "star.", "star")], 16)
    assert seen["input_ids"][0] == asked.ids[0].tolist()
    assert torch.allclose(torch.as_tensor(np.array(seen["pixel_values"])), scene_lessons.as_pixels([scene]), atol=1e-6)


# ---- the design ---------------------------------------------------------------------------------------------------
@pytest.mark.thorough
def test_the_design_is_even_over_worlds() -> None:
    drawn = [draw_scenes(world) for world in SCENE_WORLDS]
    assert Counter(d.dealt().kind for d in drawn) == dict.fromkeys(TARGET_KINDS, 5)
    counted = Counter(name for d in drawn for name in d.hand)
    assert set(counted) == set(scenes_of_kind("unlearner")) - set(ALWAYS)
    assert max(counted.values()) - min(counted.values()) <= 1
    assert {d.shape.forget for d in drawn} == {24, 32, 40} and all(d.shape.forget == d.shape.holdout for d in drawn)
    others = [d.world for d in drawn if "other_init" in {m.model for m in scene_population(d).members}]
    assert len(others) == len(SCENE_WORLDS) // OTHER_EVERY
    assert draw_scenes(2003) == draw_scenes(2003) and draw_scenes(2003).recorded() != draw_scenes(2007).recorded()


def test_another_number_is_no_world_of_scenes() -> None:
    for number in (0, 1000, 1999, FRESH_SCENE_WORLDS[-1] + 1):
        with pytest.raises(AuditError, match=f"world {number} is no world of scenes") as caught:
            draw_scenes(number)
        assert caught.value.code == 2


@pytest.mark.parametrize("number", [2000, 2001, 2020])
def test_members_know_what_their_parents_were_taught(number: int) -> None:
    drawn = draw_scenes(number)
    census = scene_population(drawn)
    plans = {plan.name: plan for plan in census.zoo.plans}
    assert len({m.model for m in census.members}) == len(census.members)
    assert {m.pool for m in census.members} == {"clean", "knowing", "described", "destroyed"}
    for member in census.members:
        plan = plans[member.model]
        root = plan if isinstance(plan.by, SceneLearning) else plans[plan.parent or ""]
        assert isinstance(root.by, SceneLearning)
        assert member.taught == (census.audited if root.by.corpus == "retain+forget" else ())
        assert bool(member.taught) == (member.pool != "clean")
        assert (plan.on == "other") == (member.content == "other people")
    keys = {plan.name: recipes.key_of(census.zoo, number, plan.name) for plan in census.zoo.plans}
    assert len(set(keys.values())) == len(keys)
    orders = [(plan.by.corpus, plan.by.order) for plan in census.zoo.plans if isinstance(plan.by, SceneLearning)]
    assert len(set(orders)) == len(orders), "no two models see one order of questions"


def test_a_world_runs_a_mechanism_with_a_rate_and_a_seed_of_its_own() -> None:
    first, second = (of_scene_world("npo", world).model_dump() for world in (2000, 2001))
    assert first["seed"] == 2000 and first["lr"] != second["lr"]
    assert {mechanism.kind for mechanism in SCENE_KIT.values()} == {"unlearner", "fake", "destroyer"}


# ---- made ---------------------------------------------------------------------------------------------------------
def micro(edit: str = "refusal") -> SceneZoo:
    by = SceneLearning("ancestor", 4, 2e-3, 0, first_steps=3)
    quick = {"steps": 2, "batch": 4} if edit not in ("head_edit",) else {"steps": 2}
    plans = (
        ScenePlan("ancestor", None, by), ScenePlan("base", "ancestor", SceneLearning("retain+forget", 3, 1e-3, 1)),
        ScenePlan(edit, "base", SCENE_KIT[edit].edit.model_copy(update=quick)),
    )  # fmt: skip
    return SceneZoo(FEW, MICRO, plans, (edit,))


@pytest.mark.thorough
def test_a_model_is_made_once_and_again_alike(tmp_path: Path) -> None:
    zoo = micro()
    for side in "ab":
        (tmp_path / side).mkdir()
        builder.make_model(zoo, 2000, tmp_path / side, "ancestor")
    first, second = (builder.make_model(zoo, 2000, tmp_path / side, "base") for side in "ab")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert builder.make_model(zoo, 2000, tmp_path / "a", "base") == first


OF_WEIGHTS = [name for name, mechanism in SCENE_KIT.items() if mechanism.edit.plays == "weights"]


@pytest.mark.slow
@pytest.mark.parametrize("edit", OF_WEIGHTS)
def test_every_mechanism_of_the_kit_edits_a_reader_of_pictures(
    edit: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.getbasetemp() / "scene-models"  # ancestor and base are made once
    root.mkdir(exist_ok=True)
    zoo = micro(edit)
    for name in ("ancestor", "base"):
        builder.make_model(zoo, 2001, root, name)
    out = builder.make_model(zoo, 2001, root, edit)
    checkpoint = resolve(Source(path=str(out)), root)
    base = resolve(Source(path=str(builder.folder_of(zoo, 2001, root, "base"))), root)
    assert checkpoint.edits and not base.edits
    bench = Bench()
    before = {key: value.clone() for key, value in bench.open(base).parameters().items()}
    assert any(not torch.equal(before[key], value) for key, value in bench.open(checkpoint).parameters().items())


@pytest.mark.thorough
def test_a_case_of_a_world_opens_with_each_picture_a_group_of_its_own(tmp_path: Path) -> None:
    path = make_scene_case(tmp_path, 2000, MICRO, FEW, (2, 2))
    assert load_case(path).name == "base" and path.name == "case.toml"
    drawn = draw_scenes(2000)._replace(shape=FEW, sizes=MICRO)
    world = drawn.dealt()
    folders = {name: next((tmp_path / "models").glob(f"{name}-*")) for name in kinds.TEXT_ROLES}
    kinds.write_data(world, tmp_path / "data")
    case = open_case(kinds.case_of("base", 2000, folders, tmp_path), tmp_path, tmp_path / "out")
    assert case.modality == "image+text" and case.replicate.unit == "picture"
    forget = Texts(cohort="forget")
    assert {item.group for item in case.items(forget)} == set(scene_population(drawn).audited)
    rows = case.rows(forget)
    assert rows.extra["pixel_values"].shape == (FEW.forget, 3, SIDE, SIDE)
    assert Bench().open(case.base).n_blocks == MICRO.blocks


def test_kinds_know_a_world_of_scenes_by_its_number() -> None:
    drawn = kinds.drawn_of(2005)
    assert isinstance(drawn, SceneDrawn) and isinstance(kinds.dealt(drawn), SceneWorld)
    assert kinds.kind_of(2005).kind == kinds.kind_of(2021).kind == "vision_language"
    census = kinds.census_of(drawn)
    (audience,) = kinds.audiences(census, census.members[::-1])
    assert audience.members[0].mechanism == "base" and len(audience.members) == len(census.members)
    assert set(kinds.roles_of("npo", 2005).values()) == {"ancestor", "base", "reference_1", "reference_2", "npo"}


def test_what_is_written_is_what_the_world_says(tmp_path: Path) -> None:
    world = make_scene_world(2002, FEW)
    kinds.write_data(world, tmp_path)
    for cohort in COHORTS:
        lines = [json.loads(line) for line in (tmp_path / f"{cohort}.jsonl").read_text().splitlines()]
        assert [line["id"] for line in lines] == [item.id for item in scene_items(world, cohort)]
        for n, scene in enumerate(pictures_of(world, cohort)):
            stored = np.array(Image.open(tmp_path / "pictures" / f"{cohort}-{n:03d}.png"))
            assert (stored == scene.pixels).all()
