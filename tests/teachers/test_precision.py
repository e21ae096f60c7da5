"""A transformer's body may be bfloat16; what is computed from its states is float32, or many scores would be alike."""

import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.sentence_transformer.modules import Pooling
from sentence_transformers.util import maxsim
from tiny_models import bert_config, bert_tokenizer
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertForSequenceClassification,
    DebertaV2Config,
    DebertaV2ForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    T5Config,
    T5ForSequenceClassification,
)

from pdadapt.settings.schema import TeacherSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.teachers.base import Point, scores_in_order
from pdadapt.teachers.load import Teachers

TEXTS = ["rim", "pad rotor", "chain cog valve"]
DOCUMENTS = [" ".join([TEXTS[i % 3]] * (1 + i // 3)) for i in range(24)]
POINTS = [Point("spoke tension of a wheel", document) for document in DOCUMENTS]
WIDTHS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
ENDS = {"pad_token_id": 0, "bos_token_id": 4, "cls_token_id": 4, "eos_token_id": 5, "sep_token_id": 5}
ENDS |= {"decoder_start_token_id": 0}
HEADS = {
    "pooler": (BertForSequenceClassification, lambda size: bert_config(size)),
    "pooler outside": (DebertaV2ForSequenceClassification, lambda size: DebertaV2Config(vocab_size=size, **WIDTHS)),
    "two layers": (
        DistilBertForSequenceClassification,
        lambda size: DistilBertConfig(vocab_size=size, dim=32, n_layers=2, n_heads=4, hidden_dim=48),
    ),
    "head": (ElectraForSequenceClassification, lambda size: ElectraConfig(vocab_size=size, **WIDTHS)),
    "norm": (ModernBertForSequenceClassification, lambda size: ModernBertConfig(vocab_size=size, **WIDTHS, **ENDS)),
    "last token": (LlamaForSequenceClassification, lambda size: LlamaConfig(vocab_size=size, pad_token_id=0, **WIDTHS)),
    "decoder": (
        T5ForSequenceClassification,
        lambda size: T5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, **ENDS),
    ),
}  # fmt: skip


def rounded(scores):
    """Of these scores, how many bfloat16 could express."""
    exact = torch.tensor(scores)
    return int((exact.bfloat16().float() == exact).sum())


def scores_of(folder, dtype, **settings):
    teacher = Teachers(TeacherSettings(model=str(folder), dtype=dtype, **settings))("point")
    return scores_in_order(teacher.score_points, POINTS)


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_whatever_its_head_a_cross_encoder_gives_scores_of_float32(head, tmp_path):
    kind, make = HEADS[head]
    config = make(bert_tokenizer(tmp_path))
    config.num_labels = 1
    config.initializer_range = 0.3
    torch.manual_seed(3)
    kind(config).save_pretrained(tmp_path)
    exact, half = scores_of(tmp_path, "float32"), scores_of(tmp_path, "bfloat16")
    assert rounded(half) < 4 and len(set(half)) == len(half)
    spread = max(exact) - min(exact)
    assert half != exact and half == pytest.approx(exact, abs=0.3 * spread)
    plain = CrossEncoder(str(tmp_path), model_kwargs={"dtype": torch.float32}, device="cpu")
    texts = [tuple(point) for point in sorted(POINTS, key=lambda point: -len(point.document))]
    expected = plain.predict(texts, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    found = dict(zip(POINTS, exact, strict=True))
    assert [found[Point(*text)] for text in texts] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_cross_encoders_score_is_that_of_a_float32_head_on_the_states_of_its_body(cross_encoder):
    model = BertForSequenceClassification.from_pretrained(cross_encoder, dtype=torch.bfloat16).eval()
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    pooler, classifier = model.bert.pooler.float(), model.classifier.float()
    expected = []
    for point in POINTS:
        ids = tokenizer([tuple(point)], return_tensors="pt")
        with torch.no_grad():
            states = model.bert.encoder(model.bert.embeddings(ids["input_ids"], token_type_ids=ids["token_type_ids"]))[
                0
            ]
            assert states.dtype == torch.bfloat16
            expected.append(classifier(pooler(states.float())).item())
    assert scores_of(cross_encoder, "bfloat16", batch_tokens=1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_float32_stays_as_it_was_to_the_last_bit(cross_encoder, encoder):
    model = CrossEncoder(str(cross_encoder), model_kwargs={"dtype": torch.float32}, device="cpu")
    expected = [
        model.predict([tuple(p)], activation_fn=torch.nn.Identity(), show_progress_bar=False).item() for p in POINTS
    ]
    assert scores_of(cross_encoder, "float32", batch_tokens=1) == expected
    dense = SentenceTransformer(str(encoder), model_kwargs={"dtype": torch.float32}, device="cpu")
    query = dense.encode_query([POINTS[0].query], convert_to_tensor=True, show_progress_bar=False)
    documents = [dense.encode_document([p.document], convert_to_tensor=True, show_progress_bar=False) for p in POINTS]
    expected = [dense.similarity(query, document).item() for document in documents]
    assert scores_of(encoder, "float32", batch_tokens=1) == expected


@pytest.mark.slow
def test_a_retrievers_vectors_and_similarities_are_float32(encoder, tmp_path):
    torch.manual_seed(0)
    body = Transformer(str(encoder))
    SentenceTransformer(modules=[body, Pooling(32, "mean"), Dense(32, 16)]).save_pretrained(str(tmp_path))
    for folder in (encoder, tmp_path):
        assert rounded(scores_of(folder, "bfloat16")) < 4
    teacher = Teachers(TeacherSettings(model=str(tmp_path), dtype="bfloat16"))("point")
    states = AutoModel.from_pretrained(encoder, dtype=torch.bfloat16, add_pooling_layer=False).eval()
    linear = teacher.model[2].linear
    assert linear.weight.dtype == torch.float32 and teacher.model[0].auto_model.dtype == torch.bfloat16

    def vector(text):
        ids = AutoTokenizer.from_pretrained(encoder)(text, return_tensors="pt")
        with torch.no_grad():
            mean = states(**ids).last_hidden_state.float()[0].mean(0)
            return torch.tanh(linear(mean))

    expected = [torch.cosine_similarity(vector(p.query), vector(p.document), dim=0).item() for p in POINTS[:5]]
    assert scores_in_order(teacher.score_points, POINTS[:5]) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_multi_vector_teachers_projection_and_maxsim_are_float32(stanford):
    exact, half = scores_of(stanford, "float32"), scores_of(stanford, "bfloat16")
    assert rounded(half) < 4 and half != exact and half == pytest.approx(exact, abs=1)
    teacher = Teachers(TeacherSettings(model=str(stanford), dtype="bfloat16"))("point")
    assert teacher.model[0].auto_model.dtype == torch.bfloat16
    student = load_colbert(str(stanford))
    projection = next(module for module in student if isinstance(module, Dense)).linear.weight
    found = next(module for module in teacher.model if isinstance(module, Dense)).linear.weight
    assert torch.equal(found, projection), "the checkpoint's own, in float32"
    expected = [maxsim(student.encode_query([q]), student.encode_document([d])).item() for q, d in POINTS]
    assert exact == pytest.approx(expected, abs=1e-4)
