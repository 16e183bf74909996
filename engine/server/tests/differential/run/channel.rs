//! What a run remembers of an open channel, because no answer will say it.

use std::collections::{BTreeSet, VecDeque};

use crate::step::Action;

/// What the run knows of an open channel.
#[derive(Debug, Default)]
pub(super) struct Channel {
    /// Deliveries to be acknowledged, oldest first; those of one step in the order of their
    /// consumers.
    pub(super) outstanding: Vec<Outstanding>,
    /// The last tag that was acknowledged.
    pub(super) used: Option<u64>,
    /// Of the gets that were not answered yet: whether they are without acknowledgement.
    pub(super) gets: VecDeque<bool>,
    /// Consumers without acknowledgement.
    pub(super) no_ack: BTreeSet<String>,
    /// Whether the consumer whose name the server is about to choose is one.
    pub(super) next_is_no_ack: bool,
    /// Publishes since `confirm.select`.
    pub(super) published: Option<u64>,
    /// Those that were confirmed.
    pub(super) confirmed: BTreeSet<u64>,
    /// Consumers or confirms can make it receive something unasked.
    pub(super) listens: bool,
}

#[derive(Debug)]
pub(super) struct Outstanding {
    pub(super) step: usize,
    pub(super) source: String,
    pub(super) tag: u64,
}

impl Channel {
    pub(super) fn take_outstanding(
        &mut self,
        index: u8,
        end_of_step: bool,
        multiple: bool,
    ) -> Option<u64> {
        if self.outstanding.is_empty() {
            return None;
        }
        let index = usize::from(index) % self.outstanding.len();
        let step = self.outstanding[index].step;
        let tag = if end_of_step {
            let same = self.outstanding.iter().filter(|one| one.step == step);
            same.map(|one| one.tag).max()?
        } else {
            self.outstanding[index].tag
        };
        self.outstanding.retain(|one| if multiple { one.tag > tag } else { one.tag != tag });
        self.used = Some(tag);
        Some(tag)
    }

    pub(super) fn note(&mut self, part: &Action) {
        match part {
            Action::Get { no_ack, .. } => self.gets.push_back(*no_ack),
            Action::Consume { consumer_tag, no_ack, .. } => {
                self.listens = true;
                self.next_is_no_ack = *no_ack;
                if *no_ack {
                    self.no_ack.insert((*consumer_tag).to_owned());
                } else {
                    self.no_ack.remove(*consumer_tag);
                }
            }
            Action::Recover { .. } | Action::RecoverAsync { .. } => self.outstanding.clear(),
            Action::ConfirmSelect { .. } => {
                self.listens = true;
                self.published.get_or_insert(0);
            }
            Action::Publish(_) => {
                if let Some(published) = &mut self.published {
                    *published += 1;
                }
            }
            _ => {}
        }
    }

    pub(super) fn add_outstanding(&mut self, step: usize, source: String, tag: u64) {
        self.outstanding.push(Outstanding { step, source, tag });
        self.outstanding.sort_by(|left, right| {
            (left.step, &left.source, left.tag).cmp(&(right.step, &right.source, right.tag))
        });
    }
}
