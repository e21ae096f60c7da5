"""Keep control tokens out of queries and documents.

A control token opens a chat turn, ends a prompt, or separates two texts. A tokenizer recognizes its string everywhere,
so a document with that string could dictate the teacher's answer. A space inside the string turns it into plain text.
The token ids show whether this worked. The string alone does not, since a tokenizer may normalize full-width characters
or drop invisible ones.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

Span = tuple[int, int]

RARE_CHARACTERS = "\U0001f6b2 \ue123 \ua66e \U00012000"  # characters that few vocabularies contain
BREAK_ATTEMPTS = 3  # attempts to break control tokens with a space, then as many to remove them
BRACKETED = re.compile(r"\s*[<\[◁].*[>\]▷]\s*", re.DOTALL)
HTML_TAG = (  # Some vocabularies contain HTML tags as tokens. They are ordinary text of a document.
    r"</?(?i:a|abbr|address|article|aside|b|big|blockquote|body|br|button|caption|center|cite|code|col|dd|del|dfn|div|dl"
    r"|dt|em|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|mark"
    r"|meta|nav|nowiki|ol|option|p|pre|q|ref|s|samp|script|section|select|small|span|strike|strong|style|su[bp]|summary"
    r"|svg|t[rhd]|table|tbody|textarea|tfoot|thead|time|title|tt|u|ul|var|xml)/?>"
)
HTML = re.compile(HTML_TAG)
SERVED_MARKUP = re.compile(  # starts of strings that a server may read as control tokens or as the start of a turn
    rf"""(?=
      [<＜﹤][|｜]\S{{1,60}}?[>＞﹥]                     # <|im_end|>, <｜User｜>, <|channel>
    | [<＜﹤][^\s<>＜＞]{{1,60}}[|｜][>＞﹥]               # <channel|>
    | [\[［][|｜]\S{{1,60}}?[\]］]                       # [|assistant|]
    | [\[\]](?=[!\w]{{0,3}}~)[!~\w]{{1,4}}[\[\]]          # ]~b], [e~[
    | \]<\]\S{{1,40}}?\[>\[                             # ]<]minimax[>[
    | >>\w{{2,40}}<<                                    # >>ANSWER<<
    | <<\s*/?SYS\s*>>
    | [<＜﹤]/?[\w.-]{{0,40}}[_:▁][\w:.▁-]{{0,40}}[>＞﹥]    # <start_of_turn>, <seed:think>, <extra_id_0>
    | [<＜﹤]/?(?:s|[be]os|pad|unk|mask|cls|sep|sop|eo[a-z]|image|think\w{{0,40}}|thought|reasoning|unused\d+|role
        |answer|tools?|human|bot|user|assistant|system|model|fim-\w{{1,40}})[>＞﹥]
    | (?<![\w<])(?!{HTML_TAG})</?[a-z][\w-]{{1,40}}>     # <observation>, but not vec<int>
    | [\[［]/?(?:[A-Z]+(?:_[A-Z]+)+|INST|ARGS|THINK|IMG|AUDIO|PREFIX|MIDDLE|SUFFIX|USER|ASSISTANT|SYSTEM)[\]］]
    | [\[［](?:SEP|CLS|[gs]?MASK|PAD|UNK|[BE]OS|unused\d+)[\]］]
    | ◁[^\s◁▷]{{1,60}}▷
    | (?<!<)(?<!<[ ])/(?:no_?)?think                                  # some chat templates look for it in a message
    | (?<!\S)(?:USER|ASSISTANT):
    | (?:(?<=\n\n)|(?<=\n\r\n)|\A)(?:User|Human|Assistant|Bot)[ ]?:
    | (?<![^\n])\#{{2,3}}[ ](?:Instruction|Response|User|Human|Assistant|System)\b
    )""",
    re.VERBOSE,
)


class ControlTokens:
    """The control tokens of a tokenizer: special tokens, and added tokens that are markup such as `<think>`."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.strings = control_strings(tokenizer)  # by token id

    def among(self, ids: Iterable[int]) -> list[int]:
        """Return the control tokens in the ids, in order."""
        return list(filter(self.strings.__contains__, ids))

    def as_text(self, text: str) -> str:
        """Return the text with its control tokens broken up. Most texts have none and stay unchanged."""
        if self.tokenizer.is_fast:
            return self.read(text)[0]
        longest_first = sorted(self.strings.values(), key=len, reverse=True)  # slow tokenizers give no token offsets
        pattern = "|".join(map(re.escape, longest_first)) or "(?!)"
        return break_up(text, [match.span() for match in re.finditer(pattern, text)])

    def read(self, text: str) -> tuple[str, list[Span]]:
        """Return the text as `as_text` does, and the character spans of its tokens. Needs a fast tokenizer."""
        attempts = 0
        while True:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            spans = encoded["offset_mapping"]
            control = [span for token, span in zip(encoded["input_ids"], spans, strict=True) if token in self.strings]
            if not control or attempts == 2 * BREAK_ATTEMPTS:
                return text, spans
            text = break_up(text, control, whole=attempts >= BREAK_ATTEMPTS)
            attempts += 1


@functools.lru_cache(maxsize=4)
def control_tokens(tokenizer: Any) -> ControlTokens:
    """Return the tokenizer's control tokens, computed once per tokenizer."""
    return ControlTokens(tokenizer)


def control_strings(tokenizer: Any) -> dict[int, str]:
    """Return {token id: string} of the control tokens.

    White space, single characters and ordinary words are no control tokens, even if they were added to the vocabulary.
    Neither is the unknown token of a tokenizer that produces it for ordinary text.
    """
    special = {token: tokenizer.decode([token]) for token in tokenizer.all_special_ids}
    added = {
        token: one.content for token, one in tokenizer.added_tokens_decoder.items() if one.special or _is_markup(one)
    }
    unknown = {tokenizer.unk_token_id} & set(tokenizer.encode(RARE_CHARACTERS, add_special_tokens=False))
    return {
        token: string.strip()
        for token, string in {**special, **added}.items()
        if len(string.strip()) > 1 and token not in unknown
    }


def _is_markup(added: Any) -> bool:
    return bool(BRACKETED.fullmatch(added.content)) and not HTML.fullmatch(added.content)


def without_markup(text: str) -> str:
    """Return the text with a space inside everything that looks like a control token.

    This is for a server, whose tokenizer is not known.
    """
    while spans := [(match.start(), match.start() + 1) for match in SERVED_MARKUP.finditer(text)]:
        text = break_up(text, spans)
    return text


def only_words(text: str) -> str:
    """Return the letters and digits of the text, separated by spaces. This is the last resort."""
    return re.sub(r"[\W_]+", " ", text)


def break_up(text: str, spans: Iterable[Span], whole: bool = False) -> str:
    """Put a space after the first character of each span. With `whole`, replace each span by a space."""
    pieces, done = [], 0
    for start, stop in spans:
        if not whole:
            span = text[start:stop]  # it may begin with white space
            start = stop = start + len(span) - len(span.lstrip()) + 1
        pieces.append(text[done:start])
        done = stop
    return " ".join([*pieces, text[done:]])
