"""Repositories whose tokenizer is a sentencepiece model alone, as those of monoT5 and duoT5."""

import io
import random

import pytest
import sentencepiece
import torch
from tiny_encoders import BEHIND_PADDING, COUNTED, T5, XLNET
from transformers import (
    CamembertConfig,
    CamembertModel,
    DebertaV2Config,
    DebertaV2Model,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLNetConfig,
    XLNetModel,
)
from vocabulary import PROMPT_WORDS, WORDS

from pdadapt.labeling.check import check_teacher
from pdadapt.retrieval.engines.load import check_model
from pdadapt.settings.schema import PairSettings, PointSettings, RetrieveSettings, TeacherSettings
from pdadapt.students.load import load_student_as, save_student
from pdadapt.teachers.base import Pair, Point, scores_in_order
from pdadapt.teachers.language_model import load_tokenizer
from pdadapt.teachers.load import Teachers
from pdadapt.teachers.prompting import label_ids

T5_PIECES = {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1}
SIZE = 256
TEXT = "rim spoke hub, pad: Is the document relevant?"


def train(**pieces):
    """(the model's bytes, sentencepiece's own tokenizer): each word of the prompts and the corpus is a piece."""
    words = [word for word in [*PROMPT_WORDS, *WORDS] if word.isalpha()]
    chosen = random.Random(0)
    texts = [" ".join(chosen.choices(words, k=8)) for _ in range(2000)]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*texts, *".,:;?!()"]),
        model_writer=model,
        vocab_size=160,
        hard_vocab_limit=False,
        minloglevel=2,
        **pieces,
    )
    return model.getvalue(), sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    folder = tmp_path_factory.mktemp("t5")
    content, own = train(**T5_PIECES)
    (folder / "spiece.model").write_bytes(content)
    torch.manual_seed(0)
    T5ForConditionalGeneration(T5Config(vocab_size=SIZE, **T5)).save_pretrained(folder)
    return folder, own


@pytest.mark.slow
def test_a_t5_judges_by_the_ids_of_its_own_pieces(t5, tmp_path):
    folder, own = t5
    tokenizer = load_tokenizer(str(folder))
    for words in (("Yes", "No"), ("A", "B"), ("true", "false")):
        assert label_ids(tokenizer, words) == [own.piece_to_id(f"▁{word}") for word in words]
    assert tokenizer(TEXT)["input_ids"] == [*own.encode(TEXT), own.eos_id()]
    point, pair = PointSettings(labels=("true", "false")), PairSettings()
    settings = TeacherSettings(model=str(folder), dtype="float32", point=point, pair=pair)
    for task in ("point", "pair"):
        check_teacher(settings, task, {"rim"}, tmp_path / "labels.sqlite")
    teacher = Teachers(settings)("point")
    long = "rim spoke hub " * 1000
    assert scores_in_order(teacher.score_points, [Point("rim", long), Point("rim", "hub")])[0] is not None
    assert scores_in_order(teacher.score_pairs, [Pair("rim", long, "hub")])[0] is not None


def test_a_t5_is_a_student_whose_checkpoint_loads_without_sentencepiece(t5, tmp_path):
    folder, own = t5
    assert check_model(str(folder), {}, RetrieveSettings()) == "colbert"
    student = load_student_as(str(folder))
    assert len(student.encode_document(["rim spoke hub"])[0]) == len(own.encode("rim spoke hub")) + 1  # and its end
    save_student(student, tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()
    again = load_student_as(str(tmp_path / "saved"))
    torch.testing.assert_close(again.encode_document([TEXT])[0], student.encode_document([TEXT])[0])


MARKS = {"control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"], "unk_id": 0, "bos_id": 1}
FAIRSEQ = {"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1}
DEBERTA = {"pad_id": 0, "bos_id": 1, "eos_id": 2, "unk_id": 3, "pad_piece": "[PAD]", "unk_piece": "[UNK]"}
OTHERS = {
    "xlnet": ("spiece.model", MARKS, XLNetModel, XLNetConfig, XLNET),
    "xlm-roberta": ("sentencepiece.bpe.model", FAIRSEQ, XLMRobertaModel, XLMRobertaConfig, BEHIND_PADDING),
    "camembert": ("sentencepiece.bpe.model", FAIRSEQ, CamembertModel, CamembertConfig, BEHIND_PADDING),
    "deberta": (
        "spm.model",
        {**DEBERTA, "bos_piece": "[CLS]", "eos_piece": "[SEP]"},
        DebertaV2Model,
        DebertaV2Config,
        COUNTED,
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_sentencepiece_tokenizers_of_other_families_equal_sentencepiece(name, tmp_path):
    file, pieces, model, config, settings = OTHERS[name]
    content, own = train(**pieces)
    (tmp_path / file).write_bytes(content)
    model(config(vocab_size=SIZE, **settings)).save_pretrained(tmp_path)
    check_model(str(tmp_path), {}, RetrieveSettings())
    tokenizer = load_student_as(str(tmp_path)).tokenizer
    words = tokenizer.convert_ids_to_tokens(tokenizer.encode("rim spoke Yes", add_special_tokens=False))
    assert words == own.encode("rim spoke Yes", out_type=str) == ["▁rim", "▁spoke", "▁Yes"]


@pytest.mark.slow
def test_a_decoder_with_a_tokenizer_model_judges(tmp_path):
    content, own = train(**FAIRSEQ)
    (tmp_path / "tokenizer.model").write_bytes(content)
    config = LlamaConfig(
        vocab_size=SIZE, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    assert label_ids(load_tokenizer(str(tmp_path)), ("Yes", "No")) == [
        own.piece_to_id(word) for word in ("▁Yes", "▁No")
    ]
    settings = TeacherSettings(model=str(tmp_path), dtype="float32")
    check_teacher(settings, "pair", {"rim"}, tmp_path / "labels.sqlite")
    assert scores_in_order(Teachers(settings)("pair").score_pairs, [Pair("rim", "hub", "pad")])[0] is not None
