"""An OpenAI-compatible chat endpoint: many questions at once, retries where they help, failures told in words."""

from __future__ import annotations

import datetime
import email.utils
import ipaddress
import json
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError

ATTEMPTS = 5
FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 60.0  # 0.5, 1, 2, 4 s between attempts; a server may ask for up to a minute
MAX_ANSWER_BYTES = 10_000_000
MAX_REFUSED = 20  # texts refused before the first answer: then it is the request, not the texts
THOUGHTS = re.compile(r"^.*</think>", re.DOTALL)  # of a server that leaves them in the answer


class Refused(Exception):
    """The server will not answer this one text: HTTP 400, 413 or 422 with the server's reason."""


class _Failure(Exception):
    """One attempt went wrong in a way that may pass. `delay_s` is what the server asked for."""

    def __init__(self, problem: Problem, delay_s: float | None = None) -> None:
        super().__init__(problem.message)
        self.problem, self.delay_s = problem, delay_s


def checked_url(url: str) -> str:
    """The address without a slash at its end. Raises TaskError (exit 2) for what is no address of an endpoint."""
    address, problem = url.strip().rstrip("/"), None
    try:
        parts = urlsplit(address)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        problem = "not an http(s) address"
    elif parts.username or parts.password:
        problem = "holds a user name or password; keys come from the environment variable OPENAI_API_KEY alone"
        url = f"{parts.scheme}://…@{parts.hostname}"
    elif parts.query or parts.fragment or parts.path.endswith("/completions"):
        problem = "more than the base address"
    if problem:
        hint = "give the address up to /v1, e.g. http://localhost:11434/v1"
        raise TaskError(
            ExitCode.USAGE, [Problem(code="bad_endpoint", message=f"{url}: {problem}", field="--endpoint", hint=hint)]
        )
    return address


def is_local(url: str) -> bool:
    """Whether texts sent there stay on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@dataclass(frozen=True)
class Reply:
    """One answer. `finish_reason` and `prompt_tokens` are None where the server does not tell."""

    text: str
    finish_reason: str | None
    prompt_tokens: int | None


WITHOUT = {  # what it means that a server does not take a parameter
    "temperature": "answers may differ from run to run",
    "max_tokens": "answers end where the server ends them",
    "response_format": "answers are not forced to follow the schema",
}


class Client:
    """One model at one endpoint. `dropped` names the optional parameters that the server refused. With a `schema` the
    server is asked for answers that follow it.

    Certificates are always verified, redirects never followed: they would carry the key to another address.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key: str | None,
        *,
        timeout_s: float,
        max_tokens: int,
        schema: dict[str, Any] | None = None,
        delay_s: float = FIRST_DELAY_S,
    ) -> None:
        import httpx2

        if key is not None and not (key.isascii() and key.isprintable()):
            message, hint = "OPENAI_API_KEY holds characters that no key has", "copy the key again, without line breaks"
            raise TaskError(ExitCode.USAGE, [Problem(code="bad_key", message=message, hint=hint)])
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.url, self.model, self.timeout_s, self.delay_s = checked_url(url), model, timeout_s, delay_s
        self.optional: dict[str, Any] = {"temperature": 0, "max_tokens": max_tokens}
        if schema is not None:
            asked = {"name": "answer", "strict": True, "schema": schema}
            self.optional["response_format"] = {"type": "json_schema", "json_schema": asked}
        self.dropped: set[str] = set()
        self.stop = threading.Event()
        self._key = key
        try:
            self._http = httpx2.Client(headers=headers, timeout=timeout_s, limits=httpx2.Limits(max_connections=None))
        except (httpx2.InvalidURL, ValueError) as error:  # of a proxy in the environment
            raise self._fatal(
                "bad_proxy", str(error), "correct HTTP_PROXY and HTTPS_PROXY in the environment"
            ) from None

    def check(self) -> None:
        """Asks for the list of models. Raises TaskError (exit 4) when nobody answers or the key is wrong; a server
        without such a list is fine."""
        try:
            status, body, _ = self._send("GET", "/models")
        except _Failure as failure:
            raise TaskError(ExitCode.PREREQUISITE, [failure.problem]) from None
        if status == 401:
            raise self._of_status(status, body)

    def ask(self, messages: Sequence[dict[str, str]]) -> str:
        """The text of `reply`."""
        return self.reply(messages).text

    def reply(self, messages: Sequence[dict[str, str]]) -> Reply:
        """The model's answer to one conversation. Raises Refused, and TaskError (exit 4) when all attempts failed."""
        attempt = 0
        while True:
            sent = [name for name in self.optional if name not in self.dropped]
            request = {"model": self.model, "messages": list(messages), **{name: self.optional[name] for name in sent}}
            try:
                return self._answer(request, sent)
            except _Failure as failure:
                attempt += 1
                delay_s = self.delay_s * 2 ** (attempt - 1) if failure.delay_s is None else failure.delay_s
                if attempt == ATTEMPTS or self.stop.wait(min(delay_s, LONGEST_DELAY_S)):
                    raise TaskError(ExitCode.PREREQUISITE, [failure.problem]) from None
            except _Dropped:
                pass

    def _answer(self, request: dict[str, Any], sent: list[str]) -> Reply:
        status, body, headers = self._send("POST", "/chat/completions", request)
        if status == 200:
            return self._content(body)
        if status in (408, 409, 425, 429) or status >= 500:
            said = self._said(body)
            problem = self._problem("endpoint_busy", f"HTTP {status} {ATTEMPTS} times: {said}", "try again later")
            raise _Failure(problem, _retry_after(headers.get("retry-after")))
        if status in (400, 413, 422):
            said = self._said(body)
            if refused := [name for name in sent if name in said]:
                self.dropped.update(refused)
                raise _Dropped
            raise Refused(f"HTTP {status}: {said}")
        raise self._of_status(status, body)

    def _send(self, method: str, path: str, request: Any = None) -> tuple[int, bytes, Any]:
        """One HTTP exchange: status, body, headers. Raises _Failure where nothing usable came back in time."""
        import httpx2

        deadline, body = time.monotonic() + self.timeout_s, b""
        try:
            with self._http.stream(method, self.url + path, json=request) as response:
                for piece in response.iter_bytes():
                    body += piece
                    if len(body) > MAX_ANSWER_BYTES:
                        raise self._fatal("bad_answer", "the answer is larger than 10 MB", "is it a chat endpoint?")
                    if time.monotonic() > deadline:
                        raise httpx2.ReadTimeout("the answer came too slowly")
                return response.status_code, body, response.headers
        except httpx2.TimeoutException:
            hint = "raise --timeout-s, lower --parallel, or look whether the server hangs"
            raise _Failure(self._problem("endpoint_timeout", f"no answer in {self.timeout_s:g} s", hint)) from None
        except httpx2.DecodingError as error:
            raise _Failure(self._problem("bad_answer", str(error), "is it a chat endpoint?")) from None
        except httpx2.TransportError as error:
            said = str(error) or type(error).__name__
            if "CERTIFICATE_VERIFY_FAILED" in said:
                hint = "if the endpoint has a certificate of your own authority, name its file in SSL_CERT_FILE"
                raise self._fatal("endpoint_certificate", said, hint) from None
            hint = "start the server, or correct --endpoint"
            raise _Failure(self._problem("endpoint_down", said, hint)) from None
        except httpx2.InvalidURL as error:
            raise self._fatal("bad_endpoint", str(error), "correct --endpoint", ExitCode.USAGE) from None

    def _content(self, body: bytes) -> Reply:
        """The first choice; an answer without text is an empty one."""
        try:
            answer = json.loads(body)
            choice, usage = answer["choices"][0], answer.get("usage")
            content, finish_reason = choice["message"].get("content"), choice.get("finish_reason")
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            shown = body[:80].decode("utf-8", "replace")
            hint = "--endpoint must be OpenAI-compatible: POST …/chat/completions answers with `choices`"
            raise _Failure(self._problem("bad_answer", f"not a chat completion: {shown!r}", hint)) from None
        text = THOUGHTS.sub("", content) if isinstance(content, str) else ""
        n_tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
        return Reply(text, finish_reason, n_tokens if isinstance(n_tokens, int) else None)

    def _of_status(self, status: int, body: bytes) -> TaskError:
        said = f"HTTP {status}: {self._said(body)}"
        if status in (401, 403):
            named = "the key in OPENAI_API_KEY was refused" if self._key else "set OPENAI_API_KEY in the environment"
            return self._fatal("key_rejected", said, named)
        if status == 404:
            hint = "check --model, and that --endpoint is the address up to /v1"
            return self._fatal("model_missing", f"{said} (model {self.model!r})", hint)
        if 300 <= status < 400:
            return self._fatal("endpoint_redirects", said, "give --endpoint the address that it redirects to")
        return self._fatal("endpoint_failed", said, "check --endpoint and --model")

    def _said(self, body: bytes) -> str:
        """The server's own words on one short line."""
        text = body.decode("utf-8", "replace")
        try:
            error = json.loads(text)
            error = error.get("error", error) if isinstance(error, dict) else error
            text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
        except (ValueError, RecursionError):
            pass
        return self._without_key(" ".join(text.split()))[:300] or "no reason given"

    def _fatal(self, code: str, message: str, hint: str, exit_code: ExitCode = ExitCode.PREREQUISITE) -> TaskError:
        return TaskError(exit_code, [self._problem(code, message, hint)])

    def _problem(self, code: str, message: str, hint: str) -> Problem:
        return Problem(code=code, message=f"{self.url}: {self._without_key(message)}", field="--endpoint", hint=hint)

    def _without_key(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _Dropped(Exception):
    """The server refused an optional parameter, which is left out from now on."""


def answers(
    client: Client, conversations: Sequence[Sequence[dict[str, str]]], parallel: int
) -> Iterator[tuple[int, str | Refused]]:
    """(position, answer) as they come, `parallel` requests at a time. Raises TaskError (exit 4) for the first failure
    that is not one text's own, or when the first 20 texts are all refused.

    The threads are daemons: an interrupted run ends at once and does not wait for a slow server.
    """
    todo: queue.SimpleQueue = queue.SimpleQueue()
    done: queue.SimpleQueue = queue.SimpleQueue()
    for item in enumerate(conversations):
        todo.put(item)

    def work() -> None:
        while not client.stop.is_set():
            try:
                position, messages = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((position, client.ask(messages)))
            except Refused as error:
                done.put((position, error))
            except Exception as error:  # the main thread raises it
                client.stop.set()
                done.put((position, error))

    for _ in range(min(parallel, len(conversations))):
        threading.Thread(target=work, daemon=True).start()
    n_refused, n_answered = 0, 0
    try:
        for _ in conversations:
            position, result = done.get()
            if isinstance(result, Exception) and not isinstance(result, Refused):
                raise result
            n_refused, n_answered = n_refused + isinstance(result, Refused), n_answered + isinstance(result, str)
            yield position, result
            if not n_answered and n_refused == min(MAX_REFUSED, len(conversations)):
                raise client._fatal("request_refused", f"{n_refused} texts: {result}", "check --model and --max-tokens")
    finally:
        client.stop.set()


def _retry_after(value: str | None) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date (RFC 9110, section 10.2.3)."""
    if value is None:
        return None
    if re.fullmatch(r"\s*\d+(\.\d+)?\s*", value):
        return float(value)
    try:
        when = email.utils.parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds()) if when.tzinfo else None
