"""The general test set that ships with the tool is consistent."""

from collections import Counter

import pytest

from pdadapt.data.load import load_dataset


@pytest.fixture(scope="module")
def general():
    return load_dataset("general")


@pytest.fixture(scope="module")
def doc_ids(general):
    return [document.doc_id for document in general.corpus]


def subject(key: str) -> str:
    return key.rpartition("-")[0]


def test_every_subject_has_its_passages_and_queries(general, doc_ids):
    assert len(general.corpus) == 240
    passages, queries = Counter(map(subject, doc_ids)), Counter(map(subject, general.test_queries))
    assert len(passages) == 40
    assert set(passages.values()) == {6}
    assert queries == dict.fromkeys(passages, 3)


def test_ids_and_texts_are_unique(general, doc_ids):
    assert len(set(doc_ids)) == len(doc_ids)
    assert not [key for key in [*doc_ids, *general.test_queries] if len(key.split()) != 1]
    for texts in ([document.text for document in general.corpus], list(general.test_queries.values())):
        assert len({text.lower() for text in texts}) == len(texts)


def test_passages_are_of_one_length(general):
    lengths = [len(document.text.split()) for document in general.corpus]
    assert min(lengths) >= 40
    assert max(lengths) <= 90


def test_every_query_has_one_to_three_relevant_passages_and_one_that_answers_it(general, doc_ids):
    assert set(general.qrels) == set(general.test_queries)
    for grades in general.qrels.values():
        assert set(grades) <= set(doc_ids)
        assert 1 <= len(grades) <= 3
        assert set(grades.values()) <= {1, 2}
        assert 2 in grades.values()


def test_all_queries_are_kept_for_the_test(general):
    assert not general.queries
