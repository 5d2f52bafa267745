"""The suite in brief."""

from palaestra.envs.card import SuiteCard

CARD = SuiteCard(
    name="webshop",
    summary="find what an instruction asks for in a shop, choose its options, buy it",
    env="webshop/Text-v0",
    levels=("small", "large"),
    splits={"train": 10_000, "validation": 1_000, "test": 500},
    oracle=True,
    rewards="0 to 1 for the purchase: share of attributes, options and price that are right",
    admissible=True,
    max_turns=15,
    extra="webshop",
    needs="for webshop/real: WebShop's product files",
    licence="of the rules followed (WebShop): MIT; product data: the user's own",
    source="Yao et al. 2022, arXiv 2207.01206",
    page="environments/webshop.md",
)
