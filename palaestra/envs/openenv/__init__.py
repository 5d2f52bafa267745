"""OpenEnv in both directions: playing on its servers, and serving to its clients."""
