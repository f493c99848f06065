//! The configuration that is built into the program. Pure.

use std::net::SocketAddr;

/// Names between @ are replaced by [`text`].
const TEMPLATE: &str = include_str!("config.json");

/// The whole text for a node on these ports, with this provider behind it.
pub(super) fn text(port: u16, admin_port: u16, provider: SocketAddr) -> String {
    TEMPLATE
        .replace("@PORT@", &port.to_string())
        .replace("@ADMIN_PORT@", &admin_port.to_string())
        .replace("@PROVIDER@", &provider.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use shared::config::{Sources, load};

    #[test]
    fn the_text_loads_and_says_nothing_but_that_its_keys_stand_in_it() {
        let provider: SocketAddr = "127.0.0.1:9100".parse().expect("an address");
        let loaded = load(&text(8080, 8081, provider), &Sources::none());
        let loaded = loaded.unwrap_or_else(|faults| panic!("{faults:?}"));
        let others: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
        let others: Vec<&String> =
            others.iter().filter(|text| !text.contains("the secret stands in the file")).collect();
        assert!(others.is_empty(), "{others:?}");
        let server = loaded.config.server;
        assert_eq!(
            (server.listen.to_string(), server.admin_listen.to_string()),
            ("127.0.0.1:8080".into(), "127.0.0.1:8081".into())
        );
    }
}
