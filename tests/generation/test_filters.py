import pytest

from pdadapt.generation.filters import clean, fault, normalised, same_language, same_script

DOCUMENT = "A tubeless tire holds air without an inner tube, since sealant closes every hole in the casing at once."


@pytest.mark.parametrize(
    ("answer", "query"),
    [
        ("How do tubeless tires seal?", "How do tubeless tires seal?"),
        ("\n\nQuestion: How do they seal?\nAnswer: by sealant.", "How do they seal?"),
        ("**Question 1:** How do they seal?", "How do they seal?"),
        ("1. How do they seal?\n2. Why?", "How do they seal?"),
        ('- Search query: "tubeless sealant"', "tubeless sealant"),
        ("Keywords: tubeless,  sealant", "tubeless, sealant"),
        ("<think>The passage is about\ntires.</think>\ntubeless sealant", "tubeless sealant"),
        ("<think>The passage is about", ""),
        ("“Tubeless tires”", "Tubeless tires"),
        ("2.5 bar tire pressure", "2.5 bar tire pressure"),
        ("-40 degrees", "-40 degrees"),
        ("Questions remain: do they seal", "Questions remain: do they seal"),
        ("Title:\nTubeless tires", "Tubeless tires"),
        (" \n ", ""),
        ("Here is a search query:\n\ntubeless tire sealant", "tubeless tire sealant"),
        ("Sure! Here's a question:\n\nHow do tubeless tires seal?", "How do tubeless tires seal?"),
        ("Sure!\nHow do tubeless tires seal?", "How do tubeless tires seal?"),
        ("Okay, let’s see\nHow do tires seal?", "How do tires seal?"),
        ("**Five keywords of the passage:**\ntubeless, sealant", "tubeless, sealant"),
        ("Here is a question: How do tires seal?", "How do tires seal?"),
        ("Here is a title…", ""),
        ("Sure! How do tires seal?", "How do tires seal?"),
        ("Okay, here’s a question: How do tires seal?", "How do tires seal?"),
        ("Of course.\nTubeless tires", "Tubeless tires"),
        ("Sealants for tires:", "Sealants for tires:"),
        ("Sure footing on ice", "Sure footing on ice"),
        ("Here is where it seals", "Here is where it seals"),
        ("Question: How do tires seal? Answer: by sealant", "How do tires seal?"),
        ("How do tires seal? **Answer:** by…", "How do tires seal?"),
        ("How do tires seal? The answer: sealant", "How do tires seal? The answer: sealant"),
        ("Frage: Wie dichtet ein Reifen?", "Wie dichtet ein Reifen?"),
        ("Pregunta 1: ¿Cómo sella?", "¿Cómo sella?"),
        ("问题：轮胎如何密封？", "轮胎如何密封？"),
        ('Search query (example): "tubeless sealant"', "tubeless sealant"),
        ("The passage is about tires.\nSo ask that.\n</think>\n\nHow do tires seal?", "How do tires seal?"),
        ("<think>Tires?</think>How do tires seal?", "How do tires seal?"),
        ("How do tires seal? <think>Good.</think>", "How do tires seal?"),
    ],
)
def test_an_answer_becomes_its_first_line_without_what_is_around_it(answer, query):
    assert clean(answer) == query


@pytest.mark.parametrize(
    ("query", "kind", "reason"),
    [
        ("How does a tubeless tire seal holes?", "question", None),
        ("tubeless sealant", "keywords", None),
        ("?!", "question", "empty"),
        ("Yes.", "question", "too short"),
        ("how " * 33, "question", "too long"),
        ("a b c d e f g h i j k", "keywords", "too long"),
        ("What does the passage say of tires?", "question", "mentions the document"),
        ("I'm sorry, there is nothing to ask", "question", "mentions the document"),
        ("Как держит воздух бескамерная шина?", "question", "another language"),
        ("Wie dichtet ein schlauchloser Reifen ein Loch ab?", "question", "another language"),
        ("Is it air without an inner tube, since sealant closes every leak?", "question", "copies the document"),
        ("Is it air without an inner tube, since sealant closes leaks?", "question", None),
        ("What seals a tire when the…", "question", "cut off"),
        (clean("What seals it?\nIt is the…"), "question", None),
        (clean("<think>The passage says that…"), "question", "cut off"),
    ],
)
def test_every_fault_has_its_reason(query, kind, reason):
    assert fault(query, kind, DOCUMENT) == reason


@pytest.mark.parametrize(
    "query",
    [
        "What can I do when I can't sleep?",
        "Who led the passage of the Civil Rights Act?",
        "What followed from the passage of the act?",
        "What does the document retention policy require?",
        "How long is the passage through the canal?",
        "I can't breathe at night after eating",
        "I am unable to sleep",
        "Why does the text message fail to send?",
        "When was the article of clothing invented?",
        "Which songs say I'm sorry?",
    ],
)
def test_fault_accepts_queries_that_resemble_refusals(query):
    document = f"{DOCUMENT} A passage, an article, a text message and a document."
    assert fault(query, "question", document) is None


@pytest.mark.parametrize(
    "query",
    [
        "What is this article about?",
        "Which year does the text mention?",
        "The passage describes a tire",
        "What is the topic of the passage?",
        "What is described in the document as a hole?",
        "Why is the passage so difficult to follow and understand?",
        "How does the article answer the question?",
        "According to the text, what seals it?",
        "Answer the question from the given paragraph",
        "Who wrote the following excerpt?",
        "I’m sorry, there is nothing to ask",
        "I can’t write a question about it",
        "Unfortunately, I cannot generate a query",
        "I'm ready to help!",
        "What is the answer to this question?",
        'What\'s the answer to the question: "Why did tires go flat?"',
        "As an AI language model, I have no tires",
    ],
)
def test_fault_finds_mentions_of_the_document_and_refusals(query):
    assert fault(query, "question", DOCUMENT) == "mentions the document"


def test_a_query_may_be_in_any_script_of_its_document():
    both = "Бескамерная шина (tubeless tire) держит воздух"
    assert same_script("шина", both) and same_script("tubeless", both) and not same_script("輪胎", both)
    assert same_script("42", "輪胎"), "numbers are of no script"
    assert (
        same_script("ひらがなカタカナ", "輪胎") and same_script("ﾀｲﾔ々ー", "輪胎") and not same_script("한글", "輪胎")
    )
    assert fault("東京のどこですか", "question", "東京の駅は大きいです") is None


RUSSIAN = "Бескамерная шина держит воздух без камеры, потому что герметик сразу закрывает каждое отверстие в каркасе."
PRICES = "date,open,high,low,close,volume\n" + "".join(
    f"2024-01-{day:02},{100 + day}.5,{102 + day}.1,{99 + day}.0,{101 + day}.3,{1000 * day}\n" for day in range(1, 29)
)
GERMAN = (
    "Ein schlauchloser Reifen hält die Luft ohne Schlauch, weil Dichtmilch jedes Loch in der Karkasse sofort schließt."
)


@pytest.mark.parametrize(
    ("query", "document", "same"),
    [
        ("Wie dichtet ein schlauchloser Reifen ein Loch ab?", GERMAN, True),
        ("How does a tubeless tire seal a hole?", GERMAN, False),
        ("Comment un pneu sans chambre se répare-t-il ?", GERMAN, False),
        ("Wie dichtet ein schlauchloser Reifen ein Loch ab?", DOCUMENT, False),
        ("How does a tubeless tire seal a hole?", f"{3 * GERMAN} {DOCUMENT}", True),
        ("Wie dichtet ein schlauchloser Reifen ein Loch ab?", f"{3 * DOCUMENT}\n{GERMAN}", True),
        ("How does a tubeless tire seal a hole?", f"{3 * RUSSIAN} {DOCUMENT}", True),
        ("tubeless sealant", GERMAN, True),  # may be of either
        ("42", GERMAN, True),
        ("東京のどこですか", "東京の駅は大きいです", True),
        ("한글", "東京の駅は大きいです", False),
        ("Which of these values is the highest?", " ".join(map(str, range(100, 400))), True),
        ("What was the closing price of the stock in January 2024?", PRICES, True),
    ],
)
def test_a_query_is_of_another_language_where_there_is_little_doubt(query, document, same):
    assert same_language(query, document) is same


JAPANESE = (
    "相対性理論はアルベルト・アインシュタインが提唱した物理学の理論である。特殊相対性理論は1905年に、一般相対性理論は1915年から1916年に"
    "かけて発表された。時間と空間の概念を大きく変えた。"
)
CHINESE = "北京大学创办于1898年，初名京师大学堂，是中国第一所国立综合性大学，也是当时中国最高教育行政机关。"
THAI = "มหาวิทยาลัยเชียงใหม่ก่อตั้งขึ้นในปี พ.ศ. 2507 เป็นมหาวิทยาลัยแห่งแรกในภาคเหนือของประเทศไทย"


@pytest.mark.parametrize(
    ("query", "kind", "document", "reason"),
    [
        (
            "アインシュタインが一般相対性理論を発表したのは西暦何年から何年にかけてのことですか？",
            "question",
            JAPANESE,
            None,
        ),
        ("アルベルト・アインシュタイン", "title", JAPANESE, None),
        ("アインシュタイン 相対性理論 発表 年", "keywords", JAPANESE, None),
        ("バス ルート", "keywords", JAPANESE, None),
        ("アインシュタイン" * 13, "question", JAPANESE, "too long"),
        (JAPANESE[:60], "question", JAPANESE, "copies the document"),
        ("京", "keywords", JAPANESE, "too short"),
        ("京师大学堂 北京大学 创办时间 历史", "keywords", CHINESE, None),
        ("作为中国最早的国立综合大学，北京大学在十九世纪末以京师大学堂之名创立。", "claim", CHINESE, None),
        ("มหาวิทยาลัยใดเป็นสถาบันอุดมศึกษาแห่งแรกทางเหนือของไทย", "question", THAI, None),
        ("How did relativity change physics?", "question", JAPANESE, "another language"),
    ],
)
def test_scripts_without_spaces_have_longer_limits(query, kind, document, reason):
    assert fault(query, kind, document) == reason


def test_queries_of_the_same_words_are_one():
    assert normalised("What SEALS a tire") == normalised("what seals: a tire?") != normalised("What seals tires?")
