"""Models of known truth for one case: its own base taught decoys, and such models made to forget them.

How base is taught is said in :mod:`audit.pools.decoy_teaching`. A model that was taught one set never knew another: it
is what an honest suspect of the other set's world is, and its reference. Every folder is an edited checkpoint or an
adapter that appears whole or not at all, and what is there is not made again.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch

from audit.bench import Bench
from audit.case import OpenCase, Rows, row_means, tokenise
from audit.checkpoints import ADAPTER_CONFIG, on_base, resolve
from audit.edits import Edit, EditData
from audit.probing import SCORE
from audit.schema import AuditError, Checkpoint, Item, Source
from audit.zoo import mechanisms

EDIT_STEPS, EDIT_BATCH, ZOO_RATE = 24, 8, 8e-3
"""An edit takes no more steps and rows a step; its learning rate is to the teaching's as in the zoo, where that is so
much."""
GENTLER: Final = (1.0, 0.3, 0.1, 0.03)
KEPT_SHARE: Final = 0.7
"""A fake keeps so much of what its parent gives the retained items; the gate of an audit asks for half."""


class Pupil(NamedTuple):
    """What is taught, and to whom: the case whose base it is, and its bench."""

    bench: Bench
    case: OpenCase

    @property
    def base(self) -> Checkpoint:
        """The case's own base, whole."""
        return self.case.base.model_copy(update={"vocabulary": None})

    def source(self, folder: Path) -> Source:
        """What a taught or edited model's folder holds; an adapter stands on base."""
        return on_base(self.base, folder) if (folder / ADAPTER_CONFIG).is_file() else Source(path=str(folder))

    def rows(self, items: Sequence[Item]) -> Rows:
        """Items as rows, tokenised as the audit tokenises them."""
        return tokenise(
            items, [item.answer for item in items], self.case.tokenizer, self.case.case.template, self.case.max_length,
            self.case.function_words.words,
        )  # fmt: skip

    def recalled(self, checkpoint: Checkpoint, rows: Rows) -> dict[str, float]:
        """Mean probability of the key tokens by group."""
        logprob = row_means(self.bench.run(checkpoint, rows, [SCORE])[SCORE], rows)
        return by_group(rows, logprob.tolist())


def by_group(rows: Rows, logprob: Sequence[float]) -> dict[str, float]:
    """Mean probability by group, of one log-probability a row."""
    values: dict[str, list[float]] = {}
    for group, value in zip(rows.group_ids, logprob, strict=True):
        values.setdefault(group, []).append(float(torch.tensor(value).exp()))
    return {group: sum(listed) / len(listed) for group, listed in values.items()}


def recalled_groups(pupil: Pupil, items: Sequence[Item], bar: float) -> tuple[str, ...]:
    """The groups of whose items base, or the ancestor, gives a mean probability of at least ``bar``: they are known."""
    rows = pupil.rows(items)
    models = [pupil.base, *([] if pupil.case.ancestor is None else [pupil.case.ancestor])]
    known = {group for who in models for group, share in pupil.recalled(who, rows).items() if share >= bar}
    return tuple(sorted(known))


# ---- forgetting -------------------------------------------------------------------------------------------------
def edited(pupil: Pupil, parent: Path, mechanism: tuple[str, int], data: EditData, out: Path, rate: float) -> Path:
    """Make a taught model forget by a mechanism of the zoo's kit as a world runs it, unless that lies at ``out``.

    A fake that destroys what it should keep hides nothing: it is made again and gentler. AuditError as the edit's own,
    such as a head that is tied, and where even the gentlest fake destroys.
    """
    name, world = mechanism
    if out.is_dir():
        return out
    start, edit = resolve(pupil.source(parent), parent), scaled_edit(name, world, rate)
    for gentler in GENTLER if mechanisms.has_kind(name, "fake") else (1.0,):
        trial = out.with_name(f"{out.name}-{gentler:g}")
        shutil.rmtree(trial, ignore_errors=True)
        chosen = edit if gentler == 1 else edit.model_copy(update={"gamma": getattr(edit, "gamma", 1.0) * gentler})
        fitted = chosen.fit(pupil.bench, start, data, trial)
        if not mechanisms.has_kind(name, "fake") or _keeps(pupil, start, fitted, data.retain):
            trial.rename(out)
            return out
        shutil.rmtree(trial)
    raise AuditError(f"{name} cannot be made here without destroying what is kept", "nothing: it is left out")


def _keeps(pupil: Pupil, before: Checkpoint, after: Checkpoint, retain: Rows | None) -> bool:
    """Does an edited model still give what it keeps, and general texts, a good part of the probability that it had?"""
    general = pupil.case.cohorts.get("general", ())
    groups = [rows for rows in (retain, pupil.rows(general) if general else None) if rows is not None]
    shares = [mean_of(pupil.recalled(after, rows)) / mean_of(pupil.recalled(before, rows)) for rows in groups]
    return all(share >= KEPT_SHARE for share in shares)


def scaled_edit(name: str, world: int, rate: float) -> Edit:
    """A mechanism as this world runs it on a model that was taught at this rate, and no longer than need be."""
    edit = mechanisms.of_world(name, world)
    scaled: dict[str, int | float] = {}
    if name not in ("head_edit", "logit_bias"):  # fitted on cached states, for which no rate of the model's own counts
        most = {"steps": EDIT_STEPS, "batch": EDIT_BATCH}
        scaled = {field: min(value, most[field]) for field, value in edit if field in most}
        if isinstance(lr := getattr(edit, "lr", None), float):
            scaled["lr"] = lr * rate / ZOO_RATE
    return edit.model_copy(update=scaled)


def mean_of(values: Mapping[str, float]) -> float:
    """The mean over groups."""
    return sum(values.values()) / len(values)
