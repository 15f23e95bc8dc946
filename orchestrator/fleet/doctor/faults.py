"""The silent faults that the doctor knows by name, and that the fake engine can be given."""

from enum import StrEnum


class SilentFault(StrEnum):
    """A rank that goes on answering 200 though this is wrong with it.

    Each was reported of a system that runs today, or follows from what its engine does without a
    word; docs/doctor.md names the places.
    """

    HANGS = "hangs"  # no step is taken any more, and /health is green
    FAILS_ALL = "fails_all"  # every request ends with an error, and /health is green
    ANSWERS_NOTHING = "answers_nothing"  # every answer ends before its first token
    SLOW = "slow"  # it computes at a fraction of its peers' pace
    KEEPS_CANCELLED = "keeps_cancelled"  # what a client has left runs on to its end
    DECODE_RECOMPUTES = "decode_recomputes"  # KV is not pulled: decode computes the prompt again
    FOREIGN_KV = "foreign_kv"  # decode goes on from KV of something else
    KEEPS_BLOCKS = "keeps_blocks"  # blocks that were handed over are never freed
    OTHER_CONNECTOR = "other_connector"  # it was started with another KV connector than its peers
    NO_PREFIX_CACHE = "no_prefix_cache"  # nothing is found again
    SHARES_SALTS = "shares_salts"  # KV of one tenant is given to another
    NO_KV_EVENTS = "no_kv_events"  # it publishes nothing, though it says that it does
    LOSES_KV_EVENTS = "loses_kv_events"  # batches are missing, and cannot be asked for again
    OTHER_HASHES = "other_hashes"  # it hashes blocks otherwise than it says
    OTHER_BLOCK_SIZE = "other_block_size"  # and so shares the index with nobody
    OTHER_VERSION = "other_version"  # another release of the engine than its peers
    OTHER_KV_TYPE = "other_kv_type"  # its KV is of another number type
    LITTLE_KV = "little_kv"  # it has far fewer KV blocks than its peers
    SHORT_CONTEXT = "short_context"  # it takes shorter requests than was asked for
    OTHER_EXPERT_BACKEND = "other_expert_backend"  # experts exchange by a slower way
    NO_DRAFTS = "no_drafts"  # MTP is configured, and nothing is drafted
    DRAFTS_REJECTED = "drafts_rejected"  # every draft is thrown away
    IGNORES_BUDGETS = "ignores_budgets"  # thoughts go on beyond their budgets
    CLOCK_OFF = "clock_off"  # its node's clock is out of step
    SLOW_FABRIC = "slow_fabric"  # collectives run at a fraction of what the fabric gives
    SHM_FULL = "shm_full"  # no room is left in /dev/shm
    DISK_FULL = "disk_full"  # no room is left on a disk that it writes to
