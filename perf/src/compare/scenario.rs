//! What is compared: one line for each scenario. Nothing is measured here.

use std::time::Duration;

use clap::ValueEnum;

use crate::peer::{Peer, Wire};

/// A question that is put to every proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub(crate) enum Scenario {
    /// Closed loop, 64 connections, 1 KiB each way
    Throughput,
    /// Open loop at 2,000 requests a second
    #[value(name = "latency-2k")]
    Latency2k,
    /// Open loop at half of what this proxy can do
    #[value(name = "latency-50")]
    Latency50,
    /// Open loop at 80 % of what this proxy can do
    #[value(name = "latency-80")]
    Latency80,
    /// 1,000 event streams at once, an event every 25 ms
    #[value(name = "streams-1000")]
    Streams1000,
    /// 9,900 event streams at once, an event every 250 ms
    #[value(name = "streams-9900")]
    Streams9900,
    /// 9,000 kept connections without a request under way
    #[value(name = "idle-9000")]
    Idle9000,
    /// A connection of its own for each request
    NewConnections,
    /// Bodies of 1 MiB in both directions
    #[value(name = "bodies-1mib")]
    Bodies1Mib,
    /// From the start of the process to its first answer
    StartUp,
    /// System calls of a request, under strace
    SystemCalls,
    /// TLS to the clients, kept connections
    TlsClients,
    /// TLS to the provider, kept connections
    TlsProvider,
    /// TLS on both sides, kept connections
    TlsBoth,
    /// TLS to the clients, a full handshake for each request
    TlsHandshakes,
}

/// How fast an open loop sends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rate {
    /// Requests a second.
    Fixed(f64),
    /// A part of what the proxy answers in a closed loop.
    PartOfMaximum(f64),
}

/// Streams of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// At a time.
    pub(super) streams: usize,
    /// Between two events of one stream.
    pub(super) interval: Duration,
}

/// How a scenario is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Method {
    /// A closed loop: CPU of a request, over kept connections or new ones.
    Closed { connections: usize, body_bytes: usize, answer_tokens: Option<u32>, reconnects: bool },
    /// An open loop: latency.
    Open(Rate),
    /// Event streams.
    Streams(Shape),
    /// Connections that do nothing.
    Idle { connections: usize },
    /// Starts.
    StartUp,
    /// strace.
    SystemCalls,
}

/// Connections of a closed and of an open loop.
pub(super) const CONNECTIONS: usize = 64;
/// Length of a request's body, and about that of the answer's.
pub(super) const BODY_BYTES: usize = 1024;
/// Connections with large bodies at a time.
const LARGE_BODY_CONNECTIONS: usize = 16;
const LARGE_BODY_BYTES: usize = 1024 * 1024;
/// Tokens of the simulated provider's answer: its JSON is about 1 MiB long.
const LARGE_ANSWER_TOKENS: u32 = 262_000;

const KEPT: Method =
    Method::Closed { connections: CONNECTIONS, body_bytes: BODY_BYTES, answer_tokens: None, reconnects: false };
const NEW: Method =
    Method::Closed { connections: CONNECTIONS, body_bytes: BODY_BYTES, answer_tokens: None, reconnects: true };

impl Scenario {
    /// All, in the order in which they are measured.
    pub(crate) const ALL: [Self; 15] = [
        Self::Throughput,
        Self::Latency2k,
        Self::Latency50,
        Self::Latency80,
        Self::Streams1000,
        Self::Streams9900,
        Self::Idle9000,
        Self::NewConnections,
        Self::Bodies1Mib,
        Self::StartUp,
        Self::SystemCalls,
        Self::TlsClients,
        Self::TlsProvider,
        Self::TlsBoth,
        Self::TlsHandshakes,
    ];

    /// As in the `scenario` column.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Throughput => "throughput",
            Self::Latency2k => "latency-2k",
            Self::Latency50 => "latency-50",
            Self::Latency80 => "latency-80",
            Self::Streams1000 => "streams-1000",
            Self::Streams9900 => "streams-9900",
            Self::Idle9000 => "idle-9000",
            Self::NewConnections => "new-connections",
            Self::Bodies1Mib => "bodies-1mib",
            Self::StartUp => "start-up",
            Self::SystemCalls => "system-calls",
            Self::TlsClients => "tls-clients",
            Self::TlsProvider => "tls-provider",
            Self::TlsBoth => "tls-both",
            Self::TlsHandshakes => "tls-handshakes",
        }
    }

    /// As a heading.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Throughput => "closed loop, 64 connections, 1 KiB each way",
            Self::Latency2k => "open loop, 2,000 requests a second",
            Self::Latency50 => "open loop, 50 % of each one's maximum",
            Self::Latency80 => "open loop, 80 % of each one's maximum",
            Self::Streams1000 => "1,000 streams, an event every 25 ms",
            Self::Streams9900 => "9,900 streams, an event every 250 ms",
            Self::Idle9000 => "9,000 idle connections",
            Self::NewConnections => "a new connection for each request",
            Self::Bodies1Mib => "bodies of 1 MiB each way, 16 connections",
            Self::StartUp => "from the start of the process to its first answer",
            Self::SystemCalls => "system calls of a request, under strace, 64 connections",
            Self::TlsClients => "TLS to the clients, kept connections",
            Self::TlsProvider => "TLS to the provider, kept connections",
            Self::TlsBoth => "TLS on both sides, kept connections",
            Self::TlsHandshakes => "TLS to the clients, a full handshake for each request",
        }
    }

    /// How it is measured.
    pub(super) fn method(self) -> Method {
        match self {
            Self::Throughput | Self::TlsClients | Self::TlsProvider | Self::TlsBoth => KEPT,
            Self::NewConnections | Self::TlsHandshakes => NEW,
            Self::Latency2k => Method::Open(Rate::Fixed(2_000.0)),
            Self::Latency50 => Method::Open(Rate::PartOfMaximum(0.5)),
            Self::Latency80 => Method::Open(Rate::PartOfMaximum(0.8)),
            Self::Streams1000 => Method::Streams(Shape { streams: 1_000, interval: Duration::from_millis(25) }),
            Self::Streams9900 => Method::Streams(Shape { streams: 9_900, interval: Duration::from_millis(250) }),
            Self::Idle9000 => Method::Idle { connections: 9_000 },
            Self::Bodies1Mib => Method::Closed {
                connections: LARGE_BODY_CONNECTIONS,
                body_bytes: LARGE_BODY_BYTES,
                answer_tokens: Some(LARGE_ANSWER_TOKENS),
                reconnects: false,
            },
            Self::StartUp => Method::StartUp,
            Self::SystemCalls => Method::SystemCalls,
        }
    }

    /// What the proxy has to be able to do.
    pub(super) fn wire(self) -> Wire {
        Wire {
            clients_tls: matches!(self, Self::TlsClients | Self::TlsBoth | Self::TlsHandshakes),
            provider_tls: matches!(self, Self::TlsProvider | Self::TlsBoth),
            streams: matches!(self.method(), Method::Streams(_)),
        }
    }

    /// On either side.
    pub(super) fn needs_tls(self) -> bool {
        self.wire().clients_tls || self.wire().provider_tls
    }

    /// Why `peer` has no part in it; `None` where it has.
    pub(super) fn excludes(self, peer: Peer) -> Option<&'static str> {
        if peer.is_slow() && self != Self::Throughput {
            return Some("measured in the first scenario only");
        }
        if peer == Peer::GatewayNoLimits && self == Self::StartUp {
            return Some("starts as gateway-all does");
        }
        peer.lacks(self.wire())
    }

    /// The figures of the table, in its order; everything that was measured is in the JSON lines.
    pub(super) fn columns(self) -> &'static [&'static str] {
        match self.method() {
            Method::Closed { .. } if self == Self::Throughput => {
                &["cpu_per_request", "throughput", "resident_idle", "resident_after"]
            }
            Method::Closed { .. } => &["cpu_per_request", "throughput", "latency_p50"],
            Method::Open(_) => &["rate", "latency_p50", "latency_p99", "latency_p99.9", "latency_max", "step_40ms"],
            Method::Streams(_) => &[
                "cpu_per_chunk",
                "first_event_p99",
                "gap_p99",
                "jitter_p99",
                "memory_per_stream",
                "resident_settled_to_idle",
            ],
            Method::Idle { .. } => &["memory_per_connection", "cpu_idle"],
            Method::StartUp => &["start_to_answer", "snapshot_to_ready", "resident_idle_2_cores"],
            Method::SystemCalls => &["system_calls_per_request", "system_calls_of_one_at_a_time"],
        }
    }
}
