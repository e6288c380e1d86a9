//! One reader of the ring buffer, any number of monitors: it runs while there is one.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use abi::event::{Event, kind};
use ipnetwork::IpNetwork;
use parking_lot::Mutex;
use tokio::sync::broadcast::{self, Receiver, Sender, error::RecvError};

use super::line::{Filter, Line};
use super::names::Names;
use crate::desired::NodeFacts;
use crate::kernel::KernelError;
use crate::kernel::events::Events;
use crate::tables::Tables;

/// Events kept for a reader that falls behind.
const BACKLOG: usize = 8192;
/// How often the reader looks whether anybody still listens.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where monitors subscribe.
#[derive(Clone)]
pub struct Hub {
    pins: Option<PathBuf>,
    tables: Arc<Tables>,
    facts: NodeFacts,
    services: Vec<IpNetwork>,
    readers: Arc<Mutex<Readers>>,
}

#[derive(Default)]
struct Readers {
    /// Kinds each monitor wants, by its number.
    wanted: Vec<(u64, u32)>,
    next: u64,
    events: Option<Sender<Event>>,
}

/// One monitor; it is forgotten when this is dropped.
pub struct Subscription {
    number: u64,
    readers: Arc<Mutex<Readers>>,
    events: Receiver<Event>,
    kinds: u32,
    filter: Filter,
    names: Names,
}

impl Hub {
    /// Of the programs pinned in `pins`.
    pub fn new(
        pins: Option<PathBuf>,
        tables: Arc<Tables>,
        facts: NodeFacts,
        services: Vec<IpNetwork>,
    ) -> Self {
        Self { pins, tables, facts, services, readers: Arc::default() }
    }

    /// Begins to listen.
    pub fn subscribe(&self, filter: Filter) -> Result<Subscription, KernelError> {
        self.listen(filter.kinds(), filter)
    }

    /// Begins to listen to what is only audited.
    pub fn audits(&self) -> Result<Subscription, KernelError> {
        self.listen(kind::AUDIT, Filter::default())
    }

    fn listen(&self, kinds: u32, filter: Filter) -> Result<Subscription, KernelError> {
        let mut readers = self.readers.lock();
        let number = readers.next;
        let events = match &readers.events {
            Some(events) => events.subscribe(),
            None => self.start(&mut readers, kinds)?,
        };
        readers.next += 1;
        readers.wanted.push((number, kinds));
        let names = Names::new(Arc::clone(&self.tables), self.facts.clone(), self.services.clone());
        Ok(Subscription { number, readers: Arc::clone(&self.readers), events, kinds, filter, names })
    }

    fn start(&self, readers: &mut Readers, kinds: u32) -> Result<Receiver<Event>, KernelError> {
        let folder = self.pins.as_ref().ok_or_else(|| KernelError::Missing("ring buffer".to_owned()))?;
        let events = Events::open(folder)?;
        events.want(kinds);
        let (sender, receiver) = broadcast::channel(BACKLOG);
        readers.events = Some(sender.clone());
        let shared = Arc::clone(&self.readers);
        std::thread::Builder::new()
            .name("events".to_owned())
            .spawn(move || pump(events, &sender, &shared))
            .map_err(KernelError::io("start the reader of events"))?;
        Ok(receiver)
    }
}

/// Hands events on until nobody listens any more.
fn pump(mut events: Events, sender: &Sender<Event>, readers: &Mutex<Readers>) {
    loop {
        {
            let mut readers = readers.lock();
            if readers.wanted.is_empty() {
                readers.events = None;
                return;
            }
            events.want(readers.wanted.iter().fold(0, |all, (_, kinds)| all | kinds));
        }
        if let Err(error) = events.wait(PATIENCE) {
            tracing::error!(%error, "events cannot be read; monitors end");
            readers.lock().events = None;
            return;
        }
        for event in std::iter::from_fn(|| events.read()).take(BACKLOG) {
            // The last monitor may have left meanwhile.
            _ = sender.send(event);
        }
    }
}

impl Subscription {
    /// The next line; none when there will be no more.
    pub async fn next(&mut self) -> Option<Line> {
        loop {
            match self.events.recv().await {
                Ok(event) => {
                    let shown = self.names.show(&event, Instant::now());
                    if event.kind & self.kinds != 0 && self.filter.wants(&shown) {
                        return Some(Line::Event(Box::new(shown)));
                    }
                }
                Err(RecvError::Lagged(lost)) => return Some(Line::Lost(lost)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.readers.lock().wanted.retain(|(number, _)| *number != self.number);
    }
}
