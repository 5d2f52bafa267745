"""Which of reasoning-gym's generators are offered, and which are not, and why. The names are those of 0.1.25."""

from __future__ import annotations

from palaestra.errors import ConfigError, UnknownNameError

DEFAULT = "chain_sum"
"""The level where none is named."""
PER_SPLIT = {"train": 10_000, "validation": 1_000, "test": 1_000}
"""Tasks of each split."""
_NAMES = """
    ab acre advanced_geometry aiw arc_1d arc_agi base_conversion basic_arithmetic bf binary_alternation
    binary_matrix bitwise_arithmetic boxnet caesar_cipher calendar_arithmetic chain_sum circuit_logic codeio
    color_cube_rotation complex_arithmetic count_bits count_primes countdown course_schedule cryptarithm
    decimal_arithmetic decimal_chain_sum dice emoji_mystery family_relationships figlet_font fraction_simplification
    futoshiki gcd graph_color group_anagrams gsm_symbolic intermediate_integration isomorphic_strings jugs kakurasu
    knight_swap knights_knaves largest_island lcm leg_counting letter_counting letter_jumble list_functions
    mahjong_puzzle manipulate_matrix maze mini_sudoku modulo_grid n_queens needle_haystack number_filtering
    number_format number_sequence number_sorting palindrome_generation palindrome_partitioning path_star
    polynomial_multiplication pool_matrix power_function prime_factorization products
    quantum_lock ransom_note rearc rectangle_count rotate_matrix rotten_oranges rubiks_cube
    rush_hour self_reference sentence_reordering shortest_path simple_equations simple_geometry simple_integration
    sokoban spell_backward spiral_matrix string_insertion string_manipulation string_splitting string_synthesis
    sudoku survo syllogism time_intervals tower_of_hanoi tsumego word_ladder word_sequence_reversal word_sorting
    zebra_puzzles
"""
OFFERED: tuple[str, ...] = tuple(_NAMES.split())
"""The levels."""
REFUSED: dict[str, str] = {
    "coin_flip": 'its scorer pays for equal first digits, so that "0" earns 0.7 to 1 whatever the question',
    "composite": "it mixes other generators; name one of them",
    "game_of_life": "its scorer counts cells, nearly all of which are dead, so that an empty grid earns 0.94",
    "game_of_life_halting": "its scorer pays 1 for any answer that is not empty",
    "polynomial_equations": 'its scorer pays by distance, so that "0" earns half of everything',
    "propositional_logic": 'any conclusion will do, and "(P ∨ Q)" follows in three questions of four',
    "puzzle24": "its scorer does not look which numbers were used, so that 4*6*1*1 solves every question",
}
"""Generators that pay for nonsense, and what is wrong with each; `palaestra.envs.reasoning.audit` finds them."""


def known(name: str) -> str:
    """`name`, if it is offered.

    Raises:
        ConfigError: it is refused; the message says why.
        UnknownNameError: there is no such generator.
    """
    if name in REFUSED:
        raise ConfigError(f"reasoning does not offer the generator {name}: {REFUSED[name]}")
    if name not in OFFERED:
        raise UnknownNameError("generator of reasoning", name, OFFERED)
    return name
