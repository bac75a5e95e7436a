"""Many continuations of many prompts: all together, against one at a time and against transformers' own sampling.

``python -m studies.speed.sampling_rows --out studies/speed/sampling_rows.json``. Prompts of a dozen lengths, which all
begin alike; so many continuations of each, of so many tokens, from Llamas of random weights that never end a text.
The bench runs each prompt once and takes the continuations of prompts of one length together. transformers'
``generate`` gets ``num_return_sequences``, a prompt a call as it is mostly used, and prompts of one length in batches
as large as the bench's. One at a time is a bare loop over the model with its cache, on a sample of the continuations,
scaled to all. CPU-seconds of one thread, models open.
"""

import argparse
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from audit.bench import Bench, Draw
from audit.case import Rows
from audit.checkpoints import resolve
from audit.schema import Record, Source
from audit.storage import write_atomic
from audit.zoo import make_tokenizer
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

PROMPTS, SAMPLES, SHARED, LENGTHS = 200, 64, 6, range(9, 21)
OURS, BY_PROMPT, BY_LENGTH, SINGLE = "bench", "generate, a prompt a call", "generate, by length", "one at a time"
LEAST_SINGLE, LEAST_GENERATE = 10.0, 1.0
"""What is promised: how many times faster than one at a time, and than transformers' own."""


class Size(NamedTuple):
    """A Llama: width, blocks, words, tokens of a continuation, and of how many continuations one is timed alone."""

    name: str
    width: int
    blocks: int
    words: int
    steps: int
    alone: int


SIZES: Final = (Size("tiny", 64, 5, 512, 12, 64), Size("5M", 256, 5, 2048, 8, 128))


class SamplingRow(Record):
    """CPU-seconds for all continuations, median over repeats, by method, and how many times the bench's each takes.

    ``tokens``: drawn by every method alike; of one at a time the seconds of one in ``alone`` are scaled.
    """

    size: str
    parameters: int
    prompts: int
    samples: int
    steps: int
    tokens: int
    alone: int
    cpu_s: dict[str, float]
    times: tuple[Ratio, ...]
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    rows: tuple[SamplingRow, ...]


def model_of(size: Size, seed: int) -> Any:
    """A Llama of random weights that has no token to end with."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = size.width // 16
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=size.words, hidden_size=size.width, intermediate_size=5 * size.width // 2,
        num_hidden_layers=size.blocks, num_attention_heads=heads, num_key_value_heads=heads,
        max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=None,
    )).eval()  # fmt: skip


def prompts_of(size: Size, prompts: int, seed: int) -> Rows:
    """Prompts of several lengths with a common beginning, each with a place for an answer."""
    rng = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, size.words, (prompts, max(LENGTHS) + 1), generator=rng)
    ids[:, :SHARED] = ids[0, :SHARED]
    lengths = torch.tensor([LENGTHS[n % len(LENGTHS)] for n in range(prompts)])
    column = torch.arange(ids.shape[1])
    names = tuple(f"prompt-{n}" for n in range(prompts))
    return Rows(
        ids=torch.where(column <= lengths[:, None], ids, 0), mask=column <= lengths[:, None],
        answer_spans=torch.stack([lengths, lengths + 1], 1), key=column == lengths[:, None], item_ids=names,
        group_ids=names,
    )  # fmt: skip


def generated(model: Any, ids: Tensor, samples: int, steps: int) -> Tensor:
    """transformers' own continuations of prompts of one length."""
    with torch.inference_mode():
        return model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, num_return_sequences=samples,
            max_new_tokens=steps, pad_token_id=0,
        )  # fmt: skip


def single(model: Any, ids: Tensor, steps: int) -> list[int]:
    """One continuation in a bare loop."""
    tokens, past = list[int](), None
    with torch.inference_mode():
        for _ in range(steps):
            done = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
            past, ids = done.past_key_values, torch.multinomial(done.logits[:, -1].softmax(-1), 1)
            tokens.append(int(ids))
    return tokens


def methods(folder: Path, size: Size, prompts: int, samples: int, seed: int) -> Mapping[str, Callable[[], object]]:
    """Every way of drawing them, on the same model."""
    model = model_of(size, seed)
    model.save_pretrained(folder)
    make_tokenizer(f"w{n}" for n in range(size.words - 5)).save_pretrained(folder)
    bench, rows = Bench(), prompts_of(size, prompts, seed)
    checkpoint = resolve(Source(path=str(folder)), folder)
    by_length: dict[int, list[int]] = defaultdict(list)
    for row, length in enumerate(rows.answer_spans[:, 0].tolist()):
        by_length[length].append(row)
    lengths = rows.answer_spans[:, 0].tolist()

    def together() -> object:
        return bench.sample(checkpoint, rows, Draw(samples, size.steps, seed=seed))

    def by_prompt() -> object:
        return [generated(model, rows.ids[n : n + 1, :length], samples, size.steps)
                for n, length in enumerate(lengths)]  # fmt: skip

    def batched() -> object:
        drawn: list[Tensor] = []
        for length, members in by_length.items():
            at_once = max(1, bench.token_budget // (length + size.steps) // samples)
            for part in torch.tensor(members).split(at_once):
                drawn.append(generated(model, rows.ids[part, :length], samples, size.steps))
        return drawn

    def alone() -> object:
        every = range(0, prompts * samples, size.alone)
        return [single(model, rows.ids[n // samples : n // samples + 1, : lengths[n // samples]], size.steps)
                for n in every]  # fmt: skip

    return {OURS: together, BY_PROMPT: by_prompt, BY_LENGTH: batched, SINGLE: alone}


def measured(size: Size, prompts: int, samples: int, repeats: int, seed: int) -> SamplingRow:
    """All methods in turn."""
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        timed = list(interleaved(methods(Path(folder), size, prompts, samples, seed), repeats, 1, seed))
    scale = {SINGLE: prompts * samples / len(range(0, prompts * samples, size.alone))}
    seconds = {name: np.array([t[name] for t in timed]) * scale.get(name, 1.0) for name in timed[0]}
    parameters = sum(p.numel() for p in model_of(size, seed).parameters())
    return SamplingRow(
        size=size.name, parameters=parameters, prompts=prompts, samples=samples, steps=size.steps,
        tokens=prompts * samples * size.steps, alone=size.alone, repeats=repeats,
        cpu_s={name: round(float(np.median(each)), 3) for name, each in seconds.items()},
        times=tuple(ratio(each, seconds[OURS], name, seed) for name, each in seconds.items() if name != OURS),
    )  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = stamp(args.seed)
    rows = tuple(measured(size, args.prompts, args.samples, args.repeats, args.seed) for size in SIZES)
    command = f"python -m studies.speed.sampling_rows --out {args.out} --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), rows=rows)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
