"""Models of one architecture whose vocabularies have other sizes: the rows that all of them have are what counts.

Rows are added to a vocabulary for a padding token or for the sake of a round number; nothing that a case asks needs
them (a text with such a token is refused). Left in, they would take a share of every softmax of one model and not of
the other, and embeddings and heads could not be held against one another. They are cut off of every model that has
them, base as any other, before anything is computed: probabilities are those among the tokens that all models know.
"""

from collections.abc import Mapping

from audit.checkpoints.config import model_config
from audit.checkpoints.float_copies import weights_folder
from audit.checkpoints.released_files import released_config
from audit.checkpoints.staging import library_config
from audit.schema import AuditError, Checkpoint

_PICTURES = ("image_token_id", "image_token_index", "boi_token_index", "eoi_token_index")


def shared_vocabulary(ckpts: Mapping[str, Checkpoint]) -> tuple[int | None, str]:
    """How many rows the models have in common (by role), and what is to be said of it; None and nothing where all have
    the same number. AuditError (code 2) where a token that stands for an image would be cut off."""
    known = {role: size for role, ckpt in ckpts.items() if (size := _size(ckpt)) is not None}
    if len(set(known.values())) < 2:
        return None, ""
    rows = min(known.values())
    if rows < 1:
        role = next(role for role, size in known.items() if size == rows)
        raise AuditError(
            f"{role}: {ckpts[role].source}: a vocabulary of {rows} rows", "correct vocab_size in its config.json"
        )
    for role, ckpt in ckpts.items():
        if ckpt.modality == "image+text":
            _check_pictures(role, ckpt, rows)
    stated = ", ".join(f"{role} {size}" for role, size in known.items())
    return rows, (
        f"vocabulary: the models have different numbers of rows ({stated}); the first {rows} count, and those behind "
        "them are cut off of embeddings and output head in every model that has them, so that probabilities are those "
        "among the tokens that all models know"
    )


def cut_to(ckpt: Checkpoint, rows: int | None) -> Checkpoint:
    """The checkpoint with so many rows of its vocabulary, where it has more."""
    size = None if rows is None else _size(ckpt)
    return ckpt if size is None or rows is None or size <= rows else ckpt.model_copy(update={"vocabulary": rows})


def _size(ckpt: Checkpoint) -> int | None:
    """How many rows a model's vocabulary has, by its config or by its architecture's default; None for images."""
    if ckpt.modality == "image":
        return None
    stated = model_config(ckpt).vocabulary
    if stated is not None:
        return stated
    return getattr(library_config(weights_folder(ckpt)).get_text_config(decoder=True), "vocab_size", None)


def _check_pictures(role: str, ckpt: Checkpoint, rows: int) -> None:
    config = released_config(ckpt)
    for name in _PICTURES:
        token = config.get(name)
        if isinstance(token, int) and token >= rows:
            raise AuditError(
                f"{role} ({ckpt.source}): {name} = {token} lies behind the {rows} tokens that all models have",
                "audit models with the same vocabulary",
            )
