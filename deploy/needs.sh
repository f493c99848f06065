# Installs what a command needs and the machine lacks. Sourced by deploy/demo and tests/run.
# shellcheck shell=bash
#
# Debian and Ubuntu only; elsewhere it says what is missing and stops. It never upgrades what is there.

say() { printf '%s\n' "$*" >&2; }

stop() {
  say "error: $*"
  exit 69 # EX_UNAVAILABLE
}

# need_rust: a toolchain that can build this; rustup fetches the pinned one by itself.
need_rust() {
  local wanted have
  # rustup's installer puts cargo here, and a shell that was open before does not know it yet.
  command -v cargo >/dev/null || PATH="${CARGO_HOME:-${HOME:-}/.cargo}/bin:$PATH"
  command -v cargo >/dev/null || stop "cargo is missing: install a Rust toolchain (rustup), then run this again"
  # rustup may be set not to fetch the toolchain of rust-toolchain.toml unasked.
  if ! rustc --version >/dev/null 2>&1 && command -v rustup >/dev/null; then
    say "installing the toolchain of rust-toolchain.toml"
    rustup toolchain install || stop "rustup could not install the toolchain of rust-toolchain.toml"
  fi
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
  have=$(rustc --version | cut -d' ' -f2)
  [ "$(printf '%s\n%s\n' "$wanted" "$have" | sort -V | head -n 1)" = "$wanted" ] ||
    stop "rustc $have is too old, $wanted is needed: install rustup, which reads rust-toolchain.toml"
}

# need COMMAND PACKAGE…: installs the Debian packages when the command is not there.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null || install_packages "$command" "$@"
}

# need_protoc: etcd's client is generated from its .proto files, which import those of libprotobuf-dev.
need_protoc() {
  if ! command -v protoc >/dev/null || ! [ -e "${PROTOC_INCLUDE:-/usr/include}/google/protobuf/descriptor.proto" ]; then
    install_packages protoc protobuf-compiler libprotobuf-dev
  fi
}

# install_packages REASON PACKAGE…
install_packages() {
  local reason=$1 as_root=()
  shift
  command -v apt-get >/dev/null || stop "$reason is missing and there is no apt-get here: install it by hand ($*)"
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || stop "$reason is missing: run as root 'apt-get install $*'"
    as_root=(sudo)
  fi
  say "installing $* (for $reason)"
  # A machine that was just set up has no package lists at all.
  "${as_root[@]}" apt-get update -qq || stop "apt-get update failed; $reason needs: $*"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
    stop "apt-get could not install: $*"
}
