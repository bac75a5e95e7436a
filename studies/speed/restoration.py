"""Sets of features edited in a vision transformer: resumed after the edited block, against run again from the pixels.

``python -m studies.speed.restoration --out studies/speed/restoration.json``. Both make the same edited states of the
same images, by a product of as many columns as the set has; one goes on after the block, the other runs the model from
its pixels and puts the states in on the way. The donor's passes are not counted. CPU-seconds of one thread.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from audit.bench import Bench, Replace, Start
from audit.case import labelled_images
from audit.checkpoints import resolve
from audit.schema import Read, Record, Site, Source
from audit.storage import write_atomic
from saes import SparseCoder, StatePair, donated
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

BLOCKS, BLOCK, WIDTH, SIDE, PATCH, IMAGES = 12, 9, 192, 64, 8, 16
FEATURES, ACTIVE, EXPERTS, SETS = 4 * WIDTH, 16, 20, 4
SCORES = tuple(Read(site=Site(part="logits"), at="key", reduce=reduce) for reduce in ("logprob", "rank"))


class ResumedRow(Record):
    """CPU-seconds for ``sets`` edits of all images, median over repeats: after the block, and from the pixels.

    ``ceiling``: how many times as many blocks the second runs.
    """

    blocks: int
    block: int
    images: int
    sets: int
    resumed_cpu_s: float
    from_pixels_cpu_s: float
    speedup: Ratio
    ceiling: float
    largest_difference: float
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    row: ResumedRow


def model_folder(out: Path, seed: int) -> Path:
    """A vision transformer of random weights, of which the speed does not depend on what it knows."""
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessorPil

    torch.manual_seed(seed)
    config = ViTConfig(
        image_size=SIDE, patch_size=PATCH, hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=3,
        intermediate_size=4 * WIDTH, num_labels=10,
    )  # fmt: skip
    ViTForImageClassification(config).save_pretrained(out)
    ViTImageProcessorPil(size={"height": SIDE, "width": SIDE}).save_pretrained(out)
    return out


def dictionary(seed: int) -> SparseCoder:
    """Random weights of a TopK dictionary."""
    g = torch.Generator().manual_seed(seed)
    weights = [torch.randn(*s, generator=g) for s in ((WIDTH, FEATURES), (FEATURES,), (FEATURES, WIDTH), (WIDTH,))]
    return SparseCoder(*weights, activation="topk", k=ACTIVE)


def measured(repeats: int, seed: int) -> ResumedRow:
    """Both ways in turn."""
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        model = resolve(Source(path=str(model_folder(Path(folder), seed))), Path(folder))
        rng, bench = np.random.default_rng(seed), Bench()
        pictures = [rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for _ in range(IMAGES)]
        rows = labelled_images(model, [f"image{n}" for n in range(IMAGES)], pictures, [n % 10 for n in range(IMAGES)])
        site, coder = Site(part="resid_out", block=BLOCK), dictionary(seed)
        read = Read(site=site, at="all")
        own = bench.run(model, rows, (read,))[read]
        donor = own + torch.randn(own.shape, generator=torch.Generator().manual_seed(seed))
        everywhere = torch.ones(own.shape[:2], dtype=torch.bool)
        pair, codes = StatePair(own, donor, everywhere, ~everywhere), (coder.encode(own), coder.encode(donor))
        sets = torch.from_numpy(rng.integers(0, FEATURES, (SETS, EXPERTS)))

        def edited(n: int) -> torch.Tensor:
            return donated(coder, pair, codes, sets[n].expand(IMAGES, -1))

        def resumed() -> list[torch.Tensor]:
            return [bench.run(model, rows, SCORES, start=Start(site, edited(n)))[SCORES[0]] for n in range(SETS)]

        def from_pixels() -> list[torch.Tensor]:
            return [bench.run(model, rows, SCORES, (Replace(site, edited(n), "all"),))[SCORES[0]] for n in range(SETS)]

        difference = max(float((a - b).abs().max()) for a, b in zip(resumed(), from_pixels(), strict=True))
        timed = list(interleaved({"resumed": resumed, "from_pixels": from_pixels}, repeats, 1, seed))
    ours, theirs = (np.array([t[name] for t in timed]) for name in ("resumed", "from_pixels"))
    return ResumedRow(
        blocks=BLOCKS, block=BLOCK, images=IMAGES, sets=SETS, resumed_cpu_s=float(np.median(ours)),
        from_pixels_cpu_s=float(np.median(theirs)), speedup=ratio(theirs, ours, "run again from the pixels", seed),
        ceiling=BLOCKS / (BLOCKS - 1 - BLOCK), largest_difference=difference, repeats=repeats,
    )  # fmt: skip


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    before = stamp(args.seed)
    row = measured(args.repeats, args.seed)
    command = f"python -m studies.speed.restoration --out studies/speed/restoration.json --repeats {args.repeats}"
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), row=row)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
