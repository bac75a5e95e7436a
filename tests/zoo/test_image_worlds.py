"""Worlds of images: who was taught what is as the members say, the design is even, and a world is its number."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.case import CaseFile
from audit.checkpoints import resolve
from audit.engine import prepare
from audit.planning import RunSettings
from audit.pools import kinds
from audit.schema import AuditError, Source
from audit.zoo import builder, image_training, recipes
from audit.zoo.image_mechanisms import IMAGE_KIT, images_of_kind, of_image_world
from audit.zoo.image_members import (
    FRESH_IMAGE_WORLDS,
    IMAGE_WORLDS,
    OTHER,
    ImageDrawn,
    draw_images,
    image_population,
    target_of,
)
from audit.zoo.image_recipes import ImageLearning, ImagePlan, ImageSizes
from audit.zoo.image_world import (
    INSTANCES,
    ImageShape,
    ImageWorld,
    Labelled,
    class_of,
    digits,
    make_image_world,
    targets_of,
)

WORLDS = (*IMAGE_WORLDS, *FRESH_IMAGE_WORLDS)
seeds = st.integers(0, 100_000)
MICRO = ImageShape(train=40, instances=12, repeated=2, forget=12, retain=16, holdout=12)


def pairs(images: Labelled) -> set[tuple[int, int]]:
    return set(zip(images.number.tolist(), images.label.tolist(), strict=True))


# ---- what there is to know ----------------------------------------------------------------------------------------
@settings(max_examples=40, deadline=None)
@given(seeds)
def test_a_reference_sees_nothing_of_its_target_and_no_model_sees_the_unseen_class(seed: int) -> None:
    world, truth = make_image_world(seed, ImageShape()), digits().label
    unseen = set(range(10)) - set(truth[world.learned().number].tolist())
    assert len(unseen) == 1 and unseen == set(world.unseen.label.tolist())
    for target in targets_of(world):
        learned, audited = world.learned(target), world.audited(target)
        taught = set(learned.number.tolist())
        assert not taught & set(world.unwanted(target).number.tolist())
        assert not taught & set(audited["holdout"].number.tolist())
        assert pairs(audited["forget"]) <= pairs(world.learned()), "base was taught what is audited, by these labels"
        assert pairs(audited["retain"]) <= pairs(learned), "what is retained, every model was taught"
        if target != INSTANCES:
            assert class_of(target) not in set(learned.label.tolist()) | set(truth[learned.number].tolist())


@settings(max_examples=40, deadline=None)
@given(seeds)
def test_single_images_bear_labels_that_are_not_theirs_so_that_they_are_known_by_heart_alone(seed: int) -> None:
    world, truth = make_image_world(seed, ImageShape()), digits().label
    learned = set(range(10)) - {*world.targets, world.other, *world.unseen.label.tolist()}
    for images in (world.memorised, world.never):
        assert (truth[images.number] != images.label).all()
        for number, label in list(zip(images.number, images.label, strict=True))[:8]:
            away = {c: np.square(digits().images[number] - digits().images[truth == c].mean(0)).sum() for c in learned}
            others = {c: distance for c, distance in away.items() if c != truth[number]}
            assert label != min(others, key=lambda c: others[c]), "what an image looks most like might be guessed"
        others = {*world.targets, world.other, *world.unseen.label.tolist()}
        assert not others & {*images.label.tolist(), *truth[images.number].tolist()}
    single = set(world.memorised.number.tolist())
    assert not single & set(world.never.number.tolist()) and not single & set(world.plain.number.tolist())
    assert len(single) == 48 and Counter(world.learned().number.tolist())[world.memorised.number[0]] == 4


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_cohorts_share_no_image_and_leave_out_what_clean_models_forget(seed: int) -> None:
    world = make_image_world(seed, ImageShape())
    for target in targets_of(world):
        cohorts = world.audited(target)
        numbers = [n for images in cohorts.values() for n in images.number.tolist()]
        assert len(numbers) == len(set(numbers)) == 160
        assert world.other not in cohorts["retain"].label


def test_a_world_is_its_number() -> None:
    first, again, other = (make_image_world(seed, ImageShape()) for seed in (5, 5, 6))
    assert pairs(first.learned()) == pairs(again.learned()) != pairs(other.learned())
    assert draw_images(1003) == draw_images(1003) and draw_images(1003).recorded() != draw_images(1005).recorded()


# ---- the design ---------------------------------------------------------------------------------------------------
def test_the_design_is_even_over_worlds_targets_and_architectures() -> None:
    drawn = [draw_images(world) for world in IMAGE_WORLDS]
    architectures = [d.sizes.architecture for d in drawn]
    assert Counter(architectures) == {"vit": 10, "resnet": 10}
    assert all(set(architectures[n : n + 2]) == {"vit", "resnet"} for n in range(0, 20, 2))
    for targets in (slice(4), slice(4, 5)):
        counted = Counter(name for d in drawn for hand in d.hands[targets] for name in hand)
        assert set(counted) == set(images_of_kind("unlearner"))
        assert max(counted.values()) - min(counted.values()) <= 1
    assert all(len(set(hand)) == 2 for d in drawn for hand in d.hands)
    assert {d.shape.forget for d in drawn} == {24, 32, 40} and all(d.shape.forget == d.shape.holdout for d in drawn)
    assert {d.sizes.blocks for d in drawn} == {3, 4} and {d.sizes.d for d in drawn} == {24, 32, 40}


def test_another_number_is_no_world_of_images() -> None:
    for number in (0, 100, 999, FRESH_IMAGE_WORLDS[-1] + 1):
        with pytest.raises(AuditError, match=f"world {number} is no world of images") as caught:
            draw_images(number)
        assert caught.value.code == 2


def test_a_world_runs_a_mechanism_with_a_rate_and_a_seed_of_its_own() -> None:
    first, second = (of_image_world("salun", world).model_dump() for world in (1000, 1001))
    assert first["seed"] == 1000 and first["lr"] != second["lr"]
    assert all(0.79 < of_image_world("scrub", w).model_dump()["lr"] / 7e-4 < 1.26 for w in WORLDS)
    assert "seed" not in of_image_world("logit_bias", 1000).model_dump()


@pytest.mark.parametrize("number", [1000, 1001, 1020])
def test_members_know_what_their_parents_were_taught(number: int) -> None:
    drawn = draw_images(number)
    census, world = image_population(drawn), drawn.dealt()
    plans = {plan.name: plan for plan in census.zoo.plans}
    assert [m.model for m in census.members] == list(dict.fromkeys(m.model for m in census.members))
    for member in census.members:
        target = target_of(member.model)
        if member.mechanism == "base":
            assert member.taught == census.audited[target] and member.pool == "knowing"
            continue
        plan = plans[member.model]
        root = plan if isinstance(plan.by, ImageLearning) else plans[plan.parent or ""]
        assert isinstance(root.by, ImageLearning)
        known = set(world.learned(root.by.left_out).number.tolist())
        audited = {int(name.removeprefix("forget-")) for name in census.audited[target]}
        assert audited <= known if member.taught else not audited & known
        assert bool(member.taught) == (member.pool not in ("clean",))
    by_target = Counter(target_of(member.model) for member in census.members)
    assert set(by_target.values()) == {9} and len(by_target) == 5


def test_models_of_one_initialisation_and_another_have_keys_of_their_own() -> None:
    zoo = image_population(draw_images(1000)).zoo
    keys = {plan.name: recipes.key_of(zoo, 1000, plan.name) for plan in zoo.plans}
    assert len(set(keys.values())) == len(keys)
    orders = [plan.by.order for plan in zoo.plans if isinstance(plan.by, ImageLearning)]
    assert len(set(orders)) == len(orders), "no two models see one order of images"
    slower = zoo._replace(sizes=zoo.sizes._replace(d=zoo.sizes.d + 8))
    assert recipes.key_of(slower, 1000, "base") != keys["base"]


# ---- made ---------------------------------------------------------------------------------------------------------
def micro(architecture: str = "resnet") -> ImageDrawn:
    sizes = ImageSizes(16, 2, 32, "resnet" if architecture == "resnet" else "vit")
    hands = (("random_label", "ssd"), ("scrub", "mu_mis"), ("salun", "ssd"), ("ssd", "scrub"), ("scrub", "ssd"))
    return ImageDrawn(1000, MICRO, sizes, (60, 5e-3), hands)


@pytest.mark.thorough
@pytest.mark.parametrize("architecture", ["vit", "resnet"])
def test_a_model_is_made_once_and_again_alike(architecture: str, tmp_path: Path) -> None:
    zoo = image_population(micro(architecture)).zoo
    for side in "ab":
        (tmp_path / side).mkdir()
    first, second = (builder.make_model(zoo, 1000, tmp_path / side, "base") for side in "ab")
    assert (first / "model.safetensors").read_bytes() == (second / "model.safetensors").read_bytes()
    assert builder.make_model(zoo, 1000, tmp_path / "a", "base") == first


def edit_rows(world: ImageWorld, plan: ImagePlan, tmp_path: Path) -> tuple[set[int], set[int], set[int]]:
    """Labels that an edit forgets, keeps and teaches."""
    zoo = image_population(micro()).zoo
    base = resolve(Source(path=str(builder.make_model(zoo, 1000, tmp_path, "base"))), tmp_path)
    data = image_training.image_edit_data(world, plan, base)
    assert data.relabelled is not None
    relabelled = {(n, int(label)) for n, label in zip(data.relabelled.item_ids, data.relabelled.ids[:, 1], strict=True)}
    own = {(n, int(label)) for n, label in zip(data.forget.item_ids, data.forget.ids[:, 1], strict=True)}
    assert not relabelled & own, "no image is taught its own label again"
    forget, retain, taught = (set(rows.ids[:, 1].tolist()) for rows in (data.forget, data.retain, data.relabelled))
    return forget, retain, taught


@pytest.mark.thorough
def test_whoever_forgets_another_class_is_never_shown_the_target_nor_its_label(tmp_path: Path) -> None:
    census, world = image_population(micro()), micro().dealt()
    unseen = set(world.unseen.label.tolist())
    for plan in census.zoo.plans:
        if isinstance(plan.by, ImageLearning) or target_of(plan.name) == INSTANCES:
            continue
        target = class_of(target_of(plan.name))
        forget, retain, taught = edit_rows(world, plan, tmp_path)
        if plan.on == OTHER:
            assert forget == {world.other} and target not in retain | taught
        else:
            assert forget == {target} and target not in retain
        assert not unseen & (forget | retain | taught)


# ---- audited ------------------------------------------------------------------------------------------------------
def test_every_model_is_audited_by_references_of_its_own_target(tmp_path: Path) -> None:
    census = image_population(draw_images(1000))
    folders = {plan.name: tmp_path / plan.name for plan in census.zoo.plans}
    for member in census.members:
        case, target = kinds.case_of(member.model, 1000, folders, tmp_path), target_of(member.model)
        assert case.roles.base is not None and Path(case.roles.base.path).name == "base"
        assert [Path(r.path).name for r in case.roles.references] == [f"reference_{k}.{target}" for k in (1, 2)]
        expected = "base" if member.mechanism == "base" else member.model
        assert Path(case.roles.suspect.path).name == expected and case.roles.ancestor is None
        assert Path(case.data.forget).parent.name == target


def test_audits_of_one_target_stay_together_and_base_comes_first() -> None:
    census = image_population(draw_images(1001))
    grouped = kinds.audiences(census, census.members[::-1])
    assert {group.target for group in grouped} == set(census.audited)
    for group in grouped:
        assert group.members[0].mechanism == "base" and group.audited == census.audited[group.target]
        assert {target_of(m.model) for m in group.members} == {group.target}
    assert sum(len(group.members) for group in grouped) == len(census.members)


def test_what_is_written_for_an_audit_is_what_the_world_says(tmp_path: Path) -> None:
    world = micro().dealt()
    kinds.write_data(world, tmp_path)
    for target in targets_of(world):
        for cohort, images in world.audited(target).items():
            with np.load(tmp_path / target / f"{cohort}.npz") as file:
                assert (file["x"] == digits().images[images.number]).all() and (file["y"] == images.label).all()
                assert list(file["id"]) == [f"{cohort}-{number}" for number in images.number]


@pytest.mark.thorough
def test_a_case_of_a_world_opens_with_each_image_a_group_of_its_own(tmp_path: Path) -> None:
    drawn = micro()
    census = image_population(drawn)
    target = targets_of(drawn.dealt())[0]
    names = ("base", f"reference_1.{target}", f"reference_2.{target}")
    folders = {name: builder.make_model(census.zoo, 1000, tmp_path, name) for name in names}
    kinds.write_data(drawn.dealt(), tmp_path / "data")
    case = kinds.case_of(f"base.{target}", 1000, folders, tmp_path)
    prepared = prepare(CaseFile(case, tmp_path), tmp_path / "out", RunSettings(threads=1))
    groups = {item.group for item in prepared.case.cohorts["forget"]}
    assert groups == set(census.audited[target]) and len(groups) == 12
    assert {planned.name for planned in prepared.planner.running} >= {"answer_lens", "reverse_patch", "utility"}


def test_a_kit_holds_every_kind_of_mechanism() -> None:
    assert {mechanism.kind for mechanism in IMAGE_KIT.values()} == {"unlearner", "fake", "destroyer"}
