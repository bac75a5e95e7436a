"""The scan for value vectors that name a concept, against the bare product with the output head and against sorting.

``python -m studies.speed.concept_scan --out studies/speed/concept_scan.json``. All three project the same value vectors
onto the same vocabulary. The bare product keeps nothing and counts nothing: it is the rate of the machine. The scan
counts the tokens of many concepts among the first 200 places of every vector from either end; sorting whole rankings is
how a list of first tokens is usually made, here for one sign. CPU-seconds of one thread.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from audit.readouts import enrichment_scan
from audit.schema import Record
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

VOCABULARY, WIDTH, UNITS, CONCEPTS, TOKENS, FIRST = 32_000, 2048, 512, 50, 10, 200
WANTED = 0.6
"""The share of the machine's rate that is asked for."""


class ScanRow(Record):
    """CPU-seconds for ``units`` value vectors, median over repeats; ``share`` is the bare product's over the scan's."""

    vocabulary: int
    width: int
    units: int
    concepts: int
    first: int
    scan_cpu_s: float
    product_cpu_s: float
    sorting_cpu_s: float
    product_gflop_per_s: float
    share: Ratio
    against_sorting: Ratio
    same_counts: bool
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    row: ScanRow


def sorted_counts(head: Tensor, vectors: Tensor, seeds: enrichment_scan.Seeds) -> Tensor:
    """Hits of every concept by whole rankings of every vector, as [concept unit]."""
    counts: list[Tensor] = []
    for part in vectors.split(256):
        ranked = torch.zeros(len(part), len(head))
        first = (part @ head.T).sort(1, descending=True).indices[:, :FIRST]
        ranked.scatter_(1, first, 1.0)
        counts.append(seeds.member.float() @ ranked[:, seeds.tokens].T)
    return torch.cat(counts, 1).to(torch.int16)


def measured(repeats: int, seed: int) -> ScanRow:
    """All three in turn."""
    g = torch.Generator().manual_seed(seed)
    head, vectors = (torch.randn(n, WIDTH, generator=g) for n in (VOCABULARY, UNITS))
    drawn = [torch.randperm(VOCABULARY, generator=g)[:TOKENS].tolist() for _ in range(CONCEPTS)]
    seeds = enrichment_scan.seeds_of(drawn)

    def scan() -> Tensor:
        return enrichment_scan.hits_of(head, vectors, seeds, FIRST)

    def product() -> None:
        for part in vectors.split(256):
            torch.mm(part, head.T)

    def sorting() -> Tensor:
        return sorted_counts(head, vectors, seeds)

    same = bool(torch.equal(scan()[:, 0], sorting()))
    timed = list(interleaved({"scan": scan, "product": product, "sorting": sorting}, repeats, 1, seed))
    seconds = {name: np.array([t[name] for t in timed]) for name in ("scan", "product", "sorting")}
    medians = {f"{name}_cpu_s": float(np.median(values)) for name, values in seconds.items()}
    return ScanRow(
        vocabulary=VOCABULARY, width=WIDTH, units=UNITS, concepts=CONCEPTS, first=FIRST, **medians,
        product_gflop_per_s=2e-9 * VOCABULARY * WIDTH * UNITS / medians["product_cpu_s"],
        share=ratio(seconds["product"], seconds["scan"], "the bare product", seed).model_copy(
            update={"against": "the bare product: its CPU-seconds over the scan's"}
        ),
        against_sorting=ratio(seconds["sorting"], seconds["scan"], "sorting whole rankings, one sign", seed),
        same_counts=same, repeats=repeats,
    )  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = stamp(args.seed)
    row = measured(args.repeats, args.seed)
    command = f"python -m studies.speed.concept_scan --out studies/speed/concept_scan.json --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), row=row)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
