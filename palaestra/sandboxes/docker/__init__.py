"""Sandboxes in containers of a Docker engine, through its API."""

from palaestra.errors import require

require("aiodocker", "docker")
