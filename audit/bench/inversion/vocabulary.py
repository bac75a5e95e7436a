"""What a model's vocabulary gives to a search: its embeddings, which of them may be used, and how long a row may be."""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from audit.bench.inversion.climb import Ball
from audit.case import Rows
from audit.checkpoints import load_tokenizer, model_config, tokenizer_files, tokenizer_folder
from audit.schema import AuditError, Checkpoint
from audit.wrappers import Wrapper

_AT_ONCE = 4096


class Vocabulary(NamedTuple):
    """The embeddings of all tokens as inputs take them, the tokens that a search may use, and how long those are.

    ``tokenizer``: the checkpoint's own, None where it came without one.
    """

    table: Float[Tensor, "vocab d"]
    free: Int[Tensor, " token"]
    ball: Ball
    tokenizer: Any

    def embedded(self, ids: Int[Tensor, "*any"]) -> Float[Tensor, "*any d"]:
        """Embeddings of tokens."""
        return self.table[ids.to(self.table.device)]

    def spelled(self, ids: Int[Tensor, " n"]) -> bool:
        """Do these tokens, written as text, become the same tokens again? Yes without a tokenizer. (Other words beside
        them may still change them: what is said of a string is measured on the text itself.)"""
        if self.tokenizer is None:
            return True
        text = self.tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False)
        return self.tokenizer.encode(text, add_special_tokens=False) == ids.tolist()

    def first_token(self, rows: Rows) -> int:
        """What texts begin with: the tokenizer's first token, or that of the rows where it has none."""
        own = getattr(self.tokenizer, "bos_token_id", None)
        return int(rows.ids[0, 0]) if own is None else int(own)


def vocabulary_of(wrapper: Wrapper, ckpt: Checkpoint, banned: Int[Tensor, " token"] | None = None) -> Vocabulary:
    """The vocabulary of an open model; special tokens and ``banned`` ones are not free. AuditError where none is."""
    with torch.no_grad():
        ids = torch.arange(wrapper.vocab_size, device=wrapper.device)
        table = torch.cat([wrapper.embed(part[None])[0] for part in ids.split(_AT_ONCE)])
        table = table.to(torch.promote_types(table.dtype, torch.float32))
    folder = tokenizer_folder(ckpt)
    tokenizer = None if folder is None else load_tokenizer(tokenizer_files(folder))
    allowed = ~special_tokens(wrapper.vocab_size, tokenizer)
    if wrapper.image_token is not None and wrapper.image_token < wrapper.vocab_size:
        allowed[wrapper.image_token] = False
    if banned is not None:
        allowed[banned.long().cpu()] = False
    free = allowed.nonzero().flatten()
    if not len(free):
        raise AuditError("no token of the vocabulary may be used", "ban fewer")
    norms = table[free.to(table.device)].norm(dim=1)
    ball = Ball(float(norms.median()) / table.shape[1] ** 0.5, float(norms.max()))
    return Vocabulary(table, free, ball, tokenizer)


def special_tokens(n: int, tokenizer: Any) -> Bool[Tensor, " vocab"]:
    """Tokens that no text is made of: the tokenizer's special ones, and embeddings beyond its vocabulary."""
    special = torch.zeros(n, dtype=torch.bool)
    if tokenizer is not None:
        special[[token for token in tokenizer.all_special_ids if token < n]] = True
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
    """AuditError where a place is none between a row's first token and its answer."""
    if isinstance(at, str):
        return
    if len(at) != len(rows) or bool((at < 0).any()) or bool((at.cpu() > rows.answer_spans[:, 0]).any()):
        raise AuditError(
            f"{slot}: {len(at)} places for {len(rows)} rows, or one outside a prompt",
            "give the position of each row, up to the first token of its answer",
        )
