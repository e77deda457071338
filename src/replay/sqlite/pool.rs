//! Connections for reading, kept open for the next reader.

use std::collections::VecDeque;
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use rusqlite::Connection;

use super::slice::{Link, Slice};
use super::trouble::Outcome;
use crate::sync::lock;

/// Idle connections, of all slices together: each has up to three files open and half a MiB of pages.
const MAX_IDLE: usize = 24;

/// Idle connections, the one that was used last at the back.
#[derive(Debug, Default)]
pub struct Pool(Mutex<VecDeque<Link>>);

/// A connection that goes back when it is dropped.
#[derive(Debug)]
pub struct Lease<'a> {
    pool: &'a Pool,
    /// Taken out only when the lease is dropped.
    link: Option<Link>,
}

impl Pool {
    pub fn lease(&self, slice: &Arc<Slice>) -> Outcome<Lease<'_>> {
        let idle = {
            let mut idle = lock(&self.0);
            let at = idle.iter().rposition(|link| link.slice.number == slice.number);
            at.and_then(|at| idle.remove(at))
        };
        let link = match idle {
            Some(link) => link,
            None => slice.link_to_read()?,
        };
        Ok(Lease { pool: self, link: Some(link) })
    }

    /// Closes the idle connections to slices that are not part of the log any more.
    pub fn close_dead(&self) {
        let mut idle = lock(&self.0);
        let (live, dead) = idle.drain(..).partition(|link| link.slice.is_live());
        *idle = live;
        drop(idle);
        drop::<VecDeque<Link>>(dead);
    }

    pub fn close_all(&self) {
        let idle = std::mem::take(&mut *lock(&self.0));
        drop(idle);
    }

    fn take_back(&self, link: Link) {
        if !link.slice.is_live() {
            return;
        }
        let mut idle = lock(&self.0);
        idle.push_back(link);
        let surplus = if idle.len() > MAX_IDLE { idle.pop_front() } else { None };
        drop(idle);
        drop(surplus);
    }
}

impl Deref for Lease<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.link.as_ref().expect("taken out only when the lease is dropped").connection
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.link.take() {
            self.pool.take_back(link);
        }
    }
}
