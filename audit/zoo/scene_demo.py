"""A case on models of scenes that are made in little time: for tests, examples and whoever wants one to look at."""

from collections.abc import Mapping
from pathlib import Path

from audit.edits import Edit
from audit.zoo import builder
from audit.zoo.scene_recipes import SceneLearning, ScenePlan, SceneShape, SceneSizes, SceneZoo
from audit.zoo.scene_world import COHORTS, make_scene_world, write_scenes

TINY = SceneSizes(vision_d=32, vision_blocks=3, d=32, blocks=2)
FEW = SceneShape(plain=120, wanted=40, forget=12, retain=12, holdout=12, edited=24)


def make_scene_case(
    folder: Path,
    world: int = 2000,
    sizes: SceneSizes = TINY,
    shape: SceneShape = FEW,
    steps: tuple[int, int] = (20, 10),
    edits: Mapping[str, Edit] | None = None,
) -> Path:
    """Train an ancestor and so many steps later base and two references, edit base, and write an audit of the result.

    ``edits``: the suspects by name (None: base itself); the first of them is audited by ``case.toml``, which is
    returned, the others by ``<name>.toml`` beside it. With a few steps nobody knows anything: for plumbing alone.
    """
    first, then = steps
    learned = SceneLearning("ancestor", first, 2e-3, 0, first_steps=first)
    plans = [
        ScenePlan("ancestor", None, learned),
        ScenePlan("base", "ancestor", SceneLearning("retain+forget", then, 1.5e-3, 1)),
        *(ScenePlan(f"reference_{k}", "ancestor", SceneLearning("retain", then, 1.5e-3, 2 + k)) for k in (1, 2)),
        *(ScenePlan(name, "base", edit) for name, edit in (edits or {}).items()),
    ]
    suspects = tuple(edits or {"base": None})
    zoo = SceneZoo(shape, sizes, tuple(plans), suspects)
    folder.mkdir(parents=True, exist_ok=True)
    models = {plan.name: builder.make_model(zoo, world, folder / "models", plan.name) for plan in plans}
    write_scenes(make_scene_world(world, shape), folder / "data")
    for n, name in enumerate(suspects):
        path = folder / (f"{name}.toml" if n else "case.toml")
        path.write_text(_case_text(name, models, folder, world), encoding="utf-8")
    return folder / "case.toml"


def _case_text(suspect: str, models: Mapping[str, Path], folder: Path, world: int) -> str:
    """A case file: reference_1 is the null, reference_2 gives the floor."""
    at = {name: path.relative_to(folder).as_posix() for name, path in models.items()}
    lines = [f'name = "{suspect}"', 'edited = "unknown"', f"seed = {world}"]
    for role, model in (("base", "base"), ("suspect", suspect), ("ancestor", "ancestor")):
        lines += ["", f"[roles.{role}]", f'path = "{at[model]}"']
    for k in (1, 2):
        lines += ["", "[[roles.references]]", f'path = "{at[f"reference_{k}"]}"', 'lineage = "same_ancestor"']
    lines += ["", "[data]", *(f'{cohort} = "data/{cohort}.jsonl"' for cohort in COHORTS), f"split_seed = {world}"]
    return "\n".join(lines) + "\n"
