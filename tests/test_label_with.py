"""label_with.py: a model proposes, a person corrects, and nothing that nobody checked becomes training data."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import email.utils
import io
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import BUNDLE
from task_folder import Outcome, jsonl, make_task, news, write
from tasklib import cli, schema
from tasklib.answering import endpoint
from tasklib.data import sheet_cells
from tasklib.files import to_json
from tasklib.model import prompts
from tasklib.paths import TaskPaths
from tasklib.summary import TaskError
from tasklib.writing import labelling
from test_docs import parser_of

SCRIPT = "label_with.py"
SHEET = "data/labelling/texts.csv"
COLUMNS = ["id", "text", "proposed_label", "corrected_label", "checked", "note"]
TEXTS = ["第三季獲利成長", "主要客戶砍單", "=1+1 的報表", "１２月營收", "訂單滿載"]


class Server:
    """`with Server(answer) as server:` speaks the OpenAI protocol on loopback. `answer(request body) -> what to send`:
    a text, or (status, headers, body). Every request is kept."""

    def __init__(self, answer, models=("m",), key=None):
        self.answer, self.models, self.key = answer, models, key
        self.requests, self.headers, self.lock, self.at_once, self.most_at_once = [], [], threading.Lock(), 0, 0

    def __enter__(self):
        handler = type("Handler", (_Handler,), {"server_state": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()

    @property
    def asked(self):
        """The question of each request: the last line of its last message."""
        return [request["messages"][-1]["content"].split("\n")[-1] for request in self.requests]


class _Handler(BaseHTTPRequestHandler):
    server_state: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self._is_allowed():
            self._send((200, {}, json.dumps({"data": [{"id": name} for name in self.server_state.models]})))

    def do_POST(self):
        state = self.server_state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with state.lock:
            state.requests.append(body)
            state.headers.append(dict(self.headers))
            state.at_once += 1
            state.most_at_once = max(state.most_at_once, state.at_once)
        if self._is_allowed():
            sent = state.answer(body) if self.path == "/v1/chat/completions" else (404, {}, "no such page")
            with state.lock:
                state.at_once -= 1
            self._send(sent)

    def _is_allowed(self):
        key = self.server_state.key
        if key is None or self.headers.get("Authorization") == f"Bearer {key}":
            return True
        self._send((401, {}, json.dumps({"error": {"message": f"bad key {self.headers.get('Authorization')}"}})))
        return False

    def _send(self, sent):
        if isinstance(sent, str):
            sent = (200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": sent}}]}))
        status, headers, body = sent
        payload = body.encode() if isinstance(body, str) else body
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)
        except OSError:
            pass  # the client gave up, as it should


def by_topic(request):
    """A model that is right about growth and wrong about nothing else."""
    return "利多" if re.search("成長|滿載", request["messages"][-1]["content"].split("\n")[-1]) else "「利空」。"


def error(status, message, **headers):
    return status, headers, json.dumps({"error": {"message": message}})


@pytest.fixture
def task(tmp_path):
    """A task with data, beside it five texts without labels."""
    made = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30))})
    write(tmp_path / "texts.txt", "\n".join(TEXTS) + "\n")
    return made


PARSER = parser_of(BUNDLE / "scripts" / "task" / SCRIPT)
MODULE = sys.modules["doc_label_with"]


def run(task, *flags):
    """The script in this process, as its command line runs it: so many processes of their own would be slow."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        flags = ["--task-dir", str(task.folder), *map(str, flags)]
        summary, code = cli._run_body(PARSER, MODULE.label_with, flags)
    finally:
        signal.signal(signal.SIGTERM, before)
    return Outcome(int(code), json.loads(to_json(dataclasses.asdict(summary))), "")


def process(task, *flags):
    return task.run(SCRIPT, *flags)


def propose(task, server, *flags, text_file=None, how=run):
    url = server if isinstance(server, str) else server.url
    source = text_file or task.folder.parent / "texts.txt"
    return how(task, "propose", "--input", source, "--endpoint", url, "--model", "m", *flags)


def accept(task, *flags, sheet=SHEET, how=run):
    return how(task, "accept", "--input", task.folder / sheet, *flags)


def cells(task, sheet=SHEET):
    """The rows of a sheet as they stand in the file."""
    with (task.folder / sheet).open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def edit(task, changes, sheet=SHEET, encoding="utf-8-sig", delimiter=",", end="\r\n"):
    """What a person does: cells by position -> {column: value}, the sheet saved as a spreadsheet saves it."""
    rows = cells(task, sheet)
    for position, change in changes.items():
        rows[position].update(change)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, lineterminator=end)
    writer.writeheader()
    writer.writerows(rows)
    (task.folder / sheet).write_bytes(out.getvalue().encode(encoding))


def raw_rows(task, name):
    with (task.folder / "data" / "raw" / name).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def proposed(task, **options):
    """A sheet filled by the model, ready for a person."""
    with Server(by_topic) as server:
        outcome = propose(task, server, **options)
    assert outcome.code == 0, (outcome.summary, outcome.stderr)
    return outcome


# Proposing.


def test_every_text_gets_the_proposal_that_the_model_wrote_and_the_person_an_empty_column(task):
    outcome = proposed(task, how=process)
    assert (outcome.summary["status"], outcome.summary["outputs"]) == ("ok", {"sheet": SHEET})
    rows = cells(task)
    assert list(rows[0]) == COLUMNS
    assert [sheet_cells.unguard(row["text"]) for row in rows] == TEXTS
    assert [row["proposed_label"] for row in rows] == ["good", "bad", "bad", "bad", "good"]
    assert {(row["corrected_label"], row["checked"], row["note"]) for row in rows} == {("", "", "")}
    assert len({row["id"] for row in rows}) == 5
    assert outcome.summary["counts"] | {"proposed": 5, "asked": 5, "texts": 5} == outcome.summary["counts"]
    assert outcome.summary["metrics"] == {"proposed": {"good": 2, "bad": 3}}
    assert "accept" in outcome.summary["next"] and "propose" in outcome.stderr


def test_the_sheet_opens_in_a_taiwanese_excel_utf8_with_its_mark_and_windows_line_ends(task):
    proposed(task)
    content = (task.folder / SHEET).read_bytes()
    assert content.startswith(b"\xef\xbb\xbfid,text,")
    assert content.count(b"\r\n") == content.count(b"\n") == 6


def test_the_request_is_the_tasks_own_prompt_with_the_definitions_behind_the_instruction(task):
    path = task.folder / "task_definition.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["task"]["label_definitions"] = {"good": "價格應該上漲"}
    document["prompt"] = {"system": "Be brief.", "instruction": "Judge."}
    document["data"]["normalize"] = ["nfkc"]
    path.write_text(yaml.safe_dump(document, allow_unicode=True), encoding="utf-8")
    with Server(by_topic) as server:
        assert propose(task, server, "--parallel", "1").code == 0
    first, later = server.requests[0], server.requests[3]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0, 512)
    assert first["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Judge.\n\nWhat each answer means:\n- 利多: 價格應該上漲\n\n第三季獲利成長"},
    ]
    assert later["messages"][-1]["content"].endswith("\n\n12月營收")
    assert cells(task)[3]["text"] == "'１２月營收"  # the sheet holds the text as it was given


def test_without_definitions_the_request_is_exactly_what_training_sees(task):
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    with Server(by_topic) as server:
        propose(task, server, "--parallel", "1")
    record, _ = definition.task_type.read_input({"text": TEXTS[0]}, definition.task)
    wanted = [*prompts.prefix_messages(definition, []), prompts.user_message(definition, record)]
    assert server.requests[0]["messages"] == wanted


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("new.csv", "title,other\n第三季獲利成長,1\n主要客戶砍單,2\n"),
        ("new.jsonl", jsonl({"title": "第三季獲利成長"}, {"title": "主要客戶砍單"})),
        ("big5.txt", "第三季獲利成長\n主要客戶砍單\n".encode("big5")),
        ("crlf.txt", "\ufeff第三季獲利成長\r\n\r\n主要客戶砍單\r\n"),
    ],
)
def test_texts_are_read_from_tables_json_and_plain_text(task, tmp_path, name, content):
    write(tmp_path / name, content)
    proposed(task, text_file=tmp_path / name)
    rows = cells(task, f"data/labelling/{name.split('.')[0]}.csv")
    assert [(row["text"], row["proposed_label"]) for row in rows] == [
        ("第三季獲利成長", "good"),
        ("主要客戶砍單", "bad"),
    ]


def test_a_repeated_text_is_asked_once_and_counted(task, tmp_path):
    write(tmp_path / "texts.txt", "甲\n乙\n甲\n甲\n")
    with Server(by_topic) as server:
        summary = propose(task, server).summary
    assert (summary["counts"]["texts"], summary["counts"]["repeated"], len(server.requests)) == (2, 2, 2)


def test_every_bad_row_of_the_input_is_told_before_anything_is_sent(task, tmp_path):
    write(tmp_path / "new.jsonl", jsonl({"title": "好"}, {"title": ""}, {"x": 1}, {"title": "a\u0000b"}) + "{broken\n")
    with Server(by_topic) as server:
        outcome = propose(task, server, text_file=tmp_path / "new.jsonl")
    assert outcome.code == 3 and server.requests == []
    assert {problem["line"] for problem in outcome.summary["errors"]} == {2, 3, 4, 5}
    assert not (task.folder / "data" / "labelling").exists()


def test_a_text_too_long_for_a_cell_of_excel_is_announced_and_one_of_too_many_lines_refused(task, tmp_path):
    write(tmp_path / "new.jsonl", jsonl({"title": "長" * 40_000}, {"title": "短"}))
    with Server(by_topic) as server:
        outcome = propose(task, server, text_file=tmp_path / "new.jsonl")
    (warning,) = outcome.problems("long_text", "warnings")
    assert outcome.code == 0 and warning["message"].startswith("1 texts") and "line 1" in warning["message"]
    assert cells(task, "data/labelling/new.csv")[0]["text"] == "長" * 40_000
    write(tmp_path / "lines.jsonl", jsonl({"title": "短"}, {"title": "行\n" * (labelling.MAX_ROW_LINES + 1)}))
    with Server(by_topic) as server:
        outcome = propose(task, server, text_file=tmp_path / "lines.jsonl")
    (problem,) = outcome.problems("too_many_lines")
    assert (outcome.code, problem["line"], server.requests) == (3, 2, [])


@pytest.mark.parametrize("action", ["propose", "accept"])
def test_a_task_type_with_open_answers_is_refused(task, monkeypatch, action):
    from tasklib.task_types import classification

    monkeypatch.setattr(classification, "label_set", lambda options: None)
    more = ["--model", "m"] if action == "propose" else []
    outcome = run(task, action, "--input", task.folder.parent / "texts.txt", *more)
    assert (outcome.code, [problem["code"] for problem in outcome.summary["errors"]]) == (2, ["no_labels"])


def test_requests_run_side_by_side_but_never_more_than_asked_for(task, tmp_path):
    write(tmp_path / "texts.txt", "".join(f"第{n}則\n" for n in range(24)))

    def slowly(request):
        time.sleep(0.05)
        return "利多"

    with Server(slowly) as server:
        assert propose(task, server, "--parallel", "3").code == 0
    assert (server.most_at_once, len(server.requests)) == (3, 24)
    assert [row["text"] for row in cells(task)] == [f"第{n}則" for n in range(24)]  # the order of the input


ANSWERS = {
    "another word": "漲", "two labels": "利多或利空", "empty": "", "no text": None, "label name": "good",
    "a long story": "這則" * 50_000, "emoji": "🙂", "broken unicode": "\ud800", "markup": "<b></b>",
}  # fmt: skip


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_names_no_single_label_leaves_the_proposal_empty_and_is_counted(task, answer):
    def model(request):
        if "成長" not in request["messages"][-1]["content"]:
            return "利空"
        return 200, {}, json.dumps({"choices": [{"message": {"content": answer}}]})

    with Server(model) as server:
        outcome = propose(task, server)
    assert outcome.code == 0 and outcome.summary["counts"]["unparsable"] == 1
    assert outcome.problems("unparsable", "warnings")
    assert [row["proposed_label"] for row in cells(task)] == ["", "bad", "bad", "bad", "bad"]


def test_thoughts_that_a_server_leaves_in_the_answer_are_not_the_answer(task):
    with Server(lambda request: "<think>\n可能是利空？也可能是利多。\n</think>\n\n利多") as server:
        assert propose(task, server).summary["metrics"] == {"proposed": {"good": 5}}


# Failures of the endpoint.


def client_of(server, **options):
    settings = {"timeout_s": 5, "max_tokens": 64, "delay_s": 0.01}
    return endpoint.Client(server if isinstance(server, str) else server.url, "m", None, **{**settings, **options})


ASK = [{"role": "user", "content": "?"}]


class Script:
    """Answers in turn; the last one for ever."""

    def __init__(self, *sent):
        self.sent, self.times = list(sent), []

    def __call__(self, request):
        self.times.append(time.monotonic())
        return self.sent.pop(0) if len(self.sent) > 1 else self.sent[0]


PASSING = {
    "500": error(500, "boom"),
    "502 of a proxy": (502, {}, "<html>bad gateway</html>"),
    "503": error(503, "loading model"),
    "429": error(429, "slow down"),
    "cut off": (200, {"Content-Length": "1000", "Connection": "close"}, '{"choices"'),
    "broken JSON": (200, {}, '{"choices": [{"message"'),
    "JSON of another kind": (200, {}, "[]"),
    "no choices": (200, {}, '{"choices": []}'),
    "nested too deeply": (200, {}, "[" * 100_000),
    "wrong content encoding": (200, {"Content-Encoding": "gzip"}, "no gzip"),
}


@pytest.mark.parametrize("sent", PASSING.values(), ids=PASSING)
def test_a_failure_that_passes_is_tried_again(sent):
    with Server(Script(sent, sent, "利多")) as server:
        assert client_of(server).ask(ASK) == "利多"
    assert len(server.requests) == 3


@pytest.mark.parametrize("sent", PASSING.values(), ids=PASSING)
def test_a_failure_that_does_not_pass_ends_after_five_attempts_with_the_servers_reason(sent):
    with Server(Script(sent)) as server, pytest.raises(TaskError) as failure:
        client_of(server).ask(ASK)
    (problem,) = failure.value.problems
    assert (failure.value.exit_code, len(server.requests)) == (4, endpoint.ATTEMPTS)
    assert server.url in problem.message and problem.hint
    if sent[0] in (429, 500, 503):
        assert json.loads(sent[2])["error"]["message"] in problem.message


def test_the_wait_between_attempts_doubles():
    script = Script(error(500, "x"))
    with Server(script) as server, pytest.raises(TaskError):
        client_of(server, delay_s=0.1).ask(ASK)
    waits = np.diff(script.times)
    assert len(waits) == 4 and all(waits >= np.array([0.1, 0.2, 0.4, 0.8]) - 0.01)


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_busy_server_is_asked_again_when_it_says(form):
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=3)
    header = "1" if form == "seconds" else email.utils.format_datetime(soon, usegmt=True)
    script = Script(error(429, "slow down", **{"Retry-After": header}), "利多")
    with Server(script) as server:
        assert client_of(server).ask(ASK) == "利多"
    (wait,) = np.diff(script.times)
    assert 0.9 < wait < 3.5


@pytest.mark.parametrize("value", ["soon", "-1", "", "1e9", "Mon, 99 Foo 2026"])
def test_a_retry_after_that_says_nothing_is_passed_over(value):
    with Server(Script(error(429, "x", **{"Retry-After": value}), "利多")) as server:
        assert client_of(server).ask(ASK) == "利多"


def test_a_server_that_hangs_is_given_up_after_the_timeout():
    release = threading.Event()
    with Server(lambda request: release.wait(30) and "利多") as server, pytest.raises(TaskError) as failure:
        started = time.monotonic()
        client_of(server, timeout_s=0.3).ask(ASK)
    release.set()
    assert failure.value.problems[0].code == "endpoint_timeout"
    assert 0.3 * endpoint.ATTEMPTS <= time.monotonic() - started < 10


def test_a_server_that_sends_byte_after_byte_is_given_up_too():
    listener = socket.create_server(("127.0.0.1", 0))

    def drip():
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=feed, args=(connection,), daemon=True).start()

    def feed(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        try:
            while True:
                connection.sendall(b" ")
                time.sleep(0.05)
        except OSError:
            pass

    threading.Thread(target=drip, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(TaskError) as failure:
        client_of(f"http://127.0.0.1:{listener.getsockname()[1]}/v1", timeout_s=0.4).ask(ASK)
    assert failure.value.problems[0].code == "endpoint_timeout"
    assert time.monotonic() - started < 10


def test_an_endless_answer_does_not_fill_the_memory(monkeypatch):
    monkeypatch.setattr(endpoint, "MAX_ANSWER_BYTES", 1000)
    with Server(lambda request: "x" * 5000) as server, pytest.raises(TaskError) as failure:
        client_of(server).ask(ASK)
    assert (failure.value.problems[0].code, len(server.requests)) == ("bad_answer", 1)


def test_nobody_listening_is_exit_4_with_what_to_do_and_leaves_no_sheet(task):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    outcome = propose(task, f"http://127.0.0.1:{port}/v1", how=process)
    (problem,) = outcome.problems("endpoint_down")
    assert outcome.code == 4 and f":{port}/v1" in problem["message"] and "start the server" in problem["hint"]
    assert not (task.folder / "data" / "labelling").exists()
    assert "Traceback" not in outcome.stderr


FATAL = {
    "404": (error(404, "model 'm' not found, try pulling it first"), "model_missing", "try pulling it first"),
    "403": (error(403, "no access"), "key_rejected", "no access"),
    "redirect": ((302, {"Location": "http://127.0.0.1:9/v1"}, ""), "endpoint_redirects", "302"),
    "418": (error(418, "teapot"), "endpoint_failed", "teapot"),
}


@pytest.mark.parametrize(("sent", "code", "words"), FATAL.values(), ids=FATAL)
def test_a_failure_that_never_passes_is_told_at_once(task, sent, code, words):
    with Server(Script(sent)) as server:
        outcome = propose(task, server, "--parallel", "1")
    (problem,) = outcome.problems(code)
    assert outcome.code == 4 and words in problem["message"] and problem["hint"]
    assert len(server.requests) == 1


def test_a_wrong_key_is_exit_4_and_is_shown_nowhere(task, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-1")
    with Server(by_topic, key="sk-other") as server:
        outcome = propose(task, server, how=process)
    (problem,) = outcome.problems("key_rejected")
    assert outcome.code == 4 and "OPENAI_API_KEY" in problem["hint"]
    assert "***" in problem["message"]  # this server repeats the key in its error
    assert "sk-secret-1" not in json.dumps(outcome.summary) + outcome.stderr


def test_a_missing_key_says_where_it_belongs(task, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server(by_topic, key="sk-right") as server:
        (problem,) = propose(task, server).problems("key_rejected")
    assert "set OPENAI_API_KEY" in problem["hint"]
    assert all("Authorization" not in headers for headers in server.headers)


def test_the_right_key_goes_into_the_header_and_nowhere_else(task, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    with Server(by_topic, key="sk-right") as server:
        outcome = propose(task, server, how=process)
    assert outcome.code == 0
    assert {headers["Authorization"] for headers in server.headers} == {"Bearer sk-right"}
    assert "sk-right" not in json.dumps([outcome.summary, server.requests]) + outcome.stderr
    assert b"sk-right" not in (task.folder / SHEET).read_bytes()


@pytest.mark.parametrize("key", ["sk-a\nHost: x", "sk-鑰", "sk-\x7f"])
def test_a_key_that_would_break_the_request_is_refused_without_being_shown(task, monkeypatch, key):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with Server(by_topic) as server:
        outcome = propose(task, server, how=process)
    assert outcome.code == 2 and outcome.problems("bad_key") and server.requests == []
    assert key not in outcome.stderr and "sk-" not in json.dumps(outcome.summary)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for localhost that no authority signed."""
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
               "-addext", "subjectAltName=DNS:localhost", "-keyout", "key.pem", "-out", "cert.pem"]  # fmt: skip
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("the openssl program is not installed")
    return folder


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_of_an_own_authority_taken(
    task, certificate, monkeypatch
):
    with Server(by_topic) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
        url = server.url.replace("http://127.0.0.1", "https://localhost")
        outcome = propose(task, url)
        (problem,) = outcome.problems("endpoint_certificate")
        assert outcome.code == 4 and "SSL_CERT_FILE" in problem["hint"] and server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert.pem"))
        assert propose(task, url).code == 0


def test_one_text_that_the_server_refuses_does_not_stop_the_others(task):
    def model(request):
        text = request["messages"][-1]["content"]
        return error(400, "context length exceeded") if "砍單" in text else by_topic(request)

    with Server(model) as server:
        outcome = propose(task, server)
    (problem,) = outcome.problems("text_refused", "warnings")
    assert "砍單" in problem["message"] and "context length exceeded" in problem["message"]
    assert outcome.code == 0 and outcome.summary["counts"]["refused"] == 1
    assert outcome.summary["counts"]["unparsable"] == 0
    assert [row["proposed_label"] for row in cells(task)] == ["good", "", "bad", "bad", "good"]


def test_a_request_that_is_refused_for_every_text_is_the_requests_own_fault(task, tmp_path):
    write(tmp_path / "texts.txt", "".join(f"第{n}則\n" for n in range(200)))
    with Server(lambda request: error(422, "model must be a list")) as server:
        outcome = propose(task, server, "--parallel", "2")
    (problem,) = outcome.problems("request_refused")
    assert outcome.code == 4 and "model must be a list" in problem["message"]
    assert len(server.requests) <= endpoint.MAX_REFUSED + 4


def test_parameters_that_a_server_does_not_know_are_left_out_and_named(task):
    def model(request):
        if "max_tokens" in request:
            return error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.")
        if "temperature" in request:
            return error(400, "Unsupported value: 'temperature' does not support 0.")
        return by_topic(request)

    with Server(model) as server:
        outcome = propose(task, server, "--parallel", "1")
    assert outcome.code == 0 and outcome.summary["counts"]["proposed"] == 5
    assert {p["field"] for p in outcome.problems("parameter_refused", "warnings")} == {"max_tokens", "temperature"}
    assert len(server.requests) == 5 + 2


@pytest.mark.parametrize(
    "url",
    ["", "localhost:11434/v1", "ftp://x/v1", "http://", "file:///etc/passwd", "http://h/v1/chat/completions", "http://h/v1?a=1",
     "http://user:sk-secret@h/v1", "http://[::1/v1"],
)  # fmt: skip
def test_what_is_no_address_of_an_endpoint_is_wrong_usage(task, url):
    outcome = propose(task, url)
    assert outcome.code == 2 and "Traceback" not in outcome.stderr
    assert "sk-secret" not in json.dumps(outcome.summary)


def test_texts_that_leave_the_machine_are_announced_with_personal_data_and_an_open_key(tmp_path, monkeypatch):
    """A dry run against an address of the documentation block, where nobody answers."""
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*news(30))})
    write(tmp_path / "texts.txt", "請撥 0912-345-678 找王小姐\n沒有個資\n")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-right")
    definition = schema.load_definition(task.folder / "task_definition.yaml")
    rows, _, _ = labelling.read_texts(tmp_path / "texts.txt", definition)
    remote = {problem.code: problem for problem in MODULE._warnings_before("http://llm.example/v1", rows)}
    assert set(remote) == {"texts_leave_machine", "key_unencrypted"}
    assert "2 texts" in remote["texts_leave_machine"].message and "1 of them" in remote["texts_leave_machine"].message
    assert MODULE._warnings_before("http://127.0.0.2:1/v1", rows) == []
    assert MODULE._warnings_before("http://localhost:1/v1", rows) == []
    assert {p.code for p in MODULE._warnings_before("https://llm.example/v1", rows)} == {"texts_leave_machine"}


# Going on.


def test_a_second_run_asks_nothing_and_is_skipped(task):
    proposed(task)
    before = (task.folder / SHEET).read_bytes()
    with Server(by_topic) as server:
        summary = propose(task, server).summary
    assert (summary["status"], server.requests) == ("skipped", [])
    assert (task.folder / SHEET).read_bytes() == before


def test_what_was_answered_before_a_failure_is_kept_and_the_next_run_goes_on_there(task, tmp_path):
    write(tmp_path / "texts.txt", "".join(f"第{n}則成長\n" for n in range(10)))
    count = iter(range(100))
    with Server(lambda request: "利多" if next(count) < 6 else error(404, "gone")) as server:
        outcome = propose(task, server, "--parallel", "1")
    assert outcome.code == 4 and outcome.summary["counts"]["proposed"] == 6
    assert outcome.summary["outputs"] == {"sheet": SHEET} and "again" in outcome.summary["next"]
    assert [row["proposed_label"] for row in cells(task)] == ["good"] * 6 + [""] * 4
    with Server(by_topic) as server:
        assert propose(task, server).code == 0
    assert sorted(server.asked) == [f"第{n}則成長" for n in range(6, 10)]
    assert [row["proposed_label"] for row in cells(task)] == ["good"] * 10


def test_the_sheet_is_saved_while_the_model_is_still_working(task, tmp_path, monkeypatch):
    """A process that is killed loses what came in since the last save, and no more."""
    monkeypatch.setattr(MODULE, "SAVE_EVERY_S", 0)
    write(tmp_path / "texts.txt", "".join(f"第{n}則\n" for n in range(6)))
    seen = []

    def model(request):
        deadline = time.monotonic() + 10
        while len(server.requests) == 6 and len(seen) < 3 and time.monotonic() < deadline:
            seen[:] = [row for row in cells(task) if row["proposed_label"]] if (task.folder / SHEET).exists() else []
        return "利多"

    with Server(model) as server:
        assert propose(task, server, "--parallel", "1").code == 0
    assert 3 <= len(seen) < 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_an_interrupted_run_ends_at_once_and_keeps_what_it_has(task, tmp_path, number):
    write(tmp_path / "texts.txt", "".join(f"第{n}則\n" for n in range(10)))
    count, hanging = iter(range(100)), threading.Event()

    def model(request):
        if next(count) < 4:
            return "利多"
        hanging.set()
        time.sleep(20)
        return "利多"

    with Server(model) as server:
        command = [sys.executable, task.folder / "scripts" / SCRIPT, "--json", "propose", "--parallel", "2",
                   "--input", tmp_path / "texts.txt", "--endpoint", server.url, "--model", "m"]  # fmt: skip
        process = subprocess.Popen(
            list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8",
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert hanging.wait(30)
        time.sleep(0.3)
        process.send_signal(number)
        started = time.monotonic()
        stdout, _ = process.communicate(timeout=15)
    assert (process.returncode, json.loads(stdout)["errors"][0]["code"]) == (130, "interrupted")
    assert time.monotonic() - started < 5
    assert [row["proposed_label"] for row in cells(task)].count("good") == 4


def test_a_persons_words_survive_a_second_run_with_more_texts(task, tmp_path):
    proposed(task)
    edit(task, {0: {"checked": "x"}, 1: {"corrected_label": "good", "note": "其實是好消息, 見公告"}, 3: {"note": "=?"}})
    kept = {row["id"]: {**row, "note": sheet_cells.guard(row["note"])} for row in cells(task)}
    write(tmp_path / "texts.txt", "\n".join(["新的一則", *reversed(TEXTS[1:])]))
    with Server(by_topic) as server:
        summary = propose(task, server).summary
    assert server.asked == ["新的一則"]
    after = {row["id"]: row for row in cells(task)}
    assert {key: after[key] for key in kept} == kept and len(after) == 6
    assert [sheet_cells.unguard(row["text"]) for row in cells(task)] == ["新的一則", *reversed(TEXTS[1:]), TEXTS[0]]
    assert summary["counts"]["in_sheet_before"] == 5


def test_rows_that_a_person_already_labelled_are_not_asked_about(task):
    with Server(lambda request: "?") as server:
        propose(task, server)
    assert [row["proposed_label"] for row in cells(task)] == [""] * 5
    edit(task, {0: {"corrected_label": "good"}, 2: {"checked": "no"}})
    with Server(by_topic) as server:
        propose(task, server)
    assert len(server.asked) == 3 and TEXTS[0] not in server.asked and TEXTS[2] not in server.asked


@pytest.mark.parametrize(("encoding", "delimiter"), [("cp950", ","), ("utf-16", "\t"), ("utf-8", ";")])
def test_a_sheet_that_excel_saved_its_own_way_goes_on_with_every_correction(task, tmp_path, encoding, delimiter):
    proposed(task)
    edit(task, {1: {"corrected_label": "good", "note": "好"}}, encoding=encoding, delimiter=delimiter)
    write(tmp_path / "texts.txt", "\n".join([*TEXTS, "再來一則"]))
    with Server(by_topic) as server:
        assert propose(task, server).code == 0
    rows = cells(task)
    assert (rows[1]["corrected_label"], rows[1]["note"], len(rows), server.asked) == ("good", "好", 6, ["再來一則"])


def test_a_text_that_was_mangled_is_restored_by_proposing_again_and_its_correction_stays(task):
    proposed(task)
    edit(task, {1: {"text": "主要???砍單", "corrected_label": "good"}})
    outcome = accept(task)
    (problem,) = outcome.problems("changed_text")
    assert (outcome.code, problem["line"]) == (3, 3) and "propose again" in problem["hint"]
    proposed(task)
    assert accept(task).code == 0
    assert {"title": "主要客戶砍單", "mood": "good"}.items() <= raw_rows(task, "texts-v1.csv")[0].items()


def test_a_sheet_that_somebody_saves_meanwhile_is_not_overwritten(task):
    edited = b"\xef\xbb\xbfid,mine\r\n"

    def model(request):
        write(task.folder / SHEET, edited)
        return "利多"

    with Server(model) as server:
        outcome = propose(task, server)
    assert outcome.code == 4 and outcome.problems("sheet_changed")
    assert (task.folder / SHEET).read_bytes() == edited


@pytest.mark.parametrize(
    "content", ["title,mood\na,good\n", "", "id,text\n1,2\n", b"\xff\xfe\x00", b"PK\x03\x04", '{"id": 1}\n']
)
def test_a_file_that_is_no_sheet_is_never_overwritten(task, content):
    path = write(task.folder / SHEET, content)
    before = path.read_bytes()
    with Server(by_topic) as server:
        outcome = propose(task, server)
    assert outcome.code == 3 and server.requests == [] and path.read_bytes() == before
    assert "Traceback" not in outcome.stderr


def test_the_input_is_never_the_output(task, tmp_path):
    with Server(by_topic) as server:
        outcome = propose(task, server, "--output", tmp_path / "texts.txt")
    assert outcome.code == 2
    assert (tmp_path / "texts.txt").read_text(encoding="utf-8").splitlines() == TEXTS


def test_a_dry_run_asks_the_endpoint_for_nothing_but_its_models_and_writes_nothing(task):
    before = task.hashes(".")
    with Server(by_topic) as server:
        summary = propose(task, server, "--dry-run").summary
    assert (summary["status"], summary["counts"]["asked"], server.requests) == ("ok", 5, [])
    assert task.hashes(".") == before
    assert propose(task, server, "--dry-run").problems("endpoint_down")
    with Server(by_topic, key="sk") as server:
        assert propose(task, server, "--dry-run").problems("key_rejected")


# Cells.

MEANT_AS_TEXT = ["=1+1", "+886", "-5", "@SUM(A1)", "\t=1", "\r\n=1", "'quoted", "''", "0912345678", "1-2", "1E5",
                 " =1", "２０２６", "TRUE", "false", "May 5", "March 3 2026", "$5", "(100)", "＝1", ".5"]  # fmt: skip


@pytest.mark.parametrize("text", MEANT_AS_TEXT)
def test_no_text_begins_a_formula_a_number_or_a_date_and_it_comes_back_as_it_was(text):
    cell = sheet_cells.guard(text)
    assert cell == "'" + text and sheet_cells.unguard(cell) == text


@pytest.mark.parametrize(
    "text", ["第三季", "「引述」說", "Maybe later", "May be", "Trueman", "ＡＢＣ", "", "#標籤", "…", "🙂", "？", "%"]
)
def test_ordinary_texts_stand_in_the_sheet_as_they_are(text):
    assert sheet_cells.guard(text) == text == sheet_cells.unguard(text)


@given(st.text())
def test_any_text_comes_back_from_its_cell(text):
    assert sheet_cells.unguard(sheet_cells.guard(text)) == text
    assert not re.match("[=+@\t\r\n0-9-]", sheet_cells.guard(text))


DEFINITION = schema.check_definition(
    schema.documents.parse_yaml(
        """
schema_version: 1
name: tiny
task: {type: classification, labels: {good: 利多, bad: 利空}}
data: {files: {all: [data/raw/a.csv]}, fields: {text: title, label: mood}}
""",
        "task_definition.yaml",
    )
)

CHARACTERS = st.characters(exclude_categories=["Cs", "Cc"])  # a file full of control characters is no text file
TEXT = st.text(CHARACTERS | st.sampled_from(",;\t\"'\r\n= x"), min_size=1, max_size=40).filter(str.strip)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=6, unique_by=lambda pair: labelling.id_of([pair[0]])))
def test_any_sheet_comes_back_as_it_was_and_so_does_any_raw_version(tmp_path_factory, pairs):
    from tasklib.reading.records import read_rows

    task = DEFINITION
    rows = [
        labelling.SheetRow(labelling.id_of([text]), {"text": text}, 0, "good", "bad", "x", note) for text, note in pairs
    ]
    path = write(tmp_path_factory.mktemp("sheet") / "s.csv", labelling.sheet_text(rows, task))
    found, problems = labelling.read_sheet(path, task)
    assert problems == []
    assert [(row.id, row.values, row.note, row.corrected) for row in found] == [
        (row.id, row.values, row.note, row.corrected) for row in rows
    ]
    raw = write(path.with_name("raw.csv"), labelling.raw_text([(row, "bad") for row in rows], task))
    assert [(row.values["title"], row.values["mood"]) for row in read_rows(raw, "raw.csv")] == [
        (text, "bad") for text, _ in pairs
    ]


def test_ids_are_never_numbers_and_do_not_depend_on_line_ends():
    ids = {labelling.id_of([str(number)]) for number in range(2000)}
    assert len(ids) == 2000 and all(re.fullmatch(r"t[0-9a-f]{15}", name) for name in ids)
    assert labelling.id_of(["a\r\nb\rc"]) == labelling.id_of(["a\nb\nc"]) != labelling.id_of(["a b c"])
    assert labelling.id_of(["a", "b"]) != labelling.id_of(["ab", ""])


# Accepting.


def test_corrections_and_checked_proposals_become_a_new_raw_file_and_nothing_else_does(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}, 1: {"corrected_label": "good", "note": "補單"}, 2: {"note": "不確定"}})
    outcome = accept(task, how=process)
    assert outcome.code == 0
    assert outcome.summary["counts"] == {"rows": 5, "accepted": 2, "corrected": 1, "confirmed": 1, "unreviewed": 3}
    assert raw_rows(task, "texts-v1.csv") == [
        {"title": "第三季獲利成長", "mood": "good", "note": ""},
        {"title": "主要客戶砍單", "mood": "good", "note": "補單"},
    ]
    (warning,) = outcome.problems("unreviewed", "warnings")
    assert warning["message"].startswith("3 rows")


def test_a_sheet_that_nobody_looked_at_gives_nothing(task):
    proposed(task)
    before = task.hashes("data/raw")
    outcome = accept(task, "--apply")
    assert outcome.code == 3 and outcome.problems("nothing_reviewed") and outcome.summary["counts"]["unreviewed"] == 5
    assert task.hashes("data/raw") == before


def test_texts_with_formulas_digits_and_quotes_come_back_exactly(task, tmp_path):
    texts = ["=cmd|'/c calc'!A1", "0912345678", "'單引號", '說 "好", 又說', "１２", "@all", "多行\n第二行"]
    write(tmp_path / "new.jsonl", jsonl(*({"title": text} for text in texts)))
    proposed(task, text_file=tmp_path / "new.jsonl")
    sheet = "data/labelling/new.csv"
    assert not any(re.match("[=+@0-9-]", row["text"]) for row in cells(task, sheet))
    edit(task, {n: {"checked": "v"} for n in range(len(texts))}, sheet)
    assert accept(task, sheet=sheet).code == 0
    assert [row["title"] for row in raw_rows(task, "new-v1.csv")] == texts


def test_a_mark_that_excel_swallows_does_no_harm(task):
    """Editing a cell that begins with ' makes Excel take the mark for its own and save the bare text."""
    proposed(task)
    edit(task, {2: {"text": "=1+1 的報表", "checked": "x"}})
    assert accept(task).code == 0
    assert raw_rows(task, "texts-v1.csv")[0]["title"] == "=1+1 的報表"


@pytest.mark.parametrize("mark", ["x", "X", "v", "✓", "1", "yes", "TRUE", "是", " x "])
def test_a_mark_means_that_the_proposal_was_checked(task, mark):
    proposed(task)
    edit(task, {0: {"checked": mark}})
    assert accept(task).summary["counts"]["confirmed"] == 1


@pytest.mark.parametrize("mark", ["", "0", "no", "FALSE", "否"])
def test_no_mark_means_that_it_was_not(task, mark):
    proposed(task)
    edit(task, {0: {"checked": mark}})
    assert accept(task).code == 3


SAVED = [("utf-8-sig", ",", "\r\n"), ("utf-8", ";", "\n"), ("cp950", ",", "\r\n"), ("cp950", "\t", "\r\n"),
         ("utf-16", "\t", "\r\n"), ("utf-8-sig", ",", "\r")]  # fmt: skip


@pytest.mark.parametrize(("encoding", "delimiter", "end"), SAVED)
def test_a_sheet_is_read_however_a_spreadsheet_saved_it(task, encoding, delimiter, end):
    proposed(task)
    changes = {0: {"checked": "x"}, 1: {"corrected_label": "good", "note": "備註, 有逗號; 和分號"}}
    edit(task, changes, encoding=encoding, delimiter=delimiter, end=end)
    assert accept(task).code == 0
    assert [(row["title"], row["mood"]) for row in raw_rows(task, "texts-v1.csv")] == [(t, "good") for t in TEXTS[:2]]


def test_every_fault_of_a_sheet_is_told_with_its_line_at_once(task):
    proposed(task)
    edit(
        task,
        {
            0: {"corrected_label": "goood"},
            1: {"text": "主要客戶加單", "checked": "x"},
            2: {"checked": "maybe"},
            3: {"proposed_label": "", "checked": "x"},
            4: {"id": "42", "checked": "x"},
        },
    )
    rows = (task.folder / SHEET).read_bytes().splitlines(keepends=True)
    (task.folder / SHEET).write_bytes(b"".join([*rows, rows[4]]))
    outcome = accept(task)
    places = [(problem["code"], problem["line"], problem["field"]) for problem in outcome.summary["errors"]]
    assert outcome.code == 3 and places == [
        ("unknown_label", 2, "corrected_label"),
        ("changed_text", 3, "text"),
        ("illegal_mark", 4, "checked"),
        ("no_label", 5, "checked"),
        ("unknown_text", 6, "id"),
        ("row_twice", 7, "id"),
    ]
    assert all(problem["hint"] and problem["file"].endswith("texts.csv") for problem in outcome.summary["errors"])
    assert "good" in outcome.summary["errors"][0]["hint"]
    assert list((task.folder / "data" / "raw").iterdir()) == [task.folder / "data" / "raw" / "a.jsonl"]


@pytest.mark.parametrize("label", ["利多", "GOOD", "good ", " good", "ｇｏｏｄ", "neutral"])
def test_a_label_that_is_not_exactly_one_of_the_task_is_refused_with_the_one_that_is_meant(task, label):
    proposed(task)
    edit(task, {0: {"corrected_label": label}})
    (problem,) = accept(task).problems("unknown_label")
    assert ("write good" in problem["hint"]) == (label != "neutral")


def test_a_proposal_of_labels_that_the_task_no_longer_has_is_not_accepted(task):
    proposed(task)
    path = task.folder / "task_definition.yaml"
    path.write_text(path.read_text(encoding="utf-8").replace("good: 利多", "great: 利多"), encoding="utf-8")
    edit(task, {0: {"checked": "x"}})
    (problem,) = accept(task).problems("unknown_label")
    assert problem["field"] == "proposed_label"


def test_agreement_of_proposals_and_corrections_is_scikit_learns_kappa(task, tmp_path):
    from sklearn.metrics import accuracy_score, cohen_kappa_score

    write(tmp_path / "texts.txt", "".join(f"第{n}則{'成長' if n % 3 else '砍單'}\n" for n in range(12)))
    proposed(task)
    said = ["good" if row["proposed_label"] == "bad" and n % 2 else row["proposed_label"] for n, row in
            enumerate(cells(task))]  # fmt: skip
    edit(task, {n: {"corrected_label": label} for n, label in enumerate(said)})
    first = [row["proposed_label"] for row in cells(task)]
    found = accept(task).summary["metrics"]["agreement"]
    assert found["rows"] == 12 and 0 < found["cohen_kappa"] < 1
    assert found["accuracy"] == pytest.approx(accuracy_score(first, said))
    assert found["cohen_kappa"] == pytest.approx(cohen_kappa_score(first, said))


def test_agreement_that_is_undefined_is_null_and_says_so(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}, 4: {"checked": "x"}})
    outcome = accept(task)
    assert outcome.summary["metrics"]["agreement"] == {"rows": 2, "accuracy": 1.0, "cohen_kappa": None}
    assert outcome.problems("undefined_metric", "warnings")
    assert labelling.agreement([]) == {"rows": 0, "accuracy": None, "cohen_kappa": None}


def test_versions_are_counted_up_and_never_overwritten(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    assert accept(task).summary["outputs"]["raw"] == "data/raw/texts-v1.csv"
    write(task.folder / "data" / "raw" / "texts-v7.csv", "mine")
    before = task.hashes("data/raw")
    edit(task, {4: {"checked": "x"}})
    assert accept(task).summary["outputs"]["raw"] == "data/raw/texts-v8.csv"
    after = task.hashes("data/raw")
    assert {name: after[name] for name in before} == before and len(after) == len(before) + 1
    with pytest.raises(FileExistsError):
        labelling.write_version(TaskPaths(task.folder), "texts", 7, "x")
    assert (task.folder / "data" / "raw" / "texts-v7.csv").read_text() == "mine"


def test_the_same_sheet_a_second_time_is_skipped(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    assert accept(task, "--apply").summary["status"] == "ok"
    before = task.hashes(".")
    again = accept(task, "--apply")
    assert (again.code, again.summary["status"]) == (0, "skipped") and task.hashes(".") == before


def test_a_dry_run_of_accept_checks_everything_and_writes_nothing(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    before = task.hashes(".")
    summary = accept(task, "--apply", "--dry-run").summary
    assert summary["counts"]["accepted"] == 1 and "texts-v1.csv" in summary["outputs"]["data_files"]
    assert task.hashes(".") == before
    edit(task, {0: {"corrected_label": "no such label"}})
    assert accept(task, "--dry-run").code == 3


def test_columns_that_the_split_needs_go_through_the_sheet_into_the_raw_file(tmp_path):
    rows = [{**row, "note": f"c{n % 5}", "day": "2026-01-01"} for n, row in enumerate(news(30))]
    split = {"split": {"group_by": "note", "time_field": "day"}}
    task = make_task(tmp_path / "task", {"a.jsonl": jsonl(*rows)}, data=split)
    write(tmp_path / "texts.csv", "title,note,day\n甲公司成長,c9,2026-02-01\n")
    proposed(task, text_file=tmp_path / "texts.csv")
    assert list(cells(task)[0]) == [*COLUMNS, "raw:note", "raw:day"]
    edit(task, {0: {"checked": "x", "note": "我的備註"}})
    assert accept(task, "--apply").code == 0
    made = raw_rows(task, "texts-v1.csv")
    assert made == [{"title": "甲公司成長", "mood": "good", "note": "c9", "day": "2026-02-01"}]


def test_what_was_accepted_is_valid_data_of_the_task(task, tmp_path):
    write(tmp_path / "texts.txt", "".join(f"第{n}則新{'成長' if n % 2 else '砍單'}\n" for n in range(40)))
    proposed(task)
    edit(task, {n: {"checked": "x"} for n in range(40)})
    assert accept(task, "--apply").code == 0
    counts = task.ok("01_validate_data.py")["counts"]
    assert (counts["rows"], counts["readable"]) == (70, 70)


# data.files.


def with_definition(task, text):
    (task.folder / "task_definition.yaml").write_bytes(text.encode())


HEAD = """# A task.  # twice
schema_version: 1
name: tiny   # its name
task:
  type: classification
  labels: {good: 利多, bad: 利空}   # two
data:
"""
TAIL = """  # behind the files
  fields: {text: title, label: mood}

# the end
evaluation: {target: 0.5}
"""
FORMS = {
    "block list": "  files:\n    all:\n      - data/raw/a.jsonl   # ours\n",
    "block list without indent": "  files:\n    all:\n    - data/raw/a.jsonl\n    # a remark\n",
    "quoted": "  files:\n    all:\n    - 'data/raw/a.jsonl'\n",
    "one line": "  files:\n    all: [data/raw/a.jsonl]  # ours\n",
    "one line of all": "  files: {all: [data/raw/a.jsonl]}\n",
    "files with settings": "  files:\n    all:\n    - path: data/raw/a.jsonl\n      format: json  # x\n      values:\n"
                           "        source: old\n",
    "splits": "  files:\n    test: [data/raw/t.jsonl]\n    train:\n    - data/raw/a.jsonl\n    - data/raw/b.jsonl\n",
}  # fmt: skip


def files_of(text):
    """split -> paths, by an independent YAML reader."""
    files = yaml.safe_load(text)["data"]["files"]
    return {
        split: [item["path"] if isinstance(item, dict) else item for item in items] for split, items in files.items()
    }


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["unix", "windows"])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_the_new_file_is_added_and_every_other_line_stays_as_it_was(task, form, newline):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    before = (HEAD + form + TAIL).replace("\n", newline)
    with_definition(task, before)
    outcome = accept(task, "--apply")
    assert outcome.code == 0, outcome.summary
    after = (task.folder / "task_definition.yaml").read_bytes().decode()
    split = "all" if "all" in files_of(before) else "train"
    wanted = files_of(before)
    wanted[split].append("data/raw/texts-v1.csv")
    assert files_of(after) == wanted
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    assert len(new) - len(old) in (0, 1)
    changed = [line for line in new if line not in old]
    assert len(changed) == 1 and "texts-v1.csv" in changed[0] and changed[0].endswith(newline)
    assert {line for line in old if line not in new} <= {line for line in old if "[data/raw/a.jsonl]" in line}
    assert (
        schema.load_definition(task.folder / "task_definition.yaml").data.files[split][-1].path.endswith("texts-v1.csv")
    )


def test_a_newer_version_takes_the_place_of_the_older_one(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    with_definition(task, HEAD + FORMS["block list"] + TAIL)
    accept(task, "--apply")
    edit(task, {4: {"checked": "x"}})
    outcome = accept(task, "--apply")
    assert outcome.summary["outputs"]["data_files"] == (
        "data.files.all: put data/raw/texts-v2.csv in the place of data/raw/texts-v1.csv"
    )
    text = (task.folder / "task_definition.yaml").read_text(encoding="utf-8")
    assert files_of(text) == {"all": ["data/raw/a.jsonl", "data/raw/texts-v2.csv"]}


def test_the_first_file_of_a_task_without_data_takes_the_place_of_the_one_that_is_missing(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    with_definition(task, HEAD + '  files:\n    all:\n    - "data/raw/labelled.csv"  # to come\n' + TAIL)
    assert accept(task, "--apply").code == 0
    text = (task.folder / "task_definition.yaml").read_text(encoding="utf-8")
    assert files_of(text) == {"all": ["data/raw/texts-v1.csv"]} and "# to come" in text


def test_without_apply_the_definition_stays_and_the_exact_change_is_told(task):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    before = (task.folder / "task_definition.yaml").read_bytes()
    summary = accept(task).summary
    assert summary["outputs"]["data_files"] == "data.files.all: add data/raw/texts-v1.csv"
    assert "data/raw/texts-v1.csv" in summary["next"] and "--apply" in summary["next"]
    assert (task.folder / "task_definition.yaml").read_bytes() == before


ODD = {
    "a comma too many": "  files:\n    all: [data/raw/a.jsonl,]\n",
    "an anchor": "  files:\n    all: &all\n    - &first data/raw/a.jsonl\n",
    "a list over lines": "  files:\n    all: [data/raw/a.jsonl\n      ]\n",
    "a bracket in a comment": "  files:\n    all: [data/raw/a.jsonl]  # [x]\n",
    "a folded path": "  files:\n    all:\n    - >-\n      data/raw/a.jsonl\n",
}


@pytest.mark.parametrize("form", ODD.values(), ids=ODD)
def test_a_definition_that_cannot_be_edited_safely_is_left_alone_or_edited_right(task, form):
    proposed(task)
    edit(task, {0: {"checked": "x"}})
    before = HEAD + form + TAIL
    with_definition(task, before)
    outcome = accept(task, "--apply")
    after = (task.folder / "task_definition.yaml").read_text(encoding="utf-8")
    if outcome.code == 0:
        split = "all" if "all" in files_of(before) else "train"
        assert files_of(after) == {**files_of(before), split: [*files_of(before)[split], "data/raw/texts-v1.csv"]}
    else:
        assert outcome.code == 2 and after == before and len(outcome.problems("not_edited")) == 1
        assert not (task.folder / "data" / "raw" / "texts-v1.csv").exists()


# The command line.


@pytest.mark.parametrize(
    "flags",
    [[], ["propose"], ["accept"], ["label"], ["accept", "--input", "x.csv", "--model", "m"], ["propose", "--apply"],
     ["accept", "--input", "x.csv", "--parallel", "2"], ["propose", "--input", "x.txt"],
     ["propose", "--input", "x", "--model", "m", "--parallel", "0"]],
)  # fmt: skip
def test_flags_that_make_no_sense_are_wrong_usage(task, flags):
    outcome = run(task, *flags)
    assert outcome.code == 2 and outcome.problems("usage")


@pytest.mark.parametrize("action", ["propose", "accept"])
def test_a_file_that_is_not_there_is_told(task, action):
    more = ["--model", "m"] if action == "propose" else []
    outcome = run(task, action, "--input", "/no/such/file.csv", *more)
    assert outcome.code == 3 and outcome.problems("file_missing")


def test_a_key_cannot_be_given_on_the_command_line(task):
    help_text = subprocess.run(
        [sys.executable, task.folder / "scripts" / SCRIPT, "--help"], capture_output=True, encoding="utf-8"
    ).stdout
    assert "OPENAI_API_KEY" in help_text and not re.search(r"--\S*(key|token)(\s|=)", help_text)


# A real engine.

ENGINE = """
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.port, params.warmup = 4096, 2, 0, False
params.cpuparams.n_threads = 2
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@pytest.mark.slow
def test_a_real_model_behind_a_real_engine_proposes_labels(task, tmp_path):
    """llama.cpp's own server with SmolLM2: it follows the protocol, whatever the proposals are worth."""
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    from tasklib.model import builtin

    model = builtin.find_source(builtin.MODELS["smollm2-135m"])
    path = task.folder / "task_definition.yaml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["task"] = {"type": "classification", "labels": {"good": "good", "bad": "bad"}}
    document["prompt"] = {"instruction": "Is this news good or bad? Answer with one word: good or bad."}
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    texts = [f"Profit of company {n} grew by {n} percent" for n in range(1, 9)] + ["long " * 3000]
    write(tmp_path / "texts.txt", "\n".join(texts))
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE, str(model)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, encoding="utf-8", env={**os.environ, "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    try:
        url = engine.stdout.readline().strip() + "/v1"
        assert url.startswith("http://127.0.0.1:")
        assert propose(task, url, "--dry-run").code == 0
        outcome = propose(task, url, "--max-tokens", "16", "--parallel", "2")
        again = propose(task, url, "--max-tokens", "16", "--parallel", "2")
    finally:
        engine.kill()
        engine.wait()
    assert outcome.code == 0, (outcome.summary, outcome.stderr[-2000:])
    counts = outcome.summary["counts"]
    assert counts["asked"] == 9 and counts["proposed"] >= 1
    assert counts["proposed"] + counts["unparsable"] + counts["refused"] == 9
    (refused,) = outcome.problems("text_refused", "warnings")  # longer than the context
    assert "long" in refused["message"]
    assert {row["proposed_label"] for row in cells(task)} <= {"good", "bad", ""}
    assert again.summary["counts"]["asked"] == 9 - counts["proposed"]
