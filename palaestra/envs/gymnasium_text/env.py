"""The environment: one of Gymnasium's, by id, for an agent that reads and writes text."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from palaestra.envs.core import Env, Info, Reset, Step
from palaestra.envs.gymnasium_text.words import WORDS, Won, Words, threshold
from palaestra.envs.params import whole
from palaestra.envs.tasks import Task
from palaestra.envs.versions import Supported
from palaestra.errors import DataError, EnvError, PalaestraError, UnknownNameError, require

if TYPE_CHECKING:
    import gymnasium

SUPPORTED = Supported("gymnasium", "1.4.0")
LARGEST = 1_000
"""Numbers of an observation that are told; what has more is a picture."""
TURNS = 200
"""Limit of an episode where neither the caller nor the environment has one."""
LONGEST = 10_000
"""Characters of an action that is read."""
_NUMERIC = ("Discrete", "Box", "MultiDiscrete", "MultiBinary")
"""Spaces of numbers, for which digits of other scripts are none."""
_SHOWN = 200
"""Characters of an action that are shown again when it is refused."""


class GymnasiumTextEnv(Env[str, str]):
    """Any environment of Gymnasium as text: observations in words, actions by name or number.

    Text that is no action changes nothing, sets `info["invalid"]` and takes a turn. A task's `params` may hold `env`,
    `kwargs` and `max_turns`.
    """

    def __init__(
        self, env: str = "FrozenLake-v1", kwargs: dict[str, Any] | None = None, max_turns: int | None = None
    ) -> None:
        """Make it.

        Args:
            env: its id in Gymnasium's registry.
            kwargs: for `gymnasium.make`, as `{"is_slippery": False}`.
            max_turns: the episode's limit; by default the environment's own, or 200.
        """
        self.id, self.kwargs, self.max_turns = env, kwargs or {}, max_turns
        self._env: gymnasium.Env[Any, Any] | None = None
        self._made: tuple[str, dict[str, Any]] | None = None
        self._words: Words | None = None
        self._won: Won = threshold(None)
        self._state, self._turns, self._limit = "", 0, TURNS
        self._mask: Any = None
        self._score, self._over = 0.0, False

    async def reset(
        self, *, seed: int | None = None, task: Task | None = None, options: Mapping[str, Any] | None = None
    ) -> Reset[str]:
        """Begin an episode; see `Env.reset`. `options` are the environment's own.

        Raises:
            DataError: the task's params do not describe an environment.
            EnvError: the environment cannot be made, breaks Gymnasium's contract, or shows pictures.
            MissingExtraError: gymnasium is not installed.
            UnknownNameError: there is no such environment.
        """
        params = task.params if task is not None else {}
        id, kwargs = params.get("env", self.id), params.get("kwargs", self.kwargs)
        if not isinstance(id, str) or not isinstance(kwargs, dict):
            raise DataError(f"a gymnasium task wants a text as env and a dict as kwargs, not {str((id, kwargs))[:80]}")
        seed = task.seed if seed is None and task is not None else seed
        seed = secrets.randbits(31) if seed is None else seed
        env = self._opened(id, kwargs)
        own = (env.spec.max_episode_steps if env.spec else None) or TURNS
        default = own if self.max_turns is None else self.max_turns
        self._limit = whole(params, "max_turns", "a gymnasium task", default=default, least=1)
        self._turns, self._score, self._over = 0, 0.0, False
        try:
            raw, info = env.reset(seed=seed, options=dict(options) if options else None)
            self._remember(raw, info)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise _broken(id, error) from error
        goal = f"{self._words.goal}\n" if self._words else ""
        return Reset(f"{goal}{self._state}\n{self._choice()}", self._info(False))

    async def step(self, action: str) -> Step[str]:
        """Take one action, by its name or its number."""
        env = self._playing
        self._turns += 1
        try:
            chosen = self._read(action)
        except ValueError as error:
            return Step(f"{error}\n{self._state}", 0.0, False, self._turns >= self._limit, self._info(True))
        try:
            raw, reward, terminated, truncated, info = env.step(chosen)
            paid = float(reward)
            self._remember(raw, info)
        except (TypeError, ValueError, AttributeError, LookupError) as error:
            raise _broken(str(self._made and self._made[0]), error) from error
        self._score += paid
        ended = bool(terminated)
        limited = not ended and (bool(truncated) or self._turns >= self._limit)
        self._over = bool(info.get("is_success")) or self._won(paid, ended, self._score)
        return Step(self._state, paid, ended, limited, self._info(False))

    async def close(self) -> None:
        """Close the environment."""
        env, self._env, self._made = self._env, None, None
        if env is not None:
            env.close()

    @property
    def _playing(self) -> gymnasium.Env[Any, Any]:
        if self._env is None:
            raise EnvError("no episode has begun; call reset() first")
        return self._env

    def _opened(self, id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
        if self._env is None or self._made != (id, kwargs):
            if self._env is not None:
                self._env.close()
            self._env, self._made = None, None
            self._env = open_env(id, kwargs)
            self._made = id, copy.deepcopy(kwargs)
            self._words = WORDS.get(id)
            spec = self._env.spec
            self._won = self._words.won if self._words else threshold(spec.reward_threshold if spec else None)
        return self._env

    def _remember(self, raw: Any, info: Mapping[str, Any]) -> None:
        from palaestra.envs.gymnasium import describe_observation

        env = self._playing
        self._mask = info.get("action_mask")
        self._state = self._words.describe(raw, env.unwrapped) if self._words else describe_observation(raw)

    def _read(self, action: Any) -> Any:
        """The action that a text names.

        Raises:
            ValueError: it names none; the message says what to write.
        """
        from palaestra.envs.gymnasium import parse_action

        space = self._playing.action_space
        text = action.encode(errors="replace").decode().strip() if isinstance(action, str) else ""
        if self._words and text.lower() in self._words.actions:
            return self._words.actions.index(text.lower())
        if len(text) > LONGEST or (not text.isascii() and type(space).__name__ in _NUMERIC):
            raise ValueError(f"{text[:_SHOWN]!r} is not an action. {self._choice()}")
        try:
            return parse_action(space, text)
        except ValueError:
            raise ValueError(f"{text[:_SHOWN]!r} is not an action. {self._choice()}") from None

    def _choice(self) -> str:
        from palaestra.envs.gymnasium import wanted_action

        if self._words:
            return f"Actions: {', '.join(self._words.actions)}."
        return f"Write {wanted_action(self._playing.action_space)}."

    def _info(self, invalid: bool) -> Info:
        from palaestra.envs.gymnasium import admissible_numbers

        info: Info = {
            "success": self._over,
            "invalid": invalid,
            "score": self._score,
            "task_type": self._made[0] if self._made else self.id,
        }
        mask = {} if self._mask is None else {"action_mask": self._mask}
        numbers = admissible_numbers(self._playing.action_space, mask)
        if numbers is not None:
            info["admissible_commands"] = [self._words.actions[int(n)] for n in numbers] if self._words else numbers
        return info


def open_env(id: str, kwargs: dict[str, Any]) -> gymnasium.Env[Any, Any]:
    """Gymnasium's environment `id`.

    Raises:
        EnvError: it cannot be made, or what it shows are pictures.
        MissingExtraError: gymnasium is not installed.
        UnknownNameError: there is no such environment.
    """
    check_id(id)
    import gymnasium

    try:
        env: gymnasium.Env[Any, Any] = gymnasium.make(id, disable_env_checker=True, **kwargs)
    except PalaestraError:
        raise
    except Exception as error:  # whatever the constructor of somebody's environment raises
        raise EnvError(f"gymnasium cannot make {id}: {type(error).__name__}: {str(error)[:200]}") from error
    size = 1
    for length in env.observation_space.shape or ():
        size *= length
    if size > LARGEST:
        env.close()
        raise EnvError(f"{id} shows pictures of shape {env.observation_space.shape}, which words cannot tell")
    return env


def check_id(id: str) -> str:
    """`id` itself.

    Raises:
        EnvError: gymnasium is of a version without what this needs.
        MissingExtraError: gymnasium is not installed.
        UnknownNameError: there is no such environment. An id with a module before a colon would import it.
    """
    gymnasium = require("gymnasium", "gymnasium")
    try:
        known = gymnasium.registry
        import_module("palaestra.envs.gymnasium")
    except (AttributeError, TypeError) as error:
        raise SUPPORTED.misfit(error) from error
    if id not in known:
        raise UnknownNameError("environment of gymnasium", id, known)
    return id


def _broken(id: str, error: Exception) -> EnvError:
    return EnvError(f"{id} breaks Gymnasium's contract: {type(error).__name__}: {str(error)[:200]}")
