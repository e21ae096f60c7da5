"""Put a prompt into a user message with a model's chat template; detect models that think before they answer."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable
from typing import Any

from pdadapt.errors import ModelError
from pdadapt.teachers.control import control_tokens
from pdadapt.teachers.turns import Turns

# This macro stands before every chat template, so that labels do not depend on the date.
FIXED_DATE = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
# These arguments turn thinking off. A template ignores the ones that it does not know.
NO_THINKING = {"enable_thinking": False, "thinking": False, "reasoning": False, "thinking_budget": 0}
NO_THINKING_SYSTEM = "/no_think"  # a system message that turns thinking off in models without such an argument
MESSAGE_PLACEHOLDER = "quincunx"  # stands for a message; no chat template contains this word
PADDED_MESSAGE = " \t\n\n{}\r\n\n<b>&\"'\\ {{{{ x }}}} {}\n\n\t "  # has what some chat templates strip or change
STRIP_FUNCTIONS: tuple[Callable[[str], str], ...] = (str, str.strip, str.lstrip, str.rstrip)
THOUGHT_TAG = re.compile(
    r"[<\[◁][|｜]?(/?)([\w:▁-]*(?:think|thought|reason)[\w:▁-]*)[|｜]?[>\]▷]|(<\|channel>)|<channel\|>", re.IGNORECASE
)
CLOSING_NAME = re.compile(r"(?<![a-z])(?:end|no|off|skip|fast)(?![a-z])", re.IGNORECASE)
CHANNEL_TAG = "<|channel|>"  # gpt-oss thinks in one channel and answers in another
THOUGHT_TAGS = ("<think>", "<thinking>", "<thought>", "<reasoning>", "<seed:think>", "[THINK]", "◁think▷", "<|channel>",
        CHANNEL_TAG, "<|START_THINKING|>")  # fmt: skip
SHORT_TAG_STARTS = ("<th", "[TH", "◁", "◁t", "◁th")  # short beginnings of THOUGHT_TAGS that start no other tag


class ChatFormat:
    """Puts a prompt into a user message that the model is to answer.

    The result does not depend on the date, and thinking is turned off where the template allows it. The template is
    rendered with a placeholder instead of the prompt, so the prompt cannot change what the template writes. A template
    that changes the message text itself is rendered with the prompt.
    """

    def __init__(self, tokenizer: Any, system: str = ""):
        """Render the template with a placeholder.

        system: a system message before the user message; empty means none.
        Raises ModelError unless the template shows the user message exactly once.
        """
        self.tokenizer = tokenizer
        self.template = FIXED_DATE + tokenizer.get_chat_template()
        self.system = [{"role": "system", "content": system}] if system else []
        parts = self._render(MESSAGE_PLACEHOLDER).split(MESSAGE_PLACEHOLDER)
        if len(parts) != 2:
            raise ModelError(
                f"The chat template of {tokenizer.name_or_path} shows a user message {len(parts) - 1} times instead of "
                "once. Use a model whose template shows it once."
            )
        self.before, self.after = parts
        self.thinks = opens_thought(self.after, self.template)
        self.turns = Turns(self._between(), control_tokens(tokenizer).strings.values())
        message = PADDED_MESSAGE.format(MESSAGE_PLACEHOLDER, MESSAGE_PLACEHOLDER)
        rendered = self._render(message)
        # None if no strip function does to the message what the template does
        self.strip = next((strip for strip in STRIP_FUNCTIONS if self._frame(strip(message)) == rendered), None)

    def __call__(self, text: str) -> str:
        return self._render(text) if self.strip is None else self._frame(self.strip(text))

    def _frame(self, text: str) -> str:
        return self.before + text + self.after

    def _between(self) -> list[str]:
        """Return what the template writes between and after the messages of a conversation."""
        with contextlib.suppress(Exception):  # some templates do not render a conversation of three messages
            _, *between = self._render(*[MESSAGE_PLACEHOLDER] * 3).split(MESSAGE_PLACEHOLDER)
            if len(between) == 3:
                return between
        return [self.before.rstrip().rpartition("\n")[2], self.after]

    def _render(self, *texts: str) -> str:
        """Render messages that alternate between user and assistant, and the beginning of the next answer."""
        roles = itertools.cycle(("user", "assistant"))
        rendered = self.tokenizer.apply_chat_template(
            [*self.system, *({"role": role, "content": text} for role, text in zip(roles, texts, strict=False))],
            chat_template=self.template,
            tokenize=False,
            add_generation_prompt=True,
            **NO_THINKING,
        )
        return str(rendered)


def chat_format(tokenizer: Any) -> ChatFormat:
    """Return the chat format of the tokenizer's template, with thinking turned off where that is possible.

    The format's `thinks` is true if the template opens a thought in any case. Raises ModelError unless the template
    shows the user message exactly once.
    """
    plain = ChatFormat(tokenizer)
    if plain.thinks:
        with contextlib.suppress(Exception):  # some templates do not accept a system message
            with_system = ChatFormat(tokenizer, NO_THINKING_SYSTEM)
            return plain if with_system.thinks else with_system
    return plain


def opens_thought(text: str, template: str = "") -> bool:
    """Whether the text before an answer leaves a thought open: `<think>`, `[THINK]`, `<|channel>thought`.

    template: the chat template. If it uses channels, the model thinks unless the text opens a channel.
    """
    tags = THOUGHT_TAG.findall(text)
    if tags:
        closing, name, channel = tags[-1]
        return bool(channel or (name and not closing and not CLOSING_NAME.search(name)))
    return CHANNEL_TAG in template and CHANNEL_TAG not in text


def may_think(text: str) -> bool:
    """Whether an answer with this beginning could still become a thought: `<`, or only white space."""
    text = text.strip()
    return any(tag.startswith(text) and tag != text for tag in THOUGHT_TAGS)


def begins_thought(token: str) -> bool:
    """Whether the first token of an answer begins a thought: `<think>`, `<|channel|>`, or the beginning `<th` of a tag.

    A single `<` does not, since HTML begins with it too.
    """
    token = token.strip()
    starts_tag = len(token) > len("<th") and any(tag.startswith(token) for tag in THOUGHT_TAGS)
    return starts_tag or token in SHORT_TAG_STARTS or opens_thought(token)
