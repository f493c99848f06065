//! What the demo prints for its visitor to try. Pure.

use super::config::Ports;
use std::path::Path;

/// Lines for a shell, and the SDKs' one-liners, for nodes on these ports, whose logs are in
/// `folder`. The node that is to be killed is the last one of `processes`.
pub(super) fn text(ports: Ports, folder: &Path, processes: &[Option<u32>]) -> String {
    let last = processes.len().saturating_sub(1);
    let process =
        processes.last().copied().flatten().map_or_else(|| "PROCESS".to_owned(), |process| process.to_string());
    TEMPLATE
        .replace("@NODE@", &ports.node_address(0).to_string())
        .replace("@ADMIN@", &ports.admin_address(0).to_string())
        .replace("@OTHER@", &ports.node_address(1).to_string())
        .replace("@LAST_NUMBER@", &(last + 1).to_string())
        .replace("@LAST@", &ports.node_address(last).to_string())
        .replace("@PROCESS@", &process)
        .replace("@FOLDER@", &folder.display().to_string())
}

const TEMPLATE: &str = r#"Three nodes of one DeepIntShield cluster listen on http://@NODE@, http://@OTHER@ and
http://@LAST@, with a simulated provider behind them: no account, nothing leaves this machine. The
virtual key is sk-bf-demo: 60 requests and 5000 tokens a minute, on all nodes together.

  # a chat, the same as a stream, the same on another node
  curl http://@NODE@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' -H 'content-type: application/json' \
    -d '{"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'
  curl -N http://@NODE@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' -H 'content-type: application/json' \
    -d '{"model": "openai/gpt-4o-mini", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
  curl http://@OTHER@/v1/chat/completions -H 'authorization: Bearer sk-bf-demo' -H 'content-type: application/json' \
    -d '{"model": "openai/gpt-4o-mini", "messages": [{"role": "user", "content": "Hello"}]}'

  # Anthropic's dialect, the models, a node's metrics, the cluster as this node sees it
  curl http://@NODE@/anthropic/v1/messages -H 'x-api-key: sk-bf-demo' -H 'content-type: application/json' -H 'anthropic-version: 2023-06-01' \
    -d '{"model": "claude-sonnet-4-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}'
  curl http://@NODE@/v1/models -H 'authorization: Bearer sk-bf-demo'
  curl http://@ADMIN@/metrics
  curl http://@ADMIN@/cluster/status

  # kills node @LAST_NUMBER@: the others suspect it within two seconds, give it up after five, and welcome it back
  kill -9 @PROCESS@
  tail -f @FOLDER@/node-1.log

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
