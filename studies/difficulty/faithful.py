"""Faithfulness curves: how much of the recall do an item's own largest edges carry?"""

from pathlib import Path

import numpy as np
import torch

from audit.bench import Bench
from audit.case import Rows
from audit.checkpoints import resolve
from audit.circuits import Runs, ScoredEdges, faithfulness, scored, swapped
from audit.schema import Checkpoint, Source
from audit.stats import significant
from audit.zoo import one_thread
from studies.difficulty.results import Faithful
from studies.difficulty.worlds import opened
from studies.tofu_stories.teach import rows_of

SHARES = (0.01, 0.03, 0.1, 0.2, 0.4, 0.7, 1.0)
ROWS = 32


def curve(name: str, ckpt: Checkpoint, rows: Rows) -> Faithful:
    """The curve of the first rows that have a partner."""
    bench = Bench()
    with_partner = swapped(rows, rows, 0).partnered.nonzero().flatten()[:ROWS]
    sampled = rows.take(with_partner)
    other = swapped(sampled, rows, 0).rows
    circuits = scored(bench, ckpt, sampled, rows)
    total = int(circuits.graph.exists.sum())
    sizes = sorted({max(1, round(share * total)) for share in SHARES})
    carried = faithfulness(bench, ckpt, Runs(sampled, other), ScoredEdges(circuits.graph, circuits.scores), sizes).share
    quarters = np.nanpercentile(carried, [25, 50, 75], axis=1)
    low, middle, high = (tuple(significant(x, 4) for x in line) for line in quarters)
    return Faithful(
        model=name, items=len(sampled), all_edges=total, edges=tuple(sizes), median=middle, quarter=low,
        three_quarters=high,
    )  # fmt: skip


def of_world(number: int) -> Faithful:
    """A world of the zoo: base on its forget facts."""
    with one_thread():
        setup = opened(number)
        return curve(f"world {number}", resolve(Source(path=str(setup.world.base)), Path()), setup.world.seen.forget)


def of_stories(folder: Path) -> Faithful:
    """The story model taught TOFU authors, on the forget authors' questions."""
    with one_thread(), torch.no_grad():
        base = folder / "models" / "base"
        rows = rows_of((folder / "forget.jsonl",), base)
        return curve("stories260K taught TOFU", resolve(Source(path=str(base)), Path()), rows)
