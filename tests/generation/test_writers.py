import json
import shutil
from pathlib import Path

import pytest
import torch
from serving import serving
from tiny_models import word_tokenizer
from transformers import BartConfig, BartForConditionalGeneration, GPT2Config, GPT2LMHeadModel

from pdadapt.data.corpus import Document
from pdadapt.errors import ModelError, RecipeError
from pdadapt.generation import writers
from pdadapt.generation.writers import QueryRequest, Sampler, check_writer, load_writer, writer_identity
from pdadapt.settings.schema import Recipe

DOCUMENTS = ["spoke nipple tension rim", "pad rotor caliper", "tube valve bead puncture patch", "chain hanger cog"]
ASKED = [QueryRequest(number, "question", Document("", "", text)) for number, text in enumerate(DOCUMENTS)]


def recipe(teacher, **generate):
    teacher = {"model": str(teacher), "dtype": "float32", "max_length": 128, "batch_tokens": 120}
    return Recipe.model_validate({"teacher": teacher, "generate": {"max_tokens": 8} | generate})


def written(chosen, asked=ASKED):
    return [(one.number, text) for batch in load_writer(chosen).write(asked) for one, text in batch]


@pytest.fixture(scope="module")
def server(llama):
    with serving("chat_server.py", llama) as url:
        yield url


@pytest.mark.slow
def test_a_seq2seq_and_a_causal_model_sample_by_the_seed(t5_untied, llama):
    for model in (t5_untied, llama):
        found = written(recipe(model))
        assert sorted(number for number, _ in found) == [0, 1, 2, 3]
        assert all(len(text.split()) <= 8 for _, text in found) and len({text for _, text in found}) > 1
        assert written(recipe(model)) == found
        other = recipe(model)
        other.seed = 1
        assert written(other) != found
        assert written(recipe(model, temperature=0)) == written(recipe(model, temperature=0)) != found


@pytest.mark.slow
def test_an_answer_follows_from_its_prompt_whatever_is_in_the_batch(t5_untied, llama):
    for model in (t5_untied, llama):
        chosen = recipe(model)
        found = dict(written(chosen))
        assert len(list(load_writer(chosen).write(ASKED))) > 1, "they must not fit into one batch"
        assert dict(written(chosen, ASKED[:1:-1])) == {number: found[number] for number in (3, 2)}
        for tokens in (1, 10_000):
            chosen.teacher.batch_tokens = tokens
            before = torch.random.get_rng_state()
            assert dict(written(chosen)) == found
            assert torch.equal(torch.random.get_rng_state(), before)


def test_another_prompt_has_another_seed(llama, monkeypatch):
    seeds = []
    monkeypatch.setattr(writers, "Sampler", lambda *arguments: seeds.extend(arguments[2]) or Sampler(*arguments))
    written(recipe(llama))
    assert len(set(seeds)) == 4
    before = sorted(seeds)
    seeds.clear()
    written(recipe(llama), ASKED[::-1])
    assert sorted(seeds) == before


@pytest.mark.slow
def test_greedy_writer_equals_generate(llama, t5_untied):
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

    for model, kind in ((llama, AutoModelForCausalLM), (t5_untied, AutoModelForSeq2SeqLM)):
        tokenizer, plain = AutoTokenizer.from_pretrained(model), kind.from_pretrained(model)
        template = (Path(__file__).parents[2] / "prompts" / "query-question.txt").read_text(encoding="utf-8").strip()
        for number, text in written(recipe(model, temperature=0)):
            prompt = template.replace("{document}", DOCUMENTS[number])
            if kind is AutoModelForCausalLM:
                message = [{"role": "user", "content": prompt}]
                prompt = tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True)
            ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=kind is AutoModelForSeq2SeqLM)["input_ids"]
            output = plain.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0)[0]
            start = ids.shape[1] if kind is AutoModelForCausalLM else 0
            cut = "" if tokenizer.eos_token_id in output else "…"
            assert text == tokenizer.decode(output[start:], skip_special_tokens=True) + cut


def test_a_long_document_is_cut_and_the_instruction_is_not(llama):
    writer = load_writer(recipe(llama))
    ids = writer.encoders["title"]([{"document": "rim " * 1_000}])[0]  # type: ignore[attr-defined]
    assert len(ids) <= 128 and "Answer only" in writer.tokenizer.decode(ids)  # type: ignore[attr-defined]


def test_a_prompt_leaves_room_for_the_answer(tmp_path):
    """GPT-2 knows so many places and no more."""
    size = word_tokenizer(tmp_path, end=False)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=size, n_positions=128, n_embd=32, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=1
    )
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    long = QueryRequest(0, "question", Document("", "", "rim hub " * 500))
    assert len(written(recipe(tmp_path, max_tokens=32), [long])) == 1
    writer = load_writer(recipe(tmp_path, max_tokens=32))
    assert len(writer.encoders["question"]([{"document": long.document.text}])[0]) == 128 - 32  # type: ignore[attr-defined]
    with pytest.raises(RecipeError, match="leaves no room for the documents"):
        check_writer(recipe(tmp_path, max_tokens=100))


@pytest.mark.slow
def test_served_writer_drops_lone_surrogates(server, monkeypatch):
    async def post(self, client, request):
        return self.servers[0], {
            "choices": [{"message": {"content": json.loads('"pad \\ud83d squeal \\ud83d\\ude00"')}}]
        }

    monkeypatch.setattr(writers.Servers, "post", post)
    assert dict(written(recipe(f"{server}#tiny")))[0] == "pad  squeal 😀"


@pytest.mark.slow
def test_answer_that_was_cut_off_is_marked(llama, server, tmp_path):
    for model in (llama, f"{server}#tiny"):
        assert all(text.endswith("…") for _, text in written(recipe(model, max_tokens=1)))
    ends = tmp_path / "llama"
    shutil.copytree(llama, ends)
    config = json.loads((ends / "generation_config.json").read_text(encoding="utf-8")) | {"eos_token_id": [1, 5, 8]}
    (ends / "generation_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert any(not text.endswith("…") for _, text in written(recipe(ends, max_tokens=64)))


def test_bart_answer_that_was_cut_off_is_marked(tmp_path):
    """It begins with its token of the end, and its configuration wants it at the end whatever was said."""
    size = word_tokenizer(tmp_path, end=True)
    one = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 1}
    widths = {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "init_std": 1.0}
    torch.manual_seed(0)
    config = BartConfig(vocab_size=size, forced_eos_token_id=1, **one, **ends, **widths)
    BartForConditionalGeneration(config).save_pretrained(tmp_path)
    assert all(text.endswith("…") for _, text in written(recipe(tmp_path, max_tokens=2)))


@pytest.mark.slow
def test_a_server_is_asked_for_the_same_and_a_refused_document_is_no_answer(server, monkeypatch):
    monkeypatch.delenv("PDADAPT_API_KEY", raising=False)
    found = dict(written(recipe(f"{server}#tiny")))
    assert len(found) == 4 and all(found.values())
    assert dict(written(recipe(f"{server}#tiny"))) == found
    chosen = recipe(f"{server}#strict")
    chosen.teacher.concurrency = 1
    answers = written(chosen, [*ASKED, QueryRequest(9, "title", Document("", "", "this is too long"))])
    assert dict(answers)[9] == "" and all(text for number, text in answers if number != 9)


@pytest.mark.slow
def test_check_writer_refuses_models_that_cannot_write(llama, encoder, server, tmp_path, monkeypatch):
    check_writer(recipe(llama))
    check_writer(recipe(f"{server}#tiny"))
    check_writer(recipe(encoder, model=str(llama)))
    with pytest.raises(RecipeError, match=r"cannot write queries, .*\(kind: bi_encoder\).*generate\.model"):
        check_writer(recipe(encoder))
    with pytest.raises(RecipeError, match="leaves no room for the documents"):
        chosen = recipe(llama)
        chosen.teacher.max_length = 12
        check_writer(chosen)
    with pytest.raises(ModelError, match="did not answer with JSON"):
        check_writer(recipe(f"{server}#page"))
    monkeypatch.setattr(writers.Servers, "post", _without_message)
    with pytest.raises(ModelError, match="without a message"):
        check_writer(recipe(f"{server}#tiny"))


async def _without_message(self, client, request):
    return self.servers[0], {"choices": []}


def test_answers_depend_on_the_model_and_on_what_it_reads(llama, t5_untied):
    models = (llama, t5_untied, "http://one/v1#tiny", "http://other/v1#tiny")
    ids = [writer_identity(recipe(model)) for model in models]
    assert ids[2] == ids[3] and len({json.dumps(one) for one in ids}) == 3
    longer = recipe(llama)
    longer.teacher.max_length = 64
    assert writer_identity(longer) != ids[0]
