"""Dictionaries trained on a stream of states: several sites in step, kept after every interval, taken up when killed.

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
from saes.lens_training import Glimpse, SiteTraining
from saes.records import DictionaryRecord, TrainingSettings
from saes.thresholds import with_active

STATE = "training.safetensors"
_GLIMPSE_S = 1.0


class TrainingProgress(NamedTuple):
    """How far a training is: rows seen, and of every site what its last batch said.

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


class _Training:
    """One training in one folder."""

    def __init__(
        self, source: Activations, held_out: Activations, settings: TrainingSettings, out: Path, sites: dict[str, Site]
    ) -> None:
        self.source, self.held_out, self.settings, self.out, self.sites = source, held_out, settings, out, sites
        libraries = [version("sae-lens"), torch.__version__]
        self.key = content_key(
            "training", settings.model_dump(mode="json"), source.key, held_out.key, source.names, libraries
        )

    def finished(self, watch: Watch) -> tuple[StoredDictionary, ...]:
        """The dictionaries: as they lie there, or trained to the end and written."""
        folders = {name: self.out / name for name in self.source.names}
        done = {name: folder for name, folder in folders.items() if (folder / RECORD).is_file()}
        for folder in done.values():
            record = read_dictionary(folder).record
            if record is None or record.training != self.key:
                raise self._another(folder)
        if len(done) < len(folders):
            trainings = self._trained(watch)
            for n, (name, folder) in enumerate(folders.items()):
                if name not in done:
                    self._write(folder, name, trainings[n])
        (self.out / STATE).unlink(missing_ok=True)
        return tuple(read_dictionary(folder) for folder in folders.values())

    def _another(self, place: Path) -> AuditError:
        do = "choose another folder, or delete this one; to go on with it, give the same case, sites and settings"
        return AuditError(f"{place}: holds a training of other rows, settings or versions", do)

    def _trained(self, watch: Watch) -> list[SiteTraining]:
        """All steps, from where the file of the training leaves off."""
        trainings = self._resumed()
        settings, clock = self.settings, time.monotonic
        steps, batch = settings.steps, settings.batch_rows
        first = trainings[0].trainer.n_training_steps
        batches = RowStream(self.source, batch, settings.seed).batches(first * batch)
        begun = looked = clock()
        for step in range(first + 1, steps + 1):
            states = next(batches)
            for name, training in zip(self.source.names, trainings, strict=True):
                training.step(states[name])
            keeping = step % settings.checkpoint_steps == 0 or step == steps
            if keeping or clock() - looked >= _GLIMPSE_S:
                looked = clock()
                progress = self._progress(trainings, step, (step - first) * batch / max(looked - begun, 1e-9), keeping)
                if keeping:
                    self._keep(trainings)
                watch(progress)
        return trainings

    def _progress(self, trainings: list[SiteTraining], step: int, rate: float, keeping: bool) -> TrainingProgress:
        glimpses = {name: t.glimpse() for name, t in zip(self.source.names, trainings, strict=True)}
        batch, steps = self.settings.batch_rows, self.settings.steps
        for name, glimpse in glimpses.items():
            if glimpse.fve != glimpse.fve:
                problem = f"{name}: training broke down at row {step * batch}: the error is no number"
                raise AuditError(problem, "lower the learning rate, or look for infinite states", ExitCode.INTEGRITY)
        return TrainingProgress(
            step * batch, steps * batch, glimpses, rate, (steps - step) * batch / rate if rate else None, keeping
        )

    # ---- on disk and back ----------------------------------------------------------------------------------------
    def _resumed(self) -> list[SiteTraining]:
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
        by_site = {name: _below(tensors, f"{name}/") for name in self.source.names}
        trainings = self._begun({name: Moments(held["mean"], held["sd"]) for name, held in by_site.items()})
        for name, training in zip(self.source.names, trainings, strict=True):
            training.restore(by_site[name], numbers[name])
        return trainings

    def _begun(self, by_site: Mapping[str, Moments]) -> list[SiteTraining]:
        for name, of_site in by_site.items():
            if not bool((of_site.mean.isfinite() & of_site.sd.isfinite()).all()):
                do = "look at the model and its dtype: half precision overflows"
                raise AuditError(f"{name}: states that hold a NaN or an infinity", do, ExitCode.INTEGRITY)
        seed = self.settings.seed
        return [SiteTraining(self.settings, by_site[name], seed + n) for n, name in enumerate(self.source.names)]

    def _keep(self, trainings: list[SiteTraining]) -> None:
        trained = dict(zip(self.source.names, trainings, strict=True))
        tensors = {f"{site}/{name}": t for site, training in trained.items() for name, t in training.tensors().items()}
        numbers = json.dumps({site: training.numbers() for site, training in trained.items()})
        write_tensors(self.out / STATE, tensors, {"training": self.key, "numbers": numbers})

    def _write(self, folder: Path, name: str, training: SiteTraining) -> None:
        """The dictionary of one site, measured on held-out rows; the record comes last."""
        settings = self.settings
        coder = training.coder()
        if settings.architecture == "batchtopk":
            coder = with_active(coder, self.held_out, name, settings.k)
        measured = measure(coder, self.held_out, name)
        beside = {"firing_rates": measured.firing_rates, "mean": training.moments.mean, "sd": training.moments.sd}
        about = {"training_architecture": settings.architecture, "hook_name": name}
        sha256 = write_dictionary(folder, coder, beside, about)
        write_record(
            folder,
            DictionaryRecord(
                checkpoint=self.source.checkpoint, site=self.sites.get(name), patches=self.source.patches,
                activations=self.source.key, training=self.key, settings=settings, cached_rows=self.source.rows,
                held_out=measured.fidelity, sha256=sha256,
            ),
        )  # fmt: skip


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
