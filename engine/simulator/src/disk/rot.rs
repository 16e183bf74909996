//! Damages an image, as disks do over the years.

use leveret_broker::storage::log::BLOCK_BYTES;

use crate::random::Random;

use super::flaw::Rot;
use super::volume::Image;

impl Image {
    /// Damages a random place in one segment's file. Returns segment and offset, or `None` if there
    /// is nothing to damage.
    pub fn rot(&mut self, rot: Rot, before: &Self, random: &mut Random) -> Option<(u32, u32)> {
        let numbers: Vec<u32> = self.segments().map(|(number, _)| number).collect();
        let number = *numbers.get(random.index(numbers.len()))?;
        let file = self.file(super::volume::Name::Segment(number))?;
        let content = self.content(file)?.to_vec();
        let blocks = content.len() / BLOCK_BYTES;
        let block = random.index(blocks) * BLOCK_BYTES;
        let bytes = match rot {
            Rot::Flip => {
                let at = block + random.index(BLOCK_BYTES);
                self.write(file, at, &[content.get(at)? ^ 1 << random.below(8)]);
                return Some((number, at as u32));
            }
            Rot::Truncated => {
                let end = random.index(content.len());
                self.replace(file, content[..end].to_vec());
                return Some((number, end as u32));
            }
            Rot::Blank => vec![0; BLOCK_BYTES],
            Rot::Lost => before.content(file)?.get(block..block + BLOCK_BYTES)?.to_vec(),
            Rot::Misdirected => {
                let other = random.index(blocks) * BLOCK_BYTES;
                content.get(other..other + BLOCK_BYTES)?.to_vec()
            }
        };
        self.write(file, block, &bytes);
        Some((number, block as u32))
    }
}
