"""No setting of any causal family moves logits and is left out of the comparison of two models.

``python -m tests.setting_sweep [FAMILY ...]`` writes the table of the settings that are compared though no change of
theirs moved a logit of a tiny model: a mismatch in one of them is refused all the same. A setting that is not in it yet
wants to be looked at.
"""

import pytest

from studies.families.tiny_configs import FAMILIES
from tests.setting_sweep import swept, table

# an output head of its own counts as a tensor of the files, so that a tied and an untied one may meet
LEFT_TO_THE_TENSORS = {"tie_word_embeddings"}
# of a wrapper without towers its text alone is compared; which ids stand for images is asked of no text
PLACEHOLDERS = {"gemma4": {"image_token_id", "video_token_id", "audio_token_id"}}
QUICK = ("gemma3_text", "granite", "gpt_neox")


def held_to_the_table(family: str) -> None:
    stored = table()
    if family in stored["not swept"]:
        pytest.skip(f"{family} is not swept: {stored['not swept'][family]}")
    found = swept(family)
    allowed = LEFT_TO_THE_TENSORS | PLACEHOLDERS.get(family, set())
    assert {name.rpartition(".")[2] for name in found.uncompared} <= allowed
    assert set(found.unmoved) <= set(stored["unmoved"][family])
    assert found.settings >= 5


@pytest.mark.thorough
@pytest.mark.parametrize("family", QUICK)
def test_what_moves_logits_of_a_family_is_compared(family: str) -> None:
    held_to_the_table(family)


@pytest.mark.slow
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in QUICK])
def test_what_moves_logits_of_any_family_is_compared(family: str) -> None:
    held_to_the_table(family)


def test_every_family_is_swept_or_said_not_to_be() -> None:
    stored = table()
    assert set(FAMILIES) == stored["unmoved"].keys() | stored["not swept"].keys()
    assert len(stored["not swept"]) <= 30
