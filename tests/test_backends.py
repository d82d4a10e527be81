"""04_evaluate.py --backend: a model behind an OpenAI-compatible endpoint answers the very same rows; vLLM."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest

from tasklib import cli, documents, schema
from tasklib.answering import backends, endpoint
from tasklib.files import read_jsonl, sha256_of, write_json, write_jsonl
from tasklib.model import models, prompts
from tasklib.scoring import evaluation
from tasklib.summary import TaskError
from test_evaluate import evaluate
from test_label_with import ENGINE, Server, by_topic, error
from trainable_task import Task, environment, make_task

FOLDER = "benchmarks/served/m/validation"
BUSY = {"Retry-After": "0"}  # the client asks again at once


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Task:
    return make_task(tmp_path_factory.mktemp("backends") / "task", "no-such-model", n_rows=120)


@pytest.fixture
def task(made, tmp_path) -> Task:
    """A converted task of 24 validation rows that has never been trained."""
    return Task(Path(shutil.copytree(made.folder, tmp_path / "task")))


@pytest.fixture
def definition(made):
    return schema.load_definition(made.folder / "task_definition.yaml")


def served(task, server, *flags):
    url = server if isinstance(server, str) else server.url
    return evaluate(task, "--backend", "openai", "--base-url", url, "--model", "m", *flags)


def rows(task, split="validation"):
    return read_jsonl(task.folder / f"data/processed/{split}.jsonl")


def predictions(task):
    return read_jsonl(task.folder / FOLDER / "predictions.jsonl")


def failing(*answers):
    """by_topic, but the first requests get `answers`."""
    todo, lock = list(answers), threading.Lock()

    def answer(request):
        with lock:
            return todo.pop(0) if todo else by_topic(request)

    return answer


def failing_for(text, answer):
    """by_topic, but every request about `text` gets `answer`."""
    return lambda request: answer if text in request["messages"][-1]["content"] else by_topic(request)


# The same rows, the same prompt, the same numbers.


def test_a_served_model_answers_the_very_prompts_of_the_rows_and_is_scored_under_generate(task):
    task.edit_definition(prompt={"system": "Be brief."})
    task.ok("02_convert_format.py")
    with Server(by_topic) as server:
        outcome = served(task, server, "--set", "generation.max_new_tokens=7")
    assert (outcome.code, outcome.summary["run"]) == (0, "served/m")
    asked = [request["messages"] for request in server.requests]
    assert sorted(map(str, asked)) == sorted(str(row["prompt"]) for row in rows(task))
    assert {(r["model"], r["temperature"], r["max_tokens"]) for r in server.requests} == {("m", 0, 7)}
    metrics = task.json(f"{FOLDER}/metrics.json")
    assert (metrics["run"], metrics["decoding"], metrics["gate"]) == ("served/m", "generate", None)
    assert metrics["warnings"][0] == f"answered by m at {server.url}"
    assert metrics["metrics"]["parse_rate"]["value"] == 1.0
    found = predictions(task)
    assert [p["id"] for p in found] == [row["id"] for row in rows(task)]
    assert {p["raw_output"] for p in found} == {"利多", "「利空」。"} and {p["prediction"] for p in found} == {
        "good",
        "bad",
    }
    right = sum(p["prediction"] == p["gold"] for p in found) / len(found)
    assert metrics["metrics"]["accuracy"]["value"] == pytest.approx(right)
    assert {p.name for p in (task.folder / FOLDER).iterdir()} == {
        "metrics.json", "predictions.jsonl", "report.html", "report.md",
    }  # fmt: skip


def test_numbers_of_another_decoding_are_not_compared_and_it_is_said(task):
    with Server(by_topic) as server:
        outcome = served(task, server)
    assert any("not to be compared with results under score" in w["message"] for w in outcome.summary["warnings"])
    assert [c["against"] for c in task.json(f"{FOLDER}/metrics.json")["comparisons"]] == ["majority", "tfidf_logreg"]


@pytest.mark.parametrize(("decoding", "is_compared"), [("generate", True), ("score", False)])
def test_the_trained_run_is_compared_with_when_it_has_answered_by_the_same_decoding(task, decoding, is_compared):
    """The run's results are those of the majority baseline here: what counts is by which decoding they came."""
    task.edit_definition(evaluation={"decoding": "generate"})
    with Server(by_topic) as server:
        assert served(task, server).code == 0
        shutil.copytree(task.folder / "benchmarks/baselines/majority", task.folder / "benchmarks/baseline")
        file = task.folder / "benchmarks/baseline/validation/metrics.json"
        write_json(file, json.loads(file.read_text()) | {"run": "baseline", "decoding": decoding})
        outcome = served(task, server, "--force")
    assert ("baseline" in outcome.summary["metrics"]) == is_compared
    assert not any("not to be compared" in w["message"] for w in outcome.summary["warnings"])


def test_a_second_evaluation_asks_nothing_and_another_model_or_prompt_is_another_evaluation(task):
    with Server(by_topic, models=("m", "other")) as server:
        assert served(task, server).summary["status"] == "ok"
        n = len(server.requests)
        assert served(task, server).summary["status"] == "skipped"
        assert len(server.requests) == n
        assert served(task, server, "--set", "generation.max_new_tokens=3").summary["status"] == "ok"
        assert len(server.requests) == 2 * n


def test_several_requests_are_sent_at_once(task):
    def slow(request):
        time.sleep(0.02)
        return by_topic(request)

    with Server(slow) as server:
        assert served(task, server, "--parallel", "6").code == 0
    assert 2 <= server.most_at_once <= 6


def test_a_look_at_test_by_a_served_model_is_recorded(task):
    with Server(by_topic) as server:
        assert served(task, server, "--split", "test").code == 0
    (look,) = read_jsonl(task.folder / "benchmarks/test_looks.jsonl")
    found = task.json("benchmarks/served/m/test/metrics.json")
    assert (look["run"], look["identity"], look["value"]) == ("served/m", found["identity"], found["primary"]["value"])


def test_rows_of_train_are_not_sent(task):
    train = rows(task, "train")
    write_jsonl(task.folder / "data/processed/validation.jsonl", [*rows(task), train[0]])
    manifest = task.json("data/processed/manifest.json")
    manifest["files"]["validation"] = sha256_of(task.folder / "data/processed/validation.jsonl")
    write_json(task.folder / "data/processed/manifest.json", manifest)
    with Server(by_topic) as server:
        outcome = served(task, server)
    assert (outcome.code, outcome.summary["errors"][0]["code"], server.requests) == (3, "rows_in_train", [])


# What goes wrong.


def test_requests_that_fail_for_a_while_are_sent_again_and_counted(task):
    wrong = [error(429, "slow down", **BUSY), error(500, "oops", **BUSY), (200, {}, "no JSON")]
    with Server(failing(*wrong)) as server:
        outcome = served(task, server, "--parallel", "1")
    assert outcome.code == 0 and len(server.requests) == 24 + 3
    metrics = task.json(f"{FOLDER}/metrics.json")
    assert (metrics["n_retries"], metrics["n_failed"]) == (3, 0)
    assert outcome.summary["counts"]["retries"] == 3
    assert "3 requests were sent again" in metrics["warnings"]
    assert all(p["parsed"] for p in predictions(task))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (error(503, "overloaded", **BUSY), "HTTP 503 5 times: overloaded"),
        (error(400, "too long"), "HTTP 400: too long"),
    ],
)
def test_a_row_that_is_never_answered_counts_as_unparsed_with_the_reason(task, answer, said):
    text = rows(task)[3]["record"]["text"]
    with Server(failing_for(text, answer)) as server:
        outcome = served(task, server)
    assert outcome.code == 0
    found = predictions(task)
    unparsed = [p for p in found if not p["parsed"]]
    assert [p["id"] for p in unparsed] == [rows(task)[3]["id"]]
    assert said in unparsed[0]["raw_output"] and unparsed[0]["prediction"] is None
    metrics = task.json(f"{FOLDER}/metrics.json")
    assert (metrics["n_failed"], metrics["metrics"]["parse_rate"]["value"]) == (1, pytest.approx(23 / 24))
    assert any("1 of 24 rows got no answer" in w["message"] for w in outcome.summary["warnings"])


@pytest.mark.parametrize("answer", [error(503, "overloaded", **BUSY), error(400, "no such parameter")])
def test_when_no_row_is_answered_nothing_is_scored_and_the_next_call_begins_anew(task, answer):
    with Server(lambda request: answer) as server:
        outcome = served(task, server)
        (problem,) = outcome.summary["errors"]
        assert (outcome.code, problem["code"], problem["field"]) == (4, "no_answers", "--base-url")
        assert answer[2].split('"')[-2] in problem["message"]
        assert not (task.folder / FOLDER / "metrics.json").exists()
        server.answer = by_topic
        assert served(task, server).summary["counts"]["answered"] == 24
    assert task.json(f"{FOLDER}/metrics.json")["n_failed"] == 0


@pytest.mark.parametrize(
    ("url", "code", "field"),
    [("http://127.0.0.1:9/v1", "endpoint_down", "--base-url"), ("ftp://x/v1", "bad_endpoint", "--base-url")],
)
def test_an_address_where_nobody_answers_is_told_by_its_own_flag(task, monkeypatch, url, code, field):
    monkeypatch.setattr(endpoint, "ATTEMPTS", 1)
    outcome = served(task, url)
    (problem,) = outcome.summary["errors"]
    assert (outcome.code in (2, 4), problem["code"], problem["field"]) == (True, code, field)
    assert "--endpoint" not in problem["hint"]


def test_a_server_that_breaks_down_on_the_way_stops_the_evaluation_which_then_goes_on(task):
    """Rows that failed last may have failed for the server's sake: they are asked again."""
    n, lock = [0], threading.Lock()

    def broken_after_4(request):
        with lock:
            n[0] += 1
        return by_topic(request) if n[0] <= 4 else error(502, "bad gateway", **BUSY)

    with Server(broken_after_4) as server:
        outcome = served(task, server, "--parallel", "1", "--set", "generation.max_new_tokens=5")
        assert (outcome.code, outcome.summary["errors"][0]["code"]) == (4, "no_answers")
        answered = server.asked[:4]
        server.answer = by_topic
        server.requests.clear()
        assert served(task, server, "--set", "generation.max_new_tokens=5").code == 0
    assert len(server.requests) == 20 and not set(server.asked) & set(answered)
    assert task.json(f"{FOLDER}/metrics.json")["n_failed"] == 0


def test_a_slow_server_is_given_up_row_by_row(definition):
    def slow(request):
        time.sleep(0.5 if "slow" in request["messages"][-1]["content"] else 0)
        return "利多"

    conversations = [[{"role": "user", "content": text}] for text in ("a", "slow", "b")]
    with Server(slow) as server:
        client = backends.Client(server.url, "m", None, timeout_s=0.1, max_tokens=5, delay_s=0.01)
        found = dict(pair for positions, batch in backends.by_endpoint(definition, client, conversations, 2)
                     for pair in zip(positions, batch, strict=True))  # fmt: skip
    assert [found[row].failed for row in range(3)] == [False, True, False]
    assert "no answer in 0.1 s" in found[1].raw_output
    assert sum(answer.n_retries for answer in found.values()) == endpoint.ATTEMPTS - 1


def test_rows_left_from_an_earlier_call_may_all_fail_but_twenty_in_a_row_are_the_servers_fault(definition):
    conversations = [[{"role": "user", "content": str(number)}] for number in range(25)]
    with Server(lambda request: error(500, "oops", **BUSY)) as server:

        def ask(n):
            client = backends.Client(server.url, "m", None, timeout_s=5, max_tokens=5, delay_s=0)
            return list(backends.by_endpoint(definition, client, conversations[:n], 4, any_before=True))

        ((positions, batch),) = ask(3)
        assert sorted(positions) == [0, 1, 2] and all(answer.failed for answer in batch)
        with pytest.raises(TaskError) as caught:
            ask(25)
    assert caught.value.exit_code == cli.ExitCode.PREREQUISITE


def test_parameters_that_the_endpoint_refuses_are_left_out_and_named(task):
    def strict(request):
        return error(400, "temperature is not supported") if "temperature" in request else by_topic(request)

    with Server(strict) as server:
        outcome = served(task, server)
    (said,) = [w["message"] for w in outcome.summary["warnings"] if "refused temperature" in w["message"]]
    assert said.endswith("answers may differ from run to run")
    assert task.json(f"{FOLDER}/metrics.json")["n_retries"] == 0


def test_a_killed_evaluation_asks_only_for_the_rest(task):
    from threading import Event

    several, go_on = Event(), Event()

    def slow(request):
        if len(server.requests) > 10:
            several.set()
            go_on.wait(30)
        return by_topic(request)

    with Server(slow) as server:
        flags = ["--backend", "openai", "--base-url", server.url, "--model", "m", "--parallel", "2"]
        script = str(task.folder / "scripts/04_evaluate.py")
        process = subprocess.Popen([sys.executable, script, *flags], env=environment(), stdout=-3, stderr=-3)
        assert several.wait(60)
        partial = task.folder / FOLDER / evaluation.PARTIAL
        while len(partial.read_text().splitlines()) < 1 + 8:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        go_on.set()
        done = {row for line in partial.read_text().splitlines()[1:] for row in json.loads(line)["positions"]}
        time.sleep(0.2)  # the requests that were under way
        server.requests.clear()
        outcome = served(task, server)
    texts = [row["record"]["text"] for row in rows(task)]
    assert 8 <= len(done) < 24
    assert sorted(server.asked) == sorted(text for number, text in enumerate(texts) if number not in done)
    assert (outcome.code, outcome.summary["counts"]["answered"]) == (0, 24 - len(done))
    assert all(p["parsed"] for p in predictions(task)) and not partial.exists()


# Keys and texts.


def test_the_key_reaches_the_server_and_no_file(task, monkeypatch):
    key = "sk-very-secret-5791"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    text = rows(task)[0]["record"]["text"]
    with Server(failing_for(text, error(400, f"nothing for {key}")), key=key) as server:
        outcome = served(task, server)
    assert outcome.code == 0 and server.headers[0]["Authorization"] == f"Bearer {key}"
    assert "***" in next(p["raw_output"] for p in predictions(task) if not p["parsed"])
    assert key not in json.dumps(outcome.summary)
    assert not [p for p in task.folder.rglob("*") if p.is_file() and key.encode() in p.read_bytes()]


def test_texts_leave_this_machine_only_when_that_is_allowed(task, monkeypatch):
    outcome = served(task, "http://endpoint.invalid/v1", "--dry-run")
    (problem,) = outcome.summary["errors"]
    assert (outcome.code, problem["code"]) == (2, "texts_leave_machine")
    assert "24 texts" in problem["message"] and "--allow-remote" in problem["hint"]
    with Server(by_topic) as server:
        monkeypatch.setattr(endpoint, "is_local", lambda url: False)
        assert served(task, server).code == 2 and server.requests == []
        outcome = served(task, server, "--allow-remote")
    assert outcome.code == 0 and outcome.summary["warnings"][0]["code"] == "texts_leave_machine"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--backend", "openai", "--model", "m"], "needs --base-url"),
        (["--backend", "openai", "--base-url", "http://localhost/v1"], "needs --model"),
        (["--base-url", "http://localhost/v1"], "--base-url has no meaning without --backend openai"),
        (["--allow-remote"], "--allow-remote has no meaning"),
        (["--backend", "vllm", "--seeds", "2"], "--seeds has no meaning with --backend vllm"),
        (["--baselines-only", "--seeds", "2"], "--seeds has no meaning with --baselines-only"),
    ],
)
def test_flags_that_mean_nothing_together_are_refused(task, flags, said):
    outcome = evaluate(task, *flags)
    assert outcome.code == 2 and said in outcome.summary["errors"][0]["message"]


# Real engines.


@pytest.mark.slow
def test_a_real_model_behind_a_real_engine_is_evaluated_on_the_same_rows(task):
    """llama.cpp's own server with SmolLM2: it follows the protocol, whatever its answers are worth."""
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    from tasklib.model import builtin

    model = builtin.find_source(builtin.MODELS["smollm2-135m"])
    engine = subprocess.Popen(
        [sys.executable, "-c", ENGINE.replace("n_threads = 2", "n_threads = 1"), str(model)], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8", env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        url = engine.stdout.readline().strip() + "/v1"
        outcome = served(task, url, "--limit", "6", "--parallel", "2", "--set", "generation.max_new_tokens=8")
    finally:
        engine.kill()
        engine.wait()
    assert outcome.code == 0, outcome.summary
    found = predictions(task)
    assert [p["id"] for p in found] == [row["id"] for row in rows(task)[:6]]
    assert all(p["raw_output"] for p in found)  # the model said something about each row
    metrics = task.json(f"{FOLDER}/metrics.json")
    assert metrics["metrics"]["parse_rate"]["value"] == pytest.approx(sum(p["parsed"] for p in found) / 6)


def test_without_vllm_its_backend_says_how_to_install_it(task):
    if importlib.util.find_spec("vllm"):
        pytest.skip("vllm is installed")
    outcome = evaluate(task, "--backend", "vllm")
    (problem,) = outcome.summary["errors"]
    assert (outcome.code, problem["code"]) == (4, "package_missing") and "uv pip install vllm" in problem["hint"]


class FakeVllm:
    """Answers with the number of tokens that it was given, in vLLM's own shapes."""

    def __init__(self):
        self.LLM, self.SamplingParams, self.calls = self.llm, dict, []

    def llm(self, **arguments):
        self.calls.append(arguments)
        return self

    def generate(self, prompts, sampling, *, lora_request, use_tqdm):
        self.calls.append((prompts, sampling, lora_request))
        return [
            types.SimpleNamespace(outputs=[types.SimpleNamespace(text=f"利多 {len(p['prompt_token_ids'])}\n")])
            for p in prompts
        ]


@pytest.mark.slow
def test_what_vllm_gets_is_what_training_rendered_and_its_answers_are_parsed(definition, tiny_model, monkeypatch):
    """A stand-in for vLLM, which is not at hand: it shows what is asked of it, not that it answers."""
    fake, lora = FakeVllm(), types.SimpleNamespace(LoRARequest=lambda *arguments: arguments)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setitem(sys.modules, "vllm.lora.request", lora)
    monkeypatch.setattr(backends, "VLLM_CHUNK_ROWS", 2)
    document = {"schema_version": 1, "base_model": {"id": str(tiny_model)}, "adapter": {"type": "lora", "r": 12}}
    config = schema.check_config(documents.Document("c.yaml", document, {}, frozenset()))
    tokenizer = models.load_tokenizer(config.base_model)
    conversations = [[{"role": "user", "content": text}] for text in ("a", "b b b", "c")]
    found = dict(
        pair
        for positions, batch in backends.by_vllm(definition, config, Path("run"), tokenizer, conversations)
        for pair in zip(positions, batch, strict=True)
    )
    rendered = [prompts.render_prompt(tokenizer, messages) for messages in conversations]
    asked = [p["prompt_token_ids"] for call in fake.calls[1:] for p in call[0]]
    assert asked == [prompts.token_ids(tokenizer, text) for text in rendered]
    assert [found[row].prediction for row in range(3)] == ["good"] * 3
    assert found[1].raw_output == f"利多 {len(asked[1])}"
    assert (fake.calls[0]["max_lora_rank"], fake.calls[1][2]) == (16, ("adapter", 1, "run/adapter"))
    _, sampling, _ = fake.calls[1]
    assert sampling["temperature"] == 0 and sampling["stop_token_ids"] == [tokenizer.eos_token_id]


@pytest.mark.slow
def test_vllm_answers_as_transformers_does(tiny_model, tmp_path):
    pytest.importorskip("vllm", reason="vllm is not installed")
    task = make_task(tmp_path / "task", tiny_model)
    task.edit_definition(evaluation={"decoding": "generate"})
    task.ok("03_train.py")
    task.ok("04_evaluate.py")
    task.ok("04_evaluate.py", "--backend", "vllm")
    own, other = (
        [p["raw_output"] for p in read_jsonl(task.folder / f"benchmarks/{name}/validation/predictions.jsonl")]
        for name in ("baseline", "served/vllm-baseline")
    )
    assert own == other
