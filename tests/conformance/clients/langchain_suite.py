"""LangChain's standard chat-model tests against the gateway that the environment names.

Run by the interpreter in .clients/langchain; see tests/conformance/test_langchain.py.
"""

import os
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_deepseek import ChatDeepSeek
from langchain_tests.integration_tests import ChatModelIntegrationTests

BASE_URL = os.environ["R1_SERVE_URL"]


class Standard(ChatModelIntegrationTests):
    """What both models are asked."""

    served_name = ""

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatDeepSeek

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            "model": self.served_name,
            "base_url": BASE_URL,
            "api_key": "sk-test",
            "max_retries": 0,
            "stream_usage": True,
            "timeout": 30,
        }

    @property
    def supports_json_mode(self) -> bool:
        return True


class TestStandardChat(Standard):
    """`deepseek-chat`."""

    served_name = "deepseek-chat"


class TestStandardReasoner(Standard):
    """`deepseek-reasoner`, which has reasoning to count."""

    served_name = "deepseek-reasoner"

    @property
    def supported_usage_metadata_details(self) -> dict[str, list[str]]:
        details = ["reasoning_output", "cache_read_input"]
        return {"invoke": details, "stream": details}

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        return self._asked("Why?", stream=stream)

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        """Twice, with more than one cache unit of 64 tokens in common."""
        question = "Tell me all about caches. " * 40
        self._asked(question, stream=stream)
        return self._asked(question, stream=stream)

    def _asked(self, question: str, *, stream: bool) -> AIMessage:
        model = self.chat_model_class(**self.chat_model_params)
        messages = [HumanMessage(question)]
        if not stream:
            answer = model.invoke(messages)
        else:
            answer = None
            for chunk in model.stream(messages):
                answer = chunk if answer is None else answer + chunk
        assert isinstance(answer, AIMessage)
        return answer


def test_reasoning_is_where_langchain_looks_for_it() -> None:
    model = ChatDeepSeek(model="deepseek-reasoner", base_url=BASE_URL, api_key="sk-test")
    answer = model.invoke("Why is the sky blue?")
    assert answer.additional_kwargs["reasoning_content"]
    assert answer.content
