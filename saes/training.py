"""Dictionaries trained on a stream of states: all of them in step, kept after every interval, taken up when killed.

A folder holds a dictionary a site, each in sae_lens's format, and while training goes on one file with everything that
the next step depends on. The order of the rows is a function of seed and position, and the file of the training is
written whole or not at all: a training that was killed and called again ends with the very weights of one that was not.
"""

import json
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from audit.schema import AuditError, ExitCode, Site, content_key
from audit.storage import read_tensors, safetensors_file, write_tensors
from saes.activations import Activations, Moments, RowStream, moments
from saes.dictionary_folder import RECORD, StoredDictionary, read_dictionary, write_dictionary, write_record
from saes.fidelity import measure
from saes.records import DictionaryRecord, TrainingSettings
from saes.stacked_training import StackedTraining
from saes.step_training import Glimpse, StepTraining
from saes.thresholds import with_active

STATE = "training.safetensors"
_GLIMPSE_S = 1.0
_CODES_AT_ONCE = 1 << 22
"""Codes of one batch of all dictionaries that are stepped at once, so that memory is bounded."""
_FORM = 2
"""Of what an unfinished training keeps, and of how its steps round."""


class TrainingProgress(NamedTuple):
    """How far a training is: rows seen, and of every dictionary what its last batch said.

    ``rows_per_s`` since this call began, ``left_s`` the seconds that the rest takes at that rate, None before it is
    known. ``kept``: whether this moment lies on disk.
    """

    done: int
    total: int
    sites: Mapping[str, Glimpse]
    rows_per_s: float
    left_s: float | None
    kept_on_disk: bool


Watch = Callable[[TrainingProgress], None]


def unwatched(progress: TrainingProgress) -> None:
    """Nobody looks."""


def train(
    source: Activations, held_out: Activations, settings: TrainingSettings, out: Path,
    sites: Mapping[str, Site] | None = None, watch: Watch = unwatched,
) -> tuple[StoredDictionary, ...]:  # fmt: skip
    """Train a dictionary of every site of ``source`` and write each to a folder of its name in ``out``.

    A training of the same settings and rows that lies in ``out`` unfinished is taken up, a finished one is read. What
    is measured, and BatchTopK's threshold, come from ``held_out``. ``sites`` says which site each name is.
    AuditError: code 2 for another training in ``out`` or no rows; 3 for a damaged file or a training that broke down.
    """
    if source.names != held_out.names or source.widths != held_out.widths:
        raise AuditError("held-out states are of other sites than those to train on", "read both at the same sites")
    return _Training(source, held_out, settings, out, dict(sites or {})).finished(watch)


class _Member(NamedTuple):
    """One dictionary in training: the name of its folder, the site that it is of, and the seed of its first weights."""

    name: str
    site: str
    seed: int


def _members(names: tuple[str, ...], settings: TrainingSettings) -> tuple[_Member, ...]:
    """Every site with every draw; each has first weights of its own."""
    draws = range(settings.draws)
    seeds = [[settings.seed + n + draw * len(names) for n in range(len(names))] for draw in draws]
    return tuple(
        _Member(name if settings.draws == 1 else f"{name}.draw{draw}", name, seeds[draw][n])
        for draw in draws
        for n, name in enumerate(names)
    )


class _Team(NamedTuple):
    """Dictionaries that are stepped at once."""

    members: tuple[_Member, ...]
    training: StepTraining


class _Training:
    """One training in one folder."""

    def __init__(
        self, source: Activations, held_out: Activations, settings: TrainingSettings, out: Path, sites: dict[str, Site]
    ) -> None:
        self.source, self.held_out, self.settings, self.out, self.sites = source, held_out, settings, out, sites
        self.members = _members(source.names, settings)
        libraries = [version("sae-lens"), torch.__version__]
        self.key = content_key(
            "training", _FORM, settings.model_dump(mode="json"), source.key, held_out.key, source.names, libraries
        )

    def finished(self, watch: Watch) -> tuple[StoredDictionary, ...]:
        """The dictionaries: as they lie there, or trained to the end and written."""
        folders = {member: self.out / member.name for member in self.members}
        done = {member: folder for member, folder in folders.items() if (folder / RECORD).is_file()}
        for folder in done.values():
            record = read_dictionary(folder).record
            if record is None or record.training != self.key:
                raise self._another(folder)
        if len(done) < len(folders):
            for team in self._trained(watch):
                for n, member in enumerate(team.members):
                    if member not in done:
                        self._write(folders[member], member, team.training, n)
        (self.out / STATE).unlink(missing_ok=True)
        return tuple(read_dictionary(folder) for folder in folders.values())

    def _another(self, place: Path) -> AuditError:
        do = "choose another folder, or delete this one; to go on with it, give the same case, sites and settings"
        return AuditError(f"{place}: holds a training of other rows, settings or versions", do)

    def _trained(self, watch: Watch) -> list[_Team]:
        """All steps, from where the file of the training leaves off."""
        teams = self._resumed()
        settings, clock = self.settings, time.monotonic
        steps, batch = settings.steps, settings.batch_rows
        first = teams[0].training.steps_done
        batches = RowStream(self.source, batch, settings.seed).batches(first * batch)
        begun = looked = clock()
        for step in range(first + 1, steps + 1):
            states = next(batches)
            for members, training in teams:
                training.step([states[member.site] for member in members])
            keeping = step % settings.checkpoint_steps == 0 or step == steps
            if keeping or clock() - looked >= _GLIMPSE_S:
                looked = clock()
                progress = self._progress(teams, step, (step - first) * batch / max(looked - begun, 1e-9), keeping)
                if keeping:
                    self._keep(teams)
                watch(progress)
        return teams

    def _progress(self, teams: list[_Team], step: int, rate: float, keeping: bool) -> TrainingProgress:
        glimpses: dict[str, Glimpse] = {}
        for team in teams:
            glimpses |= zip((member.name for member in team.members), team.training.glimpses(), strict=True)
        batch, steps = self.settings.batch_rows, self.settings.steps
        for name, glimpse in glimpses.items():
            if glimpse.fve != glimpse.fve:
                problem = f"{name}: training broke down at row {step * batch}: the error is no number"
                raise AuditError(problem, "lower the learning rate, or look for infinite states", ExitCode.INTEGRITY)
        return TrainingProgress(
            step * batch, steps * batch, glimpses, rate, (steps - step) * batch / rate if rate else None, keeping
        )

    # ---- on disk and back ----------------------------------------------------------------------------------------
    def _resumed(self) -> list[_Team]:
        path = self.out / STATE
        if not path.is_file():
            return self._begun(moments(self.source))
        header = safetensors_file.read_header(path)
        if header.metadata.get("training") != self.key:
            raise self._another(path)
        if safetensors_file.combined(safetensors_file.tensor_digests(path)) != header.metadata.get("sha256"):
            do = "delete it: training starts over"
            raise AuditError(f"{path}: its bytes are not those that were written", do, ExitCode.INTEGRITY)
        tensors, numbers = read_tensors(path), json.loads(header.metadata["numbers"])
        by_name = {member.name: _below(tensors, f"{member.name}/") for member in self.members}
        by_site = {member.site: by_name[member.name] for member in self.members}
        teams = self._begun({site: Moments(held["mean"], held["sd"]) for site, held in by_site.items()})
        for team in teams:
            for n, member in enumerate(team.members):
                team.training.restore(n, by_name[member.name], numbers[member.name])
        return teams

    def _begun(self, by_site: Mapping[str, Moments]) -> list[_Team]:
        for name, of_site in by_site.items():
            if not bool((of_site.mean.isfinite() & of_site.sd.isfinite()).all()):
                do = "look at the model and its dtype: half precision overflows"
                raise AuditError(f"{name}: states that hold a NaN or an infinity", do, ExitCode.INTEGRITY)
        if self.settings.architecture == "jumprelu":
            from saes.lens_training import LensTraining

            kind, at_once = LensTraining, 1
        else:
            codes = self.settings.batch_rows * self.settings.features
            kind, at_once = StackedTraining, max(1, _CODES_AT_ONCE // codes)
        return [
            _Team(members, kind(self.settings, [by_site[m.site] for m in members], [m.seed for m in members]))
            for members in self._teams(at_once)
        ]

    def _teams(self, at_once: int) -> list[tuple[_Member, ...]]:
        """The members in groups of one width, at the most so many each."""
        widths = dict(zip(self.source.names, self.source.widths, strict=True))
        alike = [[m for m in self.members if widths[m.site] == width] for width in dict.fromkeys(widths.values())]
        return [tuple(group[n : n + at_once]) for group in alike for n in range(0, len(group), at_once)]

    def _keep(self, teams: list[_Team]) -> None:
        tensors: dict[str, Tensor] = {}
        numbers: dict[str, str] = {}
        for members, training in teams:
            for n, member in enumerate(members):
                own = training.tensors(n) | {"mean": training.moments[n].mean, "sd": training.moments[n].sd}
                tensors |= {f"{member.name}/{name}": tensor for name, tensor in own.items()}
                numbers[member.name] = training.numbers(n)
        write_tensors(self.out / STATE, tensors, {"training": self.key, "numbers": json.dumps(numbers)})

    def _write(self, folder: Path, member: _Member, training: StepTraining, n: int) -> None:
        """One dictionary, measured on held-out rows; the record comes last."""
        settings, site = self.settings, member.site
        coder, (mean, sd) = training.coder(n), training.moments[n]
        if settings.architecture == "batchtopk":
            coder = with_active(coder, self.held_out, site, settings.k)
        measured = measure(coder, self.held_out, site)
        beside = {"firing_rates": measured.firing_rates, "mean": mean, "sd": sd}
        about = {"training_architecture": settings.architecture, "hook_name": site}
        sha256 = write_dictionary(folder, coder, beside, about)
        write_record(
            folder,
            DictionaryRecord(
                checkpoint=self.source.checkpoint, site=self.sites.get(site), patches=self.source.patches,
                activations=self.source.key, training=self.key, settings=settings, cached_rows=self.source.rows,
                weights_seed=member.seed, held_out=measured.fidelity, sha256=sha256,
            ),
        )  # fmt: skip


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
