"""What an LLM answered becomes a query, or there is a reason why it is none."""

from __future__ import annotations

import functools
import itertools
import re
import unicodedata
from collections import Counter

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from pdadapt.data.words import split_words, word_limit_factor
from pdadapt.settings.schema import QueryKind

FEWEST_WORDS = 2
MOST_WORDS: dict[QueryKind, int] = {"question": 32, "keywords": 10, "claim": 32, "title": 16}
LONGEST_COPY = 8  # words in a row that a query may share with its document
OWN_SCRIPT = 0.05  # of a document's letters, that makes a script its own
JAPANESE = ("HIRAGANA", "KATAKANA", "IDEOGRAPHIC")  # which are one script with CJK
LIKELY = 0.7  # of a language, to be taken for a document's
UNLIKELY = 0.02  # of a document's language, beside a query's likeliest, to refuse it: benchmarks/languages.py
IN_DOUBT = {"la", "vo", "pcm", "zxx", "nn", "ary", "arz", "wuu", "yue"}  # names, tables; varieties
LETTERS = re.compile(r"[^\W\d_]+")
SENTENCE_END = re.compile(r"(?<=[.!?。！？])\s*|\n+")
CUT = "…"  # after an answer that was longer than generate.max_tokens
THOUGHTS = re.compile(r"<think>.*?</think>", re.DOTALL)
HALF_OF_THEM = re.compile(rf"^.*</think>|<think>.*?(?={CUT}?$)", re.DOTALL)  # begun in the prompt, or cut off
LABEL = re.compile(
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
ANSWER = re.compile(r"(?<=[?？؟])\W*(?:answer|antwort|respuesta|réponse|risposta|resposta|a)\s*[:：].*", re.IGNORECASE)
QUOTES = "\"'`*_“”„«»‘’ \t"
TEXT = r"(?:passage|document|text|article|paragraph|excerpt)"
META = re.compile(
    rf"\b(?:this|(?:the )?(?:above|given|following|provided)) {TEXT}\b"
    rf"|\b(?:the|that) {TEXT} (?:says?|states?|mentions?|describes?|discuss(?:es)?|explains?|suggests?|reports?|claims?"
    r"|indicates?|refers?|talks?|tells?|is about)\b"
    r"|\b(?:this question|the (?:answer|response) to the question)\b"
    rf"|\b(?:mentioned|described|discussed|stated|given|listed) (?:in|by) the {TEXT}\b"
    rf"|\b(?:in|of|from|by|about|according to) the {TEXT}(?=\W*$|[,.;:])"
    r"|^\W*(?:as an ai\b|i(?:'m| am) (?:sorry|ready|happy|glad)\b|sorry, (?:but )?i\b"
    r"|(?:unfortunately, )?i (?:cannot|can't|can not|could not|couldn't|am unable to|am not able to) "
    r"(?:write|generate|provide|answer|create|produce|formulate|come up|help|assist|comply|fulfill?|determine)\b)",
    re.IGNORECASE,
)
POINTED_AT = re.compile(rf"\b(?:the|this) ({TEXT})\b", re.IGNORECASE)  # by a query


def clean(answer: str) -> str:
    """The first line that says something, without a label (`Question:`), bullet, quotes or emphasis around it, and
    without an answer after a question; what leads to others (`Sure!`, `Here is a search query:`) says nothing.
    """
    lines = [line.strip() for line in HALF_OF_THEM.sub("", THOUGHTS.sub("", answer)).splitlines() if line.strip()]
    for number, line in enumerate(lines, 1):
        while (rest := LABEL.sub("", line).strip()) != line:
            line = rest
        text = " ".join(ANSWER.sub("", line).strip(QUOTES).split())
        leads = PREAMBLE.match(text) or (text.endswith((":", "：")) and number < len(lines))
        if text and not leads:
            return text
    return ""


def normalised(query: str) -> str:
    """What two queries share that are one: their words."""
    return " ".join(split_words(query))


def fault(query: str, kind: QueryKind, document: str) -> str | None:
    """Why this text is no query to keep; None when it is one.

    `mentions the document` knows English only: `the passage` is the document itself, unless that speaks of passages
    too. `another language` is said where scripts or both texts leave little doubt; a few keywords seldom do.
    """
    found = split_words(query)
    if query.endswith(CUT):
        return "cut off"
    if not found:
        return "empty"
    if len(found) < FEWEST_WORDS:
        return "too short"
    if len(found) > MOST_WORDS[kind] * word_limit_factor(found):
        return "too long"
    if META.search(query.replace("’", "'")) or any(
        not re.search(rf"\b{noun}s?\b", document, re.IGNORECASE) for noun in POINTED_AT.findall(query)
    ):
        return "mentions the document"
    if not (same_script(query, document) and same_language(query, document)):
        return "another language"
    return "copies the document" if copies(found, split_words(document)) else None


def copies(query: list[str], document: list[str]) -> bool:
    """Whether more than LONGEST_COPY words in a row of the query stand in the document."""
    size = LONGEST_COPY * word_limit_factor(query) + 1
    runs = {tuple(document[start : start + size]) for start in range(len(document) - size + 1)}
    return any(tuple(query[start : start + size]) in runs for start in range(len(query) - size + 1))


def same_language(query: str, document: str) -> bool:
    """Whether the query may be of a language that the document, or a sentence of it, is likely in."""
    found, own = dict(languages().rank(letters(query))), language(document)
    least = UNLIKELY * max(found.values())
    also = map(language, SENTENCE_END.split(document))
    return own is None or any(found[name] >= least for name in itertools.chain([own], also) if name)


def language(text: str) -> str | None:
    """The language that a text is likely in; None where that is in doubt. Numbers are of none."""
    name, likely = languages().classify(letters(text))
    return name if likely >= LIKELY else None


def letters(text: str) -> str:
    return " ".join(LETTERS.findall(text))


@functools.cache
def languages() -> LanguageIdentifier:
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(set(identifier.labels) - IN_DOUBT)
    return identifier


def same_script(query: str, document: str) -> bool:
    """Whether at least half of the query's letters are of scripts that the document is written in too; one without
    letters is written in any.
    """
    own, found = scripts(document), scripts(query)
    least = OWN_SCRIPT * own.total()
    return not own or 2 * sum(count for script, count in found.items() if own[script] > least) >= found.total()


def scripts(text: str) -> Counter[str]:
    """How many letters are of each script, by the first word of their Unicode names: LATIN, CYRILLIC, CJK."""
    letters = filter(str.isalpha, unicodedata.normalize("NFKC", text))
    names = (unicodedata.name(letter, "").partition(" ")[0] for letter in letters)
    return Counter("CJK" if name.startswith(JAPANESE) else name for name in names)
