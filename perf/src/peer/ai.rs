//! `LiteLLM` and Portkey: one process each, no key store, no log of requests.

use std::{io, process::Command};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags};

use super::Places;

/// The model that the load names, at the provider. Environment: no list of prices is fetched, and
/// nothing is told to anybody.
pub(super) fn litellm(places: &Places) -> io::Result<Command> {
    let config = places.write(
        "litellm.yaml",
        &format!(
            "model_list:
  - model_name: openai/gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://{}/v1
      api_key: sk-load-upstream
litellm_settings:
  telemetry: false
  num_retries: 0
",
            places.provider
        ),
    )?;
    let mut command = Command::new(places.tools.join("litellm/bin/litellm"));
    command.arg("--config").arg(config).args(["--num_workers", "1"]);
    command.args(["--host", &places.listen.ip().to_string(), "--port", &places.listen.port().to_string()]);
    command.env("LITELLM_LOCAL_MODEL_COST_MAP", "True").env("LITELLM_LOG", "ERROR");
    Ok(command)
}

/// It listens on every address of its network, so it is only started where the loopback device is
/// the only one that is up.
pub(super) fn portkey(places: &Places) -> io::Result<Command> {
    if !only_loopback_is_up()? {
        return Err(io::Error::other(
            "it listens on every address: run this command in a network namespace of its own, see perf/README.md",
        ));
    }
    let start = places.tools.join("portkey/node_modules/@portkey-ai/gateway/build/start-server.js");
    let mut command = Command::new("node");
    command.arg(start).arg("--headless").arg(format!("--port={}", places.listen.port()));
    Ok(command)
}

fn only_loopback_is_up() -> io::Result<bool> {
    let mut devices = getifaddrs()?;
    Ok(devices.all(|device| {
        !device.flags.contains(InterfaceFlags::IFF_UP) || device.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    }))
}
