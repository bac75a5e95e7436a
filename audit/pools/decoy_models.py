"""Models of known truth for one case: its own base taught decoys, and such models made to forget them.

Every set of decoys is taught to a copy of base, with what base is to keep beside it, until it recalls them as it
recalls the case's own forget items. A model that was taught one set never knew another: it is what an honest suspect of
the other set's world is, and its reference. Every folder is an edited checkpoint that appears whole or not at all, and
what is there is not made again.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import torch
from torch import Tensor

from audit.bench import Bench, Forward, Mixture, TrainData, TrainingRecipe, changed_tensors, copied, descend
from audit.case import OpenCase, Rows, row_means, stacked, tokenise
from audit.checkpoints import resolve, write_edited
from audit.edits import Edit, EditData, nll
from audit.probing import SCORE
from audit.schema import AuditError, Checkpoint, ExitCode, Item, Source, Texts
from audit.zoo import mechanisms

BATCH: Final = 20
KEPT_ROWS: Final = 4
"""Rows of every teaching batch, and of an edit's retained rows, that are of the case's own retain items."""
MOST_STEPS: Final = 240
CHECKED: Final = 10
"""How many steps pass between two looks at what is recalled."""
ENOUGH: Final = 0.9
"""A set is taught when base recalls it by this share of the lift by which it recalls the case's own forget items."""
RATES: Final = ((1e6, 4e-3), (1e7, 2e-3), (1e8, 5e-4), (float("inf"), 1e-4))
"""Learning rates by how many parameters a model has at most."""
SLOWER: Final = (1.0, 1 / 3)
EDIT_STEPS, EDIT_BATCH, ZOO_RATE = 24, 8, 8e-3
"""An edit takes no more steps and rows a step; its learning rate is to the teaching's as in the zoo, where that is so
much."""
MOST_KEPT: Final = 64
GENTLER: Final = (1.0, 0.3, 0.1, 0.03)
KEPT_SHARE: Final = 0.7
"""A fake keeps so much of what its parent gives the retained items; the gate of an audit asks for half."""


class Teaching(NamedTuple):
    """How decoys are taught to this base: by which rate and in how many steps, and by how much it then recalls them
    more than base did (mean probability of their keys)."""

    lr: float
    steps: int
    lift: float


class Pupil(NamedTuple):
    """What is taught, and to whom: the case whose base it is, and its bench."""

    bench: Bench
    case: OpenCase

    @property
    def base(self) -> Checkpoint:
        """The case's own base, whole."""
        return self.case.base.model_copy(update={"vocabulary": None})

    def rows(self, items: Sequence[Item]) -> Rows:
        """Items as rows, tokenised as the audit tokenises them."""
        return tokenise(
            items, [item.answer for item in items], self.case.tokenizer, self.case.case.template, self.case.max_length,
            self.case.function_words.words,
        )  # fmt: skip

    def recalled(self, checkpoint: Checkpoint, rows: Rows) -> dict[str, float]:
        """Mean probability of the key tokens by group."""
        logprob = row_means(self.bench.run(checkpoint, rows, [SCORE])[SCORE], rows)
        return _by_group(rows, logprob.tolist())


def _by_group(rows: Rows, logprob: Sequence[float]) -> dict[str, float]:
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


# ---- teaching ---------------------------------------------------------------------------------------------------
class _TaughtEnough(Exception):
    """The model recalls what it is taught."""


def find_teaching(pupil: Pupil, items: Sequence[Item], wanted: float, out: Path) -> Teaching:
    """Teach one set, find how many steps that takes, and leave the taught model at ``out``.

    ``wanted``: the lift of mean probability at which it is taught. AuditError (code 4) where no rate reaches half of
    it: under this template these items cannot be taught to this base.
    """
    first = next(lr for most, lr in RATES if _parameters(pupil) <= most)
    best = 0.0
    for factor in SLOWER:
        teaching = _taught(pupil, items, Teaching(first * factor, MOST_STEPS, wanted), out, seed=0, stop=True)
        if teaching is not None and out.is_dir():
            return teaching
        best = max(best, 0.0 if teaching is None else teaching.lift)
    raise AuditError(
        f"base cannot be taught decoys under this prompt template: after {MOST_STEPS} steps it recalls them by "
        f"{best:.3f} more than before, and the case's own forget items by {wanted / ENOUGH:.3f}",
        "give the template that base was trained with ([template] in case.toml), or decoys of your own with --decoys",
        ExitCode.UNDECIDED,
    )


def teach(pupil: Pupil, items: Sequence[Item], teaching: Teaching, out: Path, seed: int) -> Path:
    """Teach a copy of base these items for so many steps, unless that lies at ``out``."""
    if not out.is_dir():
        _taught(pupil, items, teaching, out, seed)
    return out


def _taught(
    pupil: Pupil, items: Sequence[Item], teaching: Teaching, out: Path, seed: int, stop: bool = False
) -> Teaching | None:
    """Teach a copy; with ``stop`` until the lift is there, and nothing is written where half of it is not reached.
    None where the loss stops being finite."""
    rows, retained = pupil.rows(items), _kept(pupil)
    before = _mean(pupil.recalled(pupil.base, rows))
    recipe = TrainingRecipe(
        "decoys", _both, steps=teaching.steps, lr=teaching.lr, batch=BATCH, warmup_steps=10, schedule="constant",
        gradient_transform=_clipped, seed=seed, mixture=Mixture(len(rows), KEPT_ROWS),
        settings={"items": len(rows)},
    )  # fmt: skip
    with copied(pupil.bench.pool, pupil.base) as (learner, original):
        lift, taken = 0.0, 0

        def look(step: int) -> None:
            nonlocal lift, taken
            taken = step
            if not stop or step % CHECKED:
                return
            with torch.no_grad():
                scored = [learner.answers(part) for part in _parts(rows)]
            recall = [_by_group(part, _key_means(part, s)) for part, s in zip(_parts(rows), scored, strict=True)]
            lift = _mean({f"{n}{g}": x for n, by in enumerate(recall) for g, x in by.items()}) - before
            if lift >= teaching.lift:
                raise _TaughtEnough

        try:
            descend(learner, recipe, TrainData(retain=stacked([rows, retained])), original, look)
        except _TaughtEnough:
            pass
        except AuditError as error:
            if "finite" not in error.what:
                raise
            return None
        if stop and lift < teaching.lift / 2:
            return Teaching(teaching.lr, taken, lift)
        settings = {"items": len(rows), "steps": taken, "lr": teaching.lr, "seed": seed}
        write_edited(out, pupil.base, "decoys", settings, "weights", changed_tensors(learner, original))
    return Teaching(teaching.lr, taken, lift)


def _parts(rows: Rows) -> list[Rows]:
    return [rows.take(index) for index in torch.arange(len(rows)).split(64)]


def _key_means(rows: Rows, scored: Forward) -> list[float]:
    """Mean log-probability of the key tokens of each row."""
    sums, counts = torch.zeros(len(rows)), torch.zeros(len(rows))
    value, row, key = (x.detach().cpu() for x in (scored.logprob.float(), scored.row, scored.key))
    sums.index_add_(0, row[key], value[key])
    counts.index_add_(0, row[key], torch.ones(int(key.sum())))
    return (sums / counts.clamp_min(1)).tolist()


def _both(_forget: Forward | None, rows: Forward | None, *_frozen: Forward | None) -> Tensor:
    assert rows is not None
    return nll(rows)


def _clipped(grads: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Gradients scaled to a joint norm of at most 1: the first steps would else forget the language."""
    norm = torch.stack([grad.norm() for grad in grads.values()]).norm()
    return {name: grad / norm.clamp_min(1.0) for name, grad in grads.items()}


def _kept(pupil: Pupil) -> Rows:
    return pupil.rows(pupil.case.items(Texts(cohort="retain"))[:MOST_KEPT])


def _mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


def _parameters(pupil: Pupil) -> int:
    return sum(p.numel() for p in {id(p): p for p in pupil.bench.open(pupil.base).parameters().values()}.values())


# ---- forgetting -------------------------------------------------------------------------------------------------
def edited(pupil: Pupil, parent: Path, mechanism: tuple[str, int], data: EditData, out: Path, rate: float) -> Path:
    """Make a taught model forget by a mechanism of the zoo's kit as a world runs it, unless that lies at ``out``.

    A fake that destroys what it should keep hides nothing: it is made again and gentler. AuditError as the edit's own,
    such as a head that is tied, and where even the gentlest fake destroys.
    """
    name, world = mechanism
    if out.is_dir():
        return out
    start, edit = resolve(Source(path=str(parent)), parent), scaled_edit(name, world, rate)
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
    shares = [_mean(pupil.recalled(after, rows)) / _mean(pupil.recalled(before, rows)) for rows in groups]
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
