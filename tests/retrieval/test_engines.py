import pytest
import torch

from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.retrieval.engines import exact
from pdadapt.retrieval.search import index_corpus, retrieve, sample_queries
from pdadapt.runtime.progress import Progress
from pdadapt.students.colbert import load_colbert
from pdadapt.students.encoding import encode_documents


@pytest.fixture(scope="module")
def model(stanford):
    return load_colbert(str(stanford))


def naive_maxsim(query, document):
    """ColBERT equation 3: for every query token the best document token, summed."""
    return sum(max((q @ d).item() for d in document) for q in query)


def test_search_equals_naive_maxsim_over_several_shards(model, beir, tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "DOCUMENTS_PER_SHARD", 7)
    monkeypatch.setattr(exact, "QUERY_BLOCK", 2)
    monkeypatch.setattr(exact, "QUERIES_AT_ONCE", 3)
    monkeypatch.setattr(exact, "BLOCK_TOKENS", 20)
    monkeypatch.setattr(exact, "BLOCK_SIMILARITIES", {"cpu": 64})
    dataset = load_dataset(str(beir))
    passages = [document.contents for document in dataset.corpus]
    queries = list(dataset.queries.values())[:4]
    exact.Exact(model, 40).index(dataset.corpus.documents, tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 3
    documents = [matrix.half().float() for matrix in model.encode_document(passages, convert_to_numpy=False)]
    found = list(exact.Exact(model).search(queries, tmp_path, len(passages), k=5))
    for query, (positions, scores) in zip(model.encode_query(queries), found, strict=True):
        expected = torch.tensor([naive_maxsim(query, document) for document in documents])
        best = expected.argsort(descending=True, stable=True)[:5]
        torch.testing.assert_close(torch.tensor(scores), expected[best], atol=1e-4, rtol=1e-4)
        assert set(positions) == set(best.tolist())


@pytest.mark.parametrize("batch_tokens", [1, 40, None])
def test_documents_are_encoded_as_sentence_transformers_does(model, beir, batch_tokens):
    texts = [document.contents for document in load_dataset(str(beir)).corpus]
    expected = model.encode_document(texts)
    found = encode_documents(model, texts, batch_tokens)
    assert len({len(matrix) for matrix in found}) > 1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
def test_when_memory_runs_out_fewer_documents_are_encoded_at_once(model, beir, monkeypatch):
    texts = [document.contents for document in load_dataset(str(beir)).corpus]
    expected, sizes, forward = encode_documents(model, texts), [], model.forward

    def full(features, **options):
        sizes.append(len(features["input_ids"]))
        if sizes[-1] > 3:
            raise torch.OutOfMemoryError
        return forward(features, **options)

    monkeypatch.setattr(model, "forward", full)
    for ours, theirs in zip(encode_documents(model, texts), expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert sizes[0] == len(texts) and 1 < max(sizes[-3:]) <= 3


def test_shards_that_are_there_are_not_encoded_again(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exact, "DOCUMENTS_PER_SHARD", 2)
    texts = ["rim spoke", "pad rotor", "chain cable", "tube valve", "hub axle"]
    documents = [Document(f"d{i}", "", text) for i, text in enumerate(texts)]
    exact.Exact(model).index(documents, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    (tmp_path / "shard-00001.safetensors").unlink()
    told = []
    exact.Exact(model).index(documents, tmp_path, advance=lambda n, earlier=False: told.append((n, earlier)))
    assert told == [(3, True), (2, False)]
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_query_that_is_a_document_does_not_find_itself(model, tmp_path):
    corpus = Corpus([Document(f"d{i}", "", text) for i, text in enumerate(["rim spoke", "rim hub", "pad rotor"])])
    index_corpus(exact.Exact(model), corpus, tmp_path, Progress())
    ranking = retrieve(
        exact.Exact(model), corpus, {"d0": "rim spoke", "d1": "rim spoke", "q": "rim spoke"}, tmp_path, 2, Progress()
    )
    assert [doc_id for doc_id, _ in ranking["d0"]] == ["d1", "d2"]
    assert "d1" in [doc_id for doc_id, _ in ranking["d1"]], "the same id by chance, another text"
    assert ranking["q"][0][0] == "d0" and len(ranking["q"]) == 2


def test_sampled_queries_are_seeded_and_keep_their_order():
    queries = {f"q{i}": str(i) for i in range(50)}
    sample = sample_queries(queries, 10, seed=1)
    assert len(sample) == 10 and list(sample) == [query_id for query_id in queries if query_id in sample]
    assert sample == sample_queries(queries, 10, seed=1) != sample_queries(queries, 10, seed=2)
    assert sample_queries(queries, None, 1) == sample_queries(queries, 99, 1) == queries
