//! What clients may do at the data port.

/// `client`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Whether a request without a virtual key is refused with 401.
    pub enforce_auth_on_inference: bool,
    /// `max_request_body_size_mb`, in bytes; more is answered with 413.
    pub max_request_body_bytes: u64,
    /// Browser origins that get CORS headers; `*` stands for all.
    pub allowed_origins: Vec<String>,
    /// Whether a full queue answers 503 at once instead of making the client wait.
    pub drop_excess_requests: bool,
    /// Whether a client's own provider key in `Authorization` is passed upstream.
    pub allow_direct_keys: bool,
    /// Request headers `x-bf-prom-NAME` whose NAME becomes a metric label.
    pub prometheus_labels: Vec<String>,
    /// `header_filter_config.allowlist`, in lower case: names that `x-bf-eh-NAME` may send
    /// upstream. Never framing, Host or credentials.
    pub extra_header_allowlist: Vec<String>,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            enforce_auth_on_inference: false,
            max_request_body_bytes: 100 * 1024 * 1024,
            allowed_origins: Vec::new(),
            drop_excess_requests: false,
            allow_direct_keys: false,
            prometheus_labels: Vec::new(),
            extra_header_allowlist: Vec::new(),
        }
    }
}
