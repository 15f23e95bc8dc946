"""Which splitter reads the output of which kind of model."""

from collections.abc import Sequence

from orchestrator.codec.render import Begin
from orchestrator.codec.splitter import Splitter
from orchestrator.codec.splitter_zero import ZeroSplitter
from orchestrator.codec.tokenizer import Tokenizer
from orchestrator.spec import TemplateKind

AnySplitter = Splitter | ZeroSplitter


def splitter_for(
    template: TemplateKind,
    tokenizer: Tokenizer,
    *,
    begin: Begin,
    stop: Sequence[str] = (),
    answer_tokens_max: int | None = None,
    tools: bool = True,
) -> AnySplitter:
    """The splitter for one request; R1-Zero's knows no tools, whatever `tools` is."""
    if template is TemplateKind.R1_ZERO:
        return ZeroSplitter(tokenizer, begin=begin, stop=stop, answer_tokens_max=answer_tokens_max)
    return Splitter(
        tokenizer, begin=begin, stop=stop, answer_tokens_max=answer_tokens_max, tools=tools
    )
