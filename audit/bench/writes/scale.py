"""Scale columns of a state."""

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor

from audit.bench.layout import Geometry
from audit.bench.writes.write import Write, content_of, tap_at
from audit.schema import Site
from audit.wrappers import Tap, Wrapper


@dataclass(frozen=True, eq=False)
class Scale(Write):
    """Multiply columns of a state: h[..., columns] *= factor, one factor a column, or [row column] with per_row."""

    site: Site
    columns: Int[Tensor, " column"]
    factor: Float[Tensor, "*row column"]
    per_row: bool = False

    def key(self) -> tuple[str, ...]:
        return str(self.site), content_of(self.columns), content_of(self.factor), str(self.per_row)

    def bites(self) -> bool:
        return len(self.columns) > 0 and bool((self.factor != 1).any())

    def taps(self, wrapper: Wrapper, where: Geometry, given: Tensor | None) -> list[Tap]:
        factor, columns = self.factor.to(wrapper.device, wrapper.dtype), self.columns.to(wrapper.device)
        if self.per_row:
            factor = where.of_rows(factor)

        def visit(state: Tensor) -> Tensor:
            by = factor.view(len(factor), *[1] * (state.ndim - 2), -1) if self.per_row else factor
            state = state.clone()
            state[..., columns] = state[..., columns] * by
            return state

        return [tap_at(self.site, visit)]
