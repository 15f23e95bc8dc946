"""What Python's garbage collector walks."""

import gc


def keep_out_of_collections() -> None:
    """What is there now stays as long as the process, and is not collected any more.

    A collection that walks it holds up every token: 0.4 s with vLLM imported.
    """
    gc.collect()
    gc.freeze()
