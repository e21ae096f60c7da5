"""Stop a labeling whose scores cannot be right, before the rest of it is paid for."""

from __future__ import annotations

from pdadapt.errors import ModelError
from pdadapt.teachers.base import Pair, Scores, Task

SMALLEST_SPREAD = 1e-6  # scores that differ by no more are taken as equal
COMPARED_SCORES = 32  # equal scores after which a teacher is taken to be blind to the documents
FIRST_PROMPTS = 64  # prompts of which one must be answered


class ScoreGuard:
    """Watches a teacher's first scores, until two scores of one query differ."""

    def __init__(self, new: bool):
        """new: the store holds no score of this teacher yet."""
        self._new = new
        self._unanswered = 0
        self._first: dict[str, float] = {}  # the first score of each query
        self._equal = 0  # scores that equal the first one of their query
        self._differ = False

    def watch(self, batch: Scores) -> None:
        """Look at the next scores. Raises ModelError if they cannot be right.

        That is so if all documents of each query have the same score, or if a new teacher answers none of its first
        prompts.
        """
        if self._differ:
            return
        for question, score in batch:
            if score is None:
                self._unanswered += 1
            elif question[0] not in self._first:
                self._first[question[0]] = score
            elif abs(score - self._first[question[0]]) > SMALLEST_SPREAD:
                self._differ = True
                self._first.clear()
                return
            elif score != 0:  # BM25 gives 0 to all documents that share no word with the query
                self._equal += 1
        if self._new and not self._first and self._unanswered >= FIRST_PROMPTS:
            check_answers(self._unanswered, self._unanswered, "pair" if isinstance(batch[0][0], Pair) else "point")
        if self._equal >= COMPARED_SCORES:
            raise ModelError(
                f"The teacher gave the same score to all documents of a query, {self._equal:,} times in a row. It does "
                "not read them. Check its kind (teacher.kind), its prompt and its chat template."
            )


def check_answers(missing: int, total: int, task: Task) -> None:
    """Raises ModelError when all answers are missing, because then there is nothing to learn from."""
    if missing and missing == total:
        without_pairs = " To adapt without pairs, add --set teacher.pair.per_query=0." if task == "pair" else ""
        raise ModelError(
            f"The teacher gave no answer to any of {missing:,} {task}s. An imported teacher needs labels of exactly "
            f"these texts under this --name. A server must list the label words among its top_logprobs.{without_pairs}"
        )
