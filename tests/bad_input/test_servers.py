"""Addresses that are no server, and servers that answer nonsense."""

import json
import socketserver
import threading
from functools import partial

import pytest

from bad_input.harness import ADAPT, Case
from pdadapt.errors import ModelError, RecipeError

MESSAGES = "messages/servers.txt"
refused = partial(Case, error=RecipeError)
CASES = {
    "server's name lacks its model": refused(
        f"{ADAPT} --teacher http://127.0.0.1:9/v1", names="'http://127.0.0.1:9/v1'"
    ),
    "server at a port that is none": refused(
        f"{ADAPT} --teacher http://127.0.0.1:99999/v1#m", names="'http://127.0.0.1:99999/v1#m'"
    ),
    "server at an address that is none": refused(f"{ADAPT} --teacher 'http://[::1/v1#m'", names="'http://[::1/v1#m'"),
    "server whose name is none": refused(
        f"{ADAPT} --teacher http://a..b/v1#m", names="http://a..b/v1", error=ModelError
    ),
    "server's address with a password": refused(
        f"{ADAPT} --teacher http://me:secret@127.0.0.1:9/v1#m", names="PDADAPT_API_KEY"
    ),
    "port where nothing listens": refused(
        f"{ADAPT} --teacher http://127.0.0.1:9/v1#m", names="http://127.0.0.1:9/v1", error=ModelError
    ),
}


def reply(body, kind="application/json", status="200 OK"):
    """What a server sends, byte for byte."""
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()


def listing(log_p):
    """A chat completion that lists Yes with this log-probability."""
    top = {"top_logprobs": [{"token": "Yes", "logprob": log_p}]}
    return reply(json.dumps({"choices": [{"logprobs": {"content": [top]}}]}))


REPLIES = {  # and what the message must name besides the server
    "server that answers a page": (reply("<html>Welcome</html>", "text/html"), "JSON"),
    "server that answers a list": (reply("[1, 2]"), "`top_logprobs`"),
    "server that answers an error": (reply('{"error": "no"}'), "`top_logprobs`"),
    "server that answers JSON too deep": (reply("[" * 99_999), "JSON"),
    "server that answers a word for a number": (listing("likely"), "`top_logprobs`"),
    "server that answers 404": (reply("<html>\n<h1>No</h1>\n</html>", "text/html", "404 Not Found"), "404"),
    "server that has moved": (reply("", status="301 Moved Permanently"), "301"),
    "server that speaks SSH": (b"SSH-2.0-OpenSSH_9.6\r\n", "RemoteProtocolError"),
    "server that closes": (b"", "RemoteProtocolError"),
    "server that answers broken gzip": (
        b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n{}",
        "DecodingError",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_sentence_and_nothing_changes(name, command_line, golden):
    command_line.refuses(CASES[name], golden(MESSAGES), name)


@pytest.mark.slow
@pytest.mark.parametrize("name", REPLIES)
def test_a_server_that_answers_nonsense_is_refused(name, command_line, golden):
    answer, part = REPLIES[name]

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(65_536)
            self.request.sendall(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        case = Case(
            f"{ADAPT} --teacher http://127.0.0.1:{port}/v1#m", names=f"127.0.0.1:{port} {part}", error=ModelError
        )
        try:
            command_line.refuses(case, golden(MESSAGES), name, port)
        finally:
            server.shutdown()


def test_each_message_has_a_case(golden):
    golden(MESSAGES).check_names([*CASES, *REPLIES])
