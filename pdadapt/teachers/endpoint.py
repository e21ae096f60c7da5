"""A teacher behind an OpenAI-compatible server (vLLM, llama.cpp's server, a hosted API).

Its name is `http://HOST/v1#NAME`. The setting `endpoints` lists more servers of the same model. Each question is one
chat completion of one token, and the score is the log-odds of the label words among its `top_logprobs`. If the server
does not list both label words, the question has no score.

The server's tokenizer is not known. Documents are therefore cut as if a token were four bytes of UTF-8, and everything
that looks like a control token is broken up. A model that thinks before it answers cannot be used. The first answer
shows whether it does.

The API key is read from the environment (PDADAPT_API_KEY, or OPENAI_API_KEY for api.openai.com) and is never written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urldefrag

import httpx

from pdadapt.errors import ModelError, RecipeError, reason
from pdadapt.settings.prompt import PAIR_FIELDS, POINT_FIELDS, Prompt, load_prompt
from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings
from pdadapt.teachers.base import Chunk, Pair, Point, Scores, scores_in_order
from pdadapt.teachers.chat import begins_thought
from pdadapt.teachers.control import without_markup
from pdadapt.teachers.prompting import DOCUMENT_FIELDS, MIN_DOCUMENT_TOKENS, no_room, share_tokens
from pdadapt.teachers.servers import Servers

HIGHEST_PORT = 65_535
TOKEN_BYTES = 4
TOP_LOGPROBS = 20  # the maximum of OpenAI's API
UNLISTED_LOG_P = -9_999.0  # OpenAI's API writes this for a token that is not among the likeliest
SPACE_MARKS = " \n\tĠ▁"  # tokenizers write the space before a word in these ways


def served_model(name: str) -> str:
    """Return NAME of `http://HOST/v1#NAME`. Raises RecipeError if the name is missing or the URL holds a password."""
    try:
        url, model = httpx.URL(name), urldefrag(name).fragment
    except (httpx.InvalidURL, ValueError) as error:
        raise RecipeError(f"{name!r} is not a URL ({reason(error)}). Write http://HOST:PORT/v1#NAME.") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > HIGHEST_PORT or not model:
        raise RecipeError(
            f"{name!r} does not name a served model. Write http://HOST:PORT/v1#NAME, where NAME is a model that the "
            "server offers."
        )
    if url.userinfo or url.query:
        raise RecipeError(
            "The URL of a server must not contain a user, a password or a query. Set the environment variable "
            "PDADAPT_API_KEY to the API key."
        )
    return model


def server_urls(settings: ModelSettings) -> list[str]:
    """Return the URLs of all servers of a model. Raises RecipeError if one is not a URL or names another model."""
    name = served_model(settings.model)
    urls = [urldefrag(settings.model).url]
    for endpoint in settings.endpoints:
        url, other = urldefrag(endpoint)
        if served_model(f"{url}#{other or name}") != name:
            raise RecipeError(
                f"Endpoint {endpoint!r} names another model than {settings.model!r}. Give the same #NAME."
            )
        urls.append(url)
    return list(dict.fromkeys(url.rstrip("/") for url in urls))


class EndpointTeacher:
    """A teacher for points and pairs, asked by HTTP."""

    def __init__(
        self,
        settings: ModelSettings,
        point: PointSettings | None,
        pair: PairSettings | None,
        say: Callable[[str], None] = lambda text: None,
    ):
        """Load the prompts of the tasks whose settings are given. No server is asked.

        say: called with a message when a server has to be waited for.
        Raises RecipeError if the model's name or a prompt is wrong.
        """
        self.name = served_model(settings.model)
        self.servers = Servers(server_urls(settings), settings.concurrency, say)
        self.point_prompt = load_prompt(point.prompt, POINT_FIELDS) if point else None
        self.pair_prompt = load_prompt(pair.prompt, PAIR_FIELDS) if pair else None
        self.point_labels = point.labels if point else None
        self.pair_labels = pair.labels if pair else None
        self.max_length, self.max_document_length = settings.max_length, settings.max_document_length

    def check(self, queries: Collection[str]) -> None:
        """Ask each server about the longest query and an empty document.

        Raises ModelError if a server's answers cannot be used, or if no server can be reached.
        """
        longest = max(queries, key=len, default="")
        all_servers = self.servers

        def attempt(server: Servers) -> None:
            self.servers = server
            if self.point_prompt:
                scores_in_order(self.score_points, [Point(longest, "")])
            else:
                scores_in_order(self.score_pairs, [Pair(longest, "", "")])

        all_servers.try_each(attempt)
        self.servers = all_servers

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the log-odds of the label words. Raises ModelError if the servers fail."""
        yield from self._score(chunks, self.point_prompt, self.point_labels)

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        """Yield the log-odds of the label words. Raises ModelError if the servers fail."""
        yield from self._score(chunks, self.pair_prompt, self.pair_labels)

    def _score(
        self, chunks: Iterable[Chunk], prompt: Prompt | None, labels: tuple[str, str] | None
    ) -> Iterator[Scores]:
        assert prompt is not None and labels is not None
        waiting = (question for chunk in chunks for question in chunk.asked)

        def ask(client: httpx.AsyncClient, question: Any) -> Coroutine[Any, Any, float | None]:
            text = fit_prompt(prompt, question._asdict(), self.max_length, self.max_document_length)
            return self._ask(client, text, labels)

        yield from self.servers.ask_all(waiting, ask)

    async def _ask(self, client: httpx.AsyncClient, text: str, labels: tuple[str, str]) -> float | None:
        """Return the log-odds of the first label word, or None if the server does not list both label words."""
        request = {
            "model": self.name,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP_LOGPROBS,
        }
        server, answer = await self.servers.post(client, request)
        if answer is None:
            return None
        try:
            entries = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            listed = [
                (entry["token"].strip(SPACE_MARKS), float(entry["logprob"]))
                for entry in entries
                if entry["logprob"] is not None
            ]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise ModelError(
                f"{server.url} answered without `top_logprobs`, which hold the probabilities of the label words. Use a "
                "server that returns them (vLLM, llama.cpp's server, OpenAI)."
            ) from None
        if not server.answered and thinks(answer["choices"][0], listed):
            raise ModelError(
                f"{self.name} thinks before it answers at {server.url}, so the first token of its answer is not a "
                "label word. Turn off thinking on the server (vLLM: --default-chat-template-kwargs "
                "'{\"enable_thinking\": false}'; llama.cpp: --reasoning-budget 0), or use another model."
            )
        server.answered = True
        first, second = (
            [log_p for word, log_p in listed if word == label and log_p > UNLISTED_LOG_P] for label in labels
        )
        return log_sum(first) - log_sum(second) if first and second else None


def fit_prompt(prompt: Prompt, values: Mapping[str, str], max_length: int, max_document_length: int | None) -> str:
    """Return the filled prompt with its documents cut evenly to about `max_length` tokens.

    The query and the instruction are never cut. Texts that look like control tokens are broken up. Raises RecipeError
    if a query leaves no room for the documents.
    """
    values = {field: without_markup(text) for field, text in values.items()}
    documents = {field: text for field, text in values.items() if field in DOCUMENT_FIELDS}
    frame = prompt.render({**values, **dict.fromkeys(documents, "")})
    room = max_length - -(-len(frame.encode()) // TOKEN_BYTES)
    if room < MIN_DOCUMENT_TOKENS * len(documents):
        raise no_room(max_length, max_length - room, len(documents), "some ")
    lengths = {field: -(-len(text.encode()) // TOKEN_BYTES) for field, text in documents.items()}
    if max_document_length is not None:
        lengths = {field: min(length, max_document_length) for field, length in lengths.items()}
    cut = {
        field: documents[field].encode()[: TOKEN_BYTES * keep].decode(errors="ignore")
        for field, keep in share_tokens(lengths, room).items()
    }
    return prompt.render({**values, **cut})


def thinks(choice: Mapping[str, Any], listed: Sequence[tuple[str, float]]) -> bool:
    """Whether the model thinks: its first token begins a thought, or the server returns a thought in its own field.

    listed: the likeliest first tokens with their log-probabilities.
    """
    message = choice.get("message")
    reasoning = isinstance(message, dict) and (message.get("reasoning_content") or message.get("reasoning"))
    likeliest = max(listed, key=lambda entry: entry[1], default=("", 0.0))[0]
    return bool(reasoning) or begins_thought(likeliest)


def log_sum(log_p: Sequence[float]) -> float:
    """Return the log of the summed probabilities. It adds up `Yes` and ` Yes`, which are the same answer."""
    highest = max(log_p)
    return highest + math.log(sum(math.exp(value - highest) for value in log_p))
