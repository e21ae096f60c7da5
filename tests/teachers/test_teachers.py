import itertools
import json
import random
import shutil

import pytest
import torch
from tiny_models import word_tokenizer
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BartConfig,
    BartForConditionalGeneration,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
)
from vocabulary import WORDS

from pdadapt.errors import ModelError, RecipeError
from pdadapt.labeling.check import check_teacher
from pdadapt.models.token_budget import TokenBudget, batch_limits
from pdadapt.settings.prompt import PAIR_FIELDS, POINT_FIELDS, Prompt, load_prompt
from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings, TeacherSettings
from pdadapt.teachers.base import Chunk, Pair, Point, scores_in_order
from pdadapt.teachers.chat import chat_format
from pdadapt.teachers.kind import teacher_kind
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers
from pdadapt.teachers.prompting import PromptEncoder, label_ids, share_tokens, tokenised

POINTS = [
    Point("spoke tension", "rim spoke hub"),
    Point("squeal", "pad rotor lever " * 9),
    Point("spoke tension", ""),
    Point("chain", "chain cassette {query} Yes 🚲 \u202b"),
]
PAIRS = [Pair(p.query, p.document, "valve bead") for p in POINTS] + [Pair("hub", "hub " * 30, "rim")]


def load(settings):
    """The teacher of points; the same model judges the pairs."""
    teachers = Teachers(settings)
    teacher = teachers("point")
    assert teachers("pair") is teacher
    return teacher


def unpack(teacher, packs):
    """Have a teacher that could pack (they all can here) pad its batches instead."""
    assert teacher.packs
    if not packs:
        teacher.packs = False
        teacher.model.set_attn_implementation("sdpa")


def first_token_log_odds(model, tokenizer, text, words, special=True):
    """The reference: `generate`'s first step over the whole vocabulary, one prompt at a time."""
    ids = tokenizer(text, return_tensors="pt", add_special_tokens=special)
    ids.pop("token_type_ids", None)
    out = model.generate(**ids, max_new_tokens=1, output_logits=True, return_dict_in_generate=True, do_sample=False)
    log_p = out.logits[0][0].log_softmax(-1)
    yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in words)
    return (log_p[yes] - log_p[no]).item()


@pytest.mark.slow
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_t5_equals_generate_tied_and_untied_whatever_the_batching(t5, budget, packs):
    teacher = load(TeacherSettings(model=str(t5), dtype="float32", batch_tokens=budget))
    unpack(teacher, packs)
    model = AutoModelForSeq2SeqLM.from_pretrained(t5)
    tokenizer = AutoTokenizer.from_pretrained(t5)
    point, pair = load_prompt("yes-no", POINT_FIELDS), load_prompt("a-b", PAIR_FIELDS)
    expected = [first_token_log_odds(model, tokenizer, point.render(p._asdict()), ("Yes", "No")) for p in POINTS]
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(expected, abs=1e-4)
    expected = [first_token_log_odds(model, tokenizer, pair.render(p._asdict()), ("A", "B")) for p in PAIRS]
    assert scores_in_order(teacher.score_pairs, PAIRS) == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 4) for score in expected}) > 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mt5", "bart"])
def test_other_encoder_decoders_equal_generate_too(name, tmp_path):
    size = word_tokenizer(tmp_path, end=True)
    torch.manual_seed(0)
    if name == "mt5":
        config = MT5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)
        MT5ForConditionalGeneration(config).save_pretrained(tmp_path)
    else:
        layers = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
        config = BartConfig(
            vocab_size=size, d_model=32, encoder_ffn_dim=48, decoder_ffn_dim=48, init_std=0.3, forced_eos_token_id=None,
            pad_token_id=0, decoder_start_token_id=1, **layers,
        )  # fmt: skip
        model = BartForConditionalGeneration(config)
        model.final_logits_bias.normal_()
        model.save_pretrained(tmp_path)
    teacher = load(TeacherSettings(model=str(tmp_path), dtype="float32", batch_tokens=64))
    model, tokenizer = AutoModelForSeq2SeqLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    prompt = load_prompt("yes-no", POINT_FIELDS)
    expected = [first_token_log_odds(model, tokenizer, prompt.render(p._asdict()), ("Yes", "No")) for p in POINTS]
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(expected, abs=1e-4)
    assert len({round(score, 4) for score in expected}) > 2


@pytest.mark.slow
def test_encoder_only_t5_is_refused_as_seq2seq(tmp_path):
    """An encoder-only T5, as sentence-transformers has them, must not judge with a random decoder."""
    size = word_tokenizer(tmp_path, end=True)
    T5EncoderModel(T5Config(vocab_size=size, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4)).save_pretrained(
        tmp_path
    )
    assert teacher_kind(ModelSettings(model=str(tmp_path))) == "bi_encoder"
    with pytest.raises(ModelError, match=r"lacks weights \(.*\), so they would be random numbers"):
        load(TeacherSettings(model=str(tmp_path), kind="seq2seq"))


@pytest.mark.slow
def test_bfloat16_stays_near_float32_in_packed_batches(t5, llama):
    for folder in (t5, llama):
        exact, rough = (
            scores_in_order(load(TeacherSettings(model=str(folder), dtype=dtype)).score_pairs, PAIRS)
            for dtype in ("float32", "bfloat16")
        )
        assert rough == pytest.approx(exact, abs=0.1) and rough != exact


@pytest.mark.slow
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("budget", [1, 64, 4096])
def test_causal_equals_generate_through_the_chat_template(llama, budget, packs):
    teacher = load(TeacherSettings(model=str(llama), dtype="float32", batch_tokens=budget))
    unpack(teacher, packs)
    model = AutoModelForCausalLM.from_pretrained(llama)
    tokenizer = AutoTokenizer.from_pretrained(llama)

    def chat(prompt, values):
        message = [{"role": "user", "content": prompt.render(values)}]
        return tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)

    point, pair = load_prompt("yes-no", POINT_FIELDS), load_prompt("a-b", PAIR_FIELDS)
    expected = [
        first_token_log_odds(model, tokenizer, chat(point, p._asdict()), ("Yes", "No"), special=False) for p in POINTS
    ]
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(expected, abs=1e-4)
    expected = [first_token_log_odds(model, tokenizer, chat(pair, p._asdict()), ("A", "B"), False) for p in PAIRS]
    assert scores_in_order(teacher.score_pairs, PAIRS) == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("budget", [1, 4096])
def test_query_likelihood_is_the_mean_log_probability_of_the_query_alone(llama, budget, packs):
    settings = TeacherSettings(
        model=str(llama),
        dtype="float32",
        batch_tokens=budget,
        point=PointSettings(scoring="query_likelihood", prompt="query-likelihood"),
    )
    teacher = load(settings)
    unpack(teacher, packs)
    model = AutoModelForCausalLM.from_pretrained(llama)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    expected = []
    for point in POINTS:
        text = f"user : Passage: {point.document}\n\nPlease write a question based on this passage. assistant :"
        prefix = tokenizer.encode(text, add_special_tokens=False)
        query = tokenizer.encode(point.query, add_special_tokens=False)
        log_p = model(torch.tensor([prefix + query])).logits[0].log_softmax(-1)
        expected.append(sum(log_p[len(prefix) + i - 1, token].item() for i, token in enumerate(query)) / len(query))
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(expected, abs=1e-4)
    swapped = [Pair(p.query, p.document_b, p.document_a) for p in PAIRS]
    assert scores_in_order(teacher.score_pairs, swapped) != pytest.approx(scores_in_order(teacher.score_pairs, PAIRS))


def test_kind_is_read_from_the_configuration(t5, llama, cross_encoder, encoder):
    for folder, kind in ((t5, "seq2seq"), (llama, "causal"), (cross_encoder, "cross_encoder"), (encoder, "bi_encoder")):
        assert teacher_kind(ModelSettings(model=str(folder))) == kind
    assert teacher_kind(ModelSettings(model="http://localhost:1/v1#name")) == "endpoint"
    assert teacher_kind(ModelSettings(model="imported:bought")) == "imported"


@pytest.mark.slow
def test_a_kind_without_a_class_is_not_loaded(llama, monkeypatch):
    monkeypatch.setattr("pdadapt.teachers.load.teacher_kind", lambda model: "zebra")
    with pytest.raises(AssertionError, match="zebra"):
        load(TeacherSettings(model=str(llama)))


@pytest.mark.parametrize(
    ("architecture", "more", "kind"),
    [
        ("Gemma3ForConditionalGeneration", {}, "causal"),
        ("T5ForConditionalGeneration", {"is_encoder_decoder": True}, "seq2seq"),
        ("GPT2LMHeadModel", {}, "causal"),
        ("BertForMaskedLM", {}, "bi_encoder"),
        ("HF_ColBERT", {}, "multi_vector"),
        ("ViTForImageClassification", {}, None),
        (None, {}, None),
    ],
)
def test_kind_of_other_architectures(architecture, more, kind, tmp_path):
    config = {"architectures": [architecture]} if architecture else {}
    (tmp_path / "config.json").write_text(json.dumps(config | more), encoding="utf-8")
    settings = ModelSettings(model=str(tmp_path))
    if kind:
        assert teacher_kind(settings) == kind
        (tmp_path / "modules.json").write_text("[]", encoding="utf-8")  # sentence-transformers': it makes vectors
        assert teacher_kind(settings) == ("multi_vector" if kind == "multi_vector" else "bi_encoder")
    else:
        with pytest.raises(RecipeError, match=r"Set it with --set teacher\.kind=KIND"):
            teacher_kind(settings)


def test_check_teacher_refuses_models_that_cannot_judge(t5, llama, encoder, tmp_path):
    store = tmp_path / "l.sqlite"

    def check(folder, task="point", queries=("spoke",), **changes):
        check_teacher(TeacherSettings(model=str(folder), **changes), task, queries, store)

    check(t5)
    check(llama, "pair")
    with pytest.raises(ModelError, match="is not a seq2seq model"):
        check(llama, kind="seq2seq")
    for folder in (t5, encoder):
        with pytest.raises(ModelError, match="is not a causal model"):
            check(folder, kind="causal")
    with pytest.raises(ModelError, match="is not a cross_encoder model"):
        check(encoder, kind="cross_encoder")
    with pytest.raises(ModelError, match="must be single, distinct tokens"):
        check(t5, "pair", pair=PairSettings(labels=("Yes No", "No")))
    with pytest.raises(RecipeError, match="leaves no room for the documents"):
        check(t5, queries=["spoke", "spoke " * 2_000])
    with pytest.raises(RecipeError, match=r"teacher\.point\.prompt=query-likelihood"):
        check(llama, point=PointSettings(scoring="query_likelihood"))
    check(llama, point=PointSettings(scoring="query_likelihood", prompt="query-likelihood"))
    with pytest.raises(RecipeError, match=r"max_length=140 leaves no room .* of 14\d tokens\. .*=280"):
        likelihood = PointSettings(scoring="query_likelihood", prompt="query-likelihood")
        check(llama, point=likelihood, max_length=140)
    assert not store.exists()


def test_a_chat_prompt_knows_no_day_and_asks_for_no_thinking(llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.chat_template = (
        "{{ strftime_now('%Y') }} {% if enable_thinking is defined and not enable_thinking %}at once{% endif %}: "
        "{{ messages[0]['content'] }}"
    )
    assert chat_format(tokenizer)("spoke") == "26 Jul 2024 at once: spoke"


def test_the_key_changes_with_whatever_changes_the_label(llama, tmp_path):
    base = TeacherSettings(model=str(llama), dtype="float32")
    for name, change in (("worded", {}), ("weighed", {"initializer_range": 0.3})):
        shutil.copytree(llama, tmp_path / name)
        config = LlamaConfig.from_pretrained(llama, **change)
        if change:
            LlamaForCausalLM(config).save_pretrained(tmp_path / name)
    (tmp_path / "worded" / "chat_template.jinja").write_text("{{ messages[0]['content'] }}", encoding="utf-8")
    own = tmp_path / "own.txt"
    own.write_text("{document} ? {query}", encoding="utf-8")
    others = [
        base.model_copy(update={"max_length": 512}),
        base.model_copy(update={"dtype": "bfloat16"}),
        base.model_copy(update={"max_document_length": 64}),
        base.model_copy(update={"point": PointSettings(prompt=str(own))}),
        base.model_copy(update={"point": PointSettings(labels=("A", "B"))}),
        base.model_copy(update={"point": PointSettings(scoring="query_likelihood", prompt="query-likelihood")}),
        base.model_copy(update={"model": str(tmp_path / "worded")}),
        base.model_copy(update={"model": str(tmp_path / "weighed")}),
    ]
    keys = [teacher_key(settings, "point") for settings in [base, *others]]
    assert len(set(keys)) == len(keys)
    shutil.copytree(llama, tmp_path / "same")
    same = base.model_copy(
        update={"model": str(tmp_path / "same"), "batch_tokens": 7, "pair": PairSettings(per_query=3)}
    )
    assert teacher_key(same, "point") == keys[0]


def test_label_words_must_be_single_known_distinct_tokens(llama):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    assert label_ids(tokenizer, ["Yes", "No"]) == [
        tokenizer.convert_tokens_to_ids("Yes"),
        tokenizer.convert_tokens_to_ids("No"),
    ]
    for words in (["Yes", "Yes"], ["Yes", "Yes No"], ["Yes", "zebra"]):
        with pytest.raises(ModelError, match="must be single, distinct tokens"):
            label_ids(tokenizer, words)


def encoder_for(folder, max_length, template="Query {query} A {document_a} B {document_b} Answer", **options):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer, PromptEncoder(tokenizer, Prompt(template, PAIR_FIELDS), max_length, **options)


def one(encode, **values):
    return encode([values])[0]


def test_prompt_is_cut_evenly_in_its_documents_only(llama):
    tokenizer, encode = encoder_for(llama, 40)
    text = tokenizer.decode(one(encode, query="spoke tension", document_a="rim " * 400, document_b="pad " * 400))
    assert text.startswith("Query spoke tension A rim") and text.endswith("Answer")
    assert len(text.split()) <= 40
    assert abs(text.split().count("rim") - text.split().count("pad")) <= 1
    assert text.split().count("rim") >= 15
    text = tokenizer.decode(one(encode, query="spoke", document_a="rim " * 400, document_b="pad valve"))
    assert "B pad valve Answer" in text and text.split().count("rim") >= 30


def test_a_query_that_leaves_no_room_is_an_error_with_the_way_out(llama):
    _, encode = encoder_for(llama, 30)
    with pytest.raises(RecipeError, match=r"teacher\.max_length=30 leaves no room"):
        one(encode, query="hub " * 28, document_a="rim " * 50, document_b="pad " * 50)


def test_max_document_length_cuts_each_document_alone(llama):
    tokenizer, encode = encoder_for(llama, 500, max_document_length=5)
    text = tokenizer.decode(one(encode, query="hub", document_a="rim " * 50, document_b="pad valve"))
    assert text == "Query hub A rim rim rim rim rim B pad valve Answer"


def test_share_tokens_gives_what_short_texts_leave_to_long_ones():
    assert share_tokens({"a": 100, "b": 100}, 50) == {"a": 25, "b": 25}
    assert share_tokens({"a": 100, "b": 10}, 50) == {"a": 40, "b": 10}
    assert share_tokens({"a": 3, "b": 4}, 50) == {"a": 3, "b": 4}


def test_prompts_are_tokenised_in_chunks_ahead_of_the_work():
    begun, seen = [], []

    def encode(questions):
        return [[question] for question in questions]

    def chunks():
        for chunk in ([0, 1, 2, 3], [4, 5, 6, 7], [8, 9]):
            begun.append(chunk)
            yield chunk

    for questions, prompts in tokenised(chunks(), encode):
        seen.append((questions, [ids[0] for ids in prompts]))
        assert len(begun) == min(len(seen) + 1, 3), "one chunk ahead of the model, and no more"
    assert seen == [([0, 1, 2, 3], [0, 1, 2, 3]), ([4, 5, 6, 7], [4, 5, 6, 7]), ([8, 9], [8, 9])]
    assert list(tokenised([], encode)) == []


@pytest.mark.slow
@pytest.mark.parametrize("task", ["points", "likelihood", "pairs"])
def test_a_labeling_that_was_stopped_goes_on_in_the_same_batches(llama, task):
    """In bfloat16 another batch gives another label: whoever goes on after a stop must come to the same ones."""
    point = PointSettings(scoring="query_likelihood", prompt="query-likelihood") if task == "likelihood" else None
    settings = TeacherSettings(model=str(llama), dtype="bfloat16", batch_tokens=150, point=point or PointSettings())
    teacher = load(settings)
    texts = [" ".join(random.Random(i).choices(WORDS, k=5 + 3 * i)) for i in range(12)]
    asked = [Point(query, text) for query in ("spoke hub", "pad rotor") for text in texts]
    if task == "pairs":
        asked = [Pair("spoke hub", a, b) for a, b in itertools.permutations(texts[:5], 2)]
    score = teacher.score_pairs if task == "pairs" else teacher.score_points
    chunks = [asked[:10], asked[10:]]
    whole = [dict(batch) for batch in score(Chunk(chunk, chunk) for chunk in chunks) if batch]
    assert len(whole) > 3
    for stop in range(len(whole)):
        done = {question for batch in whole[:stop] for question in batch}
        left = [Chunk([question for question in chunk if question not in done], chunk) for chunk in chunks]
        after = [dict(batch) for batch in score(chunk for chunk in left if chunk.asked) if batch]
        assert after == whole[stop:]


def test_batches_keep_the_order_and_the_budget():
    lengths = [120, 50, 7, 7, 6, 5]
    for padded in (True, False):
        done = [
            which
            for which, _ in TokenBudget("test", 60).batches(lengths, lambda batch: torch.zeros(len(batch)), padded)
        ]
        assert [index for batch in done for index in batch] == list(range(len(lengths)))
        for batch in done:
            cost = len(batch) * lengths[batch.start] if padded else sum(lengths[i] for i in batch)
            assert len(batch) == 1 or cost <= 60
    assert len(done) == 3


@pytest.mark.slow
def test_a_budget_that_does_not_fit_is_halved_and_stays_so():
    budget, tried = TokenBudget("halved", 64), []

    def score(batch):
        tried.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError
        return torch.arange(batch.start, batch.stop)

    found = [int(value) for _, scores in budget.batches([8] * 10, score) for value in scores]
    assert found == list(range(10)) and tried[:3] == [8, 4, 2] and max(tried[2:]) == 2
    assert TokenBudget("halved", 64).tokens == budget.tokens < TokenBudget("of something else", 64).tokens
    with pytest.raises(torch.OutOfMemoryError):
        list(TokenBudget("least", 1).batches([8], lambda batch: score(range(9))))


@pytest.mark.slow
def test_token_budget_is_kept_for_the_run_and_other_errors_pass(tmp_path):
    batch_limits.keep_in(tmp_path / "memory.json")

    def score(batch):
        if len(batch) > 2:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return batch

    list(TokenBudget("label", 64).batches([8] * 10, score))
    batch_limits.keep_in(None)
    assert TokenBudget("label", 64).tokens == 64
    batch_limits.keep_in(tmp_path / "memory.json")
    assert TokenBudget("label", 64).tokens == 16 and TokenBudget("label", 8).tokens == 8

    def broken(batch):
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(TokenBudget("label", 64).batches([8] * 10, broken))


@pytest.mark.slow
def test_a_folder_that_is_no_language_model_is_refused(tmp_path, encoder):
    with pytest.raises(ModelError, match=r"Teacher .* does not load \(.*Give another model"):
        load(TeacherSettings(model=str(encoder), kind="seq2seq"))


def test_query_likelihood_needs_a_decoder_and_that_is_said_before_any_work(t5):
    settings = TeacherSettings(
        model=str(t5), point=PointSettings(scoring="query_likelihood", prompt="query-likelihood")
    )
    with pytest.raises(RecipeError, match="needs a decoder-only teacher"):
        teacher_key(settings, "point")


@pytest.mark.slow
def test_a_teacher_of_points_only_needs_no_pair_labels(t5):
    pair = PairSettings(per_query=0, labels=("zebra", "zebra"))
    teacher = Teachers(TeacherSettings(model=str(t5), dtype="float32", pair=pair), ["point"])("point")
    assert len(scores_in_order(teacher.score_points, POINTS)) == len(POINTS)


@pytest.mark.network
def test_the_label_words_of_flan_t5_are_the_papers_token_ids():
    """The released scripts hard-code these ids; ours are looked up."""
    try:
        tokenizer = AutoTokenizer.from_pretrained("google/flan-t5-xl", local_files_only=True)
    except OSError:
        pytest.skip("google/flan-t5-xl's tokenizer is not in the local cache")
    assert label_ids(tokenizer, ["Yes", "No", "A", "B"]) == [2163, 465, 71, 272]
    assert label_ids(tokenizer, ["true", "false"]) == [1176, 6136]
