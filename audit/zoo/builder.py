"""Make the zoo: train what is not cached, in parallel processes of one thread each, and write a case for each suspect.

``build("demo")`` leaves ordinary Hugging Face folders, JSONL files and case files under the cache; a second call finds
them. Every folder is written under a temporary name and renamed, so that an interrupted build leaves no half model.
"""

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from audit.storage import cache_root
from audit.zoo import image_training, recipes, scene_training, training
from audit.zoo.form_texts import form_items
from audit.zoo.image_recipes import ImageZoo
from audit.zoo.scene_recipes import SceneZoo
from audit.zoo.world import World, general_items, items, make_world, write_jsonl

DATA_VERSION = 2
"""Raised when other data or cases are written for the same models: a world of a cache is then written anew."""

COHORTS = ("forget", "retain", "holdout", "general")
Done = Callable[[str, int, int], None]


class Built(NamedTuple):
    """Where everything lies: the world's folder, data files, model folders and case files, all by name."""

    world: str
    seed: int
    folder: Path
    data: dict[str, Path]
    models: dict[str, Path]
    cases: dict[str, Path]


def build(
    world: str = "demo", seed: int = 0, cache: Path | None = None, workers: int | None = None, done: Done | None = None
) -> Built:
    """Make or find the zoo of ``world`` and ``seed``; ``done(name, finished, of)`` is called as each model is there.

    ``workers`` processes train at a time (default 2, and 1 for ``tiny``); with 1 all is done in this process.
    Raises AuditError (code 2) for an unknown world.
    """
    zoo = recipes.zoo_of(world)
    root = Path(cache or cache_root()).resolve() / "zoo"
    root.mkdir(parents=True, exist_ok=True)
    folders = {plan.name: folder_of(zoo, seed, root, plan.name) for plan in zoo.plans}
    _make_all(zoo, (world, seed, root), folders, workers or (1 if world == "tiny" else 2), done)
    home = root / f"{world}-{seed}-{recipes.world_key(zoo, seed)}-{DATA_VERSION}"
    if not home.exists():
        temp = root / f".{home.name}.{os.getpid()}.tmp"
        _write_world(temp, zoo, make_world(seed, zoo.shape), folders)
        settle(temp, home)
    files = {path.stem: path for path in sorted((home / "data").glob("*.jsonl"))}
    cases = {name: home / "cases" / f"{name}.toml" for name in zoo.suspects}
    return Built(world, seed, home, files, folders, cases)


def write_whole(final: Path, write: Callable[[Path], None]) -> None:
    """Have a folder written under a temporary name, and settle it; nothing half-written is left behind."""
    temp = final.with_name(f".{final.name}.{os.getpid()}.tmp")
    try:
        write(temp)
        settle(temp, final)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def settle(temp: Path, final: Path) -> None:
    """Give a finished folder its name; where another process was first, theirs stays."""
    try:
        temp.rename(final)
    except OSError:
        if not final.exists():
            raise
        shutil.rmtree(temp, ignore_errors=True)


# ---- models -----------------------------------------------------------------------------------------------------
def make(world: str, seed: int, root: Path, name: str) -> str:
    """Train one model whose parent is there, unless it is there itself. Runs in a process of its own or in this one."""
    make_model(recipes.zoo_of(world), seed, root, name)
    return name


def make_model(zoo: recipes.AnyZoo, seed: int, root: Path, name: str) -> Path:
    """The folder of a model, trained if it is not there; its parent is."""
    final = folder_of(zoo, seed, root, name)
    if not final.exists():
        write_whole(final, partial(_write, zoo, seed, name, root))
    return final


def _write(zoo: recipes.AnyZoo, seed: int, name: str, root: Path, temp: Path) -> None:
    before = zoo.plan(name).parent
    parent = None if before is None else folder_of(zoo, seed, root, before)
    if isinstance(zoo, ImageZoo):
        image_training.make_images(zoo, seed, zoo.plan(name), parent, temp)
    elif isinstance(zoo, SceneZoo):
        scene_training.make_scenes(zoo, seed, zoo.plan(name), parent, temp)
    else:
        training.make(zoo, seed, zoo.plan(name), parent, temp)


def folder_of(zoo: recipes.AnyZoo, seed: int, root: Path, name: str) -> Path:
    """Where a model lies once it is made."""
    return root / f"{name}-{recipes.key_of(zoo, seed, name)}"


def _make_all(
    zoo: recipes.Zoo, where: tuple[str, int, Path], folders: dict[str, Path], workers: int, done: Done | None
) -> None:
    missing = [plan.name for plan in zoo.plans if not folders[plan.name].exists()]
    finished = 0

    def tell(name: str) -> None:
        nonlocal finished
        finished += 1
        if done is not None:
            done(name, finished, len(missing))

    if workers == 1:
        for name in missing:
            tell(make(*where, name))
    elif missing:
        _make_in_processes(zoo, where, missing, workers, tell)


def _make_in_processes(
    zoo: recipes.Zoo, where: tuple[str, int, Path], missing: list[str], workers: int, tell: Callable[[str], None]
) -> None:
    waiting, running = list(missing), dict[Future[str], str]()
    with ProcessPoolExecutor(min(workers, len(missing)), mp_context=get_context("spawn")) as pool:
        try:
            while waiting or running:
                unborn = {*waiting, *running.values()}
                for name in [n for n in waiting if zoo.plan(n).parent not in unborn]:
                    waiting.remove(name)
                    running[pool.submit(make, *where, name)] = name
                finished, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    running.pop(future)
                    tell(future.result())
        finally:
            pool.shutdown(cancel_futures=True)


# ---- data and cases ---------------------------------------------------------------------------------------------
def _write_world(folder: Path, zoo: recipes.Zoo, world: World, models: dict[str, Path]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "data").mkdir(parents=True)
    (folder / "cases").mkdir()
    for group in ("forget", "retain", "holdout", "background"):
        write_jsonl(folder / "data" / f"{group}.jsonl", items(world, group))
    write_jsonl(folder / "data" / "general.jsonl", general_items(world))
    people = (*world.people["forget"], *world.people["retain"])
    write_jsonl(folder / "data" / "forms.jsonl", form_items(world, people))
    for name in zoo.suspects:
        text = "\n".join(_case_lines(name, {model: f"../../{path.name}" for model, path in models.items()}))
        (folder / "cases" / f"{name}.toml").write_text(text + "\n", encoding="utf-8")


def _case_lines(suspect: str, at: dict[str, str]) -> Iterable[str]:
    """A case file: reference_1 is the null, reference_2 gives the floor; reference_0 is audited and never either."""
    yield f"# {suspect}, audited in an invented world. Paths are relative to this file."
    yield f'name = "{suspect}"'
    yield 'edited = "unknown"'
    for role, model in (("base", "base"), ("suspect", suspect), ("ancestor", "ancestor")):
        yield f'\n[roles.{role}]\npath = "{at[model]}"'
    for k in (1, 2):
        yield f'\n[[roles.references]]\npath = "{at[f"reference_{k}"]}"\nlineage = "same_ancestor"\ndata_order = {k}'
    yield "\n[data]"
    yield from (f'{cohort} = "../data/{cohort}.jsonl"' for cohort in (*COHORTS, "forms"))
