"""Does REMIND's classifier read the model, or the texts? TOFU by author, beside a baseline that sees no model.

``python -m studies.remind_tofu.study --data DIR`` (``DIR`` as for studies/tofu_stories) writes results.json here, on
stories260K: AUROCs of 20 forget, 20 holdout and 40 retained authors, each of whom the classifier meets only as people
left out, the same on lengths, replacements and compression alone, and the paired difference by author; and the
statistic that needs no labels, on the audited authors.
"""

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path

import torch

from audit.bench import Bench
from audit.case import load_case, open_case
from audit.pools import MemoryStore
from audit.schema import Interval, Missing
from audit.storage import write_atomic
from probes._landscape_classifier import KINDS, Settings, described, measured
from probes.remind_landscape import RemindLandscape
from studies.provenance import stamp
from studies.tofu_stories.material import Material, prepare
from studies.tofu_stories.study import AUDITED, write_case
from studies.tofu_stories.teach import build

HERE = Path(__file__).parent
SETTINGS = Settings(many=16, nearest=15, share=0.2)
log = logging.getLogger(__name__)


def audit_suspect(suspect: str, material: Material, bench: Bench, out: Path) -> dict[str, object]:
    """One suspect: the classifier by random forest and by logistic regression, and the two calibration-free effects."""
    since = time.process_time()
    case = open_case(load_case(write_case(suspect, material)), material.forget.parent, out)
    table = described(bench, case, case.suspect, SETTINGS, part="all")
    readings: dict[str, object] = {kind: measured(case, table, kind).readings for kind in KINDS}
    for m in RemindLandscape().measure(bench, case):
        numbers = {name: getattr(m, name) for name in ("value", "p", "p_below", "floor")}
        plain = {name: x.missing if isinstance(x, Missing) else x for name, x in numbers.items()}
        ci95 = [m.ci95.lo, m.ci95.hi] if isinstance(m.ci95, Interval) else m.ci95.missing
        control = m.positive_control
        readings[m.name] = plain | {"ci95": ci95, "control_found": not isinstance(control, Missing) and control.found}
    log.info("%s: %.0f CPU-s", suspect, time.process_time() - since)
    return readings


def main() -> None:
    """Read every suspect and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tofu/, text/, models/")
    parser.add_argument("--work", type=Path, default=Path("runs/tofu_stories"), help="models of studies/tofu_stories")
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    material = prepare(args.data, args.work)
    build(args.data / "models" / "stories260K-hf", material, args.work / "models", 2)
    with tempfile.TemporaryDirectory() as scratch:
        bench = Bench(store=MemoryStore(Path(scratch)))
        suspects = {suspect: audit_suspect(suspect, material, bench, Path(scratch) / suspect) for suspect in AUDITED}
    results = {"stamp": stamp(seed=0).model_dump(mode="json"), "suspects": suspects}
    write_atomic(args.out, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())


if __name__ == "__main__":
    main()
