"""A teacher behind an OpenAI-compatible server (vLLM, llama.cpp's server, a hosted API).

Named `http://HOST/v1#NAME`; the same model may be served elsewhere too (`endpoints`). Each question is one chat
completion of one token; the score is the log-odds of the label words among its `top_logprobs`. A server that does not
list both words gives no score: nothing is invented. Its tokenizer is not at hand, so a token is taken for four bytes of
UTF-8 when documents are cut, and whatever looks like a control token is broken. A server on which the model thinks
before it answers is of no use, and the first answer shows it.
The key comes from the environment (PDADAPT_API_KEY, or OPENAI_API_KEY for api.openai.com) and is written nowhere.
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
from pdadapt.teachers.base import Chunk, Pair, Point, Scores, answers
from pdadapt.teachers.chat import begins_thought
from pdadapt.teachers.control import without_markup
from pdadapt.teachers.prompting import DOCUMENT_FIELDS, SMALLEST_CUT, no_room, share
from pdadapt.teachers.servers import Servers

LAST_PORT = 65_535
TOKEN_BYTES = 4
TOP = 20  # the most that OpenAI's API lists
UNLIKELY = -9_999.0  # what OpenAI's API writes for a token that is not among them
WORD_MARKS = " \n\tĠ▁"  # how tokenizers write the space before a word


def served_model(name: str) -> str:
    """The model behind `http://HOST/v1#NAME`. Raises RecipeError when the name lacks, or the URL holds a password."""
    try:
        url, model = httpx.URL(name), urldefrag(name).fragment
    except (httpx.InvalidURL, ValueError) as error:
        raise RecipeError(f"{name!r} is no address ({reason(error)}); write http://HOST:PORT/v1#NAME.") from None
    if url.scheme not in ("http", "https") or not url.host or (url.port or 0) > LAST_PORT or not model:
        raise RecipeError(
            f"{name!r} is no served model; write http://HOST:PORT/v1#NAME, NAME being the model that the server offers."
        )
    if url.userinfo or url.query:
        raise RecipeError("A server's URL must hold no user, password or query; give the key as PDADAPT_API_KEY.")
    return model


def addresses(settings: ModelSettings) -> list[str]:
    """Where a model is served. Raises RecipeError when an endpoint is no address, or names another model."""
    name = served_model(settings.model)
    found = [urldefrag(settings.model).url]
    for endpoint in settings.endpoints:
        url, other = urldefrag(endpoint)
        if served_model(f"{url}#{other or name}") != name:
            raise RecipeError(
                f"Endpoint {endpoint!r} serves another model than {settings.model!r}; give the same #NAME."
            )
        found.append(url)
    return list(dict.fromkeys(url.rstrip("/") for url in found))


class EndpointTeacher:
    def __init__(
        self,
        settings: ModelSettings,
        point: PointSettings | None,
        pair: PairSettings | None,
        say: Callable[[str], None] = lambda text: None,
    ):
        """say: told when the server makes us wait. Raises RecipeError when the model's name or a prompt is wrong."""
        self.name = served_model(settings.model)
        self.servers = Servers(addresses(settings), settings.concurrency, say)
        self.point_prompt = load_prompt(point.prompt, POINT_FIELDS) if point else None
        self.pair_prompt = load_prompt(pair.prompt, PAIR_FIELDS) if pair else None
        self.point_labels = point.labels if point else None
        self.pair_labels = pair.labels if pair else None
        self.max_length, self.max_document_length = settings.max_length, settings.max_document_length

    def check(self, queries: Collection[str]) -> None:
        """Ask each server the longest query with an empty document. Raises ModelError when one cannot serve as a
        teacher, or all are out of reach.
        """
        longest = max(queries, key=len, default="")
        every = self.servers

        def attempt(server: Servers) -> None:
            self.servers = server
            if self.point_prompt:
                answers(self.score_points, [Point(longest, "")])
            else:
                answers(self.score_pairs, [Pair(longest, "", "")])

        every.try_each(attempt)
        self.servers = every

    def score_points(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        yield from self._score(chunks, self.point_prompt, self.point_labels)

    def score_pairs(self, chunks: Iterable[Chunk]) -> Iterator[Scores]:
        yield from self._score(chunks, self.pair_prompt, self.pair_labels)

    def _score(
        self, chunks: Iterable[Chunk], prompt: Prompt | None, labels: tuple[str, str] | None
    ) -> Iterator[Scores]:
        assert prompt is not None and labels is not None
        waiting = (question for chunk in chunks for question in chunk.asked)

        def ask(client: httpx.AsyncClient, question: Any) -> Coroutine[Any, Any, float | None]:
            text = fit(prompt, question._asdict(), self.max_length, self.max_document_length)
            return self._ask(client, text, labels)

        yield from self.servers.ask_all(waiting, ask)

    async def _ask(self, client: httpx.AsyncClient, text: str, labels: tuple[str, str]) -> float | None:
        """Log-odds of the first label; None when the server does not list both."""
        request = {
            "model": self.name,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": TOP,
        }
        server, answer = await self.servers.post(client, request)
        if answer is None:
            return None
        try:
            listed = answer["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            found = [
                (entry["token"].strip(WORD_MARKS), float(entry["logprob"]))
                for entry in listed
                if entry["logprob"] is not None
            ]
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            raise ModelError(
                f"{server.url} answered without `top_logprobs`, from which the label words' probabilities are read; "
                "use a server that gives them (vLLM, llama.cpp's server, OpenAI)."
            ) from None
        if not server.answered and thinks(answer["choices"][0], found):
            raise ModelError(
                f"{self.name} thinks before it answers at {server.url}, so the first token of its answer is no label "
                "word. Turn its thinking off on the server (vLLM: --default-chat-template-kwargs "
                "'{\"enable_thinking\": false}'; llama.cpp: --reasoning-budget 0), or give another model."
            )
        server.answered = True
        first, second = ([log_p for word, log_p in found if word == label and log_p > UNLIKELY] for label in labels)
        return log_sum(first) - log_sum(second) if first and second else None


def fit(prompt: Prompt, values: Mapping[str, str], max_length: int, max_document_length: int | None) -> str:
    """The prompt with its documents cut evenly to some `max_length` tokens; query and instruction are always whole.

    No text in it looks like a control token. Raises RecipeError when a query leaves no room for the documents.
    """
    values = {field: without_markup(text) for field, text in values.items()}
    documents = {field: text for field, text in values.items() if field in DOCUMENT_FIELDS}
    frame = prompt.render({**values, **dict.fromkeys(documents, "")})
    room = max_length - -(-len(frame.encode()) // TOKEN_BYTES)
    if room < SMALLEST_CUT * len(documents):
        raise no_room(max_length, max_length - room, len(documents), "some ")
    lengths = {field: -(-len(text.encode()) // TOKEN_BYTES) for field, text in documents.items()}
    if max_document_length is not None:
        lengths = {field: min(length, max_document_length) for field, length in lengths.items()}
    cut = {
        field: documents[field].encode()[: TOKEN_BYTES * keep].decode(errors="ignore")
        for field, keep in share(lengths, room).items()
    }
    return prompt.render({**values, **cut})


def thinks(choice: Mapping[str, Any], listed: Sequence[tuple[str, float]]) -> bool:
    """Whether an answer's only token begins a thought, or is one's that the server keeps apart.

    listed: the tokens that it could have been, with their log-probabilities.
    """
    message = choice.get("message")
    apart = isinstance(message, dict) and (message.get("reasoning_content") or message.get("reasoning"))
    likeliest = max(listed, key=lambda one: one[1], default=("", 0.0))[0]
    return bool(apart) or begins_thought(likeliest)


def log_sum(log_p: Sequence[float]) -> float:
    """log of the summed probabilities: `Yes` and ` Yes` are one answer."""
    highest = max(log_p)
    return highest + math.log(sum(math.exp(value - highest) for value in log_p))
