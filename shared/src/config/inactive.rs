//! Fields that the node knows of and does not act on: one warning each, which names it.
//!
//! `[]` stands for any index, `*` for any name. A field that appears here and is read into the
//! model as well is checked in full; one that is not read may hold anything. A value that asks
//! for nothing (`false`, `null`, empty, `"enabled": false`) earns no warning.

/// A field of the table.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Inactive {
    pub(super) pattern: &'static str,
    /// What holds instead, or empty.
    instead: &'static str,
}

impl Inactive {
    pub(super) fn message(&self) -> String {
        match self.instead {
            "" => "known, and without effect on this node".to_owned(),
            instead => format!("known, and without effect on this node: {instead}"),
        }
    }
}

/// The entry for a field, given its pattern.
pub(super) fn find(pattern: &str) -> Option<&'static Inactive> {
    TABLE.iter().find(|known| known.pattern == pattern)
}

/// The names in the table that stand directly in the object with this pattern.
pub(super) fn names_below(object: &str) -> impl Iterator<Item = &'static str> {
    let object = object.to_owned();
    TABLE.iter().filter_map(move |known| {
        let (parent, name) = known.pattern.rsplit_once('.').unwrap_or(("", known.pattern));
        (parent == object).then_some(name)
    })
}

const fn row(pattern: &'static str, instead: &'static str) -> Inactive {
    Inactive { pattern, instead }
}

const USE_BASE_URL: &str = "set network_config.base_url";
const NO_LOG_STORE: &str = "requests and answers are not stored";
const NO_MCP: &str = "MCP is not spoken";
const NO_CALENDAR: &str = "windows slide and do not follow the calendar";
const NO_USAGE: &str = "usage is counted by the node itself";

#[rustfmt::skip]
const TABLE: &[Inactive] = &[
    // Not read at all.
    row("source_of_truth", "config_store says it"),
    row("encryption_key", "it is taken from DEEPINTSHIELD_ENCRYPTION_KEY"),
    row("env_label", ""),
    row("framework", "prices are not known"),
    row("mcp", NO_MCP),
    row("plugins", "there are no plugins"),
    row("vector_store", "answers are not cached"),
    row("logs_store", NO_LOG_STORE),
    row("alerting", ""),
    row("alerts", ""),
    row("webhooks", ""),
    row("audit_logs", ""),
    row("log_exports", NO_LOG_STORE),
    row("vault", "secrets come from env.NAME or file:PATH"),
    row("guardrails_config", ""),
    row("access_profiles", ""),
    row("scim_config", ""),
    row("saml_config", ""),
    row("feature_flags", ""),
    row("websocket", "websockets are not spoken"),
    row("large_payload_optimization", "bodies are streamed anyway"),
    row("server.read_buffer_size", "request heads have a fixed bound"),
    row("client.initial_pool_size", "nothing is allocated ahead"),
    row("client.enable_logging", NO_LOG_STORE),
    row("client.disable_content_logging", "content is never logged"),
    row("client.allow_per_request_content_storage_override", NO_LOG_STORE),
    row("client.allow_per_request_raw_override", ""),
    row("client.disable_db_pings_in_health", "health never asks a database"),
    row("client.dump_errors_in_console_logs", ""),
    row("client.webhook_config", ""),
    row("client.log_retention_days", NO_LOG_STORE),
    row("client.dual_credential_conflict_behavior", "there are no identity providers"),
    row("client.compat", "bodies are relayed as they are"),
    row("client.enable_litellm_fallbacks", "bodies are relayed as they are"),
    row("client.async_job_result_ttl", "there are no asynchronous jobs"),
    row("client.required_headers", "requests without them are not refused"),
    row("client.logging_headers", NO_LOG_STORE),
    row("client.whitelisted_routes", "no route of the data port bypasses virtual keys"),
    row("client.hide_deleted_virtual_keys_in_filters", ""),
    row("client.allowed_headers", ""),
    row("client.mcp_agent_depth", NO_MCP),
    row("client.mcp_tool_execution_timeout", NO_MCP),
    row("client.mcp_code_mode_binding_level", NO_MCP),
    row("client.mcp_tool_sync_interval", NO_MCP),
    row("client.mcp_disable_auto_tool_inject", NO_MCP),
    row("client.mcp_enable_temp_token_auth", NO_MCP),
    row("client.mcp_external_client_url", NO_MCP),
    row("client.mcp_server_auth_mode", NO_MCP),
    row("client.oauth2_server_config", NO_MCP),
    row("client.routing_chain_max_depth", "routing rules are not chained"),
    row("providers.*.proxy_config", "providers are connected to directly"),
    row("providers.*.send_back_raw_request", ""),
    row("providers.*.send_back_raw_response", "answers are the provider's own bytes anyway"),
    row("providers.*.store_raw_request_response", NO_LOG_STORE),
    row("providers.*.openai_config", ""),
    row("providers.*.pricing_overrides", "prices are not known"),
    row("providers.*.description", ""),
    row("providers.*.keys[].use_for_batch_api", "a key that fits is used for every path"),
    row("providers.*.keys[].azure_key_config", USE_BASE_URL),
    row("providers.*.keys[].ollama_key_config", USE_BASE_URL),
    row("providers.*.keys[].vllm_key_config", USE_BASE_URL),
    row("providers.*.keys[].sgl_key_config", USE_BASE_URL),
    row("providers.*.keys[].description", ""),
    row("providers.*.keys[].aliases.*.model_name", ""),
    row("providers.*.keys[].aliases.*.model_family", ""),
    row("providers.*.keys[].aliases.*.description", ""),
    row("providers.*.keys[].aliases.*.region", ""),
    row("providers.*.keys[].aliases.*.api_version", ""),
    row("providers.*.keys[].aliases.*.anthropic_version", ""),
    row("providers.*.keys[].aliases.*.endpoint", USE_BASE_URL),
    row("providers.*.network_config.enforce_http2", "providers are spoken to in HTTP/1.1"),
    row("providers.*.network_config.beta_header_overrides", "headers are relayed as they are"),
    row("providers.*.custom_provider_config.allowed_requests", "every request of the dialect is relayed"),
    row("providers.*.custom_provider_config.request_path_overrides", "paths are relayed as they are"),
    row("governance.routing_rules[].description", ""),
    row("governance.routing_rules[].query", "cel_expression says it"),
    row("governance.routing_rules[].created_at", ""),
    row("governance.routing_rules[].updated_at", ""),
    row("governance.business_units", ""),
    row("governance.roles", ""),
    row("governance.pricing_overrides", "prices are not known"),
    row("governance.complexity_analyzer_config", ""),
    row("governance.budgets[].current_usage", NO_USAGE),
    row("governance.budgets[].last_reset", NO_USAGE),
    row("governance.budgets[].virtual_key_id", "refer to the budget from its owner"),
    row("governance.budgets[].provider_config_id", "refer to the budget from its owner"),
    row("governance.budgets[].model_config_id", "refer to the budget from its owner"),
    row("governance.budgets[].customer_id", "refer to the budget from its owner"),
    row("governance.budgets[].team_id", "refer to the budget from its owner"),
    row("governance.budgets[].calendar_aligned", NO_CALENDAR),
    row("governance.rate_limits[].token_current_usage", NO_USAGE),
    row("governance.rate_limits[].token_last_reset", NO_USAGE),
    row("governance.rate_limits[].request_current_usage", NO_USAGE),
    row("governance.rate_limits[].request_last_reset", NO_USAGE),
    row("governance.rate_limits[].calendar_aligned", NO_CALENDAR),
    row("governance.virtual_keys[].description", ""),
    row("governance.virtual_keys[].calendar_aligned", NO_CALENDAR),
    row("governance.virtual_keys[].expires_at", "the key does not expire by itself; set is_active to false in time"),
    row("governance.virtual_keys[].access_profile_id", ""),
    row("governance.virtual_keys[].mcp_configs", NO_MCP),
    row("governance.virtual_keys[].provider_configs[].id", ""),
    row("governance.virtual_keys[].provider_configs[].virtual_key_id", ""),
    row("governance.model_configs[].calendar_aligned", NO_CALENDAR),
    row("governance.providers[].id", ""),
    row("governance.providers[].description", ""),
    row("governance.providers[].send_back_raw_request", ""),
    row("governance.providers[].send_back_raw_response", ""),
    row("governance.providers[].store_raw_request_response", NO_LOG_STORE),
    row("governance.providers[].network_config", "set it on the provider itself"),
    row("governance.providers[].proxy_config", "set it on the provider itself"),
    row("governance.providers[].custom_provider_config", "set it on the provider itself"),
    row("governance.providers[].concurrency_and_buffer_size", "set it on the provider itself"),
    row("governance.providers[].openai_config", ""),
    row("governance.teams[].source_id", ""),
    row("governance.teams[].business_unit_id", ""),
    row("governance.teams[].profile", ""),
    row("governance.teams[].config", ""),
    row("governance.teams[].claims", ""),
    row("governance.teams[].calendar_aligned", NO_CALENDAR),
    row("governance.teams[].virtual_key_count", ""),
    row("governance.customers[].budgets", "refer to governance.budgets by budget_id"),
    row("governance.customers[].calendar_aligned", NO_CALENDAR),
    row("cluster_config.auth_token", "nodes know each other by gossip.encryption_keys"),
    row("config_store.vault_store", "secrets come from env.NAME or file:PATH"),
    row("config_store.config.password_command", "secrets come from env.NAME or file:PATH"),
    row("config_store.config.max_idle_conns", ""),
    row("config_store.config.conn_max_lifetime", ""),
    row("load_balancer_config.tracker_config", ""),
    row("load_balancer_config.bootstrap", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_stands_in_the_table_twice() {
        let mut patterns: Vec<_> = TABLE.iter().map(|known| known.pattern).collect();
        patterns.sort_unstable();
        let count = patterns.len();
        patterns.dedup();
        assert_eq!(patterns.len(), count);
    }

    #[test]
    fn names_are_found_by_their_object() {
        assert!(names_below("").any(|name| name == "mcp"));
        assert!(names_below("client").any(|name| name == "enable_logging"));
        assert!(names_below("client").all(|name| name != "mcp"));
    }
}
