"""TextWorldExpress's games (Jansen and Côté, 2023), on the `textworld-express` package.

`jvm` is the one Java virtual machine of this process, `simulator` is one game in it, `apart` keeps simulators from
changing each other, `env` and `suite` are what the rest of Palaestra sees.
"""
