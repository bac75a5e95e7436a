"""A model card: what its front matter says of a model's descent and data, and what it says in words."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from audit.schema import as_audit_error

CARD: Final = "README.md"


class ModelCard(NamedTuple):
    """``base_models``, ``relation`` (finetune, adapter, quantized, merge) and ``datasets`` as on the hub; ``words`` is
    the text below the front matter."""

    base_models: tuple[str, ...] = ()
    relation: str = ""
    datasets: tuple[str, ...] = ()
    words: str = ""


def read_card(folder: Path) -> ModelCard:
    """The card in a folder; an empty one where there is none. AuditError (code 2) if its front matter is no YAML."""
    path = folder / CARD
    if not path.is_file():
        return ModelCard()
    from huggingface_hub import metadata_load

    with as_audit_error(
        f"{path}: its front matter cannot be read", "correct the YAML between the lines of three dashes"
    ):
        loaded: object = metadata_load(path)
        text = path.read_text(encoding="utf-8", errors="replace")
    front: Mapping[str, object] = loaded if isinstance(loaded, dict) else {}
    words = text.partition("\n---\n")[2] if front else text
    relation = front.get("base_model_relation")
    return ModelCard(
        _texts(front.get("base_model")), relation if isinstance(relation, str) else "", _texts(front.get("datasets")),
        words,
    )  # fmt: skip


def _texts(value: object) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    return tuple(text.strip() for text in listed if isinstance(text, str) and text.strip())
