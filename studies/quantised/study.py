"""Is a quantised suspect read as what its codes stand for?

``python -m studies.quantised.study [--formats NAME ...] [--suspects NAME ...]`` trains a small world of known truth,
hands a model that still knows and one that refuses in as a release in each format, audits each against the float base,
audits the same weights as a plain folder made by another route, and writes results.json and the table of the page here.
"""

import argparse
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from safetensors.torch import load_file, save_file

from audit.case import CaseFile
from audit.checkpoints import float_copy_of, resolve, weights_folder
from audit.engine import run
from audit.planning import RunSettings
from audit.schema import Missing, Record, Report, Source
from audit.storage import write_atomic
from audit.zoo import build, recipes
from studies.pages import with_section
from studies.provenance import Stamp, stamp
from studies.quantised.references import reference
from studies.quantised.releases import MADE, edit_config

HERE: Final = Path(__file__).parent
PROBES: Final = ("utility", "forget_likelihood", "answer_lens", "reverse_patch")
SUSPECTS: Final = ("base", "refusal")
WORLD: Final = "quantised"
PACKAGE: Final = "probes_of_quantised"
MARKS: Final = "<!-- table: made by studies.quantised.study -->", "<!-- end of table -->"


class Row(Record):
    """One suspect in one format. ``error``: of its weights by the format (norm of the difference over that of the
    weights); ``difference``: the largest difference between an effect of the release and that of the plain folder."""

    format: str
    suspect: str
    called: str
    versions: dict[str, str]
    error: float
    verdict: str
    plain_verdict: str
    float_verdict: str
    effects: int
    difference: float
    seconds: float


class Results(Record):
    """All rows, and where they come from."""

    stamp: Stamp
    rows: tuple[Row, ...]
    not_here: dict[str, str] = {}


def world() -> recipes.Zoo:
    """The tiny zoo with sides that suit packed codes, and what is needed for a verdict."""
    tiny = recipes.tiny()
    shape = tiny.shape._replace(forget=20, retain=20, holdout=16)
    needed = ("ancestor", "base", "reference_1", "reference_2", "refusal")
    plans = tuple(plan for plan in tiny.plans if plan.name in needed)
    return tiny._replace(shape=shape, sizes=recipes.Sizes(d=64, blocks=2, heads=4, ffn=128), plans=plans,
                         suspects=SUSPECTS)  # fmt: skip


def effects(report: Report) -> dict[tuple[str, str], float]:
    """The number of every measurement that gave one."""
    every = (e.measurement for e in report.evidence)
    return {(m.probe, m.name): float(m.value) for m in every if not isinstance(m.value, Missing)}


def probe_package(out: Path) -> None:
    """An importable package of the quick probes alone, made in ``out``."""
    package = out / PACKAGE
    if not package.exists():
        package.mkdir(parents=True)
        (package / "__init__.py").write_text('"""Some of the probes."""\n', encoding="utf-8")
        for probe in PROBES:
            shutil.copy(HERE.parents[1] / "probes" / f"{probe}.py", package)
        sys.path.insert(0, str(out))


def audited(case: CaseFile, suspect: Path, out: Path) -> Report:
    """The audit of a suspect in the place of the case's own; what is read of the other roles is kept between audits."""
    roles = case.case.roles.model_copy(update={"suspect": Source(path=str(suspect))})
    changed = case.case.model_copy(update={"roles": roles})
    return run(CaseFile(changed, case.root), out, RunSettings(package=PACKAGE, store=out.parent / "store"))


def plain_folder(name: str, original: Path, release: Path, out: Path) -> Path:
    """The weights of a release as a plain folder, by another route than the one that opens it."""
    copy = weights_folder(resolve(Source(path=str(release)), release))
    dtype = {n: t.dtype for path in copy.glob("*.safetensors") for n, t in load_file(path).items()}
    values = load_file(original / "model.safetensors") | reference(name, original, release)
    shutil.copytree(original, out)
    save_file({n: t.to(dtype[n]).contiguous() for n, t in values.items()}, out / "model.safetensors")
    edit_config(out, architectures=["LlamaForCausalLM"])
    return out


def compared(name: str, case: CaseFile, original: Path, out: Path) -> Row:
    """One suspect in one format, beside its plain folder and the float model; ``out`` holds all audits of a study."""
    begun = time.process_time()
    at = f"{case.case.name}-{name}".replace(" ", "-")
    release = out / f"{at}-release"
    MADE[name][1](original, release)
    for path in original.glob("*token*"):
        shutil.copy(path, release / path.name)
    plain = plain_folder(name, original, release, out / f"{at}-plain")
    folders = {f"{at}-run": release, f"{at}-plain-run": plain, f"{case.case.name}-run": original}
    reports = [audited(case, folder, out / run_folder) for run_folder, folder in folders.items()]
    ours, theirs = effects(reports[0]), effects(reports[1])
    if ours.keys() != theirs.keys():
        raise ValueError(f"{name}: other measurements: {sorted(ours.keys() ^ theirs.keys())}")
    copy = float_copy_of(resolve(Source(path=str(release)), out))
    if copy is None:
        raise ValueError(f"{name}: no release in codes")
    before, after = load_file(original / "model.safetensors"), load_file(plain / "model.safetensors")
    gap = sum(float((after[n].float() - t).square().sum()) for n, t in before.items())
    return Row(
        format=name, suspect=case.case.name, called=copy.called, versions=copy.versions,
        error=round((gap / sum(float(t.square().sum()) for t in before.values())) ** 0.5, 4),
        verdict=reports[0].verdict.word, plain_verdict=reports[1].verdict.word, float_verdict=reports[2].verdict.word,
        effects=len(ours), difference=max(abs(ours[key] - theirs[key]) for key in ours),
        seconds=round(time.process_time() - begun, 1),
    )  # fmt: skip


def study(formats: Sequence[str], suspects: Sequence[str], models: Path | None, out: Path, seed: int = 0) -> list[Row]:
    """Every format that can be made here, on every suspect; results.json is written after each format."""
    recipes.WORLDS[WORLD] = world
    zoo = build(WORLD, seed, models, workers=1)
    absent = {name: MADE[name][0] for name in formats if importlib.util.find_spec(MADE[name][0]) is None}
    available = [name for name in formats if name not in absent]
    probe_package(out)
    stamped, rows = stamp(seed), list[Row]()
    for name in available:
        rows += [compared(name, CaseFile.read(zoo.cases[s]), zoo.models[s], out) for s in suspects]
        results = Results(stamp=stamped, rows=tuple(rows), not_here=absent)
        write_atomic(HERE / "results.json", (results.model_dump_json(indent=1) + "\n").encode())
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as the page shows them."""
    columns = (
        "format | suspect | package | error | effects | difference | verdict of release, plain folder, float model"
    )
    lines = [MARKS[0], f"| {columns} | CPU-s |", "|---|---|---|---|---|---|---|---|"]
    for r in rows:
        by = ", ".join(f"{package} {version}" for package, version in r.versions.items() if package != "torch")
        verdicts = ", ".join((r.verdict, r.plain_verdict, r.float_verdict))
        numbers = f"{r.error:.3f} | {r.effects} | {r.difference:.1e}"
        lines.append(f"| {r.format} | {r.suspect} | {by or 'here'} | {numbers} | {verdicts} | {r.seconds:.0f} |")
    return "\n".join([*lines, MARKS[1]])


def main() -> None:
    """Write results.json and the table of the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="*", default=list(MADE), choices=list(MADE))
    parser.add_argument("--suspects", nargs="*", default=list(SUSPECTS), choices=list(SUSPECTS))
    parser.add_argument("--models", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="residua-quantised-") as temp:
        rows = study(args.formats, args.suspects, args.models, Path(temp))
    page = HERE / "README.md"
    page.write_text(with_section(page.read_text(encoding="utf-8"), table(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
