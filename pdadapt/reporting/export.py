"""Export a checkpoint for another library with a model card, and upload it to the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import yaml

from pdadapt.errors import ModelError, RunError, reason
from pdadapt.evaluation.results import RunMetrics
from pdadapt.models.source import is_colbert, resolve_model
from pdadapt.runs.artefacts import read_json
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
    """Write a student to the new folder `out`, which appears whole or not at all.

    name: a run folder, or the name of a model. The export of a run has a model card (README.md).

    Raises ModelError when the format cannot express the student, RunError when `out` exists.
    """
    if out.exists():
        raise RunError(f"{out} already exists. Give another --out.")
    card = model_card(Path(name), file_format) if (Path(name) / "metrics.json").is_file() else None
    name = last_checkpoint(name)
    dense = not is_colbert(resolve_model(name))
    if dense and file_format in ("stanford", "pylate"):
        raise ModelError(
            f"{name!r} is a dense student, which {file_format} cannot express. Use --format sentence-transformers."
        )
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
    """The README.md of a finished run's checkpoint: corpus, teacher, recipe, measures, and the paper to cite."""
    metrics = read_json(run / "metrics.json", RunMetrics.from_json)
    kept = metrics.iteration
    origin = read_settings(run / "run.json")
    recipe = (run / "recipe.yaml").read_text(encoding="utf-8")
    settings = Recipe.model_validate(yaml.safe_load(recipe))
    tasks: list[Task] = ["point", "pair"] if settings.teacher.pair.asks_teacher else ["point"]
    return CARD.format(
        library="sentence-transformers" if file_format != "stanford" else "colbert",
        corpus=markdown(metrics.corpus),
        documents=metrics.documents,
        queries=metrics.queries,
        teachers=", ".join(dict.fromkeys(f"`{model_of(settings.teacher, task).model}`" for task in tasks)),
        labels="Relevance judgments of the training queries were used too (L_CL)."
        if settings.train.lambda_cl
        else "No relevance judgment was used.",
        points=sum(labels.points for labels in metrics.labels),
        pairs=sum(labels.pairs for labels in metrics.labels),
        measures=measures_section(metrics),
        student=settings.student.model,
        made="fine-tuned" if kept else "unchanged, since fine-tuning did not improve its agreement with the teacher",
        version=origin.get("versions", {}).get("pdadapt", "of another version"),
        recipe=recipe,
    )


def measures_section(metrics: RunMetrics) -> str:
    """A Markdown table of the base and every iteration up to the kept one."""
    if not metrics.measures:
        return "The corpus has no judgments, so nothing was measured."
    kept = metrics.iteration
    systems = ["base", *(f"iteration {number}" for number in range(1, kept + 1))]
    title = f"On its {metrics.test_queries:,} test queries (p of the last against the base, paired randomisation test):"
    rows = []
    for measure, result in metrics.measures.items():
        means = " | ".join(f"{mean:.4f}" for mean in result.means[: kept + 1])
        rows.append(f"| {measure} | {means} | {f'{result.against_base(kept).p:.3f}' if kept else ''} |")
    head = f"| | {' | '.join(systems)} | p |"
    return "\n".join([title, "", head, "|---" * (len(systems) + 2) + "|", *rows])


def push(folder: Path, repo: str) -> str:
    """Upload an exported folder to a private repository of the Hugging Face hub, and return its address.

    The token comes from HF_TOKEN or `hf auth login`. Raises ModelError when the upload fails.
    """
    from httpx import TransportError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        address = HfApi().create_repo(repo, private=True, exist_ok=True)
        HfApi().upload_folder(repo_id=repo, folder_path=folder, commit_message="Add the student")
    except (HfHubHTTPError, HFValidationError, TransportError, OSError) as error:
        raise ModelError(
            f"The upload to {repo!r} failed ({reason(error)}). {folder} is complete. Repeat the command to upload it."
        ) from None
    return str(address)
