"""Write a ColBERT student so that sentence-transformers (6 and later) and PyLate compute the same vectors from it.

The layout is PyLate's: `modules.json` lists a Transformer and a projection, `config_sentence_transformers.json` holds
the markers, lengths, expansion and punctuation list. sentence-transformers 6 reads it as `model_type: ColBERT` and adds
the mask and the normalization itself. The layout of sentence-transformers 6 does not load in PyLate, which needs
version 5.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.multi_vector_encoder.modules import MultiVectorMask

from pdadapt.errors import ModelError
from pdadapt.runtime.files import atomic_folder

DENSE_KEYS = ("in_features", "out_features", "bias", "activation_function", "use_residual")  # that PyLate's Dense takes


def save_colbert(model: MultiVectorEncoder, folder: Path) -> None:
    """Write `model` (safetensors) to `folder`, which appears complete or not at all.

    A student without a projection gets the identity as its projection, since PyLate would add a random one.
    Raises ModelError if the layout cannot express the model.
    """
    encoder, projections, mask = colbert_parts(model)
    with atomic_folder(folder) as out:
        model.save_pretrained(str(out), create_model_card=False)
        for module in json.loads((out / "modules.json").read_text(encoding="utf-8")):
            if module["path"]:
                shutil.rmtree(out / module["path"])
        limit = encoder.max_seq_length or 512
        _write(out / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
        modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
        for number, projection in enumerate(projections, 1):
            name = f"{number}_Dense"
            (out / name).mkdir()
            config = projection.get_config_dict()
            _write(out / name / "config.json", {key: config[key] for key in DENSE_KEYS if key in config})
            weights = {key: tensor.detach().cpu().contiguous() for key, tensor in projection.state_dict().items()}
            save_file(weights, out / name / "model.safetensors")
            modules.append({"idx": number, "name": str(number), "path": name, "type": "pylate.models.Dense.Dense"})
        _write(out / "modules.json", modules)
        settings_file = out / "config_sentence_transformers.json"
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        expansion = encoder.query_expansion
        settings |= {
            "model_type": "ColBERT",
            "similarity_fn_name": "MaxSim",
            "query_length": expansion["length"] if expansion else encoder.query_length or limit,
            "document_length": encoder.document_length or limit,
            "do_query_expansion": bool(expansion),
            "attend_to_expansion_tokens": bool(expansion and expansion["attend"]),
            "skiplist_words": list(mask.skiplist_words),
        }
        for role in ("query", "document"):
            text = model.prompts.get(role) or ""
            marker = single_token(model.tokenizer, text)
            settings[f"{role}_prefix"] = marker
            settings["prompts"][role] = "" if marker else text
        _write(settings_file, settings)


def colbert_parts(model: MultiVectorEncoder) -> tuple[Any, list[Dense], MultiVectorMask]:
    """Return (encoder, projections, mask) of a model made of Transformer, Dense..., MultiVectorMask, Normalize.

    Raises ModelError if it is made of anything else.
    """
    modules = list(model)
    projections = [module for module in modules if isinstance(module, Dense)]
    encoder: Any = modules[0]
    masks = [module for module in modules if isinstance(module, MultiVectorMask)]
    known = (Transformer, Dense, MultiVectorMask, Normalize)
    expansion = getattr(encoder, "query_expansion", None)
    if (
        len(masks) != 1
        or not all(isinstance(module, known) for module in modules)
        or masks[0].skiplist_tasks != ["document"]
        or masks[0].keep_only_token_ids
        or (expansion and expansion["strategy"] != "fixed")
    ):
        raise ModelError(
            "PyLate cannot load this student, since it is not a plain ColBERT (Transformer, projection, mask). Export "
            "it with another --format."
        )
    if not projections:
        size = encoder.get_embedding_dimension()
        identity = torch.nn.Identity()
        projections = [Dense(size, size, bias=False, activation_function=identity, init_weight=torch.eye(size))]
    return encoder, projections, masks[0]


def single_token(tokenizer: Any, text: str) -> str:
    """Return the prompt if it is a single token, as ColBERT's markers are; else an empty string."""
    vocabulary = tokenizer.get_vocab()
    forms = (form for form in (text, text.strip()) if form in vocabulary and tokenizer.tokenize(form) == [form])
    return next(forms, "")


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
