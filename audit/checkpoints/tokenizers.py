"""Tokenizers of checkpoints: loaded from their folder alone, once a process, and held against one another."""

import json
import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from audit.checkpoints.folder import TOKENIZER_FILES, file_sha256
from audit.schema import AuditError

_SPECIAL = ("bos_token_id", "eos_token_id", "unk_token_id")


class TokenizerFiles(NamedTuple):
    """A tokenizer named by content: its folder, and the sha256 of each of its files."""

    folder: Path
    hashes: tuple[tuple[str, str], ...]


def tokenizer_files(folder: Path) -> TokenizerFiles:
    """The tokenizer files in a folder as they are now."""
    names = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
    return TokenizerFiles(folder, tuple((name, file_sha256(folder / name)) for name in names))


@lru_cache(maxsize=16)
def load_tokenizer(files: TokenizerFiles) -> Any:
    """The tokenizer in a folder; never fetched, never remote code. AuditError (code 2) if it cannot be loaded or does
    not tell which characters a token covers."""
    folder = files.folder
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # AutoTokenizer goes by the model's family and may rebuild a tokenizer that is none of that family's (another
    # pre-tokenizer, so other tokens); a folder that names no family's tokenizer means exactly its tokenizer.json.
    try:
        plain = _class_named(folder) in ("PreTrainedTokenizerFast", "TokenizersBackend")
        loader = PreTrainedTokenizerFast if plain else AutoTokenizer
        tokenizer: Any = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        do = "save it again beside the weights: AutoTokenizer....save_pretrained(folder)"
        raise AuditError(f"{folder}: its tokenizer cannot be loaded: {error}", do) from None
    if not getattr(tokenizer, "is_fast", False):
        raise AuditError(
            f"{folder}: its tokenizer does not tell which characters a token covers",
            "save a fast tokenizer (tokenizer.json) beside the weights: AutoTokenizer....save_pretrained(folder)",
        )
    return tokenizer


def _class_named(folder: Path) -> str:
    """The tokenizer class that the folder's tokenizer_config.json names; empty if it names none."""
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return ""
    return str(json.loads(path.read_text(encoding="utf-8")).get("tokenizer_class", ""))


def tokenizers_agree(first: TokenizerFiles, second: TokenizerFiles, texts: Sequence[str]) -> str | None:
    """Do two folders' tokenizers read the same? None if so, else where they differ.

    They agree if their files are equal, or if vocabulary, special tokens and the ids of all ``texts`` are. The padding
    token and the chat template may differ: neither is read from the other model.
    """
    if first.hashes == second.hashes:
        return None
    a, b = load_tokenizer(first), load_tokenizer(second)
    if (ours := a.get_vocab()) != (theirs := b.get_vocab()):
        odd = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
        return f"vocabularies of {len(ours)} and {len(theirs)} tokens, {len(odd)} of them differ ({odd[0]!r})"
    for name in _SPECIAL:
        if getattr(a, name) != getattr(b, name):
            return f"{name} is {getattr(a, name)} and {getattr(b, name)}"
    pairs = zip(texts, _ids(a, texts), _ids(b, texts), strict=True)
    return next((f"{text[:60]!r} gives other tokens" for text, x, y in pairs if x != y), None)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
