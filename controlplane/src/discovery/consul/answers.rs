//! What Consul's answers mean, and how its addresses are written. Pure.
//! After its HTTP API: agent service, health, and "Blocking Queries".

use serde::Deserialize;

/// One passing instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    pub(super) id: String,
    /// An address, or a name that has to be resolved.
    pub(super) host: String,
    pub(super) port: u16,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    node: EntryNode,
    service: EntryService,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryNode {
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EntryService {
    #[serde(rename = "ID", default)]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
}

/// Reads `/v1/health/service/…`. Where the instance names no address, its node's holds; where it
/// names no port, `port_default`. Entries without both addresses, or with an impossible port, are
/// left out.
pub(super) fn instances(body: &[u8], port_default: u16) -> Result<Vec<Instance>, serde_json::Error> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(body)?;
    let instance = |entry: Entry| {
        let Entry { node, service, .. } = entry;
        let host = if service.address.is_empty() { node.address } else { service.address };
        let port = if service.port == 0 { Some(port_default) } else { u16::try_from(service.port).ok() };
        (!host.is_empty()).then_some(Instance { id: service.id, host, port: port? })
    };
    Ok(entries.unwrap_or_default().into_iter().filter_map(instance).collect())
}

/// An instance that others are not told of, and why.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unfit {
    pub(super) id: String,
    /// What its first check that does not pass says; empty before it has run.
    pub(super) output: String,
}

/// Reads `/v1/health/service/…` for instances of which a check does not pass.
pub(super) fn unfit(body: &[u8]) -> Result<Vec<Unfit>, serde_json::Error> {
    let entries: Option<Vec<Entry>> = serde_json::from_slice(body)?;
    let unfit = |entry: Entry| {
        let mut checks = entry.checks.unwrap_or_default().into_iter();
        let check = checks.find(|check| check.status != "passing")?;
        Some(Unfit { id: entry.service.id, output: check.output })
    };
    Ok(entries.unwrap_or_default().into_iter().filter_map(unfit).collect())
}

/// What the agent thinks of an instance that it knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Others may use it.
    Passing,
    /// No check has run yet.
    Unchecked,
    /// A check failed, and said this.
    Failing(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HealthOfService {
    aggregated_status: String,
    #[serde(default)]
    checks: Option<Vec<Check>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    #[serde(default)]
    status: String,
    #[serde(default)]
    output: String,
}

/// Reads `/v1/agent/health/service/id/…`, whose status is 200, 429 or 503 after the worst check.
pub(super) fn standing(body: &[u8]) -> Result<Standing, serde_json::Error> {
    let health: HealthOfService = serde_json::from_slice(body)?;
    if health.aggregated_status == "passing" {
        return Ok(Standing::Passing);
    }
    let mut failing = health.checks.unwrap_or_default().into_iter().filter(|check| check.status != "passing");
    let output = failing.find_map(|check| (!check.output.is_empty()).then_some(check.output));
    Ok(output.map_or(Standing::Unchecked, Standing::Failing))
}

/// The index to ask with next. One that goes backwards starts over (the state was restored from
/// an older one); 0 is never waited on, since Consul answers it at once.
pub(super) fn next_index(last: u64, answered: Option<u64>) -> u64 {
    match answered.unwrap_or(0).max(1) {
        index if index < last => 0,
        index => index,
    }
}

/// A piece of a path or of a query, with everything escaped that could end it.
pub(super) fn escaped(text: &str) -> String {
    use std::fmt::Write;
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            write!(escaped, "%{byte:02X}").expect("a string takes everything");
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_without_an_address_is_where_its_node_is() {
        let body = br#"[
            {"Node": {"Node": "a", "Address": "10.0.0.1"}, "Service": {"ID": "s-a", "Address": "", "Port": 10101}, "Checks": []},
            {"Node": {"Node": "b", "Address": "10.0.0.2"}, "Service": {"ID": "s-b", "Address": "b.example", "Port": 0}},
            {"Node": {"Node": "c", "Address": "10.0.0.3"}, "Service": {"ID": "s-c", "Port": 70000}},
            {"Node": {"Node": "d", "Address": ""}, "Service": {"ID": "s-d", "Address": "", "Port": 1}}
        ]"#;
        let found = instances(body, 9_000).expect("Consul's own form");
        let found: Vec<_> = found.iter().map(|i| (i.id.as_str(), i.host.as_str(), i.port)).collect();
        assert_eq!(found, [("s-a", "10.0.0.1", 10_101), ("s-b", "b.example", 9_000)]);
        assert_eq!(instances(b"null", 1).expect("Go's empty list"), []);
        assert!(instances(b"<html>", 1).is_err());
        assert!(instances(b"[{\"Node\": {}}]", 1).is_err());
    }

    #[test]
    fn instances_whose_checks_do_not_pass_are_told_with_their_first_words() {
        let body = br#"[
            {"Node": {}, "Service": {"ID": "a"}, "Checks": [{"Status": "passing", "Output": "fine"}]},
            {"Node": {}, "Service": {"ID": "b"}, "Checks": [{"Status": "passing"}, {"Status": "critical", "Output": "refused"}]},
            {"Node": {}, "Service": {"ID": "c"}}]"#;
        let unfit = unfit(body).expect("Consul's own form");
        assert_eq!(unfit, [Unfit { id: "b".to_owned(), output: "refused".to_owned() }]);
    }

    #[test]
    fn an_index_that_goes_backwards_starts_over_and_zero_is_not_waited_on() {
        assert_eq!(next_index(0, Some(17)), 17);
        assert_eq!(next_index(17, Some(17)), 17);
        assert_eq!(next_index(17, Some(16)), 0);
        assert_eq!(next_index(0, Some(0)), 1);
        assert_eq!(next_index(0, None), 1);
        assert_eq!(next_index(17, Some(0)), 0);
    }

    #[test]
    fn a_check_that_has_not_run_yet_is_not_a_failing_one() {
        let body = |output| {
            format!(r#"{{"AggregatedStatus": "critical", "Checks": [{{"Status": "critical", "Output": "{output}"}}]}}"#)
        };
        assert_eq!(standing(body("").as_bytes()).expect("a form"), Standing::Unchecked);
        let failing = Standing::Failing("dial tcp: refused".to_owned());
        assert_eq!(standing(body("dial tcp: refused").as_bytes()).expect("a form"), failing);
        assert_eq!(standing(br#"{"AggregatedStatus": "passing"}"#).expect("a form"), Standing::Passing);
        assert!(standing(b"upstream connect error").is_err());
    }

    #[test]
    fn nothing_in_a_name_leaves_its_place() {
        assert_eq!(escaped("gate/way?x=1&y#z%\u{e9}"), "gate%2Fway%3Fx%3D1%26y%23z%25%C3%A9");
    }
}
