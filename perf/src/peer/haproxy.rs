//! `HAProxy`: one thread, connections to the provider kept and shared, no log.

use std::{io, process::Command};

use super::{Places, Wire, system_command};

pub(super) fn command(places: &Places, wire: Wire) -> io::Result<Command> {
    let config = places.write("haproxy.cfg", &config(places, wire)?)?;
    let mut command = system_command("haproxy");
    command.arg("-db").arg("-f").arg(config);
    Ok(command)
}

/// As many connections as 20,000 descriptors allow, and idle ones to the provider for each of them.
fn config(places: &Places, wire: Wire) -> io::Result<String> {
    let mut bind = String::new();
    let mut server = String::new();
    if wire.clients_tls {
        bind = format!(" ssl crt {} ssl-min-ver TLSv1.3 no-tls-tickets", places.certificate()?.both.display());
    }
    if wire.provider_tls {
        let root = places.certificate()?.chain.display();
        server =
            format!(" ssl verify required ca-file {root} sni str(localhost) verifyhost localhost ssl-min-ver TLSv1.3");
    }
    let (listen, upstream) = (places.listen, places.upstream(wire));
    Ok(format!(
        "global
    nbthread 1
    maxconn 9920
    tune.ssl.cachesize 0
defaults
    mode http
    timeout connect 5s
    timeout client 600s
    timeout server 600s
    timeout http-keep-alive 600s
    option http-no-delay
frontend clients
    bind {listen} backlog 4096{bind}
    default_backend provider
backend provider
    http-reuse always
    server provider {upstream} pool-max-conn 10000{server}
"
    ))
}
