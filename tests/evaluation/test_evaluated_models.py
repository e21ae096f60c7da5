"""Whatever sentence-transformers loads can be measured, as what it says it is; and BM25."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.sparse_encoder.modules import MLMTransformer, SpladePooling
from tiny_models import bert_config, bert_tokenizer
from transformers import BertForMaskedLM
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.corpus import Corpus, Document
from pdadapt.data.load import load_dataset
from pdadapt.errors import DataError, ModelError
from pdadapt.models.source import encoder_type, resolve_model
from pdadapt.retrieval.engines.bm25 import BM25
from pdadapt.retrieval.engines.load import load_engine
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import RetrieveSettings


@pytest.fixture(scope="module")
def splade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mlm")
    torch.manual_seed(0)
    BertForMaskedLM(bert_config(bert_tokenizer(folder))).save_pretrained(folder)
    model = SparseEncoder(modules=[MLMTransformer(str(folder)), SpladePooling()])
    model.save_pretrained(str(folder / "splade"), create_model_card=False)
    return folder / "splade"


@pytest.fixture(scope="module")
def dense(encoder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense")
    transformer = Transformer(str(encoder))
    model = SentenceTransformer(modules=[transformer, Pooling(transformer.get_embedding_dimension(), "mean")])
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def test_encoder_type_is_read_from_the_model_folder(encoder, stanford, splade, dense):
    kinds = {path: encoder_type(resolve_model(str(path))) for path in (encoder, stanford, splade, dense)}
    assert list(kinds.values()) == ["plain", "colbert", "sparse", "dense"]


def test_a_sparse_encoder_ranks_by_every_dot_product(splade, beir, tmp_path):
    dataset = load_dataset(str(beir))
    engine = load_engine(str(splade), {}, [], RetrieveSettings())
    index_corpus(engine, dataset.corpus, tmp_path, Progress())
    ranking = retrieve(engine, dataset.corpus, dataset.test_queries, tmp_path, 5, Progress())
    model = SparseEncoder(str(splade))
    documents = model.encode_document([document.contents for document in dataset.corpus]).to_dense()
    for query_id, text in dataset.test_queries.items():
        expected = (model.encode_query([text]).to_dense() @ documents.T)[0].sort(descending=True).values[:5]
        found = torch.tensor([score for _, score in ranking[query_id]])
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_bm25_by_hand(tmp_path):
    texts = {"a": "wheel spokes wheel", "b": "brake pads", "c": "the wheels of a brake and a chain"}
    corpus = Corpus([Document(name, "", text) for name, text in texts.items()])
    index_corpus(BM25(), corpus, tmp_path, Progress())
    found = retrieve(BM25(), corpus, {"q": "Wheel", "none": "tube"}, tmp_path, 3, Progress())
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # Lucene's: in two of three documents
    lengths = {"a": 3, "b": 2, "c": 3}  # without stop words
    average = sum(lengths.values()) / 3
    expected = {
        name: idf * times / (times + 0.9 * (1 - 0.4 + 0.4 * lengths[name] / average))
        for name, times in (("a", 2), ("c", 1))
    }
    assert dict(found["q"]) == pytest.approx(expected, rel=1e-5) and [name for name, _ in found["q"]] == ["a", "c"]
    assert found["none"] == []


def test_bm25_is_the_same_in_blocks_and_says_where_there_are_no_words(beir, tmp_path, monkeypatch):
    dataset = load_dataset(str(beir))
    found = []
    for block in (10_000, 3):
        monkeypatch.setattr("pdadapt.data.bm25_index.TOKENIZE_BLOCK", block)
        index_corpus(BM25(), dataset.corpus, tmp_path / str(block), Progress())
        found.append(retrieve(BM25(), dataset.corpus, dataset.test_queries, tmp_path / str(block), 20, Progress()))
    for query_id, ranked in found[0].items():
        assert dict(ranked) == pytest.approx(dict(found[1][query_id]), rel=1e-5)
    with pytest.raises(DataError, match="contains only stop words"):
        index_corpus(BM25(), Corpus([Document("d", "", "the of and")]), tmp_path / "stop", Progress())


def test_half_removed_index_is_made_anew(stanford, beir, tmp_path, monkeypatch):
    corpus, engine = load_dataset(str(beir)).corpus, load_engine(str(stanford), {}, [], RetrieveSettings())
    index_corpus(engine, corpus, tmp_path / "i", Progress(), {"model": "a"})

    def killed(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(shutil, "rmtree", killed)
        index_corpus(engine, corpus, tmp_path / "i", Progress(), {"model": "b"})
    shard = tmp_path / "i" / "shard-00000.safetensors"
    first = shard.stat().st_mtime_ns
    index_corpus(engine, corpus, tmp_path / "i", Progress(), {"model": "a"})
    assert shard.stat().st_mtime_ns != first


@pytest.mark.slow
@pytest.mark.parametrize("against", [[], ["stanford", "splade"]])
def test_every_kind_is_measured_beside_bm25(beir, dense, stanford, splade, tmp_path, against):
    places = {"stanford": stanford, "splade": splade}
    given = [part for name in against for part in ("--against", str(places[name]))]
    command = ["evaluate", "--corpus", str(beir), "--model", str(dense), "--out", str(tmp_path), *given]
    said = CliRunner().invoke(app, command)
    assert said.exit_code == 0, said.output
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["models"] == ["bm25", *(str(places[name]) for name in against), str(dense)]
    compared = [(one["base"], one["system"]) for one in metrics["measures"]["nDCG@10"]["comparisons"]]
    assert compared == ([(1, 3), (2, 3)] if against else [(0, 1)])
    assert metrics["measures"]["nDCG@10"]["means"][0] > 0.5


def test_an_index_is_kept_for_the_same_origin_and_made_anew_for_another(stanford, beir, tmp_path):
    corpus = load_dataset(str(beir)).corpus
    engine = load_engine(str(stanford), {}, [], RetrieveSettings())
    index_corpus(engine, corpus, tmp_path / "i", Progress(), {"model": "a"})
    shard = tmp_path / "i" / "shard-00000.safetensors"
    first = shard.stat().st_mtime_ns
    index_corpus(engine, corpus, tmp_path / "i", Progress(), {"model": "a"})
    assert shard.stat().st_mtime_ns == first
    index_corpus(engine, corpus, tmp_path / "i", Progress(), {"model": "b"})
    assert shard.stat().st_mtime_ns != first


@pytest.mark.slow
def test_evaluate_keeps_indexes_where_it_is_asked_to_and_makes_them_anew_for_other_weights(stanford, beir, tmp_path):
    model, indexes = tmp_path / "model", tmp_path / "indexes"
    shutil.copytree(stanford, model)

    def shards(*options):
        command = ["evaluate", "--corpus", str(beir), "--model", str(model), "--out", str(tmp_path / "out"), *options]
        said = CliRunner().invoke(app, command)
        assert said.exit_code == 0, said.output
        return {file: file.stat().st_mtime_ns for file in indexes.rglob("shard-*")}

    assert shards() == {} and not list((tmp_path / "out").glob("index*"))
    kept = shards("--index", str(indexes))
    assert len(kept) == 1 and shards("--index", str(indexes)) == kept
    assert shards("--index", str(indexes), "--set", "student.document_length=9") != kept
    weights = load_file(model / "model.safetensors")
    save_file({name: 2 * weight for name, weight in weights.items()}, model / "model.safetensors")
    changed = shards("--index", str(indexes))
    assert changed.keys() == kept.keys() and changed != kept


@pytest.mark.parametrize("factory", ["Flat", "HNSW16", "IVF2,Flat"])
def test_faiss_finds_what_exact_search_finds(dense, beir, tmp_path, factory):
    pytest.importorskip("faiss")
    dataset = load_dataset(str(beir))
    rankings = []
    for settings in (RetrieveSettings(), RetrieveSettings(engine="faiss", faiss=factory)):
        engine = load_engine(str(dense), {}, [], settings)
        folder = tmp_path / settings.engine
        index_corpus(engine, dataset.corpus, folder, Progress())
        rankings.append(retrieve(engine, dataset.corpus, dataset.test_queries, folder, 3, Progress()))
    exact, found = rankings
    for query_id in exact:
        assert [doc_id for doc_id, _ in exact[query_id]] == [doc_id for doc_id, _ in found[query_id]]
        expected = [score for _, score in exact[query_id]]
        assert [score for _, score in found[query_id]] == pytest.approx(expected, abs=2e-2)
    assert not list((tmp_path / "faiss").glob("shard-*")) and (tmp_path / "faiss" / "faiss.index").exists()
    before = (tmp_path / "faiss" / "faiss.index").stat().st_mtime_ns
    index_corpus(engine, dataset.corpus, tmp_path / "faiss", Progress())
    assert (tmp_path / "faiss" / "faiss.index").stat().st_mtime_ns == before


def test_faiss_refuses_what_it_cannot_index(dense, stanford, beir, tmp_path):
    pytest.importorskip("faiss")
    engine = load_engine(str(dense), {}, [], RetrieveSettings(engine="faiss", faiss="IVF64,Flat"))
    with pytest.raises(ModelError, match=r"retrieve\.faiss: 'IVF64,Flat' cannot be fitted to 20 documents"):
        index_corpus(engine, load_dataset(str(beir)).corpus, tmp_path, Progress())
    with pytest.raises(ModelError, match="many vectors per text\\. Use exact, plaid or colbert"):
        load_engine(str(stanford), {}, [], RetrieveSettings(engine="faiss"))
    with pytest.raises(ModelError, match=r"retrieve\.faiss: faiss cannot make an index 'Flot' of 32 dimensions"):
        load_engine(str(dense), {}, [], RetrieveSettings(engine="faiss", faiss="Flot"))
