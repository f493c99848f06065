//! A few connections, made when they are needed.

use super::connect::Access;
use super::fault::Fault;
use super::migrate;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;
use tokio_postgres::Client;

/// How long a call waits while others have all connections.
const TURN_TIMEOUT: Duration = Duration::from_secs(10);
/// An idle connection that does not answer at once is not worth a wait.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections that are kept while nobody needs them: a node asks seldom.
const IDLE_MAX: usize = 2;

/// What every connection is told. A node that stops in the middle of something must not hold the
/// others up; and what was confirmed has to be on the server's disk, whatever its default is.
const SETTINGS: &str = "
SET statement_timeout = '30s';
SET lock_timeout = '10s';
SET idle_in_transaction_session_timeout = '10s';
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'";

/// See the module.
pub(super) struct Pool {
    access: Access,
    permits: Semaphore,
    idle: Mutex<Vec<Client>>,
    /// Why the last connection could not be made.
    trouble: Mutex<Option<String>>,
}

/// One connection for one call. It ends with the value, and the server rolls back what was not
/// confirmed, unless it is given back.
pub(super) struct Lease<'a> {
    pub(super) client: Client,
    _permit: SemaphorePermit<'a>,
}

impl Pool {
    /// `size` connections at most; one at least.
    pub(super) fn new(access: Access, size: u16) -> Self {
        let permits = Semaphore::new(usize::from(size.max(1)));
        Self { access, permits, idle: Mutex::default(), trouble: Mutex::default() }
    }

    /// A connection that answers, to tables that this program can use.
    pub(super) async fn lease(&self) -> Result<Lease<'_>, Fault> {
        let Ok(Ok(permit)) = timeout(TURN_TIMEOUT, self.permits.acquire()).await else {
            return Err(Fault::Connect("all connections of this node are in use: try again".to_owned()));
        };
        while let Some(client) = self.take_idle() {
            if timeout(CHECK_TIMEOUT, client.check_connection()).await.is_ok_and(|checked| checked.is_ok()) {
                return Ok(Lease { client, _permit: permit });
            }
        }
        let client = self.connect().await;
        let trouble = client.as_ref().err().map(ToString::to_string);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
        Ok(Lease { client: client?, _permit: permit })
    }

    /// For the next one. Only of a connection that has nothing open.
    pub(super) fn give_back(&self, lease: Lease<'_>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE_MAX {
            idle.push(lease.client);
        }
    }

    /// For people; nothing secret.
    pub(super) fn place(&self) -> String {
        self.access.place()
    }

    /// Why the last connection could not be made; `None`: it could, or none was needed yet.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn take_idle(&self) -> Option<Client> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    async fn connect(&self) -> Result<Client, Fault> {
        let (mut client, connection) = self.access.connect().await?;
        // Ends with the client; whoever uses that one is told why.
        tokio::spawn(async { drop(connection.await) });
        client.batch_execute(SETTINGS).await?;
        migrate::migrate(&mut client).await?;
        Ok(client)
    }
}
