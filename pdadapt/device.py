"""Where models compute, and in what precision."""

from __future__ import annotations

from typing import Any

import torch


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies in it, else float32 (T5 overflows in float16)."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def compute_in(model: Any, dtype: str) -> None:
    """Let the student's encoder multiply in `dtype` (pick_dtype's names); weights and embeddings stay float32."""
    encoder = model[0]
    chosen = pick_dtype(dtype, model.device)
    if chosen == torch.float32:
        return
    forward = encoder.forward

    def mixed(features: dict[str, Any], **options: Any) -> dict[str, Any]:
        with torch.autocast(model.device.type, chosen):
            output: dict[str, Any] = forward(features, **options)
        output["token_embeddings"] = output["token_embeddings"].float()
        return output

    encoder.forward = mixed
