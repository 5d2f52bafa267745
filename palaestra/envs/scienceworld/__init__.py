"""ScienceWorld (Wang et al., 2022): experiments of a primary school, on the `scienceworld` package.

`tasks` are its 30 types of task and their folds, `simulator` is one episode in Java, `pool` lends simulators,
`solution` is how a task is solved, `env` and `suite` are what the rest of Palaestra sees.
"""
