"""Checkpoints in the forms that other tools open."""

from __future__ import annotations

import json
import shutil
import string
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import BertModel

from pdadapt.errors import ModelError, RunError, reason
from pdadapt.models import is_colbert, resolve_model
from pdadapt.printing import markdown
from pdadapt.recipe import Recipe
from pdadapt.run import atomic_folder, last_checkpoint, read_settings
from pdadapt.students.checkpoint import colbert_parts, save_colbert, single_token
from pdadapt.students.colbert import get_lengths, load_colbert
from pdadapt.students.dense import load_dense, save_dense
from pdadapt.teachers import Task
from pdadapt.teachers.choose import model_of

Format = Literal["stanford", "pylate", "sentence-transformers", "onnx"]
TOKENIZER_KEYS = (  # that transformers 4 knows, which colbert-ai needs
    *("cls_token", "mask_token", "pad_token", "sep_token", "unk_token", "do_lower_case", "strip_accents"),
    *("tokenize_chinese_chars", "model_max_length", "tokenizer_class"),
)
CARD = """---
library_name: {library}
tags: [retrieval, distillation, pdadapt]
---

# A retriever adapted to {corpus}

`{student}`, {made} on {corpus} ({documents:,} documents): {queries:,} queries, {points:,} point labels and
{pairs:,} pair labels of {teachers}. {labels}

{measures}

Made by [PairDistill](https://arxiv.org/abs/2410.01383) (Huang and Chen, EMNLP 2024) with pdadapt {version} and this
recipe:

```yaml
{recipe}```

```bibtex
@inproceedings{{huang-chen-2024-pairdistill,
    title = "PairDistill: Pairwise Relevance Distillation for Dense Retrieval",
    author = "Huang, Chao-Wei and Chen, Yun-Nung",
    booktitle = "Proceedings of the 2024 Conference on Empirical Methods in Natural Language Processing",
    year = "2024",
}}
```
"""
MARKERS = {"query": "[unused0]", "document": "[unused1]"}  # colbert-ai's tokens behind its [Q] and [D]


def export_checkpoint(name: str, out: Path, file_format: Format) -> None:
    """Write the student `name` (a run folder, whose newest it is, or a model name) to the new folder `out`, which
    appears whole or not at all; of a run, a model card (README.md) says what it was made from.

    Raises ModelError when the format cannot express the student, RunError when `out` exists.
    """
    if out.exists():
        raise RunError(f"{out} exists already; give another --out.")
    try:
        card = model_card(Path(name), file_format) if (Path(name) / "metrics.json").is_file() else None
    except KeyError as error:
        raise RunError(f"{name}/metrics.json lacks {error}; the same `pdadapt adapt` writes it anew.") from None
    name = last_checkpoint(name)
    dense = not is_colbert(resolve_model(name))
    if dense and file_format in ("stanford", "pylate"):
        raise ModelError(f"{name!r} is a dense student, which {file_format} cannot express; use sentence-transformers.")
    model = load_dense(name) if dense else load_colbert(name)
    with atomic_folder(out) as folder:
        if file_format == "pylate":
            save_colbert(model, folder)
        elif file_format == "stanford":
            save_stanford(model, folder)
        elif file_format == "onnx":
            save_onnx(model, folder)
        elif dense:
            save_dense(model, folder)
        else:
            model.save_pretrained(str(folder), create_model_card=False)
        if card:
            (folder / "README.md").write_text(card, encoding="utf-8")


def model_card(run: Path, file_format: Format) -> str:
    """What a finished run says about the student it keeps: corpus, teacher, recipe, measures; and the paper to cite."""
    metrics = read_settings(run / "metrics.json")
    best = metrics["iteration"]
    origin = read_settings(run / "run.json")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    settings = Recipe.model_validate(yaml.safe_load(recipe))
    tasks: list[Task] = ["point", "pair"] if settings.teacher.pair.asked else ["point"]
    asked = (
        sum(labels.get("points", 0) for labels in metrics["labels"]),
        sum(labels.get("pairs", 0) for labels in metrics["labels"]),
    )
    systems = ["base", *(f"iteration {number}" for number in range(1, best + 1))]
    rows = []
    for measure, found in metrics["measures"].items():
        p = f"{found['comparisons'][best - 1]['p']:.3f}" if best else ""
        rows.append(f"| {measure} | {' | '.join(f'{mean:.4f}' for mean in found['means'][: best + 1])} | {p} |")
    table = [
        f"On its {metrics['test_queries']:,} test queries (p of the last against the base, paired randomisation test):",
        "",
        f"| | {' | '.join(systems)} | p |",
        "|---" * (len(systems) + 2) + "|",
        *rows,
    ]
    return CARD.format(
        library="sentence-transformers" if file_format != "stanford" else "colbert",
        corpus=markdown(metrics["corpus"]),
        documents=metrics["documents"],
        queries=metrics["queries"],
        teachers=", ".join(dict.fromkeys(f"`{model_of(settings.teacher, task).model}`" for task in tasks)),
        labels="Relevance judgments of the training queries were used too (L_CL)."
        if settings.train.lambda_cl
        else "No relevance judgment was used.",
        points=asked[0],
        pairs=asked[1],
        measures="\n".join(table) if rows else "The corpus came without judgments: nothing was measured.",
        student=settings.student.model,
        made="fine-tuned" if best else "as it was, since fine-tuning brought no agreement with the teacher",
        version=origin["versions"]["pdadapt"],
        recipe=recipe,
    )


def push(folder: Path, repo: str) -> str:
    """Upload an exported folder to the Hugging Face hub, as a private repository; returns its address.

    The token is the environment's (HF_TOKEN, or `hf auth login`). Raises ModelError when the hub refuses.
    """
    from httpx import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        address = HfApi().create_repo(repo, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message="Add the student")
    except (HfHubHTTPError, HFValidationError, TransportError, OSError) as error:
        raise ModelError(
            f"The hub did not take {repo!r} ({reason(error)}); {folder} is whole: the same command uploads it later."
        ) from None
    return str(address)


def save_stanford(model: Any, out: Path) -> None:
    """colbert-ai's layout: a BERT with a linear layer beside it, and `artifact.metadata` (its ColBERTConfig).

    Raises ModelError when colbert-ai would compute something else with it.
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
            "colbert-ai reads a BERT with one projection without bias, trained with its markers [unused0] and "
            "[unused1] and queries filled up with [MASK], as ColBERTv2 was; this student is another: search it with "
            "retrieve.engine=exact or plaid, export it as pylate."
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
        kept["additional_special_tokens"] = list(settings.get("extra_special_tokens", []))  # its name before version 5
        settings_file.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
        config = encoder.auto_model.config.to_dict() | {"architectures": ["HF_ColBERT"]}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (folder / "artifact.metadata").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")


class _Embeddings(nn.Module):
    """Token ids -> the student's embeddings: what a graph can hold."""

    def __init__(self, model: Any, dense: bool):
        super().__init__()
        self.encoder = model[0].auto_model
        self.rest = nn.ModuleList(module for module in list(model)[1:] if type(module).__name__ not in TAILS)
        self.dense = dense

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        tokens = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        features = {"token_embeddings": tokens, "attention_mask": attention_mask}
        for module in self.rest:
            features = module(features)
        return features["sentence_embedding" if self.dense else "token_embeddings"]


TAILS = ("MultiVectorMask", "OneVector")  # what follows the embeddings: which of them count


def save_onnx(model: Any, out: Path) -> None:
    """`model.onnx`: input_ids and attention_mask (B, L) int64 -> embeddings (B, L, dim), of a dense student (B, dim);
    beside it the tokenizer and `config_sentence_transformers.json`, which says markers, lengths and what is skipped.

    Raises ModelError when the packages lack, or torch cannot write such a student.
    """
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        raise ModelError("Exporting to ONNX needs two packages; run `pip install 'pdadapt[onnx]'`.") from None
    dense = type(list(model)[-1]).__name__ == "OneVector"
    graph = _Embeddings(model.cpu(), dense).eval()
    example = torch.ones(2, 8, dtype=torch.long), torch.ones(2, 8, dtype=torch.long)  # one tensor would be one input
    sizes = {0: torch.export.Dim("texts"), 1: torch.export.Dim("tokens")}
    with atomic_folder(out) as folder:
        (save_dense if dense else save_colbert)(model, folder / "model")
        for file in (folder / "model").glob("*.json"):
            file.rename(folder / file.name)
        try:
            torch.onnx.export(
                graph,
                example,
                str(folder / "model.onnx"),
                input_names=["input_ids", "attention_mask"],
                output_names=["embeddings"],
                dynamic_shapes={"input_ids": sizes, "attention_mask": sizes},
                dynamo=True,
                external_data=False,
                verbose=False,
            )
        except (OSError, MemoryError):
            raise
        except Exception as error:  # the exporter's own, of pages
            name = type(model[0].auto_model).__name__
            raise ModelError(f"torch cannot write a {name} as ONNX. Export it with another --format.") from error
        shutil.rmtree(folder / "model")
