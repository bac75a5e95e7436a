"""Reads as taps: each pools its state on the device, inside the forward, straight into the place where it is kept.

Statistics are in float32 whatever the model's dtype. Nothing of size positions x vocabulary is made unless the read
asks for logits at all positions.
"""

from collections.abc import Sequence

from audit.bench.layout import Targets
from audit.bench.reads.full_sequence import SequenceRead
from audit.bench.reads.image_states import ImageRead
from audit.bench.reads.per_part import PartRead
from audit.bench.reads.pooled import PooledRead
from audit.bench.reads.readout import Readout
from audit.bench.reads.reduced import ReducedRead
from audit.bench.reads.scores import SCORED, Scores
from audit.case import Rows
from audit.schema import Read
from audit.wrappers import Wrapper

STREAM = SCORED - {"logits"} | {"embed", "attn_in", "mlp_in", "attn_out", "mlp_out"}


def readouts(rows: Rows, targets: Targets, reads: Sequence[Read], wrapper: Wrapper) -> list[Readout]:
    """Group the reads so that each group is collected together."""

    def kind(read: Read) -> tuple[str, str, str]:
        if read.reduce in ("norm", "received"):
            return "reduced", read.at, ""
        if read.reduce != "state":
            return "scores", "", ""
        tower = wrapper.tower(read.site.tower)
        if not tower.by_token:
            return "image", read.at, ""
        if read.at == "all":
            return "whole", read.at, ""
        pooled = read.site.part in STREAM and read.site.head is None and not tower.widths
        return ("stream", read.at, read.site.tower or wrapper.head_tower) if pooled else ("loose", read.at, "")

    groups: dict[tuple[str, str, str], list[Read]] = {}
    for read in reads:
        groups.setdefault(kind(read), []).append(read)
    found: list[Readout] = []
    for (how, _, _), members in groups.items():
        if how == "stream":
            found.append(PooledRead(rows, targets, members, wrapper))
        else:
            ways = {
                "scores": Scores, "whole": SequenceRead, "loose": PartRead, "image": ImageRead, "reduced": ReducedRead,
            }  # fmt: skip
            found.append(ways[how](rows, targets, members))
    return found
