"""LLMs that write queries: the teachers' models, prompts and servers, but what they say is sampled and not scored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import httpx
import torch

from pdadapt.data.corpus import Document
from pdadapt.errors import ModelError, RecipeError
from pdadapt.generation.filters import CUT
from pdadapt.generation.mix import KINDS
from pdadapt.generation.sampling import Sampler
from pdadapt.models.device import default_device
from pdadapt.models.memory import TokenBudget
from pdadapt.models.source import resolve_model, translate_errors
from pdadapt.settings.prompt import WRITING_FIELDS, Prompt, load_prompt
from pdadapt.settings.schema import GenerateSettings, ModelSettings, QueryKind, Recipe
from pdadapt.teachers.chat import chat_format
from pdadapt.teachers.endpoint import fit_prompt, served_model, server_urls
from pdadapt.teachers.kind import LANGUAGE_MODELS, check_architecture, teacher_kind
from pdadapt.teachers.language_model import gpu_batch_tokens, load_language_model, load_tokenizer, pad
from pdadapt.teachers.prompting import PromptEncoder
from pdadapt.teachers.servers import Servers
from pdadapt.teachers.turns import NO_TURNS

THINK = "<think>"
CPU_BUDGET = 8_192  # tokens at once, with those to be written: many are written in a step


class Asked(NamedTuple):
    """A query of this kind is wanted about the document."""

    number: int
    kind: QueryKind
    document: Document


Answers = list[tuple[Asked, str]]


class Writer(Protocol):
    def write(self, asked: Sequence[Asked]) -> Iterator[Answers]:
        """Yield what the model says, batch by batch, with CUT after what it did not bring to an end; the same whoever
        asks and when, with what was answered before left out (in bfloat16 as rounding has it, which differs a little
        with what else is in a batch).
        """


def writer_model(recipe: Recipe) -> ModelSettings:
    """Which model writes, and how it is loaded: generate.model, else teacher.model, by the teacher's settings."""
    shared = recipe.teacher.model_dump(include=set(ModelSettings.model_fields))
    if recipe.generate.model:
        shared |= {"model": recipe.generate.model, "kind": "auto", "endpoints": ()}
    return ModelSettings.model_validate(shared)


def writer_identity(recipe: Recipe) -> dict[str, Any]:
    """What answers depend on besides prompts and sampling. Raises RecipeError or ModelError when it is not there."""
    model = writer_model(recipe)
    read = model.model_dump(mode="json", include={"dtype", "quantize", "max_length", "max_document_length"})
    served = teacher_kind(model) == "endpoint"
    return {"model": served_model(model.model) if served else resolve_model(model.model).identity(), **read}


def writing_prompts(generate: GenerateSettings) -> dict[QueryKind, Prompt]:
    """Of each kind its own, or prompts/query-KIND.txt. Raises RecipeError when one is not there, or is no good."""
    return {kind: load_prompt(generate.prompts.get(kind, f"query-{kind}"), WRITING_FIELDS) for kind in KINDS}


def check_writer(recipe: Recipe) -> None:
    """Find before any work what would stop the writer; weights are not loaded, a server is asked for one word.

    Raises ModelError or RecipeError.
    """
    model = writer_model(recipe)
    kind = teacher_kind(model)
    if kind not in (*LANGUAGE_MODELS, "endpoint"):
        raise RecipeError(
            f"{model.model!r} is no LLM that could write queries ({kind}); name one with --set generate.model=NAME, or "
            "bring queries to `pdadapt adapt` with --queries FILE."
        )
    if kind == "endpoint":
        whole = ServedWriter(model, recipe.generate.model_copy(update={"max_tokens": 1}), recipe.seed)

        def attempt(server: Servers) -> None:
            whole.servers = server
            list(whole.write([Asked(0, KINDS[0], Document("", "", ""))]))

        whole.servers.try_each(attempt)
        return
    check_architecture(model, kind)
    tokenizer = load_tokenizer(model.model)
    with translate_errors(f"Model {model.model!r} cannot be asked"):  # its chat template may be no good
        for encode in encoders(tokenizer, kind, model, recipe.generate).values():
            encode.check_queries([""])
            encode.check()


def load_writer(recipe: Recipe, say: Callable[[str], None] = lambda text: None) -> Writer:
    """say: told when a server makes us wait. Raises ModelError when the model does not load."""
    model = writer_model(recipe)
    if teacher_kind(model) == "endpoint":
        return ServedWriter(model, recipe.generate, recipe.seed, say)
    return LocalWriter(model, recipe.generate, recipe.seed)


def encoders(
    tokenizer: Any, kind: str, settings: ModelSettings, generate: GenerateSettings
) -> dict[QueryKind, PromptEncoder]:
    chat = chat_format(tokenizer) if kind == "causal" and tokenizer.chat_template else None
    lengths = settings.max_length, settings.max_document_length
    turns = chat.turns if chat else NO_TURNS
    reserve = generate.max_tokens if kind == "causal" else 0  # what it writes stands after the prompt
    return {
        name: PromptEncoder(tokenizer, prompt, *lengths, chat or str, chat is None, reserve, turns)
        for name, prompt in writing_prompts(generate).items()
    }


def seed_of(*parts: object) -> int:
    """31 bits, which every generator and server takes."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little") >> 1


class LocalWriter:
    """A seq2seq or causal model in this process."""

    def __init__(self, settings: ModelSettings, generate: GenerateSettings, seed: int):
        """Raises ModelError when the model does not load."""
        self.kind = teacher_kind(settings)
        self.model, self.tokenizer = load_language_model(settings, self.kind, default_device())
        self.encoders = encoders(self.tokenizer, self.kind, settings, generate)
        self.generate = generate
        self.seed = seed
        tokens = gpu_batch_tokens(self.model) if self.model.device.type == "cuda" else CPU_BUDGET
        self.budget = TokenBudget(f"writer {settings.model}", settings.batch_tokens or tokens)

    def write(self, asked: Sequence[Asked]) -> Iterator[Answers]:
        """In batches of like length, the longest prompts first; each answer's seed follows from its prompt."""
        prompts = {one.number: self.encoders[one.kind]([{"document": one.document.contents}])[0] for one in asked}
        ordered = sorted(asked, key=lambda one: (-len(prompts[one.number]), one.number))
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
        seeds = [seed_of(self.seed, prompt) for prompt in prompts]
        sampler = [Sampler(settings.temperature, settings.top_p, seeds, device)] if settings.temperature else []
        output = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=settings.max_tokens,
            pad_token_id=self.tokenizer.pad_token_id or self.tokenizer.eos_token_id or 0,
            do_sample=False,
            forced_eos_token_id=None,  # BART's
            num_beams=1,
            logits_processor=sampler,
        )
        begun = ids.shape[1] if self.kind == "causal" else 1  # with the prompt, or what a decoder begins with
        written = output[:, begun:]
        texts = self.tokenizer.batch_decode(written, skip_special_tokens=True)
        ends = self.model.generation_config.eos_token_id
        ended = torch.isin(written, torch.tensor(ends if ends is not None else [], device=device)).any(1).tolist()
        thinks = self.tokenizer.decode(prompts[0][-8:]).rstrip().endswith(THINK)  # as some chat templates begin
        return [THINK * thinks + text + CUT * (not whole) for text, whole in zip(texts, ended, strict=True)]


class ServedWriter:
    """A model behind OpenAI-compatible servers."""

    def __init__(
        self,
        settings: ModelSettings,
        generate: GenerateSettings,
        seed: int,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Raises RecipeError when the model's name is wrong."""
        self.name = served_model(settings.model)
        self.servers = Servers(server_urls(settings), settings.concurrency, say)
        self.prompts = writing_prompts(generate)
        self.settings = settings
        self.generate = generate
        self.seed = seed

    def write(self, asked: Sequence[Asked]) -> Iterator[Answers]:
        """As the servers answer; each answer's seed follows from its prompt, and no answer is an empty one."""

        def ask(client: httpx.AsyncClient, one: Asked) -> Coroutine[Any, Any, str]:
            lengths = self.settings.max_length, self.settings.max_document_length
            return self._ask(client, fit_prompt(self.prompts[one.kind], {"document": one.document.contents}, *lengths))

        yield from self.servers.ask_all(iter(asked), ask)

    async def _ask(self, client: httpx.AsyncClient, text: str) -> str:
        request = {
            "model": self.name,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": self.generate.max_tokens,
            "temperature": self.generate.temperature,
            "top_p": self.generate.top_p,
            "seed": seed_of(self.seed, text),
        }
        server, answer = await self.servers.post(client, request)
        if answer is None:
            return ""
        try:
            choice = answer["choices"][0]
            content = choice["message"]["content"]
        except (KeyError, IndexError, TypeError):
            raise ModelError(
                f"{server.url} answered without a message; give the address of an OpenAI-compatible server."
            ) from None
        server.answered = True
        text = str(content or "").encode(errors="ignore").decode()  # half an emoji, cut off, is no text
        return text + CUT * (choice.get("finish_reason") == "length")
