"""The rules that keep the code base readable: who may import whom, what stays out of where, what every config file says."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "metarun"
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))

TABLE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
LAYERS = [re.findall(r"`(\w+)`", row) for row in re.findall(r"^\| \w+ \| (`[^|]*) \|", TABLE, re.MULTILINE)][::-1]
"""The folders and modules of each layer, from the lowest to the highest: the table of docs/architecture.md, read from the bottom."""

SIBLINGS = ("metarun.algorithms", "metarun.tasks", "metarun.backbones", "metarun.engine")
"""These know nothing of one another: any algorithm runs on any task with any backbone, under an engine that knows none of them."""

OUTSIDE = {
    "metarun.algorithms": {"torch"},
    "metarun.backbones": {"torch", "timm"},
    "metarun.engine": {"torch"},
    "metarun.tasks": {"torch", "numpy", "PIL", "matplotlib", "torchvision"},
}
"""What may be imported from outside the standard library and metarun."""


def modules() -> dict[str, Path]:
    found = {}
    for file in sorted(PACKAGE.rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


MODULES = modules()


def imported(name: str) -> Iterator[str]:
    """Yield every module that `name` imports, inside functions too, but not what is for type checkers only."""
    for node in ast.walk(without_type_checking(ast.parse(MODULES[name].read_text(encoding="utf-8")))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else str(node.module)


def without_type_checking(tree: ast.Module) -> ast.Module:
    tree.body = [node for node in tree.body if not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))]
    return tree


def layer(name: str) -> int:
    """Return the row of the table in which a module or its folder stands; the package itself is below all of them."""
    place = name.split(".")[1] if "." in name else None
    rows = [number for number, places in enumerate(LAYERS) if place in places]
    assert place is None or len(rows) == 1, f"{place} must stand in exactly one row of the table in docs/architecture.md"
    return rows[0] if rows else -1


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_the_table_names_every_folder_and_module_and_no_other() -> None:
    named = [place for places in LAYERS for place in places]
    assert len(named) == len(set(named))
    assert set(named) == {name.split(".")[1] for name in MODULES if "." in name}


def each(cases: Iterable[Any]) -> Callable[[Callable[[Any], None]], Callable[[], None]]:
    """Make one test of a check of many cases. It checks them all and reports each failure; a test for each case would take longer."""

    def decorate(check: Callable[[Any], None]) -> Callable[[], None]:
        def test() -> None:
            faults = []
            for case in cases:
                try:
                    check(case)
                except AssertionError as error:
                    faults.append(f"{case}: {error}")
            assert not faults, "\n".join(faults)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


def test_each_reports_every_case_that_fails() -> None:
    @each([1, 2, 3])
    def odd(number: int) -> None:
        assert number % 2, "is even"
        assert number < 3, "is large"

    with pytest.raises(AssertionError, match=r"(?s)2: is even.*3: is large"):
        odd()


@each(MODULES)
def test_a_module_imports_only_from_its_own_layer_and_lower_ones(name: str) -> None:
    above = [other for other in imported(name) if below(other, "metarun") and layer(other) > layer(name)]
    assert not above, f"{name} imports from a higher layer: {above}"


@each([name for name in MODULES if name.startswith(SIBLINGS)])
def test_algorithms_tasks_and_backbones_do_not_know_one_another(name: str) -> None:
    own = next(package for package in SIBLINGS if below(name, package))
    others = [other for other in imported(name) if other.startswith(SIBLINGS) and not below(other, own)]
    assert not others, f"{name} imports {others}"


@each([name for name in MODULES if name.startswith("metarun.algorithms.")])
def test_a_paper_imports_no_other_paper(name: str) -> None:
    """A file of `algorithms/` is a paper, and so is one of `algorithms/updates/`; what several share lies in `algorithms/parts/`."""
    shared = ("metarun.algorithms.parts.", "metarun.algorithms.updates.rule")
    papers = [other for other in imported(name) if other.startswith("metarun.algorithms.") and not other.startswith(shared)]
    assert not papers, f"{name} imports {papers}"


@each([name for name in MODULES if name.startswith(SIBLINGS)])
def test_domain_code_imports_little_from_outside(name: str) -> None:
    own = next(package for package in SIBLINGS if below(name, package))
    outside = {other.split(".")[0] for other in imported(name)} - {"metarun", *sys.stdlib_module_names}
    assert outside <= OUTSIDE[own], f"{name} imports {outside - OUTSIDE[own]}"


def test_no_import_goes_in_a_circle() -> None:
    graph = {name: {other for other in imported(name) if other in MODULES and other not in (name, "metarun")} for name in MODULES}
    assert list(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError with the circle


def test_everything_imported_is_a_declared_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [each for name, needed in project["optional-dependencies"].items() if name not in ("dev", "docs") for each in needed]
    wanted = [*project["dependencies"], *extras]
    declared = {re.split(r"[<>=!~;\[ ]", requirement)[0].lower() for requirement in wanted}
    provided = metadata.packages_distributions()
    tops = {top for name in MODULES for other in imported(name) if (top := other.split(".")[0]) not in sys.stdlib_module_names}
    undeclared = {top for top in tops - {"metarun"} if not declared & {name.lower() for name in provided.get(top, [top])}}
    assert not undeclared


def test_importing_domain_code_loads_no_shell() -> None:
    names = [name for name in MODULES if name.startswith(SIBLINGS)]
    unwanted = ("hydra", "omegaconf", "tensorboard", "torch.utils.tensorboard", "tqdm", "matplotlib")
    code = f"""
import importlib, sys, torch
before = set(sys.modules)  # torch loads tqdm by itself
for name in {names}:
    importlib.import_module(name)
    loaded = [shell for shell in {unwanted} if shell in set(sys.modules) - before]
    if loaded:
        sys.exit(f"{{name}} loads {{loaded}}")
"""
    assert python(code) == ""


def test_the_command_line_imports_no_torch_before_a_job_runs() -> None:
    code = "import sys, metarun.cli.main; print([n for n in ('torch', 'hydra', 'numpy') if n in sys.modules])"
    assert python(code) == "[]"


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    return done.stdout.strip() or done.stderr.strip()


GLOBAL_DRAW = re.compile(
    r"torch\.(rand|randn|randint|randperm|bernoulli|multinomial|normal|manual_seed)(_like)?|(np|numpy)\.random|random\.(?!fork_rng)\w+"
)
"""`torch.random.fork_rng` is not matched: it restores the generator that a backbone's own `__init__` draws its weights from."""


@each(MODULES)
def test_product_code_draws_nothing_from_a_global_generator(name: str) -> None:
    attributes = [node for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)]
    used = {text for node in attributes if GLOBAL_DRAW.fullmatch(text := ast.unparse(node))}
    if name == "metarun.wiring.backbones":
        used -= {"torch.manual_seed"}  # inside fork_rng, for the initial weights of the network
    assert not used, f"{name} uses {used}; draw with metarun.draws"


def test_no_file_names_a_path_of_some_machine() -> None:
    folders = ("metarun", "configs", "scripts", ".github")
    files = [
        file for folder in folders for file in sorted((ROOT / folder).rglob("*")) if file.is_file() and "__pycache__" not in file.parts
    ]
    files += [ROOT / name for name in ("pyproject.toml", "constraints.txt", "CONTRIBUTING.md", "CHANGELOG.md")]
    machine = re.compile(r"(?<![\w.$}])/(home|root|tmp|work|Users|mnt|opt)/|file://|\bshared/")
    named = [f"{file.relative_to(ROOT)}: {hit.group()}" for file in files for hit in machine.finditer(file.read_text(encoding="utf-8"))]
    assert not named


@each(CONFIGS)
def test_a_config_file_opens_with_a_sentence_about_itself(file: Path) -> None:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("# @package")]
    assert re.match(r"# \w.{10,}", lines[0]), f"{file.name} must open with a comment whose first sentence says what it is"


@each(CONFIGS)
def test_a_config_file_names_only_targets_that_exist(file: Path) -> None:
    for target in re.findall(r"^\s*_target_:\s*(\S+)", file.read_text(encoding="utf-8"), re.MULTILINE):
        module, _, name = target.rpartition(".")
        assert module in MODULES, f"{target}: metarun has no module {module}"
        defined = {node.name for node in ast.parse(MODULES[module].read_text(encoding="utf-8")).body if hasattr(node, "name")}
        assert name in defined, f"{target}: {module} defines no {name}"


def test_the_tests_of_other_folders_run_where_the_folder_of_the_kernels_is_deleted() -> None:
    files = [file for file in (ROOT / "tests").rglob("*.py") if file.parent != ROOT / "tests" / "compute" / "kernels"]
    for file in files:
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("metarun.compute.kernels") for name in names), f"{file}: import the kernels in a test"


def test_every_package_of_the_tree_ships() -> None:
    """setuptools is given lists, because configs/ does not lie where its package does; a folder missing there would be left out."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    code = {".".join(file.parent.relative_to(ROOT).parts) for file in PACKAGE.rglob("*.py")}
    config = {".".join(("metarun", *file.parent.relative_to(ROOT).parts)) for file in CONFIGS}
    # The suite passes too where a user has deleted the folder of the C kernels.
    deleted = set() if (PACKAGE / "compute" / "kernels").is_dir() else {"metarun.compute.kernels"}
    assert set(tool["packages"]) == code | config | deleted
    assert {name for name, patterns in tool["package-data"].items() if "*.yaml" in patterns} == config


# House rules


MAX_ROOT_MODULES, MAX_MODULE_LINES, MAX_FUNCTION_LINES = 12, 300, 40
CODE = {str(file.relative_to(ROOT)): file for folder in ("metarun", "scripts") for file in sorted((ROOT / folder).rglob("*.py"))}


def test_the_root_of_the_package_holds_few_modules() -> None:
    names = sorted(file.name for file in PACKAGE.glob("*.py"))
    assert len(names) <= MAX_ROOT_MODULES, f"metarun/ has {len(names)} modules; move one to the folder of its layer: {names}"


def test_c_code_lies_with_the_kernels() -> None:
    files = [file for pattern in ("*.c", "*.h") for folder in ("metarun", "scripts", "tests") for file in (ROOT / folder).rglob(pattern)]
    outside = [str(file.relative_to(ROOT)) for file in files if file.parent != PACKAGE / "compute" / "kernels"]
    assert not outside, f"move to metarun/compute/kernels/: {outside}"


@each(CODE)
def test_a_module_is_short(name: str) -> None:
    lines = len(CODE[name].read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_MODULE_LINES, f"{name} has {lines} lines, more than {MAX_MODULE_LINES}; move one idea to a module of its own"


@each(CODE)
def test_a_function_is_short(name: str) -> None:
    """Signature, docstring and body count; decorators do not."""
    tree = ast.parse(CODE[name].read_text(encoding="utf-8"))
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    long = {function: lines for function, lines in lengths.items() if lines > MAX_FUNCTION_LINES}
    assert not long, f"{name}: functions have more than {MAX_FUNCTION_LINES} lines: {long}; give a part of each a name"


TESTED_ELSEWHERE = {
    "metarun.algorithms.updates.rule": "tests/algorithms/test_gbml.py",  # a Protocol: each rule in configs/ keeps it
    "metarun.cli.jobs": "tests/cli/test_cli.py",  # from the words of a command to the arguments of a job
    "metarun.cli.main": "tests/cli/test_cli.py",
    "metarun.compute.kernels.normalisations": "tests/compute/kernels/test_rewrite.py",  # patterns are seen in whole programs only
    "metarun.compute.kernels.rewriting": "tests/compute/kernels/test_rewrite.py",
}
"""The test files of modules that no test file mirrors, with the reason why one file tests several."""


@each([name for name, file in MODULES.items() if not file.stem.startswith("__")])
def test_a_module_has_its_test_file(name: str) -> None:
    relative = MODULES[name].relative_to(PACKAGE)
    mirrored = Path("tests") / relative.parent / f"test_{relative.name}"
    exists = (ROOT / mirrored).is_file()
    if name in TESTED_ELSEWHERE:
        assert (ROOT / TESTED_ELSEWHERE[name]).is_file(), f"{TESTED_ELSEWHERE[name]} is gone; write {mirrored}"
        assert not exists, f"{mirrored} exists; remove {name} from TESTED_ELSEWHERE"
    else:
        assert exists, f"write {mirrored}: tests/ mirrors metarun/"


TEXT = (".py", ".sh", ".md", ".yaml", ".yml", ".toml", ".txt", ".c", ".h", ".json", ".cff", "")


def text_files() -> list[Path]:
    folders = ("metarun", "configs", "scripts", "docs", "tests", ".github", ".ci")
    files = [file for folder in folders for file in (ROOT / folder).rglob("*")] + list(ROOT.iterdir())
    return sorted(file for file in files if file.is_file() and file.suffix in TEXT and not {"__pycache__", ".git"} & set(file.parts))


def test_text_has_no_whitespace_at_the_end_of_a_line_and_ends_with_one_newline() -> None:
    texts = {str(file.relative_to(ROOT)): file.read_text(encoding="utf-8") for file in text_files()}
    trailing = [f"{name}:{n}" for name, text in texts.items() for n, line in enumerate(text.split("\n"), 1) if line != line.rstrip()]
    assert not trailing, f"remove the whitespace at the end of {trailing}"
    endings = [name for name, text in texts.items() if text and (not text.endswith("\n") or text.endswith("\n\n"))]
    assert not endings, f"end with one newline: {endings}"


def test_the_matrix_of_the_workflow_is_what_pyproject_declares() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]["include"]
    declared = {found[1] for line in project["classifiers"] if (found := re.search(r"Python :: (3\.\d+)$", line))}
    assert {entry["python"] for entry in matrix} == declared
    assert project["requires-python"] == f">={min(declared, key=lambda version: int(version[2:]))}"
    floor = next(line for line in project["dependencies"] if line.startswith("torch>="))
    pinned = re.search(r"^torch==(\S+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert {entry["torch"] for entry in matrix} == {floor.partition(">=")[2] + ".0", pinned and pinned[1]}
