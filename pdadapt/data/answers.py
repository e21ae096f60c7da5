"""Open-domain question answering: does a passage contain an answer? Matching follows DPR (Karpukhin et al. 2020)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence

import regex

from pdadapt.data.corpus import Corpus, Dataset
from pdadapt.data.run_file import Ranking

ANSWER_TOKEN = regex.compile(r"[\p{L}\p{N}\p{M}]+|[^\p{Z}\p{C}]")


class AnswerMatcher:
    """Looks for the answers to questions in the documents of a corpus."""

    def __init__(self, corpus: Corpus, answers: Mapping[str, Sequence[str]]):
        """answers: the accepted answers by query id. A passage needs to contain only one of them."""
        self.corpus = corpus
        self.tokens = {query_id: [answer_tokens(text) for text in texts] for query_id, texts in answers.items()}

    def recall(self, ranking: Ranking, query_ids: Iterable[str], k: int) -> dict[str, float]:
        """Success@k of each query: 1.0 if one of its top k passages contains an answer, else 0.0."""
        return {
            query_id: float(any(self._has_answer(query_id, doc_id) for doc_id, _ in ranking.get(query_id, [])[:k]))
            for query_id in query_ids
        }

    def _has_answer(self, query_id: str, doc_id: str) -> bool:
        """Whether the tokens of one of the query's answers occur in the document, in order and without a gap."""
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
    """The matcher for a dataset's answers. It searches unsplit documents. None if the dataset has no answers."""
    return AnswerMatcher(dataset.corpus.unsplit, dataset.answers) if dataset.answers else None


def answer_tokens(text: str) -> list[str]:
    """Words and punctuation marks of the NFD-normalised text, in lower case."""
    return [token.lower() for token in ANSWER_TOKEN.findall(unicodedata.normalize("NFD", text))]
