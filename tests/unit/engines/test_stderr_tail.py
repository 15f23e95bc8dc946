"""The reason of a failed start, found in what the engine's processes logged."""

from orchestrator.engines.stderr_tail import last_reason


def test_the_first_error_is_the_reason_and_what_follows_from_it_is_not() -> None:
    lines = [
        "INFO 11-23 18:43:12 [base_worker.py:516] Initializing NIXL worker D0",
        "(EngineCore pid=7) ERROR 11-23 18:43:13 [core.py:1] Traceback (most recent call last):",
        "(EngineCore pid=7) ERROR 11-23 18:43:13 [core.py:1] ValueError: 3 heads do not divide",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    assert last_reason(lines) == "3 heads do not divide (ValueError)"


def test_an_error_with_a_module_path_is_named_by_its_class() -> None:
    line = "zmq.error.ZMQError: Address already in use (addr='tcp://127.0.0.1:5600')"
    wanted = "Address already in use (addr='tcp://127.0.0.1:5600') (ZMQError)"
    assert last_reason([line]) == wanted


def test_a_worker_that_was_killed_is_the_reason() -> None:
    line = "ERROR [x.py:1] Worker proc VllmWorker-1 died unexpectedly (exit code: -9), shutting"
    assert last_reason([line]) == "Worker proc VllmWorker-1 died unexpectedly (exit code: -9)"


def test_a_log_without_an_error_has_no_reason() -> None:
    assert last_reason(["WARNING: nothing", "Error counts: 0", ""]) is None
