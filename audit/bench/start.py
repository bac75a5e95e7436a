"""Resume a pass after a block, from another model's state."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from audit.bench.writes.write import OtherState, content_of
from audit.schema import Checkpoint, Site


@dataclass(frozen=True, eq=False)
class Start:
    """Resume after ``site`` (a block's ``resid_out``) from another state at all positions: blocks below do not run."""

    site: Site
    source: Checkpoint | Float[Tensor, "row pos d"]

    def key(self) -> tuple[str, ...]:
        """The content of this start, which names every pass from it."""
        return str(self.site), self.source.key if isinstance(self.source, Checkpoint) else content_of(self.source)

    def other_state(self) -> OtherState | None:
        """The other model's state that it needs for every batch."""
        return OtherState(self.source, self.site, None) if isinstance(self.source, Checkpoint) else None
