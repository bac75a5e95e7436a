"""Templates of attacks by rewording: read from files, one a family, checked before anything is asked.

A file is TOML: ``family``, ``about``, ``cite``, and ``[[attack]]`` tables with a ``name``, a ``question`` that holds
``{question}``, and optionally an ``answer`` (``{answer}`` or ``{key}`` in words of its own), a ``rewrite`` of the
letters, a table ``replace`` of words, and ``example`` with ``shots`` where the question holds ``{examples}``. Files of
this kind beside the probes come with them; a case names more.
"""

import hashlib
import re
import string
import tomllib
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Final, Literal

from pydantic import Field, StringConstraints, ValidationError

from audit.probing import AuditError, Record, as_audit_error

FOLDER: Final = Path(__file__).parent / "attacks"
FORMAT: Final = "see probes/attacks/ for files of this kind"
PLAIN_ANSWER: Final = "{answer}"
_LEET: Final = str.maketrans("aeiostAEIOST", "431057431057")
REWRITES: Final[Mapping[str, Callable[[str], str]]] = MappingProxyType(
    {"upper": str.upper, "lower": str.lower, "leet": lambda text: text.translate(_LEET)}
)
"""What happens to the letters of the question and of every answer alike."""
Word = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*$")]
Filled = Annotated[str, StringConstraints(min_length=1)]


class AttackTemplate(Record):
    """One attack: how a question and its answer are put. ``shots``: so many ``example`` lines stand for
    ``{examples}``."""

    name: Word
    question: Filled
    answer: Filled = PLAIN_ANSWER
    rewrite: Literal["upper", "lower", "leet"] | None = None
    replace: dict[Filled, Filled] = {}
    example: str = ""
    shots: Annotated[int, Field(ge=0, le=16)] = 0

    def asked(self, question: str, examples: Sequence[tuple[str, str]]) -> str:
        """The question under attack; ``examples`` are questions and answers of others."""
        for word, other in self.replace.items():
            question = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", lambda _, other=other: other, question)
        lines = (self.example.format(question=each, answer=answer) for each, answer in examples[: self.shots])
        return self._rewritten(self.question.format(question=question, examples=" ".join(lines)))

    def said(self, answer: str, key: str | None) -> tuple[str, str | None]:
        """An answer under attack, and its key there. Without a key the whole answer is the key, where the answer has
        words of the template's beside it."""
        if self.answer == PLAIN_ANSWER:
            return self._rewritten(answer), None if key is None else self._rewritten(key)
        value = answer if key is None else key
        return self._rewritten(self.answer.format(answer=answer, key=value)), self._rewritten(value)

    @property
    def changes_nothing(self) -> bool:
        """Is the question as it was, unless a word of it is replaced?"""
        return self.question == "{question}" and self.answer == PLAIN_ANSWER and self.rewrite is None

    def _rewritten(self, text: str) -> str:
        return text if self.rewrite is None else REWRITES[self.rewrite](text)


class AttackFamily(Record):
    """The attacks of one file, whose idea they are, and the hash of the file."""

    family: Word
    about: Filled
    cite: str = ""
    attack: Annotated[tuple[AttackTemplate, ...], Field(min_length=1)]
    sha256: str = ""


def read_families(folder: Path, more: Sequence[str], root: Path) -> tuple[AttackFamily, ...]:
    """The families of a folder in the order of their names, then those of ``more`` files, relative to ``root``.

    AuditError (code 2) says which file is amiss and how; a family may be given once.
    """
    paths = [*sorted(folder.glob("*.toml")), *(root / Path(name).expanduser() for name in more)]
    families = [_read(path, path.stat().st_mtime_ns if path.is_file() else 0) for path in paths]
    seen: dict[str, Path] = {}
    for path, family in zip(paths, families, strict=True):
        if family.family in seen:
            problem = f"{path}: the family {family.family!r} is that of {seen[family.family]} too"
            raise AuditError(problem, "give it a name of its own")
        seen[family.family] = path
    return tuple(families)


@lru_cache(maxsize=64)
def _read(path: Path, changed: int) -> AttackFamily:
    """One file, as it was when it was last ``changed``."""
    with as_audit_error(f"{path}: the attacks cannot be read", "give a readable TOML file; " + FORMAT):
        data = path.read_bytes()
    try:
        family = AttackFamily.model_validate(tomllib.loads(data.decode("utf-8-sig")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise AuditError(f"{path}: no TOML ({error})", FORMAT) from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise AuditError(f"{path}: {where or 'the file'}: {first['msg']}", FORMAT) from None
    names = [attack.name for attack in family.attack]
    if twice := [name for name in names if names.count(name) > 1]:
        raise AuditError(f"{path}: two attacks are called {twice[0]!r}", "give each a name of its own")
    for attack in family.attack:
        _check(attack, f"{path}: attack {attack.name!r}")
    return family.model_copy(update={"sha256": hashlib.sha256(data).hexdigest()})


def _check(attack: AttackTemplate, where: str) -> None:
    """Placeholders that there are, no answer in a question, and something that differs from asking."""
    question = _placeholders(attack.question, {"question", "examples"}, f"{where}: question")
    answer = _placeholders(attack.answer, {"answer", "key"}, f"{where}: answer")
    example = _placeholders(attack.example, {"question", "answer"}, f"{where}: example")
    if "question" not in question:
        raise AuditError(f"{where}: its question does not hold {{question}}", FORMAT)
    if len(answer) != 1:
        raise AuditError(f"{where}: its answer holds neither {{answer}} nor {{key}} alone", FORMAT)
    if ("examples" in question) != (attack.shots > 0) or (attack.shots > 0) != ({"question", "answer"} == set(example)):
        do = "give {examples} in the question, `shots`, and an `example` with {question} and {answer}, or none of them"
        raise AuditError(f"{where}: its examples are not told in full", do)
    if attack.changes_nothing and not attack.replace:
        raise AuditError(f"{where}: it asks the question as it is", "say what it changes")


def _placeholders(text: str, allowed: set[str], where: str) -> list[str]:
    try:
        parts = [(name, form, how) for _, name, form, how in string.Formatter().parse(text) if name is not None]
    except ValueError as error:
        raise AuditError(f"{where}: {error}", "write {{ and }} for braces") from None
    for name, form, how in parts:
        if name not in allowed or form or how:
            known = ", ".join(f"{{{each}}}" for each in sorted(allowed))
            raise AuditError(
                f"{where}: {{{name}}} stands for nothing", f"it may hold {known}; {{{{ and }}}} are braces"
            )
    return [name for name, _, _ in parts]
