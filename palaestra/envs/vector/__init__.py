"""Many environments as one `gymnasium.vector.VectorEnv`, in a few worker processes."""

from palaestra.envs.vector.env import PoolVectorEnv as PoolVectorEnv

__all__ = ["PoolVectorEnv"]
