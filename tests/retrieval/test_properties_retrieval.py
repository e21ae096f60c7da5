"""Passages cover a document's words. Fusion orders the documents of its rankings."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdadapt.data.corpus import Document
from pdadapt.data.passages import Passages
from pdadapt.retrieval.fusion import fuse

texts = st.lists(
    st.tuples(st.text("abc漢é.", min_size=1, max_size=4), st.sampled_from([" ", "\n", "\t ", "\u3000"])), max_size=40
).map(lambda parts: "".join(word + space for word, space in parts))


@given(text=texts, words=st.integers(1, 9), share=st.data())
def test_passages_cover_every_word_in_order(text, words, share):
    overlap = share.draw(st.integers(0, words - 1))
    passages = [passage.text for passage in Passages([Document("d", "Title", text)], words, overlap)]
    found = [re.findall(r"\S+", passage) for passage in passages]
    assert found[0] + [word for passage in found[1:] for word in passage[overlap:]] == re.findall(r"\S+", text)
    assert all(len(passage) == words for passage in found[:-1]) and len(found[-1]) <= words
    assert all(passage[:overlap] == before[-overlap:] for before, passage in itertools.pairwise(found) if overlap)
    assert all(len(passage) > overlap for passage in found[1:]), "no passage is overlap alone"
    assert all(passage in text for passage in passages), "a passage is a piece of the text as it stands"


@given(texts=st.lists(texts, max_size=6), words=st.integers(1, 9), share=st.data())
def test_passages_of_a_corpus_are_those_of_each_document(texts, words, share):
    overlap = share.draw(st.integers(0, words - 1))
    documents = [Document(f"d{number}", "", text) for number, text in enumerate(texts)]
    passages = Passages(documents, words, overlap)
    alone = [passage for document in documents for passage in Passages([document], words, overlap)]
    assert list(passages) == alone == [passages[number] for number in range(len(passages))]
    assert [passages[number] for number in range(-len(passages), 0)] == alone
    assert len({passage.doc_id for passage in passages}) == len(passages)


rankings = st.lists(st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=10), min_size=1, max_size=4).map(
    lambda rankings: [[(doc_id, float(-rank)) for rank, doc_id in enumerate(ranked)] for ranked in rankings]
)


@given(rankings=rankings)
def test_fusion_is_a_permutation_of_the_documents_it_was_given(rankings):
    fused = fuse(rankings, 10)
    doc_ids = [doc_id for doc_id, _ in fused]
    assert sorted(doc_ids) == sorted({doc_id for ranked in rankings for doc_id, _ in ranked})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(fuse(rankings, k) == fused[:k] for k in range(11))


@given(rankings=rankings, seed=st.randoms(use_true_random=False))
def test_the_order_of_the_rankings_changes_no_fused_score(rankings, seed):
    shuffled = seed.sample(rankings, len(rankings))
    assert dict(fuse(shuffled, 10)) == pytest.approx(dict(fuse(rankings, 10)))


@given(ranked=st.lists(st.sampled_from("abcdefghij"), unique=True), copies=st.integers(1, 3))
def test_rankings_that_agree_keep_their_order(ranked, copies):
    scored = [(doc_id, 1.0) for doc_id in ranked]
    assert [doc_id for doc_id, _ in fuse([scored] * copies, 10)] == ranked


@given(rankings=rankings)
def test_a_document_that_is_ahead_in_every_ranking_is_ahead_when_fused(rankings):
    shared = sorted(set.intersection(*({doc_id for doc_id, _ in ranked} for ranked in rankings)))
    places = {doc_id: rank for rank, (doc_id, _) in enumerate(fuse(rankings, 10))}
    ranks = [{doc_id: rank for rank, (doc_id, _) in enumerate(ranked)} for ranked in rankings]
    for better in shared:
        for worse in shared:
            if all(rank[better] < rank[worse] for rank in ranks):
                assert places[better] < places[worse]
