"""A classifier of images that is a plain module of torch: what its config.json says of it.

``module`` is an architecture that ships with the workbench, or ``package.module:factory``, which is code that would
run. ``blocks`` names the submodules that hand the stream on, in their order; ``head`` the last linear one. ``stream``
is ``map`` ([row channel height width], of which the head reads the mean) or ``tokens`` ([row pos d]); of tokens
``summary`` says which the head reads, the one at 0 or the ``mean``, after ``norm`` where one is named.
"""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, StringConstraints, ValidationError, model_validator

from audit.checkpoints.folder import read_config
from audit.schema import AuditError, Record

TORCH_MODULE: Final = "torch_module"
"""The ``model_type`` of such a checkpoint."""
Name = Annotated[str, StringConstraints(min_length=1)]
Length = Annotated[int, Field(ge=1, strict=True)]


class ModuleSettings(Record):
    """How a module of torch is built, and which of its submodules are which. Other entries of config.json are not its.

    ``leading``: how many positions of tokens stand before the patches; None: the summary alone.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    module: Name
    arguments: dict[str, JsonValue] = {}
    blocks: Annotated[tuple[Name, ...], Field(min_length=1)]
    head: Name
    norm: Name | None = None
    stream: Literal["map", "tokens"]
    summary: Literal[0, "mean"] | None = None
    leading: Annotated[int, Field(ge=0, strict=True)] | None = None
    num_channels: Length
    image_size: Length | tuple[Length, Length]

    @property
    def names_code(self) -> bool:
        """Does it name code of the user's own, to be imported?"""
        return ":" in self.module

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        twice = sorted({name for name in self.blocks if self.blocks.count(name) > 1})
        within = [name for name in self.blocks for outer in self.blocks if name.startswith(f"{outer}.")]
        if twice or within:
            stands = f"{twice[0]!r} twice" if twice else f"{within[0]!r}, which lies in another of them"
            raise ValueError(f"`blocks` names {stands}")
        if self.stream == "map" and (self.summary == 0 or self.norm is not None or self.leading is not None):
            raise ValueError("of a `map` the head reads the mean: `summary`, `norm` and `leading` are of tokens")
        if self.stream == "tokens" and self.summary is None:
            raise ValueError('`summary` is missing: which of the tokens does the head read, 0 or "mean"?')
        return self


def module_settings(config: Mapping[str, object], where: Path) -> ModuleSettings:
    """The settings in a config. AuditError (code 2) lists what is wrong with them; ``where`` is the file."""
    try:
        return ModuleSettings.model_validate(dict(config))
    except ValidationError as error:
        faults = dict.fromkeys(_fault(e["loc"], e["type"], e["msg"]) for e in error.errors())
        raise AuditError(
            f"{where}: {'; '.join(faults)}",
            "say `module`, `blocks`, `head`, `stream`, `num_channels`, `image_size` and, of tokens, `summary`",
        ) from None


def _fault(loc: tuple[int | str, ...], kind: str, message: str) -> str:
    name = str(loc[0]) if loc else ""
    if kind == "missing":
        return f"`{name}` is missing"
    words = message.removeprefix("Value error, ")
    return f"`{name}`: {words[0].lower()}{words[1:]}" if name else words


def settings_in(folder: Path) -> ModuleSettings | None:
    """The settings of a checkpoint folder; None where it holds a model of another type. AuditError (code 2): broken."""
    config = read_config(folder)
    return module_settings(config, folder / "config.json") if config.get("model_type") == TORCH_MODULE else None


@lru_cache(maxsize=1)
def module_config_class() -> Any:
    """The config of such a model as the library knows configs, so that it is read, compared and saved as others are."""
    from transformers import PreTrainedConfig

    class TorchModuleConfig(PreTrainedConfig):
        model_type = TORCH_MODULE
        module: str = ""
        arguments: dict[str, Any] | None = None
        blocks: list[str] | tuple[str, ...] = ()
        head: str = ""
        norm: str | None = None
        stream: str = "map"
        summary: int | str | None = None
        leading: int | None = None
        num_channels: int = 3
        image_size: int | list[int] | tuple[int, int] = 32

    return TorchModuleConfig
