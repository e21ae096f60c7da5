"""How a prompt becomes a user's message, by a model's chat template, and whether its answer begins with a thought."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable
from typing import Any

from pdadapt.errors import ModelError

NO_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"  # put before a chat template: labels know no day
# the switches by which models are told not to think; a template leaves out those that it does not know
NO_THOUGHT = {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0}
NO_THOUGHT_SYSTEM = "/no_think"  # the system's message that closes the thought of models without such a switch
MARK = "quincunx"  # in place of a message: a word that no chat template holds
AROUND = " \t\n\n{}\r\n\n<b>&\"'\\ {{{{ x }}}} {}\n\n\t "  # what some chat templates cut or change
STRIPS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)
THOUGHT = re.compile(r"[<\[◁][|｜]?(/?)([\w:▁-]*(?:think|thought|reason)[\w:▁-]*)[|｜]?[>\]▷]", re.IGNORECASE)
CLOSES = re.compile(r"(?<![a-z])(?:end|no|off|skip|fast)(?![a-z])", re.IGNORECASE)
CHANNEL = "<|channel|>"  # of gpt-oss, which thinks in one before it answers in another


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
        around = AROUND.format(MARK, MARK)
        rendered = self._render(around)
        self.strip = next((strip for strip in STRIPS if self._frame(strip(around)) == rendered), None)

    def __call__(self, text: str) -> str:
        return self._render(text) if self.strip is None else self._frame(self.strip(text))

    def _frame(self, text: str) -> str:
        return self.before + text + self.after

    def _render(self, text: str) -> str:
        rendered = self.tokenizer.apply_chat_template(
            [*self.system, {"role": "user", "content": text}],
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
    """Whether what stands before an answer leaves a thought open: `<think>`, `[THINK]`, `<|START_THINKING|>`.

    template: the chat template, of which one that knows channels lets a model think unless it opens another.
    """
    tags = THOUGHT.findall(text)
    if tags:
        closing, name = tags[-1]
        return not closing and not CLOSES.search(name)
    return CHANNEL in template and CHANNEL not in text


def begins_thought(token: str) -> bool:
    """Whether the first token of an answer begins a thought: `<think>`, `<|channel|>`, or the `<th` of one."""
    token = token.strip()
    return token == CHANNEL or opens_thought(token) or (len(token) > 2 and "<think>".startswith(token))
