"""Which measures of unlearning can be trusted, and do they keep what was published of them?

``python -m studies.faithfulness.study`` reads the committed scores of the pools' worlds, attacks the models of three
full-kit worlds (those that have scores), and writes results.json, figure.svg and the table in README.md here.
``--parts scores`` takes seconds and needs no model; ``--parts attacks`` is resumed world by world. A part that is made
again replaces its own numbers, and the table is written from what is there.
"""

import argparse
import json
import logging
import resource
from collections.abc import Sequence
from pathlib import Path

from audit.calibration import read_pool, world_path
from audit.schema import AuditError, ExitCode
from audit.storage import cache_root, write_atomic
from audit.zoo import design
from studies.faithfulness import faith
from studies.faithfulness.contrasts import table
from studies.faithfulness.figure import figure
from studies.faithfulness.people import people_part
from studies.faithfulness.readings import AttackedWorld, read_all
from studies.faithfulness.robustness import robust_part
from studies.faithfulness.tables import markdown
from studies.provenance import stamp

HERE = Path(__file__).parent
SCORES = HERE.parent / "zoo" / "scores"
PARTS = ("scores", "attacks")
FULL_WORLDS = 3
COMMAND = "python -m studies.faithfulness.study --parts {}"
BEGIN, END = "<!-- the table is written by the study -->", "<!-- end of the table -->"


def cpu_s() -> float:
    """CPU-seconds of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def full_worlds(scores: Path, most: int) -> list[int]:
    """The first full-kit worlds that have scores: their models are there."""
    return [w for w, share in design().items() if share.full and world_path(scores, w).is_file()][:most]


def results_of(path: Path) -> dict[str, object]:
    """The results so far."""
    return json.loads(path.read_bytes()) if path.is_file() else {}


def scores_part(scores: Path) -> dict[str, object]:
    """Faithfulness, from the scores alone. AuditError (code 2) where there are none."""
    worlds, since = read_pool(scores), cpu_s()
    if not worlds:
        raise AuditError(f"there are no scores in {scores.name}", "make them with python -m audit.pools.schedule")
    faithfulness = faith.scores_part(table(worlds), [w.world for w in worlds])
    return {
        "command": COMMAND.format("scores"),
        "stamp": stamp(faith.SEED).model_dump(mode="json"),
        "cpu_s": round(cpu_s() - since, 1),
        "pools_cpu_s": round(sum(sum(_stages(w.stages_cpu_s)) for w in worlds), 1),
        **faithfulness,
    }


def _stages(cpu_s: dict[str, float]) -> list[float]:
    return [seconds for stage, seconds in cpu_s.items() if "." not in stage]


def attacks_part(attacked: Sequence[AttackedWorld], scored: dict[str, object]) -> dict[str, object]:
    """Robustness and mistakes by person, from the readings and the cuts and areas of the scores part."""
    contrast = scored["contrasts"]["published"]["metrics"]  # type: ignore[index]
    faithful = {key: row["auc"] for key, row in contrast.items()}
    cuts: dict[str, float] = scored["cuts"]  # type: ignore[assignment]
    return {
        "command": COMMAND.format("attacks"),
        "stamp": stamp(faith.SEED).model_dump(mode="json"),
        "cpu_s": {str(w.world): w.cpu_s for w in attacked},
        "robustness": robust_part(attacked, cuts, faithful),
        "people": people_part(attacked),
    }


def attack(worlds: Sequence[int], out: Path, work: Path) -> None:
    """Attack these worlds' models, one file a world; what is finished is left as it is."""
    from audit.zoo import draw
    from studies.faithfulness.attacks import Places, attack_world

    for world in worlds:
        attack_world(draw(world), Places(cache_root().resolve() / "zoo", work.resolve(), out.resolve()))
        print(f"world {world}: attacked")


def render(out: Path, results: dict[str, object]) -> None:
    """Write the figure, and the table between the marks of README.md where there is one."""
    write_atomic(out / "figure.svg", figure(results).encode())
    readme = out / "README.md"
    if readme.is_file():
        before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        write_atomic(readme, f"{before}{BEGIN}\n\n{markdown(results)}\n\n{END}{after}".encode())


def main() -> int:
    """Make the parts that are asked for and write everything that shows them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scores", type=Path, default=SCORES, help="folder of the scores of the pools' worlds")
    parser.add_argument("--worlds", type=int, nargs="+", help="full-kit worlds to attack (default: the first three)")
    parser.add_argument("--work", type=Path, default=Path("runs/faithfulness"), help="where unfinished audits are kept")
    parser.add_argument("--out", type=Path, default=HERE, help="where results, figure and table go")
    args = parser.parse_args()
    for name in ("audit", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    path, attacked = args.out / "results.json", args.out / "attacked"
    try:
        results = results_of(path)
        scored = scores_part(args.scores) if "scores" in args.parts else results.get("scores")
        if "attacks" in args.parts:
            attack(args.worlds or full_worlds(args.scores, FULL_WORLDS), attacked, args.work)
        if not isinstance(scored, dict):
            raise AuditError("the cuts of the metrics are not there", "make the scores part first, or both")
        results["scores"] = scored
        # What attacks say is read against the cuts, so that it is told anew whenever these are.
        if attacked.is_dir():
            results["attacks"] = attacks_part(read_all(attacked), scored)
    except AuditError as error:
        print(f"{error.what}; {error.do}")
        return error.code
    write_atomic(path, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    render(args.out, results)
    return ExitCode.OK


if __name__ == "__main__":
    raise SystemExit(main())
