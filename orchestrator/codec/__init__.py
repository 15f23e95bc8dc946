"""Messages to prompt ids, and generated ids to reasoning, answer and tool calls; no I/O in use."""

from orchestrator.codec.grammar import (
    JSON_BLANKS_MAX,
    NamedTool,
    ToolChoice,
    ToolMode,
    tool_grammar,
)
from orchestrator.codec.messages import (
    AssistantMessage,
    Conversation,
    Message,
    Prefix,
    SystemMessage,
    ToolCall,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from orchestrator.codec.pieces import (
    AnswerText,
    Piece,
    ReasoningText,
    ToolCallArguments,
    ToolCallStart,
)
from orchestrator.codec.render import Begin, Prompt, render, render_fim
from orchestrator.codec.splitter import Splitter
from orchestrator.codec.splitter_zero import ZeroSplitter
from orchestrator.codec.splitters import AnySplitter, splitter_for
from orchestrator.codec.strict_schema import strict_schema_fault
from orchestrator.codec.thought_limit import ThoughtLimit
from orchestrator.codec.tokenizer import ControlIds, Mark, Tokenizer
from orchestrator.codec.tokenizer_config import transformers_fault

__all__ = [
    "JSON_BLANKS_MAX",
    "AnswerText",
    "AnySplitter",
    "AssistantMessage",
    "Begin",
    "ControlIds",
    "Conversation",
    "Mark",
    "Message",
    "NamedTool",
    "Piece",
    "Prefix",
    "Prompt",
    "ReasoningText",
    "Splitter",
    "SystemMessage",
    "ThoughtLimit",
    "Tokenizer",
    "ToolCall",
    "ToolCallArguments",
    "ToolCallStart",
    "ToolChoice",
    "ToolDefinition",
    "ToolMessage",
    "ToolMode",
    "UserMessage",
    "ZeroSplitter",
    "render",
    "render_fim",
    "splitter_for",
    "strict_schema_fault",
    "tool_grammar",
    "transformers_fault",
]
