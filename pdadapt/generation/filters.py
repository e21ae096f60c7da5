"""Turn an LLM's answer into a query, or find the reason why it is not a good one."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections import Counter

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pdadapt.data.words import split_words, word_limit_factor
from pdadapt.settings.schema import QueryKind

MIN_QUERY_WORDS = 2
MAX_QUERY_WORDS: dict[QueryKind, int] = {"question": 32, "keywords": 10, "claim": 32, "title": 16}
MAX_COPIED_WORDS = 8  # so many consecutive words of a query may be copied from its document
SCRIPT_SHARE = 0.05  # a document is written in a script if more than this share of its letters are
JAPANESE_SCRIPTS = ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC")  # count as one script with CJK
LIKELY_LANGUAGE = 0.7  # least probability of a document's language
# Least probability of the document's language for a query, relative to the query's likeliest language. The value was
# measured with benchmarks/languages.py.
UNLIKELY_LANGUAGE = 0.02
# The detector takes names and tables for the first four of these. The others are varieties of larger languages.
UNRELIABLE_LANGUAGES = {"la", "vo", "pcm", "zxx", "nn", "ary", "arz", "wuu", "yue"}
LETTER_RUN = re.compile(r"[^\W\d_]+")
SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")
CUT_MARK = "…"  # follows an answer that was longer than generate.max_tokens
THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
# A thought that began in the prompt, or that was cut off
PARTIAL_THOUGHT = re.compile(rf"^.*</think>|<think>.*?(?={CUT_MARK}?$)", re.DOTALL)
LEADING_WORDS = re.compile(
    r"^(\W*(?:(?:here(?:['’]s| is| are)\s+)?(?:an?|one|the|some|your)\s+)?(?:search |short |sample |possible )?"
    r"(?:question|query|queries|keywords?|claim|statement|title|heading|answer|q"
    r"|frage|titel|pregunta|título|titre|domanda|titolo|pergunta|vraag|вопрос|问题|問題|質問)\s*\d*\s*(?:\([^)]*\))?\W*[:：]"
    r"|\W*(?:sure|ok|okay|certainly|absolutely|of course|alright)\s*[!.,:]"
    r"|\s*(?:[-*•–#]+|\(?\d{1,2}[.)])(?=\s))\s*",
    re.IGNORECASE,
)
PREAMBLE = re.compile(
    r"\W*(?:let(?:['’]s| me) (?:see|think|write|try|start)\b"
    r"|here(?:['’]s| is| are)\b.*\b(?:question|quer(?:y|ie)|keyword|claim|statement|fact|sentence|title|heading)s?\b)",
    re.IGNORECASE,
)
ANSWER_AFTER_QUESTION = re.compile(
    r"(?<=[?？؟])\W*(?:answer|antwort|respuesta|réponse|risposta|resposta|a)\s*[:：].*", re.IGNORECASE
)
QUOTES = "\"'`*_“”„«»‘’ \t"
DOCUMENT_NOUN = r"(?:passage|document|text|article|paragraph|excerpt)"
DOCUMENT_MENTION = re.compile(
    rf"\b(?:this|(?:the )?(?:above|given|following|provided)) {DOCUMENT_NOUN}\b"
    rf"|\b(?:the|that) {DOCUMENT_NOUN} (?:says?|states?|mentions?|describes?|discuss(?:es)?|explains?|suggests?"
    r"|reports?|claims?|indicates?|refers?|talks?|tells?|is about)\b"
    r"|\b(?:this question|the (?:answer|response) to the question)\b"
    rf"|\b(?:mentioned|described|discussed|stated|given|listed) (?:in|by) the {DOCUMENT_NOUN}\b"
    rf"|\b(?:in|of|from|by|about|according to) the {DOCUMENT_NOUN}(?=\W*$|[,.;:])"
    r"|^\W*(?:as an ai\b|i(?:'m| am) (?:sorry|ready|happy|glad)\b|sorry, (?:but )?i\b"
    r"|(?:unfortunately, )?i (?:cannot|can't|can not|could not|couldn't|am unable to|am not able to) "
    r"(?:write|generate|provide|answer|create|produce|formulate|come up|help|assist|comply|fulfill?|determine)\b)",
    re.IGNORECASE,
)
THE_DOCUMENT = re.compile(rf"\b(?:the|this) ({DOCUMENT_NOUN})\b", re.IGNORECASE)  # a query that points at a document


def clean(answer: str) -> str:
    """Return the first line with content; empty if there is none.

    Labels (`Question:`), bullets, quotes, emphasis and an answer after a question are removed. A line that only
    introduces others (`Sure!`, `Here is a search query:`) has no content.
    """
    lines = [line.strip() for line in PARTIAL_THOUGHT.sub("", THOUGHTS.sub("", answer)).splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        while (rest := LEADING_WORDS.sub("", line).strip()) != line:
            line = rest
        text = " ".join(ANSWER_AFTER_QUESTION.sub("", line).strip(QUOTES).split())
        introduces = PREAMBLE.match(text) or (text.endswith((":", "：")) and number < len(lines))
        if text and not introduces:
            return text
    return ""


def normalised(query: str) -> str:
    """Return the query's words. Two queries with equal words are duplicates."""
    return " ".join(split_words(query))


def fault(query: str, kind: QueryKind, document: str) -> str | None:
    """Return the reason why a query is not kept, or None if it is good.

    `mentions the document` works for English only. `the passage` counts as a mention unless the document speaks of
    passages too. `another language` needs clear evidence from the scripts or from both texts, which a few keywords
    seldom give.
    """
    query_words = split_words(query)
    if query.endswith(CUT_MARK):
        return "cut off"
    if not query_words:
        return "empty"
    if len(query_words) < MIN_QUERY_WORDS:
        return "too short"
    if len(query_words) > MAX_QUERY_WORDS[kind] * word_limit_factor(query_words):
        return "too long"
    if DOCUMENT_MENTION.search(query.replace("’", "'")) or any(
        not re.search(rf"\b{noun}s?\b", document, re.IGNORECASE) for noun in THE_DOCUMENT.findall(query)
    ):
        return "mentions the document"
    if not (same_script(query, document) and same_language(query, document)):
        return "another language"
    return "copies the document" if copies(query_words, split_words(document)) else None


def copies(query: list[str], document: list[str]) -> bool:
    """Whether more than MAX_COPIED_WORDS consecutive words of the query are copied from the document."""
    size = MAX_COPIED_WORDS * word_limit_factor(query) + 1
    runs = {tuple(document[start : start + size]) for start in range(len(document) - size + 1)}
    return any(tuple(query[start : start + size]) in runs for start in range(len(query) - size + 1))


def same_language(query: str, document: str) -> bool:
    """Whether the query may be in the language of the document, or of one of its sentences."""
    probabilities, main = dict(languages().rank(letters(query))), language(document)
    least = UNLIKELY_LANGUAGE * max(probabilities.values())
    others = map(language, SENTENCE_END.split(document))
    return main is None or any(probabilities[name] >= least for name in itertools.chain([main], others) if name)


def language(text: str) -> str | None:
    """Return the language that a text is likely in, or None if that is in doubt. Digits are ignored."""
    name, probability = languages().classify(letters(text))
    return name if probability >= LIKELY_LANGUAGE else None


def letters(text: str) -> str:
    """Return the runs of letters in a text, separated by spaces."""
    return " ".join(LETTER_RUN.findall(text))


@functools.cache
def languages() -> LanguageIdentifier:
    """Return the language detector, without the languages that it confuses most."""
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(identifier.labels) - UNRELIABLE_LANGUAGES)
    return identifier


def same_script(query: str, document: str) -> bool:
    """Whether at least half of the query's letters are in scripts of the document.

    A document without letters fits every script.
    """
    theirs, ours = scripts(document), scripts(query)
    least = SCRIPT_SHARE * theirs.total()
    return not theirs or 2 * sum(count for script, count in ours.items() if theirs[script] > least) >= ours.total()


def scripts(text: str) -> Counter[str]:
    """Count the letters of each script. A script is the first word of a letter's Unicode name: LATIN, CYRILLIC, CJK."""
    letters = filter(str.isalpha, unicodedata.normalize("NFKC", text))
    names = (unicodedata.name(letter, "").partition(" ")[0] for letter in letters)
    return Counter("CJK" if name.startswith(JAPANESE_SCRIPTS) else name for name in names)
