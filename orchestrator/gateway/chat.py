"""`POST /chat/completions`: from the body's bytes to a prompt, and what becomes of its answer."""

from functools import partial

from orchestrator.admission import ThinkingCase
from orchestrator.codec import (
    AssistantMessage,
    Begin,
    Conversation,
    Prompt,
    Tokenizer,
    ToolMessage,
    render,
    splitter_for,
    tool_grammar,
)
from orchestrator.engines import Grammar, GrammarKind
from orchestrator.gateway.answer_format import grammar_of
from orchestrator.gateway.chat_request import ChatRequest, check_context, parse_chat_request
from orchestrator.gateway.drawing import sampling_of
from orchestrator.gateway.endpoint import Prepared, rendered
from orchestrator.gateway.errors import ApiError, bad_request
from orchestrator.gateway.models import Models, Served
from orchestrator.gateway.rules import rules_of
from orchestrator.gateway.wire import BodyReply, StreamReply, shape_of
from orchestrator.spec import TemplateKind

_SUPPRESSED = ((b"x-r1-thinking", b"suppressed"),)


class Chat:
    """Reads chat requests; `beta` is for those below `/beta`."""

    def __init__(self, models: Models, *, beta: bool) -> None:
        self._models = models
        self._beta = beta
        self._rules = rules_of(models.spec.api)

    async def __call__(self, body: bytes) -> Prepared | ApiError:
        """The prepared request, or the first thing wrong with it."""
        asked = parse_chat_request(body, self._models.names, self._rules, beta=self._beta)
        return asked if isinstance(asked, ApiError) else await self.prepare(asked, len(body))

    async def prepare(self, asked: ChatRequest, body_bytes: int) -> Prepared | ApiError:
        """What the engine is to have of the request, or why there is no such thing.

        `body_bytes` is how much the client sent, and so how long encoding will take.
        """
        served = self._models.served(asked.model)
        plain = asked.model.profile.template is TemplateKind.R1_ZERO  # its tags are mere text
        if _uses_tools(asked.conversation) and (plain or not served.tokenizer.has_tools):
            return bad_request(f"{asked.name} does not support Function Calling")
        if asked.answer_format.json and plain:
            return bad_request(f"{asked.name} does not support Json Output")
        grammar = _grammar(served.tokenizer, asked)
        # A grammar begins where the thought ends: there must be one.
        force_think = asked.model.profile.thinks and grammar is not None
        prompt = await rendered(partial(_render, served, asked, force_think), body_bytes)
        max_tokens = asked.drawing.max_tokens
        if error := check_context(len(prompt.ids), max_tokens, asked.limits):
            return error
        return self._prepared(asked, served, prompt, grammar)

    def _prepared(
        self, asked: ChatRequest, served: Served, prompt: Prompt, grammar: Grammar | None
    ) -> Prepared:
        api, profile, tokenizer = self._models.spec.api, asked.model.profile, served.tokenizer
        thought_tokens = asked.limits.thought_tokens if asked.thinks else 0
        splitter = splitter_for(
            profile.template,
            tokenizer,
            begin=prompt.begin,
            stop=asked.drawing.stop,
            answer_tokens_max=asked.drawing.max_tokens if thought_tokens else None,
            tools=bool(asked.conversation.tools),
        )
        shape = shape_of(api, thinks=asked.thinks, include_usage=asked.include_usage)
        sampling = sampling_of(
            asked.drawing,
            profile,
            honor_sampling=api.honor_sampling,
            max_tokens=asked.drawing.max_tokens + thought_tokens,
            stop_token_ids=(tokenizer.control.end_of_sentence,),
            grammar=grammar,
        )
        return Prepared(
            served,
            prompt,
            sampling,
            splitter,
            partial(StreamReply if asked.stream else BodyReply, shape=shape),
            asked.name,
            asked.user_id,
            streamed=asked.stream,
            thinks=asked.thinks,
            thinking=_thinking_case(asked, prompt, sampling.max_tokens),
            json=asked.answer_format.json,
            headers=_SUPPRESSED if asked.conversation.suppress_thinking else (),
        )


def _grammar(tokenizer: Tokenizer, asked: ChatRequest) -> Grammar | None:
    """What the engine must hold the answer to: a call that is demanded goes before a format."""
    tools = asked.tools
    if tools.held is None:
        return grammar_of(asked.answer_format)
    text = tool_grammar(tokenizer, tools.definitions, tools.held)
    return Grammar(GrammarKind.STRUCTURAL_TAG, text)


def _render(served: Served, asked: ChatRequest, force_think: bool) -> Prompt:
    profile = asked.model.profile
    return render(
        served.tokenizer,
        profile.template,
        asked.conversation,
        system_prompt=asked.model.system_prompt or profile.system_prompt,
        force_think=profile.force_think or force_think,
    )


def _thinking_case(asked: ChatRequest, prompt: Prompt, max_tokens: int) -> ThinkingCase | None:
    """What there is to bound of the thought: nothing if the prompt has closed it, or if its marks
    are mere text.
    """
    zero = asked.model.profile.template is TemplateKind.R1_ZERO
    if not asked.thinks or zero or prompt.begin in {Begin.ANSWER, Begin.ANSWER_ON}:
        return None
    answer_tokens = asked.drawing.max_tokens if asked.limits.thought_tokens else None
    return ThinkingCase(max_tokens, asked.thinking_budget, answer_tokens=answer_tokens)


def _uses_tools(conversation: Conversation) -> bool:
    return bool(conversation.tools) or any(
        isinstance(message, ToolMessage)
        or (isinstance(message, AssistantMessage) and message.tool_calls)
        for message in conversation.messages
    )
