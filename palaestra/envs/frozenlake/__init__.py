"""A frozen lake in text: reach the goal and fall into no hole, on ice that may be slippery.

`lake` holds maps and rules, `generate` makes maps, `oracle` the best policy, `env` and `suite` are what the rest of
Palaestra sees. The dynamics are those of Gymnasium's FrozenLake.
"""
