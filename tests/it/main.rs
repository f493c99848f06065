//! Tests that look at the project from outside: its source rules, and (beside them) real sockets.
//!
//! One binary, so that everything links once. Black-box suites that speak through an SDK or
//! through hostile bytes are scripts in `tests/`, run by `tests/run`.

#![forbid(unsafe_code)]

mod avahi;
mod budgets;
mod cluster_rig;
mod cluster_status;
mod demo;
mod departures;
mod discovery_consul;
mod discovery_dns;
mod discovery_etcd;
mod discovery_kubernetes;
mod discovery_mdns;
mod discovery_udp;
mod doctor;
mod etcd_server;
mod exit_codes;
mod failover;
mod fallbacks;
mod learned_limits;
mod limit_modes;
mod limit_waits;
mod limits_shown;
mod name_server;
mod namespaces;
mod node_pages;
mod node_rig;
mod pipelines;
mod provider_faults;
mod restart;
mod rig;
mod routing;
mod slow_clients;
mod source;
mod spent;
mod stand_ins;
mod symptoms_cluster;
mod symptoms_consul;
mod symptoms_dns;
mod symptoms_etcd;
mod symptoms_kubernetes;
mod symptoms_mdns;
mod symptoms_udp;
mod tidy;
mod uploads;
mod upstream_heads;
