"""Messages to prompt ids, and generated ids to reasoning, answer and tool calls; no I/O in use."""

from orchestrator.codec.messages import AssistantMessage, Message, SystemMessage, UserMessage
from orchestrator.codec.pieces import (
    AnswerText,
    Piece,
    ReasoningText,
    ToolCallArguments,
    ToolCallStart,
)
from orchestrator.codec.render_r1 import Prompt, SystemPrompt, render_r1
from orchestrator.codec.splitter import Splitter
from orchestrator.codec.tokenizer import ControlIds, Tokenizer

__all__ = [
    "AnswerText",
    "AssistantMessage",
    "ControlIds",
    "Message",
    "Piece",
    "Prompt",
    "ReasoningText",
    "Splitter",
    "SystemMessage",
    "SystemPrompt",
    "Tokenizer",
    "ToolCallArguments",
    "ToolCallStart",
    "UserMessage",
    "render_r1",
]
