import random
from collections import Counter

import numpy as np
import pytest
import torch

from pdadapt.data.corpus import Document
from pdadapt.data.words import split_words, word_limit_factor
from pdadapt.generation import sources
from pdadapt.generation.sources import draw_documents, embed, overlap, reasons_left_out, shingles, spread_over_clusters
from pdadapt.students.encoding import encode_documents
from pdadapt.students.load import load_student_as

VOCABULARY = [f"word{number}" for number in range(500)]


def text(seed, length=40):
    return " ".join(random.Random(seed).choices(VOCABULARY, k=length))


def test_split_words_splits_every_script():
    assert split_words("Don’t re-use E=mc², naïve!") == ["don’t", "re", "use", "e", "mc²", "naïve"]
    assert split_words("東京は大きい City-2") == ["東", "京", "は", "大", "き", "い", "city", "2"]
    assert split_words("Привет, мир") == ["привет", "мир"]
    assert split_words("हिन्दी में") == ["हिन्दी", "में"]


def test_word_limit_is_tripled_where_characters_are_words():
    for found in ("東京はどこですか", "ที่ไหน", "東京 tower は"):
        assert word_limit_factor(split_words(found)) == 3
    for found in ("where is 東京", "где", "", "a b"):
        assert word_limit_factor(split_words(found)) == 1


@pytest.mark.slow
def test_texts_without_spaces_are_no_boilerplate():
    chosen = random.Random(0)
    corpus = ["".join(chosen.choices("กขคงจฉ", k=900)) for _ in range(300)]
    assert reasons_left_out(corpus) == [None] * 300
    assert reasons_left_out([corpus[0], corpus[0][:880], "京" * 20]) == [None, "near copy", "too short"]


@pytest.mark.slow
def test_the_sample_is_drawn_by_the_seed_from_the_whole_corpus():
    found = draw_documents(10_000, 20, 1)
    assert found == sorted(set(found)) == draw_documents(10_000, 20, 1) != draw_documents(10_000, 20, 2)
    assert len(found) == 20 * sources.SAMPLED_PER_QUERY and min(found) < 1_000 and max(found) > 9_000
    assert draw_documents(30, 20, 1) == list(range(30))
    assert len(draw_documents(200_000, 10_000, 1)) == sources.MAX_SAMPLED
    assert len(draw_documents(900_000, 100_000, 1)) == 400_000, "so that as many queries can be had"


def test_short_texts_copies_and_boilerplate_are_left_out():
    notice = text("notice", 30)
    pages = [f"{notice} {text(number, 12)}" for number in range(12)]
    letters = text("a", 90)
    nearly = letters.replace(letters.split()[20], "other", 1)
    texts = [letters, text("b"), letters.upper() + "!", nearly, "too few words are here", text("c"), *pages]
    assert reasons_left_out(texts) == [None, None, "near copy", "near copy", "too short", None, *["boilerplate"] * 12]
    assert reasons_left_out(pages[:10]) == [None] * 10, "what stands in ten documents or fewer is none"
    assert reasons_left_out([]) == []
    told = []
    reasons_left_out(iter(texts), told.append)
    assert told == [1] * len(texts)


def test_overlap_compares_shingles_of_five_words():
    one, other = shingles(["a", "b", "c", "d", "e", "f"]), shingles(["a", "b", "c", "d", "e", "g"])
    assert overlap(one, other) == overlap(other, one) == pytest.approx(1 / 3)
    assert overlap(one, one) == 1 and overlap(one, shingles(["e", "d", "c", "b", "a"])) == 0
    assert len(shingles(["a", "b", "c", "d"])) == 0


def test_every_cluster_has_its_turn_before_another_has_two():
    chosen = np.random.default_rng(0)
    sizes = [50, 10, 5]
    vectors = np.concatenate(
        [chosen.normal(center, 0.01, (size, 3)) for center, size in zip(np.eye(3), sizes, strict=True)]
    ).astype(np.float32)
    labels = np.repeat([0, 1, 2], sizes)
    order = spread_over_clusters(vectors, 3, 7)
    assert sorted(order) == list(range(65)) and order == spread_over_clusters(vectors, 3, 7) != spread_over_clusters(
        vectors, 3, 8
    )
    assert Counter(labels[order[:15]]) == {0: 5, 1: 5, 2: 5}
    assert Counter(labels[order[15:25]]) == {0: 5, 1: 5}
    assert len(spread_over_clusters(vectors[:2], 300, 7)) == 2


def test_vectors_are_the_means_of_token_embeddings_and_outlive_a_kill(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "VECTORS_PER_FILE", 3)
    documents = [
        Document(f"d{number}", "", text) for number, text in enumerate(["rim hub", "pad", "tube valve bead"] * 3)
    ]
    student = load_student_as(str(encoder))
    steps = []
    positions = [0, 1, 2, 4, 5, 7, 8]

    def run():
        return embed(student, documents, positions, tmp_path, None, lambda n, **more: steps.append((n, bool(more))))

    found = run()
    wanted = [matrix.mean(0) for matrix in encode_documents(student, [documents[p].contents for p in positions])]
    assert np.allclose(found, torch.nn.functional.normalize(torch.stack(wanted)).cpu().numpy(), atol=1e-5)
    (tmp_path / "vectors-1.npy").unlink()
    steps.clear()
    assert np.array_equal(run(), found)
    assert [step for step in steps if step[1]] == [(3, True), (1, True)]
    assert sum(n for n, earlier in steps if not earlier) == 3
