"""Tiny real models, built from configs with fixed random weights, and a tiny corpus: no network, no downloads."""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["IR_DATASETS_HOME"] = tempfile.mkdtemp()  # read as ir_datasets is imported

import pytest
import torch
from golden_files import FOLDER, GoldenFile
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

atexit.register(shutil.rmtree, os.environ["IR_DATASETS_HOME"], ignore_errors=True)

TOPICS = {
    "wheels": "rim spoke hub nipple tension true wobble dish axle",
    "brakes": "pad rotor lever caliper bleed squeal piston fluid hose",
    "tires": "tube valve bead puncture patch pressure sealant casing tread",
    "gears": "chain cassette derailleur shifter cable indexing hanger cog pulley",
}
WORDS = sorted(set(" ".join(TOPICS.values()).split()))
PROMPT_TEXT = (
    "Is the document relevant to query Yes or No Which more Answer only A B Query Document Passage Please write a "
    "question based on this passage user assistant true false ( ) ? : . , '"
)
PROMPT_WORDS = list(dict.fromkeys(PROMPT_TEXT.split()))
CHAT = (
    "{% for m in messages %}user : {{ m['content'] }} {% endfor %}{% if add_generation_prompt %}assistant :{% endif %}"
)


def pytest_addoption(parser):
    parser.addoption("--golden", action="store_true", help="write the golden files under tests/golden")


def pytest_configure(config):
    if config.getoption("--golden") and config.getoption("numprocesses", None):
        raise pytest.UsageError("--golden writes files that tests share; leave out --numprocesses")


@pytest.fixture
def golden(request) -> Callable[[str], GoldenFile]:
    """A golden file by its path below tests/golden."""
    return lambda path: GoldenFile(FOLDER / path, write=request.config.getoption("--golden"))


@pytest.fixture(autouse=True)
def _few_threads():
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_limits():
    """What one test found out about memory is not remembered by the next."""
    from pdadapt.models.token_budget import batch_limits

    batch_limits.keep_in(None)


def word_tokenizer(folder: Path, end: bool, chat: bool = False) -> int:
    """A whitespace tokenizer with offsets over the words of the prompts and the corpus; returns its size."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(["<pad>", "</s>", "<unk>", *PROMPT_WORDS, *WORDS]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()])
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=2048
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(vocabulary)


def byte_tokenizer(folder: Path, end: bool, chat: bool = False) -> int:
    """A tokenizer that knows every text, byte by byte, and the label words; returns its size."""
    merges = [("Y", "e"), ("Ye", "s"), ("N", "o")]
    tokens = ["<pad>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if end:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", model_max_length=2048
    )
    if chat:
        fast.chat_template = CHAT
    fast.save_pretrained(folder)
    return len(tokens)


def make_t5(folder: Path, tied: bool, tokenizer: Callable[..., int] = word_tokenizer) -> Path:
    size = tokenizer(folder, end=True)
    torch.manual_seed(0)
    model = T5ForConditionalGeneration(
        T5Config(
            vocab_size=size,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            feed_forward_proj="relu" if tied else "gated-gelu",
            tie_word_embeddings=tied,
            decoder_start_token_id=0,
        )
    )
    if not tied:
        model.lm_head.weight = torch.nn.Parameter(torch.randn(size, 32))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=[True, False], ids=["tied", "untied"])
def t5(request, tmp_path_factory) -> Path:
    return make_t5(tmp_path_factory.mktemp("t5"), request.param)


@pytest.fixture(scope="session")
def t5_untied(tmp_path_factory) -> Path:
    return make_t5(tmp_path_factory.mktemp("t5"), tied=False)


@pytest.fixture(scope="session")
def llama(tmp_path_factory) -> Path:
    return make_llama(tmp_path_factory.mktemp("llama"))


def make_llama(folder: Path, tokenizer: Callable[..., int] = word_tokenizer) -> Path:
    size = tokenizer(folder, end=False, chat=True)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def bert_tokenizer(folder: Path) -> int:
    special = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys([*special, *".,:;?!-()", *WORDS, *"abcdefgh"]))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    (folder / "vocab.txt").write_text("\n".join(vocabulary), encoding="utf-8")
    BertTokenizerFast(tokenizer_object=tokenizer, model_max_length=512).save_pretrained(folder)
    return len(vocabulary)


def bert_config(size: int) -> BertConfig:
    return BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=512,
        initializer_range=0.3,
    )


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """A plain BERT, as `bert-base-uncased` is one."""
    folder = tmp_path_factory.mktemp("bert")
    torch.manual_seed(0)
    BertModel(bert_config(bert_tokenizer(folder)), add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def cross_encoder(tmp_path_factory) -> Path:
    """A BERT with one output, as `cross-encoder/ms-marco-MiniLM-L-6-v2` is one."""
    folder = tmp_path_factory.mktemp("cross")
    torch.manual_seed(1)
    config = bert_config(bert_tokenizer(folder))
    config.num_labels = 1
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def stanford(tmp_path_factory) -> Path:
    """A ColBERT checkpoint in Stanford's format: `colbert-ir/colbertv2.0` in small."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("stanford")
    torch.manual_seed(0)
    model = BertModel(bert_config(bert_tokenizer(folder)), add_pooling_layer=False)
    weights = {f"bert.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file({**weights, "linear.weight": torch.randn(16, 32) * 0.2}, folder / "model.safetensors")
    config = model.config.to_dict() | {"architectures": ["HF_ColBERT"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    metadata = {
        "query_token_id": "[unused0]",
        "doc_token_id": "[unused1]",
        "query_maxlen": 32,
        "doc_maxlen": 180,
        "mask_punctuation": True,
        "attend_to_mask_tokens": False,
    }
    (folder / "artifact.metadata").write_text(json.dumps(metadata), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def engine_environment() -> Callable[[str], Path]:
    """Makes sure of an engine's environment, for which several GB may be downloaded, or skips."""
    from pdadapt.retrieval.engines.environment import environment_folder, set_up

    def get(engine: str) -> Path:
        if not (environment_folder(engine) / "ready").exists() and "PDADAPT_BUILD_ENVIRONMENTS" not in os.environ:
            pytest.skip(f"no environment of {engine}: run `pdadapt setup-{engine}`, or set PDADAPT_BUILD_ENVIRONMENTS")
        return set_up(engine)

    return get


@pytest.fixture(scope="session")
def beir(tmp_path_factory) -> Path:
    """20 documents on 4 topics, 12 unlabeled queries, 6 test queries with judgments, in BEIR layout."""
    folder = tmp_path_factory.mktemp("data") / "tiny"
    (folder / "qrels").mkdir(parents=True)
    rng = random.Random(0)
    documents, queries, qrels = [], [], ["query-id\tcorpus-id\tscore"]
    names = list(TOPICS)
    for number in range(20):
        words = TOPICS[names[number % 4]].split()
        text = " ".join(rng.choices(words, k=12)) + "."
        documents.append({"_id": f"d{number}", "title": names[number % 4] if number % 2 else "", "text": text})
    for number in range(18):
        words = TOPICS[names[number % 4]].split()
        queries.append({"_id": f"q{number}", "text": " ".join(rng.choices(words, k=3))})
        if number >= 12:
            qrels += [f"q{number}\td{i}\t{1 + i % 2}" for i in range(20) if i % 4 == number % 4]
    for name, rows in (("corpus", documents), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "qrels" / "test.tsv").write_text("\n".join(qrels) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory, encoder, llama) -> Path:
    """A recipe that runs the whole loop with the tiny models in seconds."""
    file = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    file.write_text(
        f"""
student: {{model: {encoder}}}
teacher:
  model: {llama}
  dtype: float32
  max_length: 256
  batch_tokens: 256
  pair: {{per_query: 4, window: 4}}
retrieve: {{k: 8, batch_tokens: 64}}
train: {{batch_size: 4, n_way: 6, steps: 12, learning_rate: 1.0e-3, save_steps: 1, held_out: 0}}
evaluate: {{k: 10, resamples: 200, general: false}}
""",
        encoding="utf-8",
    )
    return file


@pytest.fixture
def small_run(tmp_path) -> Path:
    """A finished run's folder, written by hand: two queries adapted on, three tested on, one iteration."""
    folder = tmp_path / "runs" / "small"
    (folder / "iteration-1").mkdir(parents=True)
    comparison = {"base": 0, "system": 1, "p": 0.0312, "p_holm": 0.0312, "p_t": 0.05, "p_t_holm": 0.05}
    comparison |= {"change": 0.25, "interval": [0.05, 0.45], "wins": 1, "ties": 1, "losses": 1}
    measured = {"nDCG@10": {"means": [0.5, 0.75], "comparisons": [comparison]}}
    labels = {"points": 1234, "points_asked": 1000, "pairs": 3, "pair_prompts_asked": 6, "flip_rate": 0.5}
    labels |= {"points_unanswered": 0}
    labels |= {"position_bias": -1.5, "disagreement": 1 / 3}
    documents = [{"doc_id": "d1", "title": "Rims", "text": "true the rim", "grade": 2}]
    documents += [{"doc_id": "d2", "title": "", "text": "bleed the brake", "grade": None}]
    changed = {"query_id": "q1", "query": "how to true a wheel", "before": 0.25, "after": 1.0}
    metrics = {
        "corpus": "small",
        "summary": "small: 20 documents; 2 queries to adapt on.",
        "documents": 20,
        "queries": 2,
        "test_queries": 3,
        "iteration": 1,
        "checkpoint": f"{folder}/iteration-1/checkpoint",
        "labels": [labels],
        "agreement": [{"pair accuracy": measured["nDCG@10"]}],
        "general": [{"nDCG@10": measured["nDCG@10"] | {"means": [0.8125, 0.8125]}}],
        "measures": measured,
        "most_changed": {"gained": [changed | {"documents": [documents[::-1], documents]}], "lost": []},
        "verdict": {"outcome": "helped", "sentence": "Helped: nDCG@10 0.500 → 0.750 (p = 0.031)."},
    }
    lists = [
        {"query_id": "q7", "doc_ids": ["d1", "d2"], "points": [2.0, None], "pairs": [[0, 1, 0.7]]},
        {"query_id": "q8", "doc_ids": ["d1", "d2", "d3"], "points": [3.0, 1.0, 0.5], "pairs": [[0, 1, 4], [1, 2, -2]]},
    ]
    losses = [{"step": 1, "loss": 0.75, "kd": 0.5, "pair": 0.25}, {"step": 20, "loss": 0.5, "kd": 0.375, "pair": 0.125}]
    timings = [
        {"task": f"iteration {i}: label points", "units": 600, "unit": "prompts", "seconds": 60.0} for i in (1, 1)
    ]
    timings.append({"task": "index", "units": 20, "unit": "documents", "seconds": 40.0})
    texts = {
        "recipe.yaml": "student: {model: tiny/student}\nteacher: {model: tiny/teacher}\n",
        "run.json": json.dumps({"corpus": "small", "corpus_sha256": "cafe", "versions": {"pdadapt": "0.1.0"}}),
        "metrics.json": json.dumps(metrics),
        "timings.jsonl": "".join(json.dumps(row) + "\n" for row in timings),
        "queries.tsv": "query_id\tmeasure\tbase\titeration-1\n"
        "q1\tnDCG@10\t0.25\t1.0\nq2\tnDCG@10\t0.5\t0.5\nq3\tnDCG@10\t0.75\t0.7\n",
        "iteration-1/labels.json": json.dumps(labels),
        "iteration-1/agreement.json": json.dumps(metrics["agreement"][0]),
        "iteration-1/lists.jsonl": "".join(json.dumps(row) + "\n" for row in lists),
        "iteration-1/train.jsonl": "".join(json.dumps(row) + "\n" for row in losses),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def kill_while_saving():
    """Runs a training command, kills it with SIGKILL about each of its first saves, then lets it end."""

    def run(command, states, kills=3):
        chosen, arguments = random.Random(0), list(map(str, command))
        for _ in range(kills):
            with subprocess.Popen(
                list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
            ) as process:
                known, deadline = set(states.glob("*")), time.monotonic() + 120
                while set(states.glob("*")) <= known and process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.001)
                time.sleep(chosen.random() * 0.1)
                process.kill()
                assert process.wait() == -signal.SIGKILL, process.stderr.read().decode()
        process = subprocess.run(arguments, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr

    return run


def asked_at_once(questions):
    """As one chunk."""
    from pdadapt.labeling.ask import Questions

    return Questions([(questions, len(questions))], lambda chunk: chunk)
