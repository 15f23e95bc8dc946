"""Which of LangChain's standard tests fail through a fault of LangChain's."""

import pytest

FAULT = "TestStandardReasoner::test_tool_calling[model1]"  # model1 has output_version="v1"
REASON = (
    "LangChain gives the reasoning block and the first tool call the same index in its v1 blocks "
    "and merges them as they stream, with the official API too"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Strict: the day LangChain mends it, this mark must go."""
    for item in items:
        if item.nodeid.endswith(FAULT):
            item.add_marker(pytest.mark.xfail(reason=REASON, strict=True))
