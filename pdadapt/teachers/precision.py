"""Half precision is for a transformer's body: what is computed from its states decides a score, and is float32."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import nn


def float32_behind_body(model: nn.Module, dtype: torch.dtype) -> None:
    """Make a model of sentence-transformers compute its poolers, heads, projections and embeddings in float32.

    dtype: that of the transformers' bodies, to which their weights are cast. Scores rounded to bfloat16 would be alike
    for many documents.
    """
    bodies = []
    for module in model.modules():
        if isinstance(module, Transformer):
            module.register_forward_hook(_hand_on_float32)  # not every model is called by its forward
            body: Any = module.auto_model.base_model
            body.register_forward_hook(_hand_on_float32)
            bodies.append(body)
            pooler = getattr(body, "pooler", None)  # in the body by its name, and no part of it
            if isinstance(pooler, nn.Module):
                pooler.register_forward_pre_hook(lambda _module, inputs: _float32(inputs))
    halved = {
        id(parameter)
        for body in bodies
        for name, parameter in body.named_parameters()
        if not name.startswith("pooler.")
    }
    for parameter in model.parameters():
        if parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype if id(parameter) in halved else torch.float32)


def _hand_on_float32(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return _float32(output)


def _float32(value: Any) -> Any:
    """The same with its floating tensors in float32."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, MutableMapping):  # features, or a model's output
        for key, part in value.items():
            value[key] = _float32(part)
        return value
    return tuple(map(_float32, value)) if isinstance(value, tuple) else value
