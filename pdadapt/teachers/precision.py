"""Half precision is used in a transformer's body only. Everything that is computed from its states is float32."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import torch
from sentence_transformers.base.modules import Transformer
from torch import nn


def float32_behind_body(model: nn.Module, dtype: torch.dtype) -> None:
    """Make a sentence-transformers model compute its poolers, heads, projections and embeddings in float32.

    Scores rounded to bfloat16 would be equal for many documents.

    dtype: the dtype of the transformers' bodies. Their weights are cast to it.
    """
    bodies = []
    for module in model.modules():
        if isinstance(module, Transformer):
            module.register_forward_hook(_float32_output)  # some models do not call the body by its forward
            body: Any = module.auto_model.base_model
            body.register_forward_hook(_float32_output)
            bodies.append(body)
            pooler = getattr(body, "pooler", None)  # a module of the body that reads its final states
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


def _float32_output(_module: nn.Module, _inputs: Any, output: Any) -> Any:
    return _float32(output)


def _float32(value: Any) -> Any:
    """Return the value with its floating-point tensors in float32. Mappings are changed in place."""
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, MutableMapping):  # features or a model output
        for key, part in value.items():
            value[key] = _float32(part)
        return value
    return tuple(map(_float32, value)) if isinstance(value, tuple) else value
