"""What language-model teachers share: loading, label words, prompts and scores.

The score of a question is the log-odds of two label words as the first token of the answer. It is the difference of
their logits, since the softmax's normalizer cancels (PairDistill section 3.1).
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from pdadapt.errors import ModelError
from pdadapt.models.device import default_device, pick_dtype
from pdadapt.models.outline import check_complete, translate_part_errors
from pdadapt.models.source import ModelSource, resolve_model
from pdadapt.models.token_budget import TokenBudget
from pdadapt.settings.prompt import LIKELIHOOD_FIELDS, PAIR_FIELDS, POINT_FIELDS, load_prompt
from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings
from pdadapt.teachers.base import Chunk, Scores
from pdadapt.teachers.chat import begins_thought, chat_format
from pdadapt.teachers.prompting import PromptEncoder, label_ids, tokenised
from pdadapt.teachers.turns import NO_TURNS

ANSWER_TOKENS = 128  # tokens reserved for the query if its likelihood is the score
MAX_GPU_TOKENS = 65_536  # tokens per batch
COMPILED_PARTS = ("MLP", "LayerFF", "Norm")  # module names; these consist of many small operations


def float32_head(model: Any, rows: list[int] | None) -> None:
    """Make the output head float32 and keep only its `rows` (None: the whole vocabulary).

    The model's forward, with its own scaling, then gives exact logits for any dtype of its body.
    """
    head = model.get_output_embeddings()
    weight = head.weight.detach()
    head.weight = nn.Parameter((weight if rows is None else weight[rows]).float(), requires_grad=False)
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter((head.bias if rows is None else head.bias[rows]).detach().float(), requires_grad=False)
    if rows is not None and getattr(model, "final_logits_bias", None) is not None:  # BART
        model.final_logits_bias = model.final_logits_bias[:, rows].float()
    head.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(), *inputs[1:]))


def pad(batch: Sequence[list[int]], side: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token ids (B, T), padded with 0 on the `left` or `right` side, and their attention mask (B, T)."""
    width = max(len(ids) for ids in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for row, tokens in enumerate(batch):
        columns = slice(width - len(tokens), width) if side == "left" else slice(0, len(tokens))
        ids[row, columns] = torch.tensor(tokens)
        mask[row, columns] = 1
    return ids.to(device), mask.to(device)


class LanguageModelTeacher(ABC):
    """A Hugging Face language model that answers with label words. The subclasses differ in how a batch is computed."""

    kind: str
    cpu_tokens = 1_024  # per batch: larger batches are not faster, and no longer fit the cache

    def __init__(self, settings: ModelSettings, point: PointSettings | None, pair: PairSettings | None):
        """Load tokenizer and model for the tasks whose settings are given.

        Raises ModelError or RecipeError if the model cannot be used for a task.
        """
        self.device = default_device()
        self.model, self.tokenizer = load_language_model(settings, self.kind, self.device)
        self.point = task_prompt(self.tokenizer, self.kind, settings, point) if point else None
        self.pair = task_prompt(self.tokenizer, self.kind, settings, pair) if pair else None
        self.budget = TokenBudget(
            f"teacher {settings.model}",
            settings.batch_tokens or (gpu_batch_tokens(self.model) if self.device.type == "cuda" else self.cpu_tokens),
        )
        tasks = [task for task in (self.point, self.pair) if task]
        for task in tasks:
            if begins_thought(self._answer_start(task)):
                raise thinks_first(settings.model, "the likeliest first token begins a thought")
        labels = [token for task in tasks for token in task.labels]
        self.rows = labels if all(task.labels for task in tasks) else None  # rows kept of the head; None means all
        float32_head(self.model, self.rows)
        if settings.compile:
            for module in self.model.modules():
                if any(part in type(module).__name__ for part in COMPILED_PARTS):
                    module.compile(dynamic=True)

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the log-odds that the answer is the first label word, "relevant"."""
        yield from self._score(chunks, self.point)

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the log-odds that the answer is the first label word, document a."""
        yield from self._score(chunks, self.pair)

    def _score(self, chunks: Iterable[Chunk], task: TaskPrompt | None) -> Iterator[Scores]:
        """Yield the scores of the questions, asked in the order of their texts so that prefixes are shared."""
        assert task is not None
        columns = task.labels if self.rows is None else [self.rows.index(token) for token in task.labels]
        encode = task.encode
        ordered = (sorted(chunk.asked) for chunk in chunks)
        for questions, prompts in tokenised(ordered, lambda chunk: encode([one._asdict() for one in chunk])):
            for indices, scores in self._log_odds(prompts, columns):
                yield [(questions[i], score) for i, score in zip(indices, scores.tolist(), strict=True)]

    def _answer_start(self, task: TaskPrompt) -> str:
        """Return enough of the likeliest answer to tell whether it begins with a thought; empty if none can.

        Called before the head is cut to the label words.
        """
        return ""

    @abstractmethod
    def _log_odds(self, prompts: list[list[int]], columns: list[int]) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Yield batches of (indices of prompts, (B,) log-odds of the two columns of the head)."""


class TaskPrompt(NamedTuple):
    """The prompt of a task and the label words of its answers."""

    encode: PromptEncoder
    labels: list[int]  # token ids of the two label words; empty if the score is the query's likelihood


def task_prompt(tokenizer: Any, kind: str, settings: ModelSettings, task: PointSettings | PairSettings) -> TaskPrompt:
    """Load the prompt of a task and encode its label words.

    Raises ModelError if a label word is not a single token, or if the model's chat template opens a thought.
    Raises RecipeError if the prompt is missing or wrong.
    """
    likelihood = task.scoring == "query_likelihood"
    fields = PAIR_FIELDS if isinstance(task, PairSettings) else LIKELIHOOD_FIELDS if likelihood else POINT_FIELDS
    chat = chat_format(tokenizer) if kind == "causal" and tokenizer.chat_template else None
    if chat and chat.thinks:
        raise thinks_first(settings.model, "its chat template leaves a thought open")
    encode = PromptEncoder(
        tokenizer,
        load_prompt(task.prompt, fields),
        settings.max_length,
        settings.max_document_length,
        chat or str,
        add_special_tokens=chat is None,
        reserve=ANSWER_TOKENS if likelihood else 0,
        turns=chat.turns if chat else NO_TURNS,
    )
    return TaskPrompt(encode, [] if likelihood else label_ids(tokenizer, task.labels))


def thinks_first(name: str, how: str) -> ModelError:
    """Return the error for a model that thinks before it answers. how: what shows it."""
    return ModelError(
        f"Teacher {name!r} thinks before it answers ({how}), so the first token of its answer is not a label word. Use "
        "a model that answers at once, or one whose thinking can be turned off."
    )


def gpu_batch_tokens(model: Any) -> int:
    """Return how many tokens fit in half of the GPU's free memory, estimated from the widths of the model."""
    config = model.config.get_text_config()
    inner = getattr(config, "d_ff", None) or getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    per_token = model.dtype.itemsize * (16 * config.hidden_size + 4 * inner)
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(max(1_024, min(MAX_GPU_TOKENS, free // 2 // per_token)))


@functools.lru_cache(maxsize=2)
def load_tokenizer(name: str) -> Any:
    """Load the tokenizer of a model name. Raises ModelError if the model has none."""
    import transformers

    source = resolve_model(name)
    with translate_part_errors(source, "The tokenizer of teacher"), without_bars(source):
        return transformers.AutoTokenizer.from_pretrained(source.place, **source.kwargs)


def without_bars(source: ModelSource) -> contextlib.redirect_stderr[Any]:
    """Hide the progress bars of loading a GGUF file, since no option turns them off."""
    return contextlib.redirect_stderr(io.StringIO() if source.gguf_file else sys.stderr)


def load_language_model(settings: ModelSettings, kind: str, device: torch.device) -> tuple[Any, Any]:
    """Load (model, tokenizer) from safetensors or GGUF, ready to score.

    Raises ModelError with the model's name if they cannot be loaded.
    """
    import transformers

    source = resolve_model(settings.model)
    model_class = transformers.AutoModelForSeq2SeqLM if kind == "seq2seq" else transformers.AutoModelForCausalLM
    dtype = pick_dtype(settings.dtype, device)
    options = weight_options(settings, source, dtype)
    tokenizer = load_tokenizer(settings.model)
    with translate_part_errors(source, "Teacher"), without_bars(source):
        loaded: Any = model_class.from_pretrained(
            source.place, dtype=dtype, output_loading_info=True, **options, **source.kwargs
        )
        model, found = loaded
    check_complete(source, "Teacher", sorted(found["missing_keys"]), unused=())
    model.eval().requires_grad_(False)
    if "device_map" not in options:
        model.to(device)
    return model, tokenizer


def weight_options(settings: ModelSettings, source: ModelSource, dtype: torch.dtype) -> dict[str, Any]:
    """Return the options of `from_pretrained` for the weights: file format, quantization, devices."""
    import transformers

    if source.gguf_file:  # newer transformers would keep the weights packed and multiply in float32 only
        packed = hasattr(transformers, "GgufConfig")
        return {"quantization_config": transformers.GgufConfig(dequantize=True)} if packed else {}
    options: dict[str, Any] = {"use_safetensors": True}
    if settings.quantize:
        unquantized = ["lm_head", "EncDecAttention"]  # seq2seq.py reads these weights itself
        bits = (
            {"load_in_8bit": True, "llm_int8_skip_modules": unquantized}
            if settings.quantize == "8bit"
            else {
                "load_in_4bit": True,
                "bnb_4bit_quant_type": "nf4",
                "bnb_4bit_compute_dtype": dtype,
                "llm_int8_skip_modules": unquantized,
            }
        )
        options["quantization_config"] = transformers.BitsAndBytesConfig(**bits)
    if settings.device_map or settings.quantize:
        options["device_map"] = settings.device_map or {"": 0}
    return options
