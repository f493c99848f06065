"""What users of the `anthropic` SDK see, at the root and under `/anthropic`."""

import json

import anthropic
import httpx2
import pytest
from rig import wait_until

CLAUDE = "claude-haiku-4-5"
ASKING = [{"role": "user", "content": "Say something short."}]
WEATHER = {
    "name": "get_weather",
    "description": "The weather in a city",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
# The provider has to notice within a second that a client left; twice that is a busy machine.
CANCEL_SECONDS_MAX = 2

both_urls = pytest.mark.parametrize("path", ["", "/anthropic"], ids=["root", "prefix"])


def sim(**settings):
    """What the simulated provider is asked to do with this request."""
    return {f"x-sim-{name.replace('_', '-')}": str(value) for name, value in settings.items()}


def ask(client, model=CLAUDE, **options):
    """One plain question."""
    options = {"max_tokens": 100, **options}
    return client.messages.create(model=model, messages=ASKING, **options)


# === Answers ===


@both_urls
def test_messages_answer(claude, path):
    message = ask(claude(path))
    assert message.role == "assistant"
    assert message.content[0].text
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens > 0


def test_a_model_may_name_its_provider(claude):
    assert ask(claude(), f"anthropic/{CLAUDE}").content[0].text


@both_urls
def test_stream_yields_text_and_a_final_message(claude, path):
    settings = sim(events=6, prompt_tokens=21, completion_tokens=60)
    with claude(path).messages.stream(
        model=CLAUDE, max_tokens=100, messages=ASKING, extra_headers=settings
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) == 6
    assert final.content[0].text == "".join(pieces)
    assert (final.usage.input_tokens, final.usage.output_tokens) == (21, 60)
    assert final.stop_reason == "end_turn"


def test_tools_come_back_as_use(claude):
    message = ask(claude(), tools=[WEATHER], tool_choice={"type": "tool", "name": "get_weather"})
    uses = [block for block in message.content if block.type == "tool_use"]
    assert [use.name for use in uses] == ["get_weather"]
    assert isinstance(uses[0].input, dict)
    assert message.stop_reason == "tool_use"


def test_tools_are_streamed(claude):
    with claude().messages.stream(
        model=CLAUDE,
        max_tokens=100,
        messages=ASKING,
        tools=[WEATHER],
        tool_choice={"type": "tool", "name": "get_weather"},
    ) as stream:
        final = stream.get_final_message()
    assert [block.name for block in final.content if block.type == "tool_use"] == ["get_weather"]


# === Who may ask ===


@both_urls
def test_no_virtual_key_is_an_authentication_error(claude, path):
    with pytest.raises(anthropic.AuthenticationError) as caught:
        ask(claude(path, api_key="not-a-virtual-key"))
    assert caught.value.status_code == 401
    assert caught.value.body["type"] == "error"
    assert caught.value.body["error"]["type"] == "authentication_error"


@pytest.mark.parametrize("key", ["sk-bf-nobody-has-this", "sk-bf-inactive"])
def test_a_virtual_key_that_may_not_is_a_permission_error(claude, key):
    with pytest.raises(anthropic.PermissionDeniedError) as caught:
        ask(claude(api_key=key))
    assert caught.value.body["error"]["type"] == "permission_error"
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "credentials",
    [
        {"api_key": "sk-bf-open"},
        {"api_key": None, "auth_token": "sk-bf-open"},
        {"api_key": "what-the-client-sent", "default_headers": {"x-api-key": "sk-bf-open"}},
        {"api_key": "what-the-client-sent", "default_headers": {"x-bf-vk": "sk-bf-open"}},
    ],
    ids=["api_key", "auth_token", "x-api-key", "x-bf-vk"],
)
def test_upstream_sees_the_providers_key_and_never_the_clients(claude, recorder, credentials):
    ask(claude(**credentials), "recorder-claude/m")
    head = recorder.heads[-1]
    assert head["x-api-key"] == "provider-key-recorder-claude"
    assert head["anthropic-version"]
    sent = " ".join(f"{name}: {value}" for name, value in head.items())
    assert "authorization" not in head
    assert "sk-bf" not in sent
    assert "what-the-client-sent" not in sent


def test_the_provider_saw_no_key_but_its_own(claude, provider):
    ask(claude())
    keys = json.dumps(provider.stats()["keys"])
    assert "provider-key-anthropic" in keys
    assert "sk-bf" not in keys


# === Limits, clients that leave, providers that fail ===


def test_the_request_over_the_limit_is_a_rate_limit_error(claude):
    client = claude(api_key="sk-bf-two-requests-claude")
    ask(client)
    ask(client)
    with pytest.raises(anthropic.RateLimitError) as caught:
        ask(client)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 61
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert caught.value.body["error"]["type"] == "rate_limit_error"


def test_a_cancelled_stream_ends_upstream(claude, provider):
    cancelled = provider.stats()["cancelled"]
    settings = sim(events=1500, completion_tokens=1500, token_ms=20)
    with claude().messages.stream(
        model=CLAUDE, max_tokens=1500, messages=ASKING, extra_headers=settings
    ) as stream:
        assert next(iter(stream.text_stream))
    wait_until(
        lambda: provider.stats()["cancelled"] > cancelled,
        CANCEL_SECONDS_MAX,
        "the provider noticed that the client left",
    )


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (500, anthropic.InternalServerError),
        (503, anthropic.ServiceUnavailableError),
        (529, anthropic.OverloadedError),
    ],
)
def test_a_providers_fault_keeps_its_type(claude, status, error):
    with pytest.raises(error) as caught:
        ask(claude(), f"failing-claude/{CLAUDE}", extra_headers=sim(fault=status))
    assert caught.value.status_code == status


@pytest.mark.parametrize("fault", ["reset-mid-body=3", "close-mid-body=3"])
def test_a_stream_that_was_cut_does_not_end_as_if_it_were_whole(claude, fault):
    settings = sim(events=50, completion_tokens=50, fault=fault)
    stream = ask(claude(), f"cutting-claude/{CLAUDE}", stream=True, extra_headers=settings)
    # An error event is an APIError; a broken transfer this SDK passes on as its HTTP client's.
    with pytest.raises((anthropic.APIError, httpx2.HTTPError)):
        list(stream)


# === Requests that cannot be ===


def test_a_request_that_makes_no_sense_is_a_bad_request(claude):
    with pytest.raises(anthropic.BadRequestError) as caught:
        ask(claude(), extra_body={"model": 7})
    assert caught.value.body["error"]["type"] == "invalid_request_error"


def test_an_unknown_model_is_a_not_found_error(claude):
    with pytest.raises(anthropic.NotFoundError) as caught:
        ask(claude(), "anthropic/no-such-model")
    assert caught.value.body["error"]["type"] == "not_found_error"
