"""Members that a scored world lacks, audited alone: nothing that was measured is measured again.

A world that has been scored gains members when a mechanism comes later (it has slots of its own) or when more parts of
the forget people are taught. Models are named by content and all members are audited by the same roles, so that the new
ones are scored as a whole scoring would score them. They are put where the census has them; what stands, stands. A
world in which any probe has *changed*, or that any probe has not scored, is not added to.
"""

import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from audit.calibration import WorldScores, read_world, world_path, write_world
from audit.pools import score_world
from audit.pools.kinds import AnyDrawn, census_of
from audit.pools.score_world import Audited, Places
from audit.pools.stage_costs import Costs
from audit.zoo import one_thread

log = logging.getLogger(__name__)


def lacking_members(path: Path, drawn: AnyDrawn) -> tuple[str, ...]:
    """The members that this world's file lacks, where everything in it stands as it is; else none.

    None too where there is no file, it is of another recipe, holds a model that the recipe does not ask for, or a probe
    is not among those that scored it, or has changed since.
    """
    if not path.is_file():
        return ()
    scores = read_world(path)
    scored, planned = [model.model for model in scores.models], [member.model for member in census_of(drawn).members]
    stands = (
        score_world.of_recipe(scores, drawn)
        and set(scores.behaviours) == set(score_world.measuring(drawn.world)) == score_world.standing(path)
        and [name for name in planned if name in scored] == scored
    )
    return tuple(name for name in planned if name not in scored) if stands else ()


def add_members(drawn: AnyDrawn, places: Places, notify: Callable[[str], None] = log.info) -> Path:
    """Make and audit the members that a scored world lacks, and write the world whole.

    A killed call is taken up where it was. Raises AuditError (code 3) where a probe broke.
    """
    path, census = world_path(places.scores, drawn.world), census_of(drawn)
    lacking = lacking_members(path, drawn)
    if not lacking:
        return path
    work = places.work / f"{path.stem}-members"
    costs, members = Costs(work / "costs.json"), [member for member in census.members if member.model in lacking]
    with one_thread():
        folders = score_world.make_models(census, drawn.world, places.models, costs, lacking)
        audits = score_world.audit_members(members, drawn, (folders, work), costs)
    score_world.keep_panels(places, drawn.world, audits)
    write_world(path, _joined(read_world(path), drawn, audits, costs))
    shutil.rmtree(work, ignore_errors=True)
    if places.discard:
        score_world.discard(census, folders)
    notify(f"world {drawn.world}: {len(audits)} members added: {', '.join(lacking)}")
    return path


def _joined(before: WorldScores, drawn: AnyDrawn, audits: list[Audited], costs: Costs) -> WorldScores:
    """The world's scores with the new members in the order of its census."""
    models = {model.model: model for model in (*before.models, *(audit.scored for audit in audits))}
    stages = dict(before.stages_cpu_s)
    for stage, seconds in costs.cpu_s.items():
        stages[stage] = round(stages.get(stage, 0.0) + seconds, 2)
    return before.model_copy(
        update={
            "recipe": drawn.recorded(), "stages_cpu_s": dict(sorted(stages.items())),
            "models": tuple(models[member.model] for member in census_of(drawn).members),
        }
    )  # fmt: skip
