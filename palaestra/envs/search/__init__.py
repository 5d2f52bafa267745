"""Multi-hop questions, answered with search and read tools over a local corpus.

A generated world is told in this order: `names` (invented, of one split), `schema` (what relates to what, and how that
is said), `world` (entities and facts), `pages` (an encyclopaedia of it), `asking` and `questions` (what is asked, with
an answer that is unique in the world). `corpus` makes pages searchable, `shelf` keeps corpora for all instances of a
process, as `kept` says. `files` reads the user's own corpus and questions, `sets` and `rows` know the published ones,
`filed` makes tasks of both.

`request` reads what an agent says, `desk` carries it out, `offers` lists what could be said, `judge` marks answers;
`options`, `oracle`, `env` and `suite` are what the rest of Palaestra sees.
"""
