//! An object store that outlives the processes that use it. What it answers to get, put and delete
//! is consistent, as that of S3; beside that it is slow, fails, loses answers to what it has done,
//! does what nobody waits for any more, and lists what was a while ago.

use super::alive::Alive;
use super::dice::Dice;
use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use parking_lot::{Mutex, MutexGuard};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidemark_common::machine;
use tidemark_state::object_store::path::Path;
use tidemark_state::object_store::{
    Attributes, CopyMode, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result,
};

/// Objects of one answer to a listing; fewer than a real one's 1,000, so that a small store has
/// some.
const PAGE: usize = 100;

/// Requests of one stream of deletions that are under way together.
const DELETES: usize = 10;

const NAME: &str = "SimStore";

/// What is wrong with a store. By default nothing is.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreTrouble {
    /// What a request takes until it has its effect, from and to.
    pub requests: (Duration, Duration),
    /// What the answer takes.
    pub answers: (Duration, Duration),
    /// Of a thousand requests so many fail and have no effect; of as many objects that are read the
    /// bytes do not come.
    pub failing: u64,
    /// Of a thousand requests so many have their effect and are said to have failed.
    pub lost_answers: u64,
    /// Of a thousand puts, copies and deletions whose sender gave up before they were there, or
    /// died, so many arrive all the same, this much later at most.
    pub stragglers: u64,
    pub straggler_time: Duration,
    /// No request arrives, no answer returns.
    pub away: bool,
    /// Of a thousand changes listings do not show so many for a while, this long at most.
    pub late_listings: u64,
    pub listing_time: Duration,
}

/// The store. Cloning shares.
#[derive(Clone)]
pub struct SimStore(Arc<Shared>);

struct Shared {
    dice: Dice,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Path, Object>,
    /// What listings show of a path in place of what is there, and until when.
    late: BTreeMap<Path, (Option<Listed>, Instant)>,
    stragglers: BTreeMap<(Instant, u64), Effect>,
    /// The number of the last object or straggler.
    last: u64,
    trouble: StoreTrouble,
}

#[derive(Clone)]
struct Object {
    bytes: Bytes,
    attributes: Attributes,
    listed: Listed,
}

/// What a listing shows of an object beside its path.
#[derive(Clone, Copy)]
struct Listed {
    size: u64,
    modified: DateTime<Utc>,
    tag: u64,
}

/// What a request changes.
#[derive(Clone)]
enum Effect {
    Put {
        to: Path,
        bytes: Bytes,
        attributes: Attributes,
        if_absent: bool,
    },
    Copy {
        from: Path,
        to: Path,
        if_absent: bool,
    },
    Delete(Path),
}

/// One process's way to the store.
#[derive(Clone)]
struct Handle {
    store: SimStore,
    alive: Alive,
}

/// A change on its way to the store.
struct Flight<'h> {
    handle: &'h Handle,
    effect: Option<Effect>,
    arrives: Instant,
}

impl SimStore {
    /// An empty store without trouble.
    pub fn new(dice: Dice) -> SimStore {
        let state = Mutex::default();
        SimStore(Arc::new(Shared { dice, state }))
    }

    /// The store as a process sees it while it lives.
    pub fn open(&self, alive: Alive) -> Arc<dyn ObjectStore> {
        let store = self.clone();
        Arc::new(Handle { store, alive })
    }

    /// What is wrong from now on.
    pub fn trouble(&self, trouble: StoreTrouble) {
        self.0.state.lock().trouble = trouble;
    }

    /// Nothing is wrong any more: what was to arrive late does not, listings show what is there.
    pub fn calm(&self) {
        let state = &mut *self.state();
        state.trouble = StoreTrouble::default();
        state.late.clear();
        state.stragglers.clear();
    }

    /// The paths of all objects.
    pub fn names(&self) -> Vec<String> {
        let state = self.state();
        state.objects.keys().map(Path::to_string).collect()
    }

    /// What is in an object.
    pub fn bytes(&self, path: &str) -> Option<Bytes> {
        let state = self.state();
        let object = state.objects.get(&Path::from(path))?;
        Some(object.bytes.clone())
    }

    /// The store as it is now: with what has arrived meanwhile.
    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.0.state.lock();
        if !state.stragglers.is_empty() {
            let later = state.stragglers.split_off(&(machine::now(), u64::MAX));
            let arrived = std::mem::replace(&mut state.stragglers, later);
            for effect in arrived.into_values() {
                tracing::debug!(target: "sim", "store: {effect:?} arrives, nobody waits for it");
                // Nobody is told if it cannot be done.
                let _ = state.apply(effect, &self.0.dice);
            }
        }
        state
    }
}

fn generic(why: &'static str) -> Error {
    Error::Generic {
        store: NAME,
        source: why.into(),
    }
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented {
        operation: operation.into(),
        implementer: NAME.into(),
    }
}

impl State {
    fn object(&self, path: &Path) -> Result<&Object> {
        self.objects.get(path).ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "there is no such object".into(),
        })
    }

    /// Does what a request asks for. Returns the tag of the object that it made.
    fn apply(&mut self, effect: Effect, dice: &Dice) -> Result<u64> {
        let (to, bytes, attributes, if_absent) = match effect {
            Effect::Delete(path) => {
                // One that is not there is deleted.
                if self.objects.contains_key(&path) {
                    self.note_late(&path, dice);
                    self.objects.remove(&path);
                }
                return Ok(0);
            }
            Effect::Put {
                to,
                bytes,
                attributes,
                if_absent,
            } => (to, bytes, attributes, if_absent),
            Effect::Copy {
                from,
                to,
                if_absent,
            } => {
                let Object {
                    bytes, attributes, ..
                } = self.object(&from)?.clone();
                (to, bytes, attributes, if_absent)
            }
        };
        if if_absent && self.objects.contains_key(&to) {
            return Err(Error::AlreadyExists {
                path: to.to_string(),
                source: "there is such an object".into(),
            });
        }
        self.note_late(&to, dice);
        self.last += 1;
        let listed = Listed {
            size: bytes.len() as u64,
            modified: DateTime::from_timestamp_micros(machine::micros()).unwrap_or_default(),
            tag: self.last,
        };
        let object = Object {
            bytes,
            attributes,
            listed,
        };
        self.objects.insert(to, object);
        Ok(listed.tag)
    }

    /// Before an object changes: listings may go on to show what is there now.
    fn note_late(&mut self, path: &Path, dice: &Dice) {
        if !dice.chance(self.trouble.late_listings) {
            return;
        }
        let now = machine::now();
        if self.late.get(path).is_none_or(|(_, until)| *until <= now) {
            let before = self.objects.get(path).map(|object| object.listed);
            let time = dice.between(Duration::ZERO, self.trouble.listing_time);
            self.late.insert(path.clone(), (before, now + time));
        }
    }

    /// What a listing shows of the objects below a prefix, behind a path, in order of their paths.
    fn listed<'s>(
        &'s mut self,
        prefix: &'s Path,
        behind: Option<&Path>,
    ) -> impl Iterator<Item = ObjectMeta> + 's {
        if !self.late.is_empty() {
            let now = machine::now();
            self.late.retain(|_, (_, until)| *until > now);
        }
        let from = match behind {
            Some(path) => Bound::Excluded(path),
            None => Bound::Included(prefix),
        };
        let range = (from, Bound::Unbounded);
        let late = &self.late;
        let there = self.objects.range::<Path, _>(range);
        let there = there.filter(|(path, _)| !late.contains_key(*path));
        let mut there = there.map(|(path, object)| (path, object.listed)).peekable();
        let shown = late.range::<Path, _>(range);
        let shown = shown.filter_map(|(path, (listed, _))| listed.map(|listed| (path, listed)));
        let mut shown = shown.peekable();
        let merged = std::iter::from_fn(move || match (there.peek(), shown.peek()) {
            (Some((path, _)), Some((other, _))) if other < path => shown.next(),
            (None, _) => shown.next(),
            _ => there.next(),
        });
        let inside = merged.take_while(|(path, _)| path.as_ref().starts_with(prefix.as_ref()));
        let inside = inside.filter(|(path, _)| parts_below(path, prefix) > 0);
        inside.map(|(path, listed)| listed.meta(path))
    }
}

/// How many parts of a path lie below a prefix, if it is one.
fn parts_below(path: &Path, prefix: &Path) -> usize {
    path.prefix_match(prefix).map_or(0, Iterator::count)
}

impl Listed {
    fn meta(&self, path: &Path) -> ObjectMeta {
        ObjectMeta {
            location: path.clone(),
            last_modified: self.modified,
            size: self.size,
            e_tag: Some(self.tag.to_string()),
            version: None,
        }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Effect::Put { to, .. } => write!(f, "put of {to}"),
            Effect::Copy { from, to, .. } => write!(f, "copy of {from} to {to}"),
            Effect::Delete(path) => write!(f, "deletion of {path}"),
        }
    }
}

impl Flight<'_> {
    /// It is there: what is to be done, and nothing of it is under way any more.
    fn arrive(mut self) -> Option<Effect> {
        self.effect.take()
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let Some(effect) = self.effect.take() else {
            return;
        };
        // Whoever ends it may be on no simulated machine: it asks for no time.
        let store = &self.handle.store.0;
        let mut state = store.state.lock();
        if store.dice.chance(state.trouble.stragglers) {
            let most = state.trouble.straggler_time;
            let at = self.arrives + store.dice.between(Duration::ZERO, most);
            state.last += 1;
            let number = state.last;
            state.stragglers.insert((at, number), effect);
        }
    }
}

impl Handle {
    fn check(&self) -> Result<()> {
        self.alive.check().map_err(|e| Error::Generic {
            store: NAME,
            source: e.into(),
        })
    }

    /// Time passes. Nothing is locked meanwhile.
    async fn wait(&self, time: Duration) -> Result<()> {
        if !time.is_zero() {
            machine::sleep(time).await;
        }
        self.check()
    }

    fn trouble(&self) -> StoreTrouble {
        self.store.0.state.lock().trouble
    }

    fn time(&self, takes: (Duration, Duration)) -> Duration {
        self.store.0.dice.between(takes.0, takes.1)
    }

    /// It is chance that a request, or an answer, does not arrive.
    fn passes(&self, failing: u64, why: &'static str) -> Result<()> {
        if self.trouble().away {
            return Err(generic("connection refused"));
        }
        if self.store.0.dice.chance(failing) {
            tracing::debug!(target: "sim", "store: {why}");
            return Err(generic(why));
        }
        Ok(())
    }

    /// What a request does at the store, between its way there and the way back.
    async fn request<T>(&self, at_the_store: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.check()?;
        self.wait(self.time(self.trouble().requests)).await?;
        self.arrived(at_the_store).await
    }

    async fn arrived<T>(&self, at_the_store: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        self.passes(self.trouble().failing, "503 Service Unavailable")?;
        let done = at_the_store(&mut self.store.state());
        self.wait(self.time(self.trouble().answers)).await?;
        let lost = self.trouble().lost_answers;
        self.passes(lost, "connection closed before message completed")?;
        done
    }

    /// The same for one that changes something, and may arrive when nobody waits for it any more.
    async fn change(&self, effect: Effect) -> Result<u64> {
        self.check()?;
        let time = self.time(self.trouble().requests);
        let flight = Flight {
            handle: self,
            effect: Some(effect),
            arrives: machine::now() + time,
        };
        self.wait(time).await?;
        let Some(effect) = flight.arrive() else {
            return Err(generic("a request arrived twice"));
        };
        let dice = &self.store.0.dice;
        self.arrived(|state| state.apply(effect, dice)).await
    }

    /// The next page of a listing, behind a path.
    async fn page(&self, prefix: &Path, behind: Option<&Path>) -> Result<Vec<ObjectMeta>> {
        self.request(|state| Ok(state.listed(prefix, behind).take(PAGE).collect()))
            .await
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)
    }
}

#[async_trait]
impl ObjectStore for Handle {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let if_absent = match options.mode {
            PutMode::Overwrite => false,
            PutMode::Create => true,
            PutMode::Update(_) => return Err(not_implemented("conditional update")),
        };
        let put = Effect::Put {
            to: location.clone(),
            bytes: payload.into(),
            attributes: options.attributes,
            if_absent,
        };
        let tag = self.change(put).await?;
        Ok(PutResult {
            e_tag: Some(tag.to_string()),
            version: None,
        })
    }

    async fn put_multipart_opts(
        &self,
        _location: &Path,
        _options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented("multipart upload"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.request(|state| state.object(location).cloned());
        let Object {
            bytes,
            attributes,
            listed,
        } = found.await?;
        let meta = listed.meta(location);
        options.check_preconditions(&meta)?;
        let range = match options.range {
            Some(range) => range.as_range(listed.size).map_err(|e| Error::Generic {
                store: NAME,
                source: e.into(),
            })?,
            None => 0..listed.size,
        };
        let part = bytes.slice(range.start as usize..range.end as usize);
        let comes = self.passes(self.trouble().failing, "error reading a body");
        let payload = stream::once(async move { comes.map(|()| part) });
        Ok(GetResult {
            payload: GetResultPayload::Stream(payload.boxed()),
            meta,
            range,
            attributes,
        })
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let handle = self.clone();
        let deletions = locations.map(move |location| {
            let handle = handle.clone();
            async move {
                let location = location?;
                handle.change(Effect::Delete(location.clone())).await?;
                Ok(location)
            }
        });
        deletions.buffered(DELETES).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (handle, prefix) = (self.clone(), prefix.cloned().unwrap_or_default());
        // Behind which path the next page begins; none behind the last one.
        let pages = stream::try_unfold(Some(None::<Path>), move |next| {
            let (handle, prefix) = (handle.clone(), prefix.clone());
            async move {
                let Some(behind) = next else {
                    return Ok::<_, Error>(None);
                };
                let page = handle.page(&prefix, behind.as_ref()).await?;
                let last = page.last().filter(|_| page.len() == PAGE);
                let next = last.map(|meta| Some(meta.location.clone()));
                Ok(Some((stream::iter(page).map(Ok), next)))
            }
        });
        pages.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let prefix = prefix.cloned().unwrap_or_default();
        let all: Vec<ObjectMeta> = self
            .request(|state| Ok(state.listed(&prefix, None).collect()))
            .await?;
        let (objects, below): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|meta| parts_below(&meta.location, &prefix) == 1);
        let folders = below.iter().filter_map(|meta| {
            let mut parts = meta.location.prefix_match(&prefix)?;
            Some(prefix.clone().join(parts.next()?))
        });
        Ok(ListResult {
            common_prefixes: folders.collect::<BTreeSet<Path>>().into_iter().collect(),
            objects,
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        let if_absent = matches!(options.mode, CopyMode::Create);
        let copy = Effect::Copy {
            from,
            to,
            if_absent,
        };
        self.change(copy).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
