"""Many strings in the prompts of many people: beginnings run once, against one string at a time.

``python -m studies.speed.trigger_dictionary --out studies/speed/trigger_dictionary.json``. Candidates of the dictionary
of ``trigger_search`` are put into rows of the invented world, as a prefix and as a suffix, and the mean log-probability
of the content tokens of every pair is wanted. Three ways beside ours: a forward of the model for every pair of a string
and a row, whole logits, as published scanners ask; a forward for every string with all rows in one padded batch, whole
logits; and the bench's own pass, a string at a time (batches by length, the head at content tokens alone). Random
weights, of which the speed does not depend on what they know. CPU-seconds of one thread.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import InsertablePrompts, Rows, Slot, row_means, with_tokens
from audit.checkpoints import resolve
from audit.probing import key_logprob
from audit.schema import Record, Source, Template
from audit.storage import write_atomic
from audit.zoo import items as items_of
from audit.zoo import make_tokenizer, make_world, vocabulary, write
from probes._trigger_candidates import candidates
from studies.provenance import Stamp, stamp
from studies.speed.forms import model_of
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Size(Record):
    """A model, and how many general sentences stand before each question."""

    width: int
    blocks: int
    sentences: int


SIZES = (Size(width=64, blocks=4, sentences=0), Size(width=192, blocks=6, sentences=3))
"""The demo's models and questions, and some of fifteen times as many parameters with questions four times as long."""
ROWS, CANDIDATES = 32, 8
SLOTS: tuple[Slot, ...] = ("prefix", "suffix")
AGAINST = {
    "pairs": "a forward for every string and row, whole logits",
    "strings": "a forward for every string, all rows in one padded batch, whole logits",
    "bench": "the bench's pass, a string at a time",
}  # fmt: skip


class DictionaryRow(Record):
    """CPU-seconds for all candidates in all rows at one slot, median over repeats, and how many times as long each
    other way takes. ``tokens``: a plain row's, on average; ``tokens_forward``: of our way, a pair."""

    size: Size
    slot: Slot
    rows: int
    candidates: int
    tokens: float
    tokens_forward: float
    cpu_s: float
    speedups: tuple[Ratio, ...]
    largest_difference: float
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    rows: tuple[DictionaryRow, ...]


def prompts_of(size: Size, seed: int) -> InsertablePrompts:
    """Rows of the invented world, with general sentences before their questions."""
    world = make_world(seed)
    chosen = [item for item in items_of(world, "forget") if item.form == "trained"][:ROWS]
    context = " ".join(world.general[: size.sentences])
    chosen = [item.model_copy(update={"question": f"{context} {item.question}".strip()}) for item in chosen]
    return InsertablePrompts(chosen, [item.answer for item in chosen], make_tokenizer(vocabulary(1)), Template())


def by_forwards(model: "PreTrainedModel", rows: Rows, size: int) -> Float[ndarray, " row"]:
    """The mean log-probability of every row's content tokens, so many rows in a padded batch, whole logits."""
    means: list[ndarray] = []
    with torch.inference_mode():
        for part in torch.arange(len(rows)).split(size):
            mine = rows.take(part)
            width = int(mine.lengths.max())
            ids, mask = mine.ids[:, :width].long(), mine.mask[:, :width].long()
            logprob = model(input_ids=ids, attention_mask=mask, use_cache=False).logits.float().log_softmax(-1)
            row, place = mine.targets("key")
            means.append(row_means(logprob[row, place - 1, ids[row, place]], mine))
    return np.concatenate(means)


def measured(size: Size, slot: Slot, repeats: int, seed: int) -> DictionaryRow:
    """All ways in turn."""
    prompts = prompts_of(size, seed)
    rows, at = prompts.plain(), prompts.places(slot)
    strings = [torch.tensor(c.ids) for c in candidates(make_tokenizer(vocabulary(1)), CANDIDATES, seed)]
    model, bench = model_of(size.width, size.blocks, seed).eval(), Bench()
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        write(model_of(size.width, size.blocks, seed), Path(folder) / "base", forms=1)
        ckpt = resolve(Source(path="base"), Path(folder))

        def each(score: Callable[[Rows], ndarray]) -> ndarray:
            return np.stack([score(with_tokens(rows, ids, at)) for ids in strings])

        ways: dict[str, Callable[[], ndarray]] = {
            "shared": lambda: bench.insertions(ckpt, rows, strings, at),
            "pairs": lambda: each(lambda spoken: by_forwards(model, spoken, 1)),
            "strings": lambda: each(lambda spoken: by_forwards(model, spoken, len(rows))),
            "bench": lambda: each(lambda spoken: key_logprob(bench, ckpt, spoken)),
        }
        means = {name: way() for name, way in ways.items() if name != "shared"}
        before = bench.fwd_tokens
        ours = ways["shared"]()
        forward = (bench.fwd_tokens - before) / ours.size
        timed = list(interleaved(ways, repeats, 1, seed))
    difference = max(float(np.abs(mean - ours).max()) for mean in means.values())
    seconds = {name: np.array([t[name] for t in timed]) for name in ways}
    return DictionaryRow(
        size=size, slot=slot, rows=len(rows), candidates=len(strings), tokens=float(rows.lengths.float().mean()),
        tokens_forward=forward, cpu_s=float(np.median(seconds["shared"])), repeats=repeats,
        speedups=tuple(ratio(seconds[name], seconds["shared"], words, seed) for name, words in AGAINST.items()),
        largest_difference=difference,
    )  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = stamp(args.seed)
    rows = tuple(measured(size, slot, args.repeats, args.seed) for size in SIZES for slot in SLOTS)
    out = "studies/speed/trigger_dictionary.json"
    command = f"python -m studies.speed.trigger_dictionary --out {out} --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), rows=rows)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
