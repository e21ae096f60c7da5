from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdadapt.errors import RecipeError
from pdadapt.generation.writers import writing_prompts
from pdadapt.settings.prompt import LIKELIHOOD_FIELDS, PAIR_FIELDS, POINT_FIELDS, Prompt, load_prompt
from pdadapt.settings.schema import GenerateSettings, QueryKind


def test_the_shipped_prompts_are_the_papers():
    assert load_prompt("yes-no", POINT_FIELDS).render({"query": "Q", "document": "D"}) == (
        "Is the document relevant to the query (Yes or No)?\n\nQuery: Q\n\nDocument: D"
    )
    assert load_prompt("a-b", PAIR_FIELDS).render({"query": "Q", "document_a": "1", "document_b": "2"}) == (
        "Which document is more relevant to the query? Answer only 'A' or 'B'.\n\n"
        "Query: Q\n\nDocument A: 1\n\nDocument B: 2"
    )
    load_prompt("query-likelihood", LIKELIHOOD_FIELDS)


def test_every_kind_of_query_has_a_prompt_which_may_be_another(tmp_path):
    prompts = writing_prompts(GenerateSettings())
    assert set(prompts) == set(get_args(QueryKind)) and len({prompt.sha256 for prompt in prompts.values()}) == 4
    own = tmp_path / "own.txt"
    own.write_text("Frage zu: {document}\n", encoding="utf-8")
    changed = writing_prompts(GenerateSettings(prompts={"question": str(own)}))
    assert changed["question"].render({"document": "D"}) == "Frage zu: D"
    assert {kind for kind in prompts if changed[kind].sha256 == prompts[kind].sha256} == {"keywords", "claim", "title"}


@given(st.text(), st.text())
def test_braces_in_texts_are_only_text(query, document):
    prompt = Prompt("<{query}|{document}>", POINT_FIELDS)
    assert prompt.render({"query": query, "document": document}) == f"<{query}|{document}>"


@pytest.mark.parametrize("template", ["{query}", "{query} {document} {document}", "{query} {document} {title}"])
def test_missing_repeated_and_unknown_fields_are_refused(template):
    with pytest.raises(RecipeError, match=r"Use \{document\}, \{query\}, each once"):
        Prompt(template, POINT_FIELDS)


def test_an_unknown_prompt_names_the_known_ones(tmp_path):
    with pytest.raises(
        RecipeError,
        match="a-b, duot5, monot5, query-claim, query-keywords, query-likelihood, query-question, query-title, yes-no",
    ):
        load_prompt("yes", POINT_FIELDS)
    own = tmp_path / "own.txt"
    own.write_text("{document} / {query}\n", encoding="utf-8")
    assert load_prompt(str(own), POINT_FIELDS).render({"query": "q", "document": "d"}) == "d / q"
