"""What a model's vocabulary gives to a search: its embeddings, which of them may be used, and how long a row may be."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from audit.case import Rows
from audit.checkpoints import load_tokenizer, model_config, tokenizer_files, tokenizer_folder
from audit.schema import AuditError, Checkpoint
from audit.wrappers import Wrapper

_AT_ONCE = 4096


class Vocabulary(NamedTuple):
    """The embeddings of all tokens as inputs take them, and the tokens that a search may use. ``entry``: the typical
    size of one number of an embedding, in which steps are taken; ``longest``: the largest norm of an embedding."""

    table: Float[Tensor, "vocab d"]
    free: Int[Tensor, " token"]
    entry: float
    longest: float


def vocabulary_of(wrapper: Wrapper, ckpt: Checkpoint, banned: Int[Tensor, " token"] | None = None) -> Vocabulary:
    """The vocabulary of an open model. AuditError where ``banned`` and special tokens leave nothing."""
    with torch.no_grad():
        ids = torch.arange(wrapper.vocab_size, device=wrapper.device)
        table = torch.cat([wrapper.embed(part[None])[0] for part in ids.split(_AT_ONCE)])
        table = table.to(torch.promote_types(table.dtype, torch.float32))
    allowed = ~special_tokens(wrapper, ckpt)
    if banned is not None:
        allowed[banned.long().cpu()] = False
    free = allowed.nonzero().flatten()
    if not len(free):
        raise AuditError("no token of the vocabulary may be used", "ban fewer")
    norms = table[free.to(table.device)].norm(dim=1)
    return Vocabulary(table, free, float(norms.median()) / table.shape[1] ** 0.5, float(norms.max()))


def special_tokens(wrapper: Wrapper, ckpt: Checkpoint) -> Bool[Tensor, " vocab"]:
    """Tokens that no text is made of: the tokenizer's special ones, and rows beyond its vocabulary; of a checkpoint
    without a tokenizer none."""
    special = torch.zeros(wrapper.vocab_size, dtype=torch.bool)
    folder = tokenizer_folder(ckpt)
    if folder is not None:
        tokenizer = load_tokenizer(tokenizer_files(folder))
        special[[n for n in tokenizer.all_special_ids if n < len(special)]] = True
        special[len(tokenizer) :] = True
    return special


def check_context(ckpt: Checkpoint, rows: Rows, added: int) -> None:
    """AuditError where rows with so many more tokens are longer than the model takes."""
    context, longest = model_config(ckpt).context, max(rows.lengths.tolist(), default=0)
    if context is not None and longest + added > context:
        raise AuditError(
            f"a row of {longest} tokens with {added} more is longer than the {context} that {ckpt.source} takes",
            "search with fewer tokens, or leave out the longest items",
        )


def nearest_tokens(vocabulary: Vocabulary, prefix: Float[Tensor, "n d"]) -> Int[Tensor, " n"]:
    """The usable token of the largest cosine with each virtual token: their norms say how strongly a direction is
    meant, and would draw a long vector to whichever token is longest."""
    free = vocabulary.free.to(vocabulary.table.device)
    table = functional.normalize(vocabulary.table[free], dim=1)
    near = functional.normalize(prefix.to(table), dim=1) @ table.T
    return free[near.argmax(1)].cpu()


def check_places(rows: Rows, at: Int[Tensor, " row"] | str, slot: str) -> None:
    """AuditError where there are no rows, or a place is none between a row's first token and its answer."""
    if not len(rows):
        raise AuditError("a search needs rows", "give rows to search on and rows to choose by")
    if isinstance(at, str):
        return
    if len(at) != len(rows) or bool((at < 0).any()) or bool((at.cpu() > rows.answer_spans[:, 0]).any()):
        raise AuditError(
            f"{slot}: {len(at)} places for {len(rows)} rows, or one outside a prompt",
            "give the position of each row, up to the first token of its answer",
        )
