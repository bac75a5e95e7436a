"""What a verb of the command line has to say, to people and to programs."""

from collections.abc import Mapping
from typing import NamedTuple

from rich.console import RenderableType

from audit.schema import ExitCode

JsonValue = str | int | float | bool | None | list["JsonValue"] | dict[str, "JsonValue"]


class Answer(NamedTuple):
    """What a verb has to say: one JSON object, the same for people, and the exit code."""

    document: Mapping[str, JsonValue]
    shown: tuple[RenderableType, ...]
    exit_code: int = ExitCode.OK
