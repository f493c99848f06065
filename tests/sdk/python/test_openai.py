"""What users of the `openai` SDK see: answers, streams, and the exception that each fault raises."""

import json

import httpx2
import openai
import pytest
from rig import wait_until

CHAT = "openai/gpt-4o-mini"
EMBEDDING = "openai/text-embedding-3-small"
ASKING = [{"role": "user", "content": "Say something short."}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# The provider has to notice within a second that a client left; twice that is a busy machine.
CANCEL_SECONDS_MAX = 2


def chat(client, model=CHAT, **options):
    """One plain question."""
    return client.chat.completions.create(model=model, messages=ASKING, **options)


def sim(**settings):
    """What the simulated provider is asked to do with this request."""
    return {f"x-sim-{name.replace('_', '-')}": str(value) for name, value in settings.items()}


# === Answers ===


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v1", CHAT), ("/v1", "gpt-4o-mini"), ("/openai/v1", "gpt-4o-mini"), ("/openai", "gpt-4o-mini")],
)
def test_chat_answers_under_every_base_url(open_ai, path, model):
    answer = chat(open_ai(path), model)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_answers_say_who_answered(open_ai):
    raw = open_ai().chat.completions.with_raw_response.create(model=CHAT, messages=ASKING)
    assert raw.headers["x-bifrost-provider"] == "openai"
    assert raw.headers["x-bifrost-resolved-model"] == "gpt-4o-mini"
    assert raw.headers["x-request-id"]
    assert raw.parse().choices


@pytest.mark.parametrize("path", ["/v1", "/openai/v1"])
def test_stream_arrives_in_pieces_and_ends(open_ai, path):
    model = "gpt-4o-mini"
    pieces = list(chat(open_ai(path), model, stream=True, extra_headers=sim(events=7, completion_tokens=70)))
    texts = [piece.choices[0].delta.content for piece in pieces if piece.choices and piece.choices[0].delta.content]
    assert len(texts) == 7
    assert [piece.choices[0].finish_reason for piece in pieces if piece.choices][-1] == "stop"


def test_stream_has_no_usage_that_was_not_asked_for(open_ai):
    pieces = list(chat(open_ai(), stream=True, extra_headers=sim(events=3)))
    assert all(piece.usage is None and piece.choices for piece in pieces)


def test_stream_ends_with_usage_when_it_is_asked_for(open_ai):
    options = {"stream": True, "stream_options": {"include_usage": True}}
    pieces = list(chat(open_ai(), **options, extra_headers=sim(prompt_tokens=11, completion_tokens=12)))
    usages = [piece.usage for piece in pieces if piece.usage]
    assert [(usage.prompt_tokens, usage.completion_tokens) for usage in usages] == [(11, 12)]


def test_stream_survives_any_cut_between_packets(open_ai):
    whole = list(chat(open_ai(), stream=True, extra_headers=sim(events=5, seed=3)))
    cut = list(chat(open_ai(), stream=True, extra_headers=sim(events=5, seed=3, fault="split=7")))
    assert [p.choices[0].delta.content for p in cut] == [p.choices[0].delta.content for p in whole]


def test_embeddings_have_one_vector_for_each_text(open_ai):
    answer = open_ai().embeddings.create(model=EMBEDDING, input=["one", "two", "three"])
    assert [row.index for row in answer.data] == [0, 1, 2]
    assert all(row.embedding and isinstance(row.embedding[0], float) for row in answer.data)
    assert answer.usage.prompt_tokens > 0


@pytest.mark.parametrize("path", ["/v1", "/openai/v1"])
def test_models_are_those_of_the_configuration(open_ai, path):
    names = {model.id.rpartition("/")[2] for model in open_ai(path).models.list()}
    assert {"gpt-4o-mini", "text-embedding-3-small"} <= names


def test_a_key_for_one_provider_sees_only_its_models(open_ai):
    names = [model.id for model in open_ai(api_key="sk-bf-anthropic-only").models.list()]
    assert names
    assert not [name for name in names if "gpt" in name]


def test_tool_calls_come_back_as_calls(open_ai):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    answer = chat(open_ai(), tools=[WEATHER], tool_choice=choice)
    (call,) = answer.choices[0].message.tool_calls
    assert call.function.name == "get_weather"
    assert isinstance(json.loads(call.function.arguments), dict)


def test_tool_calls_are_streamed(open_ai):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    names, arguments = [], ""
    for piece in chat(open_ai(), tools=[WEATHER], tool_choice=choice, stream=True):
        for call in (piece.choices[0].delta.tool_calls or []) if piece.choices else []:
            names += [call.function.name] if call.function.name else []
            arguments += call.function.arguments or ""
    assert names == ["get_weather"]
    assert isinstance(json.loads(arguments), dict)


# === Who may ask ===


def test_no_virtual_key_is_an_authentication_error(open_ai):
    with pytest.raises(openai.AuthenticationError) as caught:
        chat(open_ai(api_key="not-a-virtual-key"))
    assert caught.value.status_code == 401
    assert caught.value.body["message"]
    assert caught.value.type


@pytest.mark.parametrize("key", ["sk-bf-nobody-has-this", "sk-bf-inactive", "sk-bf-anthropic-only"])
def test_a_virtual_key_that_may_not_is_a_permission_error(open_ai, key):
    with pytest.raises(openai.PermissionDeniedError) as caught:
        chat(open_ai(api_key=key))
    assert caught.value.status_code == 403
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-bf-vk": "sk-bf-open"}, {"x-api-key": "sk-bf-open"}, {"x-goog-api-key": "sk-bf-open"}],
    ids=["authorization", "x-bf-vk", "x-api-key", "x-goog-api-key"],
)
def test_upstream_sees_the_providers_key_and_never_the_clients(open_ai, recorder, headers):
    client = open_ai(api_key="what-the-client-sent" if headers else "sk-bf-open", default_headers=headers)
    chat(client, "recorder/m")
    head = recorder.heads[-1]
    assert head["authorization"] == "Bearer provider-key-recorder"
    sent = " ".join(f"{name}: {value}" for name, value in head.items())
    assert "sk-bf" not in sent
    assert "what-the-client-sent" not in sent
    assert not [name for name in head if name.startswith("x-bf-")]


def test_the_provider_saw_no_key_but_its_own(open_ai, provider):
    chat(open_ai())
    keys = json.dumps(provider.stats()["keys"])
    assert "provider-key-openai" in keys
    assert "sk-bf" not in keys


# === Limits ===


def test_the_request_over_the_limit_is_a_rate_limit_error(open_ai):
    client = open_ai(api_key="sk-bf-two-requests")
    left = [
        client.chat.completions.with_raw_response.create(model=CHAT, messages=ASKING).headers
        for _ in range(2)
    ]
    assert [head["x-ratelimit-limit-requests"] for head in left] == ["2", "2"]
    assert [head["x-ratelimit-remaining-requests"] for head in left] == ["1", "0"]
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client)
    head = caught.value.response.headers
    assert 1 <= int(head["retry-after"]) <= 61
    assert head["x-ratelimit-limit-requests"] == "2"
    assert head["x-ratelimit-remaining-requests"] == "0"
    assert head["x-ratelimit-reset-requests"]
    assert {caught.value.type, caught.value.code} & {"rate_limited", "request_limited"}


def test_tokens_over_the_limit_are_a_rate_limit_error(open_ai):
    client = open_ai(api_key="sk-bf-thousand-tokens")
    chat(client, max_tokens=700, extra_headers=sim(completion_tokens=700))
    with pytest.raises(openai.RateLimitError) as caught:
        chat(client, max_tokens=700)
    head = caught.value.response.headers
    assert 1 <= int(head["retry-after"]) <= 61
    assert head["x-ratelimit-limit-tokens"] == "1000"
    assert int(head["x-ratelimit-remaining-tokens"]) < 700
    assert {caught.value.type, caught.value.code} & {"rate_limited", "token_limited"}


def test_a_providers_own_limit_is_a_rate_limit_error(open_ai):
    with pytest.raises(openai.RateLimitError) as caught:
        chat(open_ai(), "busy/gpt-4o-mini", extra_headers=sim(fault="429=7"))
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 7


# === A client that leaves ===


def test_a_cancelled_stream_ends_upstream(open_ai, provider):
    cancelled = provider.stats()["cancelled"]
    # Half a minute of stream: it cannot have ended by itself.
    stream = chat(open_ai(), stream=True, extra_headers=sim(events=1500, completion_tokens=1500, token_ms=20))
    assert next(iter(stream))
    stream.close()
    wait_until(
        lambda: provider.stats()["cancelled"] > cancelled,
        CANCEL_SECONDS_MAX,
        "the provider noticed that the client left",
    )


# === A provider that fails ===


@pytest.mark.parametrize("status", [500, 503])
def test_a_providers_fault_is_an_internal_server_error(open_ai, status):
    with pytest.raises(openai.InternalServerError) as caught:
        chat(open_ai(), "failing/gpt-4o-mini", extra_headers=sim(fault=status))
    assert caught.value.status_code == status


def test_a_reset_connection_is_a_502_that_says_so(open_ai):
    with pytest.raises(openai.InternalServerError) as caught:
        chat(open_ai(), "resetting/gpt-4o-mini", extra_headers=sim(fault="reset-before-head"))
    assert caught.value.status_code == 502
    assert caught.value.body["message"]
    assert caught.value.code


def test_a_provider_that_is_not_there_is_a_502(open_ai):
    with pytest.raises(openai.InternalServerError) as caught:
        chat(open_ai(), "absent/gpt-4o-mini")
    assert caught.value.status_code == 502


def test_a_silent_provider_is_a_504(open_ai):
    with pytest.raises(openai.InternalServerError) as caught:
        chat(open_ai(), "silent/gpt-4o-mini", extra_headers=sim(fault="stall=15"))
    assert caught.value.status_code == 504


@pytest.mark.parametrize("fault", ["reset-mid-body=3", "close-mid-body=3"])
def test_a_stream_that_was_cut_does_not_end_as_if_it_were_whole(open_ai, fault):
    stream = chat(
        open_ai(), "cutting/gpt-4o-mini", stream=True, extra_headers=sim(events=50, completion_tokens=50, fault=fault)
    )
    with pytest.raises(openai.APIError):
        list(stream)


def test_an_answer_that_was_cut_is_an_error(open_ai):
    with pytest.raises((openai.APIError, httpx2.HTTPError)):
        chat(open_ai(), "cutting/gpt-4o-mini", extra_headers=sim(completion_tokens=500, fault="reset-mid-body=100"))


# === Requests that cannot be ===


def test_a_request_without_a_usable_model_is_a_bad_request(open_ai):
    for model in (7, None, ""):
        with pytest.raises(openai.BadRequestError) as caught:
            chat(open_ai(), extra_body={"model": model})
        assert caught.value.status_code == 400
        assert caught.value.type


def test_a_request_that_the_provider_refuses_is_a_bad_request(open_ai):
    with pytest.raises(openai.BadRequestError):
        chat(open_ai(), extra_body={"messages": None})


def test_a_body_that_is_not_json_is_a_bad_request_in_the_dialects_shape(node):
    answer = httpx2.post(
        f"{node.url}/v1/chat/completions",
        headers={"authorization": "Bearer sk-bf-open", "content-type": "application/json"},
        content=b'{"model": "openai/gpt-4o-mini", "messages": [',
    )
    assert answer.status_code == 400
    assert set(answer.json()["error"]) >= {"message", "type", "code", "param"}


@pytest.mark.parametrize("model", ["openai/no-such-model", "no-such-provider/gpt-4o-mini", "no-such-model"])
def test_an_unknown_model_is_a_not_found_error(open_ai, model):
    with pytest.raises(openai.NotFoundError) as caught:
        chat(open_ai(), model)
    assert caught.value.status_code == 404
    assert caught.value.body["message"]
