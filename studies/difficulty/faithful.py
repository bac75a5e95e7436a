"""Faithfulness curves: how much of the recall do an item's own largest edges carry?"""

from pathlib import Path

import numpy as np
import torch

from audit.bench import Bench
from audit.bench.shapes import Rows
from audit.checkpoints import resolve
from audit.circuits.attributed import scored
from audit.circuits.corruptions import swapped
from audit.circuits.faithfulness import faithfulness
from audit.nouns import Checkpoint, Source
from studies.difficulty.results import Faithful
from studies.difficulty.worlds import opened
from studies.tofu_stories.teach import rows_of
from studies.zoo.training import one_thread

SHARES = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
ROWS = 32


def curve(name: str, ckpt: Checkpoint, rows: Rows) -> Faithful:
    """The curve of the first rows that have a partner."""
    bench = Bench()
    with_partner = swapped(rows, rows, 0).partnered.nonzero().flatten()[:ROWS]
    some = rows.take(with_partner)
    other = swapped(some, rows, 0).rows
    found = scored(bench, ckpt, some, rows)
    total = int(found.graph.exists.sum())
    sizes = sorted({max(1, round(share * total)) for share in SHARES})
    kept = faithfulness(bench, ckpt, (some, other), (found.graph, found.scores), sizes).share
    quarters = np.nanpercentile(kept, [25, 50, 75], axis=1)
    low, middle, high = (tuple(float(f"{x:.4g}") for x in line) for line in quarters)
    return Faithful(
        model=name, items=len(some), all_edges=total, edges=tuple(sizes), median=middle, quarter=low,
        three_quarters=high,
    )  # fmt: skip


def of_world(number: int) -> Faithful:
    """A world of the zoo: base on its forget facts."""
    with one_thread():
        found = opened(number)
        return curve(f"world {number}", resolve(Source(path=str(found.world.base)), Path()), found.world.seen.forget)


def of_stories(folder: Path) -> Faithful:
    """The story model taught TOFU authors, on the forget authors' questions."""
    with one_thread(), torch.no_grad():
        base = folder / "models" / "base"
        rows = rows_of((folder / "forget.jsonl",), base)
        return curve("stories260K taught TOFU", resolve(Source(path=str(base)), Path()), rows)
