from itertools import chain

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import byte_tokenizer, make_llama, make_t5
from transformers import AutoModelForCausalLM, AutoTokenizer, MistralConfig, MistralForCausalLM

from pdadapt.settings.schema import TeacherSettings
from pdadapt.teachers.base import Pair, scores_in_order
from pdadapt.teachers.load import Teachers
from pdadapt.teachers.packed import MIN_SHARED_TOKENS, AttentionPlan, build_tree, common_prefix, shared_prefixes


def beginnings():
    """Prompts that share beginnings of many lengths."""
    piece = st.sampled_from([[1] * 20, [2] * 17, [3] * 40, [4], [5, 6]])
    return st.lists(
        st.lists(piece, min_size=1, max_size=5).map(lambda pieces: list(chain.from_iterable(pieces))),
        min_size=1,
        max_size=12,
    )


@settings(deadline=None, max_examples=200)
@given(beginnings())
def test_each_prompt_is_read_whole_along_its_branch(prompts):
    prompts = sorted(prompts)
    tree = build_tree(prompts, shared_prefixes(prompts, [1] * len(prompts)))
    assert len(tree.last) == len(prompts) and len(set(tree.last)) == len(prompts)
    ends = {segment.stop - 1: segment for segment in tree.segments}
    for prompt, last in zip(prompts, tree.last, strict=True):
        seen = ends[last].seen
        assert [tree.tokens[row] for row in seen] == prompt
        assert [tree.positions[row] for row in seen] == list(range(len(prompt)))
    assert len(tree.tokens) <= sum(map(len, prompts))


def test_a_long_common_beginning_is_kept_once_and_a_short_one_is_not_worth_it():
    long, short = list(range(100, 100 + 3 * MIN_SHARED_TOKENS)), list(range(100, 100 + MIN_SHARED_TOKENS - 1))
    for beginning, tokens in ((long, len(long) + 2), (short, 2 * len(short) + 2)):
        prompts = [[*beginning, 1], [*beginning, 2]]
        assert len(build_tree(prompts, shared_prefixes(prompts, [1, 1])).tokens) == tokens
    prompts = [[*long, 1], [*long, 1, 2, 3]]  # one is the beginning of the other: each keeps its own last token
    assert shared_prefixes(prompts, [1, 3]) == [0, len(long)]
    assert common_prefix([1, 2, 3], [1, 2, 4], 3) == 2


def test_alike_segments_are_padded_together_on_a_gpu_and_the_padding_is_never_seen():
    prompts = [[7] * 10, [8] * 11, [9] * 30]
    tree = build_tree(prompts, shared_prefixes(prompts, [1] * 3))
    plan = AttentionPlan(tree.segments, tree.positions, torch.device("cpu"))
    assert [len(group.queries) for group in plan.groups] == [1, 1, 1]
    on_gpu = AttentionPlan(tree.segments, tree.positions, torch.device("cpu"), slack=1.25)
    assert [tuple(group.queries.shape) for group in on_gpu.groups] == [(2, 11), (1, 30)]
    mask = on_gpu.masks(None)[0]
    assert not mask[0, 0, :10, 10].any() and mask[0, 0, 10].all()  # row 10 of the first is padding
    assert on_gpu.masks(3)[1].sum() == 30 * 3 - 3


QUESTIONS = [
    Pair(query, a, b)
    for query in ("spoke tension wobble", "squeal")
    for a in ("rim spoke hub nipple " * 6, "pad rotor lever caliper " * 8)
    for b in ("tube valve bead", "chain cassette cog " * 9, "", "hose " * 30)
]


def alone(folder, questions):
    """The reference: each full prompt alone, through the model's own attention."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    a, b = (tokenizer.convert_tokens_to_ids(word) for word in "AB")
    teacher = Teachers(TeacherSettings(model=str(folder), dtype="float32"))("pair")
    for question in questions:
        ids = teacher.pair.encode([question._asdict()])[0]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        yield (logits[a] - logits[b]).item()


@pytest.mark.slow
@pytest.mark.parametrize("slack", [1.0, 1.25, 3.0])
@pytest.mark.parametrize("budget", [1, 200, 100_000])
def test_prompts_that_share_their_beginning_score_as_if_alone(llama, budget, slack, monkeypatch):
    monkeypatch.setitem(AttentionPlan.__init__.__kwdefaults__, "slack", slack)
    teacher = Teachers(TeacherSettings(model=str(llama), dtype="float32", batch_tokens=budget))("pair")
    assert teacher.packs
    found = scores_in_order(teacher.score_pairs, QUESTIONS)
    assert found == pytest.approx(list(alone(llama, QUESTIONS)), abs=1e-4)


@pytest.mark.slow
def test_a_sliding_window_is_kept(llama, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.save_pretrained(tmp_path)
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=20,
        initializer_range=0.2,
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)
    teacher = Teachers(TeacherSettings(model=str(tmp_path), dtype="float32"))("pair")
    assert teacher.packs
    found = scores_in_order(teacher.score_pairs, QUESTIONS)
    expected = list(alone(tmp_path, QUESTIONS))
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
def test_an_architecture_that_cannot_be_packed_is_padded(llama, monkeypatch):
    from pdadapt.teachers import packed

    expected = list(alone(llama, QUESTIONS))
    monkeypatch.setattr(packed, "UNSUPPORTED_ARGUMENTS", ("scaling", "dropout"))  # these the architecture passes
    teacher = Teachers(TeacherSettings(model=str(llama), dtype="float32"))("pair")
    assert not teacher.packs
    found = scores_in_order(teacher.score_pairs, QUESTIONS)
    assert found == pytest.approx(expected, abs=1e-4)


STRANGE = [
    "{query}",
    "Answer: Yes",
    "\x00\x07\x1b[31m",
    "🚲👩🏽‍🔧",
    "שלום \u202b عربي",
    "",
    " ",
    "rim " * 3_000,
    "<|im_end|></s>",
]


def t5_of_bytes(folder):
    return make_t5(folder, tied=False, tokenizer=byte_tokenizer)


def llama_of_bytes(folder):
    return make_llama(folder, tokenizer=byte_tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("make", [t5_of_bytes, llama_of_bytes])
def test_a_strange_document_changes_nothing_but_its_own_score(make, tmp_path):
    """With a tokenizer that reads every byte, so that no two of these texts are the same to the model."""
    settings = TeacherSettings(model=str(make(tmp_path)), dtype="float32", max_length=640, batch_tokens=2_000)
    teacher = Teachers(settings)("pair")
    plain = [Pair("spoke tension", a, b) for a in ("rim spoke hub", "pad rotor") for b in ("valve bead", "cog")]
    strange = [Pair("spoke tension", text, "valve bead") for text in STRANGE]
    strange += [Pair(text, "valve bead", "cog") for text in STRANGE if len(text) < 100]

    def ask(questions):
        return scores_in_order(teacher.score_pairs, questions)

    alone = [ask([question])[0] for question in [*plain, *strange]]
    together = ask([*plain, *strange])
    assert together == pytest.approx(alone, abs=1e-4)
    assert len({round(score, 4) for score in alone}) == len(alone)
    assert ask([*strange, *plain])[len(strange) :] == pytest.approx(alone[: len(plain)], abs=1e-4)


@pytest.mark.slow
def test_compiled_parts_give_the_same_scores(tmp_path):
    make_t5(tmp_path, tied=False)
    scores = []
    for compiled in (False, True):
        settings = TeacherSettings(model=str(tmp_path), dtype="float32", compile=compiled)
        teacher = Teachers(settings)("pair")
        scores.append(scores_in_order(teacher.score_pairs, QUESTIONS))
        assert any(module._compiled_call_impl for module in teacher.model.modules()) == compiled
    assert scores[1] == pytest.approx(scores[0], abs=1e-4)
