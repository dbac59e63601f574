"""The import rules that a static check cannot see, and the rooms that must not exist.

The others are contracts of import-linter in pyproject.toml, kept by `make check`.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "darkroom"
SOURCES = sorted(path for path in PACKAGE.rglob("*.py"))
HEAVY = ("torch", "diffusers", "transformers", "torchsde", "safetensors.torch")
LIGHT = (
    "darkroom.cli",
    "darkroom.settings",
    "darkroom.errors",
    "darkroom.images",
    "darkroom.prompt",
    "darkroom.api",
    "darkroom.api.app",
    "darkroom.history.ledger",
    "darkroom.jobs.spec",
    "darkroom.jobs.infotext",
    "darkroom.engine.client",
)


def module(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(*rooms: str) -> list[str]:
    names = [module(path) for path in SOURCES]
    return [name for name in names if any(name == room or name.startswith(room + ".") for room in rooms)]


@pytest.mark.parametrize("name", LIGHT)
def test_a_light_module_exists(name: str) -> None:
    assert name in [module(path) for path in SOURCES]


def test_nothing_heavy_is_loaded_by_gateway_pictures_prompts_and_settings() -> None:
    names = sorted({*LIGHT, *modules_of("darkroom.api", "darkroom.images", "darkroom.prompt", "darkroom.scripts")})
    probe = f"import sys, {', '.join(names)}\nprint(*(set({HEAVY!r}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_help_loads_nothing_heavy_not_even_the_gateway() -> None:
    probe = (
        "import sys\n"
        "from darkroom.cli import main\n"
        "sys.argv = ['darkroom', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        f"heavy = {{*{HEAVY!r}, 'fastapi', 'numpy', 'PIL'}}\n"
        "print('LOADED', *(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED"


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_no_module_keeps_mutable_state(path: Path) -> None:
    """Tables in CAPITALS are constants by agreement; anything else that could change belongs to an object."""
    changeable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    offenders = []
    for node in ast.parse(path.read_text()).body:
        targets = (
            node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
        )
        if not isinstance(node, ast.Assign | ast.AnnAssign) or not isinstance(node.value, changeable):
            continue
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        offenders += [name for name in names if not name.isupper() and name != "__all__"]
    assert offenders == []


@pytest.mark.parametrize("path", SOURCES, ids=module)
def test_a_module_is_named_after_a_thing_and_says_what_it_knows(path: Path) -> None:
    assert path.stem not in {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    assert ast.get_docstring(ast.parse(path.read_text())), "the module has no docstring"
