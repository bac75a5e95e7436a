"""The methods that are timed. Each returns what it was asked for, so that they can be compared before they are timed.

Every alternative gets its own best settings: no gradients, no cache of keys and values, no LM head where it can be left
out, an early stop where the library has one, and only the residual stream cached. A method is a function that opens the
model and returns a call of no arguments; the call is what is timed.

A call returns one tensor a block: [row d] for the ``last`` token and the masked ``mean``, [row pos d] for ``all``
positions; mode ``none`` is a forward that looks at nothing and returns nothing.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from audit.bench import Bench
from audit.case import Rows
from audit.checkpoints import folder_of
from audit.schema import Checkpoint, Positions, Read, Site

Mode = Literal["none", "last", "mean", "all"]
Call = Callable[[], list[Tensor]]


class Method(NamedTuple):
    """A method in one mode."""

    name: str
    mode: Mode

    def __str__(self) -> str:
        return self.name if self.mode == "none" else f"{self.name}, {self.mode}"


def pooled(states: list[Tensor], rows: Rows, mode: Mode) -> list[Tensor]:
    """The blocks' outputs [row pos d] as the mode wants them."""
    if mode == "all":
        return states
    if mode == "last":
        row, last = torch.arange(len(rows)), rows.lengths - 1
        return [h[row, last] for h in states]
    mask = rows.mask.unsqueeze(-1).float()
    return [(h * mask).sum(1) / mask.sum(1) for h in states]


def cached(states: list[Tensor], rows: Rows, mode: Mode) -> list[Tensor]:
    """What TransformerLens cached; it has cut out the last position itself, which is the last token of full rows."""
    if mode == "last":
        return [h.reshape(len(rows), -1) for h in states]
    return pooled(states, rows, mode)


def load(folder: Path) -> Any:
    """The model as transformers opens it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


@cache
def plain(folder: Path) -> Any:
    """One copy for all methods that leave the model as it is."""
    return load(folder)


@cache
def traced(folder: Path) -> Any:
    """nnsight around the base model of a copy of its own."""
    import nnsight

    return nnsight.NNsight(load(folder).base_model)


@cache
def bridged(folder: Path) -> Any:
    """TransformerBridge around a copy of its own."""
    from transformer_lens.model_bridge import TransformerBridge

    from audit.wrappers import without_downloads

    with without_downloads():
        return TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)


@cache
def hooked(folder: Path) -> Any:
    """HookedTransformer with the converted weights of a GPT-2."""
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights

    source = load(folder)
    has = source.config
    config = HookedTransformerConfig(
        n_layers=has.n_layer, d_model=has.n_embd, n_heads=has.n_head, d_head=has.n_embd // has.n_head,
        n_ctx=has.n_positions, d_vocab=has.vocab_size, act_fn="gelu_new", normalization_type="LN",
        eps=has.layer_norm_epsilon, use_attn_scale=True, default_prepend_bos=False, device="cpu",
    )  # fmt: skip
    model = HookedTransformer(config).eval()
    model.load_state_dict(convert_gpt2_weights(source, config), strict=False)
    return model


def blocks_alone(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """A bare forward of the blocks and the final norm: no LM head, nothing kept."""
    model = plain(folder_of(ckpt)).base_model

    @torch.inference_mode()
    def call() -> list[Tensor]:
        model(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False)
        return []

    return call


def full_logits(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """A bare forward with the logits of every position."""
    model = plain(folder_of(ckpt))

    @torch.inference_mode()
    def call() -> list[Tensor]:
        model(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False)
        return []

    return call


def bench(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """Ours: all residual sites in one pass, no store, the model already open."""
    at: Positions = "last" if mode == "none" else mode
    ours = Bench(token_budget=max(16_384, rows.ids.numel()))
    blocks = ours.open(ckpt).n_blocks
    reads = tuple(Read(site=Site(part="resid_out", block=b), at=at) for b in range(blocks))

    def call() -> list[Tensor]:
        states = ours.run(ckpt, rows, reads)
        return [states[read] for read in reads]

    return call


def hidden_states(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """``output_hidden_states`` of the base model. Its last entry is after the final norm, unlike everyone else's."""
    model = plain(folder_of(ckpt)).base_model

    @torch.inference_mode()
    def call() -> list[Tensor]:
        out = model(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False, output_hidden_states=True)
        return pooled(list(out.hidden_states[1:]), rows, mode)

    return call


def transformer_bridge(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """TransformerBridge, caching the residual stream alone, in inference mode. It always runs eager attention."""
    bridge = bridged(folder_of(ckpt))
    names = [f"blocks.{b}.hook_resid_post" for b in range(bridge.cfg.n_layers)]

    @torch.inference_mode()
    def call() -> list[Tensor]:
        _, cache = bridge.run_with_cache(
            rows.ids, attention_mask=rows.mask, names_filter=names, return_type=None, return_cache_object=False,
            logits_to_keep=1, use_cache=False, pos_slice=-1 if mode == "last" else None,
        )  # fmt: skip
        return cached([cache[name] for name in names], rows, mode)

    return call


def hooked_transformer(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """HookedTransformer with converted weights, stopped before the unembedding."""
    model = hooked(folder_of(ckpt))
    names = [f"blocks.{b}.hook_resid_post" for b in range(model.cfg.n_layers)]

    @torch.inference_mode()
    def call() -> list[Tensor]:
        _, cache = model.run_with_cache(
            rows.ids, names_filter=names, return_type=None, stop_at_layer=model.cfg.n_layers, return_cache_object=False,
            pos_slice=-1 if mode == "last" else None,
        )  # fmt: skip
        return cached([cache[name] for name in names], rows, mode)

    return call


def nnsight_trace(ckpt: Checkpoint, rows: Rows, mode: Mode) -> Call:
    """nnsight on the base model: pooled inside the trace, so that whole states need not be kept."""
    import nnsight

    model = traced(folder_of(ckpt))
    blocks = len(model.h)
    row, last, mask = torch.arange(len(rows)), rows.lengths - 1, rows.mask.unsqueeze(-1).float()

    @torch.inference_mode()
    def call_last() -> list[Tensor]:
        with model.trace(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False):
            states = nnsight.save([])
            for b in range(blocks):
                states.append(model.h[b].output[row, last])
        return states

    @torch.inference_mode()
    def call_mean() -> list[Tensor]:
        with model.trace(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False):
            states = nnsight.save([])
            for b in range(blocks):
                states.append((model.h[b].output * mask).sum(1) / mask.sum(1))
        return states

    @torch.inference_mode()
    def call_all() -> list[Tensor]:
        with model.trace(input_ids=rows.ids, attention_mask=rows.mask, use_cache=False):
            states = nnsight.save([])
            for b in range(blocks):
                states.append(model.h[b].output)
        return states

    return {"last": call_last, "mean": call_mean, "all": call_all, "none": call_last}[mode]


OPENERS: dict[str, Callable[[Checkpoint, Rows, Mode], Call]] = {
    "blocks alone": blocks_alone,
    "full logits": full_logits,
    "our bench": bench,
    "output_hidden_states": hidden_states,
    "nnsight": nnsight_trace,
    "TransformerBridge": transformer_bridge,
    "HookedTransformer": hooked_transformer,
}
OURS, BARE, LOGITS = "our bench", "blocks alone", "full logits"
MODES: dict[str, tuple[Mode, ...]] = {  # a forward that looks at nothing has no mode; the slow ones are timed in one
    BARE: ("none",),
    LOGITS: ("none",),
    "nnsight": ("last", "mean"),
    "TransformerBridge": ("last",),
    "HookedTransformer": ("last",),
}


def methods(modes: tuple[Mode, ...]) -> list[Method]:
    """Every method in every mode asked for, as far as it is timed in that mode."""
    requested: tuple[Mode, ...] = ("none", *modes)
    everywhere: tuple[Mode, ...] = ("last", "mean", "all")
    return [Method(name, mode) for name in OPENERS for mode in requested if mode in MODES.get(name, everywhere)]


def disagreement(result: list[Tensor], expected: list[Tensor]) -> float:
    """Largest difference from ``expected``, the last block left out (``output_hidden_states`` has it normed)."""
    if [h.shape for h in result] != [h.shape for h in expected]:
        raise ValueError(f"shapes differ: {[tuple(h.shape) for h in result]}, {[tuple(h.shape) for h in expected]}")
    return max(float((a - b).abs().max()) for a, b in zip(result[:-1], expected[:-1], strict=True))
