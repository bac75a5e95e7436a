"""A probe's behaviour, measured: its scores of the frozen world, by what is installed here and now.

Always on the CPU, in float32, by the default backend and without a store, as the calibrations were made.
"""

import atexit
import tempfile
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from audit.bench import Bench
from audit.calibration import Behaviour, Kind, Score, Settings, numbers
from audit.case import open_case
from audit.plugins import discover
from audit.probing.frozen_images import case_of_images, write_images
from audit.probing.frozen_models import FAMILIES
from audit.probing.frozen_scenes import case_of_scenes, write_frozen_scenes
from audit.probing.frozen_world import case_of, write_world
from audit.probing.probe import Probe
from audit.schema import AuditError, Case, Modality


class FrozenWorld(NamedTuple):
    """How the frozen world of a family is written, and the audit of its suspect."""

    write: Callable[[Path], None]
    case: Case


def worlds_of(kind: Kind) -> dict[str, FrozenWorld]:
    """The frozen worlds of a kind of models, by family."""
    if kind == "image_classifier":
        return {"vit": FrozenWorld(write_images, case_of_images())}
    if kind == "vision_language":
        return {"llava": FrozenWorld(write_frozen_scenes, case_of_scenes())}
    return {family: FrozenWorld(partial(write_world, family=family), case_of(family)) for family in FAMILIES}


MODALITY: Mapping[Kind, Modality] = {
    "causal_lm": "text", "image_classifier": "image", "vision_language": "image+text",
}  # fmt: skip


@cache
def world(kind: Kind, family: str) -> Path:
    """The folder of the frozen world of a family, made once a process and removed when it ends."""
    folder = tempfile.TemporaryDirectory(prefix="residua-frozen-")
    atexit.register(folder.cleanup)
    worlds_of(kind)[family].write(Path(folder.name))
    return Path(folder.name)


def behaviour_of(package: str, name: str, settings: Settings, kind: Kind = "causal_lm") -> Behaviour:
    """The behaviour of one probe of a package with these settings on the worlds of a kind.

    AuditError (code 2) where it does not work on models of the kind.
    """
    classes = discover(package, Probe)
    if name not in classes:
        raise AuditError(f"there is no probe {name!r} in {package}", "`residua probes` lists them")
    probe = classes[name].model_validate(dict(settings))
    if MODALITY[kind] not in probe.requires.modalities:
        raise AuditError(f"{name} does not work on models of {MODALITY[kind]}", "ask it of another kind of models")
    values: dict[str, float] = {}
    families = probe.requires.families
    for family in worlds_of(kind):
        if not families or family in families:
            for score in _scores(probe, kind, family):
                values |= {f"{family}: {field}": value for field, value in numbers(score).items()}
    return Behaviour(
        probe=name, version=probe.version, settings=probe.model_dump(mode="json"), kind=kind,
        values=dict(sorted(values.items())),
    )  # fmt: skip


def _scores(probe: Probe, kind: Kind, family: str) -> list[Score]:
    """What a probe says of the world's suspect; nothing where it says that it cannot."""
    with tempfile.TemporaryDirectory(prefix="residua-behaviour-") as out:
        case = open_case(worlds_of(kind)[family].case, world(kind, family), Path(out))
        try:
            return [Score.of(measurement) for measurement in probe.measure(Bench(), case)]
        except AuditError:
            return []
