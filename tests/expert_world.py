"""The planted world's people taught to mixtures of experts: base learned both cohorts, null and clean one of them."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from audit.case import OpenCase, open_case
from audit.schema import Case, DataFiles, Roles, Source
from tests import expert_toy, planted_world, worlds

STEPS = 110
COHORTS = {"base": ("retain", "forget"), "null": ("retain",), "clean": ("retain",)}


def fresh(family: str) -> Any:
    """A random model of the family with the planted world's words."""
    config = expert_toy.config(family)
    config.vocab_size, config.initializer_range = len(planted_world.tokenizer()), 0.02
    return AutoModelForCausalLM.from_config(config)


def fork(family: str, parent: Any, cohorts: tuple[str, ...], seed: int) -> Any:
    """Go on from ``parent`` on the people of some cohorts."""
    child = fresh(family)
    child.load_state_dict(parent.state_dict())
    facts = [fact for cohort in cohorts for fact in planted_world.facts()[cohort]]
    return planted_world.train(child.train(), facts, STEPS, seed)


def write(family: str, path: Path) -> None:
    """Train the models, each a fork of one ancestor, and leave a folder of each."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        ancestor = planted_world.train(fresh(family).train(), planted_world.facts()["old"], STEPS, 0)
        for seed, (name, cohorts) in enumerate(COHORTS.items(), 1):
            fork(family, ancestor, cohorts, seed).save_pretrained(path / name)
            planted_world.tokenizer().save_pretrained(path / name)


@cache
def root(family: str) -> Path:
    """This process's own copy of the folder, which tests may add to; removed when the process ends."""
    kept = tempfile.TemporaryDirectory(prefix="residua-experts-")
    atexit.register(kept.cleanup)
    folder = Path(kept.name)
    shutil.copytree(worlds.made_once(f"experts-{family}", lambda path: write(family, path)), folder, dirs_exist_ok=True)
    for cohort in ("retain", "forget", "holdout"):
        shutil.copyfile(planted_world.root() / f"{cohort}.jsonl", folder / f"{cohort}.jsonl")
    return folder


def case(family: str, suspect: str) -> Case:
    """A case on this world; paths are relative to :func:`root`."""
    return Case(
        name=f"{family}-{suspect}", seed=0,
        roles=Roles(
            base=Source(path="base"), suspect=Source(path=suspect), references=(Source(path="null"),)
        ),
        data=DataFiles(forget="forget.jsonl", retain="retain.jsonl", holdout="holdout.jsonl"),
    )  # fmt: skip


def opened(family: str, suspect: str) -> OpenCase:
    """The same, opened."""
    folder = root(family)
    return open_case(case(family, suspect), folder, Path(tempfile.mkdtemp(dir=folder)))
