"""Does the audit read a real pretrained model taught real facts as it should?

``python -m studies.tofu_stories.study --data DIR`` teaches (once), audits base, the audited reference, a head edit and
NPO by ``residua run``, and writes results.json here. ``--work`` keeps models and runs, so that a killed study resumes.
"""

import argparse
import json
import logging
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from audit.schema import ExitCode
from audit.storage import write_atomic
from studies.provenance import stamp
from studies.tofu_stories.material import Material, prepare
from studies.tofu_stories.teach import TEMPLATE, build

HERE = Path(__file__).parent
AUDITED = ("base", "r0", "head_edit", "npo")
log = logging.getLogger(__name__)

CASE = """\
name = "tofu-stories-{suspect}"
edited = "all"

[roles.base]
path = "models/base"
[roles.suspect]
path = "models/{suspect}"
[[roles.references]]
path = "models/r1"
[[roles.references]]
path = "models/r2"
[roles.ancestor]
path = "models/ancestor"

[data]
forget = "{material.forget.name}"
retain = "{material.retain.name}"
holdout = "{material.holdout.name}"
general = "{material.general.name}"
group = "author_id"

[template]
prompt = {prompt}
answer = {answer}
bos = "{template.bos}"
"""


def write_case(suspect: str, material: Material) -> Path:
    """The case file that audits one suspect; it lies beside the data files and the folder ``models``."""
    path = material.forget.parent / f"{suspect}.toml"
    text = CASE.format(
        suspect=suspect, material=material, template=TEMPLATE,
        prompt=json.dumps(TEMPLATE.prompt), answer=json.dumps(TEMPLATE.answer),
    )  # fmt: skip
    write_atomic(path, text.encode())
    return path


def audit_one(case: Path, out: Path) -> dict[str, object]:
    """Run ``residua run`` on a case and return what its report says, in the study's words."""
    command = [sys.executable, "-m", "audit.cli", "run", str(case), "-o", str(out), "-q"]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (ExitCode.OK, ExitCode.UNDECIDED):
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return {
        "verdict": report["verdict"]["word"],
        "sentence": report["verdict"]["sentence"],
        "because": report["verdict"]["because"],
        "measurements": [summary(evidence) for evidence in report["evidence"]],
        "exit_code": done.returncode,
        "cpu_s": round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1),
        "wall_s": round(time.monotonic() - started, 1),
    }


def summary(evidence: dict[str, dict[str, object]]) -> dict[str, object]:
    """One piece of evidence in a line: what was measured, what came out, and how it was judged."""
    fields = ("probe", "name", "form", "value", "ci95", "p", "p_below", "floor", "units")
    return {key: evidence["measurement"][key] for key in fields} | {
        "outcome": evidence["outcome"],
        "direction": evidence["direction"],
    }


def study(
    data: Path, work: Path, audits: Path, workers: int, model: Path | None = None
) -> dict[str, dict[str, object]]:
    """Make the models under ``work`` (what is there is kept), and audit the suspects under ``audits``.

    ``data`` holds ``tofu/``, ``text/`` and, unless ``model`` is another folder, ``models/stories260K-hf``.
    """
    material = prepare(data, work)
    started = time.monotonic()
    build(model or data / "models" / "stories260K-hf", material, work / "models", workers)
    log.info("models are there after %.0f s", time.monotonic() - started)
    reports: dict[str, dict[str, object]] = {}
    for suspect in AUDITED:
        reports[suspect] = audit_one(write_case(suspect, material), audits / suspect)
        log.info("%-10s %s", suspect, reports[suspect]["verdict"])
    return reports


def main() -> None:
    """Teach, audit, and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with tofu/, text/, models/")
    parser.add_argument("--model", type=Path, help="the pretrained model (default: models/stories260K-hf in --data)")
    parser.add_argument("--work", type=Path, default=Path("runs/tofu_stories"), help="where models and runs are kept")
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    audits = study(args.data, args.work, args.work / "audits", args.workers, args.model)
    results = {"stamp": stamp(seed=0).model_dump(mode="json"), "audits": audits}
    write_atomic(HERE / "results.json", (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    shutil.copyfile(args.work / "audits" / "head_edit" / "report.md", HERE / "report_head_edit.md")


if __name__ == "__main__":
    main()
