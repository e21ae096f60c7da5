"""Collate training lists into a batch of the Trainer."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from sentence_transformers import MultiVectorEncoder

from pdadapt.data.corpus import Corpus, Queries
from pdadapt.labeling.bradley_terry import fit_strengths
from pdadapt.labeling.training_list import TrainingList
from pdadapt.settings.schema import TrainSettings
from pdadapt.training.stored_tokens import StoredTokens


class ListCollator:
    """Turns rows of lists into one batch of the Trainer: the queries, the distinct documents, and the labels.

    The labels are a dict. `documents` (B, N) int64: rows of the document batch, 0 where a list is shorter. `points` (B,
    N) float32: NaN where a label is missing. `pairs` (M, 3) int64: rows (query, i, j). `log_odds` (M,) float32.
    `listed` (B, N) bool: False where a list is shorter. `keys` (D,) int64: one key per distinct document. `relevant`
    (B, R) int64: the keys of the documents labeled relevant, -1 where a query has fewer. `query_ids`: B ids.
    """

    valid_label_columns = ("label",)

    def __init__(
        self,
        model: MultiVectorEncoder,
        corpus: Corpus,
        queries: Queries,
        lists: Sequence[TrainingList],
        settings: TrainSettings,
        stored: StoredTokens | None = None,
    ):
        """stored: holds the encoder's output for all texts of the lists. None means that the model encodes them."""
        self.stored = stored
        self.settings = settings
        self.model = model
        self.corpus = corpus
        self.queries = queries
        self.lists = lists

    def __call__(self, rows: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        lists = [self.lists[row["list"]] for row in rows]
        doc_ids = list(dict.fromkeys(doc_id for entry in lists for doc_id in entry.doc_ids))
        position = {doc_id: i for i, doc_id in enumerate(doc_ids)}
        width = max(len(entry.doc_ids) for entry in lists)
        documents = torch.zeros(len(lists), width, dtype=torch.long)
        points = torch.full((len(lists), width), math.nan)
        listed = torch.zeros(len(lists), width, dtype=torch.bool)
        keys = [document_key(doc_id) for doc_id in doc_ids]
        relevant = torch.full((len(lists), max(len(entry.relevant) for entry in lists)), -1)
        for row, entry in enumerate(lists):
            documents[row, : len(entry.doc_ids)] = torch.tensor([position[doc_id] for doc_id in entry.doc_ids])
            target = kd_target(entry, self.settings)
            points[row, : len(target)] = torch.tensor([math.nan if point is None else point for point in target])
            listed[row, : len(entry.doc_ids)] = True
            relevant[row, : len(entry.relevant)] = torch.tensor([document_key(doc_id) for doc_id in entry.relevant])
        pairs = [(row, i, j, log_odds) for row, entry in enumerate(lists) for i, j, log_odds in entry.pairs]
        batch: dict[str, Any] = {
            "label": {
                "documents": documents,
                "points": points,
                "pairs": torch.tensor([pair[:3] for pair in pairs], dtype=torch.long).reshape(-1, 3),
                "log_odds": torch.tensor([pair[3] for pair in pairs], dtype=torch.float32),
                "listed": listed,
                "keys": torch.tensor(keys),
                "relevant": relevant,
                "query_ids": [entry.query_id for entry in lists],
            }
        }
        texts = {
            "query": [self.queries[entry.query_id] for entry in lists],
            "document": [self.corpus[doc_id].contents for doc_id in doc_ids],
        }
        for task, inputs in texts.items():
            features = (
                self.stored.features(task, inputs)
                if self.stored
                else self.model.preprocess(inputs, prompt=self.model.prompts.get(task), task=task)
            )
            batch |= {f"{task}_{key}": value for key, value in features.items()}
        return batch


def kd_target(entry: TrainingList, settings: TrainSettings) -> Sequence[float | None]:
    """Return the scores that L_KD learns for a list's documents, before the division by the temperature. None if
    nothing is known of a document.
    """
    if settings.kd_target == "points" or not entry.pairs:
        return entry.points
    judged = {position for i, j, _ in entry.pairs for position in (i, j)}
    strengths = fit_strengths(entry.points, entry.pairs, settings.temperature, settings.prior_precision).strengths
    return [
        None if point is None and position not in judged else float(strength) * settings.temperature
        for position, (point, strength) in enumerate(zip(entry.points, strengths, strict=True))
    ]


def document_key(doc_id: str) -> int:
    """Return 63 bits of the id's hash. The key of a document is the same on every rank."""
    return int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "big") >> 1
