"""Export a ColBERT student in the layout of colbert-ai."""

from __future__ import annotations

import json
import string
from pathlib import Path

from safetensors.torch import save_file
from sentence_transformers import MultiVectorEncoder
from transformers import BertModel

from pdadapt.errors import ModelError
from pdadapt.runtime.files import atomic_folder
from pdadapt.students.colbert import get_lengths
from pdadapt.students.pylate import colbert_parts, single_token

TOKENIZER_KEYS = (  # colbert-ai needs transformers 4, which knows these keys
    *("cls_token", "mask_token", "pad_token", "sep_token", "unk_token", "do_lower_case", "strip_accents"),
    *("tokenize_chinese_chars", "model_max_length", "tokenizer_class"),
)
MARKERS = {"query": "[unused0]", "document": "[unused1]"}  # colbert-ai writes these tokens for [Q] and [D]


def save_stanford(model: MultiVectorEncoder, out: Path) -> None:
    """Write the student to the folder `out`: a BERT with a linear layer, and `artifact.metadata` (a ColBERTConfig).

    The folder appears complete or not at all. Raises ModelError if colbert-ai would compute other embeddings.
    """
    encoder, projections, mask = colbert_parts(model)
    expansion = encoder.query_expansion
    plain = len(projections) == 1 and projections[0].linear.bias is None
    markers = {task: single_token(model.tokenizer, model.prompts.get(task) or "") for task in MARKERS}
    punctuation = set(mask.skiplist_words) in (set(), set(string.punctuation))
    if not isinstance(encoder.auto_model, BertModel) or not (
        plain and markers == MARKERS and expansion and punctuation
    ):
        raise ModelError(
            "colbert-ai cannot use this student. It reads a BERT with one projection without bias, trained with the "
            "markers [unused0] and [unused1] and with queries padded with [MASK], as ColBERTv2 was. Search this "
            "student with retrieve.engine=exact or plaid, and export it with --format pylate."
        )
    weights = {f"bert.{key}": value for key, value in encoder.auto_model.state_dict().items() if "pooler" not in key}
    weights["linear.weight"] = projections[0].linear.weight
    query_length, document_length = get_lengths(model)
    metadata = {
        "query_token_id": MARKERS["query"],
        "doc_token_id": MARKERS["document"],
        "query_token": "[Q]",
        "doc_token": "[D]",
        "query_maxlen": query_length,
        "doc_maxlen": document_length,
        "dim": weights["linear.weight"].shape[0],
        "similarity": "cosine",
        "mask_punctuation": bool(mask.skiplist_words),
        "attend_to_mask_tokens": bool(expansion["attend"]),
    }
    with atomic_folder(out) as folder:
        save_file(
            {key: value.detach().cpu().contiguous() for key, value in weights.items()}, folder / "model.safetensors"
        )
        model.tokenizer.save_pretrained(str(folder))
        settings_file = folder / "tokenizer_config.json"
        settings = json.loads(settings_file.read_text(encoding="utf-8"))
        kept = {key: value for key, value in settings.items() if key in TOKENIZER_KEYS}
        kept["additional_special_tokens"] = list(settings.get("extra_special_tokens", []))  # its name in transformers 4
        settings_file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        config = encoder.auto_model.config.to_dict() | {"architectures": ["HF_ColBERT"]}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "artifact.metadata").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
