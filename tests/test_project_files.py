"""pyproject.toml, CITATION.cff and the changelog say the same, and each bound has its reason."""

import re
import tomllib
from pathlib import Path

import yaml
from lowest import lowest

import pdadapt

ROOT = Path(__file__).parents[1]
PROJECT = ROOT / "pyproject.toml"
BOUND = re.compile(r'"[\w.-]+(?:\[\w+\])?[<>=!~]=?[^"]*"')


def test_every_bound_has_its_reason_beside_it():
    lines = [line for line in PROJECT.read_text(encoding="utf-8").splitlines() if BOUND.search(line)]
    settings = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]
    extras = [one for extra in settings["optional-dependencies"].values() for one in extra]
    assert len(lines) >= len(settings["dependencies"] + extras)
    assert not [line for line in lines if not re.search(r"\]?,?  # \S", line)], "write the reason in a comment"


def test_lowest_versions_are_the_lower_bounds():
    found = lowest(PROJECT)
    required = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert [one.replace("==", ">=") for one in found[: len(required)]] == required
    names = [one.partition("==")[0] for one in found]
    assert len(set(names)) == len(names), "a package has one lowest version"


def test_citation_names_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == pdadapt.__version__
    assert citation["license"] == tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["license"]


def test_the_changelog_has_the_form_of_keep_a_changelog():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d{2}-\d{2}", version) for version in versions[1:])
    kinds = set(re.findall(r"^### (.*)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
