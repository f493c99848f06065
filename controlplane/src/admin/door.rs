//! Who gets in: stands in front of every path of the admin listener, also of those that are not there.
//!
//! With accounts, `/api` needs credentials before anything else is said about a request. Without them
//! it is open to whoever is on this machine, on purpose (`from_here`), and nothing can be changed where
//! the listener is reached from elsewhere. What was asked for to change something is in the audit log,
//! whatever came of it.

use super::accounts::{Accounts, Brought, Caller, Credentials};
use super::answer::Refusal;
use super::attempts::Attempts;
use super::audit::{Line, Outcome, Told};
use super::{Desk, from_here};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use shared::clock::Clock;
use shared::config::model::Role;
use shared::secret::Secret;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};

/// Passwords that are hashed at one time: each takes a CPU, and memory.
const HASHES_MAX: usize = 2;
/// How long one may wait for that.
const HASH_WAIT: Duration = Duration::from_secs(5);

/// Answered to everybody.
pub(super) const PUBLIC: [&str; 4] = ["/health", "/ready", "/api/version", "/api/openapi.json"];
/// Answered to everybody, or with credentials only: `server.metrics_auth`.
pub(super) const WATCHED: [&str; 2] = ["/metrics", "/cluster/status"];

/// From where a request comes; put beside it by the listener.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// See the module.
pub(super) struct Door {
    accounts: watch::Receiver<Arc<Accounts>>,
    attempts: Mutex<Attempts>,
    hashes: Semaphore,
    on_loopback: bool,
    /// `server.metrics_auth`.
    metrics_auth: Option<bool>,
    clock: Clock,
}

impl Door {
    pub(super) fn new(
        accounts: watch::Receiver<Arc<Accounts>>,
        on_loopback: bool,
        metrics_auth: Option<bool>,
        clock: Clock,
    ) -> Self {
        let hashes = Semaphore::new(HASHES_MAX);
        Self { accounts, attempts: Mutex::default(), hashes, on_loopback, metrics_auth, clock }
    }

    /// Whether this path is answered without asking who wants to know.
    fn is_open(&self, path: &str, accounts: &Accounts) -> bool {
        let is_watched = WATCHED.contains(&path);
        let is_api = path == "/api" || path.starts_with("/api/");
        let is_guarded = self.metrics_auth.unwrap_or(!self.on_loopback && !matches!(accounts, Accounts::Off));
        PUBLIC.contains(&path) || (is_watched && !is_guarded) || !(is_watched || is_api)
    }

    async fn admit(
        &self,
        headers: &HeaderMap,
        is_write: bool,
        accounts: Arc<Accounts>,
        from: IpAddr,
    ) -> Result<Caller, Refusal> {
        let caller = match &*accounts {
            Accounts::Off => return self.admit_anybody(headers, is_write),
            Accounts::Unknown => return Err(Refusal::unauthorized()),
            Accounts::On(known) => match brought(headers) {
                Brought::Nothing => None,
                Brought::Unreadable => Some(None),
                Brought::Token(token) => Some(known.by_token(&token)),
                Brought::Password { username, password } => {
                    Some(self.check_password(&accounts, username, password, from).await?)
                }
            },
        };
        let Some(brought) = caller else { return Err(Refusal::unauthorized()) };
        let Some(caller) = brought else {
            self.attempts().failed(from, self.clock.now());
            return Err(Refusal::unauthorized());
        };
        // Browsers send a password that they know along with whatever a page makes them ask for.
        if let Some(why) = from_here::page_refusal(headers) {
            return Err(Refusal::forbidden(why));
        }
        if is_write && caller.role < Role::Write {
            return Err(Refusal::forbidden("this token has the role read, and changes nothing"));
        }
        Ok(caller)
    }

    fn admit_anybody(&self, headers: &HeaderMap, is_write: bool) -> Result<Caller, Refusal> {
        if let Some(why) = from_here::refusal(headers) {
            return Err(Refusal::forbidden(why));
        }
        if is_write && !self.on_loopback {
            return Err(Refusal::forbidden(
                "the admin listener is not on a loopback address and has no accounts: it changes nothing; set \
                 governance.auth_config, or server.admin_host to 127.0.0.1",
            ));
        }
        Ok(Caller::anybody())
    }

    /// On the blocking pool, a few at a time.
    async fn check_password(
        &self,
        accounts: &Arc<Accounts>,
        username: String,
        password: Secret,
        from: IpAddr,
    ) -> Result<Option<Caller>, Refusal> {
        if let Some(wait) = self.attempts().wait(from, self.clock.now()) {
            let seconds = wait.as_secs().saturating_add(1);
            let message = "too many wrong passwords and tokens came from there";
            return Err(Refusal::later(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", message, seconds));
        }
        let busy = || {
            let message = "too many passwords wait to be looked at";
            Refusal::later(StatusCode::SERVICE_UNAVAILABLE, "busy", message, 1)
        };
        let turn = tokio::time::timeout(HASH_WAIT, self.hashes.acquire()).await;
        let Ok(Ok(_turn)) = turn else { return Err(busy()) };
        let accounts = Arc::clone(accounts);
        let check = move || match &*accounts {
            Accounts::On(known) => Credentials::by_password(known, &username, &password),
            Accounts::Off | Accounts::Unknown => None,
        };
        tokio::task::spawn_blocking(check).await.map_err(|_| busy())
    }

    fn attempts(&self) -> std::sync::MutexGuard<'_, Attempts> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn brought(headers: &HeaderMap) -> Brought {
    Brought::read(headers.get_all(header::AUTHORIZATION).iter().map(header::HeaderValue::as_bytes))
}

fn writes(method: &Method) -> bool {
    !matches!(*method, Method::GET | Method::HEAD)
}

/// In front of every path.
pub(super) async fn guard(State(desk): State<Arc<Desk>>, mut request: Request, next: Next) -> Response {
    let accounts = Arc::clone(&desk.door.accounts.borrow());
    let path = request.uri().path().to_owned();
    if desk.door.is_open(&path, &accounts) {
        return next.run(request).await;
    }
    let from = request.extensions().get::<Peer>().map(|peer| peer.0);
    let method = request.method().clone();
    let headers = request.headers().clone();
    let source = from.unwrap_or(IpAddr::from([0, 0, 0, 0]));
    let admitted = desk.door.admit(&headers, writes(&method), accounts, source).await;
    let at_ms = u64::try_from(desk.clock.wall().as_millis()).unwrap_or(u64::MAX);
    let (who, mut response, is_kept) = match admitted {
        Ok(caller) => {
            let who = caller.name.clone();
            request.extensions_mut().insert(caller);
            (who, next.run(request).await, writes(&method))
        }
        Err(refusal) => {
            // Whoever brings nothing tries nothing.
            let is_kept = !matches!(brought(&headers), Brought::Nothing) || writes(&method);
            ("?".to_owned(), refusal.into_response(), is_kept && desk.audit.has_room_for_denied(at_ms))
        }
    };
    if is_kept {
        let told = response.extensions_mut().remove::<Told>().unwrap_or_default();
        let outcome = response.extensions_mut().remove::<Outcome>().map_or("done", |outcome| outcome.0);
        let status = response.status().as_u16();
        let method = method.to_string();
        desk.audit.write(Line { at_ms, who, from, method, path, status, outcome, told }).await;
    }
    response
}
