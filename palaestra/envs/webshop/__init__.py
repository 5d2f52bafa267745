"""WebShop (Yao et al., 2022): find what an instruction asks for in a shop of many products, and buy it.

`product` and `goal` are what is sold and wanted, `wares`, `generate` and `catalogue` make a shop's products up, `real`
reads the user's, `shop` is both with their full-text index; `view` and `pages` are what a visitor does and sees,
`reward` is the paper's, `oracle` knows where the goal is met, `env` and `suite` are what the rest of Palaestra sees.
"""
