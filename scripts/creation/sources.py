"""Which raw files a new task starts from: files, globs, folders, parallel files, splits by their names."""

from __future__ import annotations

import dataclasses
import glob
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasklib.reading.records import Remark, Row, read_file
from tasklib.schema import SPLITS, FileSpec
from tasklib.summary import Problem

SAMPLE_ROWS = 2000
POOL = "all"
# Words in file names that say which split a file is. datasets uses the English ones (data_files.py, SPLIT_KEYWORDS).
SPLIT_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
    "訓練": "train", "训练": "train", "驗證": "validation", "验证": "validation", "測試": "test", "测试": "test",
}  # fmt: skip
READABLE = {
    ".csv", ".tsv", ".tab", ".txt", ".conll", ".bio", ".json", ".jsonl", ".ndjson", ".xlsx", ".xlsm", ".xlsb", ".xls",
    ".ods", ".parquet",
}  # fmt: skip
NO_DATA = {"readme", "license", "licence", "changelog", "notice", "requirements"}  # .txt files beside the data
BESIDE_DATA = {"class", "classes", "label", "labels", "label_names", "vocab", "stopwords"}  # no texts either


@dataclass(frozen=True)
class Source:
    """One raw file before it is copied. `options` are keys of FileSpec; `parallel` maps a column to its file."""

    split: str
    path: Path
    options: dict[str, Any] = field(default_factory=dict)
    parallel: dict[str, Path] = field(default_factory=dict)

    def having(self, **options: Any) -> Source:
        return dataclasses.replace(self, options={**self.options, **options})

    def spec(self) -> FileSpec:
        beside = {name: path.name for name, path in self.parallel.items()}
        return FileSpec(**{**self.options, "path": self.path.name, "parallel": beside})

    def rows(self) -> Iterable[Row | Problem | Remark]:
        """The file's rows; messages name it as the user did."""
        if not self.parallel:
            return read_file(self.path, str(self.path), self.spec())
        near = {name: str(path) for name, path in self.parallel.items()}  # they may lie in other folders
        spec = self.spec().model_copy(update={"parallel": near, "path": str(self.path)})
        return read_file(self.path, str(self.path), spec)


@dataclass
class Found:
    """The sources that exist, what was decided by names, and everything that is wrong."""

    sources: list[Source] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def find(files: dict[str, Any], base: Path, by_name: bool = False) -> Found:
    """Sources for `data.files` of the answers: split -> path, glob, folder or mapping with `path`, relative to `base`.
    Hub ids are fetched before. `by_name`: files of one pool whose names tell of splits become these splits."""
    found = Found()
    for split, entries in files.items():
        at = f"data.files.{split}"
        if split not in (POOL, *SPLITS):
            hint = f"legal: {', '.join((POOL, *SPLITS))}"
            found.problems.append(Problem(code="unknown_key", message=f"got {split!r}", field=at, hint=hint))
            continue
        if entries in (None, []):
            problem = Problem(code="illegal_value", message="no file is named", field=at, hint="name at least one file")
            found.problems.append(problem)
        for entry in entries if isinstance(entries, list) else [entries] if entries is not None else []:
            _add_entry(found, entry, base, split)
    if by_name:
        _split_by_name(found)
    _refuse_twice(found)
    return found


def _add_entry(found: Found, entry: Any, base: Path, split: str) -> None:
    at = f"data.files.{split}"
    options = dict(entry) if isinstance(entry, dict) else {"path": entry}
    try:
        FileSpec(**options)
    except (ValidationError, TypeError) as error:
        found.problems += _illegal(error, at)
        return
    name, parallel = options.pop("path"), options.pop("parallel", {})
    beside = {column: base / Path(path).expanduser() for column, path in parallel.items()}
    missing = [path for path in beside.values() if not path.is_file()]
    found.problems += [_missing(str(path), split) for path in missing]
    for source in _named(found, name, base, split):
        found.sources.append(dataclasses.replace(source, options={**source.options, **options}, parallel=beside))


def _illegal(error: ValidationError | TypeError, at: str) -> list[Problem]:
    legal = f"legal keys: {', '.join(FileSpec.model_fields)}"
    if isinstance(error, TypeError):
        return [Problem(code="illegal_value", message=str(error), field=at, hint=legal)]
    problems = []
    for item in error.errors():
        field_name = ".".join([at, *map(str, item["loc"])])
        message = f"{item['msg']}, got {item['input']!r}"
        problems.append(Problem(code="illegal_value", message=message, field=field_name, hint=legal))
    return problems


def _missing(name: str, split: str) -> Problem:
    message = f"{name} is no file, and no file matches it"
    return Problem(code="file_missing", message=message, field=f"data.files.{split}", hint="check the path")


def _named(found: Found, name: str, base: Path, split: str) -> list[Source]:
    """The files that one path, glob or folder names."""
    path = base / Path(name).expanduser()
    if path.is_dir():
        return _folder(found, path, name, split)
    if path.is_file():
        return [Source(split, path)]
    matches = sorted(Path(match) for match in glob.glob(str(path), recursive=True) if Path(match).is_file())
    if not matches:
        found.problems.append(_missing(name, split))
    return [Source(split, match) for match in matches]


def _folder(found: Found, path: Path, name: str, split: str) -> list[Source]:
    """A folder of split files (train.csv, dev.csv), of one text file for each class (positive.txt), or of one file."""
    readable = [p for p in sorted(path.iterdir()) if p.is_file() and p.suffix.lower() in READABLE]
    readable = [p for p in readable if p.name[0] not in ".~" and p.stem.lower() not in NO_DATA]
    files = [p for p in readable if p.stem.lower() not in BESIDE_DATA]
    splits = {p: split_of(p.name) for p in files}
    named = [p for p in files if splits[p]]
    sources: list[Source] = []
    if len(files) == 1:
        sources = [Source(split, files[0])]
    elif split == POOL and "train" in splits.values() and not _same_split_in_two_forms(named, splits):
        sources = [Source(splits[p], p) for p in named]
    elif not named and files and all(p.suffix.lower() == ".txt" for p in files):
        sources = [Source(split, p) for p in files]  # each one class; see by_class
    if not sources:
        found.problems.append(_which_file(path, name, split, readable))
    left_out = [p.name for p in readable if p not in {source.path for source in sources}]
    if sources and left_out:
        message = f"{', '.join(left_out)} is not used"
        hint = "a file with the names of numeric labels is given as --label-names FILE; other data by its own name"
        found.warnings.append(Problem(code="file_left_out", message=message, file=str(path), hint=hint))
    return sources


def _same_split_in_two_forms(named: Sequence[Path], splits: dict[Path, str | None]) -> bool:
    """train.csv and train.json are likely the same rows twice."""
    forms = {(splits[p], p.suffix.lower()) for p in named}
    return len(forms) > len({split for split, _ in forms})


def _which_file(path: Path, name: str, split: str, readable: Sequence[Path]) -> Problem:
    folders = sorted(p.name for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))
    listed = [*(p.name for p in readable[:10]), *(f"{folder}/" for folder in folders[:10])]
    message = f"{name} is a folder ({', '.join(listed) or 'no readable file'}), and what is meant is not clear"
    hint = "name the files, or give a pattern in quotes ('data/*.csv'); a folder may hold train/validation/test files "
    hint += "in one format, or one .txt for each class"
    if any(split_of(folder) for folder in folders):
        hint += f"; folders of splits one by one: --train {name}/{folders[0]} …"
    return Problem(code="which_file", message=message, field=f"data.files.{split}", hint=hint)


def split_of(name: str) -> str | None:
    """The split that a file name speaks of, or its ending (weibo.conll.train); None where none or several do."""
    for text in (Path(name).stem, Path(name).suffix):
        words = re.findall(r"[a-z]+|[\u3400-\u9fff]+", text.lower())
        found = {split for word, split in SPLIT_WORDS.items() for part in words
                 if part == word or (not word.isascii() and word in part)}  # fmt: skip
        if found:
            return found.pop() if len(found) == 1 else None
    return None


def _split_by_name(found: Found) -> None:
    """train.csv and test.csv in one pool would mix what was kept apart."""
    pool = [source for source in found.sources if source.split == POOL and not source.options.get("values")]
    splits = [split_of(source.path.name) for source in pool]
    told = {split for split in splits if split}
    if len(pool) < 2 or not told or (len(told) == 1 and ("train" in told or None not in splits)):
        return
    listed = ", ".join(
        f"{source.path.name} ({split or 'no split'})" for source, split in zip(pool, splits, strict=True)
    )
    if None in splits or "train" not in told:
        message, hint = (
            f"some names tell of splits: {listed}",
            "say which file is what: --train, --validation and --test FILE",
        )
        found.problems.append(Problem(code="which_split", message=message, field="data.files.all", hint=hint))
        return
    message, hint = f"splits by the names of the files: {listed}", "say otherwise with --train, --validation and --test"
    found.warnings.append(Problem(code="splits_by_name", message=message, field="data.files", hint=hint))
    own = {source.path: split for source, split in zip(pool, splits, strict=True) if split}
    found.sources = [dataclasses.replace(s, split=own[s.path]) if s in pool else s for s in found.sources]


def _refuse_twice(found: Found) -> None:
    seen: set[Path] = set()
    for source in found.sources:
        path = source.path.resolve()
        if path in seen:
            message, at = f"{source.path.name} is given twice", f"data.files.{source.split}"
            problem = Problem(code="file_twice", message=message, field=at, hint="name every file once")
            found.problems.append(problem)
        seen.add(path)


def by_class(sources: list[Source]) -> tuple[list[Source], list[Problem]]:
    """Two or more plain text files with nothing but texts: the name of each is its label, unless it names a split.
    Also the warning that says so."""
    plain = [source for source in sources if source.options.get("format") == "lines" and not source.parallel]
    if len(sources) < 2 or len(plain) < len(sources) or any(split_of(source.path.name) for source in sources):
        return sources, []
    names = [{s.path.stem for s in sources if s.split == split} for split in {s.split for s in sources}]
    if any(len(stems) < 2 or stems != names[0] for stems in names):
        return sources, []
    if any(source.options.get("values") for source in sources):
        return sources, []
    labelled = [source.having(values={"label": source.path.stem}) for source in sources]
    message = f"each file holds the texts of one class, and its name is the label: {', '.join(sorted(names[0]))}"
    hint = "rename the files to rename the labels"
    return labelled, [Problem(code="labels_by_name", message=message, field="data.files", hint=hint)]


def sample(source: Source) -> list[Row | Problem | Remark]:
    """The first rows of a source."""
    return [item for _, item in zip(range(SAMPLE_ROWS), source.rows(), strict=False)]


def raw_names(sources: Iterable[Source]) -> dict[Path, str]:
    """Source file, parallel ones too -> its name under data/raw/, made unique."""
    names: dict[Path, str] = {}
    for path in dict.fromkeys(path for source in sources for path in (source.path, *source.parallel.values())):
        name, number = path.name, 2
        while name in names.values():
            name, number = f"{path.stem}-{number}{path.suffix}", number + 1
        names[path] = name
    return names


def data_files(sources: Iterable[Source], names: dict[Path, str]) -> dict[str, list[Any]]:
    """`data.files` of the new task: a plain path where the content says the rest."""
    files: dict[str, list[Any]] = {}
    for split in (POOL, *SPLITS):
        for source in sources:
            if source.split == split:
                path = f"data/raw/{names[source.path]}"
                beside = {column: f"data/raw/{names[other]}" for column, other in source.parallel.items()}
                extra = {**source.options, **({"parallel": beside} if beside else {})}
                files.setdefault(split, []).append({"path": path, **extra} if extra else path)
    return files
