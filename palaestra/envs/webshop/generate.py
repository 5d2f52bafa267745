"""Made-up products and goals, each a function of seed and number: nothing has to be kept."""

from __future__ import annotations

import itertools
import random

from palaestra.envs.webshop.goal import Goal, make_goal
from palaestra.envs.webshop.product import Product, Review
from palaestra.envs.webshop.wares import BRANDS, DEPARTMENTS, LINES, PRAISE, Department
from palaestra.seeds import derive_seed

ATTRIBUTES = 5
"""Of a product."""
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_SPACE, _FACTOR = 36**8, 1_347_218_563
_INVERSE = pow(_FACTOR, -1, _SPACE)
_STRIDE = 7919
"""Prime, so that steps of it come to all choices of options before one comes again."""
_SAID = ("{}.", "You get: {}.", "Key feature: {}.", "Known for: {}.", "{}, as it should be.")
_ASKED = (
    "i am looking for {attributes} {query}{options}",
    "find me {query} with {attributes}{options}",
    "i need {query}, {attributes}{options}",
    "please buy {attributes} {query}{options}",
    "i want to order {query}{options}. it should have {attributes}",
)


def asin_of(number: int) -> str:
    """The number that a made-up product has in the shop."""
    left, digits = number * _FACTOR % _SPACE, ""
    for _ in range(8):
        left, digit = divmod(left, 36)
        digits = _DIGITS[digit] + digits
    return "B0" + digits


def number_of(asin: str) -> int | None:
    """The product that `asin_of` gave this number; `None` if it gives it to none."""
    if len(asin) != 10 or not asin.startswith("B0") or not set(asin) <= set(_DIGITS):
        return None
    return int(asin[2:], 36) * _INVERSE % _SPACE


def make_product(seed: int, number: int) -> Product:
    """Product `number` of the catalogue of `seed`."""
    generator = random.Random(derive_seed(seed, "product", number))
    name = generator.choice(tuple(DEPARTMENTS))
    department = DEPARTMENTS[name]
    step = generator.choice(tuple(department.kinds))
    query = generator.choice(department.kinds[step])
    attributes = tuple(generator.sample(department.attributes, ATTRIBUTES))
    brand, line = generator.choice(BRANDS), generator.choice(LINES)
    shown = attributes[0].title()
    title = f"{brand} {line} {shown} {query.title()}, {attributes[1].title()}, Model {generator.randint(100, 999)}"
    return Product(
        asin=asin_of(number),
        name=title,
        category=name,
        query=query,
        product_category=f"{department.root} › {step} › {query.title()}",
        attributes=attributes,
        options=_options(department, generator),
        description=f"The {brand} {query} from the {line} series. Noted for {attributes[2]} and {attributes[3]}.",
        bullets=_bullets(attributes, query, generator),
        pricing=_pricing(department, generator),
        rating=f"{generator.randint(20, 50) / 10}",
        reviews=_reviews(generator),
    )


def _options(department: Department, generator: random.Random) -> dict[str, tuple[str, ...]]:
    """The first two options of the department, and sometimes a third, with some of their values."""
    names = list(department.options)[: generator.choice((2, 2, 3))]
    options = {}
    for name in names:
        values = department.options[name]
        chosen = set(generator.sample(values, generator.randint(3, min(6, len(values)))))
        options[name] = tuple(value for value in values if value in chosen)
    return options


def _bullets(attributes: tuple[str, ...], query: str, generator: random.Random) -> tuple[str, ...]:
    told = [generator.choice(_SAID).format(attribute).capitalize() for attribute in attributes]
    generator.shuffle(told)
    return (*told, f"One {query} in the box.")


def _pricing(department: Department, generator: random.Random) -> tuple[float, ...]:
    low, high = department.prices
    price = round(low * (high / low) ** generator.random()) - 0.01
    return (price, round(price * generator.uniform(1.1, 1.6), 2)) if generator.random() < 0.15 else (price,)


def _reviews(generator: random.Random) -> tuple[Review, ...]:
    said = generator.sample(PRAISE, generator.randint(0, 3))
    return tuple(Review(title, str(generator.randint(1, 5)), f"{title}.") for title in said)


def make_product_goal(seed: int, number: int, variant: int) -> Goal:
    """One of the goals that product `number` meets; different ones want other attributes or options."""
    product = make_product(seed, number)
    generator = random.Random(derive_seed(seed, "goal", number))
    groups = [group for size in (1, 2, 3) for group in itertools.combinations(product.attributes, size)]
    generator.shuffle(groups)
    row, column = divmod(variant, len(groups))
    attributes = groups[column]
    options = _choice(product, generator.randrange(_SPACE) + _STRIDE * (row + column))
    generator.seed(derive_seed(seed, "goal", number, variant))
    return make_goal(product, _asked(product, attributes, options, generator), attributes, options, generator)


def _choice(product: Product, number: int) -> tuple[str, ...]:
    """One of the choices of a value of each option: another for each of as many numbers in a row."""
    chosen = []
    for values in product.options.values():
        number, place = divmod(number, len(values))
        chosen.append(values[place])
    return tuple(chosen)


def _asked(product: Product, attributes: tuple[str, ...], options: tuple[str, ...], generator: random.Random) -> str:
    named = ", and ".join(f"{name}: {value}" for name, value in zip(product.options, options, strict=True))
    joined = ", ".join(attributes[:-1]) + " and " * (len(attributes) > 1) + attributes[-1]
    return generator.choice(_ASKED).format(attributes=joined, query=product.query, options=f" with {named}")
