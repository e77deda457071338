//! Pages of the log for those who catch up: each is read and encoded once, and shared by all who want it.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex};

use super::Busy;
use super::event::StoredEvent;
use super::store::{Direction, Entry, Range, Store, StoreError, StreamName};
use crate::sync::lock;
use crate::telemetry::metrics::Metrics;
use crate::worker::mailbox::{Hold, Mailbox};

/// Messages of a page. Pages begin at multiples of it, so that clients which missed about the same share them.
pub const PAGE_MESSAGES: usize = 100;
/// Bytes of a page's messages, unless the first alone is larger.
pub const PAGE_BYTES: u64 = 256 * 1024;
/// Of the pages that are kept.
const SHELF_BYTES: usize = 32 * 1024 * 1024;
/// Requests that may wait for one read.
const MAX_JOINED: usize = 65_536;
/// What an entry takes beside its frames.
const ENTRY_OVERHEAD_BYTES: usize = 256;
/// A message is kept as it was sent to those without positions, to the others, and to those who catch up.
const FORMS: usize = 3;

/// Consecutive messages of one stream, oldest first. The first ones may lie before what was asked for.
#[derive(Debug, Default)]
pub struct Page {
    pub entries: Vec<PageEntry>,
}

/// A message, or what is left of one. A serial that is missing between two entries was lost with a damaged slice.
#[derive(Clone, Debug)]
pub enum PageEntry {
    Event(Arc<StoredEvent>),
    /// Its checksum fails: the message cannot be had any more.
    Unreadable {
        serial: u64,
    },
}

/// Called once, on a reader thread.
pub type PageDone = Box<dyn FnOnce(Result<Arc<Page>, StoreError>) + Send>;

/// A wish for the messages after a serial.
pub struct Request {
    stream: Arc<StreamName>,
    after: u64,
    done: PageDone,
    /// A page that begins earlier does not reach so far.
    is_exact: bool,
}

/// The pages that are kept, and those that are being read.
#[derive(Debug)]
pub struct Pages {
    shelf: Mutex<Shelf>,
    mailboxes: Arc<[Mailbox]>,
    metrics: Arc<Metrics>,
}

#[derive(Debug, Default)]
struct Shelf {
    kept: HashMap<Key, Kept>,
    /// The keys of `kept`, in the order in which they go when room is needed.
    order: VecDeque<Key>,
    bytes: usize,
    reading: HashMap<Key, Reading>,
}

/// Where the reading of a page begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    stream: Arc<StreamName>,
    after: u64,
}

#[derive(Clone, Debug)]
struct Kept {
    page: Arc<Page>,
    /// Of its messages in the store.
    size: u64,
    /// The log ended where it ends: it grows when somebody asks for what follows.
    is_tail: bool,
    /// Since room was last needed.
    was_used: bool,
}

/// A read that is under way.
#[derive(Debug, Default)]
struct Reading {
    /// Who asked after it had begun: they get its page if that leads them on.
    joined: Vec<Request>,
    /// The stream was purged since it began.
    is_stale: bool,
}

/// How a request is served.
enum Found {
    Kept(Arc<Page>, Request),
    /// By reading the page, or what comes after its beginning.
    ToRead(Key, Option<Kept>, Request),
    /// By whoever is reading the page already.
    Joined,
    /// Not at all: too many wait for the page.
    Refused(Request),
}

impl Page {
    /// What comes after `serial`.
    pub fn after(&self, serial: u64) -> &[PageEntry] {
        let first = self.entries.partition_point(|entry| entry.serial() <= serial);
        &self.entries[first..]
    }

    fn leads_past(&self, serial: u64) -> bool {
        self.entries.last().is_some_and(|last| last.serial() > serial)
    }

    fn weight(&self) -> usize {
        self.entries.iter().map(PageEntry::weight).sum()
    }

    fn unreadable(&self) -> u64 {
        self.entries.iter().filter(|entry| matches!(entry, PageEntry::Unreadable { .. })).count() as u64
    }
}

impl PageEntry {
    fn new(channel: &str, entry: Entry) -> Self {
        match entry {
            Entry::Message(message) => Self::Event(Arc::new(StoredEvent::from_message(channel, message))),
            Entry::Unreadable { serial } => Self::Unreadable { serial },
        }
    }

    pub fn serial(&self) -> u64 {
        match self {
            Self::Event(event) => event.serial(),
            Self::Unreadable { serial } => *serial,
        }
    }

    fn weight(&self) -> usize {
        let frames = match self {
            Self::Event(event) => event.plain().len() * FORMS,
            Self::Unreadable { .. } => 0,
        };
        frames + ENTRY_OVERHEAD_BYTES
    }
}

impl Request {
    pub fn new(stream: Arc<StreamName>, after: u64, done: PageDone) -> Self {
        Self { stream, after, done, is_exact: false }
    }

    fn key(&self) -> Key {
        let into_page = if self.is_exact { 0 } else { self.after % PAGE_MESSAGES as u64 };
        Key { stream: Arc::clone(&self.stream), after: self.after - into_page }
    }
}

impl Pages {
    pub fn new(mailboxes: Arc<[Mailbox]>, metrics: Arc<Metrics>) -> Self {
        Self { shelf: Mutex::default(), mailboxes, metrics }
    }

    /// Serves a request, and those that join it while it reads.
    pub fn serve(&self, store: &dyn Store, request: Request) {
        let mut waiting = vec![request];
        while let Some(request) = waiting.pop() {
            match is_at_end(store, &request) {
                Ok(false) => {}
                Ok(true) => {
                    self.answer(request, Ok(Arc::default()));
                    continue;
                }
                Err(error) => {
                    self.answer(request, Err(error));
                    continue;
                }
            }
            let found = lock(&self.shelf).find(request);
            match found {
                Found::Kept(page, request) => {
                    self.metrics.replay.page_cache_hits.inc();
                    self.answer(request, Ok(page));
                }
                Found::ToRead(key, tail, request) => {
                    let read = Kept::read(store, &key, tail);
                    let page = read.as_ref().map(|kept| Arc::clone(&kept.page)).map_err(StoreError::clone);
                    self.metrics.replay.skipped.inc_by(page.as_ref().map_or(0, |page| page.unreadable()));
                    let reading = lock(&self.shelf).end_reading(&key, read.ok());
                    waiting.extend(self.answer_reader(request, &page));
                    waiting.extend(self.answer_joined(reading, &page));
                }
                Found::Joined => {}
                Found::Refused(request) => {
                    self.answer(request, Err(StoreError::Unavailable(Busy.to_string())));
                }
            }
        }
    }

    /// Forgets what it has of a stream, also what is being read.
    pub fn forget(&self, stream: &StreamName) {
        lock(&self.shelf).forget(|key| *key.stream == *stream);
    }

    pub fn forget_all(&self) {
        lock(&self.shelf).forget(|_| true);
    }

    /// The request that the page was read for: it comes back when the page was cut off before it.
    fn answer_reader(&self, request: Request, page: &Result<Arc<Page>, StoreError>) -> Option<Request> {
        match page {
            Ok(page) if !page.leads_past(request.after) => {
                if !request.is_exact {
                    return Some(Request { is_exact: true, ..request });
                }
                // The end of the log is lost.
                self.answer(request, Ok(Arc::default()));
            }
            _ => self.answer(request, page.clone()),
        }
        None
    }

    /// Those that joined: what the page cannot serve comes back.
    fn answer_joined(&self, reading: Reading, page: &Result<Arc<Page>, StoreError>) -> Vec<Request> {
        let Reading { joined, is_stale } = reading;
        let is_served = |request: &Request| match page {
            Ok(page) => !is_stale && page.leads_past(request.after),
            Err(_) => true,
        };
        let (served, left): (Vec<_>, Vec<_>) = joined.into_iter().partition(is_served);
        let _hold = (served.len() > 1).then(|| Hold::new(&self.mailboxes));
        for request in served {
            self.metrics.replay.page_cache_hits.inc();
            self.answer(request, page.clone());
        }
        left
    }

    fn answer(&self, request: Request, page: Result<Arc<Page>, StoreError>) {
        self.metrics.replay.pages.inc();
        (request.done)(page);
    }
}

/// Whether nothing comes after what was asked for. Another node may have written what this one has not heard of.
fn is_at_end(store: &dyn Store, request: &Request) -> Result<bool, StoreError> {
    Ok(request.after >= store.position(&request.stream).serial
        && request.after >= store.head(&request.stream)?)
}

impl Shelf {
    fn find(&mut self, mut request: Request) -> Found {
        loop {
            let key = request.key();
            let mut tail = None;
            if let Some(kept) = self.kept.get_mut(&key) {
                kept.was_used = true;
                if kept.page.leads_past(request.after) {
                    return Found::Kept(Arc::clone(&kept.page), request);
                }
                if kept.is_tail {
                    tail = Some(kept.clone());
                } else if !request.is_exact {
                    // Its messages are large: the page ends before the next one begins.
                    request.is_exact = true;
                    continue;
                }
            }
            if let Some(reading) = self.reading.get_mut(&key) {
                if reading.joined.len() >= MAX_JOINED {
                    return Found::Refused(request);
                }
                reading.joined.push(request);
                return Found::Joined;
            }
            self.reading.insert(key.clone(), Reading::default());
            return Found::ToRead(key, tail, request);
        }
    }

    fn end_reading(&mut self, key: &Key, read: Option<Kept>) -> Reading {
        let reading = self.reading.remove(key).unwrap_or_default();
        if let Some(read) = read.filter(|read| !reading.is_stale && !read.page.entries.is_empty()) {
            self.keep(key, read);
        }
        reading
    }

    fn keep(&mut self, key: &Key, read: Kept) {
        self.bytes += read.page.weight();
        match self.kept.insert(key.clone(), read) {
            Some(shorter) => self.bytes -= shorter.page.weight(),
            None => self.order.push_back(key.clone()),
        }
        while self.bytes > SHELF_BYTES {
            self.make_room();
        }
    }

    /// Drops the page that comes next in order, or lets it pass once when it was used.
    fn make_room(&mut self) {
        let Some(key) = self.order.pop_front() else { return };
        match self.kept.get_mut(&key) {
            Some(kept) if kept.was_used => {
                kept.was_used = false;
                self.order.push_back(key);
            }
            _ => self.drop_page(&key),
        }
    }

    fn drop_page(&mut self, key: &Key) {
        if let Some(kept) = self.kept.remove(key) {
            self.bytes -= kept.page.weight();
        }
    }

    fn forget(&mut self, is_meant: impl Fn(&Key) -> bool) {
        let (gone, order) = self.order.drain(..).partition(|key| is_meant(key));
        self.order = order;
        let gone: VecDeque<Key> = gone;
        gone.iter().for_each(|key| self.drop_page(key));
        let reading = self.reading.iter_mut().filter(|(key, _)| is_meant(key));
        reading.for_each(|(_, reading)| reading.is_stale = true);
    }
}

impl Kept {
    /// Reads a page from where it begins, or from where it ended so far.
    fn read(store: &dyn Store, key: &Key, tail: Option<Self>) -> Result<Self, StoreError> {
        let (mut entries, mut size) =
            tail.map_or_else(Default::default, |tail| (tail.page.entries.clone(), tail.size));
        // Asked first: what is stored in between may be read or not.
        let head = store.position(&key.stream).serial;
        let range = Range {
            after: entries.last().map_or(key.after, PageEntry::serial),
            before: u64::MAX,
            direction: Direction::Forward,
            max_messages: PAGE_MESSAGES - entries.len(),
            max_bytes: PAGE_BYTES.saturating_sub(size),
        };
        for entry in store.read(&key.stream, range)? {
            if let Entry::Message(message) = &entry {
                size += message.content.size();
            }
            entries.push(PageEntry::new(&key.stream.channel, entry));
        }
        let is_full = entries.len() >= PAGE_MESSAGES;
        // The head may be an old one; a page that grows is bounded all the same.
        let is_tail =
            !is_full && size < PAGE_BYTES && entries.last().is_none_or(|last| last.serial() >= head);
        Ok(Self { page: Arc::new(Page { entries }), size, is_tail, was_used: false })
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("stream", &self.stream)
            .field("after", &self.after)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::store::{Append, Caps, Content, Hints};
    use super::*;

    const CHANNELS: u64 = 64;

    fn stream(number: u64) -> StreamName {
        StreamName { app: "42".into(), channel: number.to_string().into() }
    }

    /// With a page of messages of two kilobytes on each channel.
    fn store() -> MemoryStore {
        let caps = Caps { longest_window_ms: 3_600_000, max_bytes: 1 << 30, app_max_bytes: Vec::new() };
        let store = MemoryStore::new(&caps);
        let data: Box<str> = format!("\"{}\"", "x".repeat(2000)).into();
        let content = Content { id: None, event: "e".into(), data, user_id: None, except: None };
        for number in 0..CHANNELS {
            let append = Append {
                stream: stream(number),
                content: content.clone(),
                inactivity_ttl_ms: 0,
                hints: Hints::default(),
            };
            store.append(&vec![append; PAGE_MESSAGES], 1).unwrap();
        }
        store
    }

    fn read(pages: &Pages, store: &MemoryStore, number: u64) {
        let done =
            Box::new(|page: Result<Arc<Page>, _>| assert_eq!(page.unwrap().entries.len(), PAGE_MESSAGES));
        pages.serve(store, Request::new(Arc::new(stream(number)), 0, done));
    }

    #[test]
    fn the_shelf_keeps_what_is_used_and_no_more_than_it_may() {
        let (store, metrics) = (store(), Arc::new(Metrics::new()));
        let pages = Pages::new(Arc::from([Mailbox::new(1)]), Arc::clone(&metrics));
        for number in 0..CHANNELS {
            read(&pages, &store, number);
            // The first channel's page is wanted again and again.
            read(&pages, &store, 0);
            let shelf = lock(&pages.shelf);
            assert!(shelf.bytes <= SHELF_BYTES);
            assert_eq!(shelf.bytes, shelf.kept.values().map(|kept| kept.page.weight()).sum::<usize>());
            assert_eq!(shelf.order.len(), shelf.kept.len());
        }
        assert_eq!(metrics.replay.page_cache_hits.get(), CHANNELS);
        assert!((10..CHANNELS as usize).contains(&lock(&pages.shelf).kept.len()));

        pages.forget(&stream(0));
        assert!(lock(&pages.shelf).kept.keys().all(|key| *key.stream != stream(0)));
        pages.forget_all();
        assert_eq!(lock(&pages.shelf).bytes, 0);
        read(&pages, &store, 1);
        assert_eq!(lock(&pages.shelf).order.len(), 1);
    }
}
