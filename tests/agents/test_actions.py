from __future__ import annotations

import pytest
from support.envs import COMMANDS
from support.tokens import RecordingTokenizer, tiny

from palaestra.agents.actions import FORMATS, ChoiceAction, MessageAction, TextAction
from palaestra.agents.chat import ChatFormat
from palaestra.errors import EnvError


@pytest.fixture
def chat() -> ChatFormat:
    return ChatFormat.from_tokenizer(tiny())


@pytest.mark.parametrize(
    ("text", "action"), [("look", "look"), ("  go to desk 1 \nand then", "go to desk 1"), ("\n\n look\n", "look")]
)
def test_text_is_the_first_line(chat: ChatFormat, text: str, action: str) -> None:
    parsed = TextAction().parse(chat, chat.completion(text), None)
    assert (parsed.text, parsed.error) == (action, "")
    assert TextAction().choices(chat, {}) is None


@pytest.mark.parametrize("text", ["", "  ", "\n"])
def test_empty_text_is_a_parse_error_as_data(chat: ChatFormat, text: str) -> None:
    parsed = TextAction().parse(chat, chat.completion(text), None)
    assert parsed.text == ""
    assert "empty" in parsed.error


def test_a_message_is_all_of_it(chat: ChatFormat) -> None:
    said = "go to desk 1\nand then look"
    assert MessageAction().parse(chat, chat.completion(f" {said}\n"), None).text == said
    assert "empty" in MessageAction().parse(chat, chat.completion("\n"), None).error
    assert isinstance(FORMATS["message"](), MessageAction)


def test_choices_are_exactly_the_commands(chat: ChatFormat) -> None:
    action = ChoiceAction()
    choices = action.choices(chat, {"admissible_commands": COMMANDS})
    assert choices.longest == max(len(ids) for ids in choices.commands)
    seen = []

    def walk(node: object, path: list[int]) -> None:
        allowed = choices.trie.allowed(node)
        if not allowed:
            assert path[-1] == chat.end_id
            seen.append(action.parse(chat, path, choices))
        for token in allowed:
            walk(choices.trie.child(node, token), [*path, token])

    walk(choices.trie.root, [])
    assert sorted(parsed.text for parsed in seen) == sorted(COMMANDS)
    assert not any(parsed.error for parsed in seen)


def test_an_unfinished_choice_is_a_parse_error_as_data(chat: ChatFormat) -> None:
    action = ChoiceAction()
    choices = action.choices(chat, {"admissible_commands": COMMANDS})
    parsed = action.parse(chat, chat.completion("look")[:-1], choices)
    assert parsed.text == "look"
    assert "none of the admissible" in parsed.error


def test_the_same_commands_are_encoded_and_built_once() -> None:
    tokenizer = RecordingTokenizer(tiny())
    chat, action = ChatFormat.from_tokenizer(tokenizer), ChoiceAction()
    tokenizer.encoded.clear()
    first = action.choices(chat, {"admissible_commands": list(COMMANDS)})
    assert action.choices(chat, {"admissible_commands": list(COMMANDS)}) is first
    action.choices(chat, {"admissible_commands": COMMANDS[:2]})
    assert sorted(tokenizer.encoded) == sorted(COMMANDS)


def test_commands_twice_are_one_choice(chat: ChatFormat) -> None:
    choices = ChoiceAction().choices(chat, {"admissible_commands": ["look", "look"]})
    assert list(choices.commands.values()) == ["look"]


@pytest.mark.parametrize("info", [{}, {"admissible_commands": []}])
def test_no_commands_is_the_environments_error(chat: ChatFormat, info: dict[str, object]) -> None:
    with pytest.raises(EnvError, match="admissible_commands"):
        ChoiceAction().choices(chat, info)
