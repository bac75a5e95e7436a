"""What was found, in two tables: how much each search brought back, and the best strings by name."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from audit.probing import Bench, CaseModels, Listing, OpenCase, person_rows_of, stats
from probes._trigger_controls import over_people
from probes._trigger_measured import FORGET, TriggersSearched
from probes._trigger_shift import SHIFTED
from probes._trigger_strings import fluency, reads_back, spoken

SHOWN = 3
CLASSES = ("budget class", "slot", "tokens", "recovery", "recovery in the null", "gain", "string", "transfer p")
STRINGS = (
    "fold", "from", "slot", "tokens", "recovery", "same string in the null", "same string in base", "fluency",
    "reads back", "string",
)  # fmt: skip
FIRST = f"from position {SHIFTED.first}"
Cells = tuple[str | int | float | None, ...]


def recovery_by_search(case: OpenCase, done: TriggersSearched, permutations: int) -> Listing:
    """Each search's best by the people chosen by, read on people that it did not see: ``recovery`` is of what base says
    and the suspect does not, in the null of what base says and the null does not; ``gain`` is in probability."""
    rows: list[Cells] = []
    suspect, null = done.soft["suspect"], done.soft.get("null")
    for n, arm in enumerate(suspect.arms):
        if arm.length:
            under = {"suspect": np.exp(suspect.forget[:, n])} | ({"null": np.exp(null.forget[:, n])} if null else {})
            rows.append(
                ("virtual tokens", str(arm.slot), str(arm.length), *_row(case, done, under, None, permutations))
            )
    if done.shifts:
        under, block = {name: shifted.forget for name, shifted in done.shifts.items()}, done.shifts["suspect"].block
        rows.append((f"shift of block {block}", FIRST, str(SHIFTED.n), *_row(case, done, under, None, permutations)))
    read, other = done.strings.get("suspect"), done.strings.get("null")
    for source in () if read is None else read.sources:
        assert read is not None
        under = {"suspect": read.forget[:, read.sources.index(source)]}
        under |= {"null": other.forget[:, other.sources.index(source)]} if other and source in other.sources else {}
        best = [read.string(fold, source) for fold in range(len(read.ranked))]
        text = " / ".join(dict.fromkeys(_text(case, string.ids) for string in best))
        slots, tokens = (
            ", ".join(dict.fromkeys(map(str, x))) for x in ([s.slot for s in best], [len(s.ids) for s in best])
        )
        rows.append((source, slots, tokens, *_row(case, done, under, text, permutations)))
    return Listing(
        title="recovery by budget class", columns=CLASSES, rows=tuple(rows), of=len(rows), quoted=("string",)
    )


def _row(
    case: OpenCase,
    done: TriggersSearched,
    under: Mapping[str, Float[ndarray, " row"]],
    text: str | None,
    permutations: int,
) -> Cells:
    """Recovery in the suspect and in the null, the gain, the string, and p of the gain beyond that of the null."""
    sheet = person_rows_of(case, FORGET)
    columns = [done.plain("base"), *(x for name, y in under.items() for x in (done.plain(name), y[:, None]))]
    joined = np.concatenate(columns, 1)
    scored = np.isfinite(joined).all(1)
    person = np.array([joined[scored & (sheet.person == p)].mean(0) for p in np.unique(sheet.person[scored])])
    base, rise = person[:, 0], person[:, 2] - person[:, 1]
    null = (person[:, 4] - person[:, 3]) if len(under) > 1 else np.zeros(len(person))
    p = stats.mean_max_t((rise - null)[:, None], case.case.seed, None, permutations).p
    of_null = _share(null, base - person[:, 3]) if len(under) > 1 else None
    return _share(rise, base - person[:, 1]), of_null, float(rise.mean()), text, p


def _share(part: Float[ndarray, " person"], total: Float[ndarray, " person"]) -> float | None:
    return float(part.mean() / total.mean()) if total.mean() > 0 else None


def best_strings(bench: Bench, case: OpenCase, cast: CaseModels, done: TriggersSearched) -> Listing:
    """The best strings of each fold by the people chosen by, read on those of the fold in every model."""
    reading = done.strings["suspect"]
    models = {name: cast.by_name()[name] for name in ("suspect", "null", "base") if name in done.soft}
    rows: list[Cells] = []
    for n, (fold, ranked) in enumerate(zip(done.people.folds, reading.ranked, strict=True)):
        strings, number = ranked.strings[:SHOWN], fold.read.number.numpy()
        plain = {name: done.plain(name)[number, 0] for name in models}
        under = {name: np.exp(spoken(bench, model, fold.read, strings)) for name, model in models.items()}
        hidden = over_people(fold.read, plain["base"] - plain["suspect"])
        for k, string in enumerate(strings):
            shares = {name: over_people(fold.read, under[name][k] - plain[name]) / hidden for name in models}
            rows.append(
                (
                    n + 1, string.family, str(string.slot), len(string.ids), shares["suspect"], shares.get("null"),
                    shares["base"], fluency(bench, cast.suspect, fold.read, string),
                    "yes" if reads_back(case.tokenizer, string) else "no", _text(case, string.ids),
                )
            )  # fmt: skip
    rows.sort(key=lambda row: -float(row[4] or 0.0))
    of = sum(len(ranked.strings) for ranked in reading.ranked)
    return Listing(title="best strings of each fold", columns=STRINGS, rows=tuple(rows), of=of, quoted=("string",))


def _text(case: OpenCase, ids: tuple[int, ...]) -> str:
    return str(case.tokenizer.decode(list(ids)))
