"""What does an audit say of 2, 4, 8 or 12 forget groups? The zoo's people cut down, assessed and judged again.

``python -m studies.small_cases.study`` reads the people beside it and the scores of studies/zoo, and writes
results.json and the table of the page; no model is run. ``--panels DIR`` takes the people from full panels first.
"""

import argparse
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from audit.calibration import Score, ScoredModel, rate, read_world, world_path, write, zoo_floors
from audit.judging import Given, judge
from audit.pools import PANELS, SCORES, Again, Assessed, assessed_again, name_of, panels_path, word_of
from audit.schema import Evidence
from audit.zoo import POOL_WORLDS, mechanisms
from studies.pages import with_section
from studies.provenance import stamp
from studies.small_cases.counts import Cell, OneTest, SmallCases, Truth, Words
from studies.small_cases.page import tables
from studies.small_cases.people import FITS, FITS_NOTHING, PEOPLE, cut, keep, people_of

log = logging.getLogger(__name__)

HERE = Path(__file__).parent
RESULTS, README = HERE / "results.json", HERE / "README.md"
GROUPS = (2, 4, 8, 12, 32)
"""Forget groups of a case; the last is the whole world, for comparison."""
DRAWS = 2
"""Times that the people of a smaller case are drawn."""
TRACE = ("INTACT", "SUPPRESSED", "PARTIAL")
SILENT = "CONSISTENT WITH NEVER TRAINED"


class Setting(NamedTuple):
    """A kind of small case: how many forget groups, with holdout groups or without, and by which tests."""

    groups: int
    holdout: bool
    fitted: bool


class _Said(NamedTuple):
    """What one audit says of one model in one small case."""

    setting: Setting
    draw: int
    world: int
    model: str
    truth: Truth
    word: str
    tests: tuple[tuple[str, str, bool, bool], ...]


def truth_of(model: ScoredModel) -> Truth | None:
    """What is known of a model, if something is to be counted: base and the fakes know, whatever was cut away."""
    if model.pool in ("clean", "edited clean"):
        return "clean" if model.pool == "clean" else "edited clean"
    knows = model.mechanism == "base" or model.mechanism in mechanisms.of_kind("fake")
    return "knowing" if knows and model.pool == "knowing" else None


def settings() -> tuple[Setting, ...]:
    """Every kind of case."""
    return tuple(Setting(n, held, fitted) for n in GROUPS for held in (True, False) for fitted in (False, True))


def audits_of_world(world: int, scores: Path, people: Path) -> list[_Said]:
    """Every small case of every counted model of one world."""
    read, by_model, floors = read_world(world_path(scores, world)), people_of(world, people), zoo_floors()
    return [
        audit
        for model in read.models
        if (truth := truth_of(model)) is not None
        for audit in _of_model(model, truth, by_model.get(model.model, {}), floors)
    ]


def _of_model(
    model: ScoredModel, truth: Truth, by_name: Mapping[str, Assessed], floors: Mapping[str, float]
) -> Iterable[_Said]:
    gates = [score for score in model.scores if score.kind == "gate"]
    scores = {name_of(score): score for score in model.scores if score.mode == "controlled"}
    assessed = {name: score for name, score in by_name.items() if name in scores}
    for groups, holdout in product(GROUPS, (True, False)):
        for draw in range(DRAWS if groups < GROUPS[-1] else 1):
            case = _Case(groups, 1000 * model.world + draw, holdout)
            again = {name: _smaller(scores[name], score, case) for name, score in assessed.items()}
            for fitted in (False, True):
                chosen = [again[name] for name in (*FITS_NOTHING, *(FITS if fitted else ())) if name in again]
                roles = Given(2, ancestor=True, holdout=holdout)
                word = word_of([*gates, *(result.score for result in chosen)], roles, floors)
                tests = tuple(_test(judge(result.score.restored(), floors), _short(result.test)) for result in chosen)
                yield _Said(Setting(groups, holdout, fitted), draw, model.world, model.model, truth, word, tests)


class _Case(NamedTuple):
    """How many forget groups, drawn by which seed, and whether there are holdout groups."""

    groups: int
    seed: int
    holdout: bool


def _smaller(score: Score, assessed: Assessed, case: _Case) -> Again:
    """The score of a case with so many of these people, and by which test."""
    smaller = assessed._replace(panel=cut(assessed.panel, *case))
    return assessed_again(score.model_copy(update={"units": case.groups}), smaller)


def _short(test: str) -> str:
    return test.partition(";")[0].removeprefix("p: ")


def _test(evidence: Evidence, test: str) -> tuple[str, str, bool, bool]:
    m = evidence.measurement
    return f"{m.probe}.{m.name}", test, evidence.outcome == "trace found", evidence.direction == "below"


# ---- counted ----------------------------------------------------------------------------------------------------
def counted(audits: Sequence[_Said]) -> tuple[Cell, ...]:
    """Every setting in counts."""
    return tuple(_cell(setting, [s for s in audits if s.setting == setting]) for setting in settings())


def _cell(setting: Setting, audits: Sequence[_Said]) -> Cell:
    truths: tuple[Truth, ...] = ("clean", "edited clean", "knowing")
    words = tuple(_words(truth, [s for s in audits if s.truth == truth]) for truth in truths)
    names = dict.fromkeys(name for s in audits for name, *_ in s.tests)
    return Cell(**setting._asdict(), words=words, tests=tuple(_one_test(name, audits) for name in names))


def _wrong(audit: _Said) -> bool:
    return (audit.word in TRACE) != (audit.truth == "knowing")


def _words(truth: Truth, audits: Sequence[_Said]) -> Words:
    count = Counter(s.word for s in audits)
    first = [s for s in audits if s.draw == 0]
    worlds, wrong = ({s.world for s in group} for group in (first, filter(_wrong, first)))
    trace = sum(count[word] for word in TRACE)
    return Words(
        truth=truth, wrong=rate(len(wrong), len(worlds)), trace=trace, silent=count[SILENT],
        undecided=len(audits) - trace - count[SILENT] - count["INVALID"], invalid=count["INVALID"], audits=len(audits),
    )  # fmt: skip


def _one_test(name: str, audits: Sequence[_Said]) -> OneTest:
    mine = [(s.truth, test) for s in audits for test in s.tests if test[0] == name]
    knowing, clean = ([test for truth, test in mine if truth == wanted] for wanted in ("knowing", "clean"))
    return OneTest(
        measurement=name, tests=dict(sorted(Counter(test for _, (_, test, *_) in mine).items())),
        found=sum(trace for *_, trace, _ in knowing), knowing=len(knowing),
        alarms=sum(trace for *_, trace, _ in clean), below=sum(below for *_, below in clean), clean=len(clean),
    )  # fmt: skip


def exceptions(audits: Sequence[_Said]) -> tuple[str, ...]:
    """Every wrong word of a first draw, where nothing is fitted: alarms of clean models, and fakes that pass."""
    return tuple(
        f"{s.setting.groups} groups, {'' if s.setting.holdout else 'no '}holdout, world {s.world}, {s.model}: {s.word}"
        for s in audits
        if s.draw == 0 and not s.setting.fitted
        if (s.truth == "clean" and s.word in TRACE) or (s.truth == "knowing" and s.word == SILENT)
    )


def study(worlds: Sequence[int], scores: Path, people: Path, workers: int) -> SmallCases:
    """Every count over these worlds."""
    of_world = partial(audits_of_world, scores=scores, people=people)
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        audits = [audit for group in pool.map(of_world, worlds) for audit in group]
    return SmallCases(
        stamp=stamp(0), command="python -m studies.small_cases.study", worlds=len(worlds), draws=DRAWS,
        cells=counted(audits), exceptions=exceptions(audits),
    )  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Cut, assess, judge, count, and write the results and the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, nargs="+", default=list(POOL_WORLDS))
    parser.add_argument("--panels", type=Path, nargs="?", const=PANELS, help="take the people from full panels first")
    parser.add_argument("--people", type=Path, default=PEOPLE, help="where the people of this study lie")
    parser.add_argument("--scores", type=Path, default=SCORES)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    for world in args.worlds if args.panels else ():
        keep(world, args.panels, args.people)
    available = [world for world in args.worlds if panels_path(args.people, world).is_file()]
    results = study(available, args.scores, args.people, args.workers)
    write(args.out, results)
    if args.out == RESULTS:
        README.write_text(with_section(README.read_text(encoding="utf-8"), tables(results)), encoding="utf-8")
    log.info(tables(results))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
