"""Ids of tokens, packed."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    TokenIds = array[int]
else:
    TokenIds = array


def token_ids(ids: Iterable[int]) -> TokenIds:
    """These ids, 32 bits each; whoever gets them leaves them as they are.

    A prompt of 32k ids takes an eighth of what Python's ints take, and is hashed, sent and sliced
    in microseconds. Raises OverflowError for what is no id.
    """
    return array("I", ids)
