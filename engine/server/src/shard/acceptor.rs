//! Accepts connections, on shard 0, and chooses the shard that serves each.
//!
//! One shard accepts for all and hands the sockets on. A thread of its own for this would cost each
//! connection one more wake-up and thread switch, a seventh of the cost of opening it.

use std::io;
use std::net::{TcpListener, TcpStream};

use leveret_ring::{ListenerId, Ring, RingError};
use tracing::{debug, error, warn};

use crate::log::Rate;
use crate::shared_state::connection_placement::{ConnectionPlacement, Refusal};

/// The shard that listens.
pub(crate) const ACCEPTING_SHARD: usize = 0;

/// The listeners, and rate limits for log lines about connections. On all shards but one there are
/// no listeners.
pub(crate) struct Acceptor {
    listeners: Vec<ListenerId>,
    /// The shard that got the previous connection.
    last_placed: usize,
    failures: Rate,
    refusals: Rate,
}

impl Acceptor {
    /// Registers the listeners with `ring`. There are `shards` shards.
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
            // With this start value the first connection goes to shard 0.
            last_placed: shards - 1,
            failures: Rate::default(),
            refusals: Rate::default(),
        })
    }

    /// Closes the listeners.
    pub(crate) fn stop(&mut self, ring: &mut Ring) {
        for listener in self.listeners.drain(..) {
            ring.stop_listening(listener);
        }
    }

    /// Puts a connection into the inbox of the shard that will serve it and returns that shard,
    /// which the caller has to wake. `None`: the connection is closed, because there is no room or
    /// the broker is stopping.
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

    /// Logs the failure of a listener. The ring tries again if `retrying`.
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
