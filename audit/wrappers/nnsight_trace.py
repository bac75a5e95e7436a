"""The wrapper interface through nnsight, as an independent cross-check of the native hooks.

nnsight gives a module's input and output inside a traced forward, in the order in which modules run; a value that the
forward has passed cannot be asked for, so the order of one plain forward is recorded first. Which module is which part
comes from :mod:`audit.wrappers.anatomy`. Attention patterns are not offered: they exist only inside functions whose
source differs by family. nnsight is imported when a model is opened.
Source: nnsight 0.8 (Fiotto-Kaufman et al. 2024, arXiv 2407.14561).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AbsentPartError, AuditError, Op, Part, Site
from audit.wrappers.anatomy import Anatomy, Slot, dissect
from audit.wrappers.interface import Batch, Resume, Stop, Tap, Wrapper, text_tower
from audit.wrappers.output_head import logits_of, logits_read_after, written_in_place
from audit.wrappers.resuming import starts_within
from audit.wrappers.text_core import core_of
from audit.wrappers.tracing import Subject, on_embeddings, on_ids, put_state_out, reads_ids, tiny_ids

Visit = Callable[[Tensor], Tensor | None]
End = Literal["input", "output"]


class Place(NamedTuple):
    """Where a site lies: the input or output of a module, by its path in the model without head."""

    path: str
    end: End
    slot: Slot | None = None


class Step(NamedTuple):
    """One visit inside a trace, at nnsight's handle of a module."""

    envoy: Any
    end: End
    visit: Visit


def _run(net: Any, steps: Sequence[Step], skipped: Sequence[tuple[Any, Tensor]], settings: dict[str, Any]) -> None:
    """One traced forward, which ends after the last step. nnsight compiles the lines of the trace from this file."""
    with net.trace(**settings) as tracer:
        for envoy, state in skipped:
            envoy.skip(state)
        for step in steps:
            if step.end == "input":
                new = step.visit(step.envoy.input)
                if new is not None:
                    step.envoy.input = new
            else:
                out = step.envoy.output
                new = step.visit(out[0] if isinstance(out, tuple | list) else out)
                if new is not None:
                    step.envoy.output = put_state_out(out, new)
        tracer.stop()


class NNsightWrapper(Wrapper):
    """One model behind nnsight. Reads, writes, resumes and stops early; no attention patterns, no training."""

    _by_ids = False
    _resumes = True

    backend = "nnsight"
    supports = frozenset({Op.READ, Op.WRITE, Op.RESUME, Op.STOP, Op.EMBEDS, Op.GRADIENT, Op.CHANGE})

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        unembedding: Any = model.get_output_embeddings()
        self.vocab_size = int(unembedding.weight.shape[0])
        with torch.inference_mode():
            core, ids = core_of(model), tiny_ids(self.vocab_size).to(model.device)
            embeds = model.get_input_embeddings()(ids)
            self._by_ids = reads_ids(core, ids, embeds)
            subject = on_ids(core, ids) if self._by_ids else on_embeddings(core, embeds)
        parts = self._open(model, attention, subject, model.config.get_text_config())
        self.towers = text_tower(self._anatomy.d_model, len(self._blocks), parts, self._anatomy.width)
        with torch.inference_mode():
            self._resumes = starts_within(self, Batch(ids, torch.ones_like(ids, dtype=torch.bool)))

    def _open(self, model: PreTrainedModel, attention: str, subject: Subject, config: Any) -> frozenset[Part]:
        """Put a model behind nnsight, and say which parts were found in it."""
        from nnsight import NNsight

        self._model, self.name, self.attention = model.eval(), type(model).__name__, attention
        self.device, self.dtype = model.device, model.dtype
        self._core: nn.Module = subject.core
        with torch.inference_mode():
            self._anatomy: Anatomy = dissect(model, subject, config)
            self._refuse_several()
            paths = {id(module): path for path, module in self._core.named_modules()}
            self._blocks = [paths[id(block)] for block in self._anatomy.blocks]
            norm = self._anatomy.final_norm
            self._last = Place(self._blocks[-1] if norm is None else paths[id(norm)], "output")
            self._order = self._execution_order(subject)
        self._net: Any = NNsight(self._core)
        return self._anatomy.parts("not eager") - {"pattern"}

    def _refuse_several(self) -> None:
        """AuditError (code 2) for what this backend cannot show: several streams, a norm that runs more than once."""
        several = self._anatomy.streams.n > 1 or not self._anatomy.reads_stream
        if several or self._anatomy.final_calls > 1:
            cause = "its blocks hand on several streams" if several else "its last norm runs more than once in a pass"
            raise AuditError(
                f"the nnsight backend does not open {self.name}: {cause}", "use the native backend, which does"
            )

    def _execution_order(self, subject: Subject) -> dict[tuple[str, End], int]:
        """When is each module entered and left? From one plain forward."""
        order: dict[tuple[str, End], int] = {}

        def noting(path: str, end: End) -> Callable[..., None]:
            def note(*_: object) -> None:
                order.setdefault((path, end), len(order))

            return note

        with ExitStack() as stack:
            for path, module in self._core.named_modules():
                stack.callback(module.register_forward_pre_hook(noting(path, "input")).remove)
                stack.callback(module.register_forward_hook(noting(path, "output")).remove)
            subject.run()
        return order

    def _place(self, site: Site) -> Place:
        """The module end at which a site lies. Raises AuditError for a part or a block that is not there."""
        if site.part not in self.parts or (site.block is not None and site.block >= self.n_blocks):
            raise AuditError(
                f"the nnsight backend has no site {site} in this model",
                f"choose among {', '.join(sorted(self.parts))} of {self.n_blocks} blocks, or use the native backend",
            )
        if site.part == "embed":
            return Place(self._blocks[0], "input")
        if site.part == "final_in":
            return self._last
        a, block = self._anatomy.at(site.block), self._blocks[site.block or 0]
        inside: dict[Part, tuple[str | None, End]] = {
            "resid_in": ("", "input"), "resid_out": ("", "output"), "resid_mid": (a.mid_reader, "input"),
            "attn_in": (a.attn, "input"), "mlp_in": (a.mlp, "input"), "z": (a.z, "input"),
            "attn_out": (a.attn_out, "output"), "mlp_out": (a.mlp_out, "output"), "mlp_hidden": (a.mlp_hidden, "input"),
        }  # fmt: skip
        if site.part in a.slots:
            slot = a.slots[site.part]
            return Place(f"{block}.{slot.module}", "output", slot)
        path, end = inside[site.part]
        return Place(f"{block}.{path}" if path else block, end)

    def _visit(self, tap: Tap, slot: Slot | None) -> Visit:
        """The tap's visit on what the module carries: heads are split off and put back."""
        heads = self._anatomy.at(tap.site.block).heads
        if tap.site.part == "resid_mid":
            return written_in_place(tap.visit)
        if tap.site.part == "z":
            assert heads is not None
            width = heads.width

            def by_head(z: Tensor) -> Tensor | None:
                new = tap.visit(z.unflatten(-1, (-1, width)))
                return None if new is None else new.flatten(-2)

            return by_head
        if slot is None:
            return tap.visit

        def projected(out: Tensor) -> Tensor | None:
            new = tap.visit(slot.view(out))
            return None if new is None else slot.put(out, new)

        return projected

    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        """Run the blocks and the final norm, calling the taps. Raises AuditError for a part it does not have."""
        first = 0 if resume is None else self._order[self._blocks[resume.block], "output"]
        end = self._last if stop is None or stop.block is None else Place(self._blocks[stop.block], "output")
        skipped: list[tuple[Any, Tensor]] = []
        if resume is not None and not self._resumes:
            raise AuditError(
                f"the nnsight backend cannot start {self.name} after a block: a block above reads more than the state "
                "of the one below",
                "use the native backend, or replace the state at that block instead",
            )
        if resume is not None:
            skipped = [(self._net.get(path), resume.state) for path in self._blocks[: resume.block + 1]]
        with logits_read_after(taps, self.head) as inside:
            steps = self._steps([*self._entering(batch), *inside], first, end)
            _run(self._net, steps, skipped, self._settings(batch))

    def _settings(self, batch: Batch) -> dict[str, Any]:
        """What the model below its head is called with."""
        if self._by_ids and batch.embeds is not None:
            raise AbsentPartError(
                f"{self.name} reads more of its tokens than their embeddings: it does not run on embeddings alone",
                "ask what moves no input embedding",
            )
        entry = {"input_ids": batch.ids} if batch.embeds is None else {"inputs_embeds": batch.embeds}
        return {**entry, "attention_mask": batch.mask.long(), "use_cache": False}

    def _entering(self, batch: Batch) -> list[Tap]:
        """What has to be put into the first block because the model cannot be called with it."""
        return []

    def _steps(self, taps: Sequence[Tap], first: int, end: Place) -> list[Step]:
        """The visits in the order in which the forward reaches them, up to and with ``end``."""
        placed = [(place := self._place(tap.site), self._visit(tap, place.slot)) for tap in taps]
        placed.append((end, lambda _state: None))
        timed = [(self._order[place.path, place.end], place, visit) for place, visit in placed]
        if any(when < first for when, _, _ in timed):
            raise AuditError("a site lies below the block that the pass starts after", "read and write above it")
        last = self._order[end.path, end.end]
        timed = sorted((step for step in timed if step[0] <= last), key=lambda step: step[0])
        return [Step(self._net.get(place.path), place.end, visit) for _, place, visit in timed]

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Input embeddings, as ``Batch.embeds`` takes them."""
        return self._model.get_input_embeddings()(ids)

    def norm(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The final norm, applied to residual states; its own forward, which the trace does not see."""
        norm = self._anatomy.final_norm
        return states if norm is None else type(norm).forward(norm, states)

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of normed states, as the model computes them."""
        return logits_of(self._model, states)

    def parameters(self) -> dict[str, Tensor]:
        """Parameters by their checkpoint names: the model's own live tensors."""
        return dict(self._model.named_parameters(remove_duplicate=False))
