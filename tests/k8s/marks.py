"""What is true of every test that needs a cluster of its own."""

import pytest

from deploy.cluster.able import why_not

_WHY_NOT = why_not()  # tried once, however many files ask

ON_A_CLUSTER = [
    pytest.mark.node,
    pytest.mark.timeout(3_600),
    pytest.mark.skipif(_WHY_NOT is not None, reason=str(_WHY_NOT)),
]
