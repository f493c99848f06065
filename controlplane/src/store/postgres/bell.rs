//! Rings when another node has appended: one connection listens (`LISTEN`), and is made again when
//! it ends.
//!
//! It may miss something while there is no connection, or hang on a silent server. Whoever waits
//! looks once in a while all the same.

use super::connect::Access;
use super::fault::Fault;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::AsyncMessage;

/// What nodes listen to.
pub(super) const CHANNEL: &str = "deepintshield_configuration";
const LISTEN: &str = "LISTEN deepintshield_configuration";

/// Before a lost connection is made again; twice as long each time. Each pause is drawn from half
/// of it upwards, so that not all nodes come at once.
const PAUSE_MIN: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Without a ring: how often to look all the same.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// See the module. Listens as long as it lives.
pub(super) struct Bell {
    rung: Arc<Notify>,
    task: Option<AbortHandle>,
}

impl Bell {
    /// `access`: `None` for one that never rings and is only looked at.
    pub(super) fn new(access: Option<Access>) -> Self {
        let rung = Arc::<Notify>::default();
        let task = access.map(|access| tokio::spawn(listen(access, Arc::clone(&rung))).abort_handle());
        Self { rung, task }
    }

    /// Until it rings, or it is time to look. A ring while nobody waits is not lost. For one that
    /// waits.
    pub(super) async fn wait(&self) {
        // Rung or not, the caller looks.
        drop(timeout(drawn(LOOK_INTERVAL), self.rung.notified()).await);
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn listen(access: Access, rung: Arc<Notify>) {
    let mut pause = PAUSE_MIN;
    let mut said = None;
    loop {
        let fault = match hear(&access, &rung, &mut said).await {
            Ok(()) => {
                pause = PAUSE_MIN;
                "the connection ended".to_owned()
            }
            Err(fault) => fault.to_string(),
        };
        // Each trouble once, not with every attempt.
        if said.as_ref() != Some(&fault) {
            tracing::warn!("{}: not told of changes, looking every {LOOK_INTERVAL:?}: {fault}", access.place());
            said = Some(fault);
        }
        sleep(drawn(pause)).await;
        pause = pause.saturating_mul(2).min(PAUSE_MAX);
    }
}

/// Listens until the connection ends. `said`: what was complained about, until it is over.
async fn hear(access: &Access, rung: &Arc<Notify>, said: &mut Option<String>) -> Result<(), Fault> {
    let (client, mut connection) = access.connect().await?;
    let rings = Arc::clone(rung);
    // Ends with the client.
    let messages = tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if matches!(message, AsyncMessage::Notification(_)) {
                rings.notify_one();
            }
        }
    });
    let listening = timeout(LISTEN_TIMEOUT, client.batch_execute(LISTEN)).await;
    listening.map_err(|_| Fault::Silent(LISTEN_TIMEOUT))??;
    if said.take().is_some() {
        tracing::info!("{}: told of changes again", access.place());
    }
    // What came before, nobody has heard.
    rung.notify_one();
    drop(messages.await);
    Ok(())
}

/// Half of `duration` up to the whole.
fn drawn(duration: Duration) -> Duration {
    // Without randomness it is the middle: late or early, never wrong.
    let share = getrandom::u32().map_or(0.5, |random| f64::from(random) / f64::from(u32::MAX));
    duration.mul_f64(0.5 + share / 2.0)
}
