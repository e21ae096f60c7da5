import itertools
import sys
import types
import weakref

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import maxsim
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from pdadapt.errors import ModelError, RecipeError
from pdadapt.labeling.check import check_teacher
from pdadapt.settings.schema import PairSettings, PointSettings, TeacherSettings
from pdadapt.students.colbert import load_colbert
from pdadapt.teachers.base import Pair, Point, scores_in_order
from pdadapt.teachers.cross_encoder import TextReader, cut_question
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers

POINTS = [
    Point(query, document)
    for query in ("spoke tension", "squeal of a rotor", "")
    for document in ("rim spoke hub", "pad rotor lever " * 20, "", "chain {query} Yes 🚲 \u202b")
]


def ask(teacher, points=POINTS):
    return scores_in_order(teacher.score_points, points)


@pytest.mark.slow
@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_a_cross_encoders_score_is_its_raw_logit(cross_encoder, budget):
    settings = TeacherSettings(model=str(cross_encoder), dtype="float32", batch_tokens=budget, max_length=64)
    model = BertForSequenceClassification.from_pretrained(cross_encoder).eval()
    tokenizer = AutoTokenizer.from_pretrained(cross_encoder)
    expected = []
    for point in POINTS:
        ids = tokenizer([tuple(point)], return_tensors="pt", truncation="longest_first", max_length=64)
        with torch.no_grad():
            expected.append(model(**ids).logits.item())
    assert ask(Teachers(settings)("point")) == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("task", ["point", "pair"])
def test_a_cross_encoder_tokenises_the_texts_of_a_batch_at_once_and_cuts_them_as_one_by_one(
    cross_encoder, task, monkeypatch
):
    model = Teachers(TeacherSettings(model=str(cross_encoder), dtype="float32", max_length=64))("point")
    tokenizer = model.model.tokenizer
    texts = [f"{'rim spoke hub ' * (number % 30)}pad {number} [SEP]" for number in range(40)]
    if task == "point":
        asked = [Point("squeal rotor", text) for text in texts]
    else:
        asked = [Pair("squeal rotor", *two) for two in itertools.pairwise(texts)]
    reading = TextReader(tokenizer)
    reading.ahead({text for question in asked for text in question})
    alone = [cut_question(tokenizer, question, 64, 20) for question in asked]
    assert [cut_question(tokenizer, question, 64, 20, reading) for question in asked] == alone

    calls = []
    call = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer), "__call__", lambda self, *args, **named: (calls.append(1), call(self, *args, **named))[1]
    )
    points = [Point(query, f"pad {number}") for query in ("rim hub", "squeal rotor") for number in range(50)]
    assert len(ask(model, points)) == 100
    assert len(calls) < 20


@pytest.mark.slow
def test_a_classifier_of_several_classes_is_no_point_teacher(cross_encoder, tmp_path):
    AutoTokenizer.from_pretrained(cross_encoder).save_pretrained(tmp_path)
    config = BertConfig.from_pretrained(cross_encoder, num_labels=3)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    settings = TeacherSettings(model=str(tmp_path), dtype="float32")
    with pytest.raises(ModelError, match="has 3 outputs"):
        check_teacher(settings, "point", {"q"}, tmp_path / "l.sqlite")
    with pytest.raises(ModelError, match="has 3 outputs"):
        Teachers(settings)("point")


@pytest.mark.slow
def test_a_long_query_stays_whole_beside_a_document_that_is_cut(cross_encoder):
    teacher = Teachers(TeacherSettings(model=str(cross_encoder), dtype="float32", max_length=40))("point")
    query, document = " ".join(["squeal rotor pad"] * 9), " ".join(["rim spoke hub"] * 20)
    kept = " ".join(document.split()[: 40 - 27 - 3])
    assert ask(teacher, [Point(query, document)]) == pytest.approx(ask(teacher, [Point(query, kept)]), abs=1e-6)
    assert len(teacher.model.tokenizer(query, kept)["input_ids"]) == 40
    with pytest.raises(RecipeError, match="leave no room for the documents beside a query of 39"):
        ask(teacher, [Point(query + " rim" * 9, document)])


@pytest.mark.slow
def test_a_dense_retriever_gives_its_own_similarity(encoder):
    teacher = Teachers(TeacherSettings(model=str(encoder), dtype="float32", max_length=40))("point")
    model = SentenceTransformer(str(encoder))
    model.max_seq_length = 40
    expected = [
        model.similarity(model.encode_query(query), model.encode_document(document)).item()
        for query, document in POINTS
    ]
    assert ask(teacher) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_a_multi_vector_retriever_gives_maxsim(stanford):
    teacher = Teachers(TeacherSettings(model=str(stanford), dtype="float32"))("point")
    model = load_colbert(str(stanford))
    expected = [
        maxsim(model.encode_query([query]), model.encode_document([document])).item() for query, document in POINTS
    ]
    assert ask(teacher) == pytest.approx(expected, abs=1e-3)


@pytest.mark.slow
def test_a_plain_encoders_tokens_can_judge_by_maxsim_whole_texts(encoder):
    settings = TeacherSettings(model=str(encoder), kind="multi_vector", dtype="float32", max_length=40)
    model = load_colbert(str(encoder), 40, 40)
    expected = [
        maxsim(model.encode_query([query]), model.encode_document([document])).item() for query, document in POINTS
    ]
    assert ask(Teachers(settings)("point")) == pytest.approx(expected, abs=1e-3)
    shorter = settings.model_copy(update={"max_document_length": 4})
    assert ask(Teachers(shorter)("point")) != pytest.approx(expected, abs=1e-3)
    assert teacher_key(shorter, "point") != teacher_key(settings, "point")


@pytest.mark.parametrize("kind", ["cross_encoder", "encoder", "stanford"])
def test_encoder_teachers_refuse_pairs_before_loading(kind, request):
    settings = TeacherSettings(model=str(request.getfixturevalue(kind)))
    with pytest.raises(
        RecipeError, match=r"can judge single documents, but not pairs.*seq2seq, causal, endpoint.*derived"
    ):
        teacher_key(settings, "pair")


@pytest.mark.slow
def test_points_and_pairs_can_have_teachers_of_their_own_and_only_one_is_in_memory(cross_encoder, t5, monkeypatch):
    settings = TeacherSettings(model=str(cross_encoder), dtype="float32", pair=PairSettings(model=str(t5)))
    teachers = Teachers(settings)
    first = weakref.ref(teachers("point"))
    assert type(first()).__name__ == "CrossEncoderTeacher"
    load, alive = teachers._load, []
    monkeypatch.setattr(teachers, "_load", lambda model: (alive.append(first()), load(model))[1])
    second = weakref.ref(teachers("pair"))
    assert type(second()).__name__ == "Seq2SeqTeacher" and alive == [None]
    assert teachers("pair") is second()
    teachers.free()
    assert second() is None
    assert teacher_key(settings, "pair") == teacher_key(TeacherSettings(model=str(t5), dtype="float32"), "pair")


@pytest.mark.slow
def test_quantize_without_a_gpu_is_refused_before_loading(t5, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match=r"teacher\.quantize=8bit needs a GPU"):
        check_teacher(TeacherSettings(model=str(t5), quantize="8bit"), "point", {"hub"}, tmp_path / "l.sqlite")
    with pytest.raises(ModelError, match=r"teacher\.quantize=8bit needs a GPU"):
        Teachers(TeacherSettings(model=str(t5), quantize="8bit"))("point")


def test_quantize_applies_to_the_language_model_of_two_teachers(cross_encoder, t5, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(sys.modules, "bitsandbytes", types.ModuleType("bitsandbytes"))
    both = TeacherSettings(model=str(cross_encoder), dtype="float32", quantize="8bit", pair=PairSettings(model=str(t5)))
    assert '"quantize": null' in teacher_key(both, "point") and '"quantize": "8bit"' in teacher_key(both, "pair")
    with pytest.raises(RecipeError, match="quantize works for language models"):
        alone = TeacherSettings(model=str(cross_encoder), quantize="8bit")
        check_teacher(alone, "point", {"hub"}, tmp_path / "l.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross_encoder", "encoder"])
def test_max_document_length_cuts_documents_and_no_query(kind, request):
    folder = str(request.getfixturevalue(kind))
    whole, cut = (
        Teachers(TeacherSettings(model=folder, dtype="float32", max_document_length=keep))("point")
        for keep in (None, 3)
    )
    query = "squeal of a rotor and a pad"
    long, short = Point(query, "rim spoke hub valve bead"), Point(query, "rim spoke hub")
    assert ask(cut, [long]) == pytest.approx(ask(whole, [short]), abs=1e-5)
    assert ask(cut, [long]) != pytest.approx(ask(whole, [long]), abs=1e-5)


def test_a_kind_alone_can_be_set_for_the_points(encoder):
    settings = TeacherSettings(model=str(encoder), point=PointSettings(kind="multi_vector"))
    assert model_of(settings, "point").kind == "multi_vector" and model_of(settings, "pair").kind == "auto"
