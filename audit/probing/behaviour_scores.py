"""A probe's behaviour, measured: its scores of the frozen world, by what is installed here and now.

Always on the CPU, in float32, by the default backend and without a store, as the calibrations were made.
"""

import atexit
import tempfile
from functools import cache
from pathlib import Path

from audit.bench import Bench
from audit.calibration import Behaviour, Score, Settings, numbers
from audit.case import open_case
from audit.plugins import discover
from audit.probing.frozen_models import FAMILIES, Family
from audit.probing.frozen_world import case_of, write_world
from audit.probing.probe import Probe
from audit.schema import AuditError


@cache
def world(family: Family) -> Path:
    """The folder of the frozen world of a family, made once a process and removed when it ends."""
    folder = tempfile.TemporaryDirectory(prefix="residua-frozen-")
    atexit.register(folder.cleanup)
    write_world(Path(folder.name), family)
    return Path(folder.name)


def behaviour_of(package: str, name: str, settings: Settings) -> Behaviour:
    """The behaviour of one probe of a package with these settings."""
    classes = discover(package, Probe)
    if name not in classes:
        raise AuditError(f"there is no probe {name!r} in {package}", "`residua probes` lists them")
    probe = classes[name].model_validate(dict(settings))
    values: dict[str, float] = {}
    claimed: list[Family] = [family for family in FAMILIES if {"*", family} & set(probe.requires.families)]
    for family in claimed:
        for score in _scores(probe, family):
            values |= {f"{family}: {field}": value for field, value in numbers(score).items()}
    return Behaviour(
        probe=name, version=probe.version, settings=probe.model_dump(mode="json"), values=dict(sorted(values.items()))
    )


def _scores(probe: Probe, family: Family) -> list[Score]:
    """What a probe says of the world's suspect; nothing where it says that it cannot."""
    with tempfile.TemporaryDirectory(prefix="residua-behaviour-") as out:
        case = open_case(case_of(family), world(family), Path(out))
        try:
            return [Score.of(measurement) for measurement in probe.measure(Bench(), case)]
        except AuditError:
            return []
