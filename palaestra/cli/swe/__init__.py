"""`palaestra swe ...`: the software-engineering tasks made from release histories."""
