"""How the house stands, in numbers, beside an earlier commit; and the map of its rooms.

    python benchmarks/house.py [--before COMMIT]     the table
    python benchmarks/house.py --map                 CONTRIBUTING.md and the README.md of each room (make map)

Everything is read from the library's notebooks: a cell counts as it is written, without its line `#| export`. An exported cell of imports is no code of its own, so it counts only among the long lines.
An import goes upwards where it leads to a later room or to an equal or higher number of its own room; in a house without rooms, where it leads to an equal or higher number. An exported cell is followed by an example where the next
cell of code asserts something. Functions and methods are public where their names (and their classes') have no leading underscore; one raises UserError where its own body does.
"""

import argparse
import ast
import io
import json
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = Path("nbs", "lib")
ROOMS = {  # each may import from those before it; "" is the ground; a room that is still to be built has its place and no line yet
    "": "what every room stands on: errors and run folders, the shapes of tables and model files, the taxa, tables that grow, what is installed",
    "photos": "from bytes to pixels and from files to a manifest: reading, listing, grouping, splitting and correcting photos and films",
    "simulate": "the simulated survey, whose truth is known: drawn animals, drawn scenery, photos with place and time",
    "metrics": "scores and how sure they are: calibration, intervals, differences between models",
    "report": "how every figure looks, the HTML page of every report, and running a workbench notebook",
    "survey": "from predictions to ecology: events and their table of observations",
    "exchange": "",
    "engine": "a model file in, a row for each photo out: ONNX Runtime, model files, ensembles, speed, heat maps; no PyTorch",
    "detect": "find the animal, then name it: boxes from detectors, from files and from the classifier itself; no PyTorch",
    "classify": "a whole job of many photos: resuming it, its tables, sorted copies, a cluster, watching a folder",
    "models": "networks and their files: architectures, pretrained weights, export, int8, the ready-made model, what a person may name as a model",
    "train": "fitting a network: its photos, augmentation, a head on a frozen network, fine-tuning, checkpoints",
    "evaluate": "how good a model is, and which of several is better: the numbers, the words and the figures of both reports",
    "curate": "looking at a model's mistakes photo by photo, and correcting labels",
    "publish": "a finished run as one zip for publication: its files, what is private in them, the texts for a reader, the check of the zip",
    "apps": "what a person touches: the camera panel, the confusion explorer, the web service, the live notebook; what a browser runs is in `species_wb/apps/static/`",
    "cli": "the command `species-wb`, a thin shell: it parses, calls the library and prints",
}  # fmt: skip
ORDER = list(ROOMS)
BEGIN, END = "<!-- the map: `make map` writes what stands between these two comments -->", "<!-- the end of the map -->"


# Modules and their places


def module_of(notebook: Path) -> str:
    "Name the module of a library notebook: photos.pixels for …/lib/photos/10_pixels.ipynb."
    room = notebook.parent.name
    return ("" if room == LIBRARY.name else f"{room}.") + notebook.stem.split("_", 1)[1]


def room_of(module: str) -> str:
    "Name the room of a module."
    return "cli" if module.split("_")[0] == "cli" else module.rpartition(".")[0]


def place(notebook: Path) -> tuple[int, int]:
    "Return the places of a notebook's room and of the notebook in it."
    if room_of(module_of(notebook)) not in ROOMS:
        raise ValueError(f"{notebook.as_posix()} is in no known room: give the room its place and its line in ROOMS, in benchmarks/house.py.")
    return ORDER.index(room_of(module_of(notebook))), int(notebook.stem.split("_", 1)[0])


def imports(tree: ast.AST, module: str) -> set[str]:
    "Return what of the package a module imports, at the top or inside functions, relatively or absolutely; names in modules stand among them."
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            above = ["species_wb", *module.split(".")][: -node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            found |= {base, *(f"{base}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return {name.removeprefix("species_wb.") for name in found if name.startswith("species_wb.")}


def library() -> dict[Path, dict[str, Any]]:
    "Read the notebooks of the working tree, in the order of the house."
    found = sorted((ROOT / LIBRARY).rglob("*.ipynb"), key=place)
    return {path.relative_to(ROOT): json.loads(path.read_text(encoding="utf-8")) for path in found if ".ipynb_checkpoints" not in path.parts}


def library_at(commit: str) -> dict[Path, dict[str, Any]]:
    "Read the notebooks of an earlier commit."
    done = subprocess.run(["git", "archive", "--format=tar", commit, "--", LIBRARY.as_posix()], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{commit} cannot be read: {done.stderr.decode().strip().removeprefix('fatal: ')}. Name a commit of this repository that has {LIBRARY.as_posix()}.")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        return {Path(member.name): json.load(archive.extractfile(member)) for member in archive if member.name.endswith(".ipynb")}


# The measures


class Cell(NamedTuple):
    "An exported cell."

    lines: list[str]  # what comes after `#| export`
    tree: ast.Module
    is_imports: bool
    has_example: bool  # the next cell of code asserts


EXPORT = re.compile(r"#\|\s*export\b")


def exported(path: Path, notebook: dict[str, Any]) -> Iterator[Cell]:
    "Yield a notebook's exported cells."
    code = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for source, then in zip(code, [*code[1:], ""], strict=True):
        if EXPORT.match(source):
            tree = ast.parse(source, f"<{path.as_posix()}>")
            nodes = [type(node) for node in tree.body]
            is_imports = bool({ast.Import, ast.ImportFrom} & {*nodes}) and {*nodes} <= {ast.Import, ast.ImportFrom, ast.Try, ast.If, ast.Expr}
            yield Cell(source.rstrip().splitlines()[1:], tree, is_imports, not EXPORT.match(then) and bool(re.search(r"\bassert\b", then)))


def functions(tree: ast.AST) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    "Return the public functions of a module, or the public methods of a class."
    return [node for node in ast.iter_child_nodes(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")]


def raises_user_error(function: ast.AST) -> bool:
    "Tell whether a function's own body raises it."
    raised = [node.exc.func if isinstance(node.exc, ast.Call) else node.exc for node in ast.walk(function) if isinstance(node, ast.Raise)]
    return any(isinstance(one, ast.Name) and one.id == "UserError" or isinstance(one, ast.Attribute) and one.attr == "UserError" for one in raised)


def measures(notebooks: dict[Path, dict[str, Any]]) -> dict[str, Any]:
    "Measure a house."
    has_rooms = any(path.parent != LIBRARY for path in notebooks)
    places = {module_of(path): place(path) if has_rooms else (0, int(path.stem.split("_", 1)[0])) for path in notebooks}
    rooms = Counter(room_of(module) or "the ground" for module in places) if has_rooms else Counter()
    cells = {module_of(path): list(exported(path, notebook)) for path, notebook in notebooks.items()}
    upwards = 0
    for module, own in cells.items():
        imported = set().union(*(imports(cell.tree, module) for cell in own)) & set(places)
        upwards += sum(places[other] >= places[module] for other in imported)
    every = [cell for own in cells.values() for cell in own]
    code = [cell for cell in every if not cell.is_imports]
    public = [f for cell in code for f in functions(cell.tree)]
    methods = [m for cell in code for c in cell.tree.body if isinstance(c, ast.ClassDef) and not c.name.startswith("_") for m in functions(c)]
    raising = [f for f in public if raises_user_error(f)]

    def of(part: list, whole: list) -> str:
        return f"{len(part):,} of {len(whole):,}"

    examples = [cell for cell in code if cell.has_example]
    return {
        "imports upwards": upwards,
        "rooms": len(rooms),
        "modules": len(places),
        **{f"  in {room}": rooms[room] for room in ("the ground", *ORDER[1:]) if rooms[room]},
        "notebooks over 40 cells": sum(len(notebook["cells"]) > 40 for notebook in notebooks.values()),
        "lines of an exported cell, median": f"{median(len(cell.lines) for cell in code):g}",
        "exported cells over 15 lines": of([cell for cell in code if len(cell.lines) > 15], code),
        "exported cells followed at once by an example that asserts": f"{of(examples, code)} ({len(examples) / len(code):.0%})",
        "lines over 120 characters in exported cells": sum(len(line) > 120 for cell in every for line in cell.lines),
        "public functions without a docstring": of([f for f in public if not ast.get_docstring(f)], public),
        "public methods of public classes without a docstring": of([m for m in methods if not ast.get_docstring(m)], methods),
        "public functions that raise UserError without saying so in the docstring": of([f for f in raising if "UserError" not in (ast.get_docstring(f) or "")], raising),
    }


def table(columns: dict[str, dict[str, Any]]) -> str:
    "Lay measures of one or two houses beside each other."
    names = dict.fromkeys(name for found in reversed(columns.values()) for name in found)
    head = " " * 75 + "".join(f"{name[:20]:>22}" for name in columns)
    return "\n".join([head, *(f"{name:75}" + "".join(f"{found.get(name, ''):>22}" for found in columns.values()) for name in names)])


# The map


def purpose(path: Path, notebook: dict[str, Any]) -> str:
    "Return a notebook's line that says what it is for."
    first = next("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    if not (found := re.search(r"^> .+(?:\n> .+)*", first, re.M)):
        raise SystemExit(f"{path.as_posix()} does not say what it is for: begin its first cell with `# {path.stem.split('_', 1)[1]}` and a line `> …`.")
    return " ".join(line.removeprefix("> ") for line in found[0].splitlines())


def maps() -> dict[Path, str]:
    "Return what `make map` writes: each file of the repository with its text."
    notebooks = library()
    lines: dict[str, list[tuple[Path, str]]] = {room: [] for room in ORDER}
    for path, notebook in notebooks.items():
        lines[room_of(module_of(path))].append((path, purpose(path, notebook)))
    rooms, at_top = [room for room in ORDER if lines[room]], ("", "cli")  # these two have no folder of their own
    if unsaid := [room for room in rooms if not ROOMS[room]]:
        raise SystemExit(f"The room {unsaid[0]} has modules and no line: write it into ROOMS in benchmarks/house.py.")

    def called(room: str) -> str:
        return f"`{room}`" if room else "the ground"

    def listed(room: str, base: Path) -> str:
        return "\n".join(f"- [`{module_of(path)}`]({path.relative_to(base).as_posix()}): {line}" for path, line in lines[room])

    def tests(room: str) -> str:
        return f"`tests/{room}/`" if (ROOT / "tests" / room).is_dir() and room else "`tests/`"

    def below(room: str) -> str:
        return ", ".join(called(other) for other in rooms[: rooms.index(room)]) or "nothing of the package"

    made = "Made by `make map` from the `>` lines of the notebooks and from ROOMS in `benchmarks/house.py`: change those."
    order = "A room imports only from rooms above it, and a module only from modules above it in its room."

    def section(room: str, base: Path) -> str:
        linked = called(room) if room in at_top else f"[{called(room)}]({(LIBRARY / room).relative_to(base).as_posix()}/)"
        return f"**{linked}**: {ROOMS[room]}. Tests: {tests(room)}.\n\n{listed(room, base)}"

    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    if not (contributing.count(BEGIN) == contributing.count(END) == 1 and contributing.index(BEGIN) < contributing.index(END)):
        raise SystemExit(f"CONTRIBUTING.md has no place for the map: give it the lines\n{BEGIN}\n{END}")
    before, after = contributing.split(BEGIN)[0], contributing.split(END)[1]
    folders = [room for room in rooms if room not in at_top]
    ways = "\n".join(f"- [`{room}/`]({room}/): {ROOMS[room]}" for room in folders)
    found = {
        Path("CONTRIBUTING.md"): f"{before}{BEGIN}\n\n## The map\n\n{order} {made}\n\n" + "\n\n".join(section(room, Path()) for room in rooms) + f"\n\n{END}{after}",
        LIBRARY / "README.md": "# The library\n\n" + "\n\n".join([section("", LIBRARY), "The rooms, each importing only from those above it:", ways, section("cli", LIBRARY), made]) + "\n",
    }
    for room in folders:
        found[LIBRARY / room / "README.md"] = (
            f"# {room}\n\n{ROOMS[room][0].upper()}{ROOMS[room][1:]}.\n\nMay import from: {below(room)}; a module also from those above it in this list. Exported to `species_wb/{room}/`. Tests: {tests(room)}.\n\n"
            f"{listed(room, LIBRARY / room)}\n\n{made}\n"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", metavar="COMMIT", help="measure this commit, too")
    parser.add_argument("--map", action="store_true", help="write the map instead")
    given = parser.parse_args()
    if given.map:
        for path, text in maps().items():
            (ROOT / path).write_text(text, encoding="utf-8")
        return
    columns = {given.before: measures(library_at(given.before))} if given.before else {}
    columns["now"] = measures(library())
    print(table(columns))


if __name__ == "__main__":
    main()
