"""Which rank holds which KV blocks: one index over all ranks, of keys and of sets of ranks.

A set of ranks is an int, a bit for each rank's slot: those whose events say that they hold the
block, and, for ranks without events, whatever our own decisions put there. Equal sets are one
object, so a block costs two dict entries and two ints. Prompts of which events have not spoken yet
are in a tree of their own. Nothing here knows time: the host moves requests through `expect`,
`confirm` and `forget`.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.core import RankId
from orchestrator.routing.keys import chain_keys, root_key
from orchestrator.routing.kv_events import HASH_MASK, Cleared, KvEvent, Removed, Stored
from orchestrator.routing.prompt_tree import PromptTree
from orchestrator.routing.sharded_dict import SHARDS, ShardedDict

SLOTS = 1024  # ranks at once, those that are being swept included
_ALL = (1 << SLOTS) - 1
_SETS_MAX = 65_536  # distinct sets that are shared; beyond that sharing starts anew
_SWEPT_AT_ONCE = 256  # entries that a call looks at when a rank's slot is being cleaned


@dataclass(frozen=True, slots=True)
class PrefixHits:
    """For each rank, how many leading blocks of a prompt it holds; ranks without any are absent."""

    sure: dict[RankId, int]
    hoped: dict[RankId, int]  # with what is under way


@dataclass(slots=True)
class IndexCounts:
    """What the index was told and could not use; each is an event or a block of one."""

    orphans: int = 0  # stored blocks whose parent is unknown: a batch before was lost
    strangers: int = 0  # removed blocks that were not known
    malformed: int = 0  # runs whose ids are not their blocks' worth
    evicted: int = 0  # entries dropped because the index was full


@dataclass(slots=True)
class _Sweep:
    """What is left to look at before the slots `dead` can be given to others."""

    dead: int
    hashes: list[int]
    keys: list[int]


@dataclass(slots=True)
class _Rank:
    slot: int
    # For a rank without events: what our own decisions put there, oldest use first; bounded.
    own: OrderedDict[int, None] | None
    own_max: int


class PrefixIndex:
    """The index; every key is of blocks of `block_tokens`. Bounded by `blocks_max` entries."""

    def __init__(self, block_tokens: int, blocks_max: int) -> None:
        assert block_tokens >= 1
        assert blocks_max >= 1
        self.block_tokens = block_tokens
        self.counts = IndexCounts()
        self._blocks_max = blocks_max
        self._holders = ShardedDict()  # key -> set of ranks
        self._keys = ShardedDict()  # the engines' hash -> key, of every block held by events
        self._copies: dict[tuple[int, int], int] = {}  # (slot, key) -> copies beyond the first
        self._sets: dict[int, int] = {}
        self._tree = PromptTree()
        self._ranks: dict[RankId, _Rank] = {}
        self._names: list[RankId | None] = []
        self._free: list[int] = []
        self._dead = 0  # slots whose entries are still being swept
        self._sweep: _Sweep | None = None
        self._clean_at = 0  # shard of `_keys`

    def __len__(self) -> int:
        return self._holders.entries

    # --- ranks -------------------------------------------------------------------------------

    def join(self, rank_id: RankId, own_blocks_max: int | None = None) -> None:
        """A rank that holds nothing. `own_blocks_max` is for one without events: the bound of what
        our own decisions may let us believe of it.
        """
        if rank_id in self._ranks:
            self.leave(rank_id)
        slot = self._free.pop() if self._free else len(self._names)
        assert slot < SLOTS, f"more than {SLOTS} ranks"
        if slot == len(self._names):
            self._names.append(rank_id)
        else:
            self._names[slot] = rank_id
        own = None if own_blocks_max is None else OrderedDict[int, None]()
        self._ranks[rank_id] = _Rank(slot, own, own_blocks_max or 0)

    def leave(self, rank_id: RankId) -> None:
        """The rank is gone; its entries are swept little by little, by later calls."""
        rank = self._ranks.pop(rank_id, None)
        if rank is None:
            return
        self._names[rank.slot] = None
        self._tree.drop(rank_id)
        if rank.own is not None:
            for key in rank.own:
                self._clear(key, 1 << rank.slot)
            self._free.append(rank.slot)
            return
        self._dead |= 1 << rank.slot
        for copied in [pair for pair in self._copies if pair[0] == rank.slot]:
            del self._copies[copied]

    def without_events(self, rank_id: RankId, own_blocks_max: int) -> None:
        """The rank's events have ended: what they said is where our own decisions go on from.

        Looks at every entry, once in a stream's life.
        """
        rank = self._ranks[rank_id]
        bit = 1 << rank.slot
        for copied in [pair for pair in self._copies if pair[0] == rank.slot]:
            del self._copies[copied]
        for hashed in [h for h, key in self._keys.items() if self._holders.get(key) == bit]:
            self._keys.pop(hashed)
        held = [key for key, ranks in self._holders.items() if ranks & bit]
        rank.own = OrderedDict.fromkeys(held[-own_blocks_max:])
        rank.own_max = own_blocks_max
        for key in held[: -len(rank.own) or None]:
            self._clear(key, bit)

    def has(self, rank_id: RankId) -> bool:
        """Whether the rank has joined."""
        return rank_id in self._ranks

    def fed(self, rank_id: RankId) -> bool:
        """Whether the rank's own events say what it holds."""
        return rank_id in self._ranks and self._ranks[rank_id].own is None

    # --- what engines say --------------------------------------------------------------------

    def on(self, rank_id: RankId, event: KvEvent) -> None:
        """Takes one event of a rank that publishes events, in the order of its stream."""
        rank = self._ranks[rank_id]
        assert rank.own is None, "events of a rank that joined without"
        match event:
            case Stored():
                self._store(rank.slot, event)
            case Removed(hashes):
                self._remove(rank.slot, hashes)
            case Cleared():
                self.leave(rank_id)
                self.join(rank_id)
        if self._dead:
            self.sweep(_SWEPT_AT_ONCE)

    def _store(self, slot: int, event: Stored) -> None:
        hashes = event.hashes
        if len(event.token_ids) != len(hashes) * self.block_tokens:
            self.counts.malformed += 1
            return
        parent = self._parent(event)
        if parent is None:
            self.counts.orphans += len(hashes)
            return
        bit = 1 << slot
        holders, keys, sets = self._holders, self._keys, self._sets
        for hashed, key in zip(
            hashes, chain_keys(parent, event.token_ids, self.block_tokens), strict=True
        ):
            before = holders.get(key)
            if not before:
                holders.put(key, sets.setdefault(bit, bit))
            elif before & bit:
                self._copies[slot, key] = self._copies.get((slot, key), 0) + 1
                continue
            else:
                after = before | bit
                holders.put(key, sets.setdefault(after, after))
            keys.put(hashed & HASH_MASK, key)
        self._bound()

    def _parent(self, event: Stored) -> int | None:
        if event.parent is None:
            return root_key(event.salt)
        return self._keys.get(event.parent & HASH_MASK) or None

    def _remove(self, slot: int, hashes: Sequence[int]) -> None:
        bit = 1 << slot
        for hashed in hashes:
            hashed &= HASH_MASK
            key = self._keys.get(hashed)
            held = self._holders.get(key)
            if not held & bit:
                self.counts.strangers += 1
                if not held:
                    self._keys.pop(hashed)
                continue
            if self._copies and (slot, key) in self._copies:
                self._drop_copy(slot, key)
                continue
            if not held & ~bit:
                self._keys.pop(hashed)
            self._clear(key, bit)

    def _drop_copy(self, slot: int, key: int) -> None:
        left = self._copies[slot, key] - 1
        if left:
            self._copies[slot, key] = left
        else:
            del self._copies[slot, key]

    # --- what we did ourselves ---------------------------------------------------------------

    def expect(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """A request with these blocks was sent to the rank."""
        if rank_id in self._ranks:
            self._tree.expect(rank_id, keys)

    def confirm(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """The request has had its first token: the rank has computed the blocks."""
        rank = self._ranks.get(rank_id)
        if rank is None:
            return
        if rank.own is None:
            self._tree.confirm(rank_id, keys)
            return
        self._tree.unexpect(rank_id, keys)
        own, bit = rank.own, 1 << rank.slot
        for key, before in zip(keys, self._holders.get_all(keys), strict=True):
            if not before & bit:
                self._set(key, before | bit)
            own[key] = None
            own.move_to_end(key)
        while len(own) > rank.own_max:
            self._clear(own.popitem(last=False)[0], bit)
        self._bound()

    def unexpect(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """The request has ended before its first token."""
        self._tree.unexpect(rank_id, keys)

    def forget(self, rank_id: RankId, keys: Sequence[int]) -> None:
        """What `confirm` said of a request is over: events know better by now."""
        self._tree.forget(rank_id, keys)

    # --- what a prompt finds -----------------------------------------------------------------

    def hits(self, keys: Sequence[int]) -> PrefixHits:
        """How many leading blocks each rank holds of a prompt with these keys.

        Looks at few blocks of many: a rank that holds a block holds those before it, since engines
        evict a prompt's last blocks first. Of a rank for which that is not so the answer is too
        high, up to the end of some later run of blocks that it holds; it is never too low.
        """
        depths: dict[int, int] = {}
        if keys and (first := self._holders.get(keys[0])):
            left = first & ~self._dead
            for at, held in self._changes(keys, first):
                still = left & held
                _leave_off(depths, left & ~still, at)
                left = still
                if not left:
                    break
            _leave_off(depths, left, len(keys))
        sure = self._named(depths)
        hoped = dict(sure)
        self._tree.deepen(keys, sure, hoped)
        return PrefixHits(sure, hoped)

    def _changes(self, keys: Sequence[int], first: int) -> Iterator[tuple[int, int]]:
        """Where the set of ranks that hold a block changes, and what it is from there on.

        Between two blocks with equal sets nothing is looked at: every look is a miss of all caches.
        """
        get = self._holders.get
        end = len(keys) - 1
        spans = [(0, first, end, get(keys[end]))]
        while spans:
            low, held, high, then = spans.pop()
            if held == then:
                continue
            if high - low == 1:
                yield high, then
                continue
            middle = (low + high) // 2
            between = get(keys[middle])
            spans.append((middle, between, high, then))
            spans.append((low, held, middle, between))

    def _named(self, depths: dict[int, int]) -> dict[RankId, int]:
        names = self._names
        return {name: depth for slot, depth in depths.items() if (name := names[slot]) is not None}

    # --- memory ------------------------------------------------------------------------------

    def sweep(self, entries: int) -> bool:
        """Looks at up to so many entries for what gone ranks left; whether anything is left to do.

        Events do this too; a host whose streams are silent may call it when idle.
        """
        sweep = self._sweep
        if sweep is None:
            if not self._dead:
                return False
            sweep = self._sweep = _Sweep(self._dead, list(self._keys), list(self._holders))
        live = _ALL & ~sweep.dead
        for hashed in sweep.hashes[-entries:]:
            key = self._keys.get(hashed)
            if not self._holders.get(key) & live:
                self._keys.pop(hashed)
        for key in sweep.keys[-entries:]:
            if self._holders.get(key) & sweep.dead:
                self._clear(key, sweep.dead)
        del sweep.hashes[-entries:], sweep.keys[-entries:]
        if not sweep.hashes and not sweep.keys:
            self._dead &= ~sweep.dead
            self._free.extend(_slots(sweep.dead))
            self._sweep = None
        return True

    def _set(self, key: int, after: int) -> None:
        self._holders.put(key, self._sets.setdefault(after, after))

    def _clear(self, key: int, slots: int) -> None:
        """Takes ranks off a block; drops it with its last one."""
        after = self._holders.get(key) & ~slots
        if after:
            self._set(key, after)
        else:
            self._holders.pop(key)

    def _bound(self) -> None:
        """Keeps every dict within its bound; what was learnt first goes first, in slices."""
        if len(self._sets) > _SETS_MAX:
            self._sets.clear()
        if self._holders.entries > self._blocks_max:
            self._evict(self._holders.oldest(max(1, self._blocks_max // 64)))
        if self._keys.entries > self._blocks_max * 5 // 4:  # a fifth is of blocks that are gone
            self._clean_at = (self._clean_at + 1) % SHARDS
            for hashed, key in self._keys.shard(self._clean_at):
                if not self._holders.get(key):
                    self._keys.pop(hashed)

    def _evict(self, gone: Sequence[int]) -> None:
        for key in gone:
            self._holders.pop(key)
        if self._copies:
            kept = set(gone).isdisjoint
            self._copies = {pair: count for pair, count in self._copies.items() if kept((pair[1],))}
        self.counts.evicted += len(gone)


def _leave_off(depths: dict[int, int], slots: int, depth: int) -> None:
    """These ranks hold so many leading blocks."""
    while slots:
        low = slots & -slots
        depths[low.bit_length() - 1] = depth
        slots ^= low


def _slots(mask: int) -> list[int]:
    return [slot for slot in range(mask.bit_length()) if mask >> slot & 1]
