"""LLMs that write queries. They use the same models, prompts and servers as teachers, but their answers are sampled."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import httpx
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from pdadapt.data.corpus import Document
from pdadapt.errors import ModelError, RecipeError
from pdadapt.generation.filters import CUT_MARK
from pdadapt.generation.kinds import KINDS
from pdadapt.models.device import default_device
from pdadapt.models.source import resolve_model, translate_errors
from pdadapt.models.token_budget import TokenBudget
from pdadapt.settings.prompt import WRITING_FIELDS, Prompt, load_prompt
from pdadapt.settings.schema import GenerateSettings, ModelSettings, QueryKind, Recipe
from pdadapt.teachers.chat import chat_format
from pdadapt.teachers.endpoint import fit_prompt, served_model, server_urls
from pdadapt.teachers.kind import LANGUAGE_MODELS, check_architecture, teacher_kind
from pdadapt.teachers.language_model import gpu_batch_tokens, load_language_model, load_tokenizer, pad
from pdadapt.teachers.prompting import PromptEncoder
from pdadapt.teachers.servers import Servers
from pdadapt.teachers.turns import NO_TURNS

THOUGHT_START = "<think>"
WRITER_CPU_TOKENS = 8_192  # tokens of prompts and answers per batch; a step writes one token of every answer


class QueryRequest(NamedTuple):
    """A request for a query of this kind about the document."""

    number: int
    kind: QueryKind
    document: Document


WrittenAnswers = list[tuple[QueryRequest, str]]


class Writer(Protocol):
    """Answers requests with texts."""

    def write(self, requests: Sequence[QueryRequest]) -> Iterator[WrittenAnswers]:
        """Yield the answers batch by batch. CUT_MARK follows an answer that was cut off.

        An answer depends on its request only, so it stays the same if other requests were answered earlier. In bfloat16
        the rest of the batch changes the rounding a little.
        """


class Sampler:
    """A logits processor that makes the likeliest token a sample from the softmax.

    It adds Gumbel noise (Maddison et al. 2014). Each row has its own generator, so its tokens do not depend on the
    rest of the batch. The global random state is not used.
    """

    def __init__(self, temperature: float, top_p: float, seeds: Sequence[int], device: torch.device):
        """seeds: one for each row of the batch."""
        self.warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature), TopPLogitsWarper(top_p)])
        self.generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, ids: torch.LongTensor, logits: torch.Tensor) -> torch.Tensor:
        """Return noisy logits (B, V) for the next tokens, given ids (B, T) and logits (B, V)."""
        warped = self.warpers(ids, logits.float())
        waits = torch.empty_like(warped)  # exponentially distributed: the negative logarithms are Gumbel noise
        for row, generator in zip(waits, self.generators, strict=True):
            row.exponential_(generator=generator)
        return warped - waits.clamp(min=torch.finfo(waits.dtype).tiny).log()


def writer_model(recipe: Recipe) -> ModelSettings:
    """Return the model that writes: generate.model, else teacher.model. It is loaded with the teacher's settings."""
    settings = recipe.teacher.model_dump(include=set(ModelSettings.model_fields))
    if recipe.generate.model:
        settings |= {"model": recipe.generate.model, "kind": "auto", "endpoints": ()}
    return ModelSettings.model_validate(settings)


def writer_identity(recipe: Recipe) -> dict[str, Any]:
    """Return what the answers depend on besides prompts and sampling.

    Raises RecipeError or ModelError if the model is missing.
    """
    model = writer_model(recipe)
    settings = model.model_dump(mode="json", include={"dtype", "quantize", "max_length", "max_document_length"})
    served = teacher_kind(model) == "endpoint"
    return {"model": served_model(model.model) if served else resolve_model(model.model).identity(), **settings}


def writing_prompts(generate: GenerateSettings) -> dict[QueryKind, Prompt]:
    """Return each kind's prompt: generate.prompts[KIND], or else prompts/query-KIND.txt.

    Raises RecipeError if a prompt is missing or wrong.
    """
    return {kind: load_prompt(generate.prompts.get(kind, f"query-{kind}"), WRITING_FIELDS) for kind in KINDS}


def check_writer(recipe: Recipe) -> None:
    """Find before any work what would stop the writer. Loads no weights. A server is asked for one token.

    Raises ModelError or RecipeError.
    """
    model = writer_model(recipe)
    kind = teacher_kind(model)
    if kind not in (*LANGUAGE_MODELS, "endpoint"):
        raise RecipeError(
            f"{model.model!r} cannot write queries, since it is not an LLM (kind: {kind}). Name an LLM with --set "
            "generate.model=NAME, or give queries to `pdadapt adapt` with --queries FILE."
        )
    if kind == "endpoint":
        writer = ServedWriter(model, recipe.generate.model_copy(update={"max_tokens": 1}), recipe.seed)

        def attempt(server: Servers) -> None:
            writer.servers = server
            list(writer.write([QueryRequest(0, KINDS[0], Document("", "", ""))]))

        writer.servers.try_each(attempt)
        return
    check_architecture(model, kind)
    tokenizer = load_tokenizer(model.model)
    with translate_errors(f"Model {model.model!r} cannot be asked"):  # its chat template may be wrong
        for encode in prompt_encoders(tokenizer, kind, model, recipe.generate).values():
            encode.check_queries([""])
            encode.check()


def load_writer(recipe: Recipe, say: Callable[[str], None] = lambda text: None) -> Writer:
    """Return the writer of a recipe.

    say: called with a message when a server has to be waited for. Raises ModelError if the model cannot be loaded.
    """
    model = writer_model(recipe)
    if teacher_kind(model) == "endpoint":
        return ServedWriter(model, recipe.generate, recipe.seed, say)
    return LocalWriter(model, recipe.generate, recipe.seed)


def prompt_encoders(
    tokenizer: Any, kind: str, settings: ModelSettings, generate: GenerateSettings
) -> dict[QueryKind, PromptEncoder]:
    """Return an encoder for each kind's prompt."""
    chat = chat_format(tokenizer) if kind == "causal" and tokenizer.chat_template else None
    lengths = settings.max_length, settings.max_document_length
    turns = chat.turns if chat else NO_TURNS
    reserve = generate.max_tokens if kind == "causal" else 0  # a causal model's answer follows the prompt
    return {
        name: PromptEncoder(tokenizer, prompt, *lengths, chat or str, chat is None, reserve, turns)
        for name, prompt in writing_prompts(generate).items()
    }


def seed_for(*parts: object) -> int:
    """Return a seed of 31 bits made from the parts. Every generator and server accepts it."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little") >> 1


class LocalWriter:
    """A writer with a seq2seq or causal model in this process."""

    def __init__(self, settings: ModelSettings, generate: GenerateSettings, seed: int):
        """Load the model. Raises ModelError if it cannot be loaded."""
        self.kind = teacher_kind(settings)
        self.model, self.tokenizer = load_language_model(settings, self.kind, default_device())
        self.encoders = prompt_encoders(self.tokenizer, self.kind, settings, generate)
        self.generate = generate
        self.seed = seed
        tokens = gpu_batch_tokens(self.model) if self.model.device.type == "cuda" else WRITER_CPU_TOKENS
        self.budget = TokenBudget(f"writer {settings.model}", settings.batch_tokens or tokens)

    def write(self, requests: Sequence[QueryRequest]) -> Iterator[WrittenAnswers]:
        """See Writer. The longest prompts come first. Each answer has a seed made from its prompt."""
        prompts = {one.number: self.encoders[one.kind]([{"document": one.document.contents}])[0] for one in requests}
        ordered = sorted(requests, key=lambda one: (-len(prompts[one.number]), one.number))
        costs = [len(prompts[one.number]) + self.generate.max_tokens for one in ordered]

        def sample(batch: range) -> list[str]:
            return self._sample([prompts[ordered[i].number] for i in batch])

        for batch, texts in self.budget.batches(costs, sample, padded=True):
            yield [(ordered[i], text) for i, text in zip(batch, texts, strict=True)]

    @torch.inference_mode()
    def _sample(self, prompts: list[list[int]]) -> list[str]:
        device = self.model.device
        ids, mask = pad(prompts, "left" if self.kind == "causal" else "right", device)
        settings = self.generate
        seeds = [seed_for(self.seed, prompt) for prompt in prompts]
        sampler = [Sampler(settings.temperature, settings.top_p, seeds, device)] if settings.temperature else []
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_tokens,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            do_sample=False,
            forced_eos_token_id=None,  # BART sets one
            num_beams=1,
            logits_processor=sampler,
        )
        start = ids.shape[1] if self.kind == "causal" else 1  # after the prompt, or after the decoder's start token
        written = output[:, start:]
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        ends = self.model.generation_config.eos_token_id
        ended = torch.isin(written, torch.tensor(ends if ends is not None else [], device=device)).any(1).tolist()
        # Some chat templates begin the answer with a thought.
        start_text = THOUGHT_START if self.tokenizer.decode(prompts[0][-8:]).rstrip().endswith(THOUGHT_START) else ""
        return [start_text + text + ("" if done else CUT_MARK) for text, done in zip(texts, ended, strict=True)]


class ServedWriter:
    """A writer whose model runs behind OpenAI-compatible servers."""

    def __init__(
        self,
        settings: ModelSettings,
        generate: GenerateSettings,
        seed: int,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Load the prompts. No server is asked.

        say: called with a message when a server has to be waited for. Raises RecipeError if the model's name is wrong.
        """
        self.name = served_model(settings.model)
        self.servers = Servers(server_urls(settings), settings.concurrency, say)
        self.prompts = writing_prompts(generate)
        self.settings = settings
        self.generate = generate
        self.seed = seed

    def write(self, requests: Sequence[QueryRequest]) -> Iterator[WrittenAnswers]:
        """See Writer. Answers come in the order in which the servers give them. A refused request has an empty answer.

        Each answer has a seed made from its prompt.
        """

        def ask(client: httpx.AsyncClient, one: QueryRequest) -> Coroutine[Any, Any, str]:
            lengths = self.settings.max_length, self.settings.max_document_length
            return self._ask(client, fit_prompt(self.prompts[one.kind], {"document": one.document.contents}, *lengths))

        yield from self.servers.ask_all(iter(requests), ask)

    async def _ask(self, client: httpx.AsyncClient, text: str) -> str:
        request = {
            "model": self.name,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.generate.max_tokens,
            "temperature": self.generate.temperature,
            "top_p": self.generate.top_p,
            "seed": seed_for(self.seed, text),
        }
        server, answer = await self.servers.post(client, request)
        if answer is None:
            return ""
        try:
            choice = answer["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ModelError(
                f"{server.url} answered without a message. Give the URL of an OpenAI-compatible server."
            ) from None
        server.answered = True
        text = str(content or "").encode(errors="ignore").decode()  # drops half an emoji
        return text + CUT_MARK * (choice.get("finish_reason") == "length")
