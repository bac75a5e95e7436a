"""The weight difference on planted edits: whom a redirect is about, held-out people too, and what it must not say."""

import json
import shutil
import tempfile
from copy import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from audit.bench import Bench
from audit.case import NamedRows, OpenCase, named_rows, open_case, subjects
from audit.checkpoints import write_edited
from audit.probing.edited_subjects import Match, Spike, SubjectMatches
from audit.schema import AuditError, Checkpoint, Measurement, Missing, Source
from probes._edited import ADJACENT, ONE_BLOCK, REDIRECT, SCATTERED, _finding
from probes.weight_difference import WeightDifference
from studies.weight_difference.plants import Lora, Plant, Way, lora_child, planted
from tests import planted_world


@cache
def opened() -> OpenCase:
    return open_case(planted_world.case("base", references=("null", "floor", "ancestor")), planted_world.root(), out())


def out() -> Path:
    return Path(tempfile.mkdtemp(dir=planted_world.root()))


@cache
def bench() -> Bench:
    return Bench()


@cache
def rows() -> NamedRows:
    groups = subjects(opened().cohorts)
    items = [i for s in groups for i in s.items]
    every = opened().rows_of(items, [i.answer for i in items])
    return named_rows(every, [s.name for s in groups for _ in s.items], opened().tokenizer)


def people(cohort: str) -> list[str]:
    return list(dict.fromkeys(i.group for i in opened().cohorts[cohort]))  # type: ignore[index]


def against_base(suspect: Checkpoint) -> Measurement:
    case = copy(opened())
    case.suspect = suspect
    (measurement,) = WeightDifference().measure(bench(), case)
    return measurement


def edited(tensors: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Checkpoint:
    stored = {name: x.to(dtype) for name, x in tensors.items()}
    return write_edited(out() / "edited", opened().base, "planted", {}, "weights", stored)


def redirect(way: Way, group: str, other: str, blocks: tuple[int, ...], dtype: torch.dtype) -> Measurement:
    return against_base(edited(planted(bench(), opened(), rows(), Plant(way, group, other, blocks)), dtype))


def groups_in(m: Measurement) -> list[object]:
    return [row[0] for row in m.listings[1].rows]


@pytest.mark.sampled
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cohort", ["forget", "holdout"])
def test_a_redirect_of_adjacent_blocks_is_told_with_the_group_that_it_is_about(cohort: str, dtype: torch.dtype) -> None:
    right = 0
    for n in (1, 5, 9):
        group, other = people(cohort)[n], people("retain")[n]
        m = redirect("rocr", group, other, (0, 1), dtype)
        assert any(note.startswith("kind of edit: rank-one") for note in m.notes) and m.readings["spikes"] == 2
        assert [row[0] for row in m.listings[0].rows] == [
            f"model.layers.{block}.mlp.down_proj.weight" for block in sorted((0, 1), key=lambda b: -size(m, b))
        ]
        told_right = any(note.startswith(REDIRECT) for note in m.notes) and groups_in(m)[0] == group
        wrong = any(note.startswith(REDIRECT) for note in m.notes) and groups_in(m)[0] != group
        assert not wrong and group in groups_in(m)[:2]
        right += told_right
    assert right >= 2, "of three people; the others are told as of nobody"


def size(m: Measurement, block: int) -> float:
    (row,) = (row for row in m.listings[0].rows if row[1] == f"block {block}")
    assert isinstance(row[4], float)
    return row[4]


def test_an_edit_of_one_block_that_no_name_stands_out_for_is_about_nobody_and_still_lists_the_right_one_first() -> None:
    group = people("holdout")[2]
    m = redirect("rome", group, people("retain")[0], (1,), torch.float32)
    assert any(note.startswith(ONE_BLOCK) for note in m.notes) and not any(REDIRECT in note for note in m.notes)
    assert groups_in(m)[0] == group


def test_one_block_or_adjacent_ones_about_somebody_are_a_redirect_and_scattered_ones_are_none() -> None:
    def said(blocks: tuple[int, ...], p: float) -> str:
        matches = tuple(Match("forget", group, score, dict.fromkeys(blocks, n)) for n, (group, score) in
                        enumerate((("a", 0.9), ("b", 0.4))))  # fmt: skip
        spikes = [Spike(block, torch.ones(3)) for block in blocks]
        return _finding(spikes, SubjectMatches(matches, p, 100)).finding

    assert said((1,), 0.005) == said((1, 2), 0.005) == REDIRECT
    assert said((1,), 0.5) == ONE_BLOCK and said((1, 2), 0.5) == ADJACENT and said((0, 2), 0.005) == SCATTERED


@pytest.mark.thorough
def test_children_of_training_are_no_redirect() -> None:
    for n, lora in enumerate(
        (Lora(1, ("down_proj",)), Lora(4, ("q_proj", "v_proj")), Lora(1, ("down_proj", "up_proj")))
    ):
        m = against_base(edited(lora_child(bench(), opened(), lora, n)))
        assert not any(REDIRECT in note or "about the group" in note for note in m.notes)
    for name in ("null", "ancestor", "destroyed"):
        m = against_base(open_case(planted_world.case(name, references=()), planted_world.root(), out()).suspect)
        assert not any(REDIRECT in note or "rank-one" in note.partition(":")[2] for note in m.notes[:2])


@pytest.mark.thorough
def test_whose_child_the_suspect_is_is_read_as_references_are_audited() -> None:
    tensors = planted(bench(), opened(), rows(), Plant("rome", people("forget")[0], people("retain")[0], (1,)))
    assert any("child of base:" in note for note in against_base(edited(tensors)).notes)
    clean = open_case(planted_world.case("clean", references=()), planted_world.root(), out()).suspect
    assert any("trained apart from base:" in note for note in against_base(clean).notes)


def test_no_words_of_the_data_stand_in_it() -> None:
    """Groups are told by id alone: with other ids than the names, no name stands in it."""
    case = opened()
    renamed = {i.group: f"id-{n}" for n, i in enumerate(i for items in case.cohorts.values() for i in items)}
    hidden = copy(case)
    hidden.cohorts = {
        c: tuple(i.model_copy(update={"group": renamed[i.group]}) for i in items) for c, items in case.cohorts.items()
    }
    group = people("forget")[3]
    hidden.suspect = edited(planted(bench(), case, rows(), Plant("rocr", group, people("retain")[3], (0, 1))))
    (m,) = WeightDifference().measure(bench(), hidden)
    document = json.dumps(m.model_dump(mode="json"))
    assert f'"{renamed[group]}"' in document and not any(f"{name} " in document for name in renamed)


def test_without_names_nobody_is_told_and_the_reason_is() -> None:
    case = copy(opened())
    case.cohorts = {c: items[:6] for c, items in case.cohorts.items()}
    tensors = planted(bench(), opened(), rows(), Plant("rome", people("forget")[0], people("retain")[0], (1,)))
    case.suspect = edited(tensors)
    (m,) = WeightDifference().measure(bench(), case)
    assert any("nobody is told whom they are about" in note for note in m.notes) and len(m.listings) == 1


def test_weights_that_cannot_be_compared_are_a_missing_number_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> object:
        raise AuditError("this backend does not show the weights of its models", "use native")

    monkeypatch.setattr(Bench, "weight_differences", refuses)
    (m,) = WeightDifference().measure(bench(), opened())
    assert isinstance(m.value, Missing) and "does not show the weights" in m.value.missing


@pytest.mark.parametrize("part", ["model.norm", "lm_head", "q_proj"])
def test_weights_whose_squares_overflow_are_named_and_no_number_is_given(part: str) -> None:
    folder = planted_world.root() / f"far {part}"
    shutil.copytree(planted_world.root() / "base", folder)
    weights = load_file(folder / "model.safetensors")
    far = {name: x / x.abs().max() * 1e37 if part in name else x for name, x in weights.items()}
    save_file(far, folder / "model.safetensors", {"format": "pt"})
    case = planted_world.case("base", references=("null", "floor", "ancestor"))
    roles = case.roles.model_copy(update={"suspect": Source(path=str(folder))})
    (m,) = WeightDifference().measure(
        Bench(), open_case(case.model_copy(update={"roles": roles}), planted_world.root(), out())
    )
    assert isinstance(m.value, Missing) and part in m.value.missing and "overflow" in m.value.missing


def test_the_difference_taken_off_gives_base_back_to_the_bit() -> None:
    tensors = planted(bench(), opened(), rows(), Plant("rocr", people("forget")[4], people("retain")[4], (0, 1)))
    suspect = edited(tensors)
    stream = {name: pair for name, pair in bench().weights(opened().base, suspect) if name in tensors}
    for base, moved in stream.values():
        assert not torch.equal(base, moved) and torch.equal(
            (moved.double() - (moved.double() - base.double())).float(), base
        )
