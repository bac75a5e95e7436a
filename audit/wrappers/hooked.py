"""A transformers model behind torch hooks, whatever it reads: parts by its anatomy, blocks left out, passes ended.

What enters the blocks, and how states become logits, is said by the modules of single kinds of models.
"""

from abc import abstractmethod
from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager, suppress

from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError
from audit.wrappers.hooks import GivenState, PassEnd
from audit.wrappers.interface import Batch, Resume, Stop, Tap, Wrapper
from audit.wrappers.part_hooks import PartHooks


class HookedWrapper(Wrapper, PartHooks):
    """One transformers model behind torch hooks."""

    backend = "native"
    model: PreTrainedModel
    core: nn.Module

    # ---- the forward ---------------------------------------------------------------------------------------------
    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        with ExitStack() as stack:
            if resume is not None:
                self._start(stack, resume.block, self._handed(resume, batch))
            self._install(stack, taps, -1 if resume is None else resume.block, None if stop is None else stop.block)
            with suppress(PassEnd):
                self._run(batch, stack)

    def _start(self, stack: ExitStack, block: int, state: Tensor) -> None:
        """Go on after a block from a state, without running what lies below it."""
        stack.enter_context(self._resumed(block, state))

    @abstractmethod
    def _run(self, batch: Batch, stack: ExitStack) -> None:
        """Run the model without its head; hooks of this pass alone go onto the stack."""

    @contextmanager
    def _resumed(self, block: int, state: Tensor) -> Generator[None]:
        """Blocks up to and with ``block`` are swapped for the given state and swapped back."""
        own = [self.blocks[i] for i in range(block + 1)]
        given = GivenState(state)
        try:
            for i in range(len(own)):
                self._put(i, given)
            yield
        finally:
            for i, module in enumerate(own):
                self._put(i, module)

    def _handed(self, resume: Resume, batch: Batch) -> Tensor:
        """The state to start from as the blocks hand it on."""
        return self.anatomy.streams.handed(resume.state)

    # ---- the ends ------------------------------------------------------------------------------------------------
    def norm(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        if not self.anatomy.reads_stream:
            raise AuditError(
                f"{type(self.model).__name__}: what its last norm reads is a mixture of what the blocks hand on, so "
                "that no state of a block can be read through it",
                "read final_in, or audit a model whose blocks hand on one stream",
            )
        final = self.anatomy.final_norm  # its forward, not the module: taps may be on it while this is asked
        return states if final is None else final.forward(states)

    def reader_norm(self, part: str, block: int, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The norm that ``attn_in`` or ``mlp_in`` reads the residual stream through (edge patching needs it)."""
        parts = self.anatomy.at(block)
        path = parts.attn_norm if part == "attn_in" else parts.mlp_norm
        if path is None:
            raise AuditError(
                f"the norm before {part!r} was not found in {type(self.model).__name__}",
                "edges need a model whose attention and mlp read one norm of the residual stream",
            )
        return self.blocks[block].get_submodule(path).forward(states) if path else states

    def parameters(self) -> dict[str, Tensor]:
        return dict(self.model.named_parameters(remove_duplicate=False))
