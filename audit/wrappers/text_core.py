"""The model below its head: where it is a submodule of its own class, and where the base class is the model itself."""

from torch import nn
from transformers import PreTrainedModel


def core_name(model: PreTrainedModel) -> str:
    """The attribute of a language model that holds what its head reads; empty where it is the model itself."""
    if model.base_model is not model:
        return model.base_model_prefix
    embedding = model.get_input_embeddings()
    for name, child in model.named_children():
        if isinstance(child, PreTrainedModel) and any(module is embedding for module in child.modules()):
            return name
    return ""


def core_of(model: PreTrainedModel) -> nn.Module:
    """The language model below its head. A class may name a base that it has not (Llama 4 without its vision tower)."""
    name = core_name(model)
    return getattr(model, name) if name else model
