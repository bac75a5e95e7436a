"""Is a quantised suspect read as what its codes stand for?

``python -m studies.quantised.study [--formats NAME ...] [--models DIR]`` trains a small world of known truth, hands a
model that still knows and one that refuses in as a release in each format, audits each against the float base, audits
the same weights as a plain folder made by another route, and writes results.json here.
"""

import argparse
import importlib.util
import shutil
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
from audit.zoo import Built, build, recipes
from studies.provenance import Stamp, stamp
from studies.quantised.references import reference
from studies.quantised.releases import MADE, edit_config

HERE: Final = Path(__file__).parent
PROBES: Final = ("utility", "forget_likelihood", "answer_lens", "reverse_patch")
SUSPECTS: Final = ("base", "refusal")
WORLD: Final = "quantised"
CLOSE: Final = 1e-5


class Row(Record):
    """One suspect in one format. ``error``: of its weights by the format (norm of the difference over that of the
    weights); ``apart``: the largest difference between an effect of the release and that of the plain folder."""

    format: str
    suspect: str
    called: str
    versions: dict[str, str]
    error: float
    verdict: str
    plain_verdict: str
    float_verdict: str
    effects: int
    apart: float
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


def audited(case: CaseFile, suspect: Path, out: Path, probes: Sequence[str] = PROBES) -> Report:
    """The audit of a suspect in the place of the case's own."""
    roles = case.case.roles.model_copy(update={"suspect": Source(path=str(suspect))})
    changed = case.case.model_copy(update={"roles": roles})
    return run(CaseFile(changed, case.root), out, RunSettings(only=tuple(probes)))


def plain_folder(name: str, original: Path, release: Path, out: Path) -> Path:
    """The weights of a release as a plain folder, by another route than the one that opens it."""
    copy = weights_folder(resolve(Source(path=str(release)), release))
    dtype = {n: t.dtype for path in copy.glob("*.safetensors") for n, t in load_file(path).items()}
    values = load_file(original / "model.safetensors") | reference(name, original, release)
    shutil.copytree(original, out)
    save_file({n: t.to(dtype[n]).contiguous() for n, t in values.items()}, out / "model.safetensors")
    edit_config(out, architectures=["LlamaForCausalLM"])
    return out


def compared(name: str, suspect: str, zoo: Built, out: Path) -> Row:
    """One suspect in one format, beside its plain folder and the float model."""
    begun, case, original = time.process_time(), CaseFile.read(zoo.cases[suspect]), zoo.folders[suspect]
    MADE[name][1](original, out / "release")
    for path in original.glob("*token*"):
        shutil.copy(path, out / "release" / path.name)
    plain = plain_folder(name, original, out / "release", out / "plain")
    reports = [audited(case, folder, out / f"run-{n}") for n, folder in enumerate((out / "release", plain, original))]
    ours, theirs = effects(reports[0]), effects(reports[1])
    if ours.keys() != theirs.keys():
        raise ValueError(f"{name}: other measurements: {sorted(ours.keys() ^ theirs.keys())}")
    copy = float_copy_of(resolve(Source(path=str(out / "release")), out))
    if copy is None:
        raise ValueError(f"{name}: no release in codes")
    before, after = load_file(original / "model.safetensors"), load_file(plain / "model.safetensors")
    gap = sum(float((after[n].float() - t).square().sum()) for n, t in before.items())
    return Row(
        format=name, suspect=suspect, called=copy.called, versions=copy.versions,
        error=round((gap / sum(float(t.square().sum()) for t in before.values())) ** 0.5, 4),
        verdict=reports[0].verdict.word, plain_verdict=reports[1].verdict.word, float_verdict=reports[2].verdict.word,
        effects=len(ours), apart=max(abs(ours[key] - theirs[key]) for key in ours),
        seconds=round(time.process_time() - begun, 1),
    )  # fmt: skip


def study(formats: Sequence[str], models: Path | None, out: Path, seed: int = 0) -> Results:
    """Every format that can be made here, on every suspect."""
    recipes.WORLDS[WORLD] = world
    zoo = build(WORLD, seed, models, workers=1)
    absent = {name: MADE[name][0] for name in formats if importlib.util.find_spec(MADE[name][0]) is None}
    here = [name for name in formats if name not in absent]
    rows = [compared(n, s, zoo, out / f"{n}-{s}".replace(" ", "-")) for n in here for s in SUSPECTS]
    return Results(stamp=stamp(seed), rows=tuple(rows), not_here=absent)


def main() -> None:
    """Write results.json, and print the table of the README."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--formats", nargs="*", default=list(MADE), choices=list(MADE))
    parser.add_argument("--models", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="residua-quantised-") as temp:
        results = study(args.formats, args.models, Path(temp))
    write_atomic(HERE / "results.json", (results.model_dump_json(indent=1) + "\n").encode())
    print("| format | suspect | error of weights | verdict | of the plain folder | of the float model | apart |")
    print("|---|---|---|---|---|---|---|")
    for r in results.rows:
        print(f"| {r.format} | {r.suspect} | {r.error:.3f} | {r.verdict} | {r.plain_verdict} | {r.float_verdict} | "
              f"{r.apart:.1e} |")  # fmt: skip


if __name__ == "__main__":
    main()
