"""One way of scoring answers at a large vocabulary, in a process of its own, on whichever checkout leads the path.

A script and not a module of a checkout, because it measures checkouts that do not have it: it names nothing of ours but
what both builds have, and falls back on the older names. Says CPU-seconds a call, peak memory, and what was found.
"""

import importlib
import json
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CALLS = 3
Scores = dict[str, Tensor]


def ours(*names: str) -> Any:
    """The first of these (``module:name``) that this checkout has."""
    for name in names:
        module, _, attribute = name.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"none of {', '.join(names)}")


def bare(model: Any, given: dict[str, Tensor], rows: int, lens: bool) -> Callable[[], Scores]:
    """The model's own pass, ``rows`` at a time, with logits of the positions that predict the answers; with ``lens``
    those of every block's output too, through the model's own final norm and head. Nothing is done with them."""
    at = torch.arange(given["ids"].shape[1] - int(given["answer"]), given["ids"].shape[1]) - 1

    def call() -> Scores:
        with torch.inference_mode():
            for ids in given["ids"].split(rows):
                if not lens:
                    model(input_ids=ids, logits_to_keep=at, use_cache=False)
                    continue
                out = model.model(input_ids=ids, output_hidden_states=True, use_cache=False)
                model.lm_head(out.last_hidden_state[:, at])
                for state in out.hidden_states[1:-1]:
                    model.lm_head(model.model.norm(state[:, at]))
                model.lm_head(out.last_hidden_state[:, at])
        return {}

    return call


def usual(model: Any, given: dict[str, Tensor], rows: int) -> Callable[[], Scores]:
    """The same with log-probabilities and ranks of the answers' tokens, as they are usually taken."""
    length = given["ids"].shape[1]
    at = torch.arange(length - int(given["answer"]), length) - 1

    def call() -> Scores:
        logprobs, ranks = list[Tensor](), list[Tensor]()
        with torch.inference_mode():
            for ids in given["ids"].split(rows):
                logits = model(input_ids=ids, logits_to_keep=at, use_cache=False).logits
                target = ids[:, at + 1, None]
                logprobs.append(logits.log_softmax(-1).gather(-1, target).flatten())
                ranks.append((logits > logits.gather(-1, target)).sum(-1).flatten().float())
        return {"logprob": torch.cat(logprobs), "rank": torch.cat(ranks)}

    return call


def bench_reads(folder: Path, given: dict[str, Tensor], lens: bool) -> Callable[[], Scores]:
    """A pass of the bench without a store: log-probabilities and ranks of all tokens of the answers and of their
    content, or of the content after every block."""
    source, read, site = (ours(f"audit.schema:{name}", f"audit.nouns:{name}") for name in ("Source", "Read", "Site"))
    bench, rows_type = (
        ours("audit.bench:Bench", "audit.bench.bench:Bench")(),
        ours("audit.case:Rows", "audit.bench.shapes:Rows"),
    )
    checkpoint = ours("audit.checkpoints:resolve")(source(path=str(folder)), folder)
    ids = given["ids"]
    start, names = ids.shape[1] - int(given["answer"]), tuple(map(str, range(len(ids))))
    key = (torch.arange(ids.shape[1]) >= start).expand(ids.shape)
    spans = torch.tensor([start, ids.shape[1]]).expand(len(ids), 2)
    rows = rows_type(
        ids=ids,
        mask=torch.ones_like(ids, dtype=torch.bool),
        answer_spans=spans,
        key=key,
        item_ids=names,
        group_ids=names,
    )
    output, blocks = site(part="logits"), range(bench.open(checkpoint).n_blocks)
    if lens:
        sites = [*(site(part="resid_out", block=block) for block in blocks), output]
        reads = [read(site=each, at="key", reduce=reduce) for each in sites for reduce in ("logprob", "rank")]
    else:
        wanted = (("answer", "logprob"), ("key", "logprob"), ("key", "rank"))
        reads = [read(site=output, at=at, reduce=reduce) for at, reduce in wanted]

    def call() -> Scores:
        done = bench.run(checkpoint, rows, reads)
        return {"logprob": done[reads[-2]], "rank": done[reads[-1]]}

    return call


def way_of(way: str, folder: Path) -> Callable[[], Scores]:
    """The call of one way: ``bare-N``, ``usual-N`` (N rows at a time), ``bare-lens-N``, ``reads``, ``lens``."""
    given = torch.load(folder / "rows.pt", weights_only=True)
    if way in ("reads", "lens"):
        return bench_reads(folder, given, way == "lens")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    kind, _, rows = way.rpartition("-")
    return usual(model, given, int(rows)) if kind == "usual" else bare(model, given, int(rows), kind == "bare-lens")


def main(folder: Path, way: str, out: str) -> None:
    """Call it once and then some times, print, and keep the scores where a file is named."""
    torch.set_num_threads(1)
    call, spent = way_of(way, folder), list[float]()
    opened = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    scores = call()
    for _ in range(CALLS):
        begin = time.process_time()
        scores = call()
        spent.append(time.process_time() - begin)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if out:
        torch.save({name: values.clone() for name, values in scores.items()}, out)
    sys.stdout.write(json.dumps({"cpu_s": min(spent), "opened_mb": opened, "peak_mb": peak}) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else "")
