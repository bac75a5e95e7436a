"""How often are fine-tuned and LoRA children taken for a rank-one redirect, and how often are planted edits named?

``python -m studies.weight_difference.study`` goes through the worlds of the language pools as they lie in the cache
(nothing but LoRA children is trained) and writes results.json here, world by world. Clean pairs of each world: its
ancestor and a model taught from it, base and a model trained apart, base and what unlearners made of it, and two LoRA
children of base. Planted: one person of each cohort, holdout people among them, by either way; sizes and types of
storage are dealt in turn.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any, Final

import torch

from audit.bench import Bench, Difference
from audit.case import NamedRows, OpenCase, named_rows, open_case, subjects
from audit.checkpoints import resolve, write_edited
from audit.pools import case_of, write_data
from audit.probing import WeightEdit, weight_edit
from audit.schema import Checkpoint, Source
from audit.stats import clopper_pearson
from audit.storage import cache_root, write_atomic
from audit.zoo import builder, draw, make_world, population
from probes._edited import REDIRECT, RankOneEdit, rank_one_edit
from studies.provenance import stamp
from studies.weight_difference.plants import Lora, Plant, linear_names, lora_child, people, planted

HERE = Path(__file__).parent
WORLDS: Final = range(100, 160)
TRAINED_APART: Final = "reference_0"
ATTENTION: Final = ("q_proj", "v_proj", "c_attn")
VALUES: Final = ("down_proj", "mlp.c_proj")
EVERYTHING: Final = (*ATTENTION, *VALUES, "k_proj", "o_proj", "gate_proj", "up_proj", "c_fc", "attn.c_proj")
RANKS: Final = (1, 4, 8)
SIZES: Final = ((1.0, torch.float32), (1.0, torch.bfloat16), (0.1, torch.bfloat16), (0.01, torch.bfloat16))
UNLEARNED: Final = ("npo", "grad_diff", "refusal", "rmu", "grad_ascent", "simnpo", "last_layer", "task_vector", "ssd")


class World:
    """A world's case with base as the suspect, and the rows that name its people."""

    def __init__(self, number: int, work: Path) -> None:
        drawn = draw(number)
        zoo, root = population(drawn).zoo, cache_root() / "zoo"
        folders = {plan.name: builder.folder_of(zoo, number, root, plan.name) for plan in zoo.plans}
        self.folders = {name: folder for name, folder in folders.items() if (folder / "model.safetensors").is_file()}
        write_data(make_world(number, drawn.shape), work / "data")
        self.work, self.number, self.bench = work, number, Bench()
        self.case = open_case(case_of("base", number, folders, work), work, work / "out")
        self.groups = subjects(self.case.cohorts)
        items = [item for group in self.groups for item in group.items]
        names = [group.name for group in self.groups for _ in group.items]
        rows = self.case.rows_of(items, [item.answer for item in items])
        self.rows: NamedRows = named_rows(rows, names, self.case.tokenizer)

    def model(self, name: str) -> Checkpoint:
        """A model of this world."""
        return resolve(Source(path=str(self.folders[name])), self.work)

    def edited(self, tensors: dict[str, torch.Tensor]) -> Checkpoint:
        """Base with other tensors in the place of some of its own."""
        out = Path(tempfile.mkdtemp(dir=self.work)) / "edited"
        return write_edited(out, self.case.base, "planted", {}, "weights", tensors)

    def read(self, base: Checkpoint, suspect: Checkpoint) -> tuple[WeightEdit, RankOneEdit]:
        """The scanner's reading of two models."""
        case: OpenCase = copy(self.case)
        case.base, case.suspect = base, suspect
        pairs = self.bench.weight_differences(base, suspect)
        edit = weight_edit([pair for pair in pairs if isinstance(pair, Difference)])
        return edit, rank_one_edit(self.bench, case, edit)


# ---- one world --------------------------------------------------------------------------------------------------
def clean(world: World) -> Iterator[tuple[str, WeightEdit, RankOneEdit]]:
    """Every clean pair of a world: its kind, and what the scanner says."""
    base = world.case.base
    yield "taught", *world.read(world.model("ancestor"), base)
    yield "trained apart", *world.read(base, world.model(TRAINED_APART))
    for name in UNLEARNED:
        if name in world.folders:
            yield f"unlearned: {name}", *world.read(base, world.model(name))
    model: Any = getattr(world.bench.open(base), "model", None)
    rank, wide = RANKS[world.number % 3], (ATTENTION, EVERYTHING)[world.number % 2]
    plain = Lora(rank, linear_names(model, wide))
    narrow = Lora(1, linear_names(model, VALUES))
    for kind, lora in ((f"LoRA of {'all matrices' if wide == EVERYTHING else 'attention'}", plain),
                       ("LoRA of rank 1 of value vectors", narrow)):  # fmt: skip
        yield kind, *world.read(base, world.edited(lora_child(world.bench, world.case, lora, world.number)))


def plants(world: World) -> Iterator[dict[str, Any]]:
    """Every planted edit of a world and what the scanner says of it."""
    labels = [(group.cohort, group.group) for group in world.groups]
    cohort_of = {group: cohort for cohort, group in labels}
    for n, (group, other) in enumerate(people(world.case, labels, world.number)):
        for way, blocks in (("rocr", (0, 1)), ("rome", (1,))):
            size, stored = SIZES[(world.number + n) % len(SIZES)]
            plant = Plant(way, group, other, blocks, size)  # pyright: ignore[reportArgumentType]
            tensors = planted(world.bench, world.case, world.rows, plant)
            suspect = world.edited({name: x.to(stored) for name, x in tensors.items()})
            edit, about = world.read(world.case.base, suspect)
            yield {
                "way": way, "cohort": cohort_of[group], "size": size, "stored": str(stored).removeprefix("torch."),
                "rank_one": edit.kind() == "rank-one", "kind": edit.kind(), "redirect": about.finding == REDIRECT,
                "named": about.group == group, "wrong": about.group not in ("", group), "first": about.first == group,
                "change": max((d.moved_sq / d.base_sq) ** 0.5 for d, _ in edit.changed) if edit.changed else 0.0,
            }  # fmt: skip


# ---- counts -----------------------------------------------------------------------------------------------------
def counted(hits: int, n: int) -> dict[str, float]:
    """k of n, with the exact 95 % interval."""
    ends = clopper_pearson(hits, n)
    return {"k": hits, "n": n, "lo": round(ends.lo, 4), "hi": round(ends.hi, 4)}


def summary(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Counts over worlds."""
    pairs = [pair for record in records for pair in record["clean"]]
    kinds = sorted({pair["pair"] for pair in pairs})
    every = [
        {"pair": kind, "kinds": dict(Counter(p["kind"] for p in pairs if p["pair"] == kind))}
        | {"redirect": counted(*_of([p for p in pairs if p["pair"] == kind], "redirect"))}
        | {"subject": counted(*_of([p for p in pairs if p["pair"] == kind], "subject"))}
        for kind in kinds
    ]
    edits_by_size: list[dict[str, Any]] = []
    edits = [edit for record in records for edit in record["plants"]]
    for key in sorted({(e["way"], e["size"], e["stored"]) for e in edits}, key=str):
        mine = [e for e in edits if (e["way"], e["size"], e["stored"]) == key]
        edits_by_size.append(
            dict(zip(("way", "size", "stored"), key, strict=True))
            | {"change_median": sorted(e["change"] for e in mine)[len(mine) // 2]}
            | {name: counted(*_of(mine, name)) for name in ("rank_one", "first", "named", "wrong", "redirect")}
        )
    held_out = [e for e in edits if e["cohort"] == "holdout"]
    lora = [p for p in pairs if p["pair"].startswith("LoRA")]
    full = [p for p in pairs if not p["pair"].startswith("LoRA")]
    return {
        "clean": {"all": counted(*_of(pairs, "redirect")), "full": counted(*_of(full, "redirect")),
                  "lora": counted(*_of(lora, "redirect")), "subject_told": counted(*_of(pairs, "subject")),
                  "worlds_with_a_false_redirect": counted(
                      sum(any(p["redirect"] for p in r["clean"]) for r in records), len(records))},
        "by_pair": every, "planted": edits_by_size,
        "held_out_people": {way: {name: counted(*_of([e for e in held_out if e["way"] == way], name))
                                  for name in ("rank_one", "first", "named", "wrong")} for way in ("rocr", "rome")},
    }  # fmt: skip


def _of(rows: list[dict[str, Any]], name: str) -> tuple[int, int]:
    return sum(bool(row[name]) for row in rows), len(rows)


def main() -> None:
    """Go through the worlds, and write after each."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=HERE / "results.json")
    parser.add_argument("--worlds", type=int, nargs="*", default=list(WORLDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    provenance, started, records = stamp(0).model_dump(mode="json"), time.process_time(), list[dict[str, Any]]()
    for number in args.worlds:
        with tempfile.TemporaryDirectory(prefix="residua-weights-") as folder:
            world = World(number, Path(folder))
            pairs = [
                {"pair": kind, "kind": edit.kind(), "redirect": about.finding == REDIRECT, "subject": bool(about.group)}
                for kind, edit, about in clean(world)
            ]
            records.append({"world": number, "clean": pairs, "plants": list(plants(world))})
        cpu_s = round(time.process_time() - started, 1)
        results = {
            **provenance,
            "cpu_s": cpu_s,
            "worlds": len(records),
            "summary": summary(records),
            "records": records,
        }
        write_atomic(args.out, (json.dumps(results, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
