//! Envoy: one thread, one listener, one static cluster, no access log.

use std::{io, process::Command};

use serde_json::{Value, json};

use super::{Places, Wire};

pub(super) fn command(places: &Places, wire: Wire) -> io::Result<Command> {
    let config = places.write("envoy.json", &config(places, wire)?.to_string())?;
    let installed = places.tools.join("envoy/bin/envoy");
    let mut command = Command::new(if installed.exists() { installed } else { "envoy".into() });
    command.arg("-c").arg(config).args(["--concurrency", "1", "--log-level", "error", "--base-id", "7"]);
    Ok(command)
}

/// No bound of its own stands in the way of as many connections as the others have.
fn config(places: &Places, wire: Wire) -> io::Result<Value> {
    let address = |socket: std::net::SocketAddr| json!({"socket_address": {"address": socket.ip().to_string(), "port_value": socket.port()}});
    let most = json!(1_000_000);
    let mut chain = json!({"filters": [{
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "clients",
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "provider", "timeout": "0s"}}],
            }]},
            "http_filters": [{
                "name": "envoy.filters.http.router",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
                    "suppress_envoy_headers": true,
                    "dynamic_stats": false,
                },
            }],
        },
    }]});
    let mut cluster = json!({
        "name": "provider",
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": "provider", "endpoints": [{"lb_endpoints": [
            {"endpoint": {"address": address(places.upstream(wire))}},
        ]}]},
        "circuit_breakers": {"thresholds": [{
            "max_connections": most, "max_pending_requests": most, "max_requests": most,
        }]},
    });
    if wire.clients_tls {
        let certificate = places.certificate()?;
        chain["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
                "disable_stateless_session_resumption": true,
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                    "tls_certificates": [{
                        "certificate_chain": {"filename": certificate.chain},
                        "private_key": {"filename": certificate.key},
                    }],
                },
            },
        });
    }
    if wire.provider_tls {
        cluster["transport_socket"] = json!({
            "name": "envoy.transport_sockets.tls",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
                "sni": "localhost",
                "common_tls_context": {
                    "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
                    "validation_context": {"trusted_ca": {"filename": places.certificate()?.chain}},
                },
            },
        });
    }
    Ok(json!({
        "static_resources": {
            "listeners": [{
                "name": "clients",
                "address": address(places.listen),
                "tcp_backlog_size": 4096,
                "filter_chains": [chain],
            }],
            "clusters": [cluster],
        },
    }))
}
