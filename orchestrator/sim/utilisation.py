"""A policy of scaling that looks at utilisation alone, to compare with."""

import math

from orchestrator.core import Role
from orchestrator.scaling import Decision, Plan, Reason, Seen, Target


class Utilisation:
    """Each pool by itself: requests that are held over what its gangs can hold, as an autoscaler of
    Kubernetes or Serve's own sees it; up at once, down by the most of the last minutes.
    """

    def __init__(self, plan: Plan, share: float = 0.7, down_s: float = 300.0) -> None:
        """`share` is the utilisation that it aims at, `down_s` Kubernetes' stabilisation window."""
        self._plan = plan
        self._share = share
        self._down_s = down_s
        self._wants: dict[Role, list[tuple[float, int]]] = {role: [] for role in plan.pools}

    def decide(self, seen: Seen, now: float) -> Decision:
        """The targets of all pools."""
        targets = []
        load, slo = seen.load, self._plan.slo
        for role, facts in sorted(self._plan.pools.items()):
            if role is Role.DECODE:
                room = math.floor(
                    (slo.tpot_s - facts.costs.step_base_s) / facts.costs.step_request_s
                )
                used = load.running / (room * facts.ranks)
            else:
                used = load.requests_per_s * load.prefill_s / facts.ranks
            want = max(1, math.ceil(used / self._share))
            kept = [(at, n) for at, n in self._wants[role] if at > now - self._down_s]
            self._wants[role] = [*kept, (now, want)]
            asked = seen.pools[role].asked
            gangs = want if want > asked else min(asked, max(n for _, n in self._wants[role]))
            reason = Reason.STEADY if gangs == asked else Reason.LOAD
            targets.append(Target(role, gangs, reason, want))
        return Decision(tuple(targets), load.requests_per_s, slo_kept=True)
