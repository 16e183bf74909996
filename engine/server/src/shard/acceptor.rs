//! Takes connections in, on shard 0, and finds the shard that serves each.
//!
//! One shard listens for all: it hands on what others are to serve. A thread of its own would cost
//! each connection one more wake-up and change of threads, a seventh of what opening it takes.

use std::io;
use std::net::{TcpListener, TcpStream};

use leveret_ring::{ListenerId, Ring, RingError};
use tracing::{debug, error, warn};

use crate::log::Rate;
use crate::shared_state::connection_placement::{ConnectionPlacement, Refusal};

/// The shard that listens.
pub(crate) const ACCEPTING_SHARD: usize = 0;

/// Open listeners and what is known of those who come. Of all but one shard it has no listeners.
pub(crate) struct Acceptor {
    listeners: Vec<ListenerId>,
    /// The shard that got the last connection.
    last_placed: usize,
    failures: Rate,
    refusals: Rate,
}

impl Acceptor {
    /// Listens on `ring`, for `shards` shards.
    ///
    /// # Errors
    /// See [`Ring::listen`].
    pub(crate) fn new(
        ring: &mut Ring,
        listeners: Vec<TcpListener>,
        shards: usize,
    ) -> Result<Self, RingError> {
        let listeners = listeners.into_iter().map(|listener| ring.listen(listener));
        Ok(Self {
            listeners: listeners.collect::<Result<_, _>>()?,
            // So that the first connection goes to shard 0.
            last_placed: shards - 1,
            failures: Rate::default(),
            refusals: Rate::default(),
        })
    }

    /// Takes no more connections in.
    pub(crate) fn stop(&mut self, ring: &mut Ring) {
        for listener in self.listeners.drain(..) {
            ring.stop_listening(listener);
        }
    }

    /// Leaves a connection in the inbox of the shard that is to serve it, which then has to be
    /// told. `None`: it is closed, for there is no room, or the broker stops.
    pub(crate) fn place(
        &mut self,
        stream: TcpStream,
        placement: &ConnectionPlacement,
    ) -> Option<usize> {
        if self.listeners.is_empty() {
            return None;
        }
        match placement.place(stream, self.last_placed) {
            Ok(shard) => {
                self.last_placed = shard;
                debug!("placed a connection on shard {shard}");
                Some(shard)
            }
            Err(refusal) => {
                self.refused(refusal);
                None
            }
        }
    }

    fn refused(&mut self, refusal: Refusal) {
        let Some(withheld) = self.refusals.admit() else {
            return;
        };
        match refusal {
            Refusal::Full { connections_max } => warn!(
                withheld,
                "refused a connection: {connections_max} are open, which is the limit; raise \
                 connections_max or the open files limit"
            ),
            Refusal::Overrun => {
                warn!(withheld, "refused a connection: they come faster than shards take them");
            }
        }
    }

    /// A listener failed; it goes on where it is `retrying`.
    pub(crate) fn listen_failed(&mut self, failure: &io::Error, retrying: bool) {
        if !retrying {
            error!("a listener is gone: {failure}. Restart the broker to listen again");
        } else if let Some(withheld) = self.failures.admit() {
            warn!(
                withheld,
                "cannot accept for now: {failure}. Out of descriptors: raise the open files limit \
                 (ulimit -n, LimitNOFILE=, --ulimit nofile); out of memory: add some"
            );
        }
    }
}
