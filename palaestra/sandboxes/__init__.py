"""Places to run what agents write: limited, without a network, forkable, and gone afterwards."""
