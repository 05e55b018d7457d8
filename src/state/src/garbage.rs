//! Garbage collection: which objects of a store nobody needs any more.
//!
//! **Law.** A file counts only while a retained manifest names it, and manifests are written after
//! their files. So what no retained manifest names is garbage, unless it may be of a checkpoint or
//! a compaction that is still in the making, or of somebody else's: both are told by the generation
//! and the epoch that are part of every name. Objects with other names are left alone. Whoever was
//! overtaken by a later generation deletes nothing.

use crate::checkpoint::owner::{Lineage, fenced};
use crate::checkpoint::{CheckpointStore, FOLDERS};
use crate::manifest::{Manifest, numbers_of};
use std::collections::HashSet;
use tidemark_common::{Epoch, Result, machine};

impl CheckpointStore {
    /// Deletes the files of tables and errors and the manifests that none of `retained` names,
    /// except those made for `oldest_in_making` or a later epoch: the caller passes the epoch of
    /// the oldest checkpoint or compaction that is under way, or the next one. Objects of
    /// generations that are not `lineage`'s own are left alone. Returns how many were deleted.
    pub async fn collect(
        &self,
        retained: &[Manifest],
        oldest_in_making: Epoch,
        lineage: &Lineage,
    ) -> Result<usize> {
        let mut named: HashSet<String> = retained
            .iter()
            .flat_map(Manifest::paths)
            .map(str::to_string)
            .collect();
        named.extend(retained.iter().map(Manifest::path));
        let now = machine::micros();
        let dead = |path: &String| {
            !named.contains(path)
                && origin_of(path)
                    .is_some_and(|(g, e)| e < oldest_in_making && lineage.owns(g, now))
        };
        let mut garbage = Vec::new();
        for folder in FOLDERS {
            garbage.extend(self.list(folder).await?.into_iter().filter(dead));
        }
        let count = garbage.len();
        if count == 0 {
            return Ok(0);
        }
        if let Some(by) = self.overtaken(lineage.own()).await? {
            return Err(fenced(self.url(), lineage.own(), &by));
        }
        self.delete(garbage).await?;
        Ok(count)
    }
}

/// Generation and epoch in the name of a table file
/// (`tables/7-0/{generation}-{epoch}-{worker}.parquet`), of kept errors
/// (`errors/{generation}-{epoch}.parquet`) or a manifest (`manifests/{epoch}-{generation}.json`).
pub(crate) fn origin_of(path: &str) -> Option<(u64, Epoch)> {
    if let Some((epoch, generation)) = numbers_of(path) {
        return Some((generation, Epoch(epoch)));
    }
    let (_, name) = path.rsplit_once('/')?;
    let mut parts = name.split_once('.')?.0.split('-');
    Some((
        parts.next()?.parse().ok()?,
        Epoch(parts.next()?.parse().ok()?),
    ))
}
