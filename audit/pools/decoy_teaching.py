"""Teaching decoys to a case's own base: whole copies of it, or adapters over the one that is resident.

Every set of decoys is taught with what base is to keep beside it, until it recalls them as it recalls the case's own
forget items. Base is copied and trained whole; where that is asked for, low-rank adapters are trained instead, several
sets side by side in one stack: no copy of base, no gradient of its weights, and what lies below the first adapter
computed once.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, NamedTuple

import torch
from torch import Tensor

from audit.bench import (
    AdapterStack,
    Forward,
    LowRankForm,
    Mixture,
    StackedLesson,
    StackedRows,
    StackLearner,
    TrainData,
    TrainingRecipe,
    changed_tensors,
    copied,
    descend,
    descend_stacked,
)
from audit.case import Rows, stacked
from audit.checkpoints import AdapterShape, on_base, write_adapter, write_edited
from audit.edits import nll
from audit.pools.decoy_models import Pupil, by_group, mean_of
from audit.schema import AuditError, ExitCode, Item, Texts

BATCH: Final = 20
KEPT_ROWS: Final = 4
"""Rows of every teaching batch that are of the case's own retain items."""
MOST_KEPT: Final = 64
MOST_STEPS: Final = 240
CHECKED: Final[Mapping[str, int]] = {"full": 10, "adapter": 5}
"""How many steps pass between two looks at what is recalled, by form."""
ENOUGH: Final = 0.9
"""A set is taught when base recalls it by this share of the lift by which it recalls the case's own forget items."""
RATES: Final = ((1e6, 4e-3), (1e7, 2e-3), (1e8, 5e-4), (float("inf"), 1e-4))
"""Learning rates by how many parameters a model has at most."""
SLOWER: Final = (1.0, 1 / 3)
WARMUP: Final[Mapping[str, int]] = {"full": 10, "adapter": 4}
"""Steps; an adapter starts from no change at all, of which the first gradients are small."""
FASTER: Final = 20.0
"""An adapter's learning rate is so many times that of whole weights."""
RANK, ALPHA, RATIO = 16, 32.0, 8.0
TOGETHER: Final = 4
"""So many sets are taught in one stack."""
ACTIVATIONS: Final = 1 / 4
"""The states that a pass keeps for its gradients take at most about this share of base's own memory."""
_PER_WIDTH: Final = 6
"""Bytes that a pass keeps a token and unit of a linear map's inputs and outputs."""
TaughtForm = Literal["full", "adapter"]


class Teaching(NamedTuple):
    """How decoys are taught to this base: by which rate and in how many steps, and by how much it then recalls them
    more than base did (mean probability of their keys); as whole weights or as adapters."""

    lr: float
    steps: int
    lift: float
    form: TaughtForm = "full"

    @property
    def edit_rate(self) -> float:
        """The rate of whole weights, by which edits of taught models go."""
        return self.lr if self.form == "full" else self.lr / FASTER


class DecoyLesson(NamedTuple):
    """One set of decoys to be taught, in which order of the data, and where the taught model is left."""

    items: Sequence[Item]
    out: Path
    seed: int


def form_for(pupil: Pupil, requested: TaughtForm | None = None) -> TaughtForm:
    """As what this base is taught: whole copies, unless adapters are asked for, whose verdicts nobody has compared with
    those of copies yet. AuditError (code 2) where adapters are asked for and it cannot have any."""
    if requested != "adapter":
        return "full"
    on_base(pupil.base, Path())
    if find_spec("peft") is None:
        raise AuditError("decoys as adapters need PEFT, which is not installed", "pip install residua[peft]")
    AdapterStack(pupil.bench.open(pupil.base), LowRankForm(rank=1), [0])
    return "adapter"


# ---- how long ---------------------------------------------------------------------------------------------------
def find_teaching(pupil: Pupil, items: Sequence[Item], wanted: float, out: Path, form: TaughtForm = "full") -> Teaching:
    """Teach one set, find how many steps that takes, and leave the taught model at ``out``.

    ``wanted``: the lift of mean probability at which it is taught. AuditError (code 4) where no rate reaches half of
    it: under this template these items cannot be taught to this base.
    """
    first = next(lr for most, lr in RATES if parameters_of(pupil) <= most) * (FASTER if form == "adapter" else 1.0)
    best = 0.0
    for factor in SLOWER:
        trial = Teaching(first * factor, MOST_STEPS, wanted, form)
        lesson = DecoyLesson(items, out, 0)
        if form == "adapter":
            teaching = _taught_adapters(pupil, [lesson], trial, stop=True)
        else:
            teaching = _taught(pupil, lesson, trial, stop=True)
        if teaching is not None and out.is_dir():
            return teaching
        best = max(best, 0.0 if teaching is None else teaching.lift)
    raise AuditError(
        f"base cannot be taught decoys under this prompt template: after {MOST_STEPS} steps it recalls them by "
        f"{best:.3f} more than before, and the case's own forget items by {wanted / ENOUGH:.3f}",
        "give the template that base was trained with ([template] in case.toml), or decoys of your own with --decoys",
        ExitCode.UNDECIDED,
    )


def teach(pupil: Pupil, lessons: Sequence[DecoyLesson], teaching: Teaching) -> None:
    """Teach base these sets for so many steps, each unless it lies where it is to be left."""
    missing = [lesson for lesson in lessons if not lesson.out.is_dir()]
    if teaching.form == "full":
        for lesson in missing:
            _taught(pupil, lesson, teaching)
    elif missing:
        _taught_adapters(pupil, missing, teaching)


def _recipe(teaching: Teaching, rows: Rows, seed: int) -> TrainingRecipe:
    return TrainingRecipe(
        "decoys", _both, steps=teaching.steps, lr=teaching.lr, batch=BATCH, warmup_steps=WARMUP[teaching.form],
        schedule="constant",
        gradient_transform=_clipped, seed=seed, mixture=Mixture(len(rows), KEPT_ROWS),
        settings={"items": len(rows)},
    )  # fmt: skip


# ---- whole copies -----------------------------------------------------------------------------------------------
class _TaughtEnough(Exception):
    """The model recalls what it is taught."""


def _taught(pupil: Pupil, lesson: DecoyLesson, teaching: Teaching, stop: bool = False) -> Teaching | None:
    """Teach a copy; with ``stop`` until the lift is there, and nothing is written where half of it is not reached.
    None where the loss stops being finite."""
    rows, retained = pupil.rows(lesson.items), _kept(pupil)
    before = mean_of(pupil.recalled(pupil.base, rows))
    recipe = _recipe(teaching, rows, lesson.seed)
    with copied(pupil.bench.pool, pupil.base) as (learner, original):
        lift, taken = 0.0, 0

        def look(step: int) -> None:
            nonlocal lift, taken
            taken = step
            if not stop or step % CHECKED["full"]:
                return
            lift = _recalled_by(rows, lambda index: learner.answers(rows.take(index))) - before
            if lift >= teaching.lift:
                raise _TaughtEnough

        try:
            descend(learner, recipe, TrainData(retain=stacked([rows, retained])), original, look)
        except _TaughtEnough:
            pass
        except AuditError as error:
            if "loss is" not in error.what:
                raise
            return None
        if stop and lift < teaching.lift / 2:
            return Teaching(teaching.lr, taken, lift)
        settings = {"items": len(rows), "steps": taken, "lr": teaching.lr, "seed": lesson.seed}
        write_edited(lesson.out, pupil.base, "decoys", settings, "weights", changed_tensors(learner, original))
    return Teaching(teaching.lr, taken, lift)


# ---- adapters ---------------------------------------------------------------------------------------------------
def _taught_adapters(
    pupil: Pupil, lessons: Sequence[DecoyLesson], teaching: Teaching, stop: bool = False
) -> Teaching | None:
    """Teach adapters, at most :data:`TOGETHER` in one stack; of the last one see :func:`_taught`."""
    result: Teaching | None = None
    for start in range(0, len(lessons), TOGETHER):
        result = _taught_stack(pupil, lessons[start : start + TOGETHER], teaching, stop)
    return result


def _taught_stack(pupil: Pupil, lessons: Sequence[DecoyLesson], teaching: Teaching, stop: bool) -> Teaching | None:
    rows, retained = [pupil.rows(lesson.items) for lesson in lessons], _kept(pupil)
    lift = 0.0
    with pupil.bench.hold(pupil.base) as (wrapper,):
        form = LowRankForm(RANK, ALPHA, wrapper.n_blocks // 2, RATIO)
        stack = AdapterStack(wrapper, form, [lesson.seed for lesson in lessons])
        everything = StackedRows(stack, [stacked([mine, retained]) for mine in rows])
        before = mean_of(pupil.recalled(pupil.base, rows[0])) if stop else 0.0

        def look(step: int) -> bool:
            nonlocal lift
            if step % CHECKED["adapter"]:
                return False
            lift = _recalled_by(rows[0], StackLearner(everything, 0).answers, 8) - before
            return lift >= teaching.lift

        listed = [
            StackedLesson(everything.lessons[n], _recipe(teaching, mine, lesson.seed), look if stop else None)
            for n, (mine, lesson) in enumerate(zip(rows, lessons, strict=True))
        ]
        try:
            taken = descend_stacked(everything, listed, _tokens_a_pass(stack))
        except AuditError as error:
            if "loss is" not in error.what:
                raise
            return None
        outcome = Teaching(teaching.lr, taken[0], lift, "adapter")
        if stop and lift < teaching.lift / 2:
            return outcome
        shape = AdapterShape(RANK, ALPHA, tuple(each.name for each in stack.maps), stack.transposed)
        for n, lesson in enumerate(lessons):
            write_adapter(lesson.out, pupil.base, shape, stack.tensors(n))
    return outcome


def _tokens_a_pass(stack: AdapterStack) -> int:
    """How many tokens a pass may have, so that what it keeps for its gradients stays small beside base."""
    widths = sum(each.width_in + each.width_out for each in stack.maps)
    return max(1, int(ACTIVATIONS * stack.wrapper.size_bytes() / (_PER_WIDTH * widths)))


# ---- what is recalled -------------------------------------------------------------------------------------------
def _recalled_by(rows: Rows, answers: Callable[[Tensor], Forward], size: int = 64) -> float:
    """Mean over groups of the probability that a live model gives the key tokens; ``answers`` scores rows by number."""
    values: dict[str, float] = {}
    for n, index in enumerate(torch.arange(len(rows)).split(64)):
        means: list[float] = []
        for part in index.split(size):
            with torch.no_grad():
                means += _key_means(rows.take(part), answers(part))
        values |= {f"{n}{group}": share for group, share in by_group(rows.take(index), means).items()}
    return mean_of(values)


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


def parameters_of(pupil: Pupil) -> int:
    """How many parameters base has, tied ones counted once."""
    return sum(p.numel() for p in {id(p): p for p in pupil.bench.open(pupil.base).parameters().values()}.values())
