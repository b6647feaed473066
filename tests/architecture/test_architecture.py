"""The layout of docs/architecture.md, and what no file of voxray may do (PROMISES.md, section 4)."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "voxray"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}

# Packages of one floor that know each other, and why.
SIDEWAYS = {
    ("recipes", "methods"): "a recipe checks the configuration of its method",
    ("training", "models"): "training ends with a saved model",
}
# `voxray.__getattr__` and `python -m voxray` lead to everything.
DOORS = ("__init__", "__main__")
# Where every exception may be caught: around third-party readers, and at the end of the program.
CATCH_ALL = {"images/reading.py", "cli/__init__.py"}
CALLS = {
    "print", "eval", "exec", "compile", "__import__", "os.system", "random.seed", "torch.manual_seed", "torch.seed",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip


def floors() -> dict[str, int]:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ([^|]+) \|", text, re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)}


def package(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> Iterator[str]:
    """Every module imported anywhere in a file, functions and TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def upward_imports(package: str, tree: ast.AST, floor: dict[str, int]) -> list[str]:
    wrong = []
    for name in imported(tree):
        parts = name.split(".")
        if parts[0] != "voxray" or parts[1] == package or package in DOORS:
            continue
        other = parts[1]
        if floor[other] > floor[package] or (floor[other] == floor[package] and (package, other) not in SIDEWAYS):
            wrong.append(name)
    return wrong


def test_every_package_has_a_floor() -> None:
    assert {package(file) for file in FILES} - set(DOORS) <= set(floors())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_go_down(file: Path) -> None:
    assert upward_imports(package(file), TREES[file], floors()) == []


def test_an_upward_import_inside_a_function_is_found() -> None:
    tree = ast.parse("def f():\n    from voxray.api import reconstruct")
    assert upward_imports("images", tree, floors()) == ["voxray.api.reconstruct"]


def test_sideways_imports_are_all_in_use() -> None:
    used = {(package(file), name.split(".")[1]) for file in FILES for name in imported(TREES[file])
            if name.startswith("voxray.")}  # fmt: skip
    assert set(SIDEWAYS) <= used


def dotted(node: ast.AST) -> str:
    """`torch.manual_seed` of the node that stands for it; "" for what is no plain name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def forbidden(tree: ast.AST) -> list[str]:
    """What a file does that no file may do."""
    found = [name for name in imported(tree) if name.split(".")[0] in ("pickle", "dill", "joblib", "cPickle")]
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and re.match(r"cuda:\d", node.value):
            found.append(repr(node.value))
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        method = name.rpartition(".")[2]
        draws = name.startswith("np.random.") and method not in ("default_rng", "Generator", "SeedSequence")
        if name in CALLS or method == "extractall" or draws:
            found.append(name)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        if name == "torch.load" and not _is_true(keywords.get("weights_only")):
            found.append("torch.load without weights_only=True")
        if _is_true(keywords.get("shell")) or _is_true(keywords.get("allow_pickle")):
            found.append(f"{name} with shell or allow_pickle")
    return found


def _is_true(node: ast.AST | None) -> bool:
    return isinstance(node, ast.Constant) and node.value is True


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_D3_M1_nothing_forbidden_is_called(file: Path) -> None:
    assert forbidden(TREES[file]) == []


@pytest.mark.parametrize("code", [
    "torch.manual_seed(0)", "eval('1')", "exec('1')", "print(1)", "import pickle", "from pickle import load",
    "yaml.load(x)", "archive.extractall()", "x.to('cuda:0')", "torch.load(path)", "np.random.rand(3)",
    "torch.load(path, weights_only=False)", "subprocess.run(x, shell=True)", "np.load(x, allow_pickle=True)",
])  # fmt: skip
def test_what_is_forbidden_is_found(code: str) -> None:
    assert forbidden(ast.parse(code)) != []


@pytest.mark.parametrize("code", [
    "model.eval()", "generator.manual_seed(0)", "torch.load(path, weights_only=True)", "yaml.safe_load(x)",
    "np.random.default_rng(0)",
])  # fmt: skip
def test_what_is_allowed_is_not_found(code: str) -> None:
    assert forbidden(ast.parse(code)) == []


def test_I13_everything_is_caught_in_two_places_only() -> None:
    places = set()
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                caught = dotted(node.type) if node.type is not None else "BaseException"
                reraised = any(isinstance(n, ast.Raise) and n.exc is None for n in node.body)
                if caught in ("Exception", "BaseException") and not reraised:
                    places.add(str(file.relative_to(SOURCE)))
    assert places <= CATCH_ALL


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_files_and_functions_fit(file: Path) -> None:
    """A file has at most 400 lines; a function, its docstring not counted, at most 60."""
    assert len(file.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.FunctionDef):
            first = node.body[0]
            text = first if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) else None
            docstring = text.end_lineno - text.lineno + 1 if text is not None else 0
            assert node.end_lineno - node.lineno + 1 - docstring <= 60, node.name


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_T5_importing_voxray_and_declaring_its_commands_loads_no_torch() -> None:
    heavy = "('torch', 'numpy', 'SimpleITK', 'numba', 'matplotlib', 'pydicom', 'scipy')"
    loaded = f"[name for name in {heavy} if name in sys.modules]"
    assert python(f"import sys, voxray; sys.stdout.write(str({loaded}))") == "[]"
    assert python(f"import sys, voxray.cli.app; sys.stdout.write(str({loaded}))") == "[]"


def test_T5_inference_imports_no_lightning() -> None:
    """Lightning may be absent here, so whoever asks for it is caught asking."""
    for file, tree in TREES.items():
        if package(file) != "training":
            assert not [name for name in imported(tree) if "lightning" in name.split(".")[0]], file
    asked = python(
        "import sys\n"
        "asked = []\n"
        "class Watch:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if 'lightning' in name: asked.append(name)\n"
        "sys.meta_path.insert(0, Watch())\n"
        "import voxray.api\n"
        "from voxray.models import load_model\n"
        "load_model('atlas')\n"
        "sys.stdout.write(str(asked))\n"
    )
    assert asked == "[]"
