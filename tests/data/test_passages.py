import pytest

from pdadapt.cli.main import app
from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.data.passages import Passages, rank_by_best_passage, split_documents
from pdadapt.errors import DataError
from pdadapt.retrieval.engines.bm25 import BM25
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.search import index_corpus, retrieve, retrieve_documents
from pdadapt.runtime.progress import Progress
from pdadapt.students.colbert import load_colbert


def test_windows_overlap_and_cover_the_text_as_it_stands():
    text = "one  two\nthree four five six seven"
    passages = Passages([Document("a", "T", text), Document("b", "", "short"), Document("c", "", " ")], 4, 1)
    assert list(passages) == [
        Document("a#0", "T", "one  two\nthree four"),
        Document("a#1", "T", "four five six seven"),
        Document("b#0", "", "short"),
        Document("c#0", "", ""),
    ]
    assert passages[-3].doc_id == "a#1" and [found.doc_id for found in passages[1:3]] == ["a#1", "b#0"]
    with pytest.raises(IndexError):
        passages[4]


def test_every_word_is_in_a_passage_and_none_is_only_overlap():
    words = [f"w{i}" for i in range(40)]
    for length in range(1, 41):
        document = Document("d", "", " ".join(words[:length]))
        passages = Passages([document], 7, 3)
        found = [passage.text.split() for passage in passages]
        assert list(dict.fromkeys(word for passage in found for word in passage)) == words[:length]
        assert all(len(passage) > 3 for passage in found[1:])


@pytest.mark.parametrize("text", ["180", "words=0", "words=5,overlap=5", "word=5", "words=x", "words=5,overlap=-1"])
def test_passages_option_of_another_form_is_refused(beir, text):
    with pytest.raises(DataError, match=r"not of the form words=N,overlap=M"):
        split_documents(load_dataset(str(beir)), text)


def test_a_document_ranks_by_its_best_passage():
    ranking = {"q": [("a#1", 3.0), ("b#0", 2.5), ("a#0", 2.0), ("c#x#0", 1.0)]}
    assert rank_by_best_passage(ranking, 3) == {"q": [("a", 3.0), ("b", 2.5), ("c#x", 1.0)]}
    assert rank_by_best_passage(ranking, 1) == {"q": [("a", 3.0)]}


def test_passage_search_finds_k_documents_despite_many_passages_of_one(stanford, tmp_path):
    texts = {"long": "rim spoke hub " * 30, "b": "pad rotor", "c": "tube valve", "d": "chain"}
    documents = [Document(name, "", text) for name, text in texts.items()]
    corpus = Corpus(Passages(documents, 3, 0), unsplit=Corpus(documents))
    engine = Exact(load_colbert(str(stanford)), 8)
    index_corpus(engine, corpus, tmp_path, Progress())
    queries = {"q": "rim spoke", "p": "pad"}
    found = retrieve_documents(engine, corpus, queries, tmp_path, 3, Progress())
    everything = rank_by_best_passage(retrieve(engine, corpus, queries, tmp_path, len(corpus), Progress()), 3)
    assert found == everything and all(len(ranked) == 3 for ranked in found.values())


@pytest.mark.parametrize("engine", ["exact", "bm25"])
def test_a_query_that_is_a_document_finds_none_of_its_passages(stanford, tmp_path, engine):
    texts = {"x1": "rim spoke hub rim spoke", "b": "rim spoke pad", "c": "rim valve", "d": "spoke chain"}
    documents = [Document(name, "", text) for name, text in texts.items()]
    corpus = Corpus(Passages(documents, 2, 1), unsplit=Corpus(documents))
    searched = Exact(load_colbert(str(stanford))) if engine == "exact" else BM25()
    index_corpus(searched, corpus, tmp_path, Progress())
    queries = {"x1": "rim  spoke hub\nrim spoke", "x2": texts["x1"], "b": texts["x1"]}
    found = retrieve_documents(searched, corpus, queries, tmp_path, 3, Progress())
    assert sorted(doc_id for doc_id, _ in found["x1"]) == ["b", "c", "d"]
    assert "x1" in dict(found["x2"]) and "x1" in dict(found["b"])


def test_passage_search_stops_when_the_engine_finds_no_more(tmp_path):
    documents = [Document(f"d{i}", "", "pad " * 4 if i else "rim spoke rim spoke") for i in range(40)]
    corpus = Corpus(Passages(documents, 2, 0), unsplit=Corpus(documents))
    asked = []

    class Watched(BM25):
        def search(self, queries, folder, documents, k, advance):
            asked.append(k)
            return super().search(queries, folder, documents, k, advance)

    index_corpus(Watched(), corpus, tmp_path, Progress())
    found = retrieve_documents(Watched(), corpus, {"q": "rim"}, tmp_path, 3, Progress())
    assert found["q"][0][0] == "d0" and len(found["q"]) == 1 and asked == [6]


@pytest.mark.slow
def test_a_corpus_is_adapted_and_measured_by_documents(beir, tiny_recipe, tmp_path, capsys):
    out = tmp_path / "run"
    arguments = ["adapt", "--corpus", str(beir), "--recipe", str(tiny_recipe), "--out", str(out)]
    app([*arguments, "--passages", "words=4,overlap=1", "--set", "train.steps=1"], standalone_mode=False)
    assert "20 documents in " in capsys.readouterr().err
    candidates = (out / "iteration-1" / "candidates.run").read_text(encoding="utf-8").split()
    assert candidates[2].endswith(("#0", "#1", "#2"))
    tested = (out / "iteration-1" / "test.run").read_text(encoding="utf-8").splitlines()
    known = {document.doc_id for document in load_dataset(str(beir)).corpus}
    assert {line.split()[2] for line in tested} <= known
