//! On which terms nodes work together: a host has the store, the secret key and the release of the
//! node that leads, and it reaches all others that work, as they reach it.
//!
//! What a host stores in another place nobody finds again, and a manifest that names it is that of
//! a database which is lost in part. So nobody works who has not seen the claim of the incarnation,
//! which nobody else has made, in its own store.

use super::{Mate, Site, Wants};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tidemark_common::{VNODES, machine};
use tidemark_control::raft::MemberId;

/// How long a node may take to be reached by another one.
const REACH_PATIENCE: Duration = Duration::from_millis(400);
/// How long the store may take to say whose it is.
const CLAIM_PATIENCE: Duration = Duration::from_millis(800);

/// Of what the nodes of a crew say to each other. While a cluster is changed to another release, a
/// crew has only nodes of its leader's version; the others keep the log.
const VERSION: u32 = 2;

/// Who works for this incarnation has its store and its secret key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Terms {
    /// Its claim is in the store.
    pub generation: u64,
    /// And is this one.
    pub nonce: String,
    /// Something that is sealed with the key, if anything is.
    pub sealed: Option<String>,
    /// Whom it should reach, and where they are.
    pub mates: Vec<(MemberId, String)>,
}

/// How many workers can be had.
#[derive(Serialize, Deserialize)]
pub(super) struct Offer {
    pub workers: usize,
    #[serde(default)]
    version: u32,
    /// Why they cannot, though they are there.
    #[serde(default)]
    refusal: Option<String>,
    /// Whom they do not reach of those that they should.
    #[serde(default)]
    pub unreached: Vec<MemberId>,
}

/// What a node knows of whom it could work for.
#[derive(Default)]
pub(super) struct Standing {
    /// The kind of what kept it from working when it was asked last.
    refused: Option<&'static str>,
    /// Its store has been that of an incarnation of the cluster.
    has_store: bool,
}

impl Offer {
    /// Whether they may work in a crew that has room for so many.
    pub(super) fn fits(&self, room: usize) -> bool {
        self.refusal().is_none() && (1..=room).contains(&self.workers)
    }

    /// Why they may not, whatever the room.
    pub(super) fn refusal(&self) -> Option<&str> {
        match self.version {
            VERSION => self.refusal.as_deref(),
            _ => Some("it is of another release"),
        }
    }
}

impl Site {
    /// Whom this node does not reach of these.
    async fn unreached(&self, mates: &[(MemberId, String)]) -> Vec<MemberId> {
        let own = self.membership.status().member;
        let others = mates.iter().filter(|(member, _)| *member != own);
        let reached = others.map(async |(member, rpc)| {
            let reached = machine::timeout(REACH_PATIENCE, self.connect(rpc, &Wants::Reach)).await;
            (!matches!(reached, Some(Ok(_)))).then_some(*member)
        });
        let unreached = futures::future::join_all(reached).await;
        unreached.into_iter().flatten().collect()
    }

    /// What keeps this node from working on these terms: in a word, and why.
    async fn refusal(&self, terms: &Terms) -> Option<(&'static str, String)> {
        let (store, vault) = (&self.store, &self.outside.vault);
        let claim = machine::timeout(CLAIM_PATIENCE, store.claim_of(terms.generation)).await;
        let has_store = self.standing.lock().has_store;
        match claim {
            Some(Ok(claim)) if claim.as_ref().is_none_or(|c| c.nonce != terms.nonce) => {
                let url = store.url();
                return Some((
                    "store",
                    format!("its checkpoint store, {url}, is not that of the node that leads"),
                ));
            }
            Some(Ok(_)) => self.standing.lock().has_store = true,
            // One that is slow, or away for a while, is the same as before.
            _ if has_store => {}
            Some(Err(error)) => {
                return Some(("away", format!("its checkpoint store fails: {error}")));
            }
            None => return Some(("away", "its checkpoint store does not answer".into())),
        }
        let sealed = terms.sealed.as_ref()?;
        let error = vault.unseal(sealed).err()?;
        let reason = format!("its secret key is not that of the others: {error}");
        Some(("key", reason))
    }

    /// What this node can do, on these terms.
    pub(super) async fn offer(&self, terms: &Terms) -> Offer {
        let (refusal, unreached) = tokio::join!(self.refusal(terms), self.unreached(&terms.mates));
        let kind = refusal.as_ref().map(|(kind, _)| *kind);
        let before = std::mem::replace(&mut self.standing.lock().refused, kind);
        if let Some((_, reason)) = refusal.as_ref().filter(|_| before != kind) {
            tracing::warn!(reason, "this node has no part of the work");
        }
        Offer {
            workers: self.config.workers,
            version: VERSION,
            refusal: refusal.map(|(_, reason)| reason),
            unreached,
        }
    }
}

/// Of those that offer their workers to `leader` those who can work together: they fit in, and
/// reach each other. Rather those who miss few. With each comes the link over which it did.
pub(super) fn chosen<L>(leader: &Mate, mut offered: Vec<(Mate, L, Offer)>) -> Vec<(Mate, L)> {
    let missed_by = |member| {
        let misses = |(_, _, offer): &&(Mate, L, Offer)| offer.unreached.contains(&member);
        offered.iter().filter(misses).count()
    };
    let misses = |(mate, _, offer): &(Mate, L, Offer)| {
        let misses = offer.unreached.len() + missed_by(mate.member);
        (mate.member, misses)
    };
    let misses: Vec<(MemberId, usize)> = offered.iter().map(misses).collect();
    let misses = |member| misses.iter().find(|(m, _)| *m == member).map(|(_, n)| *n);
    offered.sort_by_key(|(mate, ..)| (misses(mate.member), mate.member));
    let (mut members, mut workers) = (vec![leader.member], leader.workers);
    // Whom one of them does not reach.
    let mut apart: Vec<MemberId> = Vec::new();
    let mut all = Vec::new();
    for (mate, link, offer) in offered {
        let misses_one = members
            .iter()
            .any(|member| offer.unreached.contains(member));
        if misses_one || apart.contains(&mate.member) {
            let node = mate.member;
            tracing::warn!(
                node,
                "another node does not reach all that work: it is left out"
            );
        } else if offer.fits(VNODES - workers) {
            members.push(mate.member);
            workers += mate.workers;
            apart.extend(offer.unreached);
            all.push((mate, link));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mate(member: MemberId) -> Mate {
        Mate {
            member,
            rpc: String::new(),
            workers: 2,
        }
    }

    fn offer(unreached: &[MemberId]) -> Offer {
        Offer {
            workers: 2,
            version: VERSION,
            refusal: None,
            unreached: unreached.into(),
        }
    }

    /// The numbers of those who are chosen, of nodes that each miss some; node 1 leads.
    fn members(offered: &[(MemberId, &[MemberId])]) -> Vec<MemberId> {
        let offered = offered
            .iter()
            .map(|(m, missed)| (mate(*m), (), offer(missed)));
        let chosen = chosen(&mate(1), offered.collect());
        chosen.into_iter().map(|(mate, ())| mate.member).collect()
    }

    #[test]
    fn only_those_work_together_who_reach_each_other() {
        assert_eq!(members(&[(2, &[]), (3, &[])]), [2, 3]);
        // Two that do not reach each other, in both directions or in one.
        assert_eq!(members(&[(2, &[3]), (3, &[2])]), [2]);
        assert_eq!(members(&[(2, &[3]), (3, &[])]), [2]);
        assert_eq!(members(&[(2, &[]), (3, &[2])]), [2]);
        // Rather one is left out than two.
        assert_eq!(members(&[(2, &[3, 4]), (3, &[]), (4, &[])]), [3, 4]);
        assert_eq!(members(&[(2, &[]), (3, &[2]), (4, &[2])]), [3, 4]);
        // Nobody works who does not reach the one that leads.
        assert_eq!(members(&[(2, &[1]), (3, &[])]), [3]);
        // One that is away matters to nobody.
        assert_eq!(members(&[(2, &[9]), (3, &[9])]), [2, 3]);
    }

    #[test]
    fn who_cannot_work_is_left_out() {
        let newer = Offer {
            version: VERSION + 1,
            ..offer(&[])
        };
        let refused = Offer {
            refusal: Some("its store is another".into()),
            ..offer(&[])
        };
        let large = Offer {
            workers: VNODES,
            ..offer(&[])
        };
        let none = Offer {
            workers: 0,
            ..offer(&[])
        };
        for unfit in [newer, refused, large, none] {
            let offered = vec![(mate(2), (), unfit), (mate(3), (), offer(&[]))];
            let chosen = chosen(&mate(1), offered);
            assert!(matches!(&chosen[..], [(Mate { member: 3, .. }, ())]));
        }
        // What an older release says.
        let old: Offer = serde_json::from_str("{\"workers\": 2}").unwrap();
        assert!(old.refusal().is_some());
    }
}
