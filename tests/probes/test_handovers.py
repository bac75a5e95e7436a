"""States handed over from model to model: after vision blocks, by the projector, after blocks of a language model."""

import re
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy import ndarray

from audit.bench import Bench
from audit.case import Rows
from audit.checkpoints import write_edited
from audit.probing import PersonRows
from audit.schema import Checkpoint, Site
from probes._depth_score import depth_score
from probes._profiles import Mode, Reading, handovers, handovers_in_words, profile
from probes.reverse_patch import ReversePatch
from tests import scene_case, toy, toy_vlm

KINDS = toy_vlm.KINDS


@cache
def bench() -> Bench:
    return Bench()


@cache
def rows(kind: str) -> Rows:
    return toy_vlm.rows(kind, 4)


def sheet(kind: str) -> PersonRows:
    given = rows(kind)
    people, person = np.unique(np.array(given.group_ids), return_inverse=True)
    return PersonRows(given, (), tuple(map(str, people)), person.reshape(-1))


def changed(kind: str, part: str) -> Checkpoint:
    """The toy with noise in the matrices of one part: those whose names match."""
    parent = toy_vlm.checkpoint(kind)
    rng = torch.Generator().manual_seed(1)
    live = bench().open(parent).parameters()
    tensors = {
        name: (p + 0.2 * torch.randn(p.shape, generator=rng)).detach().contiguous()
        for name, p in live.items() if re.search(part, name)
    }  # fmt: skip
    assert tensors, "there is such a part"
    return write_edited(Path(tempfile.mkdtemp(dir=toy.root())) / "changed", parent, "noise", {}, "weights", tensors)


def read(kind: str, source: Checkpoint, mode: Mode = "all") -> dict[str, ndarray]:
    """Base's reading of a source at every handover, of base's own, and the source's own output."""
    base = toy_vlm.checkpoint(kind)
    found = profile(bench(), base, {"source": source}, sheet(kind), mode).logprob
    own = profile(bench(), source, {}, sheet(kind), mode).logprob["base"]
    return {"source": found["source"], "base": found["base"], "own": own}


@pytest.mark.sampled
@pytest.mark.parametrize("mode", ["all", "answer"])
@pytest.mark.parametrize("kind", KINDS)
def test_base_reads_its_own_states_as_its_own_output_wherever_they_are_handed_over(kind: str, mode: Mode) -> None:
    seen = read(kind, toy_vlm.checkpoint(kind), mode)
    np.testing.assert_allclose(seen["source"], seen["base"], atol=2e-5)


def test_the_places_are_those_on_the_way_to_the_language_model() -> None:
    base = toy_vlm.checkpoint("llava_clip")
    sites = handovers(bench(), base, rows("llava_clip"), "all")
    seen = [Site(part="resid_out", block=b, tower="vision") for b in range(toy_vlm.READ_BLOCK + 1)]
    blocks = [Site(part="resid_out", block=b) for b in range(toy_vlm.N_BLOCKS)]
    assert sites == [*seen, Site(part="final_in", tower="projector"), *blocks]
    assert "layers 4 to 7 the blocks 0 to 3" in handovers_in_words(sites)
    assert handovers(bench(), base, rows("llava_clip"), "answer") == blocks and handovers_in_words(blocks) == ""
    assert handovers(bench(), base, toy_vlm.rows("llava_clip", 3, images=False), "all") == blocks


PARTS = {
    "llava_clip": {1: r"vision_tower.*layers\.1\..*q_proj", 3: "projector", 5: r"language_model\.layers\.1\..*v_proj"},
    "gemma3": {
        2: r"vision_tower.*layers\.2\..*mlp.*fc1", 4: "projector.*weight", 6: r"language_model\.layers\.1\..*up"
    },
}  # fmt: skip


@pytest.mark.sampled
@pytest.mark.parametrize(("kind", "place"), [(kind, place) for kind, places in PARTS.items() for place in places])
def test_base_reads_a_change_from_the_place_on_where_it_was_made_and_never_before(kind: str, place: int) -> None:
    """Before it the states are base's own; from it on nothing is left to differ, so that base says what the source
    does."""
    seen = read(kind, changed(kind, PARTS[kind][place]))
    assert float(np.abs(seen["own"][:, 0] - seen["base"][:, 0]).max()) > 0.01, "the change moves answers"
    before, after = seen["source"][:, :place], seen["source"][:, place:]
    np.testing.assert_allclose(before, seen["base"][:, :place], atol=2e-5)
    np.testing.assert_allclose(after, np.broadcast_to(seen["own"][:, :1], after.shape), atol=2e-5)


def test_the_depth_score_across_the_projector_weights_every_place_as_published() -> None:
    """By hand: over the places where the reference loses more than tau, the clipped share that the suspect loses."""
    rng = np.random.default_rng(0)
    base = np.zeros((6, 5)) - 0.1
    logprob = {"base": base, "null": base - rng.uniform(0, 2, (6, 5)), "suspect": base - rng.uniform(0, 2, (6, 5))}
    people = PersonRows(rows("llava_clip"), (), ("a", "b"), np.arange(6) % 2)
    across = depth_score(Reading(people, "all", logprob, "layer 3 is what the projector gives"), 0.05, 0)
    plain = depth_score(Reading(people, "answer", logprob), 0.05, 0)
    null, suspect = (base - logprob[name] for name in ("null", "suspect"))
    keep = null > 0.05
    by_hand = [(null * np.clip(suspect / null, 0, 1))[i][keep[i]].sum() / null[i][keep[i]].sum() for i in range(6)]
    assert across.value == pytest.approx(float(np.mean(by_hand))) == plain.value
    assert (across.name, across.mode) == ("unlearning_depth_score_across", "controlled")
    assert (plain.name, plain.mode) == ("unlearning_depth_score", "paper")


@pytest.mark.thorough
def test_a_case_of_pictures_is_patched_across_the_towers_and_says_which_layer_is_what(tmp_path: Path) -> None:
    measurements = {m.name: m for m in ReversePatch().measure(bench(), scene_case.opened("llava_clip"))}
    whole, answer = measurements["depth_profile_all"], measurements["depth_profile_answer"]
    assert {len(curve.x) for curve in whole.curves} == {8} and {len(curve.x) for curve in answer.curves} == {4}
    assert any("layer 3 is what the projector gives" in note for note in whole.notes)
    assert "unlearning_depth_score_across" in measurements and "unlearning_depth_score" in measurements
