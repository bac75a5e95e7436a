"""Do lens and cross-sequence probe see in a file of question, answer and group alone, without seeing ghosts?

``python -m studies.plain_data.study --data DIR`` trains what is not in DIR yet, audits every suspect in four ways (on
the world's own alternates; on plain data; on plain data by every test that an audit has; on plain data without the rule
that finds alternates, as before there was one), writes results.json here and prints the tables of the page.
"""

import argparse
import json
import logging
import resource
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from audit.bench import Bench
from audit.calibration import zoo_floors
from audit.case import open_case
from audit.judging import given, judge, verdict
from audit.plugins import discover
from audit.probing import Probe
from audit.schema import Evidence, Interval, Missing
from audit.storage import write_atomic
from studies.plain_data.models import ARCHITECTURES, CLEAN, SUSPECTS, Architecture, Data, case_of, make, write_data
from studies.provenance import stamp

HERE = Path(__file__).parent
SEEDS = (0, 1, 2)
"""A world each."""
PROBES = ("utility", "forget_likelihood", "answer_lens", "cross_sequence", "reverse_patch")
READ = ("lens_lift", "shared_direction")
DATA: tuple[Data, ...] = ("given", "plain", "every", "before")
SHOWN: tuple[Data, ...] = ("before", "plain", "every", "given")
RULE = "audit.case.cohorts.with_counterfactuals"
log = logging.getLogger(__name__)


@contextmanager
def rule(applies: bool) -> Generator[None]:
    """Without the rule a case has the alternates of its files and no others."""
    with ExitStack() as stack:
        if not applies:
            stack.enter_context(mock.patch(RULE, lambda by_cohort, _: by_cohort))
        yield


def audit(folder: Path, seed: int, architecture: Architecture, suspect: str, data: Data) -> dict[str, Any]:
    """One suspect's verdict by this case alone, and what the two tests of alternates read."""
    case = case_of(architecture, suspect, data, seed)
    with rule(data != "before"):
        opened, bench, probes = open_case(case, folder, folder / "out"), Bench(), discover("probes", Probe)
        names = sorted(probes) if data == "every" else PROBES
        measured = [m for name in names for m in probes[name].model_validate({}).measure(bench, opened)]
    floors = zoo_floors()
    evidence = tuple(judge(m, floors) for m in measured)
    reached = verdict(evidence, given(case))
    return {
        "seed": seed, "architecture": architecture, "suspect": suspect, "data": data, "verdict": reached.word,
        "because": list(reached.because),
        "tests": {e.measurement.name: _test(e) for e in evidence if e.measurement.name in READ},
    }  # fmt: skip


def _test(evidence: Evidence) -> dict[str, Any]:
    m = evidence.measurement
    control, bound = m.positive_control, m.bound
    return {
        "value": None if isinstance(m.value, Missing) else round(m.value, 4),
        "p": None if isinstance(m.p, Missing) else m.p,
        "bound": [round(bound.lo, 4), round(bound.hi, 4)] if isinstance(bound, Interval) else None,
        "base_found": not isinstance(control, Missing) and control.found,
        "status": evidence.status, "items": m.n.scored, "people": m.units, "notes": list(m.notes),
    }  # fmt: skip


def counts(audits: Sequence[dict[str, Any]], data: str) -> dict[str, Any]:
    """k of n for one kind of data."""
    mine = [a for a in audits if a["data"] == data]
    clean, knowing = ([a for a in mine if (a["suspect"] in CLEAN) == is_clean] for is_clean in (True, False))
    tests = {name: [a["tests"][name] for a in mine] for name in READ}

    def of(hits: Sequence[bool]) -> list[int]:
        return [sum(hits), len(hits)]

    return {
        "base_found": {name: of([t["base_found"] for t in tests[name]]) for name in READ},
        "clean_with_a_trace": {name: of([a["tests"][name]["status"] == "trace" for a in clean]) for name in READ},
        "clean_verdict_of_a_trace": of([a["verdict"] in ("INTACT", "PARTIAL", "SUPPRESSED") for a in clean]),
        "clean_consistent": of([a["verdict"].startswith("CONSISTENT") for a in clean]),
        "knowing_consistent": of([a["verdict"].startswith("CONSISTENT") for a in knowing]),
        "knowing_verdict_of_a_trace": of([a["verdict"] in ("INTACT", "PARTIAL", "SUPPRESSED") for a in knowing]),
    }


def tables(results: dict[str, Any]) -> str:
    """The tables of the page, in Markdown: counts by kind of data, then every world and architecture."""

    def ratios(*path: str) -> str:
        by_data = [results["counts"][data] for data in SHOWN]
        for step in path:
            by_data = [count[step] for count in by_data]
        return " | ".join(f"{hits}/{n}" for hits, n in by_data)

    rows = [
        f"| base found by the answer lens | {ratios('base_found', 'lens_lift')} |",
        f"| base found by the cross-sequence probe | {ratios('base_found', 'shared_direction')} |",
        f"| clean models with a trace by the lens | {ratios('clean_with_a_trace', 'lens_lift')} |",
        f"| clean models with a trace by the probe | {ratios('clean_with_a_trace', 'shared_direction')} |",
        f"| clean models with a verdict of a trace | {ratios('clean_verdict_of_a_trace')} |",
        f"| clean models CONSISTENT WITH NEVER TRAINED | {ratios('clean_consistent')} |",
        f"| knowing models CONSISTENT WITH NEVER TRAINED | {ratios('knowing_consistent')} |",
        f"| knowing models with a verdict of a trace | {ratios('knowing_verdict_of_a_trace')} |",
    ]
    by_model: list[str] = []
    for seed in results["seeds"]:
        for architecture in ARCHITECTURES:
            audits = [a for a in results["audits"] if (a["seed"], a["architecture"]) == (seed, architecture)]
            by_model.append(_row(seed, architecture, audits))
    return "\n".join(
        ["| | before | plain | plain, every test | given |", "|---|---|---|---|---|", *rows, "",
         "| world, architecture | clean, lens | clean, probe | refusal, lens | refusal, probe | clean CONSISTENT: "
         "before, plain, every test, given |", "|---|---|---|---|---|---|", *by_model]
    )  # fmt: skip


def _row(seed: int, architecture: str, audits: Sequence[dict[str, Any]]) -> str:
    def effects(suspects: Sequence[str], test: str) -> str:
        plain = [a["tests"][test]["value"] for a in audits if a["data"] == "plain" and a["suspect"] in suspects]
        return f"{min(plain):.2f}" if len(plain) == 1 else f"{min(plain):.2f} to {max(plain):.2f}"

    clean = [counts(audits, data)["clean_consistent"] for data in SHOWN]
    cells = [effects(suspects, test) for suspects in (CLEAN, ("refusal",)) for test in READ]
    ratios = ", ".join(f"{hits}/{n}" for hits, n in clean)
    return f"| {seed}, {architecture} | {' | '.join(cells)} | {ratios} |"


def main() -> None:
    """Train, audit, count, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="where models and data lie, or will")
    folder: Path = parser.parse_args().data
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    audits: list[dict[str, Any]] = []
    for seed in SEEDS:
        world = folder / f"seed_{seed}"
        world.mkdir(parents=True, exist_ok=True)
        write_data(world, seed)
        for architecture in ARCHITECTURES:
            make(architecture, world / architecture, seed)
            for suspect in SUSPECTS:
                audits += [audit(world, seed, architecture, suspect, data) for data in DATA]
                words = ", ".join(a["verdict"] for a in audits[-len(DATA) :])
                log.info("seed %d, %s %s: %s", seed, architecture, suspect, words)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    results = {
        "stamp": stamp(SEEDS[0]).model_dump(mode="json"), "machine": "2 cores, no accelerator",
        "command": "python -m studies.plain_data.study --data DIR", "seeds": list(SEEDS),
        "cpu_s": round(spent.ru_utime + spent.ru_stime),
        "counts": {data: counts(audits, data) for data in DATA}, "audits": audits,
    }  # fmt: skip
    write_atomic(HERE / "results.json", (json.dumps(results, indent=1) + "\n").encode())
    print(tables(results))


if __name__ == "__main__":
    main()
