//! How large a configuration is, and which requests reach all over it. Pure.

use std::{net::SocketAddr, path::Path};

use serde_json::{Value, json};

use crate::target::{Header, Target, TargetError, chat_body};

/// Length of a chat request's body.
const BODY_BYTES: usize = 1024;
/// More than any run of these tools has; limits are counted and never bite.
const REQUESTS_A_MINUTE: u64 = 100_000_000;
const TOKENS_A_MINUTE: u64 = 1_000_000_000_000;

/// More than a node has descriptors for: what is measured is not to wait for a connection.
const PROVIDER_CONNECTIONS_MAX: u32 = 10_000;

/// Sizes of a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Providers, all of them the simulated one.
    pub(crate) providers: usize,
    /// Keys of each provider.
    pub(crate) keys: usize,
    /// Virtual keys.
    pub(crate) virtual_keys: usize,
    /// Limits, each on requests and on tokens; the first virtual keys have one each.
    pub(crate) limits: usize,
    /// Cores that serve.
    pub(crate) cores: usize,
}

impl Default for Shape {
    /// What `perf request-cost` measures: one of each.
    fn default() -> Self {
        Self { providers: 1, keys: 1, virtual_keys: 1, limits: 1, cores: 1 }
    }
}

/// Where a node of this shape is to listen, and what is behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sockets {
    /// The simulated provider.
    pub(crate) provider: SocketAddr,
    /// The node's clients.
    pub(crate) listen: SocketAddr,
    /// The node's admin listener, on the same host.
    pub(crate) admin_port: u16,
}

impl Shape {
    /// The node's configuration file.
    pub(crate) fn config(&self, sockets: Sockets, state: &Path) -> Value {
        let keys: Vec<Value> = (0..self.keys)
            .map(|key| json!({"name": format!("k{key}"), "value": "sk-load-upstream", "models": ["*"], "weight": 1}))
            .collect();
        let provider = json!({
            "custom_provider_config": {"base_provider_type": "openai"},
            "keys": keys,
            "network_config": {
                "base_url": format!("http://{}", sockets.provider),
                "allow_private_network": true,
                "max_conns_per_host": PROVIDER_CONNECTIONS_MAX,
            },
        });
        let providers: serde_json::Map<String, Value> =
            (0..self.providers).map(|at| (format!("p{at}"), provider.clone())).collect();
        let virtual_keys: Vec<Value> = (0..self.virtual_keys)
            .map(|at| {
                let id = format!("vk{at}");
                // A single one may use all providers, many have one each.
                let reached = match self.virtual_keys {
                    1 => 0..self.providers,
                    many => at * self.providers / many..at * self.providers / many + 1,
                };
                let reached: Vec<Value> = reached
                    .map(|at| json!({"provider": format!("p{at}"), "weight": 1, "allowed_models": ["*"]}))
                    .collect();
                let mut virtual_key = json!({
                    "id": id,
                    "name": id,
                    "value": virtual_key(at),
                    "is_active": true,
                    "provider_configs": reached,
                });
                if at < self.limits {
                    virtual_key["rate_limit_id"] = json!(format!("rl{at}"));
                }
                virtual_key
            })
            .collect();
        let limits: Vec<Value> = (0..self.limits)
            .map(|at| {
                json!({
                    "id": format!("rl{at}"),
                    "request_max_limit": REQUESTS_A_MINUTE,
                    "request_reset_duration": "1m",
                    "token_max_limit": TOKENS_A_MINUTE,
                    "token_reset_duration": "1m",
                })
            })
            .collect();
        json!({
            "server": {
                "host": sockets.listen.ip().to_string(),
                "port": sockets.listen.port(),
                "admin_port": sockets.admin_port,
                "cores": self.cores,
                "state_dir": state,
                // Under valgrind a core is late as a rule, and must not turn requests away for that.
                "overload": {"loop_delay": "10s"},
            },
            "providers": providers,
            "governance": {"virtual_keys": virtual_keys, "rate_limits": limits},
        })
    }

    /// As many requests as `lanes`, spread evenly over providers and virtual keys.
    pub(crate) fn requests(
        &self,
        listen: SocketAddr,
        lanes: usize,
        answer: Answer,
    ) -> Result<Vec<Vec<u8>>, TargetError> {
        let target = Target::parse(&format!("http://{listen}/v1/chat/completions"))?;
        let requests = (0..lanes)
            .map(|lane| {
                let virtual_key_at = lane * self.virtual_keys / lanes.max(1);
                let provider_at = match self.virtual_keys {
                    1 => lane * self.providers / lanes.max(1),
                    many => virtual_key_at * self.providers / many,
                };
                let header = Header::new("authorization", format!("Bearer {}", virtual_key(virtual_key_at)));
                let mut body = chat_body(&format!("p{provider_at}/gpt-4o-mini"), BODY_BYTES);
                if answer == Answer::Streamed {
                    // Before the closing brace: the same request, streamed.
                    body.pop();
                    body.extend_from_slice(b",\"stream\":true}");
                }
                target.post(&[header], &body)
            })
            .collect();
        Ok(requests)
    }
}

/// How the provider is asked to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Answer {
    /// One JSON document
    #[value(name = "chat")]
    Whole,
    /// Server-sent events
    #[value(name = "stream")]
    Streamed,
}

fn virtual_key(at: usize) -> String {
    format!("sk-bf-load-{at:06}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_reach_the_first_and_nearly_the_last() {
        let shape = Shape { providers: 500, virtual_keys: 100_000, ..Shape::default() };
        let requests = shape.requests("127.0.0.1:1".parse().expect("an address"), 64, Answer::Streamed);
        let requests = requests.expect("a loopback address");
        let text = |at: usize| String::from_utf8_lossy(&requests[at]).into_owned();
        assert_eq!(requests.len(), 64);
        assert!(text(0).contains("sk-bf-load-000000") && text(0).contains("\"p0/"));
        assert!(text(63).contains("sk-bf-load-098437") && text(63).contains("\"p492/"));
        assert!(text(9).ends_with(",\"stream\":true}"));
    }

    #[test]
    fn a_configuration_has_as_many_of_each() {
        let address = "127.0.0.1:1".parse().expect("an address");
        let shape = Shape { providers: 2, keys: 3, virtual_keys: 4, limits: 2, cores: 1 };
        let sockets = Sockets { provider: address, listen: address, admin_port: 2 };
        let config = shape.config(sockets, Path::new("state"));
        assert_eq!(config["providers"]["p1"]["keys"].as_array().map(Vec::len), Some(3));
        assert_eq!(config["governance"]["virtual_keys"][1]["rate_limit_id"], "rl1");
        assert_eq!(config["governance"]["virtual_keys"][2]["rate_limit_id"], Value::Null);
    }
}
