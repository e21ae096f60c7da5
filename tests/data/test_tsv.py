"""Tabs and quotes in TSV files: what is a column, what belongs to the text."""

import csv
import io

import pytest

from pdadapt.data.corpus import Document
from pdadapt.data.documents import read_corpus
from pdadapt.data.notices import Notices
from pdadapt.data.queries import read_queries
from pdadapt.errors import DataError


def write(tmp_path, text, name="c.tsv"):
    (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path / name


def test_a_tab_in_a_passage_makes_no_title(tmp_path):
    notices = Notices()
    file = write(tmp_path, "d1\ta passage with a tab\tin it\nd2\twith none\nd3\twith\ttwo\ttabs\n")
    corpus = read_corpus(file, notices)
    assert list(corpus) == [
        Document("d1", "", "a passage with a tab in it"),
        Document("d2", "", "with none"),
        Document("d3", "", "with two tabs"),
    ]
    assert corpus.documents[2].text == "with two tabs" and list(read_corpus(file)) == list(corpus)
    assert notices.sentences == [
        f"{file}:1: the text contains a tab (and 1 more). It was read as a space, because not every row has a "
        "third column."
    ]
    with pytest.raises(DataError, match=r"c\.tsv:1: the text contains a tab \(and 1 more\)\. Replace it .* --strict"):
        read_corpus(file, Notices(strict=True))


def test_a_title_is_what_every_row_has_or_a_header_names(tmp_path):
    titled = [Document("d1", "Rims", "true it"), Document("d2", "", "bleed it")]
    for text in ("d1\ttrue it\tRims\nd2\tbleed it\t\n", "id\ttext\ttitle\nd1\ttrue it\tRims\nd2\tbleed it\n"):
        notices = Notices()
        assert list(read_corpus(write(tmp_path, text), notices)) == titled and not notices.sentences
    joined = read_corpus(write(tmp_path, "id\ttext\nd1\ttrue\tit\n"))
    assert list(joined) == [Document("d1", "", "true it")]


@pytest.mark.parametrize("text", ["d1\ta\tb\nd2\ta\tb\tc\n", "id\ttext\ttitle\nd1\ta\tb\tc\n"])
def test_tsv_corpus_with_an_unnamed_fourth_column_is_refused(tmp_path, text):
    with pytest.raises(DataError, match=r"c\.tsv:2: the line has 4 columns, but should be id<TAB>text"):
        read_corpus(write(tmp_path, text))


def test_tsv_queries_with_a_third_column_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"c\.tsv:2: the line has 3 columns, but should be id<TAB>text\."):
        read_queries(write(tmp_path, "q1\ta\nq2\tb\tc\n"))


def test_ids_in_a_file_of_one_query_a_line_are_said(tmp_path):
    notices = Notices()
    assert read_queries(write(tmp_path, "7\ta rim\n8\ta pad\n", "q.txt"), notices) == {
        "q1": "7\ta rim",
        "q2": "8\ta pad",
    }
    assert notices.sentences[0].endswith("If the lines are an id and a text, rename the file to .tsv.")
    notices = Notices()
    read_queries(write(tmp_path, "7\ta rim\na pad\n", "q.txt"), notices)
    assert not notices.sentences


ROWS = [["d1", 'He said "skip" and left.'], ["d2", "Plain."], ["3", 'a "tab"\tand a quote at the end"'], ["d4", ""]]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("header", [[], [["id", "text"]]])
@pytest.mark.parametrize("quoting", [csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC])
def test_tsv_quotes_of_a_csv_writer_are_removed(tmp_path, quoting, header, packed):
    import gzip

    text = io.StringIO()
    csv.writer(text, delimiter="\t", quoting=quoting).writerows([*header, *ROWS])
    file = write(tmp_path, text.getvalue())
    if packed:
        (tmp_path / "c.tsv.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
        file = tmp_path / "c.tsv.gz"
    corpus = read_corpus(file)
    assert [[document.doc_id, document.contents] for document in corpus] == ROWS[:3], "and one is blank"
    assert corpus["3"].text == ROWS[2][1]
    queries = write(tmp_path, text.getvalue(), "q.tsv")
    assert read_queries(queries) == {doc_id: text for doc_id, text in ROWS if text}


@pytest.mark.parametrize(
    "texts",
    [
        ['"To be or not to be."', '"All the world is a stage."', "A third has no quotes."],
        ['"A quotation" that goes on', "none"],
        ['5" disk', '"A quotation that a later passage ends', 'and here it ends."'],
        ['""', '"'],
        ['"a ""doubled"" one"', 'but 5" here'],
    ],
)
def test_plain_text_that_begins_with_a_quote_stays_as_it_is(tmp_path, texts):
    file = write(tmp_path, "".join(f"{number}\t{text}\n" for number, text in enumerate(texts)))
    assert [document.text for document in read_corpus(file)] == texts


@pytest.mark.parametrize("header", ["", "id\ttext\n", '"id"\t"text"\n'])
def test_tsv_quotes_around_every_text_are_removed(tmp_path, header):
    file = write(tmp_path, f'{header}1\t"hello"\n\n2\t"world"\n')
    assert list(read_corpus(file)) == [Document("1", "", "hello"), Document("2", "", "world")]
    assert read_queries(file) == {"1": "hello", "2": "world"}


@pytest.mark.parametrize("line", ['"d2"\t"a 5" disk"', '"d2"\ta 5" disk', 'd2\t"a" b'])
def test_tsv_half_quoted_line_is_refused_where_ids_are_quoted(tmp_path, line):
    with pytest.raises(DataError, match=r"c\.tsv:2: a quote within a field is not doubled, although fields are"):
        read_corpus(write(tmp_path, f'"d1"\t"a b"\n{line}\n'))


@pytest.mark.parametrize(
    "text",
    [
        '"d1"\t"a b"\n"d2"\t"over\ntwo lines"\n',
        'id\ttext\nd1\t"one ""quote"""\nd2\t"over\n\ntwo\tlines"\n',
        'id\ttext\nd1\ta b\nd2\t"over\ntwo lines"\n',
        'd1\t"over\ntwo\tlines"\nd2\tb\n',
        'd1\t"whole"\nd2\t"over\nthe ""second""\tx"\td\nd3\tc\n',
        'd0\ta\nd1\t"over\ntwo\tor\nthree"\n',
    ],
)
def test_a_field_in_quotes_that_goes_over_lines_is_named_and_not_cut(tmp_path, text):
    line = text.split("over")[0].count("\n") + 1
    with pytest.raises(DataError, match=rf"c\.tsv:{line}: a field in quotes continues on the next line"):
        read_corpus(write(tmp_path, text))
