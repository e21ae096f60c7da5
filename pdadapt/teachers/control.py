"""Control tokens open a chat turn, end a prompt, or part two texts. In a query or a document they are text.

A tokenizer finds them wherever their string stands, so whoever writes documents could write the judge's answer too. A
space within the string makes it text again. Whether it does, the token ids say: a tokenizer may fold full-width signs
or drop invisible ones, so no look at the string alone is enough.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

Span = tuple[int, int]

RARE = "\U0001f6b2 \ue123 \ua66e \U00012000"  # signs that a vocabulary lacks, if it lacks any
TRIES = 3  # a control token that a space does not break is taken out, as often
BRACKETED = re.compile(r"\s*[<\[◁].*[>\]▷]\s*", re.DOTALL)
HTML_TAG = (  # which some vocabularies hold as tokens, and which is a document's own
    r"</?(?i:a|abbr|address|article|aside|b|big|blockquote|body|br|button|caption|center|cite|code|col|dd|del|dfn|div|dl"
    r"|dt|em|figure|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|img|input|ins|kbd|label|legend|li|link|main|mark"
    r"|meta|nav|nowiki|ol|option|p|pre|q|ref|s|samp|script|section|select|small|span|strike|strong|style|su[bp]|summary"
    r"|svg|t[rhd]|table|tbody|textarea|tfoot|thead|time|title|tt|u|ul|var|xml)/?>"
)
HTML = re.compile(HTML_TAG)
SERVED = re.compile(  # where strings begin that may be control tokens of a server's tokenizer, or open its turns
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
    | (?<!<)(?<!<[ ])/(?:no_?)?think                                  # which some chat templates look for in a message
    | (?<!\S)(?:USER|ASSISTANT):
    | (?:(?<=\n\n)|(?<=\n\r\n)|\A)(?:User|Human|Assistant|Bot)[ ]?:
    | (?<![^\n])\#{{2,3}}[ ](?:Instruction|Response|User|Human|Assistant|System)\b
    )""",
    re.VERBOSE,
)


class ControlTokens:
    """Those of a tokenizer: its special tokens, and added ones that are markup (`<think>`) though not special."""

    def __init__(self, tokenizer: Any):
        self.tokenizer = tokenizer
        self.strings = control_strings(tokenizer)  # by token id

    def among(self, ids: Iterable[int]) -> list[int]:
        """The control tokens of a prompt, in their order."""
        return list(filter(self.strings.__contains__, ids))

    def as_text(self, text: str) -> str:
        """The text, of which no part is a control token any more: most often as it is."""
        if self.tokenizer.is_fast:
            return self.read(text)[0]
        longest_first = sorted(self.strings.values(), key=len, reverse=True)  # it does not say where its tokens stand
        pattern = "|".join(map(re.escape, longest_first)) or "(?!)"
        return break_up(text, [match.span() for match in re.finditer(pattern, text)])

    def read(self, text: str) -> tuple[str, list[Span]]:
        """The text as `as_text` gives it, and where its tokens stand in it."""
        tries = 0
        while True:
            encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
            tokens = encoded["offset_mapping"]
            found = [span for token, span in zip(encoded["input_ids"], tokens, strict=True) if token in self.strings]
            if not found or tries == 2 * TRIES:
                return text, tokens
            text = break_up(text, found, whole=tries >= TRIES)
            tries += 1


@functools.lru_cache(maxsize=4)
def control_tokens(tokenizer: Any) -> ControlTokens:
    """Those of this tokenizer, looked for once."""
    return ControlTokens(tokenizer)


def control_strings(tokenizer: Any) -> dict[int, str]:
    """The strings of the control tokens by their ids.

    White space, single signs and ordinary words that were added to a vocabulary control nothing, nor does the token
    for what is not in it, where a tokenizer has need of one.
    """
    special = {token: tokenizer.decode([token]) for token in tokenizer.all_special_ids}
    added = {
        token: one.content for token, one in tokenizer.added_tokens_decoder.items() if one.special or _is_markup(one)
    }
    unknown = {tokenizer.unk_token_id} & set(tokenizer.encode(RARE, add_special_tokens=False))
    return {
        token: string.strip()
        for token, string in {**special, **added}.items()
        if len(string.strip()) > 1 and token not in unknown
    }


def _is_markup(added: Any) -> bool:
    return bool(BRACKETED.fullmatch(added.content)) and not HTML.fullmatch(added.content)


def without_markup(text: str) -> str:
    """The text with a space in whatever looks like a control token, for a tokenizer that is not at hand."""
    while found := [(match.start(), match.start() + 1) for match in SERVED.finditer(text)]:
        text = break_up(text, found)
    return text


def only_words(text: str) -> str:
    """The text's letters and digits: what remains when all else fails."""
    return re.sub(r"[\W_]+", " ", text)


def break_up(text: str, spans: Iterable[Span], whole: bool = False) -> str:
    """Put a space behind the first sign of each span, or in place of the whole of it."""
    pieces, done = [], 0
    for start, stop in spans:
        if not whole:
            span = text[start:stop]  # white space may belong to it
            start = stop = start + len(span) - len(span.lstrip()) + 1
        pieces.append(text[done:start])
        done = stop
    return " ".join([*pieces, text[done:]])
