"""The games of TextArena 0.7.4: how many play, how a move is written, and which cannot be played here and why.

A move's grammar is a set of templates: `[play {1-3}]` is `[play 1]`, `[play 2]` or `[play 3]`; `{a-e}` a letter,
`{x|y}` a word. It may allow more than the rules do, because the game itself refuses what is not legal.
"""

from __future__ import annotations

import msgspec

from palaestra.errors import EnvError, UnknownNameError


class Game(msgspec.Struct, frozen=True):
    """One of the package's games, in all its variants."""

    ids: tuple[str, ...]
    """The package's ids, which are the suite's levels."""
    players: int = 1
    moves: tuple[str, ...] = ()
    """Templates; empty where no simple grammar covers it."""
    listed: bool = False
    """The game lists the legal moves at every turn."""


def _game(ids: str, players: int = 1, moves: str = "", *, listed: bool = False) -> Game:
    return Game(tuple(ids.split()), players, tuple(moves.split("; ")) if moves else (), listed)


_DIRECTIONS = "[{up|down|left|right}]"
_CARD_RANKS = "{A|2|3|4|5|6|7|8|9|10|J|Q|K}"

_PLAYED = {
    "Alquerque": _game("Alquerque-v0", 2, "[{a-e}{1-5} {a-e}{1-5}]"),
    "Bandit": _game("Bandit-v0 Bandit-v0-hard", 1, "[{red|blue|green|yellow|purple|orange|pink|brown|gray|black}]"),
    "Battleship": _game(
        "Battleship-v0 Battleship-v0-standard Battleship-v0-large Battleship-v0-extreme", 2, "[{A-T}{0-19}]"
    ),
    "Blackjack": _game("Blackjack-v0 Blackjack-v0-long", 1, "[{Hit|Stand}]"),
    "Breakthrough": _game(
        "Breakthrough-v0-tiny Breakthrough-v0-small Breakthrough-v0 Breakthrough-v0-large Breakthrough-v0-blind "
        "Breakthrough-v0-long",
        2,
        "[{a-j}{1-10}{a-j}{1-10}]",
    ),
    "Briscola": _game("Briscola-v0", 2, "[play {1-3}]"),
    "Chopsticks": _game(
        "Chopsticks-v0 Chopsticks-v0-medium Chopsticks-v0-long", 2, "[attack {0-1} {0-1}]; [split {0-4} {0-4}]"
    ),
    "ConnectFour": _game("ConnectFour-v0 ConnectFour-v0-blind ConnectFour-v0-large", 2, "[col {0-11}]"),
    "Countdown": _game("Countdown-v0", 1, "[{0-5} {0-5} {+|-|*|/}]"),
    "Crosswords": _game("Crosswords-v0 Crosswords-v0-hardcore", 1, "[{0-20} {0-20} {A-Z}]"),
    "Crusade": _game("Crusade-v0", 2, "[{a-h}{1-8} {a-h}{1-8}]", listed=True),
    "Cryptarithm": _game("Cryptarithm-v0", 1, "[{S|E|N|D|M|O|R|Y} {0-9}]"),
    "FifteenPuzzle": _game("FifteenPuzzle-v0", 1, _DIRECTIONS),
    "FrozenLake": _game("FrozenLake-v0 FrozenLake-v0-random FrozenLake-v0-hardcore", 1, _DIRECTIONS),
    "Game2048": _game(
        "2048-v0-ultra-easy 2048-v0-mega-easy 2048-v0-super-easy 2048-v0-very-easy 2048-v0-easy 2048-v0 2048-v0-hard "
        "2048-v0-very-hard 2048-v0-extreme 2048-v0-3x3 2048-v0-5x5 2048-v0-6x6 2048-v0-8x8 2048-v0-10x10",
        1,
        "[{Up|Down|Left|Right}]",
    ),
    "GameOfPureStrategy": _game("GameOfPureStrategy-v0", 2, f"[{_CARD_RANKS}]", listed=True),
    "GermanWhist": _game("GermanWhist-v0", 2, "[play {1-13}]"),
    "Golf": _game("Golf-v0 Golf-v0-medium", 2, "[{draw|take|discard}]; [swap {1-3} {1-3}]; [peek {1-3} {1-3}]"),
    "GuessTheNumber": _game("GuessTheNumber-v0 GuessTheNumber-v0-hardcore", 1, "[{1-50}]"),
    "HighSociety": _game("HighSociety-v0", 2, "[{1-11}]"),
    "IndianPoker": _game(
        "IndianPoker-v0-short IndianPoker-v0 IndianPoker-v0-medium IndianPoker-v0-long IndianPoker-v0-extreme",
        2,
        "[{check|call|fold}]; [{bet|raise} {1-20}]",
    ),
    "IteratedMatchingPennies": _game("IteratedMatchingPennies-v0", 2, "[{heads|tails}]"),
    "IteratedPrisonersDilemma": _game("IteratedPrisonersDilemma-v0", 2, "[{Cooperate|Defect}]"),
    "IteratedRockPaperScissors": _game("IteratedRockPaperScissors-v0", 2, "[{rock|paper|scissors}]"),
    "IteratedTwoThirdsAverage": _game("IteratedTwoThirdsAverage-v0", 2, "[{0-100}]"),
    "IteratedUltimatumGame": _game(
        "IteratedUltimatumGame-v0 IteratedUltimatumGame-v0-alternate", 2, "[{Accept|Reject}]; [Offer: ${0-50}]"
    ),
    "KuhnPoker": _game(
        "KuhnPoker-v0 KuhnPoker-v0-short KuhnPoker-v0-medium KuhnPoker-v0-long KuhnPoker-v0-extreme",
        2,
        "[{check|bet|call|fold}]",
        listed=True,
    ),
    "LiarsDice": _game("LiarsDice-v0-small LiarsDice-v0 LiarsDice-v0-large", 2, "[Call]; [Bid: {1-24}, {1-6}]"),
    "LightsOut": _game("LightsOut-v0", 1, "[{0-4} {0-4}]"),
    "LinesOfAction": _game("LinesOfAction-v0", 2, "[{a-h}{1-8}{a-h}{1-8}]"),
    "LogicPuzzle": _game("LogicPuzzle-v0 LogicPuzzle-v0-hard"),
    "Mastermind": _game("Mastermind-v0 Mastermind-v0-hard Mastermind-v0-extreme", 1, "[{1-6} {1-6} {1-6} {1-6}]"),
    "MemoryGame": _game("MemoryGame-v0 MemoryGame-v0-medium MemoryGame-v0-hard", 2, "[{0-7} {0-7} {0-7} {0-7}]"),
    "Minesweeper": _game(
        "Minesweeper-v0 Minesweeper-v0-small Minesweeper-v0-medium Minesweeper-v0-hard", 1, "[{0-11} {0-11}]"
    ),
    "Nim": _game("Nim-v0 Nim-v0-medium Nim-v0-large", 2, "[{0-6} {1-12}]"),
    "Othello": _game(
        "Othello-v0-tiny Othello-v0-small Othello-v0 Othello-v0-big Othello-v0-huge Othello-v0-hard",
        2,
        "[{0-13}, {0-13}]",
        listed=True,
    ),
    "PegJump": _game("PegJump-v0", 1, "[{1-15} {1-15}]"),
    "PigDice": _game(
        "PigDice-v0 PigDice-v0-short PigDice-v0-long PigDice-v0-50 PigDice-v0-100 PigDice-v0-150 PigDice-v0-200 "
        "PigDice-v0-250 PigDice-v0-300 PigDice-v0-350 PigDice-v0-400 PigDice-v0-450 PigDice-v0-500",
        2,
        "[{roll|hold}]",
        listed=True,
    ),
    "Poker": _game(
        "Poker-v0-small Poker-v0 Poker-v0-long Poker-v0-extreme", 2, "[{Check|Call|Fold}]; [{Bet|Raise} {1-100}]"
    ),
    "QuantumTicTacToe": _game("QuantumTicTacToe-v0", 2, "[{0-8},{0-8}]"),
    "RushHour": _game("RushHour-v0", 1, "[{A-Z}{+|-}]"),
    "Santorini": _game("SantoriniBaseFixed-v0", 2, "[{N|W}{1-2}{A-E}{1-5}{A-E}{1-5}{A-E}{1-5}]"),
    "Secretary": _game("Secretary-v0 Secretary-v0-long", 1, "[{accept|continue}]"),
    "Set": _game("Set-v0", 1, "[{0-14}, {0-14}, {0-14}]"),
    "SimpleTak": _game(
        "SimpleTak-v0 SimpleTak-v0-medium SimpleTak-v0-large SimpleTak-v0-extreme", 2, "[{0-63}]", listed=True
    ),
    "Slitherlink": _game("Slitherlink-v0", 1, "[{h|v} {0-4} {0-4}]"),
    "Snake": _game("Snake-v0 Snake-v0-standard Snake-v0-large", 2, _DIRECTIONS),
    "Sokoban": _game("Sokoban-v0", 1, _DIRECTIONS),
    "SpiteAndMalice": _game("SpiteAndMalice-v0", 2, f"[draw]; [{{play|discard}} {_CARD_RANKS}{{♠|♥|♦|♣}} {{0-3}}]"),
    "Stratego": _game("Stratego-v0", 2, "[{A-J}{0-9} {A-J}{0-9}]"),
    "Sudoku": _game(
        "Sudoku-v0-very-easy Sudoku-v0-easy Sudoku-v0 Sudoku-v0-medium Sudoku-v0-hard", 1, "[{1-9} {1-9} {1-9}]"
    ),
    "Surround": _game("Surround-v0 Surround-v0-standard Surround-v0-large", 2, _DIRECTIONS),
    "ThreeCardMonte": _game("ThreeCardMonte-v0", 1, "[{0-2}]"),
    "ThreePlayerGOPS": _game("ThreePlayerGOPS-v0", 3, f"[{_CARD_RANKS}]", listed=True),
    "ThreePlayerTicTacToe": _game("ThreePlayerTicTacToe-v0", 3, "[{0-24}]", listed=True),
    "TicTacToe": _game("TicTacToe-v0", 2, "[{0-8}]", listed=True),
    "TowerOfHanoi": _game(
        "TowerOfHanoi-v0 TowerOfHanoi-v0-medium TowerOfHanoi-v0-hard TowerOfHanoi-v0-hardcore TowerOfHanoi-v0-extreme",
        1,
        "[{A-C} {A-C}]",
    ),
    "UltimateTicTacToe": _game("UltimateTicTacToe-v0", 2, "[{0-8} {0-8}]"),
    "WildTicTacToe": _game("WildTicTacToe-v0", 2, "[{X|O} {0-8}]", listed=True),
}

LANGUAGE = "its players talk to each other, and no scripted player can"
NLTK = "it downloads NLTK's word lists while it is imported"
JURY = "a language model behind an API judges or answers in it"
NEWER = "its code needs Python 3.12, on which nobody has tried it here"
ABSENT = "its files are not in the package"
"""Why games cannot be played."""


def _refused(reason: str, ids: str) -> dict[str, str]:
    return dict.fromkeys(ids.split(), reason)


REFUSED: dict[str, str] = {
    **_refused(
        LANGUAGE,
        "CharacterConclave-v0 CharacterConclave-v0-long CharacterConclave-v0-extreme MarketEntryGame-v0 "
        "NewRecruit-v0 PublicGoodsGame-v0 SecretMafia-v0 SimpleBlindAuction-v0-quick SimpleBlindAuction-v0 "
        "SimpleBlindAuction-v0-rich SimpleNegotiation-v0-short SimpleNegotiation-v0 SimpleNegotiation-v0-long "
        "ThreePlayerIPD-v0 TwoDollar-v0 TruthAndDeception-v0 TruthAndDeception-v0-long "
        "TruthAndDeception-v0-extreme SettlersOfCatan-v0 Taboo-v0 Taboo-v0-animals Taboo-v0-cars "
        "Taboo-v0-city/country Taboo-v0-food Taboo-v0-literature Taboo-v0-people Taboo-v0-tv Taboo-v0-long "
        "Taboo-v0-full",
    ),
    **_refused(
        NLTK,
        "Codenames-v0 Codenames-v0-hardcore DontSayIt-v0 DontSayIt-v0-hardcore DontSayIt-v0-unlimited Hangman-v0 "
        "Hangman-v0-hardcore LetterAuction-v0 LetterAuction-v0-medium LetterAuction-v0-hard SpellingBee-v0-small "
        "SpellingBee-v0 SpellingBee-v0-large WordChains-v0 WordLadder-v0 WordLadder-v0-medium WordLadder-v0-hard "
        "WordSearch-v0 WordSearch-v0-hardcore Wordle-v0 Wordle-v0-hardcore Wordle-v0-long Wordle-v0-long-hardcore",
    ),
    **_refused(
        JURY,
        "Debate-v0 Debate-v0-medium Debate-v0-long GuessWho-v0 ScenarioPlanning-v0 TwentyQuestions-v0 "
        "TwentyQuestions-v0-hardcore",
    ),
    **_refused(
        NEWER,
        "Checkers-v0 Checkers-v0-long Chess-v0 Chess-v0-long Chess-v0-blind IteratedStagHunt-v0 "
        "IteratedStagHunt-v0-randomized Klondike-v0 ReverseTicTacToe-v0 UltimateTexasHoldem-v0",
    ),
    **_refused(
        ABSENT,
        "BabyAiText-v0 ScorableGames-v0 ScorableGames-v0-conservative ScorableGames-v0-game1 ScorableGames-v0-game2 "
        "ScorableGames-v0-game3 ScorableGames-v0-7players ScorableGames-v0-medicalethics "
        "ScorableGames-v0-vendorretailer UsedCar-v0-balanced UsedCarNegotiation-v0 UsedCarNegotiation-v0-strong-buyer "
        "UsedCarNegotiation-v0-strong-seller",
    ),
    **_refused("it takes a minute to begin", "Sokoban-v0-medium"),
    **_refused("it fails when somebody wins", "Tak-v0 Tak-v0-medium Tak-v0-hard"),
    **_refused(
        "no scripted player can divide its units",
        "ColonelBlotto-v0-small ColonelBlotto-v0 ColonelBlotto-v0-large ColonelBlotto-v0-extreme",
    ),
}
"""The package's other ids, and why each cannot be played."""

GAMES: dict[str, Game] = {id: game for game in _PLAYED.values() for id in game.ids}
"""By id, every game that can be played."""


def known_game(id: str) -> Game:
    """The game `id`.

    Raises:
        EnvError: it cannot be played here; the message says why.
        UnknownNameError: the package has no such game.
    """
    if id in REFUSED:
        raise EnvError(f"textarena's {id} cannot be played: {REFUSED[id]}")
    if id not in GAMES:
        raise UnknownNameError("game of textarena", id, GAMES)
    return GAMES[id]
