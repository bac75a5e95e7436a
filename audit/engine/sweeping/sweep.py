"""A sweep from its suspects to one record: shared reads first, then every audit, and what became of each."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from audit.engine.sweeping.cluster import Cluster, Rays
from audit.engine.sweeping.processes import CARDS, Processes
from audit.engine.sweeping.suspects import Suspect
from audit.engine.sweeping.tasks import Outcome, Task, tasks_of
from audit.planning import RunSettings, Step, Watch

WORKERS: Final = 2
"""So many processes where nobody says how many and there are no graphics cards."""


class Spread(NamedTuple):
    """Over what a sweep is spread: so many processes of this machine (None: one a graphics card that audits may use,
    else :data:`WORKERS`), or a Ray cluster."""

    workers: int | None = None
    cluster: Cluster | None = None


def sweep(
    suspects: Sequence[Suspect], folder: Path, settings: RunSettings, spread: Spread, watch: Watch
) -> tuple[Outcome, ...]:
    """Audit every suspect into ``folder/<name>``, as a run of each alone would; how each ended, in their order.

    What suspects of one base read alike is read once, by the store that ``settings`` names; without one nothing is
    shared but open models. A finished audit is returned as it is, an unfinished one is taken up. One suspect's fault is
    its own outcome. AuditError (code 2): no such cluster, or Ray is not installed.
    """
    settings, folder = _apart(settings), folder.absolute()
    tasks = tasks_of(suspects, folder, share=settings.store is not None)
    outcomes: dict[str, Outcome] = {}
    kinds = {task.name: task for task in tasks}
    with _performers(spread, settings, len(suspects), watch) as performers:
        for outcome in performers.perform(tasks):
            if kinds[outcome.name].kind == "audit":
                outcomes[outcome.name] = outcome
            watch(_told(kinds[outcome.name], outcome, len(outcomes), len(suspects)))
    return tuple(outcomes[suspect.name] for suspect in suspects)


def _apart(settings: RunSettings) -> RunSettings:
    """The settings for processes that start in folders of their own: without relative paths."""
    own = {name: getattr(settings, name) for name in ("store", "calibrations", "offload")}
    spread = settings.device_map
    if spread is not None and Path(spread).is_file():
        spread = str(Path(spread).absolute())
    absolute = {name: path.absolute() for name, path in own.items() if path is not None}
    return replace(settings, device_map=spread, **absolute)


def _performers(spread: Spread, settings: RunSettings, audits: int, watch: Watch) -> Processes | Rays:
    """Who performs the units. Each process has a graphics card to itself, but where the settings say which card it is
    (``cuda:1``) or spread a model over cards: then each sees them all under their own numbers."""
    if spread.cluster is not None:
        return Rays(settings, spread.cluster, watch)
    chosen = settings.device == "cpu" or ":" in settings.device or settings.device_map is not None
    cards = [] if chosen else graphics_cards()
    return Processes(settings, min(audits, spread.workers or len(cards) or WORKERS), watch, cards)


def graphics_cards() -> list[str]:
    """The names of the NVIDIA cards that this process may use, as ``CUDA_VISIBLE_DEVICES`` takes them."""
    if (visible := os.environ.get(CARDS)) is not None:
        return [name for name in visible.split(",") if name.strip()]
    if (query := shutil.which("nvidia-smi")) is None:
        return []
    with suppress(OSError, subprocess.SubprocessError):
        command = [query, "--query-gpu=index", "--format=csv,noheader"]
        listed = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        return [line.strip() for line in listed.splitlines() if line.strip()]
    return []


def _told(task: Task, outcome: Outcome, done: int, of: int) -> Step:
    if task.kind == "shared":
        end = "read once for all" if outcome.finished else f"not read beforehand: {outcome.problem}"
        return Step("shared", f"{task.role}: {end}", done, of, finished=True)
    end = outcome.verdict if outcome.finished else f"not audited: {outcome.problem}"
    return Step("audited", f"{task.name}: {end}", done, of, finished=True)
