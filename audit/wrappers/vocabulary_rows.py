"""A model with the first rows of its vocabulary alone: embeddings and output head cut, in place and without a copy."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from audit.schema import AuditError, as_audit_error
from audit.wrappers.tracing import close

_DO = "bring both models to one vocabulary: model.resize_token_embeddings(n), save_pretrained(new_folder)"


def cut_vocabulary(model: PreTrainedModel, rows: int, source: str) -> None:
    """Cut a model's vocabulary to its first ``rows`` tokens; tied weights stay tied, and no logit that is left moves.

    A model without any values (on the device ``meta``) is cut too. AuditError (code 2) where embeddings or head are
    offloaded or spread over processes, or the logits left would be others.
    """
    longer = _longer(model, rows)
    if not longer:
        return
    empty = all(parameter.is_meta for parameter in model.parameters())
    if not empty and any(old.is_meta or hasattr(old, "full_tensor") for _, _, old in longer):
        problem = f"{source}: its vocabulary has more than the {rows} rows that count, and does not lie here as a whole"
        raise AuditError(problem, f"open it on one device that holds it, or {_DO}")
    ids = torch.arange(4)[None] % rows
    before = None if empty else _logits(model, ids)
    parts: dict[int, nn.Parameter] = {}
    for module, name, old in longer:
        if id(old) not in parts:
            parts[id(old)] = nn.Parameter(old.detach()[:rows], requires_grad=old.requires_grad)
        setattr(module, name, parts[id(old)])
        _resize(module, rows)
    for config in {id(c): c for c in (model.config, model.config.get_text_config(decoder=True))}.values():
        if hasattr(config, "vocab_size"):
            cast("Any", config).vocab_size = rows
    if before is not None:
        with as_audit_error(f"{source}: the model does not run once its vocabulary is cut to {rows} rows", _DO):
            after = _logits(model, ids)
        if not close(after, before[..., :rows]):
            raise AuditError(f"{source}: its vocabulary cannot be cut to {rows} rows: other logits move", _DO)


def _longer(model: PreTrainedModel, rows: int) -> list[tuple[nn.Module, str, nn.Parameter]]:
    """Weights and biases of embeddings and head with more rows than that."""
    modules = [part for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part is not None]
    parameters = [(module, name, getattr(module, name, None)) for module in modules for name in ("weight", "bias")]
    return [(module, name, p) for module, name, p in parameters if isinstance(p, nn.Parameter) and len(p) > rows]


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
        return out.logits
