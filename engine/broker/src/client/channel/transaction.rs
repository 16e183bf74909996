//! Class tx: publishes and settlements that take effect together.
//!
//! Routing happens at publish, as in RabbitMQ; returns and deliveries wait for the commit.

use leveret_amqp::method::{TxCommitOk, TxRollbackOk, TxSelectOk};

use crate::catalog::object::Destination;
use crate::delivery::unacked::Run;
use crate::error::Exception;
use crate::mesh::batch::{Batch, Parcel};
use crate::message::Message;
use crate::queue::terms::Settlement;

use super::call::{Call, Flow, Outcome};
use super::settle::unknown;

/// Bytes that the uncommitted publishes of one channel may hold: enough for the largest message of
/// the default configuration. RabbitMQ has no limit; a client could fill memory unnoticed.
const TRANSACTION_BYTES_MAX: usize = 128 << 20;

/// The publishes and settlements of a channel since the last commit or rollback.
#[derive(Debug, Default)]
pub struct Transaction {
    batch: Batch,
    publishes: Vec<Publish>,
    destinations: Vec<Destination>,
    /// In the order they were settled. A rollback makes them unacked again.
    settlements: Vec<(Run, Settlement)>,
}

#[derive(Debug)]
struct Publish {
    parcel: Parcel,
    destinations: (usize, usize),
    mandatory: bool,
}

impl Transaction {
    /// Keeps a publish for the commit.
    pub fn publish(
        &mut self,
        message: &Message<'_>,
        destinations: &[Destination],
        mandatory: bool,
    ) -> Result<(), Exception> {
        if self.batch.weight_bytes() + message.size_bytes() > TRANSACTION_BYTES_MAX {
            let text = format!("transaction is larger than {TRANSACTION_BYTES_MAX} bytes");
            return Err(Exception::precondition_failed(text));
        }
        let start = self.destinations.len();
        self.destinations.extend_from_slice(destinations);
        let destinations = (start, self.destinations.len());
        let parcel = self.batch.pack(message);
        self.publishes.push(Publish { parcel, destinations, mandatory });
        Ok(())
    }
}

impl Call<'_> {
    pub(super) fn tx_select(&mut self) -> Outcome {
        if self.channel.confirm {
            let text = "cannot switch from confirm to tx mode";
            return Err(Exception::precondition_failed(text));
        }
        self.channel.transaction.get_or_insert_default();
        self.write(&TxSelectOk {});
        Ok(Flow::Done)
    }

    pub(super) fn tx_commit(&mut self) -> Outcome {
        let transaction = self.transaction()?;
        for publish in &transaction.publishes {
            let (start, end) = publish.destinations;
            // A queue that was deleted since then counts as never matched.
            let mut destinations = transaction.destinations[start..end].to_vec();
            destinations.retain(|found| self.backend.topology.queue_by_id(found.queue).is_some());
            let message = &transaction.batch.unpack(&publish.parcel);
            let (key, mandatory) = (self.channel.key, publish.mandatory);
            let held =
                self.backend.send_to_queues(key, &destinations, &Some(message), mandatory, false);
            self.session.published(self.backend, held);
        }
        for (run, settlement) in transaction.settlements {
            if let Some(outbound) = self.outbound() {
                outbound.settled(&run);
            }
            self.backend.settle_run(&run, settlement, true);
        }
        self.backend.grant(self.channel.key);
        self.write(&TxCommitOk {});
        Ok(Flow::Done)
    }

    pub(super) fn tx_rollback(&mut self) -> Outcome {
        let transaction = self.transaction()?;
        if let Some(outbound) = self.outbound() {
            for (run, _) in transaction.settlements {
                outbound.unacked.put_back(run);
            }
        }
        self.write(&TxRollbackOk {});
        Ok(Flow::Done)
    }

    /// Keeps settlements for the commit.
    pub(super) fn settle_in_transaction(
        &mut self,
        tag: u64,
        multiple: bool,
        settlement: Settlement,
    ) -> Result<(), Exception> {
        let all = multiple && tag == 0;
        let key = self.channel.key;
        let Some((writer, index)) = self.backend.outputs.writers.channel(key) else {
            return Ok(());
        };
        let unacked = &mut writer.channel_at(index).unacked;
        if !all && !unacked.contains(tag) {
            return Err(unknown(tag));
        }
        let settlements = &mut self.channel.transaction.get_or_insert_default().settlements;
        if multiple {
            let through = if all { u64::MAX } else { tag };
            let runs = std::iter::from_fn(|| unacked.take_through(through));
            settlements.extend(runs.map(|run| (run, settlement)));
        } else {
            settlements.extend(unacked.take(tag).map(|run| (run, settlement)));
        }
        Ok(())
    }

    /// Takes the open transaction and starts the next one.
    fn transaction(&mut self) -> Result<Transaction, Exception> {
        match &mut self.channel.transaction {
            Some(transaction) => Ok(std::mem::take(&mut **transaction)),
            None => Err(Exception::precondition_failed("channel is not transactional")),
        }
    }
}
