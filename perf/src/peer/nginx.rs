//! nginx: one process, keep-alive on both sides, no log.

use std::{io, process::Command};

use super::{Places, Wire, system_command};

pub(super) fn command(places: &Places, wire: Wire) -> io::Result<Command> {
    let config = places.write("nginx.conf", &config(places, wire)?)?;
    let mut command = system_command("nginx");
    command.arg("-c").arg(config).arg("-p").arg(&places.scratch);
    command.arg("-e").arg(places.scratch.join("nginx.error"));
    Ok(command)
}

/// Buffering as it comes, but for streams, where it would hold events back. No answer and no body
/// goes through a file.
fn config(places: &Places, wire: Wire) -> io::Result<String> {
    let (listen, upstream) = (places.listen, places.upstream(wire));
    let scratch = places.scratch.display();
    let scheme = if wire.provider_tls { "https" } else { "http" };
    let buffering = if wire.streams { "off" } else { "on" };
    let mut tls = String::new();
    if wire.clients_tls {
        let certificate = places.certificate()?;
        tls = format!(
            "        ssl_certificate {};
        ssl_certificate_key {};
        ssl_protocols TLSv1.3;
        ssl_session_tickets off;
        ssl_session_cache off;
",
            certificate.chain.display(),
            certificate.key.display()
        );
    }
    if wire.provider_tls {
        let certificate = places.certificate()?;
        tls = format!(
            "{tls}        proxy_ssl_protocols TLSv1.3;
        proxy_ssl_verify on;
        proxy_ssl_trusted_certificate {};
        proxy_ssl_name localhost;
        proxy_ssl_server_name on;
",
            certificate.chain.display()
        );
    }
    let ssl = if wire.clients_tls { " ssl" } else { "" };
    Ok(format!(
        "daemon off;
master_process off;
worker_rlimit_nofile 20000;
pid {scratch}/nginx.pid;
error_log {scratch}/nginx.error;
events {{ worker_connections 20000; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    client_max_body_size 16m;
    client_body_buffer_size 2m;
    client_body_temp_path {scratch}/body;
    proxy_temp_path {scratch}/proxy;
    proxy_max_temp_file_size 0;
    fastcgi_temp_path {scratch}/fastcgi;
    uwsgi_temp_path {scratch}/uwsgi;
    scgi_temp_path {scratch}/scgi;
    upstream provider {{
        server {upstream};
        keepalive 10000;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {listen}{ssl} backlog=4096;
{tls}        location / {{
            proxy_pass {scheme}://provider;
            proxy_http_version 1.1;
            proxy_buffering {buffering};
            proxy_set_header Connection \"\";
        }}
    }}
}}
"
    ))
}
