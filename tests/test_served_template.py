"""What a server renders is what training rendered: the exported chat template, and the Go template made for Ollama,
which is compared with Go's own text/template."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from small_tokenizers import byte_level, sentencepiece_like
from tasklib import schema
from tasklib.documents import parse_yaml
from tasklib.export import contract, ollama, served_template
from tasklib.model import prompts
from tasklib.summary import TaskError

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    # as Qwen 2.5: a system prompt of its own
    "own system": "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}"
    "{% endif %}" + CHATML,
    # as Qwen 3: an empty thought behind the generation prompt when thinking is off
    "thinking": CHATML.replace(
        "assistant\n' }}",
        "assistant\n' }}{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}"
        "{% endif %}",
    ),
    # as Llama 3: headers that stay, and today's date
    "dated": "{{ '<|head|>Today: ' + strftime_now('%d %b %Y') + '\n' }}"
    "{% if messages[0].role == 'system' %}{{ messages[0].content }}{% endif %}{{ '<|eot|>' }}"
    "{% for m in messages if m.role != 'system' %}{{ '<|head|>' + m.role + '\n\n' + m.content + '<|eot|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|head|>assistant\n\n' }}{% endif %}",
    # as gpt-oss: the answer has a channel, which the generation prompt does not name
    "channel": "{% for m in messages %}{{ '<|start|>' + m.role + ('<|channel|>final' if m.role == 'assistant' else '') "
    "+ '<|message|>' + m.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start|>assistant' }}{% endif %}",
    # as Gemma 2: no system role
    "no system role": "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}{{ '<turn>' + m.role + '\n' + m.content + '<end>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<turn>assistant\n' }}{% endif %}",
    # what Go would take for an action of its own
    "braces": "{% for m in messages %}{{ '{{' + m.role + '}} ' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '{{assistant}} ' }}{% endif %}",
}
GO = """
package main

import (
	"encoding/json"
	"os"
	"text/template"
)

func main() {
	var in struct {
		Template, System string
		Messages         []struct{ Role, Content string }
	}
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		panic(err)
	}
	t := template.Must(template.New("").Option("missingkey=zero").Parse(in.Template))
	if err := t.Execute(os.Stdout, map[string]any{"System": in.System, "Messages": in.Messages}); err != nil {
		panic(err)
	}
}
"""


def definition(**prompt) -> schema.TaskDefinition:
    text = """
schema_version: 1
name: demo
task: {type: classification, labels: [a, b]}
prompt: {instruction: Judge.}
data: {files: {all: [a.csv]}, fields: {text: t, label: l}}
"""
    made = schema.check_definition(parse_yaml(text, "task_definition.yaml"))
    return made.model_copy(update={"prompt": made.prompt.model_copy(update=prompt)})


def tokenizer(name: str):
    made = byte_level()
    made.chat_template = TEMPLATES[name]
    return made


@pytest.fixture(scope="module")
def go(tmp_path_factory):
    """(template, messages) -> what Go's text/template makes of them, with the values that Ollama gives it."""
    if shutil.which("go") is None:
        pytest.skip("go is not installed")
    folder = tmp_path_factory.mktemp("go")
    (folder / "main.go").write_text(GO)
    environment = {"PATH": str(shutil.which("go")).rsplit("/", 1)[0], "HOME": str(folder), "GOFLAGS": "-mod=mod"}
    build = ["go", "build", "-o", "render", "main.go"]
    subprocess.run(build, cwd=folder, env=environment, check=True, capture_output=True)

    def rendered(template: str, messages: list[dict]) -> str:
        system = "\n\n".join(m["content"] for m in messages if m["role"] == "system")
        given = {
            "Template": template,
            "System": system,
            "Messages": [{k.title(): v for k, v in m.items()} for m in messages],
        }
        done = subprocess.run([folder / "render"], input=json.dumps(given), capture_output=True, text=True, check=True)
        return done.stdout

    return rendered


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("prompt", [{}, {"system": "Be 嚴謹.\n'quoted' \\ {{x}}"}], ids=["no system", "system"])
def test_the_exported_template_renders_training_s_prompt_without_arguments(name, prompt):
    made, task = tokenizer(name), definition(**prompt)
    if name == "no system role" and prompt:
        with pytest.raises(TaskError):
            served_template.served_template(made, task)
        return
    served = served_template.served_template(made, task)
    prefix = prompts.prefix_messages(task, [])
    for question in ("第三季毛利率\n下滑", "x"):
        messages = [*prefix, {"role": "user", "content": question}]
        wanted = prompts.render_prompt(made, messages)
        assert (
            made.apply_chat_template(messages, chat_template=served, tokenize=False, add_generation_prompt=True)
            == wanted
        )
        alone = made.apply_chat_template(
            messages[-1:], chat_template=served, tokenize=False, add_generation_prompt=True
        )
        assert alone == wanted  # the caller forgot the system message


@pytest.mark.parametrize("name", ["chatml", "no system role"])
def test_a_template_that_a_server_renders_as_it_is_stays_as_it_is(name):
    assert served_template.served_template(tokenizer(name), definition()) == TEMPLATES[name]


def test_a_template_that_nothing_can_fix_is_refused(monkeypatch):
    made = tokenizer("own system")
    monkeypatch.setattr(served_template, "_in_front", lambda *of: "")
    with pytest.raises(TaskError) as caught:
        served_template.served_template(made, definition())
    assert caught.value.problems[0].code == "template_not_servable"


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [None, "Be kind."], ids=["no system", "system"])
def test_ollama_s_template_renders_training_s_prompt_in_go_too(name, system, go):
    made, task = tokenizer(name), definition(**({"system": system} if system else {}))
    if name == "no system role" and system:
        return  # training refuses it
    template = ollama.go_template(made, task)
    messages = [*prompts.prefix_messages(task, []), {"role": "user", "content": "第三季 {{ .System }} 毛利率"}]
    wanted = prompts.render_prompt(made, messages)
    assert ollama.rendered(template, messages) == wanted
    assert go(template, messages) == wanted


@pytest.mark.parametrize("name", ["chatml", "thinking", "no system role"])
def test_conversations_of_several_turns_render_alike_too(name, go):
    made, task = tokenizer(name), definition(n_few_shot=2)
    template = ollama.go_template(made, task)
    turns = [("user", "一"), ("assistant", "a"), ("user", "二"), ("assistant", "b"), ("user", "三")]
    messages = [{"role": role, "content": text} for role, text in turns]
    wanted = prompts.render_prompt(made, messages)
    assert ollama.rendered(template, messages) == go(template, messages) == wanted


def test_bos_is_left_to_ollama_which_writes_it_by_itself(go):
    made = sentencepiece_like()
    made.chat_template = "{{ bos_token }}" + CHATML
    template = ollama.go_template(made, definition())
    messages = [{"role": "user", "content": "x"}]
    assert "<s>" not in template and "<s>" + go(template, messages) == prompts.render_prompt(made, messages)


@pytest.mark.parametrize(
    ("name", "prompt", "reason"),
    [
        ("thinking", {"enable_thinking": True}, "enable_thinking"),
        ("numbered", {"n_few_shot": 3}, "instead of"),
        ("chatml", {"system": "全形\u3000空白"}, "U+3000"),
        ("chatml", {"system": 'three """ quotes'}, "quotes"),
    ],
)
def test_what_ollama_cannot_express_is_refused_with_the_reason(name, prompt, reason, monkeypatch):
    numbered = "{% for m in messages %}{{ loop.index ~ m.role + m.content + '<|im_end|>' }}{% endfor %}"
    monkeypatch.setitem(TEMPLATES, "numbered", numbered + "{% if add_generation_prompt %}{{ 'answer: ' }}{% endif %}")
    made, task = tokenizer(name), definition(**prompt)
    of = contract_of(made, task)
    with pytest.raises(TaskError) as caught:
        ollama.modelfile(made, task, of, "m.gguf")
    assert caught.value.problems[0].code == "not_for_ollama" and reason in str(caught.value)


def contract_of(made, task) -> contract.Contract:
    return contract.Contract(
        task="t", run="baseline", identity="i", trained_at="now", format="ollama", quantization="q8_0", base_model="b",
        base_revision="main", max_length=512, stop=["<|im_end|>"], stop_token_ids=[1],
        decoding={"evaluated_by": "score", "max_new_tokens": 8},
        example={"messages": [], "prompt": "", "token_ids": []}, **contract.prompt_parts(task, made),
    )  # fmt: skip


def test_a_modelfile_says_what_ollama_would_otherwise_decide_by_itself():
    made, task = tokenizer("own system"), definition(system="Be kind.")
    text, template = ollama.modelfile(made, task, contract_of(made, task), "m.gguf")
    assert text.startswith('FROM ./m.gguf\nTEMPLATE """' + template + '"""\nSYSTEM """Be kind."""\n')
    for line in ('stop "<|im_end|>"', "temperature 0", "repeat_penalty 1", "num_predict 8", "num_ctx 2048"):
        assert f"PARAMETER {line}\n" in text
    assert "You are kind" not in text


def test_the_address_of_ollama_is_read_as_its_own_client_does(monkeypatch):
    for value, wanted in ((None, "http://127.0.0.1:11434/v1"), ("0.0.0.0", "http://127.0.0.1:11434/v1"),
                          ("box:99", "http://box:99/v1"), ("https://box", "https://box:11434/v1")):  # fmt: skip
        monkeypatch.delenv("OLLAMA_HOST", raising=False)
        if value:
            monkeypatch.setenv("OLLAMA_HOST", value)
        assert ollama.address() == wanted
