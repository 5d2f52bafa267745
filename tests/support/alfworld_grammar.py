"""Every command that the household's language can say in a game, sensible or not."""

from itertools import product

from palaestra.envs.alfworld.world import World


def every_command(world: World) -> list[str]:
    places, things = world.receptacles, world.objects
    commands = ["look", "inventory", "help"]
    commands += [f"{verb} {name}" for verb, name in product(("go to", "open", "close", "examine"), places)]
    commands += [f"{verb} {name}" for verb, name in product(("examine", "use"), things)]
    for verb, joint in (("take", "from"), ("move", "to"), ("heat", "with"), ("cool", "with"), ("clean", "with")):
        commands += [f"{verb} {thing} {joint} {place}" for thing, place in product(things, places)]
    return commands + [f"slice {thing} with {tool}" for thing, tool in product(things, things)]
