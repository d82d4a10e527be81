"""Exports answer as the trained run does, and whatever would make them answer otherwise is found before anybody ships
them. Real converter, real llama.cpp engine, tiny real models."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import BUNDLE
from hub_server import Hub
from tasklib.export import contract, llama_cpp, ollama
from tasklib.files import read_json, write_json
from trainable_task import FULL, LEARNS, Outcome, Task, environment, make_task

pytestmark = pytest.mark.slow
TOOLS = llama_cpp.TOOLS


@pytest.fixture(scope="session")
def converter(tmp_path_factory) -> Path:
    """llama.cpp's converter, installed by the line that the error message gives."""
    from shutil import which

    folder = tmp_path_factory.mktemp("tools")
    if which("uv") is None:
        pytest.skip("uv is not on PATH: it installs llama.cpp's converter")
    (folder / "scripts").mkdir()
    shutil.copyfile(BUNDLE / "scripts/task/gguf_converter.txt", folder / "scripts/gguf_converter.txt")
    line = llama_cpp.INSTALL_CONVERTER.split("&&")[0]
    command = [*line.split(), "--python", sys.executable]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / TOOLS


@pytest.fixture(scope="module")
def learned(tiny_model, tmp_path_factory) -> Task:
    """A run that has learned its two answers: it stops by itself, and damage to it shows in its score."""
    where = tmp_path_factory.mktemp("learned") / "任務 one"
    task = make_task(where, tiny_model, n_rows=120, adapter=FULL, training=dict(LEARNS))
    task.ok("03_train.py")
    export(task, "--format", "merged")
    return task


@pytest.fixture(scope="module")
def with_gguf(learned, converter) -> Task:
    (learned.folder / TOOLS).parent.mkdir()
    (learned.folder / TOOLS).symlink_to(converter)
    assert export(learned, "--format", "gguf", "--quantize", "f16").code == 0
    return learned


@pytest.fixture
def copy(learned, tmp_path) -> Task:
    return Task(Path(shutil.copytree(learned.folder, tmp_path / "task", symlinks=True)))


def export(task: Task, *flags: str, **env: str) -> Outcome:
    return task.run("export_model.py", *flags, **env)


def folder(task: Task, name: str) -> Path:
    return task.folder / "models/baseline/exports" / name


def codes(outcome: Outcome) -> list[str]:
    return [problem["code"] for problem in outcome.summary["errors"]]


def reseal(where: Path) -> None:
    """Writes the contract of a changed export anew, as somebody does who edits one and knows about the hashes."""
    contract.seal(where, contract.read(where))


# --- merged and adapter ---


@pytest.mark.parametrize("adapter", [{"type": "lora"}, {"type": "dora"}, {"type": "qlora"}], ids=lambda a: a["type"])
def test_adapter_and_merged_export_answer_as_the_run_does(tiny_model, tmp_path, adapter):
    adapter |= {"r": 4, "lora_alpha": 64}
    task = make_task(tmp_path / "task", tiny_model, adapter=adapter, training={"num_train_epochs": 2, **HARD})
    task.ok("03_train.py")
    for name in ("adapter", "merged"):
        assert export(task, "--format", name).code == 0
    outcome = export(task, "--verify")
    systems = {system["name"]: system for system in task.json("models/baseline/exports/parity.json")["systems"]}
    assert [systems[name]["n_prompts_differ"] for name in ("adapter", "merged")] == [0, 0]
    assert systems["adapter"]["n_texts_differ"] == 0
    merged = read_json(folder(task, "merged") / "config.json")
    assert "quantization_config" not in merged and not list(folder(task, "merged").glob("adapter*"))
    if adapter["type"] != "qlora":  # there the run itself answers with a rounded base
        assert outcome.code == 0 and systems["merged"]["n_texts_differ"] == 0


HARD = {"learning_rate": 2e-2}  # large steps: an adapter that is lost changes every answer


def test_a_merged_run_on_a_4_bit_base_is_the_16_bit_base_plus_the_adapter(tiny_model, tmp_path):
    import torch
    from safetensors.torch import load_file

    adapter = {"type": "qlora", "r": 4, "lora_alpha": 64}
    task = make_task(tmp_path / "task", tiny_model, adapter=adapter, training={"num_train_epochs": 1, **HARD})
    task.ok("03_train.py")
    assert export(task, "--format", "merged").code == 0
    name = "model.layers.0.self_attn.q_proj"
    base = load_file(tiny_model / "model.safetensors")[f"{name}.weight"]
    lora = load_file(task.folder / "models/baseline/adapter/adapter_model.safetensors")
    b, a = (lora[f"base_model.model.{name}.lora_{side}.weight"].float() for side in "BA")
    delta = b @ a * (64 / 4)
    merged = load_file(folder(task, "merged") / "model.safetensors")[f"{name}.weight"]
    assert float(delta.abs().max()) > 1e-3
    torch.testing.assert_close(merged.float(), (base + delta).float(), atol=1e-5, rtol=1e-4)


def test_a_base_that_is_stored_in_4_bit_is_refused_with_the_reason(tiny_model, tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    base = tmp_path / "base-4bit"
    AutoModelForCausalLM.from_pretrained(tiny_model, quantization_config=nf4, device_map={"": "cpu"}).save_pretrained(
        base
    )
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(base)
    task = make_task(tmp_path / "task", base)
    task.ok("03_train.py")
    outcome = export(task, "--format", "merged")
    assert (outcome.code, codes(outcome)) == (2, ["merge_into_quantized_base"])
    assert not folder(task, "merged").exists()


def test_a_second_export_is_skipped_and_a_third_with_force_is_not(copy):
    assert export(copy, "--format", "merged").summary["status"] == "skipped"
    (folder(copy, "merged") / contract.NAME).write_text("{")
    assert export(copy, "--format", "merged").summary["status"] == "ok"  # a torn contract: it is made again
    assert export(copy, "--format", "merged", "--force").summary["status"] == "ok"


def test_the_contract_names_prompt_stop_labels_decoding_and_every_file(learned):
    where = folder(learned, "merged")
    found = contract.read(where)
    assert set(found.files) == {path.name for path in where.iterdir()} - {contract.NAME}
    assert (found.stop, found.labels) == (["<|im_end|>"], {"good": "利多", "bad": "利空"})
    assert found.decoding.max_new_tokens == 6 and found.example.prompt.endswith("<|im_start|>assistant\n")
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in found.files)
    generation = read_json(where / "generation_config.json")
    assert generation["do_sample"] is False and generation["eos_token_id"] == found.stop_token_ids


def test_an_unfinished_run_is_exit_4_and_wrong_flags_are_exit_2(copy):
    shutil.rmtree(copy.folder / "models")
    assert codes(export(copy, "--format", "merged")) == ["run_not_finished"]
    for flags in (
        ["--quantize", "q8_0", "--format", "merged"],
        ["--base-url", "http://localhost:1/v1", "--verify"],
    ):
        assert export(copy, *flags).code == 2


def test_texts_do_not_leave_this_machine_unless_somebody_says_that_they_may(learned):
    elsewhere = ("--base-url", "http://example.com/v1", "--model", "m")
    for outcome in (export(learned, "--verify", *elsewhere), learned.run("predict.py", *elsewhere, "訂單滿載")):
        assert (outcome.code, codes(outcome)) == (2, ["texts_leave_machine"])


# --- what is broken on purpose ---


def test_a_changed_template_is_found_by_its_hash_and_by_the_prompts_it_makes(copy):
    where = folder(copy, "merged")
    template = where / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>' + message", "<|im_start|> ' + message"))
    assert codes(export(copy, "--verify")) == ["export_damaged"]
    reseal(where)
    outcome = export(copy, "--verify")
    assert (outcome.code, outcome.summary["status"]) == (5, "gate_failed")
    assert "prompts differ from training" in outcome.summary["errors"][0]["message"]
    (system,) = [s for s in copy.json("models/baseline/exports/parity.json")["systems"] if s["name"] == "merged"]
    assert system["n_prompts_differ"] == system["n_rows"] and system["first_prompt"]["position"] == 1


def test_a_missing_stop_token_is_found_because_answers_do_not_end(copy):
    where = folder(copy, "merged")
    settings = read_json(where / "generation_config.json")
    write_json(where / "generation_config.json", settings | {"eos_token_id": 7})
    reseal(where)
    outcome = export(copy, "--verify")
    assert outcome.code == 5
    assert any("a stop token is missing" in problem["message"] for problem in outcome.summary["errors"])


def test_an_export_that_scores_worse_is_said_so_with_the_paired_test(copy):
    from safetensors.torch import load_file, save_file

    path = folder(copy, "merged") / "model.safetensors"
    weights = load_file(path)
    for name in weights:
        if "layers" in name:
            weights[name] *= 0
    save_file(weights, path, metadata={"format": "pt"})
    reseal(path.parent)
    outcome = export(copy, "--verify")
    assert outcome.code == 5 and "is worse than the run's by" in outcome.summary["errors"][-1]["message"]
    assert outcome.summary["metrics"]["merged"]["it_is"] == "worse"


def test_a_wrong_label_map_is_refused_by_prediction_and_by_the_check(copy):
    where = folder(copy, "merged") / contract.NAME
    write_json(where, read_json(where) | {"labels": {"good": "利空", "bad": "利多"}})
    for outcome in (copy.run("predict.py", "--export", "merged", "訂單滿載"), export(copy, "--verify")):
        assert (outcome.code, set(codes(outcome))) == (4, {"contract_differs"})
        assert "labels.good" in outcome.summary["errors"][0]["message"]


# --- GGUF in the real engine ---


def test_a_gguf_in_the_real_engine_gets_the_same_tokens_and_writes_the_same_text(with_gguf):
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    assert export(with_gguf, "--format", "gguf", "--quantize", "q8_0").code == 0
    outcome = export(with_gguf, "--verify")
    assert outcome.code == 0, outcome.summary
    systems = {s["name"]: s for s in with_gguf.json("models/baseline/exports/parity.json")["systems"]}
    assert {"run", "merged", "gguf-f16", "gguf-q8_0"} == set(systems)
    for name in ("gguf-f16", "gguf-q8_0"):
        found = systems[name]
        assert (found["prompt_check"], found["n_prompts_differ"], found["n_not_ended"]) == ("token_ids", 0, 0)
    assert systems["gguf-f16"]["n_texts_differ"] == 0
    guide = (with_gguf.folder / "docs/integration.md").read_text(encoding="utf-8")
    assert "gguf-q8_0" in guide and "延遲中位數" in guide


def test_the_builtin_model_s_tokens_are_those_of_llama_cpp():
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    from transformers import AutoTokenizer

    from tasklib.model import builtin, prompts

    tokenizer = AutoTokenizer.from_pretrained(builtin.folder("builtin:smollm2-135m"))
    texts = [
        "a\n\n2岁男童 2026年",
        "第12家\n 3.5%  x",
        "<|im_start|>user\n\n60年\n\n<|im_end|>",
        "EPS 達3.2元　全形空白\t\r\n",
    ]
    with llama_cpp.served(builtin.find_source(builtin.MODELS["smollm2-135m"]), n_ctx=256, n_parallel=1) as url:
        for text in texts:
            request = {"content": text, "add_special": False, "parse_special": True}
            assert llama_cpp.ask(url, "/tokenize", request)["tokens"] == prompts.token_ids(tokenizer, text), text


def test_prediction_is_the_same_by_the_run_by_exports_and_by_a_server(with_gguf):
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    texts = ["第7家公司訂單滿載", "第8家公司虧損擴大"]
    path = next(folder(with_gguf, "gguf-f16").glob("*.gguf"))
    answers = {"run": with_gguf.ok("predict.py", *texts)}
    for name in ("merged", "gguf-f16"):
        answers[name] = with_gguf.ok("predict.py", "--export", name, *texts)
    with llama_cpp.served(path, n_ctx=512, n_parallel=2) as url:
        answers["server"] = with_gguf.ok("predict.py", "--base-url", url, "--model", "m", *texts)
        evaluated = with_gguf.run("04_evaluate.py", "--backend", "openai", "--base-url", url, "--model", "m")
        compared = export(with_gguf, "--verify", "--base-url", url, "--model", "m", "--format", "merged")
    labels = {name: [p["prediction"] for p in found["outputs"]["predictions"]] for name, found in answers.items()}
    assert set(map(tuple, labels.values())) == {("good", "bad")}, labels
    assert evaluated.code == 0 and evaluated.summary["metrics"]["served/m"]["macro_f1"] == 1.0
    assert compared.code == 0 and compared.summary["metrics"]["served/m"]["prompts_differ"] == 0


KIND = '{% set messages = [{"role": "system", "content": "Be kind."}] + messages %}'


def test_a_server_that_injects_a_system_prompt_is_found(with_gguf, tmp_path):
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    template = (folder(with_gguf, "merged") / "chat_template.jinja").read_text(encoding="utf-8")
    script = (BUNDLE / "scripts/task/tasklib/export/xllamacpp_server.py").read_text(encoding="utf-8")
    script = script.replace("    server =", f"    params.chat_template = {KIND + template!r}\n    server =")
    (tmp_path / "server.py").write_text(script, encoding="utf-8")
    port, path = str(llama_cpp.free_port()), next(folder(with_gguf, "gguf-f16").glob("*.gguf"))
    command = [sys.executable, str(tmp_path / "server.py"), str(path), "512", "1", port]
    engine = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    try:
        llama_cpp.wait_until_healthy(engine, int(port), llama_cpp.Tail(engine), path)
        url = f"http://127.0.0.1:{port}/v1"
        outcome = export(with_gguf, "--verify", "--format", "merged", "--base-url", url, "--model", "kind")
    finally:
        engine.kill()
    assert outcome.code == 5
    assert "prompts differ from training" in outcome.summary["errors"][0]["message"]


def test_ollama_is_given_the_model_and_its_answers_are_compared(with_gguf, tmp_path):
    """The program is a stand-in that writes down how it was called; what answers is the real engine."""
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    program = tmp_path / "bin" / "ollama"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/called; pwd > {tmp_path}/where; [ "$FAILS" != yes ]\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    flags = ("--format", "ollama", "--quantize", "f16")
    with llama_cpp.served(next(folder(with_gguf, "gguf-f16").glob("*.gguf")), n_ctx=512) as url:
        found = export(with_gguf, *flags, "--verify", PATH=path, OLLAMA_HOST=url.removesuffix("/v1"))
    assert found.code == 0, found.summary
    assert found.summary["metrics"]["ollama-f16"]["prompts_differ"] == 0
    assert (tmp_path / "called").read_text() == "create tiny -f Modelfile\n"
    assert (tmp_path / "where").read_text().strip() == str(folder(with_gguf, "ollama-f16"))
    failed = export(with_gguf, *flags, PATH=path, FAILS="yes")
    assert (failed.code, codes(failed)) == (4, ["ollama_failed"])


@pytest.mark.skipif(shutil.which("ollama") is not None, reason="ollama is installed: it is asked itself")
def test_without_ollama_the_gguf_that_it_would_load_is_compared_instead(with_gguf):
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    found = export(with_gguf, "--format", "ollama", "--quantize", "f16", "--verify")
    assert [w["code"] for w in found.summary["warnings"]] == ["ollama_missing"]
    assert found.code == 0 and found.summary["metrics"]["gguf-f16"]["prompts_differ"] == 0


@pytest.mark.parametrize("format", ["gguf", "ollama"])
def test_a_comparison_that_no_engine_can_make_does_not_pass(with_gguf, monkeypatch, format):
    monkeypatch.setattr(llama_cpp, "has_engine", lambda: False)
    monkeypatch.setattr(ollama, "find", lambda: None)
    found = export(with_gguf, "--format", format, "--quantize", "f16", "--verify")
    assert (found.code, codes(found)) == (4, ["engine_missing"])


def test_a_truncated_gguf_is_found_by_its_hash_and_by_the_engine(with_gguf, tmp_path):
    task = Task(Path(shutil.copytree(with_gguf.folder, tmp_path / "task", symlinks=True)))
    path = next(folder(task, "gguf-f16").glob("*.gguf"))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert codes(task.run("predict.py", "--export", "gguf-f16", "訂單滿載")) == ["export_damaged"]
    cut = path.read_bytes()
    assert export(task, "--format", "gguf", "--quantize", "f16").summary["status"] == "ok"  # it is made again
    if importlib.util.find_spec("xllamacpp"):
        path.write_bytes(cut)
        reseal(path.parent)
        assert codes(task.run("predict.py", "--export", "gguf-f16", "訂單滿載")) == ["gguf_unreadable"]


def test_a_missing_tool_is_exit_4_with_the_line_that_installs_it(copy):
    (copy.folder / TOOLS).unlink(missing_ok=True)
    outcome = export(copy, "--format", "gguf", "--quantize", "q4_k_m", PATH="/usr/bin:/bin")
    assert outcome.code == 4 and "converter_missing" in codes(outcome)
    assert "uv pip install --no-deps --require-hashes" in outcome.summary["errors"][0]["hint"]
    if shutil.which("llama-quantize", path="/usr/bin:/bin") is None:
        assert "quantize_missing" in codes(outcome)
        assert "--target llama-quantize" in outcome.summary["errors"][-1]["hint"]


# --- what the integration guide says, and the Hub ---


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def test_the_guide_s_commands_for_transformers_llama_cpp_and_the_openai_client_work(with_gguf):
    pytest.importorskip("xllamacpp", reason="xllamacpp (the llama.cpp engine) is not installed")
    assert export(with_gguf, "--format", "gguf", "--quantize", "q8_0", "--verify").code == 0
    guide = (with_gguf.folder / "docs/integration.md").read_text(encoding="utf-8")
    transformers, openai = blocks(guide, "python")[1:3]
    (line,) = (x for block in blocks(guide, "bash") for x in block.splitlines() if "xllamacpp_server.py" in x)
    command = shlex.split(line.removeprefix("uv run --extra gguf python "))
    port = str(llama_cpp.free_port())
    command[-1] = port
    done = snippet(with_gguf, transformers)
    assert done.stdout.strip() in ("利多", "利空"), done.stderr
    engine = subprocess.Popen(
        [sys.executable, *command], cwd=with_gguf.folder, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=environment(),
    )  # fmt: skip
    try:
        llama_cpp.wait_until_healthy(engine, int(port), llama_cpp.Tail(engine), Path(command[1]))
        asked = snippet(with_gguf, openai.replace("localhost:8080", f"127.0.0.1:{port}"))
    finally:
        engine.kill()
    assert asked.stdout == done.stdout, asked.stderr


def snippet(task: Task, code: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code], cwd=task.folder, env=environment(), capture_output=True, text=True
    )


def test_a_download_from_the_hub_answers_as_the_run_does(copy, tmp_path):
    copy.edit_definition(hub={"repo_id": "me/tiny", "license": "apache-2.0"})
    copy.ok("04_evaluate.py")
    with Hub() as hub:
        own = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
        own |= {"HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "127.0.0.1"}
        outcome = copy.spawn("05_upload_hf.py", "--export", "merged", "--verify-download", **own)
        assert outcome.code == 0, (outcome.summary, outcome.stderr[-2000:])
        found = outcome.summary["metrics"]["download"]
        assert (found["prompts_differ"], found["texts_differ"], found["it_is"]) == (0, 0, "not_distinguishable")
        hub.corrupts = "chat_template.jinja"
        again = copy.spawn("05_upload_hf.py", "--export", "merged", "--verify-download", **own)
    assert (again.code, codes(again)) == (4, ["export_damaged"]), again.summary


def test_k_quants_are_written_by_llama_quantize(with_gguf):
    if llama_cpp.tool("llama-quantize") is None:
        pytest.skip("llama-quantize is not in LLAMA_CPP or on PATH")
    assert export(with_gguf, "--format", "gguf", "--quantize", "q4_k_m", "--verify").code in (0, 5)
    assert list(folder(with_gguf, "gguf-q4_k_m").glob("*q4_k_m.gguf"))


def test_a_converter_that_refuses_the_model_is_exit_4_with_its_words(copy, tmp_path):
    tool = tmp_path / "llama.cpp" / llama_cpp.CONVERTER
    tool.parent.mkdir()
    tool.write_text("import sys; sys.exit('ERROR: Model TinyForCausalLM is not supported')")
    outcome = export(copy, "--format", "gguf", "--force", LLAMA_CPP=str(tool.parent))
    assert (outcome.code, codes(outcome)) == (4, ["conversion_failed"])
    assert "is not supported" in outcome.summary["errors"][0]["message"]
    assert not list(folder(copy, "gguf-q8_0").parent.glob(".gguf*"))  # nothing half written stays


def test_json_is_exactly_one_object(learned):
    command = [sys.executable, str(learned.folder / "scripts/export_model.py"), "--json", "--format", "merged"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    assert json.loads(done.stdout)["stage"] == "export"
