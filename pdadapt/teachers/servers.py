"""OpenAI-compatible servers of one model. A request goes to the server with the least to do.

A server that fails is paused, and the others continue.
"""

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

TRIES = 7  # with pauses of 0.5 s, 1 s, ... 16 s: half a minute for a server that is busy or restarts
MAX_PAUSE = 60.0  # seconds
TIMEOUT = 120.0  # seconds: a small server may have sixteen requests in its queue
RETRY_STATUSES = (408, 429)  # as well as 5xx
REFUSAL_STATUSES = (400, 413, 422)  # the server refuses this question, for example because it is too long
STATUS_ADVICE = {
    401: "Set the environment variable PDADAPT_API_KEY to the API key.",
    403: "Set the environment variable PDADAPT_API_KEY to the API key.",
    404: "Check the URL and the NAME after #.",
}
DEFAULT_ADVICE = "Check that the URL is right and that the server runs."

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass
class Server:
    """The state of one server."""

    url: str
    in_flight: int = 0  # requests
    failures: int = 0  # in a row
    paused_until: float = 0.0  # monotonic seconds
    problem: str = ""  # of the last failure
    final_status: int = 0  # a status that trying again will not change; 0 means none
    answered: bool = False  # true after the first answer: a refusal is then the question's fault


class Servers:
    """All servers of a model."""

    def __init__(self, urls: Sequence[str], concurrency: int, say: Callable[[str], None]):
        """Send no request yet.

        concurrency: requests in flight to each server.
        say: called with a message when a server has to be waited for.
        """
        self.servers = [Server(url) for url in urls]
        self.concurrency = concurrency
        self.say = say

    @property
    def at_once(self) -> int:
        """The number of requests that may be in flight. Paused servers do not count, unless all are paused."""
        now = time.monotonic()
        return self.concurrency * max(1, sum(server.paused_until <= now for server in self.servers))

    def try_each(self, attempt: Callable[[Servers], None]) -> None:
        """Call `attempt` with each server alone, and say which servers cannot be reached.

        Raises ModelError if an attempt fails for another reason, or if no server can be reached.
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
            self.say(f"{problem} The work continues without that server.")

    def are_away(self) -> bool:
        """Whether all servers have failed TRIES times, in a way that trying again later may change."""
        return all(server.failures >= TRIES and not server.final_status for server in self.servers)

    def client(self) -> httpx.AsyncClient:
        """Return a client with enough connections for all servers."""
        most = self.concurrency * len(self.servers)
        limits = httpx.Limits(max_connections=most, max_keepalive_connections=most)
        return httpx.AsyncClient(timeout=TIMEOUT, limits=limits)

    async def post(self, client: httpx.AsyncClient, request: Mapping[str, Any]) -> tuple[Server, Any]:
        """Send a chat completion and return (server, JSON answer).

        If a server is busy, fails or cannot be reached, the request is sent again, to the next server or after a pause.
        The answer is None if a server that has answered other questions refuses this one.
        Raises ModelError if all servers have failed TRIES times in a row, or failed with a final status.
        """
        while True:
            server = await self._free()
            began = time.monotonic()
            server.in_flight += 1
            try:
                response = await client.post(
                    f"{server.url}/chat/completions", json=request, headers=authorization(server.url)
                )
            except (httpx.RequestError, UnicodeError) as error:  # UnicodeError: a host name that cannot be encoded
                self._failed(server, began, type(error).__name__)
                continue
            finally:
                server.in_flight -= 1
            if response.status_code == 200:
                server.failures = 0
                return server, parse_json(response)
            if response.status_code in REFUSAL_STATUSES and server.answered:
                return server, None
            problem = f"status {response.status_code}: {' '.join(response.text.split())[:200]}"
            # A refusal may be the question's fault. This is known once another question in flight has been answered.
            undecided = response.status_code in REFUSAL_STATUSES and any(other.in_flight for other in self.servers)
            again = response.status_code in RETRY_STATUSES or response.status_code >= 500 or undecided
            self._failed(server, began, problem, retry_after(response), None if again else response.status_code)

    def ask_all(
        self,
        questions: Iterator[Item],
        ask: Callable[[httpx.AsyncClient, Item], Coroutine[Any, Any, Answer]],
    ) -> Iterator[list[tuple[Item, Answer]]]:
        """Ask as many questions at once as the servers accept. Yield (question, answer) lists as answers arrive.

        However this ends, no request is left in flight. Raises ModelError if all servers fail.
        """
        tasks: dict[asyncio.Task[Answer], Item] = {}
        loop = asyncio.new_event_loop()
        client = self.client()
        try:
            while True:
                while len(tasks) < self.at_once and (question := next(questions, None)) is not None:
                    tasks[loop.create_task(ask(client, question))] = question
                if not tasks:
                    return
                done, _ = loop.run_until_complete(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
                yield [(tasks.pop(task), task.result()) for task in done if task.exception() is None]
                for task in done:
                    task.result()  # raise a failure only after the other answers were yielded
        finally:
            loop.run_until_complete(give_up(tasks, client))
            loop.close()

    async def _free(self) -> Server:
        """Return the server with the fewest requests in flight, after waiting until one is not paused.

        Raises ModelError if all servers have failed TRIES times in a row.
        """
        while True:
            if all(server.failures >= TRIES for server in self.servers):
                problems = " ".join(f"{server.url} did not answer ({server.problem})." for server in self.servers)
                advice = STATUS_ADVICE.get(
                    self.servers[0].final_status, "Check that the URL is right and that the server runs."
                )
                raise ModelError(f"{problems} {advice} Answers so far are kept. Repeat the command to continue.")
            now = time.monotonic()
            ready = [server for server in self.servers if server.paused_until <= now]
            if ready:
                return min(ready, key=lambda server: server.in_flight)
            await asyncio.sleep(min(server.paused_until for server in self.servers) - now)

    def _failed(
        self, server: Server, began: float, problem: str, pause: float = 0.0, final_status: int | None = None
    ) -> None:
        """Pause the server; the pause doubles with each failure in a row.

        Requests that were in flight together and fail together count as one failure.
        began: when the request was sent, in monotonic seconds. pause: the least pause in seconds, as the server asks.
        final_status: a status that trying again will not change.
        """
        if began < server.paused_until and final_status is None:
            return
        server.failures = TRIES if final_status else server.failures + 1
        pause = min(max(0.5 * 2 ** min(server.failures - 1, TRIES), pause), MAX_PAUSE)
        server.paused_until = time.monotonic() + pause
        server.problem = problem
        server.final_status = final_status or 0
        if server.failures < TRIES:
            self.say(f"{server.url}: {problem}. Asking again in {pause:.0f} s (try {server.failures + 1} of {TRIES}).")
        elif server.failures == TRIES and len(self.servers) > 1:
            self.say(f"{server.url}: {problem}. It is tried again every {MAX_PAUSE:.0f} s.")


async def give_up(tasks: Collection[asyncio.Task[Any]], client: httpx.AsyncClient) -> None:
    """Cancel all tasks and close the client."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await client.aclose()


def parse_json(response: httpx.Response) -> Any:
    """Return the JSON of a response. Raises ModelError if it is not JSON."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        raise ModelError(
            f"{response.url} did not answer with JSON ({response.text[:80]!r}). Give the URL of an OpenAI-compatible "
            "server."
        ) from None


def authorization(url: str) -> dict[str, str]:
    """Return the header with the API key of the environment, if there is one. OPENAI_API_KEY goes to OpenAI only."""
    names = ["PDADAPT_API_KEY"] + ["OPENAI_API_KEY"] * (urlsplit(url).hostname == "api.openai.com")
    key = next((os.environ[name] for name in names if os.environ.get(name)), None)
    return {"Authorization": f"Bearer {key}"} if key else {}


def retry_after(response: httpx.Response) -> float:
    """Return the seconds that the server asks to wait, or 0 if it does not ask."""
    try:
        return float(response.headers.get("retry-after", 0))
    except ValueError:
        return 0.0
