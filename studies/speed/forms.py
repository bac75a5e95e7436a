"""The same facts in all their forms: in one packed pass, against one prompt at a time.

``python -m studies.speed.forms --out studies/speed/forms.json``. Both score the rows of the ``form_dependence`` probe
on a world that teaches other forms (options of choices in every turn, each as the answer). One reads every input once,
sorted by length in batches of a token budget; the other asks prompt after prompt and reads token after token off the
whole vocabulary, as the published code does. Random weights, of which the speed does not depend on what they know.
CPU-seconds of one thread.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy import ndarray

from audit.bench import Bench
from audit.case import OpenCase, open_case
from audit.schema import Case, DataFiles, Record, Roles, Source
from audit.storage import write_atomic
from audit.zoo import Shape, form_items, items, make_tokenizer, make_world, vocabulary, write, write_jsonl
from probes._forms import FormSheet, gathered, sheet_of
from probes._packed import packed_logprob
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

if TYPE_CHECKING:
    from transformers import PreTrainedModel

WIDTHS, BLOCKS = (64, 192), (4, 6)
"""The demo's models, and some of fifteen times as many parameters."""
PEOPLE, FACTS, CHOICES = 16, 64, 32


class FormsRow(Record):
    """CPU-seconds for all rows of all forms of ``facts`` facts, median over repeats: packed, and one at a time."""

    width: int
    blocks: int
    facts: int
    forms: int
    rows: int
    tokens: int
    packed_cpu_s: float
    single_cpu_s: float
    speedup: Ratio
    largest_difference: float
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    rows: tuple[FormsRow, ...]


def model_of(width: int, blocks: int, seed: int) -> "PreTrainedModel":
    """A Llama of random weights with the vocabulary of such worlds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=len(make_tokenizer(vocabulary(1))), hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=blocks, num_attention_heads=width // 16, num_key_value_heads=width // 16,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=3,
    ))  # fmt: skip


def case_of(folder: Path, width: int, blocks: int, seed: int) -> OpenCase:
    """A case of two models of random weights on a world that teaches other forms."""
    world = make_world(seed, Shape(forget=PEOPLE, retain=4, holdout=4, background=4, general=20, forms=1))
    for n, name in enumerate(("base", "suspect")):
        write(model_of(width, blocks, seed + n), folder / name, forms=1)
    for cohort in ("forget", "retain"):
        write_jsonl(folder / f"{cohort}.jsonl", items(world, cohort))
    write_jsonl(folder / "forms.jsonl", form_items(world, world.people["forget"]))
    files = DataFiles(forget="forget.jsonl", retain="retain.jsonl", forms="forms.jsonl")
    roles = Roles(base=Source(path="base"), suspect=Source(path="suspect"))
    return open_case(Case(name="forms", roles=roles, data=files), folder, folder / "out")


def one_by_one(model: "PreTrainedModel", sheet: FormSheet) -> Float[ndarray, " row"]:
    """The mean log-probability (nats) of every row's content tokens, a row at a time, a token at a time."""
    means: list[float] = []
    with torch.inference_mode():
        for n, length in enumerate(sheet.rows.lengths.tolist()):
            ids = sheet.rows.ids[n : n + 1, :length]
            logprob = model(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
            places = sheet.rows.key[n].nonzero()[:, 0].tolist()
            means.append(float(np.mean([logprob[at - 1, ids[0, at]].item() for at in places])))
    return np.array(means)


def measured(width: int, blocks: int, repeats: int, seed: int) -> FormsRow:
    """Both ways in turn."""
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        case, bench = case_of(Path(folder), width, blocks, seed), Bench()
        sheet = sheet_of(case, "forget", FACTS, CHOICES)
        assert sheet is not None, "the world has forget people"
        model = model_of(width, blocks, seed).eval()

        def packed() -> ndarray:
            return packed_logprob(bench, case.base, sheet.rows).mean

        def single() -> ndarray:
            return one_by_one(model, sheet)

        ours, theirs = (gathered(sheet, mean, mean).geometric for mean in (packed(), single()))
        difference = float(np.nanmax(np.abs(ours - theirs)))
        timed = list(interleaved({"packed": packed, "single": single}, repeats, 1, seed))
    fast, slow = (np.array([t[name] for t in timed]) for name in ("packed", "single"))
    return FormsRow(
        width=width, blocks=blocks, facts=len(sheet.paired.facts), forms=len(sheet.forms),
        rows=len(sheet.rows), tokens=int(sheet.rows.mask.sum()), packed_cpu_s=float(np.median(fast)),
        single_cpu_s=float(np.median(slow)), speedup=ratio(slow, fast, "one prompt at a time", seed),
        largest_difference=difference, repeats=repeats,
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
    rows = tuple(measured(*size, args.repeats, args.seed) for size in zip(WIDTHS, BLOCKS, strict=True))
    command = f"python -m studies.speed.forms --out studies/speed/forms.json --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), rows=rows)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
