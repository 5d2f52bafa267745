from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tokens import RecordingTokenizer, chatml, llama2, make_tokenizer, tiny

from palaestra.agents.chat import ChatFormat, probe_template
from palaestra.errors import ConfigError

FORMATS = {"tiny": tiny, "chatml": chatml, "llama2": llama2}


def conversation(chat: ChatFormat, system: str | None, turns: list[tuple[str, str]], last: str) -> list[int]:
    """A conversation as an agent builds it, with completions as a model would write them."""
    ids = chat.system(system)
    for observation, action in turns:
        sampled = chat.completion(action)
        ids += [*chat.user(observation), *chat.generation, *sampled, *chat.close_completion(sampled)]
    return [*ids, *chat.user(last), *chat.generation]


@pytest.mark.parametrize("name", ["tiny", "chatml"])
@pytest.mark.parametrize("system", [None, "Be brief."])
def test_same_ids_as_the_template(name: str, system: str | None) -> None:
    tokenizer = FORMATS[name]()
    chat = ChatFormat.from_tokenizer(tokenizer)
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": "user", "content": "You see desk 3."},
        {"role": "assistant", "content": "go to desk 1"},
        {"role": "user", "content": "you did look."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = conversation(chat, system, [("You see desk 3.", "go to desk 1")], "you did look.")
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert ids == tokenizer.encode(text, add_special_tokens=False)


def test_pieces_of_the_tiny_template() -> None:
    pieces = probe_template(tiny())
    assert (pieces.begin, pieces.user_open, pieces.user_close) == ("", "<|user|>", "")
    assert (pieces.generation, pieces.assistant_close) == ("<|assistant|>", "<|end|>")
    assert (pieces.system_open, pieces.system_close) == ("<|system|>", "")


def test_pieces_of_chatml_with_a_default_system_message() -> None:
    pieces = probe_template(chatml())
    assert pieces.begin == "<|im_start|>system\nYou are helpful.<|im_end|>\n"
    assert pieces.user_close == pieces.system_close == pieces.assistant_close == "<|im_end|>\n"
    assert pieces.generation == "<|im_start|>assistant\n"
    assert pieces.system_open == "<|im_start|>system\n"


def test_template_without_generation_prompt_or_system_messages() -> None:
    chat = ChatFormat.from_tokenizer(llama2())
    assert chat.pieces.generation == " "
    assert chat.pieces.user_close == " [/INST]"
    with pytest.raises(ConfigError, match="no system messages"):
        chat.system("Be brief.")
    text = chat.tokenizer.decode(
        conversation(chat, None, [("a", "b")], "c"), skip_special_tokens=False, clean_up_tokenization_spaces=False
    )
    assert text == "<s>[INST] a [/INST] b</s><s>[INST] c [/INST] "


@pytest.mark.parametrize("name", FORMATS)
def test_closing_a_completion(name: str) -> None:
    chat = ChatFormat.from_tokenizer(FORMATS[name]())
    sampled = chat.completion("look")
    after = chat.close_completion(sampled)
    assert chat.end_id not in after
    cut_off = sampled[:-1]
    assert chat.end_id in chat.close_completion(cut_off)
    assert chat.end_id in chat.close_completion([])
    assert chat.decode(sampled) == chat.decode(cut_off) == "look"


def test_what_stands_behind_the_end_token_is_appended() -> None:
    chat = ChatFormat.from_tokenizer(chatml())
    newline = chat.tokenizer.encode("\n", add_special_tokens=False, split_special_tokens=True)
    assert chat.close_completion(chat.completion("look")) == newline
    assert chat.close_completion([100, 101]) == [chat.end_id, *newline]


def test_another_end_of_text_stops_too() -> None:
    chat = ChatFormat.from_tokenizer(make_tokenizer(tiny().chat_template, "</s>"))
    eos = chat.tokenizer.eos_token_id
    assert chat.stop_ids == (chat.end_id, eos)
    assert chat.close_completion([5, eos]) == [chat.end_id]


@pytest.mark.parametrize("name", FORMATS)
@given(text=st.text(max_size=30), at=st.integers(0, 30))
@settings(max_examples=20, deadline=None)
def test_untrusted_text_never_becomes_a_special_token(name: str, text: str, at: int) -> None:
    tokenizer = FORMATS[name]()
    chat = ChatFormat.from_tokenizer(tokenizer)
    special = set(tokenizer.all_special_ids)
    empty = [i for i in chat.user("") if i in special]
    for token in tokenizer.all_special_tokens:
        hostile = text[:at] + token + text[at:]
        assert [i for i in chat.user(hostile) if i in special] == empty
        assert not special & set(chat.completion(hostile)[:-1])
        assert chat.decode(chat.completion(hostile)) == hostile


def test_a_tokenizer_that_cannot_split_special_tokens_is_refused() -> None:
    class Trusting(RecordingTokenizer):
        def encode(self, text: str, *, add_special_tokens: bool, split_special_tokens: bool) -> list[int]:
            return self.inner.encode(text, add_special_tokens=add_special_tokens)

    with pytest.raises(ConfigError, match="without making a special token"):
        ChatFormat.from_tokenizer(Trusting(tiny()))


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "taken apart"),
        ("{{ messages[-1]['content'] }}", "taken apart"),
        ("{% for m in messages %}{{ m['content'] + m['content'] }}{% endfor %}", "taken apart"),
        (
            "{% for m in messages %}<|{{ m['role'] }}|>{{ loop.index }}{{ m['content'] }}<|end|>{% endfor %}",
            "first user message",
        ),
        (
            "{% for m in messages %}<|user|>{{ m['content'] }}{% if loop.last %}<|end|>{% endif %}{% endfor %}",
            "closes the assistant",
        ),
        ("{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}", "no special token"),
        ("{{ raise_exception('not today') }}", "not today"),
    ],
)
def test_templates_that_cannot_be_taken_apart(template: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        ChatFormat.from_tokenizer(make_tokenizer(template, "<|end|>"))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_a_template() -> None:
    with pytest.raises(ConfigError, match="chat template"):
        ChatFormat.from_tokenizer(make_tokenizer("", "<|end|>"))


def test_repeated_texts_are_encoded_once_and_the_cache_is_bounded() -> None:
    tokenizer = RecordingTokenizer(tiny())
    chat = ChatFormat.from_tokenizer(tokenizer, cache_size=2)
    tokenizer.encoded.clear()
    first = chat.user("look")
    first.append(0)
    assert chat.user("look") == first[:-1], "a caller's list is not the cache's"
    assert tokenizer.encoded == ["look"]
    for text in ("a", "b", "look"):
        chat.user(text)
    assert tokenizer.encoded == ["look", "a", "b", "look"]
