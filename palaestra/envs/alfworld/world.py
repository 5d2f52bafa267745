"""The household engine: ALFWorld's text game in pure Python.

Rules and texts are those of ALFWorld's PDDL domain and grammar (Shridhar et al., 2021), as found by differential
testing against it. Every receptacle is a place of its own; the agent begins in the middle of the room, at none of them.

All state is in seven fields of plain values, so a snapshot is a tuple of them and costs microseconds.
"""

from __future__ import annotations

from typing import NamedTuple

from palaestra.envs.alfworld import vocabulary as v
from palaestra.envs.alfworld.game import VERB_OF_KIND, Game

NOTHING_HAPPENS = "Nothing happens."
WELCOME = "-= Welcome to TextWorld, ALFRED! =-"
HELP = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""


class State(NamedTuple):
    """A snapshot. Sets of objects and receptacles are bit masks over their indices."""

    place: int
    opened: int
    held: int
    contents: tuple[tuple[int, ...], ...]
    hot: int
    cool: int
    clean: int
    sliced: int
    toggled: int


class World:
    """One game in play. Not asynchronous and not thread-safe: `HouseholdEnv` is the environment around it."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.kinds = [kind for kind, _ in game.receptacles]
        self.things = [kind for kind, _, _ in game.objects]
        self.receptacles = [f"{v.SPOKEN[kind]} {number}" for kind, number in game.receptacles]
        self.objects = [f"{v.SPOKEN[kind]} {number}" for kind, number, _ in game.objects]
        self._receptacle_index = {name: i for i, name in enumerate(self.receptacles)}
        self._object_index = {name: i for i, name in enumerate(self.objects)}
        self.openable = [kind in v.OPENABLE for kind in self.kinds]
        go = [f"go to {name}" for name in self.receptacles]
        self._go = [go[:i] + go[i + 1 :] for i in range(len(go))] + [go]
        self.restart()

    def restart(self) -> str:
        """Put everything back to the beginning and return the opening text."""
        contents: list[list[int]] = [[] for _ in self.receptacles]
        for index, (_, _, place) in enumerate(self.game.objects):
            contents[place].append(index)
        self.place, self.opened, self.held = -1, 0, -1
        self.contents = contents
        self.hot = self.cool = self.clean = self.sliced = self.toggled = 0
        return f"{WELCOME}\n\n{_middle(self.receptacles)}\n\nYour task is to: {self.game.goal.text}."

    # -- snapshots --------------------------------------------------------------------------------------------------

    def snapshot(self) -> State:
        """The whole state, immutable."""
        return State(
            self.place, self.opened, self.held, tuple(map(tuple, self.contents)),
            self.hot, self.cool, self.clean, self.sliced, self.toggled,
        )  # fmt: skip

    def restore(self, state: State) -> None:
        """Continue from `state`, which must come from a world of the same game."""
        self.place, self.opened, self.held, contents, self.hot, self.cool, self.clean, self.sliced, self.toggled = state
        self.contents = list(map(list, contents))

    # -- what is so ----------------------------------------------------------------------------------------------------

    def accessible(self, receptacle: int) -> bool:
        """Whether one can see and reach into it."""
        return not self.openable[receptacle] or bool(self.opened >> receptacle & 1)

    def won(self) -> bool:
        """ALFWorld's goal condition of the game's task type."""
        goal = self.game.goal
        if goal.kind == "look_at_obj_in_light":
            if self.held < 0 or self.place < 0 or self.things[self.held] != goal.object:
                return False
            return any(self.toggled >> o & 1 and self.things[o] == goal.place for o in self.contents[self.place])
        need = 2 if goal.kind == "pick_two_obj_and_place" else 1
        changed = self.changed(VERB_OF_KIND.get(goal.kind))
        for kind, inside in zip(self.kinds, self.contents, strict=True):
            if kind == goal.place and sum(self.things[o] == goal.object and changed >> o & 1 for o in inside) >= need:
                return True
        return False

    def changed(self, verb: str | None) -> int:
        """Bit mask of the objects that `verb` has been done to; all objects where no verb is asked for."""
        if verb is None:
            return -1
        return {"heat": self.hot, "cool": self.cool, "clean": self.clean}[verb]

    def admissible(self) -> list[str]:
        """Every command that does something now, in a fixed order."""
        here, held = self.place, self.held
        commands = ["look", "inventory", "help", *self._go[here]]
        if here < 0:
            if held >= 0:
                commands.append(f"examine {self.objects[held]}")
            return commands
        name = self.receptacles[here]
        commands.append(f"examine {name}")
        reachable = True
        if self.openable[here]:
            reachable = bool(self.opened >> here & 1)
            commands.append(f"close {name}" if reachable else f"open {name}")
        for o in self.contents[here]:
            if self.things[o] in v.LAMPS:
                commands.append(f"use {self.objects[o]}")
            elif held < 0 and reachable:
                commands.append(f"take {self.objects[o]} from {name}")
        if held >= 0:
            self._add_held(commands, held, name, self.kinds[here], reachable)
        return commands

    def _add_held(self, commands: list[str], held: int, name: str, kind: str, reachable: bool) -> None:
        thing, what = self.things[held], self.objects[held]
        commands.append(f"examine {what}")
        if reachable and thing in v.FITS[kind]:
            commands.append(f"move {what} to {name}")
        for verb, appliance in v.APPLIANCE.items():
            if kind == appliance and thing in v.AFFORDS[verb]:
                commands.append(f"{verb} {what} with {name}")
        if thing in v.KNIVES:
            near = self.contents[self.place]
            commands.extend(f"slice {self.objects[o]} with {what}" for o in near if self.things[o] in v.SLICEABLE)

    # -- what is done -------------------------------------------------------------------------------------------------

    def act(self, command: str) -> str:
        """Do one command and return its text; a command that does not apply changes nothing and says so."""
        verb, _, rest = command.partition(" ")
        if verb == "go" and rest.startswith("to "):
            return self._go_to(rest[3:])
        if verb in _TWO_PLACES:
            what, found, where = rest.partition(_TWO_PLACES[verb])
            return getattr(self, f"_{verb}")(what, where) if found else NOTHING_HAPPENS
        if verb in ("open", "close", "examine", "use"):
            return str(getattr(self, f"_{verb}")(rest))
        if command == "look":
            return self._look()
        if command == "inventory":
            return self._inventory()
        return HELP if command == "help" else NOTHING_HAPPENS

    def _here(self, name: str) -> bool:
        return self.place >= 0 and self.receptacles[self.place] == name

    def _holds(self, name: str) -> bool:
        return self.held >= 0 and self.objects[self.held] == name

    def _inside(self, receptacle: int) -> str:
        return _list([self.objects[o] for o in self.contents[receptacle]])

    def _describe(self, receptacle: int) -> str:
        name = self.receptacles[receptacle]
        if not self.openable[receptacle]:
            return f"On the {name}, you see {self._inside(receptacle)}."
        if self.opened >> receptacle & 1:
            return f"The {name} is open. In it, you see {self._inside(receptacle)}."
        return f"The {name} is closed."

    def _look(self) -> str:
        if self.place >= 0:
            return f"You are facing the {self.receptacles[self.place]}. Next to it, you see nothing."
        return _middle([])  # only the opening text tells what is in the room, as in ALFWorld

    def _inventory(self) -> str:
        return f"You are carrying: a {self.objects[self.held]}." if self.held >= 0 else "You are not carrying anything."

    def _go_to(self, name: str) -> str:
        index = self._receptacle_index.get(name, self.place)
        if index == self.place:
            return NOTHING_HAPPENS
        self.place = index
        return f"You arrive at {name}. {self._describe(index)}"

    def _open(self, name: str) -> str:
        if not self._here(name) or self.accessible(self.place):
            return NOTHING_HAPPENS
        self.opened |= 1 << self.place
        return f"You open the {name}. {self._describe(self.place)}"

    def _close(self, name: str) -> str:
        if not self._here(name) or not self.opened >> self.place & 1:
            return NOTHING_HAPPENS
        self.opened &= ~(1 << self.place)
        return f"You close the {name}."

    def _examine(self, name: str) -> str:
        if self._here(name):
            return self._describe(self.place)
        return self._examine_held() if self._holds(name) else NOTHING_HAPPENS

    def _examine_held(self) -> str:
        bit, name = 1 << self.held, self.objects[self.held]
        sliced = "sliced " if self.sliced & bit else ""
        heat = "hot" if self.hot & bit else "cool" if self.cool & bit else ""
        if self.clean & bit:
            return f"This is a {heat + ' and ' if heat else ''}clean {sliced}{name}."
        if heat:
            return f"This is a {'cold' if heat == 'cool' and not sliced else heat} {sliced}{name}."
        return f"This is a sliced {name}." if sliced else f"There's nothing special about {name}."

    def _use(self, name: str) -> str:
        o = self._object_index.get(name, -1)
        if o < 0 or self.place < 0 or self.things[o] not in v.LAMPS or o not in self.contents[self.place]:
            return NOTHING_HAPPENS
        self.toggled |= 1 << o  # ALFWorld's `isToggled` is never taken back, and its text looks at that
        return f"You turn on the {name}."

    def _take(self, what: str, where: str) -> str:
        o = self._object_index.get(what, -1)
        if self.held >= 0 or not self._here(where) or not self.accessible(self.place):
            return NOTHING_HAPPENS
        inside = self.contents[self.place]
        if o not in inside or self.things[o] in v.LAMPS:
            return NOTHING_HAPPENS
        inside.remove(o)
        self.held = o
        return f"You pick up the {what} from the {where}."

    def _move(self, what: str, where: str) -> str:
        if not self._holds(what) or not self._here(where) or not self.accessible(self.place):
            return NOTHING_HAPPENS
        if self.things[self.held] not in v.FITS[self.kinds[self.place]]:
            return NOTHING_HAPPENS
        self.contents[self.place].append(self.held)
        self.held = -1
        return f"You move the {what} to the {where}."

    def _change(self, verb: str, what: str, where: str) -> bool:
        return (
            self._holds(what)
            and self._here(where)
            and self.kinds[self.place] == v.APPLIANCE[verb]
            and self.things[self.held] in v.AFFORDS[verb]
        )

    def _heat(self, what: str, where: str) -> str:
        if not self._change("heat", what, where):
            return NOTHING_HAPPENS
        self.hot |= 1 << self.held
        self.cool &= ~(1 << self.held)
        return f"You heat the {what} using the {where}."

    def _cool(self, what: str, where: str) -> str:
        if not self._change("cool", what, where):
            return NOTHING_HAPPENS
        self.cool |= 1 << self.held
        self.hot &= ~(1 << self.held)
        return f"You cool the {what} using the {where}."

    def _clean(self, what: str, where: str) -> str:
        if not self._change("clean", what, where):
            return NOTHING_HAPPENS
        self.clean |= 1 << self.held
        return f"You clean the {what} using the {where}."

    def _slice(self, what: str, tool: str) -> str:
        o = self._object_index.get(what, -1)
        if not self._holds(tool) or self.things[self.held] not in v.KNIVES or self.place < 0:
            return NOTHING_HAPPENS
        if o not in self.contents[self.place] or self.things[o] not in v.SLICEABLE:
            return NOTHING_HAPPENS
        self.sliced |= 1 << o
        return f"You sliced the {what} with the {tool}."


def _middle(things: list[str]) -> str:
    return f"You are in the middle of a room. Looking quickly around you, you see {_list(things)}."


def _list(names: list[str]) -> str:
    items = [f"a {name}" for name in names]
    if len(items) > 1:
        return f"{', '.join(items[:-1])}, and {items[-1]}"
    return items[0] if items else "nothing"


_TWO_PLACES = {
    "take": " from ",
    "move": " to ",
    "heat": " with ",
    "cool": " with ",
    "clean": " with ",
    "slice": " with ",
}
