"""Tokenizers of checkpoints: loaded from their folder alone, once a process, and held against one another."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from audit.checkpoints.code_beside import named_code
from audit.checkpoints.folder import file_sha256, read_json, tokenizer_names
from audit.checkpoints.staging import opening, staged_links
from audit.schema import AuditError, as_audit_error

_SPECIAL = ("bos_token_id", "eos_token_id", "unk_token_id")
_SAVED = "AutoTokenizer....save_pretrained(folder)"


class TokenizerFiles(NamedTuple):
    """A tokenizer named by content: its folder, and the sha256 of each of its files."""

    folder: Path
    hashes: tuple[tuple[str, str], ...]


def tokenizer_files(folder: Path) -> TokenizerFiles:
    """The tokenizer files in a folder as they are now."""
    return TokenizerFiles(folder, tuple((name, file_sha256(folder / name)) for name in tokenizer_names(folder)))


@lru_cache(maxsize=16)
def load_tokenizer(files: TokenizerFiles) -> Any:
    """The tokenizer in a folder; never fetched, never remote code. One whose settings name code of its own is opened by
    the class that transformers has under its name, else as its tokenizer.json says.

    AuditError (code 2) if it cannot be loaded, if only that code would make it, or if it does not tell which characters
    a token covers.
    """
    folder = files.folder
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    # AutoTokenizer goes by the model's family and may rebuild a tokenizer that is none of that family's (another
    # pre-tokenizer, so other tokens); a folder that names no family's tokenizer means exactly its tokenizer.json.
    plain = _class_named(folder) in ("PreTrainedTokenizerFast", "TokenizersBackend") or _by_own_code(folder)
    loader = PreTrainedTokenizerFast if plain else AutoTokenizer
    names = ("config.json", *(name for name, _ in files.hashes))
    fault, do = f"{folder}: its tokenizer cannot be loaded", "save it again beside the weights: " + _SAVED
    with staged_links(folder, names) as stage, opening(folder, stage, fault, do):
        tokenizer: Any = loader.from_pretrained(stage, local_files_only=True, trust_remote_code=False)
    tokenizer.name_or_path = str(folder)
    if not getattr(tokenizer, "is_fast", False):
        raise AuditError(
            f"{folder}: its tokenizer does not tell which characters a token covers",
            f"save a fast tokenizer (tokenizer.json) beside the weights: {_SAVED}",
        )
    return tokenizer


def _by_own_code(folder: Path) -> bool:
    """Is the tokenizer's class code of its own, and everything that it says in tokenizer.json too? AuditError (code 2)
    where only that code would make the tokenizer."""
    code = named_code(folder).get("tokenizer_config.json")
    if code is None:
        return False
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    called = str(read_json(folder / "tokenizer_config.json").get("tokenizer_class", ""))
    if not (folder / "tokenizer.json").is_file():
        raise AuditError(
            f"{folder / 'tokenizer_config.json'}: the tokenizer ({called or 'without a class name'}) is made by code "
            f"of its own ({code}), which is never run here, and there is no tokenizer.json",
            f"save a fast tokenizer (tokenizer.json) beside the weights on a machine you can lose: {_SAVED}",
        )
    return not called or tokenizer_class_from_name(called) is None


def _class_named(folder: Path) -> str:
    """The tokenizer class that the folder's tokenizer_config.json names; empty if it names none."""
    path = folder / "tokenizer_config.json"
    if not path.is_file() or not (folder / "tokenizer.json").is_file():
        return ""
    return str(read_json(path).get("tokenizer_class", ""))


def tokenizers_agree(first: TokenizerFiles, second: TokenizerFiles, texts: Sequence[str]) -> str | None:
    """Do two folders' tokenizers read the same? None if so, else where they differ.

    They agree if their files are equal, or if vocabulary, special tokens and the ids of all ``texts`` are. The padding
    token and the chat template may differ: neither is read from the other model. So may tokens behind the vocabulary
    that both share, as long as no text uses one.
    """
    if first.hashes == second.hashes:
        return None
    a, b = load_tokenizer(first), load_tokenizer(second)
    ours, theirs = a.get_vocab(), b.get_vocab()
    shared = {ours[token] for token in ours.keys() & theirs.keys() if ours[token] == theirs[token]}
    odd = sorted(token for token in ours.keys() | theirs.keys() if ours.get(token) != theirs.get(token))
    last = max(shared, default=-1)
    if any(vocabulary.get(token, last + 1) <= last for token in odd for vocabulary in (ours, theirs)):
        return f"vocabularies of {len(ours)} and {len(theirs)} tokens, {len(odd)} of them differ ({odd[0]!r})"
    for name in _SPECIAL:
        if getattr(a, name) != getattr(b, name):
            return f"{name} is {getattr(a, name)} and {getattr(b, name)}"
    pairs = zip(texts, _ids(a, texts), _ids(b, texts), strict=True)
    return next((f"{text[:60]!r} gives other tokens" for text, x, y in pairs if x != y), None)


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    fault = f"{tokenizer.name_or_path}: its tokenizer cannot read the items"
    with as_audit_error(fault, "check the data and the tokenizer's files"):
        return tokenizer(list(texts), verbose=False)["input_ids"] if texts else []
