"""Variants of an edit of a vision tower: resumed after the block that the projector reads, against whole runs again.

``python -m studies.speed.vision_language --out studies/speed/vision_language.json``. Both put the same edited states of
the same pictures in: one starts after the block with them, the other runs the model from its pixels and puts the states
in on the way. The pass that reads the states once is counted for the first. The language model is as wide and as deep
as the tower. CPU-seconds of one thread.
"""

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import torch

from audit.bench import Bench, Replace, Start
from audit.case import Rows
from audit.checkpoints import resolve
from audit.schema import Checkpoint, Read, Record, Site, Source
from audit.storage import write_atomic
from studies.provenance import Stamp, stamp
from studies.speed.results import Ratio
from studies.speed.timing import interleaved, ratio

BLOCKS, WIDTH, SIDE, PATCH, IMAGES, WORDS = 12, 192, 64, 8, 16, 16
READ_FROM_END, IMAGE_TOKEN, VOCABULARY = -2, 2, 256
SCORE = Read(site=Site(part="logits"), at="key", reduce="logprob")


class ResumedRow(Record):
    """CPU-seconds for ``variants`` edits of all pictures, median over repeats: resumed, with the pass that reads the
    states, and from the pixels.

    ``allowed``: how many times as many states go through blocks in the second, by block and token counts.
    """

    vision_blocks: int
    vision_positions: int
    read_block: int
    text_blocks: int
    text_tokens: int
    width: int
    images: int
    variants: int
    resumed_cpu_s: float
    from_pixels_cpu_s: float
    speedup: Ratio
    allowed: float
    share_of_allowed: float
    largest_difference: float
    repeats: int


class Results(Record):
    """What was measured. ``load_after``: the machine's load when it was done."""

    stamp: Stamp
    command: str
    load_after: float
    rows: tuple[ResumedRow, ...]


def model_folder(out: Path, seed: int) -> Path:
    """A LLaVA model of random weights, of which the speed does not depend on what it knows."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(seed)
    shared = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": BLOCKS}
    vision = CLIPVisionConfig(image_size=SIDE, patch_size=PATCH, num_attention_heads=3, **shared)
    text = LlamaConfig(vocab_size=VOCABULARY, num_attention_heads=3, num_key_value_heads=3, **shared)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=IMAGE_TOKEN, vision_feature_layer=READ_FROM_END
    )
    LlavaForConditionalGeneration(config).save_pretrained(out)
    return out


def rows_of(seed: int) -> Rows:
    """Pictures of noise with made-up words after them, of which the last is asked for."""
    g = torch.Generator().manual_seed(seed)
    tokens = (SIDE // PATCH) ** 2
    words = torch.randint(IMAGE_TOKEN + 1, VOCABULARY, (IMAGES, WORDS), generator=g)
    ids = torch.cat([torch.full((IMAGES, tokens), IMAGE_TOKEN), words], 1)
    length = ids.shape[1]
    names = tuple(f"picture{n}" for n in range(IMAGES))
    return Rows(
        ids=ids, mask=torch.ones_like(ids, dtype=torch.bool), item_ids=names, group_ids=names,
        key=torch.arange(length).expand_as(ids) == length - 1,
        answer_spans=torch.tensor([[length - 1, length]]).expand(IMAGES, 2),
        extra={"pixel_values": torch.randn(IMAGES, 3, SIDE, SIDE, generator=g)},
    )  # fmt: skip


def measured(model: Checkpoint, variants: int, repeats: int, seed: int) -> ResumedRow:
    """Both ways in turn."""
    bench, rows = Bench(), rows_of(seed)
    vision = bench.open(model).tower("vision")
    site = Site(part="resid_out", block=vision.read[-1], tower="vision")
    read, g = Read(site=site, at="all"), torch.Generator().manual_seed(seed)
    shape = (variants, IMAGES, vision.positions, WIDTH)
    changes = torch.randn(shape, generator=g)

    def states() -> torch.Tensor:
        return bench.run(model, rows, (read,))[read]

    read_once = states()

    def resumed() -> list[torch.Tensor]:
        own = states()
        return [bench.run(model, rows, (SCORE,), start=Start(site, own + change))[SCORE] for change in changes]

    def from_pixels() -> list[torch.Tensor]:
        return [bench.run(model, rows, (SCORE,), (Replace(site, read_once + c, "all"),))[SCORE] for c in changes]

    difference = max(float((a - b).abs().max()) for a, b in zip(resumed(), from_pixels(), strict=True))
    timed = list(interleaved({"resumed": resumed, "from_pixels": from_pixels}, repeats, 1, seed))
    ours, theirs = (np.array([t[name] for t in timed]) for name in ("resumed", "from_pixels"))
    tower, text = (vision.read[-1] + 1) * vision.positions, BLOCKS * rows.ids.shape[1]
    allowed, speedup = variants * (tower + text) / (tower + variants * text), ratio(theirs, ours, "run again", seed)
    return ResumedRow(
        vision_blocks=BLOCKS, vision_positions=vision.positions, read_block=vision.read[-1], text_blocks=BLOCKS,
        text_tokens=rows.ids.shape[1], width=WIDTH, images=IMAGES, variants=variants,
        resumed_cpu_s=float(np.median(ours)), from_pixels_cpu_s=float(np.median(theirs)), speedup=speedup,
        allowed=allowed, share_of_allowed=speedup.median / allowed, largest_difference=difference, repeats=repeats,
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
    with tempfile.TemporaryDirectory(prefix="residua-speed-") as folder:
        model = resolve(Source(path=str(model_folder(Path(folder), args.seed))), Path(folder))
        rows = tuple(measured(model, variants, args.repeats, args.seed) for variants in (2, 8))
    command = (
        f"python -m studies.speed.vision_language --out studies/speed/vision_language.json --repeats {args.repeats}"
    )
    results = Results(stamp=before, command=command, load_after=round(os.getloadavg()[0], 2), rows=rows)
    write_atomic(args.out, (results.model_dump_json(indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
