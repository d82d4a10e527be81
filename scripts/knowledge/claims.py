"""What a page of references/ claims, looked up: API names, parameters, defaults, keys, flags, ids, sources, links."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from pathlib import Path

from knowledge import libraries, vocabulary
from knowledge.pages import Page, Span, load
from tasklib.summary import Problem

MAX_WORDS, MAX_INDEX_LINES = 1500, 60
BARE_CLASS = re.compile(r"^[A-Z][a-z0-9]\w*[a-z][A-Z]\w*$|^[A-Z][A-Za-z0-9]*(Config|Trainer|ForCausalLM)$")
SNAKE = re.compile(r"^[a-z][a-z0-9]*(_[a-z0-9]+)+$")
KEY_PATH = re.compile(r"^[a-z_]+(\.[a-z_0-9]+)+$")
HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
FILE = re.compile(r"\.(json|jsonl|ya?ml|py|sh|md|safetensors|gguf|txt|csv|toml|bin|jinja|html|png|log|pt|xlsx?)$")
ELSEWHERE = {"skypilot", "slurm", "ollama", "openssh", "rsync", "llama.cpp", "cuda", "vllm"}  # not in this environment
UNDATED = re.compile(r"最新|latest|目前最好|目前最強|state of the art", re.IGNORECASE)
SPOKEN_OF_TODAY = re.compile(r"20\d\d")


def faults(root: Path) -> tuple[list[Problem], dict[str, int]]:
    """What is false or broken in the pages below `root`, and how many claims of each kind were looked up."""
    pages, problems, counts = load(root), [], dict.fromkeys(KINDS, 0)
    for page in pages:
        problems += [*_form(page), *looked_up(page, counts)]
        problems += _unreached(page, pages) if page.is_index else _front_matter(page)
    return problems, counts


def looked_up(page: Page, counts: dict[str, int]) -> Iterator[Problem]:
    """What is false in the links, code spans and blocks of any page; adds to `counts`, one number for each of KINDS."""
    yield from _links(page)
    for span in page.spans():
        kind = "code" if _is_code_heading(page, span) else kind_of(span.text)
        if kind is not None:
            counts[kind] += 1
            yield from _judged(page, span, kind)
    yield from _blocks(page, counts)


KINDS = ("api", "class", "word", "key", "flag", "id", "file", "code", "yaml", "python")


def kind_of(text: str) -> str | None:
    """What a code span claims; None where there is nothing to look up."""
    if FILE.search(text):
        return "file" if re.match(r"^(scripts|references|templates)/\S+$", text) else None
    api = libraries.API.match(text)
    if api and api[1].split(".")[0] in libraries.PACKAGES and "." in api[1]:
        return "api"
    if api and BARE_CLASS.match(api[1]):
        return "class"
    if re.match(r"^--[a-z][\w-]*$", text):
        return "flag"
    word = text.partition("=")[0]
    if SNAKE.match(word):
        return "word"
    if KEY_PATH.match(word) and not _is_module(word):
        return "key"
    return "id" if HUB_ID.match(text) and not re.match(r"^[a-z_]+/[a-z_]+$", text) else None


def _judged(page: Page, span: Span, kind: str) -> Iterator[Problem]:
    wrong = JUDGES[kind](span.text)
    if wrong and not span.is_denied:
        yield from (_problem(page, "false_claim", message, span.line) for message in wrong)
    elif span.is_denied and not wrong:
        yield _problem(page, "false_claim", f"{span.text} is struck out, and it is so", span.line)


def _api(text: str) -> list[str]:
    name, arguments = libraries.API.match(text).groups()
    found = libraries.find(name)
    if found is libraries.MISSING:
        return [f"{name} does not exist in the installed {name.split('.')[0]}"]
    return libraries.faults_of_claim(name, arguments, found)


def _class(text: str) -> list[str]:
    name, arguments = libraries.API.match(text).groups()
    found = libraries.find_exported(name)
    if found is not libraries.MISSING:
        return libraries.faults_of_claim(name, arguments, found)
    if arguments is None and (name in vocabulary.words() or name in libraries.model_words(vocabulary.model_types())):
        return []
    return [f"{name} is exported by none of {', '.join(libraries.PACKAGES)}: write its import path"]


def _word(text: str) -> list[str]:
    word = text.partition("=")[0]
    known = (
        word in vocabulary.words()
        or vocabulary.is_built(word)
        or word in libraries.training_words()
        or word in vocabulary.model_types()
    )
    if known or word in libraries.trainer_words() or word in libraries.model_words(vocabulary.model_types()):
        return []
    return [f"{word} is no parameter, key, field, code or module that is known"]


def _key(text: str) -> list[str]:
    path = text.partition("=")[0]
    wrong = vocabulary.faults_of_key(path)
    if path.split(".")[0] in ("training", "adapter"):
        return wrong
    first = path.split(".")[0]
    is_of_a_record = all(part in vocabulary.words() for part in path.split("."))  # of run.json, metrics.json
    is_module = "_" in first and first in libraries.model_words(vocabulary.model_types())
    return [] if is_of_a_record or is_module else wrong


def _flag(text: str) -> list[str]:
    return [] if text in vocabulary.flags() else [f"no script has the flag {text}"]


def _id(text: str) -> list[str]:
    known = text in vocabulary.catalog_ids()
    return [] if known or (vocabulary.BUNDLE / text).exists() else [f"{text} stands in no catalog"]


def _file(text: str) -> list[str]:
    places = (vocabulary.BUNDLE, vocabulary.SCRIPTS / "task")
    name = text.removeprefix("scripts/")
    found = any((place / path).exists() for place in places for path in (text, name))
    return [] if found or name == "run_pipeline.sh" or re.search(r"[<*…]", text) else [f"{text} does not exist"]


def _code(text: str) -> list[str]:
    return [] if text in vocabulary.codes() or vocabulary.is_built(text) else [f"{text} is no code of the scripts"]


def _is_code_heading(page: Page, span: Span) -> bool:
    """The headings of troubleshooting/ are what the scripts call their problems."""
    return page.name.startswith("troubleshooting/") and page.prose.split("\n")[span.line - 1].startswith("### ")


JUDGES = {
    "api": _api,
    "class": _class,
    "word": _word,
    "key": _key,
    "flag": _flag,
    "id": _id,
    "file": _file,
    "code": _code,
}


def _blocks(page: Page, counts: dict[str, int]) -> Iterator[Problem]:
    for block in page.blocks():
        if block.language in ("yaml", "yml"):
            counts["yaml"] += 1
            for message in vocabulary.faults_of_yaml(block.text):
                yield _problem(page, "illegal_yaml", message, block.line)
        elif block.language == "python":
            counts["python"] += 1
            for line, message in libraries.faults_of_code(block.text):
                yield _problem(page, "false_code", message, block.line + line)


def _front_matter(page: Page) -> Iterator[Problem]:
    found = page.front_matter
    if found is None:
        yield _problem(page, "front_matter", "there is none: last_verified, applies_to, sources", 1)
        return
    if set(found) != {"last_verified", "applies_to", "sources"}:
        yield _problem(page, "front_matter", f"has {', '.join(found)}; legal: last_verified, applies_to, sources", 1)
        return
    verified = found["last_verified"]
    if not isinstance(verified, datetime.date) or verified > datetime.date.today() + datetime.timedelta(days=1):
        yield _problem(page, "front_matter", f"last_verified is no day that has been: {verified!r}", 1)
    for part in filter(None, (piece.strip() for piece in str(found["applies_to"]).split(","))):
        package, _, tested = part.partition(" ")
        installed = libraries.version(package)
        if installed is None and package not in ELSEWHERE:
            yield _problem(page, "front_matter", f"applies to {package}, which is not installed", 1)
        elif installed not in (None, tested):
            yield _problem(page, "other_version", f"applies to {part}, installed is {installed}: read it again", 1)
    if not isinstance(found["sources"], list) or not found["sources"]:
        yield _problem(page, "front_matter", "sources is empty: a claim without a source is not written", 1)
        return
    for source in map(_source, found["sources"]):
        package = libraries.SOURCE.fullmatch(source)
        of_package = package is not None and libraries.source_exists(package[1], package[3])
        if not (source.startswith("https://") or of_package or (vocabulary.BUNDLE / source).is_file()):
            yield _problem(page, "front_matter", f"is no address and no file of an installed package: {source}", 1)


def _source(written: object) -> str:
    """`trl 1.16: trainer/x.py` without quotes is a mapping in YAML."""
    pair = next(iter(written.items())) if isinstance(written, dict) and len(written) == 1 else None
    return f"{pair[0]}: {pair[1]}" if pair else str(written)


def _form(page: Page) -> Iterator[Problem]:
    n_words, n_lines = page.n_words(), page.text.count("\n")
    if page.is_index and n_lines > MAX_INDEX_LINES:
        yield _problem(page, "too_long", f"{n_lines} lines, at most {MAX_INDEX_LINES}", None)
    if n_words > MAX_WORDS:
        yield _problem(page, "too_long", f"about {n_words} words, at most {MAX_WORDS}", None)
    for number, line in enumerate(page.prose.split("\n"), 1):
        if UNDATED.search(re.sub(r"`[^`]*`", "", line)) and not SPOKEN_OF_TODAY.search(line):
            yield _problem(page, "undated", f"says {UNDATED.search(line)[0]!r} without a date", number)


def _links(page: Page) -> Iterator[Problem]:
    for link in page.links():
        target, _, anchor = link.text.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.path.parent / target).resolve() if target else page.path
        if not path.exists():
            yield _problem(page, "dead_link", f"{link.text} leads nowhere", link.line)
        elif anchor and path.suffix == ".md":
            linked = Page(path, path.name, path.read_text(encoding="utf-8"))
            if anchor not in linked.anchors():
                yield _problem(page, "dead_link", f"{target or page.path.name} has no heading #{anchor}", link.line)


def _unreached(index: Page, pages: list[Page]) -> Iterator[Problem]:
    """Pages beside an index, and indexes of folders below it, that it does not link; links that do not say when."""
    folder = index.path.parent
    linked = {(folder / link.text.partition("#")[0]).resolve() for link in index.links()}
    for page in pages:
        beside = page.path.parent == folder and page is not index
        below = page.is_index and page.path.parent.parent == folder
        if (beside or below) and page.path.resolve() not in linked:
            yield _problem(index, "not_reached", f"does not link {page.path.relative_to(folder)}", None)
    for line in re.findall(r"^\|\s*\[.*\|\s*\|?\s*$", index.text, re.MULTILINE):
        if re.fullmatch(r"\|[^|]*\|\s*\|?\s*", line):
            yield _problem(index, "not_reached", f"does not say when to read it: {line.strip()}", None)


def _is_module(word: str) -> bool:
    """`model.layers` and the like: module paths inside a model, not keys."""
    return word.split(".")[0] in ("model", "layers", "self_attn", "mlp", "language_model", "base_model", "lm_head")


def _problem(page: Page, code: str, message: str, line: int | None) -> Problem:
    hint = {"other_version": "check the page against the installed version, then change applies_to and last_verified"}
    name = f"references/{page.name}"
    return Problem(code=code, message=message, file=name, line=line, hint=hint.get(code))
