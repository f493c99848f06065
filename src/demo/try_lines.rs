//! What the demo prints for its visitor to try. Pure.

use std::net::SocketAddr;

/// Lines for a shell, and the SDKs' one-liners, for a node at `node` with its metrics at `admin`.
pub(super) fn text(node: SocketAddr, admin: SocketAddr) -> String {
    TEMPLATE.replace("@NODE@", &node.to_string()).replace("@ADMIN@", &admin.to_string())
}

const TEMPLATE: &str = r#"DeepIntShield listens on http://@NODE@, with a simulated provider behind it: no account, nothing
leaves this machine. The virtual key is sk-bf-demo: 60 requests and 5000 tokens a minute.

  # a chat, and the same as a stream
  curl http://@NODE@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' -H 'content-type: application/json' \
    -d '{"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'
  curl -N http://@NODE@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' -H 'content-type: application/json' \
    -d '{"model": "openai/gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'

  # Anthropic's dialect, the models, the node's metrics
  curl http://@NODE@/anthropic/v1/messages -H 'x-api-key: sk-bf-demo' -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' \
    -d '{"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}'
  curl http://@NODE@/v1/models -H 'authorization: Bearer sk-bf-demo'
  curl http://@ADMIN@/metrics

  # meets the limit on tokens when run four times within a minute
  curl -i http://@NODE@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' -H 'content-type: application/json' \
    -d '{"model": "openai/gpt-4o", "max_tokens": 1500, "messages": [{"role": "user", "content": "At length"}], "metadata": {"sim": {"completion_tokens": 1500, "token_ms": 0}}}'

  # meets the limit on requests, or on tokens where the line above has spent them
  seq 80 | xargs -P 8 -I{} curl -s -o /dev/null -w '%{http_code}\n' http://@NODE@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' \
    -H 'content-type: application/json' -d '{"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'

  # SDKs as they are
  Python   OpenAI(base_url="http://@NODE@/v1", api_key="sk-bf-demo").chat.completions.create(model="openai/gpt-4o-mini", messages=[{"role": "user", "content": "Hello"}])
  Python   Anthropic(base_url="http://@NODE@/anthropic", api_key="sk-bf-demo").messages.create(model="claude-sonnet-4-5", max_tokens=50, messages=[{"role": "user", "content": "Hello"}])
  Node     await new OpenAI({ baseURL: "http://@NODE@/v1", apiKey: "sk-bf-demo" }).chat.completions.create({ model: "openai/gpt-4o-mini", messages: [{ role: "user", content: "Hello" }] })
"#;
