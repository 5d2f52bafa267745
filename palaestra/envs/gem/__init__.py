"""GEM's games and questions (Liu et al., 2025) on the original package, `gem-llm`, in an interpreter of its own."""
