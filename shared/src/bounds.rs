//! Every bound of the node, in one place, with the relations that must hold between them.
//!
//! (A *limit* is something else here: so many requests or tokens in a window.)

use std::time::Duration;

// --- Heads and bodies -----------------------------------------------------------------------

/// Largest request head accepted from a client, in bytes. Above it: 431.
pub const REQUEST_HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields in a request head. Above it: 431.
pub const REQUEST_FIELDS_MAX: usize = 100;
/// Largest head accepted from a provider, in bytes.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 64 * 1024;
/// Interim (1xx) answers read before one final answer; a provider that sends more is cut off.
pub const INTERIM_ANSWERS_MAX: usize = 20;
/// Bytes of one body kept in memory while its model is looked up and for retries (default of the setting).
pub const BUFFERED_BODY_BYTES: usize = 1024 * 1024;
/// Bytes of all buffered bodies of one core together (default of the setting). Above it: 503.
pub const BUFFERED_BODIES_BYTES_PER_CORE: usize = 256 * 1024 * 1024;

// --- Buffers --------------------------------------------------------------------------------

/// What an idle connection reads into. Big enough to notice a request or a close, small enough
/// that ten thousand idle connections cost next to nothing.
pub const RESIDENT_READ_BYTES: usize = 128;
/// Busy connections of a core that wait with a whole buffer instead, so that the next message is
/// one read and not two. Beyond that they wait like the others.
pub const BUSY_WAITS_PER_CORE_MAX: u32 = 256;
/// A connection is busy when the next request came so soon after the answer to the last one.
pub const BUSY_GAP: Duration = Duration::from_millis(100);
/// What a stream reads into between events: one usual event fits, so that a quiet stream holds
/// no more than this: a kilobyte, with what it has before and behind.
pub const STREAM_READ_BYTES: usize = 976;
/// A pooled buffer, taken when bytes are there and given back when they are gone.
pub const BUFFER_BYTES: usize = 16 * 1024;
/// What the rest of a long answer is read into, once a whole buffer of it came at once: a megabyte in
/// sixteen pieces instead of sixty-four.
pub const LONG_READ_BYTES: usize = 64 * 1024;
/// Buffers of that size that a core keeps.
pub const POOLED_LONG_READS_MAX: usize = 16;
/// What a request waits in for its answer, where head and body fit: most chats do.
pub const REQUEST_BYTES: usize = 4 * 1024 - BUFFER_TAILROOM_BYTES;
/// Room kept in front of the payload of a pooled buffer: a new head, or a chunk's size line,
/// is written there, so that head and first body bytes leave in one write.
pub const BUFFER_HEADROOM_BYTES: usize = 4 * 1024;
/// Room kept behind the payload: the end of a chunk and the last chunk.
pub const BUFFER_TAILROOM_BYTES: usize = 16;
/// Pooled buffers that a core keeps for the next request; more are given back to the allocator.
pub const POOLED_BUFFERS_MAX: usize = 256;

// --- Connections and time -------------------------------------------------------------------

/// How often a core looks at its rings, deadlines and slices.
pub const CORE_TICK: Duration = Duration::from_millis(10);
/// How often a core looks through the deadlines of its connections.
pub const DEADLINE_SWEEP: Duration = Duration::from_millis(50);
/// A request head must be complete this long after its first byte.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// A body has this long before its rate counts.
pub const BODY_GRACE: Duration = Duration::from_secs(5);
/// Slowest body accepted after the grace, in bytes a second, counted only while we read.
pub const BODY_RATE_MIN: u64 = 256;
/// An idle client connection is closed after this.
pub const CLIENT_IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// A client that takes nothing for this long is cut off.
pub const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// An idle provider connection is closed after this: below the usual 60 s of servers, so that
/// we close first and a request rarely meets a closing connection.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(50);
/// Idle provider connections kept by one core for one endpoint.
pub const UPSTREAM_IDLE_MAX: usize = 1024;
/// Time for the last bytes of a refused request to arrive before the connection is closed:
/// closing with unread bytes would reset it and the client would lose our answer.
pub const LINGER: Duration = Duration::from_millis(500);
/// Most bytes of a refused request that are read and thrown away in that time.
pub const LINGER_BYTES_MAX: usize = 256 * 1024;
/// Client connections of one core. Above it the newest is refused.
pub const CONNECTIONS_PER_CORE_MAX: usize = 65_536;
/// Ticks without a new connection after which a draining core takes no more and lets idle clients
/// go: what they sent before they could know has to be answered, with `connection: close`.
pub const DRAIN_QUIET_TICKS: u32 = 20;
/// Ticks after which it does so in any case.
pub const DRAIN_TICKS_MAX: u32 = 300;
/// TLS handshake with a client or a provider.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

// --- Between the planes ---------------------------------------------------------------------

/// Snapshots that may wait for one core. Only the newest is used, so this covers bursts of
/// changes within one core tick and nothing more.
pub const SNAPSHOTS_IN_FLIGHT_MAX: usize = 4;
/// Reports that may wait for the control thread, all cores together. A core whose report finds
/// no room keeps counting and sends later.
pub const REPORTS_IN_FLIGHT_MAX: usize = 256;
/// How often a core sends what it counted.
pub const REPORT_INTERVAL: Duration = Duration::from_millis(500);
/// Keys and models of which one report tells what their provider said of its limits. What finds
/// no room is told by a later answer.
pub const TOLD_PER_REPORT_MAX: usize = 128;
/// Events that may wait for the control loop.
pub const EVENTS_IN_FLIGHT_MAX: usize = 1024;

// --- Configuration --------------------------------------------------------------------------

/// Providers in one configuration.
pub const PROVIDERS_MAX: usize = 4_096;
/// Fallbacks named by one request.
pub const FALLBACKS_MAX: usize = 8;
/// Routing rules that a request may have to be held against.
pub const ROUTING_RULES_MAX: usize = 1_000;
/// What all of them come to where alternatives are written out.
pub const ROUTES_MAX: usize = 2 * ROUTING_RULES_MAX;
/// Different headers that routing rules look at; a core finds each of them once a request.
pub const ROUTING_HEADERS_MAX: usize = 32;
/// Limits that one request is checked against (each counts requests or tokens).
pub const LIMITS_PER_REQUEST_MAX: usize = 16;
/// Requests that wait for units of limits on one core. Above it they are refused.
pub const WAITING_PER_CORE_MAX: usize = 1_024;
/// The part of them that one virtual key may have, or all requests without one.
pub const WAITING_PER_VIRTUAL_KEY_MAX: usize = WAITING_PER_CORE_MAX / 4;
/// Different model names that metrics tell apart; the rest is counted as `other`.
pub const MODEL_LABELS_MAX: usize = 500;
/// Addresses of one provider's host that are used.
pub const ENDPOINTS_PER_PROVIDER_MAX: usize = 16;

const _: () = {
    assert!(REQUEST_HEAD_BYTES_MAX <= BUFFER_BYTES);
    assert!(RESIDENT_READ_BYTES < STREAM_READ_BYTES && STREAM_READ_BYTES < BUFFER_BYTES);
    assert!(STREAM_READ_BYTES < REQUEST_BYTES && REQUEST_BYTES < BUFFER_BYTES && BUFFER_BYTES < LONG_READ_BYTES);
    assert!(SNAPSHOTS_IN_FLIGHT_MAX >= 2, "one being read, one arriving");
    assert!(DEADLINE_SWEEP.as_millis() * 4 <= LINGER.as_millis(), "a sweep must be fine against the shortest deadline");
    assert!(DRAIN_QUIET_TICKS < DRAIN_TICKS_MAX);
    assert!(HEAD_TIMEOUT.as_millis() < CLIENT_IDLE_TIMEOUT.as_millis());
    assert!(BUFFERED_BODY_BYTES <= BUFFERED_BODIES_BYTES_PER_CORE / 16, "one body must not starve the others");
};
