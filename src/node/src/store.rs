//! What a running node owes the checkpoint store beside checkpoints: to say that it is away, to
//! notice that another server took it over, to clear what nobody needs.

use crate::cluster::Membership;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use tidemark_common::{Error, Result, machine};
use tidemark_state::checkpoint::owner::{Lineage, fenced};
use tidemark_state::checkpoint::{CheckpointStore, StoreHealth};

/// How often the store's health is looked at.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How often it is said again that the store is away.
const TELL_INTERVAL: Duration = Duration::from_secs(60);

/// How often an idle node asks whether it was overtaken; a busy one asks at each checkpoint.
const CLAIM_INTERVAL: Duration = Duration::from_secs(5);

/// Says in the server's log when the store fails, now and then how it goes, and when it works
/// again. Ends with the last handle of the store.
pub fn tell_trouble(
    store: &CheckpointStore,
    log_folder: PathBuf,
) -> impl Future<Output = ()> + Send + use<> {
    let (health, url) = (Arc::downgrade(store.health()), store.url().to_string());
    async move {
        let mut told: Option<Instant> = None;
        loop {
            machine::sleep(LOOK_INTERVAL).await;
            let Some(health) = health.upgrade() else {
                return;
            };
            tell(&health, &url, &log_folder, &mut told);
        }
    }
}

fn tell(health: &StoreHealth, url: &str, log_folder: &Path, told: &mut Option<Instant>) {
    let Some(trouble) = health.trouble() else {
        if told.take().is_some() {
            tracing::info!(store = url, "the checkpoint store works again");
        }
        return;
    };
    if told.is_some_and(|at| machine::elapsed(at) < TELL_INTERVAL) {
        return;
    }
    *told = Some(machine::now());
    tracing::warn!(
        store = url,
        error = %trouble.error,
        hint = trouble.error.hint().unwrap_or_default(),
        away_seconds = machine::elapsed(trouble.since).as_secs(),
        log_megabytes = size_of(log_folder) >> 20,
        "the checkpoint store fails: waiting for it; nothing is lost, and the log in the data \
         folder grows meanwhile"
    );
}

/// Bytes of the files in a folder; what cannot be looked at counts nothing.
fn size_of(folder: &Path) -> u64 {
    let files = std::fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|f| Some(f.metadata().ok()?.len())).sum()
}

/// Looks now and then whether another server claimed the store, for a node that has nothing to
/// store.
pub async fn watch_claim(store: CheckpointStore, claim: Weak<Claim>) {
    loop {
        machine::sleep(CLAIM_INTERVAL).await;
        let Some(claim) = claim.upgrade() else {
            return;
        };
        // A store that does not answer is told of by its health.
        if let Ok(Some(error)) = claim.overtaken(&store).await {
            claim.give_way(&error);
        }
    }
}

/// This incarnation's claim of the checkpoint store.
pub struct Claim {
    /// It, and whose the files there are.
    pub lineage: Lineage,
    /// Where there are other nodes, those who claim the store are of the same group.
    pub membership: Membership,
}

impl Claim {
    /// The error that ends this process, if another server claimed the store since.
    pub async fn overtaken(&self, store: &CheckpointStore) -> Result<Option<Error>> {
        let own = self.lineage.own();
        let by = store.overtaken(own).await?;
        Ok(by.map(|by| fenced(store.url(), own, &by)))
    }

    /// Ends the process: nothing that it decides from now on would count. What it has decided is in
    /// its own log; its sinks and its answers must not go beside those of the other server.
    pub fn give_way(&self, error: &Error) -> ! {
        if self.membership.has_others() {
            tracing::warn!(%error, "another node of the cluster leads: this one starts anew");
            machine::exit(machine::RESTART);
        }
        tracing::error!(
            %error,
            detail = error.detail().unwrap_or_default(),
            hint = error.hint().unwrap_or_default(),
            "this server was overtaken: it writes nothing any more and exits"
        );
        machine::exit(1)
    }
}

/// Clears what the last process had not finished writing, and claims that say nothing any more.
pub async fn tidy_up(store: &CheckpointStore, lineage: &Lineage) -> Result<()> {
    let unfinished = store.remove_unfinished().await?;
    if unfinished > 0 {
        tracing::info!(
            files = unfinished,
            "removed what the last process had not finished writing"
        );
    }
    if let Err(error) = store.clear_claims(lineage).await {
        tracing::warn!(%error, "old claims of the checkpoint store could not be deleted");
    }
    Ok(())
}
