"""Encoders of many architectures as students and teachers; and those that cannot be are found out before any work."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import COUNTED, ENCODERS, RELATIVE, make_encoder, make_tokenizer
from tiny_models import word_tokenizer
from transformers import DebertaConfig, DebertaModel, GPT2Config, GPT2LMHeadModel

from pdadapt.data.corpus import Corpus, Document
from pdadapt.errors import ModelError
from pdadapt.labeling.check import check_teacher
from pdadapt.labeling.training_list import TrainingList
from pdadapt.models.encoders import length_limit
from pdadapt.models.outline import UNLIMITED_TOKENS, check_encoder, load_outline
from pdadapt.models.source import resolve_model
from pdadapt.reporting.export import export_checkpoint
from pdadapt.retrieval.engines.load import check_model, load_engine
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import RerankerSettings, RetrieveSettings, TeacherSettings, TrainSettings
from pdadapt.students.load import load_student_as, save_student
from pdadapt.teachers.base import Point, scores_in_order
from pdadapt.teachers.load import Teachers
from pdadapt.training.reranker import load_encoder
from pdadapt.training.trainer import train

LONG = "rim spoke hub nipple tension true wobble " * 40
TEXTS = ["rim spoke hub", "pad rotor lever", LONG, "chain cassette, hanger."]
CORPUS = Corpus([Document(f"d{number}", "", text) for number, text in enumerate(TEXTS)])
QUERIES = {"q1": "rim hub", "q2": "pad squeal"}
USED = [name for name in ENCODERS if name not in ("fnet", "convbert")]


@pytest.fixture
def made(tmp_path):
    def make(name, **options):
        (tmp_path / "model").mkdir()
        return str(make_encoder(tmp_path / "model", name, **options))

    return make


def change(folder, file="config.json", **settings):
    path = resolve_model(folder).file(file)
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **settings}), encoding="utf-8")


def teacher(folder, kind="auto", **settings):
    return TeacherSettings(model=folder, kind=kind, dtype="float32", **settings)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["colbert", "dense"])
@pytest.mark.parametrize("name", USED)
def test_a_student_reads_all_it_can_learns_and_loads_again_to_the_same_vectors(made, tmp_path, name, kind):
    model = load_student_as(made(name), kind)
    assert length_limit(model) == (UNLIMITED_TOKENS if name in RELATIVE else 64)
    if kind == "colbert":
        assert 60 < len(model.encode_document([LONG])[0]) <= (300 if name in RELATIVE else 64)
    lists = [TrainingList(query_id, ["d0", "d1", "d2"], [2.0, 1.0, 0.0], [(0, 2, 3.0)]) for query_id in QUERIES]
    settings = TrainSettings(steps=1, batch_size=2, n_way=3, learning_rate=1e-3, document_length=60, dropout=0.0)
    before = model.encode_document(TEXTS)
    train(model, lists, CORPUS, QUERIES, settings, 1, tmp_path / "out", Progress())
    again = load_student_as(str(tmp_path / "out" / "checkpoint"), kind)
    for encode in ("encode_query", "encode_document"):
        found, expected = (getattr(each.eval(), encode)(TEXTS) for each in (again, model))
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other)
    assert any(not torch.equal(one, other) for one, other in zip(before, model.encode_document(TEXTS), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bi_encoder", "multi_vector", "cross_encoder"])
@pytest.mark.parametrize("name", [name for name in USED if name != "gpt2"])
def test_a_teacher_reads_long_documents_and_each_as_if_it_were_alone(made, tmp_path, name, kind):
    settings = teacher(made(name, head=kind == "cross_encoder"), kind)
    check_teacher(settings, "point", {"rim"}, tmp_path / "labels.sqlite")
    loaded = Teachers(settings)("point")
    points = [Point("rim hub", text) for text in TEXTS]
    alone = [scores_in_order(loaded.score_points, [point])[0] for point in points]
    assert scores_in_order(loaded.score_points, points) == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bi_encoder", "multi_vector", "cross_encoder"])
def test_rounding_to_bfloat16_is_not_taken_for_padding_that_is_read(made, kind):
    folder = made("roberta", head=kind == "cross_encoder")
    settings = TeacherSettings(model=folder, kind=kind, dtype="bfloat16")
    assert scores_in_order(Teachers(settings)("point").score_points, [Point("rim hub", text) for text in TEXTS])


def test_lengths_that_an_encoder_does_not_read_are_refused_before_it_loads(made):
    folder = made("roberta")
    settings = RetrieveSettings()
    check_model(folder, {"document_length": 64}, settings)
    with pytest.raises(ModelError, match=r"reads at most 64 tokens\. Lower query_length and document_length"):
        check_model(folder, {"document_length": 65}, settings)
    with pytest.raises(ModelError, match=r"reranker\.max_length is 512, and .* reads 64 tokens at most\. Lower it"):
        load_encoder(RerankerSettings(model=folder), 1)
    load_encoder(RerankerSettings(model=folder, max_length=64), 1).predict([("rim", LONG)], show_progress_bar=False)


def test_a_corpus_own_lengths_are_cut_to_what_an_encoder_reads(made, tmp_path):
    """They are a dataset's defaults: nobody asked for them."""
    engine = load_engine(made("roberta"), {}, [], RetrieveSettings(), {"query_length": 300, "document_length": 300})
    index_corpus(engine, CORPUS, tmp_path / "index", Progress())
    assert retrieve(engine, CORPUS, {"q": LONG}, tmp_path / "index", 1, Progress())["q"][0][0] == "d2"


@pytest.mark.slow
def test_a_checkpoint_that_promises_more_tokens_than_it_reads_reads_those(made, tmp_path):
    folder = made("roberta", model_max_length=66)
    modules = [("", "sentence_transformers.models.Transformer"), ("1_Pooling", "sentence_transformers.models.Pooling")]
    rows = [{"idx": i, "name": str(i), "path": path, "type": kind} for i, (path, kind) in enumerate(modules)]
    (tmp_path / "model" / "1_Pooling").mkdir()
    for name, content in (
        ("modules.json", rows),
        ("sentence_bert_config.json", {"max_seq_length": 66, "do_lower_case": False}),
        ("1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}),
    ):
        (tmp_path / "model" / name).write_text(json.dumps(content), encoding="utf-8")
    assert len(load_student_as(folder, "dense").encode_document([LONG])) == 1
    assert scores_in_order(Teachers(teacher(folder))("point").score_points, [Point("rim", LONG)])


@pytest.mark.parametrize("limit", [None, 10**30, 0, -1])
def test_a_tokenizer_without_a_limit_of_its_own_cuts_at_the_encoders(made, limit):
    folder = made("bert")
    change(folder, "tokenizer_config.json", model_max_length=limit)
    assert len(load_student_as(folder).encode_document([LONG])[0]) == 64


def test_language_models_are_not_asked_for_more_tokens_than_they_read(tmp_path):
    size = word_tokenizer(tmp_path, end=False)
    GPT2LMHeadModel(GPT2Config(vocab_size=size, n_embd=32, n_layer=1, n_head=4, n_positions=64)).save_pretrained(
        tmp_path
    )
    for task in ("point", "pair"):
        with pytest.raises(
            ModelError, match=r"max_length is 1024, but .* reads at most 64 tokens.* teacher\.max_length=64"
        ):
            check_teacher(teacher(str(tmp_path)), task, {"rim"}, tmp_path / "labels.sqlite")
        check_teacher(teacher(str(tmp_path), max_length=64), task, {"rim"}, tmp_path / "labels.sqlite")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "roberta", "t5", "gpt2"])
def test_without_a_padding_token_another_one_fills_up_behind_the_mask(made, tmp_path, name):
    folder = made(name, pad_token=None)
    check_model(folder, {}, RetrieveSettings())
    padded = tmp_path / "padded"
    padded.mkdir()
    expected = load_student_as(str(make_encoder(padded, name))).encode_document(TEXTS)
    for found, other in zip(load_student_as(folder).encode_document(TEXTS), expected, strict=True):
        torch.testing.assert_close(found, other)
    for kind in ("multi_vector", "bi_encoder"):
        check_teacher(teacher(folder, kind), "point", {"rim"}, tmp_path / "labels.sqlite")
        points = [Point("rim hub", text) for text in TEXTS]
        assert len(scores_in_order(Teachers(teacher(folder, kind))("point").score_points, points)) == len(TEXTS)


@pytest.mark.slow
def test_classifiers_and_rerankers_without_a_padding_token_pad_too(made, tmp_path):
    settings = teacher(made("bert", head=True, pad_token=None))
    check_teacher(settings, "point", {"rim"}, tmp_path / "labels.sqlite")
    assert len(
        scores_in_order(Teachers(settings)("point").score_points, [Point("rim", text) for text in TEXTS])
    ) == len(TEXTS)
    plain = tmp_path / "plain"
    plain.mkdir()
    make_encoder(plain, "bert", pad_token=None)
    model = load_encoder(RerankerSettings(model=str(plain), max_length=64), 1)
    assert len(model.predict([("rim", text) for text in TEXTS], show_progress_bar=False)) == len(TEXTS)


@pytest.mark.slow
def test_encoder_without_a_padding_token_is_refused_before_it_loads(made, tmp_path):
    """A decoder that classifies reads a text to its padding: what ends texts cannot stand for it."""
    message = r"has no padding token, .*\. Name one of its tokens as `pad_token` in its tokenizer_config\.json"
    with pytest.raises(ModelError, match=message):
        check_teacher(teacher(made("gpt2", head=True)), "point", {"rim"}, tmp_path / "labels.sqlite")
    bare = tmp_path / "bare"
    bare.mkdir()
    make_encoder(bare, "bert", **{f"{name}_token": None for name in ("pad", "unk", "cls", "sep", "mask")})
    for check in (
        lambda: check_model(str(bare), {}, RetrieveSettings()),
        lambda: check_model(str(bare), {"kind": "dense"}, RetrieveSettings()),
        lambda: check_teacher(teacher(str(bare), "bi_encoder"), "point", {"rim"}, tmp_path / "labels.sqlite"),
        lambda: load_encoder(RerankerSettings(model=str(bare), max_length=64), 1),
    ):
        with pytest.raises(ModelError, match=message):
            check()


@pytest.mark.slow
def test_a_decoder_that_classifies_finds_a_texts_end_whatever_its_config_says_of_padding(made):
    folder = made("gpt2", head=True, pad_token="rim")
    found = []
    for said in (None, 7):
        change(folder, pad_token_id=said)
        loaded = Teachers(teacher(folder))("point")
        points = [Point("hub", text) for text in ("pad", "pad rotor lever caliper")]
        alone = [scores_in_order(loaded.score_points, [point])[0] for point in points]
        assert scores_in_order(loaded.score_points, points) == pytest.approx(alone, abs=1e-5)
        found.append(alone)
    assert found[0] == found[1]


@pytest.mark.slow
def test_padding_on_the_left_moves_behind_texts_where_positions_are_counted(made):
    loaded = Teachers(teacher(made("bert", padding_side="left"), "bi_encoder"))("point")
    points = [Point("rim hub", text) for text in TEXTS]
    alone = [scores_in_order(loaded.score_points, [point])[0] for point in points]
    assert scores_in_order(loaded.score_points, points) == pytest.approx(alone, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fnet", "convbert"])
def test_encoder_that_reads_padding_is_refused(made, tmp_path, name):
    folder = made(name)
    for load in (
        lambda: load_student_as(folder),
        lambda: load_student_as(folder, "dense"),
        lambda: Teachers(teacher(folder, "bi_encoder"))("point"),
    ):
        with pytest.raises(ModelError, match="does not ignore padding"):
            load()


@pytest.mark.slow
def test_an_architecture_that_has_no_onnx_form_is_said(made, tmp_path):
    pytest.importorskip("onnxscript")
    save_student(load_student_as(made("t5")), tmp_path / "student")
    with pytest.raises(ModelError, match=r"torch cannot export a T5EncoderModel to ONNX\. Export it with another"):
        export_checkpoint(str(tmp_path / "student"), tmp_path / "onnx", "onnx")
    assert not (tmp_path / "onnx").exists() and not list(tmp_path.glob("*.part"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xlnet", "deberta"])
def test_a_teacher_that_does_not_compute_in_bfloat16_says_what_to_set(tmp_path, name):
    if name == "deberta":
        size = make_tokenizer(tmp_path, "bert")
        DebertaModel(DebertaConfig(vocab_size=size, **COUNTED)).save_pretrained(tmp_path)
    else:
        make_encoder(tmp_path, name)
    settings = teacher(str(tmp_path), "bi_encoder").model_copy(update={"dtype": "bfloat16"})
    with pytest.raises(ModelError, match=r"in bfloat16 \(.*\)\. Set teacher\.dtype=float32 \(--set teacher"):
        Teachers(settings)("point")
    Teachers(settings.model_copy(update={"dtype": "float32"}))("point")


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_cross_encoder_whose_score_is_near_0_leaves_padding_out(cross_encoder, tmp_path, dtype):
    """What rounds a score of bfloat16 is measured by how far scores lie apart, not by this one."""
    folder = shutil.copytree(cross_encoder, tmp_path / "model")
    scale_scores(folder, 100.0)
    settings = teacher(str(folder)).model_copy(update={"dtype": dtype})
    loaded = Teachers(settings)("point").model
    shift = float(loaded.predict([("a", "a")], activation_fn=torch.nn.Identity(), show_progress_bar=False)[0])
    scale_scores(folder, 1.0, -shift)
    Teachers(settings)("point")


def scale_scores(folder, factor, shift=0.0):
    weights = load_file(folder / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        weights[name] *= factor
    weights["classifier.bias"] += shift
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def test_skiplist_holds_only_signs_of_the_vocabulary(made):
    words = next(each.skiplist_words for each in load_student_as(made("bert")) if hasattr(each, "skiplist_words"))
    assert sorted(words) == sorted(".,:;?!-()")


@pytest.mark.slow
def test_a_score_that_follows_padding_is_refused(made):
    with pytest.raises(ModelError, match="does not ignore padding"):
        Teachers(teacher(made("convbert", head=True)))("point")


def cut(weights, _):
    del weights["encoder.layer.1.output.dense.weight"]


def prefixed(weights, _):
    for name in list(weights):
        weights[f"wrapped.{name}"] = weights.pop(name)


def other_width(weights, folder):
    change(folder, hidden_size=64)


def unknown_words(weights, folder):
    path = resolve_model(folder).file("tokenizer.json")
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["rim"] = 900
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


def foreign_code(weights, folder):
    change(folder, model_type="zebra", auto_map={"AutoConfig": "zebra.Config", "AutoModel": "zebra.Model"})


def packed(weights, folder):
    change(folder, quantization_config={"quant_method": "gptq", "bits": 4})


def static(weights, folder):
    (resolve_model(folder).folder / "modules.json").write_text(
        json.dumps([{"path": "", "type": "sentence_transformers.models.StaticEmbedding"}]), encoding="utf-8"
    )


UNFIT = {
    cut: r"lacks weights \(encoder\.layer\.1\.output\.dense\.weight\), so they would be random numbers\. Give another",
    prefixed: r"lacks weights \(.* \.\.\.\), so they would be random numbers\. Give another",
    other_width: r"does not load: .* is \(.*32.*\) in its weights, but \(.*64.*\) by its config\.json\. Give another",
    unknown_words: r"its tokenizer has more \(901\): they do not belong together\. Fetch the tokenizer",
    foreign_code: r"needs Python code of its own, which pdadapt does not run\. Give another model",
    packed: r"does not load \(.*GPTQ.*\)\. Give another model",
    static: r"begins with StaticEmbedding, not with a transformer\. Give one that does",
}


@pytest.mark.parametrize("spoil", UNFIT)
def test_an_unfit_encoder_is_found_out_before_it_is_loaded(made, tmp_path, spoil):
    folder = made("bert")
    file = resolve_model(folder).file("model.safetensors")
    weights = load_file(file)
    spoil(weights, folder)
    save_file(weights, file, {"format": "pt"})
    for check in (
        lambda: check_model(folder, {}, RetrieveSettings()),
        lambda: check_teacher(teacher(folder, "bi_encoder"), "point", {"rim"}, tmp_path / "labels.sqlite"),
        lambda: load_encoder(RerankerSettings(model=folder, max_length=64), 1),
    ):
        with pytest.raises(ModelError, match=UNFIT[spoil]):
            check()


def test_weights_that_are_no_numbers_are_found_as_they_load(made):
    folder = made("bert")
    file = resolve_model(folder).file("model.safetensors")
    save_file({name: weight * float("nan") for name, weight in load_file(file).items()}, file, {"format": "pt"})
    with pytest.raises(ModelError, match="it makes NaN of a text"):
        load_student_as(folder)


def test_a_classifier_without_its_head_is_no_teacher_but_an_encoder_without_one_becomes_a_reranker(made, tmp_path):
    folder = made("bert", head=True)
    file = resolve_model(folder).file("model.safetensors")
    save_file(
        {name: each for name, each in load_file(file).items() if "classifier" not in name}, file, {"format": "pt"}
    )
    with pytest.raises(ModelError, match=r"lacks weights \(classifier\.bias, classifier\.weight\)"):
        check_teacher(teacher(folder), "point", {"rim"}, tmp_path / "labels.sqlite")
    load_encoder(RerankerSettings(model=folder, max_length=64), 1)


def test_a_language_model_without_all_its_weights_is_found_before_it_is_loaded(llama, tmp_path):
    for file in llama.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(tmp_path / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks weights \(model\.layers\.1\.mlp\.up_proj\.weight\)"):
        check_teacher(teacher(str(tmp_path)), "pair", {"rim"}, tmp_path / "labels.sqlite")


def test_outline_reads_no_weights(made):
    """What is checked of a model of many gigabytes costs no memory."""
    source = resolve_model(made("bert"))
    model, missing = load_outline(source, "Student", "AutoModel")
    assert {weight.device.type for weight in model.parameters()} == {"meta"} and not missing
    assert check_encoder(source, "Student") == 64
