"""The shape of the package: layers point one way, importing is free, functions and files stay small."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kinema

ROOT = Path(kinema.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
BASE = {"core", "story", "io", "models", "diffusion", "animation"}
MAY_IMPORT = {
    "core": set(),
    "story": {"core"},
    "io": {"core"},
    "models": {"core"},
    "diffusion": {"core"},
    "animation": {"core"},
    "pipelines": BASE,
    "training": BASE,
    "evaluation": BASE | {"pipelines", "training"},
    "serve": BASE | {"pipelines", "training"},
    "cli": BASE | {"pipelines", "training", "evaluation", "serve"},
}
MOST_FUNCTION_LINES = 60
MOST_FILE_LINES = 450


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imported(path: Path) -> set[str]:
    """Layers of kinema that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        else:
            continue
        found |= {module.split(".")[1] for module in modules if module.startswith("kinema.")}
    return found & MAY_IMPORT.keys()


@pytest.mark.parametrize("path", [p for p in FILES if p.parent != ROOT], ids=name)
def test_imports_follow_the_layers(path):
    layer = path.relative_to(ROOT).parts[0]
    stray = imported(path) - MAY_IMPORT[layer] - {layer}
    assert not stray, f"{layer} may not import {', '.join(sorted(stray))}"


@pytest.mark.parametrize("path", [p for p in FILES if "models" in p.parts], ids=name)
def test_models_import_no_other_framework_at_module_level(path):
    for node in ast.parse(path.read_text("utf-8")).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        heavy = [n for n in names if n.split(".")[0] in ("diffusers", "transformers")]
        assert not heavy, f"line {node.lineno}: {heavy[0]} costs seconds; import it where it is used"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_functions_and_files_are_small(path):
    text = path.read_text("utf-8")
    assert text.count("\n") <= MOST_FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            doc = node.body[0] if ast.get_docstring(node) else None
            lines = node.end_lineno - node.lineno + 1
            lines -= 0 if doc is None else doc.end_lineno - doc.lineno + 1
            assert lines <= MOST_FUNCTION_LINES, f"{node.name} has {lines} lines"


def modules(*layers: str) -> list[str]:
    found = [path.relative_to(ROOT.parent).with_suffix("") for path in FILES]
    dotted = [".".join(path.parts).removesuffix(".__init__") for path in found]
    return [m for m in dotted if any(m == f"kinema.{x}" or m.startswith(f"kinema.{x}.") for x in layers)]


@pytest.mark.parametrize(
    "code",
    [
        "import kinema",
        f"import {', '.join(modules('story'))}",
        "import kinema.cli",
        "import kinema; kinema.Shot(prompt='a'); kinema.Storyboard; kinema.Schedule('t'); kinema.KinemaError",
        "import kinema; kinema.Schedule.parse('0:(1)').values(10); kinema.animation.camera.matrix_2d",
        "import kinema.pipelines.cards as c; c.read_card('embedded')",
    ],
)
def test_importing_is_free_of_torch(code):
    check = f"import sys\n{code}\nprint(sorted({{'torch', 'diffusers', 'transformers'}} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_every_public_name_exists():
    for public in kinema.__all__:
        assert getattr(kinema, public) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        kinema.nothing  # noqa: B018 - the look-up is the test


def test_no_folder_has_the_name_of_a_diffusers_pipeline():
    """diffusers looks components up in its own pipelines first, by the folder's name."""
    import diffusers

    theirs = {path.stem for path in (Path(diffusers.__file__).parent / "pipelines").glob("[!_]*")}
    ours = {path.name for path in ROOT.rglob("*") if path.is_dir() and "assets" not in path.parts}
    assert not ours & theirs


def test_what_the_package_carries_stays_small():
    data = [p for p in ROOT.rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc", ".so")]
    assert sum(p.stat().st_size for p in data) < 60_000_000
