"""The costs of a rank of which nothing is known."""

from collections.abc import Mapping

from orchestrator.core import Role
from orchestrator.spec import StepCosts

Costs = Mapping[Role, StepCosts]  # of the ranks of each role


def same_costs(costs: StepCosts) -> Costs:
    """The same costs whatever the role."""
    return dict.fromkeys(Role, costs)


# Of no machine in particular; only the ratios matter until the planner's or measured ones are
# there. The prices of R1 on eight H200: a prefill of some 20,000 tokens/s and a step of some 30 ms
# are what public wide-EP results are close to; 70 kB of KV per token over 40 GB/s.
DEFAULT_COSTS = StepCosts(
    prefill_base_s=0.005,
    prefill_token_s=50e-6,
    step_base_s=0.025,
    step_request_s=0.0001,
    step_token_s=10e-9,
    stall=1.0,
    transfer_base_s=0.003,
    transfer_token_s=1.8e-6,
)
