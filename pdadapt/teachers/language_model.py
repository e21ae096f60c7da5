"""A Hugging Face language model as a teacher: T5 (`seq2seq`) or decoder-only (`causal`, GGUF files too).

The score of a question is the log-odds of two label words as the first token of the answer: the difference of their
logits, since the softmax's normaliser cancels (PairDistill section 3.1).
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from pdadapt.errors import ModelError, RecipeError
from pdadapt.models import ModelSource, read_config, resolve_model
from pdadapt.prompt import LIKELIHOOD_FIELDS, PAIR_FIELDS, POINT_FIELDS, load_prompt
from pdadapt.recipe import TeacherSettings
from pdadapt.teachers import Pair, Point, Scores
from pdadapt.teachers.prompting import PromptEncoder, label_ids, score_packed

ANSWER_ROOM = 128  # tokens kept free for the query when it is the answer whose likelihood is asked


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies in it, else float32 (T5 overflows in float16)."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32


def float32_head(model: Any, rows: list[int] | None) -> None:
    """Make the output head float32, and only as wide as `rows` (None: the whole vocabulary).

    The model's own forward, with its own scaling, then gives exact logits whatever the dtype of its body.
    """
    head = model.get_output_embeddings()
    weight = head.weight.detach()
    head.weight = nn.Parameter((weight if rows is None else weight[rows]).float(), requires_grad=False)
    if getattr(head, "bias", None) is not None:
        head.bias = nn.Parameter((head.bias if rows is None else head.bias[rows]).detach().float(), requires_grad=False)
    head.register_forward_pre_hook(lambda _module, inputs: (inputs[0].float(), *inputs[1:]))


def pad(batch: Sequence[list[int]], side: str, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids (B, T), padded with 0, and their attention mask (B, T)."""
    width = max(len(ids) for ids in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    for row, tokens in enumerate(batch):
        where = slice(width - len(tokens), width) if side == "left" else slice(0, len(tokens))
        ids[row, where] = torch.tensor(tokens)
        mask[row, where] = 1
    return ids.to(device), mask.to(device)


class LanguageModelTeacher:
    """What both kinds share: prompts in, log-odds of the label words out, batch by batch."""

    def __init__(self, settings: TeacherSettings, kind: str | None = None):
        """Loads tokenizer and model. Raises ModelError or RecipeError when either cannot do what is asked."""
        source = resolve_model(settings.model)
        self.kind = kind or teacher_kind(settings)
        self.device = default_device()
        self.budget = settings.batch_tokens or (16_384 if self.device.type == "cuda" else 2_048)
        self.likelihood = settings.point.scoring == "query_likelihood"
        self.model, self.tokenizer = load_language_model(source, self.kind, pick_dtype(settings.dtype, self.device))
        self.model.eval().to(self.device)

        wrap, special = self._chat_format()
        lengths = (settings.max_length, settings.max_document_length)
        point_fields = LIKELIHOOD_FIELDS if self.likelihood else POINT_FIELDS
        self._point_prompt = PromptEncoder(
            self.tokenizer,
            load_prompt(settings.point.prompt, point_fields),
            *lengths,
            wrap=wrap,
            add_special_tokens=special,
            reserve=ANSWER_ROOM if self.likelihood else 0,
        )
        self._pair_prompt = PromptEncoder(
            self.tokenizer,
            load_prompt(settings.pair.prompt, PAIR_FIELDS),
            *lengths,
            wrap=wrap,
            add_special_tokens=special,
        )
        point_rows = [] if self.likelihood else label_ids(self.tokenizer, settings.point.labels)
        pair_rows = label_ids(self.tokenizer, settings.pair.labels) if settings.pair.per_query else []
        float32_head(self.model, None if self.likelihood else point_rows + pair_rows)
        self._point_rows = (0, 1)
        self._pair_rows = tuple(pair_rows) if self.likelihood else (2, 3)

    def score_points(self, points: Sequence[Point]) -> Iterator[Scores]:
        if self.likelihood:
            return self._query_likelihood(points)
        prompts = [self._point_prompt(query=point.query, document=point.document) for point in points]
        return self._score(prompts, self._point_rows)

    def score_pairs(self, pairs: Sequence[Pair]) -> Iterator[Scores]:
        return self._score([self._pair_prompt(**pair._asdict()) for pair in pairs], self._pair_rows)

    def _score(self, prompts: list[list[int]], rows: tuple[int, ...]) -> Iterator[Scores]:
        lengths = [len(ids) for ids in prompts]
        return score_packed(lengths, self.budget, lambda batch: self._log_odds([prompts[i] for i in batch], rows))

    @torch.inference_mode()
    def _log_odds(self, batch: list[list[int]], rows: tuple[int, ...]) -> torch.Tensor:
        """(B,) float32: logit of the first label word minus that of the second."""
        if self.kind == "seq2seq":
            ids, mask = pad(batch, "right", self.device)
            start = torch.full((len(batch), 1), self.model.config.decoder_start_token_id, device=self.device)
            output = self.model(input_ids=ids, attention_mask=mask, decoder_input_ids=start, use_cache=False)
        else:
            output = self._decode(batch, keep=1)
        logits = output.logits[:, -1]
        return (logits[:, rows[0]] - logits[:, rows[1]]).cpu()

    def _decode(self, batch: Sequence[list[int]], keep: int) -> Any:
        """A decoder-only forward, padded on the left; logits of the last `keep` positions."""
        ids, mask = pad(batch, "left", self.device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return self.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=keep
        )

    def _query_likelihood(self, points: Sequence[Point]) -> Iterator[Scores]:
        """Mean log p(query token | document, query so far): Sachan et al. 2022, equation 2."""
        prefixes = {
            document: self._point_prompt(document=document) for document in {point.document for point in points}
        }
        queries = {
            query: self.tokenizer.encode(query, add_special_tokens=False)[:ANSWER_ROOM]
            for query in {point.query for point in points}
        }
        answers = [queries[point.query] for point in points]
        prompts = [prefixes[point.document] + answer for point, answer in zip(points, answers, strict=True)]

        @torch.inference_mode()
        def score(batch: list[int]) -> torch.Tensor:
            targets, mask = pad([answers[i] for i in batch], "left", self.device)
            logits = self._decode([prompts[i] for i in batch], keep=targets.shape[1] + 1).logits[:, :-1]
            log_p = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
            return ((log_p * mask).sum(1) / mask.sum(1)).cpu()

        return score_packed([len(ids) for ids in prompts], self.budget, score)

    def _chat_format(self) -> tuple[Callable[[str], str], bool]:
        """How a prompt becomes the model's input, and whether the tokenizer adds its special tokens."""
        if self.kind == "seq2seq" or not self.tokenizer.chat_template:
            return lambda text: text, True

        def wrap(text: str) -> str:
            message = [{"role": "user", "content": text}]
            return str(self.tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=True))

        return wrap, False


def teacher_kind(settings: TeacherSettings) -> str:
    """`seq2seq` or `causal`: as set, or as the model's configuration says; weights are not loaded."""
    if settings.kind != "auto":
        return settings.kind
    source = resolve_model(settings.model)
    if source.gguf_file:
        return "causal"
    return "seq2seq" if read_config(source).get("is_encoder_decoder") else "causal"


def teacher_key(settings: TeacherSettings, task: str) -> str:
    """What a label depends on besides its texts, as JSON: the label store's key. task: `point` or `pair`.

    Raises RecipeError when the teacher cannot do what is asked; nothing is loaded.
    """
    own = settings.point if task == "point" else settings.pair
    kind = teacher_kind(settings)
    if kind == "seq2seq" and settings.point.scoring == "query_likelihood":
        raise RecipeError(
            "teacher.point.scoring: query_likelihood needs a decoder-only teacher, and this one is seq2seq; use "
            "--set teacher.point.scoring=yes_no --set teacher.point.prompt=yes-no."
        )
    fields = PAIR_FIELDS
    scoring = "labels"
    if task == "point":
        scoring = settings.point.scoring
        fields = LIKELIHOOD_FIELDS if scoring == "query_likelihood" else POINT_FIELDS
    key = {
        "task": task,
        "model": resolve_model(settings.model).identity(),
        "kind": kind,
        "dtype": str(pick_dtype(settings.dtype, default_device())).removeprefix("torch."),
        "max_length": settings.max_length,
        "max_document_length": settings.max_document_length,
        "scoring": scoring,
        "prompt": load_prompt(own.prompt, fields).sha256,
        "labels": None if scoring == "query_likelihood" else list(own.labels),
    }
    return json.dumps(key, sort_keys=True)


def load_language_model(source: ModelSource, kind: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """(model, tokenizer) from safetensors or GGUF. Raises ModelError, naming the model, when they do not load."""
    import transformers

    model_class = transformers.AutoModelForSeq2SeqLM if kind == "seq2seq" else transformers.AutoModelForCausalLM
    options: dict[str, Any] = {"use_safetensors": True}
    if source.gguf_file:  # newer transformers would keep the weights packed, which multiplies in float32 only
        packed = hasattr(transformers, "GgufConfig")
        options = {"quantization_config": transformers.GgufConfig(dequantize=True)} if packed else {}
    bars = io.StringIO() if source.gguf_file else sys.stderr  # GGUF loading draws bars that cannot be turned off
    try:
        with contextlib.redirect_stderr(bars):
            tokenizer = transformers.AutoTokenizer.from_pretrained(source.path, **source.kwargs)
            model = model_class.from_pretrained(source.path, dtype=dtype, **options, **source.kwargs)
    except (OSError, ValueError, ImportError, KeyError) as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"Teacher {source.name!r} does not load as a {kind} model: {first_line}") from error
    return model, tokenizer
