"""A module of torch as a classifier of images: built as its settings say, loaded whole, and run under its own names.

To the rest of the workbench it is a model of the library. Its parameters keep the names of the module's own state
dict, which are those of the checkpoint and of edits.
"""

import importlib
import pkgutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput

from audit import checkpoints
from audit.checkpoints import ModuleSettings
from audit.schema import AuditError, ExitCode, as_audit_error
from audit.storage import opened_tensors

ARCHITECTURES: Final = "audit.wrappers.architectures"
_COUNTER = "num_batches_tracked"
_AGAIN = "save the whole state dict of the module that config.json describes"


class TorchModuleForImageClassification(PreTrainedModel):
    """A module of torch behind the library's interface; ``module`` is the same modules, parameters and buffers."""

    config_class = checkpoints.module_config_class()
    main_input_name = "pixel_values"
    base_model_prefix = ""
    _supports_sdpa = True  # what attends in it, attends as it does

    def __init__(self, config: Any, module: nn.Module) -> None:
        super().__init__(config)
        self.__dict__["_own"] = (module,)  # no submodule: it is this model
        for table in ("_modules", "_parameters", "_buffers", "_non_persistent_buffers_set"):
            self.__dict__[table] = module.__dict__[table]
        self.post_init()

    def init_weights(self) -> None:
        """Never: the module has initialised itself."""

    def train(self, mode: bool = True) -> "TorchModuleForImageClassification":
        """Training mode on or off, of the module itself too."""
        self.module.training = mode
        super().train(mode)
        return self

    @property
    def module(self) -> nn.Module:
        """The module itself."""
        return self.__dict__["_own"][0]

    @property
    def settings(self) -> ModuleSettings:
        """What config.json says of the module."""
        return checkpoints.module_settings(self.config.to_dict(), Path(str(self.config.name_or_path)) / "config.json")

    def forward(self, pixel_values: Float[Tensor, "row channel height width"]) -> ImageClassifierOutput:
        """Logits of the classes."""
        out: Any = self.module(pixel_values)
        return ImageClassifierOutput(logits=getattr(out, "logits", out))


def built(config: Any) -> TorchModuleForImageClassification:
    """The model of a config as its own code initialises it, from torch's generator and on torch's default device.

    Code that the config names is imported and runs: whether that is allowed is asked before (``check_permitted``).
    AuditError (code 2): no such architecture or code, arguments that it does not take, or no module of torch.
    """
    settings = checkpoints.module_settings(config.to_dict(), Path(config.name_or_path) / "config.json")
    where = f"{config.name_or_path}: no module is built by {settings.module}"
    target = torch.get_default_device()
    with torch.device("cpu"):  # what a module computes for itself would have no values on the meta device
        if settings.names_code:
            factory = _imported(settings.module)
            with as_audit_error(where, "check `arguments` in config.json, and the code itself"):
                module = factory(**settings.arguments)
        else:
            shipped = _shipped(settings.module, config.name_or_path)
            with as_audit_error(where, "check `arguments` in config.json"):
                module = shipped(config.num_labels, settings.num_channels, **settings.arguments)
    if not isinstance(module, nn.Module):
        raise AuditError(f"{where}, but {type(module).__name__}", "name a class of modules, or what returns a module")
    return TorchModuleForImageClassification(config, module).to(target)  # type: ignore[return-value]


def loaded(folder: Path, dtype: torch.dtype) -> TorchModuleForImageClassification:
    """The model of a folder with the values of its files, on the CPU. AuditError: see :func:`built`; code 3 where the
    files do not hold just the module's state dict. Counts of batches, which no pass reads, may be missing."""
    with torch.random.fork_rng(devices=[]):
        model = built(checkpoints.library_config(folder))
        model.to(dtype=dtype)  # pyright: ignore[reportCallIssue]
    stored: dict[str, Tensor] = {}
    for path in checkpoints.weight_files(folder):
        with opened_tensors(path) as file:
            stored |= {name: file.read(name) for name in file.names()}
    _check_names(folder, model.state_dict(), stored)
    model.load_state_dict(stored, strict=False)
    return model


def _check_names(folder: Path, held: dict[str, Tensor], stored: dict[str, Tensor]) -> None:
    """AuditError (code 3) unless both hold the same names and shapes, counts of batches left aside."""
    lacking = sorted(name for name in held.keys() - stored.keys() if name.rpartition(".")[2] != _COUNTER)
    strange = sorted(stored.keys() - held.keys())
    odd = sorted(name for name in stored.keys() & held.keys() if stored[name].shape != held[name].shape)
    faults = [
        f"{len(names)} tensors {fault} (first: {names[0]})"
        for names, fault in ((lacking, "of the module are not in its files"), (strange, "are none of the module's"))
        if names
    ]
    if odd:
        ours, theirs = (tuple(tensors[odd[0]].shape) for tensors in (stored, held))
        faults.append(f"{odd[0]} is {list(ours)}, and {list(theirs)} in the module")
    if faults:
        raise AuditError(f"{folder}: {'; '.join(faults)}", _AGAIN, ExitCode.INTEGRITY)


def shipped_architectures() -> Sequence[str]:
    """The names of the architectures that ship with the workbench."""
    folder: Any = importlib.import_module(ARCHITECTURES)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__))


def _shipped(name: str, where: str) -> Callable[..., object]:
    names = shipped_architectures()
    if name not in names:
        raise AuditError(
            f"{where}: there is no architecture {name!r}",
            f"`module` is one of {', '.join(names)}, or code of your own as package.module:factory",
        )
    return importlib.import_module(f"{ARCHITECTURES}.{name}").build


def _imported(name: str) -> Callable[..., object]:
    """Code of the user's own. AuditError (code 2) where it is not there, (3) where it is not what was hashed."""
    module, _, factory = name.partition(":")
    with as_audit_error(f"the code {name} cannot be imported", "check that it runs on its own"):
        code = importlib.import_module(module)
    hashed = {path.resolve() for path in checkpoints.code_files(name).values()}
    if _file_of(code) not in hashed:
        raise AuditError(f"the code {name} was imported from {_file_of(code)}", "clear its copies", ExitCode.INTEGRITY)
    target = getattr(code, factory, None)
    if not callable(target):
        raise AuditError(f"{_file_of(code)}: no class or function {factory!r} in it", "correct `module`")
    return target


def _file_of(code: ModuleType) -> Path | None:
    return None if code.__file__ is None else Path(code.__file__).resolve()
