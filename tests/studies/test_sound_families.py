"""No sound model is refused by what every role must pass: stored types, plain matrices, outputs that say something.

The checks were made on a few families. Here each family that can be opened plays base and reference with random
weights, and ancestor as the library initialises it: some families begin from matrices of zeros.
"""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from audit.bench import Bench
from audit.case import Rows
from audit.checkpoints import check_degenerate, check_types, degenerate, resolve, untrained
from audit.schema import AuditError, Checkpoint, Read, Site, Source
from audit.zoo import Built
from studies.families import page
from studies.families.tiny_configs import VOCABULARY, tiny_config, tiny_model

FEW = ("llama", "gpt2", "mamba", "mixtral", "rwkv", "gemma4_text", "recurrent_gemma")
EVERY = tuple(family.name for family in page.opened(page.read_families()))
SCORE = Read(site=Site(part="logits"), at="key", reduce="logprob")


def rows(vocabulary: int = VOCABULARY) -> Rows:
    """Three made-up rows of six tokens, the last of which is the target."""
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(4, vocabulary // 2, (3, 6), generator=draw)  # marks of images lie in the upper half
    key = torch.zeros_like(ids, dtype=torch.bool)
    key[:, -1] = True
    spans = torch.tensor([[5, 6]] * 3)
    return Rows(ids, torch.ones_like(key), spans, key, ("a", "b", "c"), ("a", "b", "c"))


def saved(model: Any, folder: Path) -> Checkpoint:
    model.save_pretrained(folder)
    return resolve(Source(path=str(folder)), folder)


def initialised(name: str) -> Any:
    """A model as the library initialises it, where no training has been."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(2)
    return AutoModelForCausalLM.from_config(tiny_config(name), dtype=torch.float32)


def check_sound(base: Checkpoint, others: dict[str, Checkpoint], of: Rows) -> None:
    """What a case asks of these roles when it is opened, and of the outputs that are read of them."""
    everyone = {"base": base, **others}
    for role, ckpt in everyone.items():
        rest = [other for name, other in everyone.items() if name != role]
        check_types(role, ckpt, rest)
        check_degenerate(role, ckpt, rest)
        bench = Bench()
        bench.run(ckpt, of, [SCORE])
        assert bench.pool.opened, "it was opened, and looked at as every opened model is"


def check_family(name: str, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base, reference = (saved(tiny_model(name, seed), folder / str(seed)) for seed in (0, 1))
        check_sound(base, {"reference": reference}, rows())


@pytest.mark.sampled
@pytest.mark.parametrize("name", FEW)
def test_sound_models_of_some_families_pass_in_every_role(name: str, tmp_path: Path) -> None:
    check_family(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_sound_models_of_every_family_pass_in_every_role(name: str, tmp_path: Path) -> None:
    check_family(name, tmp_path)


def check_ancestor(name: str, folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = saved(tiny_model(name), folder / "base")
        ancestor = saved(initialised(name), folder / "ancestor")
    check_types("ancestor", ancestor, [base])
    assert untrained(ancestor) or not degenerate(ancestor, [base])
    assert not degenerate(base, [ancestor])


@pytest.mark.parametrize("name", [*FEW, "xlstm", "gpt_oss"])
def test_an_ancestor_that_was_never_trained_passes(name: str, tmp_path: Path) -> None:
    check_ancestor(name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
def test_an_ancestor_of_every_family_that_was_never_trained_passes(name: str, tmp_path: Path) -> None:
    check_ancestor(name, tmp_path)


@pytest.mark.thorough
def test_the_zoos_members_pass_in_every_role(zoo: Built) -> None:
    everyone = {name: resolve(Source(path=str(path)), path) for name, path in zoo.models.items()}
    base = everyone.pop("base")
    check_sound(base, everyone, rows())


def test_the_same_checks_refuse_a_family_with_a_zeroed_matrix(tmp_path: Path) -> None:
    broken = tiny_model("gpt2", 1)
    with torch.no_grad():
        broken.transformer.h[1].mlp.c_fc.weight.zero_()
    base = saved(tiny_model("gpt2"), tmp_path / "base")
    with pytest.raises(AuditError, match="reference .*is zero"):
        check_sound(base, {"reference": saved(broken, tmp_path / "broken")}, rows())
