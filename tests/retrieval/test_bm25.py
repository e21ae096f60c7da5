"""BM25 finds words of any script, and English ones as ever."""

import bm25s
import pytest
import Stemmer
from typer.testing import CliRunner

from pdadapt.cli.main import app
from pdadapt.data.bm25_index import split_unspaced, words_of
from pdadapt.data.corpus import Corpus, Document
from pdadapt.retrieval.candidates import rank_by_bm25
from pdadapt.retrieval.engines.bm25 import BM25
from pdadapt.retrieval.engines.load import index_origin
from pdadapt.retrieval.search import index_corpus, retrieve
from pdadapt.runtime.progress import Progress
from pdadapt.settings.schema import RetrieveSettings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("東京都の水", ["東京", "京都", "都の", "の水"]),
        ("水", ["水_"]),
        ("iPhone手机壳abc 2024年", ["iphon", "手机", "机壳", "abc", "2024", "年_"]),
        ("你好，世界。", ["你好", "世界"]),
        ("スーパー、ガ", ["スー", "ーパ", "パー", "ガ_"]),
        ("ﾊﾝｶｸ ＡＢＣ１２", ["ハン", "ンカ", "カク", "abc12"]),
        ("カ\u3099ス", ["ガス"]),
        ("학교에서 물", ["학교", "교에", "에서", "물_"]),
        ("ที่นี่ไทย", ["ที่นี่", "นี่ไ", "ไท", "ทย"]),
        ("ພາສາ", ["ພາ", "າສ", "ສາ"]),
        ("ភាសាខ្មែរ", ["ភាសា", "សាខ្", "ខ្មែ", "មែរ"]),
        ("မြန်မာစာ", ["မြန်", "န်မာ", "မာစာ"]),
        ("हिन्दी में माँ", ["हिन्दी", "में", "माँ"]),
        ("தமிழ் மொழி", ["தமிழ்", "மொழி"]),
        ("مُحَمَّد كتاب", ["مُحَمَّد", "كتاب"]),
        ("Привет мира", ["привет", "мира"]),
    ],
)
def test_bm25_splits_words_by_script(text, expected):
    assert words_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "The cafés of Größe naïve Ελλάδα, don't re-use 3.14 x86_64 I a of running flies",
        "cafe\u0301 — “quoted” … 1\ufe0f\u20e3 ❤\ufe0f word\ufe0f №5 ½ ﬁne Привет",
        "كتاب جديد שלום",
    ],
)
def test_other_text_is_split_as_bm25s_does(text):
    plain = bm25s.tokenize([text], stopwords="en", stemmer=Stemmer.Stemmer("english"), show_progress=False)
    names = {number: word for word, number in plain.vocab.items()}
    assert words_of(text) == [names[number] for number in plain.ids[0]]
    assert split_unspaced(text) == text


TEXTS = {
    "zh": (["自行车的链条在齿轮上跳动", "刹车片磨损以后会发出尖叫声", "轮圈需要校正"], "链条为什么跳动", 0),
    "ja": (["自転車のチェーンが歯飛びする", "ブレーキパッドが鳴く", "リムの振れを直す"], "ブレーキが鳴く理由", 1),
    "th": (["โซ่จักรยานกระโดดข้ามฟันเฟือง", "ผ้าเบรกสึกทำให้มีเสียงดัง", "ล้อเบี้ยวต้องตั้งซี่ลวด"], "ผ้าเบรกเสียงดัง", 1),
    "ko": (["자전거 체인이 튄다", "브레이크에서 소리가 난다", "바퀴를 바로잡다"], "브레이크 소리", 1),
    "hi": (["साइकिल की चेन कूदती है", "ब्रेक से आवाज़ आती है", "पहिया सीधा करें"], "ब्रेक की आवाज़", 1),
}


@pytest.mark.parametrize("language", TEXTS)
def test_a_document_is_found_in_languages_without_spaces_or_with_marks(language, tmp_path):
    documents, query, best = TEXTS[language]
    corpus = Corpus([Document(f"d{i}", "", text) for i, text in enumerate(documents)])
    index_corpus(BM25(), corpus, tmp_path, Progress())
    assert retrieve(BM25(), corpus, {"q": query}, tmp_path, 3, Progress())["q"][0][0] == f"d{best}"


def test_bm25_index_of_another_tokenizer_is_made_anew(tmp_path):
    corpus = Corpus([Document(f"d{i}", "", text) for i, text in enumerate(TEXTS["zh"][0])])
    assert index_origin("bm25", corpus, {}, RetrieveSettings())["model"] != "bm25", "which it was in earlier versions"
    index = tmp_path / "bm25.index"
    (index / "bm25").mkdir(parents=True)  # what a kill left of an earlier version
    (index / "index.json").write_text('{\n  "format": 1\n}\n', encoding="utf-8")
    found = rank_by_bm25(corpus, {"q": "链条"}, tmp_path / "bm25.run", 3, Progress())
    assert [doc_id for doc_id, _ in found["q"]] == ["d0"]


def test_it_is_said_when_bm25_finds_nothing_for_most_queries(beir, tmp_path):
    queries = "".join(f"q{number}\tzebra\n" for number in range(12, 16)) + "q16\trim\nq17\tpad\n"
    (tmp_path / "queries.tsv").write_text(queries, encoding="utf-8")
    given = ["--queries", str(tmp_path / "queries.tsv"), "--qrels", str(beir / "qrels" / "test.tsv")]
    command = ["evaluate", "--corpus", str(beir / "corpus.jsonl"), "--model", "bm25", "--out", str(tmp_path / "out")]
    said = CliRunner().invoke(app, [*command, *given])
    assert "BM25 finds no document for 4 of 6 queries, since no document shares" in said.output
    said = CliRunner().invoke(
        app, ["evaluate", "--corpus", str(beir), "--model", "bm25", "--out", str(tmp_path / "out")]
    )
    assert said.exit_code == 0 and "finds no document" not in said.output
    said = CliRunner().invoke(app, ["search", "bm25", "zebra", "--corpus", str(beir), "--index", str(tmp_path / "i")])
    assert "Nothing found." in said.output
