"""What README, the guides and CONTRIBUTING tell a person to type is there: every command, option, parameter, extra and link."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GUIDES = sorted((ROOT / "nbs" / "guide").glob("*.ipynb"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "reports" / "README.md", *GUIDES]
PAGES += [page for page in sorted((ROOT / "nbs").glob("*.ipynb")) if page.stem != "index"]  # the README is made of that one


def cells(notebook: Path, kind: str) -> list[str]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def prose(page: Path) -> str:
    return page.read_text(encoding="utf-8") if page.suffix == ".md" else "\n\n".join(cells(page, "markdown"))


def fenced(text: str, language: str = "") -> list[str]:
    return [code for word, code in re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S) if word == language]


def typed(text: str) -> list[str]:
    "Return what a page says to type: the lines of its blocks, and the code within its sentences."
    lines = [line.strip() for block in fenced(text) for line in block.splitlines()]
    return lines + re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))


def words_after(program: str, line: str) -> list[str] | None:
    "Return the words that a line gives to a program; None where it calls another one."
    found = re.match(rf"(?:\.venv[/\\](?:bin|Scripts)[/\\])?{re.escape(program)}(?: (.*))?$", line)
    return shlex.split(found[1] or "", comments=True) if found else None


def commands(program: str) -> list[tuple[str, list[str]]]:
    found = [(page.name, words_after(program, line)) for page in PAGES for line in typed(prose(page))]
    return [(name, words) for name, words in found if words]


def test_every_command_can_be_typed_as_it_stands():
    "The parser of the command line takes each one, with its options and their values."
    from typer.main import get_command

    from species_wb.cli import app

    whole, seen = get_command(app), set()
    for page, words in commands("species-wb"):
        command, rest, name = whole, words, "species-wb"
        while rest and rest[0] in getattr(command, "commands", {}):
            command, name, rest = command.commands[rest[0]], rest[0], rest[1:]
        seen.add(name)
        if not rest and len(words) <= 2 or rest in (["--help"], ["--version"], ["--install-completion"]):
            continue  # a command that is only named
        try:
            command.make_context(name, list(rest))
        except Exception as error:
            raise AssertionError(f"{page}: species-wb {shlex.join(words)}: {error}") from None
    assert {"classify", "train", "evaluate", "compare", "live", "watch", "serve", "export", "mix", "submit", "check", "doctor"} <= seen


def test_every_make_line_has_its_target_and_its_parameters():
    from species_wb.report.notebooks import notebook_parameters

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    known = {name.upper() for name in notebook_parameters("train")} | {"PYTHON", "VENV", "WORKERS"}
    lines = commands("make")
    assert {"train", "test", "lab"} <= {words[0] for _, words in lines}
    for page, words in lines:
        given = {word.split("=")[0] for word in words if "=" in word}
        assert given <= known and {word for word in words if "=" not in word} <= targets, (page, words)


def test_papermill_lines_give_parameters_that_the_notebooks_have():
    from species_wb.report.notebooks import notebook_parameters

    lines = commands("papermill")
    assert lines
    for page, words in lines:
        notebook = ROOT / words[0]
        given = {words[k + 1] for k, word in enumerate(words) if word == "-p"}
        assert notebook.is_file() and given <= set(notebook_parameters(notebook.stem)), (page, words)


def test_install_lines_name_extras_that_exist():
    extras = set(re.findall(r"^(\w+)_requirements", (ROOT / "settings.ini").read_text(encoding="utf-8"), re.M)) | {"all"}
    asked = [(page, found) for page, words in commands("pip") for word in words for found in re.findall(r"\.\[([\w,]+)\]", word)]
    assert {"lab", "watch", "serve", "cluster"} <= {extra for _, found in asked for extra in found.split(",")} <= extras, asked


def test_benchmarks_take_the_options_that_are_shown():
    lines = [(page, words) for page, words in commands("python") if words[0].startswith("benchmarks/")]
    assert lines
    for page, words in lines:
        code = (ROOT / words[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in code for word in words if word.startswith("--")), (page, words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)#]+)\)", prose(page)):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.suffix == ".md" or page in GUIDES], ids=lambda page: page.stem)
def test_names_of_the_package_exist(page):
    "Imports of the Python that is shown, and whatever else is written as a name in the package."
    text = prose(page)
    for code in fenced(text, "python"):
        compile(code, page.name, "exec")
        for module, names in re.findall(r"^from (species_wb\S*) import (.+)$", code, re.M):
            assert all(hasattr(import_module(module), name.strip()) for name in names.split(",")), (module, names)
    for module, name in re.findall(r"(species_wb(?:\.[a-z_]+)+)\.([A-Z]\w+)", text):
        assert hasattr(import_module(module), name), (module, name)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda page: page.stem)
def test_the_cells_of_a_guide_run(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for code in cells(guide, "code"):
        exec(compile(code, guide.name, "exec"), names)
    said = capsys.readouterr().out
    if guide.stem == "classify":
        assert [line.split()[1:3] for line in said.splitlines()] == [["ok", "green"], ["ok", "red"]]


def test_the_readme_is_short_and_leads_to_every_guide():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(readme.splitlines()) <= 150
    assert [guide.name for guide in GUIDES if f"(nbs/guide/{guide.name})" not in readme] == []
