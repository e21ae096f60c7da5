import json

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from pdadapt.data.load import load_dataset
from pdadapt.errors import ModelError
from pdadapt.labeling.training_list import TrainingList
from pdadapt.retrieval.engines.exact import Exact
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import TrainSettings
from pdadapt.students.load import load_student_as, save_student
from pdadapt.training.batch import ListCollator
from pdadapt.training.pairdistill_loss import PairDistillLoss
from pdadapt.training.trainer import train

TEXTS = ["rim spoke hub", "pad rotor", "chain cable lever derailleur"]


@pytest.fixture
def dense(encoder, tmp_path):
    """A sentence-transformers model: mean pooling, normalised, with prompts."""
    transformer = Transformer(str(encoder))
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), "mean"), Normalize()]
    model = SentenceTransformer(modules=modules, prompts={"query": "hub ", "document": "rim "})
    model.save_pretrained(str(tmp_path / "dense"), create_model_card=False)
    return tmp_path / "dense"


def vectors(matrices):
    return torch.cat(list(matrices))


def test_it_encodes_as_sentence_transformers_does_with_prompts(dense):
    theirs, ours = SentenceTransformer(str(dense)), load_student_as(str(dense), "dense")
    for encode in ("encode_query", "encode_document"):
        found = getattr(ours, encode)(TEXTS)
        assert [matrix.shape[0] for matrix in found] == [1, 1, 1]
        expected = getattr(theirs, encode)(TEXTS, convert_to_tensor=True)
        torch.testing.assert_close(vectors(found), expected, atol=1e-5, rtol=1e-5)


def test_a_plain_encoder_takes_cls_and_the_dot_product_as_dpr_does(encoder):
    model = load_student_as(str(encoder), "dense")
    transformer = Transformer(str(encoder))
    with torch.no_grad():
        output = transformer.eval()(transformer.preprocess(TEXTS))
    torch.testing.assert_close(
        vectors(model.encode_document(TEXTS)), output["token_embeddings"][:, 0], atol=1e-5, rtol=1e-5
    )
    cosine = vectors(load_student_as(str(encoder), "dense", similarity="cosine").encode_document(TEXTS))
    torch.testing.assert_close(cosine, torch.nn.functional.normalize(output["token_embeddings"][:, 0]))
    mean = vectors(load_student_as(str(encoder), "dense", pooling="mean").encode_document(TEXTS[:1]))[0]
    torch.testing.assert_close(mean, output["token_embeddings"][0][output["attention_mask"][0].bool()].mean(0))


@pytest.mark.parametrize("similarity", [None, "dot", "cosine"])
def test_a_checkpoint_loads_here_and_in_sentence_transformers(dense, tmp_path, similarity):
    model = load_student_as(str(dense), "dense", similarity=similarity)
    save_student(model, tmp_path / "saved")
    expected = vectors(model.encode_query(TEXTS))
    torch.testing.assert_close(vectors(load_student_as(str(tmp_path / "saved"), "dense").encode_query(TEXTS)), expected)
    plain = SentenceTransformer(str(tmp_path / "saved"))
    torch.testing.assert_close(plain.encode_query(TEXTS, convert_to_tensor=True), expected)
    assert plain.similarity_fn_name == ("dot" if similarity == "dot" else "cosine")
    assert (tmp_path / "saved" / "model.safetensors").exists() and not list((tmp_path / "saved").rglob("*.bin"))


def test_retrieval_is_the_dot_product(dense, beir, tmp_path):
    model, dataset = load_student_as(str(dense), "dense"), load_dataset(str(beir))
    index_corpus(Exact(model), dataset.corpus, tmp_path / "index", Progress())
    ranking = retrieve(Exact(model), dataset.corpus, dataset.test_queries, tmp_path / "index", 5, Progress())
    documents = vectors(model.encode_document([document.contents for document in dataset.corpus]))
    for query_id, text in dataset.test_queries.items():
        expected = (vectors(model.encode_query([text])) @ documents.T)[0].sort(descending=True).values[:5]
        found = torch.tensor([score for _, score in ranking[query_id]])
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
def test_training_lowers_the_loss(dense, beir, tmp_path):
    dataset = load_dataset(str(beir))
    lists = [
        TrainingList(query_id, [f"d{(start + i) % 20}" for i in range(4)], [2.0, 1.0, 0.0, -1.0], [(0, 3, 3.0)])
        for start, query_id in enumerate(dataset.queries)
    ]
    settings = TrainSettings(
        steps=30, batch_size=4, n_way=4, learning_rate=1e-3, save_steps=100, student_temperature=0.05
    )
    train(
        load_student_as(str(dense), "dense"), lists, dataset.corpus, dataset.queries, settings, 1, tmp_path, Progress()
    )
    curve = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()]
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]
    assert SentenceTransformer(str(tmp_path / "checkpoint")).similarity_fn_name == "cosine"


def test_a_tokenizer_that_pads_left_and_small_chunks_change_nothing(dense, beir, tmp_path):
    """As decoders' tokenizers do; and a document takes the room of one vector in the loss, not of its tokens."""
    dataset = load_dataset(str(beir))
    settings = json.loads((dense / "tokenizer_config.json").read_text(encoding="utf-8"))
    lists = [TrainingList(query_id, ["d0", "d5", "d9"], [2.0, 1.0, 0.0], []) for query_id in list(dataset.queries)[:2]]
    found = []
    for side, tokens in (("right", 10_000), ("left", 10_000), ("left", 8)):
        (dense / "tokenizer_config.json").write_text(json.dumps(settings | {"padding_side": side}), encoding="utf-8")
        model = load_student_as(str(dense), "dense").eval()
        batch = ListCollator(model, dataset.corpus, dataset.queries, lists, TrainSettings())([{"list": 0}, {"list": 1}])
        features = {key.removeprefix("document_"): batch[key] for key in batch if key.startswith("document_")}
        embeddings, mask = PairDistillLoss(model, TrainSettings(chunk_tokens=tokens)).encode_documents(features)
        assert mask.shape == (3, 1)
        found.append(embeddings)
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(found[0], found[2])


def test_dense_student_needs_one_vector_per_text(tmp_path, encoder):
    transformer = Transformer(str(encoder))
    model = SentenceTransformer(modules=[transformer, Normalize("token_embeddings")])
    model.save_pretrained(str(tmp_path / "tokens"), create_model_card=False)
    with pytest.raises(ModelError, match="is not a dense model"):
        load_student_as(str(tmp_path / "tokens"), "dense")
