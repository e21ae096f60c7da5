"""The golden files' own rules: no text without a test, no test without a text."""

import pytest
from golden_files import FOLDER, GoldenFile, schema


@pytest.fixture
def file(tmp_path):
    """A golden file of two entries."""
    path = tmp_path / "messages" / "some.txt"
    golden = GoldenFile(path, write=True)
    golden.check("first", "One line.")
    golden.check("second", "┏━┓\n┃ ┃   \n\n└─┘\n")
    return path


def test_what_is_written_is_compared_exactly(file):
    assert file.read_text(encoding="utf-8") == "## first\nOne line.\n\n## second\n┏━┓\n┃ ┃\n\n└─┘\n"
    golden = GoldenFile(file)
    golden.check("first", "One line.\n")
    golden.check("second", "┏━┓\n┃ ┃\n\n└─┘")
    golden.check_names(["first", "second"])
    for text in ("One line", "one line.", "One  line.", "One line.\nAnother."):
        with pytest.raises(pytest.fail.Exception, match="'first' differs"):
            golden.check("first", text)
    with pytest.raises(pytest.fail.Exception, match="no entry 'third'"):
        golden.check("third", "One line.")


def test_the_names_must_be_those_of_the_cases(file):
    for names, message in (
        (["first"], "entries that no test knows: {'second'}"),
        (["first", "second", "third"], r"lacks \['third'\]"),
        (["second", "first"], "another order"),
    ):
        with pytest.raises(AssertionError, match=message):
            GoldenFile(file).check_names(names)


def test_writing_sorts_and_drops_what_no_case_has(file):
    golden = GoldenFile(file, write=True)
    golden.check("new", "A new one.")
    golden.check("first", "Another line.")
    golden.check_names(["new", "first"])
    assert file.read_text(encoding="utf-8") == "## new\nA new one.\n\n## first\nAnother line.\n"
    with pytest.raises(AssertionError, match="lacks"):
        golden.check_names(["new", "first", "not run"])


def test_an_entry_holds_no_head_of_another(file):
    with pytest.raises(AssertionError):
        GoldenFile(file, write=True).check("first", "A line.\n## second\nA text.")


def test_a_schema_has_a_line_for_each_key():
    value = {"a": 1, "b": [{"c": None}, {"c": 0.5, "d": "x"}], "e": {"k": {"f": True}, "l": {"f": []}}}
    assert schema(value, maps=["$.e"]).splitlines() == [
        "$: dict",
        "$.a: int",
        "$.b: list",
        "$.b[]: dict",
        "$.b[].c: float or null",
        "$.b[].d: str",
        "$.e: map of k, l",
        "$.e.*: dict",
        "$.e.*.f: bool or list",
    ]


def test_every_golden_file_is_named_in_a_test():
    tests = [file.read_text(encoding="utf-8") for file in FOLDER.parent.rglob("test_*.py")]
    files = [file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*") if file.is_file()]
    assert files
    for name in files:
        assert any(f'"{name}"' in text for text in tests), f"no test names {name}; remove it"
