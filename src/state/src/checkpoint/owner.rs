//! Whose a store is, and which incarnation of its cluster may write there.
//!
//! **Law.** A store belongs to one cluster, which the object `CLUSTER` names; it is created if
//! absent and never changed. Each time a node opens the store it claims a generation: the object
//! `generations/{generation, 20 digits}.json` is created if absent, so that of two servers that
//! stand on copies of one data folder only one gets it, and the other one, at the next look, finds
//! a claim above its own ([`CheckpointStore::overtaken`]) and is *fenced*: it commits and deletes
//! nothing any more. A checkpoint is looked at in this way after its manifest was written and
//! before the log commits it.
//!
//! **Whose files are whose.** Every file has its generation in its name. Files of a generation are
//! ours to delete if our own data folder claimed it (told by the folder's mark, which a copy does
//! not have), or if nobody claimed it: it is of before there were claims, or so old that its claim
//! was cleared. Those of a generation that a copy of the folder claimed are left alone until
//! [`ABANDONED_AFTER`]: who stands on that copy may still need them.

use super::CheckpointStore;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tidemark_common::{Error, Result, SqlState, machine};

/// The object that names the cluster.
pub const OWNER: &str = "CLUSTER";

const GENERATIONS: &str = "generations";

/// Claims that are never cleared.
const CLAIMS_KEPT: u64 = 100;

/// Claims read at a time.
const CLAIMS_READ: usize = 16;

/// How long after a later claim the files of a copy of the data folder are kept.
pub const ABANDONED_AFTER: Duration = Duration::from_secs(7 * 24 * 3600);

#[derive(Serialize, Deserialize)]
struct Owner {
    cluster: String,
}

/// One opening of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The generation.
    pub generation: u64,
    /// Tells this opening from every other.
    pub nonce: String,
    /// Tells the data folder from its copies.
    pub mark: String,
    /// Generations that are not among the ancestors of this one: others claimed them, with copies
    /// of the data folder.
    #[serde(default)]
    pub strangers: BTreeSet<u64>,
    /// The machine.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// The data folder's path.
    pub folder: String,
    /// When, in microseconds since 1970.
    pub at_micros: i64,
}

impl Claim {
    /// Its name within the store.
    pub fn path(&self) -> String {
        claim_path(self.generation)
    }

    /// Who made it, for messages.
    pub fn describe(&self) -> String {
        format!(
            "process {} on host {} with data folder {}",
            self.pid, self.host, self.folder
        )
    }

    /// Its bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(|e| Error::internal(format!("a claim: {e}")))
    }

    /// Reads what [`Claim::encode`] wrote; `path` is for messages.
    pub fn decode(path: &str, bytes: &[u8]) -> Result<Claim> {
        serde_json::from_slice(bytes)
            .map_err(|e| Error::corrupt(format!("{path} is damaged")).with_detail(format!("{e}.")))
    }
}

fn claim_path(generation: u64) -> String {
    format!("{GENERATIONS}/{generation:020}.json")
}

/// What the claims of a store say about its files.
#[derive(Clone, Debug, Default)]
pub struct Lineage {
    own: Claim,
    claims: BTreeMap<u64, Claim>,
}

impl Lineage {
    /// Of the one who made `own`, among all `claims`.
    pub fn new(own: Claim, claims: impl IntoIterator<Item = Claim>) -> Lineage {
        Lineage {
            own,
            claims: claims.into_iter().map(|c| (c.generation, c)).collect(),
        }
    }

    /// The own claim.
    pub fn own(&self) -> &Claim {
        &self.own
    }

    /// Whether files of this generation are ours to delete once nobody needs them.
    pub fn owns(&self, generation: u64, now_micros: i64) -> bool {
        if generation >= self.own.generation {
            return generation == self.own.generation;
        }
        let made_by_us =
            |c: &Claim| c.mark == self.own.mark && !self.own.strangers.contains(&generation);
        self.claims.get(&generation).is_none_or(made_by_us)
            || self.abandoned(generation, now_micros)
    }

    /// Whether somebody went on from this generation so long ago that who made it is gone.
    fn abandoned(&self, generation: u64, now_micros: i64) -> bool {
        let later = self.claims.range(generation + 1..);
        later
            .map(|(_, c)| c.at_micros)
            .min()
            .is_some_and(|at| now_micros.saturating_sub(at) > ABANDONED_AFTER.as_micros() as i64)
    }
}

impl CheckpointStore {
    /// The cluster that the store belongs to; none if it has no owner yet.
    pub async fn owner(&self) -> Result<Option<String>> {
        let Some(bytes) = self.get_if_present(OWNER).await? else {
            return Ok(None);
        };
        let owner: Owner = serde_json::from_slice(&bytes).map_err(|e| {
            Error::corrupt(format!(
                "{OWNER} of checkpoint store {} is damaged",
                self.url
            ))
            .with_detail(format!("{e}."))
        })?;
        Ok(Some(owner.cluster))
    }

    /// Makes it the store of `cluster`, and returns whose it is then: somebody may have been
    /// quicker.
    pub async fn become_owner(&self, cluster: &str) -> Result<String> {
        let owner = Owner {
            cluster: cluster.to_string(),
        };
        let bytes = serde_json::to_vec(&owner)
            .map_err(|e| Error::internal(format!("the owner of a store: {e}")))?;
        match self.put_if_absent(OWNER, bytes.into()).await? {
            true => Ok(owner.cluster),
            false => self.owner().await?.ok_or_else(|| {
                Error::unavailable(
                    SqlState::IO_ERROR,
                    format!("{OWNER} of checkpoint store {} comes and goes", self.url),
                )
            }),
        }
    }

    /// Whether it holds nothing of ours or anybody's: no manifest and no state.
    pub async fn is_empty(&self) -> Result<bool> {
        for folder in super::FOLDERS {
            if !self.list(folder).await?.is_empty() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// All claims, oldest generation first.
    pub async fn claims(&self) -> Result<Vec<Claim>> {
        let mut names = self.list(GENERATIONS).await?;
        names.sort();
        let read = async |name: &String| match self.get_if_present(name).await? {
            Some(bytes) => Claim::decode(name, &bytes).map(Some),
            None => Ok(None),
        };
        let reads = futures::stream::iter(names.iter().map(read)).buffered(CLAIMS_READ);
        let claims: Vec<Option<Claim>> = reads.try_collect().await?;
        Ok(claims.into_iter().flatten().collect())
    }

    /// Claims a generation; `false` if somebody else has it.
    pub async fn claim(&self, claim: &Claim) -> Result<bool> {
        let bytes = Bytes::from(claim.encode()?);
        if self.put_if_absent(&claim.path(), bytes.clone()).await? {
            return Ok(true);
        }
        // A try whose answer was lost may have made it.
        Ok(self.get_if_present(&claim.path()).await? == Some(bytes))
    }

    /// Who claimed the generation after `own`, if somebody did: then the holder of `own` must not
    /// write any more. One request.
    pub async fn overtaken(&self, own: &Claim) -> Result<Option<Claim>> {
        self.claim_of(own.generation + 1).await
    }

    /// The claim of a generation, if there is one. One request, which no listing is late for.
    pub async fn claim_of(&self, generation: u64) -> Result<Option<Claim>> {
        let path = claim_path(generation);
        let found = self.get_if_present(&path).await?;
        found.map(|bytes| Claim::decode(&path, &bytes)).transpose()
    }

    /// Deletes claims that say nothing any more. The newest stay: one that sleeps on a copy of the
    /// folder looks for them when it wakes up.
    pub async fn clear_claims(&self, lineage: &Lineage) -> Result<()> {
        let now = machine::micros();
        let old = lineage.own.generation.saturating_sub(CLAIMS_KEPT);
        let old = lineage.claims.range(..old).map(|(g, _)| *g);
        let useless = old.filter(|g| lineage.abandoned(*g, now));
        self.delete(useless.map(claim_path).collect()).await
    }

    /// Writes `path` durably; `false` if there is such an object.
    pub(crate) async fn put_if_absent(&self, path: &str, bytes: Bytes) -> Result<bool> {
        self.attempt(|| self.put(path, bytes.clone())).await
    }
}

/// The error of the one who was overtaken.
pub fn fenced(store: &str, own: &Claim, by: &Claim) -> Error {
    Error::user(
        SqlState::OBJECT_NOT_READY,
        format!(
            "another server of this cluster has opened checkpoint store {store} since (generation \
             {} after our {})",
            by.generation, own.generation
        ),
    )
    .with_detail(format!("It is {}.", by.describe()))
    .with_hint(
        "Two servers run on copies of one data folder. This one writes nothing any more; let the \
         other one go on, or see \"Who owns a store\" in docs/operations.md.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(generation: u64, nonce: &str, mark: &str) -> Claim {
        Claim {
            generation,
            nonce: nonce.into(),
            mark: mark.into(),
            at_micros: machine::micros(),
            ..Claim::default()
        }
    }

    #[tokio::test]
    async fn a_store_has_one_owner_and_a_generation_one_holder() {
        let store = CheckpointStore::open("memory:").unwrap();
        assert_eq!(store.owner().await.unwrap(), None);
        assert_eq!(store.become_owner("a").await.unwrap(), "a");
        assert_eq!(store.become_owner("b").await.unwrap(), "a");
        assert_eq!(store.owner().await.unwrap().as_deref(), Some("a"));

        let (first, second) = (claim(1, "x", "m"), claim(1, "y", "n"));
        assert!(store.claim(&first).await.unwrap());
        assert!(store.claim(&first).await.unwrap(), "the same again");
        assert!(!store.claim(&second).await.unwrap());
        assert_eq!(store.overtaken(&first).await.unwrap(), None);
        let next = claim(2, "y", "n");
        assert!(store.claim(&next).await.unwrap());
        assert_eq!(store.overtaken(&first).await.unwrap(), Some(next.clone()));
        let error = fenced("memory:", &first, &next);
        assert!(
            error.message().contains("generation 2 after our 1"),
            "{error}"
        );
        assert_eq!(store.claims().await.unwrap().len(), 2);
    }

    #[test]
    fn files_of_a_copy_are_not_ours_until_it_is_long_gone() {
        let now = machine::micros();
        let (mine, copy) = (claim(7, "c", "m"), claim(6, "b", "other"));
        let lineage = Lineage::new(mine.clone(), [claim(5, "a", "m"), copy, mine]);
        let week = ABANDONED_AFTER.as_micros() as i64;
        let owns = |now| {
            (3..=8)
                .filter(|g| lineage.owns(*g, now))
                .collect::<Vec<_>>()
        };
        assert_eq!(owns(now), [3, 4, 5, 7]);
        assert_eq!(owns(now + week + 1_000_000), [3, 4, 5, 6, 7]);
    }

    /// After a takeover the overtaken generation has a mark of its own, or, on a clone of a whole
    /// disk, even ours: the claim itself remembers.
    #[test]
    fn strangers_are_remembered() {
        let mut mine = claim(7, "c", "m");
        mine.strangers.insert(6);
        let lineage = Lineage::new(mine, [claim(5, "a", "m"), claim(6, "b", "m")]);
        let now = machine::micros();
        assert!(lineage.owns(5, now) && !lineage.owns(6, now));
    }
}
