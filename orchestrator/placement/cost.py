"""What GPUs cost, and what their tokens cost then; US dollars."""

HOURS_PER_DAY = 24


def per_day(gpus: float, price_per_hour: float) -> float:
    """Of so many GPUs."""
    return gpus * price_per_hour * HOURS_PER_DAY


def per_million(gpus: float, price_per_hour: float, tokens_per_s: float) -> float:
    """Of a million tokens at that rate."""
    return gpus * price_per_hour / 3_600 / tokens_per_s * 1e6
