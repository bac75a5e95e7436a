"""The people behind the zoo's scores, thinned for the repository: what this study needs, in half precision.

Scoring keeps every panel in full (:mod:`audit.pools.panel_file`), in the cache. Of these the measurements that can
carry a verdict are kept here, on the rows that an edit was told to forget, so that the study runs from the repository
alone. Half precision moves a person's score by at most one part in two thousand.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from audit.pools import Assessed, panels_path, read_panels, write_panels
from audit.probing import Panel, Sides

PEOPLE = Path(__file__).parent / "people"
FITS_NOTHING = (
    "forget_likelihood.probability", "answer_lens.lens_lift", "reverse_patch.depth_profile_all",
    "quantisation_recovery.after_rounding",
)  # fmt: skip
"""Measured of every person alone: with fewer people they are what a smaller case would measure."""
FITS = ("cross_sequence.shared_direction", "relearning_recovery.recall_of_others")
"""Fitted on other people: a smaller case would fit on fewer, which a cut does not show."""


def keep(world: int, panels: Path, people: Path = PEOPLE) -> Path:
    """Write the thinned panels of one world. AuditError (code 3) where its panels cannot be read."""
    by_model = read_panels(panels_path(panels, world))
    path = panels_path(people, world)
    write_panels(path, {model: thinned(measured) for model, measured in by_model.items()})
    return path


def thinned(measured: Mapping[str, Assessed]) -> dict[str, Assessed]:
    """The measurements of the study, in half precision."""
    chosen = {name: measured[name] for name in (*FITS_NOTHING, *FITS) if name in measured}
    return {name: score._replace(panel=_of_type(score.panel, np.float16)) for name, score in chosen.items()}


def people_of(world: int, people: Path = PEOPLE) -> dict[str, dict[str, Assessed]]:
    """The thinned panels of a world by model and measurement, to compute with."""
    read = read_panels(panels_path(people, world))
    return {
        model: {name: score._replace(panel=_of_type(score.panel, np.float64)) for name, score in measured.items()}
        for model, measured in read.items()
    }


def _of_type(panel: Panel, dtype: type[np.floating]) -> Panel:
    def turned(sides: Sides) -> Sides:
        return Sides(*(None if means is None else means.astype(dtype) for means in sides))  # type: ignore[arg-type]

    return panel._replace(
        suspect=turned(panel.suspect), base=turned(panel.base), null=turned(panel.null),
        floors=tuple(map(turned, panel.floors)),
    )  # fmt: skip


def cut(panel: Panel, n: int, seed: int, holdout: bool) -> Panel:
    """The panel of ``n`` of its forget people, drawn by the seed; with its holdout people, or without any."""
    chosen = np.sort(np.random.default_rng(seed).permutation(len(panel.suspect.forget))[:n])

    def part(sides: Sides) -> Sides:
        return Sides(sides.forget[chosen], sides.holdout if holdout else None)

    return panel._replace(
        suspect=part(panel.suspect), base=part(panel.base), null=part(panel.null),
        floors=tuple(map(part, panel.floors)), names=tuple(panel.names[k] for k in chosen if panel.names),
    )  # fmt: skip
