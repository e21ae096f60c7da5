"""A checkpoint for another tool, with a model card; upload to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml

from pdadapt.errors import ModelError, RunError, reason
from pdadapt.models.source import is_colbert, resolve_model
from pdadapt.runs.folder import last_checkpoint
from pdadapt.runtime.files import atomic_folder, read_settings
from pdadapt.runtime.printing import markdown
from pdadapt.settings.schema import Recipe
from pdadapt.students.colbert import load_colbert
from pdadapt.students.dense import load_dense, save_dense
from pdadapt.students.onnx import save_onnx
from pdadapt.students.pylate import save_colbert
from pdadapt.students.stanford import save_stanford
from pdadapt.teachers.base import Task
from pdadapt.teachers.kind import model_of

Format = Literal["stanford", "pylate", "sentence-transformers", "onnx"]
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
