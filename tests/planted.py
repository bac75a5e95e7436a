"""A package of probes with planted numbers, so that the engine can be tested without caring what a probe measures."""

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from audit.calibration import Score
from audit.calibration.behaviour import Behaviour, Settings, numbers
from audit.plugins import discover
from audit.probing import Probe
from audit.schema import Table

PROBE = '''"""A probe with planted numbers."""

from typing import ClassVar

from audit.probing import (
    AuditError, Bench, Case, Control, Cost, Count, Interval, Measurement, Missing, Need, OpenCase, Probe, Read,
    Requires, Site, Texts,
)

NONE = Missing(missing="planted")
SCORE = Read(site=Site(part="logits"), at="key", reduce="logprob")


class Planted(Probe):
    """Is {name} planted?

    Null: none. Positive control: none. Blind to: everything. Cite: none.
    """

    requires: ClassVar[Requires] = Requires({requires})
    version: ClassVar[int] = 1
    attack: ClassVar[str | None] = {attack!r}
    value: float = {value}

    def needs(self, case: Case) -> tuple[Need, ...]:
        return (Need(role="base", texts=Texts(cohort="forget"), reads=(SCORE,)),)

    def cost(self, case: OpenCase) -> Cost:
        return Cost(fwd_tokens=7)

    def measure(self, bench: Bench, case: OpenCase) -> tuple[Measurement, ...]:
        {body}
        table = case.write_table("{name}", {{"item": ["a"], "score": [self.value]}})
        return (
            Measurement(
                probe="{name}", name="effect", kind="{kind}", statistic="planted effect", value=self.value,
                unit="effect", scale="effect", n=Count(scored=1),
                ci95=Interval(lo=self.value - 0.01, hi=self.value + 0.01),
                unit_of_replication="person", units=1, seed=case.case.seed, p=0.001 if self.value > 0.9 else 0.5,
                p_below=0.5, null=NONE, positive_control=Control(value=1.0, ci95=NONE, found=True), floor=0.01,
                items=table,
            ),
        )
'''
ASSESSED = """
        import numpy as np
        from audit.probing import Design, Naming, Panel, Sides, assess, blank
        key = getattr(getattr(case, "suspect", None), "key", "0")
        def sides(name, level):
            rng = np.random.default_rng(sum(map(ord, name)))
            forget, holdout = (mean + rng.normal(size=(n, 2)) for mean, n in ((level, 16), (0.0, 8)))
            return Sides(forget, holdout)
        naming = Naming("{name}", "shift", "context", "planted shift", "effect", "effect")
        panel = Panel(sides(key, 1.0), sides("base", 2.0), sides("null", 0.0), (sides("floor", 0.0),))
        shift = assess(panel, Design(case.case.seed, 0.5, draws=999, name=naming.key)).onto(
            blank(naming, "", Count(scored=24), 16, case.case.seed).model_copy(update={"readings": {"own": 1.0}})
        )
        return (shift, shift.model_copy(update={"name": "other"}))
"""
"""The body of a probe whose effect is assessed over people; a second measurement of it is not recorded."""
KINDS = {"gate": 1.0, "output": 0.0, "causal": 0.0, "decoding": 0.0}


def write_probe(
    folder: Path, name: str, body: str = "pass", requires: str = "", value: float | None = None,
    attack: str | None = None,
) -> None:  # fmt: skip
    """One plug-in file; its kind is what its name starts with."""
    kind = name.split("_")[0]
    planted = KINDS.get(kind, 0.0) if value is None else value
    kind = kind if kind in KINDS else "context"
    text = PROBE.format(name=name, kind=kind, value=planted, body=body, requires=requires, attack=attack)
    (folder / f"{name}.py").write_text(text, encoding="utf-8")
    # Whoever looks next reads this file, and neither what is in memory nor bytecode of the same second and size.
    sys.modules.pop(f"{folder.name}.{name}", None)
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)


@contextmanager
def planted_package(folder: Path, name: str) -> Iterator[Path]:
    """An importable package of one probe of each kind, gone again afterwards."""
    package = folder / name
    package.mkdir()
    (package / "__init__.py").write_text('"""Planted probes."""\n')
    for kind in KINDS:
        write_probe(package, kind)
    sys.path.insert(0, str(folder))
    try:
        yield package
    finally:
        sys.path.remove(str(folder))
        for module in [module for module in sys.modules if module.split(".")[0] == name]:
            del sys.modules[module]


@contextmanager
def few_probes(folder: Path, name: str, *probes: str) -> Iterator[str]:
    """The name of an importable package of some of the product's probes, gone again afterwards."""
    with planted_package(folder, name) as package:
        for path in package.glob("[a-z]*.py"):
            path.unlink()
        for probe in probes:
            shutil.copy(Path(__file__).parents[1] / "probes" / f"{probe}.py", package)
        yield name


def planted_behaviour(package: str, name: str, settings: Settings) -> Behaviour:
    """How a planted probe behaves: it looks at no model, so that no world has to be made for it."""
    probe = discover(package, Probe)[name].model_validate(dict(settings))
    table = {"path": "tables/none.parquet", "sha256": "0" * 64, "rows": 0, "columns": (), "axis": ""}
    case = SimpleNamespace(case=SimpleNamespace(seed=0), write_table=lambda *_: Table.model_validate(table))
    scores = [Score.of(measurement) for measurement in probe.measure(None, case)]  # type: ignore[arg-type]
    values = {field: value for score in scores for field, value in numbers(score).items()}
    return Behaviour(probe=name, version=probe.version, settings=probe.model_dump(mode="json"), values=values)
