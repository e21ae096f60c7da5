"""The device and the precision of models."""

from __future__ import annotations

import gc
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

FLOAT32_ATTENTION = "sdpa_float32"


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def release_memory() -> None:
    """Give back the memory of objects that are gone."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype by name. `auto`: bfloat16 if the hardware multiplies in it, else float32 (T5 overflows in float16)."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def dtype_name(name: str) -> str:
    """The dtype that pick_dtype takes for this name on this machine: float32 or bfloat16."""
    return str(pick_dtype(name, default_device())).removeprefix("torch.")


def set_compute_dtype(model: Any, dtype: str) -> None:
    """Let the student's encoder multiply in `dtype` (a name of pick_dtype). Weights and embeddings stay float32."""
    encoder = model[0]
    chosen = pick_dtype(dtype, model.device)
    if chosen == torch.float32:
        return
    if model.device.type == "cpu" and encoder.auto_model.config._attn_implementation == "sdpa":
        encoder.auto_model.set_attn_implementation(FLOAT32_ATTENTION)
    forward = encoder.forward

    def mixed(features: dict[str, Any], **options: Any) -> dict[str, Any]:
        with torch.autocast(model.device.type, chosen):
            output: dict[str, Any] = forward(features, **options)
        output["token_embeddings"] = output["token_embeddings"].float()
        return output

    encoder.forward = mixed


def float32_attention(
    module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: Any, **options: Any
) -> tuple[torch.Tensor, None]:
    """transformers' sdpa, in float32 when a gradient is wanted: a CPU's fused kernel is three times faster then.

    With dropout a CPU has no fused kernel, and bfloat16 is faster.
    """
    if not torch.is_grad_enabled() or options.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    with torch.autocast("cpu", enabled=False):
        return sdpa_attention_forward(module, query.float(), key.float(), value.float(), mask, **options)


AttentionInterface.register(FLOAT32_ATTENTION, float32_attention)
AttentionMaskInterface.register(FLOAT32_ATTENTION, sdpa_mask)
