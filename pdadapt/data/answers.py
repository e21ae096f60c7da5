"""Open-domain question answering: does a passage hold the answer? As DPR counts it (Karpukhin et al. 2020)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import regex

from pdadapt.data.corpus import Corpus, Dataset
from pdadapt.data.run_file import Ranking

ANSWER_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


class AnswerMatcher:
    """The answers to questions, and the corpus that they are looked for in."""

    def __init__(self, corpus: Corpus, answers: Mapping[str, Sequence[str]]):
        """answers: by query id; each is right."""
        self.corpus = corpus
        self.tokens = {query_id: [answer_tokens(answer) for answer in right] for query_id, right in answers.items()}

    def recall(self, ranking: Ranking, query_ids: Iterable[str], k: int) -> dict[str, float]:
        """By query: 1 if one of its k best passages holds an answer, else 0."""
        return {
            query_id: float(any(self._holds(query_id, doc_id) for doc_id, _ in ranking.get(query_id, [])[:k]))
            for query_id in query_ids
        }

    def _holds(self, query_id: str, doc_id: str) -> bool:
        if doc_id not in self.corpus:
            return False
        text = answer_tokens(self.corpus[doc_id].text)
        return any(
            text[start : start + len(answer)] == answer
            for answer in self.tokens.get(query_id, ())
            if answer
            for start in range(len(text) - len(answer) + 1)
        )


def answer_matcher(dataset: Dataset) -> AnswerMatcher | None:
    """Where the dataset's answers are looked for; None of one without."""
    return AnswerMatcher(dataset.corpus.unsplit, dataset.answers) if dataset.answers else None


def answer_tokens(text: str) -> list[str]:
    """Lower-case words and signs, of the text's canonical decomposition."""
    return [token.lower() for token in ANSWER_TOKEN.findall(unicodedata.normalize("NFD", text))]
