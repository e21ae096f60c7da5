"""Train a classifier teacher (PairDistill, section 4.1): a cross-encoder fitted to relevance labels, for points or for
pairs.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from datasets import Dataset as Rows
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

from pdadapt.data.corpus import Corpus, Dataset, Queries, data_hashes, fingerprint, relevant_documents
from pdadapt.data.run_file import Ranking, read_run, write_run
from pdadapt.data.trec import Qrels
from pdadapt.errors import DataError, ModelError
from pdadapt.models.device import default_device, pick_dtype
from pdadapt.models.encoders import prepare_encoder
from pdadapt.models.outline import UNUSED_BY_CLASSIFIERS, check_encoder
from pdadapt.models.source import resolve_model, translate_errors
from pdadapt.models.token_budget import batch_limits
from pdadapt.retrieval.engines.load import check_model, make_engine
from pdadapt.retrieval.search import index_corpus, retrieve, sample_queries
from pdadapt.runs.folder import PACKAGES, RunFolder
from pdadapt.runtime.files import atomic_folder
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import Recipe, RerankerSettings
from pdadapt.students.load import load_student
from pdadapt.teachers.base import Pair
from pdadapt.teachers.control import control_tokens
from pdadapt.teachers.cross_encoder import join_pair
from pdadapt.teachers.kind import TASK_KEY
from pdadapt.training.arguments import common_arguments, remove_printing
from pdadapt.training.resume import TrainingMonitor, last_complete
from pdadapt.training.smaller_chunks import retry_smaller
from pdadapt.training.trainer import set_dropout

MEMORY_LIMIT = "train reranker"  # name of the limit in memory.json
RERANKER_ADVICE = "Start again in another --out with a lower reranker.learning_rate"


class Example(NamedTuple):
    """A question to the classifier, and its target. Of a point the target is 1 if the document is relevant. Of a pair
    it is 1 if the first document is the more relevant one. Else it is 0.
    """

    query_id: str
    doc_ids: tuple[str, ...]
    label: float


def train_reranker(recipe: Recipe, dataset: Dataset, out: Path, progress: Progress) -> Path:
    """Fit `recipe.reranker` to the dataset's training qrels, and return the model's folder, `out`/model.

    Negatives are candidates of recipe.student that nobody labeled relevant. The same call resumes after a kill. Raises
    DataError when there are no labels, ModelError when the encoder does not load.
    """
    labeled = {query_id: text for query_id, text in dataset.queries.items() if _relevant(dataset.train_qrels, query_id)}
    queries = sample_queries(labeled, recipe.retrieve.max_queries, recipe.seed)
    if not queries:
        raise DataError(
            f"Corpus {dataset.name!r} has no labeled queries to train on. Add qrels/train.tsv of a BEIR folder "
            "(qrels.train.tsv in MS MARCO's layout)."
        )
    relevant_documents(dataset, queries)  # raises DataError when the corpus lacks one
    dataset.notices.say(progress.say)
    run = RunFolder(out)
    origin = {
        "corpus": dataset.name,
        **data_hashes(dataset, queries),
        "qrels_sha256": fingerprint((query_id, json.dumps(dataset.train_qrels[query_id])) for query_id in queries),
        "student": resolve_model(recipe.student.model).identity(),
        "reranker": resolve_model(recipe.reranker.model).identity(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }
    run.check(recipe, origin, staged=False)
    if not (run.path / "model").exists():
        check_model(recipe.student.model, recipe.student.model_dump(exclude={"model"}), recipe.retrieve)
        load_encoder(recipe.reranker, recipe.seed)  # to find now, not after the retrieval, whether it loads
    with run.locked():
        run.claim(recipe, origin, staged=False)
        progress.log = run.path / "timings.jsonl"
        batch_limits.keep_in(run.path / "memory.json")
        model = run.path / "model"
        if not model.exists():
            candidates = _candidates(recipe, dataset.corpus, queries, run, progress)
            examples = list(make_examples(candidates, dataset, recipe.reranker, recipe.seed))
            if all(example.label == 1.0 and len(example.doc_ids) == 1 for example in examples):
                raise DataError(
                    f"No candidate of the queries of {dataset.name!r} is labeled worse than another. A classifier "
                    "needs both kinds. Raise retrieve.k, or label documents that are not relevant."
                )
            random.Random(recipe.seed).shuffle(examples)
            fixed = (recipe.reranker, examples, dataset.corpus, queries, recipe.seed, run.path, progress)
            retry_smaller(
                MEMORY_LIMIT,
                functools.partial(examples_at_once, recipe.reranker.batch_size),
                lambda at_once: at_once // 2,
                functools.partial(train_classifier, *fixed),
                progress.say,
                "examples at once",
            )
        shutil.rmtree(run.path / "trainer", ignore_errors=True)
    return model


def _relevant(qrels: Qrels, query_id: str) -> list[str]:
    return [doc_id for doc_id, grade in qrels.get(query_id, {}).items() if grade > 0]


def _candidates(recipe: Recipe, corpus: Corpus, queries: Queries, run: RunFolder, progress: Progress) -> Ranking:
    file, index = run.path / "candidates.run", run.path / "index"
    if not file.exists():
        model = load_student(recipe.student.model, recipe.student)
        engine = make_engine(model, recipe.retrieve)
        index_corpus(engine, corpus, index, progress)
        ranking = retrieve(engine, corpus, queries, index, recipe.retrieve.k, progress)
        write_run(file, ranking.items(), "candidates")
    shutil.rmtree(index, ignore_errors=True)
    return read_run(file)


def make_examples(candidates: Ranking, dataset: Dataset, settings: RerankerSettings, seed: int) -> Iterator[Example]:
    """Yield each relevant document with its negatives. The seed decides the negatives, and the order within a pair.

    In a pair, the document with the higher grade is the more relevant one. A document without a label has grade 0.
    """
    for query_id, ranked in candidates.items():
        grades = dataset.train_qrels[query_id]
        rng = random.Random(f"{seed}/{query_id}")
        for relevant in _relevant(dataset.train_qrels, query_id):
            worse = [doc_id for doc_id, _ in ranked if grades.get(doc_id, 0) < grades[relevant]]
            if settings.task == "point":
                worse = [doc_id for doc_id in worse if grades.get(doc_id, 0) <= 0]
                yield Example(query_id, (relevant,), 1.0)
            for other in rng.sample(worse, min(settings.negatives, len(worse))):
                if settings.task == "point":
                    yield Example(query_id, (other,), 0.0)
                else:
                    first = rng.random() < 0.5
                    yield Example(query_id, (relevant, other) if first else (other, relevant), float(first))


def examples_at_once(batch_size: int) -> int:
    """Return the number of examples whose gradient is computed at once: the largest divisor of the batch size that fits
    into memory.
    """
    limit = batch_limits.get(MEMORY_LIMIT, batch_size)
    return next(count for count in range(limit, 0, -1) if batch_size % count == 0)


def train_classifier(
    settings: RerankerSettings,
    examples: Sequence[Example],
    corpus: Corpus,
    queries: Queries,
    seed: int,
    folder: Path,
    progress: Progress,
    at_once: int,
) -> None:
    """Train on the examples with binary cross-entropy. Writes `folder`/model and `folder`/train.jsonl.

    at_once: examples whose gradient is computed at once; a divisor of the batch size. Resumable states are kept in
    `folder`/trainer. Raises ModelError when the encoder does not load, or a gradient is not finite.
    """
    model = load_encoder(settings, seed)
    set_dropout(model, settings.dropout)
    rows = Rows.from_list(list(_rows(examples, corpus, queries, model)))
    steps = settings.steps or max(1, math.ceil(settings.epochs * len(examples) / settings.batch_size))
    states = folder / "trainer"
    arguments = CrossEncoderTrainingArguments(
        **common_arguments(settings, states, steps, at_once, settings.batch_size // at_once, seed),
        bf16=pick_dtype("auto", default_device()) == torch.bfloat16,
        report_to="none",
    )
    with progress.task("train reranker", steps, "steps") as advance:
        trainer = CrossEncoderTrainer(
            model=model,
            args=arguments,
            train_dataset=rows,
            loss=BinaryCrossEntropyLoss(model),
            callbacks=[TrainingMonitor(advance, folder, RERANKER_ADVICE)],
        )
        remove_printing(trainer)
        trainer.train(resume_from_checkpoint=last_complete(states))
    with atomic_folder(folder / "model") as target:
        model.save_pretrained(str(target))
        config = json.loads((target / "config.json").read_text(encoding="utf-8"))
        config |= {TASK_KEY: settings.task}
        (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def load_encoder(settings: RerankerSettings, seed: int) -> CrossEncoder:
    """Return the encoder with a new head of one output. Raises ModelError when it does not load, or when it reads fewer
    tokens than reranker.max_length.
    """
    source = resolve_model(settings.model)
    weights = {"use_safetensors": True, "dtype": torch.float32}
    source.check()
    limit = check_encoder(source, "Reranker", cuts=True)
    if settings.max_length > limit:
        raise ModelError(
            f"reranker.max_length is {settings.max_length}, and {settings.model!r} reads {limit} tokens at most. Lower "
            f"it with --set reranker.max_length={limit}."
        )
    with translate_errors(f"Reranker {settings.model!r} does not load"), torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CrossEncoder(
            source.place,
            revision=source.commit,
            num_labels=1,
            model_kwargs=weights,
            device=default_device().type,
        )
    prepare_encoder(model, source, "Reranker", UNUSED_BY_CLASSIFIERS)
    model.max_seq_length = settings.max_length
    return model


def _rows(
    examples: Sequence[Example], corpus: Corpus, queries: Queries, model: CrossEncoder
) -> Iterator[dict[str, Any]]:
    as_text = control_tokens(model.tokenizer).as_text
    for query_id, doc_ids, label in examples:
        texts = [corpus[doc_id].contents for doc_id in doc_ids]
        query, document = queries[query_id], texts[0]
        if len(texts) == 1:
            query, document = as_text(query), as_text(document)
        else:
            query, document = join_pair(model.tokenizer, Pair(query, *texts), model.max_length)
        yield {"query": query, "document": document, "label": label}
