"""Fetches the files of a data set on the Hugging Face Hub, as they lie there: no code of a repository is ever run.

Which file belongs to which split follows the rules of `datasets` 5.2 (datasets/data_files.py): the `configs:` of the
card; else `data/<split>-00000-of-00001.*`; else folders named after a split; else files named after one; else all files
are one pool. Only files of data are looked at, so that `scripts/train.py` is not taken for a split.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NoReturn

from tasklib import documents
from tasklib.exit_codes import ExitCode
from tasklib.summary import Problem, TaskError
from tasklib.writing import hub

MAX_BYTES = 5 * 10**9
MAX_FILES = 1000
POOL = "all"
EXPORT = "refs/convert/parquet"  # the branch with the Hub's own Parquet copies: <config>/<split>/0000.parquet
SPEC = re.compile(r"(hub:)?(?P<repo>[^@:]+)(@(?P<revision>[^:@]+))?(:(?P<config>[^:/]+))?")

# Extension -> format, the favourite first: what `datasets` takes when several are equally frequent.
READABLE = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".ndjson": "json", ".csv": "table",
            ".tsv": "table", ".xlsx": "excel", ".xls": "excel", ".ods": "excel", ".txt": "text",
            ".conll": "text"}  # fmt: skip
NOT_READ = dict.fromkeys((".zip", ".gz", ".bz2", ".xz", ".zst", ".lz4", ".7z", ".rar", ".tar", ".tgz"), "an archive")
NOT_READ |= dict.fromkeys((".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"), "an image")
NOT_READ |= dict.fromkeys((".wav", ".mp3", ".flac", ".ogg", ".opus", ".m4a", ".mp4", ".webm", ".avi"), "audio or video")
NOT_READ |= dict.fromkeys((".pkl", ".pickle", ".pt", ".npy", ".npz"), "a binary that can run code when it is opened")
NOT_READ |= dict.fromkeys((".arrow", ".feather", ".lance", ".orc", ".avro", ".h5", ".hdf5", ".db", ".sqlite", ".pdf",
                           ".xml", ".conllu"), "another format")  # fmt: skip

# datasets.data_files: SPLIT_KEYWORDS, FILES_TO_IGNORE, and the patterns made of them for fsspec 2023.12 and later
KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
IGNORED = {"README.md", "config.json", "dataset_info.json", "dataset_infos.json", "dummy_data.zip", "dataset_dict.json"}
SHARDED = re.compile(r"data/(?P<split>[^/]*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
SEP = "[-._ 0-9]"
IN_FOLDER = ("**/{word}/**", "**/{word}{sep}*/**", "**/*{sep}{word}/**", "**/*{sep}{word}{sep}*/**")
IN_FILE = ("**/{word}{sep}*", "**/*{sep}{word}{sep}*")


@dataclass(frozen=True)
class HubData:
    """What was fetched.

    `files` maps "all", or train and perhaps validation and test, to files in the folder; `revision` is the commit that
    they are of. `license` and `card_language` are what the card claims, None and () where it is silent. `class_names`
    maps a column to the names of its numbers 0, 1, 2, …, where the card gives them. `left_out` names files of data in
    the repository that were not fetched.
    """

    files: dict[str, list[Path]]
    repo_id: str
    revision: str
    config: str | None
    license: str | None
    card_language: tuple[str, ...]
    class_names: dict[str, list[str]]
    left_out: list[str]


@dataclass(frozen=True)
class Spec:
    """`hub:owner/name[@revision][:config]`, taken apart."""

    text: str
    repo_id: str
    revision: str | None
    config: str | None


def fetch(spec: str, folder: Path, max_bytes: int = MAX_BYTES) -> HubData:
    """Downloads the files of one data set into `folder`, which is made, all of them or none.

    `spec` is `hub:owner/name[@revision][:config]`, where `hub:` may be missing; without a revision it is the newest
    commit of main. The size is told on stderr before the download. Raises TaskError: exit 2 for a spec that is wrong,
    for a choice that only a person can make (listed in `candidates`) and for data that is not read here; exit 4 when
    the Hub cannot be reached or does not hand the data out.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    wanted = parse_spec(spec)
    from huggingface_hub import HfApi, RepoFile, get_token

    with _reading(wanted, None):
        token = get_token()
    api = HfApi(library_name="finetune-llm")
    with _reading(wanted, token):
        info = api.dataset_info(wanted.repo_id, revision=wanted.revision)
        entries = api.list_repo_tree(info.id, recursive=True, revision=info.sha, repo_type="dataset")
        sizes = {entry.path: entry.size for entry in entries if isinstance(entry, RepoFile)}
        card = _card(api, info, sizes)
    _refuse_script(wanted, info.id, sizes)
    config, params = _config(wanted, card, sizes)
    splits, left_out = choose_files(wanted, params, sizes)
    paths = [path for split in splits.values() for path in split]
    _refuse_size(wanted, len(paths), sum(sizes[path] for path in paths), max_bytes)
    print(f"{wanted.text}: commit {info.sha[:12]}, {len(paths)} files, {_megabytes(paths, sizes)}", file=sys.stderr)
    with _reading(wanted, token):
        local = _download(api, info, paths, folder)
    return HubData(
        files={split: [local[path] for path in names] for split, names in splits.items()},
        repo_id=info.id,
        revision=info.sha,
        config=config,
        license=", ".join(_texts(card.get("license"))) or None,
        card_language=tuple(_texts(card.get("language"))),
        class_names=_class_names(card, config),
        left_out=left_out,
    )


def parse_spec(text: str) -> Spec:
    """Takes a spec apart. Raises TaskError: exit 2 when it is none, exit 4 without the package huggingface_hub."""
    try:
        from huggingface_hub.utils import HFValidationError, validate_repo_id
    except ModuleNotFoundError:
        problem = Problem(
            code="package_missing",
            message="the Python package huggingface_hub is not installed here",
            field="--data",
            hint="run the script with `uv run --with huggingface_hub==2.4.0 …`",
        )
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from None
    match = SPEC.fullmatch(text)
    form = "write hub:owner/name, hub:owner/name@revision or hub:owner/name@revision:config"
    if match is None:
        raise _refusal("hub_spec_illegal", f"{text!r} names no data set on the Hub", form)
    try:
        validate_repo_id(match["repo"])
    except HFValidationError as error:
        raise _refusal("hub_spec_illegal", " ".join(str(error).split()), form) from None
    return Spec(f"hub:{text.removeprefix('hub:')}", match["repo"], match["revision"], match["config"])


def choose_files(spec: Spec, params: dict[str, Any], paths: Iterable[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Split -> paths in the repository, and files of data that are left out. `params` is one of the card's `configs`,
    or empty. Raises TaskError (exit 2) for splits or formats that cannot be used as they are."""
    data = sorted(path for path in paths if _format(path) is not None)
    base = str(params.get("data_dir") or "").strip("./")
    base = f"{base}/" if base else ""
    inside = {path.removeprefix(base): path for path in data if path.startswith(base)}
    if params.get("data_files") is not None:
        found = {name: _matched(spec, patterns, list(inside)) for name, patterns in _patterns(spec, params).items()}
        if empty := [name for name, matched in found.items() if not matched]:
            raise _refusal("hub_no_files", f"{spec.text}: the card names no file of data for {', '.join(empty)}",
                           _download_hint(spec))  # fmt: skip
    else:
        found = _by_name(list(inside))
    found = {name: [inside[path] for path in matched] for name, matched in found.items()}
    _refuse_formats(spec, found)
    splits = _known_splits(spec, found, data)
    kept = _one_format(spec, splits)
    chosen = {path for split in kept.values() for path in split}
    considered = data if not params else [path for split in splits.values() for path in split]
    return kept, [path for path in considered if path not in chosen]


def _by_name(paths: list[str]) -> dict[str, list[str]]:
    """The splits that names of folders and files tell of; POOL where they tell of none."""
    sharded: dict[str, list[str]] = {}
    for path in paths:
        if match := SHARDED.fullmatch(path):
            sharded.setdefault(match["split"], []).append(path)
    if sharded:
        return sharded
    for templates in (IN_FOLDER, IN_FILE):
        found = {}
        for split, words in KEYWORDS.items():
            patterns = [template.format(word=word, sep=SEP) for word in words for template in templates]
            if matched := [path for path in paths if any(_matches(path, pattern) for pattern in patterns)]:
                found[split] = matched
        if found:
            return found
    pool = [path for path in paths if _matches(path, "**")]
    return {POOL: pool} if pool else {}


def _patterns(spec: Spec, params: dict[str, Any]) -> dict[str, list[str]]:
    """`data_files` of a card as split -> patterns: text, a list of texts, or a list of {split, path}."""
    value = params["data_files"]
    entries = value if isinstance(value, list) else [value]
    if entries and all(isinstance(entry, str) for entry in entries):
        return {POOL: entries}
    found: dict[str, list[str]] = {}
    for entry in entries:
        path = entry.get("path") if isinstance(entry, dict) else None
        patterns = [path] if isinstance(path, str) else path
        legal = isinstance(patterns, list) and patterns and all(isinstance(pattern, str) for pattern in patterns)
        if not legal or not isinstance(entry.get("split"), str) or entry["split"] in found:
            raise _refusal("hub_card_unreadable", f"{spec.text}: the card's data_files cannot be read: {entry!r}",
                           _download_hint(spec))  # fmt: skip
        found[entry["split"]] = patterns
    return found


def _matched(spec: Spec, patterns: list[str], paths: list[str]) -> list[str]:
    try:
        return [path for path in paths if any(_matches(path, pattern) for pattern in patterns)]
    except (ValueError, re.error) as error:
        raise _refusal("hub_card_unreadable", f"{spec.text}: the card's data_files cannot be read: {error}",
                       _download_hint(spec)) from None  # fmt: skip


def _matches(path: str, pattern: str) -> bool:
    """Whether datasets.data_files.resolve_pattern finds `path`: fsspec's glob, without hidden and special files unless
    the pattern names them."""
    pattern = pattern.removeprefix("./")
    if path != pattern and not _regex(pattern).match(path):
        return False
    name, wanted = PurePosixPath(path), PurePosixPath(pattern)
    if name.name in IGNORED and name.name != wanted.name:
        return False
    hidden = [sum(part.startswith(".") for part in parts) for parts in (name.parts, wanted.parts)]
    special = [sum(part.startswith("__") for part in each.parent.parts) for each in (name, wanted)]
    return hidden[0] == hidden[1] and special[0] == special[1]


@functools.cache
def _regex(pattern: str) -> re.Pattern[str]:
    from fsspec.utils import glob_translate

    return re.compile(glob_translate(pattern))


def _format(path: str) -> str | None:
    """What a file of data is, by its last extension; None for a file that is none."""
    extension = PurePosixPath(path.lower()).suffix
    return READABLE.get(extension) or NOT_READ.get(extension)


def _is_readable(path: str) -> bool:
    return PurePosixPath(path.lower()).suffix in READABLE


def _refuse_formats(spec: Spec, found: dict[str, list[str]]) -> None:
    files = [path for split in found.values() for path in split]
    if not files:
        hint = f"give files of {', '.join(READABLE)}"
        raise _refusal("hub_no_files", f"{spec.text} holds no file of data that could be read", hint)
    foreign = [path for path in files if not _is_readable(path)]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        named = ", ".join(f"{path} ({_format(path)})" for path in foreign[:3])
        message = f"{spec.text}: {named}{more}: not read here"
        raise _refusal("hub_format", message, f"{_download_hint(spec)}; read are {', '.join(READABLE)}")


def _known_splits(spec: Spec, found: dict[str, list[str]], data: list[str]) -> dict[str, list[str]]:
    """The splits under our names. Raises TaskError (exit 2) when one has another name, or when train is missing."""
    if list(found) == [POOL]:
        return found
    names = {word: split for split, words in KEYWORDS.items() for word in words}
    if unknown := [name for name in found if name not in names]:
        message = f"{spec.text} has splits other than train, validation and test: {', '.join(unknown)}"
        if len(unknown) < len(found):
            message += f" (beside {', '.join(name for name in found if name in names)})"
        raise _refusal("hub_splits", message, _download_hint(spec))
    renamed: dict[str, list[str]] = {}
    for name, files in found.items():
        if names[name] in renamed:
            message = f"{spec.text} has two splits that would both be {names[name]}: {', '.join(found)}"
            raise _refusal("hub_splits", message, _download_hint(spec))
        renamed[names[name]] = files
    if "train" not in renamed:
        named = {path for files in renamed.values() for path in files}
        rest = [path for path in data if _is_readable(path) and path not in named]
        message = f"{spec.text} has no train split, only {', '.join(found)}"
        message += f"; files of no split: {', '.join(rest[:5])}" if rest else ""
        raise _refusal("hub_splits", message, _download_hint(spec))
    counts = Counter(path for files in renamed.values() for path in files)
    if twice := [path for path, n in counts.items() if n > 1]:
        message = f"{spec.text}: {twice[0]} would be in two splits"
        raise _refusal("hub_splits", message, _download_hint(spec))
    return {split: renamed[split] for split in KEYWORDS if split in renamed}


def _one_format(spec: Spec, splits: dict[str, list[str]]) -> dict[str, list[str]]:
    """Files of one format: the most frequent, as `datasets` chooses, except that text files never outvote tables (they
    are licences and notes)."""
    order = list(dict.fromkeys(READABLE.values()))
    formats = Counter(_format(path) for files in splits.values() for path in files)
    chosen = max(formats, key=lambda name: (name != "text", formats[name], -order.index(name)))
    kept = {split: [path for path in files if _format(path) == chosen] for split, files in splits.items()}
    if empty := [split for split, files in kept.items() if not files]:
        message = f"{spec.text}: {', '.join(empty)} is not in the format of the other splits ({chosen})"
        raise _refusal("hub_format", message, _download_hint(spec))
    return kept


def _config(spec: Spec, card: dict[str, Any], paths: Iterable[str]) -> tuple[str | None, dict[str, Any]]:
    """The name and the parameters of the config that is meant. Raises TaskError (exit 2) with the candidates when that
    is not clear."""
    listed = card.get("configs")
    configs = {
        str(config["config_name"]): config
        for config in (listed if isinstance(listed, list) else [])
        if isinstance(config, dict) and config.get("config_name") is not None
    }
    if not configs and spec.revision == EXPORT:
        configs = _exported(paths)
    candidates = {"data": [{"value": _spec_of(spec, name), "why": f"config {name!r} of the card"} for name in configs]}
    if spec.config is not None:
        if spec.config in configs:
            return spec.config, configs[spec.config]
        have = f"it has {', '.join(configs)}" if configs else "its card names none"
        message = f"{spec.text}: there is no config {spec.config!r}; {have}"
        hint = f"write {_spec_of(spec, next(iter(configs), None))}"
        raise _refusal("hub_config", message, hint, **({"candidates": candidates} if configs else {}))
    default = [name for name, config in configs.items() if name == "default" or config.get("default") is True]
    if len(configs) <= 1 or len(default) == 1:
        name = next(iter(default or configs), None)
        return name, configs.get(name, {})
    hint = f"name one of them, e.g. {_spec_of(spec, next(iter(configs)))}"
    message = f"{spec.text} has {len(configs)} configs: {', '.join(configs)}"
    raise _refusal("hub_config", message, hint, candidates=candidates)


def _exported(paths: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The configs of the Hub's own Parquet copies, as a card would list them."""
    splits: dict[str, dict[str, list[str]]] = {}
    for path in sorted(paths):
        if match := re.fullmatch(r"([^/]+)/([^/]+)/[^/]+\.parquet", path):
            splits.setdefault(match[1], {}).setdefault(match[2], []).append(path)
    return {
        config: {"data_files": [{"split": split, "path": files} for split, files in found.items()]}
        for config, found in splits.items()
    }


def _spec_of(spec: Spec, config: str | None) -> str:
    revision = f"@{spec.revision}" if spec.revision else ""
    return f"hub:{spec.repo_id}{revision}" + (f":{config}" if config else "")


def _card(api: Any, info: Any, sizes: dict[str, int]) -> dict[str, Any]:
    """The metadata of the card at that commit, {} where there are none. Raises TaskError (exit 2) when they cannot be
    read: without them nobody knows which files are meant."""
    if "README.md" not in sizes:
        return {}
    with tempfile.TemporaryDirectory(prefix="finetune-llm-card-") as folder:
        path = api.hf_hub_download(info.id, "README.md", repo_type="dataset", revision=info.sha, local_dir=folder)
        lines = Path(path).read_text(encoding="utf-8-sig", errors="replace").splitlines()
    if lines[:1] != ["---"] or "---" not in lines[1:]:
        return {}
    try:
        data = documents.parse_yaml("\n".join(["", *lines[1 : lines.index("---", 1)]]), "README.md").data
    except TaskError as error:
        first = error.problems[0]
        message = f"README.md of {info.id}, line {first.line}: {first.message}"
        hint = "download the files yourself and give them with --data"
        raise _refusal("hub_card_unreadable", message, hint) from None
    return data if isinstance(data, dict) else {}


def _class_names(card: dict[str, Any], config: str | None) -> dict[str, list[str]]:
    """Column -> the names of its numbers, from `dataset_info` of the card (dtype: class_label: names)."""
    infos = card.get("dataset_info")
    infos = [info for info in (infos if isinstance(infos, list) else [infos]) if isinstance(info, dict)]
    meant = [info for info in infos if len(infos) == 1 or str(info.get("config_name")) == config]
    found = {}
    for feature in (meant[0].get("features") if meant else None) or []:
        dtype = feature.get("dtype") if isinstance(feature, dict) else None
        label = dtype.get("class_label") if isinstance(dtype, dict) else None
        names = label.get("names") if isinstance(label, dict) else None
        if isinstance(names, dict) and list(names) == [str(number) for number in range(len(names))]:
            names = list(names.values())
        if isinstance(names, list) and names:
            found[str(feature.get("name"))] = [str(name) for name in names]
    return found


def _refuse_script(spec: Spec, repo_id: str, paths: Iterable[str]) -> None:
    script = f"{repo_id.rpartition('/')[2]}.py"
    if script in paths:
        hint = (
            f"try hub:{repo_id}@{EXPORT}, the Parquet copy that the Hub made of many of them; or {_download_hint(spec)}"
        )
        message = f"{repo_id}: this data set is a Python script ({script}); datasets 5 no longer runs them"
        raise _refusal("hub_script", message, hint)


def _refuse_size(spec: Spec, n_files: int, n_bytes: int, max_bytes: int) -> None:
    if n_bytes > max_bytes:
        message = f"{spec.text} has {n_bytes / 1e9:.1f} GB, more than {max_bytes / 1e9:g} GB"
        hint = f"{_download_hint(spec)}: a part of it is enough to begin with"
        raise _refusal("hub_too_large", message, hint)
    if n_files > MAX_FILES:
        message = f"{spec.text} has {n_files} files, more than {MAX_FILES}"
        raise _refusal("hub_too_large", message, f"{_download_hint(spec)}, joined into few files")


def _download(api: Any, info: Any, paths: list[str], folder: Path) -> dict[str, Path]:
    """Path in the repository -> file in `folder`. Files get there when all of them have arrived."""
    folder.mkdir(parents=True, exist_ok=True)
    names = _flat_names(paths, {path.name for path in folder.iterdir()})
    with tempfile.TemporaryDirectory(dir=folder, prefix=".hub-") as arriving:
        got = {
            path: api.hf_hub_download(info.id, path, repo_type="dataset", revision=info.sha, local_dir=arriving)
            for path in paths
        }
        for path, name in names.items():
            os.replace(got[path], folder / name)
    return {path: folder / name for path, name in names.items()}


def _flat_names(paths: list[str], taken: set[str]) -> dict[str, str]:
    """Path -> a name of its own without folders: the last part, or all parts joined where that is taken."""
    lasts = Counter(PurePosixPath(path).name for path in paths)
    names: dict[str, str] = {}
    for path in paths:
        last = PurePosixPath(path)
        name = last.name if lasts[last.name] == 1 else "-".join(last.parts)
        stem, number = PurePosixPath(name), 2
        while name in taken:
            name, number = f"{stem.stem}-{number}{stem.suffix}", number + 1
        taken = taken | {name}
        names[path] = name
    return names


def _megabytes(paths: list[str], sizes: dict[str, int]) -> str:
    return f"{sum(sizes[path] for path in paths) / 1e6:.1f} MB"


def _texts(value: Any) -> list[str]:
    return [str(item) for item in (value if isinstance(value, list) else [value]) if item not in (None, "")]


def _download_hint(spec: Spec) -> str:
    revision = f" --revision {spec.revision}" if spec.revision else ""
    command = f"hf download {spec.repo_id} --repo-type dataset{revision} --local-dir <folder>"
    return f"download it yourself (`{command}`) and give its files with --data, or by split in data.files of --answers"


def _refusal(code: str, message: str, hint: str, **report: Any) -> TaskError:
    problem = Problem(code=code, message=message, field="--data", hint=hint)
    return TaskError(ExitCode.USAGE, [problem], **report)


@contextlib.contextmanager
def _reading(spec: Spec, token: str | None) -> Iterator[None]:
    """Turns the client's errors into TaskError (exit 4): what the Hub does not have or does not give, by name."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    def missing(code: str, message: str, hint: str) -> NoReturn:
        problem = Problem(code=code, message=f"{constants.ENDPOINT}: {message}", field="--data", hint=hint)
        raise TaskError(ExitCode.PREREQUISITE, [problem]) from None

    login = "run `hf auth login` or set HF_TOKEN"
    with hub.hub_errors(token, reading=True):
        try:
            yield
        except GatedRepoError:
            page = f"accept its terms on {constants.ENDPOINT}/datasets/{spec.repo_id}"
            hint = f"{page}, then run the same command again" if token else f"{page}, then {login}"
            missing("hub_gated", f"{spec.repo_id} is handed out only to people who accepted its terms", hint)
        except RepositoryNotFoundError:
            hint = "check owner and name" + ("; a private one needs a token that may read it" if token else
                                             f"; if it is private, {login}")  # fmt: skip
            missing("hub_not_found", f"there is no data set {spec.repo_id}, or it is private", hint)
        except RevisionNotFoundError:
            hint = "leave out @… for the newest commit, or name a branch, a tag or a full commit hash"
            missing("hub_revision_not_found", f"{spec.repo_id} has no revision {spec.revision!r}", hint)
