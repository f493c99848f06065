//! What a node writes into etcd about itself, and how it reads what others wrote. Pure.
//!
//! One key a node, `/SERVICE_NAME/NODE_ID`, under the node's lease. Its value is JSON:
//! `{"address": "10.0.0.7", "port": 10101, "node_id": "a1"}`. Fields that are not known here are
//! passed over, since a newer node may write them; everything else that is not this is no entry.

use serde::{Deserialize, Serialize};
use shared::config::model::NodeId;
use std::net::{IpAddr, SocketAddr};

/// Longest value that is looked at, in bytes.
const VALUE_BYTES_MAX: usize = 1_024;

/// Bytes of a foreign key that a log line shows.
const SHOWN_BYTES_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
struct Entry {
    address: IpAddr,
    port: u16,
    node_id: String,
}

/// Where the nodes of one service are; the `/` at its end keeps `a` from finding `ab`'s nodes.
pub(super) fn prefix(service_name: &str) -> String {
    format!("/{service_name}/")
}

/// The value of a node's key.
pub(super) fn value(node_id: &str, advertise: SocketAddr) -> Vec<u8> {
    let entry = Entry { address: advertise.ip(), port: advertise.port(), node_id: node_id.to_owned() };
    // Three plain fields: there is nothing in them that could not be written.
    serde_json::to_vec(&entry).unwrap_or_default()
}

/// Why bytes are no entry of a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoEntry {
    /// Longer than any entry.
    #[error("its value has {0} bytes, more than an entry can have")]
    Long(usize),
    /// Not the JSON that nodes write.
    #[error("its value is not {{\"address\": IP, \"port\": NUMBER, \"node_id\": TEXT}}: {0}")]
    Shape(String),
    /// The key is not the prefix and the node's id.
    #[error("its key does not end with the node id that its value names")]
    Key,
    /// Port 0 cannot be connected to.
    #[error("its port is 0")]
    Port,
}

/// The address in an entry under `prefix`.
pub(super) fn read(prefix: &str, key: &[u8], value: &[u8]) -> Result<SocketAddr, NoEntry> {
    if value.len() > VALUE_BYTES_MAX {
        return Err(NoEntry::Long(value.len()));
    }
    let entry: Entry = serde_json::from_slice(value).map_err(|error| NoEntry::Shape(error.to_string()))?;
    let is_its_key = key.strip_prefix(prefix.as_bytes()) == Some(entry.node_id.as_bytes());
    if !is_its_key || NodeId::new(&entry.node_id).is_err() {
        return Err(NoEntry::Key);
    }
    if entry.port == 0 {
        return Err(NoEntry::Port);
    }
    Ok(SocketAddr::new(entry.address, entry.port))
}

/// A foreign key for a log line: short, and without what could pass for another line.
pub(super) fn shown(key: &[u8]) -> String {
    let part = key.get(..SHOWN_BYTES_MAX).unwrap_or(key);
    let more = if part.len() < key.len() { "…" } else { "" };
    format!("{}{more}", part.escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_at(key: &str, value: &str) -> Result<SocketAddr, NoEntry> {
        read(&prefix("s"), key.as_bytes(), value.as_bytes())
    }

    #[test]
    fn what_a_node_writes_is_what_others_read() {
        for address in ["10.0.0.7:10101", "[fd00::7]:9"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(read(&prefix("s"), b"/s/a1", &value("a1", address)), Ok(address));
        }
    }

    #[test]
    fn a_newer_node_may_say_more() {
        let text = r#"{"node_id": "a1", "zone": [1], "port": 9, "address": "10.0.0.7"}"#;
        assert_eq!(read_at("/s/a1", text), Ok("10.0.0.7:9".parse().unwrap()));
    }

    #[test]
    fn what_is_no_entry_is_refused_with_its_reason() {
        let entry = r#"{"address": "10.0.0.7", "port": 9, "node_id": "a1"}"#;
        assert_eq!(read_at("/s/a2", entry), Err(NoEntry::Key));
        assert_eq!(read_at("/s/x/a1", entry), Err(NoEntry::Key));
        assert_eq!(read_at("a1", entry), Err(NoEntry::Key));
        let empty_id = r#"{"address": "10.0.0.7", "port": 9, "node_id": ""}"#;
        assert_eq!(read_at("/s/", empty_id), Err(NoEntry::Key));
        assert_eq!(read_at("/s/a1", &entry.replace('9', "0")), Err(NoEntry::Port));
        assert_eq!(read_at("/s/a1", &" ".repeat(1_025)), Err(NoEntry::Long(1_025)));
        for wrong in [
            "",
            "10.0.0.7:9",
            "[]",
            "{}",
            &entry.replace("10.0.0.7", "db.example.com"),
            &entry.replace('9', "65536"),
            &entry.replace('9', "\"9\""),
            &entry.replace("\"a1\"", "null"),
        ] {
            assert!(matches!(read_at("/s/a1", wrong), Err(NoEntry::Shape(_))), "{wrong}");
        }
    }

    #[test]
    fn a_foreign_key_cannot_forge_a_log_line() {
        assert_eq!(shown(b"/s/\n\x1b[2Jx"), r"/s/\n\x1b[2Jx");
        assert!(shown(&[b'a'; 5_000]).len() < 80);
    }
}
