import pytest
import torch
from tiny_models import bert_config, bert_tokenizer
from transformers import BertModel
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.corpus import Document
from pdadapt.retrieval.explain import EXCERPT_PIECES, SearchHit, excerpt, matched_words
from pdadapt.students.colbert import load_colbert


@pytest.fixture(scope="module")
def words_only(tmp_path_factory):
    """An encoder without layers and positions: a word's vector is its own, wherever it stands."""
    folder = tmp_path_factory.mktemp("words")
    config = bert_config(bert_tokenizer(folder))
    config.num_hidden_layers = 0
    torch.manual_seed(0)
    model = BertModel(config, add_pooling_layer=False)
    model.embeddings.position_embeddings.weight.data.zero_()
    model.save_pretrained(folder)
    return folder


def test_the_matched_words_are_those_of_the_query(words_only):
    text = "pad, rim! rotor (rim) spoke"
    found = matched_words(load_colbert(str(words_only)), "spoke rim", text)
    assert [text[start:end] for start, end in found] == ["rim", "spoke"]
    assert matched_words(load_colbert(str(words_only)), "hub", "") == []


def test_words_are_found_behind_a_marker_and_in_a_text_that_is_cut(stanford):
    model = load_colbert(str(stanford), document_length=8)
    text = "pad, rim! " * 20
    found = matched_words(model, "spoke rim", text)
    assert found and {text[start:end] for start, end in found} <= {"pad", "rim"} and max(found)[1] < 30


def test_an_excerpt_stands_where_most_words_matched():
    words = [f"w{i}" for i in range(300)]
    contents = " ".join(words)
    spans = [(contents.index(word), contents.index(word) + len(word)) for word in ("w205", "w210", "w100")]
    text = excerpt(SearchHit(Document("d", "", contents), 1.0, spans))
    assert text.plain.startswith("… ") and text.plain.endswith(" …") and len(text.plain.split()) == EXCERPT_PIECES + 2
    marked = {text.plain[span.start : span.end] for span in text.spans}
    assert marked == {"w205", "w210"}
    assert excerpt(SearchHit(Document("d", "", ""), 1.0, [])).plain == ""


def test_search_shows_passages_and_keeps_the_index(beir, words_only, stanford, tmp_path):
    command = ["search", str(words_only), "--corpus", str(beir), "--index", str(tmp_path), "--k", "2"]
    said = CliRunner().invoke(app, [*command, "rim spoke"])
    assert said.exit_code == 0, said.output
    assert "1. " in said.output and "2. " in said.output and "3. " not in said.output
    shard = next(tmp_path.rglob("shard-00000.safetensors"))
    before = shard.stat().st_mtime_ns
    said = CliRunner().invoke(app, [*command, "--interactive", "--compare", "bm25"], input="rim spoke\npad\n\n")
    assert said.exit_code == 0, said.output
    assert said.output.count("query> ") == 3 and "there 1" in said.output
    assert shard.stat().st_mtime_ns == before
    assert CliRunner().invoke(app, command).exit_code == 2
