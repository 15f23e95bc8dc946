"""When a gang's scheduler sees what has arrived, and when it lets prompts begin.

Both are counted in steps of the gang, as engines count them.
"""

from orchestrator.sim.job import GangModel


class Gate:
    """Of one gang: it looks into its queue every so many steps, and may keep prompts back until
    every rank has one.
    """

    def __init__(self, model: GangModel) -> None:
        self._ranks = model.ranks
        self._receive_steps = model.receive_steps
        self._align_steps = model.align_steps if model.ranks > 1 else 0
        self._batch_steps = model.batch_steps
        self.received = 0  # the number of the last submission that the scheduler knows of
        self._receives_at = 0  # the step at which it looks next
        self._aligned_at = 0  # the step from which it counts how long prompts are kept back
        self._batched_at: int | None = None  # the step at which ranks have waited for more prompts
        self._keeps = False

    # --- arrivals ------------------------------------------------------------------------------

    def look_now(self, step: int) -> None:
        """Nothing ran, or prompts have just been computed: the next step looks."""
        self._receives_at = step

    def look_step(self, step: int) -> int:
        """The step at which what arrives during step `step - 1` is seen."""
        every = self._receive_steps
        if every == 1:
            return step
        self._receives_at += max(0, -(-(step - self._receives_at) // every)) * every
        return self._receives_at

    def receive(self, step: int, arrived: int) -> None:
        """A step begins; `arrived` is the number of the last submission there is."""
        if step >= self._receives_at:
            self.received = arrived
            every = self._receive_steps
            self._receives_at += ((step - self._receives_at) // every + 1) * every

    # --- prompts -------------------------------------------------------------------------------

    def keeps(self, step: int, prompting: int, decoding: int) -> int:
        """For how many steps prompts are kept back from step `step` on; 0: they begin now.

        `prompting` ranks have prompts to compute, `decoding` ranks have running decodes.
        """
        if not self._align_steps:
            return 0
        left = 0
        if prompting == self._ranks:
            self._aligned_at = step
            if decoding == self._ranks and self._batch_steps:
                if self._batched_at is None:
                    self._batched_at = step + self._batch_steps
                left = max(0, self._batched_at - step)
            if not left:
                self._batched_at = None
        elif decoding < self._ranks:
            self._aligned_at = step
        else:
            if not self._keeps:  # the engine counts on where there is nothing to keep back
                self._aligned_at += (
                    (step - self._aligned_at) // self._align_steps * (self._align_steps)
                )
            left = max(0, self._aligned_at + self._align_steps - step)
            if not left:
                self._aligned_at = step
        self._keeps = left > 0
        return left
