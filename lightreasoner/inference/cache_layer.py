"""A cache layer whose rows come and go: keys and values of a batch, with room to grow in place.

Rows stand right-aligned: all of them end at the last column that is shown, and what lies to the
left of a row's first token is masked. So a row that ended gives its place to a new prompt, whose
states are put where the others end, and columns that no row needs any more are shown no longer.
"""

from typing import TYPE_CHECKING

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ROOM = 64  # tokens


class RoomyLayer(DynamicLayer):
    """Keys and values, each (rows, heads, columns, head size), some columns of larger rooms.

    transformers' own layer concatenates again at every token, which took half of the decoding time
    (SmolLM2-135M, 32 rows, two CPU cores).
    """

    _rooms: tuple[Tensor, Tensor]
    _start: int
    _end: int

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Append the states of new tokens; returns those of all tokens that are shown."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self._hold(key_states[:, :, :0], value_states[:, :, :0])
        new = key_states.shape[-2]
        if self._end + new > self._rooms[0].shape[-2]:
            self._move(self.keys.shape[-2] + new + ROOM)
        for room, states in zip(self._rooms, (key_states, value_states), strict=True):
            room[:, :, self._end : self._end + new] = states
        return self._show(self._start, self._end + new)

    def repeated(self, rows: int) -> "RoomyLayer":
        """A layer that goes on from this one's only row in each of `rows` rows."""
        layer = RoomyLayer()
        if self.is_initialized:
            layer.lazy_initialization(self.keys, self.values)
            # Full, so that the next token finds no room and makes a copy.
            layer._hold(*(states.expand(rows, -1, -1, -1) for states in (self.keys, self.values)))
        return layer

    def place(self, other: "RoomyLayer", slots: Tensor, rows: int, columns: int) -> None:
        """Put another layer's rows into the places `slots`, their ends at the last of `columns`.

        If fewer columns are shown, nothing is kept: the layer starts over with `rows` rows.
        """
        states = other.keys, other.values
        if not self.is_initialized or self.keys.shape[-2] != columns:
            self.lazy_initialization(*states)
            # Zeros: what lies before a row is masked, which does not undo NaN.
            keys, values = (
                s.new_zeros(rows, s.shape[1], columns + ROOM, s.shape[3]) for s in states
            )
            self._rooms = keys, values
            self._show(0, columns)
        start = self._end - other.keys.shape[-2]
        for room, new in zip(self._rooms, states, strict=True):
            room[:, :, start : self._end].index_copy_(0, slots, new)

    def trim(self, columns: int) -> None:
        """Show this many columns fewer, on the left."""
        self._show(self._start + columns, self._end)

    def keep(self, slots: Tensor) -> None:
        """Keep these rows only."""
        self._move(self.keys.shape[-2] + ROOM, slots)

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self._rooms = keys, values
        self._show(0, keys.shape[-2])

    def _move(self, columns: int, slots: Tensor | None = None) -> None:
        """What is shown, of all rows or of `slots`, at the start of new rooms of `columns`."""
        shown = self.keys.shape[-2]
        keys, values = (_moved(states, columns, slots) for states in (self.keys, self.values))
        self._rooms = keys, values
        self._show(0, shown)

    def _show(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        self._start, self._end = start, end
        self.keys, self.values = (room[:, :, start:end] for room in self._rooms)
        return self.keys, self.values


def _moved(states: Tensor, columns: int, slots: Tensor | None) -> Tensor:
    states = states if slots is None else states[slots]
    room = states.new_empty(*states.shape[:2], columns, states.shape[-1])
    room[:, :, : states.shape[-2]] = states
    return room


def new_cache(model: "PreTrainedModel") -> Cache:
    """An empty cache of the model's layers."""
    return Cache(layers=[RoomyLayer() for _ in range(model.config.num_hidden_layers)])
