"""What relates to what in an invented world, and how it is said and asked."""

from __future__ import annotations

from typing import NamedTuple

from palaestra.envs.search.names import words


class Back(NamedTuple):
    """A relation told from its other end."""

    ask: str
    """Question for the subject, `{x}` the object: it is asked only where there is one."""
    phrase: str
    """The subject as a noun phrase."""
    say: str
    """Sentence on the object's page with all subjects as `{o}`; empty where its page does not tell."""
    how_many: str = ""
    """Question for the number of subjects; empty where that is not asked."""


class Relation(NamedTuple):
    """A relation that is a function: each subject has one object, or none."""

    name: str
    subject: str
    """Kind of entity."""
    object: str
    """Kind of entity; empty for a value (a year, a number, a word)."""
    ask: tuple[str, ...]
    """Questions for the object, `{x}` the subject."""
    say: tuple[str, ...]
    """Sentences on the subject's page: `{s}` the subject or a pronoun, `{p}` its possessive, `{o}` the object."""
    phrase: str = ""
    """The object as a noun phrase, `{x}` the subject; empty for values."""
    clause: str = ""
    """What is true of the subject, `{x}` the object, after `Which book`; empty where that is not asked."""
    compare: tuple[str, ...] = ()
    """Questions which of `{a}` and `{b}` has the smaller value, then the larger."""
    back: Back | None = None


KINDS = {
    "country": (0.02, "a country"),
    "mountain": (0.02, "a mountain"),
    "river": (0.04, "a river"),
    "town": (0.14, "a town"),
    "school": (0.04, "a school"),
    "museum": (0.06, "a museum"),
    "company": (0.14, "a company"),
    "book": (0.18, "a book"),
    "person": (0.36, ""),
}
"""Kind -> share of all pages, and how a page begins; a person's begins with the occupation."""

OCCUPATIONS = words(
    "architect astronomer botanist cartographer chemist composer engineer geologist historian inventor lawyer "
    "linguist mathematician merchant painter philosopher physician physicist poet sculptor surveyor teacher"
)
INDUSTRIES = words(
    "brewing glass instruments ironware leather paper porcelain printing rope shipbuilding soap textiles"
)
SUBJECTS = words("bees bridges clocks comets dyes ferries fossils gardens glaciers lanterns maps mills moths tides")

_FOUNDED = ("Which was founded earlier, {a} or {b}?", "Which was founded later, {a} or {b}?")
_OPENED = ("Which opened earlier, {a} or {b}?", "Which opened later, {a} or {b}?")
_WRITTEN = ("Which came out earlier, {a} or {b}?", "Which came out later, {a} or {b}?")
_BORN = ("Who was born earlier, {a} or {b}?", "Who was born later, {a} or {b}?")


def _value(name: str, subject: str, ask: str, say: str, other: str, compare: tuple[str, ...] = ()) -> Relation:
    return Relation(name, subject, "", (ask,), (say, other), compare=compare)


RELATIONS = (
    Relation(
        "capital", "country", "town",
        ("What is the capital of {x}?", "Which town is the capital of {x}?"),
        ("{p} capital is {o}.", "{s} is governed from {o}, the capital."),
        "the capital of {x}",
        back=Back(
            "Of which country is {x} the capital?", "the country whose capital is {x}", "{s} is the capital of {o}."
        ),
    ),
    _value("currency", "country", "What is the currency of {x}?", "{p} currency is the {o}.", "Prices are in {o}s."),
    _value(
        "independent", "country", "In which year did {x} become independent?",
        "{s} became independent in {o}.", "Independence came in {o}.",
        ("Which became independent earlier, {a} or {b}?", "Which became independent later, {a} or {b}?"),
    ),
    _value(
        "height", "mountain", "How high is {x}?", "{s} is {o} high.", "{p} summit lies at {o}.",
        ("Which is lower, {a} or {b}?", "Which is higher, {a} or {b}?"),
    ),
    Relation(
        "mountain_country", "mountain", "country",
        ("In which country is {x}?",), ("{s} stands in {o}.", "It lies in the north of {o}."),
        "the country where {x} stands",
    ),
    Relation(
        "source", "river", "mountain",
        ("On which mountain does {x} rise?", "Where does {x} have its source?"),
        ("{s} rises on {o}.", "{p} source is on the slopes of {o}."),
        "the mountain where {x} rises",
        back=Back("Which river rises on {x}?", "the river that rises on {x}", ""),
    ),
    _value(
        "length", "river", "How long is {x}?", "{s} is {o} long.", "From source to mouth it measures {o}.",
        ("Which is shorter, {a} or {b}?", "Which is longer, {a} or {b}?"),
    ),
    Relation(
        "country", "town", "country",
        ("In which country is {x}?", "To which country does {x} belong?"),
        ("{s} belongs to {o}.", "It is a town of {o}."), "the country to which {x} belongs",
    ),
    Relation(
        "river", "town", "river",
        ("Which river flows through {x}?", "On which river does {x} lie?"),
        ("{s} lies on the {o}.", "The {o} flows through {s}."),
        "the river that flows through {x}",
        back=Back("Which town lies on {x}?", "the town through which {x} flows", "{s} flows through {o}.",
                  "Through how many towns does {x} flow?"),
    ),
    _value("town_founded", "town", "In which year was {x} founded?", "{s} was founded in {o}.",
           "The first houses were built in {o}.", _FOUNDED),
    _value(
        "population", "town", "How many people live in {x}?", "{s} has {o} inhabitants.",
        "{p} population is {o}.",
        ("Which has fewer inhabitants, {a} or {b}?", "Which has more inhabitants, {a} or {b}?"),
    ),
    Relation(
        "school_town", "school", "town",
        ("In which town is {x}?",), ("{s} is in {o}.", "{p} buildings stand in {o}."), "the town of {x}",
        clause="is in {x}",
        back=Back("Which school is in {x}?", "the school of {x}", "{s} is the seat of {o}."),
    ),
    _value("school_founded", "school", "In which year was {x} founded?", "{s} was founded in {o}.",
           "Lessons began in {o}.", _FOUNDED),
    Relation(
        "rector", "school", "person",
        ("Who is the rector of {x}?", "Who heads {x}?"),
        ("{p} rector is {o}.", "{s} is headed by {o}."), "the rector of {x}",
        back=Back("Of which school is {x} the rector?", "the school headed by {x}", "{s} is rector of {o}."),
    ),
    Relation(
        "museum_town", "museum", "town",
        ("In which town is {x}?",), ("{s} stands in {o}.", "Visitors find it in {o}."), "the town where {x} stands",
        clause="stands in {x}",
        back=Back("Which museum is in {x}?", "the museum in {x}", "{s} is home to {o}."),
    ),
    Relation(
        "architect", "museum", "person",
        ("Who designed {x}?", "Who was the architect of {x}?"),
        ("{s} was designed by {o}.", "The building is a work of {o}."), "the architect of {x}",
        clause="was designed by {x}",
        back=Back("Which museum did {x} design?", "the museum designed by {x}", "{s} designed {o}.",
                  "How many museums did {x} design?"),
    ),
    _value("opened", "museum", "In which year did {x} open?", "{s} opened in {o}.",
           "The doors were opened to the public in {o}.", _OPENED),
    Relation(
        "founder", "company", "person",
        ("Who founded {x}?", "Who was the founder of {x}?"),
        ("{s} was founded by {o}.", "The firm goes back to {o}, its founder."), "the founder of {x}",
        clause="was founded by {x}",
        back=Back("Which company did {x} found?", "the company founded by {x}", "{s} founded {o}.",
                  "How many companies did {x} found?"),
    ),
    _value("company_founded", "company", "In which year was {x} founded?", "{s} was founded in {o}.",
           "Business began in {o}.", _FOUNDED),
    Relation(
        "seat", "company", "town",
        ("Where does {x} have its seat?", "In which town is the seat of {x}?"),
        ("{s} has its seat in {o}.", "The works are in {o}."), "the town where {x} has its seat",
        clause="has its seat in {x}",
    ),
    Relation(
        "industry", "company", "", ("What is the business of {x}?", "In which industry is {x}?"),
        ("{p} business is {o}.", "{s} is known for {o}."), clause="has {x} as its business",
    ),
    Relation(
        "chief", "company", "person",
        ("Who is the chief executive of {x}?", "Who runs {x}?"),
        ("{p} chief executive is {o}.", "{s} is run by {o}."), "the chief executive of {x}",
        back=Back("Which company does {x} run?", "the company run by {x}", "{s} runs {o}."),
    ),
    Relation(
        "successor", "company", "company",
        ("Which company succeeded {x}?", "What is the successor of {x}?"),
        ("{s} was later succeeded by {o}.", "{p} successor is {o}."), "the successor of {x}",
        back=Back("Which company did {x} succeed?", "the predecessor of {x}", "{s} is the successor of {o}."),
    ),
    Relation(
        "author", "book", "person",
        ("Who wrote {x}?", "Who is the author of {x}?"),
        ("{s} was written by {o}.", "{p} author is {o}."), "the author of {x}",
        clause="was written by {x}",
        back=Back("Which book did {x} write?", "the book written by {x}", "{s} wrote {o}.",
                  "How many books did {x} write?"),
    ),
    _value("written", "book", "In which year did {x} come out?", "{s} came out in {o}.", "It was first printed in {o}.",
           _WRITTEN),
    Relation(
        "subject", "book", "", ("What is {x} about?", "What is the subject of {x}?"),
        ("{s} is about {o}.", "{p} subject is {o}."), clause="is about {x}",
    ),
    Relation(
        "setting", "book", "town",
        ("In which town is {x} set?",), ("{s} is set in {o}.", "{p} chapters lead through {o}."),
        "the town in which {x} is set",
        clause="is set in {x}",
    ),
    Relation(
        "birthplace", "person", "town",
        ("Where was {x} born?", "In which town was {x} born?"),
        ("{s} was born in {o}.", "{p} birthplace is {o}."), "the birthplace of {x}", clause="was born in {x}",
    ),
    _value("born", "person", "In which year was {x} born?", "{s} was born in the year {o}.",
           "{p} year of birth is {o}.", _BORN),
    Relation("occupation", "person", "", ("What was the occupation of {x}?",), (), clause="had the occupation {x}"),
    Relation(
        "employer", "person", "company",
        ("For which company did {x} work?", "Who was the employer of {x}?"),
        ("{s} worked for {o}.", "{p} employer was {o}."), "the employer of {x}", clause="worked for {x}",
    ),
    Relation(
        "studied", "person", "school",
        ("Where did {x} study?", "At which school did {x} study?"),
        ("{s} studied at {o}.", "{p} school was {o}."), "the school where {x} studied", clause="studied at {x}",
    ),
    Relation(
        "teacher", "person", "person",
        ("Who taught {x}?", "Who was the teacher of {x}?"),
        ("{s} was a pupil of {o}.", "{p} teacher was {o}."), "the teacher of {x}",
        back=Back("Whom did {x} teach?", "the pupil of {x}", "{s} taught {o}.", "How many pupils did {x} have?"),
    ),
    Relation(
        "spouse", "person", "person",
        ("Who was married to {x}?", "Whom did {x} marry?"),
        ("{s} was married to {o}.", "{s} married {o}."), "the spouse of {x}",
    ),
)  # fmt: skip
OF_KIND = {kind: tuple(r for r in RELATIONS if r.subject == kind) for kind in KINDS}
"""Kind -> relations whose subjects are of it."""
TO_KIND = {kind: tuple(r for r in RELATIONS if r.object == kind and r.back) for kind in KINDS}
"""Kind -> relations that can be told from that, the object's, end."""
