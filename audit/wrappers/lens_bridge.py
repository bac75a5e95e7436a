"""The wrapper interface through TransformerLens' ``TransformerBridge``, as a cross-check of the native hooks.

The bridge rebuilds a model's modules in place and splits fused projections into copies, so it always works on a copy of
the model, runs eager attention, and offers no live parameters. TransformerLens is imported when a bridge is opened.
Source: TransformerLens 3.9 (Nanda & Bloom 2022), ``transformer_lens.model_bridge``.
"""

import copy
import os
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import version
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from audit.checkpoints import modality_of
from audit.schema import AuditError, ExitCode, Op, Part, Site, as_audit_error
from audit.wrappers.interface import Batch, Resume, Stop, Tap, Wrapper, text_tower
from audit.wrappers.output_head import logits_of, logits_read_after, written_in_place
from audit.wrappers.vision_kinds import NO_BRIDGE

_HOOKS: dict[Part, str] = {
    "embed": "blocks.0.hook_resid_pre",
    "resid_in": "blocks.{}.hook_resid_pre",
    "resid_mid": "blocks.{}.hook_resid_mid",
    "resid_out": "blocks.{}.hook_resid_post",
    "attn_in": "blocks.{}.attn.hook_in",
    "mlp_in": "blocks.{}.mlp.hook_in",
    "q": "blocks.{}.attn.hook_q",
    "k": "blocks.{}.attn.hook_k",
    "v": "blocks.{}.attn.hook_v",
    "z": "blocks.{}.attn.hook_z",
    "pattern": "blocks.{}.attn.hook_pattern",
    "attn_out": "blocks.{}.hook_attn_out",
    "mlp_hidden": "blocks.{}.mlp.hook_post",
    "mlp_out": "blocks.{}.hook_mlp_out",
    "final_in": "ln_final.hook_out",
}
_NO_DOWNLOADS = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", "UV_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}


class _EarlyStopError(Exception):
    """Raised by a hook when nothing that is still to come is wanted."""


@contextmanager
def without_downloads() -> Generator[None]:
    """Booting a bridge may start pip or ask the hub; inside, neither reaches anything. The environment is restored."""
    before = {name: os.environ.get(name) for name in _NO_DOWNLOADS}
    os.environ.update(_NO_DOWNLOADS)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _placeholder_tokenizer() -> Any:
    """One unknown word: the bridge wants a tokenizer to boot, and is only ever given token ids."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"?": 0}, unk_token="?"))
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?")


def _boot(model: PreTrainedModel) -> Any:
    from transformer_lens.model_bridge import TransformerBridge

    private = copy.deepcopy(model)
    private.set_attn_implementation("eager")
    fault = f"transformer_lens has no bridge for {type(model).__name__}"
    installed = version("torch")
    with without_downloads(), as_audit_error(fault, "use the native backend, which needs no list of families"):
        bridge: Any = TransformerBridge.boot_transformers(
            "in memory", hf_model=private, tokenizer=_placeholder_tokenizer(), dtype=model.dtype,
            device=str(model.device),
        )  # fmt: skip
    if version("torch") != installed:
        raise AuditError(
            f"booting a bridge replaced torch {installed} by {version('torch')}",
            f"install torch {installed} again, and use the native backend",
            ExitCode.INTEGRITY,
        )
    return bridge


class LensBridgeWrapper(Wrapper):
    """One model behind ``TransformerBridge``. Reads, writes, stops early; never resumes, never trains."""

    backend = "transformer_lens"
    attention = "eager"
    supports = frozenset({Op.READ, Op.WRITE, Op.STOP, Op.EMBEDS, Op.GRADIENT, Op.PATTERN, Op.CHANGE})

    def __init__(self, model: PreTrainedModel, attention: str = "default") -> None:
        if attention not in ("default", "eager"):
            raise AuditError(
                f"the transformer_lens backend runs eager attention only, not {attention!r}",
                "leave the attention implementation at its default, or use the native backend",
            )
        if modality_of(model.config.to_dict()) == "image+text":  # its boot would run pip where a processor fails
            raise AuditError(NO_BRIDGE, "use the native backend")
        unembedding: Any = model.get_output_embeddings()
        self.vocab_size = int(unembedding.weight.shape[0])
        self.name, self.device, self.dtype = type(model).__name__, model.device, model.dtype
        self._bridge = _boot(model)
        self._model: PreTrainedModel = self._bridge.original_model
        self._points: dict[str, Any] = self._bridge.hook_dict
        parts: set[Part] = {part for part, name in _HOOKS.items() if name.format(0) in self._points}
        size = self._bridge.cfg
        self.towers = text_tower(int(size.d_model), int(size.n_layers), {*parts, "logits"})
        if "pattern" not in self.parts:
            self.supports = self.supports - {Op.PATTERN}

    def _point(self, site: Site) -> Any:
        if site.part not in self.parts or (site.block is not None and site.block >= self.n_blocks):
            raise AuditError(
                f"the transformer_lens backend has no site {site} in this model",
                f"choose among {', '.join(sorted(self.parts))} of {self.n_blocks} blocks, or use the native backend",
            )
        return self._points[_HOOKS[site.part].format(site.block)]

    @contextmanager
    def _hooked(self, taps: Sequence[Tap], last: Any) -> Generator[None]:
        """Inside, the taps visit their sites and the pass ends at the hook point ``last``."""

        def visiting(tap: Tap) -> Callable[..., Tensor | None]:
            visit = written_in_place(tap.visit) if tap.site.part == "resid_mid" else tap.visit
            return lambda state, hook: visit(state)

        def stop(_state: Tensor, hook: Any) -> None:
            raise _EarlyStopError

        points = [(self._point(tap.site), visiting(tap)) for tap in taps] + [(last, stop)]
        try:
            for point, hook in points:
                point.add_hook(hook)
            yield
        finally:
            for point, _ in points:
                point.remove_hooks("fwd")

    def run_blocks(self, batch: Batch, taps: Sequence[Tap], resume: Resume | None, stop: Stop | None) -> None:
        """Run the blocks and the final norm, calling the taps. Raises AuditError for a part it does not have."""
        if resume is not None:
            raise AuditError(
                "the transformer_lens backend cannot resume from a block: the bridge always runs all blocks below",
                "use the native backend, or replace the state at that block instead",
            )
        last = None if stop is None else stop.block
        end = Site(part="final_in") if last is None else Site(part="resid_out", block=last)
        entry = {"input_ids": batch.ids} if batch.embeds is None else {"inputs_embeds": batch.embeds}
        blocks: Any = self._model.base_model
        with (
            logits_read_after(taps, self.head) as inside,
            self._hooked(inside, self._point(end)),
            suppress(_EarlyStopError),
        ):
            blocks(**entry, attention_mask=batch.mask.long(), use_cache=False)

    def embed(self, ids: Int[Tensor, "row pos"]) -> Float[Tensor, "row pos d"]:
        """Input embeddings, as ``Batch.embeds`` takes them."""
        return self._bridge.embed.original_component(ids)

    def norm(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch d"]:
        """The final norm, applied to residual states. The bridge's hooks on it stay silent."""
        return self._bridge.ln_final.original_component(states)

    def head(self, states: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logits of normed states, as the bridged model computes them."""
        return logits_of(self._model, states)

    def parameters(self) -> dict[str, Tensor]:
        """Never: the bridge splits fused projections into copies, so its parameters are not the checkpoint's."""
        raise AuditError(
            "the transformer_lens backend has no parameters by their checkpoint names",
            "use the native backend for whatever reads, trains or differentiates parameters",
        )

    def size_bytes(self) -> int:
        """Bytes of the bridge's parameters, its copies of split projections included."""
        return sum({p.data_ptr(): p.nbytes for p in self._model.parameters()}.values())
