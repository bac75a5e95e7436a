"""A model with the first rows of its vocabulary alone: embeddings and output head cut, in place and without a copy."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError

_CLOSE = 1e-3
_DO = "bring both models to one vocabulary: model.resize_token_embeddings(n), save_pretrained(new_folder)"


def cut_vocabulary(model: PreTrainedModel, rows: int, source: str) -> None:
    """Cut a model's vocabulary to its first ``rows`` tokens; tied weights stay tied, and no logit that is left moves.

    AuditError (code 2) where embeddings or head lie elsewhere (offloaded), or the logits left would be others.
    """
    ids = torch.arange(4)[None] % rows
    before = None if next(model.parameters()).is_meta else _logits(model, ids)
    _cut(model, rows, source)
    for config in {id(c): c for c in (model.config, model.config.get_text_config(decoder=True))}.values():
        if hasattr(config, "vocab_size"):
            cast("Any", config).vocab_size = rows
    if before is not None:
        after, kept = _logits(model, ids), before[..., :rows]
        scale = float(kept.abs().max()) + torch.finfo(torch.float32).tiny
        if after.shape != kept.shape or float((after - kept).abs().max()) > _CLOSE * scale:
            raise AuditError(f"{source}: its vocabulary cannot be cut to {rows} rows: other logits move", _DO)


def _cut(model: PreTrainedModel, rows: int, source: str) -> None:
    """Weights and biases of embeddings and head, by the rows of their first axis."""
    parts: dict[int, nn.Parameter] = {}
    whole = all(parameter.is_meta for parameter in model.parameters())
    for module in (model.get_input_embeddings(), model.get_output_embeddings()):
        for name in ("weight", "bias"):
            old = getattr(module, name, None)
            if not isinstance(old, nn.Parameter) or len(old) <= rows:
                continue
            if old.is_meta and not whole:
                problem = f"{source}: its vocabulary has more than the {rows} rows that count, and lies offloaded"
                raise AuditError(problem, f"open it where it fits, or {_DO}")
            if id(old) not in parts:
                parts[id(old)] = nn.Parameter(old.detach()[:rows], requires_grad=old.requires_grad)
            setattr(module, name, parts[id(old)])
        _resize(module, rows)


def _resize(module: Any, rows: int) -> None:
    """What a module says of its own size."""
    for name in ("num_embeddings", "out_features"):
        if isinstance(size := getattr(module, name, None), int) and size > rows:
            setattr(module, name, rows)
    if isinstance(place := getattr(module, "padding_idx", None), int) and place >= rows:
        module.padding_idx = None


def _logits(model: PreTrainedModel, ids: Tensor) -> Tensor:
    with torch.inference_mode():
        where = model.get_input_embeddings().get_parameter("weight").device
        out: Any = model(input_ids=ids.to(where), attention_mask=torch.ones_like(ids).to(where), use_cache=False)
        return out.logits.float()
