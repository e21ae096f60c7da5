"""OpenAI-compatible servers of one model, asked as each is free; one that fails rests, and the others go on."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import httpx

from pdadapt.errors import ModelError

TRIES = 7  # 0.5 s, 1 s, ... 16 s: half a minute of patience with a server that is busy or restarts
LONGEST_REST = 60.0  # seconds
TIMEOUT = 120.0  # seconds: a small server may have sixteen questions waiting
AGAIN = (408, 429)  # and 5xx: asked again
REFUSED = (400, 413, 422)  # of a question: too long, or not to the server's liking
ADVICE = {
    401: "give the key in the environment, as PDADAPT_API_KEY",
    403: "give the key in the environment, as PDADAPT_API_KEY",
    404: "check the address, and the NAME after #",
}

Question = TypeVar("Question")
Answer = TypeVar("Answer")


@dataclass
class Server:
    url: str
    flying: int = 0  # requests
    failures: int = 0  # in a row
    rests_until: float = 0.0  # monotonic seconds
    problem: str = ""
    final: int = 0  # a status that will not change
    answered: bool = False  # so that a question it refuses is that question's fault


class Servers:
    """Where a model is served."""

    def __init__(self, urls: Sequence[str], concurrency: int, say: Callable[[str], None]):
        """concurrency: requests in flight to each; say: told when a server makes us wait."""
        self.servers = [Server(url) for url in urls]
        self.concurrency = concurrency
        self.say = say

    @property
    def at_once(self) -> int:
        """Requests that may be in flight: none are meant for a server that rests."""
        now = time.monotonic()
        return self.concurrency * max(1, sum(server.rests_until <= now for server in self.servers))

    def try_each(self, attempt: Callable[[Servers], None]) -> None:
        """Attempt something with each server by itself, and say which are away. Raises ModelError when it fails with
        one for another reason, or all are away.
        """
        away = []
        for server in self.servers:
            alone = Servers([server.url], self.concurrency, self.say)
            try:
                attempt(alone)
            except ModelError as error:
                if not alone.are_away():
                    raise
                away.append(str(error))
        if len(away) == len(self.servers):
            raise ModelError(" ".join(away))
        for problem in away:
            self.say(f"{problem} It goes on without that server.")

    def are_away(self) -> bool:
        """Whether all failed for the last time in a way that may change."""
        return all(server.failures >= TRIES and not server.final for server in self.servers)

    def client(self) -> httpx.AsyncClient:
        most = self.concurrency * len(self.servers)
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        return httpx.AsyncClient(timeout=TIMEOUT, limits=limits)

    async def post(self, client: httpx.AsyncClient, request: Mapping[str, Any]) -> tuple[Server, Any]:
        """The JSON answer of a server; of the next, or asked again ever later, when one is busy, fails, or is out of
        reach. None for an answer when a server, which answers other questions, refuses this one.

        Raises ModelError when all have failed TRIES times in a row, or say that they never will answer.
        """
        while True:
            server = await self._free()
            began = time.monotonic()
            server.flying += 1
            try:
                response = await client.post(
                    f"{server.url}/chat/completions", json=request, headers=authorization(server.url)
                )
            except (httpx.RequestError, UnicodeError) as error:  # of a host's name
                self._failed(server, began, type(error).__name__)
                continue
            finally:
                server.flying -= 1
            if response.status_code == 200:
                server.failures = 0
                return server, parse(response)
            if response.status_code in REFUSED and server.answered:
                return server, None
            problem = f"status {response.status_code}: {' '.join(response.text.split())[:200]}"
            # a refusal may be the question's fault, which shows when another one is answered
            others = response.status_code in REFUSED and any(other.flying for other in self.servers)
            again = response.status_code in AGAIN or response.status_code >= 500 or others
            self._failed(server, began, problem, retry_after(response), None if again else response.status_code)

    def ask_all(
        self,
        questions: Iterator[Question],
        ask: Callable[[httpx.AsyncClient, Question], Coroutine[Any, Any, Answer]],
    ) -> Iterator[list[tuple[Question, Answer]]]:
        """Ask as many questions at a time as the servers take; yield what has come back. Raises ModelError when they
        fail.

        The event loop runs while the answers are awaited, and is left with nothing in flight however this ends.
        """
        asked: dict[asyncio.Task[Answer], Question] = {}
        loop = asyncio.new_event_loop()
        client = self.client()
        try:
            while True:
                while len(asked) < self.at_once and (question := next(questions, None)) is not None:
                    asked[loop.create_task(ask(client, question))] = question
                if not asked:
                    return
                done, _ = loop.run_until_complete(asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED))
                yield [(asked.pop(task), task.result()) for task in done if task.exception() is None]
                for task in done:
                    task.result()  # raises what failed, once the answers beside it are kept
        finally:
            loop.run_until_complete(give_up(asked, client))
            loop.close()

    async def _free(self) -> Server:
        """The server with the least to do of those that do not rest; waits for one. Raises ModelError when none will
        answer.
        """
        while True:
            if all(server.failures >= TRIES for server in self.servers):
                problems = "; ".join(f"{server.url} did not answer ({server.problem})" for server in self.servers)
                advice = ADVICE.get(self.servers[0].final, "see to it")
                raise ModelError(f"{problems}; {advice}; what is labeled is kept: the same command goes on.")
            now = time.monotonic()
            ready = [server for server in self.servers if server.rests_until <= now]
            if ready:
                return min(ready, key=lambda server: server.flying)
            await asyncio.sleep(min(server.rests_until for server in self.servers) - now)

    def _failed(
        self, server: Server, began: float, problem: str, wanted: float = 0.0, final: int | None = None
    ) -> None:
        """Let the server rest, the longer the more often it has failed; what flew with a request that has failed, and
        fails too, is the same failure. wanted: seconds that it asks for; final: a status that will not change.
        """
        if began < server.rests_until and final is None:
            return
        server.failures = TRIES if final else server.failures + 1
        pause = min(max(0.5 * 2 ** min(server.failures - 1, TRIES), wanted), LONGEST_REST)
        server.rests_until = time.monotonic() + pause
        server.problem = problem
        server.final = final or 0
        if server.failures < TRIES:
            self.say(f"{server.url}: {problem}; asking again in {pause:.0f} s (try {server.failures + 1} of {TRIES})")
        elif server.failures == TRIES and len(self.servers) > 1:
            self.say(f"{server.url}: {problem}; tried again every {LONGEST_REST:.0f} s.")


async def give_up(asked: Collection[asyncio.Task[Any]], client: httpx.AsyncClient) -> None:
    """Leave nothing in flight."""
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    await client.aclose()


def parse(response: httpx.Response) -> Any:
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise ModelError(
            f"{response.url} answered with something else than JSON ({response.text[:80]!r}); give the address of an "
            "OpenAI-compatible server."
        ) from None


def authorization(url: str) -> dict[str, str]:
    """The header with the key, if there is one in the environment; OpenAI's own key goes to OpenAI alone."""
    names = ["PDADAPT_API_KEY"] + ["OPENAI_API_KEY"] * (urlsplit(url).hostname == "api.openai.com")
    key = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return {"Authorization": f"Bearer {key}"} if key else {}


def retry_after(response: httpx.Response) -> float:
    """Seconds that the server asks to wait; 0 when it does not say."""
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
