"""How a prompt becomes a user's message, by a model's chat template, and whether its answer begins with a thought."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable
from typing import Any

from pdadapt.errors import ModelError
from pdadapt.teachers.control import control_tokens
from pdadapt.teachers.turns import Turns

NO_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"  # put before a chat template: labels know no day
# the switches by which models are told not to think; a template leaves out those that it does not know
NO_THOUGHT = {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0}
NO_THOUGHT_SYSTEM = "/no_think"  # the system's message that closes the thought of models without such a switch
MARK = "quincunx"  # in place of a message: a word that no chat template holds
AROUND = " \t\n\n{}\r\n\n<b>&\"'\\ {{{{ x }}}} {}\n\n\t "  # what some chat templates cut or change
STRIPS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)
THOUGHT = re.compile(
    r"[<\[◁][|｜]?(/?)([\w:▁-]*(?:think|thought|reason)[\w:▁-]*)[|｜]?[>\]▷]|(<\|channel>)|<channel\|>", re.IGNORECASE
)
CLOSES = re.compile(r"(?<![a-z])(?:end|no|off|skip|fast)(?![a-z])", re.IGNORECASE)
CHANNEL = "<|channel|>"  # of gpt-oss, which thinks in one before it answers in another
TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "<seed:think>", "[THINK]", "◁think▷", "<|channel>",
        CHANNEL, "<|START_THINKING|>")  # fmt: skip
SHORTEST = ("<th", "[TH", "◁", "◁t", "◁th")  # beginnings of these that are of no other tag; longer ones are too


class ChatFormat:
    """Puts a prompt into a user's message, on which an answer is to follow.

    The same on every day, and without the thinking that some models do before they answer. The template sees a mark in
    place of the prompt, so that no text can make it write anything else, except where it changes the text itself.
    """

    def __init__(self, tokenizer: Any, system: str = ""):
        """system: a message before the user's. Raises ModelError when the template leaves the user's message out."""
        self.tokenizer = tokenizer
        self.template = NO_DATE + tokenizer.get_chat_template()
        self.system = [{"role": "system", "content": system}] if system else []
        parts = self._render(MARK).split(MARK)
        if len(parts) != 2:
            raise ModelError(
                f"The chat template of {tokenizer.name_or_path} shows a user's message {len(parts) - 1} times, not "
                "once. Give a model whose template shows it once."
            )
        self.before, self.after = parts
        self.thinks = opens_thought(self.after, self.template)
        self.turns = Turns(self._between(), control_tokens(tokenizer).strings.values())
        around = AROUND.format(MARK, MARK)
        rendered = self._render(around)
        self.strip = next((strip for strip in STRIPS if self._frame(strip(around)) == rendered), None)

    def __call__(self, text: str) -> str:
        return self._render(text) if self.strip is None else self._frame(self.strip(text))

    def _frame(self, text: str) -> str:
        return self.before + text + self.after

    def _between(self) -> list[str]:
        """What the template writes before and behind the messages of a longer conversation."""
        with contextlib.suppress(Exception):  # not every template takes one
            _, *between = self._render(MARK, MARK, MARK).split(MARK)
            if len(between) == 3:
                return between
        return [self.before.rstrip().rpartition("\n")[2], self.after]

    def _render(self, *texts: str) -> str:
        """A conversation of user and assistant, and how the next answer begins."""
        roles = itertools.cycle(("user", "assistant"))
        rendered = self.tokenizer.apply_chat_template(
            [*self.system, *({"role": role, "content": text} for role, text in zip(roles, texts, strict=False))],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
            **NO_THOUGHT,
        )
        return str(rendered)


def chat_format(tokenizer: Any) -> ChatFormat:
    """The tokenizer's own; `thinks`, if it leaves a thought open however it is told not to.

    Raises ModelError when it leaves the user's message out.
    """
    found = ChatFormat(tokenizer)
    if found.thinks:
        with contextlib.suppress(Exception):  # not every template takes a system's message
            told = ChatFormat(tokenizer, NO_THOUGHT_SYSTEM)
            return found if told.thinks else told
    return found


def opens_thought(text: str, template: str = "") -> bool:
    """Whether what stands before an answer leaves a thought open: `<think>`, `[THINK]`, `<|channel>thought`.

    template: the chat template, of which one that knows channels lets a model think unless it opens another.
    """
    tags = THOUGHT.findall(text)
    if tags:
        closing, name, channel = tags[-1]
        return bool(channel or (name and not closing and not CLOSES.search(name)))
    return CHANNEL in template and CHANNEL not in text


def may_think(text: str) -> bool:
    """Whether an answer that begins so may turn out to begin with a thought: `<`, or nothing but white space yet."""
    text = text.strip()
    return any(tag.startswith(text) and tag != text for tag in TAGS)


def begins_thought(token: str) -> bool:
    """Whether the first token of an answer begins a thought: `<think>`, `<|channel|>`, or the `<th` of one.

    A `<` alone does not: HTML begins so too.
    """
    token = token.strip()
    known = token in SHORTEST or (len(token) > len("<th") and any(tag.startswith(token) for tag in TAGS))
    return known or opens_thought(token)
