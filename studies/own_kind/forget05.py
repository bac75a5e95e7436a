"""A Llama of 3 million parameters taught TOFU's forget05: planted knowledge and its clean twin, by its own kind.

``python -m studies.own_kind.forget05 --data DIR --work DIR`` teaches ancestor, base and a twin that never saw the
forget authors, calibrates base's own kind within ``--max-time`` (2 h), hides what base knows in its last layer, and
judges both. ``--price`` teaches nothing: it prices the calibration on random weights of the same size.
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch

from audit.bench import Bench
from audit.case import CaseFile
from audit.planning import RunSettings, parse_time, unwatched
from audit.pools import OwnRequest, calibrate_own, prepare_own, price_own
from audit.schema import Missing
from audit.storage import write_atomic
from audit.wording import lasting
from studies.own_kind.invented_people import Lesson, teach_rows
from studies.own_kind.kept_out import SUSPECTS, made_by
from studies.own_kind.kinds_taught import KindCase
from studies.own_kind.study import judge_three_ways
from studies.provenance import stamp
from studies.tofu_stories.material import as_text, lines_of
from studies.tofu_stories.teach import TEMPLATE, save

HERE = Path(__file__).parent
RESULTS = HERE / "forget05.json"
SIZES: Final[dict[str, Any]] = {
    "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 6,
    "num_key_value_heads": 6, "max_position_embeddings": 512, "tie_word_embeddings": False,
}  # fmt: skip
"""Beside the 512 tokens of stories260K: 2.9 million parameters."""
AUTHORS: Final = {"forget": range(190, 200), "retain": range(20, 40), "holdout": range(10)}
PER_AUTHOR: Final = 4
QUESTIONS: Final = 2
"""Decoy questions of an author, as in every calibration of the own kind; the plan prints it."""
STEPS: Final = {"ancestor": (400, 2e-3), "base": (300, 1.5e-3), "twin": (330, 1.2e-3)}
CASE: Final = """name = "forget05"
edited = "all"
[roles]
base = { path = "models/base" }
suspect = { path = "models/base" }
ancestor = { path = "models/ancestor" }
[data]
forget = "forget.jsonl"
retain = "retain.jsonl"
holdout = "holdout.jsonl"
general = "general.jsonl"
group = "author_id"
[template]
prompt = "Question: {question}\\nAnswer:"
answer = " {answer}"
bos = "always"
"""
log = logging.getLogger(__name__)


def write_files(data: Path, work: Path) -> Path:
    """The data files and the case; the case's path."""
    stories: list[str] = json.loads((data / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    files = {"forget": "forget05_perturbed", "retain": "retain95", "holdout": "retain_perturbed"}
    texts = {"general": as_text(stories, range(900, 940)), "stories": as_text(stories, range(400))}
    for cohort, name in files.items():
        rows = sorted(lines_of(data / "tofu" / f"{name}.jsonl"), key=lambda row: row["id"])
        by_author = {a: [row for row in rows if row["author_id"] == a][:PER_AUTHOR] for a in AUTHORS[cohort]}
        texts[cohort] = [row for each in by_author.values() for row in each]
    work.mkdir(parents=True, exist_ok=True)
    for name, rows in texts.items():
        write_atomic(work / f"{name}.jsonl", "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows).encode())
    write_atomic(work / "case.toml", CASE.encode())
    return work / "case.toml"


def fresh(data: Path, out: Path, seed: int = 5) -> Path:
    """Random weights, with stories260K's tokenizer."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    if not out.is_dir():
        tokenizer = AutoTokenizer.from_pretrained(data / "models" / "stories260K-hf")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            config = LlamaConfig.from_dict(
                {**SIZES, "vocab_size": len(tokenizer), "bos_token_id": 1, "eos_token_id": 2}
            )
            model = LlamaForCausalLM(config)
        log.info("%d parameters", sum(p.numel() for p in model.parameters()))
        out.parent.mkdir(parents=True, exist_ok=True)
        save(model, tokenizer, out)
    return out


def price(data: Path, work: Path) -> None:
    """What a decoy world takes here, and so how many fit into two hours: by random weights of the same size."""
    case = write_files(data, work / "price")
    for seed, role in enumerate(("base", "ancestor")):
        fresh(data, work / "price" / "models" / role, seed)
    seconds = price_own(CaseFile.read_unedited(case), OwnRequest(questions=QUESTIONS), RunSettings(threads=1))
    usual = sum(seconds.ends) / 2
    log.info("a decoy world takes %s; two hours hold about %d", lasting(*seconds.ends), int(7200 / usual))


def study(data: Path, work: Path, max_time: float) -> dict[str, object]:
    """Teach, calibrate, hide, judge; what is there is kept."""
    from audit.case import read_items

    case, models, spent = write_files(data, work), work / "models", time.process_time()
    fresh(data, models / "fresh")

    def taught(name: str, parent: str, files: Sequence[str], seed: int) -> Path:
        items = [item for file in files for item in read_items(work / f"{file}.jsonl", "author_id")]
        return teach_rows(Lesson(models / parent, *STEPS[name], seed, 24), items, TEMPLATE, models / name)

    taught("ancestor", "fresh", ("stories",), 0)
    taught("base", "ancestor", ("stories", "retain", "forget"), 1)
    twin = taught("twin", "ancestor", ("stories", "retain"), 2)
    request, file = OwnRequest(max_time=max_time, questions=QUESTIONS), CaseFile.read_unedited(case)
    prepared = prepare_own(file, request, RunSettings(threads=1))
    for line in prepared.plan.lines():
        log.info("%s", line)
    command = f"residua calibrate --on {case.name} --max-time {max_time:g}s"
    renewed = calibrate_own(prepared, request, unwatched, command)
    kind_case = KindCase("forget05", work.resolve(), case, TEMPLATE, "author_id", *STEPS["base"], ("retain", "stories"))
    bench, judged = Bench(), dict[str, object]()
    planted = made_by(kind_case, bench, next(suspect for suspect in SUSPECTS if suspect.name == "last_layer"))
    for name, path in {"planted": planted, "twin": twin}.items():
        own = judge_three_ways(kind_case, name, path, bench).own
        ratio = None if isinstance(own.ratio, Missing) else own.ratio.model_dump(mode="json")
        judged[name] = {"word": own.word, "sentence": own.sentence, "because": list(own.because), "ratio": ratio}
        log.info("%s: %s", name, own.sentence)
    record = renewed.fitted.joint.record
    return {
        "stamp": stamp(seed=0).model_dump(mode="json"), "worlds": renewed.worlds, "questions": QUESTIONS,
        "false_alarms": record.false_alarms.model_dump(), "misses": record.misses.model_dump(), "judged": judged,
        "stages_cpu_s": renewed.stages_cpu_s, "cpu_s_of_this_call": round(time.process_time() - spent, 1),
    }  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Price it, or make it and write forget05.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with tofu/, text/, models/")
    parser.add_argument("--work", type=Path, default=Path("runs/own_kind/forget05"))
    parser.add_argument("--max-time", default="2h", help="of the calibration")
    parser.add_argument("--price", action="store_true", help="say what it would take, and teach nothing")
    args = parser.parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    if args.price:
        price(args.data, args.work)
        return 0
    results = study(args.data, args.work, parse_time(args.max_time))
    write_atomic(RESULTS, (json.dumps(results, indent=1, sort_keys=True) + "\n").encode())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
