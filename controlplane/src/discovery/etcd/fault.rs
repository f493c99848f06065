//! What went wrong between us and etcd, in words for whoever has to mend it. Pure.

use super::super::Failure;
use etcd_client::Error;
use shared::foreign::one_line;
use std::error::Error as _;
use std::time::Duration;

/// Characters of a server's own words that are repeated.
const WORDS_MAX: usize = 300;

/// gRPC status codes that are told apart here.
const INVALID_ARGUMENT: i32 = 3;
const PERMISSION_DENIED: i32 = 7;
const RESOURCE_EXHAUSTED: i32 = 8;
const FAILED_PRECONDITION: i32 = 9;
const UNAVAILABLE: i32 = 14;
const UNAUTHENTICATED: i32 = 16;

/// One call that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: Kind,
    pub(super) cause: String,
}

/// What to do about it; a later one says more than an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Nobody there, or too slow.
    Unreachable,
    /// Reached, and something else went wrong.
    Other,
    /// The configured certificate, or the server's, is not good.
    Tls,
    /// The lease is gone.
    LeaseLost,
    /// The store takes no writes.
    Full,
    /// The user may not do this.
    Forbidden,
    /// User and password are wrong, or missing.
    Credentials,
}

impl Fault {
    pub(super) fn silent(after: Duration) -> Self {
        Self { kind: Kind::Unreachable, cause: format!("no answer within {after:?}") }
    }

    pub(super) fn of(error: &Error) -> Self {
        let kind = match error {
            Error::GRpcStatus(status) => match i32::from(status.code()) {
                UNAUTHENTICATED => Kind::Credentials,
                // `etcdserver: authentication failed, invalid user ID or password`, `user name is empty`
                INVALID_ARGUMENT if ["user", "password", "auth"].iter().any(|word| status.message().contains(word)) => {
                    Kind::Credentials
                }
                PERMISSION_DENIED => Kind::Forbidden,
                RESOURCE_EXHAUSTED => Kind::Full,
                UNAVAILABLE => Kind::Unreachable,
                _ => Kind::Other,
            },
            Error::LeaseKeepAliveError(_) => Kind::LeaseLost,
            Error::IoError(_) | Error::TransportError(_) => Kind::Unreachable,
            _ => Kind::Other,
        };
        let cause = told(error);
        let kind = match kind {
            Kind::Unreachable | Kind::Other if speaks_of_tls(&cause) => Kind::Tls,
            kind => kind,
        };
        Self { kind, cause }
    }

    /// The server understood, and said no; another endpoint would say the same.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.kind, Kind::Full | Kind::Forbidden)
    }

    /// With the log line it belongs to.
    pub(super) fn into_failure(self, line: &'static str, prefix: &str) -> Failure {
        Failure { line, remedy: self.kind.remedy(prefix), cause: self.cause }
    }
}

impl Kind {
    /// What to do about it.
    pub(super) fn remedy(self, prefix: &str) -> String {
        match self {
            // A port without TLS resets who speaks it, and its answer may be lost with that.
            Self::Unreachable => "check that etcd runs and has a leader (`etcdctl endpoint health`), that \
                 `etcd_endpoints` are right (http:// or https://, port 2379; use https:// for TLS ports only) and can \
                 be reached through firewalls, and raise `dial_timeout` where the network is slow"
                .to_owned(),
            Self::Other => "look into etcd's own log for the reason".to_owned(),
            Self::Tls => "give the authority that signed etcd's certificate as `etcd_ca_cert_pem`, name the endpoint \
                 as the certificate does, and use https:// for TLS ports only"
                .to_owned(),
            Self::LeaseLost => "check the network to etcd and its load (leader elections, slow disks), and raise \
                 `etcd_lease_ttl` where it is slow"
                .to_owned(),
            Self::Full => "etcd takes no writes: compact and defragment it, then `etcdctl alarm disarm`, or raise its \
                 --quota-backend-bytes"
                .to_owned(),
            Self::Forbidden => format!(
                "let the user's role read and write these keys: `etcdctl role grant-permission ROLE readwrite {prefix} \
                 --prefix=true`"
            ),
            Self::Credentials => "check `etcd_username` and `etcd_password` against `etcdctl user list`".to_owned(),
        }
    }
}

/// etcd has no users, and was asked to know ours: it is used without them, as etcdctl does.
pub(super) fn says_auth_is_off(error: &Error) -> bool {
    matches!(error, Error::GRpcStatus(status)
        if i32::from(status.code()) == FAILED_PRECONDITION && status.message().contains("authentication is not enabled"))
}

/// The error with what is behind it, shortened, on one line.
fn told(error: &Error) -> String {
    let mut text = match error {
        Error::GRpcStatus(status) => status.message().to_owned(),
        other => other.to_string(),
    };
    let mut source = match error {
        Error::GRpcStatus(status) => status.source(),
        Error::TransportError(error) => error.source(),
        _ => None,
    };
    while let Some(error) = source {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = error.source();
    }
    one_line(&text, WORDS_MAX)
}

fn speaks_of_tls(cause: &str) -> bool {
    ["certificate", "tls", "TLS", "CorruptMessage", "BadSignature", "UnknownIssuer"]
        .iter()
        .any(|word| cause.contains(word))
}
